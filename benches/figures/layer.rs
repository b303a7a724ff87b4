//! What the layer adds to a request that carries a valid token, the service cloned for each call as clients do.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll, ready as ready_or_pending},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header::AUTHORIZATION, uri::Scheme};
use pin_project_lite::pin_project;
use steadfast::{AuthLayer, IssuedToken, MonitoredTokenSource};
use tokio::runtime::Builder;
use tower::{Layer, Service, service_fn};
use tower_http::set_header::SetRequestHeaderLayer;

use crate::{at_once, measure::Table};

pub(crate) fn measure(table: &mut Table) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let tokens = runtime.block_on(async {
        let source = || async { Ok(IssuedToken::bearer("x".repeat(1024)).expires_in(Duration::from_secs(36_000))) };
        let tokens = MonitoredTokenSource::builder(source).spawn().unwrap();
        let token = tokens.token().await.unwrap();
        // As after the first answer, of which the driver is told.
        tokens.accept(token.generation());
        tokio::task::yield_now().await;
        tokens
    });
    let value = tokens.try_token().unwrap().authorization();

    let careful =
        ByHand::<_, true> { inner: inner(), token: Arc::new(ArcSwap::from_pointee(Held::new(value.clone()))) };
    let floor = ByHand::<_, false> { inner: inner(), token: Arc::new(ArcSwap::from_pointee(Held::new(value.clone()))) };
    let ours = AuthLayer::new(tokens, "https://api.example.com").unwrap().layer(inner());
    let set_header = SetRequestHeaderLayer::overriding(AUTHORIZATION, value).layer(inner());
    let call = |what: &str, target: f64, table: &mut Table, theirs: &dyn Fn(), ours: &dyn Fn()| {
        table.compare(
            what,
            target,
            50_000,
            |times| (0..times).for_each(|_| theirs()),
            |times| (0..times).for_each(|_| ours()),
        );
    };
    call("layer, valid token (floor: written by hand)", 1.15, table, &|| send(&floor), &|| send(&ours));
    let what = "the same (floor: by hand, with a look at where the request goes)";
    call(what, f64::NAN, table, &|| send(&careful), &|| send(&ours));
    call(
        "for comparison: `SetRequestHeaderLayer` (floor: written by hand)",
        f64::NAN,
        table,
        &|| send(&floor),
        &|| send(&set_header),
    );
    let bare = inner();
    call("for comparison: no layer (floor: written by hand)", f64::NAN, table, &|| send(&floor), &|| send(&bare));
}

fn send<S>(service: &S)
where
    S: Service<Request<()>, Response = Response<()>> + Clone,
{
    let mut request = Request::new(());
    *request.uri_mut() = URI.clone();
    let mut service = service.clone();
    let response = at_once(async {
        std::future::poll_fn(|context| service.poll_ready(context)).await.ok();
        service.call(request).await.ok()
    });
    black_box(response);
}

fn inner() -> impl Service<Request<()>, Response = Response<()>, Error = Infallible, Future = Answer> + Clone {
    service_fn(|request: Request<()>| {
        black_box(&request);
        ready(Ok(Response::new(())))
    })
}

/// Parsed once: that costs more than all that is measured here.
static URI: LazyLock<Uri> = LazyLock::new(|| Uri::from_static("https://api.example.com/v1/things"));

type Answer = Ready<Result<Response<()>, Infallible>>;

/// The least that a layer can do: put a valid token in, look whether it was refused, and keep which one it was. A careful one
/// looks first where the request goes, and whether the caller has credentials of its own.
#[derive(Clone)]
struct ByHand<S, const CAREFUL: bool> {
    inner: S,
    token: Arc<ArcSwap<Held>>,
}

struct Held {
    header: HeaderValue,
    until: SystemTime,
}

impl Held {
    fn new(header: HeaderValue) -> Self {
        Self { header, until: SystemTime::now() + Duration::from_secs(36_000) }
    }
}

impl<S, const CAREFUL: bool> Service<Request<()>> for ByHand<S, CAREFUL>
where
    S: Service<Request<()>, Response = Response<()>>,
{
    type Response = Response<()>;
    type Error = S::Error;
    type Future = Checked<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<()>) -> Checked<S::Future> {
        if CAREFUL {
            let url = request.uri();
            assert!(url.scheme() == Some(&Scheme::HTTPS));
            assert!(url.authority().is_some_and(|authority| authority == "api.example.com"));
            assert!(!request.headers().contains_key(AUTHORIZATION));
        }
        let token = self.token.load_full();
        assert!(SystemTime::now() < token.until);
        request.headers_mut().insert(AUTHORIZATION, token.header.clone());
        Checked { response: self.inner.call(request), token }
    }
}

pin_project! {
    struct Checked<F> {
        #[pin]
        response: F,
        token: Arc<Held>,
    }
}

impl<F, E> Future for Checked<F>
where
    F: Future<Output = Result<Response<()>, E>>,
{
    type Output = Result<Response<()>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready_or_pending!(this.response.poll(context))?;
        if response.status() == StatusCode::UNAUTHORIZED {
            eprintln!("refused until {:?}", this.token.until);
        }
        Poll::Ready(Ok(response))
    }
}
