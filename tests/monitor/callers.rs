//! Callers of `token()`: who waits, for what, and who is answered at once.

use std::{ptr, time::Duration};

use futures_util::future::join_all;
use steadfast::{IssueReason, RefreshPolicy};
use tokio::time::{sleep, timeout};

use crate::world::{
    AUTH_RETRYING, FakeSource, HOUR, MILLISECOND, MINUTE, SECOND, World, all, cause, failure, quiet, rejection, token,
};

#[tokio::test(start_paused = true)]
async fn a_valid_token_is_returned_without_touching_the_source() {
    let (world, held) = World::holding(FakeSource::scripted([token(HOUR)])).await;
    for _ in 0..1_000 {
        let token = world.token_at_once().await.unwrap();
        assert!(ptr::eq(token.secret(), held.secret()));
    }
    assert_eq!(world.source.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_share_one_call() {
    let world = World::of(FakeSource::scripted([token(HOUR).taking(SECOND)]));
    let answers = all(world.callers(10_000)).await;

    assert_eq!(world.source.reasons(), [IssueReason::Initial]);
    assert_eq!(world.elapsed(), SECOND);
    let first = answers[0].as_ref().unwrap();
    assert_eq!((first.secret(), first.generation().get()), ("token-1", 1));
    for answer in &answers {
        assert!(ptr::eq(answer.as_ref().unwrap().secret(), first.secret()), "one token, shared");
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_of_a_failing_endpoint_share_one_failure_per_attempt() {
    // The first two waits of the short retry, jitter and all, are shorter than this: who comes then waits for the attempt.
    let policy = RefreshPolicy { blip_wait: 5 * SECOND / 2, ..RefreshPolicy::default() };
    let world = World::with(FakeSource::always(failure().taking(SECOND)), policy);
    let mut last = None;
    for attempts in 1..=3 {
        let answers = all(world.callers(1_000)).await;
        assert_eq!(world.source.count(), attempts);
        let shared = cause(answers[0].as_ref().unwrap_err());
        for answer in &answers {
            assert!(ptr::eq(cause(answer.as_ref().unwrap_err()), shared), "one failure, shared");
        }
        let shared = ptr::from_ref(shared).addr();
        assert!(last.replace(shared) != Some(shared), "each attempt has its own");
    }
    let late = all(world.callers(1_000)).await;
    assert_eq!(world.source.count(), 3, "the next attempt is too far away to wait for");
    for answer in &late {
        assert_eq!(Some(ptr::from_ref(cause(answer.as_ref().unwrap_err())).addr()), last);
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_within_the_first_second_of_an_outage_cost_the_endpoint_one_call_or_two() {
    for (blip_wait, calls, longest) in [(Duration::ZERO, 1, 50 * MILLISECOND), (SECOND, 2, 1_050 * MILLISECOND)] {
        let policy = RefreshPolicy { blip_wait, ..RefreshPolicy::default() };
        let world = World::with(FakeSource::always(failure().taking(50 * MILLISECOND)), policy);
        let callers = (0..1_000).map(|caller| {
            let world = &world;
            async move {
                sleep(caller * MILLISECOND).await;
                let came = world.elapsed();
                assert!(world.tokens.token().await.unwrap_err().is_retrying());
                world.elapsed() - came
            }
        });
        let waits = join_all(callers).await;
        assert_eq!(world.source.count(), calls, "with a blip_wait of {blip_wait:?}");
        assert!(waits.iter().all(|wait| *wait <= longest), "{:?}", waits.iter().max());
    }
}

#[tokio::test(start_paused = true)]
async fn a_patient_caller_gets_the_token_of_whichever_attempt_brings_it() {
    let world = World::of(FakeSource::scripted([failure(), failure(), failure(), token(HOUR)]));
    assert_eq!(world.tokens.token_within(MINUTE).await.unwrap().secret(), "token-1");
    assert_eq!(world.source.count(), 4);

    let world = World::of(FakeSource::always(failure()));
    let error = world.tokens.token_within(MINUTE).await.unwrap_err();
    assert!(error.is_retrying());
    assert!(world.elapsed() <= MINUTE);
    assert!(world.elapsed() + error.retry_after().unwrap() > MINUTE, "it has used its time");

    let world = World::of(FakeSource::always(rejection("invalid_grant")));
    assert!(world.tokens.token_within(HOUR).await.unwrap_err().is_unauthenticated());
    assert!(world.elapsed() < SECOND, "no wait helps");
}

#[tokio::test(start_paused = true)]
async fn an_impatient_caller_does_not_cancel_the_refresh() {
    let world = World::of(FakeSource::scripted([token(HOUR).taking(5 * SECOND)]));
    assert!(timeout(SECOND, world.tokens.token()).await.is_err());
    sleep(4 * SECOND + MILLISECOND).await;
    assert_eq!(world.token_at_once().await.unwrap().secret(), "token-1");
    assert_eq!(world.source.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_when_all_callers_hang_up() {
    let world = World::of(FakeSource::scripted([token(HOUR).taking(5 * SECOND)]));
    let callers = world.callers(100);
    sleep(SECOND).await;
    callers.iter().for_each(tokio::task::JoinHandle::abort);
    sleep(SECOND).await;
    assert!(world.source.is_called());

    assert_eq!(world.tokens.token().await.unwrap().secret(), "token-1");
    assert_eq!((world.source.count(), world.elapsed()), (1, 5 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_caller_hears_of_the_one_attempt_it_waited_for() {
    let world = World::of(FakeSource::scripted([failure().taking(SECOND), token(HOUR).taking(SECOND)]));
    let early = world.caller();
    assert!(early.await.unwrap().unwrap_err().is_retrying());
    assert_eq!(world.elapsed(), SECOND, "no waiting for the second attempt");
    assert_eq!(world.tokens.token().await.unwrap().secret(), "token-1");
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_for_an_attempt_that_is_near_and_for_no_other() {
    let world = World::of(FakeSource::always(failure()));
    let source = &world.source;
    assert!(world.tokens.token().await.is_err());
    // About 1 s away.
    world.tokens.token().await.unwrap_err();
    assert_eq!(source.count(), 2);
    let waited = world.elapsed();
    assert!((800 * MILLISECOND..=1_201 * MILLISECOND).contains(&waited), "{waited:?}");
    // About 2 s, about 4 s: sooner or later farther away than `blip_wait`.
    sleep(2_500 * MILLISECOND).await;
    assert_eq!(source.count(), 3);
    let error = world.token_at_once().await.unwrap_err();
    let next = world.tokens.snapshot().next_attempt_in.unwrap();
    assert!(next > 2 * SECOND && next.subsec_nanos() > 0, "{next:?}");
    assert!(error.is_retrying());
    assert_eq!(error.retry_after().unwrap().as_secs(), next.as_secs() + 1, "rounded up");
    assert_eq!(error.to_response().headers()["retry-after"], (next.as_secs() + 1).to_string());
    // Once it has come within reach, callers wait again.
    sleep(next - 2 * SECOND).await;
    source.standing(token(HOUR));
    assert_eq!(world.tokens.token().await.unwrap().secret(), "token-1");
    assert_eq!(source.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_no_longer_than_caller_wait() {
    let world = World::of(FakeSource::scripted([token(HOUR).taking(15 * SECOND)]));
    let error = world.tokens.token().await.unwrap_err();
    assert!(error.is_still_refreshing());
    assert_eq!((world.elapsed(), error.retry_after()), (10 * SECOND, Some(SECOND)));
    assert_eq!(world.tokens.token().await.unwrap().secret(), "token-1");
    assert_eq!((world.elapsed(), world.source.count()), (15 * SECOND, 1));
}

#[tokio::test(start_paused = true)]
async fn a_hot_caller_in_auth_retrying_fails_at_once_whatever_is_in_flight() {
    let policy = RefreshPolicy { demand_probe_interval: None, ..RefreshPolicy::default() };
    let world = World::in_outage(policy).await;
    let next = world.tokens.snapshot().next_attempt_in.unwrap();
    assert!((9 * MINUTE..=11 * MINUTE).contains(&next));
    let error = world.token_at_once().await.unwrap_err();
    assert!(error.is_retrying());
    assert_eq!(cause(&error).rule(), "source");
    assert_eq!(error.retry_after().unwrap().as_secs(), next.as_secs() + u64::from(next.subsec_nanos() > 0));
    assert_eq!(world.source.count(), 0, "no probes in this policy");

    // While the tick is in flight.
    world.source.standing(failure().taking(5 * SECOND));
    sleep(next + SECOND).await;
    assert!(world.source.is_called());
    let error = world.token_at_once().await.unwrap_err();
    assert!(error.is_retrying());
    assert_eq!(error.retry_after(), Some(SECOND));
    assert_eq!((world.source.count(), world.tokens.status()), (1, AUTH_RETRYING));
}

#[tokio::test(start_paused = true)]
async fn a_hot_caller_starts_a_probe_and_does_not_wait_for_it() {
    let world = World::in_outage(RefreshPolicy::default()).await;
    // The way to the probe is known beforehand.
    let wait = world.token_at_once().await.unwrap_err().retry_after().unwrap();
    assert!((27 * SECOND..=33 * SECOND).contains(&wait), "{wait:?}");
    assert_eq!(world.source.count(), 0);

    world.source.standing(token(HOUR).taking(5 * SECOND));
    sleep(wait).await;
    assert_eq!(world.source.count(), 0, "nobody asked");
    let error = world.token_at_once().await.unwrap_err();
    assert_eq!(error.retry_after(), Some(SECOND));
    quiet().await;
    assert_eq!(world.source.reasons(), [IssueReason::Probe]);
    // In flight: nobody waits, nobody starts another.
    for _ in 0..100 {
        assert_eq!(world.token_at_once().await.unwrap_err().retry_after(), Some(SECOND));
    }
    sleep(5 * SECOND + MILLISECOND).await;
    assert_eq!(world.token_at_once().await.unwrap().secret(), "token-1");
    assert_eq!(world.source.count(), 1);
}
