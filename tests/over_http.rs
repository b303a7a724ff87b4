//! The monitor and a real grant together, over real HTTP.
#![cfg(all(feature = "oauth2", feature = "reqwest"))]
#![allow(clippy::unwrap_used, reason = "the helpers of a test fail with it")]
#![allow(clippy::disallowed_methods, reason = "the clock of a paused runtime, read from outside")]

use std::{error::Error, time::Duration};

use steadfast::{
    AuthError, AuthStatus, Delivery, IssueError, Lifetime, MonitoredTokenSource,
    oauth::RefreshTokenGrant,
    testing::{Answer, Mishap, ScriptedIdp},
};
use tokio::time::{Instant, sleep};

#[tokio::test(start_paused = true)]
async fn a_token_rotated_while_all_callers_hang_up_is_used_next_time() {
    let idp = ScriptedIdp::start().await;
    idp.rotating().always(Answer::success().expires_in(600).after(Duration::from_secs(5)));
    let tokens = monitor(&idp);
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let tokens = tokens.clone();
            tokio::spawn(async move { tokens.token().await })
        })
        .collect();
    idp.called(1).await;
    callers.iter().for_each(tokio::task::JoinHandle::abort);

    sleep(Duration::from_secs(6)).await;
    assert_eq!(tokens.try_token().unwrap().generation().get(), 1, "the token of the abandoned refresh is served");
    idp.called(2).await;
    sleep(Duration::from_secs(6)).await;
    assert_eq!(tokens.try_token().unwrap().generation().get(), 2);
    assert_eq!(idp.calls(), 2);
    assert!(!idp.reuse_detected());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_a_transient_failure_after_the_attempt_timeout() {
    let idp = ScriptedIdp::start().await;
    idp.then(Answer::hang()).always(Answer::success());
    let tokens = monitor(&idp);
    let began = Instant::now();
    let mut status = tokens.subscribe();
    status.wait_for(|status| *status == AuthStatus::Running).await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 21, "20 s for the attempt, 1 s until the next");
    assert_eq!(idp.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_fails_is_told_of_by_what_is_wrong_with_it() {
    let idp = ScriptedIdp::start().await;
    idp.always(Answer::success().but(Mishap::Eof));
    let tokens = monitor(&idp);
    tokens.token().await.unwrap_err();
    let told = |tokens: &MonitoredTokenSource| tokens.snapshot().last_failure.unwrap();
    assert!(told(&tokens).contains("[outcome-unknown, from 127.0.0.1:"), "{}", told(&tokens));
    idp.refuse_connections().await;
    sleep(Duration::from_secs(5)).await;
    assert!(told(&tokens).contains("[not-sent, to 127.0.0.1:"), "{}", told(&tokens));
    assert!(told(&tokens).ends_with(": connection refused]"), "{}", told(&tokens));
    let line = tokens.snapshot().to_string();
    assert!(line.contains("connection refused]; next attempt in ") && line.ends_with("; nothing to do"), "{line}");
}

#[tokio::test(start_paused = true)]
async fn a_verdict_on_a_503_condemns_nobody() {
    let idp = ScriptedIdp::start().await;
    idp.then(Answer::error("invalid_grant").with_status(503)).always(Answer::success());
    let tokens = monitor(&idp);
    let error = tokens.token().await.unwrap_err();
    assert!(error.is_retrying());
    assert_eq!(cause(&error).rule(), "server-error");
    assert_eq!(tokens.token().await.unwrap().generation().get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_date_is_measured_by_the_servers_own_clock_and_obeyed() {
    let idp = ScriptedIdp::start().await;
    idp.then(Answer::status(503).retry_after_date(Duration::from_secs(90))).always(Answer::success());
    let tokens = monitor(&idp);
    assert!(tokens.token().await.is_err());
    let began = Instant::now();
    let error = tokens.token().await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(90)));
    idp.called(2).await;
    assert_eq!(began.elapsed().as_secs(), 90);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_for_again_with_the_same_token() {
    let idp = ScriptedIdp::start().await;
    idp.rotating_with_grace(Duration::from_secs(30))
        .then(Answer::success().but(Mishap::Reset))
        .always(Answer::success());
    let tokens = monitor(&idp);
    let error = tokens.token().await.unwrap_err();
    assert_eq!(cause(&error).delivery(), Delivery::Unknown);
    assert!(tokens.token().await.is_ok());
    assert!(!idp.reuse_detected());
}

#[tokio::test(start_paused = true)]
async fn no_lifetime_that_a_server_can_write_makes_a_hot_loop() {
    for lifetime in ["0", "-1", "\"3600\"", "\"soon\"", "1e300", "null", "{}"] {
        let idp = ScriptedIdp::start().await;
        let body = format!(r#"{{"access_token":"access","token_type":"Bearer","expires_in":{lifetime}}}"#);
        idp.always(Answer::status(200).header("content-type", "application/json").body(body));
        let tokens = monitor(&idp);
        let token = tokens.token().await.unwrap();
        match lifetime {
            "\"3600\"" => assert!(token.expires_at().is_some()),
            "1e300" => {
                let left = token.expires_at().unwrap().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
                assert!(left > Lifetime::LONGEST);
            }
            _ => assert_eq!(token.expires_at(), None, "{lifetime}"),
        }
        sleep(Duration::from_secs(1800)).await;
        assert_eq!(idp.calls(), 1, "{lifetime}");
    }
}

fn monitor(idp: &ScriptedIdp) -> MonitoredTokenSource {
    let grant = RefreshTokenGrant::builder(idp.token_url(), "client", idp.login()).build().unwrap();
    MonitoredTokenSource::builder(grant).jitter_seed(7).spawn().unwrap()
}

fn cause(error: &AuthError) -> &IssueError {
    error.source().unwrap().downcast_ref().unwrap()
}
