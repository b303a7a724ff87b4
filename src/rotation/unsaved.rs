//! A rotated pair that could not be saved: kept in memory, under its lease, until it is.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use super::{
    Login,
    transaction::{TARGET, ttl},
    trouble::{SIGN_IN, Trouble, condemns},
};
use crate::{
    IssueRequest, IssuedToken,
    schedule::Doubling,
    store::{Content, Lease, Record, Revision, StoreError, StoredGrant},
};

/// What a process knows of its login besides what is stored.
#[derive(Default)]
pub(super) struct Memory {
    /// The revision that was stored when this process last looked.
    pub(super) seen: Option<Revision>,
    /// The login as this process last knew it.
    pub(super) last: Option<StoredGrant>,
    pub(super) unsaved: Option<Unsaved>,
    /// The task that saves it is at work.
    saving: bool,
}

/// The newest pair. Nobody else has it, so it counts more than what is stored.
pub(super) struct Unsaved {
    pub(super) grant: StoredGrant,
    /// What was stored when it was exchanged.
    pub(super) base: Option<Revision>,
    /// While it is held, nobody spends the stored refresh token a second time.
    pub(super) lease: Option<Lease>,
}

impl Memory {
    pub(super) fn seen(&mut self, revision: Revision, grant: Option<StoredGrant>) {
        (self.seen, self.last) = (Some(revision), grant);
    }

    pub(super) fn newest(&self) -> Option<&StoredGrant> {
        self.unsaved.as_ref().map(|unsaved| &unsaved.grant).or(self.last.as_ref())
    }
}

impl Login {
    /// The next token while a pair is unsaved: the one that came with it, or another exchange under the same lease. `None`
    /// where nothing is unsaved any more.
    pub(super) async fn carry_on(
        &self,
        memory: &mut Memory,
        request: &IssueRequest,
    ) -> Result<Option<IssuedToken>, Trouble> {
        let saved = self.save(memory, ttl(request)).await;
        let Some(unsaved) = &mut memory.unsaved else { return Ok(None) };
        if let Some(token) = self.wanted(&unsaved.grant, request) {
            return Ok(Some(token.unsaved(true)));
        }
        let Some(lease) = &unsaved.lease else { return Err(saved.err().unwrap_or(StoreError::Busy).into()) };
        let stored = self.timed(self.store.load()).await?.map(|record| record.revision());
        if stored != unsaved.base {
            return Err(StoreError::Busy.into());
        }
        match self.rotate(lease, &unsaved.grant, request).await {
            Ok((grant, issued)) => {
                unsaved.grant = grant;
                let saved = self.save(memory, ttl(request)).await;
                Ok(Some(issued?.unsaved(saved.is_err())))
            }
            Err(Trouble::Issue(error)) if condemns(&error) => {
                memory.unsaved = None;
                Err(error.with_advice(SIGN_IN).into())
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// One try to save what is unsaved.
    async fn save(&self, memory: &mut Memory, ttl: Duration) -> Result<(), StoreError> {
        let Some(unsaved) = &mut memory.unsaved else { return Ok(()) };
        if let Some(lease) = &unsaved.lease
            && let Err(StoreError::LeaseLost) = self.timed(self.store.renew(lease, ttl)).await
        {
            unsaved.lease = None;
        }
        let lease = match &unsaved.lease {
            Some(lease) => lease,
            None => unsaved.lease.insert(self.timed(self.store.lease(ttl)).await?),
        };
        let record = Record::after(unsaved.base, Content::Grant(unsaved.grant.clone()));
        match self.timed(self.store.commit(lease, &record)).await {
            Ok(()) => tracing::info!(target: TARGET, "a refresh token that could not be saved is saved now"),
            Err(StoreError::Stale) => {
                let stored = self.timed(self.store.load()).await?;
                // It condemns the refresh token that ours has replaced.
                if let Some(tombstone) = stored.filter(|stored| matches!(stored.content(), Content::Tombstone(_))) {
                    unsaved.base = Some(tombstone.revision());
                    return Err(StoreError::Stale);
                }
                tracing::warn!(target: TARGET, "an unsaved refresh token was given up: another login counts by now");
                memory.unsaved = None;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        if let Some(Unsaved { grant, lease, base: _ }) = memory.unsaved.take() {
            memory.seen(record.revision(), Some(grant));
            if let Some(lease) = lease {
                self.release(lease).await;
            }
        }
        Ok(())
    }

    /// Saves in a task of its own, which ends when the pair is saved or given up, or when the login has had no owner for
    /// [`ORPHANED`].
    pub(super) fn save_in_background(self: &Arc<Self>, memory: &mut Memory, ttl: Duration) {
        if std::mem::replace(&mut memory.saving, true) {
            return;
        }
        let login = Arc::clone(self);
        tokio::spawn(async move {
            let mut orphaned = Duration::ZERO;
            for wait in Doubling::new(FIRST_WAIT, LONGEST_WAIT.min(ttl / 3)) {
                sleep(wait).await;
                let mut memory = login.memory.lock().await;
                let saved = login.save(&mut memory, ttl).await;
                orphaned = if Arc::strong_count(&login) == 1 { orphaned.saturating_add(wait) } else { Duration::ZERO };
                if orphaned > ORPHANED {
                    tracing::error!(target: TARGET, "a rotated refresh token was never saved: the login is lost");
                } else if saved.is_err() {
                    continue;
                }
                memory.saving = false;
                return;
            }
        });
    }
}

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
const ORPHANED: Duration = Duration::from_secs(5 * 60);
