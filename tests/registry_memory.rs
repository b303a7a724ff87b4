//! What a registry costs, counted.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use steadfast::{
    AuthStatus, BoxError, IdentityProvider, IssueRequest, IssuedToken, MonitoredTokenSource, RefreshPolicy, StopReason,
    TokenRegistry, TokenSource, provider::ProviderPolicy, registry::Builder,
};
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn a_parked_source_costs_less_than_three_hundred_bytes() {
    let registry = registry().idle_after(secs(60)).build().unwrap();
    // What all share, and what grows by doubling.
    let before = HELD.get();
    for key in 0..SOURCES {
        registry.get(&key).await.unwrap().token().await.unwrap();
    }
    sleep(secs(600)).await;
    assert_eq!((registry.len(), registry.live()), (SOURCES as usize, 0));
    assert_eq!(registry.status_of(&7), Some(AuthStatus::Stopped(StopReason::Idle)));
    let each = (HELD.get() - before) / SOURCES as isize;
    println!("{each} bytes of heap for a parked source, {} of them the source's own", size_of::<Source>());
    assert!(each < 300, "{each} bytes");
}

#[tokio::test(start_paused = true)]
async fn a_live_source_costs_less_than_three_hundred_bytes_more_than_its_monitor() {
    // Whatever comes once.
    drop(MonitoredTokenSource::builder(Source::default()).policy(policy()).spawn().unwrap());
    let alone = {
        let mut handles = Vec::with_capacity(SOURCES as usize);
        let before = HELD.get();
        for _ in 0..SOURCES {
            let tokens = MonitoredTokenSource::builder(Source::default()).policy(policy()).spawn().unwrap();
            tokens.token().await.unwrap();
            handles.push(tokens);
        }
        sleep(secs(1)).await;
        (HELD.get() - before) / SOURCES as isize
    };
    // Until they have gone.
    sleep(secs(1)).await;
    let registry = registry().idle_after(Duration::MAX).build().unwrap();
    let before = HELD.get();
    for key in 0..SOURCES {
        registry.get(&key).await.unwrap().token().await.unwrap();
    }
    sleep(secs(1)).await;
    let together = (HELD.get() - before) / SOURCES as isize;
    println!("{alone} bytes of heap for a monitor, {together} in a registry");
    assert!(together < alone + 300, "{together} bytes instead of {alone}");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_there_costs_no_allocation_to_get() {
    let registry = registry().build().unwrap();
    for key in 0..100 {
        registry.get(&key).await.unwrap().token().await.unwrap();
    }
    let before = ALLOCATIONS.get();
    for round in 0..1_000 {
        let tokens = at_once(registry.get(&(round % 100))).unwrap();
        assert!(at_once(tokens.token()).is_ok());
        assert!(registry.get_if_present(&1_000).is_none());
        assert!(registry.status_of(&(round % 100)).is_some());
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
}

#[tokio::test(start_paused = true)]
async fn over_a_year_of_coming_and_going_nothing_grows() {
    let is_down = Arc::new(AtomicBool::new(false));
    let provider = IdentityProvider::new("idp", ProviderPolicy { jitter_seed: Some(1), ..Default::default() }).unwrap();
    let (down, guard) = (Arc::clone(&is_down), provider.clone());
    let registry = TokenRegistry::builder(move |_: u32| {
        let source = guard.guard(Source { is_down: Arc::clone(&down) });
        async { Ok::<_, BoxError>(source) }
    })
    .monitor(|_, builder| builder.policy(policy()).jitter_seed(1))
    .idle_after(secs(2 * 3600))
    .capacity(5)
    .provider(&provider)
    .repeatable()
    .build()
    .unwrap();
    let source = || provider.guard(Source { is_down: Arc::clone(&is_down) });
    let mut dice = fastrand::Rng::with_seed(1);
    let mut months = Vec::with_capacity(12);
    for _ in 0..12 {
        for half_day in 0..60 {
            is_down.store(half_day % 10 == 3, Ordering::Relaxed);
            for _ in 0..5 {
                let tokens = registry.get(&dice.u32(0..100)).await.unwrap();
                let _ = tokens.token().await;
                match dice.u32(0..8) {
                    0 => drop(registry.remove(&dice.u32(0..100)).await),
                    1 => registry.reauthenticate(&dice.u32(0..100), source()).await.unwrap(),
                    2 => tokens.shutdown().await,
                    _ => {}
                }
            }
            sleep(secs(3600)).await;
            is_down.store(false, Ordering::Relaxed);
            sleep(secs(11 * 3600)).await;
        }
        // The same keys at the end of each month, made in the same way, all of them parked.
        for key in 0..100 {
            registry.remove(&key).await;
            let _ = registry.get(&key).await.unwrap().token().await;
        }
        sleep(secs(5 * 3600)).await;
        assert_eq!((registry.len(), registry.live()), (100, 0));
        months.push(HELD.get());
    }
    println!("{months:?} bytes held at the end of each month");
    assert!(months.iter().all(|held| *held == months[0]), "{months:?}");
}

fn registry() -> Builder<u32> {
    TokenRegistry::builder(|_| async { Ok::<_, BoxError>(Source::default()) })
        .monitor(|_, builder| builder.policy(policy()))
}

fn policy() -> Arc<RefreshPolicy> {
    thread_local! {
        static POLICY: Arc<RefreshPolicy> =
            Arc::new(RefreshPolicy { clock_check: secs(3600), ..RefreshPolicy::default() });
    }
    POLICY.with(Arc::clone)
}

/// A source that cannot be made again: parked, not dropped.
#[derive(Default)]
struct Source {
    is_down: Arc<AtomicBool>,
}

#[async_trait]
impl TokenSource for Source {
    async fn issue(&self, _: &IssueRequest) -> Result<IssuedToken, BoxError> {
        match self.is_down.load(Ordering::Relaxed) {
            true => Err("503".into()),
            false => Ok(IssuedToken::bearer("s3cret").expires_in(secs(3600))),
        }
    }
}

/// What a future comes to that must not wait; polled in place.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("not at once"),
    }
}

const SOURCES: u32 = 10_000;

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

struct Counting;

// Each test has a thread of its own, and its runtime no other.
thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    HELD.set(HELD.get() + bytes);
    ALLOCATIONS.set(ALLOCATIONS.get() + usize::from(bytes > 0));
}

// SAFETY: hands everything on to the system's allocator; the counters are plain cells without a destructor, so counting
// neither allocates nor fails.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as promised by our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as promised by our caller.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
