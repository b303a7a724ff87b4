//! What callers see when there is no token for them.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use http::{HeaderValue, Response, StatusCode, header};

use crate::IssueError;

/// Why a caller gets no token now.
///
/// Cheap to clone: every caller of an outage shares the one failure that is behind it, which `source()` leads to.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), steadfast::BuildError> {
/// use steadfast::{AuthError, IssuedToken, MonitoredTokenSource};
///
/// let tokens = MonitoredTokenSource::builder(|| async { Ok(IssuedToken::bearer("s3cret")) }).spawn()?;
/// tokens.shutdown().await;
/// let error = tokens.token().await.unwrap_err();
/// assert!(error.is_stopped());
/// assert_eq!(error.to_response().status(), 503);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub enum AuthError {
    /// Attempts fail, and the next one is not near.
    Retrying(Failure),
    /// An attempt is under way, and the caller may not wait for it any longer, or cannot: outside a runtime, in
    /// [`try_token`](crate::MonitoredTokenSource::try_token), or because nobody runs the driver.
    StillRefreshing(Failure),
    /// The run has ended: the host needs new credentials or, after the ceiling, at least a nudge.
    Unauthenticated(Failure),
    /// The monitor has ended.
    Stopped(Failure),
}

/// What is behind an [`AuthError`].
#[derive(Clone, Debug)]
pub struct Failure {
    cause: Option<Arc<IssueError>>,
    retry_after: Option<Duration>,
}

impl Failure {
    /// What a host's test of its own error handling begins with.
    ///
    /// ```
    /// use std::time::Duration;
    /// use steadfast::{AuthError, Failure, IssueError};
    ///
    /// let error = AuthError::Retrying(Failure::new(IssueError::transient("down"), Duration::from_secs(40)));
    /// assert_eq!(error.to_response().headers()["retry-after"], "40");
    /// assert_eq!(error.cause().unwrap().rule(), "source");
    /// ```
    pub fn new(cause: impl Into<Option<IssueError>>, retry_after: impl Into<Option<Duration>>) -> Self {
        Self::shared(cause.into().map(Arc::new), retry_after.into())
    }

    pub(crate) const fn shared(cause: Option<Arc<IssueError>>, retry_after: Option<Duration>) -> Self {
        Self { cause, retry_after }
    }
}

impl AuthError {
    /// Whether attempts fail and the next one is not near.
    #[must_use]
    pub const fn is_retrying(&self) -> bool {
        matches!(self, Self::Retrying(_))
    }

    /// Whether an attempt is still under way.
    #[must_use]
    pub const fn is_still_refreshing(&self) -> bool {
        matches!(self, Self::StillRefreshing(_))
    }

    /// Whether the run has ended, so that only the host can go on from here.
    #[must_use]
    pub const fn is_unauthenticated(&self) -> bool {
        matches!(self, Self::Unauthenticated(_))
    }

    /// Whether the monitor has ended.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        matches!(self, Self::Stopped(_))
    }

    /// When asking again may help, in whole seconds: the time to the earliest permitted attempt, 1 s while one is in
    /// flight, `None` where waiting does not help. A caller of the long window waits for no attempt, be it one that its own
    /// demand has started: it is told 1 s, and the next call has the token.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.failure().retry_after
    }

    /// The failed attempt that is behind it, if one has failed. Shared by all who are told of it.
    #[must_use]
    pub fn cause(&self) -> Option<&IssueError> {
        self.failure().cause.as_deref()
    }

    /// 503: not 401, for the *client's* credentials are not the problem.
    #[must_use]
    pub const fn status_code(&self) -> StatusCode {
        StatusCode::SERVICE_UNAVAILABLE
    }

    /// An answer for the host's own client: 503 with `Retry-After` where waiting helps, and a problem document
    /// (RFC 9457) that names nothing but the state.
    #[must_use]
    pub fn to_response(&self) -> Response<String> {
        let kind = match self {
            Self::Retrying(_) => "auth_retrying",
            Self::StillRefreshing(_) => "auth_refreshing",
            Self::Unauthenticated(_) => "unauthenticated",
            Self::Stopped(_) => "stopped",
        };
        let title = "no access token for the upstream service";
        let body =
            format!(r#"{{"type":"about:blank","title":"{title}","status":503,"code":"{kind}","detail":"{self}"}}"#);
        let mut response = Response::new(body);
        *response.status_mut() = self.status_code();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs()));
        }
        response
    }

    /// One word, for metrics.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Retrying(_) => "retrying",
            Self::StillRefreshing(_) => "still_refreshing",
            Self::Unauthenticated(_) => "unauthenticated",
            Self::Stopped(_) => "stopped",
        }
    }

    const fn failure(&self) -> &Failure {
        match self {
            Self::Retrying(failure)
            | Self::StillRefreshing(failure)
            | Self::Unauthenticated(failure)
            | Self::Stopped(failure) => failure,
        }
    }
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retrying(_) => "no access token: attempts to obtain one keep failing",
            Self::StillRefreshing(_) => "no access token yet: an attempt to obtain one is still under way",
            Self::Unauthenticated(_) => "no access token: new credentials, or a nudge, are needed",
            Self::Stopped(_) => "no access token: the token source was stopped",
        })
    }
}

impl Error for AuthError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause().map(|cause| cause as _)
    }
}

/// The monitor has ended, so it cannot do this any more. Build a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token source was stopped; build a new one")]
pub struct Stopped;
