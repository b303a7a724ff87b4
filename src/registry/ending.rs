//! The end of one monitor, and of all.

use std::{
    collections::hash_map::Entry as Place,
    hash::Hash,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use super::{Outcome, Registry, RegistryError, ended, shards::Slot};
use crate::MonitoredTokenSource;

pub(super) enum Removal {
    NotHere,
    Done,
    Leaving(Outcome),
    /// Once it is made, it can be removed.
    After(Outcome),
}

enum Ending {
    Monitor(MonitoredTokenSource, Duration),
    Task(Outcome),
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Registry<K> {
    pub(super) fn begin_removal(self: &Arc<Self>, key: &K) -> Removal {
        let mut shard = self.shards.of(key).write();
        let Place::Occupied(mut place) = shard.entry(key.clone()) else {
            return Removal::NotHere;
        };
        match &place.get().slot {
            Slot::Creating(outcome) | Slot::Parking(outcome) => return Removal::After(outcome.clone()),
            Slot::Leaving(outcome) => return Removal::Leaving(outcome.clone()),
            Slot::Live { .. } | Slot::Parked { .. } => {}
        }
        let (leaving, gone) = watch::channel(None);
        let left = std::mem::replace(&mut place.get_mut().slot, Slot::Leaving(gone.clone()));
        let Slot::Live { tokens, source, .. } = left else {
            let unused = (place.remove(), left);
            drop(shard);
            drop(unused);
            return Removal::Done;
        };
        drop(shard);
        self.live.fetch_sub(1, Ordering::Relaxed);
        // Closes the gate in the caller.
        tokens.begin_shutdown();
        let departure = Departure { registry: Arc::clone(self), key: key.clone(), parked: None, _leaving: leaving };
        self.runtime.spawn(async move {
            tokens.shutdown().await;
            drop((tokens, source));
            drop(departure);
        });
        Removal::Leaving(gone)
    }

    pub(super) async fn end_all(self: &Arc<Self>) {
        // Before anything else, so that not even a future that is polled once and dropped leaves a monitor at work.
        self.is_closed.store(true, Ordering::Release);
        let began = self.clock.mono();
        let mut endings = Vec::new();
        for shard in self.shards.iter() {
            let mut dropped = Vec::new();
            for (_, entry) in shard.write().drain() {
                match entry.slot {
                    Slot::Live { tokens, source, .. } => {
                        dropped.push(source);
                        let limit = tokens.begin_shutdown();
                        endings.push(Ending::Monitor(tokens, limit));
                    }
                    Slot::Parked { source, .. } => dropped.push(source),
                    Slot::Creating(outcome) | Slot::Parking(outcome) | Slot::Leaving(outcome) => {
                        endings.push(Ending::Task(outcome))
                    }
                }
            }
            drop(dropped);
        }
        self.live.store(0, Ordering::Relaxed);
        let clock = self.clock.clone();
        let all_ended = async move {
            for ending in endings {
                match ending {
                    // They end side by side. Each has its own time limit, and all began at once.
                    Ending::Monitor(tokens, limit) => {
                        let left = limit.saturating_sub(clock.mono().saturating_sub(began));
                        let _ = timeout(left, tokens.shutdown()).await;
                    }
                    Ending::Task(outcome) => ended(outcome).await,
                }
            }
        };
        let _ = self.runtime.spawn(all_ended).await;
    }
}

/// Frees the key's place for the next monitor, also when the runtime goes away before the last one has ended.
pub(super) struct Departure<K: Hash + Eq> {
    pub(super) registry: Arc<Registry<K>>,
    pub(super) key: K,
    /// What takes the monitor's place; `None`: nothing.
    pub(super) parked: Option<Slot>,
    pub(super) _leaving: Leaving,
}

pub(super) type Leaving = watch::Sender<Option<Result<MonitoredTokenSource, RegistryError>>>;

impl<K: Hash + Eq> Drop for Departure<K> {
    fn drop(&mut self) {
        let mut shard = self.registry.shards.of(&self.key).write();
        // After a shutdown there is no place any more.
        let left = match (self.parked.take(), shard.get_mut(&self.key)) {
            (Some(parked), Some(entry)) => (Some(std::mem::replace(&mut entry.slot, parked)), None),
            (parked, _) => (parked, shard.remove(&self.key)),
        };
        drop(shard);
        drop(left);
    }
}
