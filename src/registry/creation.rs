//! The making of a monitor: once for each key, in a task that no caller owns.

use std::{
    collections::hash_map::Entry as Place,
    hash::Hash,
    sync::{Arc, atomic::Ordering},
};

use tokio::sync::watch;

use super::{
    Outcome, Registry, RegistryError,
    shards::{Entry, Slot},
};
use crate::{AuthStatus, MonitoredTokenSource, StopReason, TokenSource};

/// What a caller finds who wants a monitor.
pub(super) enum Joined {
    There(MonitoredTokenSource),
    Awaited(Outcome),
}

/// What has to be waited for before a source can take its seat.
pub(super) enum Busy {
    Task(Outcome),
    Ended(MonitoredTokenSource),
}

struct Creation<K: Hash + Eq> {
    registry: Arc<Registry<K>>,
    key: K,
    from: From,
    outcome: watch::Sender<Option<Result<MonitoredTokenSource, RegistryError>>>,
    is_settled: bool,
}

enum From {
    Nothing,
    Parked {
        source: Arc<dyn TokenSource>,
        status: AuthStatus,
    },
    /// Somebody has shut it down, or it panicked. It may still be winding up.
    Ended {
        tokens: MonitoredTokenSource,
        source: Arc<dyn TokenSource>,
    },
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Registry<K> {
    pub(super) fn join_or_begin(self: &Arc<Self>, key: &K) -> Result<Joined, RegistryError> {
        let now = self.clock.mono();
        let mut shard = self.shards.of(key).write();
        if self.is_closed.load(Ordering::Acquire) {
            return Err(RegistryError::ShutDown);
        }
        let (outcome, awaited) = watch::channel(None);
        let begun = |from| {
            let key = key.clone();
            Creation { registry: Arc::clone(self), key, from, outcome, is_settled: false }
        };
        let creation = match shard.entry(key.clone()) {
            Place::Vacant(place) => {
                place.insert(Entry::new(Slot::Creating(awaited.clone()), now));
                begun(From::Nothing)
            }
            Place::Occupied(mut place) => {
                match &place.get().slot {
                    Slot::Live { tokens, .. } if !tokens.is_stopped() => return Ok(Joined::There(tokens.clone())),
                    Slot::Creating(outcome) | Slot::Parking(outcome) | Slot::Leaving(outcome) => {
                        return Ok(Joined::Awaited(outcome.clone()));
                    }
                    Slot::Live { .. } | Slot::Parked { .. } => {}
                }
                let entry = Entry::new(Slot::Creating(awaited.clone()), now);
                begun(match std::mem::replace(place.get_mut(), entry).slot {
                    Slot::Live { tokens, source, .. } => {
                        self.live.fetch_sub(1, Ordering::Relaxed);
                        From::Ended { tokens, source }
                    }
                    Slot::Parked { source, status, .. } => From::Parked { source, status },
                    Slot::Creating(_) | Slot::Parking(_) | Slot::Leaving(_) => From::Nothing,
                })
            }
        };
        drop(shard);
        // In a runtime that has gone away the creation is dropped at once, and says so.
        self.runtime.spawn(creation.run());
        Ok(Joined::Awaited(awaited))
    }

    /// Puts the source into the key's place, unless somebody is at work there.
    pub(super) fn reseat(&self, key: &K, source: &Arc<dyn TokenSource>) -> Result<Option<Busy>, RegistryError> {
        let parked = || Slot::parked(Arc::clone(source), AuthStatus::Stopped(StopReason::Idle));
        let mut shard = self.shards.of(key).write();
        if self.is_closed.load(Ordering::Acquire) {
            return Err(RegistryError::ShutDown);
        }
        let mut place = match shard.entry(key.clone()) {
            Place::Vacant(place) => {
                place.insert(Entry::new(parked(), self.clock.mono()));
                return Ok(None);
            }
            Place::Occupied(place) => place,
        };
        let tokens = match &place.get().slot {
            Slot::Live { tokens, .. } if !tokens.is_stopped() => tokens.clone(),
            Slot::Live { tokens, .. } if !tokens.has_wound_up() => return Ok(Some(Busy::Ended(tokens.clone()))),
            Slot::Creating(outcome) | Slot::Parking(outcome) | Slot::Leaving(outcome) => {
                return Ok(Some(Busy::Task(outcome.clone())));
            }
            Slot::Live { .. } | Slot::Parked { .. } => {
                let old = std::mem::replace(&mut place.get_mut().slot, parked());
                if let Slot::Live { .. } = old {
                    self.live.fetch_sub(1, Ordering::Relaxed);
                }
                drop(shard);
                drop(old);
                return Ok(None);
            }
        };
        drop(shard);
        // Runs the host's code, so not under the lock. The monitor remembers its newest source for us.
        Ok(tokens.reauthenticate(Arc::clone(source)).is_err().then_some(Busy::Ended(tokens)))
    }
}

impl<K: Hash + Eq> Creation<K> {
    async fn run(mut self)
    where
        K: Clone + Send + Sync + 'static,
    {
        let made = self.make().await;
        self.settle(made).await;
    }

    async fn make(&mut self) -> Result<(MonitoredTokenSource, Arc<dyn TokenSource>), RegistryError>
    where
        K: Clone + Send + Sync + 'static,
    {
        if let From::Ended { tokens, source } = &self.from {
            tokens.shutdown().await;
            self.from = match tokens.newest_source(source) {
                Some(source) => From::Parked { source, status: tokens.status() },
                None => From::Nothing,
            };
        }
        let source = match &self.from {
            From::Parked { source, .. } | From::Ended { source, .. } => Arc::clone(source),
            From::Nothing => {
                let made = (self.registry.factory)(self.key.clone()).await;
                made.map_err(|error| RegistryError::Factory(error.into()))?
            }
        };
        let builder = MonitoredTokenSource::builder(Arc::clone(&source));
        let tokens = (self.registry.customise)(&self.key, builder).spawn().map_err(RegistryError::Build)?;
        Ok((tokens, source))
    }

    async fn settle(mut self, made: Result<(MonitoredTokenSource, Arc<dyn TokenSource>), RegistryError>) {
        let made = match made {
            Ok(made) => made,
            Err(error) => return self.give_up(error),
        };
        self.is_settled = true;
        let (tokens, source) = made;
        let closed = {
            let registry = &self.registry;
            let mut shard = registry.shards.of(&self.key).write();
            match shard.get_mut(&self.key) {
                Some(entry) => {
                    entry.slot = Slot::live(tokens.clone(), source);
                    registry.live.fetch_add(1, Ordering::Relaxed);
                    None
                }
                // A shutdown has taken the place away.
                None => Some(source),
            }
        };
        if closed.is_some() {
            tokens.shutdown().await;
            self.outcome.send_replace(Some(Err(RegistryError::ShutDown)));
            return;
        }
        self.outcome.send_replace(Some(Ok(tokens)));
        if self.registry.live.load(Ordering::Relaxed) > self.registry.capacity {
            self.registry.crowded.notify_one();
        }
    }
}

impl<K: Hash + Eq> Creation<K> {
    /// What was parked before is parked again.
    fn give_up(&mut self, error: RegistryError) {
        self.is_settled = true;
        let registry = &self.registry;
        let slot = match std::mem::replace(&mut self.from, From::Nothing) {
            From::Nothing => None,
            From::Parked { source, status } => Some(Slot::parked(source, status)),
            From::Ended { tokens, source } => Some(Slot::live(tokens, source)),
        };
        let mut shard = registry.shards.of(&self.key).write();
        let unused = match (slot, shard.get_mut(&self.key)) {
            (Some(slot), Some(entry)) => {
                if let Slot::Live { .. } = slot {
                    registry.live.fetch_add(1, Ordering::Relaxed);
                }
                entry.slot = slot;
                None
            }
            (slot, _) => Some((shard.remove(&self.key), slot)),
        };
        drop(shard);
        drop(unused);
        self.outcome.send_replace(Some(Err(error)));
    }
}

impl<K: Hash + Eq> Drop for Creation<K> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.give_up(RegistryError::Interrupted);
        }
    }
}
