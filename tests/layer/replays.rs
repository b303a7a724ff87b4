//! What is sent again, and what is not.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode, header::AUTHORIZATION};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame};
use steadfast::{
    AuthLayer,
    testing::{Answer, Mishap},
};
use tokio::time::{Instant, sleep};
use tower::service_fn;

use crate::support::{Server, World, hyper_client, text};

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_again_by_default() {
    let world = World::settled().await;
    world.revoke();
    assert_eq!(world.layer().wrap(hyper_client()).send(world.get()).await.unwrap().status(), 401);
    world.idp.called(2).await;
    assert_eq!(world.api.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_replay_is_the_same_request_with_another_token() {
    let world = World::settled().await;
    let old = world.revoke();
    let request = Request::post(world.api.url() + "/orders?dry=1").header("x-a", "b");
    let request = request.body(Full::<Bytes>::from("two apples")).unwrap();
    let response = world.layer().replay_once().wrap(hyper_client()).send(request).await.unwrap();
    assert_eq!((response.status(), text(response).await.as_str()), (StatusCode::OK, "two apples"));
    let log = world.api.log();
    let shown = |call: &steadfast::testing::ApiCall| {
        let headers = call.headers().iter().filter(|(name, _)| name != "authorization").cloned().collect::<Vec<_>>();
        (call.method().to_owned(), call.path().to_owned(), headers, call.body().to_vec())
    };
    assert_eq!(shown(&log[0]), shown(&log[1]));
    assert_eq!(log[0].token(), Some(old.secret()));
    assert_eq!(log[1].token(), Some(world.tokens.try_token().unwrap().secret()));
}

#[tokio::test(start_paused = true)]
async fn a_streaming_body_is_sent_once_and_whole() {
    let world = World::settled().await;
    world.revoke();
    let client = world.layer().replay_idempotent_once().wrap(hyper_client::<Streaming>());
    let response = client.send(request(&world, Method::PUT, streamed("one two"))).await.unwrap();
    assert_eq!(response.status(), 401);
    world.idp.called(2).await;
    let log = world.api.log();
    assert_eq!((log.len(), log[0].body()), (1, &b"one two"[..]));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_idempotent_is_not_sent_again_by_replay_idempotent_once() {
    for (method, sent) in [
        (Method::GET, 2),
        (Method::HEAD, 2),
        (Method::OPTIONS, 2),
        (Method::PUT, 2),
        (Method::DELETE, 2),
        (Method::POST, 1),
        (Method::PATCH, 1),
        (Method::from_bytes(b"BREW").unwrap(), 1),
    ] {
        let world = World::settled().await;
        world.revoke();
        let client = world.layer().replay_idempotent_once().wrap(hyper_client::<Streaming>());
        let response = client.send(request(&world, method.clone(), Streaming::default())).await.unwrap();
        assert_eq!((response.status().is_success(), world.api.calls()), (sent == 2, sent), "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_host_says_what_is_copied_and_how() {
    let world = World::settled().await;
    let only_buffered = |request: &Request<Full<Bytes>>| {
        assert!(!request.headers().contains_key("authorization"));
        (request.uri().path() == "/again").then(|| {
            let mut copy = request.clone();
            copy.headers_mut().insert("x-again", http::HeaderValue::from_static("1"));
            copy
        })
    };
    let client = world.layer().replay_with(only_buffered).wrap(hyper_client());
    for (path, status, sent) in [("/again", 200, 2), ("/once", 401, 3)] {
        world.revoke();
        let request = Request::get(world.api.url() + path).body(Full::default()).unwrap();
        assert_eq!(client.send(request).await.unwrap().status(), status);
        assert_eq!(world.api.calls(), sent);
        sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(world.api.log()[1].header("x-again"), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_replay_goes_over_the_connection_of_the_refused_request() {
    for size in [0, 20, 40_000] {
        let world = World::settled().await;
        let old = world.tokens.try_token().unwrap();
        let old = format!("Bearer {}", old.secret());
        // Chunked, so that the end of the body comes after what looks like all of it.
        let server = Server::answering(move |token| {
            let refused = token == Some(&*old);
            let mut response = Response::new(streamed(&"x".repeat(if refused { size } else { 0 })));
            *response.status_mut() = if refused { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
            response
        });
        let server = server.await;
        let layer = AuthLayer::new(world.tokens.clone(), server.url()).unwrap().replay_once();
        let request = Request::get(server.url()).body(Full::<Bytes>::default()).unwrap();
        assert_eq!(layer.wrap(hyper_client()).send(request).await.unwrap().status(), 200);
        let connections = server.seen().iter().map(|(connection, _)| *connection).collect::<Vec<_>>();
        assert_eq!(connections, [1, 1], "{size}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_body_that_is_long_or_slow_does_not_hold_up_the_replay() {
    for (kind, delay) in [("endless", 0), ("hanging", 1)] {
        let world = World::settled().await;
        let old = world.tokens.try_token().unwrap();
        let old = format!("Bearer {}", old.secret());
        let server = Server::answering(move |token| {
            let refused = token == Some(&*old);
            let chunk = || Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[b'x'; 1024])));
            let body = match kind {
                _ if !refused => stream::empty().boxed(),
                "endless" => stream::repeat_with(chunk).boxed(),
                _ => stream::iter([chunk()]).chain(stream::pending()).boxed(),
            };
            let mut response = Response::new(StreamBody::new(body));
            *response.status_mut() = if refused { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
            response
        });
        let server = server.await;
        let layer = AuthLayer::new(world.tokens.clone(), server.url()).unwrap().replay_once();
        let request = Request::get(server.url()).body(Full::<Bytes>::default()).unwrap();
        let begun = Instant::now();
        assert_eq!(layer.wrap(hyper_client()).send(request).await.unwrap().status(), 200, "{kind}");
        assert_eq!(begun.elapsed(), Duration::from_secs(delay), "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_body_of_endless_empty_frames_does_not_hold_up_the_replay() {
    let world = World::settled().await;
    let old = world.tokens.try_token().unwrap();
    let read = Arc::new(AtomicUsize::new(0));
    let api = {
        let (old, read) = (old.authorization(), Arc::clone(&read));
        service_fn(move |request: Request<()>| {
            let refused = request.headers()[AUTHORIZATION] == old;
            let read = Arc::clone(&read);
            let frames = stream::repeat_with(move || {
                assert!(read.fetch_add(1, Ordering::Relaxed) < 1_000_000, "endless");
                Ok::<_, Infallible>(Frame::data(Bytes::new()))
            });
            let mut response = Response::new(StreamBody::new(frames));
            *response.status_mut() = if refused { StatusCode::UNAUTHORIZED } else { StatusCode::OK };
            async { Ok::<_, Infallible>(response) }
        })
    };
    let client = world.layer().replay_once().wrap(api);
    let begun = Instant::now();
    assert_eq!(client.send(Request::get(world.api.url()).body(()).unwrap()).await.unwrap().status(), 200);
    assert_eq!((read.load(Ordering::Relaxed), begun.elapsed()), (64 * 1024 + 1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_refused_body_that_breaks_off_does_not_hinder_the_replay() {
    let world = World::settled().await;
    world.api.then(Answer::status(401).body("who are you?").but(Mishap::Truncated));
    let client = world.layer().replay_once().wrap(hyper_client());
    assert_eq!(client.send(world.get()).await.unwrap().status(), 200);
    assert_eq!((world.idp.calls(), world.api.calls()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_is_lost_on_its_way_is_an_error() {
    let world = World::settled().await;
    world.api.then(Answer::status(401).header("www-authenticate", "Bearer")).then(Answer::reset());
    let error = world.layer().replay_once().wrap(hyper_client()).send(world.get()).await.unwrap_err();
    assert!(error.inner::<hyper_util::client::legacy::Error>().is_some());
    assert_eq!(world.api.calls(), 2);
}

type Streaming = BoxBody<Bytes, Infallible>;

fn streamed(text: &str) -> Streaming {
    let words = text.split_inclusive(' ').map(|word| Ok(Frame::data(Bytes::copy_from_slice(word.as_bytes()))));
    BodyExt::boxed(StreamBody::new(stream::iter(words.collect::<Vec<_>>())))
}

fn request(world: &World, method: Method, body: Streaming) -> Request<Streaming> {
    Request::builder().method(method).uri(world.api.url()).body(body).unwrap()
}
