//! The manners of a tower service: readiness, back-pressure, errors, clones, cancellation.

use std::{convert::Infallible, pin::pin, sync::Arc, task::Poll, time::Duration};

use futures_util::{future::join_all, poll};
use http::{Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use hyper::body::Bytes;
use steadfast::{
    Auth, AuthLayer, BoxError, IssuedToken, LayerError, MonitoredTokenSource,
    layer::{ReplayOnce, ResponseFuture, SendOnce},
    testing::TestClock,
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tower::{ServiceBuilder, ServiceExt, buffer::Buffer, limit::ConcurrencyLimit, service_fn, util::BoxCloneService};
use tower_service::Service;
use tower_test::mock;

use crate::support::{SETTLE, Strict};

#[tokio::test(start_paused = true)]
async fn back_pressure_is_passed_on() {
    let (mut service, mut handle) = mock::spawn_layer::<Request<()>, Response<()>, _>(layer(token_source().await));
    handle.allow(0);
    assert!(service.poll_ready().is_pending());
    handle.allow(1);
    assert!(service.poll_ready().is_ready());
    let call = tokio::spawn(service.call(request("https://api.example.com/")));
    let (sent, answer) = handle.next_request().await.unwrap();
    assert_eq!(sent.headers()["authorization"], "Bearer token-1");
    answer.send_response(Response::new(()));
    assert_eq!(call.await.unwrap().unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_inner_service_are_passed_on() {
    let tokens = token_source().await;
    let (mut service, mut handle) = mock::spawn_layer::<Request<()>, Response<()>, _>(layer(tokens));
    handle.allow(1);
    assert!(service.poll_ready().is_ready());
    let call = service.call(request("https://api.example.com/"));
    let answer = async {
        let (_, answer) = handle.next_request().await.unwrap();
        answer.send_error("cable cut");
        handle
    };
    let (result, mut handle) = tokio::join!(call, answer);
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), "the request failed");
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "cable cut");
    assert!(error.auth().is_none());

    handle.send_error("switched off");
    let Poll::Ready(Err(error)) = service.poll_ready() else { panic!("ready") };
    assert!(matches!(&error, LayerError::Inner(_)));
}

#[tokio::test(start_paused = true)]
async fn an_inner_error_is_found_by_its_type() {
    #[derive(Debug, thiserror::Error)]
    #[error("cable cut")]
    struct CableCut(u8);
    let inner = service_fn(|_: Request<()>| async { Err::<Response<()>, _>(CableCut(7)) });
    let error = layer(token_source().await).wrap(inner).send(request("https://api.example.com/")).await.unwrap_err();
    assert_eq!(error.inner::<CableCut>().unwrap().0, 7);
    assert!(error.inner::<std::io::Error>().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_service_that_insists_on_readiness_gets_it_before_each_call() {
    let tokens = token_source().await;
    let inner = Strict::accepting(|token| token == "Bearer token-2");
    let probe = inner.probe();
    let mut service = layer(tokens).replay_once().wrap(inner);
    for calls in [2, 3] {
        let response = service.ready().await.unwrap().call(empty("https://api.example.com/")).await.unwrap();
        assert_eq!((response.status(), probe.calls()), (StatusCode::OK, calls));
    }
    service.ready().await.unwrap().call(empty("https://elsewhere.example/")).await.unwrap();
    assert_eq!((probe.calls(), probe.reserved()), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_its_first_token_holds_no_readiness() {
    let (tokens, gate) = gated();
    let inner = Strict::accepting(|_| true);
    let probe = inner.probe();
    let mut service = layer(tokens).wrap(inner);
    let mut call = pin!(service.ready().await.unwrap().call(empty("https://api.example.com/")));
    assert!(poll!(&mut call).is_pending());
    assert_eq!((probe.reserved(), probe.calls()), (0, 0));
    let mut sent = pin!(service.send(empty("https://api.example.com/")));
    assert!(poll!(&mut sent).is_pending());
    assert_eq!((probe.reserved(), probe.calls()), (0, 0));
    gate.notify_one();
    assert_eq!(call.await.unwrap().status(), 200);
    assert_eq!(sent.await.unwrap().status(), 200);
    assert_eq!((probe.reserved(), probe.calls()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_its_replay_holds_no_readiness() {
    let (tokens, gate) = gated();
    gate.notify_one();
    tokens.token().await.unwrap();
    sleep(SETTLE).await;
    let inner = Strict::accepting(|token| token == "Bearer token-2");
    let probe = inner.probe();
    let service = layer(tokens).replay_once().wrap(inner);
    let mut call = pin!(service.send(empty("https://api.example.com/")));
    assert!(poll!(&mut call).is_pending());
    assert_eq!((probe.reserved(), probe.calls()), (0, 1));
    gate.notify_one();
    assert_eq!(call.await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_single_permit_is_enough_for_waiting_and_for_replaying() {
    let (tokens, gate) = gated();
    let inner = ConcurrencyLimit::new(Strict::accepting(|token| token == "Bearer token-2"), 1);
    let service = layer(tokens).replay_once().wrap(inner);
    // The buffer's worker keeps the service it has polled: were it still ready, nobody else could be.
    let service = Buffer::new(service, 8);
    let calls = join_all((0..3).map(|_| service.clone().oneshot(empty("https://api.example.com/"))));
    let opening = async {
        for _ in 0..2 {
            gate.notify_one();
            sleep(SETTLE).await;
        }
    };
    // Of virtual time, so that a deadlock is a failure.
    let (responses, ()) = tokio::join!(timeout(Duration::from_secs(60), calls), opening);
    assert!(responses.expect("no deadlock").iter().all(|response| response.as_ref().unwrap().status() == 200));
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_goes_away_takes_nothing_along() {
    let (tokens, gate) = gated();
    let inner = Strict::accepting(|token| token == "Bearer token-2");
    let probe = inner.probe();
    let service = layer(tokens.clone()).replay_once().wrap(inner);
    let alive = probe.alive();
    for step in ["first token", "replay"] {
        let mut call = Box::pin(service.send(empty("https://api.example.com/")));
        assert!(poll!(&mut call).is_pending(), "{step}");
        drop(call);
        assert_eq!((probe.alive(), probe.reserved()), (alive, 0), "{step}");
        gate.notify_one();
        sleep(SETTLE).await;
    }
    assert_eq!(tokens.try_token().unwrap().generation().get(), 2, "the refresh went on");
    assert_eq!(service.send(empty("https://api.example.com/")).await.unwrap().status(), 200);
    assert_eq!(probe.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_while_its_request_waits_is_an_error_not_a_hang() {
    let (tokens, gate) = gated();
    let (inner, mut handle) = mock::pair::<Request<()>, Response<()>>();
    let mut service = layer(tokens).wrap(inner);
    handle.allow(1);
    let mut call = pin!(service.ready().await.unwrap().call(request("https://api.example.com/")));
    assert!(poll!(&mut call).is_pending());
    handle.send_error("switched off");
    gate.notify_one();
    assert!(matches!(call.await, Err(LayerError::Inner(_))));
}

#[tokio::test(start_paused = true)]
async fn it_is_at_home_in_any_stack() {
    let inner =
        || service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) });
    let layer = layer(token_source().await);
    let built = ServiceBuilder::new().layer(layer.clone().replay_once()).service(inner());
    let boxed: BoxCloneService<_, _, LayerError> = BoxCloneService::new(built);
    let erased = layer.wrap(boxed.map_err(BoxError::from));
    let request = Request::get("https://api.example.com/").body(Full::default()).unwrap();
    assert_eq!(erased.oneshot(request).await.unwrap().status(), 200);
}

#[test]
fn it_is_what_its_inner_service_is() {
    fn is<T: Send + Sync + Clone + 'static>() {}
    fn is_send<T: Send>(_: &T) {}
    is::<AuthLayer>();
    is::<Auth<Strict>>();
    is::<Auth<reqwest::Client, ReplayOnce>>();
    let sent = |service: Auth<Strict>| is_send(&service.send(empty("https://api.example.com/")));
    let _ = sent;
}

#[test]
fn the_future_of_the_usual_path_is_small() {
    type Usual = ResponseFuture<Strict, SendOnce, Request<Empty<Bytes>>>;
    let inner = size_of::<<Strict as Service<Request<Empty<Bytes>>>>::Future>();
    assert_eq!(size_of::<Usual>(), inner + 24, "no request, no service and no copy in it");
}

#[tokio::test(start_paused = true)]
async fn nothing_prints_the_token() {
    let tokens = token_source().await;
    let layer = layer(tokens);
    let (inner, mut handle) = mock::pair::<Request<()>, Response<()>>();
    let mut service = layer.wrap(inner);
    handle.allow(1);
    let call = service.ready().await.unwrap().call(request("https://api.example.com/"));
    let (sent, _answer) = handle.next_request().await.unwrap();
    assert!(sent.headers()["authorization"].is_sensitive());
    let printed = format!("{layer:?} {service:?} {call:?} {sent:?}");
    assert!(!printed.contains("token-1"), "{printed}");
}

fn layer(tokens: MonitoredTokenSource) -> AuthLayer {
    AuthLayer::new(tokens, "https://api.example.com").unwrap()
}

fn request(url: &str) -> Request<()> {
    Request::get(url).body(()).unwrap()
}

fn empty(url: &str) -> Request<Empty<Bytes>> {
    Request::get(url).body(Empty::new()).unwrap()
}

/// A handle whose tokens are `token-1`, `token-2` …; the first is there and has settled.
async fn token_source() -> MonitoredTokenSource {
    let (tokens, gate) = gated();
    gate.notify_one();
    tokens.token().await.unwrap();
    sleep(SETTLE).await;
    gate.notify_one();
    tokens
}

/// The same, but each attempt waits until the gate is opened for it.
fn gated() -> (MonitoredTokenSource, Arc<Notify>) {
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let attempts = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let source = move || {
        let (opened, attempts) = (Arc::clone(&opened), Arc::clone(&attempts));
        async move {
            opened.notified().await;
            let attempt = attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            Ok(IssuedToken::bearer(format!("token-{attempt}")).expires_in(Duration::from_secs(3600)))
        }
    };
    let tokens = MonitoredTokenSource::builder(source).clock(&TestClock::new()).spawn().unwrap();
    (tokens, gate)
}
