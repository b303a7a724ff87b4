//! The layer as a middleware of `reqwest-middleware`.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Error, Middleware, Next, Result};
use tokio::sync::Mutex;
use tower_service::Service;

use super::{AuthLayer, LayerError, Replay};

/// The layer as a middleware: `reqwest_middleware::ClientBuilder::with(layer)`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), steadfast::BoxError> {
/// # use steadfast::{AuthLayer, MonitoredTokenSource, StaticToken, testing::ProtectedApi};
/// # let api = ProtectedApi::alone().await;
/// # api.accept("s3cret");
/// # let tokens = MonitoredTokenSource::builder(StaticToken::new("s3cret")).spawn()?;
/// use reqwest_middleware::ClientBuilder;
///
/// let auth = AuthLayer::new(tokens, api.url())?.replay_once();
/// let client = ClientBuilder::new(reqwest::Client::new()).with(auth).build();
/// assert_eq!(client.get(api.url()).send().await?.status(), 200);
/// # Ok(()) }
/// ```
///
/// Errors of the rest of the chain come out as they are. Where no token can be had, the error is
/// `reqwest_middleware::Error::Middleware` around an [`AuthError`](crate::AuthError).
#[async_trait]
impl<P> Middleware for AuthLayer<P>
where
    P: Replay<Request, Response, Drain: Send> + Send + Sync + 'static,
    for<'a> P::Spare<Chain<'a>>: Send,
{
    async fn handle(&self, request: Request, extensions: &mut Extensions, next: Next<'_>) -> Result<Response> {
        let chain = Chain { next, extensions: Arc::new(Mutex::new(extensions)) };
        self.wrap(chain).send(request).await.map_err(|error| match error {
            LayerError::Auth(error) => Error::middleware(error),
            LayerError::Inner(error) => match error.downcast() {
                Ok(error) => *error,
                Err(error) => Error::middleware(LayerError::Inner(error)),
            },
        })
    }
}

/// The rest of the chain as a service that can be called again.
#[derive(Clone)]
struct Chain<'a> {
    next: Next<'a>,
    extensions: Arc<Mutex<&'a mut Extensions>>,
}

impl<'a> Service<Request> for Chain<'a> {
    type Response = Response;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response>> + Send + 'a>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Self { next, extensions } = self.clone();
        Box::pin(async move {
            let mut extensions = extensions.lock().await;
            next.run(request, &mut extensions).await
        })
    }
}
