//! A budget and a breaker for the sources that get their tokens from one identity provider.
//!
//! A monitor is patient with its own token endpoint. A hundred thousand of them, each as patient, are still a flood: all
//! want tokens at once when a fleet starts, all look after a provider that is down, and all come back when it heals. An
//! [`IdentityProvider`] is what they have in common. Each source is put under it with [`guard`](IdentityProvider::guard),
//! and from then on
//!
//! - so many exchanges are in flight at once and no more; the others queue for a moment, in order;
//! - when several sources in a row have failed, and it was not their own grants, the provider counts as *down*: one source
//!   at a time probes it, at a cadence, and all others are refused here, at once, and told when to come again;
//! - when it answers again, the budget is given back step by step.
//!
//! One source whose trouble is its own never closes the way for others: it takes *distinct* sources in a row to open the
//! breaker, a rejected grant (`invalid_grant`) is an answer of a provider in good health, and a source that has probed in
//! vain lets others probe next. Providers know nothing of each other.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), steadfast::BoxError> {
//! use std::time::Duration;
//! use steadfast::{IssuedToken, MonitoredTokenSource, provider::{IdentityProvider, ProviderPolicy, ProviderState}};
//!
//! let policy = ProviderPolicy { max_in_flight: 16, ..ProviderPolicy::default() };
//! let provider = IdentityProvider::new("login.example.com", policy)?;
//!
//! let source = || async { Ok(IssuedToken::bearer("s3cret").expires_in(Duration::from_secs(3600))) };
//! let tokens = MonitoredTokenSource::builder(provider.guard(source)).spawn()?;
//! assert_eq!(tokens.token().await?.secret(), "s3cret");
//!
//! assert_eq!(provider.snapshot().state, ProviderState::Healthy);
//! # Ok(()) }
//! ```
//!
//! # What a source is told
//!
//! A refused attempt has not been sent, and says so ([`Delivery::NotSent`](crate::Delivery)). Under the rule
//! `provider-down` it counts as the failure that it is: the monitor's status becomes `AuthRetrying` in its own time,
//! while a token that is still good goes on being served. Under the rule `provider-busy`, when the queue was too long, nothing is
//! wrong, and it does not count as a try.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};

mod breaker;
mod pass;
mod policy;
mod report;
mod trouble;
pub use policy::ProviderPolicy;

use self::{
    breaker::{Breaker, Change, SourceId},
    report::Report,
    trouble::{Trouble, What},
};
use crate::{
    BoxError, Delivery, IssueError, IssueRequest, IssuedToken, PolicyError, TokenSource,
    failure::chain,
    monitor::clock::Clock,
    schedule::Jitter,
    telemetry::{self, PROVIDER, seconds},
};

/// What the sources of one identity provider have in common. See the [module's documentation](self).
///
/// Cheap to clone; all clones are the same provider.
#[derive(Clone)]
pub struct IdentityProvider(Arc<Provider>);

struct Provider {
    name: Box<str>,
    policy: ProviderPolicy,
    clock: Clock,
    sources: AtomicU64,
    permits: Semaphore,
    in_flight: AtomicUsize,
    queued: AtomicUsize,
    gate: Mutex<Gate>,
    state: watch::Sender<ProviderState>,
}

struct Gate {
    breaker: Breaker,
    jitter: Jitter,
    /// How many permits there are, taken or not.
    permits: usize,
}

impl IdentityProvider {
    /// A provider that is taken to be in good health. The name is for logs and status pages.
    ///
    /// # Errors
    /// [`PolicyError`] for a policy that cannot work.
    pub fn new(name: impl Into<Box<str>>, policy: ProviderPolicy) -> Result<Self, PolicyError> {
        policy.validate()?;
        let name = name.into();
        telemetry::provider_moved(&name, None, Some(ProviderState::Healthy.name()));
        let gate = Gate {
            breaker: Breaker::new(policy.clone()),
            jitter: Jitter::seeded(policy.jitter_seed.unwrap_or_else(|| fastrand::u64(..))),
            permits: policy.max_in_flight,
        };
        Ok(Self(Arc::new(Provider {
            name,
            clock: Clock::system(),
            sources: AtomicU64::new(0),
            permits: Semaphore::new(policy.max_in_flight),
            in_flight: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            gate: Mutex::new(gate),
            state: watch::Sender::new(ProviderState::Healthy),
            policy,
        })))
    }

    /// The same source, with its exchanges under this provider's budget and breaker.
    ///
    /// A source that waits for something else before it sends, a store's lease for instance, holds its place in the budget
    /// meanwhile.
    pub fn guard<S: TokenSource>(&self, source: S) -> Guarded<S> {
        let id = SourceId(self.0.sources.fetch_add(1, Ordering::Relaxed));
        Guarded { provider: self.clone(), id, source }
    }

    /// The state now, and each that follows.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<ProviderState> {
        self.0.state.subscribe()
    }

    /// All that a status page needs.
    #[must_use]
    pub fn snapshot(&self) -> ProviderSnapshot {
        let provider = &self.0;
        let gate = provider.gate();
        ProviderSnapshot {
            name: provider.name.to_string(),
            state: *provider.state.borrow(),
            in_flight: provider.in_flight.load(Ordering::Relaxed),
            queued: provider.queued.load(Ordering::Relaxed),
            limit: gate.breaker.limit(),
            next_probe_in: gate.breaker.next_probe(provider.clock.mono()),
        }
    }

    /// Waits for its turn behind all who are queued now. Whoever asks many sources to come does this between two of them.
    pub(crate) async fn turn(&self) {
        // Never closed, so it cannot fail.
        drop(self.0.permits.acquire().await);
    }

    pub(crate) fn longest_cadence(&self) -> Duration {
        self.0.policy.max_probe_interval
    }

    /// Whether a probe is due and nobody has come to make it.
    pub(crate) fn lacks_a_probe(&self) -> bool {
        self.0.gate().breaker.lacks_a_probe(self.0.clock.mono())
    }

    /// Whether it was this provider that could not or would not.
    pub(crate) fn is_behind(&self, error: &IssueError) -> bool {
        let trouble = chain(error).find_map(|cause| cause.downcast_ref::<Trouble>());
        trouble.is_some_and(|trouble| trouble.by == self.address())
    }

    fn address(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}

impl fmt::Debug for IdentityProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProviderSnapshot { name, state, in_flight, queued, .. } = self.snapshot();
        f.debug_struct("IdentityProvider")
            .field("name", &name)
            .field("state", &state)
            .field("in_flight", &in_flight)
            .field("queued", &queued)
            .finish_non_exhaustive()
    }
}

/// How a provider does, as far as its sources can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProviderState {
    /// It answers.
    Healthy,
    /// It does not. One source at a time probes it.
    Down,
    /// It answers again, and gets its load back step by step.
    Recovering,
}

impl ProviderState {
    /// One word, for metrics.
    const fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Down => "down",
            Self::Recovering => "recovering",
        }
    }
}

/// What can be read off a provider at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProviderSnapshot {
    /// The name, as given to [`IdentityProvider::new`].
    pub name: String,
    /// How it does.
    pub state: ProviderState,
    /// How many exchanges are under way.
    pub in_flight: usize,
    /// How many attempts wait for one of these to end.
    pub queued: usize,
    /// How many exchanges may be under way at once, for now.
    pub limit: usize,
    /// How long until the next probe, while it is down.
    pub next_probe_in: Option<Duration>,
}

/// A source under its provider's budget and breaker. See [`IdentityProvider::guard`].
#[derive(Debug)]
pub struct Guarded<S> {
    provider: IdentityProvider,
    id: SourceId,
    source: S,
}

#[async_trait]
impl<S: TokenSource> TokenSource for Guarded<S> {
    async fn issue(&self, request: &IssueRequest) -> Result<IssuedToken, BoxError> {
        let pass = self.provider.pass(self.id, request).await?;
        // The monitor's own limit has the time in the queue on top.
        let limit = request.time_limit().saturating_add(self.source.extra_time());
        let issued = timeout(limit, self.source.issue(request))
            .await
            .unwrap_or_else(|_| Err(IssueError::of_rule(Delivery::Unknown, "attempt-timeout").into()));
        let report = Report::of(&issued, request);
        pass.end(report);
        match report {
            Report::Failed { .. } => issued.map_err(|cause| {
                let by = self.provider.address();
                Trouble { by, what: What::Failed(cause) }.into()
            }),
            Report::Answered | Report::Nothing => issued,
        }
    }

    fn can_refresh(&self) -> bool {
        self.source.can_refresh()
    }

    fn is_replaceable(&self) -> bool {
        self.source.is_replaceable()
    }

    fn extra_time(&self) -> Duration {
        self.source.extra_time().saturating_add(self.provider.0.policy.queue_wait).saturating_add(SLACK)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        telemetry::provider_moved(&self.name, Some(self.state.borrow().name()), None);
    }
}

impl Provider {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        // Nothing that can panic runs under this lock.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, source: SourceId, report: Report) {
        let now = self.clock.mono();
        let mut gate = self.gate();
        let change = match report {
            Report::Answered => gate.breaker.answered(now),
            Report::Failed { retry_after } => gate.breaker.failed(source, retry_after, now),
            Report::Nothing => {
                gate.breaker.abandoned(source, now);
                Change::None
            }
        };
        let wanted = gate.breaker.limit();
        self.permits.add_permits(wanted.saturating_sub(gate.permits));
        gate.permits = gate.permits.max(wanted);
        // Those that are out are taken away as they come back.
        gate.permits -= self.permits.forget_permits(gate.permits.saturating_sub(wanted));
        let state = match change {
            Change::None => return,
            Change::Opened => ProviderState::Down,
            Change::Recovers => ProviderState::Recovering,
            Change::Closed => ProviderState::Healthy,
        };
        let probe_in = gate.breaker.next_probe(now);
        // Under the lock, so that the last state sent is the last one there was.
        let before = self.state.send_replace(state);
        drop(gate);
        let provider = &*self.name;
        match state {
            ProviderState::Down => {
                let next_attempt = probe_in.map(seconds);
                tracing::warn!(target: PROVIDER, provider, next_attempt, "the identity provider is down: one source at a time probes it");
            }
            ProviderState::Recovering => {
                tracing::info!(target: PROVIDER, provider, "the identity provider answers again: its load comes back step by step");
            }
            ProviderState::Healthy => tracing::info!(target: PROVIDER, provider, "the identity provider has recovered"),
        }
        telemetry::provider_moved(provider, Some(before.name()), Some(state.name()));
    }
}

/// So that our own limit ends an exchange, and not the monitor's, which would take it for no word about the provider.
const SLACK: Duration = Duration::from_secs(1);
