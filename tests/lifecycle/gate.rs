//! However a run ends, its gate closes: nothing starts any more, and everybody who waits is answered.

use std::{
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{FutureExt, future::join};
use steadfast::{
    AccessToken, AuthError, AuthStatus, BoxError, Generation, IssueError, IssueRequest, IssuedToken,
    MonitoredTokenSource, OAuthCode, RefreshPolicy, Rejection, RetryCause, StatusEvent, StatusSink, StopReason,
    Stopped, TokenSource, UnauthenticatedReason, WeakTokenSource,
};
use tokio::{
    runtime::Runtime,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::world::{Answer, DAYS, HOUR, Reaction, Upstream, World, assert_in_order, hour, impatient, secs, settled};

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_every_state_for_good() {
    for scene in SCENES {
        let world = scene.set().await;
        let callers = scene.waiting(&world).await;
        world.tokens.shutdown().await;
        assert_over(&world, StopReason::ShutDown, callers).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_aborted_driver_ends_every_state_for_good() {
    for scene in SCENES {
        let world = scene.set().await;
        let callers = scene.waiting(&world).await;
        world.driver.as_ref().unwrap().abort();
        settled().await;
        assert_over(&world, StopReason::DriverDropped, callers).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_panicking_driver_ends_every_state_for_good_and_a_restart_helps() {
    for scene in SCENES {
        let world = scene.set().await;
        let callers = scene.waiting(&world).await;
        world.upstream.trap();
        world.tokens.retry_now();
        settled().await;
        assert!(world.driver.as_ref().unwrap().is_finished(), "{scene:?}");
        assert_over(&world, StopReason::DriverPanicked, callers).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_dropped_ends_every_state_and_leaves_nothing_behind() {
    for scene in SCENES {
        let World { tokens, upstream, sink, driver, .. } = scene.set().await;
        let (second, weak, subscriber) = (tokens.clone(), tokens.downgrade(), tokens.subscribe());
        drop(tokens);
        settled().await;
        assert!(second.status() != AuthStatus::Stopped(StopReason::HandlesDropped), "one handle is left");
        drop(second);
        assert_eq!(*subscriber.borrow(), AuthStatus::Stopped(StopReason::HandlesDropped), "{scene:?}");
        assert!(weak.upgrade().is_none(), "{scene:?}");
        let (calls, source, ear) = (upstream.calls(), Arc::downgrade(&upstream), Arc::downgrade(&sink));
        // The attempt in flight may run to its end, which its time limit sets.
        sleep(if scene.is_attempting() { RefreshPolicy::DEFAULT.attempt_timeout } else { Duration::ZERO }).await;
        settled().await;
        assert!(driver.unwrap().is_finished(), "{scene:?}: the task is gone");
        let last = sink.last();
        assert_eq!((last.to, last.serving), (AuthStatus::Stopped(StopReason::HandlesDropped), false), "{scene:?}");
        assert_eq!(upstream.calls(), calls, "{scene:?}");
        drop((upstream, sink));
        assert_eq!((source.strong_count(), ear.strong_count()), (0, 0), "{scene:?}: source and sink are dropped");
    }
}

#[tokio::test(start_paused = true)]
async fn a_driver_dropped_before_its_first_poll_ends_the_monitor() {
    let (world, driver) = World::pair(|_| hour(), |_, _| Reaction::Take, |builder| builder);
    let callers = Scene::Starting.waiting(&world).await;
    drop(driver);
    assert_over(&world, StopReason::DriverDropped, callers).await;
    assert_eq!(world.upstream.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_is_dropped_while_its_host_panics_has_not_panicked_itself() {
    let (world, driver) = World::pair(|_| hour(), |_, _| Reaction::Take, |builder| builder);
    crate::world::hush();
    let host = tokio::spawn(async move {
        let unwell = async {
            settled().await;
            panic!("{}", crate::world::TRAP);
        };
        join(driver, unwell).await
    });
    assert!(host.await.unwrap_err().is_panic());
    assert_over(&world, StopReason::DriverDropped, Vec::new()).await;
}

#[test]
fn a_driver_that_is_polled_outside_a_runtime_panics_and_says_so() {
    crate::world::hush();
    let upstream = Upstream::answering(|_| hour());
    let (tokens, driver) = MonitoredTokenSource::builder(Arc::clone(&upstream)).pair().unwrap();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| driver.now_or_never()));
    assert!(outcome.is_err());
    assert_eq!(tokens.status(), AuthStatus::Stopped(StopReason::DriverPanicked));
    assert_eq!(upstream.calls(), 0);
}

#[test]
fn a_runtime_that_goes_away_ends_every_state_for_handles_elsewhere() {
    for scene in SCENES {
        let host = paused_runtime();
        let world = host.block_on(scene.set());
        let elsewhere = paused_runtime();
        let callers = elsewhere.block_on(scene.waiting(&world));
        drop(host);
        assert_refuses_everything(&world.tokens, StopReason::DriverDropped);
        let calls = world.upstream.calls();
        elsewhere.block_on(async {
            settled().await;
            for caller in callers {
                assert!(caller.now_or_never().unwrap().unwrap().is_err_and(|error| error.is_stopped()), "{scene:?}");
            }
            sleep(DAYS).await;
        });
        let there = world.tokens.clone();
        std::thread::spawn(move || assert_refuses_everything(&there, StopReason::DriverDropped)).join().unwrap();
        assert_eq!(world.upstream.calls(), calls, "{scene:?}");
    }
}

#[test]
fn news_that_a_dead_runtime_left_is_delivered_by_a_shutdown_on_another() {
    let host = paused_runtime();
    let world = host.block_on(Scene::Running.set());
    drop(host);
    paused_runtime().block_on(world.tokens.shutdown());
    let last = world.sink.last();
    assert_eq!((last.to, last.restart_helps), (AuthStatus::Stopped(StopReason::DriverDropped), false));
    assert_in_order(&world.sink.taken());
}

#[test]
fn an_end_outside_a_runtime_is_told_as_soon_as_the_driver_runs() {
    let (world, driver) = World::pair(|_| hour(), |_, _| Reaction::Take, |builder| builder);
    let World { tokens, sink, upstream, .. } = world;
    drop(tokens);
    assert_eq!(sink.told(), []);
    paused_runtime().block_on(async {
        driver.await;
        settled().await;
    });
    assert_eq!(sink.last().to, AuthStatus::Stopped(StopReason::HandlesDropped));
    assert_eq!((sink.told().len(), upstream.calls()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn after_a_permanent_verdict_nothing_starts_until_a_nudge() {
    let world = World::of(|call| if call == 1 { Answer::Rejected("invalid_grant") } else { hour() });
    settled().await;
    let rejected = world.tokens.status();
    assert!(matches!(rejected, AuthStatus::Unauthenticated(UnauthenticatedReason::Rejected(_))));
    demand_for_days(&world).await;
    assert_eq!((world.upstream.calls(), world.tokens.status()), (1, rejected));
    world.tokens.retry_now();
    settled().await;
    assert_eq!((world.upstream.calls(), world.tokens.status()), (2, AuthStatus::Running));
}

#[tokio::test(start_paused = true)]
async fn after_the_ceiling_nothing_starts_until_new_credentials_come() {
    let world = World::built(|_| Answer::Broken, |_, _| Reaction::Take, |builder| builder.policy(impatient()));
    sleep(25 * HOUR).await;
    let ceiling = UnauthenticatedReason::CeilingExceeded(24 * HOUR);
    assert_eq!(world.tokens.status(), AuthStatus::Unauthenticated(ceiling.clone()));
    let calls = world.upstream.calls();
    demand_for_days(&world).await;
    assert_eq!((world.upstream.calls(), world.tokens.status()), (calls, AuthStatus::Unauthenticated(ceiling)));
    let fresh = Upstream::answering(|_| hour());
    world.tokens.reauthenticate(Arc::clone(&fresh)).unwrap();
    assert_eq!(world.tokens.token().await.unwrap().secret(), "s3cret-1");
    assert_eq!((world.upstream.calls(), fresh.calls()), (calls, 1));
}

#[tokio::test(start_paused = true)]
async fn no_attempt_starts_after_a_shutdown_even_if_the_driver_has_just_decided_on_one() {
    // The driver runs, decides on its first attempt and spawns it; the shutdown is called before that task is polled.
    let (world, mut driver) = World::pair(|_| hour(), |_, _| Reaction::Take, |builder| builder);
    assert!((&mut driver).now_or_never().is_none());
    assert!(world.tokens.snapshot().attempt_in_flight);
    let shutdown = world.tokens.shutdown();
    tokio::pin!(shutdown);
    assert!((&mut shutdown).now_or_never().is_none());
    join(driver, shutdown).await;
    assert_eq!(world.upstream.calls(), 0);
    assert_eq!(world.sink.told(), [("pending", "stopped", false)]);
}

#[tokio::test(start_paused = true)]
async fn no_attempt_starts_after_its_run_was_replaced_even_if_the_driver_has_just_decided_on_one() {
    let (world, mut driver) = World::pair(|_| hour(), |_, _| Reaction::Take, |builder| builder);
    assert!((&mut driver).now_or_never().is_none());
    let fresh = Upstream::answering(|_| hour());
    world.tokens.reauthenticate(Arc::clone(&fresh)).unwrap();
    tokio::spawn(driver);
    world.tokens.token().await.unwrap();
    assert_eq!((world.upstream.calls(), fresh.calls()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_the_attempt_in_flight_and_keeps_quiet_about_its_result() {
    for answer in [hour(), Answer::Rejected("invalid_grant"), Answer::Broken] {
        let world = World::of(move |_| answer.clone().late(secs(5)));
        sleep(secs(1)).await;
        let shutdown = world.tokens.shutdown();
        tokio::pin!(shutdown);
        assert!((&mut shutdown).now_or_never().is_none());
        assert_eq!(world.tokens.status(), AuthStatus::Stopped(StopReason::ShutDown), "at once");
        shutdown.await;
        assert_eq!((world.age(), world.upstream.ended()), (secs(5), 1), "the source saw its answer");
        assert_eq!(world.sink.told(), [("pending", "stopped", false)]);
        assert_over(&world, StopReason::ShutDown, Vec::new()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_flushes_a_slow_sink() {
    let world = World::with(|_| hour(), |_, _| Reaction::Slow(secs(3)));
    settled().await;
    world.tokens.shutdown().await;
    assert_eq!(world.age(), secs(6), "two events of three seconds each");
    assert_eq!(world.sink.told(), [("pending", "running", true), ("running", "stopped", false)]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_in_time_though_source_and_sink_hang() {
    let world = World::with(|call| if call == 1 { hour() } else { Answer::Never }, |_, _| Reaction::Hang);
    settled().await;
    world.tokens.retry_now();
    sleep(secs(2)).await;
    assert_eq!(world.upstream.calls(), 2);
    let before = world.age();
    world.tokens.shutdown().await;
    assert_eq!(world.age() - before, secs(20 + 5));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_in_time_though_nobody_polls_the_driver_any_more() {
    let (world, mut driver) = World::pair(|_| Answer::Never, |_, _| Reaction::Take, |builder| builder);
    assert!((&mut driver).now_or_never().is_none());
    world.tokens.shutdown().await;
    assert_eq!(world.age(), secs(20 + 5));
    drop(driver);
    assert_eq!(world.sink.told(), [("pending", "stopped", false)]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_is_dropped_after_its_first_poll_has_ended_the_monitor() {
    for scene in SCENES {
        let world = scene.set().await;
        let callers = scene.waiting(&world).await;
        let _ = world.tokens.shutdown().now_or_never();
        settled().await;
        assert_over(&world, StopReason::ShutDown, callers).await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_shutdowns_are_one() {
    let world = World::of(|_| hour().late(secs(5)));
    settled().await;
    join(world.tokens.shutdown(), world.tokens.clone().shutdown()).await;
    assert_eq!(world.age(), secs(5), "both have waited for the attempt");
    world.tokens.shutdown().await;
    assert_eq!(world.age(), secs(5));
    assert_eq!(world.sink.told(), [("pending", "stopped", false)]);
    assert_eq!((world.upstream.calls(), world.upstream.ended()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_before_the_first_poll_of_the_driver_leaves_it_nothing_to_do() {
    let (world, driver) = World::pair(|_| hour(), |_, _| Reaction::Take, |builder| builder);
    world.tokens.shutdown().await;
    assert_eq!(world.sink.told(), [("pending", "stopped", false)]);
    driver.await;
    assert_over(&world, StopReason::ShutDown, Vec::new()).await;
    assert_eq!((world.upstream.calls(), world.age()), (0, DAYS));
}

#[tokio::test(start_paused = true)]
async fn with_a_driver_that_nobody_runs_callers_wait_and_are_told() {
    let (world, _driver) = World::pair(|_| hour(), |_, _| Reaction::Take, |builder| builder);
    let error = world.tokens.token().await.unwrap_err();
    assert!(error.is_still_refreshing());
    assert_eq!(world.age(), RefreshPolicy::DEFAULT.caller_wait);
    assert!(timeout(HOUR, world.tokens.stopped()).await.is_err(), "not stopped yet");
    world.tokens.shutdown().await;
    world.tokens.stopped().await;
    assert_eq!(world.age(), RefreshPolicy::DEFAULT.caller_wait + HOUR);
    assert_over(&world, StopReason::ShutDown, Vec::new()).await;
}

#[test]
fn outside_a_runtime_a_pair_can_be_built_asked_and_ended() {
    let (world, driver) = World::pair(|_| hour(), |_, _| Reaction::Take, |builder| builder);
    let error = futures_block_on(world.tokens.token()).unwrap_err();
    assert!(error.is_still_refreshing());
    futures_block_on(world.tokens.shutdown());
    assert_refuses_everything(&world.tokens, StopReason::ShutDown);
    drop(driver);
    assert_eq!(world.upstream.calls(), 0);
}

#[test]
fn a_pair_built_outside_a_runtime_runs_inside_one() {
    let (world, driver) = World::pair(|_| hour(), |_, _| Reaction::Take, |builder| builder);
    paused_runtime().block_on(async {
        tokio::spawn(driver);
        assert_eq!(world.tokens.token().await.unwrap().secret(), "s3cret-1");
        world.tokens.shutdown().await;
    });
    assert_eq!(world.sink.told(), [("pending", "running", true), ("running", "stopped", false)]);
}

#[tokio::test(start_paused = true)]
async fn stopped_means_stopped_and_not_unauthenticated() {
    let world = World::of(|_| Answer::Rejected("invalid_grant"));
    assert!(timeout(DAYS, world.tokens.stopped()).await.is_err());
    let tokens = world.tokens.clone();
    let waiter = tokio::spawn(async move { tokens.stopped().await });
    settled().await;
    world.tokens.shutdown().await;
    settled().await;
    assert!(waiter.is_finished());
}

#[tokio::test(start_paused = true)]
async fn new_credentials_in_the_last_moment_either_come_in_time_or_are_refused() {
    let world = World::of(|_| Answer::Broken);
    settled().await;
    let (late, later) = (Upstream::answering(|_| hour()), Upstream::answering(|_| hour()));
    let (kept, unused) = (Arc::downgrade(&late), Arc::downgrade(&later));
    assert_eq!(world.tokens.reauthenticate(late), Ok(()));
    let before = world.upstream.calls();
    world.tokens.shutdown().await;
    assert_eq!(world.tokens.reauthenticate(later), Err(Stopped));
    settled().await;
    assert_eq!(world.tokens.status(), AuthStatus::Stopped(StopReason::ShutDown), "final");
    assert_eq!((kept.strong_count(), unused.strong_count()), (0, 0), "neither source is kept");
    assert_over(&world, StopReason::ShutDown, Vec::new()).await;
    assert_eq!(world.upstream.calls(), before);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_no_driver_will_take_is_not_kept_after_the_end() {
    let (world, _driver) = World::pair(|_| hour(), |_, _| Reaction::Take, |builder| builder);
    let late = Upstream::answering(|_| hour());
    let kept = Arc::downgrade(&late);
    world.tokens.reauthenticate(late).unwrap();
    assert_eq!(kept.strong_count(), 1);
    world.tokens.shutdown().await;
    assert_eq!(kept.strong_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn new_credentials_whose_source_panics_change_nothing() {
    let world = World::of(|_| hour());
    let first = world.tokens.token().await.unwrap();
    let broken = Upstream::answering(|_| hour());
    broken.trap();
    let tokens = world.tokens.clone();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tokens.reauthenticate(broken)));
    assert!(outcome.is_err(), "the panic is the caller's");
    assert_eq!(world.tokens.try_token().unwrap().generation(), first.generation());
    sleep(HOUR).await;
    assert_eq!(world.tokens.token().await.unwrap().secret(), "s3cret-2", "the monitor goes on");
}

#[tokio::test(start_paused = true)]
async fn new_credentials_given_twice_in_a_row_count_once_each_and_the_last_wins() {
    let world = World::of(|_| hour());
    world.tokens.token().await.unwrap();
    let (second, third) = (Upstream::answering(|_| hour()), Upstream::answering(|_| hour()));
    world.tokens.reauthenticate(Arc::clone(&second)).unwrap();
    world.tokens.reauthenticate(Arc::clone(&third)).unwrap();
    assert!(world.tokens.try_token().is_err(), "the old account's token is withdrawn at once");
    let token = world.tokens.token().await.unwrap();
    assert_eq!(token.generation().get(), 2);
    assert_eq!((world.upstream.calls(), second.calls(), third.calls()), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn new_credentials_that_come_while_the_driver_takes_others_are_announced_too() {
    // `can_refresh` is asked by the driver between taking the credentials and showing the new run.
    let world = World::of(|_| hour());
    world.tokens.token().await.unwrap();
    settled().await;
    let last = Upstream::answering(|_| Answer::Never);
    let meddler = Meddler::after(2, &last, world.tokens.downgrade());
    world.tokens.reauthenticate(meddler).unwrap();
    settled().await;
    assert_eq!(last.calls(), 1);
    assert_eq!(world.tokens.status(), AuthStatus::Pending);
    assert_eq!(world.sink.told(), [("pending", "running", true), ("running", "pending", false)]);
}

#[tokio::test(start_paused = true)]
async fn new_credentials_that_come_while_the_driver_announces_a_verdict_take_its_place() {
    let world = World::of(|_| hour());
    world.tokens.token().await.unwrap();
    settled().await;
    let last = Upstream::answering(|_| Answer::Never);
    world.tokens.reauthenticate(Meddler::after(u32::MAX, &last, world.tokens.downgrade())).unwrap();
    settled().await;
    assert_eq!((last.calls(), world.tokens.status()), (1, AuthStatus::Pending));
    let told = world.sink.told();
    assert_eq!(told, [("pending", "running", true), ("running", "pending", false)], "pending once, and no verdict");
}

#[tokio::test(start_paused = true)]
async fn a_source_may_use_the_handle_while_it_is_dropped_or_asked() {
    struct Nosy(WeakTokenSource);

    impl Nosy {
        fn look(&self) {
            if let Some(tokens) = self.0.upgrade() {
                // Needs the lock, and changes nothing.
                let _ = tokens.try_token().map(|token| tokens.accept(token.generation()));
                let _ = tokens.token().now_or_never();
                let _ = (tokens.status(), tokens.subscribe(), tokens.snapshot());
            }
        }
    }

    #[async_trait]
    impl TokenSource for Nosy {
        async fn issue(&self, _: &IssueRequest) -> Result<IssuedToken, BoxError> {
            self.look();
            Ok(IssuedToken::bearer("nosy"))
        }

        fn can_refresh(&self) -> bool {
            self.look();
            true
        }
    }

    impl Drop for Nosy {
        fn drop(&mut self) {
            self.look();
        }
    }

    let world = World::of(|_| hour());
    for _ in 0..3 {
        world.tokens.reauthenticate(Nosy(world.tokens.downgrade())).unwrap();
    }
    assert_eq!(world.tokens.token().await.unwrap().secret(), "nosy");
    world.tokens.reauthenticate(Nosy(world.tokens.downgrade())).unwrap();
    world.tokens.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_nudges_whenever_it_is_asked_starves_nobody() {
    struct Restless(WeakTokenSource);

    #[async_trait]
    impl TokenSource for Restless {
        async fn issue(&self, _: &IssueRequest) -> Result<IssuedToken, BoxError> {
            Ok(IssuedToken::bearer("restless"))
        }

        fn can_refresh(&self) -> bool {
            if let Some(tokens) = self.0.upgrade() {
                tokens.retry_now();
            }
            true
        }
    }

    let world = World::of(|_| hour());
    world.tokens.reauthenticate(Restless(world.tokens.downgrade())).unwrap();
    settled().await;
    assert_eq!(world.tokens.try_token().unwrap().secret(), "restless");
    world.tokens.shutdown().await;
    assert_eq!(world.upstream.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_source_and_a_sink_may_call_the_handle_they_serve() {
    struct Caller(Arc<Mutex<Option<MonitoredTokenSource>>>);

    #[async_trait]
    impl TokenSource for Caller {
        async fn issue(&self, _: &IssueRequest) -> Result<IssuedToken, BoxError> {
            let tokens = self.0.lock().unwrap().clone();
            if let Some(tokens) = tokens {
                use_everything(&tokens).await;
            }
            Ok(IssuedToken::bearer("s3cret").expires_in(HOUR))
        }
    }

    #[async_trait]
    impl StatusSink for Caller {
        async fn set_status(&self, event: &StatusEvent) -> Result<(), BoxError> {
            let tokens = self.0.lock().unwrap().clone();
            if let Some(tokens) = tokens {
                use_everything(&tokens).await;
                if event.sequence == 1 {
                    tokens.reauthenticate(Upstream::answering(|_| hour()))?;
                } else {
                    // Waits for the flush, of which this very call is a part; its own time limit ends that.
                    tokens.shutdown().await;
                }
            }
            Ok(())
        }
    }

    async fn use_everything(tokens: &MonitoredTokenSource) {
        let _ = timeout(secs(1), tokens.token()).await;
        if let Ok(token) = tokens.try_token() {
            let _ = tokens.reject(token.generation(), None);
            tokens.accept(token.generation());
        }
        tokens.retry_now();
        let _ = (tokens.status(), tokens.subscribe(), tokens.snapshot(), tokens.downgrade());
    }

    let place = Arc::default();
    let tokens =
        MonitoredTokenSource::builder(Caller(Arc::clone(&place))).sink(Caller(Arc::clone(&place))).spawn().unwrap();
    *place.lock().unwrap() = Some(tokens.clone());
    timeout(secs(120), tokens.stopped()).await.unwrap();
    timeout(secs(25), tokens.shutdown()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_source_that_waits_for_the_shutdown_it_holds_up_is_cut_off_by_its_time_limit() {
    let place: Arc<Mutex<Option<MonitoredTokenSource>>> = Arc::default();
    let inside = Arc::clone(&place);
    let source = move || {
        let tokens = inside.lock().unwrap().clone();
        async move {
            tokens.unwrap().shutdown().await;
            Ok(IssuedToken::bearer("s3cret"))
        }
    };
    let (tokens, driver) = MonitoredTokenSource::builder(source).pair().unwrap();
    *place.lock().unwrap() = Some(tokens.clone());
    timeout(RefreshPolicy::DEFAULT.attempt_timeout, driver).await.unwrap();
    assert_eq!(tokens.status(), AuthStatus::Stopped(StopReason::ShutDown));
}

#[tokio::test(start_paused = true)]
async fn a_sink_with_a_weak_handle_does_not_keep_the_monitor_alive() {
    let place: Arc<Mutex<Option<WeakTokenSource>>> = Arc::default();
    let inside = Arc::clone(&place);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seeing = Arc::clone(&seen);
    let sink = move |event: StatusEvent| {
        let alive = inside.lock().unwrap().as_ref().map(|weak| weak.upgrade().is_some());
        seeing.lock().unwrap().push((event.to, alive));
        async { Ok(()) }
    };
    let upstream = Upstream::answering(|_| hour());
    let tokens = MonitoredTokenSource::builder(Arc::clone(&upstream)).sink(sink).spawn().unwrap();
    *place.lock().unwrap() = Some(tokens.downgrade());
    settled().await;
    drop(tokens);
    settled().await;
    let stopped = AuthStatus::Stopped(StopReason::HandlesDropped);
    assert_eq!(*seen.lock().unwrap(), [(AuthStatus::Running, Some(true)), (stopped, Some(false))]);
    assert_eq!((Arc::strong_count(&seen), Arc::strong_count(&upstream)), (1, 1), "sink and source are gone");
}

#[tokio::test(start_paused = true)]
async fn a_sink_may_drop_the_last_handle() {
    let place: Arc<Mutex<Option<MonitoredTokenSource>>> = Arc::default();
    let inside = Arc::clone(&place);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let seeing = Arc::clone(&seen);
    let sink = move |event: StatusEvent| {
        seeing.lock().unwrap().push(event.to);
        drop(inside.lock().unwrap().take());
        async { Ok(()) }
    };
    *place.lock().unwrap() =
        Some(MonitoredTokenSource::builder(Upstream::answering(|_| hour())).sink(sink).spawn().unwrap());
    settled().await;
    assert_eq!(*seen.lock().unwrap(), [AuthStatus::Running, AuthStatus::Stopped(StopReason::HandlesDropped)]);
    assert_eq!(Arc::strong_count(&seen), 1);
}

#[tokio::test(start_paused = true)]
async fn subscribers_see_each_latest_status_and_latecomers_the_current_one() {
    let world = World::built(
        |call| match call {
            1 => hour(),
            2 => Answer::Broken,
            3 => Answer::Rejected("invalid_grant"),
            _ => panic!("asked once more"),
        },
        |_, _| Reaction::Take,
        |builder| builder.policy(impatient()),
    );
    let mut early = world.tokens.subscribe();
    assert_eq!(*early.borrow_and_update(), AuthStatus::Pending);
    for expected in ["running", "auth_retrying", "unauthenticated"] {
        timeout(2 * HOUR, early.changed()).await.unwrap().unwrap();
        assert_eq!(early.borrow_and_update().name(), expected);
        assert_eq!(world.tokens.subscribe().borrow().name(), expected);
    }
    world.tokens.reauthenticate(Upstream::answering(|_| Answer::Never)).unwrap();
    assert_eq!(early.borrow_and_update().name(), "pending", "in the caller, before the driver has a say");
    let _ = world.tokens.shutdown().now_or_never();
    assert!(early.has_changed().unwrap());
    let stopped = AuthStatus::Stopped(StopReason::ShutDown);
    assert_eq!((&*early.borrow_and_update(), &*world.tokens.subscribe().borrow()), (&stopped, &stopped));
    assert!(!early.has_changed().unwrap(), "nothing after the end");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_who_is_woken_finds_the_handle_no_older_than_the_news() {
    struct Look(MonitoredTokenSource, Mutex<Vec<AuthStatus>>);

    impl Wake for Look {
        fn wake(self: Arc<Self>) {
            let Self(tokens, seen) = &*self;
            seen.lock().unwrap().push(tokens.status());
        }
    }

    let world = World::of(|_| hour());
    let look = Arc::new(Look(world.tokens.clone(), Mutex::default()));
    let waker = Waker::from(Arc::clone(&look));
    let mut subscriber = world.tokens.subscribe();
    {
        let mut changed = std::pin::pin!(subscriber.changed());
        assert!(changed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        settled().await;
    }
    assert_eq!(*look.1.lock().unwrap(), [AuthStatus::Running]);
}

/// A source that hands in other credentials when it is asked whether it can refresh: by the driver, which is at work.
struct Meddler {
    /// How many questions go by before.
    patience: AtomicU32,
    other: Mutex<Option<Arc<Upstream>>>,
    tokens: WeakTokenSource,
}

impl Meddler {
    fn after(questions: u32, other: &Arc<Upstream>, tokens: WeakTokenSource) -> Self {
        Self { patience: AtomicU32::new(questions), other: Mutex::new(Some(Arc::clone(other))), tokens }
    }
}

#[async_trait]
impl TokenSource for Meddler {
    /// The verdict that the driver is about to announce at the next question.
    async fn issue(&self, _: &IssueRequest) -> Result<IssuedToken, BoxError> {
        self.patience.store(1, Ordering::SeqCst);
        Err(IssueError::rejected(OAuthCode::new("invalid_grant").unwrap(), "said no").into())
    }

    fn can_refresh(&self) -> bool {
        if self.patience.fetch_sub(1, Ordering::SeqCst) == 1 {
            let other = self.other.lock().unwrap().take().unwrap();
            self.tokens.upgrade().unwrap().reauthenticate(other).unwrap();
        }
        true
    }
}

/// Where a monitor can be when its end comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    Starting,
    Running,
    RunningAhead,
    ShortRetry,
    LongWindow,
    Probing,
    Unauthenticated,
}

const SCENES: [Scene; 7] = [
    Scene::Starting,
    Scene::Running,
    Scene::RunningAhead,
    Scene::ShortRetry,
    Scene::LongWindow,
    Scene::Probing,
    Scene::Unauthenticated,
];

impl Scene {
    async fn set(self) -> World {
        let world = match self {
            Self::Starting => World::of(|_| Answer::Never),
            Self::Running => World::of(|_| hour()),
            Self::RunningAhead => World::of(|call| if call == 1 { hour() } else { Answer::Never }),
            Self::ShortRetry => World::of(|_| Answer::Broken),
            Self::LongWindow | Self::Probing => World::built(
                move |call| if call == 1 || self == Self::LongWindow { Answer::Broken } else { Answer::Never },
                |_, _| Reaction::Take,
                |builder| builder.policy(impatient()),
            ),
            Self::Unauthenticated => World::of(|_| Answer::Rejected("invalid_grant")),
        };
        settled().await;
        if self == Self::RunningAhead || self == Self::Probing {
            // In steps, so that the time limit of the attempt does not pass unseen.
            while world.upstream.calls() < 2 {
                sleep(secs(1)).await;
            }
        }
        let expected = match self {
            Self::Starting | Self::ShortRetry => AuthStatus::Pending,
            Self::Running | Self::RunningAhead => AuthStatus::Running,
            Self::LongWindow | Self::Probing => AuthStatus::AuthRetrying(RetryCause::TokenEndpoint),
            Self::Unauthenticated => world.sink.last().to,
        };
        let snapshot = world.tokens.snapshot();
        assert_eq!((snapshot.status, snapshot.attempt_in_flight), (expected, self.is_attempting()));
        world
    }

    const fn is_attempting(self) -> bool {
        matches!(self, Self::Starting | Self::RunningAhead | Self::Probing)
    }

    /// Callers for a token newer than any, who wait wherever there is something to wait for.
    async fn waiting(self, world: &World) -> Vec<Answered> {
        let newest = world.tokens.snapshot().generation;
        let caller = || {
            let tokens = world.tokens.clone();
            tokio::spawn(async move {
                match newest {
                    Some(newest) => tokens.token_after(newest).await,
                    None => tokens.token().await,
                }
            })
        };
        let mut callers: Vec<_> = (0..20).map(|_| caller()).collect();
        settled().await;
        callers.retain(|caller| !caller.is_finished());
        let waits = matches!(self, Self::Starting | Self::RunningAhead | Self::ShortRetry);
        assert_eq!(callers.len(), if waits { 20 } else { 0 }, "{self:?}");
        callers
    }
}

type Answered = JoinHandle<Result<AccessToken, AuthError>>;

/// The end has come: who waits is answered now, nothing works any more, and nothing happens any more.
async fn assert_over(world: &World, reason: StopReason, callers: Vec<Answered>) {
    let now = world.age();
    settled().await;
    for caller in callers {
        let answer = caller.now_or_never().expect("a waiting caller is answered at once").unwrap();
        assert!(answer.is_err_and(|error| error.is_stopped()));
    }
    assert_refuses_everything(&world.tokens, reason);
    world.tokens.stopped().await;
    let attempt = RefreshPolicy::DEFAULT.attempt_timeout;
    world.tokens.shutdown().await;
    assert!(world.age() - now <= attempt);
    let (calls, events) = (world.upstream.calls(), world.sink.taken().len());
    demand_for_days(world).await;
    assert_eq!((world.upstream.calls(), world.sink.taken().len()), (calls, events), "nothing happens any more");
    assert_refuses_everything(&world.tokens, reason);
    let last = world.sink.last();
    assert_eq!((&last.to, last.serving), (&AuthStatus::Stopped(reason), false));
    assert_eq!(last.restart_helps, reason == StopReason::DriverPanicked);
    assert_eq!((last.next_attempt, last.remediation), (None, None));
    let ends = world.sink.taken().iter().filter(|event| matches!(event.to, AuthStatus::Stopped(_))).count();
    assert_eq!(ends, 1);
    assert_in_order(&world.sink.taken());
}

fn assert_refuses_everything(tokens: &MonitoredTokenSource, reason: StopReason) {
    let stopped = AuthStatus::Stopped(reason);
    let answers = [
        tokens.token().now_or_never().expect("at once"),
        tokens.try_token(),
        tokens.token_after(some_generation()).now_or_never().expect("at once"),
    ];
    for answer in answers {
        let error = answer.unwrap_err();
        assert!(error.is_stopped() && error.retry_after().is_none(), "{error:?}");
    }
    assert_eq!(tokens.reject(some_generation(), None), Rejection::PassThrough);
    tokens.accept(some_generation());
    tokens.retry_now();
    let late = Upstream::answering(|_| hour());
    assert_eq!(tokens.reauthenticate(Arc::clone(&late)), Err(Stopped));
    assert_eq!((late.calls(), Arc::strong_count(&late)), (0, 1));
    assert_eq!(tokens.status(), stopped);
    assert_eq!(*tokens.subscribe().borrow(), stopped);
    let snapshot = tokens.snapshot();
    assert_eq!((snapshot.status, snapshot.serving, snapshot.generation), (stopped, false, None));
    assert_eq!((snapshot.attempt_in_flight, snapshot.next_attempt_in, snapshot.expires_at), (false, None, None));
}

/// The first generation of any handle, from a handle of another monitor; made aside, for a runtime may run here already.
fn some_generation() -> Generation {
    static FIRST: LazyLock<Generation> = LazyLock::new(|| {
        let make = || {
            paused_runtime().block_on(async {
                let tokens =
                    MonitoredTokenSource::builder(|| async { Ok(IssuedToken::bearer("other")) }).spawn().unwrap();
                tokens.token().await.unwrap().generation()
            })
        };
        std::thread::spawn(make).join().unwrap()
    });
    *FIRST
}

async fn demand_for_days(world: &World) {
    for _ in 0..3 * 24 {
        let _ = world.tokens.token().await;
        sleep(HOUR).await;
    }
}

fn paused_runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

fn futures_block_on<T>(future: impl Future<Output = T>) -> T {
    Box::pin(future).now_or_never().expect("nothing to wait for outside a runtime")
}
