//! What a resource server's refusals do, as far as the machine decides it.

use super::*;

#[test]
fn a_stale_rejection_changes_nothing() {
    let mut world = World::running();
    world.pass(secs(2));
    world.reject(Objection::Suspect);
    let old = world.generation();
    world.issue(hours(1));
    world.pass(secs(2));
    let budget = world.machine.forced_budget();
    for objection in OBJECTIONS {
        assert_eq!(world.handle(Event::Rejected { generation: old, objection }), Step::default());
    }
    assert_eq!(world.machine.forced_budget(), budget);
    assert!(is_about(world.wait_for_next_attempt(), mins(45), 4));
    // It is no strike either: two more make two.
    world.reject(Objection::Suspect);
    world.issue(hours(1));
    assert_eq!(world.status(), AuthStatus::Running);
}

#[test]
fn an_empty_bucket_lets_the_rejection_pass_and_marks_nothing() {
    let mut world = World::running();
    for _ in 0..4 {
        world.accept();
        world.pass(secs(2));
        assert_eq!(world.reject(Objection::Definite).start, Some(IssueReason::Rejected));
        world.issue(hours(1));
    }
    world.pass(secs(2));
    assert!(world.machine.forced_budget().is_empty(world.policy.forced_refreshes, world.now));
    for objection in OBJECTIONS {
        assert_eq!(world.reject(objection), Step::default());
    }
    assert_eq!((world.status(), world.serving()), (AuthStatus::Running, Some(5)));
    // One refresh is back after a quarter of an hour.
    world.pass(mins(15));
    assert_eq!(world.reject(Objection::Definite).start, Some(IssueReason::Rejected));
}

#[test]
fn a_static_token_that_is_refused_ends_the_run_and_is_served_on() {
    for objection in OBJECTIONS {
        let mut world = World::with_static_token();
        assert_eq!(world.reject(objection).publish, Some(REFUSED_FOR_GOOD));
        assert_eq!(world.reject(objection), Step::default());
        assert_eq!((world.serving(), world.machine.open_run()), (Some(1), None));
        // A resource server that recovers is believed, and may change its mind again.
        assert_eq!(world.accept().publish, Some(AuthStatus::Running));
        assert_eq!(world.accept(), Step::default());
        assert_eq!(world.reject(objection).publish, Some(REFUSED_FOR_GOOD));
        assert_eq!(world.started.len(), 1);
    }
}

#[test]
fn a_definite_rejection_withdraws_the_token_and_forces_one_refresh() {
    let mut world = World::running();
    world.pass(mins(1));
    let step = world.reject(Objection::Definite);
    assert_eq!(step.start, Some(IssueReason::Rejected));
    // A token that is no longer served is news.
    assert_eq!(step.publish, Some(AuthStatus::Running));
    assert_eq!((world.serving(), world.machine.outlook()), (None, Outlook::InFlight));
    for _ in 0..1000 {
        assert_eq!(world.reject(Objection::Definite), Step::default());
    }
    world.issue(hours(1));
    assert_eq!((world.serving(), world.started.len()), (Some(2), 2));
}

#[test]
fn a_suspect_token_is_served_while_one_refresh_is_forced() {
    for objection in [Objection::Suspect, Objection::Claims] {
        let mut world = World::running();
        world.pass(mins(1));
        assert_eq!(world.reject(objection), Step { start: Some(IssueReason::Rejected), ..Step::default() });
        assert_eq!(world.serving(), Some(1));
        for _ in 0..1000 {
            assert_eq!(world.reject(Objection::Suspect), Step::default());
        }
        world.issue(hours(1));
        world.pass(mins(1));
        assert_eq!((world.serving(), world.started.len()), (Some(2), 2));
    }
}

#[test]
fn one_refusal_costs_one_forced_refresh() {
    let mut world = World::running();
    world.pass(mins(1));
    let full = world.machine.forced_budget();
    world.reject(Objection::Suspect);
    let spent = world.machine.forced_budget();
    assert_ne!(spent, full);
    world.reject(Objection::Suspect);
    world.reject(Objection::Definite);
    assert_eq!(world.machine.forced_budget(), spent);
}

#[test]
fn a_nudge_that_has_to_wait_holds_up_no_forced_refresh() {
    for objection in [Objection::Definite, Objection::Suspect, Objection::Claims] {
        let mut world = nudged_twice(World::running());
        assert_eq!(world.reject(objection).start, Some(IssueReason::Rejected));
    }
}

#[test]
fn a_nudge_that_has_to_wait_hides_no_refusal_of_a_static_token() {
    let mut world = nudged_twice(World::with_static_token());
    world.reject(Objection::Suspect);
    assert_eq!(world.status(), AuthStatus::Unauthenticated(UnauthenticatedReason::RejectedByResource));
}

#[test]
fn a_nudge_that_has_to_wait_does_not_keep_the_third_refused_token_out_of_the_long_window() {
    let mut world = World::running();
    world.pass(secs(20));
    world.nudge();
    world.issue(hours(1));
    for _ in 0..2 {
        world.pass(secs(2));
        world.reject(Objection::Suspect);
        world.issue(hours(1));
    }
    world.pass(secs(2));
    world.nudge();
    assert_eq!(world.reject(Objection::Suspect).publish, Some(REFUSED));
    assert_eq!(world.wait_for_next_attempt(), secs(4));
    assert_eq!(world.run_to_next_attempt(), IssueReason::Nudged);
}

#[test]
fn a_token_of_unknown_lifetime_is_refreshed_when_it_is_refused() {
    let mut world = World::started();
    world.issue(None);
    world.pass(hours(1000));
    assert_eq!(world.reject(Objection::Definite).start, Some(IssueReason::Rejected));
    world.fail(unreachable_host());
    assert!(is_about(world.wait_for_next_attempt(), secs(1), 20));
}

#[test]
fn the_third_fresh_token_refused_in_a_row_leads_to_the_long_window() {
    for objection in OBJECTIONS {
        let mut world = World::running();
        for _ in 0..2 {
            world.reject(objection);
            world.land_next(hours(1));
            assert_eq!(world.status(), AuthStatus::Running);
        }
        assert_eq!(world.reject(objection).publish, Some(REFUSED));
        assert_eq!(world.serving().is_none(), objection == Objection::Definite);
        assert!(is_about(world.wait_for_next_attempt(), mins(10), 10));
        assert_eq!(world.started.len(), 3);
    }
}

#[test]
fn refusing_one_token_often_is_one_strike() {
    let mut world = World::running();
    for _ in 0..2 {
        for _ in 0..10 {
            world.reject(Objection::Suspect);
            assert_eq!(world.status(), AuthStatus::Running);
        }
        world.land_next(hours(1));
    }
    world.reject(Objection::Suspect);
    assert_eq!(world.status(), REFUSED);
}

#[test]
fn an_acceptance_between_clears_the_strikes() {
    let mut world = World::running();
    for _ in 0..2 {
        world.reject(Objection::Suspect);
        world.land_next(hours(1));
    }
    world.accept();
    world.pass(mins(15));
    for _ in 0..2 {
        world.reject(Objection::Suspect);
        world.land_next(hours(1));
        assert_eq!(world.status(), AuthStatus::Running);
    }
    world.reject(Objection::Suspect);
    assert_eq!(world.status(), REFUSED);
}

#[test]
fn a_token_that_nobody_refused_breaks_the_row() {
    let mut world = World::running();
    for _ in 0..2 {
        world.reject(Objection::Suspect);
        world.land_next(hours(1));
    }
    // The third is replaced in its time.
    world.land_next(hours(1));
    world.reject(Objection::Suspect);
    assert_eq!(world.status(), AuthStatus::Running);
}

#[test]
fn elsewhere_a_rejection_only_marks() {
    let mut worlds = World::live();
    worlds.push(("unauthenticated", World::unauthenticated()));
    for (condition, mut world) in worlds {
        if world.serving().is_none() || condition == "running" {
            continue;
        }
        let (budget, next) = (world.machine.forced_budget(), world.machine.next_attempt());
        assert_eq!(world.reject(Objection::Suspect), Step::default(), "{condition}");
        let status = world.status();
        let step = world.reject(Objection::Definite);
        assert_eq!(step, Step { publish: Some(status), ..Step::default() }, "{condition}");
        assert_eq!(world.serving(), None, "{condition}");
        assert_eq!((world.machine.forced_budget(), world.machine.next_attempt()), (budget, next), "{condition}");
    }
}

#[test]
fn in_the_refused_window_a_probe_is_one_more_forced_refresh() {
    let mut world = World::refused();
    world.reject(Objection::Definite);
    let entered = world.now.mono;
    let mut probes = 0;
    while world.now.mono < entered + mins(20) {
        let probed = world.demand().start.is_some();
        probes += usize::from(probed);
        if world.flying.is_some() {
            world.issue(hours(1));
            world.reject(Objection::Definite);
        }
        world.pass(secs(1));
    }
    // The budget of four had two left, and another refresh has come back since.
    assert!((2..=3).contains(&probes), "{probes}");
}

#[test]
fn callers_in_the_refused_window_are_not_told_of_a_probe_that_the_budget_does_not_allow() {
    let mut world = World::refused();
    world.reject(Objection::Definite);
    while !world.machine.forced_budget().is_empty(world.policy.forced_refreshes, world.now) {
        world.pass(secs(10));
        if world.demand().start.is_some() {
            world.fail(unreachable_host());
        }
    }
    // The next probe's gap is 2 min, the tick 10 min, and a refresh is back within 15 min.
    world.pass(mins(3));
    assert_eq!(world.machine.outlook(), Outlook::FailFast(world.machine.next_attempt()));
    assert_eq!(world.demand(), Step::default());
}

#[test]
fn an_acceptance_of_an_older_token_is_ignored() {
    let mut world = World::running();
    let old = world.generation();
    for _ in 0..2 {
        world.reject(Objection::Suspect);
        world.land_next(hours(1));
        assert_eq!(world.handle(Event::Accepted(old)), Step::default());
    }
    world.reject(Objection::Suspect);
    assert_eq!(world.status(), REFUSED);
    assert_eq!(world.handle(Event::Accepted(old)), Step::default());
}

#[test]
fn an_acceptance_of_a_withdrawn_token_comes_too_late() {
    let mut world = World::refused();
    world.reject(Objection::Definite);
    assert_eq!(world.accept(), Step::default());
    assert_eq!(world.status(), REFUSED);
}

#[test]
fn an_acceptance_elsewhere_changes_no_status() {
    let mut worlds = World::live();
    worlds.push(("unauthenticated", World::unauthenticated()));
    for (condition, mut world) in worlds {
        if world.serving().is_some() && world.status() != REFUSED {
            assert_eq!(world.accept(), Step::default(), "{condition}");
        }
    }
}

#[test]
fn a_rejection_of_the_old_account_does_not_touch_the_new_one() {
    let mut world = World::running();
    let old = world.generation();
    world.reauthenticate();
    for objection in OBJECTIONS {
        assert_eq!(world.handle(Event::Rejected { generation: old, objection }), Step::default());
    }
    world.issue(hours(1));
    assert_eq!(world.handle(Event::Rejected { generation: old, objection: Objection::Definite }), Step::default());
    assert!(is_about(world.wait_for_next_attempt(), mins(45), 4));
}

const OBJECTIONS: [Objection; 3] = [Objection::Definite, Objection::Suspect, Objection::Claims];

/// The second nudge is ten seconds from the first, which has brought a token; two of these have passed.
fn nudged_twice(mut world: World) -> World {
    world.pass(secs(20));
    world.nudge();
    world.issue(hours(1));
    world.nudge();
    world.pass(secs(2));
    assert_eq!(world.wait_for_next_attempt(), secs(8));
    world
}
