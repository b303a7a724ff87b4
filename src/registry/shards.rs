//! The entries: a map in shards, each under a lock of its own.
//!
//! No cache of the trade serves: what may go, and when, is decided by what the monitor is doing, under the lock that
//! hands out its handles; and what has gone idle is not dropped but turned into something smaller.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::{BuildHasher, DefaultHasher, Hash, RandomState},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::Outcome;
use crate::{AuthStatus, MonitoredTokenSource, StopReason, TokenSource, telemetry::Seat};

pub(super) struct Shards<K> {
    shards: Box<[Shard<K>; SHARDS]>,
    hasher: Hashing,
}

/// Of keys. They may come from outside, so nobody must be able to guess where they fall; unless a simulation wants to.
#[derive(Clone)]
pub(super) enum Hashing {
    Random(RandomState),
    #[cfg_attr(not(any(test, feature = "testing")), expect(dead_code, reason = "only simulations repeat"))]
    Repeatable,
}

impl BuildHasher for Hashing {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        match self {
            Self::Random(state) => state.build_hasher(),
            Self::Repeatable => DefaultHasher::new(),
        }
    }
}

pub(super) struct Shard<K>(RwLock<Entries<K>>);

pub(super) type Entries<K> = HashMap<K, Entry, Hashing>;

pub(super) struct Entry {
    pub(super) slot: Slot,
    /// When it was last got, or last seen in use, in milliseconds of the registry's clock.
    used: AtomicU64,
}

pub(super) enum Slot {
    Live {
        tokens: MonitoredTokenSource,
        source: Arc<dyn TokenSource>,
        _seat: Seat<true>,
    },
    /// No monitor; the source, with what only it has, is kept.
    Parked {
        source: Arc<dyn TokenSource>,
        status: AuthStatus,
        _seat: Seat<false>,
    },
    Creating(Outcome),
    /// Its monitor is ending, and will then be parked.
    Parking(Outcome),
    /// Its monitor is ending, and the entry goes with it.
    Leaving(Outcome),
}

impl Entry {
    pub(super) fn new(slot: Slot, now: Duration) -> Self {
        Self { slot, used: AtomicU64::new(millis(now)) }
    }

    pub(super) fn live(&self) -> Option<&MonitoredTokenSource> {
        match &self.slot {
            Slot::Live { tokens, .. } => Some(tokens),
            Slot::Parked { .. } | Slot::Creating(_) | Slot::Parking(_) | Slot::Leaving(_) => None,
        }
    }

    pub(super) fn parked(&self) -> Option<&Arc<dyn TokenSource>> {
        match &self.slot {
            Slot::Parked { source, .. } => Some(source),
            Slot::Live { .. } | Slot::Creating(_) | Slot::Parking(_) | Slot::Leaving(_) => None,
        }
    }

    pub(super) fn status(&self) -> Option<AuthStatus> {
        match &self.slot {
            Slot::Live { tokens, .. } => Some(tokens.status()),
            Slot::Parked { status, .. } => Some(status.clone()),
            Slot::Creating(_) => Some(AuthStatus::Pending),
            Slot::Parking(_) => Some(AuthStatus::Stopped(StopReason::Idle)),
            Slot::Leaving(_) => None,
        }
    }

    /// In use now. Who finds it noted already leaves the cache line to the others.
    pub(super) fn touch(&self, now: Duration) {
        let now = millis(now);
        if now.saturating_sub(self.used.load(Ordering::Relaxed)) >= RESOLUTION {
            self.used.store(now, Ordering::Relaxed);
        }
    }

    pub(super) fn idle_for(&self, now: Duration) -> Duration {
        Duration::from_millis(millis(now).saturating_sub(self.used.load(Ordering::Relaxed)))
    }
}

impl Slot {
    pub(super) fn live(tokens: MonitoredTokenSource, source: Arc<dyn TokenSource>) -> Self {
        Self::Live { tokens, source, _seat: Seat::taken() }
    }

    /// A source without a monitor, whose last status was this.
    pub(super) fn parked(source: Arc<dyn TokenSource>, last: AuthStatus) -> Self {
        let status = match last {
            AuthStatus::Unauthenticated(_) => last,
            AuthStatus::Pending | AuthStatus::Running | AuthStatus::AuthRetrying(_) | AuthStatus::Stopped(_) => {
                AuthStatus::Stopped(StopReason::Idle)
            }
        };
        Self::Parked { source, status, _seat: Seat::taken() }
    }
}

impl<K: Hash + Eq> Shards<K> {
    pub(super) fn new(hasher: Hashing) -> Self {
        let shards = std::array::from_fn(|_| Shard(RwLock::new(HashMap::with_hasher(hasher.clone()))));
        Self { shards: Box::new(shards), hasher }
    }

    pub(super) fn of<Q>(&self, key: &Q) -> &Shard<K>
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        // The low bits choose the place inside the shard.
        let hash = self.hasher.hash_one(key) >> 48;
        let nth = usize::try_from(hash).unwrap_or_default() % SHARDS;
        let [first, ..] = &*self.shards;
        self.shards.get(nth).unwrap_or(first)
    }
}

impl<K> Shards<K> {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Shard<K>> {
        self.shards.iter()
    }

    /// The nth one, counted from `from` and round to it again.
    pub(super) fn nth_from(&self, from: usize, nth: usize) -> Option<&Shard<K>> {
        let nth = from.wrapping_add(nth) % SHARDS + SHARDS * (nth / SHARDS);
        self.shards.get(nth)
    }

    pub(super) fn len(&self) -> usize {
        self.iter().map(|shard| shard.read().len()).sum()
    }

    /// What `pick` makes of the entries, one shard at a time: no lock is held between two of the items.
    pub(super) fn collect<T>(&self, pick: impl Fn(&K, &Entry) -> Option<T>) -> impl Iterator<Item = T> {
        self.iter().flat_map(move |shard| shard.collect(&pick))
    }
}

impl<K> Shard<K> {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Entries<K>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Entries<K>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn collect<T>(&self, pick: impl Fn(&K, &Entry) -> Option<T>) -> Vec<T> {
        self.read().iter().filter_map(|(key, entry)| pick(key, entry)).collect()
    }
}

fn millis(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

const SHARDS: usize = 64;
/// Of the time at which an entry was last used, in milliseconds.
const RESOLUTION: u64 = 100;
