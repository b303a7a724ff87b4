//! The transaction, rule by rule, on a paused clock: a scripted token endpoint, and a store that fails as it is told.
#![allow(clippy::disallowed_methods, reason = "it reads the paused clock")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper that fails fails the test"
)]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use secrecy::ExposeSecret;
use steadfast::{
    AuthStatus, Delivery, IssueError, IssueReason, IssueRequest, IssuedToken, Lifetime, MonitoredTokenSource,
    RetryCause, StatusEvent, TokenSource, UnauthenticatedReason, Verdict,
    oauth::{ClientCredentialsGrant, RefreshTokenGrant, StoredRefreshTokenGrant},
    rotation::{SharedLogin, Tally},
    store::{Content, GrantStore, Identity, Lease, MemoryStore, Record, StoreError, StoredGrant, StoredToken, Terms},
    testing::{Answer, Mishap, ScriptedIdp, TestClock},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

// What all who share a login can rely on.

#[tokio::test(start_paused = true)]
async fn one_exchanges_and_the_others_take_up_what_it_brought() {
    let world = World::new().await;
    let logins: Vec<_> = (0..8).map(|_| world.login()).collect();
    let request = initial();
    let tokens = futures_util::future::join_all(logins.iter().map(|login| login.issue(&request))).await;
    let first = tokens[0].as_ref().unwrap().expose_secret();
    assert!(tokens.iter().all(|token| token.as_ref().unwrap().expose_secret() == first));
    assert_eq!(world.idp.calls(), 1);
    let exchanged: u64 = logins.iter().map(|login| login.tally().exchanged).sum();
    assert_eq!(exchanged, 1);
}

#[tokio::test(start_paused = true)]
async fn the_five_steps_come_in_order() {
    let world = World::new().await;
    world.login().issue(&initial()).await.unwrap();
    assert_eq!(world.store.calls(), ["lease", "load", "renew", "commit", "release"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_sees_a_token_before_its_pair_is_saved() {
    let world = World::new().await;
    world.store.slow("commit", Duration::from_secs(3));
    let (login, began) = (world.login(), Instant::now());
    login.issue(&initial()).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_new_start_takes_up_what_the_last_run_saved() {
    let world = World::new().await;
    let first = world.login().issue(&initial()).await.unwrap();
    world.clock.step_forward(Duration::from_secs(600));
    let again = world.login().issue(&initial()).await.unwrap();
    assert_eq!(again.expose_secret(), first.expose_secret());
    assert_eq!(again.lifetime(), Lifetime::Known(Duration::from_secs(3000)), "what is left of it");
    assert_eq!(world.idp.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_due_is_not_taken_up_but_its_refresh_token_is_exchanged() {
    let world = World::new().await;
    world.login().issue(&initial()).await.unwrap();
    world.clock.step_forward(Duration::from_secs(50 * 60));
    let login = world.login();
    login.issue(&initial()).await.unwrap();
    assert_eq!(login.tally(), tally(1, 0));
    assert_eq!(world.refresh_tokens_sent().len(), 2);
    assert!(!world.idp.reuse_detected());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_off_never_makes_a_token_last_longer_than_it_was_issued_for() {
    let world = World::new().await;
    world.login().issue(&initial()).await.unwrap();
    world.clock.step_back(Duration::from_secs(24 * 3600));
    let token = world.login().issue(&initial()).await.unwrap();
    assert_eq!(token.lifetime(), Lifetime::Known(Duration::from_secs(3600)));
    world.clock.step_forward(Duration::from_secs(48 * 3600));
    let ahead = world.login();
    ahead.issue(&initial()).await.unwrap();
    assert_eq!(ahead.tally(), tally(1, 0), "expired by a clock that is ahead: asked anew");
}

#[tokio::test(start_paused = true)]
async fn the_token_that_was_handed_out_last_is_not_handed_out_again() {
    let world = World::new().await;
    let login = world.login();
    let first = login.issue(&initial()).await.unwrap();
    let second = login.issue(&IssueRequest::new(IssueReason::Rejected)).await.unwrap();
    assert_ne!(first.expose_secret(), second.expose_secret());
    assert_eq!(login.tally(), tally(2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_shared_only_among_those_who_ask_for_the_same() {
    let world = World::new().await;
    world.login().issue(&initial()).await.unwrap();
    let narrower = world.grant_with(|builder| builder.scopes(["read"]));
    let elsewhere = world.grant_with(|builder| builder.resource("https://api.example.com/"));
    let other = world.grant_with(|builder| builder.param("audience", "https://other.example.com/"));
    for grant in [narrower, elsewhere, other] {
        let login = world.login_with(grant);
        login.issue(&initial()).await.unwrap();
        assert_eq!(login.tally(), tally(1, 0));
    }
    let login = world.login_with(world.grant_with(|builder| builder.param("audience", "https://other.example.com/")));
    login.issue(&initial()).await.unwrap();
    assert_eq!(login.tally(), tally(0, 1));
    assert!(!world.idp.reuse_detected(), "the refresh token is shared by all");
}

#[tokio::test(start_paused = true)]
async fn wanted_claims_are_asked_for_whatever_is_stored() {
    let world = World::new().await;
    world.login().issue(&initial()).await.unwrap();
    let login = world.login();
    login.issue(&initial().with_claims(r#"{"a":1}"#)).await.unwrap();
    assert_eq!(world.idp.log()[1].parameter("claims"), Some(r#"{"a":1}"#));
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_a_refresh_token_keeps_the_old_one() {
    let world = World::new().await;
    world.idp.then(Answer::success().without("refresh_token"));
    let login = world.login();
    for _ in 0..2 {
        login.issue(&initial()).await.unwrap();
    }
    let sent = world.refresh_tokens_sent();
    assert_eq!(sent[0], sent[1]);
}

#[tokio::test(start_paused = true)]
async fn a_refresh_token_counts_even_if_the_access_token_beside_it_is_of_no_use() {
    let world = World::new().await;
    world.idp.then(Answer::success().with("token_type", "mac"));
    let login = world.login();
    assert!(login.issue(&initial()).await.is_err());
    login.issue(&initial()).await.unwrap();
    let sent = world.refresh_tokens_sent();
    assert_ne!(sent[0], sent[1]);
    assert!(!world.idp.reuse_detected());
}

#[tokio::test(start_paused = true)]
async fn a_hot_token_does_not_touch_the_store() {
    let world = World::new().await;
    let tokens = world.monitor(world.login()).0;
    tokens.token().await.unwrap();
    let calls = world.store.calls().len();
    for _ in 0..1000 {
        tokens.token().await.unwrap();
    }
    assert_eq!(world.store.calls().len(), calls);
}

// Waiting for others.

#[tokio::test(start_paused = true)]
async fn a_waiter_takes_up_what_the_holder_brings_without_a_lease_of_its_own() {
    let world = World::new().await;
    let holder = world.store.memory.lease(TTL).await.unwrap();
    let waiter = world.login();
    let waiting = tokio::spawn(async move { (waiter.issue(&initial()).await, waiter.tally()) });
    sleep(Duration::from_secs(2)).await;
    world.put_by(&holder, world.stored("rt-of-the-holder", "at-of-the-holder")).await;
    let (token, tally_of_waiter) = waiting.await.unwrap();
    assert_eq!(token.unwrap().expose_secret(), "at-of-the-holder");
    assert_eq!((tally_of_waiter, world.idp.calls()), (tally(0, 1), 0));
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_stays_taken_is_busy_and_not_sent() {
    let world = World::new().await;
    let _holder = world.store.memory.lease(Duration::from_secs(600)).await.unwrap();
    let began = Instant::now();
    let error = issue_error(world.login().issue(&initial()).await);
    assert!(error.is_busy());
    assert_eq!((error.verdict(), error.delivery()), (&Verdict::Transient, Delivery::NotSent));
    assert!(began.elapsed() >= Duration::from_secs(5) && began.elapsed() < Duration::from_secs(6));
    assert_eq!(world.idp.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn being_busy_uses_up_no_try_but_does_not_hide_for_ever() {
    let world = World::new().await;
    let _holder = world.store.memory.lease(Duration::from_secs(24 * 3600)).await.unwrap();
    let (tokens, _events) = world.monitor(world.login());
    sleep(Duration::from_secs(4 * 60)).await;
    assert_eq!(tokens.status(), AuthStatus::Pending);
    assert!(world.store.count("lease") > 8 * 5, "it has tried more often than the short retry allows");
    sleep(Duration::from_secs(2 * 60)).await;
    assert_eq!(tokens.status(), AuthStatus::AuthRetrying(RetryCause::TokenEndpoint));
    assert_eq!(world.idp.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_not_taken_from_the_time_of_the_exchange() {
    let world = World::new().await;
    world.idp.then(Answer::success().after(Duration::from_secs(19)));
    let holder = world.store.memory.lease(TTL).await.unwrap();
    let (tokens, _events) = world.monitor(world.login());
    sleep(Duration::from_secs(4)).await;
    drop(holder);
    sleep(Duration::from_secs(18)).await;
    assert_eq!(tokens.snapshot().last_failure, None, "longer than an exchange may take, but it has not taken so long");
    sleep(Duration::from_secs(2)).await;
    tokens.try_token().expect("4 s for the lease, 19 s for the exchange");
    assert_eq!(world.idp.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_exchange_has_its_own_time_limit_and_the_lease_outlasts_it() {
    let world = World::new().await;
    world.idp.then(Answer::hang());
    let (login, began) = (world.login(), Instant::now());
    let error = issue_error(login.issue(&initial()).await);
    assert_eq!((error.rule(), error.delivery()), ("attempt-timeout", Delivery::Unknown));
    assert_eq!(began.elapsed(), Duration::from_secs(20));
    assert_eq!(world.store.count("renew"), 2, "before, and once on the way");
    login.issue(&initial()).await.unwrap();
    let sent = world.refresh_tokens_sent();
    assert_eq!(sent[0], sent[1], "an unknown outcome may be replayed");
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_while_waiting_for_the_lease_sends_nothing() {
    let world = World::new().await;
    let holder = world.store.memory.lease(TTL).await.unwrap();
    let (tokens, _events) = world.monitor(world.login());
    sleep(Duration::from_secs(2)).await;
    drop(holder);
    let began = Instant::now();
    tokens.shutdown().await;
    assert!(began.elapsed() < Duration::from_secs(1));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.idp.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_in_mid_exchange_waits_until_the_pair_is_saved() {
    let world = World::new().await;
    world.idp.then(Answer::success().after(Duration::from_secs(15)));
    world.store.slow("commit", Duration::from_secs(4));
    let (tokens, _events) = world.monitor(world.login());
    world.idp.called(1).await;
    tokens.shutdown().await;
    assert_eq!(Some(world.refresh_token_stored()), world.idp.current_refresh_token());
}

#[tokio::test(start_paused = true)]
async fn a_store_emptied_in_mid_exchange_is_told_of_in_words() {
    let world = World::new().await;
    world.login().issue(&initial()).await.unwrap();
    world.store.before("commit", Reachable::wipe);
    let (tokens, mut events) = world.monitor(world.login_with_age(50));
    tokens.token().await.expect("callers get their token");
    let event = events.recv().await.unwrap();
    assert!(event.unsaved && event.reason.contains("could not be saved"), "{}", event.reason);
    tokens.retry_now();
    let event = loop {
        let event = timeout(Duration::from_secs(3600), events.recv()).await.unwrap().unwrap();
        if matches!(event.to, AuthStatus::AuthRetrying(_)) {
            break event;
        }
    };
    assert!(event.reason.contains("store-login-gone"), "{}", event.reason);
    assert!(tokens.snapshot().last_failure.unwrap().contains("gone"));
    assert_eq!(world.idp.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lease_lost_before_sending_sends_nothing() {
    let world = World::new().await;
    world.store.fail("renew", || StoreError::LeaseLost);
    let error = issue_error(world.login().issue(&initial()).await);
    assert!(error.is_busy());
    assert_eq!(world.idp.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_given_up_does_not_cut_its_commit() {
    let world = World::new().await;
    world.store.slow("commit", Duration::from_secs(4));
    let login = world.login();
    assert!(timeout(Duration::from_secs(1), login.issue(&initial())).await.is_err());
    let token = login.issue(&initial()).await.unwrap();
    assert_eq!(world.idp.calls(), 1, "the next attempt waits for the first one's transaction");
    assert_eq!(Some(token.expose_secret()), world.idp.current_access_token().as_deref());
}

// Losing well.

#[tokio::test(start_paused = true)]
async fn a_rejected_loser_goes_on_with_the_winners_token_and_nobody_hears_of_it() {
    let world = World::new().await;
    let (tokens, mut events) = world.monitor(world.login());
    tokens.token().await.unwrap();
    assert_eq!(events.recv().await.unwrap().to, AuthStatus::Running);

    world.idp.then(Answer::error("invalid_grant").after(Duration::from_secs(1)));
    tokens.retry_now();
    world.idp.called(2).await;
    let replaced = world.store.memory.load().await.unwrap().map(|record| record.revision());
    let theirs = Content::Grant(world.stored("rt-of-the-winner", "at-of-the-winner"));
    world.store.memory.overwrite(Record::after(replaced, theirs));
    sleep(Duration::from_secs(60)).await;
    assert_eq!(tokens.token().await.unwrap().secret(), "at-of-the-winner");
    assert_eq!(tokens.status(), AuthStatus::Running);
    assert!(events.try_recv().is_err(), "nothing was published");
    assert_eq!(world.refresh_token_stored(), "rt-of-the-winner", "what the winner wrote stands");
}

#[tokio::test(start_paused = true)]
async fn a_login_that_nobody_replaced_is_condemned_once_for_all() {
    let world = World::new().await;
    let survivor = world.login();
    survivor.issue(&initial()).await.unwrap();
    world.idp.revoke_logins();
    let error = issue_error(survivor.issue(&initial()).await);
    assert!(matches!(error.verdict(), Verdict::Rejected(code) if code == "invalid_grant"));
    let calls = world.idp.calls();
    for login in [world.login(), survivor] {
        let error = issue_error(login.issue(&initial()).await);
        assert!(matches!(error.verdict(), Verdict::Rejected(code) if code == "invalid_grant"));
        assert_eq!(error.delivery(), Delivery::NotSent);
    }
    assert_eq!(world.idp.calls(), calls, "whoever reads the tombstone asks nobody");
}

#[tokio::test(start_paused = true)]
async fn a_tombstone_is_no_hindrance_to_a_new_login() {
    let world = World::new().await;
    let old = world.login();
    world.idp.revoke_logins();
    issue_error(old.issue(&initial()).await);

    let fresh = world.grant_for(&world.idp.login());
    world.login_with(fresh).issue(&initial()).await.unwrap();
    old.issue(&initial()).await.expect("the others go on with it");
    assert!(!world.idp.reuse_detected());
}

#[tokio::test(start_paused = true)]
async fn a_rejected_client_condemns_nobodys_login() {
    for code in ["invalid_client", "unauthorized_client", "invalid_scope", "invalid_target"] {
        let world = World::new().await;
        world.idp.then(Answer::error(code));
        let error = issue_error(world.login().issue(&initial()).await);
        assert!(matches!(error.verdict(), Verdict::Rejected(_)));
        world.login().issue(&initial()).await.expect(code);
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_answer_and_commit_is_recognised_and_put_into_words() {
    let world = World::new().await;
    world.login().issue(&initial()).await.unwrap();
    // A process that exchanges, and is gone before it can save.
    world.store.fail("commit", || StoreError::unavailable("the process is gone"));
    world.login_with_age(50).issue(&initial()).await.unwrap();
    world.store.mend();
    world.store.memory.forget_leases();

    let (tokens, mut events) = world.monitor(world.login());
    tokens.token().await.unwrap_err();
    let event = events.recv().await.unwrap();
    assert!(matches!(event.to, AuthStatus::Unauthenticated(UnauthenticatedReason::Rejected(_))));
    let advice = event.remediation.unwrap();
    assert!(advice.contains("sign in again") && advice.contains("before it could save"), "{advice}");
}

#[tokio::test(start_paused = true)]
async fn another_accounts_login_is_neither_used_nor_touched() {
    let world = World::new().await;
    let theirs = SharedLogin::builder(world.grant(), Arc::clone(&world.store)).account("bob").build();
    theirs.issue(&initial()).await.unwrap();
    let (stored, calls) = (world.refresh_token_stored(), world.idp.calls());
    let (tokens, mut events) = world.monitor(world.login());
    tokens.token().await.unwrap_err();
    let event = events.recv().await.unwrap();
    assert_eq!(event.to, AuthStatus::Unauthenticated(UnauthenticatedReason::Replaced));
    assert!(event.remediation.unwrap().contains("another login"));
    assert_eq!((world.refresh_token_stored(), world.idp.calls()), (stored, calls));
}

#[tokio::test(start_paused = true)]
async fn another_clients_login_is_another_login() {
    let world = World::new().await;
    world.login().issue(&initial()).await.unwrap();
    let builder = RefreshTokenGrant::builder(world.idp.token_url(), "other-cli", "rt-x");
    let error = issue_error(world.login_with(builder.build().unwrap()).issue(&initial()).await);
    assert_eq!(error.verdict(), &Verdict::Replaced);
    assert_eq!(world.idp.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_login_gone_from_the_store_is_not_brought_back_by_itself() {
    let world = World::new().await;
    let login = world.login();
    login.issue(&initial()).await.unwrap();
    world.store.memory.wipe();
    let error = issue_error(login.issue(&initial()).await);
    assert_eq!((error.verdict(), error.rule()), (&Verdict::Transient, "store-login-gone"));
    assert_eq!(world.idp.calls(), 1);

    login.restore().await.unwrap();
    login.issue(&initial()).await.unwrap();
    assert!(matches!(login.restore().await, Err(StoreError::Stale)), "only into an empty store");
    assert!(matches!(world.login().restore().await, Err(StoreError::Gone)), "only what it has seen");
    assert_eq!((world.idp.calls(), world.idp.reuse_detected()), (2, false));
}

#[tokio::test(start_paused = true)]
async fn signing_in_replaces_whatever_is_stored() {
    let world = World::new().await;
    let old = world.login();
    old.issue(&initial()).await.unwrap();
    let refresh_token = world.idp.login();
    let fresh = world.login_with(world.grant_for(&refresh_token));
    fresh.sign_in().await.unwrap();
    old.issue(&initial()).await.unwrap();
    assert_eq!(world.refresh_tokens_sent()[1], refresh_token);
    fresh.issue(&initial()).await.unwrap();
    assert_eq!(fresh.tally(), tally(0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_later_start_needs_no_refresh_token_but_the_stores() {
    let world = World::new().await;
    world.login().issue(&initial()).await.unwrap();
    let later = world.login_with(world.stored_grant());
    later.issue(&initial()).await.unwrap();
    assert_eq!(later.tally(), tally(0, 1), "the access token of before is good");
    later.issue(&initial()).await.unwrap();
    assert_eq!(later.tally(), tally(1, 1));
    assert!(!world.idp.reuse_detected());

    world.store.fail("load", || StoreError::unavailable("down"));
    let error = issue_error(later.issue(&initial()).await);
    assert_eq!((error.verdict(), error.delivery()), (&Verdict::Transient, Delivery::NotSent));
    assert_eq!(world.idp.calls(), 2, "it does not do without the store");
}

#[tokio::test(start_paused = true)]
async fn where_nobody_has_signed_in_that_is_what_is_said() {
    let world = World::new().await;
    let login = world.login_with(world.stored_grant());
    let error = issue_error(login.issue(&initial()).await);
    assert!(matches!(error.verdict(), Verdict::Rejected(code) if code == "login_required"), "{error:?}");
    assert_eq!((world.idp.calls(), error.delivery()), (0, Delivery::NotSent));
    assert!(world.store.memory.load().await.unwrap().is_none(), "nothing is written down for it");
    assert!(matches!(login.sign_in().await, Err(StoreError::NoRefreshToken)));

    let (tokens, mut events) = world.monitor(login);
    assert!(tokens.token().await.unwrap_err().is_unauthenticated());
    let event = events.recv().await.unwrap();
    assert_eq!(event.remediation.as_deref(), Some("sign in"));

    world.login().sign_in().await.unwrap();
    tokens.retry_now();
    sleep(Duration::from_secs(2)).await;
    tokens.token().await.expect("somebody has signed in");
}

#[tokio::test(start_paused = true)]
async fn a_login_that_was_rejected_is_so_for_who_has_no_other_refresh_token() {
    let world = World::new().await;
    let first = world.login();
    first.issue(&initial()).await.unwrap();
    world.idp.revoke_logins();
    issue_error(first.issue(&initial()).await);
    let calls = world.idp.calls();
    let error = issue_error(world.login_with(world.stored_grant()).issue(&initial()).await);
    assert!(matches!(error.verdict(), Verdict::Rejected(code) if code == "invalid_grant"));
    assert_eq!(world.idp.calls(), calls);
}

#[tokio::test(start_paused = true)]
async fn a_sign_out_ends_the_login_for_all_until_somebody_signs_in() {
    let world = World::new().await;
    let (ours, theirs) = (world.login(), world.login());
    ours.issue(&initial()).await.unwrap();
    theirs.issue(&initial()).await.unwrap();
    ours.sign_out().await.unwrap();
    let calls = world.idp.calls();
    for login in [ours.clone(), theirs, world.login(), world.login_with(world.stored_grant())] {
        let error = issue_error(login.issue(&initial()).await);
        assert!(matches!(error.verdict(), Verdict::Rejected(code) if code == "signed_out"), "{error:?}");
    }
    assert_eq!(world.idp.calls(), calls, "nobody sends its refresh token");
    ours.sign_out().await.expect("there is nothing to end");

    let (tokens, mut events) = world.monitor(ours);
    assert!(tokens.token().await.unwrap_err().is_unauthenticated());
    assert_eq!(events.recv().await.unwrap().remediation.as_deref(), Some("sign in again"));

    world.login_with(world.grant_for(&world.idp.login())).sign_in().await.unwrap();
    world.login_with(world.stored_grant()).issue(&initial()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_sign_out_before_the_first_exchange_counts_too() {
    let world = World::new().await;
    let login = world.login();
    login.sign_out().await.unwrap();
    assert!(
        matches!(issue_error(login.issue(&initial()).await).verdict(), Verdict::Rejected(code) if code == "signed_out")
    );
    assert_eq!(world.idp.calls(), 0);
    world.login_with(world.stored_grant()).sign_out().await.expect("there is nothing to end");
}

#[tokio::test(start_paused = true)]
async fn a_sign_out_drops_what_was_not_saved_yet() {
    let world = World::new().await;
    let login = world.login();
    world.store.fail("commit", || StoreError::unavailable("down"));
    login.issue(&initial()).await.unwrap();
    assert!(login.sign_out().await.is_err(), "the note cannot be written either");
    world.store.mend();
    login.sign_out().await.unwrap();
    sleep(Duration::from_secs(60)).await;
    let record = world.store.memory.load().await.unwrap().unwrap();
    assert!(matches!(record.content(), Content::Tombstone(_)), "{record:?}");
    let error = issue_error(world.login().issue(&initial()).await);
    assert!(matches!(error.verdict(), Verdict::Rejected(code) if code == "signed_out"));
}

#[tokio::test(start_paused = true)]
async fn a_sign_out_leaves_another_accounts_login_alone() {
    let world = World::new().await;
    world.login().issue(&initial()).await.unwrap();
    let other = SharedLogin::builder(world.stored_grant(), Arc::clone(&world.store)).account("bob").clock(&world.clock);
    assert!(matches!(other.build().sign_out().await, Err(StoreError::Foreign)));
    world.login().issue(&initial()).await.unwrap();
}

// When the store fails.

#[tokio::test(start_paused = true)]
async fn with_the_store_down_nothing_is_exchanged() {
    let world = World::new().await;
    for call in ["lease", "load", "renew"] {
        world.store.fail(call, || StoreError::unavailable("down"));
        let error = issue_error(world.login().issue(&initial()).await);
        assert_eq!((error.verdict(), error.delivery()), (&Verdict::Transient, Delivery::NotSent), "{call}");
        assert!(!error.is_busy());
        world.store.mend();
    }
    world.store.slow("lease", Duration::from_secs(3600));
    assert!(!issue_error(world.login().issue(&initial()).await).is_busy(), "hanging is being down");
    assert_eq!(world.idp.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn client_credentials_share_their_token_and_do_without_the_store() {
    let world = World::new().await;
    let login = || {
        let grant = ClientCredentialsGrant::builder(world.idp.token_url(), "billing").client_secret("s3cret").build();
        world.login_with(grant.unwrap())
    };
    login().issue(&initial()).await.unwrap();
    login().issue(&initial()).await.unwrap();
    assert_eq!(world.idp.calls(), 1, "shared while the store is up");
    for call in ["lease", "load", "renew", "commit"] {
        world.store.memory.wipe();
        world.store.fail(call, || StoreError::unavailable("down"));
        let token = login().issue(&initial()).await.unwrap();
        assert!(!token.is_unsaved(), "nothing is lost with it");
        world.store.mend();
    }
    assert_eq!(world.idp.calls(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_token_from_before_the_last_is_not_taken_up_where_the_last_could_not_be_stored() {
    let world = World::new().await;
    let grant = ClientCredentialsGrant::builder(world.idp.token_url(), "billing").client_secret("s3cret").build();
    let login = world.login_with(grant.unwrap());
    let first = login.issue(&initial()).await.unwrap();
    world.store.fail("commit", || StoreError::unavailable("read-only"));
    for calls in 2..6 {
        let token = login.issue(&initial()).await.unwrap();
        assert_ne!(token.expose_secret(), first.expose_secret());
        assert_eq!(world.idp.calls(), calls, "whoever asks again has no use for what it had");
    }
}

#[tokio::test(start_paused = true)]
async fn client_credentials_wait_for_one_call_of_a_store_that_hangs() {
    let world = World::new().await;
    for first in 0..4 {
        world.store.memory.wipe();
        for call in &["lease", "load", "renew", "commit", "release"][first..] {
            world.store.slow(call, Duration::from_secs(3600));
        }
        let grant = ClientCredentialsGrant::builder(world.idp.token_url(), "billing").client_secret("s3cret").build();
        let (login, began) = (world.login_with(grant.unwrap()), Instant::now());
        login.issue(&initial()).await.unwrap();
        assert!(began.elapsed() <= Duration::from_secs(5), "{:?} from call {first} on", began.elapsed());
        world.store.mend();
    }
}

#[tokio::test(start_paused = true)]
async fn what_can_be_read_but_not_written_is_still_taken_up() {
    let world = World::new().await;
    world.login().issue(&initial()).await.unwrap();
    world.store.fail("lease", || StoreError::unavailable("read-only"));
    let login = world.login();
    login.issue(&initial()).await.unwrap();
    assert_eq!(login.tally(), tally(0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_pair_that_cannot_be_saved_is_kept_told_of_and_saved_later() {
    let world = World::new().await;
    world.store.fail("commit", || StoreError::unavailable("no space left on device"));
    let (tokens, mut events) = world.monitor(world.login());
    tokens.token().await.expect("callers get their token");
    let event = events.recv().await.unwrap();
    assert!(event.unsaved && event.to == AuthStatus::Running);
    assert!(event.reason.contains("could not be saved"), "{}", event.reason);

    let gap = world.store.memory.lease(TTL).await;
    assert!(matches!(gap, Err(StoreError::Busy)), "the lease is kept without a gap");
    // For longer than it lasts: it is renewed all along.
    for _ in 0..10 {
        sleep(Duration::from_secs(30)).await;
        assert!(issue_error(world.login().issue(&initial()).await).is_busy(), "nobody spends the old one");
    }
    world.store.mend();
    sleep(Duration::from_secs(11)).await;
    let other = world.login();
    other.issue(&initial()).await.unwrap();
    assert_eq!((other.tally(), world.idp.calls()), (tally(0, 1), 1));

    sleep(Duration::from_secs(3600)).await;
    let event = timeout(Duration::from_secs(600), events.recv())
        .await
        .unwrap_or_else(|_| panic!("{:?} {:?}", tokens.snapshot(), world.store.calls().len()));
    assert!(!event.unwrap().unsaved, "the next token says that all is well");
    assert!(!world.idp.reuse_detected());
}

#[tokio::test(start_paused = true)]
async fn an_unsaved_pair_is_what_the_next_exchange_starts_from() {
    let world = World::new().await;
    let login = world.login();
    world.store.fail("commit", || StoreError::unavailable("no space left on device"));
    for _ in 0..3 {
        assert!(login.issue(&initial()).await.unwrap().is_unsaved());
    }
    world.store.mend();
    assert!(!login.issue(&initial()).await.unwrap().is_unsaved());
    let sent = world.refresh_tokens_sent();
    let distinct: std::collections::HashSet<_> = sent.iter().collect();
    assert_eq!((sent.len(), distinct.len()), (4, 4), "after a received success the old one is never sent again");
    assert!(!world.idp.reuse_detected());
}

#[tokio::test(start_paused = true)]
async fn what_an_unsaved_pair_came_from_is_known_again_however_long_ago_that_was() {
    let world = World::new().await;
    let login = world.login();
    login.issue(&initial()).await.unwrap();
    // Many more than any memory of spent tokens holds, and then a store that wants to be read again.
    world.store.fail("commit", || StoreError::unavailable("read-only"));
    for _ in 0..150 {
        assert!(login.issue(&initial()).await.unwrap().is_unsaved());
    }
    world.store.fail("commit", || StoreError::Stale);
    assert!(login.issue(&initial()).await.unwrap().is_unsaved());
    world.store.mend();
    assert!(!login.issue(&initial()).await.unwrap().is_unsaved());
    assert!(!world.idp.reuse_detected());
}

#[tokio::test(start_paused = true)]
async fn an_unsaved_pair_is_given_up_for_a_login_that_was_saved_meanwhile() {
    let world = World::new().await;
    let login = world.login();
    world.store.fail("commit", || StoreError::unavailable("down"));
    login.issue(&initial()).await.unwrap();
    world.store.mend();
    world.store.memory.overwrite(Record::after(None, Content::Grant(world.stored("rt-theirs", "at-theirs"))));
    assert_eq!(login.issue(&initial()).await.unwrap().expose_secret(), "at-theirs");
    assert_eq!(world.refresh_token_stored(), "rt-theirs");
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_comes_too_late_gives_way_to_what_was_saved_meanwhile() {
    let world = World::new().await;
    let theirs = world.stored("rt-theirs", "at-theirs");
    world.store.before("commit", move |memory| {
        memory.overwrite(Record::after(None, Content::Grant(theirs.clone())));
    });
    world.store.fail("commit", || StoreError::Stale);
    let token = world.login().issue(&initial()).await.unwrap();
    assert_eq!(token.expose_secret(), "at-theirs");
    assert_eq!(world.refresh_token_stored(), "rt-theirs");
}

#[tokio::test(start_paused = true)]
async fn a_lease_lost_during_the_exchange_leaves_the_pair_to_be_saved_under_the_next() {
    let world = World::new().await;
    world.store.before("commit", |memory| memory.steal_the_lease());
    let login = world.login();
    assert!(!login.issue(&initial()).await.unwrap().is_unsaved());
    assert_eq!(Some(world.refresh_token_stored()), world.idp.current_refresh_token());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_is_asked_for_again_with_the_same_token() {
    let world = World::with_grace(Duration::from_secs(30)).await;
    world.idp.then(Answer::success().but(Mishap::Reset)).then(Answer::status(503));
    let (tokens, _events) = world.monitor(world.login());
    sleep(Duration::from_secs(10)).await;
    tokens.try_token().unwrap();
    let sent = world.refresh_tokens_sent();
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|token| *token == sent[0]));
    assert!(world.idp.log()[1].at() - world.idp.log()[0].at() >= Duration::from_secs(1));
    assert!(!world.idp.reuse_detected());
}

#[tokio::test(start_paused = true)]
async fn nothing_shows_a_secret() {
    let world = World::new().await;
    let login = world.login();
    let token = login.issue(&initial()).await.unwrap();
    let record = world.store.load().await.unwrap().unwrap();
    let shown = format!("{login:?} {token:?} {record:?} {:?} {:?}", world.store.memory, record.content());
    for secret in world.idp.secrets() {
        assert!(!shown.contains(&secret));
        world.idp.revoke_logins();
    }
    let error = login.issue(&initial()).await.unwrap_err();
    let shown = format!("{error:?} {error}");
    assert!(world.idp.secrets().iter().all(|secret| !shown.contains(secret)));
}

// A token endpoint, a store and a clock.
struct World {
    idp: ScriptedIdp,
    store: Arc<Faulty>,
    clock: TestClock,
    refresh_token: String,
}

impl World {
    async fn new() -> Self {
        Self::with_grace(Duration::ZERO).await
    }

    async fn with_grace(grace: Duration) -> Self {
        let idp = ScriptedIdp::start().await;
        idp.rotating_with_grace(grace).always(Answer::success());
        let refresh_token = idp.login();
        Self { idp, store: Arc::default(), clock: TestClock::new(), refresh_token }
    }

    fn grant(&self) -> RefreshTokenGrant {
        self.grant_for(&self.refresh_token)
    }

    fn stored_grant(&self) -> StoredRefreshTokenGrant {
        RefreshTokenGrant::stored(self.idp.token_url(), "my-cli").build().unwrap()
    }

    fn grant_for(&self, refresh_token: &str) -> RefreshTokenGrant {
        RefreshTokenGrant::builder(self.idp.token_url(), "my-cli", refresh_token).build().unwrap()
    }

    fn grant_with(
        &self,
        with: impl Fn(
            steadfast::oauth::GrantBuilder<steadfast::oauth::Refreshing>,
        ) -> steadfast::oauth::GrantBuilder<steadfast::oauth::Refreshing>,
    ) -> RefreshTokenGrant {
        with(RefreshTokenGrant::builder(self.idp.token_url(), "my-cli", &self.refresh_token)).build().unwrap()
    }

    /// The login, as one more process has it.
    fn login(&self) -> SharedLogin {
        self.login_with(self.grant())
    }

    fn login_with(&self, grant: impl steadfast::rotation::Grant) -> SharedLogin {
        SharedLogin::builder(grant, Arc::clone(&self.store)).account("alice").clock(&self.clock).build()
    }

    /// A process that starts when the stored token is this many minutes old.
    fn login_with_age(&self, minutes: u64) -> SharedLogin {
        self.clock.step_forward(Duration::from_secs(minutes * 60));
        self.login()
    }

    fn monitor(&self, login: SharedLogin) -> (MonitoredTokenSource, mpsc::Receiver<StatusEvent>) {
        let (sender, events) = mpsc::channel(64);
        let builder = MonitoredTokenSource::builder(login).clock(&self.clock).jitter_seed(7).sink(sender);
        (builder.spawn().unwrap(), events)
    }

    /// The login with these tokens, just issued.
    fn stored(&self, refresh_token: &str, access_token: &str) -> StoredGrant {
        let issued = IssuedToken::bearer(access_token).expires_in(Duration::from_secs(3600));
        let wall = self.clock.wall().duration_since(std::time::UNIX_EPOCH).unwrap();
        let token = StoredToken::new(&issued, wall);
        let identity = Identity::new("alice", self.idp.token_url(), "my-cli");
        StoredGrant::new(identity, Terms::default(), refresh_token).renewed(None, Some(token), Terms::default())
    }

    async fn put_by(&self, lease: &Lease, grant: StoredGrant) {
        let replaced = self.store.memory.load().await.unwrap().map(|record| record.revision());
        self.store.memory.commit(lease, &Record::after(replaced, Content::Grant(grant))).await.unwrap();
    }

    fn refresh_token_stored(&self) -> String {
        let record = now(self.store.memory.load()).unwrap().unwrap();
        let Content::Grant(grant) = record.content() else { panic!("{record:?}") };
        grant.refresh_token().unwrap().expose_secret().to_owned()
    }

    fn refresh_tokens_sent(&self) -> Vec<String> {
        self.idp.log().iter().map(|call| call.refresh_token().unwrap().to_owned()).collect()
    }
}

/// A store in memory that fails as it is told, and that others can reach behind the back of whoever holds the lease.
#[derive(Default)]
struct Faulty {
    memory: Reachable,
    calls: Mutex<Vec<&'static str>>,
    faults: Mutex<HashMap<&'static str, Fault>>,
    delays: Mutex<HashMap<&'static str, Duration>>,
    before: Mutex<HashMap<&'static str, Before>>,
}

type Fault = fn() -> StoreError;
type Before = Box<dyn FnOnce(&Reachable) + Send>;

/// A memory store that can be replaced as a whole, as if the server behind it had been.
struct Reachable(Mutex<MemoryStore>);

impl Faulty {
    fn fail(&self, call: &'static str, error: Fault) {
        self.faults.lock().unwrap().insert(call, error);
    }

    fn mend(&self) {
        self.faults.lock().unwrap().clear();
        self.delays.lock().unwrap().clear();
    }

    fn slow(&self, call: &'static str, delay: Duration) {
        self.delays.lock().unwrap().insert(call, delay);
    }

    fn before(&self, call: &'static str, act: impl FnOnce(&Reachable) + Send + 'static) {
        self.before.lock().unwrap().insert(call, Box::new(act));
    }

    fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap().clone()
    }

    fn count(&self, call: &str) -> usize {
        self.calls().iter().filter(|made| **made == call).count()
    }

    async fn call(&self, call: &'static str) -> Result<(), StoreError> {
        self.calls.lock().unwrap().push(call);
        let delay = self.delays.lock().unwrap().get(call).copied();
        if let Some(delay) = delay {
            sleep(delay).await;
        }
        let before = self.before.lock().unwrap().remove(call);
        if let Some(before) = before {
            before(&self.memory);
        }
        self.faults.lock().unwrap().get(call).map_or(Ok(()), |error| Err(error()))
    }
}

impl Default for Reachable {
    fn default() -> Self {
        Self(Mutex::new(MemoryStore::new()))
    }
}

impl Reachable {
    fn store(&self) -> MemoryStore {
        self.0.lock().unwrap().clone()
    }

    fn wipe(&self) {
        *self.0.lock().unwrap() = MemoryStore::new();
    }

    /// Keeps what is stored; whoever holds a lease of before does so no more.
    fn forget_leases(&self) {
        let record = now(self.load()).unwrap();
        self.wipe();
        if let Some(record) = record {
            self.write(&record);
        }
    }

    fn overwrite(&self, record: Record) {
        self.wipe();
        self.write(&record);
    }

    fn steal_the_lease(&self) {
        self.forget_leases();
    }

    /// Commits what came before, so that the revision is the wanted one.
    fn write(&self, record: &Record) {
        let (store, mut replaced) = (self.store(), None);
        let lease = now(store.lease(TTL)).unwrap();
        loop {
            let next = Record::after(replaced, record.content().clone());
            now(store.commit(&lease, &next)).unwrap();
            if next.revision().get() == record.revision().get() {
                return;
            }
            replaced = Some(next.revision());
        }
    }

    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        self.store().lease(ttl).await
    }

    async fn load(&self) -> Result<Option<Record>, StoreError> {
        self.store().load().await
    }

    async fn commit(&self, lease: &Lease, record: &Record) -> Result<(), StoreError> {
        self.store().commit(lease, record).await
    }
}

impl std::fmt::Debug for Reachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.store().fmt(f)
    }
}

#[async_trait::async_trait]
impl GrantStore for Faulty {
    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        self.call("lease").await?;
        self.memory.lease(ttl).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<(), StoreError> {
        self.call("renew").await?;
        self.memory.store().renew(lease, ttl).await
    }

    async fn load(&self) -> Result<Option<Record>, StoreError> {
        self.call("load").await?;
        self.memory.load().await
    }

    async fn commit(&self, lease: &Lease, record: &Record) -> Result<(), StoreError> {
        self.call("commit").await?;
        self.memory.commit(lease, record).await
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        self.call("release").await?;
        self.memory.store().release(lease).await
    }
}

/// The memory store never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    futures_util::FutureExt::now_or_never(future).unwrap()
}

fn initial() -> IssueRequest {
    IssueRequest::new(IssueReason::Initial)
}

fn issue_error(result: Result<IssuedToken, steadfast::BoxError>) -> IssueError {
    *result.unwrap_err().downcast().unwrap()
}

fn tally(exchanged: u64, adopted: u64) -> Tally {
    let mut tally = Tally::default();
    (tally.exchanged, tally.adopted) = (exchanged, adopted);
    tally
}

const TTL: Duration = Duration::from_secs(35);
