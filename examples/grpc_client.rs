//! A tonic channel, with a token on each call. A call that ends in `UNAUTHENTICATED` is made again with a new token.
//!
//! ```sh
//! cargo run --example grpc_client
//! ```
#![allow(clippy::print_stdout, reason = "printing is what this program is for")]

use std::{
    convert::Infallible,
    future::ready,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes};
use http::{HeaderMap, Request, header, uri::PathAndQuery};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use steadfast::{
    AuthLayer, BoxError, MonitoredTokenSource, RefreshPolicy,
    oauth::RefreshTokenGrant,
    testing::{Answer, ScriptedIdp},
};
use tokio::net::TcpListener;
use tonic::{
    Status,
    body::Body,
    client::{self, GrpcService},
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server,
    transport::Endpoint,
};
use tower::{ServiceExt, service_fn};

/// What a host does once. What comes out is for a generated client: `GreeterClient::new(authenticated(..)?)`.
fn authenticated(
    tokens: MonitoredTokenSource,
    endpoint: &str,
) -> Result<impl GrpcService<Body, ResponseBody = Body> + Clone + use<>, BoxError> {
    // Tonic's requests do not say where they go, but this channel reaches nothing but its endpoint.
    let layer = AuthLayer::new(tokens, endpoint)?.inner_is_bound_to_origin().replay_once();
    let channel = Endpoint::from_shared(endpoint.to_owned())?.connect_lazy();
    let client = layer.wrap(channel.map_request(|request: Request<Full<Bytes>>| request.map(Body::new)));

    // Tonic streams even a single message, and a stream cannot be sent twice. So the message is collected first. Without
    // this and `replay_once()` the layer works as well, for streams too: a refused call fails, and the next one has the
    // new token.
    Ok(service_fn(move |call: Request<Body>| {
        let client = client.clone();
        async move {
            let (head, body) = call.into_parts();
            let message = body.collect().await?.to_bytes();
            Ok::<_, BoxError>(client.send(Request::from_parts(head, Full::new(message))).await?)
        }
    }))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let idp = ScriptedIdp::start().await;
    idp.rotating().always(Answer::success());
    let greeter = Greeter::start().await?;
    let grant = RefreshTokenGrant::builder(idp.token_url(), "my-client", idp.login()).build()?;
    let tokens = MonitoredTokenSource::builder(grant).name("greeter").policy(POLICY).spawn()?;
    let mut client = client::Grpc::new(authenticated(tokens.clone(), &greeter.url)?);

    println!("{} (token {})", greet(&mut client, "Ada").await?, tokens.token().await?.generation().get());

    println!("the service revokes the token: it answers with HTTP 200 and grpc-status 16");
    greeter.revoke(tokens.token().await?.secret());
    let greeting = greet(&mut client, "Grace").await?;
    let generation = tokens.token().await?.generation().get();
    println!("{greeting} (token {generation}: refused once, refreshed once, sent again)");

    let (calls, refreshes) = (greeter.calls(), idp.calls() - 1);
    println!("the service saw {calls} calls, the token endpoint {refreshes} refresh");
    let as_shown = (greeting.as_str(), generation, calls, refreshes) == ("Hello, Grace!", 2, 3, 1);
    if as_shown { Ok(()) } else { Err("it did not happen as shown".into()) }
}

/// A fresh token is given two seconds to become known everywhere before its refusal counts. This service knows each at
/// once, so the example need not wait.
const POLICY: RefreshPolicy = RefreshPolicy { settle: Duration::ZERO, ..RefreshPolicy::DEFAULT };

/// What `tonic-build` writes for a `rpc Greet(Text) returns (Text)`.
async fn greet<S>(client: &mut client::Grpc<S>, name: &str) -> Result<String, BoxError>
where
    S: GrpcService<Body, ResponseBody = Body>,
{
    client.ready().await.map_err(Into::into)?;
    let path = PathAndQuery::from_static("/example.Greeter/Greet");
    Ok(client.unary(tonic::Request::new(name.to_owned()), path, Text).await?.into_inner())
}

/// A gRPC service that takes each token it has not revoked.
struct Greeter {
    url: String,
    door: Arc<Mutex<Door>>,
}

#[derive(Default)]
struct Door {
    revoked: Vec<String>,
    calls: usize,
}

impl Greeter {
    async fn start() -> Result<Self, BoxError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let door = Arc::new(Mutex::new(Door::default()));
        let service = service_fn({
            let door = Arc::clone(&door);
            move |call: Request<Incoming>| {
                let admitted = lock(&door).admits(call.headers());
                async move {
                    Ok::<_, Infallible>(match admitted {
                        Ok(()) => server::Grpc::new(Text).unary(service_fn(hello), call).await,
                        Err(status) => status.into_http(),
                    })
                }
            }
        });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(service.clone());
                tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Self { url, door })
    }

    fn revoke(&self, token: &str) {
        lock(&self.door).revoked.push(format!("Bearer {token}"));
    }

    fn calls(&self) -> usize {
        lock(&self.door).calls
    }
}

impl Door {
    fn admits(&mut self, headers: &HeaderMap) -> Result<(), Status> {
        self.calls += 1;
        match headers.get(header::AUTHORIZATION) {
            Some(token) if self.revoked.iter().all(|revoked| revoked != token) => Ok(()),
            Some(_) => Err(Status::unauthenticated("this token was revoked")),
            None => Err(Status::unauthenticated("a token is required")),
        }
    }
}

fn hello(name: tonic::Request<String>) -> impl Future<Output = Result<tonic::Response<String>, Status>> {
    ready(Ok(tonic::Response::new(format!("Hello, {}!", name.into_inner()))))
}

fn lock(door: &Mutex<Door>) -> MutexGuard<'_, Door> {
    door.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Messages that are plain text, so that this example needs no protocol buffers.
#[derive(Clone, Copy, Default)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, text: String, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(text.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let text = from.copy_to_bytes(from.remaining());
        String::from_utf8(text.into()).map(Some).map_err(|_| Status::internal("a message that is no text"))
    }
}
