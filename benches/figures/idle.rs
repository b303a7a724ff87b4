//! A hundred thousand sources with nothing to do, and one source through a year.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use steadfast::{AccessToken, IssuedToken, MonitoredTokenSource, TokenSource};
use tokio::{runtime::Builder, time::sleep};

use crate::{counted::Counted, measure::Table};

pub(crate) fn measure(table: &mut Table) {
    hundred_thousand(table);
    year(table);
}

fn hundred_thousand(table: &mut Table) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let source: Arc<dyn TokenSource> =
            Arc::new(|| async { Ok(IssuedToken::bearer("s3cret").expires_in(Duration::from_secs(36_000))) });
        // Made before the counting starts, and dropped after it.
        let mut handles = Vec::with_capacity(SOURCES);
        let mut tokens: Vec<AccessToken> = Vec::with_capacity(SOURCES);
        let (counted, resident) = (Counted::start(), resident());
        for _ in 0..SOURCES {
            let tokens = MonitoredTokenSource::builder(Arc::clone(&source)).spawn().unwrap();
            tokens.token().await.unwrap();
            handles.push(tokens);
        }
        // Until the sinks have been told.
        sleep(Duration::from_secs(1)).await;
        let (heap, resident) = (counted.held(), self::resident().map(|now| now - resident.unwrap_or(now)));
        let before = cpu();
        sleep(IDLE).await;
        let spent = cpu().zip(before).map(|(after, before)| after - before);
        tokens.extend(handles.iter().map(|tokens| tokens.try_token().unwrap()));
        handles.clear();
        sleep(Duration::from_secs(2)).await;
        let token = counted.held() / SOURCES;

        let each = heap / SOURCES - token;
        table.row(
            "an idle source, its monitor included (the token apart)",
            &format!("{each} B (+ {token} B)"),
            "",
            "",
            "≤ 1000 B",
        );
        if let (Some(resident), Some(spent)) = (resident, spent) {
            table.row(
                "100,000 idle sources: resident, with allocator and tokens",
                &format!("{} MB", resident / 1_000_000),
                "",
                "",
                "",
            );
            let spent = spent.as_secs_f64() * 1e3 / IDLE.as_secs_f64();
            table.row("100,000 idle sources: CPU in a second", &format!("{spent:.1} ms"), "", "", "≤ 10 ms");
        }
    });
}

/// With a token of an hour, and a caller every minute.
fn year(table: &mut Table) {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let calls = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&calls);
        let source = move || {
            counting.fetch_add(1, Ordering::Relaxed);
            async { Ok(IssuedToken::bearer("s3cret").expires_in(Duration::from_secs(3600))) }
        };
        let start = Instant::now();
        let tokens = MonitoredTokenSource::builder(source).jitter_seed(1).spawn().unwrap();
        let pass = async |time: Duration| {
            for _ in 0..time.as_secs() / 60 {
                sleep(Duration::from_secs(60)).await;
                tokens.token().await.unwrap();
            }
        };
        pass(DAY).await;
        let counted = Counted::start();
        pass(DAY * 364).await;
        table.row(
            "one source through a year: heap it grew by",
            &format!(
                "{} B, {} refreshes, {:.1} s",
                counted.held(),
                calls.load(Ordering::Relaxed) - 1,
                start.elapsed().as_secs_f64()
            ),
            "",
            "",
            "0 B",
        );
    });
}

/// Bytes of memory that are really taken; where the platform says so.
fn resident() -> Option<usize> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split(' ').nth(1)?.parse::<usize>().ok()? * 4096)
}

/// Processor time spent so far; where the platform says so, in hundredths of a second.
fn cpu() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let ticks: u64 =
        stat.rsplit(')').next()?.split(' ').skip(12).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Some(Duration::from_millis(ticks * 10))
}

const SOURCES: usize = 100_000;
const IDLE: Duration = Duration::from_secs(35);
const DAY: Duration = Duration::from_secs(24 * 3600);
