//! What the real exporter writes, against the documentation, the dashboard and the alert rules.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

#[path = "telemetry/book.rs"]
#[allow(dead_code, reason = "the other half is for the log")]
mod book;
#[path = "../examples/observability/disk.rs"]
mod disk;
#[path = "../examples/observability/drill.rs"]
mod drill;
#[path = "telemetry/ear.rs"]
#[allow(dead_code, reason = "a kit: not every test uses every tool")]
mod ear;
#[path = "telemetry/world.rs"]
#[allow(dead_code, reason = "a kit: not every test uses every tool")]
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use steadfast::{
    BoxError, MonitoredTokenSource, TokenRegistry,
    testing::{TestClock, Value},
};
use tokio::time::sleep;
use tracing::Level;

use crate::{
    book::Metric,
    ear::{Ear, Line},
    world::{answers, fresh, issued, monitor, rejected, secs},
};

#[tokio::test(start_paused = true)]
async fn the_exporter_writes_each_metric_of_the_table_and_what_the_dashboard_and_the_alerts_read() {
    let (prometheus, ear) = (prometheus(), Ear::of_this_thread());
    let (mut phases, mut printed) = (BTreeMap::new(), String::new());
    let secrets = drill::run(|phase| {
        let name = phase.split(':').next().unwrap();
        let scrape = prometheus.render();
        phases.insert(name, Scrape::of(&scrape));
        printed += &scrape;
        Ok(())
    })
    .await
    .unwrap();
    let lines = ear.lines();
    printed += &format!("{lines:?} {:?}", ear.spans());
    assert!(secrets.len() > 5 && secrets.iter().all(|secret| !printed.contains(secret)));
    the_drill_can_be_told_from_the_log_alone(&lines);
    the_drill_can_be_told_from_the_metrics_alone(&phases);

    // What does not happen in the drill.
    let hangs = monitor(|| async { std::future::pending().await }, "hangs", |builder| builder);
    assert!(hangs.token().await.is_err());
    sources_that_are_parked().await;

    let scrape = Scrape::of(&prometheus.render());
    the_table_is_the_exporters(&scrape);
    the_expressions_are_about_what_is_there(&scrape);
}

#[tokio::test(start_paused = true)]
async fn sources_of_one_name_count_together_and_no_more_when_they_have_ended() {
    let prometheus = prometheus();
    let count = |status: &str, serving: &str| {
        let labels = [("workload", "shared"), ("status", status), ("serving", serving)];
        Scrape::of(&prometheus.render()).value("steadfast_sources", &labels).unwrap_or_default()
    };
    let well = [(); 3].map(|()| monitor(fresh(), "shared", |builder| builder));
    let ill = [(); 2].map(|()| monitor(answers([]), "shared", |builder| builder));
    let dead = monitor(answers([rejected()]), "shared", |builder| builder);
    assert_eq!(count("pending", "false"), 6.0);
    sleep(secs(600)).await;
    let all = || {
        [("pending", "false"), ("running", "true"), ("auth_retrying", "false"), ("unauthenticated", "false")]
            .map(|(status, serving)| count(status, serving))
    };
    assert_eq!(all(), [0.0, 3.0, 2.0, 1.0]);

    dead.reauthenticate(fresh()).unwrap();
    assert_eq!(all(), [1.0, 3.0, 2.0, 0.0]);
    sleep(secs(600)).await;
    assert_eq!(all(), [0.0, 4.0, 2.0, 0.0]);
    dead.shutdown().await;
    drop((well, ill, dead));
    // Its driver is never run.
    drop(MonitoredTokenSource::builder(fresh()).name("shared").pair().unwrap());
    assert_eq!(all(), [0.0; 4]);
    let stops = |reason| {
        let labels = [("workload", "shared"), ("reason", reason)];
        Scrape::of(&prometheus.render()).value("steadfast_stops_total", &labels)
    };
    assert_eq!((stops("shut_down"), stops("handles_dropped")), (Some(1.0), Some(6.0)));
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_a_waiter_until_the_wait_ends_or_is_given_up() {
    let prometheus = prometheus();
    let scrape = || Scrape::of(&prometheus.render());
    let waiters = || scrape().value("steadfast_waiters", &[("workload", "slow")]);
    let slow = || async {
        sleep(secs(5)).await;
        issued()
    };
    let tokens = monitor(slow, "slow", |builder| builder);
    let [patient, impatient] = [(); 2].map(|()| {
        let tokens = tokens.clone();
        tokio::spawn(async move { tokens.token().await.map(drop) })
    });
    sleep(secs(1)).await;
    assert_eq!(waiters(), Some(2.0));
    impatient.abort();
    sleep(secs(1)).await;
    assert_eq!(waiters(), Some(1.0));
    patient.await.unwrap().unwrap();
    assert_eq!(waiters(), Some(0.0));
    assert_eq!(scrape().sum("steadfast_failed_waits_total", &[("workload", "slow")]), 0.0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_caller_and_to_a_refusal_is_counted_once() {
    let prometheus = prometheus();
    let tokens = monitor(fresh(), "counted", |builder| builder);
    let first = tokens.token().await.unwrap().generation();
    let counted = |name: &str, label: &str, value: &str| {
        let scrape = Scrape::of(&prometheus.render());
        scrape.value(name, &[("workload", "counted"), (label, value)]).unwrap_or_default()
    };
    let rejected = |answer: &str| counted("steadfast_rejections_total", "answer", answer);
    tokens.reject(first, None);
    assert_eq!(rejected("settling"), 1.0);
    sleep(secs(3)).await;
    for _ in 0..5 {
        tokens.reject(first, None);
    }
    assert_eq!(rejected("refreshing"), 5.0);
    sleep(secs(3)).await;
    tokens.reject(first, None);
    assert_eq!(rejected("superseded"), 1.0);
    let scrape = Scrape::of(&prometheus.render());
    assert_eq!(scrape.value("steadfast_forced_refreshes_total", &[("workload", "counted")]), Some(1.0));
    let forced = [("workload", "counted"), ("reason", "rejected"), ("outcome", "success")];
    assert_eq!(scrape.value("steadfast_refreshes_total", &forced), Some(1.0));
    tokens.shutdown().await;
    for _ in 0..3 {
        tokens.token().await.unwrap_err();
    }
    tokens.try_token().unwrap_err();
    assert_eq!(counted("steadfast_fast_fails_total", "error_type", "stopped"), 4.0);
}

/// At `INFO`, as in production.
fn the_drill_can_be_told_from_the_log_alone(lines: &[Line]) {
    let of_status = lines.iter().filter(|line| line.message == "the status has changed");
    let told: Vec<_> =
        of_status.map(|line| format!("{} {} {}", line.level, line.fields["to"], line.fields["serving"])).collect();
    assert_eq!(
        told,
        [
            "INFO running true",
            "WARN auth_retrying true",
            "WARN auth_retrying false",
            "INFO running true",
            "WARN running true",
            "INFO running true",
            "ERROR unauthenticated true",
            "ERROR unauthenticated false",
            "INFO pending false",
            "INFO running true",
            "INFO stopped false",
        ]
    );
    let line = |to: &str, level| {
        let is = |line: &&Line| line.fields.get("to").is_some_and(|it| it == to) && line.level == level;
        lines.iter().find(is).unwrap()
    };
    assert!(line("auth_retrying", Level::WARN).fields["reason"].contains("[no-code, 403 from 127.0.0.1"));
    assert!(line("running", Level::WARN).fields["reason"].contains("a restart loses the login"));
    assert!(line("unauthenticated", Level::ERROR).fields["remediation"].contains("sign in again"));
}

fn the_drill_can_be_told_from_the_metrics_alone(phases: &BTreeMap<&str, Scrape>) {
    let of = |phase: &str| &phases[phase];
    let sources = |phase: &str, status: &str, serving: &str| {
        let labels = [("workload", "github"), ("status", status), ("serving", serving)];
        of(phase).value("steadfast_sources", &labels).unwrap_or_default()
    };
    let refreshes = |phase: &str, labels: &[(&str, &str)]| {
        of(phase).sum("steadfast_refreshes_total", &[&[("workload", "github")], labels].concat())
    };
    let fast_fails = |phase: &str| of(phase).sum("steadfast_fast_fails_total", &[("workload", "github")]);

    assert_eq!(sources("healthy", "running", "true"), 1.0);
    assert_eq!(fast_fails("refused"), 0.0);
    assert_eq!(refreshes("refused", &[("reason", "rejected"), ("outcome", "success")]), 1.0);

    // It is no verdict, and what answers is no authorization server: nothing to do here.
    assert_eq!(sources("outage", "auth_retrying", "false"), 1.0);
    assert!(refreshes("outage", &[("outcome", "transient"), ("error_type", "no-code")]) >= 3.0);
    assert!(fast_fails("outage") > 0.0);
    assert!(of("outage").sum("steadfast_sink_failures_total", &[("error_type", "error")]) > 0.0);

    assert_eq!(sources("recovery", "running", "true"), 1.0);
    assert_eq!(fast_fails("recovery"), fast_fails("outage"));

    assert_eq!(of("recovery").value("steadfast_unsaved", &[("workload", "github")]), Some(0.0));
    assert_eq!(of("unsaved").value("steadfast_unsaved", &[("workload", "github")]), Some(1.0));
    assert!(of("unsaved").sum("steadfast_store_errors_total", &[("error_type", "store-unavailable")]) > 0.0);

    assert_eq!(sources("revoked", "unauthenticated", "false"), 1.0);
    assert_eq!(of("revoked").value("steadfast_unsaved", &[("workload", "github")]), Some(0.0));
    assert_eq!(refreshes("revoked", &[("outcome", "rejected"), ("error_type", "rejected-code")]), 1.0);

    assert_eq!(sources("signed in again", "running", "true"), 1.0);
    let live: f64 = of("shut down").sum("steadfast_sources", &[("workload", "github")]);
    assert_eq!(live, 0.0);
}

async fn sources_that_are_parked() {
    let registry = TokenRegistry::builder(|_: u32| async { Ok::<_, BoxError>(fresh()) })
        .idle_after(secs(60))
        .monitor(|_, builder| builder.name("parked").clock(&TestClock::new()))
        .build()
        .unwrap();
    for key in 0..3 {
        registry.get(&key).await.unwrap().token().await.unwrap();
    }
    let seats = || {
        let scrape = Scrape::of(&prometheus().render());
        ["live", "parked"].map(|state| scrape.value("steadfast_registry_sources", &[("state", state)]))
    };
    assert_eq!(seats()[0], Some(3.0));
    sleep(secs(600)).await;
    assert_eq!(seats(), [Some(0.0), Some(3.0)]);
    registry.get(&1).await.unwrap().token().await.unwrap();
    assert_eq!(seats(), [Some(1.0), Some(2.0)]);
    registry.remove(&2).await;
    assert_eq!(seats(), [Some(1.0), Some(1.0)]);
    registry.shutdown().await;
    assert_eq!(seats(), [Some(0.0), Some(0.0)]);
}

fn the_table_is_the_exporters(scrape: &Scrape) {
    let table = book::metrics();
    let names: BTreeSet<_> = table.iter().map(exported).collect();
    let found: BTreeSet<_> = scrape.families.keys().filter(|name| name.starts_with("steadfast_")).cloned().collect();
    assert_eq!(names, found);
    for metric in &table {
        let family = &scrape.families[&exported(metric)];
        assert_eq!((&family.kind, &family.help), (&metric.kind, &metric.description), "{}", metric.name);
        for series in &family.series {
            let labels: BTreeSet<_> =
                series.labels.keys().filter(|label| *label != "le").map(|label| label.replace('_', ".")).collect();
            assert!(metric.labels.fit(&labels), "{}: {labels:?}", metric.name);
        }
    }
    for (label, metrics, values) in book::values() {
        let label = label.replace('.', "_");
        for metric in &table {
            let is_meant = metrics.is_empty() || metrics.contains(&metric.name);
            let family = &scrape.families[&exported(metric)];
            let found: BTreeSet<_> = family.series.iter().filter_map(|series| series.labels.get(&label)).collect();
            assert!(!is_meant || found.iter().all(|it| values.contains(*it)), "{}: {label}: {found:?}", metric.name);
        }
    }
    for line in book::shown().filter(|line| line.starts_with("steadfast_")) {
        let (series, value) = Series::of(line);
        let family = scrape.families.get(&series).unwrap_or_else(|| panic!("{line}"));
        let is_there = family.series.iter().any(|it| it.labels == value.labels);
        assert!(is_there, "{line}");
    }
}

fn the_expressions_are_about_what_is_there(scrape: &Scrape) {
    let mut used = BTreeSet::new();
    for (place, expression) in dashboards().into_iter().chain(alerts()) {
        let selectors = selectors(&expression);
        assert!(!selectors.is_empty(), "{place}: {expression}");
        let mut labels = BTreeSet::new();
        for Selector { name, matchers, is_rated } in selectors {
            let bucket = name.strip_suffix("_bucket");
            let family = scrape.families.get(bucket.unwrap_or(&name)).unwrap_or_else(|| panic!("{place}: {name}"));
            used.insert(bucket.unwrap_or(&name).to_owned());
            assert_eq!(bucket.is_some(), family.kind == "histogram", "{place}: {name}");
            let counts = family.kind == "counter" || bucket.is_some();
            // What stays up until the process ends is read as it is.
            assert!(is_rated == counts || name == "steadfast_stops_total", "{place}: {name}");
            let known: BTreeSet<_> = family.series.iter().flat_map(|series| series.labels.keys()).cloned().collect();
            for (label, value) in matchers {
                assert!(known.contains(&label), "{place}: {name} has no {label}");
                for value in value.split('|').filter(|value| !value.starts_with('$')) {
                    let (dotted, plain) = (label.replace('_', "."), value.to_owned());
                    let mut values = book::values().into_iter().filter(|row| row.0 == dotted);
                    let is_rule = label == "error_type" && value.starts_with("store-");
                    assert!(is_rule || values.any(|row| row.2.contains(&plain)), "{place}: {label} is never {value}");
                }
            }
            labels.extend(known);
        }
        for label in grouped(&expression) {
            assert!(labels.contains(&label), "{place}: {label} in {expression}");
        }
    }
    let all: BTreeSet<_> = book::metrics().iter().map(exported).collect();
    assert_eq!(used, all, "each metric is of use");
}

/// The expressions of the panels, each with the labels of its legend.
fn dashboards() -> Vec<(String, String)> {
    let dashboard: Value = include_str!("../examples/observability/dashboard.json").parse().unwrap();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 36);
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(panel["description"].as_str().unwrap().ends_with('.'), "{title}");
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let legend = target["legendFormat"].as_str().unwrap();
            for label in legend.split("{{").skip(1).map(|rest| rest.split_once("}}").unwrap().0) {
                assert!(grouped(expression).contains(label), "{title}: {label}");
            }
            found.push((title.to_owned(), expression.to_owned()));
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let workload = variables.iter().find(|variable| variable["name"] == "workload").unwrap();
    assert_eq!(workload["definition"], "label_values(steadfast_sources, workload)");
    found
}

/// The expressions of the rules, of which each says what has happened and what to do.
fn alerts() -> Vec<(String, String)> {
    let rules = include_str!("../examples/observability/alerts.yml").split("- alert: ").skip(1);
    rules
        .map(|rule| {
            let of = |key: &str| rule.lines().find_map(|line| line.trim().strip_prefix(&format!("{key}: ")));
            let name = rule.lines().next().unwrap();
            let expression = of("expr").unwrap_or_else(|| panic!("{name}"));
            assert!(matches!(of("severity"), Some("page" | "warning")), "{name}");
            for text in [of("summary"), of("description")] {
                let text = text.unwrap_or_else(|| panic!("{name}"));
                for label in text.split("{{ $labels.").skip(1).map(|rest| rest.split_once(" }}").unwrap().0) {
                    assert!(grouped(expression).contains(label), "{name}: {label}");
                }
            }
            (name.to_owned(), expression.to_owned())
        })
        .collect()
}

struct Selector {
    name: String,
    matchers: Vec<(String, String)>,
    is_rated: bool,
}

fn selectors(expression: &str) -> Vec<Selector> {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut found = Vec::new();
    for (at, _) in expression.match_indices("steadfast_") {
        let rest = &expression[at..];
        let length = rest.find(|character| !is_word(character)).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(length);
        let inside = rest.strip_prefix('{').map_or("", |rest| rest.split_once('}').unwrap().0);
        let matcher = |matcher: &str| {
            let (label, value) = matcher.split_once(['=', '!']).unwrap();
            (label.trim().to_owned(), value.trim_matches(['=', '~', '"']).to_owned())
        };
        let matchers = inside.split(',').filter(|matcher| !matcher.is_empty()).map(matcher).collect();
        let is_rated = ["rate(", "increase("].iter().any(|function| expression[..at].ends_with(function));
        found.push(Selector { name: name.to_owned(), matchers, is_rated });
    }
    found
}

/// The labels that an expression groups or joins by, but for the buckets'.
fn grouped(expression: &str) -> BTreeSet<String> {
    let lists = ["by (", "on ("].iter().flat_map(|word| expression.split(word).skip(1));
    let labels = lists.flat_map(|rest| rest.split_once(')').unwrap().0.split(','));
    labels.map(|label| label.trim().to_owned()).filter(|label| label != "le").collect()
}

/// The name that the exporter makes of it.
fn exported(metric: &Metric) -> String {
    let unit = if metric.unit == "seconds" { "_seconds" } else { "" };
    let total = if metric.kind == "counter" { "_total" } else { "" };
    format!("{}{unit}{total}", metric.name.replace('.', "_"))
}

/// One recorder for all tests of the process; they tell their metrics apart by the workload.
fn prometheus() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let install = || {
        let duration = Matcher::Full("steadfast.refresh.duration".to_owned());
        let builder = PrometheusBuilder::new().with_recommended_naming(true);
        builder.set_buckets_for_metric(duration, &[0.1, 1.0, 10.0]).unwrap().install_recorder().unwrap()
    };
    HANDLE.get_or_init(install).clone()
}

#[derive(Default)]
struct Scrape {
    families: BTreeMap<String, Family>,
}

#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    series: Vec<Series>,
}

struct Series {
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Scrape {
    fn of(text: &str) -> Self {
        let mut scrape = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# ") {
                let mut words = rest.splitn(3, ' ');
                let (what, name, text) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
                let family = scrape.families.entry(name.to_owned()).or_default();
                match what {
                    "TYPE" => text.clone_into(&mut family.kind),
                    "HELP" => text.clone_into(&mut family.help),
                    other => panic!("{other}"),
                }
                continue;
            }
            let (name, series) = Series::of(line);
            let of = |suffix| name.strip_suffix(suffix).filter(|name| scrape.families.contains_key(*name));
            let family = ["_bucket", "_sum", "_count"].into_iter().find_map(of).unwrap_or(&name).to_owned();
            scrape.families.get_mut(&family).unwrap_or_else(|| panic!("{line}")).series.push(series);
        }
        scrape
    }

    /// Of the series with these labels and no others.
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
        self.families.get(name)?.series.iter().find(|series| series.labels == labels).map(|series| series.value)
    }

    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let Some(family) = self.families.get(name) else { return 0.0 };
        let has = |series: &&Series| {
            labels.iter().all(|(label, value)| series.labels.get(*label).is_some_and(|it| it == value))
        };
        family.series.iter().filter(has).map(|series| series.value).sum()
    }
}

impl Series {
    fn of(line: &str) -> (String, Self) {
        let (key, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = key.split_once('{').unwrap_or((key, "}"));
        let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
        let label = |label: &str| {
            let (name, value) = label.split_once('=').unwrap();
            (name.to_owned(), value.trim_matches('"').to_owned())
        };
        (name.to_owned(), Self { labels: labels.map(label).collect(), value: value.parse().unwrap() })
    }
}
