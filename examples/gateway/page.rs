//! The status page: one self-contained document, without scripts, that reloads itself.

use std::time::{Duration, SystemTime};

use axum::response::{IntoResponse, Response};
use http::header;
use steadfast::{AuthStatus, MonitoredTokenSource, Snapshot, StatusEvent};

use crate::health::History;

pub(crate) fn page(tokens: &MonitoredTokenSource, history: &History) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, document(&tokens.snapshot(), &history.newest_first(), SystemTime::now())).into_response()
}

fn document(snapshot: &Snapshot, events: &[StatusEvent], now: SystemTime) -> String {
    let Snapshot { name, status, serving, .. } = snapshot;
    let (look, title) = (look(status, *serving), title(status));
    let (name, summary) = (escaped(name), escaped(summary(status, *serving)));
    let serving = if *serving { "Requests get a token." } else { "Requests get a 503." };
    let (advice, facts, transitions) = (advice(status, events), facts(snapshot, now), transitions(events, now));
    format!(
        r#"<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="refresh" content="2">
<title>{title} · {name}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
<main>
<h1>Gateway to {name}</h1>
<section class="state {look}">
<h2>{title}</h2>
<p>{summary}</p>
<p class="serving">{serving}</p>
</section>
{advice}<dl>{facts}</dl>
<h3>Last transitions</h3>
<ol>{transitions}</ol>
<footer><a href="/status">JSON</a> <a href="/readyz">readiness</a> <a href="/healthz">liveness</a></footer>
</main>
</html>
"#
    )
}

fn facts(snapshot: &Snapshot, now: SystemTime) -> String {
    let Snapshot { status, generation, expires_at, attempt_in_flight, next_attempt_in, last_failure, .. } = snapshot;
    let token = generation.map_or("none".to_owned(), |generation| format!("number {}", generation.get()));
    let expiry = match (generation, expires_at) {
        (Some(_), Some(end)) => format!("in {}", brief(end.duration_since(now).unwrap_or_default())),
        (Some(_), None) => "unknown".to_owned(),
        (None, _) => "–".to_owned(),
    };
    let next = match next_attempt_in {
        _ if *attempt_in_flight => "under way".to_owned(),
        Some(wait) => format!("in {}", brief(*wait)),
        None if status.is_live() => "when needed".to_owned(),
        None => "none".to_owned(),
    };
    let mut facts = fact("Token", &token) + &fact("Expires", &expiry) + &fact("Next attempt", &next);
    if let Some(failure) = last_failure {
        facts += &format!(r#"<div class="wide"><dt>Last failure</dt><dd>{}</dd></div>"#, escaped(failure));
    }
    facts
}

fn fact(name: &str, value: &str) -> String {
    format!("<div><dt>{name}</dt><dd>{}</dd></div>", escaped(value))
}

/// What a human can do. Said once in a run, so it is looked up among the events of this one.
fn advice(status: &AuthStatus, events: &[StatusEvent]) -> String {
    let this_run = events.iter().take_while(|event| event.to == *status);
    let advice = this_run.filter_map(|event| event.remediation.as_deref()).next();
    advice.map_or_else(String::new, |advice| {
        format!("<p class=\"advice\"><strong>What helps:</strong> {}</p>\n", escaped(advice))
    })
}

fn transitions(events: &[StatusEvent], now: SystemTime) -> String {
    if events.is_empty() {
        return "<li>None yet.</li>".to_owned();
    }
    let row = |event: &StatusEvent| {
        let change = match (title(&event.from), title(&event.to)) {
            (from, to) if from == to => format!("still {to}"),
            (from, to) => format!("{from} → {to}"),
        };
        let serving = if event.serving { "serving" } else { "not serving" };
        format!(
            r#"<li class="{}"><time datetime="{}">{} ago</time><strong>{change}</strong><span>{serving}</span><p>{}</p></li>"#,
            look(&event.to, event.serving),
            humantime::format_rfc3339_seconds(event.at),
            brief(now.duration_since(event.at).unwrap_or_default()),
            escaped(&event.reason),
        )
    };
    events.iter().map(row).collect()
}

const fn title(status: &AuthStatus) -> &'static str {
    match status {
        AuthStatus::Pending => "Pending",
        AuthStatus::Running => "Running",
        AuthStatus::AuthRetrying(_) => "Retrying",
        AuthStatus::Unauthenticated(_) => "Unauthenticated",
        AuthStatus::Stopped(_) => "Stopped",
        _ => "Unknown",
    }
}

/// A class of the style sheet.
const fn look(status: &AuthStatus, serving: bool) -> &'static str {
    match status {
        AuthStatus::Running if serving => "good",
        AuthStatus::Running | AuthStatus::AuthRetrying(_) => "uneasy",
        AuthStatus::Unauthenticated(_) => "bad",
        AuthStatus::Pending | AuthStatus::Stopped(_) | _ => "quiet",
    }
}

const fn summary(status: &AuthStatus, serving: bool) -> &'static str {
    match (status, serving) {
        (AuthStatus::Pending, _) => "The first token is on its way.",
        (AuthStatus::Running, true) => "All is well.",
        (AuthStatus::Running, false) => "The token has ended, and a new one is being fetched.",
        (AuthStatus::AuthRetrying(_), true) => "No new token can be had. The one that is held is still good.",
        (AuthStatus::AuthRetrying(_), false) => "No token can be had. Attempts go on; nobody has to do anything.",
        (AuthStatus::Unauthenticated(_), true) => "The login is dead. The token that is held is still good.",
        (AuthStatus::Unauthenticated(_), false) => "The login is dead, and so is the token.",
        (AuthStatus::Stopped(_), _) => "The monitor has ended.",
        (_, _) => "",
    }
}

/// The largest two units: nobody reads milliseconds off a page.
fn brief(span: Duration) -> String {
    match span.as_secs() {
        secs @ 0..60 => format!("{secs} s"),
        secs @ 60..3_600 => format!("{} min {} s", secs / 60, secs % 60),
        secs @ 3_600..86_400 => format!("{} h {} min", secs / 3_600, secs % 3_600 / 60),
        secs => format!("{} d {} h", secs / 86_400, secs % 86_400 / 3_600),
    }
}

/// Reasons are fit for a log line, not for HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = include_str!("page.css");
/// Whatever slipped through [`escaped`] could do nothing.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; frame-ancestors 'none'";
