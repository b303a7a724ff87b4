//! Nothing is held yet, a refresh takes 50 ms, and everybody comes at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use steadfast::{IssuedToken, MonitoredTokenSource};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    time::sleep,
};

use crate::measure::{Table, median};

pub(crate) fn measure(table: &mut Table) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for callers in [10_000, 100_000] {
        let rounds: Vec<_> = (0..9).map(|_| (by_watch(&runtime, callers), ours(&runtime, callers))).collect();
        let calls = rounds.iter().map(|(_, (_, calls))| *calls).max().unwrap();
        let milliseconds = |seconds: f64| format!("{:.0} ms", seconds * 1e3);
        table.row(
            &format!("{callers} callers at once, cold; {calls} upstream call (floor: a task and a `watch`)"),
            &milliseconds(median(rounds.iter().map(|(_, (ours, _))| *ours))),
            &milliseconds(median(rounds.iter().map(|(floor, _)| *floor))),
            &format!("{:.2}", median(rounds.iter().map(|(floor, (ours, _))| ours / floor))),
            "≤ 1.15",
        );
    }
}

/// How long until the last of them has a token, and how often the source was called.
fn ours(runtime: &Runtime, callers: usize) -> (f64, usize) {
    let calls = Arc::new(AtomicUsize::new(0));
    let _inside = runtime.enter();
    let counted = Arc::clone(&calls);
    let source = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        async {
            sleep(REFRESH).await;
            Ok(IssuedToken::bearer("x".repeat(1024)).expires_in(Duration::from_secs(3600)))
        }
    };
    let start = Instant::now();
    let tokens = MonitoredTokenSource::builder(source).spawn().unwrap();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let tokens = tokens.clone();
            runtime.spawn(async move { drop(tokens.token().await.unwrap()) })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
    });
    (start.elapsed().as_secs_f64(), calls.load(Ordering::Relaxed))
}

fn by_watch(runtime: &Runtime, callers: usize) -> f64 {
    let start = Instant::now();
    let (sender, receiver) = watch::channel(None);
    runtime.spawn(async move {
        sleep(REFRESH).await;
        sender.send_replace(Some(Arc::new("x".repeat(1024))));
    });
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let mut receiver = receiver.clone();
            runtime.spawn(async move { drop(receiver.wait_for(Option::is_some).await.map(|token| token.clone())) })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            task.await.unwrap();
        }
    });
    start.elapsed().as_secs_f64()
}

const REFRESH: Duration = Duration::from_millis(50);
