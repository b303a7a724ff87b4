//! What a gRPC call ends with. A real tonic server answers a real tonic client over a connection.
#![cfg(feature = "tonic")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test may

use std::{convert::Infallible, future::ready, io, net::SocketAddr, time::Duration};

use http::{Request, uri::PathAndQuery};
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use steadfast::classify::{Class, Classifier};
use tokio::net::TcpListener;
use tonic::{
    Code, Status, client,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server,
    transport::Endpoint,
};
use tower::service_fn;

#[tokio::test]
async fn a_status_is_read_by_its_code_and_not_by_its_text() {
    let server = answering().await;
    for (code, class) in [
        (Code::Unauthenticated, Class::Authentication),
        (Code::PermissionDenied, Class::Authorization),
        (Code::ResourceExhausted, Class::RateLimited),
        (Code::DeadlineExceeded, Class::Timeout),
        (Code::Cancelled, Class::Cancelled),
        (Code::Unavailable, Class::Unavailable),
    ] {
        let status = call(server, code as i32, None).await;
        assert_eq!((status.code(), status.message()), (code, "the request timed out"));
        assert_read(&status, class, "tonic");
    }
}

#[tokio::test]
async fn a_code_without_a_class_leaves_it_to_the_text() {
    let server = answering().await;
    for code in [
        Code::Unknown,
        Code::InvalidArgument,
        Code::NotFound,
        Code::AlreadyExists,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::DataLoss,
    ] {
        let status = call(server, code as i32, None).await;
        assert_eq!(status.code(), code);
        assert_read(&status, Class::Timeout, "timed-out");
    }
}

/// The clock stands still and jumps to the time-out as soon as nothing else is to be done.
#[tokio::test(start_paused = true)]
async fn tonics_own_time_out_is_one_though_its_code_says_cancelled() {
    let server = answering().await;
    let status = call(server, HANGS, Some(Duration::from_secs(1))).await;
    assert_eq!((status.code(), status.message()), (Code::Cancelled, "Timeout expired"));
    assert_read(&status, Class::Timeout, "tonic");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_read(&call(nobody, 0, None).await, Class::Unavailable, "tonic");
}

#[test]
fn what_is_under_a_status_that_says_nothing_is_seen() {
    let error = Status::from_error(io::Error::from(io::ErrorKind::TimedOut).into());
    assert_read(&error, Class::Timeout, "io");
}

#[track_caller]
fn assert_read(status: &Status, class: Class, rule: &str) {
    let read = Classifier::standard().classify(status);
    assert_eq!((read.class(), read.rule()), (class, rule), "{status:?}");
}

async fn call(server: SocketAddr, code: i32, time_out: Option<Duration>) -> Status {
    let endpoint = Endpoint::from_shared(format!("http://{server}")).unwrap();
    let endpoint = time_out.into_iter().fold(endpoint, Endpoint::timeout);
    let mut client = client::Grpc::new(endpoint.connect_lazy());
    client.ready().await.unwrap();
    let path = PathAndQuery::try_from(format!("/example.Codes/{code}")).unwrap();
    client.unary(tonic::Request::new(()), path, Nothing).await.unwrap_err()
}

/// Answers each call with the code that is its method's name.
async fn answering() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = service_fn(|call: Request<Incoming>| async move {
        let code: i32 = call.uri().path().rsplit('/').next().unwrap().parse().unwrap();
        if code == HANGS {
            std::future::pending::<()>().await;
        }
        let status = Status::new(Code::from_i32(code), "the request timed out");
        let answer = service_fn(move |_: tonic::Request<()>| ready(Err::<tonic::Response<()>, _>(status.clone())));
        Ok::<_, Infallible>(server::Grpc::new(Nothing).unary(answer, call).await)
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service);
            tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

/// Messages without content, so that no protocol buffers are needed.
#[derive(Clone, Copy, Default)]
struct Nothing;

impl Codec for Nothing {
    type Encode = ();
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Nothing {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), Status> {
        Ok(())
    }
}

impl Decoder for Nothing {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        Ok(Some(()))
    }
}

const HANGS: i32 = -1;
