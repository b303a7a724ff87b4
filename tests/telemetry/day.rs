//! How many lines a day of trouble writes at `WARN` and above: the table of the documentation, to the line.

use std::{collections::BTreeMap, time::Duration};

use steadfast::{
    AuthStatus, BoxError, IdentityProvider, RefreshPolicy, TokenRegistry, provider::ProviderPolicy,
    rotation::SharedLogin, sink_fn, testing::TestClock,
};
use tokio::time::sleep;

use crate::{
    ear::Ear,
    shelf::{Shelf, Step, Trouble},
    world::{answers, fresh, issued, monitor, rejected, secs},
};

#[tokio::test(start_paused = true)]
async fn an_outage_is_two_warnings_however_often_callers_ask_and_one_error_at_the_ceiling() {
    let ear = Ear::of_this_thread();
    let tokens = monitor(answers([issued()]), "notes", |builder| builder);
    tokens.token().await.unwrap();
    for second in 0..24 * 3600 {
        // In the first two hours the token ends, and the long window begins.
        for _ in 0..if second < 2 * 3600 { 100 } else { 1 } {
            let _ = tokens.token().await;
        }
        sleep(secs(1)).await;
    }
    assert!(matches!(tokens.status(), AuthStatus::AuthRetrying(_)));
    assert_eq!(ear.alarms(), counts([(2, "WARN", STATUS)]));
    // The ceiling counts from the first of the two.
    sleep(2 * HOUR).await;
    assert_eq!(ear.alarms(), counts([(1, "ERROR", STATUS)]));
    sleep(DAY).await;
    assert_eq!(ear.alarms(), counts([]));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_never_had_a_token_says_so_at_its_first_failure() {
    let ear = Ear::of_this_thread();
    let tokens = monitor(answers([]), "notes", |builder| builder);
    sleep(secs(1)).await;
    assert_eq!(tokens.status(), AuthStatus::Pending);
    assert_eq!(ear.alarms(), counts([(1, "WARN", "steadfast::refresh")]));
    sleep(DAY - HOUR).await;
    assert!(matches!(tokens.status(), AuthStatus::AuthRetrying(_)));
    assert_eq!(ear.alarms(), counts([(1, "WARN", STATUS)]));
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_takes_nothing_is_eleven_warnings_whatever_else_happens() {
    let ear = Ear::of_this_thread();
    let deaf = sink_fn(|_| async { Err("down".into()) });
    let tokens = monitor(answers([issued()]), "notes", |builder| builder.sink(deaf));
    sleep(DAY).await;
    assert!(matches!(tokens.status(), AuthStatus::AuthRetrying(_)));
    assert_eq!(ear.alarms(), counts([(11, "WARN", STATUS)]));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_is_two_warnings() {
    let ear = Ear::of_this_thread();
    let (shelf, login) = login();
    let tokens = monitor(login, "notes", |builder| builder);
    tokens.token().await.unwrap();
    for step in [Step::Lease, Step::Load, Step::Renew, Step::Commit, Step::Release] {
        shelf.strike(step, Trouble::Down);
    }
    sleep(DAY).await;
    assert!(matches!(tokens.status(), AuthStatus::AuthRetrying(_)));
    assert_eq!(ear.alarms(), counts([(2, "WARN", STATUS)]));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_written_is_two_warnings() {
    let ear = Ear::of_this_thread();
    let (shelf, login) = login();
    let tokens = monitor(login, "notes", |builder| builder);
    shelf.strike(Step::Commit, Trouble::Down);
    sleep(DAY).await;
    assert!(shelf.sent().len() > 24, "it went on refreshing");
    assert_eq!(tokens.status(), AuthStatus::Running);
    assert_eq!(ear.alarms(), counts([(1, "WARN", STORE), (1, "WARN", STATUS)]));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_sources_of_one_provider_are_two_warnings_each_and_one_of_the_provider() {
    let ear = Ear::of_this_thread();
    let policy = ProviderPolicy { jitter_seed: Some(1), ..ProviderPolicy::default() };
    let provider = IdentityProvider::new("login.example.com", policy).unwrap();
    let guard = provider.clone();
    let clock = TestClock::new();
    let registry = TokenRegistry::builder(move |_: usize| {
        let source = guard.guard(answers([issued()]));
        async { Ok::<_, BoxError>(source) }
    })
    .monitor(move |_, builder| {
        builder.name("notes").clock(&clock).policy(RefreshPolicy { clock_check: HOUR, ..RefreshPolicy::DEFAULT })
    })
    .provider(&provider)
    .repeatable()
    .build()
    .unwrap();
    let mut handles = Vec::new();
    for key in 0..SOURCES {
        let tokens = registry.get(&key).await.unwrap();
        tokens.token().await.unwrap();
        handles.push(tokens);
    }
    ear.lines();
    // In an hour's pieces, so that the lines between need no room.
    let mut alarms = counts([]);
    for _ in 0..24 {
        sleep(HOUR).await;
        for (alarm, count) in ear.alarms() {
            *alarms.entry(alarm).or_default() += count;
        }
    }
    assert_eq!(alarms, counts([(2 * SOURCES, "WARN", STATUS), (1, "WARN", "steadfast::provider")]));
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_refuses_every_token_is_three_warnings() {
    let ear = Ear::of_this_thread();
    let tokens = monitor(fresh(), "notes", |builder| builder);
    let invalid = r#"Bearer error="invalid_token""#.parse().unwrap();
    for _ in 0..24 * 360 {
        if let Ok(token) = tokens.token().await {
            tokens.reject(token.generation(), Some(&invalid));
        }
        sleep(secs(10)).await;
    }
    assert!(matches!(tokens.status(), AuthStatus::AuthRetrying(_)));
    assert_eq!(ear.alarms(), counts([(3, "WARN", STATUS)]));
}

#[tokio::test(start_paused = true)]
async fn a_dead_login_is_two_errors() {
    let ear = Ear::of_this_thread();
    let tokens = monitor(answers([issued(), rejected()]), "notes", |builder| builder);
    sleep(DAY).await;
    assert!(matches!(tokens.status(), AuthStatus::Unauthenticated(_)));
    assert_eq!(ear.alarms(), counts([(2, "ERROR", STATUS)]));
}

fn login() -> (Shelf, SharedLogin) {
    let shelf = Shelf::new();
    let login = SharedLogin::builder(shelf.clone(), shelf.clone()).account("alice").build();
    (shelf, login)
}

fn counts<const N: usize>(of: [(usize, &str, &str); N]) -> BTreeMap<(String, String), usize> {
    of.into_iter().map(|(count, level, target)| ((level.to_owned(), target.to_owned()), count)).collect()
}

const STATUS: &str = "steadfast::status";
const STORE: &str = "steadfast::store";
const SOURCES: usize = 1_000;
const HOUR: Duration = secs(3600);
const DAY: Duration = secs(24 * 3600);
