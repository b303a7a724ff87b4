//! One process: a monitor, and the people who use it.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use http::Request;
use http_body_util::Empty;
use steadfast::{
    AccessToken, AuthError, AuthLayer, AuthStatus, Challenge, IssueError, LayerError, MonitoredTokenSource,
    RefreshPolicy, Rejection, StaticToken, TokenSource, UnauthenticatedReason,
    oauth::{ClientCredentialsGrant, RefreshTokenGrant},
    rotation::SharedLogin,
};
use tokio::{sync::watch, task::JoinHandle, time::{sleep, timeout}};

use crate::{
    SECRET,
    api::{Api, INVALID, Sent},
    idp::Idp,
    nature::{Nature, locked},
    promises,
    sink::Ear,
    source::{Record, Watched},
    store::SimStore,
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
    site: Site,
    newest: Arc<AtomicU64>,
    pub(crate) waiting: Arc<AtomicUsize>,
    api: Api,
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
            .clock(&site.nature.clock)
            .sink(Arc::clone(&ear))
            .jitter_seed(site.seed ^ number as u64)
            .pair()
            .unwrap();
        let _ = record.tokens.set(tokens.downgrade());
        let late = if site.nature.chance(90) { Duration::ZERO } else { site.nature.secs(0, 30) };
        let spectator = Spectator { site: site.clone(), record: Arc::clone(&record), kind, retrying_since: None };
        tokio::spawn(spectator.watch(tokens.subscribe()));
        let api =
            Api { nature: Arc::clone(&site.nature), idp: Arc::clone(&site.idp), record: Arc::clone(&record) };
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
            Err(error) => nature.check(promises::an_error_tells_the_truth(&error, &tokens.status())),
        }
    }
}

/// The people.
impl Process {
    /// Somebody wants a token, and may lose patience at any point.
    pub(crate) fn caller(&self) {
        let Some(tokens) = self.tokens.clone() else { return };
        let (nature, record, newest) =
            (Arc::clone(&self.site.nature), Arc::clone(&self.record), Arc::clone(&self.newest));
        let limit = self.site.policy.caller_wait;
        let patience = nature.chance(20).then(|| nature.roll(3));
        let hurry = nature.chance(10).then(|| nature.millis(0, 12_000));
        let after = nature.chance(25).then(|| tokens.try_token().ok()).flatten().map(|token| token.generation());
        let asked = locked(&record.pages).epoch;
        let waiting = Waiting::one(&self.waiting);
        tokio::spawn(async move {
            let _waiting = waiting;
            let (began, before) = (nature.now(), newest.load(Ordering::Relaxed));
            let retrying = matches!(tokens.status(), AuthStatus::AuthRetrying(_));
            let call = async {
                match after {
                    Some(after) => tokens.token_after(after).await,
                    None => tokens.token().await,
                }
            };
            let answer = dropped_after(patience, hurry, call).await;
            let Some(answer) = answer else { return };
            let took = nature.now() - began;
            nature.check(promises::every_caller_is_answered_in_time(took, limit));
            nature.check(promises::callers_fail_fast_in_the_long_window(retrying, took));
            match &answer {
                Ok(token) => {
                    let got = token.generation().get();
                    nature.check(promises::generations_only_grow(before, got));
                    if let Some(after) = after {
                        nature.check(promises::a_token_after_is_newer(after.get(), got));
                    }
                    newest.fetch_max(got, Ordering::Relaxed);
                    record.sees(token.secret(), Some(token));
                    let of = record.token(token.secret()).map_or(0, |token| token.epoch);
                    nature.check(promises::old_credentials_serve_nobody(token.secret(), of, asked));
                }
                Err(error) => tells(&nature, error, &tokens.status(), began == nature.now()),
            }
        });
    }

    /// Somebody sends a request, and has all the time there is if `patient`.
    pub(crate) fn request(&self, patient: bool) {
        let Some(tokens) = self.tokens.clone() else { return };
        let nature = Arc::clone(&self.site.nature);
        let policy = &self.site.policy;
        let limit = policy.caller_wait * 2 + policy.settle + 3 * LONGEST_ANSWER;
        let patience = (!patient && nature.chance(15)).then(|| nature.roll(4));
        let hurry = (!patient && nature.chance(10)).then(|| nature.millis(0, 12_000));
        let (replays, sent) = (nature.chance(70), Sent::of(self.kind));
        let target = if patient || nature.chance(95) { ORIGIN } else { "https://elsewhere.example.com/" };
        let layer = AuthLayer::new(tokens.clone(), ORIGIN).unwrap();
        let (once, again) = (layer.clone().wrap(self.api.clone()), layer.replay_once().wrap(self.api.clone()));
        let waiting = Waiting::one(&self.waiting);
        tokio::spawn(async move {
            let _waiting = waiting;
            let began = nature.now();
            let request = Request::get(target).extension(sent).body(Empty::new()).unwrap();
            let answer = if replays {
                dropped_after(patience, hurry, again.send(request)).await
            } else {
                dropped_after(patience, hurry, once.send(request)).await
            };
            let Some(answer) = answer else { return };
            nature.check(promises::every_caller_is_answered_in_time(nature.now() - began, limit));
            match &answer {
                Ok(response) => nature.check(promises::no_secret_in_any_output("a response", &format!("{response:?}"))),
                Err(LayerError::Auth(error)) => tells(&nature, error, &tokens.status(), false),
                Err(error) => nature.check(promises::no_secret_in_any_output("an error", &format!("{error} {error:?}"))),
            }
        });
    }

    /// The host has found out by itself that a token is refused.
    pub(crate) fn reject(&self) {
        let Some(tokens) = &self.tokens else { return };
        let Ok(token) = tokens.try_token() else { return };
        let definite = self.site.nature.chance(60);
        let challenge: Challenge = if definite { INVALID } else { "Bearer" }.parse().unwrap();
        locked(&self.record.pages).refused.insert(token.secret().to_owned());
        for _ in 0..=self.site.nature.roll(3) {
            let answer = tokens.reject(token.generation(), Some(&challenge));
            self.site.nature.note(format_args!("process {}: its host rejects: {answer:?}", self.number));
            self.site.nature.meets(format!("{answer:?}").split('(').next().unwrap_or_default());
            let mut pages = locked(&self.record.pages);
            let proven = pages.accepted.contains(token.secret());
            if definite && !proven && answer == Rejection::Refreshing && self.kind != Kind::Fixed {
                pages.withdrawn.insert(token.secret().to_owned());
            }
        }
    }
}

impl Record {
    /// Somebody has this token in hand.
    pub(crate) fn sees(&self, secret: &str, handed: Option<&AccessToken>) {
        let nature = &self.nature;
        let Some(token) = self.token(secret) else { return };
        if let Some(handed) = handed {
            nature.check(promises::no_secret_in_any_output("a token", &format!("{handed:?}")));
            let withdrawn = locked(&self.pages).withdrawn.contains(secret);
            nature.check(promises::a_withdrawn_token_is_not_seen_again(secret, withdrawn));
            let (mono, wall) = (nature.now(), nature.wall());
            nature.check(promises::an_expired_token_is_never_served(secret, &token, mono, wall, &self.policy));
        }
    }
}

impl Site {
    /// Somebody who shares the login, but is none of the processes.
    pub(crate) fn outsider(&self, refresh_token: &str, account: &str) -> SharedLogin {
        let wire = Wire { cables: Arc::clone(&self.cables), client: OUTSIDER };
        let grant = RefreshTokenGrant::builder(TOKEN_URL, "my-app", refresh_token).http(wire).build().unwrap();
        let login = SharedLogin::builder(grant, self.store.of(OUTSIDER)).account(account).lease_wait(LEASE_WAIT);
        login.clock(&self.nature.clock).build()
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
                shared(login.clock(&self.nature.clock).build())
            }
            Kind::SharedClient => {
                let grant = credentials().http(wire).build().unwrap();
                let login = SharedLogin::builder(grant, store.clone()).lease_wait(LEASE_WAIT);
                shared(login.clock(&self.nature.clock).build())
            }
            Kind::Alone => (Box::new(refreshing().http(wire).build().unwrap()) as Box<dyn TokenSource>, None),
            Kind::Client => (Box::new(credentials().http(wire).build().unwrap()) as Box<dyn TokenSource>, None),
            Kind::Fixed => (Box::new(StaticToken::new(refresh_token)) as Box<dyn TokenSource>, None),
        };
        let store = (kind == Kind::Shared).then_some(store);
        let (record, cables, idp) = (Arc::clone(record), Arc::clone(&self.cables), Arc::clone(&self.idp));
        (Watched { inner, kind, record, epoch, client, cables, idp, store }, login)
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
            UnauthenticatedReason::Replaced => store.account().is_some_and(|account| account != locked(&self.record.pages).account),
            _ => false,
        }
    }
}

/// Counts who still waits for an answer.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn one(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn tells(nature: &Nature, error: &AuthError, status: &AuthStatus, at_once: bool) {
    let mut text = format!("{error} {error:?} {:?}", error.to_response());
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(" {error} {error:?}");
        // What a foreign source says under this is its own affair.
        cause = error.source().filter(|_| !error.is::<IssueError>() || true);
    }
    nature.check(promises::no_secret_in_any_output("an error", &text));
    if at_once {
        nature.check(promises::an_error_tells_the_truth(error, status));
    }
}

/// The future's output, unless somebody drops it: after so many polls, or after some time.
async fn dropped_after<T>(polls: Option<usize>, span: Option<Duration>, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    let polled = std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => match &mut left {
            Some(0) => Poll::Ready(None),
            Some(left) => {
                *left -= 1;
                Poll::Pending
            }
            None => Poll::Pending,
        },
    });
    match span {
        Some(span) => timeout(span, polled).await.ok().flatten(),
        None => polled.await,
    }
}

pub(crate) const ACCOUNT: &str = "alice";
/// How many sources a process may have, one after the other.
const CLIENTS: usize = 1000;
/// How long the resource server takes for one answer.
const LONGEST_ANSWER: Duration = Duration::from_secs(9);
const OUTSIDER: usize = 999_999;
/// What the timers of an attempt add up to.
const SLACK: Duration = Duration::from_secs(1);
/// Short, for each look at a taken lease is a step of the simulation.
const LEASE_WAIT: Duration = Duration::from_millis(250);
const ORIGIN: &str = "https://api.example.com/";
const TOKEN_URL: &str = "https://login.example.com/token";
