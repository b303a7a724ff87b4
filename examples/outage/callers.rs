//! Steady callers, and what became of them.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use steadfast::MonitoredTokenSource;
use tokio::task::JoinSet;

/// Callers that ask for a token every few milliseconds until they are dropped.
pub(crate) struct Callers {
    tally: Arc<Mutex<Tally>>,
    _tasks: JoinSet<()>,
}

/// What became of the callers in one phase.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    /// Got a token at once.
    pub(crate) served: usize,
    /// Had to wait, whatever came of it.
    pub(crate) waited: usize,
    /// Got an error at once.
    pub(crate) failed_fast: usize,
    /// Got a token that had expired: must never happen.
    pub(crate) expired: usize,
    /// Got an error, at once or after a wait.
    pub(crate) failed: usize,
    pub(crate) took: Vec<Duration>,
}

impl Callers {
    pub(crate) fn start(count: u32, every: Duration, tokens: &MonitoredTokenSource) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let mut tasks = JoinSet::new();
        for caller in 0..count {
            let (tokens, tally) = (tokens.clone(), Arc::clone(&tally));
            tasks.spawn(async move {
                tokio::time::sleep(every * caller / count).await;
                let mut pace = tokio::time::interval(every);
                loop {
                    pace.tick().await;
                    ask(&tokens, &tally).await;
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

impl Tally {
    /// How long the given share of callers took at most.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        let rank = (took.len() as f64 * share) as usize;
        took.get(rank.min(took.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

async fn ask(tokens: &MonitoredTokenSource, tally: &Mutex<Tally>) {
    let asked = Instant::now();
    let mut waited = false;
    let answer = {
        let mut asking = pin!(tokens.token());
        poll_fn(|context| {
            let poll = asking.as_mut().poll(context);
            waited |= poll.is_pending();
            poll
        })
        .await
    };
    let took = asked.elapsed();
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    tally.took.push(took);
    tally.failed += usize::from(answer.is_err());
    match &answer {
        _ if waited => tally.waited += 1,
        Ok(_) => tally.served += 1,
        Err(_) => tally.failed_fast += 1,
    }
    let expired = answer.is_ok_and(|token| token.expires_at().is_some_and(|end| end < SystemTime::now()));
    tally.expired += usize::from(expired);
}
