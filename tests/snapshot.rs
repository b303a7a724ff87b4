//! A snapshot as one line, and as a document.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use serde_json::{Value, json};
use steadfast::{
    AuthStatus, BoxError, IssueError, IssuedToken, MonitoredTokenSource, OAuthCode, RetryCause, Snapshot, StopReason,
    UnauthenticatedReason, testing::TestClock,
};

#[test]
fn each_status_has_its_words_and_is_read_from_them_again() {
    let unauthenticated = AuthStatus::Unauthenticated;
    let code = OAuthCode::new("invalid_grant").unwrap();
    let day = Duration::from_secs(86_400);
    for (status, reason, more) in [
        (AuthStatus::Pending, None, json!({})),
        (AuthStatus::Running, None, json!({})),
        (AuthStatus::AuthRetrying(RetryCause::TokenEndpoint), Some("token_endpoint"), json!({})),
        (AuthStatus::AuthRetrying(RetryCause::RejectedByResource), Some("rejected_by_resource"), json!({})),
        (
            unauthenticated(UnauthenticatedReason::Rejected(code)),
            Some("rejected"),
            json!({ "oauth_error": "invalid_grant" }),
        ),
        (
            unauthenticated(UnauthenticatedReason::CeilingExceeded(day)),
            Some("ceiling_exceeded"),
            json!({ "ceiling_seconds": 86_400.0 }),
        ),
        (unauthenticated(UnauthenticatedReason::RejectedByResource), Some("rejected_by_resource"), json!({})),
        (unauthenticated(UnauthenticatedReason::Replaced), Some("replaced"), json!({})),
        (AuthStatus::Stopped(StopReason::ShutDown), Some("shut_down"), json!({})),
        (AuthStatus::Stopped(StopReason::HandlesDropped), Some("handles_dropped"), json!({})),
        (AuthStatus::Stopped(StopReason::Idle), Some("idle"), json!({})),
        (AuthStatus::Stopped(StopReason::DriverPanicked), Some("driver_panicked"), json!({})),
        (AuthStatus::Stopped(StopReason::DriverDropped), Some("driver_dropped"), json!({})),
    ] {
        let mut document = serving();
        document["status"] = json!(status.name());
        document["reason"] = json!(reason);
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let snapshot = read(&document).unwrap();
        assert_eq!(snapshot.status, status);
        assert_eq!(serde_json::to_value(&snapshot).unwrap(), document);
    }
}

#[test]
fn the_documentation_lists_every_field_and_no_other() {
    let page = include_str!("../src/status/snapshot.rs");
    let rows = page.lines().filter_map(|line| line.strip_prefix("/// | `")?.split('`').next());
    let mut listed: Vec<_> = rows.collect();
    listed.sort_unstable();
    let document = serving();
    let mut fields: Vec<_> = document.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(listed, fields);
}

#[test]
fn what_a_newer_version_adds_is_passed_over() {
    let mut document = serving();
    document["something_new"] = json!(1);
    assert_eq!(read(&document).unwrap(), read(&serving()).unwrap());
}

#[test]
fn what_is_no_snapshot_is_an_error_that_says_why() {
    for (field, value, why) in [
        ("version", json!(2), "version 2"),
        ("status", json!("fine"), "unknown variant `fine`"),
        ("reason", json!("idle"), "does not belong to this status"),
        ("generation", json!(0), "nonzero"),
        ("expires_at", json!("tomorrow"), "expires_at"),
        ("since", json!("long ago"), "since is no time"),
        ("next_attempt_in_seconds", json!(-1.0), "number of seconds"),
    ] {
        let mut document = serving();
        document[field] = value;
        let error = read(&document).unwrap_err();
        assert!(error.contains(why), "{field}: {error}");
    }
    for (reason, missing) in [("rejected", "oauth_error"), ("ceiling_exceeded", "ceiling_seconds")] {
        let mut document = serving();
        document["status"] = json!("unauthenticated");
        document["reason"] = json!(reason);
        assert!(read(&document).unwrap_err().contains(missing));
    }
}

#[tokio::test(start_paused = true)]
async fn a_handle_tells_all_that_a_status_page_needs() {
    let clock = TestClock::new();
    let began = clock.wall();
    let builder = MonitoredTokenSource::builder(an_hour_and_then_nothing()).name("github").clock(&clock).jitter_seed(7);
    let tokens = builder.spawn().unwrap();
    tokens.token().await.unwrap();
    let running = tokens.snapshot();
    assert_eq!(running.since, began);
    let written = serde_json::to_value(&running).unwrap();
    assert_eq!(written["version"], 1);
    assert_eq!(
        (&written["name"], &written["status"], &written["serving"]),
        (&json!("github"), &json!("running"), &json!(true))
    );
    assert_eq!(written["generation"], 1);
    assert!(written["next_attempt_in_seconds"].as_f64().unwrap() > 1_800.0);
    assert!(!written.to_string().contains("s3cret"));
    let read = read(&written).unwrap();
    assert_eq!((read.generation, &read.status), (running.generation, &running.status));

    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let retrying = serde_json::to_value(tokens.snapshot()).unwrap();
    assert_eq!(retrying["status"], "auth_retrying");
    assert_eq!(
        (&retrying["serving"], &retrying["generation"], &retrying["expires_at"]),
        (&json!(false), &Value::Null, &Value::Null)
    );
    let since = tokens.snapshot().since;
    assert!(since > began + Duration::from_secs(2_700) && since < clock.wall() - Duration::from_secs(60));
    assert!(retrying["last_failure"].as_str().unwrap().contains("the attempt to obtain a token failed"));
}

#[test]
fn one_line_says_what_is_wrong_and_what_is_to_be_done() {
    for (change, line) in [
        (json!({}), "github: running; since 2026-01-31T09:00:00Z; serving; next attempt in 40s; nothing to do"),
        (
            json!({ "attempt_in_flight": true }),
            "github: running; since 2026-01-31T09:00:00Z; serving; an attempt is under way; nothing to do",
        ),
        (
            json!({ "status": "auth_retrying", "reason": "token_endpoint", "serving": false }),
            "github: auth retrying: the token endpoint does not give tokens; since 2026-01-31T09:00:00Z; not serving; next attempt in 40s; nothing to do",
        ),
        (
            json!({ "status": "unauthenticated", "reason": "rejected", "oauth_error": "invalid_grant",
                "next_attempt_in_seconds": null, "remediation": "sign in again" }),
            "github: unauthenticated: the authorization server rejected the grant (invalid_grant); since 2026-01-31T09:00:00Z; serving; to do: sign in again",
        ),
        (
            json!({ "status": "unauthenticated", "reason": "ceiling_exceeded", "ceiling_seconds": 86_400.0, "serving": false,
                "next_attempt_in_seconds": null }),
            "github: unauthenticated: no token for longer than the ceiling of 1day; since 2026-01-31T09:00:00Z; not serving; \
             to do: give it new credentials, or nudge it",
        ),
        (
            json!({ "status": "stopped", "reason": "idle", "serving": false, "next_attempt_in_seconds": null }),
            "github: stopped: parked, for nobody was using it; since 2026-01-31T09:00:00Z; not serving; nothing to do: it begins anew when it is wanted",
        ),
        (
            json!({ "status": "stopped", "reason": "driver_panicked", "serving": false, "next_attempt_in_seconds": null }),
            "github: stopped: the monitor panicked; since 2026-01-31T09:00:00Z; not serving; to do: restart, and report it",
        ),
        (
            json!({ "status": "stopped", "reason": "shut_down", "serving": false, "next_attempt_in_seconds": null }),
            "github: stopped: shut down; since 2026-01-31T09:00:00Z; not serving; nothing to do: its host has ended it",
        ),
        (
            json!({ "unsaved": true }),
            "github: running; since 2026-01-31T09:00:00Z; serving; next attempt in 40s; a restart may lose the login; nothing to do",
        ),
    ] {
        let mut document = serving();
        document.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert_eq!(read(&document).unwrap().to_string(), line);
    }
}

fn serving() -> Value {
    json!({
        "version": 1,
        "name": "github",
        "status": "running",
        "reason": null,
        "oauth_error": null,
        "ceiling_seconds": null,
        "since": "2026-01-31T09:00:00Z",
        "serving": true,
        "generation": 7,
        "expires_at": "2026-01-31T12:00:00Z",
        "unsaved": false,
        "attempt_in_flight": false,
        "next_attempt_in_seconds": 39.5,
        "last_failure": null,
        "remediation": null,
    })
}

fn read(document: &Value) -> Result<Snapshot, String> {
    serde_json::from_value(document.clone()).map_err(|error| error.to_string())
}

fn an_hour_and_then_nothing() -> impl steadfast::TokenSource {
    let asked = std::sync::atomic::AtomicBool::new(false);
    steadfast::source_fn(move |_| {
        let first = !asked.swap(true, std::sync::atomic::Ordering::Relaxed);
        async move {
            let error = || BoxError::from(IssueError::transient("down"));
            if first { Ok(IssuedToken::bearer("s3cret").expires_in(Duration::from_secs(3600))) } else { Err(error()) }
        }
    })
}
