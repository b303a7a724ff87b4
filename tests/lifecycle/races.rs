//! The end of a monitor against everything else that can happen in that moment.

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use futures_util::future::join_all;
use steadfast::{
    AuthStatus, Challenge, ForcedRefreshes, IssuedToken, MonitoredTokenSource, RefreshPolicy, StatusEvent, StopReason,
    WeakTokenSource,
};
use tokio::{
    sync::mpsc,
    task::yield_now,
    time::{sleep, timeout},
};

use crate::world::{Answer, HOUR, Reaction, Upstream, World, assert_in_order, forever, hour, impatient, secs, settled};

/// Virtual time, one thread: what runs between two waits is chosen by the seed.
#[tokio::test(start_paused = true)]
async fn after_the_final_status_there_is_none_whatever_happens_before() {
    for seed in 0..2_000 {
        let mut rng = Rng::with_seed(seed);
        let calls = Arc::new(AtomicU64::new(0));
        let answers = |seed| {
            let (rng, calls) = (Mutex::new(Rng::with_seed(seed)), Arc::clone(&calls));
            move |_| {
                calls.fetch_add(1, Ordering::SeqCst);
                any_answer(&mut rng.lock().unwrap())
            }
        };
        let moods = Mutex::new(Rng::with_seed(seed ^ 1));
        let world = World::built(
            answers(seed),
            move |_, event| match (event.to.name(), moods.lock().unwrap().u8(..8)) {
                ("stopped", _) => Reaction::Take,
                (_, 0) => Reaction::Refuse("no"),
                (_, 1) => Reaction::Panic,
                (_, 2) => Reaction::Slow(Duration::from_millis(700)),
                _ => Reaction::Take,
            },
            |builder| builder.policy(hasty()).jitter_seed(seed),
        );
        let mut subscriber = world.tokens.subscribe();
        for _ in 0..rng.u8(..10) {
            match rng.u8(..8) {
                0 => sleep(Duration::from_millis(rng.u64(..1_500))).await,
                1 => world.tokens.retry_now(),
                2 => world.tokens.reauthenticate(Upstream::answering(answers(rng.u64(..)))).unwrap(),
                3 => {
                    let _ = timeout(Duration::from_millis(rng.u64(..300)), world.tokens.token()).await;
                }
                4 => {
                    if let Ok(token) = world.tokens.try_token() {
                        let _ = world.tokens.reject(token.generation(), Some(&invalid_token()));
                    }
                }
                5 => {
                    if let Ok(token) = world.tokens.try_token() {
                        world.tokens.accept(token.generation());
                    }
                }
                _ => {
                    for _ in 0..rng.u8(..6) {
                        yield_now().await;
                    }
                }
            }
        }
        let World { tokens, sink, driver, .. } = world;
        let reason = match rng.u8(..3) {
            0 => {
                let late = tokens.reauthenticate(Upstream::answering(answers(rng.u64(..))));
                assert_eq!(late, Ok(()));
                tokens.shutdown().await;
                StopReason::ShutDown
            }
            1 => {
                driver.unwrap().abort();
                settled().await;
                StopReason::DriverDropped
            }
            _ => {
                drop(tokens);
                StopReason::HandlesDropped
            }
        };
        let stopped = AuthStatus::Stopped(reason);
        assert_eq!(*subscriber.borrow_and_update(), stopped, "{seed}");
        let before = calls.load(Ordering::SeqCst);
        sleep(HOUR).await;
        assert_eq!(calls.load(Ordering::SeqCst), before, "{seed}: an attempt after the end");
        let taken = sink.taken();
        assert_in_order(&taken);
        assert_eq!(taken.iter().filter(|event| !matches!(event.to, AuthStatus::Stopped(_))).count(), taken.len() - 1);
        assert_eq!(taken.last().unwrap().to, stopped, "{seed}");
        assert!(!subscriber.has_changed().unwrap_or(false), "{seed}");
    }
}

/// Real threads: the long window is entered and left while others shut down, log in and nudge.
#[test]
fn nothing_follows_the_final_status_ten_thousand_times() {
    runtime().block_on(async {
        for seed in 0..10_000 {
            let (sender, mut events) = mpsc::channel(64);
            let calls = Arc::new(AtomicU64::new(0));
            let tokens = MonitoredTokenSource::builder(at_once(seed, &calls))
                .policy(hasty())
                .sink(sender)
                .jitter_seed(seed)
                .spawn()
                .unwrap();
            let subscriber = tokens.subscribe();
            let (login, nudge) = (tokens.clone(), tokens.clone());
            let others = Arc::clone(&calls);
            let enters_and_leaves = tokio::spawn(async move {
                for turn in 0..4 {
                    if login.reauthenticate(at_once(seed / 3 + turn, &others)).is_err() {
                        break;
                    }
                    yield_now().await;
                }
            });
            let nudges = tokio::spawn(async move {
                for _ in 0..4 {
                    nudge.retry_now();
                    let _ = nudge.try_token();
                    yield_now().await;
                }
            });
            for _ in 0..seed % 13 {
                yield_now().await;
            }
            tokens.shutdown().await;
            let stopped = AuthStatus::Stopped(StopReason::ShutDown);
            assert_eq!((tokens.status(), &*subscriber.borrow()), (stopped.clone(), &stopped));
            let before = calls.load(Ordering::SeqCst);
            let mut taken = Vec::new();
            while let Ok(event) = events.try_recv() {
                taken.push(event);
            }
            assert_eq!(taken.last().map(|event: &StatusEvent| event.to.clone()), Some(stopped), "{seed}: flushed");
            assert_in_order(&taken);
            enters_and_leaves.await.unwrap();
            nudges.await.unwrap();
            assert!(tokens.token().await.unwrap_err().is_stopped());
            drop(tokens);
            assert!(events.recv().await.is_none(), "{seed}: nothing follows, and the sink is let go");
            assert_eq!(calls.load(Ordering::SeqCst), before, "{seed}: an attempt after the end");
        }
    });
}

#[tokio::test(start_paused = true)]
async fn the_result_of_an_old_account_never_reaches_the_new_one() {
    for seed in 0..1_000 {
        let mut rng = Rng::with_seed(seed);
        let delay = Duration::from_millis(rng.u64(..4));
        let old = if rng.bool() { hour() } else { Answer::Rejected("invalid_grant") };
        let world = World::of(move |_| old.clone().late(delay));
        sleep(Duration::from_millis(rng.u64(..4))).await;
        for _ in 0..rng.u8(..6) {
            yield_now().await;
        }
        let before = world.tokens.try_token().ok().map(|token| token.generation());
        let fresh = Upstream::answering(|_| Answer::Token(Some(HOUR)).late(Duration::from_millis(2)));
        world.tokens.reauthenticate(Arc::clone(&fresh)).unwrap();
        assert!(world.tokens.try_token().is_err(), "{seed}");
        let token = world.tokens.token().await.unwrap();
        assert_eq!(fresh.calls(), 1, "{seed}");
        assert!(Some(token.generation()) > before, "{seed}");
        sleep(secs(60)).await;
        assert_eq!(world.tokens.status(), AuthStatus::Running, "{seed}");
        assert_eq!(world.tokens.try_token().unwrap().generation(), token.generation(), "{seed}");
        assert_in_order(&world.sink.taken());
        assert_eq!(world.sink.last().to, AuthStatus::Running, "{seed}");
    }
}

#[test]
fn a_definitely_rejected_token_is_got_by_no_later_call() {
    let policy = Arc::new(RefreshPolicy {
        settle: Duration::ZERO,
        forced_refreshes: ForcedRefreshes { burst: 1_000, refill: secs(1) },
        ..RefreshPolicy::DEFAULT
    });
    runtime().block_on(async {
        for seed in 0..2_000_u64 {
            let tokens = MonitoredTokenSource::builder(Upstream::answering(|_| hour()))
                .policy(Arc::clone(&policy))
                .sink(|_: StatusEvent| async { Ok(()) })
                .spawn()
                .unwrap();
            let bad = tokens.token().await.unwrap().generation();
            let rejecting = (0..3).map(|_| {
                let tokens = tokens.clone();
                tokio::spawn(async move {
                    let _ = tokens.reject(bad, Some(&invalid_token()));
                    for _ in 0..20 {
                        assert!(tokens.try_token().map_or(true, |token| token.generation() > bad));
                        yield_now().await;
                    }
                })
            });
            let rejecting: Vec<_> = rejecting.collect();
            let others = tokens.clone();
            let others = tokio::spawn(async move {
                for turn in 0..10 {
                    others.retry_now();
                    if turn == seed % 20 {
                        others.reauthenticate(Upstream::answering(|_| hour())).unwrap();
                    }
                    yield_now().await;
                }
            });
            for done in join_all(rejecting).await {
                done.unwrap();
            }
            others.await.unwrap();
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_rejection_at_the_moment_of_a_refresh_hits_the_token_it_names() {
    for seed in 0..500 {
        let mut rng = Rng::with_seed(seed);
        let world = World::of(|call| {
            let lifetime = Answer::Token(Some(secs(100)));
            if call == 2 { lifetime.late(Duration::from_millis(3)) } else { lifetime }
        });
        let first = world.tokens.token().await.unwrap().generation();
        sleep(secs(5)).await;
        world.tokens.retry_now();
        settled().await;
        assert_eq!(world.upstream.calls(), 2);
        sleep(Duration::from_millis(rng.u64(..4))).await;
        for _ in 0..rng.u8(..5) {
            yield_now().await;
        }
        let _ = world.tokens.reject(first, Some(&invalid_token()));
        if rng.bool() {
            world.tokens.accept(first);
        }
        assert!(world.tokens.try_token().map_or(true, |token| token.generation() > first), "{seed}");
        let second = world.tokens.token_after(first).await.unwrap();
        assert_eq!(second.generation().get(), 2, "{seed}");
        sleep(secs(10)).await;
        assert_eq!(world.tokens.try_token().unwrap().generation(), second.generation(), "{seed}: untouched");
        assert_eq!(world.upstream.calls(), 2, "{seed}: the rejection joined the refresh");
    }
}

#[test]
fn handles_may_be_cloned_and_dropped_on_many_threads() {
    let runtime = runtime();
    for seed in 0..200 {
        let (sender, mut events) = mpsc::channel(8);
        let tokens = {
            let _inside = runtime.enter();
            MonitoredTokenSource::builder(Upstream::answering(|_| forever())).sink(sender).spawn().unwrap()
        };
        let weak = tokens.downgrade();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (mine, weak) = (tokens.clone(), &weak);
                scope.spawn(move || {
                    for turn in 0..50 {
                        let one_more = if turn % 2 == 0 { Some(mine.clone()) } else { weak.upgrade() };
                        assert!(!matches!(one_more.unwrap().status(), AuthStatus::Stopped(_)), "{seed} {thread}");
                    }
                });
            }
            drop(tokens.clone());
        });
        assert!(!matches!(tokens.status(), AuthStatus::Stopped(_)));
        std::thread::spawn(move || drop(tokens)).join().unwrap();
        assert!(weak.upgrade().is_none());
        let taken = runtime.block_on(async {
            let mut taken = Vec::new();
            while let Some(event) = events.recv().await {
                taken.push(event);
            }
            taken
        });
        assert_in_order(&taken);
        assert_eq!(taken.last().unwrap().to, AuthStatus::Stopped(StopReason::HandlesDropped));
    }
}

#[test]
fn a_sink_finds_the_handle_no_older_than_what_it_is_told() {
    runtime().block_on(async {
        for _ in 0..2_000 {
            let (sender, mut behind) = mpsc::channel(8);
            let place: Arc<OnceLock<WeakTokenSource>> = Arc::default();
            let inside = Arc::clone(&place);
            let sink = move |event: StatusEvent| {
                let seen = inside.get().unwrap().upgrade().map(|tokens| (tokens.status(), tokens.try_token().is_ok()));
                let sender = sender.clone();
                async move {
                    sender.send((event, seen)).await?;
                    Ok(())
                }
            };
            let (tokens, driver) =
                MonitoredTokenSource::builder(Upstream::answering(|_| forever())).sink(sink).pair().unwrap();
            assert!(place.set(tokens.downgrade()).is_ok());
            tokio::spawn(driver);
            let (event, seen) = behind.recv().await.unwrap();
            assert_eq!(event.to, AuthStatus::Running);
            assert_eq!(seen, Some((AuthStatus::Running, true)));
        }
    });
}

#[test]
fn nudges_without_end_hold_up_neither_a_token_nor_the_runtime() {
    // One thread runs the monitor and its caller; another nudges as fast as it can, until it gives up on them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let done = AtomicBool::new(false);
    let source = || async {
        yield_now().await;
        Ok(IssuedToken::bearer("s3cret"))
    };
    let (tokens, driver) = MonitoredTokenSource::builder(source).pair().unwrap();
    std::thread::scope(|scope| {
        let nudger = scope.spawn(|| {
            (0..MANY).all(|_| {
                tokens.retry_now();
                !done.load(Ordering::SeqCst)
            })
        });
        runtime.block_on(async {
            tokio::spawn(driver);
            tokens.token().await.unwrap();
        });
        done.store(true, Ordering::SeqCst);
        assert!(!nudger.join().unwrap(), "the token came only when the nudges had ended");
    });

    const MANY: u64 = 20_000_000;
}

fn any_answer(rng: &mut Rng) -> Answer {
    let answer = match rng.u8(..8) {
        0 => Answer::Token(Some(secs(10))),
        1 => hour(),
        2 => forever(),
        3 => Answer::Rejected("invalid_grant"),
        _ => Answer::Broken,
    };
    if rng.bool() { answer.late(Duration::from_millis(rng.u64(..50))) } else { answer }
}

/// Answers without waiting: with a token, a failure that opens the long window, or a permanent verdict.
fn at_once(seed: u64, calls: &Arc<AtomicU64>) -> Arc<Upstream> {
    let calls = Arc::clone(calls);
    Upstream::answering(move |_| {
        calls.fetch_add(1, Ordering::SeqCst);
        match seed % 4 {
            0 => Answer::Rejected("invalid_grant"),
            1 => hour(),
            _ => Answer::Broken,
        }
    })
}

fn hasty() -> RefreshPolicy {
    RefreshPolicy { auth_retrying_tick: secs(1), settle: Duration::ZERO, ..impatient() }
}

fn invalid_token() -> Challenge {
    r#"Bearer error="invalid_token""#.parse().unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
