//! What a failing token endpoint does to callers, to the status, and to the endpoint itself.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use steadfast::{
    AuthStatus, BuildError, IssueReason, IssuedToken, Lifetime, MonitoredTokenSource, RefreshAhead, RefreshPolicy,
    RetryCause, UnauthenticatedReason, testing::TestClock,
};
use tokio::time::sleep;

use crate::world::{
    AUTH_RETRYING, Answer, DAY, FakeSource, HOUR, MILLISECOND, MINUTE, SECOND, World, busy_for, cause, eternal,
    failure, foreign, hang, panics, quiet, rejected, rejection, token, token_for,
};

#[tokio::test(start_paused = true)]
async fn a_short_retry_that_succeeds_never_leaves_running() {
    let answers = [token(HOUR), failure(), failure(), foreign(), token(HOUR)];
    let (world, _) = World::holding(FakeSource::scripted(answers)).await;
    let statuses = world.tokens.subscribe();
    sleep(50 * MINUTE).await;
    assert_eq!(world.source.reasons(), [IssueReason::Ahead; 4]);
    assert_eq!(world.token_at_once().await.unwrap().secret(), "token-2");
    assert_eq!(world.events.told(), []);
    assert!(!statuses.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_short_retry_enters_auth_retrying_once_and_the_monitor_lives_on() {
    let world = World::of(FakeSource::always(failure()));
    let mut statuses = world.tokens.subscribe();
    statuses.wait_for(|status| *status == AUTH_RETRYING).await.unwrap();
    assert_eq!(world.source.count(), 8);
    // 1 + 2 + … + 64 s, give or take a fifth.
    assert!((102 * SECOND..=153 * SECOND).contains(&world.elapsed()), "{:?}", world.elapsed());

    sleep(HOUR).await;
    assert_eq!(world.events.told(), [(AUTH_RETRYING, false)]);
    let ticks = world.source.take_calls().split_off(8);
    assert!((5..=6).contains(&ticks.len()), "{ticks:?}");
    for pair in ticks.windows(2) {
        assert!((9 * MINUTE..=11 * MINUTE + MILLISECOND).contains(&(pair[1].at - pair[0].at)));
    }
    assert!(ticks.iter().all(|tick| tick.reason == IssueReason::Probe));
}

#[tokio::test(start_paused = true)]
async fn a_held_token_is_served_throughout_a_failing_refresh_and_never_past_its_end() {
    let source = FakeSource::always(failure());
    source.first([token(HOUR)]);
    let (world, held) = World::holding(source).await;
    let mut states = Vec::new();
    // The margin before the end is 10 s.
    while world.elapsed() < HOUR - 10 * SECOND {
        assert_eq!(world.token_at_once().await.unwrap().generation(), held.generation());
        let status = world.tokens.status();
        if states.last() != Some(&status) {
            states.push(status);
        }
        sleep(SECOND).await;
    }
    quiet().await;
    assert_eq!(states, [AuthStatus::Running, AUTH_RETRYING]);
    assert_eq!(world.events.told(), [(AUTH_RETRYING, true), (AUTH_RETRYING, false)]);
    let tried = world.source.count();
    for _ in 0..600 {
        assert!(world.token_at_once().await.unwrap_err().is_retrying());
        sleep(SECOND).await;
    }
    assert!(world.source.count() > tried);
    assert_eq!(world.events.told(), []);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_held_token_is_worth_an_attempt_in_auth_retrying() {
    let source = FakeSource::always(failure());
    source.first([token(HOUR)]);
    let (world, _) = World::holding(source).await;
    sleep(HOUR - 10 * SECOND - MILLISECOND).await;
    assert_eq!(world.tokens.status(), AUTH_RETRYING);
    world.forget();
    sleep(MILLISECOND).await;
    quiet().await;
    assert_eq!(world.source.calls().len(), 1);
    assert_eq!(world.source.calls()[0].at, HOUR - 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn after_a_verdict_the_held_token_is_served_to_its_end() {
    let source = FakeSource::scripted([token(HOUR), rejection("invalid_grant")]);
    let (world, held) = World::holding(source).await;
    sleep(46 * MINUTE).await;
    assert_eq!(world.tokens.status(), rejected("invalid_grant"));
    let warning = world.events.take();
    assert_eq!(warning.len(), 1);
    assert_eq!((&warning[0].to, warning[0].serving), (&rejected("invalid_grant"), true));
    assert_eq!(warning[0].remediation.as_deref(), Some("sign in again"));

    sleep(HOUR - 10 * SECOND - MILLISECOND - world.elapsed()).await;
    assert_eq!(world.token_at_once().await.unwrap().generation(), held.generation());
    assert!(world.events.take().is_empty());
    sleep(MILLISECOND).await;
    quiet().await;
    let ended = world.events.take();
    assert_eq!(ended.len(), 1);
    assert_eq!((&ended[0].to, ended[0].serving), (&rejected("invalid_grant"), false));
    assert_eq!(ended[0].remediation, None, "once in a run");

    let error = world.token_at_once().await.unwrap_err();
    assert!(error.is_unauthenticated());
    assert_eq!(error.retry_after(), None);
    assert_eq!(cause(&error).rule(), "source");
    sleep(DAY).await;
    assert_eq!(world.source.count(), 1, "a verdict is final");
}

#[tokio::test(start_paused = true)]
async fn a_tick_finds_the_endpoint_back() {
    let world = World::in_outage(RefreshPolicy::default()).await;
    world.source.standing(token(HOUR));
    world.until(&AuthStatus::Running).await;
    assert_eq!(world.source.reasons(), [IssueReason::Probe]);
    assert_eq!(world.events.told(), [(AuthStatus::Running, true)]);
    assert_eq!(world.token_at_once().await.unwrap().secret(), "token-1");
}

#[tokio::test(start_paused = true)]
async fn a_busy_caller_probes_about_150_times_in_a_day() {
    let world = World::in_outage(RefreshPolicy { auth_retrying_ceiling: 2 * DAY, ..RefreshPolicy::default() }).await;
    let began = world.elapsed();
    while world.elapsed() < began + DAY {
        for _ in 0..10 {
            assert!(world.tokens.token().await.unwrap_err().is_retrying());
        }
        sleep(10 * SECOND).await;
    }
    assert_eq!(world.elapsed(), began + DAY);
    let count = world.source.count();
    assert!((147..=155).contains(&count), "{count}");
}

#[tokio::test(start_paused = true)]
async fn the_first_probes_come_at_gaps_that_double() {
    let world = World::in_outage(RefreshPolicy::default()).await;
    let mut last = world.elapsed();
    for expected in [30, 60, 120, 240] {
        while world.source.count() == 0 {
            world.token_at_once().await.unwrap_err();
            sleep(100 * MILLISECOND).await;
        }
        let at = world.source.take_calls()[0].at;
        let (gap, expected) = (at - last, Duration::from_secs(expected));
        // The gap is jittered by a tenth, and a caller comes within 100 ms.
        let range = expected * 9 / 10..=expected * 11 / 10 + 101 * MILLISECOND;
        assert!(range.contains(&gap), "{gap:?} for {expected:?}");
        last = at;
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_after_the_ceiling_ends_the_run_and_no_timer_does() {
    let policy = RefreshPolicy { auth_retrying_ceiling: HOUR, ..RefreshPolicy::default() };
    let world = World::in_outage(policy).await;
    let entered = world.elapsed();
    world.source.standing(failure().taking(5 * SECOND));
    sleep(HOUR).await;
    assert_eq!(world.tokens.status(), AUTH_RETRYING, "no timer");

    let ceiling = AuthStatus::Unauthenticated(UnauthenticatedReason::CeilingExceeded(HOUR));
    let mut statuses = world.tokens.subscribe();
    statuses.wait_for(|status| *status == ceiling).await.unwrap();
    let last = world.source.calls().pop().unwrap();
    assert!(last.at + 5 * SECOND > entered + HOUR);
    assert_eq!(world.elapsed(), last.at + 5 * SECOND, "by a failed attempt");
    quiet().await;
    let events = world.events.take();
    assert_eq!(events.len(), 1);
    assert!(events[0].reason.contains("the ceiling of 1h"), "{}", events[0].reason);
    assert_eq!(events[0].remediation, None, "only for a verdict");
    assert!(world.token_at_once().await.unwrap_err().is_unauthenticated());

    world.source.take_calls();
    sleep(DAY).await;
    assert_eq!(world.source.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_succeeds_after_the_ceiling_saves_the_run() {
    let policy = RefreshPolicy { auth_retrying_ceiling: HOUR, ..RefreshPolicy::default() };
    let world = World::in_outage(policy).await;
    sleep(HOUR).await;
    world.source.standing(token(HOUR));
    world.until(&AuthStatus::Running).await;
    assert_eq!(world.events.told(), [(AuthStatus::Running, true)]);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_in_auth_retrying_ends_the_run_at_once() {
    let world = World::in_outage(RefreshPolicy::default()).await;
    world.source.standing(rejection("invalid_client"));
    world.until(&rejected("invalid_client")).await;
    let events = world.events.take();
    assert_eq!(events.len(), 1);
    assert!(events[0].remediation.as_deref().unwrap().contains("register again"));
    assert!(world.token_at_once().await.unwrap_err().is_unauthenticated());
    sleep(DAY).await;
    assert_eq!(world.source.reasons(), [IssueReason::Probe]);
}

#[tokio::test(start_paused = true)]
async fn advice_is_given_although_an_earlier_run_ended_at_the_ceiling() {
    let policy =
        RefreshPolicy { auth_retrying_ceiling: 10 * MINUTE, retry_after_cap: MINUTE, ..RefreshPolicy::default() };
    let world = World::in_outage(policy).await;
    world.until(&AuthStatus::Unauthenticated(UnauthenticatedReason::CeilingExceeded(10 * MINUTE))).await;
    world.source.standing(rejection("invalid_grant"));
    world.tokens.retry_now();
    world.until(&rejected("invalid_grant")).await;
    let advice: Vec<_> = world.events.take().into_iter().filter_map(|event| event.remediation).collect();
    assert_eq!(advice, ["sign in again"]);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_obeyed_to_the_second() {
    let world = World::of(FakeSource::scripted([busy_for(90 * SECOND), token(HOUR)]));
    let error = world.tokens.token().await.unwrap_err();
    assert_eq!(error.retry_after(), Some(90 * SECOND));
    world.until(&AuthStatus::Running).await;
    assert_eq!(world.source.calls()[1].at, 90 * SECOND);
    assert_eq!(world.events.told(), [(AuthStatus::Running, true)], "the short retry went on");
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_capped_and_beats_tick_probe_and_clock_jump() {
    let world = World::of(FakeSource::scripted([busy_for(DAY), token(HOUR)]));
    world.until(&AUTH_RETRYING).await;
    assert_eq!(world.source.count(), 1, "longer than the short retry may take");
    // The cap is an hour, six ticks long.
    while world.elapsed() < HOUR - 10 * SECOND {
        let wait = world.token_at_once().await.unwrap_err().retry_after().unwrap();
        assert_eq!(wait, HOUR - world.elapsed());
        if world.elapsed().as_secs().is_multiple_of(600) {
            // A jump, but not one past the server's wish.
            world.clock.step_back(DAY);
        }
        sleep(10 * SECOND).await;
    }
    assert_eq!(world.source.count(), 1);
    world.until(&AuthStatus::Running).await;
    assert_eq!(world.source.calls()[1].at, HOUR);
}

#[tokio::test(start_paused = true)]
async fn a_nudge_skips_retry_after_but_not_the_rest_after_an_attempt() {
    let world = World::of(FakeSource::scripted([busy_for(HOUR), busy_for(HOUR), token(HOUR)]));
    quiet().await;
    world.tokens.retry_now();
    sleep(2 * SECOND).await;
    assert_eq!(world.source.calls()[1].at, SECOND);
    assert_eq!(world.source.reasons(), [IssueReason::Initial, IssueReason::Nudged]);
    // Its own `Retry-After` counts again for all that is no nudge.
    world.until(&AuthStatus::Running).await;
    assert_eq!(world.source.calls()[2].at, HOUR + SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_hang_is_a_transient_failure_after_the_attempt_timeout() {
    let world = World::of(FakeSource::scripted([hang(), token(HOUR)]));
    sleep(15 * SECOND).await;
    let error = world.tokens.token().await.unwrap_err();
    assert_eq!(world.elapsed(), 20 * SECOND);
    assert_eq!(cause(&error).rule(), "attempt-timeout");
    assert!(!world.source.is_called(), "the attempt was dropped");
    assert_eq!(world.tokens.token().await.unwrap().secret(), "token-1");
}

#[tokio::test(start_paused = true)]
async fn a_foreign_error_is_transient_and_logged_under_the_rule_that_knows_it() {
    let world = World::of(FakeSource::scripted([foreign(), token(HOUR)]));
    let error = world.tokens.token().await.unwrap_err();
    assert_eq!(cause(&error).rule(), "connection-reset");
    assert_eq!(world.tokens.token().await.unwrap().secret(), "token-1");
}

#[tokio::test(start_paused = true)]
async fn a_panicking_source_is_a_failed_attempt() {
    let world = World::of(FakeSource::scripted([panics(), panics(), token(HOUR)]));
    assert_eq!(cause(&world.tokens.token().await.unwrap_err()).rule(), "source-panicked");
    world.until(&AuthStatus::Running).await;
    assert_eq!(world.token_at_once().await.unwrap().secret(), "token-1");
    assert_eq!(world.source.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_token_without_a_usable_lifetime_is_served_until_it_is_refused() {
    for lifetime in [Lifetime::Unknown, Lifetime::Malformed, Lifetime::from_text("soon"), Lifetime::from_secs(-1.0)] {
        let (world, held) = World::holding(FakeSource::scripted([token_for(lifetime), eternal()])).await;
        sleep(30 * DAY).await;
        assert_eq!((world.source.count(), world.tokens.status()), (0, AuthStatus::Running));
        assert_eq!(world.token_at_once().await.unwrap().expires_at(), None);
        // The monitor is alive.
        world.tokens.reject(held.generation(), None);
        sleep(SECOND).await;
        assert_eq!(world.token_at_once().await.unwrap().secret(), "token-2");
    }
}

#[tokio::test(start_paused = true)]
async fn an_assumed_lifetime_stands_in_for_a_missing_one() {
    let policy = RefreshPolicy { assumed_lifetime: Some(HOUR), ..RefreshPolicy::default() };
    let world = World::with(FakeSource::scripted([eternal(), eternal()]), policy);
    sleep(46 * MINUTE).await;
    assert_eq!(world.source.reasons(), [IssueReason::Initial, IssueReason::Ahead]);
}

#[tokio::test(start_paused = true)]
async fn a_huge_lifetime_harms_nothing() {
    let (world, held) = World::holding(FakeSource::scripted([token_for(Lifetime::from_secs(1e300))])).await;
    sleep(2 * DAY).await;
    assert_eq!(world.token_at_once().await.unwrap().generation(), held.generation());
    assert_eq!(world.source.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn tiny_lifetimes_make_no_hot_loop() {
    // Nobody asks for a token: ahead-of-time refreshes are at least 5 s apart.
    for lifetime in [MILLISECOND, SECOND, 3 * SECOND, 8 * SECOND] {
        let world = World::of(FakeSource::always(token(lifetime)));
        sleep(HOUR).await;
        let count = world.source.count();
        assert!(count <= 721, "{count} calls for {lifetime:?}");
        assert_eq!(world.tokens.status(), AuthStatus::Running);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_has_expired_on_arrival_is_a_failed_attempt() {
    let world = World::of(FakeSource::always(token(5 * SECOND).taking(6 * SECOND)));
    let error = world.tokens.token().await.unwrap_err();
    assert_eq!(cause(&error).rule(), "expired-on-arrival");
    assert!(error.is_retrying());
    world.until(&AUTH_RETRYING).await;
    assert_eq!(world.source.count(), 8);
    sleep(HOUR).await;
    assert!(world.source.count() <= 8 + 7);
}

#[tokio::test(start_paused = true)]
async fn a_token_whose_time_is_over_is_not_served_however_the_source_says_so() {
    let clock = TestClock::new();
    for (lifetime, served) in [
        (Lifetime::from(Duration::ZERO), false),
        (Lifetime::Known(Duration::ZERO), false),
        (Lifetime::Until(SystemTime::UNIX_EPOCH), false),
        (Lifetime::Until(clock.wall() + HOUR), true),
        (Lifetime::from_secs(0.0), true),
    ] {
        let source = move || async move { Ok(IssuedToken::bearer("s3cret").expires_in(lifetime)) };
        let tokens = MonitoredTokenSource::builder(source).clock(&clock).spawn().unwrap();
        match tokens.token().await {
            Ok(_) => assert!(served, "{lifetime:?}"),
            Err(error) => {
                assert!(!served, "{lifetime:?}");
                assert_eq!(error.cause().unwrap().rule(), "expired-on-arrival");
            }
        }
        assert_eq!(tokens.is_serving(), served);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_is_served_to_the_instant_that_the_source_names() {
    let clock = TestClock::new();
    let end = clock.wall() + HOUR;
    let source = move || async move { Ok(IssuedToken::bearer("s3cret").expires_at(end)) };
    // Near its end every new token is as near to it.
    let policy = RefreshPolicy { refresh_ahead: RefreshAhead::Fixed(Duration::ZERO), ..RefreshPolicy::default() };
    let tokens = MonitoredTokenSource::builder(source).policy(policy).clock(&clock).spawn().unwrap();
    let token = tokens.token().await.unwrap();
    assert_eq!(token.expires_at(), Some(end));
    sleep(HOUR - 10 * SECOND - MILLISECOND).await;
    assert!(tokens.is_serving(), "the margin before the end is 10 s");
    sleep(MILLISECOND).await;
    assert!(!tokens.is_serving());
}

#[tokio::test(start_paused = true)]
async fn expiry_counts_from_the_instant_the_request_was_sent() {
    let (world, _) =
        World::holding(FakeSource::scripted([token(HOUR).taking(8 * SECOND), rejection("invalid_grant")])).await;
    sleep(HOUR - 10 * SECOND - MILLISECOND - world.elapsed()).await;
    assert!(world.token_at_once().await.is_ok());
    sleep(MILLISECOND).await;
    assert!(world.token_at_once().await.unwrap_err().is_unauthenticated());
}

#[tokio::test(start_paused = true)]
async fn a_nudge_during_an_attempt_is_acted_on_when_it_ends() {
    let world = World::in_outage(RefreshPolicy::default()).await;
    world.source.standing(failure().taking(5 * SECOND));
    let tick = world.tokens.snapshot().next_attempt_in.unwrap();
    sleep(tick + SECOND).await;
    assert!(world.source.is_called());
    world.tokens.retry_now();
    world.source.standing(token(HOUR));
    sleep(6 * SECOND).await;
    let calls = world.source.take_calls();
    assert_eq!(calls[1].reason, IssueReason::Nudged);
    assert_eq!(calls[1].at, calls[0].at + 6 * SECOND, "a second after the end of the first");
    assert_eq!(world.tokens.status(), AuthStatus::Running);
}

#[tokio::test(start_paused = true)]
async fn a_success_fulfils_the_nudge_that_came_during_it() {
    let world = World::of(FakeSource::scripted([token(HOUR).taking(5 * SECOND)]));
    sleep(SECOND).await;
    world.tokens.retry_now();
    sleep(30 * MINUTE).await;
    assert_eq!(world.source.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn nudges_are_at_least_ten_seconds_apart() {
    let world = World::in_outage(RefreshPolicy::default()).await;
    let began = world.elapsed();
    while world.elapsed() < began + 20 * MINUTE {
        world.tokens.retry_now();
        sleep(10 * MILLISECOND).await;
    }
    assert_eq!(world.source.count(), 120);
    assert!(world.source.reasons().iter().all(|reason| *reason == IssueReason::Nudged));
}

#[tokio::test(start_paused = true)]
async fn a_nudge_after_the_verdict_begins_a_new_run() {
    let world = World::of(FakeSource::scripted([rejection("invalid_grant"), token(HOUR).taking(SECOND)]));
    world.until(&rejected("invalid_grant")).await;
    world.forget();
    // Not before the rest of a second after the last attempt.
    sleep(SECOND).await;
    world.tokens.retry_now();
    quiet().await;
    assert_eq!(world.tokens.status(), AuthStatus::Pending);
    // In `Pending` callers wait.
    assert_eq!(world.tokens.token().await.unwrap().secret(), "token-1");
    assert_eq!(world.source.reasons(), [IssueReason::Nudged]);
    quiet().await;
    assert_eq!(world.events.told(), [(AuthStatus::Pending, false), (AuthStatus::Running, true)]);
}

#[tokio::test(start_paused = true)]
async fn try_token_never_waits_and_says_what_is_going_on() {
    let world = World::of(FakeSource::always(failure().taking(SECOND)));
    let error = world.tokens.try_token().unwrap_err();
    assert!(error.is_still_refreshing());
    assert_eq!(error.retry_after(), Some(SECOND));
    sleep(SECOND + MILLISECOND).await;
    assert!(world.tokens.try_token().unwrap_err().is_retrying());
    world.until(&AUTH_RETRYING).await;
    world.source.standing(token(HOUR));
    world.source.take_calls();
    sleep(MINUTE).await;
    for _ in 0..100 {
        assert!(world.tokens.try_token().unwrap_err().is_retrying());
        quiet().await;
    }
    assert_eq!(world.source.count(), 0, "never touches the network, not even by a probe");
    world.until(&AuthStatus::Running).await;
    assert_eq!(world.tokens.try_token().unwrap().secret(), "token-1");
    world.tokens.shutdown().await;
    assert!(world.tokens.try_token().unwrap_err().is_stopped());
}

#[test]
fn without_a_runtime_spawn_is_a_typed_error_and_nobody_can_wait() {
    let builder = || MonitoredTokenSource::builder(|| async { Ok(IssuedToken::bearer("never")) });
    assert_eq!(builder().spawn().unwrap_err(), BuildError::NoRuntime);

    let (tokens, _driver) = builder().pair().unwrap();
    let waits = pin!(tokens.token());
    let Poll::Ready(answer) = waits.poll(&mut Context::from_waker(Waker::noop())) else { panic!("nobody can wait") };
    assert!(answer.unwrap_err().is_still_refreshing());
    let waits = pin!(tokens.shutdown());
    assert!(waits.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    assert!(tokens.try_token().unwrap_err().is_stopped());
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_failure_keeps_to_the_same_schedule() {
    let kinds: [fn() -> Answer; 3] = [failure, foreign, panics];
    for kind in kinds {
        let world = World::of(FakeSource::always(kind()));
        world.until(&AuthStatus::AuthRetrying(RetryCause::TokenEndpoint)).await;
        assert_eq!(world.source.count(), 8);
        sleep(DAY + HOUR).await;
        assert!((8 + 130..=8 + 160).contains(&world.source.count()), "{}", world.source.count());
    }
}
