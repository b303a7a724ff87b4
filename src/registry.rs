//! Monitored token sources by key: one for each tenant, user or backend, made when it is first wanted.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), steadfast::BoxError> {
//! use std::time::Duration;
//! use steadfast::{AuthStatus, BoxError, IssuedToken, TokenRegistry};
//!
//! // How a source is made: from a row in a database, say, that holds the user's refresh token.
//! let registry = TokenRegistry::builder(|user: String| async move {
//!     let source = move || {
//!         let secret = format!("token-of-{user}");
//!         async { Ok(IssuedToken::bearer(secret).expires_in(Duration::from_secs(3600))) }
//!     };
//!     Ok::<_, BoxError>(source)
//! })
//! // In the log and the metrics. A name is a label there, so it is the backend's, and not the user's.
//! .monitor(|_user, builder| builder.name("github"))
//! .idle_after(Duration::from_secs(2 * 3600))
//! .build()?;
//!
//! let tokens = registry.get("ada").await?; // on every request: no allocation when it is there
//! assert_eq!(tokens.token().await?.secret(), "token-of-ada");
//! assert_eq!(registry.status_of("ada"), Some(AuthStatus::Running));
//!
//! registry.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! # Once for each key
//!
//! However many ask for a key at once, its source is made once, in a task that none of them owns: who goes away takes nothing
//! from the others. A failure is shared by all who wait and not remembered; the next call tries again.
//!
//! There are never two sources alive for one key, for two that spend one rotating refresh token are taken for a theft, and
//! the user is signed out.
//!
//! # Parked, not lost
//!
//! A monitor that nobody uses is *parked* after [`idle_after`](Builder::idle_after), or earlier if there are more than
//! [`capacity`](Builder::capacity): its task ends, it refreshes no more, and its status is
//! [`Stopped(Idle)`](crate::StopReason::Idle). Its source stays, and with it a refresh token that the server has rotated: the
//! next [`get`](TokenRegistry::get) begins a new monitor on the same source. Only a source that says that
//! nothing is lost with it ([`is_replaceable`](crate::TokenSource::is_replaceable)) goes, and is made anew when it is wanted.
//!
//! A monitor is in use as long as anybody holds a handle of it, or a layer that was made with one; a
//! [weak handle](crate::MonitoredTokenSource::downgrade) is no use. What is in use, or has an attempt in flight, is not parked. So
//! the registry may hold more monitors than its capacity; it says so in the log, once, until it is below again.
//!
//! A new monitor asks for a new token, so `idle_after` is best not much shorter than a token's lifetime. A server that
//! ends a login which has not been used for so long will find a parked one unused.
//!
//! A host that shuts a monitor down itself, after it has given it new credentials, has ended their source with it: the next one
//! is made by the factory.
//!
//! Generations count for each monitor: do not keep one for longer than the handle that it came from.
//!
//! # With identity providers
//!
//! A source under an [`IdentityProvider`](crate::IdentityProvider) is made with [`guard`](crate::IdentityProvider::guard) in the
//! factory. A registry that [knows the provider](Builder::provider) tells its sources when the provider has healed, as
//! many at a time as the provider takes; without that they find out at their own cadence, within
//! [`auth_retrying_tick`](crate::RefreshPolicy::auth_retrying_tick).

use std::{
    borrow::Borrow,
    fmt,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    runtime::Handle as Runtime,
    sync::{Notify, watch},
    task::AbortHandle,
};

mod builder;
mod creation;
mod ending;
mod error;
mod revival;
mod shards;
mod sweep;
pub use builder::Builder;
pub use error::RegistryError;

use self::{
    builder::{Customise, Factory},
    creation::{Busy, Joined},
    ending::Removal,
    shards::Shards,
};
use crate::{AuthStatus, MonitoredTokenSource, Snapshot, TokenSource, monitor::clock::Clock};

/// Monitored token sources by key. See the [module's documentation](self).
///
/// Cheap to clone; all clones are the same registry. With the last one, every monitor ends that has no other handle.
pub struct TokenRegistry<K>(Arc<Registry<K>>);

struct Registry<K> {
    shards: Shards<K>,
    factory: Factory<K>,
    customise: Customise<K>,
    idle_after: Duration,
    capacity: usize,
    clock: Clock,
    runtime: Runtime,
    /// How many monitors there are.
    live: AtomicUsize,
    is_closed: AtomicBool,
    /// There are more than the capacity, and the log says so.
    is_over: AtomicBool,
    /// Wakes the sweeper.
    crowded: Arc<Notify>,
    /// The tasks that end with the registry.
    tasks: Vec<AbortHandle>,
}

impl<K> Drop for Registry<K> {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Getting handles.
impl<K: Hash + Eq + Clone + Send + Sync + 'static> TokenRegistry<K> {
    /// The monitored source of this key; made now, if there is none yet, on the runtime on which the registry was built.
    ///
    /// One that is there costs a shared lock for the look-up, one clock read and no allocation. Keep the handle for as long as a
    /// request takes, or longer: while it is held, the monitor is in use.
    ///
    /// Cancel safe: dropping the future changes nothing for anyone else, and does not end the making.
    ///
    /// # Errors
    /// [`RegistryError::Factory`] with what the factory said, [`RegistryError::Build`] for a monitor that cannot work,
    /// [`RegistryError::ShutDown`] after [`shutdown`](Self::shutdown), [`RegistryError::Interrupted`] if the factory
    /// panicked or the runtime went away.
    pub async fn get<Q>(&self, key: &Q) -> Result<MonitoredTokenSource, RegistryError>
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + Hash + Eq + ?Sized,
    {
        match self.get_if_present(key) {
            Some(tokens) => Ok(tokens),
            // Boxed, so that the future stays small for those who are answered at once.
            None => Box::pin(self.obtain(key.to_owned())).await,
        }
    }

    /// The monitored source of this key, if it is there; a parked one stays parked. Never waits.
    #[must_use]
    pub fn get_if_present<Q>(&self, key: &Q) -> Option<MonitoredTokenSource>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let registry = &self.0;
        let shard = registry.shards.of(key).read();
        let entry = shard.get(key)?;
        let tokens = entry.live().filter(|tokens| !tokens.is_stopped())?;
        entry.touch(registry.clock.mono());
        Some(tokens.clone())
    }

    async fn obtain(&self, key: K) -> Result<MonitoredTokenSource, RegistryError> {
        loop {
            let mut outcome = match Registry::join_or_begin(&self.0, &key)? {
                Joined::There(tokens) => return Ok(tokens),
                Joined::Awaited(outcome) => outcome,
            };
            // Without an outcome it was a removal, and the way is free.
            if let Ok(outcome) = outcome.wait_for(Option::is_some).await
                && let Some(outcome) = &*outcome
            {
                return outcome.clone();
            }
        }
    }

    /// New credentials for this key, as by [`MonitoredTokenSource::reauthenticate`] if it has a monitor. Where an
    /// [`IdentityProvider`](crate::IdentityProvider) guards the factory's sources, this one has to be guarded as well. A parked
    /// one gets them when it is wanted again, and so does a key that is new here: its source need not be made then.
    ///
    /// Waits only while the key's monitor is being made or ended. Cancel safe.
    ///
    /// # Errors
    /// [`RegistryError::ShutDown`] after [`shutdown`](Self::shutdown).
    pub async fn reauthenticate<Q>(&self, key: &Q, source: impl TokenSource) -> Result<(), RegistryError>
    where
        Q: ToOwned<Owned = K> + ?Sized,
    {
        let (key, source): (K, Arc<dyn TokenSource>) = (key.to_owned(), Arc::new(source));
        while let Some(busy) = self.0.reseat(&key, &source)? {
            match busy {
                Busy::Task(outcome) => ended(outcome).await,
                Busy::Ended(tokens) => tokens.shutdown().await,
            }
        }
        Ok(())
    }
}

/// Seeing what there is.
impl<K: Hash + Eq + Clone + Send + Sync + 'static> TokenRegistry<K> {
    /// The status of this key's monitor; of one that is parked, `Unauthenticated` if it was that, and else
    /// [`Stopped(Idle)`](crate::StopReason::Idle). `None` for a key that is not here.
    #[must_use]
    pub fn status_of<Q>(&self, key: &Q) -> Option<AuthStatus>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.shards.of(key).read().get(key)?.status()
    }

    /// All keys and their statuses, in no order. What comes or goes meanwhile may be in it or not.
    pub fn statuses(&self) -> impl Iterator<Item = (K, AuthStatus)> {
        self.0.shards.collect(|key, entry| Some((key.clone(), entry.status()?)))
    }

    /// All that a status page needs, of every key that has a monitor, in no order. What comes or goes meanwhile may be in
    /// it or not.
    pub fn snapshots(&self) -> impl Iterator<Item = (K, Snapshot)> {
        self.0.shards.collect(|key, entry| Some((key.clone(), entry.live()?.snapshot())))
    }

    /// How many keys there are, the parked ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.shards.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many monitors there are.
    #[must_use]
    pub fn live(&self) -> usize {
        self.0.live.load(Ordering::Relaxed)
    }
}

/// Ending.
impl<K: Hash + Eq + Clone + Send + Sync + 'static> TokenRegistry<K> {
    /// The user has signed out: ends this key's monitor and drops its source, and a refresh token that is only in there.
    /// Until that is done, [`get`](Self::get) waits, and then makes a new one. `false` for a key that is not here.
    ///
    /// Takes as long as the monitor's [`shutdown`](MonitoredTokenSource::shutdown). Cancel safe: once polled, it goes on to
    /// its end.
    pub async fn remove<Q>(&self, key: &Q) -> bool
    where
        Q: ToOwned<Owned = K> + ?Sized,
    {
        let key = key.to_owned();
        loop {
            match Registry::begin_removal(&self.0, &key) {
                Removal::NotHere => return false,
                Removal::Done => return true,
                Removal::Leaving(gone) => {
                    ended(gone).await;
                    return true;
                }
                Removal::After(outcome) => ended(outcome).await,
            }
        }
    }

    /// Ends all monitors; no new one is made. Waits as [`MonitoredTokenSource::shutdown`] does, for all at once, and for
    /// sources that are being made. Sources that were parked are dropped.
    ///
    /// Idempotent. Cancel safe: once polled, it goes on to its end.
    pub async fn shutdown(&self) {
        self.0.end_all().await;
    }
}

impl<K> Clone for TokenRegistry<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> fmt::Debug for TokenRegistry<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the keys: they may be the names of users.
        f.debug_struct("TokenRegistry")
            .field("len", &self.0.shards.len())
            .field("live", &self.0.live.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

/// How the making or the end of a monitor went. Closed without a word: the way is free again.
type Outcome = watch::Receiver<Option<Result<MonitoredTokenSource, RegistryError>>>;

async fn ended(mut outcome: Outcome) {
    // The guard of the value must not be held over a wait.
    drop(outcome.wait_for(Option::is_some).await.map(drop));
}
