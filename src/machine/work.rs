//! The attempt that comes next, or is in flight.

use std::time::Duration;

use super::account::Account;
use crate::{
    IssueReason, RefreshPolicy, RetryCause,
    schedule::{Deadline, DemandProbe, Jitter, Now, ShortRetry},
};

#[derive(Debug)]
pub(super) struct LongWindow {
    pub(super) cause: RetryCause,
    pub(super) work: Work,
    /// Boxed: most monitors are never in the long window, and none should make room for it.
    pub(super) pace: Box<Pace>,
}

#[derive(Debug)]
pub(super) struct Pace {
    pub(super) awake: Duration,
    /// When it was last counted, by the monotonic clock.
    pub(super) counted: Duration,
    pub(super) probe: Option<DemandProbe>,
}

#[derive(Clone, Debug)]
pub(super) enum Work {
    Scheduled { due: Deadline, reason: IssueReason, retry: Option<ShortRetry> },
    InFlight { reason: IssueReason, retry: Option<ShortRetry>, then: Remembered },
}

/// What came in while an attempt was in flight, to be acted on when it ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Remembered {
    pub(super) nudged: bool,
    pub(super) jumped: bool,
    pub(super) claims: bool,
}

/// An attempt that has just ended.
pub(super) struct Landing {
    pub(super) reason: IssueReason,
    pub(super) retry: Option<ShortRetry>,
    pub(super) then: Remembered,
}

impl Work {
    pub(super) const fn scheduled(due: Deadline, reason: IssueReason) -> Self {
        Self::Scheduled { due, reason, retry: None }
    }

    /// The next attempt of the long window. A tick of a second, shortened by its jitter, would come before the floor.
    pub(super) fn ticking(account: &Account, policy: &RefreshPolicy, jitter: &mut Jitter, now: Now) -> Self {
        let due = now.after(jitter.tick(policy)).max(account.floor(IssueReason::Probe));
        Self::scheduled(due, IssueReason::Probe)
    }

    /// Makes it start sooner, and for this reason; never later.
    pub(super) fn bring_forward(&mut self, sooner: Deadline, why: IssueReason, now: Now) {
        if let Self::Scheduled { due, reason, .. } = self
            && sooner.remaining(now) < due.remaining(now)
        {
            (*due, *reason) = (sooner, why);
        }
    }

    /// The attempt that is scheduled becomes the first of a short retry.
    pub(super) fn run_short_retry(&mut self, starting: ShortRetry) {
        if let Self::Scheduled { retry, .. } = self {
            *retry = Some(starting);
        }
    }

    /// In flight, or asked for by somebody: not to be forgotten when the long window ends.
    pub(super) fn goes_on_without_the_tick(&self) -> bool {
        match self {
            Self::InFlight { .. } => true,
            Self::Scheduled { reason, .. } => matches!(reason, IssueReason::Nudged | IssueReason::Rejected),
        }
    }

    /// Waits for nothing but its distance to another, so that what is more urgent may take its place.
    pub(super) fn gives_way(&self) -> bool {
        matches!(self, Self::Scheduled { reason: IssueReason::Nudged | IssueReason::Ahead, retry: None, .. })
    }

    pub(super) fn is_due(&self, now: Now) -> bool {
        matches!(self, Self::Scheduled { due, .. } if due.passed(now))
    }
}

impl LongWindow {
    pub(super) fn attempt_ended(&mut self, now: Now, policy: &RefreshPolicy, jitter: &mut Jitter) {
        if let Some(probe) = &mut self.pace.probe {
            probe.attempt_ended(now, policy, jitter);
        }
    }
}
