//! Clients of the gateway that do not know of tokens, and what became of their requests.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{StatusCode, header};
use reqwest::Client;
use tokio::task::JoinSet;

/// Clients that send a request every few milliseconds until they are dropped.
pub(crate) struct Clients {
    tally: Arc<Mutex<Tally>>,
    _tasks: JoinSet<()>,
}

/// What the clients got in one phase.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    pub(crate) ok: usize,
    pub(crate) unavailable: usize,
    /// Of those, how many were told when to come back.
    pub(crate) retry_after: usize,
    /// Anything else, and no answer at all: must never happen.
    pub(crate) other: usize,
    pub(crate) slowest: Duration,
}

impl Clients {
    pub(crate) fn start(count: usize, every: Duration, client: &Client, gateway: &str) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let (client, url, tally) = (client.clone(), format!("{gateway}/orders/{number}"), Arc::clone(&tally));
            tasks.spawn(async move {
                let mut pace = tokio::time::interval(every);
                loop {
                    pace.tick().await;
                    send(&client, &url, &tally).await;
                }
            });
        }
        Self { tally, _tasks: tasks }
    }

    /// What happened since the last call.
    pub(crate) fn take(&self) -> Tally {
        std::mem::take(&mut *self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn send(client: &Client, url: &str, tally: &Mutex<Tally>) {
    let sent = Instant::now();
    // Neither the client's own credentials nor what is meant for the gateway may go upstream.
    let request = client.get(url).bearer_auth(CLIENTS_OWN).header("connection", HOP).header(HOP, "gateway");
    let answer = request.send().await;
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    tally.slowest = tally.slowest.max(sent.elapsed());
    match answer.as_ref().map(|answer| (answer.status(), answer.headers().contains_key(header::RETRY_AFTER))) {
        Ok((StatusCode::OK, _)) => tally.ok += 1,
        Ok((StatusCode::SERVICE_UNAVAILABLE, told)) => {
            tally.unavailable += 1;
            tally.retry_after += usize::from(told);
        }
        Ok(_) | Err(_) => tally.other += 1,
    }
}

pub(crate) const CLIENTS_OWN: &str = "for-the-gateway-only";
pub(crate) const HOP: &str = "x-hop";
