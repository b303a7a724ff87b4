//! What could not be saved is tried again until it is; and what the host puts into the store itself.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::Instrument;

use super::{
    Login,
    memory::{Memory, Standing},
    transaction::{LAST_LOOK, ROUNDS},
};
use crate::{
    OAuthCode,
    schedule::Doubling,
    store::{Content, Record, StoreError, StoredGrant, Tombstone},
    telemetry::STORE,
};

/// What the host wants to be stored.
#[derive(Clone, Copy)]
pub(super) enum Put {
    /// The grant's own refresh token, whatever is stored.
    SignIn,
    /// The newest pair of this process, where the store has lost it.
    Restore,
    /// The note that the login has ended.
    SignOut,
}

impl Login {
    /// One more try to save what is unsaved.
    pub(super) async fn save(&self, memory: &mut Memory, ttl: Duration) -> Result<(), StoreError> {
        if memory.unsaved.is_none() {
            return Ok(());
        }
        self.renew(memory, ttl).await;
        self.commit(memory, ttl).await
    }

    /// Commits what is unsaved, on whatever it may take the place of. `Ok` also where it has given way to what is stored.
    pub(super) async fn commit(&self, memory: &mut Memory, ttl: Duration) -> Result<(), StoreError> {
        for _ in 0..ROUNDS {
            if memory.lease.is_none() {
                // First, because the lease may be none of our business any more.
                self.look(memory).await?;
                if memory.unsaved.is_some() {
                    memory.lease = Some(self.timed(self.store.lease(ttl)).await?);
                }
            }
            let (Some(unsaved), Some(lease)) = (&memory.unsaved, &memory.lease) else { return Ok(()) };
            let record = unsaved.record.clone();
            match self.timed(self.store.commit(lease, &record)).await {
                Ok(()) => {
                    tracing::debug!(target: STORE, revision = record.revision().get(), "the store was written");
                    memory.settle(record);
                    return Ok(());
                }
                Err(StoreError::Stale) => self.look(memory).await?,
                Err(StoreError::LeaseLost) => self.release(memory).await,
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Busy)
    }

    /// Saves in a task of its own, which ends when nothing is unsaved any more, or when the login has had no owner for
    /// [`ORPHANED`].
    pub(super) fn save_in_background(self: &Arc<Self>, memory: &mut Memory, ttl: Duration) {
        if memory.saver.as_ref().is_some_and(|saver| !saver.is_finished()) {
            return;
        }
        let login = Arc::clone(self);
        let saver = async move {
            let mut orphaned = Duration::ZERO;
            for wait in Doubling::new(FIRST_WAIT, LONGEST_WAIT.min(ttl / 3)) {
                sleep(wait).await;
                let mut memory = login.session().await;
                let saved = login.save(&mut memory, ttl).await;
                if !memory.needs_its_lease() {
                    login.release(&mut memory).await;
                }
                orphaned = if Arc::strong_count(&login) == 1 { orphaned.saturating_add(wait) } else { Duration::ZERO };
                if orphaned > ORPHANED {
                    tracing::error!(target: STORE, "a rotated refresh token was never saved: the login is lost");
                } else if saved.is_err() {
                    continue;
                } else {
                    // Whoever read the warning wants to read this, too.
                    tracing::info!(target: STORE, "nothing is unsaved any more");
                }
                memory.saver = None;
                return;
            }
        };
        memory.saver = Some(tokio::spawn(saver.in_current_span()));
    }

    /// What is unsaved stays so until what is put is stored.
    pub(super) async fn put(&self, memory: &mut Memory, put: Put) -> Result<(), StoreError> {
        self.renew(memory, PUT_TTL).await;
        if memory.lease.is_none() {
            self.lease_patiently(memory).await?;
        }
        let stored = self.timed(self.store.load()).await?;
        let replaced = stored.as_ref().map(Record::revision);
        let content = match put {
            Put::SignIn => Some(Content::Grant(self.signed_in(memory, stored)?)),
            Put::Restore => Some(Content::Grant(self.restored(memory, stored)?)),
            Put::SignOut => self.signed_out(memory, stored)?.map(Content::Tombstone),
        };
        if let Some(content) = content {
            let record = Record::after(replaced, content);
            let lease = memory.lease.as_ref().ok_or(StoreError::LeaseLost)?;
            self.timed(self.store.commit(lease, &record)).await?;
            memory.settle(record);
        }
        Ok(())
    }

    fn signed_in(&self, memory: &Memory, stored: Option<Record>) -> Result<StoredGrant, StoreError> {
        let grant = self.begin();
        if grant.refresh_token().is_none() && self.grant.needs_the_store() {
            return Err(StoreError::NoRefreshToken);
        }
        if memory.is_used_up(&grant, stored.as_ref()) { Err(StoreError::UsedUp) } else { Ok(grant) }
    }

    fn restored(&self, memory: &Memory, stored: Option<Record>) -> Result<StoredGrant, StoreError> {
        let newest = match memory.latest() {
            Some(Content::Grant(newest)) => newest.clone(),
            Some(Content::Tombstone(_)) => return Err(StoreError::UsedUp),
            None => return Err(StoreError::Gone),
        };
        match memory.weigh(&self.identity, stored) {
            Standing::Open(_) | Standing::Saved(_) | Standing::Older(_) | Standing::Lost(StoreError::Gone) => {
                Ok(newest)
            }
            Standing::Lost(error) => Err(error),
            Standing::Counts(_) => Err(StoreError::Stale),
        }
    }

    /// `None`: there is no login to end.
    fn signed_out(&self, memory: &Memory, stored: Option<Record>) -> Result<Option<Tombstone>, StoreError> {
        let ended = match memory.weigh(&self.identity, stored) {
            Standing::Counts(stored) | Standing::Saved(stored) => Some(stored.content().clone()),
            Standing::Open(_) | Standing::Older(_) | Standing::Lost(StoreError::Gone) => memory.latest().cloned(),
            Standing::Lost(error) => return Err(error),
        };
        let grant = match ended.unwrap_or_else(|| Content::Grant(self.begin())) {
            Content::Grant(grant) if grant.refresh_token().is_some() => grant,
            Content::Grant(_) | Content::Tombstone(_) => return Ok(None),
        };
        Ok(Some(Tombstone::of(&grant, &OAuthCode::signed_out())))
    }

    async fn lease_patiently(&self, memory: &mut Memory) -> Result<(), StoreError> {
        let patience = self.clock.now().mono.saturating_add(self.lease_wait);
        let mut is_first = true;
        loop {
            match self.timed(self.store.lease(PUT_TTL)).await {
                Ok(lease) => {
                    memory.lease = Some(lease);
                    return Ok(());
                }
                Err(refused) if refused.is_busy() && self.clock.now().mono < patience => {
                    if std::mem::take(&mut is_first) {
                        self.lease_refused(&refused);
                    }
                    sleep(LAST_LOOK).await;
                }
                Err(refused) => return Err(refused),
            }
        }
    }

    /// A lease that is lost is none. One that could not be renewed may be good still; the next call shows it.
    async fn renew(&self, memory: &mut Memory, ttl: Duration) {
        if let Some(lease) = &memory.lease
            && let Err(StoreError::LeaseLost) = self.timed(self.store.renew(lease, ttl)).await
        {
            self.release(memory).await;
        }
    }
}

/// Longer than the pauses between two tries to save.
pub(super) const PUT_TTL: Duration = Duration::from_secs(35);
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
const ORPHANED: Duration = Duration::from_secs(5 * 60);
