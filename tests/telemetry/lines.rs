//! Each line of the table is written, and none that is not there.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use async_trait::async_trait;
use http::{Request, Response};
use secrecy::SecretString;
use steadfast::{
    Auth, AuthLayer, AuthStatus, BoxError, IdentityProvider, IssueReason, IssueRequest, IssuedToken, Lifetime,
    TokenRegistry, TokenSource,
    health::{Health, HealthTracker},
    layer::ReplayOnce,
    oauth::Exchanged,
    provider::ProviderPolicy,
    rotation::{Grant, SharedLogin},
    sink_fn,
    testing::TestClock,
};
use tokio::time::sleep;

use crate::{
    book::{self, Event},
    ear::{Ear, Line},
    shelf::{Shelf, Step, Trouble},
    world::{answers, fresh, issued, monitor, refused, rejected, secs},
};

#[tokio::test(start_paused = true)]
async fn each_line_of_the_table_is_written_as_it_stands_there_and_no_other() {
    let ear = Ear::of_this_thread();
    attempts_and_statuses().await;
    refusals().await;
    sinks().await;
    stores().await;
    providers().await;
    registries().await;
    healths();

    let (table, mut seen) = (book::events(), BTreeSet::new());
    for line in ear.lines() {
        let row = row(&table, &line).unwrap_or_else(|| panic!("not in the table: {line:?}"));
        assert!(table[row].fields.fit(&line.names()), "{:?} is not what the table says: {line:?}", line.names());
        seen.insert((row, line.level.to_string()));
    }
    for (row, event) in table.iter().enumerate() {
        for level in &event.levels {
            assert!(seen.contains(&(row, level.clone())), "{level} {}: {}", event.target, event.message);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_attempt_is_a_span_that_says_whose_it_is_and_how_it_ended() {
    let ear = Ear::of_this_thread();
    let shelf = Shelf::new();
    shelf.strike(Step::Commit, Trouble::Down);
    let login = SharedLogin::builder(shelf.clone(), shelf.clone()).account("alice").build();
    let tokens = monitor(login, "notes", |builder| builder);
    tokens.token().await.unwrap();
    shelf.mend();
    sleep(secs(60)).await;
    shelf.revoke();
    sleep(3600 * secs(1)).await;

    let lines = ear.lines();
    let of_the_store: Vec<_> = lines.iter().filter(|line| line.target == "steadfast::store").collect();
    assert!(of_the_store.len() > 3, "{lines:?}");
    for line in of_the_store {
        // Also of what is saved after the attempt has ended.
        let workloads: Vec<_> = line.spans.iter().map(|span| &*span.fields["workload"]).collect();
        assert_eq!(workloads, ["notes"], "{line:?}");
    }
    let spans = ear.spans();
    let (target, level, name, fields) = &book::spans()[0];
    for span in &spans {
        assert_eq!((&span.target, &span.level.to_string(), &span.name), (target, level, name));
        assert!(fields.fit(&span.fields.keys().cloned().collect()), "{span:?}");
    }
    let told = |nth: usize, field: &str| spans[nth].fields.get(field).cloned().unwrap_or_default();
    assert_eq!([told(0, "reason"), told(0, "outcome"), told(0, "generation")], ["initial", "success", "1"]);
    let last = spans.len() - 1;
    assert_eq!([told(last, "outcome"), told(last, "rule"), told(last, "generation")], ["rejected", "source", ""]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_numbered_since_the_last_token_and_tells_when_the_next_is_due() {
    let ear = Ear::of_this_thread();
    let tokens = monitor(answers([refused(), refused(), issued(), issued()]), "notes", |builder| builder);
    while tokens.token().await.is_err() {
        sleep(secs(1)).await;
    }
    sleep(secs(46 * 60)).await;
    let lines = ear.lines();
    let of = |message: &str, field: &str| -> Vec<String> {
        lines.iter().filter(|line| line.message == message).map(|line| line.fields[field].clone()).collect()
    };
    assert_eq!(of("an attempt starts", "attempt"), ["1", "2", "3", "1"]);
    assert_eq!(of("an attempt failed", "attempt"), ["1", "2"]);
    assert_eq!(of("a token was issued", "attempt"), ["3", "1"]);
    for next in of("an attempt failed", "next_attempt") {
        assert!((0.8..=2.4).contains(&next.parse::<f64>().unwrap()), "{next}");
    }
}

#[test]
fn each_line_names_one_of_the_targets() {
    let mut texts = Vec::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut texts);
    let (mut count, mut macros) = (0, ["error", "warn", "info", "debug", "trace", "event", "span"].map(str::to_owned));
    macros.sort();
    for (path, text) in texts {
        for (at, _) in text.match_indices("tracing::") {
            let rest = &text[at + "tracing::".len()..];
            let Some((name, arguments)) = rest.split_once("!(") else { continue };
            if !macros.iter().any(|known| name == known || name == format!("{known}_span")) {
                continue;
            }
            let target = arguments.trim_start().strip_prefix("target: ").unwrap_or_else(|| panic!("{path}: {name}!"));
            let target = target.split(',').next().unwrap();
            let targets = ["REFRESH", "STATUS", "LAYER", "STORE", "PROVIDER", "REGISTRY", "HEALTH"];
            assert!(targets.contains(&target), "{path}: {target}");
            count += 1;
        }
    }
    assert!(count > 25, "{count}");
}

#[test]
fn the_lines_that_are_shown_could_have_been_written() {
    let table = book::events();
    let mut count = 0;
    for line in book::shown().filter(|line| !line.starts_with("steadfast_")) {
        let (level, rest) = line.split_once(' ').unwrap();
        let (_, rest) = rest.split_at(rest.find("steadfast::").unwrap());
        let (target, rest) = rest.split_once(": ").unwrap();
        let fits = |event: &&Event| {
            event.target == target && event.levels.iter().any(|it| it == level) && rest.starts_with(&event.message)
        };
        // The longest: one message begins with another.
        let event = table.iter().filter(fits).max_by_key(|event| event.message.len());
        let event = event.unwrap_or_else(|| panic!("not in the table: {line}"));
        let fields = rest[event.message.len()..].split('"').step_by(2).flat_map(str::split_whitespace);
        for field in fields.filter_map(|word| word.split_once('=')) {
            assert!(event.fields.all.contains(field.0), "{} in {line}", field.0);
        }
        count += 1;
    }
    assert!(count >= 10, "{count}");
}

fn row(table: &[Event], line: &Line) -> Option<usize> {
    let level = line.level.to_string();
    let of = |event: &Event| event.target == line.target && event.message == line.message;
    table.iter().position(|event| of(event) && event.levels.contains(&level))
}

async fn attempts_and_statuses() {
    let odd = || Ok(IssuedToken::bearer("s3cret").expires_in(Lifetime::Malformed));
    let tokens = monitor(answers([refused(), issued(), odd(), odd(), rejected()]), "a", |builder| builder);
    sleep(secs(7200)).await;
    for _ in 0..2 {
        tokens.retry_now();
        sleep(secs(60)).await;
    }
    assert!(matches!(tokens.status(), AuthStatus::Unauthenticated(_)));
    tokens.shutdown().await;

    let down = monitor(answers([]), "b", |builder| builder);
    sleep(secs(1200)).await;
    assert!(matches!(down.status(), AuthStatus::AuthRetrying(_)));
}

async fn refusals() {
    let tokens = monitor(fresh(), "refused", |builder| builder);
    // Four are answered by a refresh, and then the budget is spent.
    for _ in 0..5 {
        sleep(secs(3)).await;
        let generation = tokens.token().await.unwrap().generation();
        tokens.accept(generation);
        sleep(secs(3)).await;
        tokens.reject(generation, None);
        sleep(secs(3)).await;
    }
    sleep(secs(3600)).await;
    let service = tower::service_fn(|_: Request<String>| async {
        Ok::<_, Infallible>(Response::builder().status(401).body(String::new()).unwrap())
    });
    let auth: Auth<_, ReplayOnce> =
        AuthLayer::new(tokens.clone(), "https://api.example.com").unwrap().replay_once().wrap(service);
    assert_eq!(auth.send(request()).await.unwrap().status(), 401);
    tokens.shutdown().await;
    assert!(auth.send(request()).await.is_err());
}

fn request() -> Request<String> {
    Request::get("https://api.example.com/").body(String::new()).unwrap()
}

async fn sinks() {
    let offers = AtomicUsize::new(0);
    let sink = sink_fn(move |_| {
        let taken = offers.fetch_add(1, Ordering::Relaxed) >= 3;
        async move { if taken { Ok(()) } else { Err("down".into()) } }
    });
    let tokens = monitor(|| async { issued() }, "deaf", |builder| builder.sink(sink));
    sleep(secs(60)).await;
    drop(tokens);
}

async fn stores() {
    let request = &IssueRequest::new(IssueReason::Initial);
    let login = |shelf: &Shelf| SharedLogin::builder(shelf.clone(), shelf.clone()).account("alice").build();
    let in_trouble = async |step, trouble| {
        let shelf = Shelf::new();
        let login = login(&shelf);
        login.issue(request).await.unwrap();
        shelf.strike(step, trouble);
        (login.issue(request).await, shelf, login)
    };

    assert!(in_trouble(Step::Lease, Trouble::Busy).await.0.is_err());
    assert!(in_trouble(Step::Lease, Trouble::Stale).await.0.is_ok(), "theirs");
    assert!(in_trouble(Step::Release, Trouble::Down).await.0.is_ok());

    // Twice unsaved; then saved.
    let (unsaved, shelf, one) = in_trouble(Step::Commit, Trouble::Down).await;
    assert!(unsaved.is_ok() && one.issue(request).await.is_ok());
    shelf.mend();
    sleep(secs(60)).await;
    // Given up for another login.
    let (_, shelf, _one) = in_trouble(Step::Commit, Trouble::Down).await;
    shelf.mend();
    shelf.now(Trouble::Stale);
    sleep(secs(60)).await;
    // Never saved.
    let (_, _shelf, one) = in_trouble(Step::Commit, Trouble::Down).await;
    drop(one);
    sleep(secs(3600)).await;

    let rejected = async |step, trouble| {
        let shelf = Shelf::new();
        let login = login(&shelf);
        login.issue(request).await.unwrap();
        shelf.revoke();
        shelf.strike(step, trouble);
        login.issue(request).await
    };
    assert!(rejected(Step::Exchange, Trouble::Stale).await.is_ok(), "theirs");
    assert!(rejected(Step::Commit, Trouble::Down).await.is_err());

    let shelf = Shelf::new();
    shelf.strike(Step::Exchange, Trouble::Hangs);
    let slow = login(&shelf);
    let attempt = tokio::spawn(async move { slow.issue(&IssueRequest::new(IssueReason::Ahead)).await.is_err() });
    sleep(secs(1)).await;
    shelf.strike(Step::Renew, Trouble::Down);
    assert!(attempt.await.unwrap());

    let shelf = Shelf::new();
    shelf.strike(Step::Lease, Trouble::Down);
    shelf.strike(Step::Load, Trouble::Down);
    assert!(SharedLogin::builder(Unspent, shelf).build().issue(request).await.is_ok());
}

/// A grant that spends nothing.
struct Unspent;

#[async_trait]
impl Grant for Unspent {
    fn issuer(&self) -> String {
        "https://login.example.com".to_owned()
    }

    fn client_id(&self) -> String {
        "batch".to_owned()
    }

    fn refresh_token(&self) -> Option<SecretString> {
        None
    }

    async fn exchange(&self, _: Option<&SecretString>, _: &IssueRequest) -> Exchanged {
        Exchanged { issued: Ok(IssuedToken::bearer("s3cret")), refresh_token: None }
    }
}

async fn providers() {
    let policy = ProviderPolicy { open_after: 1, max_in_flight: 1, jitter_seed: Some(1), ..ProviderPolicy::default() };
    let provider = IdentityProvider::new("login.example.com", policy).unwrap();
    let source = answers([refused(), issued(), issued()]);
    let tokens = monitor(provider.guard(source), "guarded", |builder| builder);
    sleep(secs(600)).await;
    tokens.retry_now();
    sleep(secs(60)).await;
    assert_eq!(tokens.status(), AuthStatus::Running);
}

async fn registries() {
    let source = || async { issued() };
    let registry = TokenRegistry::builder(move |_: u32| async move { Ok::<_, BoxError>(source) })
        .capacity(1)
        .monitor(|_, builder| builder.clock(&TestClock::new()))
        .build()
        .unwrap();
    let _held = (registry.get(&1).await.unwrap(), registry.get(&2).await.unwrap());
    sleep(secs(60)).await;
    registry.shutdown().await;
}

fn healths() {
    let mut tracker = HealthTracker::new("github").unhealthy_after(1);
    let now = Instant::now();
    for health in [Health::Healthy, Health::Unhealthy, Health::Healthy] {
        tracker.record(health, now);
    }
}

pub(crate) fn read(path: &Path, texts: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => read(&path, texts),
            false => texts.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap())),
        }
    }
}
