//! The lines of a `WWW-Authenticate` header.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Uri, header::WWW_AUTHENTICATE};
use steadfast::{Challenge, Lifetime, OAuthCode};

use super::is_fit_to_be_shown;

pub fn holds(data: &[u8]) {
    let headers = headers(data);
    let challenges = Challenge::parse(&headers);
    assert!(challenges.len() <= MOST_CHALLENGES);
    for challenge in &challenges {
        every_value_keeps_its_bounds(challenge);
        what_is_shown_is_bounded_and_fit_for_a_log(challenge);
        what_was_read_reads_the_same_when_it_is_written_by_the_rules(challenge);
    }
    let telling = Challenge::most_telling(&headers);
    assert_eq!(telling.is_some(), !challenges.is_empty());
    assert!(telling.is_none_or(|telling| challenges.contains(&telling)));
    a_further_line_changes_nothing_before_it_and_hides_its_secrets(headers, &challenges);
}

fn every_value_keeps_its_bounds(challenge: &Challenge) {
    assert!(!challenge.scheme().is_empty());
    assert!(challenge.is_scheme(&challenge.scheme().to_ascii_uppercase()));
    assert!(challenge.error().is_none_or(|error| OAuthCode::new(error).is_some()));
    assert!(challenge.max_age().is_none_or(|age| age <= Lifetime::LONGEST));
    assert!(challenge.claims().is_none_or(|claims| claims.len() <= MOST_CLAIMS && claims.trim().starts_with('{')));
    if let Some(description) = challenge.error_description() {
        assert!(description.chars().count() <= MOST_SHOWN && is_fit_to_be_shown(&description), "{description:?}");
    }
    let asked = Uri::from_static("https://api.example.com/v1/things");
    if let Some(metadata) = challenge.resource_metadata_for(&asked) {
        let authority = metadata.authority().unwrap();
        assert_eq!(metadata.scheme_str(), Some("https"));
        assert!(authority.host().eq_ignore_ascii_case("api.example.com"), "{metadata}");
        assert!(matches!(authority.port_u16(), None | Some(443)) && !authority.as_str().contains('@'), "{metadata}");
    }
}

fn what_is_shown_is_bounded_and_fit_for_a_log(challenge: &Challenge) {
    let shown = format!("{challenge:?}");
    // Each character may be quoted once more.
    assert!(shown.chars().count() <= 200 + (1 + 2 * MOST_PARAMS) * (2 * MOST_SHOWN + 10), "{}", shown.len());
    assert!(is_fit_to_be_shown(&shown), "{shown:?}");
}

fn what_was_read_reads_the_same_when_it_is_written_by_the_rules(challenge: &Challenge) {
    let mut text = challenge.scheme().to_owned();
    if let Some(token68) = challenge.token68() {
        text += &format!(" {token68},");
    }
    for name in PARAMS {
        if let Some(value) = challenge.param(name) {
            text += &format!(" {name}=\"{}\",", value.replace('\\', r"\\").replace('"', "\\\""));
        }
    }
    if text.len() > MOST_BYTES {
        return;
    }
    let again: Challenge = text.parse().unwrap_or_else(|_| panic!("{text:?} is not one challenge"));
    assert_eq!((again.scheme(), again.token68()), (challenge.scheme(), challenge.token68()), "{text:?}");
    for name in PARAMS {
        assert_eq!(again.param(name), challenge.param(name), "{name} in {text:?}");
    }
    assert_eq!(again.error(), challenge.error());
    assert_eq!(again.max_age(), challenge.max_age());
}

fn a_further_line_changes_nothing_before_it_and_hides_its_secrets(mut headers: HeaderMap, before: &[Challenge]) {
    let read: usize = headers.get_all(WWW_AUTHENTICATE).iter().map(HeaderValue::len).sum();
    if read > MOST_BYTES - PLANTED.len() || before.len() > MOST_CHALLENGES - 2 {
        return;
    }
    headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(PLANTED));
    let after = Challenge::parse(&headers);
    assert_eq!(&after[..before.len()], before);
    let [negotiate, bearer] = &after[before.len()..] else { panic!("{after:?}") };
    assert_eq!(negotiate.token68(), Some("cGxhbnRlZC1zZWNyZXQ="));
    assert_eq!(bearer.max_age(), Some(Duration::from_secs(7)));
    let shown = format!("{negotiate:?} {bearer:#?}");
    assert!(!shown.contains("planted") && !shown.contains("cGxhbnRlZC1zZWNyZXQ"), "{shown}");
}

/// A byte that no header can hold ends nothing but its own line.
fn headers(data: &[u8]) -> HeaderMap {
    let lines = data.split(|&byte| byte == b'\n').take(1024);
    let values = lines.filter_map(|line| HeaderValue::from_bytes(line).ok());
    values.map(|value| (WWW_AUTHENTICATE, value)).collect::<Vec<_>>().into_iter().fold(
        HeaderMap::new(),
        |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        },
    )
}

const PLANTED: &str =
    r#"Negotiate cGxhbnRlZC1zZWNyZXQ=, Bearer max_age=7, nonce="planted", error_description="planted", x=planted"#;

/// Those with a meaning, and some without.
const PARAMS: [&str; 14] = [
    "acr_values",
    "algs",
    "claims",
    "charset",
    "error",
    "error_description",
    "error_uri",
    "max_age",
    "nonce",
    "realm",
    "resource_metadata",
    "scope",
    "stale",
    "title",
];

const MOST_BYTES: usize = 64 * 1024;
const MOST_CHALLENGES: usize = 32;
const MOST_PARAMS: usize = 64;
const MOST_CLAIMS: usize = 8 * 1024;
const MOST_SHOWN: usize = 257;
