//! What a failed exchange means, row by row, with real sockets, real TLS and the real `oauth2` and `reqwest`.
#![cfg(all(feature = "oauth2", feature = "reqwest", feature = "rustls"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]

use std::{
    error::Error,
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, Weak},
    time::Duration,
};

use futures_util::FutureExt;
use http::{Request, Response};
use steadfast::{
    BoxError, Delivery, IssueError, IssueReason, IssueRequest, IssuedToken, Lifetime, TokenSource, Verdict,
    oauth::{
        ClientAuth, ClientCredentialsGrant, GrantError, RefreshTokenGrant, ReqwestHttp, TokenEndpointError, TokenHttp,
        TransportError,
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, rustls};

// The rows of the table: what came back, and what it means.

#[tokio::test]
async fn an_answer_is_judged_by_status_and_body() {
    let rejected = |code| Verdict::Rejected(steadfast::OAuthCode::new(code).unwrap());
    let unconfirmed = |code| Verdict::Unconfirmed(steadfast::OAuthCode::new(code).unwrap());
    let rows = [
        (
            json(200, r#"{"access_token":"at","token_type":"DPoP"}"#),
            rejected("unsupported_token_type"),
            Delivery::Answered,
            "unsupported-token-type",
        ),
        (
            json(200, r#"{"ok":false,"error":"token_revoked"}"#),
            rejected("token_revoked"),
            Delivery::Answered,
            "rejected-code",
        ),
        (
            json(200, r#"{"error":"bad_refresh_token"}"#),
            rejected("bad_refresh_token"),
            Delivery::Answered,
            "rejected-code",
        ),
        (html(200, "<html>sign in to the wifi</html>"), Verdict::Transient, Delivery::Unknown, "no-token"),
        (json(200, ""), Verdict::Transient, Delivery::Unknown, "no-token"),
        (json(200, r#"{"token_type":"bearer"}"#), Verdict::Transient, Delivery::Unknown, "no-token"),
        (json(408, ""), Verdict::Transient, Delivery::Unknown, "request-timeout"),
        (json(425, ""), Verdict::Transient, Delivery::Answered, "too-early"),
        (json(429, r#"{"error":"invalid_grant"}"#), Verdict::Transient, Delivery::Answered, "rate-limited"),
        (json(500, r#"{"error":"invalid_grant"}"#), Verdict::Transient, Delivery::Unknown, "server-error"),
        (html(502, "<html>bad gateway</html>"), Verdict::Transient, Delivery::Unknown, "server-error"),
        (json(503, ""), Verdict::Transient, Delivery::Unknown, "server-error"),
        (
            json(400, r#"{"error":"invalid_grant","error_description":"token request is already being processed"}"#),
            Verdict::Transient,
            Delivery::Answered,
            "passing-description",
        ),
        (
            json(400, r#"{"error":"invalid_grant","error_codes":[53003]}"#),
            Verdict::Transient,
            Delivery::Answered,
            "passing-description",
        ),
        (json(404, r#"{"error":"Not Found"}"#), Verdict::Transient, Delivery::Answered, "no-code"),
        (
            json(401, r#"{"errorCode":"invalid_client","errorSummary":"no"}"#),
            rejected("invalid_client"),
            Delivery::Answered,
            "rejected-code",
        ),
        (json(400, r#"{"error":"invalid_grant"}"#), rejected("invalid_grant"), Delivery::Answered, "rejected-code"),
        (
            form(400, "error=invalid_grant&error_description=gone"),
            rejected("invalid_grant"),
            Delivery::Answered,
            "rejected-code",
        ),
        (json(400, r#"{"error":"temporarily_unavailable"}"#), Verdict::Transient, Delivery::Answered, "transient-code"),
        (
            json(400, r#"{"error":"invalid_request"}"#),
            unconfirmed("invalid_request"),
            Delivery::Answered,
            "unconfirmed-code",
        ),
        (
            json(403, r#"{"error":"access_denied"}"#),
            unconfirmed("access_denied"),
            Delivery::Answered,
            "unconfirmed-code",
        ),
        (json(400, r#"{"error":"e4711"}"#), unconfirmed("e4711"), Delivery::Answered, "unconfirmed-code"),
        (html(403, "<html>blocked by the firewall</html>"), Verdict::Transient, Delivery::Answered, "no-code"),
        (json(401, ""), Verdict::Transient, Delivery::Answered, "no-code"),
    ];
    for (raw, verdict, delivery, rule) in rows {
        let (address, server) = serve(raw.clone()).await;
        let error = failure(refresh_at(address)).await;
        assert_eq!((error.verdict(), error.delivery(), error.rule()), (&verdict, delivery, rule), "{raw}");
        let status = raw.split(' ').nth(1).unwrap().parse::<u16>().unwrap();
        assert_eq!(facts(&error).status().unwrap(), status);
        assert_eq!(facts(&error).delivery(), delivery);
        server.await.unwrap();
    }
}

#[tokio::test]
async fn a_server_in_trouble_cannot_spend_what_client_credentials_do_not_have() {
    for raw in [json(408, ""), json(500, ""), html(200, "<html>")] {
        let (address, _) = serve(raw).await;
        let grant = ClientCredentialsGrant::builder(url(address), "app").client_secret("s3cret").build().unwrap();
        assert_eq!(failure(grant).await.delivery(), Delivery::Answered);
    }
}

#[tokio::test]
async fn retry_after_is_kept() {
    for status in [429, 503] {
        let (address, _) = serve(raw(status, "retry-after: 17\r\n", "")).await;
        let error = failure(refresh_at(address)).await;
        assert_eq!(error.retry_after(), Some(Duration::from_secs(17)));
        assert_eq!(facts(&error).retry_after(), error.retry_after());
    }
}

#[tokio::test]
async fn a_redirect_is_never_followed() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("location: {}\r\n", url(elsewhere.local_addr().unwrap()));
    for status in [301, 302, 303, 307, 308] {
        let (address, _) = serve(raw(status, &location, "")).await;
        // Not even if the host's own builder would.
        let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::limited(5)).no_proxy();
        let grant = RefreshTokenGrant::builder(url(address), "app", "rt-secret")
            .http(ReqwestHttp::from_builder(builder).unwrap())
            .build()
            .unwrap();
        let error = tokio::select! {
            error = failure(grant) => error,
            _ = elsewhere.accept() => panic!("the refresh token went along on a {status}"),
        };
        assert_eq!((error.verdict(), error.rule()), (&Verdict::Transient, "redirect"));
    }
}

#[tokio::test]
async fn a_refused_connection_was_not_sent() {
    let error = failure(refresh_at(refusing().await)).await;
    assert_eq!((error.verdict(), error.delivery(), error.rule()), (&Verdict::Transient, Delivery::NotSent, "not-sent"));
    assert_eq!(facts(&error).status(), None);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_was_not_sent() {
    let grant = RefreshTokenGrant::builder("https://nowhere.invalid/token", "app", "rt-secret")
        .http(ReqwestHttp::from_builder(reqwest::Client::builder().no_proxy()).unwrap())
        .build()
        .unwrap();
    assert_eq!(failure(grant).await.delivery(), Delivery::NotSent);
}

#[tokio::test]
async fn a_certificate_nobody_trusts_was_not_sent() {
    let (address, _, server) = serve_tls(success("at-1", "")).await;
    let grant = RefreshTokenGrant::builder(secure_url(address), "app", "rt-secret").build().unwrap();
    let error = failure(grant).await;
    assert_eq!((error.verdict(), error.delivery()), (&Verdict::Transient, Delivery::NotSent));
    assert!(server.await.unwrap().is_none(), "the server saw a request");
}

#[tokio::test]
async fn a_certificate_of_the_hosts_own_is_trusted() {
    let (address, certificate, server) = serve_tls(success("at-1", "")).await;
    let certificate = reqwest::Certificate::from_der(&certificate).unwrap();
    let builder = reqwest::Client::builder().no_proxy().tls_certs_only([certificate]);
    let grant = RefreshTokenGrant::builder(secure_url(address), "app", "rt-secret")
        .http(ReqwestHttp::from_builder(builder).unwrap())
        .build()
        .unwrap();
    assert_eq!(token(&grant).await.expose_secret(), "at-1");
    assert!(server.await.unwrap().unwrap().body.contains("rt-secret"));
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_was_not_sent() {
    let (address, server) = serve_with(|mut stream: TcpStream| async move {
        stream.readable().await.unwrap();
        stream.write_all(json(400, r#"{"error":"invalid_grant"}"#).as_bytes()).await.unwrap();
    })
    .await;
    let grant = RefreshTokenGrant::builder(secure_url(address), "app", "rt-secret").build().unwrap();
    assert_eq!(failure(grant).await.delivery(), Delivery::NotSent);
    server.await.unwrap();
}

#[tokio::test]
async fn a_connection_lost_after_sending_leaves_the_outcome_open() {
    let cut = r#"{"access_token":"at-1","#;
    for raw in [
        String::new(),
        "HTTP/1.1 20".into(),
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n".into(),
        format!("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{cut}"),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n18\r\n{cut}"),
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{cut}"),
        "HTTP/1.1 400 Bad Request\r\ncontent-length: 500\r\n\r\n{\"error\":\"invalid_grant\"}".into(),
        "\u{16}\u{3}\u{1} no http at all\r\n\r\n".into(),
    ] {
        let (address, _) = serve(raw.clone()).await;
        let error = failure(refresh_at(address)).await;
        assert_eq!((error.verdict(), error.delivery()), (&Verdict::Transient, Delivery::Unknown), "{raw:?}");
    }
}

#[tokio::test]
async fn a_reset_connection_leaves_the_outcome_open() {
    let (address, _) = serve_with(|stream: TcpStream| async move {
        // Closing with the request unread makes the kernel send RST.
        stream.readable().await.unwrap();
    })
    .await;
    let error = failure(refresh_at(address)).await;
    assert_eq!((error.delivery(), error.rule()), (Delivery::Unknown, "outcome-unknown"));
}

#[tokio::test]
async fn dropping_the_attempt_closes_the_connection() {
    let (has_asked, asked) = oneshot::channel();
    let (address, server) = serve_with(|mut stream: TcpStream| async move {
        read_request(&mut stream).await;
        has_asked.send(()).unwrap();
        // Never answers: reads on until the client goes away.
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    })
    .await;
    let grant = refresh_at(address);
    let request = initial();
    tokio::select! {
        _ = grant.issue(&request) => panic!("nobody answered"),
        asked = asked => asked.unwrap(),
    }
    server.await.unwrap();
}

#[tokio::test]
async fn a_content_length_is_not_believed() {
    let (address, _) = serve("HTTP/1.1 200 OK\r\ncontent-length: 9223372036854775807\r\n\r\n{}".into()).await;
    assert_eq!(failure(refresh_at(address)).await.delivery(), Delivery::Unknown);
}

#[tokio::test]
async fn a_body_that_comes_byte_by_byte_is_a_success() {
    let (address, _) = serve_with(|mut stream: TcpStream| async move {
        read_request(&mut stream).await;
        stream.set_nodelay(true).unwrap();
        for byte in success("at-1", "").into_bytes() {
            stream.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(token(&refresh_at(address)).await.expose_secret(), "at-1");
}

// What is sent.

#[tokio::test]
async fn a_public_client_names_itself_in_the_body() {
    let (address, server) = serve(success("at-1", "")).await;
    let grant = RefreshTokenGrant::builder(url(address), "my app", "rt/1+x")
        .scopes(["repo", "user"])
        .resource("https://api.example.com/")
        .resource("urn:example:two")
        .param("audience", "a&b")
        .build()
        .unwrap();
    token(&grant).await;
    let request = server.await.unwrap();
    assert_eq!(
        request.body,
        "grant_type=refresh_token&refresh_token=rt%2F1%2Bx&scope=repo+user&client_id=my+app\
         &resource=https%3A%2F%2Fapi.example.com%2F&resource=urn%3Aexample%3Atwo&audience=a%26b"
    );
    assert!(request.head.starts_with("POST /token HTTP/1.1\r\n"));
    assert!(request.head.contains("accept: application/json"));
    assert!(!request.head.contains("authorization"));
    assert!(!request.head.contains("accept-encoding"), "no compression");
}

#[tokio::test]
async fn a_secret_goes_into_the_header_or_into_the_body() {
    let (address, server) = serve(success("at-1", "")).await;
    let grant = ClientCredentialsGrant::builder(url(address), "my:app").client_secret("s3:cret/").build().unwrap();
    token(&grant).await;
    let request = server.await.unwrap();
    assert_eq!(request.body, "grant_type=client_credentials");
    // base64("my%3Aapp:s3%3Acret%2F"): each half is encoded on its own (RFC 6749 §2.3.1).
    assert!(request.head.contains("authorization: Basic bXklM0FhcHA6czMlM0FjcmV0JTJG\r\n"), "{}", request.head);

    let (address, server) = serve(success("at-1", "")).await;
    let grant = ClientCredentialsGrant::builder(url(address), "my:app")
        .client_secret("s3:cret/")
        .client_auth(ClientAuth::Body)
        .build()
        .unwrap();
    token(&grant).await;
    let request = server.await.unwrap();
    assert_eq!(request.body, "grant_type=client_credentials&client_id=my%3Aapp&client_secret=s3%3Acret%2F");
    assert!(!request.head.contains("authorization"));
}

#[tokio::test]
async fn claims_of_a_challenge_replace_those_that_are_always_sent() {
    for (request, expected) in [
        (initial(), "claims=usual"),
        (IssueRequest::new(IssueReason::Rejected).with_claims(r#"{"a":1}"#), "claims=%7B%22a%22%3A1%7D"),
    ] {
        let (address, server) = serve(success("at-1", "")).await;
        let grant =
            RefreshTokenGrant::builder(url(address), "app", "rt-secret").param("claims", "usual").build().unwrap();
        grant.issue(&request).await.unwrap();
        let body = server.await.unwrap().body;
        assert_eq!(body.matches("claims=").count(), 1);
        assert!(body.ends_with(expected), "{body}");
    }
}

#[tokio::test]
async fn each_exchange_has_a_connection_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let grant = refresh_at(listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            stream.write_all(success("at-1", "").as_bytes()).await.unwrap();
            // The connection stays open on this side: it is the client that lets it go.
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
        }
    });
    token(&grant).await;
    token(&grant).await;
    server.await.unwrap();
}

#[tokio::test]
async fn the_authorization_header_is_marked_as_sensitive() {
    let seen = Arc::new(Mutex::new(None));
    let grant = ClientCredentialsGrant::builder("https://login.example.com/token", "app")
        .client_secret("s3cret")
        .http({
            let seen = seen.clone();
            move |request: Request<Vec<u8>>| {
                *seen.lock().unwrap() = request.headers().get("authorization").map(http::HeaderValue::is_sensitive);
                async { Err(TransportError::not_sent("offline")) }
            }
        })
        .build()
        .unwrap();
    failure(grant).await;
    assert_eq!(*seen.lock().unwrap(), Some(true));
}

// Rotation.

#[tokio::test]
async fn a_rotated_refresh_token_is_used_next_and_an_omitted_one_keeps_the_old() {
    let (http, asked) = scripted([
        r#"{"access_token":"at-1","refresh_token":"rt-2"}"#,
        r#"{"access_token":"at-2"}"#,
        r#"{"access_token":"at-3","refresh_token":""}"#,
        r#"{"access_token":"at-4"}"#,
    ]);
    let rotations = Arc::new(Mutex::new(Vec::new()));
    let grant = RefreshTokenGrant::builder("https://login.example.com/token", "app", "rt-1")
        .http(http)
        .on_rotation({
            let rotations = rotations.clone();
            move |token| rotations.lock().unwrap().push(token.expose_secret().to_owned())
        })
        .build()
        .unwrap();
    for secret in ["at-1", "at-2", "at-3", "at-4"] {
        assert_eq!(token(&grant).await.expose_secret(), secret);
    }
    assert_eq!(*asked.lock().unwrap(), ["rt-1", "rt-2", "rt-2", "rt-2"]);
    assert_eq!(*rotations.lock().unwrap(), ["rt-2"]);
}

#[tokio::test]
async fn a_hook_that_panics_does_not_lose_the_rotated_token() {
    let rotating = r#"{"access_token":"at-1","refresh_token":"rt-2"}"#;
    let (http, asked) = scripted([rotating, rotating]);
    let grant = RefreshTokenGrant::builder("https://login.example.com/token", "app", "rt-1")
        .http(http)
        .on_rotation(|_| panic!("the disk is full"))
        .build()
        .unwrap();
    let grant = Arc::new(grant);
    let attempt = tokio::spawn({
        let grant = grant.clone();
        async move { grant.issue(&initial()).await }
    });
    assert!(attempt.await.unwrap_err().is_panic());
    assert_eq!(token(&*grant).await.expose_secret(), "at-1");
    assert_eq!(*asked.lock().unwrap(), ["rt-1", "rt-2"]);
}

#[tokio::test]
async fn a_hook_may_use_the_grant_and_finds_the_new_token_in_it() {
    let (http, asked) = scripted([r#"{"access_token":"at-1","refresh_token":"rt-2"}"#, r#"{"access_token":"at-2"}"#]);
    let itself = Arc::new(OnceLock::<Weak<RefreshTokenGrant>>::new());
    let grant = RefreshTokenGrant::builder("https://login.example.com/token", "app", "rt-1")
        .http(http)
        .on_rotation({
            let itself = itself.clone();
            move |_| {
                let grant = itself.get().unwrap().upgrade().unwrap();
                token(&*grant).now_or_never().unwrap();
            }
        })
        .build()
        .unwrap();
    let grant = Arc::new(grant);
    itself.set(Arc::downgrade(&grant)).unwrap();
    token(&*grant).await;
    assert_eq!(*asked.lock().unwrap(), ["rt-1", "rt-2"]);
}

#[tokio::test]
async fn a_refresh_token_that_came_with_a_useless_access_token_is_kept() {
    let (http, asked) = scripted([
        r#"{"access_token":"at-1","token_type":"hologram","refresh_token":"rt-2"}"#,
        r#"{"access_token":"at-2"}"#,
    ]);
    let grant =
        RefreshTokenGrant::builder("https://login.example.com/token", "app", "rt-1").http(http).build().unwrap();
    assert_eq!(
        grant.issue(&initial()).await.unwrap_err().downcast::<IssueError>().unwrap().rule(),
        "unknown-token-type"
    );
    token(&grant).await;
    assert_eq!(*asked.lock().unwrap(), ["rt-1", "rt-2"]);
}

// Secrets.

#[tokio::test]
async fn no_secret_is_printed_even_if_the_server_repeats_it() {
    let secrets =
        ["rt/secret+1", "rt%2Fsecret%2B1", "s3cret-of-client", "param-secret", "YXBwOnMzY3JldC1vZi1jbGllbnQ="];
    let description = secrets.join(" ");
    for status in [200, 400, 500] {
        let body = format!(
            r#"{{"error":"invalid_grant","error_description":"{description}","error_uri":"https://rt/secret+1"}}"#
        );
        let (address, _) = serve(json(status, &body)).await;
        let grant = RefreshTokenGrant::builder(url(address), "app", "rt/secret+1")
            .client_secret("s3cret-of-client")
            .param("password", "param-secret")
            .build()
            .unwrap();
        let mut printed = format!("{grant:?}");
        let error = failure(grant).await;
        printed += &everything_printed(&error);
        printed += facts(&error).description().unwrap();
        for secret in secrets {
            assert!(!printed.contains(secret), "{secret} in {printed}");
        }
    }
}

#[tokio::test]
async fn a_resource_is_no_secret() {
    let (address, _) =
        serve(json(400, r#"{"error":"invalid_target","error_description":"who is urn:example:api?"}"#)).await;
    let grant =
        RefreshTokenGrant::builder(url(address), "app", "rt-secret").resource("urn:example:api").build().unwrap();
    assert_eq!(facts(&failure(grant).await).description(), Some("who is urn:example:api?"));
}

#[tokio::test]
async fn no_part_of_the_url_but_the_host_is_printed() {
    let address = refusing().await;
    let grant =
        RefreshTokenGrant::builder(format!("{}?key=url-secret", url(address)), "app", "rt-secret").build().unwrap();
    let mut printed = format!("{grant:?}");
    let error = failure(grant).await;
    printed += &everything_printed(&error);
    assert!(!printed.contains("url-secret") && !printed.contains("rt-secret"), "{printed}");
    assert_eq!(facts(&error).token_host(), address.to_string());
    assert_eq!(facts(&error).client_id(), "app");
}

#[test]
fn no_builder_prints_what_it_was_given() {
    let builder = RefreshTokenGrant::builder("https://me:url-secret@example.com/", "app", "rt-secret")
        .client_secret("client-secret")
        .param("password", "param-secret");
    let printed = format!("{builder:?} {:?}", builder);
    assert!(!printed.contains("secret"), "{printed}");
    let error = builder.build().unwrap_err();
    assert!(matches!(error, GrantError::CredentialsInTokenUrl));
    assert!(!format!("{error:?} {error}").contains("url-secret"));
}

// Construction.

#[test]
fn a_grant_that_cannot_work_is_not_built() {
    let grant = |url: &str, id: &str, token: &str| RefreshTokenGrant::builder(url, id, token);
    let https = "https://login.example.com/token";
    for (builder, expected) in [
        (grant("login.example.com", "app", "rt"), "InvalidTokenUrl"),
        (grant("http://login.example.com/", "app", "rt"), "InsecureTokenUrl"),
        (grant("https://login.example.com/#top", "app", "rt"), "FragmentInTokenUrl"),
        (grant(https, "", "rt"), "EmptyClientId"),
        (grant(https, "app", ""), "EmptyRefreshToken"),
        (grant(https, "app", "rt").client_secret(""), "EmptyClientSecret"),
        (grant(https, "app", "rt").resource("api"), "InvalidResource"),
        (grant(https, "app", "rt").resource("https://api.example.com/#part"), "InvalidResource"),
        (grant(https, "app", "rt").param("grant_type", "password"), "ReservedParam"),
    ] {
        let error = builder.build().unwrap_err();
        assert_eq!(format!("{error:?}"), expected);
        assert!(error.to_string().contains(':'), "what is wrong, and how to mend it");
    }
}

#[tokio::test]
async fn a_success_brings_lifetime_and_type_as_servers_really_write_them() {
    for raw in [
        success("at-1", r#","token_type":"BEARER","expires_in":"3600""#),
        success("at-1", r#","expires_in":3600"#).replace("application/json", "text/html"),
        success("at-1", r#","token_type":"bot","expires_in":3600.0"#).replace("200 OK", "201 Created"),
        form(200, "access_token=at-1&token_type=bearer&expires_in=3600"),
    ] {
        let (address, _) = serve(raw).await;
        let token = token(&refresh_at(address)).await;
        assert_eq!(token.expose_secret(), "at-1");
        assert_eq!(token.lifetime(), Lifetime::Known(Duration::from_secs(3600)));
    }
}

// Helpers.

struct Captured {
    head: String,
    body: String,
}

/// Answers one request with these bytes, and closes.
async fn serve(raw: String) -> (SocketAddr, JoinHandle<Captured>) {
    serve_with(|stream| answer(stream, raw)).await
}

async fn serve_with<F, Fut>(behave: F) -> (SocketAddr, JoinHandle<Fut::Output>)
where
    F: FnOnce(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output: Send + 'static> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        behave(stream).await
    });
    (address, server)
}

/// As [`serve`], with a certificate that it signed itself. `None`: the handshake failed.
async fn serve_tls(raw: String) -> (SocketAddr, Vec<u8>, JoinHandle<Option<Captured>>) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (address, server) = serve_with(|stream: TcpStream| async move {
        let stream = acceptor.accept(stream).await.ok()?;
        Some(answer(stream, raw).await)
    })
    .await;
    (address, cert.der().to_vec(), server)
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, raw: String) -> Captured {
    let request = read_request(&mut stream).await;
    stream.write_all(raw.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    request
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Captured {
    let mut text = String::new();
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
            if body.len() == length.parse::<usize>().unwrap() {
                return Captured { head: format!("{head}\r\n"), body: body.to_owned() };
            }
        }
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).await.unwrap();
        assert_ne!(count, 0, "the request ends early: {text}");
        text += std::str::from_utf8(&bytes[..count]).unwrap();
    }
}

/// An address where nobody listens.
async fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A client that gives these answers in turn, and notes the refresh tokens it was asked with.
fn scripted<const N: usize>(answers: [&'static str; N]) -> (impl TokenHttp, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = asked.clone();
    let answers = Mutex::new(answers.into_iter());
    let http = move |request: Request<Vec<u8>>| {
        let body = String::from_utf8(request.into_body()).unwrap();
        let token = body.split('&').find_map(|pair| pair.strip_prefix("refresh_token=")).unwrap();
        notes.lock().unwrap().push(token.to_owned());
        let answer = answers.lock().unwrap().next().expect("asked more often than scripted");
        async move { Ok::<_, TransportError>(Response::new(answer.into())) }
    };
    (http, asked)
}

fn success(access_token: &str, more: &str) -> String {
    json(200, &format!(r#"{{"access_token":"{access_token}"{more}}}"#))
}

fn json(status: u16, body: &str) -> String {
    raw(status, "content-type: application/json\r\n", body)
}

fn html(status: u16, body: &str) -> String {
    raw(status, "content-type: text/html\r\n", body)
}

fn form(status: u16, body: &str) -> String {
    raw(status, "content-type: application/x-www-form-urlencoded\r\n", body)
}

fn raw(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} OK\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/token")
}

fn secure_url(address: SocketAddr) -> String {
    format!("https://{address}/token")
}

fn refresh_at(address: SocketAddr) -> RefreshTokenGrant {
    RefreshTokenGrant::builder(url(address), "app", "rt-secret").build().unwrap()
}

fn initial() -> IssueRequest {
    IssueRequest::new(IssueReason::Initial)
}

async fn token(source: &impl TokenSource) -> IssuedToken {
    source.issue(&initial()).await.unwrap()
}

async fn failure(source: impl TokenSource) -> IssueError {
    let error: BoxError = source.issue(&initial()).await.unwrap_err();
    *error.downcast().unwrap()
}

fn facts(error: &IssueError) -> &TokenEndpointError {
    error.source().unwrap().downcast_ref().unwrap()
}

fn everything_printed(error: &IssueError) -> String {
    let mut printed = format!("{error:?}{error:#?}");
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(error) = next {
        printed += &format!("{error}{error:?}");
        next = error.source();
    }
    printed
}
