//! Ordered delivery to the sink: one event at a time, the newest wins, and nothing the sink does reaches a token.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use tracing::Level;

use crate::{
    AuthStatus, BoxError, StatusEvent, StatusSink,
    schedule::Doubling,
    sync::{Handle, Mutex, MutexGuard, Notify, spawn, timeout},
    telemetry::{self, STATUS, is_worth_a_warning, seconds},
};

/// What is to be delivered, and to whom.
pub(crate) struct Delivery {
    sink: Arc<dyn StatusSink>,
    slot: Mutex<Slot>,
}

/// Who has something to deliver; kept alive by the task that does.
pub(crate) trait Delivers: Send + Sync + 'static {
    fn delivery(&self) -> &Delivery;

    /// Wakes whoever waits for newer news, or until there is nothing left to deliver.
    fn turned(&self) -> &Notify;
}

struct Slot {
    // Boxed: almost always there is none.
    next: Option<Box<StatusEvent>>,
    sequence: u64,
    /// What was posted last, as far as a change of it is news.
    status: AuthStatus,
    serving: bool,
    unsaved: bool,
    at_work: bool,
}

impl Delivery {
    pub(crate) fn to(sink: Arc<dyn StatusSink>) -> Self {
        let status = AuthStatus::Pending;
        let slot = Slot { next: None, sequence: 0, status, serving: false, unsaved: false, at_work: false };
        Self { sink, slot: Mutex::new(slot) }
    }

    /// Keeps news, or what would be news if it were not known already, for whoever is at work or will
    /// [go](Self::go_to_work).
    pub(crate) fn post(&self, mut event: StatusEvent) {
        let mut slot = self.slot();
        if slot.status == event.to && slot.serving == event.serving && slot.unsaved == event.unsaved {
            return;
        }
        (slot.serving, slot.unsaved) = (event.serving, event.unsaved);
        event.from = std::mem::replace(&mut slot.status, event.to.clone());
        slot.sequence = slot.sequence.saturating_add(1);
        event.sequence = slot.sequence;
        // The newest wins.
        if let Some(older) = slot.next.take() {
            event.supersede(&older);
        }
        slot.next = Some(Box::new(event));
    }

    /// Delivers what is left, if nobody is at it.
    pub(crate) fn go_to_work(owner: &Arc<impl Delivers>, runtime: &Handle) {
        let mut slot = owner.delivery().slot();
        if slot.at_work || slot.next.is_none() {
            return;
        }
        slot.at_work = true;
        drop(slot);
        runtime.spawn(AtWork { owner: Arc::clone(owner), done: false }.deliver());
    }

    /// Whether something handed in is yet to be delivered or given up.
    pub(crate) fn is_at_work(&self) -> bool {
        self.slot().at_work
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StatusEvent {
    /// Takes the place of one that nobody has heard. Advice goes along, for it is given only once.
    fn supersede(&mut self, unheard: &Self) {
        self.from.clone_from(&unheard.from);
        if self.remediation.is_none() && self.to == unheard.to {
            self.remediation.clone_from(&unheard.remediation);
        }
    }
}

/// The one task that talks to the sink. Exists only while there is something to say.
struct AtWork<O: Delivers> {
    owner: Arc<O>,
    done: bool,
}

impl<O: Delivers> AtWork<O> {
    async fn deliver(mut self) {
        // Of all news, for a sink that takes nothing must not fill the log, however much happens.
        let mut refusals = 0;
        while let Some(event) = self.take() {
            let event = Arc::<StatusEvent>::from(event);
            let taken = self.offer(Arc::clone(&event), &mut refusals).await;
            if !taken && let Some(newer) = &mut self.owner.delivery().slot().next {
                newer.supersede(&event);
            }
        }
    }

    fn take(&mut self) -> Option<Box<StatusEvent>> {
        let mut slot = self.owner.delivery().slot();
        let event = slot.next.take();
        if event.is_none() {
            // Under the lock that found nothing left, so that no news can slip in between.
            slot.at_work = false;
            self.done = true;
        }
        event
    }

    /// Offers an event until the sink takes it, newer news replaces it, or, for the last event there will be, three
    /// offers have failed.
    async fn offer(&self, event: Arc<StatusEvent>, refusals: &mut u32) -> bool {
        let last_words = matches!(event.to, AuthStatus::Stopped(_));
        let waits = Doubling::new(FIRST_WAIT, LONGEST_WAIT).take(if last_words { 2 } else { usize::MAX });
        for wait in waits.map(Some).chain([None]) {
            let Err(error) = self.tell(Arc::clone(&event)).await else {
                if std::mem::take(refusals) > 0 {
                    let (workload, sequence) = (&*event.name, event.sequence);
                    tracing::info!(target: STATUS, workload, sequence, "the status sink takes events again");
                }
                return true;
            };
            *refusals = refusals.saturating_add(1);
            told_in_vain(&event, &error, *refusals, wait);
            let Some(wait) = wait else { break };
            if self.superseded_within(wait).await {
                break;
            }
        }
        false
    }

    /// One call of the sink, in a task of its own: its panic ends there, and its time is up after [`CALL_LIMIT`].
    async fn tell(&self, event: Arc<StatusEvent>) -> Result<(), SinkFailure> {
        let sink = Arc::clone(&self.owner.delivery().sink);
        let mut call = spawn(async move { sink.set_status(&event).await });
        match timeout(CALL_LIMIT, &mut call).await {
            Ok(Ok(taken)) => taken.map_err(SinkFailure::Refused),
            Ok(Err(_)) => Err(SinkFailure::Panicked),
            Err(_) => {
                call.abort();
                // A call that is running on another thread ends at its next wait. Only then may the next one begin.
                let _ = call.await;
                Err(SinkFailure::TimedOut)
            }
        }
    }

    async fn superseded_within(&self, wait: Duration) -> bool {
        let newer = async {
            loop {
                let turned = self.owner.turned().notified();
                if self.owner.delivery().slot().next.is_some() {
                    return;
                }
                turned.await;
            }
        };
        timeout(wait, newer).await.is_ok()
    }
}

impl<O: Delivers> Drop for AtWork<O> {
    fn drop(&mut self) {
        // Also when the runtime goes away under the task: whoever waits for the flush must not wait for ever.
        if !self.done {
            self.owner.delivery().slot().at_work = false;
        }
        self.owner.turned().notify_waiters();
    }
}

fn told_in_vain(event: &StatusEvent, error: &SinkFailure, refusals: u32, wait: Option<Duration>) {
    macro_rules! log {
        ($level:expr) => {
            tracing::event!(
                target: STATUS,
                $level,
                workload = event.name,
                sequence = event.sequence,
                failure = error.what(),
                attempt = refusals,
                next_attempt = wait.map(seconds),
                "the status sink did not take an event"
            )
        };
    }
    // Without a next one, the last event there will be is given up.
    if is_worth_a_warning(refusals) || wait.is_none() {
        log!(Level::WARN)
    } else {
        log!(Level::DEBUG)
    }
    telemetry::sink_failed(&event.name, error.what());
}

enum SinkFailure {
    Refused(
        #[expect(dead_code, reason = "the host's own text, which may hold anything, stays out of our log")] BoxError,
    ),
    Panicked,
    TimedOut,
}

impl SinkFailure {
    const fn what(&self) -> &'static str {
        match self {
            Self::Refused(_) => "error",
            Self::Panicked => "panic",
            Self::TimedOut => "timeout",
        }
    }
}

const CALL_LIMIT: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
