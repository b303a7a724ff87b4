//! The tower layer: attaches the token to requests, understands the 401, never leaks.

mod future;
mod message;
#[cfg(feature = "reqwest-middleware")]
mod middleware;
mod replay;

use std::{
    fmt,
    future::{Future, poll_fn},
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderName, StatusCode, header};
use tower_layer::Layer;
use tower_service::Service;

pub use self::{
    future::ResponseFuture,
    message::{RequestMessage, ResponseMessage},
    replay::{Drain, Replay, ReplayIdempotentOnce, ReplayOnce, ReplayWith, SendOnce},
};
use crate::{
    AccessToken, AuthError, BoxError, MonitoredTokenSource, Origin, OriginError,
    monitor::rejection::{Answer, Say},
    origin::Target,
};

/// Attaches the current token to each request for its origin, and deals with the 401s.
#[derive(Clone)]
pub struct AuthLayer<P = SendOnce> {
    settings: Arc<Settings>,
    replay: P,
}

#[derive(Clone)]
struct Settings {
    tokens: MonitoredTokenSource,
    origins: Vec<Origin>,
    inner_is_bound: bool,
    header: HeaderName,
    rejected_when: Option<Arc<Predicate>>,
    tag_responses: bool,
}

type Predicate = dyn Fn(StatusCode, &HeaderMap) -> bool + Send + Sync;

impl AuthLayer {
    /// A layer that attaches the tokens of this handle to requests for this origin, and to no others.
    ///
    /// # Errors
    /// [`OriginError`], where the origin is none, or one at which a token could be read on its way.
    pub fn new(
        tokens: MonitoredTokenSource,
        origin: impl TryInto<Origin, Error: Into<OriginError>>,
    ) -> Result<Self, OriginError> {
        let settings = Settings {
            tokens,
            origins: Vec::new(),
            inner_is_bound: false,
            header: header::AUTHORIZATION,
            rejected_when: None,
            tag_responses: false,
        };
        Self { settings: Arc::new(settings), replay: SendOnce::default() }.allow_origin(origin)
    }
}

impl<P> AuthLayer<P> {
    /// Allows one more origin, which must be one that the same tokens are for.
    ///
    /// # Errors
    /// As [`new`](AuthLayer::new).
    pub fn allow_origin(self, origin: impl TryInto<Origin, Error: Into<OriginError>>) -> Result<Self, OriginError> {
        let origin = origin.try_into().map_err(Into::into)?;
        Ok(self.set(|settings| settings.origins.push(origin)))
    }

    /// The inner service can reach nothing but an allowed origin: a request whose URL names no host gets the token too.
    #[must_use]
    pub fn inner_is_bound_to_origin(self) -> Self {
        self.set(|settings| settings.inner_is_bound = true)
    }

    /// What else counts as a 401.
    #[must_use]
    pub fn rejected_when(self, refused: impl Fn(StatusCode, &HeaderMap) -> bool + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.rejected_when = Some(Arc::new(refused)))
    }

    /// Puts the [`Generation`](crate::Generation) of its token into the extensions of each response, not only of the refused.
    #[must_use]
    pub fn tag_responses(self) -> Self {
        self.set(|settings| settings.tag_responses = true)
    }

    /// The header that carries the token. Defaults to `Authorization`.
    #[must_use]
    pub fn header(self, name: HeaderName) -> Self {
        self.set(|settings| settings.header = name)
    }

    /// Sends a refused request again.
    #[must_use]
    pub fn replay_once(self) -> AuthLayer<ReplayOnce> {
        AuthLayer { settings: self.settings, replay: ReplayOnce::default() }
    }

    /// Sends a refused request again if its method is idempotent.
    #[must_use]
    pub fn replay_idempotent_once(self) -> AuthLayer<ReplayIdempotentOnce> {
        AuthLayer { settings: self.settings, replay: ReplayIdempotentOnce::default() }
    }

    /// Sends a refused request again if this function has made a copy of it.
    #[must_use]
    pub fn replay_with<F>(self, clone: F) -> AuthLayer<ReplayWith<F>> {
        AuthLayer { settings: self.settings, replay: ReplayWith::new(clone) }
    }

    /// The service with this layer around it; as [`Layer::layer`], without importing it.
    #[must_use]
    pub fn wrap<S>(&self, service: S) -> Auth<S, P>
    where
        P: Clone,
    {
        Auth { inner: service, settings: Arc::clone(&self.settings), replay: self.replay.clone() }
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }
}

impl<S, P: Clone> Layer<S> for AuthLayer<P> {
    type Service = Auth<S, P>;

    fn layer(&self, inner: S) -> Auth<S, P> {
        self.wrap(inner)
    }
}

impl<P> fmt::Debug for AuthLayer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.show(f, "AuthLayer")
    }
}

/// A service whose requests carry the current token. Made by an [`AuthLayer`].
#[derive(Clone)]
pub struct Auth<S, P = SendOnce> {
    inner: S,
    settings: Arc<Settings>,
    replay: P,
}

impl<S, P> Auth<S, P> {
    /// Sends one request: waits for the service to be ready and calls it, on a clone.
    pub fn send<Req>(
        &self,
        request: Req,
    ) -> impl Future<Output = Result<<Self as Service<Req>>::Response, LayerError>> + use<S, P, Req>
    where
        Self: Service<Req, Error = LayerError> + Clone,
    {
        let mut service = self.clone();
        async move {
            poll_fn(|context| service.poll_ready(context)).await?;
            let response = service.call(request);
            // Nobody calls it again, so it must not keep others from getting ready.
            drop(service);
            response.await
        }
    }
}

impl<S, P, Req> Service<Req> for Auth<S, P>
where
    S: Service<Req, Response: ResponseMessage, Error: Into<BoxError>> + Clone,
    Req: RequestMessage,
    P: Replay<Req, S::Response>,
{
    type Response = S::Response;
    type Error = LayerError;
    type Future = ResponseFuture<S, P, Req>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), LayerError>> {
        self.inner.poll_ready(context).map_err(LayerError::inner_of)
    }

    fn call(&mut self, mut request: Req) -> Self::Future {
        let (settings, replay) = (Arc::clone(&self.settings), self.replay.clone());
        // The service that was polled is the one that is ready; its clone may not be:
        // https://docs.rs/tower/latest/tower/trait.Service.html#be-careful-when-cloning-inner-services
        let clone = self.inner.clone();
        let ready = mem::replace(&mut self.inner, clone);
        if !settings.concerns(&mut request) {
            return ResponseFuture::untouched(settings, replay, ready, request);
        }
        match settings.tokens.servable() {
            Some(token) => ResponseFuture::sending(settings, replay, ready, request, &token),
            None => {
                // What is ready is given back: while this request waits, others may need it to get on.
                drop(ready);
                ResponseFuture::waiting(settings, replay, self.inner.clone(), request)
            }
        }
    }
}

impl<S, P> fmt::Debug for Auth<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.show(f, "Auth")
    }
}

impl Settings {
    /// Whether the token belongs on this request.
    fn concerns(&self, request: &mut impl RequestMessage) -> bool {
        let allowed = self.allows(&request.target());
        let Some(own) = request.headers().get(&self.header) else { return allowed };
        // The caller's own credentials are the caller's affair. Ours, copied from another request, are not.
        if !allowed && self.tokens.servable().is_some_and(|token| token.authorization() == own) {
            request.headers_mut().remove(&self.header);
        }
        false
    }

    fn attach(&self, request: &mut impl RequestMessage, token: &AccessToken) {
        request.headers_mut().insert(self.header.clone(), token.authorization());
    }

    fn allows(&self, target: &Target<'_>) -> bool {
        match target {
            Target::Relative => self.inner_is_bound,
            Target::Absolute { .. } => self.origins.iter().any(|origin| origin.is_of(target)),
            Target::Unclear(_) => false,
        }
    }

    fn say(&self, response: &impl ResponseMessage) -> Say {
        // The client has followed a redirect to a place that has not seen the token and cannot judge it.
        if response.came_from().is_some_and(|target| !self.allows(&target)) {
            return Say::Nothing;
        }
        let (status, headers) = (response.status(), response.headers());
        let refused = self.rejected_when.as_ref().is_some_and(|refused| refused(status, headers));
        if refused { Say::Refused } else { Answer::of(status, headers).say() }
    }

    fn show(&self, f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
        f.debug_struct(name)
            .field("tokens", &self.tokens)
            .field("origins", &self.origins)
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// There is no token to be had, and the request was not sent. [`AuthError::to_response`] makes an answer of it.
    #[error("the request was not sent: there is no access token for it")]
    Auth(#[source] AuthError),
    /// The inner service failed.
    #[error("the request failed")]
    Inner(#[source] BoxError),
}

impl LayerError {
    /// The error of the inner service, if it is of this type.
    #[must_use]
    pub fn inner<E: std::error::Error + 'static>(&self) -> Option<&E> {
        match self {
            Self::Inner(error) => error.downcast_ref(),
            Self::Auth(_) => None,
        }
    }

    /// Why there is no token, if that is what is missing.
    #[must_use]
    pub const fn auth(&self) -> Option<&AuthError> {
        match self {
            Self::Auth(error) => Some(error),
            Self::Inner(_) => None,
        }
    }

    fn inner_of(error: impl Into<BoxError>) -> Self {
        Self::Inner(error.into())
    }
}
