//! What must hold after every step.

use super::*;

impl World {
    /// Hands the event to the machine, and checks everything that must hold at any time.
    pub(super) fn handle(&mut self, event: Event<'_>) -> Step {
        let kind = Kind::of(&event);
        let before = Before {
            status: self.status(),
            serving: self.serving(),
            outlook: self.machine.outlook(),
            settled: self.machine.deadline().is_none_or(|deadline| !deadline.passed(self.now)),
            flying: self.flying,
        };
        self.count_awake(&before.status);
        let cancelled = matches!(&event, Event::Failed { error, .. } if *error.verdict() == Verdict::Cancelled);
        let landed = self.land(&event) && !cancelled;
        let step = self.machine.handle(event, self.now);

        if kind == Kind::Reauthenticated && !matches!(before.status, AuthStatus::Stopped(_)) {
            (self.bounds, self.newest) = (Bounds::default(), None);
            self.strays.extend(self.flying.take());
        }
        if kind == Kind::ShutDown {
            self.strays.extend(self.flying.take());
        }
        if let (Kind::Nudged, Some(attempt)) = (kind, &mut self.flying) {
            attempt.nudged = true;
        }
        // A token that has ended on arrival is a failure, too.
        self.bounds.failing |= landed && step.adopted.is_none();
        self.check_generation(&step);
        self.check_start(&step);
        self.check_news(&before, kind, &step);
        self.check_serving(&before, kind);
        self.check_ceiling(&before, kind, landed);
        self.check_demand(&before, kind, &step);
        self.check_future();
        step
    }

    fn count_awake(&mut self, status: &AuthStatus) {
        let step = self.now.mono.saturating_sub(self.looked).min(self.policy.clock_check.saturating_mul(2));
        let counts = matches!(status, AuthStatus::AuthRetrying(_));
        self.awake = if counts { self.awake.saturating_add(step) } else { Duration::ZERO };
        self.looked = self.now.mono;
    }

    /// Whether the event is the end of the attempt in flight, and with what failure.
    fn land(&mut self, event: &Event<'_>) -> bool {
        let (run, error) = if let Event::Issued { run, .. } = event {
            (run, None)
        } else if let Event::Failed { run, error } = event {
            (run, Some(error))
        } else {
            return false;
        };
        if self.flying.take_if(|attempt| attempt.run == *run).is_none() {
            return false;
        }
        self.bounds.rest = Some(self.now.after(secs(1)));
        self.bounds.failing = error.is_some();
        match error.map(|error| (error.retry_after(), error.delivery())) {
            Some((Some(wait), _)) => {
                self.bounds.retry_after = Some(self.now.after(wait.min(self.policy.retry_after_cap)))
            }
            // The server's wish stands until it says something else.
            Some((None, Delivery::NotSent | Delivery::Unknown)) => {}
            Some((None, Delivery::Answered)) | None => self.bounds.retry_after = None,
        }
        true
    }

    fn check_generation(&mut self, step: &Step) {
        let Some(adopted) = step.adopted else {
            return;
        };
        let newer = self.last_generation.is_none_or(|last| adopted.generation > last);
        assert!(newer, "generation {} after {:?}", adopted.generation, self.last_generation);
        self.last_generation = Some(adopted.generation);
        self.newest = Some(Token { generation: adopted.generation, ends: adopted.ends, gone: false });
    }

    fn check_start(&mut self, step: &Step) {
        let Some(reason) = step.start else {
            return;
        };
        assert!(self.flying.is_none(), "two attempts in flight in one run");
        let run = self.machine.open_run().expect("an attempt only while the gate is open");
        let open = |bound: Option<Deadline>| bound.is_none_or(|bound| bound.passed(self.now));
        let Bounds { rest, retry_after, nudge, ahead, failing } = self.bounds;
        assert!(open(rest), "{reason} started less than a second after the last attempt");
        assert!(reason == IssueReason::Nudged || open(retry_after), "{reason} started in spite of Retry-After");
        assert!(reason != IssueReason::Nudged || open(nudge), "two nudges within 10 s");
        assert!(reason != IssueReason::Ahead || failing || open(ahead), "two refreshes ahead of time within 5 s");
        if reason == IssueReason::Nudged {
            self.bounds.nudge = Some(self.now.after(secs(10)));
        }
        if reason == IssueReason::Ahead {
            self.bounds.ahead = Some(self.now.after(secs(5)));
        }
        let attempt = Attempt { run, reason, at: self.now, nudged: false };
        self.flying = Some(attempt);
        self.started.push(attempt);
    }

    fn check_news(&mut self, before: &Before, kind: Kind, step: &Step) {
        let (status, serving) = (self.status(), self.serving());
        let news = before.status != status || before.serving.is_some() != serving.is_some();
        assert_eq!(step.publish, news.then(|| status.clone()), "after {kind:?}, serving {serving:?}");
        if news {
            self.published.push((status.clone(), serving.is_some()));
        }
        let allowed = before.status == status || kind.may_lead(&before.status, &status);
        assert!(allowed, "{kind:?} led from {:?} to {status:?}", before.status);
    }

    fn check_serving(&mut self, before: &Before, kind: Kind) {
        let (serving, now) = (self.serving(), self.now);
        let stopped = matches!(self.status(), AuthStatus::Stopped(_));
        let Some(token) = &mut self.newest else {
            assert_eq!(serving, None, "a token of another account is served");
            return;
        };
        let ended = token.ends.is_some_and(|ends| ends.passed(now));
        match serving {
            Some(generation) => {
                assert_eq!(generation, token.generation.get(), "not the newest token is served");
                assert!(!ended && !token.gone && !stopped, "{token:?} is served");
            }
            None => {
                let withdrawn = stopped || ended || token.gone || kind == Kind::RejectedForGood;
                assert!(withdrawn, "{kind:?} took {token:?} away");
                token.gone = true;
            }
        }
        assert!(!stopped || serving.is_none() || before.serving.is_none());
    }

    /// Only a failed attempt ends the long window, and it does so once enough awake time has gone by.
    fn check_ceiling(&self, before: &Before, kind: Kind, landed: bool) {
        let exceeded = |status: &AuthStatus| {
            matches!(status, AuthStatus::Unauthenticated(UnauthenticatedReason::CeilingExceeded(_)))
        };
        let late = self.awake >= self.policy.auth_retrying_ceiling;
        if exceeded(&self.status()) && !exceeded(&before.status) {
            assert!(late, "the ceiling fell after {:?}", self.awake);
        }
        let nudged = before.flying.is_some_and(|attempt| attempt.nudged);
        if landed && kind == Kind::Failed && late && !nudged && matches!(before.status, AuthStatus::AuthRetrying(_)) {
            assert!(!self.status().is_live(), "still live after {:?}", self.awake);
        }
    }

    /// What callers were told is what they get: an attempt at the promised instant, and none before.
    fn check_demand(&self, before: &Before, kind: Kind, step: &Step) {
        if kind != Kind::Demanded || !before.settled || before.serving.is_some() {
            return;
        }
        match before.outlook {
            Outlook::From(from) | Outlook::FailFast(Some(from)) => {
                assert_eq!(step.start.is_some(), from.passed(self.now), "{:?} at {:?}", before.outlook, self.now);
            }
            Outlook::InFlight | Outlook::FailFast(None) | Outlook::Closed => assert_eq!(step.start, None),
        }
    }

    /// Something will happen, not in the past, and callers hear of it.
    fn check_future(&self) {
        let (deadline, next) = (self.machine.deadline(), self.machine.next_attempt());
        for due in [deadline, next].into_iter().flatten() {
            assert!(!due.remaining(self.now).is_zero(), "{due:?} is still due after the step at {:?}", self.now);
        }
        let live = self.status().is_live();
        assert_eq!(self.machine.open_run().is_some(), live);
        let needs_none = self.serving().is_some() && self.newest.is_some_and(|token| token.ends.is_none());
        assert!(!live || self.flying.is_some() || deadline.is_some() || needs_none, "live, but nothing will happen");
        assert!(live || next.is_none(), "an attempt is scheduled behind a closed gate");
        match self.machine.outlook() {
            Outlook::InFlight => assert!(live && self.flying.is_some()),
            Outlook::FailFast(None) => assert!(self.retrying() && self.flying.is_some()),
            Outlook::From(from) if self.serving().is_none() => {
                let next = next.expect("a caller is told of an attempt that is not scheduled");
                assert!(self.flying.is_none() && from.remaining(self.now) <= next.remaining(self.now));
            }
            Outlook::From(_) => assert!(self.flying.is_none() && live),
            Outlook::FailFast(Some(from)) => {
                let next = next.expect("a caller is refused while nothing is scheduled");
                assert!(self.retrying() && from.remaining(self.now) <= next.remaining(self.now));
            }
            Outlook::Closed => assert!(!live),
        }
    }

    fn retrying(&self) -> bool {
        matches!(self.status(), AuthStatus::AuthRetrying(_))
    }
}

struct Before {
    status: AuthStatus,
    serving: Option<u64>,
    outlook: Outlook,
    /// Nothing was due before the event, so that whatever happened was its doing.
    settled: bool,
    flying: Option<Attempt>,
}

/// An event without what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    TimePassed,
    Demanded,
    Issued,
    Failed,
    Refused,
    RejectedForGood,
    Accepted,
    Nudged,
    Reauthenticated,
    ShutDown,
}

impl Kind {
    fn of(event: &Event<'_>) -> Self {
        match event {
            Event::Start | Event::DeadlineReached | Event::ClockJumped => Self::TimePassed,
            Event::Demanded => Self::Demanded,
            Event::Issued { .. } => Self::Issued,
            Event::Failed { .. } => Self::Failed,
            Event::Rejected { objection: Objection::Definite, .. } => Self::RejectedForGood,
            Event::Rejected { .. } => Self::Refused,
            Event::Accepted(_) => Self::Accepted,
            Event::Nudged => Self::Nudged,
            Event::Reauthenticated { .. } => Self::Reauthenticated,
            Event::ShutDown(_) => Self::ShutDown,
        }
    }

    /// The table of the states, as far as the status changes.
    fn may_lead(self, from: &AuthStatus, to: &AuthStatus) -> bool {
        use AuthStatus::*;
        use UnauthenticatedReason::*;
        match (from, self, to) {
            (Stopped(_), _, _) => false,
            (_, Self::ShutDown, Stopped(_)) | (_, Self::Reauthenticated, Pending) => true,
            (Unauthenticated(_), Self::Nudged, Pending) => true,
            (Pending | AuthRetrying(RetryCause::TokenEndpoint), Self::Issued, Running) => true,
            // A token that is expired on arrival is a failed attempt.
            (Pending | Running, Self::Failed | Self::Issued, AuthRetrying(RetryCause::TokenEndpoint)) => true,
            (AuthRetrying(_), Self::Failed | Self::Issued, Unauthenticated(CeilingExceeded(_))) => true,
            (Pending | Running | AuthRetrying(_), Self::Failed, Unauthenticated(Rejected(_))) => true,
            (
                Running,
                Self::Refused | Self::RejectedForGood,
                AuthRetrying(RetryCause::RejectedByResource) | Unauthenticated(RejectedByResource),
            ) => true,
            (AuthRetrying(RetryCause::RejectedByResource), Self::Accepted, Running) => true,
            (Unauthenticated(RejectedByResource), Self::Accepted, Running) => true,
            _ => false,
        }
    }
}
