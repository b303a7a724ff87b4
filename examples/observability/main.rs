//! An outage drill with a log on stdout and, after each phase, what Prometheus would scrape; a few seconds over real HTTP.
//!
//! ```sh
//! cargo run --features metrics --example observability
//! RUST_LOG=info cargo run --features metrics --example observability   # as in production
//! ```
//!
//! `dashboard.json` (Grafana) and `alerts.yml` (Prometheus), beside this file, read these metrics.
#![allow(clippy::print_stdout, reason = "printing is what this program is for")]

mod disk;
mod drill;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use steadfast::BoxError;
use tracing_subscriber::{EnvFilter, fmt::time::Uptime};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("steadfast=debug"));
    tracing_subscriber::fmt().with_env_filter(filter).with_timer(Uptime::default()).with_ansi(false).init();

    // Before the first source is made. With the recommended naming, which the dashboard and the alerts expect, counters end in
    // `_total`, and units are part of the names.
    let prometheus = PrometheusBuilder::new()
        .with_recommended_naming(true)
        .set_buckets_for_metric(Matcher::Full("steadfast.refresh.duration".to_owned()), &BUCKETS)?
        .install_recorder()?;
    let mut seen = String::new();
    drill::run(|phase| {
        println!("\n--- {phase}\n");
        let scrape = prometheus.render();
        changed(&seen, &scrape).for_each(|line| println!("{line}"));
        println!();
        seen = scrape;
        Ok(())
    })
    .await
    .map(drop)
}

/// What differs from the scrape before, in the order of names.
fn changed<'a>(before: &'a str, now: &'a str) -> impl Iterator<Item = &'a str> {
    let mut lines: Vec<_> = now.lines().filter(|line| !before.lines().any(|old| old == *line)).collect();
    // The buckets say at length what sum and count say in brief.
    lines.retain(|line| !line.starts_with('#') && !line.is_empty() && !line.contains("_bucket{"));
    lines.sort_unstable();
    lines.into_iter()
}

/// From a quick answer to the time limit of an attempt, in seconds.
const BUCKETS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0];
