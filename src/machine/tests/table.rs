//! The table of the states, one test per row.

use super::*;

#[test]
fn starting_makes_the_initial_attempt() {
    let mut world = World::new();
    let step = world.start();
    assert_eq!(step, Step { start: Some(IssueReason::Initial), ..Step::default() });
    assert_eq!((world.status(), world.machine.outlook()), (AuthStatus::Pending, Outlook::InFlight));
}

#[test]
fn a_token_leads_to_running_from_pending_running_and_auth_retrying() {
    for (condition, mut world) in World::live() {
        if matches!(world.status(), REFUSED) {
            continue;
        }
        let (newest, announced) = (world.serving(), world.published.len());
        let first = world.started.len();
        let step = world.land_next(hours(1));
        assert_eq!(world.serving(), Some(newest.unwrap_or(0) + 1), "{condition}");
        assert_eq!(world.status(), AuthStatus::Running, "{condition}");
        assert_eq!(step.adopted.unwrap().generation, world.generation(), "{condition}");
        assert_eq!(
            world.started.len().saturating_sub(first),
            usize::from(!condition.contains("flight")),
            "{condition}"
        );
        // One piece of news where there was any: a refreshed token is none.
        let news = world.published.len() - announced;
        assert_eq!(news, usize::from(!condition.starts_with("running")), "{condition}");
        // The schedules are cleared: the next thing to do is the refresh ahead of expiry.
        assert!(is_about(world.wait_for_next_attempt(), mins(45), 4), "{condition}: {world:?}", world = world.machine);
        assert_eq!(world.run_to_next_attempt(), IssueReason::Ahead, "{condition}");
    }
}

#[test]
fn a_token_that_cannot_be_served_on_arrival_is_a_failed_attempt() {
    let mut world = World::started();
    world.pass(secs(15));
    let step = world.issue(secs(10));
    assert_eq!((step, world.status(), world.serving()), (Step::default(), AuthStatus::Pending, None));
    assert!(is_about(world.wait_for_next_attempt(), secs(1), 20));
    while world.status() == AuthStatus::Pending {
        world.run_to_next_attempt();
        world.pass(secs(10));
        world.issue(secs(10));
    }
    assert_eq!((world.status(), world.started.len()), (RETRYING, 8));
}

#[test]
fn a_refresh_that_is_due_runs_while_the_held_token_is_served() {
    let mut world = World::running();
    assert_eq!(world.run_to_next_attempt(), IssueReason::Ahead);
    assert_eq!((world.status(), world.serving()), (AuthStatus::Running, Some(1)));
    world.issue(hours(1));
    assert_eq!((world.published.len(), world.serving()), (1, Some(2)));
}

#[test]
fn demand_for_a_token_that_is_gone_starts_an_attempt() {
    let mut world = World::running();
    world.suspend(hours(8));
    let step = world.demand();
    assert_eq!(step.start, Some(IssueReason::Expired));
    assert_eq!((world.status(), world.machine.outlook()), (AuthStatus::Running, Outlook::InFlight));
}

#[test]
fn demand_for_a_token_that_is_held_or_on_its_way_starts_nothing() {
    for (condition, mut world) in World::live() {
        if world.flying.is_some() || world.serving().is_some() {
            assert_eq!(world.demand(), Step::default(), "{condition}");
        }
    }
}

#[test]
fn demand_waits_for_a_pending_backoff() {
    let mut refused = World::running();
    refused.reject(Objection::Definite);
    for mut world in [World::started(), refused] {
        for _ in 0..3 {
            world.fail_next(unreachable_host());
        }
        assert_eq!(world.machine.outlook(), Outlook::From(world.machine.next_attempt().unwrap()));
        world.pass(secs(2));
        assert_eq!(world.demand(), Step::default());
        assert!(is_about(world.wait_for_next_attempt(), secs(2), 45));
    }
}

#[test]
fn a_transient_failure_in_pending_or_running_changes_no_status() {
    for mut world in [World::started(), World::running()] {
        let (status, serving, news) = (world.status(), world.serving(), world.published.len());
        world.fail_next(unreachable_host());
        assert_eq!((world.status(), world.serving(), world.published.len()), (status, serving, news));
        assert!(is_about(world.wait_for_next_attempt(), secs(1), 20));
    }
}

#[test]
fn an_exhausted_short_retry_leads_to_auth_retrying_once() {
    for mut world in [World::started(), World::running()] {
        let news = world.published.len();
        if world.flying.is_none() {
            world.run_to_next_attempt();
        }
        let before = world.started.len();
        world.exhaust();
        assert_eq!(world.started.len() - before, 7);
        world.waits(20);
        assert_eq!((world.status(), &world.published[news].0), (RETRYING, &RETRYING));
        let again =
            world.published[news + 1..].iter().filter(|(status, serving)| (status, *serving) != (&RETRYING, false));
        assert_eq!(again.count(), 0);
    }
}

#[test]
fn in_auth_retrying_every_attempt_arms_the_tick_again() {
    for wait in World::auth_retrying().waits(50) {
        assert!(is_about(wait, mins(10), 10), "{wait:?}");
    }
}

#[test]
fn in_auth_retrying_the_end_of_the_held_token_starts_an_attempt() {
    let mut world = World::started();
    world.issue(mins(4));
    world.run_to_next_attempt();
    world.exhaust();
    // The short retry of two minutes began in the middle of the token's life.
    assert_eq!((world.status(), world.serving()), (RETRYING, None));

    let mut world = World::started();
    world.issue(mins(12));
    world.run_to_next_attempt();
    world.exhaust();
    assert_eq!((world.status(), world.serving()), (RETRYING, Some(1)));
    let ends = world.newest.unwrap().ends.unwrap();
    assert!(ends.remaining(world.now) < mins(5));
    assert_ne!(world.run_to_next_attempt(), IssueReason::Ahead);
    assert_eq!((world.now.mono, world.serving()), (ends.mono(), None));
    world.fail(unreachable_host());
    assert!(is_about(world.wait_for_next_attempt(), mins(10), 10));
}

#[test]
fn a_failure_in_auth_retrying_is_no_news() {
    let mut world = World::auth_retrying();
    let news = world.published.len();
    world.waits(10);
    assert_eq!((world.status(), world.published.len()), (RETRYING, news));
}

#[test]
fn the_first_failure_after_the_ceiling_ends_the_run() {
    let mut world = World::auth_retrying();
    let entered = world.now.mono;
    while world.status() == RETRYING {
        world.waits(1);
    }
    let ceiling = UnauthenticatedReason::CeilingExceeded(hours(24));
    assert_eq!(world.published.last(), Some(&(AuthStatus::Unauthenticated(ceiling), false)));
    let lasted = world.now.mono - entered;
    assert!((hours(24)..hours(24) + mins(11)).contains(&lasted), "{lasted:?}");
    assert_eq!((world.machine.open_run(), world.machine.deadline()), (None, None));
}

#[test]
fn no_timer_fires_the_ceiling() {
    let mut world = World::auth_retrying();
    world.run_to_next_attempt();
    world.pass(hours(30));
    assert_eq!(world.status(), RETRYING);
    world.issue(hours(40));
    assert_eq!(world.status(), AuthStatus::Running);
}

#[test]
fn demand_in_auth_retrying_starts_a_probe_once_its_gap_has_passed() {
    let mut world = World::auth_retrying();
    world.pass(secs(26));
    assert_eq!(world.demand(), Step::default());
    world.pass(secs(7));
    assert_eq!(world.demand().start, Some(IssueReason::Probe));
    // The caller fails fast all the same.
    assert_eq!(world.machine.outlook(), Outlook::FailFast(None));
    world.fail(unreachable_host());
    assert!(is_about(world.wait_for_next_attempt(), mins(10), 10));
    assert!(
        matches!(world.machine.outlook(), Outlook::FailFast(Some(from)) if is_about(from.remaining(world.now), secs(60), 10))
    );
}

#[test]
fn a_clock_jump_in_auth_retrying_runs_the_short_retry_again() {
    let mut world = World::auth_retrying();
    world.pass(mins(3));
    let (news, awake) = (world.published.len(), world.awake);
    assert_eq!(world.sleep_and_wake(hours(8)).start, Some(IssueReason::Probe));
    world.fail(unreachable_host());
    let waits = world.waits(8);
    for (nth, (wait, exact)) in waits.iter().zip([1, 2, 4, 8, 16, 32, 64, 600]).enumerate() {
        assert!(is_about(*wait, secs(exact), 20), "wait {nth}: {wait:?}");
    }
    assert_eq!((world.status(), world.published.len()), (RETRYING, news));
    assert_eq!(world.awake, awake + waits.iter().sum::<Duration>());
}

#[test]
fn a_clock_jump_in_pending_or_running_re_evaluates_deadlines_at_once() {
    let mut world = World::running();
    assert_eq!(world.sleep_and_wake(mins(50)).start, Some(IssueReason::Ahead));
    assert_eq!(world.serving(), Some(1));

    let mut world = World::running();
    assert_eq!(world.sleep_and_wake(hours(8)).start, Some(IssueReason::Expired));
    assert_eq!(world.published.last(), Some(&(AuthStatus::Running, false)));

    let mut world = World::started();
    world.fail(busy(mins(3)));
    assert_eq!(world.sleep_and_wake(mins(2)), Step::default());
    assert!(world.sleep_and_wake(mins(1)).start.is_some());
}

#[test]
fn a_rejected_grant_ends_the_run_at_once() {
    for (condition, mut world) in World::live() {
        if world.flying.is_none() {
            world.run_to_next_attempt();
        }
        let serving = world.serving();
        let step = world.fail(rejected("invalid_grant"));
        assert_eq!(step.publish, Some(rejected_with("invalid_grant")), "{condition}");
        assert_eq!((world.machine.open_run(), world.machine.next_attempt()), (None, None), "{condition}");
        assert_eq!(world.machine.outlook(), Outlook::Closed, "{condition}");
        // The grant is dead, the token it gave is not.
        assert_eq!(world.serving(), serving, "{condition}");
    }
}

#[test]
fn a_nudge_starts_an_attempt_in_any_live_state() {
    for (condition, mut world) in World::live() {
        if world.flying.is_none() {
            world.pass(secs(1));
            let status = world.status();
            if world.flying.is_none() {
                assert_eq!(world.nudge().start, Some(IssueReason::Nudged), "{condition}");
            }
            assert_eq!(world.status(), status, "{condition}");
        }
    }
}

#[test]
fn a_nudge_after_the_end_of_a_run_opens_the_next_with_the_same_source() {
    let mut world = World::unauthenticated();
    world.pass(mins(1));
    let step = world.nudge();
    assert_eq!(step, Step { start: Some(IssueReason::Nudged), publish: Some(AuthStatus::Pending), adopted: None });
    assert_eq!(world.serving(), Some(1));
    world.issue(hours(1));
    assert_eq!((world.status(), world.serving()), (AuthStatus::Running, Some(2)));
}

#[test]
fn new_credentials_open_a_new_run_from_every_state_but_stopped() {
    let mut worlds = World::live();
    worlds.extend([("unauthenticated", World::unauthenticated()), ("refused for good", World::refused_for_good())]);
    for (condition, mut world) in worlds {
        let (old, newest) = (world.started.last().unwrap().run, world.last_generation);
        let step = world.reauthenticate();
        assert_eq!(step.start, Some(IssueReason::Initial), "{condition}");
        assert_eq!((world.status(), world.serving()), (AuthStatus::Pending, None), "{condition}");
        assert_ne!(world.machine.open_run(), Some(old), "{condition}");
        world.issue(hours(1));
        assert!(world.last_generation > newest, "{condition}");
    }
}

#[test]
fn new_credentials_drop_floors_counters_and_budget() {
    let mut world = World::refused();
    world.nudge();
    world.fail_next(busy(hours(1)));
    assert_eq!(world.reauthenticate().start, Some(IssueReason::Initial));
    world.issue(hours(1));
    // A whole new budget, no strike, no wait between nudges.
    for _ in 0..2 {
        world.reject(Objection::Suspect);
        world.land_next(hours(1));
        assert_eq!(world.status(), AuthStatus::Running);
    }
    world.pass(secs(1));
    assert_eq!(world.nudge().start, Some(IssueReason::Nudged));
}

#[test]
fn a_token_in_the_refused_window_is_served_and_refreshed_once_per_tick() {
    let mut world = World::refused();
    let entered = world.now.mono;
    for generation in 4..20 {
        let before = world.now.mono;
        world.land_next(hours(1));
        assert!(is_about(world.now.mono - before, mins(10), 10));
        assert_eq!((world.status(), world.serving()), (REFUSED, Some(generation)));
    }
    assert_eq!(world.attempts_since(entered + secs(1)), 16);
}

#[test]
fn an_acceptance_ends_the_refused_window() {
    let mut world = World::refused();
    assert_eq!(world.accept().publish, Some(AuthStatus::Running));
    assert_eq!(world.run_to_next_attempt(), IssueReason::Ahead);
}

#[test]
fn an_acceptance_revives_a_static_token() {
    let mut world = World::refused_for_good();
    assert_eq!(world.accept().publish, Some(AuthStatus::Running));
    assert!(world.machine.open_run().is_some());
    assert_eq!(world.serving(), Some(1));
}

#[test]
fn a_stop_is_final() {
    let mut worlds = World::live();
    worlds.extend([("unauthenticated", World::unauthenticated()), ("new", World::new())]);
    for (condition, mut world) in worlds {
        let flying = world.flying;
        let step = world.handle(Event::ShutDown(StopReason::ShutDown));
        assert_eq!(step, Step { publish: Some(STOPPED), ..Step::default() }, "{condition}");
        assert_eq!((world.serving(), world.machine.deadline()), (None, None), "{condition}");
        for event in [
            Event::Start,
            Event::Demanded,
            Event::Nudged,
            Event::ClockJumped,
            Event::Reauthenticated { can_refresh: true },
            Event::ShutDown(StopReason::HandlesDropped),
        ] {
            assert_eq!(world.handle(event), Step::default(), "{condition}");
        }
        if let Some(Attempt { run, at, .. }) = flying {
            assert_eq!(world.handle(Event::Issued { run, lifetime: None, sent: at }), Step::default(), "{condition}");
            let error = &rejected("invalid_grant");
            assert_eq!(world.handle(Event::Failed { run, error }), Step::default(), "{condition}");
        }
        assert_eq!((world.status(), world.machine.open_run()), (STOPPED, None), "{condition}");
    }
}
