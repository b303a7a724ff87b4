//! Real grants and logins in a registry: what is kept of them, and what may go.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use steadfast::{
    AuthStatus, IssueReason, IssueRequest, StaticToken, StopReason, TokenRegistry, TokenSource,
    oauth::{ClientCredentialsGrant, RefreshTokenGrant},
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
