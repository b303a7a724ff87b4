//! A store in memory that fails as it is told, and that can be emptied under everybody's hands.

use std::{
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use secrecy::ExposeSecret;
use steadfast::store::{Content, GrantStore, Lease, MemoryStore, Record, StoreError};

use crate::format::{StoreCall, Stored};

pub(crate) struct FaultyStore(Mutex<Inside>);

struct Inside {
    memory: MemoryStore,
    failing: Vec<StoreCall>,
}

impl FaultyStore {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Inside { memory: MemoryStore::new(), failing: Vec::new() }))
    }

    /// These calls fail from now on, and no others.
    pub(crate) fn fail(&self, calls: &[StoreCall]) {
        self.inside().failing = calls.to_vec();
    }

    pub(crate) fn lose_contents(&self) {
        self.inside().memory = MemoryStore::new();
    }

    pub(crate) fn memory(&self) -> MemoryStore {
        self.inside().memory.clone()
    }

    pub(crate) async fn stored(&self) -> Option<Stored> {
        let record = self.memory().load().await.unwrap()?;
        let account = Some(record.identity().account().to_owned());
        Some(match record.content() {
            Content::Grant(grant) => {
                let refresh_token = grant.refresh_token().map(|token| token.expose_secret().to_owned());
                Stored { refresh_token, tombstone: None, account }
            }
            Content::Tombstone(tombstone) => {
                Stored { refresh_token: None, tombstone: Some(tombstone.code().to_owned()), account }
            }
            other => panic!("a content that scenarios have no word for: {other:?}"),
        })
    }

    fn check(&self, call: StoreCall) -> Result<MemoryStore, StoreError> {
        let inside = self.inside();
        if inside.failing.contains(&call) {
            return Err(StoreError::unavailable("down, as the scenario has it"));
        }
        Ok(inside.memory.clone())
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap()
    }
}

#[async_trait::async_trait]
impl GrantStore for FaultyStore {
    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        self.check(StoreCall::Lease)?.lease(ttl).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<(), StoreError> {
        self.check(StoreCall::Renew)?.renew(lease, ttl).await
    }

    async fn load(&self) -> Result<Option<Record>, StoreError> {
        self.check(StoreCall::Load)?.load().await
    }

    async fn commit(&self, lease: &Lease, record: &Record) -> Result<(), StoreError> {
        self.check(StoreCall::Commit)?.commit(lease, record).await
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        self.memory().release(lease).await
    }
}
