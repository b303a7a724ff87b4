//! What a registry is like, before it begins.

use std::{
    fmt,
    future::Future,
    hash::{Hash, RandomState},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::Duration,
};

use tokio::{runtime::Handle as Runtime, sync::Notify};

use super::{
    Registry, TokenRegistry,
    revival::keep_reviving,
    shards::{Hashing, Shards},
    sweep::keep_sweeping,
};
use crate::{BoxError, BuildError, IdentityProvider, PolicyError, TokenSource, monitor, monitor::clock::Clock};

/// Describes a [`TokenRegistry`] before it begins.
#[must_use = "there is no registry before `build`"]
pub struct Builder<K> {
    factory: Factory<K>,
    customise: Customise<K>,
    idle_after: Duration,
    capacity: usize,
    providers: Vec<IdentityProvider>,
    hashing: Hashing,
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> TokenRegistry<K> {
    /// Begins to describe a registry. `factory` makes the source of a key: from a row in a database, a secret in a vault.
    /// It runs in a task of its own, once at a time for each key.
    pub fn builder<F, Fut, S, E>(factory: F) -> Builder<K>
    where
        F: Fn(K) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<S, E>> + Send + 'static,
        S: TokenSource,
        E: Into<BoxError>,
    {
        Builder {
            factory: Box::new(move |key| {
                let made = factory(key);
                Box::pin(async {
                    made.await.map(|source| Arc::new(source) as Arc<dyn TokenSource>).map_err(Into::into)
                })
            }),
            customise: Box::new(|_, builder| builder),
            idle_after: IDLE_AFTER,
            capacity: usize::MAX,
            providers: Vec::new(),
            hashing: Hashing::Random(RandomState::new()),
        }
    }
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Builder<K> {
    /// What each monitor is like: its name, its policy, its sink. Those that share a policy or a sink share an `Arc`.
    /// Defaults to [`MonitoredTokenSource::builder`](crate::MonitoredTokenSource::builder)'s defaults.
    pub fn monitor(
        mut self,
        customise: impl Fn(&K, monitor::Builder) -> monitor::Builder + Send + Sync + 'static,
    ) -> Self {
        self.customise = Box::new(customise);
        self
    }

    /// A monitor that nobody has used for so long is parked, up to an eighth later. `Duration::MAX`: never. Defaults to 1h.
    pub const fn idle_after(mut self, idle_after: Duration) -> Self {
        self.idle_after = idle_after;
        self
    }

    /// How many monitors there may be. When there are more, those that have not been used for longest are parked within a
    /// second, if nobody uses them. Defaults to no limit.
    pub const fn capacity(mut self, capacity: usize) -> Self {
        self.capacity = capacity;
        self
    }

    /// A provider that some of the sources are [under](IdentityProvider::guard): when it has healed, those that it had turned
    /// away are told. May be given several times.
    pub fn provider(mut self, provider: &IdentityProvider) -> Self {
        self.providers.push(provider.clone());
        self
    }

    /// Goes through the keys in the same order each time, so that a simulation repeats. Not for keys that come from outside.
    #[cfg(any(test, feature = "testing"))]
    #[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
    pub fn repeatable(mut self) -> Self {
        self.hashing = Hashing::Repeatable;
        self
    }

    /// Makes the registry. Its monitors, and its own few tasks, run on the current tokio runtime.
    ///
    /// # Errors
    /// [`BuildError::NoRuntime`] outside a tokio runtime, [`BuildError::Policy`] for an `idle_after` of zero.
    pub fn build(self) -> Result<TokenRegistry<K>, BuildError> {
        let Self { factory, customise, idle_after, capacity, providers, hashing } = self;
        let runtime = Runtime::try_current().map_err(|_| BuildError::NoRuntime)?;
        if idle_after.is_zero() {
            return Err(BuildError::Policy(PolicyError::Zero { field: "idle_after" }));
        }
        let registry = Arc::new_cyclic(|weak| {
            let crowded = Arc::new(Notify::new());
            let period = (idle_after / 8).clamp(SHORTEST_PERIOD, LONGEST_PERIOD);
            let sweeper = runtime.spawn(keep_sweeping(weak.clone(), Arc::clone(&crowded), period));
            let revivers = providers.into_iter().map(|provider| runtime.spawn(keep_reviving(weak.clone(), provider)));
            Registry {
                shards: Shards::new(hashing),
                factory,
                customise,
                idle_after,
                capacity,
                clock: Clock::system(),
                live: AtomicUsize::new(0),
                is_closed: AtomicBool::new(false),
                is_over: AtomicBool::new(false),
                tasks: revivers.chain([sweeper]).map(|task| task.abort_handle()).collect(),
                crowded,
                runtime: runtime.clone(),
            }
        });
        Ok(TokenRegistry(registry))
    }
}

impl<K> fmt::Debug for Builder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("idle_after", &self.idle_after)
            .field("capacity", &self.capacity)
            .field("providers", &self.providers)
            .finish_non_exhaustive()
    }
}

pub(super) type Factory<K> = Box<dyn Fn(K) -> Making + Send + Sync>;
type Making = Pin<Box<dyn Future<Output = Result<Arc<dyn TokenSource>, BoxError>> + Send>>;
pub(super) type Customise<K> = Box<dyn Fn(&K, monitor::Builder) -> monitor::Builder + Send + Sync>;

const IDLE_AFTER: Duration = Duration::from_secs(60 * 60);
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);
const LONGEST_PERIOD: Duration = Duration::from_secs(60 * 60);
