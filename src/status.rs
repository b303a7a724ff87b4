//! What the host is told: the status, the event that carries it, and who listens.

use std::{
    fmt,
    future::Future,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::{
    BoxError, OAuthCode,
    telemetry::{STATUS, seconds},
};

mod snapshot;
pub use snapshot::Snapshot;

/// What state a monitored token source is in.
///
/// ```
/// use steadfast::{AuthStatus, RetryCause};
///
/// let status = AuthStatus::AuthRetrying(RetryCause::TokenEndpoint);
/// assert!(status.is_live());
/// assert_eq!(status.to_string(), "auth retrying: the token endpoint does not give tokens");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuthStatus {
    /// No token has been obtained yet in this run.
    Pending,
    /// All is well, or a short retry is under way that nobody needs to know of as long as a token is served.
    Running,
    /// The short retry did not help. Attempts go on at a slow cadence, callers without a servable token fail fast, and
    /// recovery needs no human.
    AuthRetrying(RetryCause),
    /// The run has ended: only new credentials ([`reauthenticate`](crate::MonitoredTokenSource::reauthenticate)), a nudge
    /// ([`retry_now`](crate::MonitoredTokenSource::retry_now)) or, after a rejection by the resource server, an
    /// acceptance helps.
    Unauthenticated(UnauthenticatedReason),
    /// The monitor has ended, for good.
    Stopped(StopReason),
}

impl AuthStatus {
    /// Whether attempts still go on: not `Unauthenticated`, not `Stopped`. No liveness of the process: a restart helps neither.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        match self {
            Self::Pending | Self::Running | Self::AuthRetrying(_) => true,
            Self::Unauthenticated(_) | Self::Stopped(_) => false,
        }
    }

    /// The status as one word, for metrics and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::AuthRetrying(_) => "auth_retrying",
            Self::Unauthenticated(_) => "unauthenticated",
            Self::Stopped(_) => "stopped",
        }
    }
}

impl fmt::Display for AuthStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("pending"),
            Self::Running => f.write_str("running"),
            Self::AuthRetrying(cause) => write!(f, "auth retrying: {cause}"),
            Self::Unauthenticated(reason) => write!(f, "unauthenticated: {reason}"),
            Self::Stopped(reason) => write!(f, "stopped: {reason}"),
        }
    }
}

/// Why the monitor is in the long window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RetryCause {
    /// The token endpoint does not give tokens.
    TokenEndpoint,
    /// Three fresh tokens in a row were refused by the resource server.
    RejectedByResource,
}

impl fmt::Display for RetryCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TokenEndpoint => "the token endpoint does not give tokens",
            Self::RejectedByResource => "the resource server refuses fresh tokens",
        })
    }
}

/// Why a run ended without a shutdown.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnauthenticatedReason {
    /// The authorization server rejected the grant with this code. Three codes are the crate's own: `login_required` (nobody has
    /// signed in: the store is empty), `signed_out` (somebody has called `SharedLogin::sign_out`) and `unsupported_token_type`
    /// (the server issued a token that is no bearer token: a DPoP one, for instance).
    Rejected(OAuthCode),
    /// Attempts failed for this long, in time the machine was awake.
    CeilingExceeded(Duration),
    /// The resource server refuses a token that cannot be refreshed.
    RejectedByResource,
    /// Another account's login has taken this one's place in the store that it was kept in.
    Replaced,
}

impl fmt::Display for UnauthenticatedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(code) => match code.own() {
                Some(own) => write!(f, "{own} ({code})"),
                None => write!(f, "the authorization server rejected the grant ({code})"),
            },
            Self::CeilingExceeded(ceiling) => {
                write!(f, "no token for longer than the ceiling of {}", humantime::format_duration(*ceiling))
            }
            Self::RejectedByResource => f.write_str("the resource server refuses the token"),
            Self::Replaced => f.write_str("another account's login has taken this one's place in the store"),
        }
    }
}

/// Why the monitor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopReason {
    /// The host called [`shutdown`](crate::MonitoredTokenSource::shutdown).
    ShutDown,
    /// The last handle was dropped.
    HandlesDropped,
    /// Its [`TokenRegistry`](crate::TokenRegistry) has parked it, for nobody was using it. The next
    /// [`get`](crate::TokenRegistry::get) begins a new one.
    Idle,
    /// The driver panicked: a defect of this crate. The one case in which a restart helps.
    DriverPanicked,
    /// The driver's task was aborted, its future dropped, or its runtime shut down.
    DriverDropped,
}

impl StopReason {
    /// One word, for metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ShutDown => "shut_down",
            Self::HandlesDropped => "handles_dropped",
            Self::Idle => "idle",
            Self::DriverPanicked => "driver_panicked",
            Self::DriverDropped => "driver_dropped",
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ShutDown => "shut down",
            Self::HandlesDropped => "the last handle was dropped",
            Self::Idle => "parked, for nobody was using it",
            Self::DriverPanicked => "the monitor panicked",
            Self::DriverDropped => "the monitor was dropped",
        })
    }
}

/// One piece of news for the host: the status, or whether a token is being served, has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatusEvent {
    /// The workload's name, as given to the builder.
    pub name: String,
    /// Counts what happened, from 1; a gap means that newer news replaced news that a slow sink had not taken yet.
    pub sequence: u64,
    /// The status that this sink was told before.
    pub from: AuthStatus,
    /// The status now.
    pub to: AuthStatus,
    /// Whether callers get a token now. `Unauthenticated` while serving is an early warning: the grant is dead, the
    /// access token is not.
    pub serving: bool,
    /// When it happened, by the wall clock.
    pub at: SystemTime,
    /// Why, in words fit for a log line: bounded, no control characters, no secret.
    pub reason: String,
    /// When the next attempt is due, if one is scheduled.
    pub next_attempt: Option<SystemTime>,
    /// Whether a restart may lose the login: a rotated refresh token is held in memory, because the place where it is kept
    /// could not be written when the served token came. It may have been saved since; the next token says so.
    pub unsaved: bool,
    /// Whether restarting the process would help. Only after a panic of our own: a restart cannot mint a token.
    pub restart_helps: bool,
    /// What a human can do about it. Given once in a run, and only for a permanent verdict.
    pub remediation: Option<String>,
}

impl StatusEvent {
    /// What a host's test of its own sink begins with; the rest is set in its fields.
    ///
    /// ```
    /// use steadfast::{AuthStatus, StatusEvent};
    ///
    /// let mut event = StatusEvent::new("github", AuthStatus::Pending, AuthStatus::Running);
    /// event.serving = true;
    /// assert_eq!(event.to_string(), "github: pending -> running, serving (running)");
    /// ```
    #[must_use]
    pub fn new(name: impl Into<String>, from: AuthStatus, to: AuthStatus) -> Self {
        Self {
            name: name.into(),
            sequence: 1,
            from,
            serving: false,
            at: SystemTime::UNIX_EPOCH,
            reason: to.to_string(),
            to,
            next_attempt: None,
            unsaved: false,
            restart_helps: false,
            remediation: None,
        }
    }

    /// How long after the event the next attempt was due.
    fn next_attempt_in(&self) -> Option<Duration> {
        Some(self.next_attempt?.duration_since(self.at).unwrap_or_default())
    }
}

impl fmt::Display for StatusEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let serving = if self.serving { "serving" } else { "not serving" };
        write!(f, "{}: {} -> {}, {serving} ({})", self.name, self.from.name(), self.to.name(), self.reason)
    }
}

/// Where status events go. The host implements it; what it does is none of the monitor's business, and cannot hurt it.
///
/// Events arrive in order, one at a time. A slow sink delays no token; when several events pile up, the newest wins. A call
/// may take 10 s: then its future is dropped, so it has to be cancel safe (one that blocks its thread cannot be cut off). An
/// event that was not taken, for an `Err`, a panic or the time, is logged and offered again after 1 s, 2 s and so on up to
/// 60 s, until newer news replaces it; the final `Stopped` is offered three times.
///
/// Guide: [status sinks and readiness](crate::guide::readiness).
///
/// Closures are sinks too, and so is a [`tokio::sync::mpsc::Sender`] of events. A pair of sinks is one that tells both, so
/// `(TracingSink, mine)` keeps the log lines of the default one; what either did not take is offered to both again:
///
/// ```
/// use steadfast::{StatusEvent, StatusSink};
///
/// fn takes_a_sink(_: impl StatusSink) {}
/// takes_a_sink(|event: StatusEvent| async move {
///     assert!(event.sequence > 0);
///     Ok(())
/// });
/// let (sender, _receiver) = tokio::sync::mpsc::channel::<StatusEvent>(8);
/// takes_a_sink((steadfast::TracingSink, sender));
/// ```
#[async_trait]
pub trait StatusSink: Send + Sync + 'static {
    /// Takes one event.
    ///
    /// # Errors
    /// Whatever kept the sink from taking it; it will be offered again.
    async fn set_status(&self, event: &StatusEvent) -> Result<(), BoxError>;
}

/// The default sink: each event is one `tracing` line with the target `steadfast::status`.
///
/// `Unauthenticated`, and a stop because the monitor panicked, are logged at `ERROR`; `AuthRetrying`, `Running` without a token
/// to serve, and a refresh token that is held in memory only, at `WARN`; the rest at `INFO`, and so is what changes nothing but
/// whether a token is served while the resource server refuses them all. The line is in the table of
/// [`telemetry`](crate::telemetry).
#[derive(Clone, Copy, Debug, Default)]
pub struct TracingSink;

#[async_trait]
impl StatusSink for TracingSink {
    async fn set_status(&self, event: &StatusEvent) -> Result<(), BoxError> {
        macro_rules! log {
            ($level:expr) => {
                tracing::event!(
                    target: STATUS,
                    $level,
                    workload = event.name,
                    from = event.from.name(),
                    to = event.to.name(),
                    serving = event.serving,
                    reason = event.reason,
                    next_attempt = event.next_attempt_in().map(seconds),
                    remediation = event.remediation,
                    unsaved = event.unsaved,
                    restart_helps = event.restart_helps,
                    sequence = event.sequence,
                    "the status has changed"
                )
            };
        }
        match event.to {
            AuthStatus::Unauthenticated(_) | AuthStatus::Stopped(StopReason::DriverPanicked) => {
                log!(tracing::Level::ERROR)
            }
            // It was said that the resource server refuses every token: each that comes is served until it does.
            AuthStatus::AuthRetrying(RetryCause::RejectedByResource) if event.from == event.to => {
                log!(tracing::Level::INFO)
            }
            AuthStatus::AuthRetrying(_) => log!(tracing::Level::WARN),
            AuthStatus::Running if event.unsaved || !event.serving => log!(tracing::Level::WARN),
            AuthStatus::Pending | AuthStatus::Running | AuthStatus::Stopped(_) => log!(tracing::Level::INFO),
        }
        Ok(())
    }
}

/// A sink made of a closure, which need not name its argument's type.
///
/// ```
/// # fn takes_a_sink(_: impl steadfast::StatusSink) {}
/// takes_a_sink(steadfast::sink_fn(|event| async move {
///     assert!(event.sequence > 0);
///     Ok(())
/// }));
/// ```
pub fn sink_fn<F, Fut>(set_status: F) -> F
where
    F: Fn(StatusEvent) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), BoxError>> + Send,
{
    set_status
}

#[async_trait]
impl<T: StatusSink + ?Sized> StatusSink for Arc<T> {
    async fn set_status(&self, event: &StatusEvent) -> Result<(), BoxError> {
        (**self).set_status(event).await
    }
}

#[async_trait]
impl StatusSink for Box<dyn StatusSink> {
    async fn set_status(&self, event: &StatusEvent) -> Result<(), BoxError> {
        (**self).set_status(event).await
    }
}

#[async_trait]
impl<A: StatusSink, B: StatusSink> StatusSink for (A, B) {
    async fn set_status(&self, event: &StatusEvent) -> Result<(), BoxError> {
        let first = self.0.set_status(event).await;
        self.1.set_status(event).await.and(first)
    }
}

#[async_trait]
impl StatusSink for mpsc::Sender<StatusEvent> {
    async fn set_status(&self, event: &StatusEvent) -> Result<(), BoxError> {
        // A receiver that is gone will not come back: offering the event again would only make noise.
        let _ = self.send(event.clone()).await;
        Ok(())
    }
}

#[async_trait]
impl<F, Fut> StatusSink for F
where
    F: Fn(StatusEvent) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), BoxError>> + Send,
{
    async fn set_status(&self, event: &StatusEvent) -> Result<(), BoxError> {
        self(event.clone()).await
    }
}
