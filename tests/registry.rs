//! Sources by key: made once, parked without a loss, ended for good.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "tests look at the virtual clock")]

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use steadfast::{
    AuthStatus, BoxError, BuildError, IdentityProvider, IssueRequest, IssuedToken, MonitoredTokenSource, OAuthCode,
    PolicyError, RefreshPolicy, RegistryError, RetryCause, StatusEvent, StopReason, TokenRegistry, TokenSource,
    UnauthenticatedReason, provider::ProviderPolicy, registry::Builder, sink_fn,
};
use tokio::{
    task::yield_now,
    time::{Instant, sleep, timeout},
};

#[tokio::test(start_paused = true)]
async fn concurrent_first_calls_share_one_creation() {
    let world = World::new();
    let registry = world.registry().build().unwrap();
    let handles = join_all((0..1_000).map(|_| registry.get(&7))).await;
    assert!(handles.iter().all(Result::is_ok));
    assert_eq!((world.made(7), registry.len(), registry.live()), (1, 1, 1));
    assert_eq!(world.exchanges(7), 1);
}

#[tokio::test(start_paused = true)]
async fn a_creator_that_goes_away_takes_nothing_from_the_others() {
    let world = World::new();
    let registry = world.registry().build().unwrap();
    let first = timeout(secs(0), registry.get(&7)).await;
    assert!(first.is_err(), "the making takes its time");
    assert_eq!(registry.status_of(&7), Some(AuthStatus::Pending));
    assert!(registry.get_if_present(&7).is_none());
    assert!(registry.get(&7).await.is_ok());
    assert_eq!(world.made(7), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_creation_is_shared_and_not_remembered() {
    let world = World::new();
    let registry = world.registry().build().unwrap();
    world.fail_making.store(true, Ordering::Relaxed);
    let errors: Vec<_> =
        join_all((0..10).map(|_| registry.get(&7))).await.into_iter().map(Result::unwrap_err).collect();
    let cause = |error: &RegistryError| {
        let RegistryError::Factory(cause) = error else { panic!("{error:?}") };
        Arc::as_ptr(cause).cast::<()>()
    };
    assert!(errors.iter().all(|error| cause(error) == cause(&errors[0])));
    assert!(!format!("{:?} {}", errors[0], errors[0]).contains("vault"), "a foreign text");
    assert!(std::error::Error::source(&errors[0]).unwrap().to_string().contains("vault"));
    assert_eq!((world.made(7), registry.len(), registry.status_of(&7)), (1, 0, None));

    world.fail_making.store(false, Ordering::Relaxed);
    assert!(registry.get(&7).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_factory_that_panics_interrupts_and_the_next_call_tries_again() {
    let calls = Arc::new(AtomicUsize::new(0));
    let registry = TokenRegistry::builder(move |_: u32| {
        let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            yield_now().await;
            assert!(!first, "the factory's own trouble");
            Ok::<_, BoxError>(steadfast::StaticToken::new("s3cret"))
        }
    })
    .build()
    .unwrap();
    assert!(matches!(registry.get(&7).await, Err(RegistryError::Interrupted)));
    assert!(registry.is_empty());
    assert!(registry.get(&7).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_monitor_that_cannot_work_is_a_typed_error_and_what_was_parked_stays() {
    let world = World::new();
    let spoiled = Arc::new(AtomicBool::new(false));
    let spoil = Arc::clone(&spoiled);
    let registry = world
        .registry()
        .monitor(move |_, builder| {
            let attempt_timeout = if spoil.load(Ordering::Relaxed) { Duration::ZERO } else { secs(20) };
            builder.policy(RefreshPolicy { attempt_timeout, ..RefreshPolicy::default() })
        })
        .build()
        .unwrap();
    registry.get(&7).await.unwrap();
    sleep(secs(2 * 3600)).await;
    assert_eq!(registry.status_of(&7), Some(PARKED));
    spoiled.store(true, Ordering::Relaxed);
    assert!(matches!(registry.get(&7).await, Err(RegistryError::Build(BuildError::Policy(_)))));
    assert_eq!(registry.status_of(&7), Some(PARKED));
    spoiled.store(false, Ordering::Relaxed);
    registry.get(&7).await.unwrap();
    assert_eq!((world.made(7), world.trouble()), (1, None));
}

#[test]
fn without_a_runtime_or_with_no_patience_there_is_a_typed_error() {
    let world = World::new();
    assert!(matches!(world.registry().build(), Err(BuildError::NoRuntime)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _inside = runtime.enter();
    let hasty = world.registry().idle_after(Duration::ZERO).build();
    assert!(matches!(hasty, Err(BuildError::Policy(PolicyError::Zero { field: "idle_after" }))));
}

#[test]
fn a_runtime_that_has_gone_away_is_a_typed_error() {
    let world = World::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let registry = runtime.block_on(async { world.registry().build().unwrap() });
    drop(runtime);
    let other = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    assert!(matches!(other.block_on(registry.get(&7)), Err(RegistryError::Interrupted)));
    assert!(other.block_on(registry.get(&7)).is_err());
    other.block_on(registry.shutdown());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_uses_is_parked_and_taken_up_again_with_its_rotated_token() {
    let world = World::new();
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&events);
    let sink = Arc::new(sink_fn(move |event: StatusEvent| {
        told.lock().unwrap().push(event.to.clone());
        async { Ok(()) }
    }));
    let registry = world.registry().monitor(move |_, builder| builder.sink(Arc::clone(&sink))).build().unwrap();
    let tokens = registry.get(&7).await.unwrap();
    tokens.token().await.unwrap();
    let before = world.rotations(7);
    drop(tokens);

    sleep(secs(3600 - 1)).await;
    assert_eq!(registry.live(), 1);
    sleep(secs(3600 / 8 + 10)).await;
    assert_eq!((registry.len(), registry.live(), registry.status_of(&7)), (1, 0, Some(PARKED)));
    assert_eq!(registry.snapshots().count(), 0);
    assert_eq!(registry.statuses().collect::<Vec<_>>(), [(7, PARKED)]);
    let parked = world.rotations(7);
    assert!(parked > before, "it was refreshed while it was live");
    sleep(secs(24 * 3600)).await;
    assert_eq!(world.rotations(7), parked, "and not after that");

    let tokens = registry.get(&7).await.unwrap();
    assert!(tokens.token().await.is_ok());
    assert_eq!((world.made(7), world.rotations(7), world.trouble()), (1, parked + 1, None));
    assert_eq!(*events.lock().unwrap(), [AuthStatus::Running, PARKED, AuthStatus::Running]);
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_a_monitor_is_being_parked_waits_until_its_sink_has_been_told() {
    let world = World::new();
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&events);
    let sink = Arc::new(sink_fn(move |event: StatusEvent| {
        let told = Arc::clone(&told);
        async move {
            sleep(if event.to == PARKED { secs(3) } else { secs(0) }).await;
            told.lock().unwrap().push(event.to.clone());
            Ok(())
        }
    }));
    let registry = world.registry().monitor(move |_, builder| builder.sink(Arc::clone(&sink))).build().unwrap();
    registry.get(&7).await.unwrap();
    while registry.live() > 0 {
        sleep(secs(1)).await;
    }
    assert_eq!(registry.status_of(&7), Some(PARKED));
    registry.get(&7).await.unwrap().token().await.unwrap();
    sleep(secs(10)).await;
    assert_eq!(*events.lock().unwrap(), [AuthStatus::Running, PARKED, AuthStatus::Running]);
}

#[tokio::test(start_paused = true)]
async fn what_can_be_made_again_goes_altogether() {
    let world = World::new();
    world.is_replaceable.store(true, Ordering::Relaxed);
    let registry = world.registry().build().unwrap();
    registry.get(&7).await.unwrap();
    sleep(secs(2 * 3600)).await;
    assert_eq!((registry.len(), registry.status_of(&7)), (0, None));
    registry.get(&7).await.unwrap().token().await.unwrap();
    assert_eq!(world.made(7), 2);
}

#[tokio::test(start_paused = true)]
async fn what_can_be_made_again_only_later_goes_then() {
    let world = World::new();
    let registry = world.registry().build().unwrap();
    registry.get(&7).await.unwrap();
    sleep(secs(2 * 3600)).await;
    assert_eq!(registry.len(), 1);
    world.is_replaceable.store(true, Ordering::Relaxed);
    sleep(secs(3600)).await;
    assert_eq!(registry.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_use_is_never_parked() {
    let world = World::new();
    let registry = world.registry().capacity(1).build().unwrap();
    let held: Vec<_> = get_all(&registry, 10).await;
    sleep(secs(24 * 3600)).await;
    assert_eq!(registry.live(), 10);
    assert!(held.iter().all(|tokens| tokens.as_ref().unwrap().try_token().is_ok()));
    drop(held);
    sleep(secs(2)).await;
    let _one_more = registry.get(&99).await.unwrap();
    sleep(secs(2)).await;
    assert_eq!(registry.live(), 1);
    assert!(registry.get_if_present(&99).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_was_held_for_long_counts_as_used_until_it_is_dropped() {
    let world = World::new();
    let registry = world.registry().build().unwrap();
    let tokens = registry.get(&7).await.unwrap();
    sleep(secs(24 * 3600)).await;
    drop(tokens);
    sleep(secs(1800)).await;
    assert_eq!(registry.live(), 1);
}

#[tokio::test(start_paused = true)]
async fn above_the_capacity_the_least_recently_used_are_parked_first() {
    let world = World::new();
    let registry = world.registry().capacity(3).build().unwrap();
    for key in 0..3 {
        registry.get(&key).await.unwrap().token().await.unwrap();
        sleep(secs(1)).await;
    }
    drop(registry.get(&0).await.unwrap());
    sleep(secs(1)).await;
    registry.get(&3).await.unwrap().token().await.unwrap();
    sleep(secs(2)).await;
    assert_eq!((registry.live(), registry.len()), (3, 4));
    assert_eq!(registry.status_of(&1), Some(PARKED));
}

#[tokio::test(start_paused = true)]
async fn a_monitor_with_an_attempt_in_flight_is_not_parked() {
    let world = World::new();
    let registry = world.registry().idle_after(secs(8)).build().unwrap();
    *world.latency.lock().unwrap() = secs(15);
    registry.get(&7).await.unwrap();
    sleep(secs(14)).await;
    assert_eq!((registry.live(), world.in_flight(7)), (1, 1));
    sleep(secs(4)).await;
    assert_eq!((registry.live(), world.rotations(7)), (0, 1), "the attempt was let go on to its end");
    assert!(registry.get(&7).await.unwrap().token_within(secs(60)).await.is_ok());
    assert_eq!(world.trouble(), None);
}

#[tokio::test(start_paused = true)]
async fn an_unauthenticated_one_stays_so_when_it_is_parked() {
    let world = World::new();
    let registry = world.registry().build().unwrap();
    world.revoke(7);
    registry.get(&7).await.unwrap().token().await.unwrap_err();
    sleep(secs(2 * 3600)).await;
    assert_eq!(registry.live(), 0);
    let code = OAuthCode::new("invalid_grant").unwrap();
    let rejected = AuthStatus::Unauthenticated(UnauthenticatedReason::Rejected(code));
    assert_eq!(registry.status_of(&7), Some(rejected));
}

#[tokio::test(start_paused = true)]
async fn new_credentials_survive_parking() {
    let world = World::new();
    let registry = world.registry().build().unwrap();
    let tokens = registry.get(&7).await.unwrap();
    tokens.token().await.unwrap();
    // Behind the registry's back.
    tokens.reauthenticate(world.source(1_007)).unwrap();
    tokens.token().await.unwrap();
    drop(tokens);
    sleep(secs(2 * 3600)).await;
    assert_eq!(registry.status_of(&7), Some(PARKED));
    let (old, new) = (world.exchanges(7), world.exchanges(1_007));
    registry.get(&7).await.unwrap().token().await.unwrap();
    assert_eq!((world.exchanges(7), world.exchanges(1_007)), (old, new + 1));
}

#[tokio::test(start_paused = true)]
async fn new_credentials_that_were_shut_down_are_followed_by_what_the_factory_makes() {
    let world = World::new();
    let registry = world.registry().build().unwrap();
    let tokens = registry.get(&7).await.unwrap();
    tokens.reauthenticate(world.source(100)).unwrap();
    tokens.token().await.unwrap();
    tokens.shutdown().await;
    world.current.lock().unwrap().insert(7, 100);
    registry.get(&7).await.unwrap().token().await.unwrap();
    assert_eq!((world.made(7), world.exchanges(100), world.trouble()), (2, 2, None));
    // The same where nobody comes for it.
    let tokens = registry.get(&7).await.unwrap();
    tokens.reauthenticate(world.source(101)).unwrap();
    tokens.token().await.unwrap();
    tokens.shutdown().await;
    drop(tokens);
    sleep(secs(2 * 3600)).await;
    assert_eq!(registry.status_of(&7), None);
}

#[tokio::test(start_paused = true)]
async fn new_credentials_reach_a_key_in_every_state() {
    let world = World::new();
    let registry = world.registry().build().unwrap();
    // Unknown.
    registry.reauthenticate(&7, world.source(100)).await.unwrap();
    let tokens = registry.get(&7).await.unwrap();
    tokens.token().await.unwrap();
    assert_eq!((world.made(7), world.exchanges(100)), (0, 1));
    // Live.
    registry.reauthenticate(&7, world.source(101)).await.unwrap();
    tokens.token().await.unwrap();
    assert_eq!(world.exchanges(101), 1);
    // Ended.
    tokens.shutdown().await;
    registry.reauthenticate(&7, world.source(102)).await.unwrap();
    registry.get(&7).await.unwrap().token().await.unwrap();
    assert_eq!(world.exchanges(102), 1);
    // Parked.
    sleep(secs(2 * 3600)).await;
    assert_eq!(registry.status_of(&7), Some(PARKED));
    registry.reauthenticate(&7, world.source(103)).await.unwrap();
    registry.get(&7).await.unwrap().token().await.unwrap();
    assert_eq!(world.exchanges(103), 1);
    // In the making.
    let (made, new) = tokio::join!(registry.get(&8), registry.reauthenticate(&8, world.source(104)));
    new.unwrap();
    made.unwrap().token().await.unwrap();
    assert_eq!((world.exchanges(104), registry.live()), (1, 2));
    registry.shutdown().await;
    assert!(registry.reauthenticate(&7, world.source(105)).await.unwrap_err().is_shut_down());
}

#[tokio::test(start_paused = true)]
async fn a_monitor_that_somebody_has_shut_down_is_followed_by_another_on_the_same_source() {
    let world = World::new();
    let registry = world.registry().build().unwrap();
    let tokens = registry.get(&7).await.unwrap();
    tokens.token().await.unwrap();
    *world.latency.lock().unwrap() = secs(10);
    tokens.retry_now();
    sleep(secs(12)).await;
    tokens.retry_now();
    sleep(secs(1)).await;
    assert_eq!(world.in_flight(7), 1);
    // Not waited for.
    let _ = timeout(secs(0), tokens.shutdown()).await;
    assert!(tokens.try_token().unwrap_err().is_stopped());
    let again = registry.get(&7).await.unwrap();
    assert!(again.token_within(secs(60)).await.is_ok());
    assert_eq!((world.made(7), world.trouble(), registry.live()), (1, None, 1));
}

#[tokio::test(start_paused = true)]
async fn after_a_removal_the_source_is_made_anew_once_the_old_one_has_ended() {
    let world = World::new();
    let registry = world.registry().build().unwrap();
    let tokens = registry.get(&7).await.unwrap();
    *world.latency.lock().unwrap() = secs(10);
    yield_now().await;
    // Polled once and dropped: it goes on all the same.
    let _ = timeout(secs(0), registry.remove(&7)).await;
    assert!(tokens.try_token().unwrap_err().is_stopped());
    assert_eq!((registry.status_of(&7), registry.live()), (None, 0));
    let again = registry.get(&7).await.unwrap();
    assert!(again.token_within(secs(60)).await.is_ok());
    assert_eq!((world.made(7), world.trouble()), (2, None));

    drop(again);
    sleep(secs(2 * 3600)).await;
    assert_eq!(registry.status_of(&7), Some(PARKED));
    assert!(registry.remove(&7).await && registry.is_empty());
    assert!(!registry.remove(&7).await);
}

#[tokio::test(start_paused = true)]
async fn a_removal_during_the_making_waits_for_it() {
    let world = World::new();
    let registry = world.registry().build().unwrap();
    let (made, removed) = tokio::join!(registry.get(&7), registry.remove(&7));
    assert!(removed && registry.is_empty());
    assert!(made.unwrap().try_token().unwrap_err().is_stopped());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_all_at_once_and_nothing_is_made_after_it() {
    let world = World::new();
    let registry = world.registry().build().unwrap();
    let held = get_all(&registry, 100).await;
    *world.latency.lock().unwrap() = secs(10);
    sleep(secs(12)).await;
    for tokens in &held {
        tokens.as_ref().unwrap().retry_now();
    }
    sleep(secs(1)).await;
    assert_eq!((0..100).map(|key| world.in_flight(key)).sum::<usize>(), 100);
    let began = Instant::now();
    registry.shutdown().await;
    assert_eq!((0..100).map(|key| world.in_flight(key)).sum::<usize>(), 0, "they were waited for");
    assert!(began.elapsed() < secs(10), "all at once");
    assert!(held.iter().all(|tokens| tokens.as_ref().unwrap().status() == AuthStatus::Stopped(StopReason::ShutDown)));
    assert!(registry.get(&1).await.unwrap_err().is_shut_down());
    assert!(registry.get(&1_000).await.unwrap_err().is_shut_down());
    assert_eq!((registry.len(), registry.live(), world.trouble()), (0, 0, None));
    registry.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_during_creations_waits_for_them_and_refuses_them() {
    let world = World::new();
    let registry = world.registry().build().unwrap();
    let gets = get_all(&registry, 100);
    let (got, ()) = tokio::join!(gets, registry.shutdown());
    assert!(got.into_iter().all(|got| got.unwrap_err().is_shut_down()));
    assert_eq!((registry.len(), registry.live()), (0, 0));
    let exchanges: usize = (0..100).map(|key| world.exchanges(key)).sum();
    sleep(secs(3600)).await;
    assert_eq!((0..100).map(|key| world.exchanges(key)).sum::<usize>(), exchanges, "nobody is left at work");
}

#[tokio::test(start_paused = true)]
async fn with_the_last_clone_the_monitors_end_and_so_do_the_registrys_own_tasks() {
    let world = World::new();
    let provider = IdentityProvider::new("idp", ProviderPolicy::default()).unwrap();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let registry = world.registry().provider(&provider).build().unwrap();
    let clone = registry.clone();
    let held = registry.get(&1).await.unwrap();
    registry.get(&2).await.unwrap().token().await.unwrap();
    drop(registry);
    assert_eq!(clone.live(), 2);
    drop(clone);
    sleep(secs(1)).await;
    assert_eq!(tasks(), 1, "the one that is held");
    assert_eq!(held.status(), AuthStatus::Running);
}

#[tokio::test(start_paused = true)]
async fn never_two_exchanges_for_one_key_whatever_comes_together() {
    for seed in 0..15 {
        let world = World::new();
        *world.latency.lock().unwrap() = Duration::from_millis(700);
        let registry = world.registry().idle_after(secs(8)).capacity(4).build().unwrap();
        let logins = AtomicU32::new(1);
        let actors = (0..6).map(|actor| {
            let (registry, world, logins) = (registry.clone(), Arc::clone(&world), &logins);
            let mut dice = fastrand::Rng::with_seed(seed * 100 + actor);
            async move {
                for _ in 0..150 {
                    let key = dice.u32(0..8);
                    let got = timeout(Duration::from_millis(dice.u64(0..3_000)), registry.get(&key)).await;
                    let tokens = got.ok().and_then(Result::ok);
                    match (dice.u32(0..12), tokens) {
                        (0, Some(tokens)) => tokens.retry_now(),
                        (1, Some(tokens)) => drop(timeout(secs(0), tokens.shutdown()).await),
                        (2, _) => drop(timeout(secs(0), registry.remove(&key)).await),
                        (3, _) => {
                            // Another login, which has nothing to do with the one before.
                            let login = key + 1_000 * logins.fetch_add(1, Ordering::Relaxed);
                            registry.reauthenticate(&key, world.make(login)).await.unwrap();
                            world.current.lock().unwrap().insert(key, login);
                        }
                        (4, Some(tokens)) => {
                            let generation = tokens.try_token().map(|token| token.generation());
                            drop(generation.map(|generation| tokens.reject(generation, None)));
                        }
                        (5, Some(tokens)) => drop(tokens.token().await),
                        (6, _) => sleep(secs(dice.u64(0..30))).await,
                        (_, tokens) => {
                            sleep(Duration::from_millis(dice.u64(0..2_000))).await;
                            drop(tokens);
                        }
                    }
                }
            }
        });
        join_all(actors).await;
        assert_eq!(world.trouble(), None, "seed {seed}");
        registry.shutdown().await;
        let at_work = world.keys.lock().unwrap().values().map(|login| login.in_flight).sum::<usize>();
        assert_eq!(at_work, 0, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn in_an_outage_somebody_probes_in_every_cadence_and_when_it_is_over_all_are_told() {
    let world = World::new();
    // More than a few at a time would be turned away.
    let policy = ProviderPolicy { max_in_flight: 16, max_queued: 32, ..ProviderPolicy::default() };
    let provider = IdentityProvider::new("idp", policy).unwrap();
    let registry = world.registry_under(&provider).provider(&provider).build().unwrap();
    let held = get_all(&registry, 1_000).await;
    sleep(secs(60)).await;
    assert!(held.iter().all(|tokens| tokens.as_ref().unwrap().status() == AuthStatus::Running));

    world.is_down.store(true, Ordering::Relaxed);
    for tokens in &held {
        tokens.as_ref().unwrap().retry_now();
    }
    sleep(secs(3600)).await;
    let outage = AuthStatus::AuthRetrying(RetryCause::TokenEndpoint);
    assert!(held.iter().all(|tokens| tokens.as_ref().unwrap().status() == outage));
    let before = world.all_exchanges();
    sleep(secs(3600)).await;
    let probes = world.all_exchanges() - before;
    // Half a minute after the last has failed, and at most a second until somebody is told.
    assert!((115..=120).contains(&probes), "{probes} probes in an hour");

    world.is_down.store(false, Ordering::Relaxed);
    sleep(secs(31 + 10)).await;
    let recovered = held.iter().filter(|tokens| tokens.as_ref().unwrap().status() == AuthStatus::Running).count();
    assert_eq!(recovered, 1_000);
    assert_eq!(world.trouble(), None);
}

async fn get_all(registry: &TokenRegistry<u32>, keys: u32) -> Vec<Result<MonitoredTokenSource, RegistryError>> {
    join_all((0..keys).map(|key| async move { registry.get(&key).await })).await
}

/// What every key's login is made of: a server that rotates, and takes the second use of a token for a theft.
struct World {
    keys: Mutex<HashMap<u32, Login>>,
    /// The login that the host's database holds for a key, where it is not the first one.
    current: Mutex<HashMap<u32, u32>>,
    latency: Mutex<Duration>,
    fail_making: AtomicBool,
    is_replaceable: AtomicBool,
    is_down: AtomicBool,
    trouble: Mutex<Option<String>>,
}

#[derive(Default)]
struct Login {
    made: usize,
    exchanges: usize,
    in_flight: usize,
    rotations: u64,
    is_revoked: bool,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            keys: Mutex::default(),
            current: Mutex::default(),
            latency: Mutex::new(Duration::from_millis(50)),
            fail_making: AtomicBool::new(false),
            is_replaceable: AtomicBool::new(false),
            is_down: AtomicBool::new(false),
            trouble: Mutex::default(),
        })
    }

    fn registry(self: &Arc<Self>) -> Builder<u32> {
        let world = Arc::clone(self);
        TokenRegistry::builder(move |key| {
            let world = Arc::clone(&world);
            async move { world.making(key).await }
        })
    }

    fn registry_under(self: &Arc<Self>, provider: &IdentityProvider) -> Builder<u32> {
        let (world, provider) = (Arc::clone(self), provider.clone());
        TokenRegistry::builder(move |key| {
            let (world, provider) = (Arc::clone(&world), provider.clone());
            async move { Ok::<_, BoxError>(provider.guard(world.making(key).await?)) }
        })
    }

    async fn making(self: &Arc<Self>, key: u32) -> Result<Rotating, BoxError> {
        self.login(key, |login| login.made += 1);
        sleep(Duration::from_millis(5)).await;
        match self.fail_making.load(Ordering::Relaxed) {
            true => Err("the vault is sealed".into()),
            false => {
                let login = self.current.lock().unwrap().get(&key).copied();
                Ok(self.make(login.unwrap_or(key)))
            }
        }
    }

    /// A source with the refresh token that is good now, as if the user had just signed in.
    fn make(self: &Arc<Self>, key: u32) -> Rotating {
        let refresh_token = Mutex::new(self.login(key, |login| login.rotations));
        Rotating { world: Arc::clone(self), key, refresh_token }
    }

    fn source(self: &Arc<Self>, key: u32) -> Rotating {
        self.make(key)
    }

    fn login<T>(&self, key: u32, look: impl FnOnce(&mut Login) -> T) -> T {
        look(self.keys.lock().unwrap().entry(key).or_default())
    }

    fn made(&self, key: u32) -> usize {
        self.login(key, |login| login.made)
    }

    fn exchanges(&self, key: u32) -> usize {
        self.login(key, |login| login.exchanges)
    }

    fn all_exchanges(&self) -> usize {
        self.keys.lock().unwrap().values().map(|login| login.exchanges).sum()
    }

    fn in_flight(&self, key: u32) -> usize {
        self.login(key, |login| login.in_flight)
    }

    fn rotations(&self, key: u32) -> u64 {
        self.login(key, |login| login.rotations)
    }

    fn revoke(&self, key: u32) {
        self.login(key, |login| login.is_revoked = true);
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap().clone()
    }
}

/// A source whose refresh token changes with each exchange and lives in here only.
struct Rotating {
    world: Arc<World>,
    key: u32,
    refresh_token: Mutex<u64>,
}

#[async_trait]
impl TokenSource for Rotating {
    async fn issue(&self, _: &IssueRequest) -> Result<IssuedToken, BoxError> {
        let sent = *self.refresh_token.lock().unwrap();
        let together = self.world.login(self.key, |login| {
            login.exchanges += 1;
            login.in_flight += 1;
            login.in_flight
        });
        let _in_flight = InFlight(self);
        if together > 1 {
            *self.world.trouble.lock().unwrap() = Some(format!("{together} exchanges for key {} at once", self.key));
        }
        let latency = *self.world.latency.lock().unwrap();
        sleep(latency).await;
        if self.world.is_down.load(Ordering::Relaxed) {
            return Err("503".into());
        }
        let rotated = self.world.login(self.key, |login| {
            if login.is_revoked {
                return None;
            }
            login.rotations += 1;
            Some((login.rotations - 1 == sent, login.rotations))
        });
        let Some((is_current, rotated)) = rotated else {
            let code = OAuthCode::new("invalid_grant").unwrap();
            return Err(steadfast::IssueError::rejected(code, "revoked").into());
        };
        if !is_current {
            *self.world.trouble.lock().unwrap() = Some(format!("key {} was taken for stolen", self.key));
        }
        *self.refresh_token.lock().unwrap() = rotated;
        Ok(IssuedToken::bearer(format!("at-{rotated}")).expires_in(secs(3600)))
    }

    fn is_replaceable(&self) -> bool {
        self.world.is_replaceable.load(Ordering::Relaxed)
    }
}

struct InFlight<'a>(&'a Rotating);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.world.login(self.0.key, |login| login.in_flight -= 1);
    }
}

const PARKED: AuthStatus = AuthStatus::Stopped(StopReason::Idle);

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}
