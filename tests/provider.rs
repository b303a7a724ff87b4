//! Many sources under one identity provider: its budget and its breaker, with real monitors in virtual time.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "tests look at the virtual clock")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use steadfast::{
    AuthStatus, BoxError, Delivery, IdentityProvider, IssueError, IssueReason, IssueRequest, IssuedToken,
    MonitoredTokenSource, OAuthCode, RefreshPolicy, RetryCause, TokenSource,
    provider::{Guarded, ProviderPolicy, ProviderState},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

#[tokio::test(start_paused = true)]
async fn no_more_exchanges_are_under_way_than_the_budget_has_and_all_get_their_turn() {
    let world = World::new(ProviderPolicy { max_in_flight: 8, ..ProviderPolicy::default() });
    let calls = (0..100).map(|_| world.exchange(world.source()));
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!(world.server.most_in_flight.load(Ordering::Relaxed), 8);
    assert_eq!(world.server.taken().len(), 100);
    let snapshot = world.provider.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.queued, snapshot.limit), (0, 0, 8));
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_for_its_turn_is_told_that_nothing_was_sent() {
    let policy = ProviderPolicy { max_in_flight: 1, queue_wait: secs(2), ..ProviderPolicy::default() };
    let world = World::new(policy);
    world.server.latency(secs(5));
    let (first, second) = tokio::join!(world.exchange(world.source()), world.exchange(world.source()));
    assert!(first.is_ok());
    let busy = second.unwrap_err();
    assert_eq!((busy.rule(), busy.delivery(), busy.is_busy()), ("provider-busy", Delivery::NotSent, true));
    assert!(busy.retry_after().unwrap() <= secs(2));
    assert_eq!(world.server.taken().len(), 1);
    assert_eq!(world.provider.snapshot().state, ProviderState::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_full_sends_away_at_once() {
    let policy = ProviderPolicy { max_in_flight: 1, max_queued: 3, ..ProviderPolicy::default() };
    let world = World::new(policy);
    let outcomes = join_all((0..10).map(|_| world.exchange(world.source()))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 4, "one in flight and three in the queue");
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_a_turn_is_not_taken_from_the_exchange() {
    let world = World::new(ProviderPolicy { max_in_flight: 1, ..ProviderPolicy::default() });
    let policy = RefreshPolicy { attempt_timeout: secs(6), ..RefreshPolicy::default() };
    world.server.latency(secs(5));
    let monitors: Vec<_> = (0..2).map(|_| world.monitor(policy.clone())).collect();
    sleep(secs(11)).await;
    assert!(monitors.iter().all(|tokens| tokens.status() == AuthStatus::Running));
    assert_eq!(world.server.taken().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_exchange_that_hangs_gives_its_place_back_and_counts_against_the_provider() {
    let world = World::new(ProviderPolicy { max_in_flight: 5, ..ProviderPolicy::default() });
    world.server.latency(secs(3600));
    let outcomes = join_all((0..5).map(|_| world.exchange(world.source()))).await;
    assert!(outcomes.iter().all(|outcome| is_timeout(outcome.as_ref().unwrap_err())));
    assert_eq!(world.provider.snapshot().state, ProviderState::Down);
    assert_eq!(world.provider.snapshot().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_gives_its_place_back() {
    let world = World::new(ProviderPolicy { max_in_flight: 1, ..ProviderPolicy::default() });
    for _ in 0..10 {
        let _ = timeout(Duration::from_millis(10), world.exchange(world.source())).await;
    }
    assert_eq!((world.provider.snapshot().in_flight, world.provider.snapshot().queued), (0, 0));
    assert!(world.exchange(world.source()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_monitor_that_was_stopped_while_it_queued_sends_nothing() {
    let world = World::new(ProviderPolicy { max_in_flight: 1, ..ProviderPolicy::default() });
    world.server.latency(secs(5));
    let _first = world.monitor(RefreshPolicy::default());
    sleep(secs(1)).await;
    let second = world.monitor(RefreshPolicy::default());
    sleep(secs(1)).await;
    assert_eq!(world.provider.snapshot().queued, 1);
    second.shutdown().await;
    assert_eq!(world.server.taken().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_bad_source_never_blocks_the_others() {
    let world = World::new(ProviderPolicy::default());
    let bad = Arc::new(world.provider.guard(|| async { Err::<IssuedToken, BoxError>("503".into()) }));
    let good = Arc::new(world.source());
    for round in 0..1_000 {
        // Between two successes, and in long rows.
        for _ in 0..=round % 7 {
            assert!(world.exchange(Arc::clone(&bad)).await.is_err());
        }
        assert!(world.exchange(Arc::clone(&good)).await.is_ok());
    }
    assert_eq!(world.provider.snapshot().state, ProviderState::Healthy);
}

#[tokio::test(start_paused = true)]
async fn rejected_grants_are_answers_of_a_provider_in_good_health() {
    let world = World::new(ProviderPolicy::default());
    for _ in 0..100 {
        let revoked = || async {
            let code = OAuthCode::new("invalid_grant").unwrap();
            Err::<IssuedToken, BoxError>(IssueError::rejected(code, "revoked").into())
        };
        assert!(world.exchange(world.provider.guard(revoked)).await.is_err());
    }
    assert_eq!(world.provider.snapshot().state, ProviderState::Healthy);
}

#[tokio::test(start_paused = true)]
async fn in_an_outage_a_thousand_sources_send_at_most_one_probe_per_cadence() {
    let world = World::new(ProviderPolicy::default());
    let policy = RefreshPolicy { demand_probe_interval: None, ..RefreshPolicy::default() };
    world.server.up.store(false, Ordering::Relaxed);
    let monitors: Vec<_> = (0..1_000).map(|_| world.monitor(policy.clone())).collect();
    sleep(secs(2 * 3600)).await;

    let taken = world.server.taken();
    // The first to fail fill the budget before anybody knows.
    let (before, probes) = taken.split_at(64);
    assert!(before.iter().all(|at| *at == before[0]), "{before:?}");
    let failed = |at: &Duration| *at + LATENCY;
    let mut cadences = [5, 10, 20].into_iter().chain(std::iter::repeat(30)).map(secs);
    let mut last = failed(&before[0]);
    for probe in probes {
        let (gap, cadence) = (*probe - last, cadences.next().unwrap());
        assert!(gap >= cadence, "{gap:?} after the last one, at a cadence of {cadence:?}");
        last = failed(probe);
    }
    assert!(probes.len() > 30, "{} probes", probes.len());
    assert!(monitors.iter().all(|tokens| tokens.status() == AuthStatus::AuthRetrying(RetryCause::TokenEndpoint)));
    let refusal = monitors[0].try_token().unwrap_err();
    assert!(refusal.is_retrying() && refusal.retry_after().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_when_to_come_again() {
    let world = World::down().await;
    let refusals = join_all((0..100).map(|_| world.exchange(world.source()))).await;
    let waits: Vec<_> = refusals.into_iter().map(|refusal| refusal.unwrap_err().retry_after().unwrap()).collect();
    assert!(waits.iter().all(|wait| (secs(5)..=secs(10)).contains(wait)), "{waits:?}");
    let (first, last) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
    assert!(*last - *first > secs(4), "they are not told the same instant: {first:?} to {last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_healed_provider_gets_its_load_back_step_by_step() {
    let world = World::down().await;
    world.server.up.store(true, Ordering::Relaxed);
    sleep(secs(5)).await;
    let began = Instant::now();
    assert!(world.exchange(world.source()).await.is_ok(), "the probe");
    assert_eq!(world.provider.snapshot().state, ProviderState::Recovering);
    world.server.forget();

    // As many as there can be want a token, all the time.
    let mut crowd = JoinSet::new();
    for _ in 0..1_000 {
        let source = world.source();
        crowd.spawn(async move {
            loop {
                let _ = source.issue(&IssueRequest::new(IssueReason::Ahead)).await;
            }
        });
    }
    let mut seconds = Vec::new();
    for _ in 0..8 {
        world.server.most_in_flight.store(0, Ordering::Relaxed);
        sleep(secs(1)).await;
        seconds.push(world.server.most_in_flight.load(Ordering::Relaxed));
    }
    assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 64], "{:?}", began.elapsed());
    assert_eq!(world.provider.snapshot().state, ProviderState::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_falls_ill_again_is_left_alone_for_longer() {
    let world = World::down().await;
    world.server.up.store(true, Ordering::Relaxed);
    sleep(secs(5)).await;
    assert!(world.exchange(world.source()).await.is_ok());
    world.server.up.store(false, Ordering::Relaxed);
    let _ = join_all((0..100).map(|_| world.exchange(world.source()))).await;
    let snapshot = world.provider.snapshot();
    assert_eq!((snapshot.state, snapshot.limit), (ProviderState::Down, 1));
    assert!(snapshot.next_probe_in.unwrap() > secs(9), "{snapshot:?}");
}

#[tokio::test(start_paused = true)]
async fn a_healthy_provider_next_to_a_dead_one_is_unaffected() {
    let (dead, healthy) = (World::down().await, World::new(ProviderPolicy::default()));
    let outcomes = join_all((0..100).map(|_| healthy.exchange(healthy.source()))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert!(dead.exchange(dead.source()).await.is_err());
    assert_eq!(healthy.provider.snapshot().state, ProviderState::Healthy);
    assert_eq!(dead.provider.snapshot().state, ProviderState::Down);
}

#[tokio::test(start_paused = true)]
async fn the_retry_after_of_a_provider_that_is_down_puts_off_its_probe() {
    let world = World::new(ProviderPolicy::default());
    let asks =
        || async { Err::<IssuedToken, BoxError>(IssueError::transient("503").with_retry_after(secs(120)).into()) };
    for _ in 0..5 {
        let _ = world.exchange(world.provider.guard(asks)).await;
    }
    assert_eq!(world.provider.snapshot().next_probe_in, Some(secs(120)));
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_source_panics_or_goes_away_is_followed_by_another() {
    let world = World::down().await;
    sleep(secs(5)).await;
    let panics = world.provider.guard(|| async { panic!("a source's own trouble") });
    let probe = tokio::spawn(async move { panics.issue(&IssueRequest::new(IssueReason::Probe)).await });
    assert!(probe.await.unwrap_err().is_panic());
    assert!(world.exchange(world.source()).await.is_err(), "one per cadence");
    sleep(secs(5)).await;
    let _ = timeout(Duration::from_millis(1), world.exchange(world.source())).await;
    sleep(secs(5)).await;
    world.server.up.store(true, Ordering::Relaxed);
    assert!(world.exchange(world.source()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_guard_passes_on_what_its_source_says_of_itself() {
    let world = World::new(ProviderPolicy { queue_wait: secs(7), ..ProviderPolicy::default() });
    let guarded = world.provider.guard(steadfast::StaticToken::new("s3cret"));
    assert!(!guarded.can_refresh() && guarded.is_replaceable());
    assert_eq!(guarded.extra_time(), secs(8));
    let guarded = world.source();
    assert!(guarded.can_refresh() && !guarded.is_replaceable());
}

/// A provider, and the server behind it.
struct World {
    provider: IdentityProvider,
    server: Arc<Server>,
}

struct Server {
    up: AtomicBool,
    latency: Mutex<Duration>,
    began: Instant,
    taken: Mutex<Vec<Duration>>,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

impl World {
    fn new(policy: ProviderPolicy) -> Self {
        let provider = IdentityProvider::new("idp", ProviderPolicy { jitter_seed: Some(7), ..policy }).unwrap();
        let server = Arc::new(Server {
            up: AtomicBool::new(true),
            latency: Mutex::new(LATENCY),
            began: Instant::now(),
            taken: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            most_in_flight: AtomicUsize::new(0),
        });
        Self { provider, server }
    }

    /// With the breaker open, at the first cadence.
    async fn down() -> Self {
        let world = Self::new(ProviderPolicy::default());
        world.server.up.store(false, Ordering::Relaxed);
        // More than the budget, so that all of it is out when the breaker opens.
        let _ = join_all((0..100).map(|_| world.exchange(world.source()))).await;
        assert_eq!(world.provider.snapshot().state, ProviderState::Down);
        world.server.forget();
        world
    }

    fn source(&self) -> Guarded<impl TokenSource> {
        let server = Arc::clone(&self.server);
        self.provider.guard(move || {
            let server = Arc::clone(&server);
            async move { server.answer().await }
        })
    }

    fn monitor(&self, policy: RefreshPolicy) -> MonitoredTokenSource {
        MonitoredTokenSource::builder(self.source()).policy(policy).spawn().unwrap()
    }

    async fn exchange(&self, source: impl TokenSource) -> Result<IssuedToken, IssueError> {
        source.issue(&IssueRequest::new(IssueReason::Ahead)).await.map_err(|error| match error.downcast() {
            Ok(own) => *own,
            Err(foreign) => IssueError::transient(foreign),
        })
    }
}

impl Server {
    async fn answer(&self) -> Result<IssuedToken, BoxError> {
        self.taken.lock().unwrap().push(self.began.elapsed());
        let _one = InFlight::of(self);
        let latency = *self.latency.lock().unwrap();
        sleep(latency).await;
        match self.up.load(Ordering::Relaxed) {
            true => Ok(IssuedToken::bearer("s3cret").expires_in(secs(3600))),
            false => Err("503".into()),
        }
    }

    fn latency(&self, latency: Duration) {
        *self.latency.lock().unwrap() = latency;
    }

    fn taken(&self) -> Vec<Duration> {
        self.taken.lock().unwrap().clone()
    }

    fn forget(&self) {
        self.taken.lock().unwrap().clear();
    }
}

struct InFlight<'a>(&'a Server);

impl<'a> InFlight<'a> {
    fn of(server: &'a Server) -> Self {
        let now = server.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        server.most_in_flight.fetch_max(now, Ordering::Relaxed);
        Self(server)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

fn is_timeout(error: &IssueError) -> bool {
    let chain = std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    chain.filter_map(|error| error.downcast_ref::<IssueError>()).any(|error| error.rule() == "attempt-timeout")
}

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

const LATENCY: Duration = Duration::from_millis(50);
