//! The endpoint is down: each attempt fails after 50 ms, and 1,000 callers come within a second.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use steadfast::{IssuedToken, MonitoredTokenSource, RefreshPolicy};
use tokio::{runtime::Builder, time::sleep};

use crate::measure::Table;

pub(crate) fn measure(table: &mut Table) {
    let default = RefreshPolicy::DEFAULT;
    let impatient = RefreshPolicy { blip_wait: Duration::ZERO, ..default.clone() };
    for (name, policy, longest) in [
        ("outage, 1,000 callers in 1 s, `blip_wait` 0", impatient, ATTEMPT.mul_f64(1.2)),
        ("outage, 1,000 callers in 1 s, `blip_wait` 2 s, the default", default.clone(), default.blip_wait + ATTEMPT),
    ] {
        let Outage { calls, p50, p99 } = one(policy);
        let most = if name.ends_with('0') { "≤ 2 calls, p50 ≤ 1 µs, " } else { "" };
        table.row(
            name,
            &format!("{calls} calls, p50 {p50:.1?}, p99 {p99:.1?}"),
            "",
            "",
            &format!("{most}p99 ≤ {longest:?}"),
        );
    }
}

struct Outage {
    calls: usize,
    p50: Duration,
    p99: Duration,
}

fn one(policy: RefreshPolicy) -> Outage {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let source = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            async {
                sleep(ATTEMPT).await;
                Err::<IssuedToken, _>("down".into())
            }
        };
        let tokens = MonitoredTokenSource::builder(source).policy(policy).spawn().unwrap();
        let callers: Vec<_> = (0..1_000)
            .map(|nth| {
                let tokens = tokens.clone();
                tokio::spawn(async move {
                    sleep(Duration::from_millis(nth)).await;
                    let start = Instant::now();
                    assert!(tokens.token().await.is_err());
                    start.elapsed()
                })
            })
            .collect();
        let mut waits = Vec::new();
        for caller in callers {
            waits.push(caller.await.unwrap());
        }
        waits.sort();
        // Of the second in which they came: who waits through the default's pause sees another attempt or two later.
        Outage { calls: calls.load(Ordering::Relaxed), p50: waits[500], p99: waits[990] }
    })
}

const ATTEMPT: Duration = Duration::from_millis(50);
