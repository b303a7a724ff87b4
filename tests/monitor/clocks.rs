//! Machines that sleep, and wall clocks that are set.

use std::time::Duration;

use steadfast::{AuthStatus, IssueReason, RefreshPolicy, UnauthenticatedReason};
use tokio::time::{advance, sleep};

use crate::world::{
    AUTH_RETRYING, DAY, FakeSource, HOUR, MILLISECOND, MINUTE, SECOND, World, failure, quiet, rejection, token,
};

#[tokio::test(start_paused = true)]
async fn after_a_sleep_the_token_is_refreshed_within_clock_check() {
    for asleep in [8 * HOUR, DAY] {
        let (world, _) = World::holding(FakeSource::scripted([token(HOUR), token(HOUR)])).await;
        sleep(MINUTE).await;
        world.clock.suspend(asleep);
        assert!(world.tokens.try_token().is_err(), "it ended in the meantime");
        sleep(30 * SECOND).await;
        quiet().await;
        assert_eq!(world.source.count(), 1);
        assert_eq!(world.token_at_once().await.unwrap().secret(), "token-2");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_caller_after_a_sleep_waits_for_a_refresh_that_starts_at_once() {
    let (world, _) = World::holding(FakeSource::scripted([token(HOUR), token(HOUR).taking(SECOND)])).await;
    world.clock.suspend(8 * HOUR);
    let woke = world.elapsed();
    assert_eq!(world.tokens.token().await.unwrap().secret(), "token-2");
    assert_eq!(world.elapsed(), woke + SECOND);
    assert_eq!(world.source.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_first_caller_after_a_sleep_in_a_long_backoff_is_not_refused() {
    // The short retry had come to a wait of about 8 s when the machine fell asleep.
    let world = World::of(FakeSource::always(failure()));
    sleep(8 * SECOND).await;
    assert!(world.token_at_once().await.unwrap_err().retry_after().unwrap() > 2 * SECOND);
    world.clock.suspend(8 * HOUR);
    world.source.standing(token(HOUR).taking(SECOND));
    let woke = world.elapsed();
    assert_eq!(world.tokens.token().await.unwrap().secret(), "token-1");
    assert_eq!(world.elapsed(), woke + SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_set_back_prolongs_no_token() {
    let (world, _) = World::holding(FakeSource::scripted([token(HOUR), rejection("invalid_grant")])).await;
    world.clock.step_back(DAY);
    sleep(HOUR - 10 * SECOND - MILLISECOND - world.elapsed()).await;
    assert!(world.token_at_once().await.is_ok());
    assert_eq!(world.source.reasons(), [IssueReason::Ahead], "refreshed when it would have been");
    sleep(MILLISECOND).await;
    quiet().await;
    assert!(world.token_at_once().await.unwrap_err().is_unauthenticated());
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_set_forward_refreshes_once_and_not_again() {
    let (world, _) = World::holding(FakeSource::scripted([token(HOUR), token(HOUR)])).await;
    world.clock.step_forward(DAY);
    sleep(30 * SECOND).await;
    quiet().await;
    assert_eq!(world.source.count(), 1);
    world.clock.step_back(DAY);
    sleep(40 * MINUTE).await;
    assert_eq!(world.source.count(), 1);
    assert!(world.token_at_once().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_set_into_the_advisory_window_refreshes_ahead() {
    let (world, held) = World::holding(FakeSource::scripted([token(HOUR), token(HOUR).taking(5 * SECOND)])).await;
    world.clock.step_forward(50 * MINUTE);
    sleep(31 * SECOND).await;
    assert_eq!(world.source.reasons(), [IssueReason::Ahead]);
    assert_eq!(world.token_at_once().await.unwrap().generation(), held.generation(), "served meanwhile");
    sleep(5 * SECOND).await;
    assert!(world.token_at_once().await.unwrap().generation() > held.generation());
}

#[tokio::test(start_paused = true)]
async fn thirty_hours_of_sleep_in_auth_retrying_are_followed_by_attempts_not_by_the_ceiling() {
    let world = World::in_outage(RefreshPolicy::default()).await;
    world.clock.suspend(30 * HOUR);
    // The network takes its time: it is back 20 s after the first attempt.
    sleep(30 * SECOND).await;
    quiet().await;
    assert!(world.source.count() >= 1, "attempts first");
    sleep(20 * SECOND).await;
    assert_eq!(world.tokens.status(), AUTH_RETRYING);
    let tried = world.source.count();
    assert!((4..=6).contains(&tried), "{tried}: the short retry");
    world.source.standing(token(HOUR));
    let back = world.elapsed();
    world.until(&AuthStatus::Running).await;
    assert!(world.elapsed() - back <= 20 * SECOND, "{:?}", world.elapsed() - back);
    assert_eq!(world.events.told(), [(AuthStatus::Running, true)]);
}

#[tokio::test(start_paused = true)]
async fn after_a_sleep_the_long_window_goes_on_when_the_short_retry_is_over() {
    let world = World::in_outage(RefreshPolicy::default()).await;
    world.clock.suspend(30 * HOUR);
    sleep(10 * MINUTE).await;
    let tried = world.source.count();
    assert!((8..=10).contains(&tried), "{tried}");
    // The ceiling counts from the entry, in time awake: neither the sleep nor the short retry moved it.
    world.source.take_calls();
    sleep(23 * HOUR).await;
    assert_eq!(world.tokens.status(), AUTH_RETRYING);
    sleep(2 * HOUR).await;
    let ceiling = UnauthenticatedReason::CeilingExceeded(DAY);
    assert_eq!(world.tokens.status(), AuthStatus::Unauthenticated(ceiling));
}

#[tokio::test(start_paused = true)]
async fn a_caller_after_a_sleep_in_auth_retrying_sets_the_short_retry_off() {
    let world = World::in_outage(RefreshPolicy::default()).await;
    world.clock.suspend(8 * HOUR);
    assert_eq!(world.token_at_once().await.unwrap_err().retry_after(), Some(SECOND));
    quiet().await;
    assert_eq!(world.source.count(), 1);
    sleep(4 * SECOND).await;
    assert_eq!(world.source.count(), 3, "about 1 s and 2 s later");
}

#[tokio::test(start_paused = true)]
async fn a_sleep_during_an_attempt_is_remembered() {
    let world = World::in_outage(RefreshPolicy::default()).await;
    world.source.standing(failure().taking(15 * SECOND));
    sleep(world.tokens.snapshot().next_attempt_in.unwrap() + SECOND).await;
    assert!(world.source.is_called());
    world.clock.suspend(HOUR);
    world.source.standing(failure());
    sleep(14 * SECOND + 100 * MILLISECOND).await;
    assert_eq!(world.source.count(), 1);
    sleep(SECOND).await;
    assert_eq!(world.source.count(), 2, "a second after it ended");
    sleep(4 * SECOND).await;
    assert_eq!(world.source.count(), 4, "the short retry runs");
}

/// On Windows the monotonic clock runs on while the machine sleeps: the two never drift apart.
#[tokio::test(start_paused = true)]
async fn a_look_that_comes_far_too_late_tells_of_a_sleep_too() {
    let world = World::in_outage(RefreshPolicy::default()).await;
    advance(30 * HOUR).await;
    quiet().await;
    sleep(4 * SECOND).await;
    assert_eq!(world.source.count(), 3, "the short retry, for the network may be back");
    assert_eq!(world.tokens.status(), AUTH_RETRYING, "the time asleep does not count");
    world.source.standing(token(HOUR));
    world.until(&AuthStatus::Running).await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_keeps_jumping_does_not_keep_the_monitor_busy() {
    let world = World::in_outage(RefreshPolicy::default()).await;
    let began = world.elapsed();
    let mut back = false;
    while world.elapsed() < began + HOUR {
        if back {
            world.clock.step_back(6 * SECOND)
        } else {
            world.clock.step_forward(6 * SECOND)
        }
        back = !back;
        sleep(SECOND).await;
    }
    let count = world.source.count();
    // A jump each 30 s at most: each lets one short retry run, and that has 8 tries in 2 min.
    assert!(count <= 300, "{count}");
}

#[tokio::test(start_paused = true)]
async fn small_steps_of_the_wall_clock_are_nothing() {
    let world = World::in_outage(RefreshPolicy::default()).await;
    let quiet_for = world.tokens.snapshot().next_attempt_in.unwrap() - MINUTE;
    for _ in 0..quiet_for.as_secs() / 60 {
        world.clock.step_forward(Duration::from_millis(4_900));
        sleep(MINUTE).await;
        world.clock.step_back(Duration::from_millis(4_900));
    }
    assert_eq!(world.source.count(), 0);
}
