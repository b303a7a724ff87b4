//! Time: two clocks, suspends, steps, awake time, and what a lifetime means.

use super::*;
use crate::ForcedRefreshes;

#[test]
fn a_token_is_expired_as_soon_as_either_clock_says_so() {
    // The wall clock alone: a suspend, or a step.
    let mut world = World::running();
    world.suspend(mins(60) - secs(11));
    assert_eq!(world.handle(Event::DeadlineReached).publish, None);
    world.suspend(secs(1));
    assert_eq!(world.handle(Event::DeadlineReached).publish, Some(AuthStatus::Running));
    assert_eq!(world.serving(), None);

    // The monotonic clock alone: the wall clock was put back a day.
    let mut world = World::running();
    world.step_wall_back(hours(24));
    world.run_to_next_attempt();
    assert!(is_about(world.now.mono, mins(45), 4));
    world.pass(mins(59) - world.now.mono);
    assert_eq!(world.serving(), Some(1));
    world.pass(mins(1));
    assert_eq!(world.serving(), None);
}

#[test]
fn a_wall_clock_put_forward_a_day_has_the_token_refreshed_at_the_next_look() {
    let mut world = World::running();
    world.suspend(hours(24));
    assert_eq!(world.nap(Duration::MAX).start, Some(IssueReason::Expired));
    assert_eq!(world.now.mono, Duration::ZERO);
    world.issue(hours(1));
    // And when it is put back, the monotonic clock stands in.
    world.step_wall_back(hours(24));
    world.run_to_next_attempt();
    assert!(is_about(world.now.mono, mins(45), 4));
}

#[test]
fn a_suspend_that_the_driver_sleeps_through_costs_at_most_one_clock_check() {
    let mut world = World::running();
    world.pass(mins(10));
    world.suspend(hours(8));
    let woke = world.now.mono;
    // The driver's own sleep was set before the suspend.
    world.advance(secs(30));
    assert_eq!(world.handle(Event::DeadlineReached).start, Some(IssueReason::Expired));
    assert_eq!(world.now.mono - woke, world.policy.clock_check);
}

#[test]
fn the_first_caller_after_the_wake_waits_instead_of_being_refused() {
    for mut world in [World::running(), {
        let mut world = World::running();
        world.fail_next(busy(mins(4)));
        world
    }] {
        world.suspend(hours(8));
        assert!(world.demand().start.is_some());
        assert_eq!(world.machine.outlook(), Outlook::InFlight);
    }
}

#[test]
fn a_wall_clock_near_zero_that_is_set_later_is_survived() {
    let mut world = World::new();
    world.now.wall = Duration::ZERO;
    world.start();
    world.issue(hours(1));
    world.step_wall_back(hours(1));
    world.pass(mins(10));
    assert_eq!(world.serving(), Some(1));
    world.now.wall = hours(490_000);
    assert_eq!(world.handle(Event::ClockJumped).start, Some(IssueReason::Expired));
}

#[test]
fn floors_pass_when_either_clock_says_so() {
    let mut world = World::started();
    world.fail(busy(hours(1)));
    world.suspend(mins(59));
    assert_eq!(world.handle(Event::DeadlineReached).start, None);
    world.suspend(mins(1));
    assert_eq!(world.handle(Event::DeadlineReached).start, Some(IssueReason::Probe));

    let mut world = World::started();
    world.fail(busy(hours(1)));
    world.step_wall_back(hours(24));
    world.run_to_next_attempt();
    assert_eq!(world.now.mono, hours(1));
}

#[test]
fn the_ceiling_counts_awake_time_only() {
    let mut world = World::auth_retrying();
    world.waits(6);
    for _ in 0..3 {
        // A suspend in which the monotonic clock runs on, as it does on some systems, and one in which it stands still.
        world.advance(hours(30));
        if world.handle(Event::ClockJumped).start.is_none() {
            world.run_to_next_attempt();
        }
        world.fail(unreachable_host());
        world.suspend(hours(30));
        if world.handle(Event::ClockJumped).start.is_none() {
            world.run_to_next_attempt();
        }
        world.fail(unreachable_host());
    }
    assert_eq!(world.status(), RETRYING);
    assert!(world.awake < hours(2), "{:?}", world.awake);
}

#[test]
fn asleep_for_thirty_hours_in_auth_retrying_the_machine_tries_before_it_gives_up() {
    let mut world = World::auth_retrying();
    world.waits(30);
    assert!(world.sleep_and_wake(hours(30)).start.is_some());
    world.fail(unreachable_host());
    // The network is back after some seconds.
    world.waits(2);
    world.run_to_next_attempt();
    world.issue(hours(1));
    assert_eq!(world.status(), AuthStatus::Running);
    assert!(world.awake < hours(6));
}

#[test]
fn expiry_is_anchored_at_the_instant_the_request_was_sent() {
    let mut world = World::started();
    world.pass(secs(20));
    world.issue(hours(1));
    let ends = world.newest.unwrap().ends.unwrap();
    assert_eq!(ends.mono(), mins(60) - secs(10));
}

#[test]
fn a_missing_lifetime_is_the_assumed_one() {
    let mut world = World::with(RefreshPolicy { assumed_lifetime: Some(mins(20)), ..RefreshPolicy::DEFAULT });
    world.start();
    world.issue(None);
    world.run_to_next_attempt();
    assert!((secs(870)..=secs(900)).contains(&world.now.mono), "{:?}", world.now.mono);
    // A lifetime that the server does give is not overruled.
    world.issue(hours(10));
    assert_eq!(world.newest.unwrap().ends.unwrap().mono(), world.started[1].at.mono + hours(10) - secs(10));
}

#[test]
fn an_unknown_lifetime_needs_no_deadline_and_keeps_the_monitor_alive() {
    let mut world = World::started();
    world.issue(None);
    assert_eq!((world.machine.deadline(), world.machine.next_attempt()), (None, None));
    world.pass(hours(24));
    world.suspend(hours(10_000));
    assert_eq!(world.handle(Event::ClockJumped), Step::default());
    assert_eq!((world.serving(), world.status()), (Some(1), AuthStatus::Running));
    world.nudge();
    world.issue(None);
    assert_eq!(world.serving(), Some(2));
}

#[test]
fn durations_without_end_overflow_nothing() {
    let endless = Duration::MAX;
    let policy = RefreshPolicy {
        initial_retry_interval: endless,
        max_retry_interval: endless,
        max_tries: u32::MAX,
        max_elapsed: endless,
        auth_retrying_tick: endless,
        auth_retrying_ceiling: endless,
        attempt_timeout: endless,
        caller_wait: endless,
        blip_wait: endless,
        demand_probe_interval: Some(endless),
        refresh_ahead: crate::RefreshAhead::Fixed(endless),
        expiry_margin: endless,
        assumed_lifetime: Some(endless),
        retry_after_cap: endless,
        forced_refreshes: ForcedRefreshes { burst: 1, refill: endless },
        settle: endless,
        clock_check: endless,
    };
    assert_eq!(policy.validate(), Ok(()));
    for max_tries in [1, u32::MAX] {
        let mut world = World::with(RefreshPolicy { max_tries, ..policy.clone() });
        world.now = Now { mono: Duration::ZERO, wall: endless - secs(3) };
        world.start();
        world.issue(None);
        world.advance(secs(1));
        assert!(world.reject(Objection::Definite).start.is_some());
        world.fail(busy(endless));
        assert_eq!(world.demand(), Step::default());
        world.handle(Event::ClockJumped);
        world.now.mono = endless - secs(1);
        world.handle(Event::DeadlineReached);
    }
}
