//! The clients that hosts run.

use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use steadfast::{AuthLayer, Generation, testing::Answer};
use tokio::time::sleep;
use tonic::{body::Body as GrpcBody, client::Grpc, transport::Endpoint};

use crate::support::{SETTLE, Server, World, hyper_client};

#[tokio::test(start_paused = true)]
async fn a_reqwest_client_is_wrapped_owned_or_borrowed() {
    let world = World::settled().await;
    let client = reqwest::Client::new();
    let layer = world.layer().replay_once();
    let post = |text: &'static str| client.post(world.api.url()).body(text).build().unwrap();
    world.revoke();
    let response = layer.wrap(client.clone()).send(post("one")).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "one");
    sleep(SETTLE).await;
    world.revoke();
    let response = layer.wrap(&client).send(post("two")).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "two");
    assert_eq!((world.idp.calls(), world.api.calls()), (3, 4));
}

#[tokio::test(start_paused = true)]
async fn a_reqwest_body_that_cannot_be_cloned_is_sent_once() {
    let world = World::settled().await;
    world.revoke();
    let client = reqwest::Client::new();
    let body = reqwest::Body::wrap(Empty::<Bytes>::new());
    let request = client.put(world.api.url()).body(body).build().unwrap();
    let response = world.layer().replay_once().wrap(client).send(request).await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.extensions().get::<Generation>().unwrap().get(), 1);
    world.idp.called(2).await;
    assert_eq!(world.api.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reqwest_post_is_not_sent_again_by_replay_idempotent_once() {
    let world = World::settled().await;
    let client = reqwest::Client::new();
    let service = world.layer().replay_idempotent_once().wrap(&client);
    world.revoke();
    assert_eq!(service.send(client.post(world.api.url()).build().unwrap()).await.unwrap().status(), 401);
    assert_eq!(world.api.calls(), 1);
    let put = client.put(world.api.url()).body("text").build().unwrap();
    sleep(SETTLE).await;
    world.revoke();
    assert_eq!(service.send(put).await.unwrap().status(), 200);
    assert_eq!(world.api.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn errors_of_reqwest_keep_their_type() {
    let world = World::settled().await;
    world.api.then(Answer::reset());
    let client = reqwest::Client::new();
    let request = client.get(world.api.url()).build().unwrap();
    let error = world.layer().wrap(client).send(request).await.unwrap_err();
    assert!(error.inner::<reqwest::Error>().unwrap().is_request());
}

#[tokio::test(start_paused = true)]
async fn grpc_status_16_in_the_headers_is_a_refusal_and_no_other_is() {
    let world = World::settled().await;
    for (status, sent, refreshes) in [("16", 2, 1), ("7", 1, 0), ("14", 1, 0), ("0", 1, 0), ("160", 1, 0)] {
        let before = world.idp.calls();
        let old = world.tokens.try_token().unwrap();
        let old = format!("Bearer {}", old.secret());
        let server = Server::answering(move |token| {
            let mut response = Response::new(Empty::<Bytes>::new());
            response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
            let status = if token == Some(&*old) { status } else { "0" };
            response.headers_mut().insert("grpc-status", http::HeaderValue::from_static(status));
            response
        });
        let server = server.await;
        let layer = AuthLayer::new(world.tokens.clone(), server.url()).unwrap();
        let channel = Endpoint::from_shared(server.url()).unwrap().connect_lazy();
        let service = layer.inner_is_bound_to_origin().replay_with(unary).wrap(channel);
        let request = Request::post("/pkg.Service/Method").body(GrpcBody::empty()).unwrap();
        let response = service.send(request).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], if status == "16" { "0" } else { status });
        assert_eq!((server.seen().len(), world.idp.calls() - before), (sent, refreshes), "{status}");
        sleep(SETTLE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_grpc_call_that_cannot_be_sent_again_keeps_its_status() {
    let world = World::settled().await;
    let server = Server::answering(|_| {
        let mut response = Response::new(Empty::<Bytes>::new());
        response.headers_mut().insert("grpc-status", http::HeaderValue::from_static("16"));
        response
    });
    let server = server.await;
    let channel = Endpoint::from_shared(server.url()).unwrap().connect_lazy();
    let layer = AuthLayer::new(world.tokens.clone(), server.url()).unwrap().inner_is_bound_to_origin();
    let request = Request::post("/pkg.Service/Method").body(GrpcBody::empty()).unwrap();
    let response = layer.wrap(channel).send(request).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "16");
    assert_eq!(response.extensions().get::<Generation>().unwrap().get(), 1);
    world.idp.called(2).await;
}

/// Compiling is the test: generated clients take the wrapped channel.
#[tokio::test(start_paused = true)]
async fn a_generated_grpc_client_takes_the_wrapped_channel() {
    let world = World::settled().await;
    let channel = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    let channel = world.layer().inner_is_bound_to_origin().wrap(channel);
    let mut client = Grpc::new(channel);
    client.ready().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_hyper_client_streams_what_comes_back() {
    let world = World::settled().await;
    let request = Request::get(world.api.url()).body("text".to_owned()).unwrap();
    let response = world.layer().replay_once().wrap(hyper_client()).send(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "text");
}

#[cfg(feature = "reqwest-middleware")]
#[tokio::test(start_paused = true)]
async fn the_layer_is_a_reqwest_middleware() {
    use reqwest_middleware::{ClientBuilder, Error};
    use steadfast::AuthError;

    let world = World::settled().await;
    let client = ClientBuilder::new(reqwest::Client::new()).with(world.layer().replay_once()).build();
    world.revoke();
    let response = client.post(world.api.url()).body("text").send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "text");
    assert_eq!((world.idp.calls(), world.api.calls()), (2, 2));

    world.api.then(Answer::reset());
    let error = client.get(world.api.url()).send().await.unwrap_err();
    assert!(matches!(error, Error::Reqwest(_)));

    world.tokens.shutdown().await;
    let error = client.get(world.api.url()).send().await.unwrap_err();
    let Error::Middleware(error) = error else { panic!("{error}") };
    assert!(error.downcast_ref::<AuthError>().unwrap().is_stopped());
}

/// A unary call's body cannot be cloned as such; a host keeps the encoded message and makes another of it.
fn unary(request: &Request<GrpcBody>) -> Option<Request<GrpcBody>> {
    let mut copy = Request::new(GrpcBody::empty());
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    *copy.version_mut() = request.version();
    copy.headers_mut().clone_from(request.headers());
    Some(copy)
}
