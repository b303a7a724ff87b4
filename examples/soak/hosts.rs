//! The hosts: monitored token sources of each kind, and clients with a layer around them.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use steadfast::{
    Auth, AuthLayer, BoxError, ForcedRefreshes, MonitoredTokenSource, RefreshPolicy, StatusEvent, TokenSource,
    layer::ReplayOnce,
    oauth::{ClientCredentialsGrant, RefreshTokenGrant, ReqwestHttp, TokenHttp},
    rotation::SharedLogin,
    sink_fn,
    store::FileStore,
};

use crate::{api::Watched, idp::Idp};

pub(crate) struct Host {
    pub(crate) name: &'static str,
    pub(crate) tokens: MonitoredTokenSource,
    pub(crate) client: Auth<Watched, ReplayOnce>,
    /// Since somebody last looked.
    pub(crate) served: AtomicU64,
}

/// What all hosts have in common.
pub(crate) struct Estate {
    pub(crate) idp: Idp,
    pub(crate) api: String,
    /// Exchanges that began while another of the same login was under way: must stay zero.
    pub(crate) at_once: Arc<AtomicU64>,
    /// Tokens that had expired when they were sent: must stay zero.
    pub(crate) expired: Arc<AtomicU64>,
    token_http: Arc<ReqwestHttp>,
    api_http: reqwest::Client,
}

impl Estate {
    pub(crate) fn new(idp: Idp, api: String) -> Result<Self, BoxError> {
        // The servers are on this machine; a proxy from the environment is not asked.
        let client = || reqwest::Client::builder().no_proxy();
        Ok(Self {
            idp,
            api,
            at_once: Arc::default(),
            expired: Arc::default(),
            token_http: Arc::new(ReqwestHttp::from_builder(client())?),
            api_http: client().timeout(Duration::from_secs(1)).pool_idle_timeout(IDLE).build()?,
        })
    }

    pub(crate) fn hosts(&self, directory: &Path) -> Result<Vec<Arc<Host>>, BoxError> {
        let shared_login = self.idp.login(false);
        let one_exchange = Arc::default();
        let shared = || -> Result<SharedLogin, BoxError> {
            let grant = self.refresh_token_grant(&shared_login, &one_exchange)?;
            let store = FileStore::new(directory.join("login.json"));
            Ok(SharedLogin::builder(grant, store).account("alice").build())
        };
        Ok(vec![
            self.host("a login", self.own_login()?)?,
            self.host("shared, one", shared()?)?,
            self.host("shared, other", shared()?)?,
            self.host("a service", self.service()?)?,
        ])
    }

    /// A user has signed in.
    pub(crate) fn own_login(&self) -> Result<RefreshTokenGrant, BoxError> {
        self.refresh_token_grant(&self.idp.login(true), &Arc::default())
    }

    pub(crate) fn service(&self) -> Result<ClientCredentialsGrant, BoxError> {
        let grant = ClientCredentialsGrant::builder(self.idp.token_url(), "soak").client_secret("s3cret");
        Ok(grant.http(self.one_at_a_time(&Arc::default())).build()?)
    }

    pub(crate) fn monitored(&self, source: impl TokenSource) -> Result<MonitoredTokenSource, BoxError> {
        let weather = Arc::clone(&self.idp.weather);
        let sink = sink_fn(move |_: StatusEvent| {
            let weather = Arc::clone(&weather);
            async move {
                if weather.chance(30) {
                    tokio::time::sleep(weather.millis(1..300)).await;
                }
                if weather.chance(20) { Err("the sink is out of order".into()) } else { Ok(()) }
            }
        });
        let tokens = MonitoredTokenSource::builder(source).policy(POLICY).sink(sink);
        Ok(tokens.jitter_seed(self.idp.weather.number()).spawn()?)
    }

    fn host(&self, name: &'static str, source: impl TokenSource) -> Result<Arc<Host>, BoxError> {
        let tokens = self.monitored(source)?;
        let ledger = Arc::clone(&self.idp.ledger);
        let client = Watched { http: self.api_http.clone(), ledger, expired: Arc::clone(&self.expired) };
        let client = AuthLayer::new(tokens.clone(), &*self.api)?.replay_once().wrap(client);
        Ok(Arc::new(Host { name, tokens, client, served: AtomicU64::new(0) }))
    }

    fn refresh_token_grant(&self, login: &str, under_way: &Arc<AtomicUsize>) -> Result<RefreshTokenGrant, BoxError> {
        let grant = RefreshTokenGrant::builder(self.idp.token_url(), "soak", login);
        Ok(grant.http(self.one_at_a_time(under_way)).build()?)
    }

    /// Counts on the client's side, where an exchange that is given up has ended for certain.
    fn one_at_a_time(&self, under_way: &Arc<AtomicUsize>) -> impl TokenHttp + use<> {
        let (http, at_once) = (Arc::clone(&self.token_http), Arc::clone(&self.at_once));
        let under_way = Arc::clone(under_way);
        move |request| {
            let (http, at_once, under_way) = (Arc::clone(&http), Arc::clone(&at_once), Arc::clone(&under_way));
            async move {
                let exchange = UnderWay(under_way);
                if exchange.0.fetch_add(1, Ordering::SeqCst) > 0 {
                    at_once.fetch_add(1, Ordering::Relaxed);
                }
                http.send(request).await
            }
        }
    }
}

struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The defaults are made for days; these are the same shape in seconds.
const POLICY: RefreshPolicy = RefreshPolicy {
    initial_retry_interval: Duration::from_millis(200),
    max_retry_interval: Duration::from_secs(1),
    max_tries: 4,
    max_elapsed: Duration::from_secs(4),
    auth_retrying_tick: Duration::from_secs(1),
    auth_retrying_ceiling: Duration::from_secs(60),
    attempt_timeout: Duration::from_secs(1),
    caller_wait: Duration::from_secs(1),
    blip_wait: Duration::from_millis(500),
    demand_probe_interval: Some(Duration::from_secs(1)),
    retry_after_cap: Duration::from_secs(2),
    forced_refreshes: ForcedRefreshes { burst: 4, refill: Duration::from_secs(1) },
    settle: Duration::from_millis(100),
    clock_check: Duration::from_secs(1),
    ..RefreshPolicy::DEFAULT
};
/// How long a connection to the API is kept for the next request.
const IDLE: Duration = Duration::from_millis(300);
