//! What an idle monitored source costs.
#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use steadfast::{IssuedToken, MonitoredTokenSource, TokenSource};

#[tokio::test(start_paused = true)]
async fn an_idle_source_costs_a_thousand_bytes_and_its_token() {
    let source: Arc<dyn TokenSource> =
        Arc::new(|| async { Ok(IssuedToken::bearer("s3cret").expires_in(Duration::from_secs(3600))) });
    let (mut handles, mut held) = (Vec::with_capacity(SOURCES + 1), Vec::with_capacity(SOURCES));
    // The first one pays for what all of them share.
    add_idle(&source, &mut handles).await;
    let before = HELD.load(Ordering::SeqCst);
    for _ in 0..SOURCES {
        add_idle(&source, &mut handles).await;
    }
    let all = HELD.load(Ordering::SeqCst) - before;
    held.extend(handles.iter().skip(1).map(|tokens| tokens.try_token().unwrap()));
    for tokens in handles.drain(1..) {
        tokens.shutdown().await;
    }
    // Until the tasks that had the last word are gone.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let tokens = HELD.load(Ordering::SeqCst) - before;
    let each = (all - tokens) / SOURCES;
    println!("{each} bytes of heap for an idle source, its monitor included, and {} for its token", tokens / SOURCES);
    // What is counted without an allocation has its counters at hand.
    let counters = if cfg!(feature = "metrics") { 184 } else { 0 };
    assert!(each <= 1_000 + counters, "{each} bytes");
}

async fn add_idle(source: &Arc<dyn TokenSource>, handles: &mut Vec<MonitoredTokenSource>) {
    let tokens = MonitoredTokenSource::builder(Arc::clone(source)).spawn().unwrap();
    tokens.token().await.unwrap();
    // Until the sink has been told and its task is gone.
    tokio::time::sleep(Duration::from_millis(1)).await;
    handles.push(tokens);
}

const SOURCES: usize = 1_000;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as promised by our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as promised by our caller.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
