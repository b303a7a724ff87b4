//! Real grants and logins in a registry: what is kept of them, what may go, and what is logged.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use steadfast::{
    AuthStatus, BoxError, IdentityProvider, IssueReason, IssueRequest, RefreshPolicy, StaticToken, StopReason,
    TokenRegistry, TokenSource,
    oauth::{ClientCredentialsGrant, RefreshTokenGrant},
    provider::{ProviderPolicy, ProviderState},
    rotation::SharedLogin,
    store::{FileStore, GrantStore, Lease, MemoryStore, Record, StoreError},
    testing::{Answer, ScriptedIdp},
};
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn a_grant_can_be_made_again_until_its_refresh_token_has_rotated() {
    let idp = ScriptedIdp::start().await;
    idp.always(Answer::success());
    let grant = grant(&idp);
    assert!(grant.is_replaceable());
    grant.issue(&initial()).await.unwrap();
    assert!(grant.is_replaceable(), "the server keeps the old one");
    idp.rotating();
    grant.issue(&initial()).await.unwrap();
    assert!(!grant.is_replaceable());
    assert!(StaticToken::new("s3cret").is_replaceable());
    let grant = ClientCredentialsGrant::builder(idp.token_url(), "my-cli").client_secret("s3cret").build().unwrap();
    assert!(grant.is_replaceable());
    assert!(Arc::new(grant).is_replaceable());
}

#[tokio::test(start_paused = true)]
async fn a_shared_login_can_be_made_again_while_its_pair_is_in_a_store_that_lasts() {
    let idp = ScriptedIdp::start().await;
    idp.rotating().always(Answer::success());
    let login = SharedLogin::builder(grant(&idp), MemoryStore::new()).build();
    assert!(!login.is_replaceable(), "the store goes with it");
    let directory = tempfile::tempdir().unwrap();
    assert!(FileStore::new(directory.path().join("login")).is_durable());

    let disk = Arc::new(Disk { memory: MemoryStore::new(), is_full: AtomicBool::new(false) });
    let login = SharedLogin::builder(grant(&idp), Arc::clone(&disk)).build();
    login.issue(&initial()).await.unwrap();
    assert!(login.is_replaceable());
    disk.is_full.store(true, Ordering::Relaxed);
    let token = login.issue(&IssueRequest::new(IssueReason::Rejected)).await.unwrap();
    assert!(token.is_unsaved() && !login.is_replaceable());
    disk.is_full.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(120)).await;
    assert!(login.is_replaceable());
}

#[tokio::test(start_paused = true)]
async fn a_login_that_rotates_is_never_spent_twice_however_often_it_is_parked() {
    let idp = ScriptedIdp::start().await;
    idp.rotating().always(Answer::success().expires_in(3600));
    let (token_url, refresh_token) = (idp.token_url(), idp.login());
    let registry = TokenRegistry::builder(move |_: u32| {
        let grant = RefreshTokenGrant::builder(token_url.clone(), "my-cli", refresh_token.clone()).build();
        async move { grant }
    })
    .idle_after(Duration::from_secs(600))
    .build()
    .unwrap();
    for _ in 0..10 {
        registry.get(&1).await.unwrap().token().await.unwrap();
        sleep(Duration::from_secs(1200)).await;
        assert_eq!(registry.status_of(&1), Some(AuthStatus::Stopped(StopReason::Idle)));
    }
    assert_eq!((idp.calls(), idp.reuse_detected()), (10, false));
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_a_whole_fleet_is_a_line_when_it_begins_and_two_when_it_ends() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let is_down = Arc::new(AtomicBool::new(true));
    let provider = IdentityProvider::new("login.example.com", ProviderPolicy::default()).unwrap();
    let (guard, down) = (provider.clone(), Arc::clone(&is_down));
    let registry = TokenRegistry::builder(move |_: u32| {
        let down = Arc::clone(&down);
        let source = guard.guard(move || {
            let answer = if down.load(Ordering::Relaxed) { Err("503".into()) } else { Ok(token()) };
            async { answer }
        });
        async { Ok::<_, BoxError>(source) }
    })
    .monitor(|_, builder| {
        let policy = RefreshPolicy { clock_check: Duration::from_secs(3600), ..RefreshPolicy::default() };
        builder.policy(policy).sink(steadfast::sink_fn(|_| async { Ok(()) }))
    })
    .capacity(10)
    .provider(&provider)
    .build()
    .unwrap();
    let mut held = Vec::new();
    for key in 0..100 {
        held.push(registry.get(&key).await.unwrap());
    }
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(provider.snapshot().state, ProviderState::Down);
    is_down.store(false, Ordering::Relaxed);
    sleep(Duration::from_secs(3600)).await;

    let lines: Vec<String> = log.text().lines().map(String::from).collect();
    let of = |target: &str| lines.iter().filter(|line| line.contains(target)).cloned().collect::<Vec<_>>();
    let told = of("steadfast::provider");
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(told[0].contains("WARN") && told[0].contains("is down") && told[0].contains("login.example.com"));
    assert!(told[1].contains("INFO") && told[1].contains("answers again"));
    assert!(told[2].contains("INFO") && told[2].contains("has recovered"));
    let told = of("steadfast::registry");
    assert_eq!(told.len(), 1, "beyond its capacity, and says so once: {told:#?}");
    assert!(told[0].contains("WARN") && told[0].contains("capacity=10"));
}

fn token() -> steadfast::IssuedToken {
    steadfast::IssuedToken::bearer("s3cret").expires_in(Duration::from_secs(3600))
}

fn grant(idp: &ScriptedIdp) -> RefreshTokenGrant {
    RefreshTokenGrant::builder(idp.token_url(), "my-cli", idp.login()).build().unwrap()
}

fn initial() -> IssueRequest {
    IssueRequest::new(IssueReason::Initial)
}

/// A store that lasts, and is full at times.
struct Disk {
    memory: MemoryStore,
    is_full: AtomicBool,
}

#[async_trait]
impl GrantStore for Disk {
    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        self.memory.lease(ttl).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<(), StoreError> {
        self.memory.renew(lease, ttl).await
    }

    async fn load(&self) -> Result<Option<Record>, StoreError> {
        self.memory.load().await
    }

    async fn commit(&self, lease: &Lease, record: &Record) -> Result<(), StoreError> {
        match self.is_full.load(Ordering::Relaxed) {
            true => Err(StoreError::unavailable("the disk is full")),
            false => self.memory.commit(lease, record).await,
        }
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        self.memory.release(lease).await
    }

    fn is_durable(&self) -> bool {
        true
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
