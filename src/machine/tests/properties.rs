//! Whatever happens, and in whatever order: the invariants hold (see [`World::handle`]), and attempts stay few.

use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::{ForcedRefreshes, Lifetime, RefreshAhead};

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_breaks_an_invariant(
        policy in policy(),
        seed: u64,
        can_refresh in prop::bool::weighted(0.85),
        wall in select(vec![Duration::ZERO, hours(1), hours(480_000)]),
        happenings in vec(happening(), 1..80),
    ) {
        let mut world = World::of(policy, seed, can_refresh);
        world.now.wall = wall;
        world.start();
        for happening in happenings {
            world.undergo(happening);
        }
        world.comes_to_an_end();
    }
}

#[test]
fn a_busy_caller_through_a_day_of_outage_makes_about_150_attempts() {
    for seed in 0..5 {
        let mut world = World::of(RefreshPolicy::DEFAULT, seed, true);
        world.start();
        world.endure(hours(24), secs(3), |world| {
            world.fail(unreachable_host());
        });
        let attempts = world.started.len();
        assert!((145..=165).contains(&attempts), "{attempts} with seed {seed}");
    }
}

#[test]
fn attempts_per_hour_are_bounded_under_every_fault() {
    for (fault, first_hour, later, land) in [
        ("connections are refused", 22, 8, (|world| drop(world.fail(unreachable_host()))) as fn(&mut World)),
        ("error pages", 22, 8, |world| drop(world.fail(error_page()))),
        ("throttled for an hour", 2, 2, |world| drop(world.fail(busy(hours(1))))),
        ("throttled for ten seconds", 22, 8, |world| drop(world.fail(busy(secs(10))))),
        ("an unknown code, and then another", 22, 8, |world| {
            let code = ["access_denied", "invalid_request"][world.started.len() % 2];
            world.fail(unknown_code(code));
        }),
        ("expired on arrival", 22, 8, |world| {
            world.advance(secs(2));
            world.issue(secs(1));
        }),
        ("a verdict", 1, 0, |world| drop(world.fail(rejected("invalid_grant")))),
        ("every token is refused", 16, 12, |world| {
            world.issue(hours(1));
            world.reject(Objection::Definite);
        }),
        ("every token is suspected", 16, 7, |world| {
            world.issue(hours(1));
            world.reject(Objection::Suspect);
        }),
        ("every token is refused, accepted, and refused again", 16, 12, |world| {
            world.issue(hours(1));
            for _ in 0..3 {
                world.reject(Objection::Suspect);
                world.accept();
            }
        }),
        ("a flapping endpoint, and tokens of a minute", 420, 420, |world| {
            if world.started.len() % 4 == 0 {
                world.issue(secs(60));
            } else {
                world.fail(error_page());
            }
        }),
        ("the clock jumps all the time", 260, 260, |world| {
            world.handle(Event::ClockJumped);
            world.fail(unreachable_host());
            world.handle(Event::ClockJumped);
        }),
    ] {
        let mut world = World::started();
        for hour in 0..6 {
            let before = world.started.len();
            world.endure(hours(1), secs(1), land);
            let attempts = world.started.len() - before;
            let bound = if hour == 0 { first_hour - 1 } else { later };
            assert!(attempts <= bound, "{fault}: {attempts} attempts in hour {hour}");
        }
    }
}

#[test]
fn attempts_that_hang_are_one_at_a_time() {
    let mut world = World::started();
    while world.now.mono < hours(6) {
        world.pass(secs(20));
        world.demand();
        if world.flying.is_some() {
            world.fail(IssueError::of_rule(Delivery::Unknown, "test-timeout"));
        }
    }
    assert!(world.started.len() < 60, "{}", world.started.len());
}

impl World {
    /// Callers ask all the while, and every attempt ends at once, in the same way.
    fn endure(&mut self, span: Duration, every: Duration, land: impl Fn(&mut Self)) {
        let end = self.now.mono + span;
        while self.now.mono < end {
            self.demand();
            if self.flying.is_some() {
                land(self);
            }
            self.pass(every);
            if self.flying.is_some() {
                land(self);
            }
        }
    }

    fn undergo(&mut self, happening: Happening) {
        let run_of = |attempt: &Attempt| attempt.run;
        match happening {
            Happening::TimePasses(span) => self.pass(span),
            Happening::NobodyLooks(span) => self.advance(span),
            Happening::Suspend(span) => self.suspend(span),
            Happening::WallForward(span) => self.suspend(span),
            Happening::WallBack(span) => self.step_wall_back(span),
            Happening::ClockJumped => drop(self.handle(Event::ClockJumped)),
            Happening::Demanded => drop(self.demand()),
            Happening::Nudged => drop(self.nudge()),
            Happening::Issued(lifetime) if self.flying.is_some() => drop(self.issue(lifetime)),
            Happening::Failed(failure) if self.flying.is_some() => drop(self.fail(failure.error())),
            Happening::Issued(_) | Happening::Failed(_) => {}
            Happening::LateToken => {
                if let Some(Attempt { run, at, .. }) = self.strays.pop() {
                    self.changes_nothing(Event::Issued { run, lifetime: Some(hours(1)), sent: at });
                }
            }
            Happening::LateFailure(failure) => {
                if let Some(run) = self.strays.pop().as_ref().map(run_of) {
                    self.changes_nothing(Event::Failed { run, error: &failure.error() });
                }
            }
            Happening::Rejected(objection) => {
                if let Some(generation) = self.last_generation {
                    let _ = self.handle(Event::Rejected { generation, objection });
                }
            }
            Happening::StaleRejected(objection) => {
                if self.last_generation.is_some_and(|last| last > Generation::FIRST) {
                    self.changes_nothing(Event::Rejected { generation: Generation::FIRST, objection });
                }
            }
            Happening::Accepted => {
                if let Some(generation) = self.last_generation {
                    let _ = self.handle(Event::Accepted(generation));
                }
            }
            Happening::Reauthenticated { can_refresh } => drop(self.handle(Event::Reauthenticated { can_refresh })),
            Happening::ShutDown => drop(self.handle(Event::ShutDown(StopReason::ShutDown))),
        }
    }

    fn changes_nothing(&mut self, event: Event<'_>) {
        let _ = self.handle(Event::DeadlineReached);
        let (deadline, budget) = (self.machine.deadline(), self.machine.forced_budget());
        assert_eq!(self.handle(event), Step::default());
        assert_eq!((self.machine.deadline(), self.machine.forced_budget()), (deadline, budget));
    }

    /// Once all is quiet, a live machine without a token has its next attempt within what it promised, and a token then
    /// leads to a token being served.
    fn comes_to_an_end(&mut self) {
        let _ = self.handle(Event::DeadlineReached);
        if !self.status().is_live() || self.serving().is_some() {
            return;
        }
        if self.flying.is_none() {
            let promised = self.wait_for_next_attempt();
            if promised > hours(24) {
                return;
            }
            let before = self.now.mono;
            self.run_to_next_attempt();
            assert!(self.now.mono - before <= promised, "{promised:?} became {:?}", self.now.mono - before);
        }
        self.issue(Lifetime::LONGEST);
        assert_eq!(self.serving(), self.last_generation.map(Generation::get));
    }
}

#[derive(Clone, Debug)]
enum Happening {
    TimePasses(Duration),
    NobodyLooks(Duration),
    Suspend(Duration),
    WallForward(Duration),
    WallBack(Duration),
    ClockJumped,
    Demanded,
    Nudged,
    Issued(Option<Duration>),
    Failed(Failure),
    LateToken,
    LateFailure(Failure),
    Rejected(Objection),
    StaleRejected(Objection),
    Accepted,
    Reauthenticated { can_refresh: bool },
    ShutDown,
}

#[derive(Clone, Debug)]
enum Failure {
    Unreachable,
    ErrorPage,
    Busy(Duration),
    UnknownCode(&'static str),
    Rejected,
}

impl Failure {
    fn error(&self) -> IssueError {
        match self {
            Self::Unreachable => unreachable_host(),
            Self::ErrorPage => error_page(),
            Self::Busy(wait) => busy(*wait),
            Self::UnknownCode(code) => unknown_code(code),
            Self::Rejected => rejected("invalid_grant"),
        }
    }
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => span().prop_map(Happening::TimePasses),
        2 => span().prop_map(Happening::NobodyLooks),
        1 => span().prop_map(Happening::Suspend),
        1 => select(vec![hours(1), hours(24)]).prop_map(Happening::WallForward),
        1 => select(vec![secs(30), hours(24), hours(500_000)]).prop_map(Happening::WallBack),
        1 => Just(Happening::ClockJumped),
        4 => Just(Happening::Demanded),
        3 => Just(Happening::Nudged),
        6 => option::weighted(0.8, lifetime()).prop_map(Happening::Issued),
        9 => failure().prop_map(Happening::Failed),
        1 => Just(Happening::LateToken),
        1 => failure().prop_map(Happening::LateFailure),
        6 => objection().prop_map(Happening::Rejected),
        1 => objection().prop_map(Happening::StaleRejected),
        2 => Just(Happening::Accepted),
        1 => prop::bool::weighted(0.8).prop_map(|can_refresh| Happening::Reauthenticated { can_refresh }),
        1 => prop_oneof![9 => Just(Happening::Demanded), 1 => Just(Happening::ShutDown)],
    ]
}

fn span() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        (1_u64..3_000).prop_map(Duration::from_millis),
        (1_u64..120).prop_map(Duration::from_secs),
        (1_u64..70).prop_map(mins),
    ]
}

fn lifetime() -> impl Strategy<Value = Duration> {
    select(vec![Duration::from_nanos(1), secs(1), secs(15), mins(5), hours(1), hours(24), Lifetime::LONGEST])
}

fn failure() -> impl Strategy<Value = Failure> {
    prop_oneof![
        8 => Just(Failure::Unreachable),
        4 => Just(Failure::ErrorPage),
        2 => span().prop_map(Failure::Busy),
        1 => Just(Failure::Busy(Duration::MAX)),
        4 => select(vec!["access_denied", "invalid_request"]).prop_map(Failure::UnknownCode),
        1 => Just(Failure::Rejected),
    ]
}

fn objection() -> impl Strategy<Value = Objection> {
    select(vec![Objection::Definite, Objection::Suspect, Objection::Claims])
}

/// The defaults, and what hosts may make of them: hasty, patient, without end.
fn policy() -> impl Strategy<Value = RefreshPolicy> {
    let hasty = RefreshPolicy {
        max_tries: 2,
        auth_retrying_tick: secs(1),
        auth_retrying_ceiling: mins(10),
        retry_after_cap: mins(5),
        demand_probe_interval: Some(Duration::from_millis(1)),
        forced_refreshes: ForcedRefreshes { burst: 2, refill: secs(1) },
        ..RefreshPolicy::DEFAULT
    };
    let patient = RefreshPolicy {
        max_tries: 1,
        auth_retrying_tick: Duration::MAX,
        auth_retrying_ceiling: Duration::MAX,
        demand_probe_interval: None,
        refresh_ahead: RefreshAhead::Fixed(Duration::ZERO),
        assumed_lifetime: Some(Duration::MAX),
        forced_refreshes: ForcedRefreshes { burst: 0, refill: Duration::MAX },
        clock_check: hours(1),
        ..RefreshPolicy::DEFAULT
    };
    let generous = RefreshPolicy {
        initial_retry_interval: Duration::from_nanos(1),
        refresh_ahead: RefreshAhead::Fixed(Duration::MAX),
        forced_refreshes: ForcedRefreshes { burst: u32::MAX, refill: Duration::from_nanos(1) },
        ..RefreshPolicy::DEFAULT
    };
    prop_oneof![4 => Just(RefreshPolicy::DEFAULT), 2 => Just(hasty), 1 => Just(patient), 1 => Just(generous)]
}
