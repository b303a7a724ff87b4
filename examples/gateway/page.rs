//! The status page: one self-contained document, without scripts, that reloads itself until it is told not to.

use std::time::{Duration, SystemTime};

use axum::response::{IntoResponse, Response};
use http::header;
use steadfast::{AuthStatus, MonitoredTokenSource, Snapshot, StatusEvent};

use crate::{
    health::History,
    in_words::{InWords, next, since},
    words::{Next, brief},
};

pub(crate) fn page(tokens: &MonitoredTokenSource, history: &History, query: Option<&str>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    let paused = query == Some("paused");
    (headers, document(&tokens.snapshot(), &history.newest_first(), SystemTime::now(), paused)).into_response()
}

fn document(snapshot: &Snapshot, events: &[StatusEvent], now: SystemTime, paused: bool) -> String {
    let Snapshot { name, status, serving, .. } = snapshot;
    let (look, title, name) = (look(status, *serving), title(status), escaped(name));
    let words = InWords::of(snapshot, events, now);
    let (state, need) = (kept_together(&words.state()), kept_together(&words.need));
    let serving = if *serving { "serving" } else { "not serving" };
    let (facts, transitions) = (facts(snapshot, events, now), transitions(events, now));
    // Whoever reads slowly, or has it read out, can keep it still (WCAG 2.2.2).
    let (reload, pace, other) = if paused {
        ("", "kept still", r#"<a href="/">follow</a>"#)
    } else {
        (r#"<meta http-equiv="refresh" content="2">"#, "every 2&nbsp;s", r#"<a href="/?paused">keep still</a>"#)
    };
    let at = clock(now);
    format!(
        r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
{reload}
<title>{title}, {serving} · {name}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<main>
<section class="state {look}" role="status">
<p class="glance"><strong>{title}</strong>, <span>{serving}</span></p>
<h1>{state}; <em>{need}</em></h1>
</section>
<dl>{facts}</dl>
<h2>Last transitions</h2>
<ol>{transitions}</ol>
</main>
<footer>
<p>As of {at}, {pace}</p>
<nav>{other} <a href="/status">status as JSON</a> <a href="/readyz">readiness</a> <a href="/healthz">liveness</a></nav>
</footer>
</body>
</html>
"#
    )
}

fn facts(snapshot: &Snapshot, events: &[StatusEvent], now: SystemTime) -> String {
    let Snapshot { status, generation, expires_at, last_failure, .. } = snapshot;
    let attempt = match next(snapshot) {
        Next::UnderWay => "under way".to_owned(),
        Next::In(wait) => format!("in {}", brief(wait)),
        Next::WhenNeeded if status.is_live() => "when needed".to_owned(),
        Next::WhenNeeded => "none".to_owned(),
    };
    let mut facts = match (generation, expires_at) {
        (Some(generation), Some(end)) => {
            fact("Token", &format!("number {}", generation.get()))
                + &fact("Expires", &format!("in {}", brief(whole(end.duration_since(now)))))
        }
        (Some(generation), None) => {
            fact("Token", &format!("number {}", generation.get())) + &fact("Expires", "nobody knows when")
        }
        (None, _) => fact("Token", "none"),
    };
    facts += &fact("Next attempt", &attempt);
    if let Some(at) = since(status, events) {
        facts += &fact("In this state for", &brief(whole(now.duration_since(at))));
    }
    if let Some(failure) = last_failure {
        facts += &format!(r#"<div class="wide"><dt>Last failure</dt><dd>{}</dd></div>"#, escaped(failure));
    }
    facts
}

fn fact(name: &str, value: &str) -> String {
    format!("<div><dt>{name}</dt><dd>{}</dd></div>", kept_together(value))
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
            r#"<li class="{}"><strong>{change}</strong><span>{serving}</span><time datetime="{}">{} ago, {}</time><p>{}</p></li>"#,
            look(&event.to, event.serving),
            humantime::format_rfc3339_seconds(event.at),
            brief(whole(now.duration_since(event.at))),
            clock(event.at),
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
        AuthStatus::Unauthenticated(_) | AuthStatus::Stopped(_) => "bad",
        AuthStatus::Pending | _ => "quiet",
    }
}

/// The time of day: what a log beside it can be searched for.
fn clock(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string().replace('T', " ").replace('Z', " UTC")
}

fn whole(span: Result<Duration, std::time::SystemTimeError>) -> Duration {
    Duration::from_secs(span.unwrap_or_default().as_secs())
}

/// Reasons are fit for a log line, not for HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// Escaped, and without a line break between a number and its unit.
fn kept_together(text: &str) -> String {
    let mut after_digit = false;
    let glued = text.chars().map(|letter| {
        let glue = after_digit && letter == ' ';
        after_digit = letter.is_ascii_digit();
        if glue { '\u{a0}' } else { letter }
    });
    escaped(&glued.collect::<String>())
}

const STYLE: &str = include_str!("page.css");
/// Whatever slipped through [`escaped`] could do nothing.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; frame-ancestors 'none'";

#[cfg(test)]
mod tests;
