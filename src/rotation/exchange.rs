//! The exchange, and what becomes of what it brings.

use std::{convert::Infallible, sync::atomic::Ordering, time::Duration};

use tokio::time::{sleep, timeout};

use super::{
    Login,
    memory::Memory,
    transaction::{Basis, Next, ttl},
    trouble::{SIGN_IN, Trouble},
};
use crate::{
    Delivery, IssueError, IssueRequest, IssuedToken, OAuthCode,
    oauth::Exchanged,
    store::{Content, Lease, StoreError, StoredGrant, StoredToken, Tombstone},
    telemetry::STORE,
};

impl Login {
    /// Step three. What comes back is good, whatever else happens: an `Err` has brought nothing new.
    pub(super) async fn rotate(
        &self,
        memory: &Memory,
        from: &Basis,
        request: &IssueRequest,
    ) -> Result<(StoredGrant, Result<IssuedToken, IssueError>), Trouble> {
        // Whatever was waited for: from here on the lease outlasts the exchange.
        let lease = self.hold(memory, ttl(request)).await?;
        if request.is_cancelled() {
            return Err(IssueError::cancelled().into());
        }
        let sent = self.clock.wall();
        let Exchanged { issued, refresh_token } = tokio::select! {
            biased;
            exchanged = self.exchange(Some(&from.grant), request) => exchanged,
            never = self.keep(lease, ttl(request)) => match never {},
        };
        let issued = match (issued, &refresh_token) {
            (Err(error), None) => return Err(error.into()),
            (issued, _) => issued,
        };
        let access_token = issued.as_ref().ok().map(|issued| StoredToken::new(issued, sent));
        Ok((from.grant.renewed(refresh_token, access_token, self.grant.terms()), issued))
    }

    pub(super) async fn exchange(&self, from: Option<&StoredGrant>, request: &IssueRequest) -> Exchanged {
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

    /// Nobody else has leased the login since, and nobody will for this time.
    async fn hold<'a>(&self, memory: &'a Memory, ttl: Duration) -> Result<&'a Lease, StoreError> {
        let lease = memory.lease.as_ref().ok_or(StoreError::LeaseLost)?;
        self.timed(self.store.renew(lease, ttl)).await?;
        Ok(lease)
    }

    /// Renews the lease for as long as it is polled.
    async fn keep(&self, lease: &Lease, ttl: Duration) -> Infallible {
        loop {
            sleep(ttl / 3).await;
            if let Err(error) = self.timed(self.store.renew(lease, ttl)).await {
                tracing::debug!(target: STORE, rule = error.rule(), "the lease could not be renewed during an exchange");
            }
        }
    }

    /// Step four: what was received is owed to the store before anything else happens.
    pub(super) async fn receive(
        &self,
        memory: &mut Memory,
        from: &Basis,
        grant: StoredGrant,
        issued: Result<IssuedToken, IssueError>,
        request: &IssueRequest,
    ) -> Result<IssuedToken, Trouble> {
        let ours = grant.fingerprint();
        let is_first = memory.unsaved.is_none();
        memory.owe(from, Content::Grant(grant));
        match self.commit(memory, ttl(request)).await {
            Ok(()) => {
                let theirs = memory.newest().filter(|stored| stored.fingerprint() != ours);
                let token = theirs.and_then(|theirs| self.wanted(theirs, request));
                Ok(token.map(|token| self.adopted(token)).map_or(issued, Ok)?)
            }
            // Nothing was spent, so nothing is lost.
            Err(_) if ours.is_none() => {
                memory.unsaved = None;
                Ok(issued?)
            }
            Err(error) => {
                // As long as the store is down, each exchange brings another pair that cannot be saved.
                match is_first {
                    true => tracing::warn!(target: STORE, rule = error.rule(), "{UNSAVED}"),
                    false => tracing::debug!(target: STORE, rule = error.rule(), "{UNSAVED}"),
                }
                Ok(issued?.unsaved(true))
            }
        }
    }

    /// The server's last word on a refresh token, which is final only if nobody has put another in its place: `Ok` where
    /// somebody has.
    pub(super) async fn condemn(
        &self,
        memory: &mut Memory,
        from: &Basis,
        code: &OAuthCode,
        error: IssueError,
        request: &IssueRequest,
    ) -> Result<(), Trouble> {
        self.look(memory).await?;
        let now = match self.next(memory, request)? {
            Next::Exchange(now) if now.grant.is_unchanged_from(&from.grant) => now,
            Next::Exchange(_) | Next::Adopt(_) => return Ok(()),
        };
        let before = memory.unsaved.clone();
        memory.owe(&now, Content::Tombstone(Tombstone::of(&now.grant, code)));
        match self.commit(memory, ttl(request)).await {
            Ok(()) if memory.newest().is_some() => return Ok(()),
            Ok(()) => {}
            // Without the lease, somebody else is at work, and may have rotated the very token that was rejected.
            Err(refused) if self.hold(memory, ttl(request)).await.is_err() => {
                memory.unsaved = before;
                return Err(refused.into());
            }
            Err(error) => {
                tracing::warn!(target: STORE, rule = error.rule(), "a rejected login could not be marked as such yet");
            }
        }
        Err(error.with_remediation(SIGN_IN).into())
    }
}

const UNSAVED: &str = "a rotated refresh token could not be saved; it is kept in memory, and tried again";
