//! What the token endpoint said, or that it could not be asked.

use std::{error::Error, fmt, time::Duration};

use http::StatusCode;

use super::http::TransportError;
use crate::{Delivery, OAuthCode};

/// The cause under an [`IssueError`](crate::IssueError) of a grant: the facts of the failed exchange, without a secret.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::error::Error;
/// use http::{Request, Response};
/// use steadfast::{IssueReason, IssueRequest, TokenSource};
/// use steadfast::oauth::{RefreshTokenGrant, TokenEndpointError, TransportError};
///
/// let answer = r#"{"error":"invalid_grant","error_description":"token rt-1 was revoked"}"#;
/// let http = move |_: Request<Vec<u8>>| async move {
///     let response = Response::builder().status(400).body(answer.into());
///     response.map_err(TransportError::unknown)
/// };
/// let grant = RefreshTokenGrant::builder("https://login.example.com/token", "my-app", "rt-1")
///     .http(http)
///     .build()
///     .unwrap();
///
/// let error = grant.issue(&IssueRequest::new(IssueReason::Initial)).await.unwrap_err();
/// let facts = error.source().unwrap().downcast_ref::<TokenEndpointError>().unwrap();
/// assert_eq!(facts.status().unwrap(), 400);
/// assert_eq!(facts.code().unwrap(), "invalid_grant");
/// assert_eq!(facts.description(), Some("token [redacted] was revoked"));
/// assert_eq!((facts.client_id(), facts.token_host()), ("my-app", "login.example.com"));
/// # }
/// ```
#[derive(Debug)]
pub struct TokenEndpointError {
    pub(super) status: Option<StatusCode>,
    pub(super) code: Option<OAuthCode>,
    pub(super) description: Option<String>,
    pub(super) retry_after: Option<Duration>,
    pub(super) delivery: Delivery,
    pub(super) client_id: String,
    pub(super) token_host: String,
    pub(super) cause: Option<TransportError>,
}

impl TokenEndpointError {
    /// The answer's status, if there was an answer.
    #[must_use]
    pub const fn status(&self) -> Option<StatusCode> {
        self.status
    }

    /// The error code (RFC 6749 §5.2) that decided, if one did. A code on a 5xx decides nothing and is not kept.
    #[must_use]
    pub const fn code(&self) -> Option<&OAuthCode> {
        self.code.as_ref()
    }

    /// The server's own words, for a human: at most 256 characters, control characters escaped, the request's
    /// secrets removed. Still somebody else's text, so it is in no `Display`.
    #[must_use]
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// How long the server asked us to stay away (RFC 9110 §10.2.3).
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// How far the request got.
    #[must_use]
    pub const fn delivery(&self) -> Delivery {
        self.delivery
    }

    /// The client that asked.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Host, and port if not the usual one, of the token endpoint.
    #[must_use]
    pub fn token_host(&self) -> &str {
        &self.token_host
    }
}

impl fmt::Display for TokenEndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.status, self.delivery) {
            (Some(_), _) => "the token endpoint's answer holds no usable token",
            (None, Delivery::NotSent) => "the token endpoint could not be reached",
            (None, Delivery::Answered | Delivery::Unknown) => "the exchange with the token endpoint broke off",
        })
    }
}

impl Error for TokenEndpointError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}
