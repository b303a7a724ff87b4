//! One line for each change, and not one for each probe or each source.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use steadfast::{
    BoxError, IdentityProvider, RefreshPolicy, TokenRegistry,
    health::{Health, HealthTracker},
    provider::{ProviderPolicy, ProviderState},
    sink_fn,
};
use tokio::time::sleep;
use tracing::Level;

use crate::{
    ear::{Ear, Line},
    world::issued,
};

#[test]
fn a_hundred_and_fifty_probes_are_a_line_for_each_change_of_health() {
    let ear = Ear::of_this_thread();
    let (mut tracker, now) = (HealthTracker::new("github"), Instant::now());
    let probes = [Health::Healthy; 50].into_iter().chain([Health::Unhealthy; 50]).chain([Health::Healthy; 50]);
    for probe in probes {
        tracker.record(probe, now);
    }

    let lines = ear.lines();
    let told: Vec<_> = lines.iter().map(|line| (line.level, field(line, "from"), field(line, "to"))).collect();
    assert_eq!(
        told,
        [
            (Level::INFO, "unknown", "healthy"),
            (Level::WARN, "healthy", "unhealthy"),
            (Level::INFO, "unhealthy", "healthy"),
        ]
    );
    assert!(lines.iter().all(|line| field(line, "backend") == "github"));
    assert_eq!(field(&lines[1], "consecutive_failures"), "3");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_a_whole_fleet_is_a_line_when_it_begins_and_two_when_it_ends() {
    let ear = Ear::of_this_thread();
    let is_down = Arc::new(AtomicBool::new(true));
    let provider = IdentityProvider::new("login.example.com", ProviderPolicy::default()).unwrap();
    let (guard, down) = (provider.clone(), Arc::clone(&is_down));
    let registry = TokenRegistry::builder(move |_: u32| {
        let down = Arc::clone(&down);
        let source = guard.guard(move || {
            let answer = if down.load(Ordering::Relaxed) { Err("503".into()) } else { issued() };
            async { answer }
        });
        async { Ok::<_, BoxError>(source) }
    })
    .monitor(|_, builder| {
        let policy = RefreshPolicy { clock_check: HOUR, ..RefreshPolicy::default() };
        builder.policy(policy).sink(sink_fn(|_| async { Ok(()) }))
    })
    .capacity(10)
    .provider(&provider)
    .build()
    .unwrap();
    let mut held = Vec::new();
    for key in 0..100 {
        held.push(registry.get(&key).await.unwrap());
    }
    sleep(HOUR).await;
    assert_eq!(provider.snapshot().state, ProviderState::Down);
    is_down.store(false, Ordering::Relaxed);
    sleep(HOUR).await;

    let lines = ear.lines();
    let of = |target| lines.iter().filter(|line| line.target == target).collect::<Vec<&Line>>();
    let told: Vec<_> = of("steadfast::provider").iter().map(|line| (line.level, &*line.message)).collect();
    assert_eq!(
        told,
        [
            (Level::WARN, "the identity provider is down: one source at a time probes it"),
            (Level::INFO, "the identity provider answers again: its load comes back step by step"),
            (Level::INFO, "the identity provider has recovered"),
        ]
    );
    assert_eq!(field(of("steadfast::provider")[0], "provider"), "login.example.com");
    let told = of("steadfast::registry");
    assert_eq!(told.len(), 1, "beyond its capacity, and says so once: {told:#?}");
    assert_eq!((told[0].level, field(told[0], "capacity")), (Level::WARN, "10"));
}

fn field<'a>(line: &'a Line, name: &str) -> &'a str {
    line.fields[name].trim_matches('"')
}

const HOUR: Duration = Duration::from_secs(3600);
