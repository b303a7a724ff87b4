//! The store on Redis, against a real server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper that fails fails the test"
)]
#![allow(clippy::disallowed_methods, reason = "a server lives in real time")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use steadfast::{
    IssueReason, IssueRequest, TokenSource,
    oauth::RefreshTokenGrant,
    rotation::SharedLogin,
    store::{Content, GrantStore, Identity, Record, RedisStore, StoreError, StoredGrant, Terms},
    testing::{Answer, ScriptedIdp, TestClock, conformance},
};

use tokio::net::{TcpListener, TcpStream};

use crate::support::RedisServer;

mod support;

#[tokio::test]
async fn the_redis_store_keeps_the_promises() {
    let Some(server) = RedisServer::start().await else { return };
    conformance::check(async |place: &str| open(&server, place)).await;
    if let Ok(url) = std::env::var("REDIS_URL") {
        // A server of somebody else's, perhaps: nothing but keys of our own, under names that nobody else has.
        let run = format!("steadfast-conformance-{:x}", fastrand::u64(..));
        conformance::check(async |place: &str| RedisStore::open(&url, &format!("{run}-{place}")).unwrap()).await;
    }
}

#[tokio::test]
async fn the_names_of_the_keys_tell_nothing_and_nothing_shows_a_password() {
    let Some(server) = RedisServer::start().await else { return };
    let store = open(&server, "alice@example.com");
    commit_next(&store).await.unwrap();
    let keys = server.tell(&["KEYS", "*"]).unwrap();
    assert!(keys.contains("steadfast:{") && !keys.contains("alice"), "{keys}");
    let store = RedisStore::open("redis://worker:s3cret@127.0.0.1:1/", "alice").unwrap();
    assert!(!format!("{store:?}").contains("s3cret"));
    let error = store.load().await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap();
    assert!(!format!("{error:?} {error} {cause}").contains("s3cret"), "{cause}");
}

#[tokio::test]
async fn an_acl_user_with_three_keys_and_few_commands_is_enough() {
    let Some(server) = RedisServer::start().await else { return };
    let rules = ["ACL", "SETUSER", "worker", "on", ">pw", "~steadfast:*", "-@all", "+eval", "+get", "+set", "+del"];
    let answer = server.tell(&[&rules[..], &["+hget", "+hset"]].concat()).unwrap();
    assert!(answer.contains("OK"), "{answer}");
    let url = format!("redis://worker:pw@127.0.0.1:{}/", server.port);
    commit_next(&RedisStore::open(&url, "alice").unwrap()).await.unwrap();
    let wrong = format!("redis://worker:wrong@127.0.0.1:{}/", server.port);
    let error = commit_next(&RedisStore::open(&wrong, "alice").unwrap()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn an_owner_that_stalled_beyond_its_lease_cannot_write_over_its_successor() {
    let Some(server) = RedisServer::start().await else { return };
    let store = open(&server, "alice");
    let stalled = store.lease(Duration::from_millis(50)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(80)).await;
    let successor = store.lease(TTL).await.unwrap();
    let record = next(&store).await;
    assert!(
        matches!(store.commit(&stalled, &record).await, Err(StoreError::LeaseLost)),
        "before its successor's commit"
    );
    store.commit(&successor, &record).await.unwrap();
    let late = next(&store).await;
    assert!(matches!(store.commit(&stalled, &late).await, Err(StoreError::LeaseLost)), "and after it");
    drop(stalled);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(matches!(store.lease(TTL).await, Err(StoreError::Busy)), "its late release frees nobody's lease");
}

#[tokio::test]
async fn a_lease_that_ran_out_is_good_while_nobody_came() {
    let Some(server) = RedisServer::start().await else { return };
    let store = open(&server, "alice");
    let lease = store.lease(Duration::from_millis(20)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    store.renew(&lease, TTL).await.unwrap();
    assert!(matches!(store.lease(TTL).await, Err(StoreError::Busy)), "it is held again");
    store.commit(&lease, &next(&store).await).await.unwrap();
}

#[tokio::test]
async fn a_lease_and_a_login_live_through_a_restart_of_the_server() {
    let Some(mut server) = RedisServer::start().await else { return };
    let store = open(&server, "alice");
    commit_next(&store).await.unwrap();
    let lease = store.lease(TTL).await.unwrap();
    let record = next(&store).await;
    server.kill();
    assert!(matches!(store.commit(&lease, &record).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.load().await, Err(StoreError::Unavailable(_))));
    server.run().await;
    eventually(async || store.renew(&lease, TTL).await).await;
    assert!(matches!(store.lease(TTL).await, Err(StoreError::Busy)));
    store.commit(&lease, &record).await.unwrap();
}

#[tokio::test]
async fn after_a_failover_that_keeps_connections_the_new_master_is_found() {
    let (Some(old), Some(new)) = (RedisServer::start().await, RedisServer::start().await) else { return };
    let address = Forwarder::to(old.port).await;
    let store = RedisStore::open(&format!("redis://127.0.0.1:{}/", address.port), "alice").unwrap();
    commit_next(&store).await.unwrap();
    old.tell(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]).unwrap();
    new.tell(&["REPLICAOF", "127.0.0.1", &old.port.to_string()]).unwrap();
    eventually(async || {
        let is_copied = new.tell(&["DBSIZE"]).unwrap() == old.tell(&["DBSIZE"]).unwrap();
        if is_copied { Ok(()) } else { Err(StoreError::Busy) }
    })
    .await;
    new.tell(&["REPLICAOF", "NO", "ONE"]).unwrap();
    old.tell(&["REPLICAOF", "127.0.0.1", &new.port.to_string()]).unwrap();
    address.switch_to(new.port);
    assert!(matches!(store.lease(TTL).await, Err(StoreError::Unavailable(_))), "the old master is a replica");
    eventually(async || commit_next(&store).await).await;
    assert_eq!(store.load().await.unwrap().unwrap().revision().get(), 2);
}

#[tokio::test]
async fn the_owner_of_a_copy_of_this_process_is_another() {
    let Some(server) = RedisServer::start().await else { return };
    let store = open(&server, "alice");
    fastrand::seed(7);
    let stalled = store.lease(Duration::from_millis(20)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    fastrand::seed(7);
    let _successor = store.lease(TTL).await.unwrap();
    assert!(matches!(store.renew(&stalled, TTL).await, Err(StoreError::LeaseLost)));
}

#[tokio::test]
async fn a_flush_takes_the_lease_and_refuses_the_late_commit() {
    let Some(server) = RedisServer::start().await else { return };
    let store = open(&server, "alice");
    commit_next(&store).await.unwrap();
    let lease = store.lease(TTL).await.unwrap();
    let record = next(&store).await;
    server.tell(&["FLUSHALL"]).unwrap();
    assert!(matches!(store.renew(&lease, TTL).await, Err(StoreError::LeaseLost)));
    assert!(matches!(store.commit(&lease, &record).await, Err(StoreError::LeaseLost)));
    assert!(store.load().await.unwrap().is_none());
}

#[tokio::test]
async fn a_flush_does_not_make_a_stalled_owner_the_latest_again() {
    let Some(server) = RedisServer::start().await else { return };
    let store = open(&server, "alice");
    let stalled = store.lease(TTL).await.unwrap();
    let record = next(&store).await;
    server.tell(&["FLUSHALL"]).unwrap();
    let successor = store.lease(TTL).await.unwrap();
    assert!(matches!(store.commit(&stalled, &record).await, Err(StoreError::LeaseLost)));
    assert!(matches!(store.renew(&stalled, TTL).await, Err(StoreError::LeaseLost)));
    assert!(store.load().await.unwrap().is_none());
    store.commit(&successor, &record).await.unwrap();
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_can_be_repeated() {
    let Some(server) = RedisServer::start().await else { return };
    let store = open(&server, "alice");
    let lease = store.lease(TTL).await.unwrap();
    let record = next(&store).await;
    store.commit(&lease, &record).await.unwrap();
    store.commit(&lease, &record).await.unwrap();
    let other = Record::after(None, record.content().clone());
    assert!(matches!(store.commit(&lease, &other).await, Err(StoreError::Stale)), "another one of the same number");
}

#[tokio::test]
async fn only_the_lease_has_a_time_to_live() {
    let Some(server) = RedisServer::start().await else { return };
    let store = open(&server, "alice");
    let lease = store.lease(TTL).await.unwrap();
    store.commit(&lease, &next(&store).await).await.unwrap();
    let keys = server.tell(&["KEYS", "*"]).unwrap();
    let keys: Vec<_> = keys.lines().filter(|line| line.starts_with("steadfast:")).collect();
    assert_eq!(keys.len(), 3);
    for key in keys {
        let lives_for_ever = server.tell(&["PTTL", key]).unwrap().starts_with(":-1");
        assert_eq!(lives_for_ever, !key.ends_with(":lease"), "{key}: a volatile policy evicts what has a time to live");
    }
}

#[tokio::test]
async fn a_flush_in_mid_exchange_loses_nothing_that_the_process_can_put_back() {
    let Some(server) = RedisServer::start().await else { return };
    let world = World::new(&server).await;
    let (one, other) = (world.login(), world.login());
    other.issue(&world.request).await.unwrap();
    world.idp.then(Answer::success().after(Duration::from_millis(300)));
    let exchanging = tokio::spawn({
        let (one, request) = (one.clone(), world.request.clone().with_claims("{}"));
        async move { one.issue(&request).await }
    });
    world.idp.called(2).await;
    server.tell(&["FLUSHALL"]).unwrap();
    assert!(exchanging.await.unwrap().unwrap().is_unsaved());
    for login in [&one, &other] {
        let error = login.issue(&world.request).await.unwrap_err();
        assert!(std::error::Error::source(&*error).unwrap().to_string().contains("gone"), "{error:?}");
    }
    one.restore().await.unwrap();
    other.issue(&world.request).await.unwrap();
    one.issue(&world.request).await.unwrap();
    assert!(!world.idp.reuse_detected());
}

#[tokio::test]
async fn after_a_flush_nobody_exchanges_until_somebody_says_what_it_meant() {
    let Some(server) = RedisServer::start().await else { return };
    let world = World::new(&server).await;
    let (one, other) = (world.login(), world.login());
    for login in [&one, &other, &one, &other] {
        login.issue(&world.request).await.unwrap();
    }
    let calls = world.idp.calls();
    server.tell(&["FLUSHALL"]).unwrap();
    for login in [&one, &other] {
        let error = login.issue(&world.request).await.unwrap_err();
        assert!(std::error::Error::source(&*error).unwrap().to_string().contains("gone"), "{error:?}");
    }
    assert_eq!(world.idp.calls(), calls);
    other.restore().await.unwrap();
    one.issue(&world.request).await.unwrap();
    assert!(!world.idp.reuse_detected());
}

#[tokio::test]
async fn machines_whose_clocks_disagree_by_a_day_share_a_login() {
    let Some(server) = RedisServer::start().await else { return };
    let world = World::new(&server).await;
    let (ahead, behind) = (TestClock::new(), TestClock::new());
    ahead.step_forward(DAY);
    behind.step_back(DAY);
    let logins: Vec<_> = [ahead, behind].iter().map(|clock| world.builder().clock(clock).build()).collect();
    for _ in 0..10 {
        for login in &logins {
            login.issue(&world.request).await.unwrap();
        }
    }
    assert!(!world.idp.reuse_detected());
    assert_eq!(world.idp.calls() as u64, logins.iter().map(|login| login.tally().exchanged).sum::<u64>());
}

#[tokio::test]
async fn a_redis_that_is_down_fails_the_attempt_and_sends_nothing() {
    let idp = ScriptedIdp::start().await;
    let refresh_token = idp.login();
    let grant = RefreshTokenGrant::builder(idp.token_url(), "my-app", refresh_token).build().unwrap();
    let store = RedisStore::open("redis://127.0.0.1:1/", "alice").unwrap();
    let login = SharedLogin::builder(grant, store).build();
    assert!(login.issue(&IssueRequest::new(IssueReason::Initial)).await.is_err());
    assert_eq!(idp.calls(), 0);
}

/// An address behind which the server changes.
struct Forwarder {
    port: u16,
    target: Arc<AtomicU16>,
}

impl Forwarder {
    async fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, target) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU16::new(target)));
        let forwarder = Self { port, target: Arc::clone(&target) };
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut server = TcpStream::connect(("127.0.0.1", target.load(Ordering::Relaxed))).await.unwrap();
                tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
            }
        });
        forwarder
    }

    fn switch_to(&self, target: u16) {
        self.target.store(target, Ordering::Relaxed);
    }
}

struct World<'a> {
    server: &'a RedisServer,
    idp: ScriptedIdp,
    refresh_token: String,
    request: IssueRequest,
}

impl<'a> World<'a> {
    async fn new(server: &'a RedisServer) -> Self {
        let idp = ScriptedIdp::start().await;
        idp.rotating().always(Answer::success());
        let refresh_token = idp.login();
        Self { server, idp, refresh_token, request: IssueRequest::new(IssueReason::Ahead) }
    }

    fn builder(&self) -> steadfast::rotation::Builder {
        let grant = RefreshTokenGrant::builder(self.idp.token_url(), "my-app", &self.refresh_token).build().unwrap();
        SharedLogin::builder(grant, open(self.server, "alice")).account("alice")
    }

    fn login(&self) -> SharedLogin {
        self.builder().build()
    }
}

fn open(server: &RedisServer, login: &str) -> RedisStore {
    RedisStore::open(&server.url(), login).unwrap()
}

async fn next(store: &RedisStore) -> Record {
    let stored = store.load().await.unwrap().map(|record| record.revision());
    let identity = Identity::new("alice", "https://login.example.com/token", "my-app");
    Record::after(stored, Content::Grant(StoredGrant::new(identity, Terms::default(), "rt-secret")))
}

async fn commit_next(store: &RedisStore) -> Result<(), StoreError> {
    let lease = store.lease(TTL).await?;
    store.commit(&lease, &next(store).await).await?;
    store.release(lease).await
}

async fn eventually<T>(attempt: impl AsyncFn() -> Result<T, StoreError>) {
    for _ in 0..100 {
        if attempt().await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the server does not come back");
}

const TTL: Duration = Duration::from_secs(35);
const DAY: Duration = Duration::from_secs(24 * 3600);
