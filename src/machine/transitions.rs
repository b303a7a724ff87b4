//! What each event does to the state.

use std::time::Duration;

use super::{
    Adopted, EXPIRED_ON_ARRIVAL, Machine, Objection, Run, State,
    account::{Account, Held},
    work::{Landing, LongWindow, Pace, Work},
};
use crate::{
    Delivery, Generation, IssueError, IssueReason, RetryCause, StopReason, UnauthenticatedReason, Verdict,
    schedule::{DemandProbe, Now, ShortRetry, Validity},
};

impl Machine {
    pub(super) fn demanded(&mut self, now: Now) {
        if self.account.held.is_some() {
            return;
        }
        let soonest = self.account.at_once(IssueReason::Expired, now);
        let probe_open = self.probe_from().is_some_and(|from| from.passed(now));
        match &mut self.state {
            State::Running(idle @ None) => *idle = Some(Work::scheduled(soonest, IssueReason::Expired)),
            State::Running(Some(work @ Work::Scheduled { retry: None, .. })) => {
                work.bring_forward(soonest, IssueReason::Expired, now);
            }
            State::AuthRetrying(LongWindow { cause, work, pace }) if probe_open && !work.is_due(now) => {
                // Where the resource server is the trouble, a probe is one more forced refresh.
                if *cause == RetryCause::TokenEndpoint || self.account.forced.spend(self.policy.forced_refreshes, now) {
                    *work = Work::scheduled(soonest, IssueReason::Probe);
                    pace.probe.iter_mut().for_each(DemandProbe::started);
                }
            }
            // What a pending run waits for is its backoff, or the distance to the nudge before the one that opened it.
            State::Pending(_)
            | State::Running(Some(_))
            | State::AuthRetrying(_)
            | State::Unauthenticated(_)
            | State::Stopped(_) => {}
        }
    }

    pub(super) fn retire_ended(&mut self, now: Now) {
        let ended = |held: &Held| held.ends.is_some_and(|ends| ends.passed(now));
        if self.account.held.take_if(|held| ended(held)).is_none() {
            return;
        }
        let soonest = self.account.at_once(IssueReason::Expired, now);
        match &mut self.state {
            // Its refresh was held back; with the token gone the schedule would be lost.
            State::Running(idle @ None) => {
                let due = self.account.unasked_from.map_or(soonest, |from| soonest.max(from));
                *idle = Some(Work::scheduled(due, IssueReason::Expired));
            }
            State::AuthRetrying(window) => window.work.bring_forward(soonest, IssueReason::Expired, now),
            State::Pending(_) | State::Running(Some(_)) | State::Unauthenticated(_) | State::Stopped(_) => {}
        }
    }

    pub(super) fn issued(&mut self, run: Run, lifetime: Option<Duration>, sent: Now, now: Now) -> Option<Adopted> {
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
        let again = (then.claims && self.account.forced.spend(self.policy.forced_refreshes, now))
            .then(|| Work::scheduled(self.account.at_once(IssueReason::Rejected, now), IssueReason::Rejected));
        match &mut self.state {
            State::AuthRetrying(window) if window.cause == RetryCause::RejectedByResource => {
                window.attempt_ended(now, &self.policy, &mut self.jitter);
                window.work = again.unwrap_or(Work::ticking(&self.account, &self.policy, &mut self.jitter, now));
            }
            State::Pending(_) | State::Running(_) | State::AuthRetrying(_) => self.state = State::Running(again),
            State::Unauthenticated(_) | State::Stopped(_) => {}
        }
        Some(Adopted { generation, ends })
    }

    pub(super) fn failed(&mut self, run: Run, error: &IssueError, now: Now) {
        let Some(Landing { reason, retry, then }) = self.landing(run) else {
            return;
        };
        self.account.attempt_failed(error, &self.policy, now);
        if let Some(reason) = self.account.final_word(error, self.policy.max_tries, now) {
            self.state = State::Unauthenticated(reason);
            return;
        }
        // The next try is no longer the nudge: it has to heed what the server just asked for.
        let reason = if reason == IssueReason::Nudged { IssueReason::Probe } else { reason };
        let floor = self.account.floor(reason);
        if let (Verdict::Cancelled, Some(work)) = (error.verdict(), self.work_mut()) {
            // It says nothing of the token endpoint, so it is no try: as if it had not begun.
            *work = Work::Scheduled { due: floor, reason, retry };
            return;
        }
        let (policy, jitter) = (&*self.policy, &mut self.jitter);
        let mut next_try = |mut retry: ShortRetry| {
            let due = if error.is_busy() {
                retry.deferred(now, floor, policy, jitter)?
            } else {
                retry.failed(now, floor, policy, jitter)?
            };
            Some(Work::Scheduled { due, reason, retry: Some(retry) })
        };
        let again = match &self.state {
            State::Pending(_) | State::Running(_) => {
                next_try(retry.unwrap_or_else(|| ShortRetry::starting(now, policy)))
            }
            // Where the short retry is over, only a jump brings it back.
            State::AuthRetrying(_) | State::Unauthenticated(_) | State::Stopped(_) => retry.and_then(next_try),
        };
        let slow = if then.jumped {
            Work::Scheduled { due: floor, reason: IssueReason::Probe, retry: Some(ShortRetry::starting(now, policy)) }
        } else {
            Work::ticking(&self.account, policy, &mut self.jitter, now)
        };
        match &mut self.state {
            State::Pending(work) | State::Running(Some(work)) => match again {
                Some(again) => *work = again,
                None => self.enter_long_window(RetryCause::TokenEndpoint, slow, now),
            },
            // A nudge that came in meanwhile gets its own attempt before the ceiling falls.
            State::AuthRetrying(window) if window.pace.awake >= self.policy.auth_retrying_ceiling && !then.nudged => {
                let ceiling = self.policy.auth_retrying_ceiling;
                self.state = State::Unauthenticated(UnauthenticatedReason::CeilingExceeded(ceiling));
                return;
            }
            State::AuthRetrying(window) => {
                window.work = again.unwrap_or(slow);
                window.attempt_ended(now, &self.policy, &mut self.jitter);
            }
            State::Running(None) | State::Unauthenticated(_) | State::Stopped(_) => {}
        }
        if then.nudged {
            self.nudged(now);
        }
    }

    pub(super) fn rejected(&mut self, generation: Generation, objection: Objection, now: Now) {
        let current = self.account.held.is_some_and(|held| held.generation == generation);
        if !current || self.account.forced.is_empty(self.policy.forced_refreshes, now) {
            return;
        }
        let strikes = self.account.strikes.get_or_insert_default().refused(generation);
        if objection == Objection::Definite && self.can_refresh {
            self.account.held = None;
        }
        match &mut self.state {
            // A nudge that keeps its distance to the one before must not hold the cure up.
            State::Running(work) if work.as_ref().is_none_or(Work::gives_way) => {
                if !self.can_refresh {
                    self.state = State::Unauthenticated(UnauthenticatedReason::RejectedByResource);
                } else if strikes >= STRIKES {
                    let mut tick = Work::ticking(&self.account, &self.policy, &mut self.jitter, now);
                    if let Some(Work::Scheduled { due, reason, .. }) = work {
                        tick.bring_forward(*due, *reason, now);
                    }
                    self.enter_long_window(RetryCause::RejectedByResource, tick, now);
                } else {
                    self.account.forced.spend(self.policy.forced_refreshes, now);
                    let soonest = self.account.at_once(IssueReason::Rejected, now);
                    *work = Some(Work::scheduled(soonest, IssueReason::Rejected));
                }
            }
            State::Pending(Work::InFlight { then, .. })
            | State::Running(Some(Work::InFlight { then, .. }))
            | State::AuthRetrying(LongWindow { work: Work::InFlight { then, .. }, .. }) => {
                then.claims |= objection == Objection::Claims;
            }
            State::Pending(Work::Scheduled { .. })
            | State::Running(_)
            | State::AuthRetrying(LongWindow { work: Work::Scheduled { .. }, .. })
            | State::Unauthenticated(_)
            | State::Stopped(_) => {}
        }
    }

    pub(super) fn accepted(&mut self, generation: Generation) {
        if self.account.held.is_none_or(|held| held.generation != generation) {
            return;
        }
        self.account.strikes = None;
        match &mut self.state {
            State::AuthRetrying(LongWindow { cause: RetryCause::RejectedByResource, work, .. }) => {
                let work = Some(work.clone()).filter(Work::goes_on_without_the_tick);
                self.state = State::Running(work);
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

    pub(super) fn nudged(&mut self, now: Now) {
        let mut soonest = self.account.at_once(IssueReason::Nudged, now);
        if let Some(from) = &self.account.nudge_from {
            soonest = soonest.max(**from);
        }
        let nudge = Work::scheduled(soonest, IssueReason::Nudged);
        let refresh_due = self.refresh_due();
        match &mut self.state {
            State::Unauthenticated(_) => {
                self.run = self.run.next();
                self.account.forget_record();
                self.state = State::Pending(nudge);
            }
            State::Running(idle @ None) => {
                let work = idle.insert(nudge);
                // Its success fulfils the nudge, and the nudge, which may be 10 s away, must not make it late.
                if let Some(refresh_due) = refresh_due {
                    work.bring_forward(refresh_due, IssueReason::Ahead, now);
                }
            }
            State::Pending(work) | State::Running(Some(work)) | State::AuthRetrying(LongWindow { work, .. }) => {
                match work {
                    Work::InFlight { then, .. } => then.nudged = true,
                    Work::Scheduled { .. } => work.bring_forward(soonest, IssueReason::Nudged, now),
                }
            }
            State::Stopped(_) => {}
        }
    }

    /// In the long window the short retry runs again, for the network may be back in seconds. It does not start over
    /// while it runs, or a clock that keeps jumping would keep it at its shortest wait.
    pub(super) fn clock_jumped(&mut self, now: Now) {
        let soonest = self.account.at_once(IssueReason::Probe, now);
        match &mut self.state {
            State::Pending(Work::InFlight { then, .. })
            | State::Running(Some(Work::InFlight { then, .. }))
            | State::AuthRetrying(LongWindow { work: Work::InFlight { then, .. }, .. }) => then.jumped = true,
            State::AuthRetrying(LongWindow { work: work @ Work::Scheduled { retry: None, .. }, .. }) => {
                work.bring_forward(soonest, IssueReason::Probe, now);
                work.run_short_retry(ShortRetry::starting(now, &self.policy));
            }
            State::Pending(_)
            | State::Running(_)
            | State::AuthRetrying(_)
            | State::Unauthenticated(_)
            | State::Stopped(_) => {}
        }
    }

    /// The first reason stays: the last handle is dropped after every shutdown.
    pub(super) fn shut_down(&mut self, reason: StopReason) {
        if !matches!(self.state, State::Stopped(_)) {
            self.state = State::Stopped(reason);
        }
    }

    pub(super) fn reauthenticated(&mut self, can_refresh: bool, now: Now) {
        if let State::Stopped(_) = self.state {
            return;
        }
        self.run = self.run.next();
        self.account = Account::default();
        self.can_refresh = can_refresh;
        self.state = State::Pending(Work::scheduled(now.after(Duration::ZERO), IssueReason::Initial));
    }

    fn enter_long_window(&mut self, cause: RetryCause, work: Work, now: Now) {
        let probe = DemandProbe::starting(now, &self.policy, &mut self.jitter);
        let pace = Box::new(Pace { awake: Duration::ZERO, counted: now.mono, probe });
        self.state = State::AuthRetrying(LongWindow { cause, work, pace });
    }
}

const STRIKES: u32 = 3;
