//! A token endpoint, an API and a handle; clients and services that show what reaches them.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use steadfast::{
    AccessToken, AuthLayer, MonitoredTokenSource, RefreshPolicy, StatusEvent,
    oauth::RefreshTokenGrant,
    sink_fn,
    testing::{Answer, ProtectedApi, ScriptedIdp, TestClock},
};
use tokio::{net::TcpListener, task::JoinHandle, time::sleep};
use tower_service::Service;

/// A token endpoint that issues, an API that takes what it issues, and a handle between them.
pub(crate) struct World {
    pub(crate) idp: ScriptedIdp,
    pub(crate) api: ProtectedApi,
    pub(crate) tokens: MonitoredTokenSource,
    pub(crate) events: Events,
}

impl World {
    /// The handle has its first token, and the resource server has had time to hear of it.
    pub(crate) async fn settled() -> Self {
        let world = Self::fresh().await;
        world.tokens.token().await.unwrap();
        sleep(SETTLE).await;
        world
    }

    pub(crate) async fn fresh() -> Self {
        Self::fresh_with(RefreshPolicy::DEFAULT).await
    }

    pub(crate) async fn fresh_with(policy: RefreshPolicy) -> Self {
        let idp = ScriptedIdp::start().await;
        idp.always(Answer::success());
        let api = ProtectedApi::start(&idp).await;
        let grant = RefreshTokenGrant::builder(idp.token_url(), "client", idp.login()).build().unwrap();
        let events = Events::default();
        let builder = MonitoredTokenSource::builder(grant).clock(&TestClock::new()).policy(policy);
        let tokens = builder.sink(events.sink()).spawn().unwrap();
        Self { idp, api, tokens, events }
    }

    pub(crate) fn layer(&self) -> AuthLayer {
        AuthLayer::new(self.tokens.clone(), self.api.url()).unwrap()
    }

    pub(crate) fn get(&self) -> Request<Full<Bytes>> {
        get(&self.api.url())
    }

    /// Refuses the token in use from now on.
    pub(crate) fn revoke(&self) -> AccessToken {
        let token = self.tokens.try_token().unwrap();
        self.api.revoke(token.secret());
        token
    }
}

/// The status events that a sink was given.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<StatusEvent>>>);

impl Events {
    pub(crate) fn sink(&self) -> impl steadfast::StatusSink + use<> {
        let events = Arc::clone(&self.0);
        sink_fn(move |event: StatusEvent| {
            events.lock().unwrap().push(event);
            async { Ok(()) }
        })
    }

    pub(crate) fn count(&self, what: impl Fn(&StatusEvent) -> bool) -> usize {
        self.0.lock().unwrap().iter().filter(|event| what(event)).count()
    }
}

pub(crate) fn get(url: &str) -> Request<Full<Bytes>> {
    Request::get(url).body(Full::default()).unwrap()
}

pub(crate) fn hyper_client<B>() -> Client<HttpConnector, B>
where
    B: hyper::body::Body<Data: Send> + Send,
{
    Client::builder(TokioExecutor::new()).build_http()
}

pub(crate) async fn text<B: hyper::body::Body<Error: std::fmt::Debug>>(response: Response<B>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// An HTTP server (1.1 or 2) that keeps its connections, which the kit's servers do not.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

/// The connection and the `Authorization` of a request.
pub(crate) type Seen = (usize, Option<String>);

impl Server {
    pub(crate) async fn answering<B, F>(answer: F) -> Self
    where
        F: Fn(Option<&str>) -> Response<B> + Clone + Send + Sync + 'static,
        B: hyper::body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            for connection in 1.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (log, answer) = (Arc::clone(&log), answer.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let token = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
                    log.lock().unwrap().push((connection, token.clone()));
                    let response = answer(token.as_deref());
                    async move { Ok::<_, Infallible>(response) }
                });
                tokio::spawn(async move {
                    let _ =
                        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, seen, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A service as strict as a service may be: it panics when it is called without having been ready, and counts who holds
/// readiness and who is alive. Answers 401 to all tokens but those in `good`.
pub(crate) struct Strict {
    ready: bool,
    alive: Arc<()>,
    reserved: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
    good: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

impl Strict {
    pub(crate) fn accepting(good: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        let (alive, reserved, calls) = Default::default();
        Self { ready: false, alive, reserved, calls, good: Arc::new(good) }
    }

    pub(crate) fn probe(&self) -> Probe {
        Probe { alive: Arc::clone(&self.alive), reserved: Arc::clone(&self.reserved), calls: Arc::clone(&self.calls) }
    }

    fn release(&mut self) -> bool {
        let was_ready = std::mem::take(&mut self.ready);
        self.reserved.fetch_sub(usize::from(was_ready), Ordering::Relaxed);
        was_ready
    }
}

pub(crate) struct Probe {
    alive: Arc<()>,
    reserved: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

impl Probe {
    pub(crate) fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// How many clones of the service there are.
    pub(crate) fn alive(&self) -> usize {
        Arc::strong_count(&self.alive) - 1
    }
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        let Self { ready: _, alive, reserved, calls, good } = self;
        let (alive, reserved, calls) = (Arc::clone(alive), Arc::clone(reserved), Arc::clone(calls));
        Self { ready: false, alive, reserved, calls, good: Arc::clone(good) }
    }
}

impl Drop for Strict {
    fn drop(&mut self) {
        self.release();
    }
}

impl Service<Request<Empty<Bytes>>> for Strict {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if !self.ready {
            self.ready = true;
            self.reserved.fetch_add(1, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Empty<Bytes>>) -> Self::Future {
        assert!(self.release(), "called without having been ready");
        self.calls.fetch_add(1, Ordering::Relaxed);
        let token = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let good = token.is_some_and(|token| (self.good)(&token));
        let mut response = Response::new(Empty::new());
        *response.status_mut() = if good { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        Box::pin(async move { Ok(response) })
    }
}

pub(crate) const SETTLE: Duration = Duration::from_secs(2);
