//! The state machine: events in, steps out. No I/O, no clock, no secret, no async.
//!
//! Everything that can happen to a monitored token source is an [`Event`]; everything that then has to be done is in the
//! [`Step`] that [`Machine::handle`] returns. Deadlines are derived from the state, so there is nothing to reset and
//! nothing that can go stale. Attempts start in one place, [`Machine::start_due`], which is why one floor bounds them all.

mod account;
mod transitions;
mod work;

use std::{sync::Arc, time::Duration};

use self::{
    account::Account,
    work::{Landing, LongWindow, Remembered, Work},
};
use crate::{
    AuthStatus, Generation, IssueError, IssueReason, RefreshPolicy, RetryCause, StopReason, UnauthenticatedReason,
    schedule::{Budget, Deadline, Jitter, Now},
};

#[derive(Debug)]
pub(crate) struct Machine {
    policy: Arc<RefreshPolicy>,
    jitter: Jitter,
    run: Run,
    can_refresh: bool,
    latest: Option<Generation>,
    state: State,
    account: Account,
}

/// Names one monitoring run, so that a result of an earlier one can be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run(u32);

#[derive(Debug)]
pub(crate) enum Event<'a> {
    Start,
    /// A caller wants a token and found none that may be served.
    Demanded,
    DeadlineReached,
    Issued {
        run: Run,
        lifetime: Option<Duration>,
        sent: Now,
    },
    Failed {
        run: Run,
        error: &'a IssueError,
    },
    Rejected {
        generation: Generation,
        objection: Objection,
    },
    Accepted(Generation),
    Nudged,
    ClockJumped,
    Reauthenticated {
        can_refresh: bool,
    },
    ShutDown(StopReason),
}

/// What a resource server has against a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Objection {
    /// It is dead: not served again.
    Definite,
    /// It may be: served on while the next one is fetched.
    Suspect,
    /// It lacks claims, which the source will be told.
    Claims,
}

impl Objection {
    /// One word, for logs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Definite => "definite",
            Self::Suspect => "suspect",
            Self::Claims => "claims",
        }
    }
}

/// What has to be done after an event.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use = "a step that nobody takes is an attempt that never starts or a status that nobody hears of"]
pub(crate) struct Step {
    pub(crate) start: Option<IssueReason>,
    pub(crate) publish: Option<AuthStatus>,
    pub(crate) adopted: Option<Adopted>,
}

/// The token just issued is the one to serve from now on, under this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Adopted {
    pub(crate) generation: Generation,
    pub(crate) ends: Option<Deadline>,
}

/// What a caller who finds no servable token can expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// An attempt is in flight: wait for it.
    InFlight,
    /// The next attempt may start then: wait if that is soon.
    From(Deadline),
    /// The long window: no waiting, even while an attempt is in flight (`None`).
    FailFast(Option<Deadline>),
    /// The run has ended.
    Closed,
}

#[derive(Debug)]
enum State {
    Pending(Work),
    /// `None`: nothing to do until the held token's refresh is due.
    Running(Option<Work>),
    AuthRetrying(LongWindow),
    Unauthenticated(UnauthenticatedReason),
    Stopped(StopReason),
}

impl Machine {
    pub(crate) fn new(policy: Arc<RefreshPolicy>, jitter_seed: u64, can_refresh: bool, now: Now) -> Self {
        Self {
            account: Account::default(),
            can_refresh,
            policy,
            jitter: Jitter::seeded(jitter_seed),
            run: Run(1),
            latest: None,
            state: State::Pending(Work::scheduled(now.after(Duration::ZERO), IssueReason::Initial)),
        }
    }

    pub(crate) fn handle(&mut self, event: Event<'_>, now: Now) -> Step {
        let before = self.news();
        self.count_awake(now);
        self.retire_ended(now);
        let mut adopted = None;
        match event {
            // What is due is started below, whatever the event was.
            Event::Start | Event::DeadlineReached => {}
            Event::Demanded => self.demanded(now),
            Event::Issued { run, lifetime, sent } => adopted = self.issued(run, lifetime, sent, now),
            Event::Failed { run, error } => self.failed(run, error, now),
            Event::Rejected { generation, objection } => self.rejected(generation, objection, now),
            Event::Accepted(generation) => self.accepted(generation),
            Event::Nudged => self.nudged(now),
            Event::ClockJumped => self.clock_jumped(now),
            Event::Reauthenticated { can_refresh } => self.reauthenticated(can_refresh, now),
            Event::ShutDown(reason) => self.shut_down(reason),
        }
        let start = self.start_due(now);
        let after = self.news();
        Step { start, publish: (after != before).then_some(after.0), adopted }
    }

    pub(crate) fn status(&self) -> AuthStatus {
        match &self.state {
            State::Pending(_) => AuthStatus::Pending,
            State::Running(_) => AuthStatus::Running,
            State::AuthRetrying(window) => AuthStatus::AuthRetrying(window.cause),
            State::Unauthenticated(reason) => AuthStatus::Unauthenticated(reason.clone()),
            State::Stopped(reason) => AuthStatus::Stopped(*reason),
        }
    }

    /// The run whose attempts may start; `None` once its gate is closed.
    pub(crate) fn open_run(&self) -> Option<Run> {
        match self.state {
            State::Pending(_) | State::Running(_) | State::AuthRetrying(_) => Some(self.run),
            State::Unauthenticated(_) | State::Stopped(_) => None,
        }
    }

    /// The token to serve; none in [`AuthStatus::Stopped`].
    pub(crate) fn serving(&self) -> Option<Generation> {
        match self.state {
            State::Stopped(_) => None,
            State::Pending(_) | State::Running(_) | State::AuthRetrying(_) | State::Unauthenticated(_) => {
                self.account.held.map(|held| held.generation)
            }
        }
    }

    pub(crate) fn latest(&self) -> Option<Generation> {
        self.latest
    }

    pub(crate) fn forced_budget(&self) -> Budget {
        self.account.forced
    }

    /// When something has to happen next, besides the answer to an attempt in flight.
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        let ends = self.serving().and(self.account.held).and_then(|held| held.ends);
        [self.next_attempt(), ends].into_iter().flatten().reduce(Deadline::min)
    }

    /// When the next attempt is due; `None` also while one is in flight.
    pub(crate) fn next_attempt(&self) -> Option<Deadline> {
        match (&self.state, self.work()) {
            (_, Some(Work::Scheduled { due, .. })) => Some(*due),
            (State::Running(None), _) => self.refresh_due(),
            _ => None,
        }
    }

    pub(crate) fn outlook(&self) -> Outlook {
        match &self.state {
            State::Pending(Work::InFlight { .. }) | State::Running(Some(Work::InFlight { .. })) => Outlook::InFlight,
            State::Pending(Work::Scheduled { due, .. })
            | State::Running(Some(Work::Scheduled { due, retry: Some(_), .. })) => Outlook::From(*due),
            State::Running(Some(Work::Scheduled { due, retry: None, .. })) => {
                Outlook::From(due.min(self.account.floor(IssueReason::Expired)))
            }
            State::Running(None) => Outlook::From(self.account.floor(IssueReason::Expired)),
            State::AuthRetrying(window) => Outlook::FailFast(match &window.work {
                Work::InFlight { .. } => None,
                Work::Scheduled { due, .. } => Some(self.probe_from().map_or(*due, |from| due.min(from))),
            }),
            State::Unauthenticated(_) | State::Stopped(_) => Outlook::Closed,
        }
    }
}

/// What every event has in common.
impl Machine {
    /// Sums the time the machine was awake. A long step was spent asleep, but for what a driver may take between looks.
    fn count_awake(&mut self, now: Now) {
        if let State::AuthRetrying(LongWindow { pace, .. }) = &mut self.state {
            let step = now.mono.saturating_sub(pace.counted).min(self.policy.clock_check.saturating_mul(2));
            pace.awake = pace.awake.saturating_add(step);
            pace.counted = now.mono;
        }
    }

    /// The one place where attempts start.
    fn start_due(&mut self, now: Now) -> Option<IssueReason> {
        let refresh_due = self.refresh_due();
        if let State::Running(idle @ None) = &mut self.state {
            *idle = refresh_due.map(|due| Work::scheduled(due, IssueReason::Ahead)).filter(|work| work.is_due(now));
        }
        let work = self.work_mut().filter(|work| work.is_due(now))?;
        let Work::Scheduled { reason, retry, .. } = work else {
            return None;
        };
        let (reason, retry) = (*reason, retry.take());
        *work = Work::InFlight { reason, retry, then: Remembered::default() };
        match reason {
            // Both come of the token's own end, so a token that ends at once must not set a pace of its own.
            IssueReason::Ahead | IssueReason::Expired => {
                self.account.unasked_from = Some(now.after(UNASKED_SPACING));
            }
            IssueReason::Nudged => self.account.nudge_from = Some(Box::new(now.after(NUDGE_SPACING))),
            IssueReason::Initial | IssueReason::Rejected | IssueReason::Probe => {}
        }
        Some(reason)
    }

    /// What is published when it changes.
    fn news(&self) -> (AuthStatus, bool) {
        (self.status(), self.serving().is_some())
    }

    fn refresh_due(&self) -> Option<Deadline> {
        let refresh = self.account.held?.refresh?.max(self.account.floor(IssueReason::Ahead));
        Some(self.account.unasked_from.map_or(refresh, |from| refresh.max(from)))
    }

    /// When callers' demand may start an attempt in the long window, unless another schedule has taken over.
    fn probe_from(&self) -> Option<Deadline> {
        let State::AuthRetrying(LongWindow { cause, work: Work::Scheduled { retry: None, .. }, pace }) = &self.state
        else {
            return None;
        };
        let from = pace.probe.as_ref()?.from().max(self.account.floor(IssueReason::Probe));
        Some(match cause {
            RetryCause::TokenEndpoint => from,
            RetryCause::RejectedByResource => from.max(self.account.forced.open_from(self.policy.forced_refreshes)),
        })
    }

    /// What was in flight, if its result is this run's.
    fn landing(&self, run: Run) -> Option<Landing> {
        match self.work()? {
            Work::InFlight { reason, retry, then } if run == self.run => {
                Some(Landing { reason: *reason, retry: retry.clone(), then: *then })
            }
            Work::InFlight { .. } | Work::Scheduled { .. } => None,
        }
    }

    fn work(&self) -> Option<&Work> {
        match &self.state {
            State::Pending(work) => Some(work),
            State::Running(work) => work.as_ref(),
            State::AuthRetrying(window) => Some(&window.work),
            State::Unauthenticated(_) | State::Stopped(_) => None,
        }
    }

    fn work_mut(&mut self) -> Option<&mut Work> {
        match &mut self.state {
            State::Pending(work) => Some(work),
            State::Running(work) => work.as_mut(),
            State::AuthRetrying(window) => Some(&mut window.work),
            State::Unauthenticated(_) | State::Stopped(_) => None,
        }
    }
}

impl Run {
    /// Counts from 1.
    pub(crate) const fn number(self) -> u32 {
        self.0
    }

    const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The name of the rule by which a token that cannot be served even for a moment is a failed attempt.
pub(crate) const EXPIRED_ON_ARRIVAL: &str = "expired-on-arrival";

const UNASKED_SPACING: Duration = Duration::from_secs(5);
const NUDGE_SPACING: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
