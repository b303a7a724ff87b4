//! One login, many processes: the exchange of a refresh token as a transaction over a [store](crate::store).
//!
//! Two processes that refresh one login at the same time spend its refresh token twice; a server that rotates refresh tokens
//! takes that for a theft and revokes the login (RFC 9700 §4.14.2). A [`SharedLogin`] is a [`TokenSource`] that does
//! the following instead, each time the monitor wants a token:
//!
//! 1. **Lease** the login. Whoever finds it leased looks again and again for a few seconds, and takes the token that the
//!    holder brings; if none comes, the attempt has failed *not sent, busy*, which counts as no try of the short retry.
//! 2. **Read it again** under the lease. Another process's newer access token is taken if client, scopes and audience are
//!    the same and it is not due yet; else the stored refresh token is exchanged.
//! 3. **Exchange**, with the lease renewed just before and all along.
//! 4. **Commit** the new pair, on the revision that was read, before anybody sees the access token.
//! 5. **Release** the lease.
//!
//! ```
//! # #[cfg(all(feature = "testing", feature = "reqwest"))]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), steadfast::BoxError> {
//! # use steadfast::testing::{Answer, ScriptedIdp};
//! # let idp = ScriptedIdp::start().await;
//! # idp.rotating().always(Answer::success());
//! # let (token_url, refresh_token) = (idp.token_url(), idp.login());
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("login.json");
//! use steadfast::{MonitoredTokenSource, oauth::RefreshTokenGrant, rotation::SharedLogin, store::FileStore};
//!
//! // In each of two processes; the refresh token counts only while the store is empty.
//! let start = || {
//!     let grant = RefreshTokenGrant::builder(&token_url, "my-cli", &refresh_token).build()?;
//!     let login = SharedLogin::builder(grant, FileStore::new(&path)).account("alice").build();
//!     Ok::<_, steadfast::BoxError>(MonitoredTokenSource::builder(login).spawn()?)
//! };
//! let (one, other) = (start()?, start()?);
//! assert_eq!(one.token().await?.secret(), other.token().await?.secret());
//! assert_eq!(idp.calls(), 1);
//! # Ok(()) }
//! # #[cfg(not(all(feature = "testing", feature = "reqwest")))] fn main() {}
//! ```
//!
//! # When something goes wrong
//!
//! - *The server rejects the refresh token.* The login is read again first. If somebody has put a newer one there, that one
//!   is used and nobody hears of the rejection; if somebody else has the lease by then, the attempt is *busy*, for they may
//!   have rotated the very token. Only an unchanged login is condemned: a tombstone takes its place, so that no other
//!   process asks again. Nothing that another process wrote is ever deleted.
//! - *The answer does not arrive.* The same refresh token is tried again, a second later at the earliest: many servers forgive
//!   that for 30 s or so. After an answer that did arrive, the old refresh token is never sent again.
//! - *The new login cannot be saved.* Callers get their token, the new refresh token is kept in memory, the lease is kept and
//!   renewed so that nobody spends the old one, and saving is tried again until it works. Meanwhile
//!   [`StatusEvent::unsaved`](crate::StatusEvent::unsaved) is set (until the next token, though the pair may be saved before),
//!   this process refreshes from memory where the store can still be read, and others find the login leased, also for a
//!   [`sign_in`](SharedLogin::sign_in), as long as the lease can be renewed. A commit that was taken for failed and lands after
//!   all is known for our own.
//! - *The store is down.* Nothing is exchanged: the attempt fails, and the monitor goes on serving what it has. A grant that
//!   spends nothing ([`ClientCredentialsGrant`](crate::oauth::ClientCredentialsGrant)) goes on without the store.
//! - *Another account's login is in the store.* It is neither used nor touched; the run ends as
//!   [`Replaced`](crate::UnauthenticatedReason::Replaced).
//! - *The login is gone from the store.* Somebody signed out, or the store lost its contents: the two look the same, so
//!   nothing is exchanged ([`StoreError::Gone`]) until the host says which, with [`sign_in`](SharedLogin::sign_in) or
//!   [`restore`](SharedLogin::restore). The held token is served to its end.
//! - *The store was put back to an earlier state.* The refresh token there is spent. A process that has seen a newer one does
//!   not send it ([`StoreError::RolledBack`]); `restore` mends it, or a `sign_in` with a new refresh token.
//!
//! These may come together. What a process has received and not saved yet is kept until the store holds it, or holds a login
//! that counts more: somebody's sign-in, or a newer exchange. It does not take the place of another account's login, and
//! where the store has lost the login while its exchange was under way, it waits in memory for `restore` (and for the store
//! to come back: an older state that this very pair was exchanged from is replaced by itself).
//!
//! # When the program ends
//!
//! A transaction runs in a task of its own, so a caller that goes away cuts nothing. The end of the *runtime* does: tokio
//! drops its tasks where they stand, and an answer that is on its way is lost as in a crash.
//! [`MonitoredTokenSource::shutdown`](crate::MonitoredTokenSource::shutdown) is what prevents that. It lets no new exchange
//! begin, and waits for the one under way and its commit, for the attempt's time limit and 5 s at most; a store that takes its
//! 5 s for each call may need longer. It does not wait for a pair that is unsaved by then: its event says so
//! ([`unsaved`](crate::StatusEvent::unsaved)), and the host may wait, or mend the store and call
//! [`restore`](SharedLogin::restore). The lease is given back on every normal end; after a kill the store ends it.
//!
//! # What can still be lost, and when
//!
//! The server rotates before we can write. Between the two no client can protect a login; the server's *grace* (it takes the
//! previous refresh token once more for some time) can. Without grace the user has to sign in again after one of these:
//!
//! - the process is killed, its runtime is dropped, or the machine loses power, after the server has rotated and before the
//!   commit is done: the network's way back and one write, usually some milliseconds;
//! - the answer is lost on its way back;
//! - the process ends while its status says *unsaved*;
//! - a process loses its lease between the last look at it and the exchange: it, or its machine, stood still for longer than
//!   the lease (Redis), or the lock's file was removed by hand (file). The late commit is refused, but the token is spent;
//! - a process with an unsaved pair cannot reach a store on the network for longer than its lease, and another process can:
//!   that one finds the login unleased and spends the old refresh token a second time;
//! - the store forgets a commit that it has acknowledged, and the next to exchange is a process that has not seen it: a Redis
//!   that fails over to a replica that lags, that comes back without its latest writes or evicts keys; a disk that lies about
//!   flushing; a file copied back from a backup. A process that has seen the commit notices; one that has just started
//!   cannot. Nor can one that has never seen it tell a state from before the last sign-in from a newer sign-in.
//!
//! At the next exchange the server then rejects a login that no process has replaced. That ends the run with
//! the advice to sign in again, and says why.
//!
//! With grace, none of these loses anything, provided that the next exchange comes within it and starts from the refresh
//! token before.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::task::JoinError;
use tracing::Instrument;

mod grant;
pub use grant::Grant;

mod exchange;
mod memory;
mod transaction;
mod trouble;
mod unsaved;

use self::{
    memory::Memory,
    unsaved::{PUT_TTL, Put},
};
use crate::{
    BoxError, IssueRequest, IssuedToken, TokenSource,
    monitor::clock::Clock,
    store::{Fingerprint, GrantStore, Identity, StoreError},
};

/// A login that many processes share: a [`TokenSource`] over a [`Grant`] and a [`GrantStore`]. See the
/// [module's documentation](self).
///
/// Cheap to clone; a clone that the host keeps can [`restore`](Self::restore) while another is being monitored. It knows which
/// access token was handed out last, so one of them is for one monitor: two monitors in a process share a *store*.
///
/// Guide: [sharing one login](crate::guide::shared_login).
#[derive(Clone)]
pub struct SharedLogin(Arc<Login>);

impl SharedLogin {
    /// Begins to describe a login: how it is exchanged, and where it is kept.
    ///
    /// After a user has signed in, with a [`RefreshTokenGrant`](crate::oauth::RefreshTokenGrant) of the refresh token that this
    /// has brought; its `on_rotation` is not called, for the store has the new one. At later starts, when only the store knows
    /// the refresh token, with a [`StoredRefreshTokenGrant`](crate::oauth::StoredRefreshTokenGrant).
    pub fn builder(grant: impl Grant, store: impl GrantStore) -> Builder {
        Builder {
            grant: Box::new(grant),
            store: Box::new(store),
            account: String::new(),
            lease_wait: LEASE_WAIT,
            clock: Clock::system(),
        }
    }

    /// Puts the refresh token that the grant was made with into the store, in the place of whatever login is there: for when a
    /// user has just signed in. All who share the store go on with it.
    ///
    /// A store that holds nothing takes the grant's refresh token by itself. One that holds a login goes on with that,
    /// because it cannot tell an older refresh token from a newer one; only this says which it is.
    ///
    /// A user who signs in again brings a new refresh token, so this is for a `SharedLogin` that was built with that one. The
    /// refresh token that a login began with is used up by its first exchange, where the server rotates.
    ///
    /// Done to its end, whether or not anybody waits for it.
    ///
    /// # Errors
    /// [`StoreError::NoRefreshToken`] if the grant has none to put there.
    /// [`StoreError::UsedUp`] if this process knows, or the store shows, that the refresh token was exchanged for another.
    /// Whatever the store has against it. What cannot be read is not replaced; remove it first. An unsaved pair of the login
    /// of before stays what it was, and goes on being saved.
    pub async fn sign_in(&self) -> Result<(), StoreError> {
        self.put(Put::SignIn).await
    }

    /// Puts the login as this process last knew it back into a store that has lost it, and only there.
    ///
    /// The right thing after a store lost its contents or was put back to an earlier state, if this process was the last to
    /// refresh; wrong after a user signed out, and after another process refreshed, whose new refresh token this one does not
    /// have. An unsaved pair is the newest that this process knows, so it is what is put there.
    ///
    /// # Errors
    /// [`StoreError::Stale`] if the store holds a login that counts as much; [`StoreError::Gone`] if this process has never
    /// seen one; [`StoreError::UsedUp`] if the last it knows is that the server rejected it; whatever the store has against it. Nothing that this process knows is lost then.
    pub async fn restore(&self) -> Result<(), StoreError> {
        self.put(Put::Restore).await
    }

    /// Marks the login in the store as ended, for all who share it: their next attempt ends in
    /// [`Unauthenticated`](crate::AuthStatus::Unauthenticated), with the advice to sign in again. What this process has not saved
    /// yet is dropped.
    ///
    /// The access tokens that were handed out stay good to their end, and the refresh token stays good at the authorization
    /// server: revoke it there (RFC 7009) where that counts. A process that has received a newer refresh token, and could not
    /// save it before its lease ran out, brings the login back with it.
    ///
    /// Done to its end, whether or not anybody waits for it. `Ok` where there is no login.
    ///
    /// # Errors
    /// [`StoreError::Foreign`] if the store holds another login, which is left alone; whatever the store has against it.
    pub async fn sign_out(&self) -> Result<(), StoreError> {
        self.put(Put::SignOut).await
    }

    /// How this process came by its tokens so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let Counts { exchanged, adopted } = &self.0.counts;
        Tally { exchanged: exchanged.load(Ordering::Relaxed), adopted: adopted.load(Ordering::Relaxed) }
    }

    async fn put(&self, put: Put) -> Result<(), StoreError> {
        let login = Arc::clone(&self.0);
        in_a_task_of_its_own(async move {
            let mut memory = login.session().await;
            let outcome = login.put(&mut memory, put).await;
            login.end(memory, PUT_TTL).await;
            outcome
        })
        .await
        .unwrap_or_else(|error| Err(StoreError::unavailable(error)))
    }
}

#[async_trait]
impl TokenSource for SharedLogin {
    async fn issue(&self, request: &IssueRequest) -> Result<IssuedToken, BoxError> {
        let (login, request) = (Arc::clone(&self.0), request.clone());
        let issued = in_a_task_of_its_own(async move { login.issue(&request).await }).await??;
        let mut handed = self.0.handed();
        handed.truncate(HANDED - 1);
        handed.push_front(Fingerprint::of(&issued.expose_secret().into()));
        drop(handed);
        Ok(issued)
    }

    /// Once the newest pair is in a store that outlives this process, or there is no pair.
    fn is_replaceable(&self) -> bool {
        let login = &self.0;
        let is_saved = || login.memory.try_lock().is_ok_and(|memory| memory.unsaved.is_none());
        !login.grant.needs_the_store() || login.store.is_durable() && is_saved()
    }

    fn extra_time(&self) -> Duration {
        self.0.lease_wait.saturating_add(STORE_TIME)
    }
}

impl fmt::Debug for SharedLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedLogin").field("identity", &self.0.identity).finish_non_exhaustive()
    }
}

/// How a process came by its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tally {
    /// From an exchange of its own.
    pub exchanged: u64,
    /// From the store, where another process, or an earlier run, had put them.
    pub adopted: u64,
}

/// Describes a [`SharedLogin`] before it begins.
#[must_use]
pub struct Builder {
    grant: Box<dyn Grant>,
    store: Box<dyn GrantStore>,
    account: String,
    lease_wait: Duration,
    clock: Clock,
}

impl Builder {
    /// Whose login it is, in the host's words: the `sub` of an ID token, a user name. A store that holds another account's
    /// login is left alone. Defaults to the empty name, which is an account like any other.
    pub fn account(mut self, account: impl Into<String>) -> Self {
        self.account = account.into();
        self
    }

    /// How long an attempt waits while another process holds the login. Defaults to 5s.
    pub const fn lease_wait(mut self, lease_wait: Duration) -> Self {
        self.lease_wait = lease_wait;
        self
    }

    /// Clocks that a test drives. Defaults to the system's.
    #[cfg(any(test, feature = "testing"))]
    #[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
    pub fn clock(mut self, clock: &crate::monitor::clock::TestClock) -> Self {
        self.clock = clock.clock();
        self
    }

    /// Makes the source.
    #[must_use]
    pub fn build(self) -> SharedLogin {
        let Self { grant, store, account, lease_wait, clock } = self;
        SharedLogin(Arc::new(Login {
            identity: Identity::new(account, grant.issuer(), grant.client_id()),
            grant,
            store,
            lease_wait,
            clock,
            memory: Arc::default(),
            handed: Mutex::default(),
            is_store_silent: AtomicBool::new(false),
            counts: Counts::default(),
        }))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("account", &self.account).finish_non_exhaustive()
    }
}

/// What the clones of a [`SharedLogin`] share.
struct Login {
    identity: Identity,
    grant: Box<dyn Grant>,
    store: Box<dyn GrantStore>,
    lease_wait: Duration,
    clock: Clock,
    /// Locked for a whole transaction: one at a time.
    memory: Arc<tokio::sync::Mutex<Memory>>,
    /// The access tokens handed out last. Whoever asks again wants another; not the one before either, which may be in the
    /// store still where the last could not be saved.
    handed: Mutex<VecDeque<Fingerprint>>,
    /// The store has not answered when it was asked last.
    is_store_silent: AtomicBool,
    counts: Counts,
}

impl Login {
    fn handed(&self) -> MutexGuard<'_, VecDeque<Fingerprint>> {
        // Nothing that can panic runs under this lock.
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever ends the wait, at an attempt's time limit for instance, must not cut the way from the server's answer to the
/// store.
async fn in_a_task_of_its_own<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, JoinError> {
    match tokio::spawn(work.in_current_span()).await {
        Ok(outcome) => Ok(outcome),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(error),
        },
    }
}

#[derive(Default)]
struct Counts {
    exchanged: AtomicU64,
    adopted: AtomicU64,
}

/// How many of the tokens handed out are known again.
const HANDED: usize = 8;
const LEASE_WAIT: Duration = Duration::from_secs(5);
/// For what the store itself takes, on top of the wait and the exchange.
const STORE_TIME: Duration = Duration::from_secs(10);
