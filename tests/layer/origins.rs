//! Where the token goes, and where it does not.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};
use steadfast::{
    AuthLayer, Challenge, Generation, MonitoredTokenSource, Origin, OriginError, StaticToken,
    testing::{Answer, ProtectedApi},
};
use tokio::time::sleep;
use tower::service_fn;
use tower_http::follow_redirect::FollowRedirect;

use crate::support::{SETTLE, World, hyper_client};

#[tokio::test]
async fn a_url_gets_the_token_exactly_if_its_origin_is_allowed() {
    let layer = layer().await;
    for (url, attached) in [
        ("https://api.example.com", true),
        ("https://api.example.com/v1?q=@evil.example", true),
        ("HTTPS://API.Example.COM/", true),
        ("https://api.example.com:443/", true),
        ("https://API.EXAMPLE.com:443/", true),
        // Another scheme or port, with the default port written out or not.
        ("http://api.example.com/", false),
        ("http://api.example.com:443/", false),
        ("https://api.example.com:8443/", false),
        ("https://api.example.com:80/", false),
        ("wss://api.example.com/", false),
        ("ftp://api.example.com/", false),
        // Another host, however similar.
        ("https://example.com/", false),
        ("https://www.api.example.com/", false),
        ("https://api.example.com.evil.example/", false),
        ("https://api.example.com./", false),
        ("https://api-example.com/", false),
        ("https://evil.example/https://api.example.com/", false),
        // User information, whichever side of it the host is on.
        ("https://user:pass@api.example.com/", false),
        ("https://user@api.example.com/", false),
        ("https://api.example.com@evil.example/", false),
        ("https://api.example.com:443@evil.example/", false),
        // Ports that are none.
        ("https://api.example.com:/", false),
        ("https://api.example.com:99999/", false),
        // IPv6 by value, IPv4 by its one spelling.
        ("https://[2001:db8::1]:8443/", true),
        ("https://[2001:DB8:0:0::0:1]:8443/", true),
        ("https://[2001:db8::1]/", false),
        ("https://[2001:db8::2]:8443/", false),
        ("http://127.0.0.1:3000/", true),
        ("http://127.1:3000/", false),
        ("http://2130706433:3000/", false),
        ("http://localhost:3000/", false),
        ("http://[::ffff:127.0.0.1]:3000/", false),
        // International names are ASCII by the time they are here.
        ("https://xn--bcher-kva.example/", true),
        ("https://XN--BCHER-KVA.example/", true),
        ("https://bucher.example/", false),
        // Authority-form is a proxy's business, origin-form names no host.
        ("api.example.com:443", false),
        ("/v1/things", false),
        ("*", false),
    ] {
        assert_eq!(attaches(&layer, url).await, attached, "{url}");
    }
}

#[tokio::test]
async fn a_url_without_a_host_gets_the_token_only_from_a_service_that_can_reach_no_other() {
    let layer = layer().await.inner_is_bound_to_origin();
    for (url, attached) in [
        ("/pkg.Service/Method", true),
        ("/v1?q=https://evil.example/", true),
        ("*", true),
        ("https://api.example.com/", true),
        ("https://evil.example/", false),
        ("evil.example:443", false),
    ] {
        assert_eq!(attaches(&layer, url).await, attached, "{url}");
    }
}

#[tokio::test]
async fn a_reqwest_url_is_judged_by_the_same_rules() {
    let layer = layer().await;
    for (url, attached) in [
        ("https://api.example.com/v1", true),
        ("HTTPS://API.example.com:443/", true),
        ("https://api.example.com:/", true),
        ("https://bücher.example/", true),
        ("https://BÜCHER.example/", true),
        ("https://[2001:DB8:0::1]:8443/", true),
        ("http://127.1:3000/", true),
        ("https://api.example.com:8443/", false),
        ("http://api.example.com/", false),
        ("ftp://api.example.com/", false),
        ("https://api.example.com./", false),
        ("https://user:pass@api.example.com/", false),
        ("https://:pass@api.example.com/", false),
        ("https://api.example.com@evil.example/", false),
        ("https:\\\\evil.example\\@api.example.com/", false),
        ("data:text/plain,api.example.com", false),
    ] {
        let seen = Arc::new(Mutex::new(None));
        let inner = {
            let seen = Arc::clone(&seen);
            service_fn(move |request: reqwest::Request| {
                *seen.lock().unwrap() = Some(request.headers().contains_key(AUTHORIZATION));
                async { Ok::<_, Infallible>(reqwest::Response::from(Response::new(""))) }
            })
        };
        let request = reqwest::Request::new(http::Method::GET, url.parse().unwrap());
        layer.wrap(inner).send(request).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), Some(attached), "{url}");
    }
}

#[test]
fn an_origin_that_is_none_or_that_others_can_listen_to_is_a_typed_error() {
    for (text, error) in [
        ("", OriginError::Malformed),
        ("https://", OriginError::Malformed),
        ("https://bücher.example", OriginError::Malformed),
        ("https://api.example.com:99999", OriginError::Malformed),
        ("https://api.example.com:", OriginError::Malformed),
        ("https://[v1.fe]", OriginError::Malformed),
        ("api.example.com", OriginError::NotHttp),
        ("/v1", OriginError::NotHttp),
        ("ws://api.example.com", OriginError::NotHttp),
        ("https://user:pass@api.example.com", OriginError::UserInfo),
        ("https://api.example.com/v1", OriginError::MoreThanAnOrigin),
        ("https://api.example.com?v=1", OriginError::MoreThanAnOrigin),
        ("http://api.example.com", OriginError::Cleartext),
        ("http://10.0.0.1", OriginError::Cleartext),
        ("http://127.1", OriginError::Cleartext),
        ("http://127.0.0.1.example.com", OriginError::Cleartext),
        ("http://localhost.example.com", OriginError::Cleartext),
        ("http://[::2]", OriginError::Cleartext),
        ("http://[::ffff:127.0.0.1]", OriginError::Cleartext),
    ] {
        assert_eq!(text.parse::<Origin>(), Err(error), "{text}");
    }
    for text in ["http://localhost", "http://LOCALHOST:80/", "http://127.8.9.1:3000", "http://[::1]:3000"] {
        assert!(text.parse::<Origin>().is_ok(), "{text}");
    }
}

#[test]
fn an_origin_is_written_without_its_default_port() {
    for (text, written) in [
        ("https://API.example.com:443/", "https://api.example.com"),
        ("http://localhost:80", "http://localhost"),
        ("https://[2001:DB8:0:0::1]:8443", "https://[2001:db8::1]:8443"),
    ] {
        assert_eq!(text.parse::<Origin>().unwrap().to_string(), written);
    }
}

#[tokio::test]
async fn plain_http_beyond_loopback_needs_a_declaration_that_nobody_overlooks() {
    let tokens = tokens().await;
    assert_eq!(AuthLayer::new(tokens.clone(), "http://mesh.internal").unwrap_err(), OriginError::Cleartext);
    let layer = AuthLayer::new(tokens, Origin::danger_plain_http("http://mesh.internal").unwrap()).unwrap();
    assert!(attaches(&layer, "http://mesh.internal/").await);
    assert!(!attaches(&layer, "https://mesh.internal/").await);
    assert!(!attaches(&layer, "http://other.internal/").await);
    assert_eq!(Origin::danger_plain_http("http://mesh.internal/v1"), Err(OriginError::MoreThanAnOrigin));
}

#[tokio::test]
async fn a_token_of_ours_that_was_copied_onto_a_request_for_elsewhere_is_removed() {
    let layer = layer().await;
    for (value, arrives) in [("Bearer s3cret", None), ("Bearer another", Some("Bearer another"))] {
        let mut request = Request::get("https://evil.example/").body(()).unwrap();
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static(value));
        let seen = sent(&layer, request).await;
        assert_eq!(seen.get(AUTHORIZATION).map(|value| value.to_str().unwrap()), arrives);
    }
}

#[tokio::test]
async fn a_token_of_ours_is_found_behind_other_credentials() {
    let mut request = Request::get("https://evil.example/").body(()).unwrap();
    request.headers_mut().append(AUTHORIZATION, HeaderValue::from_static("Bearer another"));
    request.headers_mut().append(AUTHORIZATION, HeaderValue::from_static("Bearer s3cret"));
    assert!(!sent(&layer().await, request).await.contains_key(AUTHORIZATION));
}

/// A server sends back what TRACE has brought, and a CONNECT is for the proxy.
#[tokio::test]
async fn neither_trace_nor_connect_carries_the_token() {
    let layer = layer().await.inner_is_bound_to_origin();
    for (method, attached) in [(Method::TRACE, false), (Method::CONNECT, false), (Method::OPTIONS, true)] {
        for url in ["https://api.example.com/", "/"] {
            let request = || Request::builder().method(method.clone()).uri(url);
            let seen = sent(&layer, request().body(()).unwrap()).await;
            assert_eq!(seen.contains_key(AUTHORIZATION), attached, "{method} {url}");
            let copied = request().header(AUTHORIZATION, "Bearer s3cret");
            let seen = sent(&layer, copied.body(()).unwrap()).await;
            assert_eq!(seen.contains_key(AUTHORIZATION), attached, "{method} {url}");
        }
    }
}

#[tokio::test]
async fn another_header_can_carry_the_token() {
    let name = HeaderName::from_static("x-serverless-authorization");
    let layer = layer().await.header(name.clone());
    let mut request = Request::get("https://api.example.com/").body(()).unwrap();
    request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Basic mine"));
    let seen = sent(&layer, request).await;
    assert_eq!(seen[AUTHORIZATION], "Basic mine");
    assert_eq!(seen[&name], "Bearer s3cret");
    assert!(seen[&name].is_sensitive());
}

// Redirects.

#[tokio::test(start_paused = true)]
async fn a_client_that_follows_a_redirect_to_another_origin_carries_no_token_there() {
    let world = World::settled().await;
    let elsewhere = ProtectedApi::start(&world.idp).await;
    world.api.then(Answer::redirect(&elsewhere.url()));
    let client = world.layer().replay_once().wrap(reqwest::Client::new());
    let request = reqwest::Request::new(http::Method::GET, world.api.url().parse().unwrap());
    let response = client.send(request).await.unwrap();
    assert_eq!(elsewhere.log()[0].header("authorization"), None);
    // The refusal is by somebody who has not seen the token.
    assert_eq!(response.status(), 401);
    assert!(response.extensions().get::<Generation>().is_none());
    assert_eq!((world.idp.calls(), world.api.calls(), elsewhere.calls()), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_allowed_origin_cannot_judge_a_token_that_a_redirect_did_not_bring_there() {
    let world = World::settled().await;
    let elsewhere = ProtectedApi::start(&world.idp).await;
    let layer = world.layer().allow_origin(elsewhere.url()).unwrap().replay_once().tag_responses();
    let client = layer.wrap(reqwest::Client::new());
    let request = || reqwest::Request::new(http::Method::GET, world.api.url().parse().unwrap());
    let held = world.tokens.try_token().unwrap();

    world.api.then(Answer::redirect(&elsewhere.url()));
    assert_eq!(client.send(request()).await.unwrap().status(), 401);
    assert_eq!(elsewhere.log()[0].header("authorization"), None);
    sleep(SETTLE).await;
    assert_eq!((world.idp.calls(), world.api.calls(), elsewhere.calls()), (1, 1, 1));
    assert_eq!(world.tokens.try_token().unwrap().generation(), held.generation());

    // Nor does it prove the token: one that was never accepted is withdrawn by its first definite refusal.
    world.api.then(Answer::redirect(&elsewhere.url()));
    elsewhere.then(Answer::status(200));
    assert_eq!(client.send(request()).await.unwrap().status(), 200);
    world.idp.then(Answer::success().after(SETTLE));
    world.tokens.reject(held.generation(), Challenge::most_telling(&invalid_token()).as_ref());
    assert!(world.tokens.try_token().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_redirect_within_the_origin_keeps_the_token() {
    let world = World::settled().await;
    world.api.then(Answer::redirect("/elsewhere"));
    let client = world.layer().wrap(reqwest::Client::new());
    let request = reqwest::Request::new(http::Method::GET, world.api.url().parse().unwrap());
    assert_eq!(client.send(request).await.unwrap().status(), 200);
    assert_eq!(world.api.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn redirects_that_are_followed_outside_the_layer_are_judged_one_by_one() {
    let world = World::settled().await;
    let elsewhere = ProtectedApi::start(&world.idp).await;
    world.api.then(Answer::redirect(&elsewhere.url()));
    let header = HeaderName::from_static("x-token");
    let inner = world.layer().header(header).wrap(hyper_client());
    let response = tower::ServiceExt::oneshot(FollowRedirect::new(inner), world.get()).await.unwrap();
    assert_eq!(response.status(), 401);
    assert!(world.api.log()[0].header("x-token").is_some());
    assert_eq!(elsewhere.log()[0].header("x-token"), None);
}

/// What the documentation of `header` warns of.
#[tokio::test(start_paused = true)]
async fn reqwest_takes_a_header_that_it_does_not_know_for_secret_along_on_a_redirect() {
    let world = World::settled().await;
    let elsewhere = ProtectedApi::alone().await;
    world.api.then(Answer::redirect(&elsewhere.url()));
    let layer = world.layer().header(HeaderName::from_static("x-token"));
    let request = || reqwest::Request::new(http::Method::GET, world.api.url().parse().unwrap());
    layer.wrap(reqwest::Client::new()).send(request()).await.unwrap();
    assert!(elsewhere.log()[0].header("x-token").is_some());

    let cautious = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    world.api.then(Answer::redirect(&elsewhere.url()));
    assert_eq!(layer.wrap(cautious).send(request()).await.unwrap().status(), 302);
    assert_eq!(elsewhere.calls(), 1);
}

fn invalid_token() -> HeaderMap {
    let challenge = HeaderValue::from_static(r#"Bearer error="invalid_token""#);
    HeaderMap::from_iter([(WWW_AUTHENTICATE, challenge)])
}

async fn layer() -> AuthLayer {
    let layer = AuthLayer::new(tokens().await, "https://api.example.com").unwrap();
    let layer = layer.allow_origin("https://[2001:db8::1]:8443").unwrap();
    layer.allow_origin("https://xn--bcher-kva.example").unwrap().allow_origin("http://127.0.0.1:3000").unwrap()
}

async fn tokens() -> MonitoredTokenSource {
    let tokens = MonitoredTokenSource::builder(StaticToken::new("s3cret")).spawn().unwrap();
    tokens.token().await.unwrap();
    tokens
}

async fn attaches(layer: &AuthLayer, url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let mut request = Request::new(());
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_2;
    sent(layer, request).await.contains_key(AUTHORIZATION)
}

async fn sent(layer: &AuthLayer, request: Request<()>) -> http::HeaderMap {
    let inner =
        service_fn(|request: Request<()>| async move { Ok::<_, Infallible>(Response::new(request.into_parts().0)) });
    layer.wrap(inner).send(request).await.unwrap().into_body().headers
}
