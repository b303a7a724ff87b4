//! The host's (or our) way to obtain a new access token over the network.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use crate::{BoxError, IssuedToken, RefreshPolicy};

/// A way to obtain a new access token over the network. It never caches: that is the monitor's work.
///
/// One call is one *attempt*. The monitor makes one attempt at a time, in a task that no caller owns, so
/// a caller that goes away never cancels it; the attempt is dropped only by its own time limit
/// ([`RefreshPolicy::attempt_timeout`](crate::RefreshPolicy::attempt_timeout)) or with the runtime. A panic in here
/// is a failed attempt.
///
/// A source that knows why it failed says so with an [`IssueError`](crate::IssueError), as the error itself or anywhere in
/// its `source()` chain. Every other error counts as transient.
///
/// Guide: [writing a `TokenSource`](crate::guide::token_source).
///
/// Closures are sources too:
///
/// ```
/// use steadfast::{IssuedToken, TokenSource};
///
/// fn takes_a_source(_: impl TokenSource) {}
/// takes_a_source(|| async { Ok(IssuedToken::bearer("s3cret")) });
/// ```
#[async_trait]
pub trait TokenSource: Send + Sync + 'static {
    /// Obtains a new token.
    ///
    /// # Errors
    /// Whatever went wrong; see the trait's documentation for how it is understood.
    async fn issue(&self, request: &IssueRequest) -> Result<IssuedToken, BoxError>;

    /// Whether asking again can bring another token. `false` for a static bearer token, whose rejection
    /// (401) cannot be cured by asking again.
    fn can_refresh(&self) -> bool {
        true
    }

    /// Whether nothing is lost with this source: one that is made anew in its place gets the same tokens. `true` where every
    /// secret came from elsewhere and is still good there, `false` where a rotated refresh token is in here only.
    /// A [`TokenRegistry`](crate::TokenRegistry) drops a source that is not used only if it says so. Asked between
    /// attempts. Defaults to `false`.
    fn is_replaceable(&self) -> bool {
        false
    }

    /// How long a call may take on top of [`attempt_timeout`](RefreshPolicy::attempt_timeout), for what is no exchange with
    /// the token endpoint: waiting until another process is done with the same login. A source that says so bounds
    /// its exchange by [`IssueRequest::time_limit`] itself. Defaults to none.
    fn extra_time(&self) -> Duration {
        Duration::ZERO
    }
}

/// What the monitor tells a source about the token it wants.
///
/// ```
/// use steadfast::{IssueReason, IssueRequest};
///
/// let request = IssueRequest::new(IssueReason::Rejected).with_claims(r#"{"access_token":{}}"#);
/// assert_eq!(request.reason(), IssueReason::Rejected);
/// assert!(request.claims().is_some());
/// ```
#[derive(Clone)]
pub struct IssueRequest {
    reason: IssueReason,
    claims: Option<String>,
    policy: Option<Arc<RefreshPolicy>>,
    cancelled: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

impl IssueRequest {
    /// A request for this reason. Public so that sources can be tested without a monitor.
    #[must_use]
    pub const fn new(reason: IssueReason) -> Self {
        Self { reason, claims: None, policy: None, cancelled: None }
    }

    /// Adds the claims that a resource server asked for (Continuous Access Evaluation), as decoded JSON text.
    #[must_use]
    pub fn with_claims(mut self, claims: impl Into<String>) -> Self {
        self.claims = Some(claims.into());
        self
    }

    /// The policy of the monitor that asks.
    pub(crate) fn under(mut self, policy: Arc<RefreshPolicy>) -> Self {
        self.policy = Some(policy);
        self
    }

    pub(crate) fn cancelled_when(mut self, cancelled: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.cancelled = Some(Arc::new(cancelled));
        self
    }

    pub(crate) fn policy(&self) -> &RefreshPolicy {
        self.policy.as_deref().unwrap_or(&RefreshPolicy::DEFAULT)
    }

    /// The time limit of one exchange, from connecting to the last byte of the answer.
    #[must_use]
    pub fn time_limit(&self) -> Duration {
        self.policy().attempt_timeout
    }

    /// Whether nobody wants the token any more: the monitor was shut down, or has new credentials. A source that had to
    /// wait before it could send looks here, and sends nothing.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.as_ref().is_some_and(|cancelled| cancelled())
    }

    /// Why a token is wanted now.
    #[must_use]
    pub const fn reason(&self) -> IssueReason {
        self.reason
    }

    /// The claims a resource server asked for (`claims` of an `insufficient_claims` challenge), as decoded JSON text.
    #[must_use]
    pub fn claims(&self) -> Option<&str> {
        self.claims.as_deref()
    }
}

impl fmt::Debug for IssueRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Claims may hold the user's address, or what a session is bound to.
        let Self { reason, claims, policy: _, cancelled: _ } = self;
        f.debug_struct("IssueRequest")
            .field("reason", reason)
            .field("claims", &claims.as_ref().map(|_| "…"))
            .finish_non_exhaustive()
    }
}

/// What is asked for counts, not who asks.
impl PartialEq for IssueRequest {
    fn eq(&self, other: &Self) -> bool {
        let Self { reason, claims, policy: _, cancelled: _ } = other;
        self.reason == *reason && self.claims == *claims
    }
}

impl Eq for IssueRequest {}

/// Why an attempt was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IssueReason {
    /// The first token of a run.
    Initial,
    /// The held token is inside its advisory window.
    Ahead,
    /// A caller wants a token and there is none that may be served.
    Expired,
    /// The resource server refused the held token.
    Rejected,
    /// The host asked for an attempt ([`retry_now`](crate::MonitoredTokenSource::retry_now)).
    Nudged,
    /// A look whether the token endpoint is back.
    Probe,
}

impl IssueReason {
    /// One word, for logs and metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Ahead => "ahead",
            Self::Expired => "expired",
            Self::Rejected => "rejected",
            Self::Nudged => "nudged",
            Self::Probe => "probe",
        }
    }
}

impl fmt::Display for IssueReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A source for a fixed bearer token that nobody can refresh.
///
/// ```
/// use steadfast::{StaticToken, TokenSource};
///
/// let source = StaticToken::new("s3cret");
/// assert!(!source.can_refresh());
/// assert!(!format!("{source:?}").contains("s3cret"));
/// ```
#[derive(Clone, Debug)]
pub struct StaticToken {
    secret: SecretString,
}

impl StaticToken {
    /// A source that always answers with this token.
    #[must_use]
    pub fn new(secret: impl Into<String>) -> Self {
        Self { secret: SecretString::from(secret.into()) }
    }
}

#[async_trait]
impl TokenSource for StaticToken {
    async fn issue(&self, _: &IssueRequest) -> Result<IssuedToken, BoxError> {
        Ok(IssuedToken::bearer(self.secret.expose_secret()))
    }

    fn can_refresh(&self) -> bool {
        false
    }

    fn is_replaceable(&self) -> bool {
        true
    }
}

/// A source made of a closure that looks at the request.
///
/// ```
/// use steadfast::{IssueReason, IssuedToken, source_fn};
///
/// let source = source_fn(|request| async move {
///     let secret = if request.reason() == IssueReason::Initial { "first" } else { "later" };
///     Ok(IssuedToken::bearer(secret))
/// });
/// # fn takes_a_source(_: impl steadfast::TokenSource) {}
/// # takes_a_source(source);
/// ```
pub fn source_fn<F, Fut>(issue: F) -> SourceFn<F>
where
    F: Fn(IssueRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<IssuedToken, BoxError>> + Send,
{
    SourceFn(issue)
}

/// See [`source_fn`].
#[derive(Clone)]
pub struct SourceFn<F>(F);

impl<F> fmt::Debug for SourceFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SourceFn")
    }
}

#[async_trait]
impl<F, Fut> TokenSource for SourceFn<F>
where
    F: Fn(IssueRequest) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<IssuedToken, BoxError>> + Send,
{
    async fn issue(&self, request: &IssueRequest) -> Result<IssuedToken, BoxError> {
        (self.0)(request.clone()).await
    }
}

#[async_trait]
impl<F, Fut> TokenSource for F
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<IssuedToken, BoxError>> + Send,
{
    async fn issue(&self, _: &IssueRequest) -> Result<IssuedToken, BoxError> {
        self().await
    }
}

#[async_trait]
impl TokenSource for Box<dyn TokenSource> {
    async fn issue(&self, request: &IssueRequest) -> Result<IssuedToken, BoxError> {
        (**self).issue(request).await
    }

    fn can_refresh(&self) -> bool {
        (**self).can_refresh()
    }

    fn is_replaceable(&self) -> bool {
        (**self).is_replaceable()
    }

    fn extra_time(&self) -> Duration {
        (**self).extra_time()
    }
}

#[async_trait]
impl<T: TokenSource + ?Sized> TokenSource for Arc<T> {
    async fn issue(&self, request: &IssueRequest) -> Result<IssuedToken, BoxError> {
        (**self).issue(request).await
    }

    fn can_refresh(&self) -> bool {
        (**self).can_refresh()
    }

    fn is_replaceable(&self) -> bool {
        (**self).is_replaceable()
    }

    fn extra_time(&self) -> Duration {
        (**self).extra_time()
    }
}
