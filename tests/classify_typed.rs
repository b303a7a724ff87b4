//! What the types say. The errors are the real libraries' own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test may
#![cfg_attr(not(feature = "reqwest"), allow(dead_code, unused_imports, reason = "the scenery of libraries left out"))]

use std::{error::Error, fmt, io, net::SocketAddr, time::Duration};

use steadfast::{
    Delivery, IssueError, MonitoredTokenSource, OAuthCode,
    classify::{Class, Classified, Classifier, Evidence},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

#[tokio::test]
async fn std_and_tokio_say_what_happened_to_a_connection() {
    let refused = tokio::net::TcpStream::connect(dead_port().await).await.unwrap_err();
    assert_read(&refused, Class::Unavailable, "io");

    let mut cut_off = tokio::io::empty();
    let short = cut_off.read_u8().await.unwrap_err();
    assert_read(&short, Class::Unavailable, "io");
}

#[cfg(unix)]
#[tokio::test]
async fn the_operating_system_says_what_happened_to_a_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    far.unwrap().0.set_zero_linger().unwrap();
    let reset = near.unwrap().read_u8().await.unwrap_err();
    assert_eq!(reset.kind(), io::ErrorKind::ConnectionReset);
    assert_read(&reset, Class::Unavailable, "io");

    let (mut near, far) = tokio::net::UnixStream::pair().unwrap();
    drop(far);
    let broken = near.write_all(b"hello").await.unwrap_err();
    assert_eq!(broken.kind(), io::ErrorKind::BrokenPipe);
    assert_read(&broken, Class::Unavailable, "io");

    let lonely = std::os::unix::net::UnixDatagram::unbound().unwrap().send(b"hello").unwrap_err();
    assert_eq!(lonely.kind(), io::ErrorKind::NotConnected);
    assert_read(&lonely, Class::Unavailable, "io");
}

#[tokio::test(start_paused = true)]
async fn tokios_time_out_is_a_time_out_also_as_an_io_error() {
    let elapsed = tokio::time::timeout(SECOND, std::future::pending::<()>()).await.unwrap_err();
    assert_read(&elapsed, Class::Timeout, "tokio-elapsed");
    assert_read(&io::Error::from(elapsed), Class::Timeout, "io");
}

#[tokio::test]
async fn an_aborted_task_is_cancelled_and_a_panicked_one_is_not() {
    let task = tokio::spawn(std::future::pending::<()>());
    task.abort();
    assert_read(&task.await.unwrap_err(), Class::Cancelled, "tokio-join");

    let task = tokio::spawn(async { panic!("on purpose") });
    assert_unread(&task.await.unwrap_err());
}

#[test]
fn a_file_that_may_not_be_read_says_nothing_about_who_is_asking() {
    assert_unread(&io::Error::from(io::ErrorKind::PermissionDenied));
}

#[test]
fn an_error_inside_an_io_error_inside_an_io_error_is_seen() {
    let inner = io::Error::from(io::ErrorKind::TimedOut);
    let wrapped = io::Error::other(io::Error::other(inner));
    assert_read(&wrapped, Class::Timeout, "io");
}

#[test]
fn an_error_behind_an_arc_is_seen() {
    let shared: std::sync::Arc<dyn Error + Send + Sync> = std::sync::Arc::new(io::Error::from(io::ErrorKind::TimedOut));
    assert_read(&shared, Class::Timeout, "io");
}

#[test]
fn our_own_errors_say_what_their_verdict_is() {
    let rejected = IssueError::rejected(OAuthCode::new("invalid_grant").expect("a code"), "the user signed out");
    assert_read(&rejected, Class::Authentication, "issue-error");

    let busy = IssueError::transient("busy").with_delivery(Delivery::NotSent).with_retry_after(SECOND);
    assert_read(&busy, Class::Unavailable, "issue-error");
    assert_eq!(STANDARD.classify(&busy).retry_after(), Some(SECOND));

    let slow = IssueError::transient(io::Error::from(io::ErrorKind::TimedOut));
    assert_read(&slow, Class::Timeout, "io");
}

#[tokio::test(start_paused = true)]
async fn what_callers_get_instead_of_a_token_says_how_the_way_to_one_is() {
    let revoked = || async { Err(IssueError::rejected(OAuthCode::new("invalid_grant").unwrap(), "signed out").into()) };
    let tokens = MonitoredTokenSource::builder(revoked).spawn().unwrap();
    assert_read(&tokens.token().await.unwrap_err(), Class::Authentication, "auth-error");
    tokens.shutdown().await;
    assert_read(&tokens.token().await.unwrap_err(), Class::Cancelled, "auth-error");

    let down = || async { Err(io::Error::from(io::ErrorKind::ConnectionRefused).into()) };
    let tokens = MonitoredTokenSource::builder(down).spawn().unwrap();
    let error = tokens.token().await.unwrap_err();
    assert_read(&error, Class::Unavailable, "auth-error");
    assert!(error.retry_after().is_some());
    assert_eq!(STANDARD.classify(&error).retry_after(), error.retry_after());
}

#[cfg(feature = "oauth2")]
#[tokio::test]
async fn the_token_endpoints_answer_is_read_by_its_code_then_by_its_status() {
    use steadfast::{IssueReason, IssueRequest, TokenSource, oauth};

    for (status, body, class) in [
        (400, r#"{"error":"invalid_grant"}"#, Class::Authentication),
        (400, r#"{"error":"temporarily_unavailable"}"#, Class::Unavailable),
        (400, r#"{"error":"slow_down"}"#, Class::RateLimited),
        (429, "", Class::RateLimited),
        (401, "", Class::Unavailable),
        (403, "<html>blocked</html>", Class::Unavailable),
        (503, "", Class::Unavailable),
    ] {
        let http = move |_: http::Request<Vec<u8>>| async move {
            let answer = http::Response::builder().status(status).header("retry-after", "7").body(body.into());
            answer.map_err(oauth::TransportError::unknown)
        };
        let grant = oauth::RefreshTokenGrant::builder("https://login.example.com/token", "app", "rt").http(http);
        let request = IssueRequest::new(IssueReason::Initial);
        let error = grant.build().unwrap().issue(&request).await.unwrap_err();
        assert_eq!(STANDARD.classify(&*error).class(), class, "{status} {body}");

        let facts = error.source().unwrap();
        assert_read(facts, class, "token-endpoint");
        let told = facts.downcast_ref::<oauth::TokenEndpointError>().unwrap().retry_after();
        assert_eq!(STANDARD.classify(facts).retry_after(), told);
    }
}

#[test]
fn no_authentication_is_believed_beneath_our_own_errors() {
    let proxy_says_401 = io::Error::other("401 Unauthorized");
    let at_the_token_endpoint = IssueError::transient(proxy_says_401);
    assert_read(&at_the_token_endpoint, Class::Unavailable, "issue-error");
}

#[test]
fn a_removed_rule_of_ours_still_shields_what_is_beneath_its_error() {
    let proxy_says_401 = IssueError::transient(io::Error::other("401 Unauthorized"));
    let deaf = Classifier::standard().without("issue-error");
    assert_eq!(deaf.classify(&proxy_says_401).class(), Class::Unknown);

    let revoked = IssueError::transient(IssueError::rejected(OAuthCode::new("invalid_grant").unwrap(), "signed out"));
    assert_eq!(deaf.classify(&revoked).class(), Class::Unknown);
    let slow = IssueError::transient(io::Error::other("the operation timed out"));
    assert_eq!(deaf.classify(&slow).class(), Class::Timeout);
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn a_removed_rule_of_ours_still_shields_what_a_type_says_beneath_its_error() {
    let refused = reqwest::get(format!("http://{}/", serve(UNAUTHORIZED).await)).await.unwrap();
    let error = IssueError::transient(refused.error_for_status().unwrap_err());
    let read = Classifier::standard().without("issue-error").classify(&error);
    assert_eq!(read.class(), Class::Unknown, "{read:?}");
}

#[test]
fn a_time_out_inside_a_connection_error_is_a_time_out() {
    let error = io::Error::new(io::ErrorKind::ConnectionAborted, io::Error::from(io::ErrorKind::TimedOut));
    assert_read(&error, Class::Timeout, "io");
}

#[test]
fn a_connection_error_inside_a_time_out_is_a_time_out() {
    let error = io::Error::new(io::ErrorKind::TimedOut, io::Error::from(io::ErrorKind::ConnectionReset));
    assert_read(&error, Class::Timeout, "io");
}

#[test]
fn a_type_beats_any_text() {
    let error = Wrapped("401 Unauthorized", io::Error::from(io::ErrorKind::ConnectionReset).into());
    assert_read(&error, Class::Unavailable, "io");
}

#[test]
fn the_text_counts_where_no_type_says_anything() {
    let error = Wrapped("the call failed", io::Error::other("403 Forbidden").into());
    let read = STANDARD.classify(&error);
    assert_eq!((read.class(), read.evidence()), (Class::Authorization, Evidence::Text));
}

#[test]
fn a_chain_without_an_end_is_given_up() {
    assert_unread(&Endless);
}

#[test]
fn a_removed_rule_is_silent_and_the_text_speaks_instead() {
    let refused = Wrapped("status code 403", io::Error::from(io::ErrorKind::ConnectionRefused).into());
    let read = Classifier::standard().without("io").classify(&refused);
    assert_eq!((read.class(), read.rule()), (Class::Authorization, "status-code-nnn"));
}

#[test]
fn hosts_types_come_before_ours_and_hosts_phrases_before_our_phrases() {
    let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
    let host = Classifier::standard()
        .on(|error: &io::Error| (error.kind() == io::ErrorKind::ConnectionRefused).then_some(Class::Cancelled))
        .on_phrase("connection refused", Class::RateLimited);
    assert_eq!(host.classify(&refused).class(), Class::Cancelled);
    assert_eq!(host.classify(&io::Error::from(io::ErrorKind::TimedOut)).rule(), "io");

    let read = host.classify_text("401 Unauthorized: connection refused");
    assert_eq!((read.class(), read.rule()), (Class::RateLimited, "connection refused"));
    assert_eq!(host.classify_text("401 Unauthorized").class(), Class::Authentication);

    let ours_by_type = host.without(std::any::type_name::<io::Error>());
    assert_eq!(ours_by_type.classify(&refused).class(), Class::Unavailable);
}

#[test]
fn a_hosts_phrase_is_found_that_begins_with_short_words_or_holds_punctuation() {
    for (phrase, text) in [
        ("is down", "the billing service Is Down."),
        ("no quota left", "no quota left"),
        ("we are at our limit", "sorry, we are at our limit: try later"),
        ("is it up yet", "(is it up yet)"),
        ("i/o deadline", "read: i/o deadline reached"),
        ("it's gone", "It's gone!"),
        ("don't come back", "Don't come back"),
        ("quota, spent", "Quota, spent by \"alice\""),
        ("re-login needed", "re-login needed"),
        ("[gone]", "upstream [gone]"),
        ("- giving up", "third time - giving up"),
        ("is AWOL", "it is AWOL"),
    ] {
        let host = Classifier::standard().on_phrase(phrase, Class::RateLimited);
        let read = host.classify_text(text);
        assert_eq!((read.class(), read.rule()), (Class::RateLimited, phrase), "{text}");
    }
}

#[test]
fn a_hosts_phrase_is_found_whole_and_in_its_own_capitals_only() {
    for (phrase, text) in [
        ("is down", "this down payment"),
        ("is down", "is downed"),
        ("is down", "down"),
        ("is down", "is, down"),
        ("No quota left", "no quota left"),
        ("is AWOL", "is awol"),
        ("don't come back", "dont come back"),
    ] {
        let host = Classifier::standard().on_phrase(phrase, Class::RateLimited);
        assert_eq!(host.classify_text(text).class(), Class::Unknown, "{phrase} in {text}");
    }
}

#[test]
fn a_hosts_phrase_without_a_word_of_three_letters_is_never_found() {
    for phrase in ["", "no", "is up", "-", "é"] {
        let host = Classifier::standard().on_phrase(phrase, Class::RateLimited);
        assert_eq!(host.classify_text(phrase).class(), Class::Unknown, "{phrase}");
    }
}

#[test]
fn of_the_hosts_types_the_outermost_error_and_the_first_rule_win() {
    let error = Wrapped("outer", io::Error::from(io::ErrorKind::TimedOut).into());
    let host = Classifier::standard()
        .on(|_: &io::Error| Some(Class::RateLimited))
        .on(|_: &Wrapped| Some(Class::Cancelled))
        .on(|_: &Wrapped| Some(Class::Authorization));
    assert_eq!(host.classify(&error).class(), Class::Cancelled);
}

#[cfg(feature = "reqwest")]
mod reqwest_013 {
    use super::*;

    async fn get(address: SocketAddr) -> Result<reqwest::Response, reqwest::Error> {
        let client = reqwest::Client::builder().no_proxy().timeout(SECOND).build()?;
        client.get(format!("http://{address}/401-unauthorized")).send().await
    }

    speaks_like_reqwest!("reqwest");

    #[tokio::test]
    async fn a_401_inside_a_decode_error_is_authentication() {
        let refused = get(serve(UNAUTHORIZED).await).await.unwrap().error_for_status().unwrap_err();
        let error = io::Error::new(io::ErrorKind::InvalidData, refused);
        assert_read(&error, Class::Authentication, "reqwest");
    }

    #[tokio::test]
    async fn a_401_inside_reqwests_own_decode_error_is_authentication() {
        let refused = get(serve(UNAUTHORIZED).await).await.unwrap().error_for_status().unwrap_err();
        let broken = futures_util::stream::iter([Err::<http_body::Frame<bytes::Bytes>, _>(refused)]);
        let body = reqwest::Body::wrap(http_body_util::StreamBody::new(broken));
        let error = reqwest::Response::from(http::Response::new(body)).bytes().await.unwrap_err();
        assert!(error.is_decode() && error.status().is_none(), "{error:?}");
        assert_read(&error, Class::Authentication, "reqwest");
    }

    /// The name is never resolved, so the connection is never made; reqwest calls that an error of both kinds.
    #[tokio::test(start_paused = true)]
    async fn a_time_out_inside_reqwests_own_connection_error_is_a_time_out() {
        struct Hangs;

        impl reqwest::dns::Resolve for Hangs {
            fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
                Box::pin(std::future::pending())
            }
        }

        let client = reqwest::Client::builder().no_proxy().connect_timeout(SECOND).dns_resolver(Hangs).build().unwrap();
        let error = client.get("http://api.example.com/").send().await.unwrap_err();
        assert!(error.is_connect() && error.is_timeout(), "{error:?}");
        assert_read(&error, Class::Timeout, "reqwest");
    }

    #[tokio::test]
    async fn a_401_inside_a_time_out_is_authentication() {
        let refused = get(serve(UNAUTHORIZED).await).await.unwrap().error_for_status().unwrap_err();
        assert_read(&io::Error::new(io::ErrorKind::TimedOut, refused), Class::Authentication, "reqwest");
    }

    #[tokio::test]
    async fn a_token_endpoints_401_says_nothing_about_the_backend() {
        let refused = get(serve(UNAUTHORIZED).await).await.unwrap().error_for_status().unwrap_err();
        assert_read(&IssueError::transient(refused), Class::Unavailable, "issue-error");
    }

    #[tokio::test]
    async fn an_untrusted_certificate_is_unavailable() {
        let address = serve("not TLS at all").await;
        let error = reqwest::Client::new().get(format!("https://{address}/")).send().await.unwrap_err();
        assert_read(&error, Class::Unavailable, "reqwest");
    }
}

#[cfg(feature = "reqwest-012")]
mod reqwest_012 {
    use super::*;

    async fn get(address: SocketAddr) -> Result<reqwest012::Response, reqwest012::Error> {
        let client = reqwest012::Client::builder().no_proxy().timeout(SECOND).build()?;
        client.get(format!("http://{address}/401-unauthorized")).send().await
    }

    speaks_like_reqwest!("reqwest-012");
}

#[cfg(feature = "reqwest-middleware")]
mod reqwest_middleware_05 {
    use super::*;

    #[tokio::test]
    async fn the_transparent_wrapper_is_opened() {
        let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::new()).build();
        let error = client.get(format!("http://{}/", dead_port().await)).send().await.unwrap_err();
        assert_read(&error, Class::Unavailable, "reqwest");

        let error = reqwest_middleware::Error::middleware(io::Error::from(io::ErrorKind::TimedOut));
        assert_read(&error, Class::Timeout, "io");
    }
}

#[cfg(feature = "hyper")]
mod hyper_1 {
    use super::*;
    use hyper_util::rt::TokioIo;

    #[tokio::test]
    async fn a_connection_that_ends_under_a_request_is_unavailable() {
        let (near, mut far) = tokio::io::duplex(1024);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.unwrap();
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(http::Request::new(http_body_util::Empty::<bytes::Bytes>::new()));
        let far_end = async {
            far.read_u8().await.unwrap();
            drop(far);
        };
        let (answer, ()) = tokio::join!(answer, far_end);
        assert_read(&answer.unwrap_err(), Class::Unavailable, "hyper");

        let _ = connection.await;
        let late = sender.send_request(http::Request::new(http_body_util::Empty::new())).await;
        assert_read(&late.unwrap_err(), Class::Unavailable, "hyper");
    }

    #[tokio::test(start_paused = true)]
    async fn headers_that_do_not_come_are_a_time_out() {
        let (near, _far) = tokio::io::duplex(1024);
        let service = hyper::service::service_fn(|_| async {
            Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::Empty::<bytes::Bytes>::new()))
        });
        let error = hyper::server::conn::http1::Builder::new()
            .timer(hyper_util::rt::TokioTimer::new())
            .header_read_timeout(SECOND)
            .serve_connection(TokioIo::new(near), service)
            .await
            .unwrap_err();
        assert_read(&error, Class::Timeout, "hyper");
    }
}

#[cfg(feature = "hyper-util")]
#[tokio::test]
async fn hyper_utils_client_says_that_it_did_not_connect() {
    use hyper_util::{client::legacy::Client, rt::TokioExecutor};

    let client = Client::builder(TokioExecutor::new()).build_http::<http_body_util::Empty<bytes::Bytes>>();
    let address = format!("http://{}/", dead_port().await);
    let error = client.get(address.parse().unwrap()).await.unwrap_err();
    assert_read(&error, Class::Unavailable, "hyper-util");
}

#[cfg(feature = "h2")]
mod h2_04 {
    use super::*;

    #[tokio::test]
    async fn a_stream_that_is_reset_says_why() {
        for (reason, class) in [
            (h2::Reason::REFUSED_STREAM, Class::Unavailable),
            (h2::Reason::ENHANCE_YOUR_CALM, Class::RateLimited),
            (h2::Reason::CANCEL, Class::Cancelled),
            (h2::Reason::SETTINGS_TIMEOUT, Class::Timeout),
            (h2::Reason::CONNECT_ERROR, Class::Unavailable),
            (h2::Reason::INTERNAL_ERROR, Class::Unavailable),
        ] {
            assert_read(&answered_with(reason).await, class, "h2");
        }
        for reason in [
            h2::Reason::PROTOCOL_ERROR,
            h2::Reason::FLOW_CONTROL_ERROR,
            h2::Reason::STREAM_CLOSED,
            h2::Reason::FRAME_SIZE_ERROR,
            h2::Reason::COMPRESSION_ERROR,
            h2::Reason::INADEQUATE_SECURITY,
            h2::Reason::HTTP_1_1_REQUIRED,
        ] {
            assert_unread(&answered_with(reason).await);
        }
    }

    #[tokio::test]
    async fn a_server_that_shuts_down_is_unavailable() {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let (asked, is_asked) = tokio::sync::oneshot::channel();
        let server = tokio::spawn(async move {
            let mut connection = h2::server::handshake(far).await.unwrap();
            is_asked.await.unwrap();
            connection.abrupt_shutdown(h2::Reason::NO_ERROR);
            while connection.accept().await.is_some() {}
        });
        let (requests, connection) = h2::client::handshake(near).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut requests = requests.ready().await.unwrap();
        let (answer, _) = requests.send_request(http::Request::new(()), true).unwrap();
        asked.send(()).unwrap();
        let error = answer.await.unwrap_err();
        assert!(error.is_go_away(), "{error:?}");
        assert_eq!(error.reason(), Some(h2::Reason::NO_ERROR));
        assert_read(&error, Class::Unavailable, "h2");
        server.abort();
        connection.abort();
    }

    #[tokio::test]
    async fn what_the_socket_said_is_seen_through_it() {
        let (near, far) = tokio::io::duplex(1024);
        drop(far);
        let error = h2::client::handshake(near).await.map(drop).unwrap_err();
        assert_read(&error, Class::Unavailable, "io");
    }

    async fn answered_with(reason: h2::Reason) -> h2::Error {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let server = tokio::spawn(async move {
            let mut connection = h2::server::handshake(far).await.unwrap();
            while let Some(request) = connection.accept().await {
                request.unwrap().1.send_reset(reason);
            }
        });
        let (requests, connection) = h2::client::handshake(near).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut requests = requests.ready().await.unwrap();
        let (answer, _) = requests.send_request(http::Request::new(()), true).unwrap();
        let error = answer.await.unwrap_err();
        server.abort();
        connection.abort();
        error
    }
}

#[cfg(feature = "rustls")]
#[tokio::test]
async fn a_certificate_that_nobody_signed_is_unavailable() {
    use std::sync::Arc;
    use tokio_rustls::{TlsAcceptor, TlsConnector, rustls};

    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], own.signing_key.serialize_der().try_into().unwrap())
        .unwrap();
    let client =
        rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    let (near, far) = tokio::io::duplex(64 * 1024);

    let accepted = TlsAcceptor::from(Arc::new(server)).accept(far);
    let connected = TlsConnector::from(Arc::new(client)).connect("localhost".try_into().unwrap(), near);
    let (client_side, server_side) = tokio::join!(connected, accepted);
    assert_read(&client_side.unwrap_err(), Class::Unavailable, "rustls");
    assert_read(&server_side.unwrap_err(), Class::Unavailable, "rustls");
}

#[cfg(feature = "tower")]
#[tokio::test(start_paused = true)]
async fn towers_time_out_is_a_time_out() {
    use tower::{Service, timeout::Timeout};

    #[derive(Clone)]
    struct Hangs;

    impl Service<()> for Hangs {
        type Response = ();
        type Error = io::Error;
        type Future = std::future::Pending<io::Result<()>>;

        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }

        fn call(&mut self, (): ()) -> Self::Future {
            std::future::pending()
        }
    }

    let error = Timeout::new(Hangs, SECOND).call(()).await.unwrap_err();
    assert_read(&*error, Class::Timeout, "tower-elapsed");
}

#[cfg(feature = "oauth2")]
mod oauth2_5 {
    use super::*;
    use oauth2::{
        AuthType, ClientId, HttpClientError, HttpRequest, HttpResponse, RefreshToken, RequestTokenError, TokenUrl,
        basic::{BasicClient, BasicErrorResponse},
    };

    type TransportError = HttpClientError<io::Error>;

    #[tokio::test]
    async fn a_code_of_the_server_is_read() {
        for (code, class) in [
            ("invalid_grant", Class::Authentication),
            ("invalid_client", Class::Authentication),
            ("unauthorized_client", Class::Authentication),
            ("temporarily_unavailable", Class::Unavailable),
            ("slow_down", Class::RateLimited),
        ] {
            assert_read(&refresh(|| Ok(answer(code))).await, class, "oauth2");
        }
        let unclear = refresh(|| Ok(answer("invalid_request"))).await;
        assert_eq!(STANDARD.classify(&unclear).class(), Class::Unknown);
    }

    #[tokio::test]
    async fn the_transport_is_seen_through_it() {
        let error = refresh(|| Err(io::Error::from(io::ErrorKind::TimedOut).into())).await;
        assert_read(&error, Class::Timeout, "io");
    }

    #[cfg(feature = "reqwest")]
    #[tokio::test]
    async fn what_reqwest_says_of_a_token_endpoint_is_seen_through_it() {
        assert_read_through_it!(reqwest, "reqwest");
    }

    #[cfg(feature = "reqwest-012")]
    #[tokio::test]
    async fn what_reqwest_012_says_of_a_token_endpoint_is_seen_through_it() {
        assert_read_through_it!(reqwest012, "reqwest-012");
    }

    /// Oauth2's error has the transport's as a parameter: it is a type of its own for each version, boxed or not.
    #[cfg(any(feature = "reqwest", feature = "reqwest-012"))]
    macro_rules! assert_read_through_it {
        ($reqwest:ident, $rule:literal) => {
            let client = |address: SocketAddr| {
                BasicClient::new(ClientId::new("client".to_owned()))
                    .set_token_uri(TokenUrl::new(format!("http://{address}/token")).unwrap())
            };
            let http = $reqwest::Client::builder().no_proxy().build().unwrap();
            let plain = |request: HttpRequest| {
                let sent = $reqwest::Request::try_from(request).map(|request| http.execute(request));
                async move {
                    let answer = sent?.await?;
                    let status = answer.status();
                    let mut answer = HttpResponse::new(answer.bytes().await?.to_vec());
                    *answer.status_mut() = status;
                    Ok::<_, $reqwest::Error>(answer)
                }
            };
            let boxed = |request: HttpRequest| {
                let answer = plain(request);
                async move { answer.await.map_err(|error| HttpClientError::Reqwest(Box::new(error))) }
            };
            let token = RefreshToken::new("token".to_owned());

            let nobody = client(dead_port().await);
            let error = nobody.exchange_refresh_token(&token).request_async(&plain).await.unwrap_err();
            assert_read(&error, Class::Unavailable, $rule);
            assert!(STANDARD.classify(&error).is_of_token_path());
            let error = nobody.exchange_refresh_token(&token).request_async(&boxed).await.unwrap_err();
            assert_read(&error, Class::Unavailable, $rule);
            assert!(STANDARD.classify(&error).is_of_token_path());

            let revoked = client(serve(REVOKED).await);
            let error = revoked.exchange_refresh_token(&token).request_async(&plain).await.unwrap_err();
            assert_read(&error, Class::Authentication, "oauth2");
            let error = revoked.exchange_refresh_token(&token).request_async(&boxed).await.unwrap_err();
            assert_read(&error, Class::Authentication, "oauth2");
        };
    }
    #[cfg(any(feature = "reqwest", feature = "reqwest-012"))]
    use assert_read_through_it;

    async fn refresh(
        exchange: impl Fn() -> Result<HttpResponse, TransportError> + Sync,
    ) -> RequestTokenError<TransportError, BasicErrorResponse> {
        let client = BasicClient::new(ClientId::new("client".to_owned()))
            .set_auth_type(AuthType::RequestBody)
            .set_token_uri(TokenUrl::new("http://localhost/token".to_owned()).unwrap());
        let token = RefreshToken::new("token".to_owned());
        let transport = |_: HttpRequest| std::future::ready(exchange());
        client.exchange_refresh_token(&token).request_async(&transport).await.unwrap_err()
    }

    fn answer(code: &str) -> HttpResponse {
        let mut answer = HttpResponse::new(format!(r#"{{"error":"{code}"}}"#).into_bytes());
        *answer.status_mut() = http::StatusCode::BAD_REQUEST;
        answer
    }
}

/// The same of every version of reqwest. `get` asks a server on loopback.
#[cfg(any(feature = "reqwest", feature = "reqwest-012"))]
macro_rules! speaks_like_reqwest {
    ($rule:literal) => {
        #[tokio::test]
        async fn a_status_is_read() {
            for (answer, class) in [
                (UNAUTHORIZED, Class::Authentication),
                ("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", Class::Authorization),
                ("HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n", Class::Timeout),
                ("HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n", Class::RateLimited),
                ("HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n", Class::Unavailable),
                ("HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 0\r\n\r\n", Class::Unavailable),
                ("HTTP/1.1 522 Connection timed out\r\ncontent-length: 0\r\n\r\n", Class::Unavailable),
            ] {
                let error = get(serve(answer).await).await.unwrap().error_for_status().unwrap_err();
                assert_read(&error, class, $rule);
            }
        }

        #[tokio::test]
        async fn a_404_says_nothing_whatever_its_address_is_called() {
            let answer = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
            let error = get(serve(answer).await).await.unwrap().error_for_status().unwrap_err();
            assert_unread(&error);
        }

        #[tokio::test]
        async fn a_dead_port_is_unavailable() {
            assert_read(&get(dead_port().await).await.unwrap_err(), Class::Unavailable, $rule);
        }

        #[tokio::test]
        async fn an_answer_that_breaks_off_is_unavailable() {
            let address = serve("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc").await;
            let error = get(address).await.unwrap().bytes().await.unwrap_err();
            assert_eq!(STANDARD.classify(&error).class(), Class::Unavailable, "{error:?}");
        }

        /// The clock stands still and jumps to the time-out as soon as nothing else is to be done.
        #[tokio::test(start_paused = true)]
        async fn no_answer_in_time_is_a_time_out() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let error = get(listener.local_addr().unwrap()).await.unwrap_err();
            assert_read(&error, Class::Timeout, $rule);
        }
    };
}
#[cfg(any(feature = "reqwest", feature = "reqwest-012"))]
use speaks_like_reqwest;

#[track_caller]
fn assert_read(error: &(dyn Error + 'static), class: Class, rule: &str) {
    let read: Classified = STANDARD.classify(error);
    assert_eq!((read.class(), read.rule(), read.evidence()), (class, rule, Evidence::Type), "{error:?}");
}

#[track_caller]
fn assert_unread(error: &(dyn Error + 'static)) {
    let read = STANDARD.classify(error);
    assert_eq!((read.class(), read.rule(), read.evidence()), (Class::Unknown, "unrecognised", Evidence::None));
}

/// Answers every connection with these bytes, and closes it.
async fn serve(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let _ = connection.read(&mut [0; 4096]).await;
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    address
}

/// Nobody listens there: the port was ours a moment ago.
async fn dead_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[derive(Debug)]
struct Wrapped(&'static str, Box<dyn Error>);

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Wrapped {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.1)
    }
}

/// Is its own cause.
#[derive(Debug)]
struct Endless;

impl fmt::Display for Endless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("again")
    }
}

impl Error for Endless {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self)
    }
}

static STANDARD: Classifier = Classifier::standard();
const SECOND: Duration = Duration::from_secs(1);
#[cfg(any(feature = "reqwest", feature = "reqwest-012"))]
const UNAUTHORIZED: &str = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";
#[cfg(any(feature = "reqwest", feature = "reqwest-012"))]
const REVOKED: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 25\r\n\r\n{\"error\":\"invalid_grant\"}";
