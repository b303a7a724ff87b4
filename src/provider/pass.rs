//! The way to an exchange: past the breaker, through the queue, with a permit.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{sync::SemaphorePermit, time::timeout};

use super::{
    IdentityProvider, Provider,
    breaker::{Admission, SourceId},
    report::Report,
    trouble::{Trouble, What},
};
use crate::{
    Delivery, IssueError, IssueRequest, Verdict,
    failure::{PROVIDER_BUSY, PROVIDER_DOWN},
};

impl IdentityProvider {
    pub(super) async fn pass(&self, source: SourceId, request: &IssueRequest) -> Result<Pass<'_>, IssueError> {
        let provider = &*self.0;
        if self.admit(source)? == Way::AsProbe {
            return Ok(Pass::of(provider, source, None).using());
        }
        let busy = || self.refusal(What::Busy, Duration::ZERO, provider.policy.queue_wait);
        let queued = Counted::in_(&provider.queued);
        if provider.queued.load(Ordering::Relaxed) > provider.policy.max_queued {
            return Err(busy());
        }
        let permit = timeout(provider.policy.queue_wait, provider.permits.acquire()).await;
        drop(queued);
        let mut pass = match permit {
            Ok(Ok(permit)) => Pass::of(provider, source, Some(permit)),
            Ok(Err(_)) | Err(_) => return Err(busy()),
        };
        // The world may have changed while it waited.
        if request.is_cancelled() {
            return Err(IssueError::cancelled());
        }
        if self.admit(source)? == Way::AsProbe {
            pass.give_back();
        }
        Ok(pass.using())
    }

    fn admit(&self, source: SourceId) -> Result<Way, IssueError> {
        let admission = self.0.gate().breaker.admit(source, self.0.clock.mono());
        match admission {
            Admission::Through => Ok(Way::WithPermit),
            Admission::Probe => Ok(Way::AsProbe),
            Admission::Refused { wait, spread } => Err(self.refusal(What::Down, wait, spread)),
        }
    }

    fn refusal(&self, what: What, wait: Duration, spread: Duration) -> IssueError {
        let spread = self.0.gate().jitter.up_to(spread, 1.0);
        let is_busy = matches!(what, What::Busy);
        let trouble = Trouble { by: self.address(), what };
        let refusal = if is_busy {
            IssueError::busy(trouble).with_rule(PROVIDER_BUSY)
        } else {
            IssueError::new(Verdict::Transient, Delivery::NotSent, PROVIDER_DOWN, trouble)
        };
        refusal.with_retry_after(wait.saturating_add(spread))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    WithPermit,
    AsProbe,
}

/// The right to one exchange. Dropped without a report, it says nothing of the provider.
pub(super) struct Pass<'a> {
    provider: &'a Provider,
    source: SourceId,
    permit: Option<SemaphorePermit<'a>>,
    /// While an exchange is under way whose report is due.
    in_flight: Option<Counted<'a>>,
}

impl<'a> Pass<'a> {
    fn of(provider: &'a Provider, source: SourceId, permit: Option<SemaphorePermit<'a>>) -> Self {
        Self { provider, source, permit, in_flight: None }
    }

    fn using(mut self) -> Self {
        self.in_flight = Some(Counted::in_(&self.provider.in_flight));
        self
    }

    pub(super) fn end(mut self, report: Report) {
        self.in_flight = None;
        self.give_back();
        self.provider.hear(self.source, report);
    }

    fn give_back(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let mut gate = self.provider.gate();
        if gate.permits > gate.breaker.limit() {
            gate.permits -= 1;
            permit.forget();
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.give_back();
        if self.in_flight.take().is_some() {
            self.provider.hear(self.source, Report::Nothing);
        }
    }
}

/// One more of these, as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn in_(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
