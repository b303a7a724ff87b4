//! Parking what nobody uses, and dropping what can be made again. One task for the whole registry.

use std::{
    hash::Hash,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::yield_now,
    time::{sleep, timeout},
};

use super::{
    Registry,
    ending::Departure,
    shards::{Entries, Entry, Shard, Slot},
};
use crate::{MonitoredTokenSource, telemetry::REGISTRY};

/// The sweeper. Ends with the registry.
pub(super) async fn keep_sweeping<K>(registry: Weak<Registry<K>>, crowded: Arc<Notify>, period: Duration)
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
{
    loop {
        let _ = timeout(period, crowded.notified()).await;
        let Some(registry) = registry.upgrade() else { return };
        registry.sweep().await;
        drop(registry);
        // Where everything is in use, each new monitor would start a look over all of them.
        sleep(PAUSE).await;
    }
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Registry<K> {
    async fn sweep(self: &Arc<Self>) {
        self.park_the_surplus().await;
        for shard in self.shards.iter() {
            if shard.read().capacity() > 0 {
                self.park_the_idle(shard);
                drop_the_replaceable(shard);
                shrink(&mut shard.write());
                yield_now().await;
            }
        }
    }

    fn park_the_idle(self: &Arc<Self>, shard: &Shard<K>) {
        let now = self.clock.mono();
        let idle = shard.collect(|key, entry| {
            let tokens = entry.live()?;
            if tokens.is_in_use() && !tokens.is_stopped() {
                entry.touch(now);
            }
            (entry.idle_for(now) >= self.idle_after).then(|| key.clone())
        });
        self.see_off(idle.iter().filter_map(|key| self.park(key, self.idle_after)).collect());
    }

    async fn park_the_surplus(self: &Arc<Self>) {
        let live = self.live.load(Ordering::Relaxed);
        if live <= self.capacity {
            self.is_over.store(false, Ordering::Relaxed);
            return;
        }
        let now = self.clock.mono();
        let mut candidates = Vec::new();
        for shard in self.shards.iter() {
            candidates.extend(shard.collect(|key, entry| {
                let unused = entry.live().is_some_and(|tokens| !tokens.is_in_use());
                unused.then(|| (entry.idle_for(now), key.clone()))
            }));
            yield_now().await;
        }
        candidates.sort_unstable_by_key(|(idle_for, _)| std::cmp::Reverse(*idle_for));
        // Some more than needed, so that not every new monitor makes us look over all the others.
        let surplus = live.saturating_sub(self.capacity - self.capacity / 16);
        let partings = candidates.iter().filter_map(|(idle_for, key)| self.park(key, *idle_for));
        self.see_off(partings.take(surplus).collect());
        let live = self.live.load(Ordering::Relaxed);
        if live > self.capacity && !self.is_over.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                target: REGISTRY,
                live,
                capacity = self.capacity,
                "more monitors are in use than the registry's capacity: it holds them all the same"
            );
        }
    }

    /// Begins to park a monitor that has been idle for so long, if nobody uses it and no attempt is in flight.
    fn park(self: &Arc<Self>, key: &K, idle_for: Duration) -> Option<Parting<K>> {
        let mut shard = self.shards.of(key).write();
        let now = self.clock.mono();
        let entry = shard.get_mut(key).filter(|entry| entry.idle_for(now) >= idle_for)?;
        let Slot::Live { tokens, source, .. } = &entry.slot else {
            return None;
        };
        let status = tokens.status();
        // One that somebody has shut down may have an attempt in flight still.
        if !(tokens.retire() || tokens.is_stopped() && tokens.has_wound_up()) {
            return None;
        }
        let tokens = tokens.clone();
        let parked = tokens.newest_source(source).map(|source| Slot::parked(source, status));
        let (leaving, outcome) = watch::channel(None);
        let retired = std::mem::replace(&mut entry.slot, Slot::Parking(outcome));
        self.live.fetch_sub(1, Ordering::Relaxed);
        drop(shard);
        drop(retired);
        Some((tokens, Departure { registry: Arc::clone(self), key: key.clone(), parked, _leaving: leaving }))
    }

    /// Waits until the monitors have wound up and their sinks have been told: only then may others take their places. A sink
    /// that does not listen is not waited for for long, for somebody may be waiting for a token by then.
    fn see_off(&self, partings: Vec<Parting<K>>) {
        if partings.is_empty() {
            return;
        }
        let (clock, until) = (self.clock.clone(), self.clock.mono().saturating_add(LAST_WORDS));
        self.runtime.spawn(async move {
            for (tokens, departure) in partings {
                let _ = timeout(until.saturating_sub(clock.mono()), tokens.shutdown()).await;
                drop((tokens, departure));
            }
        });
    }
}

type Parting<K> = (MonitoredTokenSource, Departure<K>);

/// Nothing is lost with what says so. Asked only of sources that have no monitor, so that no attempt can change the answer.
fn drop_the_replaceable<K: Hash + Eq + Clone>(shard: &Shard<K>) {
    let parked = shard.collect(|key, entry| Some((key.clone(), Arc::clone(entry.parked()?))));
    for (key, source) in parked {
        // The host's code, so not under the lock.
        if !source.is_replaceable() {
            continue;
        }
        let mut shard = shard.write();
        let is_still = |entry: &Entry| entry.parked().is_some_and(|now| Arc::ptr_eq(now, &source));
        let dropped = if shard.get(&key).is_some_and(is_still) { shard.remove(&key) } else { None };
        drop(shard);
        drop(dropped);
    }
}

/// A crowd that has gone must not be paid for for ever.
fn shrink<K: Hash + Eq>(shard: &mut Entries<K>) {
    if shard.capacity() > 4 * shard.len().max(16) {
        shard.shrink_to(2 * shard.len());
    }
}

const PAUSE: Duration = Duration::from_secs(1);
const LAST_WORDS: Duration = Duration::from_secs(5);
