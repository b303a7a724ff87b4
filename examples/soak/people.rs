//! Those who use the hosts: callers, some of whom hang up, and a host's own hand on its handles.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use reqwest::{Method, Request};
use steadfast::{AuthStatus, LayerError};
use tokio::{
    sync::{RwLock, RwLockWriteGuard},
    time::{sleep, timeout},
};

use crate::{
    arguments::Leak,
    hosts::{Estate, Host},
};

pub(crate) struct People {
    estate: Arc<Estate>,
    pub(crate) hosts: Vec<Arc<Host>>,
    pub(crate) tally: Arc<Tally>,
    /// Whoever does something holds it for reading; so whoever writes has the place to himself.
    at_work: Arc<RwLock<()>>,
}

/// What became of the requests.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) served: AtomicU64,
    /// No token was to be had.
    pub(crate) without_token: AtomicU64,
    /// The API refused or failed, or the way to it broke.
    pub(crate) failed: AtomicU64,
    pub(crate) hung_up: AtomicU64,
    pub(crate) signed_in_again: AtomicU64,
    pub(crate) handles: AtomicU64,
}

impl People {
    pub(crate) fn begin(estate: &Arc<Estate>, hosts: Vec<Arc<Host>>, leak: Option<Leak>) -> Self {
        let people = Self { estate: Arc::clone(estate), hosts, tally: Arc::default(), at_work: Arc::default() };
        for host in &people.hosts {
            for _ in 0..CALLERS {
                people.keep_doing(50..150, |estate, tally, host| Box::pin(call(estate, tally, host)), host);
            }
            people.keep_doing(500..3000, |_, _, host| Box::pin(async move { host.tokens.retry_now() }), host);
        }
        if let Some(host) = people.hosts.first() {
            people.keep_doing(20..100, |estate, tally, host| Box::pin(sign_in(estate, tally, host)), host);
            people.keep_doing(50..200, move |estate, tally, _| Box::pin(make_and_drop(estate, tally, leak)), host);
        }
        people
    }

    /// Everybody finishes what they are at, and does nothing until the guard is dropped.
    pub(crate) async fn rest(&self) -> RwLockWriteGuard<'_, ()> {
        self.at_work.write().await
    }

    fn keep_doing<D>(&self, every: std::ops::Range<u64>, something: D, host: &Arc<Host>)
    where
        D: Fn(Arc<Estate>, Arc<Tally>, Arc<Host>) -> futures_util::future::BoxFuture<'static, ()> + Send + 'static,
    {
        let (estate, tally, host) = (Arc::clone(&self.estate), Arc::clone(&self.tally), Arc::clone(host));
        let at_work = Arc::clone(&self.at_work);
        tokio::spawn(async move {
            loop {
                sleep(estate.idp.weather.millis(every.clone())).await;
                let _at_work = at_work.read().await;
                something(Arc::clone(&estate), Arc::clone(&tally), Arc::clone(&host)).await;
            }
        });
    }
}

async fn call(estate: Arc<Estate>, tally: Arc<Tally>, host: Arc<Host>) {
    let weather = &estate.idp.weather;
    let Ok(url) = estate.api.parse() else { return };
    let mut request = Request::new(Method::GET, url);
    if weather.chance(30) {
        *request.method_mut() = Method::POST;
        *request.body_mut() = Some(vec![b'x'; 2000].into());
    }
    let exchange = async {
        match host.client.send(request).await {
            Ok(response) if !response.status().is_success() => &tally.failed,
            Ok(response) => match response.bytes().await {
                Ok(_) => &tally.served,
                Err(_) => &tally.failed,
            },
            Err(LayerError::Auth(_)) => &tally.without_token,
            Err(LayerError::Inner(_)) => &tally.failed,
        }
    };
    let patience = if weather.chance(5) { weather.millis(0..20) } else { Duration::from_secs(60) };
    let counter = timeout(patience, exchange).await.unwrap_or(&tally.hung_up);
    if std::ptr::eq(counter, &tally.served) {
        host.served.fetch_add(1, Relaxed);
    }
    counter.fetch_add(1, Relaxed);
}

/// The host signs in again when it is told to, and once in a while because the user wants another account.
async fn sign_in(estate: Arc<Estate>, tally: Arc<Tally>, host: Arc<Host>) {
    let ended = matches!(host.tokens.status(), AuthStatus::Unauthenticated(_));
    if (ended || estate.idp.weather.chance(1))
        && let Ok(grant) = estate.own_login()
    {
        let _stopped = host.tokens.reauthenticate(grant);
        tally.signed_in_again.fetch_add(1, Relaxed);
    }
}

/// A handle of a moment: used or not, cloned, and then shut down, or just dropped.
async fn make_and_drop(estate: Arc<Estate>, tally: Arc<Tally>, leak: Option<Leak>) {
    let weather = &estate.idp.weather;
    let made = if weather.chance(50) {
        estate.service().and_then(|grant| estate.monitored(grant))
    } else {
        estate.own_login().and_then(|grant| estate.monitored(grant))
    };
    let Ok(tokens) = made else { return };
    tally.handles.fetch_add(1, Relaxed);
    let (clone, watch) = (tokens.clone(), tokens.subscribe());
    if weather.chance(80) {
        let _hung_up = timeout(weather.millis(0..300), tokens.token()).await;
    }
    drop((clone, watch));
    if weather.chance(50) {
        tokens.shutdown().await;
    }
    match leak {
        None => {}
        Some(Leak::Task) => drop(tokio::spawn(std::future::pending::<()>())),
        Some(Leak::Handle) => std::mem::forget(tokens),
        Some(Leak::Socket) => std::mem::forget(std::net::UdpSocket::bind("127.0.0.1:0")),
        Some(Leak::Heap) => std::mem::forget(vec![0_u8; 4096]),
    }
}

/// Of each host. With a pause of 0.1 s between two requests of one of them, that makes some three hundred requests a second.
const CALLERS: u32 = 8;
