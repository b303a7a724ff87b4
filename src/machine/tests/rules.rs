//! The rules over the table.

use super::*;

// Another run's result is dropped.

#[test]
fn a_late_token_of_the_old_run_is_not_published() {
    let mut world = World::running();
    world.run_to_next_attempt();
    world.reauthenticate();
    let old = world.strays[0];
    let late = Event::Issued { run: old.run, lifetime: Some(hours(1)), sent: old.at };
    assert_eq!(world.handle(late), Step::default());
    assert_eq!((world.status(), world.serving()), (AuthStatus::Pending, None));
    world.issue(hours(1));
    assert_eq!(world.serving(), Some(2));
}

#[test]
fn a_late_rejection_of_the_old_grant_does_not_kill_the_new_login() {
    for error in [rejected("invalid_grant"), busy(hours(1))] {
        let mut world = World::started();
        world.reauthenticate();
        let old = world.strays[0].run;
        assert_eq!(world.handle(Event::Failed { run: old, error: &error }), Step::default());
        assert_eq!((world.status(), world.machine.outlook()), (AuthStatus::Pending, Outlook::InFlight));
        // Nor does it leave a floor, or count as a try.
        world.fail(unreachable_host());
        assert!(is_about(world.wait_for_next_attempt(), secs(1), 20));
    }
}

#[test]
fn a_result_of_the_run_before_a_nudge_is_dropped() {
    let mut world = World::unauthenticated();
    let old = world.started.last().unwrap().run;
    world.pass(mins(1));
    world.nudge();
    assert_eq!(world.handle(Event::Failed { run: old, error: &rejected("invalid_grant") }), Step::default());
    assert_eq!(world.status(), AuthStatus::Pending);
}

#[test]
fn a_result_that_comes_twice_counts_once() {
    let mut world = World::started();
    let run = world.flying.unwrap().run;
    world.issue(hours(1));
    assert_eq!(world.handle(Event::Issued { run, lifetime: None, sent: world.now }), Step::default());
    assert_eq!(world.handle(Event::Failed { run, error: &rejected("invalid_grant") }), Step::default());
}

// One floor.

#[test]
fn no_attempt_starts_within_a_second_of_the_last() {
    // A forced refresh, a nudge, the end of the token and a jump, each right after an attempt.
    let mut world = World::running();
    world.reject(Objection::Definite);
    assert_eq!(world.wait_for_next_attempt(), secs(1));
    assert_eq!(world.demand(), Step::default());

    let mut world = World::running();
    world.nudge();
    assert_eq!(world.wait_for_next_attempt(), secs(1));

    let mut world = World::started();
    world.issue(Duration::from_millis(100));
    world.advance(Duration::from_millis(100));
    assert_eq!(world.demand().start, None);
    assert_eq!(world.wait_for_next_attempt(), Duration::from_millis(900));

    let mut world = World::auth_retrying();
    assert_eq!(world.handle(Event::ClockJumped).start, None);
    assert_eq!(world.wait_for_next_attempt(), secs(1));
}

#[test]
fn a_retry_after_longer_than_the_tick_beats_tick_probe_jump_and_the_end_of_the_token() {
    let mut world = World::started();
    world.issue(hours(1));
    world.run_to_next_attempt();
    for _ in 0..7 {
        world.fail_next(unreachable_host());
    }
    world.fail_next(busy(mins(59)));
    assert_eq!((world.status(), world.serving()), (RETRYING, Some(1)));
    let until = world.now.mono + mins(59);
    while world.wait_for_next_attempt() > secs(1) {
        let _ = world.nap(secs(1));
        assert_eq!(world.demand(), Step::default());
        assert_eq!(world.handle(Event::ClockJumped), Step::default());
    }
    assert_eq!(world.serving(), None);
    world.run_to_next_attempt();
    assert_eq!(world.now.mono, until);
}

#[test]
fn a_retry_after_beats_a_forced_refresh_and_demand() {
    let mut world = World::running();
    world.fail_next(busy(mins(10)));
    world.reauthenticate();
    world.issue(hours(1));
    world.pass(secs(1));
    world.nudge();
    world.fail(busy(mins(4)));
    let until = world.now.mono + mins(4);
    world.reject(Objection::Definite);
    assert_eq!(world.demand(), Step::default());
    world.run_to_next_attempt();
    assert_eq!(world.now.mono, until);
}

#[test]
fn only_a_nudge_skips_a_retry_after() {
    let mut world = World::started();
    world.fail(busy(hours(1)));
    assert_eq!(world.status(), RETRYING);
    world.pass(mins(1));
    assert_eq!(world.nudge().start, Some(IssueReason::Nudged));
    // What follows a nudge in vain is no nudge.
    world.fail(busy(hours(1)));
    assert_eq!(world.wait_for_next_attempt(), hours(1));
    assert_ne!(world.run_to_next_attempt(), IssueReason::Nudged);
}

#[test]
fn a_retry_after_outlives_a_nudge_that_reached_nobody() {
    for (error, stands) in [(unreachable_host(), true), (error_page(), false)] {
        let mut world = World::started();
        world.fail(busy(hours(1)));
        world.pass(mins(1));
        world.nudge();
        world.fail(error);
        let wait = world.wait_for_next_attempt();
        assert!(if stands { wait == mins(59) } else { is_about(wait, mins(10), 10) }, "{wait:?}");
    }
}

#[test]
fn a_retry_after_counts_up_to_its_cap() {
    let mut world = World::started();
    world.fail(busy(hours(1000)));
    assert_eq!(world.wait_for_next_attempt(), hours(1));
}

#[test]
fn refreshes_ahead_of_time_are_five_seconds_apart() {
    let mut world = World::started();
    world.issue(secs(8));
    assert_eq!(world.run_to_next_attempt(), IssueReason::Ahead);
    let first = world.now.mono;
    world.issue(secs(8));
    assert_eq!(world.run_to_next_attempt(), IssueReason::Ahead);
    assert_eq!(world.now.mono - first, secs(5));
}

#[test]
fn tokens_that_live_for_seconds_do_not_make_a_hot_loop() {
    let mut world = World::started();
    while world.now.mono < hours(1) {
        world.land_next(secs(1));
    }
    assert!((715..=722).contains(&world.started.len()), "{}", world.started.len());
}

// Nudges.

#[test]
fn a_nudge_that_has_to_wait_makes_no_refresh_late() {
    let mut world = World::running();
    world.pass(secs(20));
    world.nudge();
    world.issue(secs(8));
    world.nudge();
    let due = world.wait_for_next_attempt();
    assert!(due <= secs(4), "{due:?}");
    assert_eq!(world.run_to_next_attempt(), IssueReason::Ahead);
}

#[test]
fn nudges_every_ten_milliseconds_of_an_outage_are_bounded() {
    let mut world = World::started();
    while world.now.mono < hours(1) {
        if world.flying.is_some() {
            world.fail(unreachable_host());
        }
        world.nudge();
        world.pass(Duration::from_millis(10));
    }
    let nudged = world.started.iter().filter(|attempt| attempt.reason == IssueReason::Nudged);
    let nudged = nudged.count();
    assert!((355..=360).contains(&nudged), "{nudged}");
    assert!(world.started.len() < 375, "{}", world.started.len());
}

#[test]
fn nudges_after_a_verdict_are_ten_seconds_apart_in_spite_of_demand() {
    let mut world = World::started();
    world.fail(rejected("invalid_grant"));
    let before = world.started.len();
    let end = world.now.mono + mins(10);
    while world.now.mono < end {
        world.nudge();
        world.demand();
        if world.flying.is_some() {
            world.fail(rejected("invalid_grant"));
        }
        world.pass(Duration::from_millis(250));
    }
    let attempts = world.started.len() - before;
    assert!((59..=61).contains(&attempts), "{attempts}");
}

#[test]
fn demand_that_comes_before_a_delayed_nudge_takes_its_place() {
    let mut world = World::running();
    world.pass(secs(5));
    world.nudge();
    world.issue(secs(2));
    world.run_to_next_attempt();
    world.issue(secs(2));
    world.nudge();
    assert!(world.wait_for_next_attempt() > secs(3));
    world.suspend(secs(2));
    assert_eq!(world.demand().start, Some(IssueReason::Expired));
}

#[test]
fn a_jump_does_not_turn_a_delayed_nudge_into_an_early_one() {
    let mut world = World::auth_retrying();
    world.pass(mins(1));
    world.nudge();
    world.fail(unreachable_host());
    world.nudge();
    world.handle(Event::ClockJumped);
    assert_eq!(world.run_to_next_attempt(), IssueReason::Probe);
}

// Nothing is forgotten.

#[test]
fn a_nudge_during_an_attempt_is_acted_on_when_it_fails() {
    for (condition, mut world) in World::live() {
        if world.flying.is_none() {
            world.run_to_next_attempt();
        }
        world.nudge();
        world.fail(busy(mins(4)));
        assert_eq!(world.wait_for_next_attempt(), secs(1), "{condition}");
        assert_eq!(world.run_to_next_attempt(), IssueReason::Nudged, "{condition}");
    }
}

#[test]
fn a_nudge_during_the_last_attempt_before_the_ceiling_gets_its_own() {
    let mut world = World::auth_retrying();
    world.run_to_next_attempt();
    world.pass(hours(25));
    world.nudge();
    world.fail(unreachable_host());
    assert_eq!((world.status(), world.run_to_next_attempt()), (RETRYING, IssueReason::Nudged));
    world.fail(unreachable_host());
    assert!(!world.status().is_live());
}

#[test]
fn a_verdict_answers_the_nudge_that_came_before_it() {
    let mut world = World::running();
    world.run_to_next_attempt();
    world.nudge();
    world.fail(rejected("invalid_grant"));
    assert_eq!(world.status(), rejected_with("invalid_grant"));
}

#[test]
fn a_token_fulfils_the_nudge_and_the_jump_that_came_before_it() {
    let mut world = World::auth_retrying();
    world.run_to_next_attempt();
    world.nudge();
    world.handle(Event::ClockJumped);
    world.issue(hours(1));
    assert!(is_about(world.wait_for_next_attempt(), mins(45), 4));
}

#[test]
fn a_jump_during_an_attempt_is_acted_on_when_it_fails() {
    let mut world = World::auth_retrying();
    world.run_to_next_attempt();
    world.sleep_and_wake(hours(8));
    world.fail(unreachable_host());
    assert_eq!(world.wait_for_next_attempt(), secs(1));
    let waits = world.waits(4);
    for (wait, exact) in waits.iter().zip([1, 1, 2, 4]) {
        assert!(is_about(*wait, secs(exact), 20), "{waits:?}");
    }
}

#[test]
fn a_jump_during_the_last_try_of_the_short_retry_runs_it_again() {
    let mut world = World::started();
    for _ in 0..7 {
        world.fail_next(unreachable_host());
    }
    world.run_to_next_attempt();
    world.sleep_and_wake(hours(8));
    world.fail(unreachable_host());
    assert_eq!((world.status(), world.wait_for_next_attempt()), (RETRYING, secs(1)));
}

#[test]
fn a_clock_that_jumps_during_every_attempt_does_not_keep_the_short_retry_at_its_shortest_wait() {
    let mut world = World::auth_retrying();
    world.handle(Event::ClockJumped);
    let from = world.now.mono;
    while world.now.mono < from + hours(1) {
        world.run_to_next_attempt();
        world.handle(Event::ClockJumped);
        world.fail(unreachable_host());
        world.handle(Event::ClockJumped);
    }
    let attempts = world.attempts_since(from);
    assert!(attempts < 260, "{attempts}");
}

#[test]
fn claims_that_come_in_during_an_attempt_lead_to_another_when_it_succeeds() {
    let mut world = World::running();
    world.run_to_next_attempt();
    world.reject(Objection::Claims);
    world.issue(hours(1));
    assert_eq!((world.status(), world.wait_for_next_attempt()), (AuthStatus::Running, secs(1)));
    assert_eq!(world.run_to_next_attempt(), IssueReason::Rejected);
    world.issue(hours(1));
    assert!(is_about(world.wait_for_next_attempt(), mins(45), 4));
}

#[test]
fn claims_that_come_in_between_attempts_ride_on_the_next() {
    let mut world = World::running();
    world.fail_next(unreachable_host());
    let due = world.machine.next_attempt();
    world.reject(Objection::Claims);
    assert_eq!(world.machine.next_attempt(), due);
}

#[test]
fn a_rejection_during_a_refresh_ahead_joins_it() {
    let mut world = World::running();
    world.run_to_next_attempt();
    world.reject(Objection::Definite);
    assert_eq!(world.serving(), None);
    world.issue(hours(1));
    assert!(is_about(world.wait_for_next_attempt(), mins(45), 4));
    assert_eq!(world.started.len(), 2);
}

#[test]
fn an_acceptance_does_not_forget_what_was_asked_for() {
    // A nudge that waits for its ten seconds, and claims that wait for the floor.
    let mut world = World::refused();
    world.pass(secs(2));
    world.nudge();
    world.issue(hours(1));
    world.nudge();
    world.accept();
    assert_eq!((world.status(), world.run_to_next_attempt()), (AuthStatus::Running, IssueReason::Nudged));

    let mut world = World::refused();
    world.pass(mins(15));
    if world.flying.is_none() {
        world.run_to_next_attempt();
    }
    world.reject(Objection::Claims);
    world.issue(hours(1));
    world.accept();
    assert_eq!((world.status(), world.run_to_next_attempt()), (AuthStatus::Running, IssueReason::Rejected));
}

#[test]
fn an_acceptance_joins_the_attempt_in_flight() {
    let mut world = World::refused();
    world.run_to_next_attempt();
    world.accept();
    assert_eq!((world.status(), world.machine.outlook()), (AuthStatus::Running, Outlook::InFlight));
    world.fail(unreachable_host());
    assert!(is_about(world.wait_for_next_attempt(), secs(1), 20));
}

#[test]
fn a_cancelled_attempt_changes_nothing() {
    for (condition, mut world) in World::live() {
        if world.flying.is_none() {
            world.run_to_next_attempt();
        }
        world.pass(hours(25));
        let (status, news) = (world.status(), world.published.len());
        for _ in 0..20 {
            let cancelled = IssueError::new(Verdict::Cancelled, Delivery::NotSent, "test-cancelled", "shut down");
            assert_eq!(world.fail_next(cancelled), Step::default(), "{condition}");
        }
        assert_eq!((world.status(), world.published.len()), (status, news), "{condition}");
    }
}

// Unknown OAuth codes.

#[test]
fn an_unknown_code_is_a_verdict_after_max_tries_answers_over_a_minute() {
    let mut world = World::started();
    while world.status() == AuthStatus::Pending {
        world.fail_next(unknown_code("access_denied"));
    }
    assert_eq!(world.status(), rejected_with("access_denied"));
    assert_eq!(world.started.len(), 8);
}

#[test]
fn an_unknown_code_is_no_verdict_within_a_minute() {
    let policy = RefreshPolicy { max_retry_interval: secs(1), auth_retrying_tick: secs(5), ..RefreshPolicy::DEFAULT };
    let mut world = World::with(policy);
    world.start();
    while world.status().is_live() {
        assert!(world.now.mono < secs(70));
        world.fail_next(unknown_code("access_denied"));
    }
    assert!(world.now.mono >= secs(60) && world.started.len() > 8);
    assert_eq!(world.status(), rejected_with("access_denied"));
}

#[test]
fn answers_between_break_the_row_of_an_unknown_code_and_broken_connections_do_not() {
    for (between, verdict) in [
        (unreachable_host as fn() -> IssueError, true),
        (|| IssueError::of_rule(Delivery::Unknown, "test-reset"), true),
        (error_page, false),
        (|| unknown_code("invalid_request"), false),
    ] {
        let mut world = World::started();
        for _ in 0..4 {
            world.fail_next(unknown_code("access_denied"));
        }
        world.fail_next(between());
        for _ in 0..4 {
            world.fail_next(unknown_code("access_denied"));
        }
        assert_eq!(!world.status().is_live(), verdict, "{}", between());
    }
}

#[test]
fn a_token_between_breaks_the_row_of_an_unknown_code() {
    let mut world = World::started();
    for _ in 0..7 {
        world.fail_next(unknown_code("access_denied"));
    }
    world.land_next(secs(60));
    world.pass(secs(55));
    for _ in 0..7 {
        world.fail_next(unknown_code("access_denied"));
    }
    assert!(world.status().is_live());
}

#[test]
fn an_unknown_code_is_no_verdict_while_a_token_is_served() {
    let mut world = World::started();
    world.issue(hours(20));
    while world.serving().is_some() {
        assert!(world.status().is_live());
        world.fail_next(unknown_code("access_denied"));
    }
    // The end of the token started the last attempt.
    assert_eq!(world.status(), rejected_with("access_denied"));
}

#[test]
fn a_nudge_after_a_confirmed_code_has_it_confirmed_anew() {
    let mut world = World::started();
    while world.status().is_live() {
        world.fail_next(unknown_code("access_denied"));
    }
    world.pass(mins(1));
    world.nudge();
    world.fail(unknown_code("access_denied"));
    assert_eq!(world.status(), AuthStatus::Pending);
}

// Serving and callers.

#[test]
fn a_servable_token_is_served_in_every_state_but_stopped() {
    let mut world = World::running();
    world.run_to_next_attempt();
    world.exhaust();
    assert_eq!((world.status(), world.serving()), (RETRYING, Some(1)));
    world.fail_next(rejected("invalid_grant"));
    assert_eq!(world.serving(), Some(1));
    // Its end is the last thing that happens, and news.
    let ends = world.machine.deadline().unwrap();
    world.pass(ends.remaining(world.now));
    assert_eq!(world.published.last(), Some(&(rejected_with("invalid_grant"), false)));
    assert_eq!(world.machine.deadline(), None);
}

#[test]
fn a_nudged_run_serves_the_old_token_until_it_ends() {
    let mut world = World::unauthenticated();
    world.nudge();
    let ends = world.newest.unwrap().ends.unwrap();
    world.run_to_next_attempt();
    world.pass(ends.remaining(world.now));
    assert_eq!(world.published.last(), Some(&(AuthStatus::Pending, false)));
    assert_eq!(world.machine.outlook(), Outlook::InFlight);
}

#[test]
fn a_token_that_is_replaced_as_it_ends_is_no_news() {
    let mut world = World::running();
    world.run_to_next_attempt();
    let ends = world.newest.unwrap().ends.unwrap();
    world.advance(ends.remaining(world.now));
    let step = world.issue(hours(2));
    assert_eq!((step.publish, world.serving()), (None, Some(2)));
}

#[test]
fn callers_wait_for_a_blip_and_hear_when_the_next_attempt_is() {
    let mut world = World::started();
    world.fail(unreachable_host());
    assert_eq!(world.machine.outlook(), Outlook::From(world.machine.next_attempt().unwrap()));
    world.exhaust();
    // In the long window the earliest attempt is the probe that the caller's own demand may start.
    let Outlook::FailFast(Some(from)) = world.machine.outlook() else { panic!("{:?}", world.machine.outlook()) };
    assert!(is_about(from.remaining(world.now), secs(30), 10));
}

#[test]
fn while_the_short_retry_runs_again_in_the_long_window_demand_waits_for_it() {
    let mut world = World::auth_retrying();
    world.handle(Event::ClockJumped);
    world.waits(6);
    // The next try is due in about 32 s, a probe would be in 30 s.
    assert_eq!(world.machine.outlook(), Outlook::FailFast(world.machine.next_attempt()));
}
