//! The transaction: lease, read again, exchange, commit, release.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::{
    Login,
    trouble::{Condemned, SIGN_IN, Trouble, condemns, failed},
    unsaved::{Memory, Unsaved},
};
use crate::{
    Delivery, IssueError, IssueRequest, IssuedToken, OAuthCode, Verdict,
    oauth::Exchanged,
    schedule::{Doubling, Jitter, Validity},
    store::{Content, Fingerprint, Lease, Record, Revision, StoreError, StoredGrant, StoredToken, Tombstone},
};

/// What a login is exchanged from: the stored one, or the grant's own where nothing is stored.
struct Basis {
    grant: StoredGrant,
    /// What has to be stored still when the new pair is committed.
    base: Option<Revision>,
}

impl Login {
    pub(super) async fn issue(self: &Arc<Self>, request: &IssueRequest) -> Result<IssuedToken, IssueError> {
        let patience = self.clock.now().mono.saturating_add(self.lease_wait);
        // An earlier attempt's transaction may still be on its way.
        let memory = timeout(self.lease_wait, Arc::clone(&self.memory).lock_owned()).await;
        let trouble = match memory {
            Ok(mut memory) => match self.transact(&mut memory, request, patience).await {
                Ok(token) => return Ok(token),
                Err(trouble) => trouble,
            },
            Err(_) => Trouble::Store(StoreError::Busy),
        };
        match trouble {
            Trouble::Issue(error) => Err(error),
            Trouble::Store(error) if self.grant.refresh_token().is_none() && !request.is_cancelled() => {
                tracing::debug!(target: TARGET, rule = error.rule(), "going on without the store");
                self.exchange(None, request).await.issued
            }
            Trouble::Store(error) => Err(failed(error)),
        }
    }

    async fn transact(
        self: &Arc<Self>,
        memory: &mut Memory,
        request: &IssueRequest,
        patience: Duration,
    ) -> Result<IssuedToken, Trouble> {
        if let Some(token) = self.carry_on(memory, request).await? {
            return Ok(token);
        }
        let lease = match self.lease(memory, request, patience).await? {
            Entry::Leased(lease) => lease,
            Entry::Adopted(token) => return Ok(token),
        };
        let outcome = self.under(&lease, memory, request).await;
        match memory.unsaved.as_mut() {
            Some(unsaved) => {
                unsaved.lease = Some(lease);
                self.save_in_background(memory, ttl(request));
            }
            None => self.release(lease).await,
        }
        outcome
    }

    /// The lease, or what its holder has brought by the time we look.
    async fn lease(&self, memory: &mut Memory, request: &IssueRequest, patience: Duration) -> Result<Entry, Trouble> {
        let mut waits = Doubling::new(FIRST_LOOK, LAST_LOOK);
        loop {
            let refused = match self.timed(self.store.lease(ttl(request))).await {
                Ok(lease) => return Ok(Entry::Leased(lease)),
                Err(refused) => refused,
            };
            // A store that cannot be written may still be read.
            if let Ok(Some(record)) = self.read(memory).await
                && let Content::Grant(grant) = record.content()
                && let Some(token) = self.adopt(grant, request)
            {
                return Ok(Entry::Adopted(token));
            }
            if request.is_cancelled() {
                return Err(IssueError::cancelled().into());
            }
            if !refused.is_busy() || self.clock.now().mono >= patience {
                return Err(refused.into());
            }
            sleep(waits.next().unwrap_or(LAST_LOOK).mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    /// Steps two to four.
    async fn under(&self, lease: &Lease, memory: &mut Memory, request: &IssueRequest) -> Result<IssuedToken, Trouble> {
        for _ in 0..ROUNDS {
            let from = match self.basis(memory, request).await? {
                Stored::Exchange(from) => from,
                Stored::Adopted(token) => return Ok(token),
            };
            match self.rotate(lease, &from.grant, request).await {
                Ok((grant, issued)) => {
                    return self.commit(lease, memory, Basis { grant, ..from }, issued, request).await;
                }
                Err(Trouble::Issue(error)) if condemns(&error) && from.grant.refresh_token().is_some() => {
                    let stored = self.read(memory).await?.map(|record| record.revision());
                    if stored == from.base {
                        return Err(self.condemn(lease, &from, error).await.into());
                    }
                    tracing::debug!(target: TARGET, "rejected, but somebody has replaced the login: going on with theirs");
                }
                Err(trouble) => return Err(trouble),
            }
        }
        Err(StoreError::Busy.into())
    }

    async fn basis(&self, memory: &mut Memory, request: &IssueRequest) -> Result<Stored, Trouble> {
        let Some(record) = self.read(memory).await? else {
            return Ok(Stored::Exchange(Basis { grant: self.begin(), base: None }));
        };
        let base = Some(record.revision());
        match record.into_content() {
            Content::Grant(grant) => Ok(match self.adopt(&grant, request) {
                Some(token) => Stored::Adopted(token),
                None => Stored::Exchange(Basis { grant, base }),
            }),
            Content::Tombstone(tombstone) => {
                let ours = self.grant.refresh_token().as_ref().map(Fingerprint::of);
                // A refresh token that this login did not begin with: the user has signed in again.
                if ours.as_ref() != tombstone.origin() && self.handed().is_none() {
                    return Ok(Stored::Exchange(Basis { grant: self.begin(), base }));
                }
                let code = OAuthCode::new(tombstone.code());
                let code = code.ok_or_else(|| StoreError::Corrupt("a tombstone without a code".into()))?;
                Err(IssueError::new(Verdict::Rejected(code), Delivery::NotSent, "condemned-before", Condemned)
                    .with_advice(SIGN_IN)
                    .into())
            }
        }
    }

    /// What is stored, if it is this login.
    pub(super) async fn read(&self, memory: &mut Memory) -> Result<Option<Record>, Trouble> {
        match self.timed(self.store.load()).await? {
            Some(record) if *record.identity() != self.identity => Err(StoreError::Foreign.into()),
            Some(record) => {
                let grant = match record.content() {
                    Content::Grant(grant) => Some(grant.clone()),
                    Content::Tombstone(_) => None,
                };
                memory.seen(record.revision(), grant);
                Ok(Some(record))
            }
            None if memory.seen.is_some() => Err(StoreError::Gone.into()),
            None => Ok(None),
        }
    }

    /// The stored access token, if it is what is wanted now.
    fn adopt(&self, grant: &StoredGrant, request: &IssueRequest) -> Option<IssuedToken> {
        let adopted = self.wanted(grant, request)?;
        self.counts.adopted.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(target: TARGET, "took up a token from the store");
        Some(adopted)
    }

    /// The access token of a login, if it fits, is not due yet, and is not the one that another is wanted for.
    pub(super) fn wanted(&self, grant: &StoredGrant, request: &IssueRequest) -> Option<IssuedToken> {
        let token = grant.access_token()?;
        let was_handed = self.handed().as_ref().is_some_and(|handed| token.is(handed));
        if was_handed || request.claims().is_some() || *grant.terms() != self.grant.terms() {
            return None;
        }
        let (now, policy) = (self.clock.wall(), request.policy());
        let Some(lifetime) = token.lifetime().or(policy.assumed_lifetime) else { return Some(token.at(now)) };
        let remaining = token.remaining(lifetime, now);
        let validity = Validity::of(lifetime, policy, &mut Jitter::seeded(fastrand::u64(..)));
        let is_due = lifetime.saturating_sub(remaining) >= validity.refresh_after.min(validity.serve_for);
        (!is_due).then(|| token.at(now).expires_in(remaining))
    }

    /// Step three. What comes back is good, whatever else happens: an `Err` has brought nothing new.
    pub(super) async fn rotate(
        &self,
        lease: &Lease,
        from: &StoredGrant,
        request: &IssueRequest,
    ) -> Result<(StoredGrant, Result<IssuedToken, IssueError>), Trouble> {
        // Whatever was waited for: from here on the lease outlasts the exchange.
        self.timed(self.store.renew(lease, ttl(request))).await?;
        if request.is_cancelled() {
            return Err(IssueError::cancelled().into());
        }
        let sent = self.clock.wall();
        let Exchanged { issued, refresh_token } = tokio::select! {
            biased;
            exchanged = self.exchange(Some(from), request) => exchanged,
            never = self.keep(lease, ttl(request)) => match never {},
        };
        let issued = match (issued, &refresh_token) {
            (Err(error), None) => return Err(error.into()),
            (issued, _) => issued,
        };
        let access_token = issued.as_ref().ok().map(|issued| StoredToken::new(issued, sent));
        Ok((from.renewed(refresh_token, access_token, self.grant.terms()), issued))
    }

    async fn exchange(&self, from: Option<&StoredGrant>, request: &IssueRequest) -> Exchanged {
        let refresh_token = from.and_then(StoredGrant::refresh_token);
        let exchange = timeout(request.time_limit(), self.grant.exchange(refresh_token, request));
        let exchanged = exchange.await.unwrap_or_else(|_| Exchanged {
            issued: Err(IssueError::of_rule(Delivery::Unknown, "attempt-timeout")),
            refresh_token: None,
        });
        if exchanged.issued.is_ok() {
            self.counts.exchanged.fetch_add(1, Ordering::Relaxed);
        }
        exchanged
    }

    /// Renews the lease for as long as it is polled.
    async fn keep(&self, lease: &Lease, ttl: Duration) -> Infallible {
        loop {
            sleep(ttl / 3).await;
            if let Err(error) = self.timed(self.store.renew(lease, ttl)).await {
                tracing::warn!(target: TARGET, rule = error.rule(), "the lease could not be renewed during an exchange");
            }
        }
    }

    /// Step four.
    async fn commit(
        &self,
        lease: &Lease,
        memory: &mut Memory,
        new: Basis,
        issued: Result<IssuedToken, IssueError>,
        request: &IssueRequest,
    ) -> Result<IssuedToken, Trouble> {
        let Basis { grant, base } = new;
        let record = Record::after(base, Content::Grant(grant.clone()));
        match self.timed(self.store.commit(lease, &record)).await {
            Ok(()) => {
                tracing::debug!(target: TARGET, revision = record.revision().get(), "exchanged and saved");
                memory.seen(record.revision(), Some(grant));
                Ok(issued?)
            }
            // Nothing was spent, so nothing is lost.
            Err(_) if grant.refresh_token().is_none() => Ok(issued?),
            Err(StoreError::Stale) => {
                tracing::warn!(target: TARGET, "somebody has replaced the login during the exchange: theirs counts");
                let theirs = self.read(memory).await.ok().flatten().map(Record::into_content);
                let token = match &theirs {
                    Some(Content::Grant(theirs)) => self.adopt(theirs, request),
                    Some(Content::Tombstone(_)) | None => None,
                };
                Ok(token.map_or(issued, Ok)?)
            }
            Err(error) => {
                tracing::warn!(target: TARGET, rule = error.rule(), "{UNSAVED}");
                memory.unsaved = Some(Unsaved { grant, base, lease: None });
                Ok(issued?.unsaved(true))
            }
        }
    }

    /// The server's last word on a login that nobody has replaced.
    async fn condemn(&self, lease: &Lease, from: &Basis, error: IssueError) -> IssueError {
        if let Verdict::Rejected(code) = error.verdict() {
            let tombstone = Content::Tombstone(Tombstone::of(&from.grant, code));
            if let Err(error) = self.timed(self.store.commit(lease, &Record::after(from.base, tombstone))).await {
                tracing::warn!(target: TARGET, rule = error.rule(), "a rejected login could not be marked as such");
            }
        }
        error.with_advice(SIGN_IN)
    }

    /// A login as it begins, with the grant's own refresh token.
    pub(super) fn begin(&self) -> StoredGrant {
        StoredGrant::begun(self.identity.clone(), self.grant.terms(), self.grant.refresh_token())
    }

    pub(super) async fn lease_patiently(&self, ttl: Duration) -> Result<Lease, StoreError> {
        let patience = self.clock.now().mono.saturating_add(self.lease_wait);
        loop {
            match self.timed(self.store.lease(ttl)).await {
                Err(refused) if refused.is_busy() && self.clock.now().mono < patience => sleep(LAST_LOOK).await,
                outcome => return outcome,
            }
        }
    }

    pub(super) async fn release(&self, lease: Lease) {
        if let Err(error) = self.timed(self.store.release(lease)).await {
            tracing::debug!(target: TARGET, rule = error.rule(), "a lease was left to its time limit");
        }
    }

    /// A store that hangs is a store that is down.
    pub(super) async fn timed<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        timeout(STORE_CALL, call).await.unwrap_or_else(|_| Err(StoreError::unavailable("the store does not answer")))
    }
}

enum Entry {
    Leased(Lease),
    Adopted(IssuedToken),
}

enum Stored {
    Exchange(Basis),
    Adopted(IssuedToken),
}

/// A lease outlasts an exchange that takes all of its time, and the store's calls around it.
pub(super) fn ttl(request: &IssueRequest) -> Duration {
    request.time_limit().saturating_add(LEASE_MARGIN)
}

pub(super) const TARGET: &str = "steadfast::rotation";
const UNSAVED: &str = "a rotated refresh token could not be saved; it is kept in memory, and tried again";
const LEASE_MARGIN: Duration = Duration::from_secs(15);
const STORE_CALL: Duration = Duration::from_secs(5);
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LAST_LOOK: Duration = Duration::from_millis(100);
const ROUNDS: u32 = 3;
