//! A valid token, on its way into a request.

use std::{
    future::Future,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use steadfast::{AuthStatus, IssuedToken, MonitoredTokenSource, RetryCause};
use tokio::runtime::{Builder, Runtime};

use crate::{
    at_once,
    measure::{Table, median},
};

pub(crate) fn measure(table: &mut Table) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let _inside = runtime.enter();
    let tokens = runtime.block_on(valid());
    let floor = Arc::new(Floor::new());

    table.compare(
        "`token()`, valid (floor: `load_full` + one clock read)",
        1.25,
        100_000,
        |times| (0..times).for_each(|_| drop(black_box(floor.token()))),
        |times| {
            at_once(async {
                for _ in 0..times {
                    drop(black_box(tokens.token().await));
                }
            });
        },
    );
    table.compare(
        "`try_token()`, valid (same floor)",
        1.25,
        100_000,
        |times| (0..times).for_each(|_| drop(black_box(floor.token()))),
        |times| (0..times).for_each(|_| drop(black_box(tokens.try_token()))),
    );
    table.compare(
        "ready header (floor: `load` + clock + clone of the value)",
        1.2,
        100_000,
        |times| (0..times).for_each(|_| drop(black_box(floor.header()))),
        |times| (0..times).for_each(|_| drop(black_box(tokens.try_token().map(|token| token.authorization())))),
    );
    for tasks in [2, 16] {
        throughput(table, &runtime, tasks, &floor, &tokens);
    }
    let failing = runtime.block_on(failing());
    table.absolute("`token()`, failing fast", "≤ 200 ns", 100_000, |times| {
        at_once(async {
            for _ in 0..times {
                drop(black_box(failing.token().await));
            }
        });
    });
}

/// Millions of calls a second by that many tasks on two threads.
fn throughput(table: &mut Table, runtime: &Runtime, tasks: u32, floor: &Arc<Floor>, tokens: &MonitoredTokenSource) {
    let each = 400_000 / tasks;
    let rounds: Vec<_> = (0..21)
        .map(|_| {
            let floor = run(runtime, tasks, || {
                let floor = Arc::clone(floor);
                async move { (0..each).for_each(|_| drop(black_box(floor.token()))) }
            });
            let ours = run(runtime, tasks, || {
                let tokens = tokens.clone();
                async move {
                    for _ in 0..each {
                        drop(black_box(tokens.token().await));
                    }
                }
            });
            (floor, ours)
        })
        .collect();
    let calls = f64::from(tasks * each) / 1e6;
    let mops = |time: f64| format!("{:.1} M/s", calls / time);
    table.row(
        &format!("`token()`, {tasks} tasks on 2 threads (floor: the same)"),
        &mops(median(rounds.iter().map(|round| round.1))),
        &mops(median(rounds.iter().map(|round| round.0))),
        &format!("{:.2}", median(rounds.iter().map(|(floor, ours)| floor / ours))),
        "≥ 0.8",
    );
}

fn run<F: Future<Output = ()> + Send + 'static>(runtime: &Runtime, tasks: u32, work: impl Fn() -> F) -> f64 {
    let start = Instant::now();
    let tasks: Vec<_> = (0..tasks).map(|_| runtime.spawn(work())).collect();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    start.elapsed().as_secs_f64()
}

async fn valid() -> MonitoredTokenSource {
    let source = || async { Ok(IssuedToken::bearer("x".repeat(1024)).expires_in(Duration::from_secs(36_000))) };
    let tokens = MonitoredTokenSource::builder(source).spawn().unwrap();
    tokens.token().await.unwrap();
    tokens
}

async fn failing() -> MonitoredTokenSource {
    let source = || async { Err::<IssuedToken, _>("down".into()) };
    let policy = steadfast::RefreshPolicy { max_tries: 1, ..steadfast::RefreshPolicy::DEFAULT };
    let tokens = MonitoredTokenSource::builder(source).policy(policy).spawn().unwrap();
    let outage = AuthStatus::AuthRetrying(RetryCause::TokenEndpoint);
    tokens.subscribe().wait_for(|status| *status == outage).await.unwrap();
    tokens
}

/// The least that a valid token can cost behind a lock-free pointer.
struct Floor(ArcSwap<Held>);

struct Held {
    header: HeaderValue,
    until: SystemTime,
}

impl Floor {
    fn new() -> Self {
        let header = HeaderValue::try_from(format!("Bearer {}", "x".repeat(1024))).unwrap();
        // The first clone moves the bytes behind a counter.
        drop(header.clone());
        let until = SystemTime::now() + Duration::from_secs(36_000);
        Self(ArcSwap::from_pointee(Held { header, until }))
    }

    fn token(&self) -> Option<Arc<Held>> {
        let held = self.0.load_full();
        (SystemTime::now() < held.until).then_some(held)
    }

    fn header(&self) -> Option<HeaderValue> {
        let held = self.0.load();
        (SystemTime::now() < held.until).then(|| held.header.clone())
    }
}
