//! The state machine: events in, steps out. No I/O, no clock, no secret, no async.
//!
//! Everything that can happen to a monitored token source is an [`Event`]; everything that then has to be done is in the
//! [`Step`] that [`Machine::handle`] returns. Deadlines are derived from the state, so there is nothing to reset and
//! nothing that can go stale. Attempts start in one place, [`Machine::start_due`], which is why one floor bounds them all.

mod account;

use std::{sync::Arc, time::Duration};

use self::account::{Account, Held, Strikes};
use crate::{
    AuthStatus, Delivery, Generation, IssueError, IssueReason, RefreshPolicy, RetryCause, StopReason,
    UnauthenticatedReason,
    schedule::{Budget, Deadline, DemandProbe, Jitter, Now, ShortRetry, Validity, capped},
};

#[derive(Debug)]
pub(crate) struct Machine {
    policy: Arc<RefreshPolicy>,
    jitter: Jitter,
    run: Run,
    latest: Option<Generation>,
    state: State,
    account: Account,
    announced: (AuthStatus, bool),
    looked: Now,
}

/// Names one monitoring run, so that a result of an earlier one can be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run(u64);

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

#[derive(Debug)]
struct LongWindow {
    cause: RetryCause,
    awake: Duration,
    probe: Option<DemandProbe>,
    work: Work,
}

#[derive(Clone, Debug)]
enum Work {
    Scheduled { due: Deadline, reason: IssueReason, retry: Option<ShortRetry> },
    InFlight { reason: IssueReason, retry: Option<ShortRetry>, then: Remembered },
}

/// What came in while an attempt was in flight, to be acted on when it ends.
#[derive(Clone, Copy, Debug, Default)]
struct Remembered {
    nudged: bool,
    jumped: bool,
    claims: bool,
}

impl Machine {
    pub(crate) fn new(policy: Arc<RefreshPolicy>, jitter_seed: u64, can_refresh: bool, now: Now) -> Self {
        Self {
            account: Account::new(&policy, can_refresh),
            policy,
            jitter: Jitter::seeded(jitter_seed),
            run: Run(1),
            latest: None,
            state: State::Pending(Work::scheduled(now.after(Duration::ZERO), IssueReason::Initial)),
            announced: (AuthStatus::Pending, false),
            looked: now,
        }
    }

    pub(crate) fn handle(&mut self, event: Event<'_>, now: Now) -> Step {
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
            Event::ShutDown(reason) => self.state = State::Stopped(reason),
        }
        Step { start: self.start_due(now), publish: self.announce(), adopted }
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
            State::Pending(Work::Scheduled { due, retry, .. })
            | State::Running(Some(Work::Scheduled { due, retry, .. })) => Outlook::From(match retry {
                Some(_) => *due,
                None => due.min(self.account.floor(IssueReason::Expired)),
            }),
            State::Running(None) => Outlook::From(self.account.floor(IssueReason::Expired)),
            State::AuthRetrying(window) => Outlook::FailFast(match &window.work {
                Work::InFlight { .. } => None,
                Work::Scheduled { due, .. } => Some(match &window.probe {
                    Some(probe) => due.min(probe.from().max(self.account.floor(IssueReason::Probe))),
                    None => *due,
                }),
            }),
            State::Unauthenticated(_) | State::Stopped(_) => Outlook::Closed,
        }
    }
}

/// What each event does.
impl Machine {
    fn demanded(&mut self, now: Now) {
        if self.account.held.is_some() {
            return;
        }
        let soonest = self.account.at_once(IssueReason::Expired, now);
        match &mut self.state {
            State::Running(idle @ None) => *idle = Some(Work::scheduled(soonest, IssueReason::Expired)),
            State::Pending(Work::Scheduled { due, retry: None, .. })
            | State::Running(Some(Work::Scheduled { due, retry: None, .. })) => *due = due.min(soonest),
            State::AuthRetrying(LongWindow {
                cause,
                probe: Some(probe),
                work: Work::Scheduled { due, reason, retry: None },
                ..
            }) => {
                // Where the resource server is the trouble, a probe is one more forced refresh.
                let open = probe.from().passed(now) && soonest.passed(now) && !due.passed(now);
                if open && (*cause == RetryCause::TokenEndpoint || self.account.forced.spend(now)) {
                    (*due, *reason) = (soonest, IssueReason::Probe);
                    probe.started();
                }
            }
            State::Pending(_)
            | State::Running(Some(_))
            | State::AuthRetrying(_)
            | State::Unauthenticated(_)
            | State::Stopped(_) => {}
        }
    }

    fn issued(&mut self, run: Run, lifetime: Option<Duration>, sent: Now, now: Now) -> Option<Adopted> {
        let then = self.landing(run)?.then;
        let validity = lifetime
            .or(self.policy.assumed_lifetime)
            .map(|lifetime| Validity::of(lifetime, &self.policy, &mut self.jitter));
        let ends = validity.map(|validity| sent.after(validity.serve_for));
        if ends.is_some_and(|ends| ends.passed(now)) {
            self.failed(run, &IssueError::of_rule(Delivery::Answered, EXPIRED_ON_ARRIVAL), now);
            return None;
        }
        let generation = self.latest.map_or(Generation::FIRST, Generation::next);
        self.latest = Some(generation);
        self.account.attempt_succeeded(now);
        self.account.held =
            Some(Held { generation, ends, refresh: validity.map(|validity| sent.after(validity.refresh_after)) });
        // The success fulfils a nudge and a jump. It cannot fulfil a wish for claims that it was not asked for.
        let again = (then.claims && self.account.forced.spend(now))
            .then(|| Work::scheduled(self.account.at_once(IssueReason::Rejected, now), IssueReason::Rejected));
        match &mut self.state {
            State::AuthRetrying(window) if window.cause == RetryCause::RejectedByResource => {
                window.attempt_ended(now, &mut self.jitter);
                let tick = now.after(self.jitter.tick(&self.policy));
                window.work = again.unwrap_or(Work::scheduled(tick, IssueReason::Probe));
            }
            State::Pending(_) | State::Running(_) | State::AuthRetrying(_) => self.state = State::Running(again),
            State::Unauthenticated(_) | State::Stopped(_) => {}
        }
        Some(Adopted { generation, ends })
    }

    fn failed(&mut self, run: Run, error: &IssueError, now: Now) {
        let Some(Landing { reason, retry, then }) = self.landing(run) else {
            return;
        };
        self.account.attempt_failed(now, error.retry_after().map(|wait| now.after(capped(wait, &self.policy))));
        if let Some(reason) = self.account.final_word(error, self.policy.max_tries, now) {
            self.state = State::Unauthenticated(reason);
            return;
        }
        // The next try is no longer the nudge: it has to heed what the server just asked for.
        let reason = if reason == IssueReason::Nudged { IssueReason::Probe } else { reason };
        let floor = self.account.floor(reason);
        let tick = now.after(self.jitter.tick(&self.policy)).max(floor);
        let slow = Work::scheduled(tick, IssueReason::Probe);
        let (policy, jitter) = (&*self.policy, &mut self.jitter);
        let mut next_try = |retry: Option<ShortRetry>| {
            let mut retry = retry.unwrap_or_else(|| ShortRetry::starting(now, policy));
            let due = if error.is_busy() {
                retry.deferred(now, floor, policy, jitter)?
            } else {
                retry.failed(now, floor, policy, jitter)?
            };
            Some(Work::Scheduled { due, reason, retry: Some(retry) })
        };
        match &mut self.state {
            State::Pending(work) | State::Running(Some(work)) => match next_try(retry) {
                Some(again) => *work = again,
                None => self.enter_long_window(RetryCause::TokenEndpoint, slow, now),
            },
            State::AuthRetrying(window) if window.awake >= self.policy.auth_retrying_ceiling => {
                let ceiling = self.policy.auth_retrying_ceiling;
                self.state = State::Unauthenticated(UnauthenticatedReason::CeilingExceeded(ceiling));
                return;
            }
            State::AuthRetrying(window) => {
                window.work = if then.jumped {
                    let retry = Some(ShortRetry::starting(now, policy));
                    Work::Scheduled { due: floor, reason: IssueReason::Probe, retry }
                } else {
                    retry.and_then(|retry| next_try(Some(retry))).unwrap_or(slow)
                };
                window.attempt_ended(now, &mut self.jitter);
            }
            State::Running(None) | State::Unauthenticated(_) | State::Stopped(_) => {}
        }
        if then.nudged {
            self.nudged(now);
        }
    }

    fn rejected(&mut self, generation: Generation, objection: Objection, now: Now) {
        let current = self.account.held.is_some_and(|held| held.generation == generation);
        if !current || self.account.forced.is_empty(now) {
            return;
        }
        let strikes = self.account.strikes.refused(generation);
        if objection == Objection::Definite && self.account.can_refresh {
            self.account.held = None;
        }
        match &mut self.state {
            State::Running(None) if !self.account.can_refresh => {
                self.state = State::Unauthenticated(UnauthenticatedReason::RejectedByResource);
            }
            State::Running(None) if strikes >= STRIKES => {
                let tick = now.after(self.jitter.tick(&self.policy));
                let work = Work::scheduled(tick, IssueReason::Probe);
                self.enter_long_window(RetryCause::RejectedByResource, work, now);
            }
            State::Running(idle @ None) => {
                self.account.forced.spend(now);
                let soonest = self.account.at_once(IssueReason::Rejected, now);
                *idle = Some(Work::scheduled(soonest, IssueReason::Rejected));
            }
            State::Pending(Work::InFlight { then, .. })
            | State::Running(Some(Work::InFlight { then, .. }))
            | State::AuthRetrying(LongWindow { work: Work::InFlight { then, .. }, .. }) => {
                then.claims |= objection == Objection::Claims;
            }
            State::Pending(Work::Scheduled { .. })
            | State::Running(Some(Work::Scheduled { .. }))
            | State::AuthRetrying(LongWindow { work: Work::Scheduled { .. }, .. })
            | State::Unauthenticated(_)
            | State::Stopped(_) => {}
        }
    }

    fn accepted(&mut self, generation: Generation) {
        if self.account.held.is_none_or(|held| held.generation != generation) {
            return;
        }
        self.account.strikes = Strikes::default();
        match &mut self.state {
            State::AuthRetrying(LongWindow { cause: RetryCause::RejectedByResource, work, .. }) => {
                let in_flight = matches!(work, Work::InFlight { .. });
                self.state = State::Running(in_flight.then(|| work.clone()));
            }
            State::Unauthenticated(UnauthenticatedReason::RejectedByResource) => {
                self.run = self.run.next();
                self.state = State::Running(None);
            }
            State::Pending(_)
            | State::Running(_)
            | State::AuthRetrying(_)
            | State::Unauthenticated(_)
            | State::Stopped(_) => {}
        }
    }

    fn nudged(&mut self, now: Now) {
        let mut soonest = self.account.at_once(IssueReason::Nudged, now);
        if let Some(from) = self.account.nudge_from {
            soonest = soonest.max(from);
        }
        let nudge = Work::scheduled(soonest, IssueReason::Nudged);
        match &mut self.state {
            State::Unauthenticated(_) => {
                self.run = self.run.next();
                self.account.forget_record();
                self.state = State::Pending(nudge);
            }
            State::Running(idle @ None) => *idle = Some(nudge),
            State::Pending(work) | State::Running(Some(work)) | State::AuthRetrying(LongWindow { work, .. }) => {
                match work {
                    Work::InFlight { then, .. } => then.nudged = true,
                    Work::Scheduled { due, reason, .. } if soonest.mono < due.mono => {
                        (*due, *reason) = (soonest, IssueReason::Nudged);
                    }
                    Work::Scheduled { .. } => {}
                }
            }
            State::Stopped(_) => {}
        }
    }

    /// In the long window the short retry runs again, for the network may be back in seconds. It does not start over
    /// while it runs, or a clock that keeps jumping would keep it at its shortest wait.
    fn clock_jumped(&mut self, now: Now) {
        let soonest = self.account.at_once(IssueReason::Probe, now);
        if let State::AuthRetrying(window) = &mut self.state {
            match &mut window.work {
                Work::InFlight { then, .. } => then.jumped = true,
                Work::Scheduled { due, retry: retry @ None, .. } => {
                    *due = due.min(soonest);
                    *retry = Some(ShortRetry::starting(now, &self.policy));
                }
                Work::Scheduled { .. } => {}
            }
        }
    }

    fn reauthenticated(&mut self, can_refresh: bool, now: Now) {
        if let State::Stopped(_) = self.state {
            return;
        }
        self.run = self.run.next();
        self.account = Account::new(&self.policy, can_refresh);
        self.state = State::Pending(Work::scheduled(now.after(Duration::ZERO), IssueReason::Initial));
    }
}

/// What every event has in common.
impl Machine {
    /// Sums the time the machine was awake. A long step was spent asleep, but for what a driver may take between looks.
    fn count_awake(&mut self, now: Now) {
        let step = now.mono.saturating_sub(self.looked.mono).min(self.policy.clock_check.saturating_mul(2));
        self.looked = now;
        if let State::AuthRetrying(window) = &mut self.state {
            window.awake = window.awake.saturating_add(step);
        }
    }

    fn retire_ended(&mut self, now: Now) {
        let ended = |held: &Held| held.ends.is_some_and(|ends| ends.passed(now));
        if self.account.held.take_if(|held| ended(held)).is_none() {
            return;
        }
        let soonest = self.account.at_once(IssueReason::Expired, now);
        match &mut self.state {
            // Its refresh was held back; with the token gone the schedule would be lost.
            State::Running(idle @ None) => {
                let due = self.account.ahead_from.map_or(soonest, |from| soonest.max(from));
                *idle = Some(Work::scheduled(due, IssueReason::Expired));
            }
            State::AuthRetrying(LongWindow { work: Work::Scheduled { due, .. }, .. }) => *due = due.min(soonest),
            State::Pending(_)
            | State::Running(Some(_))
            | State::AuthRetrying(_)
            | State::Unauthenticated(_)
            | State::Stopped(_) => {}
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
            IssueReason::Ahead => self.account.ahead_from = Some(now.after(AHEAD_SPACING)),
            IssueReason::Nudged => self.account.nudge_from = Some(now.after(NUDGE_SPACING)),
            IssueReason::Initial | IssueReason::Expired | IssueReason::Rejected | IssueReason::Probe => {}
        }
        Some(reason)
    }

    fn announce(&mut self) -> Option<AuthStatus> {
        let news = (self.status(), self.serving().is_some());
        if news == self.announced {
            return None;
        }
        self.announced = news.clone();
        Some(news.0)
    }

    fn refresh_due(&self) -> Option<Deadline> {
        let refresh = self.account.held?.refresh?.max(self.account.floor(IssueReason::Ahead));
        Some(self.account.ahead_from.map_or(refresh, |from| refresh.max(from)))
    }

    fn enter_long_window(&mut self, cause: RetryCause, work: Work, now: Now) {
        let probe = DemandProbe::starting(now, &self.policy, &mut self.jitter);
        self.state = State::AuthRetrying(LongWindow { cause, awake: Duration::ZERO, probe, work });
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

/// An attempt that has just ended.
struct Landing {
    reason: IssueReason,
    retry: Option<ShortRetry>,
    then: Remembered,
}

impl Run {
    /// Counts from 1.
    pub(crate) const fn number(self) -> u64 {
        self.0
    }

    const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Work {
    const fn scheduled(due: Deadline, reason: IssueReason) -> Self {
        Self::Scheduled { due, reason, retry: None }
    }

    fn is_due(&self, now: Now) -> bool {
        matches!(self, Self::Scheduled { due, .. } if due.passed(now))
    }
}

impl LongWindow {
    fn attempt_ended(&mut self, now: Now, jitter: &mut Jitter) {
        if let Some(probe) = &mut self.probe {
            probe.attempt_ended(now, jitter);
        }
    }
}

/// The name of the rule by which a token that cannot be served even for a moment is a failed attempt.
pub(crate) const EXPIRED_ON_ARRIVAL: &str = "expired-on-arrival";

const AHEAD_SPACING: Duration = Duration::from_secs(5);
const NUDGE_SPACING: Duration = Duration::from_secs(10);
const STRIKES: u32 = 3;

#[cfg(test)]
mod tests;
