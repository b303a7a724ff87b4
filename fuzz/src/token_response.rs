//! An answer of the token endpoint: a line with `STATUS CONTENT-TYPE`, then the body.

use std::sync::{Arc, Mutex, OnceLock};

use http::{HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use serde_json::Value;
use steadfast::{
    BoxError, Delivery, IssueError, IssueReason, IssueRequest, IssuedToken, Lifetime, OAuthCode, TokenSource, Verdict,
    oauth::{ClientCredentialsGrant, RefreshTokenGrant, TokenEndpointError, TransportError},
};

use super::{at_once, is_fit_to_be_shown, printed};

pub fn holds(data: &[u8]) {
    let answer = read(data);
    let (refreshed, rotated) = refresh(&answer);
    let issued = client_credentials(&answer);
    for outcome in [&refreshed, &issued] {
        match outcome {
            Ok(token) => a_token_can_be_sent_and_ends_in_time(token, &answer),
            Err(error) => {
                only_an_oauth_verdict_is_final(error, &answer);
                what_is_said_is_bounded_and_without_a_secret(error, &answer);
            }
        }
    }
    both_grants_read_the_same(&refreshed, &issued);
    if let Some(rotated) = rotated {
        assert!(answer.status().is_success(), "a refresh token was taken from a {}", answer.status());
        assert!(is_token(&rotated), "{rotated:?}");
    }
}

fn a_token_can_be_sent_and_ends_in_time(token: &IssuedToken, answer: &Response<Vec<u8>>) {
    assert!(answer.status().is_success());
    let secret = token.expose_secret();
    assert!(is_token(secret), "{secret:?}");
    HeaderValue::try_from(format!("Bearer {secret}")).unwrap();
    if let Lifetime::Known(lifetime) = token.lifetime() {
        assert!(!lifetime.is_zero() && lifetime <= Lifetime::LONGEST);
    }
    let body = String::from_utf8_lossy(answer.body());
    // Where nothing is escaped, what was read stands there; and where it stands once, it is nothing but the token.
    if !body.contains(['\\', '%', '+']) {
        assert!(body.contains(secret), "{secret:?} is not in {body:?}");
        if body.matches(secret).count() == 1 {
            let other = body.replace(secret, &"x".repeat(secret.len())).into_bytes();
            let other = client_credentials(&answer.clone().map(|_| other)).unwrap();
            assert_eq!(format!("{token:?} {token:#?}"), format!("{other:?} {other:#?}"), "the secret is shown");
        }
    }
}

fn only_an_oauth_verdict_is_final(error: &IssueError, answer: &Response<Vec<u8>>) {
    let status = answer.status().as_u16();
    let may_decide = matches!(status, 200..=299 | 400..=499) && !matches!(status, 408 | 425 | 429);
    if let Verdict::Rejected(code) | Verdict::Unconfirmed(code) = error.verdict() {
        assert!(may_decide, "{code} on a {status}");
        let body = String::from_utf8_lossy(answer.body()).to_ascii_lowercase();
        let ours = *code == "unsupported_token_type";
        assert!(ours || body.contains(['\\', '%', '+']) || body.contains(code.as_str()), "{code} is not in {body:?}");
    } else {
        assert_eq!(error.verdict(), &Verdict::Transient);
    }
    assert_ne!(error.delivery(), Delivery::NotSent);
}

fn what_is_said_is_bounded_and_without_a_secret(error: &IssueError, answer: &Response<Vec<u8>>) {
    let facts = facts(error);
    assert_eq!(facts.status(), Some(answer.status()));
    assert!(facts.code().is_none_or(|code| OAuthCode::new(code.as_str()).as_ref() == Some(code)));
    let description = facts.description().unwrap_or_default();
    assert!(description.chars().count() <= 256 && is_fit_to_be_shown(description), "{description:?}");

    let printed = printed(error);
    assert!(printed.len() <= 8 * 1024, "{}", printed.len());
    assert!(is_fit_to_be_shown(&printed.replace('\n', " ")), "{printed:?}");
    for secret in SECRETS {
        assert!(!printed.contains(secret) && !description.contains(secret), "{secret} in {printed}");
    }
    let Ok(Value::Object(fields)) = serde_json::from_slice(answer.body()) else { return };
    for token in ["access_token", "refresh_token"].into_iter().filter_map(|name| fields.get(name)?.as_str()) {
        let token = token.trim();
        // In place of a token stands `[redacted]`, and that is none.
        let may_be_ours = token.contains(['[', ']']) || "redacted".contains(token);
        if token.len() >= TELLING && is_token(token) && !may_be_ours {
            assert!(!description.contains(token), "{token} in {description:?}");
        }
    }
}

fn both_grants_read_the_same(refreshed: &Result<IssuedToken, IssueError>, issued: &Result<IssuedToken, IssueError>) {
    match (refreshed, issued) {
        (Ok(one), Ok(other)) => {
            assert_eq!((one.expose_secret(), one.lifetime()), (other.expose_secret(), other.lifetime()));
        }
        (Err(one), Err(other)) => {
            assert_eq!((one.verdict(), one.rule()), (other.verdict(), other.rule()));
            assert_eq!(one.retry_after(), other.retry_after());
            assert_eq!(other.delivery(), Delivery::Answered, "nothing was spent");
        }
        (one, other) => panic!("{one:?} for the one, {other:?} for the other"),
    }
}

fn refresh(answer: &Response<Vec<u8>>) -> (Result<IssuedToken, IssueError>, Option<String>) {
    let rotated = Arc::new(Mutex::new(None));
    let grant = RefreshTokenGrant::builder("https://login.example.com/token", "fuzzer", REFRESH_TOKEN)
        .client_secret(CLIENT_SECRET)
        .http(answering(answer))
        .on_rotation({
            let rotated = Arc::clone(&rotated);
            move |token| {
                static SHOWN: OnceLock<String> = OnceLock::new();
                let shown = format!("{token:?} {token:#?}");
                assert_eq!(SHOWN.get_or_init(|| shown.clone()), &shown, "the secret is shown");
                *rotated.lock().unwrap() = Some(token.expose_secret().to_owned());
            }
        });
    let issued = ask(&grant.build().unwrap());
    let rotated = rotated.lock().unwrap().take();
    (issued, rotated)
}

fn client_credentials(answer: &Response<Vec<u8>>) -> Result<IssuedToken, IssueError> {
    let grant = ClientCredentialsGrant::builder("https://login.example.com/token", "fuzzer")
        .client_secret(CLIENT_SECRET)
        // So that both have the same secrets to hide.
        .param("password", REFRESH_TOKEN)
        .http(answering(answer));
    ask(&grant.build().unwrap())
}

fn ask(grant: &impl TokenSource) -> Result<IssuedToken, IssueError> {
    let issued = at_once(grant.issue(&IssueRequest::new(IssueReason::Initial)));
    issued.map_err(|error: BoxError| *error.downcast().unwrap())
}

fn answering(answer: &Response<Vec<u8>>) -> impl steadfast::oauth::TokenHttp + use<> {
    let answer = answer.clone();
    move |_: Request<Vec<u8>>| {
        let answer = answer.clone();
        async { Ok::<_, TransportError>(answer) }
    }
}

fn read(data: &[u8]) -> Response<Vec<u8>> {
    let end = data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len());
    let (line, body) = data.split_at(end);
    let (status, content_type) = line.split_at(line.len().min(3));
    let mut answer = Response::new(body.get(1..).unwrap_or_default().to_vec());
    *answer.status_mut() = StatusCode::from_bytes(status).unwrap_or(StatusCode::OK);
    if let Ok(content_type) = HeaderValue::from_bytes(content_type.trim_ascii()) {
        answer.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    answer
}

/// RFC 6749 appendix A.12.
fn is_token(text: &str) -> bool {
    !text.trim().is_empty() && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

fn facts(error: &IssueError) -> &TokenEndpointError {
    std::error::Error::source(error).unwrap().downcast_ref().unwrap()
}

/// Without a stretch of letters and digits that is long enough to be found by itself.
const REFRESH_TOKEN: &str = "rt/7+Q x=Zz9";
const CLIENT_SECRET: &str = "s3cret-of-the-fuzzer";

/// What was sent, in every spelling that a server may repeat it in. The last is the `Authorization` header's.
const SECRETS: [&str; 7] = [
    REFRESH_TOKEN,
    "rt%2F7%2BQ+x%3DZz9",
    "rt%2F7%2BQ%20x%3DZz9",
    "rt%2f7%2bQ+x%3dZz9",
    "rt%2f7%2bQ%20x%3dZz9",
    CLIENT_SECRET,
    "ZnV6emVyOnMzY3JldC1vZi10aGUtZnV6emVy",
];

const TELLING: usize = 8;
