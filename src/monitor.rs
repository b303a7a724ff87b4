//! The handle that hosts hold, and its builder.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, LazyLock, Weak},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use self::{
    clock::{Clock, wall_time},
    delivery::Delivery,
    rejection::{Action, Answer, Held, Position, decide},
    shared::{Shared, Word},
};
use crate::{
    AccessToken, AuthError, AuthStatus, Challenge, Generation, IssueError, PolicyError, RefreshPolicy, RetryCause,
    Snapshot, StatusSink, StopReason, Stopped, TokenSource, TracingSink, UnauthenticatedReason,
    classify::Classifier,
    machine::Outlook,
    sync::{Handle as Runtime, timeout, watch},
    telemetry::REFRESH,
};

pub(crate) mod clock;
mod delivery;
mod driver;
#[cfg(test)]
#[cfg(steadfast_loom)]
mod interleavings;
pub(crate) mod rejection;
mod report;
mod shared;
mod view;
mod waiting;

pub use self::waiting::TokenFuture;

/// A cheap, cloneable handle that always knows the best answer to "which token do I send now?".
///
/// Behind it one task keeps the token fresh, survives an outage of the token endpoint without hammering it, and tells a
/// [`StatusSink`] what state it is in. The task ends with the last handle, with [`shutdown`](Self::shutdown), or with its
/// runtime.
///
/// One handle is for one resource (one audience): two APIs that judge tokens differently get two handles, or the refusals
/// of the one would withdraw tokens that the other takes.
///
/// Guides: [quick start](crate::guide::quick_start), [embedding](crate::guide::embedding).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), steadfast::BoxError> {
/// use std::time::Duration;
/// use steadfast::{IssuedToken, MonitoredTokenSource};
///
/// let source = || async { Ok(IssuedToken::bearer("s3cret").expires_in(Duration::from_secs(3600))) };
/// let tokens = MonitoredTokenSource::builder(source).name("github").spawn()?;
///
/// assert_eq!(tokens.token().await?.secret(), "s3cret");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MonitoredTokenSource {
    handle: Arc<Handle>,
}

/// Lives as long as any handle does; the driver holds only what is inside.
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop(StopReason::HandlesDropped);
    }
}

/// Getting tokens.
impl MonitoredTokenSource {
    /// Begins to describe a monitored token source.
    pub fn builder(source: impl TokenSource) -> Builder {
        Builder {
            source: Arc::new(source),
            sink: Arc::clone(&*DEFAULT_SINK) as Arc<dyn StatusSink>,
            name: "default".into(),
            policy: Arc::clone(&DEFAULT_POLICY),
            classifier: Classifier::standard(),
            clock: None,
            jitter_seed: None,
        }
    }

    /// The token to send now.
    ///
    /// A servable token is returned at once, without a lock and without an allocation. Otherwise the caller waits, at most
    /// [`caller_wait`](RefreshPolicy::caller_wait), for the outcome of the one attempt that is in flight or starts within
    /// [`blip_wait`](RefreshPolicy::blip_wait); all who wait share it.
    ///
    /// Cancel safe: dropping the future changes nothing for anyone else, and never cancels an attempt.
    ///
    /// # Errors
    /// [`AuthError::Retrying`] at once while attempts keep failing and the next is not near;
    /// [`AuthError::StillRefreshing`] when the wait is over, or outside a tokio runtime, where nobody can wait;
    /// [`AuthError::Unauthenticated`] and [`AuthError::Stopped`] when there will be no more tokens by themselves.
    ///
    /// # Panics
    /// In a tokio runtime that was built without `enable_time`, when it has to wait.
    #[inline]
    pub fn token(&self) -> TokenFuture<'_> {
        TokenFuture::new(&self.handle.shared, None)
    }

    /// The token to send now, however many attempts it takes, for at most this long: for what has a user or a night in front of
    /// it, not for requests that others wait behind. It asks again whenever the error says that it may help.
    ///
    /// Cancel safe, like [`token`](Self::token). Takes longer by the wait of its last call, at most.
    ///
    /// # Errors
    /// As [`token`](Self::token): the last one, when the next attempt would come too late, or waiting does not help.
    ///
    /// # Panics
    /// As [`token`](Self::token).
    pub async fn token_within(&self, patience: Duration) -> Result<AccessToken, AuthError> {
        self.handle.shared.token_within(patience).await
    }

    /// The token to send now, if there is one. Never waits, never touches the network.
    ///
    /// # Errors
    /// As [`token`](Self::token), with [`AuthError::StillRefreshing`] while an attempt is in flight.
    pub fn try_token(&self) -> Result<AccessToken, AuthError> {
        let shared = &self.handle.shared;
        self.servable().ok_or_else(|| {
            let error = shared.view().refusal(shared.clock.now());
            shared.meters.failed_fast(error.name());
            error
        })
    }

    /// A token newer than the one named, for a request that was refused with that one.
    ///
    /// Never forces a refresh: [`reject`](Self::reject) does. Cancel safe, like [`token`](Self::token).
    ///
    /// # Errors
    /// As [`token`](Self::token); at once where no attempt is in flight or due within
    /// [`blip_wait`](RefreshPolicy::blip_wait).
    ///
    /// # Panics
    /// As [`token`](Self::token).
    #[inline]
    pub fn token_after(&self, generation: Generation) -> TokenFuture<'_> {
        TokenFuture::new(&self.handle.shared, Some(generation))
    }

    pub(crate) fn servable(&self) -> Option<AccessToken> {
        self.handle.shared.servable()
    }
}

/// Saying what became of a token.
impl MonitoredTokenSource {
    /// The resource server answered 401 to a request that carried this token; `challenge` is what it said.
    ///
    /// However many requests are refused with one token, at most one refresh follows, and a refusal of an older token
    /// changes nothing. Answers at once; a token that is definitely rejected is got by no later call.
    pub fn reject(&self, generation: Generation, challenge: Option<&Challenge>) -> Rejection {
        let shared = &self.handle.shared;
        let (view, now) = (shared.view(), shared.clock.now());
        let token = view.servable(shared.clock.time());
        let position = Position {
            latest: view.latest,
            held: token.map(|token| Held {
                settles_in: token.settled_from().saturating_sub(now.mono),
                is_proven: token.is_proven(),
            }),
            budget_is_spent: view.forced.is_empty(shared.policy.forced_refreshes, now),
            can_refresh: view.can_refresh,
            outlook: view.outlook,
        };
        match decide(Answer::refusal(), challenge, generation, &position) {
            Action::Answer(answer) => {
                shared.meters.rejected(answer.name());
                answer
            }
            Action::OutOfBudget => {
                tracing::debug!(
                    target: REFRESH,
                    workload = &*shared.name,
                    generation = generation.get(),
                    "a rejection was passed through: the budget of forced refreshes is spent"
                );
                shared.meters.rejected("out_of_budget");
                Rejection::PassThrough
            }
            Action::Mark { objection, withdraw, claims, answer } => {
                let wants_claims = claims.is_some();
                shared.meters.rejected(answer.name());
                if wants_claims || token.is_some_and(|token| !token.is_refused_already(withdraw)) {
                    tracing::debug!(
                        target: REFRESH,
                        workload = &*shared.name,
                        generation = generation.get(),
                        objection = objection.name(),
                        rejection = answer.name(),
                        "a token was refused"
                    );
                    let mark = || token.is_some_and(|token| token.refuse(withdraw)) || wants_claims;
                    shared.hear(mark, Word::Rejected { generation, objection, claims });
                }
                answer
            }
        }
    }

    /// The resource server answered 2xx to a request that carried this token. One atomic load when it is known already.
    pub fn accept(&self, generation: Generation) {
        let shared = &self.handle.shared;
        let view = shared.view();
        if let Some(token) = &view.token
            && token.generation() == generation
            && !token.is_accepted()
        {
            shared.hear(|| token.accept(), Word::Accepted(generation));
        }
    }

    /// Something has changed that makes an attempt worth while now: the network is back, the laptop woke, the user fixed
    /// the account. Starts an attempt whatever the state, also after `Unauthenticated`, at most every 10 s.
    pub fn retry_now(&self) {
        self.handle.shared.ask(|inbox| inbox.nudged = true);
    }

    /// New credentials. Begins a new run on this handle, its clones and the layers made from it; the old source's token is
    /// not handed out again from here on, and what its last attempt brings is dropped.
    ///
    /// Who waits gets a token of the new credentials, be they of another account: a request that was refused with the old
    /// account's token is sent again with the new one's, where the layer sends it again. A host that keeps accounts apart
    /// gives each its own handle.
    ///
    /// # Errors
    /// [`Stopped`], if the monitor has ended.
    pub fn reauthenticate(&self, source: impl TokenSource) -> Result<(), Stopped> {
        self.handle.shared.reauthenticate(Arc::new(source))
    }
}

/// Seeing the state, and ending it.
impl MonitoredTokenSource {
    /// The status now.
    #[must_use]
    pub fn status(&self) -> AuthStatus {
        self.handle.shared.view().status.clone()
    }

    /// The status now, and each that follows; a slow reader sees the newest.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<AuthStatus> {
        self.handle.shared.subscribe()
    }

    /// Whether a caller would get a token now, without asking for one: what readiness goes by, more than by the status, for a
    /// held token is served in every state but `Stopped`. Neither waits nor allocates.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.servable().is_some()
    }

    /// All that a status page needs.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let shared = &self.handle.shared;
        let (view, now) = (shared.view(), shared.clock.now());
        let token = view.servable(shared.clock.time());
        Snapshot {
            name: shared.name.to_string(),
            status: view.status.clone(),
            since: wall_time(Duration::from_secs(view.since.into())).unwrap_or(SystemTime::UNIX_EPOCH),
            serving: token.is_some(),
            generation: token.map(AccessToken::generation),
            expires_at: token.and_then(AccessToken::expires_at),
            unsaved: view.unsaved,
            attempt_in_flight: matches!(view.outlook, Outlook::InFlight | Outlook::FailFast(None)),
            next_attempt_in: view.next_attempt.map(|next| next.remaining(now)),
            last_failure: view.failure(),
            remediation: view.to_do(),
        }
    }

    /// A handle that does not keep the monitor alive: for sinks and sources, which the monitor itself keeps.
    #[must_use]
    pub fn downgrade(&self) -> WeakTokenSource {
        WeakTokenSource { handle: Arc::downgrade(&self.handle) }
    }

    /// Ends the monitor. No attempt starts from the future's first poll on, even if it is never polled again; the attempt in
    /// flight is waited for, for it may carry a rotated refresh token; the sink is told.
    ///
    /// Idempotent, and cancel safe: dropping the future leaves the monitor ended. Takes at most
    /// [`attempt_timeout`](RefreshPolicy::attempt_timeout) + 5 s; outside a tokio runtime it does not wait at all.
    pub async fn shutdown(&self) {
        let shared = &self.handle.shared;
        shared.stop(StopReason::ShutDown);
        if let Ok(runtime) = Runtime::try_current() {
            shared.deliver_on(&runtime);
            let _ = timeout(shared.policy.attempt_timeout.saturating_add(FLUSH), shared.wound_up()).await;
        }
    }

    /// Waits until the status is `Stopped`. Cancel safe.
    pub async fn stopped(&self) {
        let shared = &self.handle.shared;
        loop {
            let turned = shared.turned.notified();
            if shared.stop_reason().is_some() {
                return;
            }
            turned.await;
        }
    }
}

/// What a layer and a registry need.
impl MonitoredTokenSource {
    pub(crate) fn name(&self) -> &str {
        &self.handle.shared.name
    }

    /// Ends the monitor if this is its last handle and no attempt is in flight.
    pub(crate) fn retire(&self) -> bool {
        !self.is_in_use() && self.handle.shared.stop_at_rest(StopReason::Idle)
    }

    /// Whether there is another handle.
    pub(crate) fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.handle) > 1
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.handle.shared.stop_reason().is_some()
    }

    pub(crate) fn has_wound_up(&self) -> bool {
        self.handle.shared.has_wound_up()
    }

    /// Closes the gate, as the first poll of [`shutdown`](Self::shutdown) does, which takes at most the time returned.
    pub(crate) fn begin_shutdown(&self) -> Duration {
        self.handle.shared.stop(StopReason::ShutDown);
        self.handle.shared.policy.attempt_timeout.saturating_add(FLUSH)
    }

    /// The source that it has now; see [`Shared::newest_source`].
    pub(crate) fn newest_source(&self, begun_with: &Arc<dyn TokenSource>) -> Option<Arc<dyn TokenSource>> {
        self.handle.shared.newest_source(begun_with)
    }

    /// What keeps it from Running, if it is a failed attempt.
    pub(crate) fn trouble(&self) -> Option<Arc<IssueError>> {
        let view = self.handle.shared.view();
        match view.status {
            AuthStatus::AuthRetrying(RetryCause::TokenEndpoint)
            | AuthStatus::Unauthenticated(UnauthenticatedReason::CeilingExceeded(_)) => view.cause.clone(),
            AuthStatus::Pending
            | AuthStatus::Running
            | AuthStatus::AuthRetrying(_)
            | AuthStatus::Unauthenticated(_)
            | AuthStatus::Stopped(_) => None,
        }
    }
}

impl fmt::Debug for MonitoredTokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Snapshot { name, status, serving, .. } = self.snapshot();
        f.debug_struct("MonitoredTokenSource")
            .field("name", &name)
            .field("status", &status)
            .field("serving", &serving)
            .finish_non_exhaustive()
    }
}

/// What [`reject`](MonitoredTokenSource::reject) makes of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejection {
    /// A newer token is there already: send the request again with it.
    Superseded,
    /// A new token is on its way: [`token_after`](MonitoredTokenSource::token_after) waits for it.
    Refreshing,
    /// The token is so young that the resource server may not have heard of it: send it again after this long.
    Settling(Duration),
    /// Nothing is to be gained: give the caller the response.
    PassThrough,
    /// No new token helps, but the host may: the user must sign in more strongly (RFC 9470), or a proof was wrong
    /// (RFC 9449).
    HandToHost,
}

impl Rejection {
    /// One word, for logs and metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Superseded => "superseded",
            Self::Refreshing => "refreshing",
            Self::Settling(_) => "settling",
            Self::PassThrough => "pass_through",
            Self::HandToHost => "hand_to_host",
        }
    }
}

/// See [`MonitoredTokenSource::downgrade`].
#[derive(Clone)]
pub struct WeakTokenSource {
    handle: Weak<Handle>,
}

impl WeakTokenSource {
    /// A full handle, unless the last one is gone.
    #[must_use]
    pub fn upgrade(&self) -> Option<MonitoredTokenSource> {
        self.handle.upgrade().map(|handle| MonitoredTokenSource { handle })
    }
}

impl fmt::Debug for WeakTokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakTokenSource")
    }
}

/// Describes a monitored token source before it begins. See [`MonitoredTokenSource::builder`].
#[must_use = "nothing is monitored before `spawn` or `pair`"]
pub struct Builder {
    source: Arc<dyn TokenSource>,
    sink: Arc<dyn StatusSink>,
    name: Box<str>,
    policy: Arc<RefreshPolicy>,
    classifier: Classifier,
    clock: Option<Clock>,
    jitter_seed: Option<u64>,
}

impl Builder {
    /// The workload's name in statuses, logs and metrics, where sources of one name count together: a label has to have few
    /// values. Defaults to `default`.
    pub fn name(mut self, name: impl Into<Box<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// How patient the monitor is; an `Arc` lets many sources share one policy. Defaults to
    /// [`RefreshPolicy::DEFAULT`].
    pub fn policy(mut self, policy: impl Into<Arc<RefreshPolicy>>) -> Self {
        self.policy = policy.into();
        self
    }

    /// Who is told of status changes, in the place of the default, [`TracingSink`]: `(TracingSink, mine)` keeps its log lines.
    pub fn sink(mut self, sink: impl StatusSink) -> Self {
        self.sink = Arc::new(sink);
        self
    }

    /// What recognises the errors of a source that returns no [`IssueError`](crate::IssueError): the rule's name goes into the
    /// logs and statuses, its `retry_after` is heeded. It reaches no verdict: only the authorization server's own word is
    /// final. Defaults to [`Classifier::standard`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), steadfast::BoxError> {
    /// use steadfast::{IssuedToken, MonitoredTokenSource, classify::{Class, Classifier}};
    ///
    /// let vault_is_sealed = || async { Err::<IssuedToken, _>("vault is sealed".into()) };
    /// let tokens = MonitoredTokenSource::builder(vault_is_sealed)
    ///     .classifier(Classifier::standard().on_phrase("vault is sealed", Class::Unavailable))
    ///     .spawn()?;
    ///
    /// assert!(tokens.token().await.is_err());
    /// assert!(tokens.snapshot().last_failure.unwrap().contains("vault is sealed"));
    /// # Ok(()) }
    /// ```
    pub fn classifier(mut self, classifier: Classifier) -> Self {
        self.classifier = classifier;
        self
    }

    /// Makes the jitter repeatable. Defaults to a random seed.
    pub const fn jitter_seed(mut self, seed: u64) -> Self {
        self.jitter_seed = Some(seed);
        self
    }

    /// Clocks that a test drives. Defaults to the system's.
    #[cfg(any(test, feature = "testing"))]
    #[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
    pub fn clock(mut self, clock: &clock::TestClock) -> Self {
        self.clock = Some(clock.clock());
        self
    }

    /// Begins to monitor, in a task of its own on the current tokio runtime.
    ///
    /// # Errors
    /// [`BuildError::Policy`] for a policy that cannot work, [`BuildError::NoRuntime`] outside a tokio runtime.
    pub fn spawn(self) -> Result<MonitoredTokenSource, BuildError> {
        let runtime = Runtime::try_current().map_err(|_| BuildError::NoRuntime)?;
        let (tokens, driver) = self.build()?;
        runtime.spawn(driver.drive());
        Ok(tokens)
    }

    /// The handle, and the driver as a future that the host runs itself, on a tokio runtime. Dropping it ends the
    /// monitor; until it runs, callers of `token()` wait in vain.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), steadfast::BoxError> {
    /// use steadfast::{IssuedToken, MonitoredTokenSource};
    ///
    /// let (tokens, driver) = MonitoredTokenSource::builder(|| async { Ok(IssuedToken::bearer("s3cret")) }).pair()?;
    /// let user = async { tokens.token().await };
    /// let token = tokio::select! {
    ///     token = user => token?,
    ///     () = driver => unreachable!("the driver outlives its handles"),
    /// };
    /// assert_eq!(token.secret(), "s3cret");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`BuildError::Policy`] for a policy that cannot work.
    pub fn pair(self) -> Result<(MonitoredTokenSource, Driver), BuildError> {
        let (tokens, driver) = self.build()?;
        Ok((tokens, Driver(Box::pin(driver.drive()))))
    }

    fn build(self) -> Result<(MonitoredTokenSource, Box<driver::Driver>), BuildError> {
        let Self { source, sink, name, policy, classifier, clock, jitter_seed } = self;
        policy.validate().map_err(BuildError::Policy)?;
        let clock = clock.unwrap_or_else(Clock::system);
        let shared = Arc::new(Shared::new(name, policy, clock, Delivery::to(sink), source.can_refresh()));
        let seed = jitter_seed.unwrap_or_else(|| fastrand::u64(..));
        let driver = driver::Driver::new(Arc::clone(&shared), source, classifier, seed);
        Ok((MonitoredTokenSource { handle: Arc::new(Handle { shared }) }, driver))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("name", &self.name).field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// The driver of a [`pair`](Builder::pair), to be polled on a tokio runtime.
#[must_use = "a driver that nobody polls obtains no token"]
pub struct Driver(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Driver")
    }
}

/// Why there is no monitored token source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no tokio runtime to spawn on.
    #[error("no tokio runtime is running here; call `spawn` inside one, or use `pair` and poll the driver inside one")]
    NoRuntime,
    /// The policy cannot work.
    #[error("the refresh policy cannot work")]
    Policy(#[source] PolicyError),
}

static DEFAULT_SINK: LazyLock<Arc<TracingSink>> = LazyLock::new(|| Arc::new(TracingSink));
static DEFAULT_POLICY: LazyLock<Arc<RefreshPolicy>> = LazyLock::new(Arc::default);

const FLUSH: Duration = Duration::from_secs(5);
