//! The transaction: lease, read again, exchange, commit, release; and which of them comes next.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::OwnedMutexGuard,
    time::{sleep, timeout},
};
use tracing::Instrument;

use super::{
    Login,
    memory::{Memory, Standing},
    trouble::{Condemned, Trouble, advice_on, condemns, failed},
};
use crate::{
    Delivery, IssueError, IssueRequest, IssuedToken, OAuthCode, Verdict,
    schedule::{Doubling, Jitter, Validity},
    store::{Content, Revision, StoreError, StoredGrant},
    telemetry::{self, STORE},
};

/// What a login is exchanged from: the newest pair, or the grant's own refresh token where there is none.
pub(super) struct Basis {
    pub(super) grant: StoredGrant,
    /// What has to be stored still when the new pair is committed.
    pub(super) base: Option<Revision>,
}

/// What is to be done, now that it is known what is stored.
pub(super) enum Next {
    Exchange(Basis),
    Adopt(IssuedToken),
}

impl Login {
    pub(super) async fn issue(self: &Arc<Self>, request: &IssueRequest) -> Result<IssuedToken, IssueError> {
        let patience = self.clock.now().mono.saturating_add(self.lease_wait);
        let needs_the_store = self.grant.needs_the_store();
        let outcome = match timeout(self.lease_wait, self.session()).await {
            Ok(mut memory) => {
                let outcome = self.transact(&mut memory, request, patience).await;
                let (login, ttl) = (Arc::clone(self), ttl(request));
                let ending = tokio::spawn(async move { login.end(memory, ttl).await }.in_current_span());
                // A grant that does without the store does not wait for it: one that hangs takes its time for this as well.
                if needs_the_store {
                    let _ = ending.await;
                }
                outcome
            }
            // An earlier attempt's transaction is on its way still, or the background's; what they wait for is what is wrong.
            Err(_) if self.is_store_silent.load(Ordering::Relaxed) => Err(silent().into()),
            Err(_) => Err(StoreError::Busy.into()),
        };
        match outcome {
            Ok(token) => Ok(token),
            Err(Trouble::Issue(error)) => Err(error),
            Err(Trouble::Store(error)) if needs_the_store || request.is_cancelled() => Err(failed(error)),
            Err(Trouble::Store(error)) => {
                tracing::debug!(target: STORE, rule = error.rule(), "going on without the store");
                self.exchange(None, request).await.issued
            }
        }
    }

    pub(super) async fn session(&self) -> Session {
        Session(Arc::clone(&self.memory).lock_owned().await)
    }

    /// Step five; or, with a pair that could not be saved, the beginning of the tries to save it.
    pub(super) async fn end(self: &Arc<Self>, mut memory: Session, ttl: Duration) {
        if !memory.needs_its_lease() {
            self.release(&mut memory).await;
        }
        if memory.unsaved.is_some() {
            self.save_in_background(&mut memory, ttl);
        }
    }

    async fn transact(
        &self,
        memory: &mut Memory,
        request: &IssueRequest,
        patience: Duration,
    ) -> Result<IssuedToken, Trouble> {
        if let Err(error) = self.save(memory, ttl(request)).await {
            if let Some(token) = self.despite(error, memory, request)? {
                return Ok(token.unsaved(true));
            }
        } else if memory.lease.is_none()
            && let Some(token) = self.lease(memory, request, patience).await?
        {
            return Ok(token);
        }
        for _ in 0..ROUNDS {
            self.look(memory).await?;
            let from = match self.next(memory, request)? {
                Next::Exchange(from) => from,
                Next::Adopt(token) => return Ok(self.adopted(token).unsaved(memory.unsaved.is_some())),
            };
            match self.rotate(memory, &from, request).await {
                Ok((grant, issued)) => return self.receive(memory, &from, grant, issued, request).await,
                Err(Trouble::Issue(error)) => {
                    let code = from.grant.refresh_token().and(condemns(&error)).cloned();
                    let Some(code) = code else { return Err(error.into()) };
                    self.condemn(memory, &from, &code, error, request).await?;
                    tracing::debug!(target: STORE, "rejected, but somebody has replaced the login: going on with theirs");
                }
                Err(store) => return Err(store),
            }
        }
        Err(StoreError::Busy.into())
    }

    /// What can be had while something is unsaved for this reason: the token that came with it, or, with `None`, another
    /// exchange under the lease that is still held.
    fn despite(
        &self,
        error: StoreError,
        memory: &Memory,
        request: &IssueRequest,
    ) -> Result<Option<IssuedToken>, Trouble> {
        if !matches!(error, StoreError::Foreign)
            && let Next::Adopt(token) = self.next(memory, request)?
        {
            return Ok(Some(token));
        }
        if memory.lease.is_some() { Ok(None) } else { Err(error.into()) }
    }

    /// Step one. The lease, or the token that its holder has brought by the time we look.
    async fn lease(
        &self,
        memory: &mut Memory,
        request: &IssueRequest,
        patience: Duration,
    ) -> Result<Option<IssuedToken>, Trouble> {
        let mut waits = Doubling::new(FIRST_LOOK, LAST_LOOK);
        let mut is_first = true;
        loop {
            let refused = match self.timed(self.store.lease(ttl(request))).await {
                Ok(lease) => {
                    memory.lease = Some(lease);
                    return Ok(None);
                }
                // Asked something else, it would be waited for once more.
                Err(refused) if self.is_store_silent.load(Ordering::Relaxed) => return Err(refused.into()),
                Err(refused) => refused,
            };
            if std::mem::take(&mut is_first) {
                self.lease_refused(&refused);
            }
            // A store that cannot be written may still be read, and what is wrong with the login may be the true trouble.
            let trouble = match self.look(memory).await {
                Ok(()) => match self.next(memory, request) {
                    Ok(Next::Adopt(token)) => return Ok(Some(self.adopted(token))),
                    Ok(Next::Exchange(_)) => None,
                    Err(trouble) => Some(trouble),
                },
                // Whoever holds the lease may be about to sign in; where nobody can, the place itself may be missing.
                Err(StoreError::Gone) => None,
                Err(error) => Some(error.into()),
            };
            if request.is_cancelled() {
                return Err(IssueError::cancelled().into());
            }
            if !refused.is_busy() || self.clock.now().mono >= patience {
                return Err(trouble.unwrap_or(refused.into()));
            }
            sleep(waits.next().unwrap_or(LAST_LOOK).mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    pub(super) fn lease_refused(&self, refused: &StoreError) {
        tracing::debug!(target: STORE, rule = refused.rule(), "the lease was refused");
        if let StoreError::Busy = refused {
            telemetry::store_refused(refused.rule());
        }
    }

    /// Step two: reads what is stored, and brings the memory up to it.
    pub(super) async fn look(&self, memory: &mut Memory) -> Result<(), StoreError> {
        let stored = self.timed(self.store.load()).await?;
        match memory.weigh(&self.identity, stored) {
            Standing::Open(base) => memory.rebase(base),
            Standing::Saved(stored) => memory.settle(stored),
            Standing::Counts(stored) => {
                if memory.unsaved.is_some() {
                    tracing::warn!(target: STORE, "an unsaved refresh token was given up: another login counts by now");
                }
                memory.settle(stored);
            }
            Standing::Older(revision) => {
                memory.distrust(revision);
                return Err(StoreError::RolledBack);
            }
            Standing::Lost(error) => {
                // What is there is not ours to guard: somebody may want to sign in.
                self.release(memory).await;
                return Err(error);
            }
        }
        Ok(())
    }

    /// What follows from what is known and unsaved.
    pub(super) fn next(&self, memory: &Memory, request: &IssueRequest) -> Result<Next, Trouble> {
        let (content, base) = match (&memory.unsaved, &memory.known) {
            (Some(unsaved), _) => (unsaved.record.content(), unsaved.record.replaces()),
            (None, Some(known)) => (known.content(), Some(known.revision())),
            (None, None) => return Ok(Next::Exchange(Basis { grant: self.begin(), base: None })),
        };
        match content {
            Content::Grant(grant) => Ok(match self.wanted(grant, request) {
                Some(token) => Next::Adopt(token),
                None => Next::Exchange(Basis { grant: grant.clone(), base }),
            }),
            Content::Tombstone(tombstone) => {
                let begun = self.begin();
                // A refresh token that this login did not begin with: the user has signed in again.
                let is_other = begun.fingerprint().is_some_and(|begun| Some(&begun) != tombstone.origin());
                if is_other && self.handed().is_empty() && !memory.is_used_up(&begun, None) {
                    return Ok(Next::Exchange(Basis { grant: begun, base }));
                }
                let code = OAuthCode::new(tombstone.code());
                let code = code.ok_or_else(|| StoreError::Corrupt("a tombstone without a code".into()))?;
                Err(IssueError::new(Verdict::Rejected(code), Delivery::NotSent, "condemned-before", Condemned)
                    .with_remediation(advice_on(tombstone.code()))
                    .into())
            }
        }
    }

    pub(super) fn adopted(&self, token: IssuedToken) -> IssuedToken {
        self.counts.adopted.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(target: STORE, "took up a token from the store");
        token
    }

    /// The access token of a login, if it fits, is not due yet, and is not the one that another is wanted for.
    pub(super) fn wanted(&self, grant: &StoredGrant, request: &IssueRequest) -> Option<IssuedToken> {
        let token = grant.access_token()?;
        if self.handed().contains(&token.fingerprint())
            || request.claims().is_some()
            || *grant.terms() != self.grant.terms()
        {
            return None;
        }
        let (now, policy) = (self.clock.wall(), request.policy());
        let Some(lifetime) = token.lifetime().or(policy.assumed_lifetime) else { return Some(token.at(now)) };
        let remaining = token.remaining(lifetime, now);
        let validity = Validity::of(lifetime, policy, &mut Jitter::seeded(fastrand::u64(..)));
        let is_due = lifetime.saturating_sub(remaining) >= validity.refresh_after.min(validity.serve_for);
        (!is_due).then(|| token.at(now).expires_in(remaining))
    }

    /// A login as it begins, with the grant's own refresh token.
    pub(super) fn begin(&self) -> StoredGrant {
        StoredGrant::begun(self.identity.clone(), self.grant.terms(), self.grant.refresh_token())
    }

    pub(super) async fn release(&self, memory: &mut Memory) {
        if let Some(lease) = memory.lease.take()
            && let Err(error) = self.timed(self.store.release(lease)).await
        {
            tracing::debug!(target: STORE, rule = error.rule(), "a lease was left to its time limit");
        }
    }

    /// A store that hangs is a store that is down.
    pub(super) async fn timed<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let answer = timeout(STORE_CALL, call).await;
        self.is_store_silent.store(answer.is_err(), Ordering::Relaxed);
        answer.unwrap_or_else(|_| Err(silent())).inspect_err(|error| {
            // Who waits for a lease asks many times; that is one refusal, and counted where the waiting begins.
            if !matches!(error, StoreError::Busy) {
                telemetry::store_refused(error.rule());
            }
        })
    }
}

/// The memory, for the length of a transaction: whatever cuts that short, a lease that protects nothing ends with it.
pub(super) struct Session(OwnedMutexGuard<Memory>);

impl Deref for Session {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        &self.0
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Memory {
        &mut self.0
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.needs_its_lease() {
            self.lease = None;
        }
    }
}

fn silent() -> StoreError {
    StoreError::unavailable("the store does not answer")
}

/// A lease outlasts an exchange that takes all of its time, and the store's calls around it.
pub(super) fn ttl(request: &IssueRequest) -> Duration {
    request.time_limit().saturating_add(LEASE_MARGIN)
}

pub(super) const LAST_LOOK: Duration = Duration::from_millis(100);
pub(super) const ROUNDS: u32 = 3;
const LEASE_MARGIN: Duration = Duration::from_secs(15);
const STORE_CALL: Duration = Duration::from_secs(5);
const FIRST_LOOK: Duration = Duration::from_millis(5);
