//! What an answer of the token endpoint means: one table over the raw exchange, first match wins.

use std::time::Duration;

use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::{fields::Fields, secrets::Secrets};
use crate::{Delivery, IssuedToken, OAuthCode, Verdict, challenge, failure::printable};

/// An answer, understood.
pub(super) struct Judged {
    pub(super) issued: Result<IssuedToken, Refusal>,
    /// What the server put in the old refresh token's place: kept whether or not the rest of the answer is of use, for
    /// the old one is spent.
    pub(super) refresh_token: Option<SecretString>,
}

/// An answer that is no usable token. Holds no text of the server's but what has been cleaned.
pub(super) struct Refusal {
    pub(super) rule: &'static str,
    pub(super) verdict: Verdict,
    pub(super) delivery: Delivery,
    pub(super) status: StatusCode,
    pub(super) code: Option<OAuthCode>,
    pub(super) description: Option<String>,
    pub(super) retry_after: Option<Duration>,
}

/// What was asked, as far as it bears on the answer.
pub(super) struct Asked {
    /// The request carried a single-use refresh token: an answer from a server in trouble leaves open whether it is spent.
    pub(super) rotating: bool,
    pub(super) secrets: Secrets,
}

pub(super) fn judge(answer: &http::Response<Vec<u8>>, asked: &Asked) -> Judged {
    let status = answer.status();
    let fields = Fields::read(answer);
    let ruling = match status.as_u16() {
        200..=299 => rule_on_success(&fields, &asked.secrets),
        300..=399 => Ruling::passing("redirect"),
        408 => Ruling::in_doubt("request-timeout"),
        425 => Ruling::passing("too-early"),
        429 => Ruling::passing("rate-limited"),
        400..=499 => rule_on_error(&fields, &asked.secrets).unwrap_or(Ruling::passing("no-code")),
        // Any body: a code echoed on a 5xx is no verdict.
        500..=599 => Ruling::in_doubt("server-error"),
        _ => Ruling::passing("unexpected-status"),
    };
    let refusal = |rule, verdict, code, in_doubt: bool| Refusal {
        rule,
        verdict,
        delivery: if in_doubt && asked.rotating { Delivery::Unknown } else { Delivery::Answered },
        status,
        code,
        description: describe(&fields, &asked.secrets),
        retry_after: challenge::retry_after(answer.headers()),
    };
    let issued = match ruling {
        Ruling::Granted(access_token) => {
            Ok(IssuedToken::bearer(access_token.expose_secret()).expires_in(fields.lifetime()).scopes(fields.scopes()))
        }
        Ruling::Passing { rule, code, in_doubt } => Err(refusal(rule, Verdict::Transient, code, in_doubt)),
        Ruling::Unconfirmed { rule, code } => Err(refusal(rule, Verdict::Unconfirmed(code.clone()), Some(code), false)),
        Ruling::Rejected { rule, code } => Err(refusal(rule, Verdict::Rejected(code.clone()), Some(code), false)),
    };
    let refresh_token = status.is_success().then(|| fields.token("refresh_token"));
    Judged { issued, refresh_token: refresh_token.flatten() }
}

/// What a row of the table says.
enum Ruling {
    Granted(SecretString),
    /// It may pass. In doubt: the server may have acted on the request all the same.
    Passing {
        rule: &'static str,
        code: Option<OAuthCode>,
        in_doubt: bool,
    },
    Unconfirmed {
        rule: &'static str,
        code: OAuthCode,
    },
    Rejected {
        rule: &'static str,
        code: OAuthCode,
    },
}

impl Ruling {
    const fn passing(rule: &'static str) -> Self {
        Self::Passing { rule, code: None, in_doubt: false }
    }

    const fn in_doubt(rule: &'static str) -> Self {
        Self::Passing { rule, code: None, in_doubt: true }
    }
}

fn rule_on_success(fields: &Fields, secrets: &Secrets) -> Ruling {
    if let Some(access_token) = fields.token("access_token") {
        return match fields.text("token_type").map(str::to_ascii_lowercase).as_deref() {
            None => Ruling::Granted(access_token),
            Some(bearer) if bearer.starts_with("bearer") || SLACK_BEARERS.contains(&bearer) => {
                Ruling::Granted(access_token)
            }
            Some(bound) if BOUND_TYPES.contains(&bound) => {
                Ruling::Rejected { rule: "unsupported-token-type", code: OAuthCode::unsupported_token_type() }
            }
            // RFC 6749 §7.1: a token of a type that is not understood is not to be used.
            Some(_) => Ruling::in_doubt("unknown-token-type"),
        };
    }
    // GitHub and Slack answer errors with 200. Anything else without a token came from a proxy or a captive portal.
    let names_an_error = fields.get("error").is_some_and(|error| !error.is_null());
    names_an_error.then(|| rule_on_error(fields, secrets)).flatten().unwrap_or(Ruling::in_doubt("no-token"))
}

fn rule_on_error(fields: &Fields, secrets: &Secrets) -> Option<Ruling> {
    let code = code_of(fields).filter(|code| is_known(code) || !secrets.give_away(code));
    if says_that_it_passes(fields) {
        return Some(Ruling::Passing { rule: "passing-description", code, in_doubt: false });
    }
    let code = code?;
    Some(match saying_of(code.as_str()) {
        Saying::Final => Ruling::Rejected { rule: "rejected-code", code },
        Saying::Later | Saying::Slower => Ruling::Passing { rule: "transient-code", code: Some(code), in_doubt: false },
        Saying::Unclear => Ruling::Unconfirmed { rule: "unconfirmed-code", code },
    })
}

/// What an error code says, wherever it is met.
pub(crate) enum Saying {
    Final,
    Later,
    Slower,
    /// The code is ambiguous, or nobody knows it.
    Unclear,
}

/// Whether a rejection with this code ends the login for all who share it. One about the client or the request is no reason
/// to end a login that other processes use with success, and a user who has to do something may do it.
pub(crate) fn condemns(code: &str) -> bool {
    rejection(code) == Some(About::RefreshToken)
}

fn rejection(code: &str) -> Option<About> {
    REJECTED.iter().find(|(rejected, _)| *rejected == code).map(|(_, about)| *about)
}

pub(crate) fn saying_of(code: &str) -> Saying {
    if rejection(code).is_some() {
        Saying::Final
    } else if TRANSIENT.contains(&code) {
        Saying::Later
    } else if THROTTLED.contains(&code) {
        Saying::Slower
    } else {
        Saying::Unclear
    }
}

/// The code in `error` (RFC 6749 §5.2), or a known one in the places where some servers put it instead: at the top
/// (Okta, Supabase, HubSpot) or in an object under `error` (OpenAI).
fn code_of(fields: &Fields) -> Option<OAuthCode> {
    let error = fields.get("error");
    let in_place = error.and_then(Value::as_str).and_then(|text| {
        let text = text.trim();
        // "Unauthorized" is a gateway's phrase, not a code: only a known one may be in capitals.
        OAuthCode::new(text).filter(|code| code == text || is_known(code))
    });
    in_place.or_else(|| {
        let at_top = CODE_KEYS.iter().map(|key| fields.get(key));
        let under_error = CODE_KEYS.iter().map(|key| error?.get(key));
        at_top
            .chain(under_error)
            .flatten()
            .filter_map(Value::as_str)
            .filter_map(|text| OAuthCode::new(text.trim()))
            .find(is_known)
    })
}

fn is_known(code: &OAuthCode) -> bool {
    let code = code.as_str();
    rejection(code).is_some() || [TRANSIENT, THROTTLED, AMBIGUOUS].iter().any(|list| list.contains(&code))
}

fn says_that_it_passes(fields: &Fields) -> bool {
    let mut said = descriptions(fields).collect::<Vec<_>>().join("\n");
    said.make_ascii_lowercase();
    let numbers = fields.get("error_codes").map(Value::to_string).unwrap_or_default();
    let mut numbers = [said.as_str(), numbers.as_str()]
        .into_iter()
        .flat_map(|text| text.split(|character: char| !character.is_ascii_digit()));
    PASSING_PHRASES.iter().any(|phrase| said.contains(phrase))
        || numbers.any(|number| PASSING_NUMBERS.contains(&number))
}

fn describe(fields: &Fields, secrets: &Secrets) -> Option<String> {
    let description = descriptions(fields).next()?;
    let mut secrets = secrets.clone();
    // Of an answer that is of no use the tokens may be good all the same.
    for token in TOKEN_KEYS.iter().filter_map(|key| fields.token(key)) {
        secrets.add(token.expose_secret());
    }
    // Redacted before it is cut, or half a secret would stay at the end.
    Some(printable(&secrets.redact(description, DESCRIPTION + 1), DESCRIPTION))
}

fn descriptions(fields: &Fields) -> impl Iterator<Item = &str> {
    DESCRIPTION_KEYS.iter().filter_map(|key| fields.text(key))
}

/// Slack's names for its two kinds of bearer token.
const SLACK_BEARERS: &[&str] = &["bot", "user"];

/// Tokens that need a proof of possession we cannot make (RFC 9449, RFC 8693's `N_A`); asking again brings no other kind.
const BOUND_TYPES: &[&str] = &["dpop", "mac", "n_a"];

/// The authorization server's final word, and what it is about.
const REJECTED: &[(&str, About)] = &[
    // RFC 6749 §5.2; `invalid_target` RFC 8707 §2, `invalid_token` RFC 6750 §3.1.
    ("invalid_grant", About::RefreshToken),
    ("invalid_client", About::Client),
    ("unauthorized_client", About::Client),
    ("unsupported_grant_type", About::Request),
    ("invalid_scope", About::Request),
    ("invalid_target", About::Request),
    ("invalid_token", About::RefreshToken),
    // OpenID Connect Core §3.1.2.6, answered to a refresh by Entra.
    ("interaction_required", About::User),
    ("login_required", About::User),
    ("consent_required", About::User),
    // The refresh token is gone, in the words of OpenAI, Supabase, GitHub, HubSpot and Slack.
    ("refresh_token_expired", About::RefreshToken),
    ("refresh_token_reused", About::RefreshToken),
    ("refresh_token_invalidated", About::RefreshToken),
    ("refresh_token_not_found", About::RefreshToken),
    ("bad_refresh_token", About::RefreshToken),
    ("invalid_refresh_token", About::RefreshToken),
    ("token_expired", About::RefreshToken),
    ("token_revoked", About::RefreshToken),
    ("account_inactive", About::User),
    // The client is not known, in the words of GitHub and Slack.
    ("incorrect_client_credentials", About::Client),
    ("bad_client_secret", About::Client),
    ("invalid_client_id", About::Client),
];

/// What a rejection is about: only one of them says that a refresh token is of no use to anybody any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    RefreshToken,
    User,
    Client,
    Request,
}

/// The server's way to say "not now".
const TRANSIENT: &[&str] = &[
    // RFC 6749 §4.1.2.1, RFC 8628 §3.5, RFC 9449 §8.
    "temporarily_unavailable",
    "server_error",
    "authorization_pending",
    "use_dpop_nonce",
    // Outages in the words of Slack and of gateways.
    "internal_error",
    "fatal_error",
    "service_unavailable",
    "request_timeout",
];

/// Too much at once: RFC 8628 §3.5, then Slack's and others' words.
const THROTTLED: &[&str] = &["slow_down", "ratelimited", "accesslimited", "rate_limit_exceeded", "too_many_requests"];

/// Codes that servers send in an outage as well as for a verdict; like unknown ones, they have to be confirmed.
const AMBIGUOUS: &[&str] = &["invalid_request", "access_denied"];

/// Where a code may stand if `error` holds none.
const CODE_KEYS: &[&str] = &["errorCode", "error_code", "status", "code"];

/// Where tokens stand (RFC 6749 §5.1, OpenID Connect Core §3.1.3.3).
const TOKEN_KEYS: &[&str] = &["access_token", "refresh_token", "id_token"];

/// Where a server explains itself; `error_description` is the standard's (RFC 6749 §5.2).
const DESCRIPTION_KEYS: &[&str] = &["error_description", "errorSummary", "error_hint", "message", "msg"];

/// Salesforce and Hydra under concurrency, Exact Online's limit; all three come with a code that sounds final.
const PASSING_PHRASES: &[&str] = &["already being processed", "retry the request", "rate limit"];

/// Entra: 50196 too many requests in a loop, 53003 a policy refuses the network the client is in now.
const PASSING_NUMBERS: &[&str] = &["50196", "53003"];

/// In characters; the ellipsis of a cut text makes it 256.
const DESCRIPTION: usize = 255;

#[cfg(test)]
mod tests;
