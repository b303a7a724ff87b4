//! What callers pay for every time, counted.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use steadfast::{AuthStatus, BoxError, IssuedToken, MonitoredTokenSource, RetryCause};
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn a_valid_token_costs_no_allocation_and_no_call() {
    // How a header value is kept depends on its length.
    for length in [1, 8, 9, 24, 25, 64, 1_000, 4_096] {
        let secret = "x".repeat(length);
        let issued = move |_| Ok(IssuedToken::bearer(secret.clone()).expires_in(Duration::from_secs(3600)));
        let (tokens, calls) = monitor(issued);
        tokens.token().await.unwrap();

        let allocations = allocations_of(|| {
            for _ in 0..1_000 {
                let waited = at_once(tokens.token()).unwrap();
                let tried = tokens.try_token().unwrap();
                let handle = tokens.clone();
                drop((waited.authorization(), tried.authorization(), tried.clone(), handle));
            }
        });
        assert_eq!(allocations, 0, "{length} bytes");
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_a_token_costs_no_allocation_to_hear_again() {
    let (tokens, _) = monitor(|call| Ok(IssuedToken::bearer(format!("token-{call}"))));
    let old = tokens.token().await.unwrap().generation();
    sleep(Duration::from_secs(3)).await;
    tokens.reject(old, None);
    sleep(Duration::from_secs(3)).await;
    let held = tokens.token().await.unwrap().generation();
    assert!(held > old);
    tokens.accept(held);

    let allocations = allocations_of(|| {
        for _ in 0..1_000 {
            tokens.accept(held);
            tokens.reject(old, None);
            at_once(tokens.token_after(old)).unwrap();
        }
    });
    assert_eq!(allocations, 0);
}

#[tokio::test(start_paused = true)]
async fn failing_fast_costs_no_allocation_and_no_call() {
    #[cfg(feature = "metrics")]
    let prometheus = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().unwrap();
    let (tokens, calls) = monitor(|_| Err("503".into()));
    let mut statuses = tokens.subscribe();
    let outage = AuthStatus::AuthRetrying(RetryCause::TokenEndpoint);
    statuses.wait_for(|status| *status == outage).await.unwrap();
    let before = calls.load(Ordering::Relaxed);

    let allocations = allocations_of(|| {
        for _ in 0..1_000 {
            let error = at_once(tokens.token()).unwrap_err();
            assert!(error.is_retrying() && error.retry_after().is_some());
            assert!(tokens.try_token().unwrap_err().is_retrying());
        }
    });
    assert_eq!(allocations, 0);
    #[cfg(feature = "metrics")]
    assert!(prometheus.render().contains(r#"steadfast_fast_fails{workload="default",error_type="retrying"} 2000"#));
    tokio::task::yield_now().await;
    assert_eq!(calls.load(Ordering::Relaxed), before);
}

#[tokio::test(start_paused = true)]
async fn a_demand_for_a_probe_costs_no_allocation_to_the_caller() {
    let (tokens, calls) = monitor(|_| Err("503".into()));
    let outage = AuthStatus::AuthRetrying(RetryCause::TokenEndpoint);
    tokens.subscribe().wait_for(|status| *status == outage).await.unwrap();
    let before = calls.load(Ordering::Relaxed);
    sleep(Duration::from_secs(60)).await;

    let allocations = allocations_of(|| {
        for _ in 0..1_000 {
            assert!(at_once(tokens.token()).unwrap_err().is_retrying());
        }
    });
    assert_eq!(allocations, 0);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(calls.load(Ordering::Relaxed), before + 1, "one probe for all of them");
}

#[tokio::test(start_paused = true)]
async fn an_ended_monitor_answers_without_an_allocation() {
    let (tokens, _) = monitor(|_| Ok(IssuedToken::bearer("s3cret")));
    tokens.shutdown().await;
    let allocations = allocations_of(|| {
        for _ in 0..1_000 {
            assert!(at_once(tokens.token()).unwrap_err().is_stopped());
        }
    });
    assert_eq!(allocations, 0);
}

/// A monitor, and how often its source was called.
fn monitor(
    answer: impl Fn(usize) -> Result<IssuedToken, BoxError> + Send + Sync + 'static,
) -> (MonitoredTokenSource, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let source = move || {
        let answer = answer(counted.fetch_add(1, Ordering::Relaxed));
        async { answer }
    };
    (MonitoredTokenSource::builder(source).jitter_seed(7).spawn().unwrap(), calls)
}

/// What a future comes to that must not wait; polled in place.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("not at once"),
    }
}

/// How often this thread allocates in `work`. Others may do as they like meanwhile.
fn allocations_of(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

// SAFETY: hands everything on to the system's allocator; the counter is a plain cell without a destructor, so counting
// neither allocates nor fails.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
