//! What refusals do to the token, to other callers and to the status.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use http::{
    HeaderValue, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use steadfast::{
    AuthLayer, AuthStatus, Challenge, Generation, IssueRequest, IssuedToken, MonitoredTokenSource, RefreshPolicy,
    RetryCause, StaticToken, UnauthenticatedReason, source_fn,
    testing::{Answer, ProtectedApi, TestClock},
};
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Events, SETTLE, World, get, hyper_client, text};

#[tokio::test(start_paused = true)]
async fn a_hundred_refusals_of_one_token_make_one_refresh_and_one_report_and_are_all_replayed() {
    let world = at_generation(7).await;
    let old = world.revoke();
    let client = world.layer().replay_once().tag_responses().wrap(hyper_client());
    let responses = join_all((0..100).map(|_| client.send(world.get()))).await;
    for response in responses {
        let response = response.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.extensions().get::<Generation>().unwrap().get(), 8);
    }
    assert_eq!(world.idp.calls(), 8);
    let log = world.api.log();
    assert_eq!(log.iter().filter(|call| call.token() == Some(old.secret())).count(), 100);
    assert_eq!(log.len(), 200);
    settle_events().await;
    assert_eq!(world.events.count(|event| !event.serving), 1);
}

#[tokio::test(start_paused = true)]
async fn stragglers_for_a_token_that_has_a_successor_refresh_nothing() {
    let world = at_generation(7).await;
    let client = world.layer().replay_once().wrap(hyper_client());
    let late = Answer::status(401).header("www-authenticate", INVALID).after(Duration::from_secs(60));
    for _ in 0..50 {
        world.api.then(late.clone());
    }
    let stragglers = async {
        for response in join_all((0..50).map(|_| client.send(world.get()))).await {
            assert_eq!(response.unwrap().status(), 200);
        }
    };
    let successor = async {
        world.api.called(50).await;
        world.tokens.retry_now();
    };
    tokio::join!(stragglers, successor);
    assert_eq!((world.idp.calls(), world.api.calls()), (8, 100));
    assert_eq!(world.tokens.try_token().unwrap().generation().get(), 8);
    settle_events().await;
    assert_eq!(world.events.count(|event| !event.serving), 0);
}

#[tokio::test(start_paused = true)]
async fn the_next_token_can_be_refused_again() {
    let world = World::settled().await;
    let client = world.layer().replay_once().wrap(hyper_client());
    for refreshes in 2..=4 {
        world.revoke();
        assert_eq!(client.send(world.get()).await.unwrap().status(), 200);
        assert_eq!(world.idp.calls(), refreshes);
        sleep(SETTLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_a_recovery_is_reported_again() {
    let world = World::settled().await;
    let client = world.layer().replay_once().wrap(hyper_client());
    for refusals in 1..=2 {
        world.revoke();
        assert_eq!(client.send(world.get()).await.unwrap().status(), 200);
        // The next token replaces one that the replay has proven.
        world.tokens.retry_now();
        sleep(A_MINUTE).await;
        assert_eq!(world.events.count(|event| !event.serving), refusals);
        assert!(world.tokens.snapshot().serving);
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_is_no_news() {
    let world = World::settled().await;
    settle_events().await;
    let news = world.events.count(|_| true);
    let client = world.layer().wrap(hyper_client());
    for _ in 0..10 {
        assert_eq!(client.send(world.get()).await.unwrap().status(), 200);
    }
    settle_events().await;
    assert_eq!(world.events.count(|_| true), news);
    assert_eq!(world.idp.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_without_a_challenge_leaves_the_token_to_other_callers() {
    let world = World::settled().await;
    world.api.challenges([]);
    let old = world.revoke();
    world.idp.then(Answer::success().after(Duration::from_secs(5)));
    let response = world.layer().wrap(hyper_client()).send(world.get()).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.extensions().get::<Generation>(), Some(&old.generation()));
    assert!(response.extensions().get::<Challenge>().is_none());
    world.idp.called(2).await;
    assert_eq!(world.tokens.try_token().unwrap().generation(), old.generation());
    sleep(Duration::from_secs(6)).await;
    assert!(world.tokens.try_token().unwrap().generation() > old.generation());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_definitely_refused_is_got_by_no_later_call() {
    let world = World::settled().await;
    let old = world.revoke();
    world.idp.then(Answer::success().after(Duration::from_secs(5)));
    let response = world.layer().wrap(hyper_client()).send(world.get()).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.extensions().get::<Challenge>().unwrap().error(), Some("invalid_token"));
    assert!(world.tokens.try_token().is_err());
    assert!(world.tokens.token().await.unwrap().generation() > old.generation());
    assert_eq!(world.idp.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_accepted_before_stays_servable_while_it_is_replaced() {
    let world = World::settled().await;
    let client = world.layer().wrap(hyper_client());
    assert_eq!(client.send(world.get()).await.unwrap().status(), 200);
    let old = world.revoke();
    world.idp.then(Answer::success().after(Duration::from_secs(5)));
    assert_eq!(client.send(world.get()).await.unwrap().status(), 401);
    assert_eq!(world.tokens.try_token().unwrap().generation(), old.generation());
    world.idp.called(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_too_fresh_to_be_known_everywhere_settles_without_a_second_refresh() {
    let world = World::fresh().await;
    world.api.replication_lag(Duration::from_secs(1));
    world.tokens.token().await.unwrap();
    let begun = Instant::now();
    let response = world.layer().replay_once().wrap(hyper_client()).send(world.get()).await.unwrap();
    assert_eq!((response.status(), begun.elapsed()), (StatusCode::OK, SETTLE));
    assert_eq!((world.idp.calls(), world.api.calls()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_still_refused_after_settling_is_replaced_and_the_request_sent_a_third_and_last_time() {
    let world = World::fresh().await;
    world.api.reject_everything();
    world.tokens.token().await.unwrap();
    let response = world.layer().replay_once().wrap(hyper_client()).send(world.get()).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.extensions().get::<Generation>().unwrap().get(), 2);
    assert_eq!((world.idp.calls(), world.api.calls()), (2, 3));
    let log = world.api.log();
    assert_eq!(log[0].token(), log[1].token());
    assert_ne!(log[1].token(), log[2].token());
}

#[tokio::test(start_paused = true)]
async fn a_new_token_that_is_refused_at_first_is_sent_again_once_it_has_settled() {
    let world = World::settled().await;
    world.revoke();
    world.api.replication_lag(Duration::from_secs(1));
    let response = world.layer().replay_once().wrap(hyper_client()).send(world.get()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!((world.idp.calls(), world.api.calls()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_withdrawn_while_requests_settle_is_replaced_for_all_of_them() {
    let world = World::fresh().await;
    world.tokens.token().await.unwrap();
    world.revoke();
    let client = world.layer().replay_once().wrap(hyper_client());
    let mut settling = join_all((0..50).map(|_| client.send(world.get())));
    assert!(timeout(SETTLE / 2, &mut settling).await.is_err());
    // A neighbour is quicker than those that have waited, and its verdict is definite.
    sleep(SETTLE).await;
    world.idp.then(Answer::success().after(SETTLE));
    let neighbour = tokio::spawn(client.send(world.get()));
    world.idp.called(2).await;
    assert!(world.tokens.try_token().is_err());
    for response in settling.await {
        assert_eq!(response.unwrap().status(), 200);
    }
    assert_eq!(neighbour.await.unwrap().unwrap().status(), 200);
    assert_eq!((world.idp.calls(), world.api.calls()), (2, 102));
}

#[tokio::test(start_paused = true)]
async fn a_request_settles_once_even_if_the_token_changes_meanwhile() {
    let world = World::fresh().await;
    world.api.reject_everything();
    world.tokens.token().await.unwrap();
    let client = world.layer().replay_once().wrap(hyper_client());
    let nudge = async {
        sleep(Duration::from_millis(1500)).await;
        world.tokens.retry_now();
    };
    let (response, ()) = tokio::join!(client.send(world.get()), nudge);
    assert_eq!(response.unwrap().extensions().get::<Generation>().unwrap().get(), 2);
    assert_eq!((world.idp.calls(), world.api.calls()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_request_gets_one_new_token_even_if_that_is_refused_at_once() {
    let world = World::fresh_with(RefreshPolicy { settle: Duration::ZERO, ..RefreshPolicy::DEFAULT }).await;
    world.api.reject_everything();
    world.tokens.token().await.unwrap();
    let response = world.layer().replay_once().wrap(hyper_client()).send(world.get()).await.unwrap();
    assert_eq!(response.extensions().get::<Generation>().unwrap().get(), 2);
    assert_eq!(world.api.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refused_static_token_is_reported_once_and_an_acceptance_brings_it_back() {
    let api = ProtectedApi::alone().await;
    api.accept("s3cret").revoke("s3cret");
    let (clock, events) = (TestClock::new(), Events::default());
    let source = StaticToken::new("s3cret");
    let tokens = MonitoredTokenSource::builder(source).clock(&clock).sink(events.sink()).spawn().unwrap();
    tokens.token().await.unwrap();
    sleep(SETTLE).await;
    let client = AuthLayer::new(tokens.clone(), api.url()).unwrap().replay_once().wrap(hyper_client());
    for _ in 0..5 {
        assert_eq!(client.send(get(&api.url())).await.unwrap().status(), 401);
        settle_events().await;
    }
    let refused = AuthStatus::Unauthenticated(UnauthenticatedReason::RejectedByResource);
    assert_eq!(tokens.status(), refused);
    assert_eq!(events.count(|event| event.to == refused), 1);
    assert_eq!(api.calls(), 5, "there is no other token to replay with");
    api.accept("s3cret");
    assert_eq!(client.send(get(&api.url())).await.unwrap().status(), 200);
    settle_events().await;
    assert_eq!(tokens.status(), AuthStatus::Running);
}

#[tokio::test(start_paused = true)]
async fn an_api_that_loses_its_keys_for_three_minutes_heals_without_a_human() {
    let world = World::settled().await;
    let client = world.layer().replay_once().wrap(hyper_client());
    world.api.reject_everything();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(180) {
        if let Ok(response) = client.send(world.get()).await {
            assert_eq!(response.status(), 401);
        }
        sleep(Duration::from_secs(1)).await;
    }
    let confused = AuthStatus::AuthRetrying(RetryCause::RejectedByResource);
    assert_eq!(world.tokens.status(), confused);
    assert_eq!(world.events.count(|event| event.to == confused && event.from != confused), 1);
    let budget = 4;
    assert!(world.idp.calls() <= 1 + budget, "{} attempts", world.idp.calls());
    world.api.accept_again();
    assert_eq!(client.send(world.get()).await.unwrap().status(), 200);
    settle_events().await;
    assert_eq!(world.tokens.status(), AuthStatus::Running);
    assert!(world.idp.calls() <= 1 + budget);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_always_refuses_does_not_starve_the_other() {
    let world = World::settled().await;
    let sour = ProtectedApi::start(&world.idp).await;
    sour.reject_everything();
    let client = world.layer().allow_origin(sour.url()).unwrap().replay_once().wrap(hyper_client());
    for _ in 0..600 {
        assert_eq!(client.send(world.get()).await.unwrap().status(), 200);
        assert_eq!(client.send(get(&sour.url())).await.unwrap().status(), 401);
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(world.idp.calls(), 1 + 4, "the first token, and the budget of forced refreshes");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_no_new_token_follows_is_returned_as_it_came() {
    let world = World::settled().await;
    world.idp.always(Answer::status(503));
    world.api.then(Answer::status(401).header("www-authenticate", INVALID).header("x-a", "b").body("who are you?"));
    let response = world.layer().replay_once().wrap(hyper_client()).send(world.get()).await.unwrap();
    assert_eq!((response.status(), response.headers()["x-a"].as_bytes()), (StatusCode::UNAUTHORIZED, &b"b"[..]));
    assert_eq!(text(response).await, "who are you?");
    assert_eq!((world.idp.calls(), world.api.calls()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn without_any_token_the_error_says_when_to_come_back() {
    let world = World::fresh().await;
    world.idp.always(Answer::status(503).retry_after(Duration::from_secs(30)));
    let client = world.layer().wrap(hyper_client());
    let error = client.send(world.get()).await.unwrap_err();
    let response = error.auth().unwrap().to_response();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "30");
    assert_eq!(error.to_string(), "the request was not sent: there is no access token for it");
    assert_eq!(world.api.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn each_error_is_a_problem_document_that_names_the_state() {
    let world = World::fresh().await;
    let mut errors = vec![("auth_refreshing", world.tokens.try_token().unwrap_err())];
    world.idp.always(Answer::status(503));
    sleep(A_MINUTE).await;
    errors.push(("auth_retrying", world.tokens.try_token().unwrap_err()));
    world.idp.always(Answer::error("invalid_grant"));
    sleep(10 * A_MINUTE).await;
    errors.push(("unauthenticated", world.tokens.try_token().unwrap_err()));
    world.tokens.shutdown().await;
    errors.push(("stopped", world.tokens.try_token().unwrap_err()));
    for (code, error) in errors {
        let response = error.to_response();
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let problem: serde_json::Value = serde_json::from_str(response.body()).unwrap();
        assert_eq!(problem["code"], code);
        assert_eq!(problem["status"], response.status().as_u16());
        assert_eq!(problem["detail"], error.to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn no_other_status_refreshes_anything() {
    let world = World::settled().await;
    let client = world.layer().replay_once().wrap(hyper_client());
    let scope = r#"Bearer error="insufficient_scope""#;
    for status in [400, 402, 403, 404, 407, 429, 500, 502, 503] {
        for challenge in [scope, INVALID] {
            world.api.then(Answer::status(status).header("www-authenticate", challenge));
            let response = client.send(world.get()).await.unwrap();
            assert_eq!(response.status(), status);
            assert!(response.extensions().get::<Generation>().is_none());
        }
    }
    settle_events().await;
    assert_eq!((world.idp.calls(), world.api.calls()), (1, 18));
}

#[tokio::test(start_paused = true)]
async fn a_challenge_for_the_user_is_handed_to_the_host() {
    let world = World::settled().await;
    let step_up = r#"Bearer error="insufficient_user_authentication", acr_values="gold""#;
    world.api.then(Answer::status(401).header("www-authenticate", step_up));
    let response = world.layer().replay_once().wrap(hyper_client()).send(world.get()).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.extensions().get::<Challenge>().unwrap().acr_values(), Some("gold"));
    settle_events().await;
    assert_eq!((world.idp.calls(), world.api.calls()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn missing_claims_reach_the_source_and_the_request_is_sent_again_with_a_token_that_has_them() {
    let api = ProtectedApi::alone().await;
    api.accept("plain").accept("with {}");
    let source = source_fn(|request: IssueRequest| async move {
        let secret = request.claims().map_or("plain".to_owned(), |claims| format!("with {claims}"));
        Ok(IssuedToken::bearer(secret))
    });
    let tokens = MonitoredTokenSource::builder(source).clock(&TestClock::new()).spawn().unwrap();
    tokens.token().await.unwrap();
    sleep(SETTLE).await;
    let claims = r#"Bearer error="insufficient_claims", claims="e30=""#;
    api.then(Answer::status(401).header("www-authenticate", claims));
    let client = AuthLayer::new(tokens, api.url()).unwrap().replay_once().wrap(hyper_client());
    assert_eq!(client.send(get(&api.url())).await.unwrap().status(), 200);
    assert_eq!(api.log()[1].token(), Some("with {}"));
}

#[tokio::test(start_paused = true)]
async fn what_else_is_a_refusal_is_the_hosts_to_say() {
    let world = World::settled().await;
    let layer = world.layer().replay_once();
    let client = layer.rejected_when(|status, headers| status == 400 && headers.contains_key("x-token-expired"));
    let client = client.wrap(hyper_client());
    world.api.then(Answer::status(400).header("x-token-expired", "1"));
    assert_eq!(client.send(world.get()).await.unwrap().status(), 200);
    world.api.then(Answer::status(400));
    assert_eq!(client.send(world.get()).await.unwrap().status(), 400);
    assert_eq!((world.idp.calls(), world.api.calls()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn the_callers_own_credentials_are_left_alone_and_prove_nothing() {
    let world = World::settled().await;
    let client = world.layer().replay_once().tag_responses().wrap(hyper_client());
    let mut request = world.get();
    request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Bearer mine"));
    let response = client.send(request).await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(response.extensions().get::<Generation>().is_none());
    assert_eq!(world.api.log()[0].token(), Some("mine"));
    settle_events().await;
    assert_eq!((world.idp.calls(), world.api.calls()), (1, 1));
    assert!(world.tokens.try_token().is_ok());
}

#[tokio::test(start_paused = true)]
async fn other_responses_are_tagged_on_request_only() {
    let world = World::settled().await;
    let plain = world.layer().wrap(hyper_client()).send(world.get()).await.unwrap();
    assert!(plain.extensions().get::<Generation>().is_none());
    let tagged = world.layer().tag_responses().wrap(hyper_client()).send(world.get()).await.unwrap();
    assert_eq!(tagged.extensions().get::<Generation>().unwrap().get(), 1);
}

#[tokio::test(start_paused = true)]
async fn neither_sink_nor_challenge_nor_layer_is_needed() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let source = move || {
        let attempt = counted.fetch_add(1, Ordering::Relaxed);
        async move { Ok(IssuedToken::bearer(format!("token-{attempt}"))) }
    };
    let clock = TestClock::new();
    let tokens = MonitoredTokenSource::builder(source).clock(&clock).spawn().unwrap();
    let token = tokens.token().await.unwrap();
    sleep(SETTLE).await;
    tokens.reject(token.generation(), None);
    assert_eq!(tokens.token_after(token.generation()).await.unwrap().secret(), "token-1");
    assert_eq!(attempts.load(Ordering::Relaxed), 2);
}

async fn at_generation(generation: u64) -> World {
    let world = World::settled().await;
    for next in 2..=generation {
        world.tokens.retry_now();
        sleep(Duration::from_secs(11)).await;
        assert_eq!(world.tokens.try_token().unwrap().generation().get(), next);
    }
    world
}

/// Long enough for the sink to have been told.
async fn settle_events() {
    sleep(Duration::from_millis(1)).await;
}

const A_MINUTE: Duration = Duration::from_secs(60);
const INVALID: &str = r#"Bearer error="invalid_token""#;
