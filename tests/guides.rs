//! What the guides say that can be checked: figures, measured in virtual time, and where to find them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]
#![allow(clippy::disallowed_methods, reason = "tests look at the virtual clock")]

use std::{
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use steadfast::{
    BoxError, IdentityProvider, IssuedToken, MonitoredTokenSource, RefreshPolicy, provider::ProviderPolicy,
    testing::TestClock,
};
use tokio::time::{Instant, sleep, timeout};

const GUIDE: &str = include_str!("../src/guide/policy.md");
const PAGES: [&str; 9] = [
    include_str!("../README.md"),
    include_str!("../src/guide/quick_start.md"),
    include_str!("../src/guide/token_source.md"),
    include_str!("../src/guide/shared_login.md"),
    include_str!("../src/guide/readiness.md"),
    include_str!("../src/guide/testing.md"),
    include_str!("../src/guide/frameworks.md"),
    include_str!("../src/guide/embedding.md"),
    include_str!("../src/telemetry.md"),
];

#[tokio::test(start_paused = true)]
async fn a_healthy_day_takes_the_calls_that_the_guide_lists() {
    for (name, lifetime) in [("| 5 min |", MINUTE * 5), ("| 1 h |", HOUR), ("| 24 h |", HOUR * 24)] {
        let (calls, tokens) = source(lifetime, RefreshPolicy::DEFAULT, u32::MAX);
        sleep(HOUR * 24).await;
        assert_eq!(listed(name), [calls.load(Ordering::Relaxed)], "{name}");
        drop(tokens);
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_of_less_than_six_seconds_are_renewed_on_demand() {
    assert!(GUIDE.contains("tokens of less than six seconds are renewed on demand"));
    for (lifetime, is_ahead) in [(5, false), (6, true)] {
        let (calls, tokens) = source(Duration::from_secs(lifetime), RefreshPolicy::DEFAULT, u32::MAX);
        let mut misses = 0;
        for _ in 0..6000 {
            misses += u32::from(tokens.try_token().is_err());
            let _ = tokens.token().await;
            sleep(Duration::from_millis(10)).await;
        }
        assert!(calls.load(Ordering::Relaxed) > 10);
        assert_eq!(misses == 1, is_ahead, "{lifetime} s: {misses} callers found none, the very first included");
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_token_outlasts_an_outage_for_as_long_as_the_guide_says() {
    for (lifetime, least, most) in
        [(MINUTE * 5, 140, 165), (HOUR, 15 * 60 - 20, 17 * 60), (HOUR * 24, 60 * 60 - 20, 67 * 60)]
    {
        let (calls, tokens) = source(lifetime, RefreshPolicy::DEFAULT, 1);
        called(&calls, 2).await;
        let began = Instant::now();
        while tokens.try_token().is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
        let took = began.elapsed().as_secs();
        assert!((least..most).contains(&took), "{lifetime:?}: {took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_the_calls_that_the_guide_lists() {
    let defaults = RefreshPolicy::DEFAULT;
    let seconds = Duration::from_secs;
    for (name, policy) in [
        ("| the defaults", defaults.clone()),
        ("| `auth_retrying_tick`", RefreshPolicy { auth_retrying_tick: MINUTE, ..defaults.clone() }),
        (
            "| `demand_probe_interval` of 5 s",
            RefreshPolicy { demand_probe_interval: Some(seconds(5)), ..defaults.clone() },
        ),
        ("| `demand_probe_interval` of `None`", RefreshPolicy { demand_probe_interval: None, ..defaults }),
    ] {
        let mut measured = Vec::new();
        for (outage, is_busy) in [(HOUR, false), (HOUR, true), (HOUR * 24, false), (HOUR * 24, true)] {
            measured.push(calls_in(outage, is_busy, policy.clone()).await);
        }
        assert_eq!(listed(name), measured, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_a_provider_of_many_sources_the_probes_that_the_guide_lists() {
    let policy = ProviderPolicy { jitter_seed: Some(1), ..ProviderPolicy::DEFAULT };
    let provider = IdentityProvider::new("login.example.com", policy).unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let fleet: Vec<_> = (0..1000)
        .map(|number| {
            let counted = Arc::clone(&calls);
            let source = move || {
                counted.fetch_add(1, Ordering::Relaxed);
                ready(Err::<IssuedToken, BoxError>("down".into()))
            };
            MonitoredTokenSource::builder(provider.guard(source)).jitter_seed(number).spawn().unwrap()
        })
        .collect();
    sleep(HOUR).await;
    println!("{}", calls.load(Ordering::Relaxed));
    assert_eq!(listed("| 1,000 under an `IdentityProvider`"), [calls.load(Ordering::Relaxed)]);
    drop(fleet);
}

#[test]
fn the_variables_of_the_go_original_are_read_and_have_the_defaults_that_the_guide_lists() {
    let guide = include_str!("../src/guide/migrating.md");
    let rows: Vec<_> = guide.lines().filter(|line| line.starts_with("| `TOOLHIVE_")).collect();
    assert_eq!(rows.len(), 6);
    for row in rows {
        let cells: Vec<_> = row.split('|').map(|cell| cell.trim().trim_matches(['`', '*'])).collect();
        let [_, variable, _, default, _] = cells[..] else { panic!("{row}") };
        let with = |value: &str| RefreshPolicy::from_vars("TOOLHIVE", |name| (name == variable).then(|| value.into()));
        assert_eq!(with(default), Ok(RefreshPolicy::DEFAULT), "{row}");
        assert!(with("soon").unwrap_err().to_string().contains(variable), "{row}");
    }
}

#[test]
fn every_guide_is_on_the_front_page_and_in_the_readme() {
    let (_, pages) = include_str!("../src/guide.rs").split_once("\npages! {\n").unwrap();
    let names: Vec<_> = pages.lines().filter_map(|line| line.trim().split([':', ' ']).next()).collect();
    let pages: Vec<_> = names.into_iter().filter(|name| !["", "}"].contains(name)).collect();
    assert_eq!(pages.len(), 11);
    for page in pages {
        assert!(include_str!("../src/lib.rs").contains(&format!("| [`guide::{page}`] |")), "{page}");
        assert!(include_str!("../README.md").contains(&format!("/latest/steadfast/guide/{page}/)")), "{page}");
    }
}

#[test]
fn the_versions_that_a_reader_copies_are_those_that_the_crate_is_built_with() {
    let (_, manifest) = include_str!("../Cargo.toml").split_once("\n[dependencies]\n").unwrap();
    let mut count = 0;
    for page in PAGES {
        let blocks = page.split("\n```toml\n").skip(1).map(|rest| rest.split_once("\n```").unwrap().0);
        for line in blocks.flat_map(str::lines).filter(|line| line.contains(" = \"")) {
            let name = line.split_once(" = ").unwrap().0;
            let ours = manifest.lines().filter(|line| !line.contains("path = ")).find_map(|line| version(line, name));
            let ours = if name == "steadfast" { Some(env!("CARGO_PKG_VERSION")) } else { ours };
            let wanted = version(line, name).unwrap();
            assert_eq!(compatible(wanted), compatible(ours.unwrap_or_else(|| panic!("no {name}"))), "{line}");
            count += 1;
        }
    }
    assert!(count > 30, "{count} lines");
}

/// In a line of a manifest.
fn version<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let value = line.strip_prefix(name)?.strip_prefix(" = ")?;
    value.split_once("version = ").map_or(value, |(_, rest)| rest).split('"').nth(1)
}

/// What has to be the same for two versions to go together.
fn compatible(version: &str) -> Vec<&str> {
    let parts = version.split('.');
    parts.take(if version.starts_with("0.") { 2 } else { 1 }).collect()
}

/// The figures in the row of the guide that begins so.
fn listed(name: &str) -> Vec<u32> {
    let row = GUIDE.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no row {name}"));
    row.split('|').filter_map(|cell| cell.trim().replace(',', "").parse().ok()).collect()
}

/// Calls during an outage that begins when a refresh is due.
async fn calls_in(outage: Duration, is_busy: bool, policy: RefreshPolicy) -> u32 {
    let (calls, tokens) = source(HOUR, policy, 1);
    called(&calls, 2).await;
    let end = Instant::now() + outage;
    while Instant::now() < end {
        if is_busy {
            let _ = timeout(Duration::from_secs(1), tokens.token()).await;
        }
        sleep(Duration::from_secs(1)).await;
    }
    calls.load(Ordering::Relaxed) - 1
}

async fn called(calls: &AtomicU32, times: u32) {
    while calls.load(Ordering::Relaxed) < times {
        sleep(Duration::from_millis(100)).await;
    }
}

/// A source that succeeds so many times, and the count of its calls.
fn source(lifetime: Duration, policy: RefreshPolicy, successes: u32) -> (Arc<AtomicU32>, MonitoredTokenSource) {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let source = move || {
        let is_up = counted.fetch_add(1, Ordering::Relaxed) < successes;
        let token = IssuedToken::bearer("s3cret").expires_in(lifetime);
        ready(is_up.then_some(token).ok_or_else(|| BoxError::from("down")))
    };
    let builder = MonitoredTokenSource::builder(source).policy(policy).jitter_seed(1);
    (calls, builder.clock(&TestClock::new()).spawn().unwrap())
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
