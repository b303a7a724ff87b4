//! A place where the login is kept, which may be full.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use steadfast::store::{GrantStore, Lease, MemoryStore, Record, StoreError};

#[derive(Clone)]
pub(crate) struct Disk {
    store: MemoryStore,
    is_full: Arc<AtomicBool>,
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self { store: MemoryStore::new(), is_full: Arc::default() }
    }

    pub(crate) fn fill(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
    }
}

#[async_trait]
impl GrantStore for Disk {
    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        self.store.lease(ttl).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<(), StoreError> {
        self.store.renew(lease, ttl).await
    }

    async fn load(&self) -> Result<Option<Record>, StoreError> {
        self.store.load().await
    }

    async fn commit(&self, lease: &Lease, record: &Record) -> Result<(), StoreError> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(StoreError::unavailable("no space left on device"));
        }
        self.store.commit(lease, record).await
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        self.store.release(lease).await
    }
}
