//! A store in memory.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use super::{GrantStore, Lease, Record, StoreError};
use crate::monitor::clock::Clock;

/// Keeps a login in memory: clones share it, and it ends with the last of them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::time::Duration;
/// use steadfast::store::{GrantStore, MemoryStore};
///
/// let store = MemoryStore::new();
/// let lease = store.lease(Duration::from_secs(35)).await.unwrap();
/// assert!(store.clone().lease(Duration::from_secs(35)).await.unwrap_err().is_busy());
///
/// drop(lease);
/// assert!(store.lease(Duration::from_secs(35)).await.is_ok());
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryStore(Arc<Place>);

struct Place {
    clock: Clock,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    record: Option<Record>,
    /// How many leases were given; the number of the latest is the only one that may still write.
    leases: u64,
    /// Until when the latest holds; `None` once it was given back.
    until: Option<Duration>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "reading a clock is no default")]
    pub fn new() -> Self {
        Self(Arc::new(Place { clock: Clock::system(), kept: Mutex::default() }))
    }
}

#[async_trait]
impl GrantStore for MemoryStore {
    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        let now = self.0.clock.now().mono;
        let mut kept = self.0.kept();
        if kept.until.is_some_and(|until| now < until) {
            return Err(StoreError::Busy);
        }
        kept.leases = kept.leases.saturating_add(1);
        kept.until = Some(now.saturating_add(ttl));
        Ok(Lease::holding(Held { place: Arc::clone(&self.0), number: kept.leases }))
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<(), StoreError> {
        let mut kept = self.latest(lease)?;
        kept.until = Some(self.0.clock.now().mono.saturating_add(ttl));
        Ok(())
    }

    async fn load(&self) -> Result<Option<Record>, StoreError> {
        Ok(self.0.kept().record.clone())
    }

    async fn commit(&self, lease: &Lease, record: &Record) -> Result<(), StoreError> {
        let mut kept = self.latest(lease)?;
        match kept.record.as_ref().map(Record::revision) {
            stored if stored == Some(record.revision()) => return Ok(()),
            stored if stored == record.replaces() => {}
            Some(_) | None => return Err(StoreError::Stale),
        }
        kept.record = Some(record.clone());
        Ok(())
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        drop(lease);
        Ok(())
    }
}

impl MemoryStore {
    /// What is kept, for the holder of the latest lease. One that has run out is as good as new while nobody else came.
    fn latest(&self, lease: &Lease) -> Result<MutexGuard<'_, Kept>, StoreError> {
        let held = lease.get::<Held>().filter(|held| Arc::ptr_eq(&held.place, &self.0));
        let kept = self.0.kept();
        if held.is_none_or(|held| held.number != kept.leases) {
            return Err(StoreError::LeaseLost);
        }
        Ok(kept)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryStore")
    }
}

impl Place {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing that can panic runs under this lock.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Held {
    place: Arc<Place>,
    number: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut kept = self.place.kept();
        if kept.leases == self.number {
            kept.until = None;
        }
    }
}
