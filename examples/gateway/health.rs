//! What the gateway says of itself: to an orchestrator, to a script, and (in [`page`](crate::page)) to a human.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use async_trait::async_trait;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::{Value, json};
use steadfast::{BoxError, MonitoredTokenSource, StatusEvent, StatusSink};

use crate::in_words::InWords;

/// The last transitions, for whoever looks later. A sink; clones share what they keep.
#[derive(Clone, Default)]
pub(crate) struct History(Arc<Mutex<VecDeque<StatusEvent>>>);

impl History {
    /// Newest first.
    pub(crate) fn newest_first(&self) -> Vec<StatusEvent> {
        self.events().iter().cloned().collect()
    }

    fn events(&self) -> MutexGuard<'_, VecDeque<StatusEvent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl StatusSink for History {
    async fn set_status(&self, event: &StatusEvent) -> Result<(), BoxError> {
        let mut events = self.events();
        events.push_front(event.clone());
        events.truncate(KEPT);
        Ok(())
    }
}

/// Liveness. It says that the process serves, and looks at nothing else: a restart cannot mint a token, and it would lose
/// the one that is held.
pub(crate) async fn healthz() -> Response {
    ([(header::CACHE_CONTROL, "no-store")], "ok\n").into_response()
}

/// Readiness: whether requests get a token. Not the status, for a token can outlive its grant.
pub(crate) fn readyz(tokens: &MonitoredTokenSource, history: &History) -> Response {
    let snapshot = tokens.snapshot();
    let words = InWords::of(&snapshot, &history.newest_first(), SystemTime::now());
    let code = if snapshot.serving { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, [(header::CACHE_CONTROL, "no-store")], format!("{words}\n")).into_response()
}

/// All there is to know, as one line of JSON. None of it is a secret.
pub(crate) fn status(tokens: &MonitoredTokenSource, history: &History) -> Response {
    let snapshot = tokens.snapshot();
    let history = history.newest_first();
    let body = json!({
        "in_words": InWords::of(&snapshot, &history, SystemTime::now()).to_string(),
        "snapshot": snapshot,
        "transitions": history.iter().map(transition).collect::<Vec<_>>(),
    });
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    // With the line break that a terminal wants.
    (headers, format!("{body}\n")).into_response()
}

fn transition(event: &StatusEvent) -> Value {
    json!({
        "sequence": event.sequence,
        "at": timestamp(event.at),
        "from": event.from.name(),
        "to": event.to.name(),
        "serving": event.serving,
        "reason": event.reason,
        "remediation": event.remediation,
    })
}

fn timestamp(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

const KEPT: usize = 20;
