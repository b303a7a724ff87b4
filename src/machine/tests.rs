//! The state machine against its description: a world with two clocks, in which every step is checked.
#![expect(unused_must_use, reason = "the world has taken the step already; a test looks at it if it likes")]

mod clocks;
mod invariants;
mod properties;
mod rejections;
mod rules;
mod table;

use std::{sync::Arc, time::Duration};

use super::{Event, Machine, Objection, Outlook, Run, Step};
use crate::{
    AuthStatus, Delivery, Generation, IssueError, IssueReason, OAuthCode, RefreshPolicy, RetryCause, StopReason,
    UnauthenticatedReason, Verdict,
    schedule::{Deadline, Now},
};

/// A machine, the two clocks it goes by, and everything it has asked for. It plays the driver, and fails on a step that
/// breaks an invariant, whatever the test is about.
struct World {
    machine: Machine,
    policy: Arc<RefreshPolicy>,
    now: Now,
    /// The attempt in flight of the current run.
    flying: Option<Attempt>,
    /// Attempts of earlier runs that have not ended yet.
    strays: Vec<Attempt>,
    started: Vec<Attempt>,
    published: Vec<(AuthStatus, bool)>,
    /// The current account's newest token.
    newest: Option<Token>,
    last_generation: Option<Generation>,
    bounds: Bounds,
    awake: Duration,
    looked: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    run: Run,
    reason: IssueReason,
    at: Now,
    /// A nudge came in while it was in flight.
    nudged: bool,
}

#[derive(Clone, Copy, Debug)]
struct Token {
    generation: Generation,
    ends: Option<Deadline>,
    /// Has ended or was withdrawn: not to be seen again.
    gone: bool,
}

/// What may not start before when, kept apart from the machine's own books.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    rest: Option<Deadline>,
    retry_after: Option<Deadline>,
    nudge: Option<Deadline>,
    ahead: Option<Deadline>,
    /// The last attempt failed, so that the next may be a retry.
    failing: bool,
}

impl World {
    /// A machine that nothing has happened to yet.
    fn new() -> Self {
        Self::with(RefreshPolicy::DEFAULT)
    }

    fn with(policy: RefreshPolicy) -> Self {
        Self::of(policy, 7, true)
    }

    fn with_static_token() -> Self {
        let mut world = Self::of(RefreshPolicy::DEFAULT, 7, false);
        world.start();
        world.issue(None);
        world
    }

    fn of(policy: RefreshPolicy, seed: u64, can_refresh: bool) -> Self {
        let (policy, now) = (Arc::new(policy), Now { mono: Duration::ZERO, wall: hours(400_000) });
        Self {
            machine: Machine::new(policy.clone(), seed, can_refresh, now),
            policy,
            now,
            flying: None,
            strays: Vec::new(),
            started: Vec::new(),
            published: Vec::new(),
            newest: None,
            last_generation: None,
            bounds: Bounds::default(),
            awake: Duration::ZERO,
            looked: Duration::ZERO,
        }
    }

    /// Its first attempt is in flight.
    fn started() -> Self {
        let mut world = Self::new();
        world.start();
        world
    }

    /// Holds a token that lives for an hour.
    fn running() -> Self {
        let mut world = Self::started();
        world.issue(hours(1));
        world
    }

    /// Never had a token, and the short retry is exhausted.
    fn auth_retrying() -> Self {
        let mut world = Self::started();
        world.exhaust();
        world
    }

    /// Three fresh tokens were refused in a row; the third, under suspicion only, is served.
    fn refused() -> Self {
        let mut world = Self::running();
        for _ in 0..2 {
            world.reject(Objection::Suspect);
            world.land_next(hours(1));
        }
        world.reject(Objection::Suspect);
        world
    }

    /// The grant is dead; the token it gave is served on.
    fn unauthenticated() -> Self {
        let mut world = Self::running();
        world.run_to_next_attempt();
        world.fail(rejected("invalid_grant"));
        world
    }

    /// The token that nobody can refresh was refused; it is served on.
    fn refused_for_good() -> Self {
        let mut world = Self::with_static_token();
        world.reject(Objection::Definite);
        world
    }

    /// One world in each condition that a live machine can be in.
    fn live() -> Vec<(&'static str, Self)> {
        let after = |mut world: Self, what: fn(&mut Self)| {
            what(&mut world);
            world
        };
        let attempt = |world: &mut Self| {
            world.run_to_next_attempt();
        };
        // The next try is some four seconds away: not the floor's doing.
        let failures = |world: &mut Self| {
            for _ in 0..3 {
                world.fail_next(unreachable_host());
            }
        };
        vec![
            ("pending, first attempt in flight", Self::started()),
            ("pending, short retry", after(Self::started(), failures)),
            ("running", Self::running()),
            ("running, refresh in flight", after(Self::running(), attempt)),
            ("running, short retry", after(Self::running(), failures)),
            ("auth retrying", Self::auth_retrying()),
            ("auth retrying, attempt in flight", after(Self::auth_retrying(), attempt)),
            ("auth retrying while serving", {
                after(Self::running(), |world| {
                    world.run_to_next_attempt();
                    world.exhaust();
                })
            }),
            ("refused", Self::refused()),
            ("refused, attempt in flight", after(Self::refused(), attempt)),
        ]
    }

    // Time.

    /// Both clocks go on, and the driver looks at every deadline, and at least every `clock_check`.
    fn pass(&mut self, span: Duration) {
        let end = self.now.mono + span;
        while self.now.mono < end {
            let left = end - self.now.mono;
            let _ = self.nap(left);
        }
    }

    /// Sleeps as a driver does, until there is something to do; at most for `longest`.
    fn nap(&mut self, longest: Duration) -> Step {
        let due = self.machine.deadline().map_or(Duration::MAX, |deadline| deadline.remaining(self.now));
        self.advance(due.min(self.policy.clock_check).min(longest));
        self.handle(Event::DeadlineReached)
    }

    /// Both clocks go on while nobody looks.
    fn advance(&mut self, span: Duration) {
        self.now.mono += span;
        self.now.wall += span;
    }

    /// The machine sleeps: the monotonic clock stands still.
    fn suspend(&mut self, span: Duration) {
        self.now.wall += span;
    }

    /// The machine sleeps and wakes, and the driver notices.
    fn sleep_and_wake(&mut self, span: Duration) -> Step {
        self.suspend(span);
        self.handle(Event::ClockJumped)
    }

    fn step_wall_back(&mut self, span: Duration) {
        self.now.wall = self.now.wall.saturating_sub(span);
    }

    fn run_to_next_attempt(&mut self) -> IssueReason {
        assert!(self.flying.is_none(), "an attempt is in flight already");
        loop {
            assert!(self.machine.deadline().is_some(), "nothing will ever happen: {:?}", self.machine);
            if let Some(reason) = self.nap(Duration::MAX).start {
                return reason;
            }
        }
    }

    // Events.

    fn start(&mut self) -> Step {
        self.handle(Event::Start)
    }

    fn demand(&mut self) -> Step {
        self.handle(Event::Demanded)
    }

    fn nudge(&mut self) -> Step {
        self.handle(Event::Nudged)
    }

    fn reauthenticate(&mut self) -> Step {
        self.handle(Event::Reauthenticated { can_refresh: true })
    }

    /// The resource server refuses the newest token.
    fn reject(&mut self, objection: Objection) -> Step {
        let generation = self.generation();
        self.handle(Event::Rejected { generation, objection })
    }

    fn accept(&mut self) -> Step {
        let generation = self.generation();
        self.handle(Event::Accepted(generation))
    }

    fn issue(&mut self, lifetime: impl Into<Option<Duration>>) -> Step {
        let Attempt { run, at, .. } = self.flying.expect("an attempt in flight");
        self.handle(Event::Issued { run, lifetime: lifetime.into(), sent: at })
    }

    fn fail(&mut self, error: IssueError) -> Step {
        let run = self.flying.expect("an attempt in flight").run;
        self.handle(Event::Failed { run, error: &error })
    }

    /// Lets the next attempt start, if none is in flight, and end with a token.
    fn land_next(&mut self, lifetime: impl Into<Option<Duration>>) -> Step {
        if self.flying.is_none() {
            self.run_to_next_attempt();
        }
        self.issue(lifetime)
    }

    fn fail_next(&mut self, error: IssueError) -> Step {
        if self.flying.is_none() {
            self.run_to_next_attempt();
        }
        self.fail(error)
    }

    /// Fails every attempt of the short retry.
    fn exhaust(&mut self) {
        while !matches!(self.status(), AuthStatus::AuthRetrying(_)) {
            self.fail_next(unreachable_host());
        }
    }

    /// The waits between attempts that all fail as soon as they have started.
    fn waits(&mut self, count: usize) -> Vec<Duration> {
        (0..count)
            .map(|_| {
                let before = self.now.mono;
                self.run_to_next_attempt();
                self.fail(unreachable_host());
                self.now.mono - before
            })
            .collect()
    }

    // Questions.

    fn status(&self) -> AuthStatus {
        self.machine.status()
    }

    fn serving(&self) -> Option<u64> {
        self.machine.serving().map(Generation::get)
    }

    /// The newest generation.
    fn generation(&self) -> Generation {
        self.newest.expect("a token").generation
    }

    fn wait_for_next_attempt(&self) -> Duration {
        self.machine.next_attempt().expect("a scheduled attempt").remaining(self.now)
    }

    fn attempts_since(&self, mono: Duration) -> usize {
        self.started.iter().filter(|attempt| attempt.at.mono >= mono).count()
    }
}

// Failures, as a source reports them.

/// Nobody saw the request.
fn unreachable_host() -> IssueError {
    IssueError::of_rule(Delivery::NotSent, "test-unreachable")
}

/// Something answered, but not with a verdict.
fn error_page() -> IssueError {
    IssueError::of_rule(Delivery::Answered, "test-error-page")
}

fn busy(retry_after: Duration) -> IssueError {
    error_page().with_retry_after(retry_after)
}

fn unknown_code(code: &str) -> IssueError {
    IssueError::new(Verdict::Unconfirmed(OAuthCode::new(code).unwrap()), Delivery::Answered, "test-unknown", code)
}

fn rejected(code: &str) -> IssueError {
    IssueError::rejected(OAuthCode::new(code).unwrap(), code)
}

fn rejected_with(code: &str) -> AuthStatus {
    AuthStatus::Unauthenticated(UnauthenticatedReason::Rejected(OAuthCode::new(code).unwrap()))
}

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn mins(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

const fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

/// Whether `value` is `exact`, give or take so many percent of it.
fn is_about(value: Duration, exact: Duration, percent: u32) -> bool {
    value.abs_diff(exact) <= exact * percent / 100
}

const RETRYING: AuthStatus = AuthStatus::AuthRetrying(RetryCause::TokenEndpoint);
const REFUSED: AuthStatus = AuthStatus::AuthRetrying(RetryCause::RejectedByResource);
const REFUSED_FOR_GOOD: AuthStatus = AuthStatus::Unauthenticated(UnauthenticatedReason::RejectedByResource);
const STOPPED: AuthStatus = AuthStatus::Stopped(StopReason::ShutDown);
