//! A store and an authorization server that trouble strikes at a step of the transaction, for tests on a paused clock.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use steadfast::{
    IssueError, IssueRequest, IssuedToken, OAuthCode,
    oauth::Exchanged,
    rotation::Grant,
    store::{Content, GrantStore, Identity, Lease, Record, StoreError, StoredGrant, StoredToken, Terms, Tombstone},
};
use tokio::time::sleep;

/// A step of the transaction, just before which trouble strikes. The exchange's is before its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Lease,
    Load,
    Renew,
    Exchange,
    Commit,
    Release,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Another process takes the lease, and keeps it until it is mended.
    Busy,
    /// Another process takes the lease, and gives it back.
    Lost,
    /// Another process takes the lease, puts a new sign-in into the store, and gives it back.
    Stale,
    /// Another process takes the lease, exchanges the stored refresh token, which the server does not rotate, and gives it back.
    Renewed,
    /// The step answers that the store is down, until it is mended.
    Down,
    /// The step never answers, until it is mended.
    Hangs,
    /// The step does not answer, but is done all the same, 7 s later.
    Late,
    /// Another account's login takes the place of ours, under the very same number.
    Foreign,
    /// What is stored cannot be read, until it is mended.
    Corrupt,
    /// What is stored is removed; the lease is not touched.
    Gone,
    /// The server loses all it has, leases included.
    Flushed,
    /// A tombstone takes the login's place.
    Dead,
    /// The store is put back to the state before the last exchange.
    Older,
}

/// One place in a store, and the server whose login is kept there.
#[derive(Clone)]
pub(crate) struct Shelf(Arc<Mutex<State>>);

struct State {
    record: Option<Record>,
    /// The state before the one that is stored, and its number.
    before: Option<Record>,
    latest_lease: u64,
    is_leased: bool,
    /// The lease that another process keeps until it is mended.
    others_lease: Option<u64>,
    is_corrupt: bool,
    plan: HashMap<Step, Trouble>,
    server: Server,
    /// What was stored when a commit of ours took its place, if we had not spent it.
    overwritten: Vec<String>,
    /// What was good when a tombstone of ours took its place, if the server had said nothing against it as it was.
    condemned: Vec<String>,
    /// Whether a good refresh token was rejected, or another process has said so.
    is_dead: bool,
    is_pardoned: bool,
}

/// Rotates refresh tokens without grace. It remembers the reuse of one, and goes on, so that a table shows it.
#[derive(Default)]
struct Server {
    issued: u64,
    good: HashSet<String>,
    /// Refresh tokens whose success has reached us.
    received: HashSet<String>,
    sent_again: Vec<String>,
    newest: String,
    sent: Vec<String>,
    is_revoked: bool,
    /// It does not rotate: a refresh token stays good.
    is_steady: bool,
    /// The next exchange is refused, though its refresh token is good.
    refuses: bool,
    refused: HashSet<String>,
}

impl Shelf {
    /// Holds a login that was exchanged once: the first refresh token is spent, the second is good.
    pub(crate) fn new() -> Self {
        let shelf = Self::empty();
        {
            let mut state = shelf.state();
            let first = StoredGrant::new(identity("alice"), Terms::default(), FIRST);
            let second = state.server.issue();
            state.server.good.remove(FIRST);
            let grant = first.renewed(Some(second.clone().into()), None, Terms::default());
            state.server.newest = second;
            state.put(Content::Grant(first));
            state.put(Content::Grant(grant));
        }
        shelf
    }

    /// On a server that does not rotate: the good refresh token stays good.
    pub(crate) fn steady(self) -> Self {
        self.state().server.is_steady = true;
        self
    }

    /// Holds nothing; the grant's own refresh token is good.
    pub(crate) fn empty() -> Self {
        let mut server = Server::default();
        server.good.insert(FIRST.to_owned());
        server.newest = FIRST.to_owned();
        Self(Arc::new(Mutex::new(State {
            record: None,
            before: None,
            latest_lease: 0,
            is_leased: false,
            others_lease: None,
            is_corrupt: false,
            plan: HashMap::new(),
            server,
            overwritten: Vec::new(),
            condemned: Vec::new(),
            is_dead: false,
            is_pardoned: false,
        })))
    }

    pub(crate) fn strike(&self, step: Step, trouble: Trouble) {
        self.state().plan.insert(step, trouble);
    }

    /// Takes all trouble away. What it did to the store's contents stays.
    pub(crate) fn mend(&self) {
        let mut state = self.state();
        if state.others_lease == Some(state.latest_lease) {
            state.is_leased = false;
        }
        state.plan.clear();
        state.is_corrupt = false;
    }

    /// Trouble at once, at no step in particular.
    pub(crate) fn now(&self, trouble: Trouble) {
        self.state().befall(trouble);
    }

    pub(crate) fn revoke(&self) {
        self.state().server.is_revoked = true;
    }

    /// The server answers `invalid_grant` once, and thinks better of it.
    pub(crate) fn refuse_once(&self) {
        self.state().server.refuses = true;
    }

    /// The grant of a user who has signed in again.
    pub(crate) fn anew(&self) -> Anew {
        self.state().server.good.insert(ANEW.to_owned());
        Anew(self.clone())
    }

    /// What was stored before is stored again.
    pub(crate) fn put_back(&self, record: Record) {
        self.state().record = Some(record);
    }

    pub(crate) fn record(&self) -> Option<Record> {
        self.state().record.clone()
    }

    /// The refresh token that is stored; `dead` for a tombstone.
    pub(crate) fn stored(&self) -> String {
        self.state().record.as_ref().map_or_else(|| "nothing".to_owned(), refresh_token)
    }

    pub(crate) fn account(&self) -> Option<String> {
        self.state().record.as_ref().map(|record| record.identity().account().to_owned())
    }

    /// Whether the stored refresh token can be exchanged.
    pub(crate) fn is_good(&self) -> bool {
        let stored = self.stored();
        self.state().server.good.contains(&stored)
    }

    /// Whether somebody had reason to take the login for dead.
    pub(crate) fn has_died(&self) -> bool {
        self.state().is_dead
    }

    pub(crate) fn is_leased(&self) -> bool {
        self.state().is_leased
    }

    /// The newest refresh token of the login.
    pub(crate) fn newest(&self) -> String {
        self.state().server.newest.clone()
    }

    pub(crate) fn sent(&self) -> Vec<String> {
        self.state().server.sent.clone()
    }

    /// What must never happen: a refresh token sent again after its success had come, another's login written over, and a
    /// good one condemned.
    pub(crate) fn sins(&self) -> Vec<String> {
        let state = self.state();
        let again = state.server.sent_again.iter().map(|token| format!("{token} was sent again"));
        let overwritten = state.overwritten.iter().map(|token| format!("{token} was written over"));
        let condemned = state.condemned.iter().map(|token| format!("{token} was condemned"));
        again.chain(overwritten).chain(condemned).collect()
    }

    /// Whether commits that begin now are at the host's word, which may write over anything.
    pub(crate) fn pardon(&self, is_pardoned: bool) {
        self.state().is_pardoned = is_pardoned;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    async fn step(&self, step: Step) -> Result<(), StoreError> {
        let trouble = {
            let mut state = self.state();
            let trouble = state.plan.get(&step).copied();
            match trouble {
                Some(Trouble::Down | Trouble::Hangs | Trouble::Late) | None => {}
                Some(Trouble::Busy) => state.befall(Trouble::Busy),
                // These strike once.
                Some(once) => {
                    state.plan.remove(&step);
                    state.befall(once);
                }
            }
            trouble
        };
        match trouble {
            Some(Trouble::Down) => Err(StoreError::unavailable("down")),
            Some(Trouble::Hangs) => std::future::pending().await,
            _ => Ok(()),
        }
    }
}

impl State {
    fn befall(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Down | Trouble::Hangs | Trouble::Late => {}
            Trouble::Busy => {
                (self.latest_lease, self.is_leased) = (self.latest_lease + 1, true);
                self.others_lease = Some(self.latest_lease);
            }
            Trouble::Lost => (self.latest_lease, self.is_leased) = (self.latest_lease + 1, false),
            Trouble::Stale => {
                self.befall(Trouble::Lost);
                let token = self.server.issue();
                self.put(Content::Grant(theirs("alice", &token)));
            }
            Trouble::Renewed => {
                self.befall(Trouble::Lost);
                if let Some(Content::Grant(grant)) = self.record.as_ref().map(Record::content) {
                    let same = grant.renewed(None, grant.access_token().cloned(), Terms::default());
                    self.put(Content::Grant(same));
                }
            }
            Trouble::Foreign => {
                let number = self.record.as_ref().map_or(1, |record| record.revision().get());
                self.record = Some(numbered(number, &Content::Grant(theirs("bob", "rt-bobs"))));
            }
            Trouble::Corrupt => self.is_corrupt = true,
            Trouble::Gone => self.record = None,
            Trouble::Flushed => {
                self.record = None;
                // Counted from the beginning again, as a server that has lost everything does.
                self.befall(Trouble::Lost);
            }
            Trouble::Dead => {
                if let Some(Content::Grant(grant)) = self.record.as_ref().map(Record::content) {
                    let code = OAuthCode::new("invalid_grant").unwrap();
                    self.put(Content::Tombstone(Tombstone::of(&grant.clone(), &code)));
                    self.is_dead = true;
                }
            }
            Trouble::Older => self.record = self.before.clone(),
        }
    }

    fn put(&mut self, content: Content) {
        let replaced = self.record.as_ref().map(Record::revision);
        self.before = self.record.replace(Record::after(replaced, content));
    }

    fn commit(&mut self, number: Option<u64>, record: &Record, is_pardoned: bool) -> Result<(), StoreError> {
        if number != Some(self.latest_lease) {
            return Err(StoreError::LeaseLost);
        }
        if self.is_corrupt {
            return Err(StoreError::Corrupt("half a login".into()));
        }
        if self.record.as_ref().map(Record::revision) != record.replaces() {
            return Err(StoreError::Stale);
        }
        if let Some(replaced) = &self.record {
            let (token, server) = (refresh_token(replaced), &self.server);
            if refresh_token(record) == "dead" {
                // The same refresh token may have succeeded since it was refused.
                let was_refused =
                    server.is_revoked || server.refused.contains(&token) && turn(record) >= turn(replaced);
                if server.good.contains(&token) && !was_refused {
                    self.condemned.push(token);
                }
                self.is_dead = true;
            } else if !is_pardoned && token != "dead" && !server.received.contains(&token) {
                self.overwritten.push(token);
            }
        }
        self.before = self.record.replace(record.clone());
        Ok(())
    }
}

impl Server {
    fn issue(&mut self) -> String {
        self.issued += 1;
        let token = format!("rt-{}", self.issued);
        self.good.insert(token.clone());
        token
    }
}

struct Held(Shelf, u64);

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if state.latest_lease == self.1 {
            state.is_leased = false;
        }
    }
}

fn number(lease: &Lease) -> Option<u64> {
    lease.get::<Held>().map(|held| held.1)
}

#[async_trait::async_trait]
impl GrantStore for Shelf {
    async fn lease(&self, _: Duration) -> Result<Lease, StoreError> {
        self.step(Step::Lease).await?;
        let mut state = self.state();
        if state.is_leased {
            return Err(StoreError::Busy);
        }
        (state.latest_lease, state.is_leased) = (state.latest_lease + 1, true);
        Ok(Lease::holding(Held(self.clone(), state.latest_lease)))
    }

    async fn renew(&self, lease: &Lease, _: Duration) -> Result<(), StoreError> {
        self.step(Step::Renew).await?;
        if number(lease) == Some(self.state().latest_lease) { Ok(()) } else { Err(StoreError::LeaseLost) }
    }

    async fn load(&self) -> Result<Option<Record>, StoreError> {
        self.step(Step::Load).await?;
        let state = self.state();
        if state.is_corrupt {
            return Err(StoreError::Corrupt("half a login".into()));
        }
        Ok(state.record.clone())
    }

    async fn commit(&self, lease: &Lease, record: &Record) -> Result<(), StoreError> {
        self.step(Step::Commit).await?;
        let (number, is_pardoned) = (number(lease), self.state().is_pardoned);
        let is_late = self.state().plan.get(&Step::Commit) == Some(&Trouble::Late);
        if is_late {
            let (shelf, record) = (self.clone(), record.clone());
            tokio::spawn(async move {
                sleep(Duration::from_secs(7)).await;
                let _ = shelf.state().commit(number, &record, is_pardoned);
            });
            std::future::pending::<()>().await;
        }
        self.state().commit(number, record, is_pardoned)
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        self.step(Step::Release).await?;
        drop(lease);
        Ok(())
    }
}

#[async_trait::async_trait]
impl Grant for Shelf {
    fn issuer(&self) -> String {
        ISSUER.to_owned()
    }

    fn client_id(&self) -> String {
        CLIENT.to_owned()
    }

    fn refresh_token(&self) -> Option<SecretString> {
        Some(FIRST.into())
    }

    async fn exchange(&self, refresh_token: Option<&SecretString>, _: &IssueRequest) -> Exchanged {
        let sent = refresh_token.unwrap().expose_secret().to_owned();
        let struck = self.step(Step::Exchange).await;
        let mut state = self.state();
        let State { server, is_dead, .. } = &mut *state;
        server.sent.push(sent.clone());
        if server.received.contains(&sent) && !server.is_steady {
            server.sent_again.push(sent.clone());
        }
        let refused = |cause| Exchanged { issued: Err(cause), refresh_token: None };
        if struck.is_err() {
            return refused(IssueError::transient("503"));
        }
        let is_refused = std::mem::take(&mut server.refuses);
        if is_refused || server.is_revoked || !server.good.contains(&sent) {
            *is_dead |= server.good.contains(&sent);
            server.refused.insert(sent);
            return refused(IssueError::rejected(OAuthCode::new("invalid_grant").unwrap(), "revoked"));
        }
        server.received.insert(sent.clone());
        let access_token = format!("at-{}", server.sent.len());
        let issued = Ok(IssuedToken::bearer(access_token).expires_in(Duration::from_secs(3600)));
        if server.is_steady {
            server.newest = sent;
            return Exchanged { issued, refresh_token: None };
        }
        server.good.remove(&sent);
        server.newest = server.issue();
        Exchanged { issued, refresh_token: Some(server.newest.clone().into()) }
    }
}

/// The same login, from another refresh token on.
pub(crate) struct Anew(Shelf);

#[async_trait::async_trait]
impl Grant for Anew {
    fn issuer(&self) -> String {
        self.0.issuer()
    }

    fn client_id(&self) -> String {
        self.0.client_id()
    }

    fn refresh_token(&self) -> Option<SecretString> {
        Some(ANEW.into())
    }

    async fn exchange(&self, refresh_token: Option<&SecretString>, request: &IssueRequest) -> Exchanged {
        self.0.exchange(refresh_token, request).await
    }
}

/// How many exchanges lie between the sign-in and this record: only its text tells.
fn turn(record: &Record) -> u64 {
    let text = record.to_json();
    let (_, rest) = text.expose_secret().split_once("\"turn\":").unwrap();
    rest.split(|other: char| !other.is_ascii_digit()).next().unwrap().parse().unwrap()
}

pub(crate) fn refresh_token(record: &Record) -> String {
    match record.content() {
        Content::Grant(grant) => grant.refresh_token().unwrap().expose_secret().to_owned(),
        Content::Tombstone(_) | _ => "dead".to_owned(),
    }
}

pub(crate) fn identity(account: &str) -> Identity {
    Identity::new(account, ISSUER, CLIENT)
}

/// Somebody's sign-in, exchanged once.
pub(crate) fn theirs(account: &str, refresh_token: &str) -> StoredGrant {
    let issued = IssuedToken::bearer("at-theirs").expires_in(Duration::from_secs(3600));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let token = StoredToken::new(&issued, now);
    StoredGrant::new(identity(account), Terms::default(), refresh_token).renewed(None, Some(token), Terms::default())
}

fn numbered(number: u64, content: &Content) -> Record {
    let mut record = Record::after(None, content.clone());
    while record.revision().get() < number {
        record = Record::after(Some(record.revision()), content.clone());
    }
    record
}

const FIRST: &str = "rt-first";
const ANEW: &str = "rt-anew";
const ISSUER: &str = "https://login.example.com/token";
const CLIENT: &str = "my-cli";
