//! How long an answer asks us to stay away: lines of `name: value`.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use steadfast::{
    IssueError, IssueReason, IssueRequest, Lifetime, TokenSource, Verdict,
    oauth::{ClientCredentialsGrant, TransportError},
};

use super::at_once;

pub fn holds(data: &[u8]) {
    let lines = lines(data);
    let wish = wish(&lines);
    assert!(wish.is_none_or(|wish| wish <= Lifetime::LONGEST));
    assert!(wish.is_none() || lines.iter().any(|(name, _)| ASKING.contains(&name.as_str())));
    a_plain_number_of_seconds_is_taken_as_it_is(&lines, wish);

    let mut reversed = lines.clone();
    // Of several dates the first one counts, so those keep their place.
    reversed.sort_by_key(|(name, _)| name != "date");
    let dates = reversed.iter().take_while(|(name, _)| name == "date").count();
    reversed[dates..].reverse();
    assert_eq!(self::wish(&reversed), wish, "the order of the wishes counts");

    let mut more = lines;
    more.push((HeaderName::from_static("retry-after"), HeaderValue::from_static("60")));
    assert_eq!(self::wish(&more), wish.max(Some(Duration::from_secs(60))), "the longest wish counts");
}

fn a_plain_number_of_seconds_is_taken_as_it_is(lines: &[(HeaderName, HeaderValue)], wish: Option<Duration>) {
    for (_, value) in lines.iter().filter(|(name, _)| name == "retry-after") {
        let text = value.to_str().unwrap_or_default().trim();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let seconds = Duration::from_secs(text.parse().unwrap_or(u64::MAX)).min(Lifetime::LONGEST);
            assert!(wish.is_some_and(|wish| wish >= seconds), "{text} gave {wish:?}");
        }
    }
}

/// What the grant makes of an answer with these headers. They never change what the answer means.
fn wish(lines: &[(HeaderName, HeaderValue)]) -> Option<Duration> {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(name.clone(), value.clone());
    }
    let http = move |_: Request<Vec<u8>>| {
        let mut answer = Response::new(Vec::new());
        *answer.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        *answer.headers_mut() = headers.clone();
        async { Ok::<_, TransportError>(answer) }
    };
    let grant = ClientCredentialsGrant::builder("https://login.example.com/token", "fuzzer").http(http);
    let issued = at_once(grant.build().unwrap().issue(&IssueRequest::new(IssueReason::Initial)));
    let error = issued.unwrap_err().downcast::<IssueError>().unwrap();
    assert_eq!((error.verdict(), error.rule()), (&Verdict::Transient, "server-error"));
    error.retry_after()
}

fn lines(data: &[u8]) -> Vec<(HeaderName, HeaderValue)> {
    let lines = data.split(|&byte| byte == b'\n').take(64);
    let pairs = lines.filter_map(|line| {
        let at = line.iter().position(|&byte| byte == b':')?;
        let (name, value) = line.split_at(at);
        Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(&value[1..]).ok()?))
    });
    pairs.collect()
}

const ASKING: [&str; 3] = ["retry-after", "retry-after-ms", "x-ms-retry-after-ms"];
