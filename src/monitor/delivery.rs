//! Ordered delivery to the sink: one event at a time, the newest wins, and nothing the sink does reaches a token.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{runtime::Handle, sync::Notify, time::timeout};

use crate::{AuthStatus, BoxError, StatusEvent, StatusSink, schedule::Doubling};

pub(crate) struct Delivery {
    sink: Arc<dyn StatusSink>,
    slot: Mutex<Slot>,
    /// Newer news has come, or there is nothing left to deliver.
    turned: Notify,
}

struct Slot {
    // Boxed: almost always there is none.
    next: Option<Box<StatusEvent>>,
    sequence: u64,
    /// Status, serving, unsaved: what makes an event news.
    posted: (AuthStatus, bool, bool),
    told: AuthStatus,
    at_work: bool,
}

impl Delivery {
    pub(crate) fn to(sink: Arc<dyn StatusSink>) -> Self {
        let posted = (AuthStatus::Pending, false, false);
        let slot = Slot { next: None, sequence: 0, told: posted.0.clone(), posted, at_work: false };
        Self { sink, slot: Mutex::new(slot), turned: Notify::new() }
    }

    /// Hands in news, or what would be news if it were not known already. Never waits; without a runtime to deliver on, the
    /// news is kept for the next that comes with one.
    pub(crate) fn post(self: &Arc<Self>, mut event: StatusEvent, runtime: Option<&Handle>) {
        let mut slot = self.slot();
        let news = (event.to.clone(), event.serving, event.unsaved);
        if slot.posted == news {
            return;
        }
        slot.posted = news;
        slot.sequence = slot.sequence.saturating_add(1);
        event.sequence = slot.sequence;
        slot.supersede(event);
        drop(slot);
        self.turned.notify_waiters();
        if let Some(runtime) = runtime {
            self.go_to_work(runtime);
        }
    }

    /// Delivers what is left, if nobody is at it.
    pub(crate) fn go_to_work(self: &Arc<Self>, runtime: &Handle) {
        let mut slot = self.slot();
        if slot.at_work || slot.next.is_none() {
            return;
        }
        slot.at_work = true;
        drop(slot);
        runtime.spawn(AtWork { delivery: Arc::clone(self), done: false }.deliver());
    }

    /// Waits until everything handed in was delivered or given up.
    pub(crate) async fn flushed(&self) {
        loop {
            let turned = self.turned.notified();
            if !self.slot().at_work {
                return;
            }
            turned.await;
        }
    }

    fn slot(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// The newest wins. Advice that nobody has heard yet goes along, for it is given only once.
    fn supersede(&mut self, mut newer: StatusEvent) {
        if let Some(older) = self.next.take() {
            inherit_advice(&mut newer, &older);
        }
        self.next = Some(Box::new(newer));
    }
}

fn inherit_advice(newer: &mut StatusEvent, older: &StatusEvent) {
    if newer.remediation.is_none() && newer.to == older.to {
        newer.remediation.clone_from(&older.remediation);
    }
}

/// The one task that talks to the sink. Exists only while there is something to say.
struct AtWork {
    delivery: Arc<Delivery>,
    done: bool,
}

impl AtWork {
    async fn deliver(mut self) {
        while let Some(event) = self.take() {
            let event = Arc::<StatusEvent>::from(event);
            let taken = self.offer(Arc::clone(&event)).await;
            let mut slot = self.delivery.slot();
            if taken {
                slot.told = event.to.clone();
            } else if let Some(newer) = &mut slot.next {
                inherit_advice(newer, &event);
            }
        }
    }

    fn take(&mut self) -> Option<Box<StatusEvent>> {
        let mut slot = self.delivery.slot();
        let mut event = slot.next.take();
        if let Some(event) = &mut event {
            event.from = slot.told.clone();
        } else {
            // Under the lock that found nothing left, so that no news can slip in between.
            slot.at_work = false;
            self.done = true;
        }
        event
    }

    /// Offers an event until the sink takes it, newer news replaces it, or, for the last event there will be, three
    /// offers have failed.
    async fn offer(&self, event: Arc<StatusEvent>) -> bool {
        let last_words = matches!(event.to, AuthStatus::Stopped(_));
        let waits = Doubling::new(FIRST_WAIT, LONGEST_WAIT).take(if last_words { 2 } else { usize::MAX });
        for wait in waits.map(Some).chain([None]) {
            let Err(error) = self.tell(Arc::clone(&event)).await else { return true };
            tracing::warn!(
                target: "steadfast::status",
                workload = event.name,
                sequence = event.sequence,
                failure = error.what(),
                "the status sink did not take an event"
            );
            let Some(wait) = wait else { break };
            if self.superseded_within(wait).await {
                break;
            }
        }
        false
    }

    /// One call of the sink, in a task of its own: its panic ends there, and its time is up after [`CALL_LIMIT`].
    async fn tell(&self, event: Arc<StatusEvent>) -> Result<(), SinkFailure> {
        let sink = Arc::clone(&self.delivery.sink);
        let mut call = tokio::spawn(async move { sink.set_status(&event).await });
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
                let turned = self.delivery.turned.notified();
                if self.delivery.slot().next.is_some() {
                    return;
                }
                turned.await;
            }
        };
        timeout(wait, newer).await.is_ok()
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        // Also when the runtime goes away under the task: whoever waits for the flush must not wait for ever.
        if !self.done {
            self.delivery.slot().at_work = false;
        }
        self.delivery.turned.notify_waiters();
    }
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
