//! The drill: what goes wrong, one thing after the other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use reqwest::Client;
use steadfast::{
    AuthLayer, AuthStatus, BoxError, IdentityProvider, MonitoredTokenSource, RefreshPolicy, StatusEvent, StatusSink,
    TokenRegistry, TokenSource, TracingSink,
    oauth::RefreshTokenGrant,
    provider::ProviderPolicy,
    rotation::SharedLogin,
    testing::{Answer, ProtectedApi, ScriptedIdp},
};
use tokio::time::{sleep, timeout};

use crate::disk::Disk;

/// The defaults are made for days; these are the same shape in seconds.
const POLICY: RefreshPolicy = RefreshPolicy {
    initial_retry_interval: Duration::from_millis(300),
    max_tries: 3,
    auth_retrying_tick: Duration::from_secs(1),
    auth_retrying_ceiling: Duration::from_secs(60),
    retry_after_cap: Duration::from_secs(60),
    demand_probe_interval: None,
    caller_wait: Duration::from_secs(2),
    blip_wait: Duration::from_millis(200),
    settle: Duration::ZERO,
    clock_check: Duration::from_secs(1),
    ..RefreshPolicy::DEFAULT
};
const LIFETIME: u32 = 6;

/// Plays it, and calls `ended` with the name of each phase. Answers every secret that was used, none of which may be printed.
pub(crate) async fn run(mut ended: impl FnMut(&'static str) -> Result<(), BoxError>) -> Result<Vec<String>, BoxError> {
    let idp = ScriptedIdp::start().await;
    let success = || Answer::success().expires_in(LIFETIME);
    idp.rotating().always(success());
    let api = ProtectedApi::start(&idp).await;
    let host = Host::new(&idp)?;
    // The workload is the backend, not its user: the name becomes a label, and there are few backends.
    let tokens = host.registry.get(&"github").await?;
    let http = Client::builder().no_proxy().build()?;
    let auth = AuthLayer::new(tokens.clone(), &*api.url())?.replay_once().wrap(http.clone());
    let call = async || auth.send(http.get(api.url()).build()?).await.map(drop).map_err(BoxError::from);

    call().await?;
    ended("healthy")?;

    // No two attempts come within a second.
    sleep(Duration::from_secs(1)).await;
    api.revoke_all();
    call().await?;
    ended("refused: the API has revoked a token, and one forced refresh cures it")?;

    idp.always(Answer::waf());
    until(&tokens, |status| matches!(status, AuthStatus::AuthRetrying(_))).await?;
    host.pager.is_down.store(true, Ordering::Relaxed);
    while call().await.is_ok() {
        sleep(Duration::from_millis(100)).await;
    }
    // The held token's end is worth an attempt, and then the long window ticks.
    idp.called(idp.calls() + 2).await;
    sleep(Duration::from_millis(500)).await;
    ended("outage: a WAF answers 403 with a page, and nobody answers the pager")?;

    host.pager.is_down.store(false, Ordering::Relaxed);
    idp.always(success());
    until(&tokens, |status| *status == AuthStatus::Running).await?;
    // Until the pager has taken what it was owed.
    sleep(Duration::from_millis(2500)).await;
    ended("recovery: the WAF lets requests through; nobody has touched anything")?;

    host.disk.fill(true);
    tokens.retry_now();
    idp.called(idp.calls() + 1).await;
    sleep(Duration::from_millis(500)).await;
    ended("unsaved: the disk is full, and the rotated refresh token is in memory only")?;

    host.disk.fill(false);
    sleep(Duration::from_millis(2500)).await;
    idp.revoke_logins();
    until(&tokens, |status| matches!(status, AuthStatus::Unauthenticated(_))).await?;
    while call().await.is_ok() {
        sleep(Duration::from_millis(100)).await;
    }
    ended("revoked: the user has revoked the login, the one thing that needs a human")?;

    host.registry.reauthenticate(&"github", host.login(&idp)?).await?;
    until(&tokens, |status| *status == AuthStatus::Running).await?;
    call().await?;
    ended("signed in again")?;

    host.registry.shutdown().await;
    ended("shut down")?;
    Ok(idp.secrets())
}

struct Host {
    registry: TokenRegistry<&'static str>,
    provider: IdentityProvider,
    pager: Arc<Pager>,
    disk: Disk,
}

impl Host {
    fn new(idp: &ScriptedIdp) -> Result<Self, BoxError> {
        let provider = IdentityProvider::new("login.example.com", ProviderPolicy::default())?;
        let disk = Disk::new();
        let pager = Arc::new(Pager::default());
        let (idp, guard, place, sink) = (idp.clone(), provider.clone(), disk.clone(), Arc::clone(&pager));
        let registry = TokenRegistry::builder(move |_| {
            let login = login(&idp, &place).map(|login| guard.guard(login));
            async { login }
        })
        .monitor(move |name, builder| builder.name(*name).policy(POLICY).sink(Arc::clone(&sink)))
        .provider(&provider)
        .build()?;
        Ok(Self { registry, provider, pager, disk })
    }

    /// A user signs in, and the place of the old login is the new one's.
    fn login(&self, idp: &ScriptedIdp) -> Result<impl TokenSource + use<>, BoxError> {
        Ok(self.provider.guard(login(idp, &self.disk)?))
    }
}

fn login(idp: &ScriptedIdp, disk: &Disk) -> Result<SharedLogin, BoxError> {
    let grant = RefreshTokenGrant::builder(idp.token_url(), "gateway", idp.login()).build()?;
    Ok(SharedLogin::builder(grant, disk.clone()).account("alice").build())
}

/// Logs each event once, and wakes somebody up: which does not work when the pager is down.
#[derive(Default)]
struct Pager {
    is_down: AtomicBool,
    logged: AtomicU64,
}

#[async_trait]
impl StatusSink for Pager {
    async fn set_status(&self, event: &StatusEvent) -> Result<(), BoxError> {
        if self.logged.swap(event.sequence, Ordering::Relaxed) != event.sequence {
            TracingSink.set_status(event).await?;
        }
        if self.is_down.load(Ordering::Relaxed) { Err("the pager does not answer".into()) } else { Ok(()) }
    }
}

async fn until(tokens: &MonitoredTokenSource, wanted: impl Fn(&AuthStatus) -> bool) -> Result<(), BoxError> {
    timeout(Duration::from_secs(30), tokens.subscribe().wait_for(wanted)).await??;
    // For whoever is told of it.
    sleep(Duration::from_millis(50)).await;
    Ok(())
}
