//! What a resource server's 401 does, and what it must not do.

use steadfast::{AccessToken, AuthStatus, IssueReason, RefreshPolicy, Rejection};
use tokio::time::sleep;

use crate::world::{
    AUTH_RETRYING, CLAIMS, DAY, FIXED_TOKEN_REFUSED, FakeSource, HOUR, MILLISECOND, MINUTE, RESOURCE_REFUSES, SECOND,
    World, all, at_once, busy_for, cause, challenge, claims_needed, eternal, failure, hang, invalid_token, quiet,
    rejected, rejection, secret, token,
};

#[tokio::test(start_paused = true)]
async fn a_stale_rejection_changes_nothing() {
    let (world, old) = settled(FakeSource::scripted([eternal(), eternal()])).await;
    world.tokens.reject(old.generation(), None);
    sleep(3 * SECOND).await;
    world.forget();
    for challenge in [None, Some(invalid_token()), Some(claims_needed())] {
        assert_eq!(world.tokens.reject(old.generation(), challenge.as_ref()), Rejection::Superseded);
    }
    sleep(MINUTE).await;
    assert_eq!(world.token_at_once().await.unwrap().secret(), "token-2");
    assert_eq!((world.source.count(), world.events.told()), (0, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_definite_rejection_retires_exactly_that_token_at_once() {
    let (world, old) = settled(FakeSource::scripted([eternal(), eternal().taking(SECOND)])).await;
    assert_eq!(world.tokens.reject(old.generation(), Some(&invalid_token())), Rejection::Refreshing);
    // The driver has not run yet.
    assert!(world.tokens.try_token().is_err());
    assert!(world.tokens.clone().try_token().is_err());
    assert!(!world.tokens.snapshot().serving);
    quiet().await;
    assert!(world.tokens.try_token().unwrap_err().is_still_refreshing());
    assert_eq!(world.tokens.token().await.unwrap().secret(), "token-2");
    assert_eq!(world.source.reasons(), [IssueReason::Rejected]);
    quiet().await;
    assert_eq!(world.events.told(), [(AuthStatus::Running, false), (AuthStatus::Running, true)]);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_is_served_until_the_next_token_is_there() {
    // No error code, one that a bearer token has nothing to do with, and another scheme's.
    let challenges = [None, Some("Bearer"), Some(r#"Bearer error="nonsense""#), Some(r#"Basic error="invalid_token""#)];
    for text in challenges {
        let (world, old) = settled(FakeSource::scripted([eternal(), eternal().taking(SECOND)])).await;
        let challenge = text.map(challenge);
        assert_eq!(world.tokens.reject(old.generation(), challenge.as_ref()), Rejection::Refreshing);
        assert_eq!(world.tokens.try_token().unwrap().generation(), old.generation());
        sleep(SECOND - MILLISECOND).await;
        assert_eq!(world.token_at_once().await.unwrap().generation(), old.generation());
        sleep(2 * MILLISECOND).await;
        assert_eq!(world.token_at_once().await.unwrap().secret(), "token-2");
        assert_eq!(world.source.reasons(), [IssueReason::Rejected]);
        assert_eq!(world.events.told(), [], "callers got a token all along");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_accepted_before_is_only_a_suspect() {
    let (world, old) = settled(FakeSource::scripted([eternal(), eternal().taking(SECOND)])).await;
    world.tokens.accept(old.generation());
    assert_eq!(world.tokens.reject(old.generation(), Some(&invalid_token())), Rejection::Refreshing);
    assert_eq!(world.tokens.try_token().unwrap().generation(), old.generation());
    sleep(SECOND + MILLISECOND).await;
    assert_eq!(world.token_at_once().await.unwrap().secret(), "token-2");
    assert_eq!(world.source.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_rejections_of_one_token_are_one_refresh_and_stragglers_are_none() {
    for challenge in [None, Some(invalid_token()), Some(claims_needed())] {
        let (world, old) = settled(FakeSource::scripted([eternal(), eternal().taking(SECOND)])).await;
        for _ in 0..50 {
            assert_eq!(world.tokens.reject(old.generation(), challenge.as_ref()), Rejection::Refreshing);
        }
        quiet().await;
        for _ in 0..50 {
            assert_eq!(world.tokens.reject(old.generation(), challenge.as_ref()), Rejection::Refreshing);
            quiet().await;
        }
        sleep(SECOND + MILLISECOND).await;
        for _ in 0..50 {
            assert_eq!(world.tokens.reject(old.generation(), challenge.as_ref()), Rejection::Superseded);
            quiet().await;
        }
        sleep(HOUR).await;
        assert_eq!(world.source.count(), 1, "{challenge:?}");
        assert_eq!(world.tokens.status(), AuthStatus::Running, "one strike, not a hundred");
    }
}

#[tokio::test(start_paused = true)]
async fn the_mark_is_the_tokens_own_and_re_arms_with_each_new_one() {
    let (world, mut held) = settled(FakeSource::always(eternal())).await;
    for refreshes in 1..=4 {
        world.tokens.accept(held.generation());
        assert_eq!(world.tokens.reject(held.generation(), None), Rejection::Refreshing);
        quiet().await;
        assert_eq!(world.source.count(), refreshes);
        held = world.token_at_once().await.unwrap();
        sleep(3 * SECOND).await;
    }
    assert_eq!(world.tokens.status(), AuthStatus::Running);
}

#[tokio::test(start_paused = true)]
async fn a_token_younger_than_settle_is_given_time() {
    let (world, young) = World::holding(FakeSource::scripted([eternal(), eternal()])).await;
    sleep(500 * MILLISECOND).await;
    for _ in 0..3 {
        let answer = world.tokens.reject(young.generation(), Some(&invalid_token()));
        assert_eq!(answer, Rejection::Settling(1_500 * MILLISECOND));
    }
    sleep(1_499 * MILLISECOND).await;
    assert_eq!(world.tokens.reject(young.generation(), None), Rejection::Settling(MILLISECOND));
    assert_eq!(world.token_at_once().await.unwrap().generation(), young.generation());
    assert_eq!((world.source.count(), world.events.told()), (0, vec![]));
    // The second 401 counts.
    sleep(MILLISECOND).await;
    assert_eq!(world.tokens.reject(young.generation(), Some(&invalid_token())), Rejection::Refreshing);
    assert_eq!(world.tokens.token().await.unwrap().secret(), "token-2");
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_passes_rejections_through() {
    let (world, held) = with_empty_budget().await;
    for challenge in [None, Some(invalid_token()), Some(claims_needed())] {
        assert_eq!(world.tokens.reject(held.generation(), challenge.as_ref()), Rejection::PassThrough);
        assert_eq!(world.tokens.try_token().unwrap().generation(), held.generation(), "nothing withdrawn");
        quiet().await;
        assert_eq!(world.token_at_once().await.unwrap().generation(), held.generation());
    }
    assert_eq!((world.source.count(), world.events.told()), (0, vec![]));
    // One comes back each 15 min, counted from when the first was spent.
    sleep(15 * MINUTE - 13 * SECOND).await;
    assert_eq!(world.tokens.reject(held.generation(), Some(&invalid_token())), Rejection::PassThrough);
    sleep(2 * SECOND).await;
    assert_eq!(world.tokens.reject(held.generation(), Some(&invalid_token())), Rejection::Refreshing);
    assert!(world.tokens.try_token().is_err(), "nothing was marked before");
    quiet().await;
    assert_eq!(world.source.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_cannot_be_refreshed_is_refused_once_and_served_on() {
    for challenge in [None, Some(invalid_token())] {
        let (world, fixed) = settled(FakeSource::fixed()).await;
        for _ in 0..10 {
            assert_eq!(world.tokens.reject(fixed.generation(), challenge.as_ref()), Rejection::PassThrough);
            assert_eq!(world.tokens.try_token().unwrap().secret(), "fixed-1");
            quiet().await;
        }
        assert_eq!(world.tokens.status(), FIXED_TOKEN_REFUSED);
        assert_eq!(world.token_at_once().await.unwrap().secret(), "fixed-1");
        // The resource changes its mind, and again.
        world.tokens.accept(fixed.generation());
        quiet().await;
        assert_eq!(world.tokens.status(), AuthStatus::Running);
        world.tokens.reject(fixed.generation(), challenge.as_ref());
        quiet().await;
        world.tokens.accept(fixed.generation());
        quiet().await;
        let told = [(FIXED_TOKEN_REFUSED, true), (AuthStatus::Running, true)];
        assert_eq!(world.events.told(), [told.clone(), told].concat());
        sleep(DAY).await;
        assert_eq!(world.source.count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_nudge_gives_a_token_that_cannot_be_refreshed_another_chance() {
    let (world, fixed) = settled(FakeSource::fixed()).await;
    world.tokens.reject(fixed.generation(), None);
    quiet().await;
    world.source.standing(secret("fixed-1"));
    world.tokens.retry_now();
    quiet().await;
    assert_eq!(world.source.reasons(), [IssueReason::Nudged]);
    assert!(world.token_at_once().await.unwrap().generation() > fixed.generation());
    let told = [(FIXED_TOKEN_REFUSED, true), (AuthStatus::Pending, true), (AuthStatus::Running, true)];
    assert!(world.events.told().iter().all(|event| told.contains(event)));
    assert_eq!(world.tokens.status(), AuthStatus::Running);
}

#[tokio::test(start_paused = true)]
async fn the_third_fresh_token_refused_in_a_row_opens_the_long_window() {
    for (challenge, serving) in [(None, true), (Some(invalid_token()), false)] {
        let (world, _) = settled(FakeSource::always(eternal())).await;
        for strike in 1..=3 {
            assert_eq!(world.tokens.status(), AuthStatus::Running);
            let held = world.tokens.token().await.unwrap();
            assert_eq!(world.tokens.reject(held.generation(), challenge.as_ref()), Rejection::Refreshing);
            sleep(3 * SECOND).await;
            assert_eq!(world.source.count(), if strike < 3 { strike } else { 2 });
        }
        assert_eq!(world.tokens.status(), RESOURCE_REFUSES);
        assert_eq!(world.token_at_once().await.is_ok(), serving);
        let told = world.events.told();
        assert_eq!(told.last(), Some(&(RESOURCE_REFUSES, serving)));
        assert_eq!(told.iter().filter(|(to, _)| *to == RESOURCE_REFUSES).count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_resource_refuses_there_is_one_refresh_per_tick_and_the_newest_token_is_served() {
    let (world, _) = refused_thrice().await;
    let mut last = world.token_at_once().await.unwrap().generation();
    let began = world.elapsed();
    for tick in 1..=12 {
        sleep(world.tokens.snapshot().next_attempt_in.unwrap() + MILLISECOND).await;
        assert_eq!(world.source.count(), tick);
        let newest = world.token_at_once().await.unwrap().generation();
        assert_eq!(newest, last_plus_one(&world, last));
        last = newest;
        // Refused again and again: marks only.
        sleep(3 * SECOND).await;
        world.tokens.reject(newest, None);
        quiet().await;
    }
    assert!((108 * MINUTE..=133 * MINUTE).contains(&(world.elapsed() - began)));
    assert_eq!(world.events.told(), [], "one status all along");
    assert_eq!(world.tokens.status(), RESOURCE_REFUSES);
}

#[tokio::test(start_paused = true)]
async fn an_acceptance_ends_the_refusal() {
    let (world, held) = refused_thrice().await;
    world.tokens.accept(held.generation());
    quiet().await;
    assert_eq!(world.events.told(), [(AuthStatus::Running, true)]);
    // The strikes are forgotten: it takes three again. Two forced refreshes are left in the budget.
    for strike in 1..=3 {
        assert_eq!(world.tokens.status(), AuthStatus::Running, "strike {strike}");
        sleep(3 * SECOND).await;
        let held = world.tokens.token().await.unwrap();
        world.tokens.reject(held.generation(), None);
        quiet().await;
    }
    assert_eq!(world.source.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_acceptance_of_an_older_token_is_no_acceptance() {
    let (world, old) = settled(FakeSource::always(eternal())).await;
    for _ in 0..3 {
        let held = world.tokens.token().await.unwrap();
        world.tokens.reject(held.generation(), None);
        sleep(3 * SECOND).await;
        world.tokens.accept(old.generation());
        quiet().await;
    }
    assert_eq!(world.tokens.status(), RESOURCE_REFUSES);
    world.tokens.accept(old.generation());
    quiet().await;
    assert_eq!(world.tokens.status(), RESOURCE_REFUSES);
}

#[tokio::test(start_paused = true)]
async fn an_acceptance_in_between_interrupts_the_strikes() {
    let (world, mut held) = settled(FakeSource::always(eternal())).await;
    for round in 0..4 {
        world.tokens.reject(held.generation(), None);
        sleep(3 * SECOND).await;
        held = world.tokens.token().await.unwrap();
        if round % 2 == 1 {
            world.tokens.accept(held.generation());
        }
    }
    assert_eq!(world.tokens.status(), AuthStatus::Running);
    assert_eq!(world.source.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_api_that_is_dead_for_three_minutes_heals_by_itself() {
    for challenge in [None, Some(invalid_token())] {
        let (world, _) = settled(FakeSource::always(eternal())).await;
        let began = world.elapsed();
        let (mut healed, mut refused) = (None, 0);
        while world.elapsed() < began + 30 * MINUTE {
            if let Ok(token) = world.tokens.token().await {
                if world.elapsed() < began + 3 * MINUTE {
                    refused += 1;
                    world.tokens.reject(token.generation(), challenge.as_ref());
                } else {
                    world.tokens.accept(token.generation());
                    healed.get_or_insert(world.elapsed() - began);
                }
            }
            sleep(SECOND).await;
        }
        assert!(refused > 3);
        assert_eq!(world.tokens.status(), AuthStatus::Running);
        // A suspect is served all along; without a token to try, the next tick or probe brings one.
        let limit = if challenge.is_none() { 3 * MINUTE } else { 15 * MINUTE };
        assert!(healed.unwrap() <= limit, "{healed:?}");
        assert!(world.source.count() <= 4 + 2, "the budget, and a tick or two: {}", world.source.count());
    }
}

#[tokio::test(start_paused = true)]
async fn the_very_secret_that_was_refused_is_a_failed_attempt() {
    let answers = [secret("same"), secret("same"), secret("other")];
    let (world, old) = settled(FakeSource::scripted(answers)).await;
    world.tokens.reject(old.generation(), Some(&invalid_token()));
    let error = world.caller_after(&old).await.unwrap().unwrap_err();
    assert_eq!(cause(&error).rule(), "token-already-refused");
    let next = world.tokens.token().await.unwrap();
    assert_eq!((next.secret(), next.generation().get()), ("other", 2));
    assert_eq!(world.source.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_same_secret_is_fine_as_long_as_nobody_refused_it() {
    let (world, _) = settled(FakeSource::always(secret("same"))).await;
    world.tokens.retry_now();
    quiet().await;
    assert_eq!((world.source.count(), world.token_at_once().await.unwrap().generation().get()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_during_an_ahead_refresh_joins_it() {
    for challenge in [None, Some(invalid_token())] {
        let source = FakeSource::scripted([token(HOUR), token(HOUR).taking(5 * SECOND)]);
        let (world, old) = World::holding(source).await;
        while !world.source.is_called() {
            sleep(SECOND).await;
        }
        assert_eq!(world.tokens.reject(old.generation(), challenge.as_ref()), Rejection::Refreshing);
        assert_eq!(world.tokens.try_token().is_ok(), challenge.is_none(), "a definite one is a definite one");
        assert_eq!(world.caller_after(&old).await.unwrap().unwrap().secret(), "token-2");
        sleep(30 * MINUTE).await;
        assert_eq!(world.source.reasons(), [IssueReason::Ahead]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejection_in_the_short_retry_spends_and_starts_nothing() {
    let source = FakeSource::always(failure());
    source.first([token(HOUR)]);
    let (world, held) = World::holding(source).await;
    while world.source.count() < 4 {
        sleep(100 * MILLISECOND).await;
    }
    // The next try is about 8 s away.
    assert_eq!(world.tokens.reject(held.generation(), None), Rejection::Refreshing);
    at_once(world.tokens.token_after(held.generation())).await.unwrap_err();
    sleep(5 * SECOND).await;
    assert_eq!(world.source.count(), 4);
    world.source.standing(token(HOUR));
    sleep(10 * SECOND).await;
    assert_eq!(world.source.count(), 5);
    // The budget is whole: four more.
    for _ in 0..4 {
        let held = world.tokens.token().await.unwrap();
        world.tokens.accept(held.generation());
        assert_eq!(world.tokens.reject(held.generation(), None), Rejection::Refreshing);
        sleep(3 * SECOND).await;
    }
    assert_eq!(world.source.count(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_in_auth_retrying_marks_only() {
    for (challenge, serving) in [(None, true), (Some(invalid_token()), false)] {
        let source = FakeSource::always(failure());
        source.first([token(HOUR)]);
        let (world, held) = World::holding(source).await;
        world.until(&AUTH_RETRYING).await;
        world.forget();
        assert_eq!(world.tokens.reject(held.generation(), challenge.as_ref()), Rejection::PassThrough);
        assert_eq!(world.tokens.try_token().is_ok(), serving);
        quiet().await;
        assert_eq!(world.source.count(), 0);
        let told = if serving { vec![] } else { vec![(AUTH_RETRYING, false)] };
        assert_eq!(world.events.told(), told);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejection_after_the_verdict_marks_only() {
    for (challenge, serving) in [(None, true), (Some(invalid_token()), false)] {
        let source = FakeSource::scripted([token(HOUR), rejection("invalid_grant")]);
        let (world, held) = World::holding(source).await;
        world.until(&rejected("invalid_grant")).await;
        world.forget();
        assert_eq!(world.tokens.reject(held.generation(), challenge.as_ref()), Rejection::PassThrough);
        assert_eq!(world.tokens.try_token().is_ok(), serving);
        quiet().await;
        let told = if serving { vec![] } else { vec![(rejected("invalid_grant"), false)] };
        assert_eq!(world.events.told(), told);
        sleep(HOUR).await;
        assert_eq!(world.source.count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_new_token_cures_is_handed_to_the_host() {
    let (world, held) = settled(FakeSource::scripted([eternal()])).await;
    for error in ["insufficient_user_authentication", "use_dpop_nonce"] {
        let challenge = challenge(&format!(r#"DPoP error="{error}""#));
        assert_eq!(world.tokens.reject(held.generation(), Some(&challenge)), Rejection::HandToHost);
    }
    sleep(MINUTE).await;
    assert_eq!(world.token_at_once().await.unwrap().generation(), held.generation());
    assert_eq!((world.source.count(), world.events.told()), (0, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_claims_challenge_reaches_the_source_once() {
    let source = FakeSource::scripted([eternal(), eternal().taking(SECOND), eternal()]);
    let (world, old) = settled(source).await;
    assert_eq!(world.tokens.reject(old.generation(), Some(&claims_needed())), Rejection::Refreshing);
    assert_eq!(world.tokens.try_token().unwrap().generation(), old.generation(), "good for other requests");
    let next = world.caller_after(&old).await.unwrap().unwrap();
    assert_eq!(next.secret(), "token-2");
    // Fulfilled: not asked for again.
    sleep(3 * SECOND).await;
    world.tokens.reject(next.generation(), None);
    quiet().await;
    assert_eq!(claims_asked_for(&world), [Some(CLAIMS.to_owned()), None]);
}

#[tokio::test(start_paused = true)]
async fn claims_stay_asked_for_while_attempts_fail() {
    let source = FakeSource::scripted([eternal(), failure(), failure(), eternal()]);
    let (world, old) = settled(source).await;
    world.tokens.reject(old.generation(), Some(&claims_needed()));
    sleep(MINUTE).await;
    assert_eq!(claims_asked_for(&world), vec![Some(CLAIMS.to_owned()); 3]);
}

#[tokio::test(start_paused = true)]
async fn a_claims_challenge_during_an_attempt_is_remembered() {
    let with_invalid_token = r#"Bearer error="invalid_token", claims="eyJhY2Nlc3NfdG9rZW4iOnt9fQ==""#;
    for challenge in [claims_needed(), challenge(with_invalid_token)] {
        let source = FakeSource::scripted([eternal(), eternal().taking(5 * SECOND), eternal()]);
        let (world, old) = settled(source).await;
        world.tokens.retry_now();
        sleep(SECOND).await;
        assert_eq!(world.tokens.reject(old.generation(), Some(&challenge)), Rejection::Refreshing);
        sleep(MINUTE).await;
        assert_eq!(claims_asked_for(&world), [None, Some(CLAIMS.to_owned())]);
        assert_eq!(world.source.reasons()[1], IssueReason::Rejected);
        let calls = world.source.calls();
        assert_eq!(calls[1].at, calls[0].at + 6 * SECOND, "a second after the end of the first");
    }
}

#[tokio::test(start_paused = true)]
async fn other_claims_during_an_attempt_with_claims_are_remembered_too() {
    let others = challenge(r#"Bearer error="insufficient_claims", claims="{\"other\":{}}""#);
    let source = FakeSource::scripted([eternal(), eternal().taking(5 * SECOND), eternal()]);
    let (world, old) = settled(source).await;
    world.tokens.reject(old.generation(), Some(&claims_needed()));
    sleep(SECOND).await;
    assert_eq!(world.tokens.reject(old.generation(), Some(&others)), Rejection::Refreshing);
    sleep(MINUTE).await;
    assert_eq!(claims_asked_for(&world), [Some(CLAIMS.to_owned()), Some(r#"{"other":{}}"#.to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_next_token_never_forces_one() {
    let (world, held) = settled(FakeSource::scripted([eternal()])).await;
    for _ in 0..10 {
        let error = at_once(world.tokens.token_after(held.generation())).await.unwrap_err();
        assert!(error.is_retrying());
        quiet().await;
    }
    sleep(MINUTE).await;
    assert_eq!(world.source.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_next_token_is_at_once_over_where_one_is_there() {
    let (world, old) = settled(FakeSource::scripted([eternal(), eternal()])).await;
    world.tokens.retry_now();
    quiet().await;
    assert_eq!(at_once(world.tokens.token_after(old.generation())).await.unwrap().secret(), "token-2");
}

#[tokio::test(start_paused = true)]
async fn waiting_begins_right_after_the_rejection() {
    for challenge in [None, Some(invalid_token()), Some(claims_needed())] {
        let (world, old) = settled(FakeSource::scripted([eternal(), eternal().taking(SECOND)])).await;
        world.tokens.reject(old.generation(), challenge.as_ref());
        // The driver has not run yet: first poll.
        let next = world.tokens.token_after(old.generation()).await.unwrap();
        assert_eq!(next.secret(), "token-2");
        assert_eq!(world.source.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn all_who_were_refused_wait_for_the_same_token() {
    let (world, old) = settled(FakeSource::scripted([eternal(), eternal().taking(SECOND)])).await;
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            world.tokens.reject(old.generation(), Some(&invalid_token()));
            world.caller_after(&old)
        })
        .collect();
    for answer in all(waiting).await {
        assert_eq!(answer.unwrap().secret(), "token-2");
    }
    assert_eq!(world.source.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_next_token_shares_the_failure_too() {
    let (world, old) = settled(FakeSource::scripted([eternal(), failure().taking(SECOND), eternal()])).await;
    world.tokens.reject(old.generation(), Some(&invalid_token()));
    let waiting = (0..100).map(|_| world.caller_after(&old)).collect();
    let answers = all(waiting).await;
    let first = cause(answers[0].as_ref().unwrap_err());
    assert!(answers.iter().all(|answer| std::ptr::eq(cause(answer.as_ref().unwrap_err()), first)));
    sleep(2 * SECOND).await;
    assert_eq!(world.token_at_once().await.unwrap().secret(), "token-2");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_the_next_token_when_it_will_not_come_soon() {
    let (world, held) = refused_thrice().await;
    assert!(at_once(world.tokens.token_after(held.generation())).await.unwrap_err().is_retrying());
    world.source.standing(hang());
    sleep(world.tokens.snapshot().next_attempt_in.unwrap() + SECOND).await;
    assert!(world.source.is_called());
    let error = at_once(world.tokens.token_after(held.generation())).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(SECOND), "even while a tick is in flight");

    let (world, held) = with_empty_budget().await;
    world.tokens.reject(held.generation(), None);
    at_once(world.tokens.token_after(held.generation())).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_forced_refresh_obeys_an_earlier_retry_after() {
    let (world, _) = refused_thrice().await;
    world.source.standing(busy_for(HOUR));
    sleep(world.tokens.snapshot().next_attempt_in.unwrap() + MILLISECOND).await;
    let calls = world.source.take_calls();
    assert_eq!(calls.len(), 1);
    let held = world.token_at_once().await.unwrap();
    world.tokens.accept(held.generation());
    quiet().await;
    assert_eq!(world.tokens.status(), AuthStatus::Running);

    world.source.standing(eternal());
    assert_eq!(world.tokens.reject(held.generation(), None), Rejection::Refreshing);
    at_once(world.tokens.token_after(held.generation())).await.unwrap_err();
    sleep(HOUR + SECOND).await;
    let forced = world.source.calls();
    assert_eq!((forced.len(), forced[0].reason), (1, IssueReason::Rejected));
    assert_eq!(forced[0].at, calls[0].at + HOUR);
}

#[tokio::test(start_paused = true)]
async fn a_forced_refresh_rests_a_second_after_the_last_attempt() {
    let policy = RefreshPolicy { settle: MILLISECOND, ..RefreshPolicy::default() };
    let world = World::with(FakeSource::scripted([eternal(), eternal()]), policy);
    let young = world.tokens.token().await.unwrap();
    sleep(2 * MILLISECOND).await;
    world.tokens.reject(young.generation(), Some(&invalid_token()));
    // Both kinds of callers wait for it.
    let waiting = (world.caller(), world.caller_after(&young));
    assert_eq!(waiting.0.await.unwrap().unwrap().secret(), "token-2");
    assert_eq!(waiting.1.await.unwrap().unwrap().secret(), "token-2");
    assert_eq!(world.source.calls()[1].at, SECOND);
}

/// A monitor whose token is older than `settle`.
async fn settled(source: FakeSource) -> (World, AccessToken) {
    let (world, held) = World::holding(source).await;
    sleep(3 * SECOND).await;
    (world, held)
}

/// A monitor whose fresh tokens were suspects three times in a row; the third is served.
async fn refused_thrice() -> (World, AccessToken) {
    let (world, _) = settled(FakeSource::always(eternal())).await;
    for _ in 0..3 {
        let held = world.tokens.token().await.unwrap();
        world.tokens.reject(held.generation(), None);
        sleep(3 * SECOND).await;
    }
    assert_eq!(world.tokens.status(), RESOURCE_REFUSES);
    world.forget();
    let held = world.token_at_once().await.unwrap();
    (world, held)
}

/// A monitor that has spent its four forced refreshes, without a strike, in 12 s.
async fn with_empty_budget() -> (World, AccessToken) {
    let (world, mut held) = settled(FakeSource::always(eternal())).await;
    for _ in 0..4 {
        world.tokens.accept(held.generation());
        world.tokens.reject(held.generation(), None);
        sleep(3 * SECOND).await;
        held = world.tokens.token().await.unwrap();
    }
    world.forget();
    (world, held)
}

fn claims_asked_for(world: &World) -> Vec<Option<String>> {
    world.source.calls().into_iter().map(|call| call.claims).collect()
}

fn last_plus_one(world: &World, last: steadfast::Generation) -> steadfast::Generation {
    let newest = world.tokens.snapshot().generation.unwrap();
    assert_eq!(newest.get(), last.get() + 1);
    newest
}
