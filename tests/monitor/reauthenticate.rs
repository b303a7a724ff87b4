//! New credentials on the same handle.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use steadfast::{AuthStatus, IssueReason, IssuedToken, MonitoredTokenSource, RefreshPolicy, Rejection, Stopped};
use tokio::time::sleep;

use crate::world::{
    AUTH_RETRYING, Answer, DAY, FakeSource, HOUR, MILLISECOND, MINUTE, SECOND, World, all, at_once, busy_for,
    claims_needed, eternal, failure, hang, invalid_token, quiet, rejected, rejection, token,
};

#[tokio::test(start_paused = true)]
async fn the_late_result_of_the_old_source_changes_nothing() {
    let results: [Answer; 4] = [token(HOUR), rejection("invalid_grant"), failure(), busy_for(HOUR)];
    for late in results {
        let world = World::of(FakeSource::scripted([late.taking(15 * SECOND)]));
        let new = FakeSource::of_new_login([token(HOUR).taking(SECOND), token(HOUR)]);
        let waiting = world.callers(100);
        sleep(5 * SECOND).await;
        world.tokens.reauthenticate(new.inside()).unwrap();
        // Those who waited for the old source move over.
        for answer in waiting {
            assert_eq!(answer.await.unwrap().unwrap().secret(), "new-login-1");
        }
        assert_eq!(world.elapsed(), 6 * SECOND);
        quiet().await;
        assert_eq!(world.events.told(), [(AuthStatus::Running, true)]);
        assert!(world.source.is_called(), "the old attempt goes on: it may be saving a rotated refresh token");

        sleep(10 * SECOND).await;
        assert!(!world.source.is_called());
        assert_eq!(world.events.told(), []);
        assert_eq!(world.token_at_once().await.unwrap().secret(), "new-login-1");
        assert_eq!(world.tokens.status(), AuthStatus::Running);
        // Nor does it hold anything back later.
        sleep(50 * MINUTE).await;
        assert_eq!(new.reasons(), [IssueReason::Initial, IssueReason::Ahead]);
        assert_eq!(world.source.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_that_lands_in_the_same_instant_changes_nothing_either() {
    let results: [Answer; 3] = [token(HOUR), rejection("invalid_grant"), failure()];
    for (late, yields) in results.iter().flat_map(|late| (0..8).map(move |yields| (late, yields))) {
        let world = World::of(FakeSource::scripted([late.clone().taking(5 * SECOND)]));
        let new = FakeSource::of_new_login([token(HOUR).taking(SECOND)]);
        sleep(5 * SECOND - MILLISECOND).await;
        let waiting = world.caller();
        sleep(MILLISECOND).await;
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
        let in_time = !waiting.is_finished();
        world.tokens.reauthenticate(new.inside()).unwrap();
        for _ in 0..16 {
            assert!(world.tokens.try_token().unwrap_err().is_still_refreshing());
            tokio::task::yield_now().await;
        }
        assert_eq!(world.tokens.token().await.unwrap().secret(), "new-login-1");
        assert_eq!(world.elapsed(), 6 * SECOND);
        let answer = waiting.await.unwrap();
        assert!(!in_time || answer.unwrap().secret() == "new-login-1", "moved over");
    }
}

#[tokio::test(start_paused = true)]
async fn a_nudge_just_before_a_new_login_asks_nothing_of_the_old_source() {
    let (world, _) = World::holding(FakeSource::scripted([token(HOUR)])).await;
    sleep(MINUTE).await;
    world.tokens.retry_now();
    let new = FakeSource::of_new_login([token(HOUR)]);
    world.tokens.reauthenticate(new.inside()).unwrap();
    assert_eq!(world.tokens.token().await.unwrap().secret(), "new-login-1");
    sleep(MINUTE).await;
    assert_eq!((world.source.count(), new.count()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_old_failure_is_not_told_of_the_new_login() {
    let world = World::in_outage(RefreshPolicy::default()).await;
    let new = FakeSource::of_new_login([hang()]);
    world.tokens.reauthenticate(new.inside()).unwrap();
    for _ in 0..2 {
        assert!(world.tokens.try_token().unwrap_err().source().is_none());
        assert_eq!(world.tokens.snapshot().last_failure, None);
        quiet().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_old_token_is_not_handed_out_from_the_very_call_on() {
    let (world, held) = World::holding(FakeSource::scripted([token(HOUR)])).await;
    let clone = world.tokens.clone();
    let new = FakeSource::of_new_login([token(HOUR).taking(5 * SECOND)]);
    world.tokens.reauthenticate(new.inside()).unwrap();
    for handle in [&world.tokens, &clone] {
        assert!(handle.try_token().unwrap_err().is_still_refreshing());
        assert_eq!((handle.status(), handle.snapshot().serving), (AuthStatus::Pending, false));
    }
    let token = clone.token().await.unwrap();
    assert_eq!((token.secret(), world.elapsed()), ("new-login-1", 5 * SECOND));
    assert!(token.generation() > held.generation(), "generations grow across runs");
    quiet().await;
    assert_eq!(world.events.told(), [(AuthStatus::Pending, false), (AuthStatus::Running, true)]);
    // A straggler of the old account.
    assert_eq!(world.tokens.reject(held.generation(), None), Rejection::Superseded);
    world.tokens.accept(held.generation());
    sleep(MINUTE).await;
    assert_eq!((world.source.count(), new.count()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_straggler_of_the_old_account_does_not_disturb_the_new_run() {
    let (world, held) = World::holding(FakeSource::scripted([token(HOUR)])).await;
    let new = FakeSource::of_new_login([token(HOUR).taking(5 * SECOND)]);
    world.tokens.reauthenticate(new.inside()).unwrap();
    // Whether the driver has heard of the new login or not: a new token is on its way.
    assert_eq!(world.tokens.reject(held.generation(), Some(&claims_needed())), Rejection::Refreshing);
    quiet().await;
    assert_eq!(world.tokens.reject(held.generation(), Some(&claims_needed())), Rejection::Refreshing);
    let next = world.caller_after(&held).await.unwrap().unwrap();
    assert_eq!(next.secret(), "new-login-1");
    sleep(30 * MINUTE).await;
    assert_eq!(new.count(), 1);
    assert_eq!(new.calls()[0].claims, None);
}

#[tokio::test(start_paused = true)]
async fn a_new_login_ends_unauthenticated() {
    let world = World::of(FakeSource::scripted([rejection("invalid_grant")]));
    world.until(&rejected("invalid_grant")).await;
    world.forget();
    let new = FakeSource::of_new_login([token(HOUR)]);
    world.tokens.reauthenticate(new.inside()).unwrap();
    assert_eq!(at_once(world.tokens.token()).await.unwrap().secret(), "new-login-1");
    assert_eq!(new.reasons(), [IssueReason::Initial]);
}

#[tokio::test(start_paused = true)]
async fn a_new_login_owes_nothing_to_the_old_ones_floors() {
    let world = World::of(FakeSource::scripted([busy_for(HOUR)]));
    world.until(&AUTH_RETRYING).await;
    let new = FakeSource::of_new_login([token(HOUR)]);
    world.tokens.reauthenticate(new.inside()).unwrap();
    assert_eq!(at_once(world.tokens.token()).await.unwrap().secret(), "new-login-1");
}

#[tokio::test(start_paused = true)]
async fn a_new_login_has_a_short_retry_a_budget_and_strikes_of_its_own() {
    let (world, _) = World::holding(FakeSource::always(eternal())).await;
    // Two strikes, and a budget spent by half.
    for _ in 0..2 {
        sleep(3 * SECOND).await;
        let generation = world.tokens.token().await.unwrap().generation();
        assert_eq!(world.tokens.reject(generation, None), Rejection::Refreshing);
        quiet().await;
    }
    let new = FakeSource::always(eternal());
    new.first([failure(), failure()]);
    world.tokens.reauthenticate(new.inside()).unwrap();
    world.until(&AuthStatus::Running).await;
    // The same number again, and only then the third.
    for strike in 1..=3 {
        assert_eq!(world.tokens.status(), AuthStatus::Running, "strike {strike}");
        sleep(3 * SECOND).await;
        let generation = world.tokens.token().await.unwrap().generation();
        assert_eq!(world.tokens.reject(generation, None), Rejection::Refreshing);
        quiet().await;
    }
    assert_eq!(world.tokens.status(), crate::world::RESOURCE_REFUSES);
    assert_eq!(new.count(), 3 + 2);
}

#[tokio::test(start_paused = true)]
async fn of_two_new_logins_the_later_counts() {
    let (world, _) = World::holding(FakeSource::scripted([token(HOUR)])).await;
    let (never, new) = (FakeSource::scripted([]), FakeSource::of_new_login([token(HOUR)]));
    world.tokens.reauthenticate(never.inside()).unwrap();
    world.tokens.reauthenticate(new.inside()).unwrap();
    assert_eq!(world.tokens.token().await.unwrap().secret(), "new-login-1");
    assert_eq!(never.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_login_from_refreshing_to_fixed_and_back() {
    let (world, _) = World::holding(FakeSource::scripted([token(HOUR)])).await;
    let fixed = FakeSource::fixed();
    world.tokens.reauthenticate(fixed.inside()).unwrap();
    let token = world.tokens.token().await.unwrap();
    sleep(3 * SECOND).await;
    assert_eq!(world.tokens.reject(token.generation(), None), Rejection::PassThrough);
    quiet().await;
    assert_eq!(world.tokens.status(), crate::world::FIXED_TOKEN_REFUSED);
    let new = FakeSource::of_new_login([eternal(), eternal()]);
    world.tokens.reauthenticate(new.inside()).unwrap();
    let token = world.tokens.token().await.unwrap();
    sleep(3 * SECOND).await;
    assert_eq!(world.tokens.reject(token.generation(), None), Rejection::Refreshing);
    sleep(SECOND).await;
    assert_eq!(world.tokens.token().await.unwrap().secret(), "new-login-2");
}

#[tokio::test(start_paused = true)]
async fn a_new_login_while_the_old_attempt_hangs_in_auth_retrying() {
    let world = World::in_outage(RefreshPolicy::default()).await;
    world.source.standing(hang());
    sleep(world.tokens.snapshot().next_attempt_in.unwrap() + MILLISECOND).await;
    assert!(world.source.is_called());
    let new = FakeSource::of_new_login([failure(), eternal()]);
    world.tokens.reauthenticate(new.inside()).unwrap();
    assert!(at_once(world.tokens.token()).await.unwrap_err().is_retrying(), "its first attempt failed");
    assert_eq!(world.tokens.token().await.unwrap().secret(), "new-login-1");
    quiet().await;
    assert_eq!(world.events.told(), [(AuthStatus::Pending, false), (AuthStatus::Running, true)]);
    // The old attempt runs into its time limit.
    sleep(DAY).await;
    assert_eq!((world.source.count(), new.count()), (1, 2));
    assert_eq!(world.events.told(), []);
}

/// On several threads, so that the driver runs while handles act.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_gets_a_token_again_that_was_taken_away() {
    let login = |number: u64| move || async move { Ok(IssuedToken::bearer(number.to_string())) };
    let policy = RefreshPolicy { settle: Duration::ZERO, ..RefreshPolicy::default() };
    let tokens = MonitoredTokenSource::builder(login(0)).policy(policy).spawn().unwrap();
    let (newest_login, last_refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (tokens, newest, refused) = (tokens.clone(), Arc::clone(&newest_login), Arc::clone(&last_refused));
            tokio::spawn(async move {
                loop {
                    let (newest, refused) = (newest.load(Ordering::SeqCst), refused.load(Ordering::SeqCst));
                    match tokens.try_token() {
                        Ok(token) => {
                            assert!(token.secret().parse::<u64>().unwrap() >= newest, "of an old login");
                            assert!(token.generation().get() > refused, "refused");
                        }
                        Err(error) if error.is_stopped() => return,
                        Err(_) => {}
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for round in 1..=1_000 {
        tokens.reauthenticate(login(round)).unwrap();
        newest_login.store(round, Ordering::SeqCst);
        let token = tokens.token().await.unwrap();
        assert_eq!(token.secret(), round.to_string());
        if round % 2 == 0 {
            assert_eq!(tokens.reject(token.generation(), Some(&invalid_token())), Rejection::Refreshing);
            last_refused.store(token.generation().get(), Ordering::SeqCst);
        } else {
            // Something to do for the driver that has to do with the old login.
            tokens.retry_now();
        }
    }
    tokens.shutdown().await;
    all(readers).await;
}

#[tokio::test(start_paused = true)]
async fn after_the_end_there_is_no_new_login() {
    let (world, _) = World::holding(FakeSource::scripted([token(HOUR)])).await;
    world.tokens.shutdown().await;
    let never = FakeSource::scripted([]);
    assert_eq!(world.tokens.reauthenticate(never.inside()), Err(Stopped));
    assert!(world.token_at_once().await.unwrap_err().is_stopped());
    sleep(HOUR).await;
    assert_eq!(never.count(), 0);
}
