//! One process: a monitor, and the people who use it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use steadfast::{
    AuthStatus, IssuedToken, MonitoredTokenSource, RefreshPolicy, StaticToken, TokenSource, UnauthenticatedReason,
    oauth::{ClientCredentialsGrant, RefreshTokenGrant},
    rotation::SharedLogin,
    testing::TestClock,
};
use tokio::{sync::watch, task::JoinHandle, time::sleep};

use crate::{
    SECRET,
    api::Api,
    idp::Idp,
    nature::{Nature, locked},
    promises,
    sink::Ear,
    source::{Record, Watched},
    store::SimStore,
    weather::{Network, Provider, Weather},
    wire::{Cables, Wire},
};

/// Where a process has its tokens from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A login in a store, which other processes use too.
    Shared,
    /// A refresh token that this process alone has.
    Alone,
    Client,
    /// A client that shares its access tokens in a store.
    SharedClient,
    /// A fixed token.
    Fixed,
    /// A source of the host's own, whose errors say what they should not.
    Own,
}

pub(crate) struct Process {
    pub(crate) number: usize,
    pub(crate) kind: Kind,
    /// `None` once the last handle is dropped.
    pub(crate) tokens: Option<MonitoredTokenSource>,
    pub(crate) spare: Vec<MonitoredTokenSource>,
    pub(crate) ear: Arc<Ear>,
    pub(crate) record: Arc<Record>,
    pub(crate) driver: Option<JoinHandle<()>>,
    /// Of the source that counts.
    pub(crate) client: usize,
    pub(crate) site: Site,
    /// The newest generation that anybody has seen.
    pub(crate) newest: Arc<AtomicU64>,
    pub(crate) waiting: Arc<AtomicUsize>,
    pub(crate) api: Api,
}

/// What all processes have in common.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) nature: Arc<Nature>,
    pub(crate) idp: Arc<Idp>,
    pub(crate) cables: Arc<Cables>,
    pub(crate) store: SimStore,
    pub(crate) policy: Arc<RefreshPolicy>,
    pub(crate) seed: u64,
}

impl Process {
    pub(crate) fn start(site: &Site, number: usize, kind: Kind, refresh_token: &str) -> Self {
        let record = Record::new(&site.nature, &site.policy, number);
        ACCOUNT.clone_into(&mut locked(&record.pages).account);
        let client = number * CLIENTS;
        let (source, _) = site.source(kind, &record, 0, client, refresh_token, ACCOUNT);
        let ear = Ear::new(&site.nature, number);
        let (tokens, driver) = MonitoredTokenSource::builder(source)
            .name("workload")
            .policy(Arc::clone(&site.policy))
            .clock(&record.clock)
            .sink(Arc::clone(&ear))
            .jitter_seed(site.seed ^ number as u64)
            .pair()
            .unwrap();
        let _ = record.tokens.set(tokens.downgrade());
        let late = if site.nature.chance(90) { Duration::ZERO } else { site.nature.secs(0, 30) };
        let spectator = Spectator { site: site.clone(), record: Arc::clone(&record), kind, retrying_since: None };
        tokio::spawn(spectator.watch(tokens.subscribe()));
        let api = Api { nature: Arc::clone(&site.nature), idp: Arc::clone(&site.idp), record: Arc::clone(&record) };
        Self {
            number,
            kind,
            driver: Some(tokio::spawn(async move {
                sleep(late).await;
                driver.await;
            })),
            tokens: Some(tokens),
            spare: Vec::new(),
            ear,
            record,
            client,
            site: site.clone(),
            newest: Arc::default(),
            waiting: Arc::default(),
            api,
        }
    }

    /// New credentials, from a user who has signed in again. The host puts them into the store first, or at the same time.
    pub(crate) async fn sign_in(&mut self, refresh_token: &str, account: &str, first: bool) {
        let Some(tokens) = self.tokens.clone() else { return };
        let (client, epoch) = (self.client + 1, locked(&self.record.pages).epoch + 1);
        let (source, login) = self.site.source(self.kind, &self.record, epoch, client, refresh_token, account);
        let nature = Arc::clone(&self.site.nature);
        let signing_in = login.filter(|_| self.kind == Kind::Shared).map(|login| {
            tokio::spawn(async move {
                let signed_in = login.sign_in().await;
                nature.note(format_args!("signed in: {signed_in:?}"));
            })
        });
        if let Some(signing_in) = signing_in.filter(|_| first) {
            let _ = signing_in.await;
        }
        self.site.cables.silence(self.client, "new credentials");
        self.client = client;
        self.record.begins_anew(account);
        if tokens.reauthenticate(source).is_err() {
            self.closes("the end");
        }
    }

    pub(crate) fn is_foreign(&self) -> bool {
        locked(&self.record.pages).account != ACCOUNT
    }

    /// Whatever ends the run: from now on nothing is heard of it.
    pub(crate) fn closes(&self, why: &'static str) {
        self.record.close(why);
        self.site.cables.silence(self.client, why);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.tokens.as_ref().is_none_or(|tokens| matches!(tokens.status(), AuthStatus::Stopped(_)))
    }

    /// What holds at any time.
    pub(crate) fn look(&mut self) {
        let nature = &self.site.nature;
        let Some(tokens) = &self.tokens else { return };
        let snapshot = tokens.snapshot();
        nature.check(promises::no_secret_in_any_output("the handle", &format!("{tokens:?} {snapshot:?}")));
        match tokens.try_token() {
            Ok(token) => {
                self.record.sees(token.secret(), Some(&token));
                let before = self.newest.fetch_max(token.generation().get(), Ordering::Relaxed);
                nature.check(promises::generations_only_grow(before, token.generation().get()));
            }
            Err(error) => {
                nature.check(promises::an_error_tells_the_truth(&error, &tokens.status()));
                nature.check(promises::a_refusal_promises_an_attempt(&error, &snapshot));
            }
        }
    }
}

impl Site {
    /// Somebody who shares the login, but is none of the processes.
    pub(crate) fn outsider(&self, refresh_token: &str, account: &str) -> SharedLogin {
        let wire = Wire { cables: Arc::clone(&self.cables), client: OUTSIDER };
        let grant = RefreshTokenGrant::builder(TOKEN_URL, "my-app", refresh_token).http(wire).build().unwrap();
        let login = SharedLogin::builder(grant, self.store.of(OUTSIDER)).account(account).lease_wait(LEASE_WAIT);
        login.clock(&TestClock::new()).build()
    }

    fn own_source(&self) -> Box<dyn TokenSource> {
        let (nature, idp) = (Arc::clone(&self.nature), Arc::clone(&self.idp));
        Box::new(move || {
            let (nature, idp) = (Arc::clone(&nature), Arc::clone(&idp));
            async move {
                sleep(nature.millis(0, 160)).await;
                let Weather { provider, network, .. } = nature.weather();
                if network == Network::Hanging {
                    std::future::pending::<()>().await;
                }
                if provider != Provider::Fair || network != Network::Fair {
                    return Err(format!("the vault says {SECRET}").into());
                }
                let (token, lifetime) = idp.mint_for_a_time();
                Ok(IssuedToken::bearer(token).expires_in(lifetime))
            }
        })
    }

    fn source(
        &self,
        kind: Kind,
        record: &Arc<Record>,
        epoch: usize,
        client: usize,
        refresh_token: &str,
        account: &str,
    ) -> (Watched, Option<SharedLogin>) {
        let wire = Wire { cables: Arc::clone(&self.cables), client };
        let store = self.store.of(record.process);
        let refreshing = || RefreshTokenGrant::builder(TOKEN_URL, "my-app", refresh_token);
        let credentials = || ClientCredentialsGrant::builder(TOKEN_URL, "my-app").client_secret(SECRET);
        let shared = |login: SharedLogin| (Box::new(login.clone()) as Box<dyn TokenSource>, Some(login));
        let (inner, login) = match kind {
            Kind::Shared => {
                let grant = refreshing().client_secret(SECRET).http(wire).build().unwrap();
                let login = SharedLogin::builder(grant, store.clone()).account(account).lease_wait(LEASE_WAIT);
                shared(login.clock(&record.clock).build())
            }
            Kind::SharedClient => {
                let grant = credentials().http(wire).build().unwrap();
                let login = SharedLogin::builder(grant, store.clone()).lease_wait(LEASE_WAIT);
                shared(login.clock(&record.clock).build())
            }
            Kind::Alone => (Box::new(refreshing().http(wire).build().unwrap()) as Box<dyn TokenSource>, None),
            Kind::Client => (Box::new(credentials().http(wire).build().unwrap()) as Box<dyn TokenSource>, None),
            Kind::Fixed => (Box::new(StaticToken::new(refresh_token)) as Box<dyn TokenSource>, None),
            Kind::Own => (self.own_source(), None),
        };
        let store = (kind == Kind::Shared).then_some(store);
        let (record, cables, idp) = (Arc::clone(record), Arc::clone(&self.cables), Arc::clone(&self.idp));
        (Watched { inner, record, epoch, client, cables, idp, store }, login)
    }
}

/// Somebody who sees every change of the status.
struct Spectator {
    site: Site,
    record: Arc<Record>,
    kind: Kind,
    retrying_since: Option<Duration>,
}

impl Spectator {
    async fn watch(mut self, mut statuses: watch::Receiver<AuthStatus>) {
        while statuses.changed().await.is_ok() {
            let status = statuses.borrow_and_update().clone();
            let nature = &self.site.nature;
            nature.note(format_args!("process {} is {status}", self.record.process));
            nature.meets(&status.to_string());
            if let AuthStatus::Unauthenticated(reason) = &status {
                nature.check(promises::a_run_ends_for_a_reason(reason, self.grounds(reason)));
            }
            let retrying = matches!(status, AuthStatus::AuthRetrying(_));
            self.retrying_since = retrying.then(|| self.retrying_since.unwrap_or(nature.now()));
        }
    }

    fn grounds(&self, reason: &UnauthenticatedReason) -> bool {
        let (nature, store) = (&self.site.nature, &self.site.store);
        let client = self.record.process * CLIENTS + locked(&self.record.pages).epoch;
        match reason {
            UnauthenticatedReason::Rejected(code) => {
                let heard = self.site.cables.heard(Some(client), code.as_str());
                let confirmed = !matches!(code.as_str(), "weird_mood" | "access_denied" | "invalid_request");
                heard >= if confirmed { 1 } else { self.site.policy.max_tries } || store.buried(code.as_str())
            }
            UnauthenticatedReason::CeilingExceeded(ceiling) => {
                self.retrying_since.is_some_and(|since| nature.now() - since + SLACK >= *ceiling)
            }
            UnauthenticatedReason::RejectedByResource => self.kind == Kind::Fixed,
            UnauthenticatedReason::Replaced => {
                store.account().is_some_and(|account| account != locked(&self.record.pages).account)
            }
            _ => false,
        }
    }
}

pub(crate) const ACCOUNT: &str = "alice";
/// How many sources a process may have, one after the other.
const CLIENTS: usize = 1000;
const OUTSIDER: usize = 999_999;
/// What the timers of an attempt add up to.
const SLACK: Duration = Duration::from_secs(1);
/// Short, for each look at a taken lease is a step of the simulation.
const LEASE_WAIT: Duration = Duration::from_millis(250);
const TOKEN_URL: &str = "https://login.example.com/token";
