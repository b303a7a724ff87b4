//! The tower layer: attaches the token to requests, understands the 401, never leaks.
//!
//! [`AuthLayer`] describes it, [`Auth`] is the service it makes. The other names here are what their signatures need: the
//! policies of replaying ([`SendOnce`], [`ReplayOnce`] …), the future, and the two traits that requests and responses have.

mod error;
mod future;
mod message;
#[cfg(feature = "reqwest-middleware")]
mod middleware;
mod replay;
mod settings;

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
    error::LayerError,
    future::ResponseFuture,
    message::{RequestMessage, ResponseMessage},
    replay::{Drain, Replay, ReplayIdempotentOnce, ReplayOnce, ReplayWith, SendOnce},
};
use self::{future::Exchange, settings::Settings};
use crate::{BoxError, MonitoredTokenSource, Origin, OriginError};

/// Attaches the current token to each request for its origin, and deals with the refusals.
///
/// Guides: [frameworks](crate::guide::frameworks), [the 401 side](crate::guide::rejections).
///
/// ```
/// # #[cfg(not(feature = "reqwest"))] fn main() {}
/// # #[cfg(feature = "reqwest")]
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), steadfast::BoxError> {
/// # use steadfast::{StaticToken, testing::ProtectedApi};
/// # let api = ProtectedApi::alone().await;
/// # api.accept("s3cret");
/// # let (source, url) = (StaticToken::new("s3cret"), api.url());
/// use steadfast::{AuthLayer, MonitoredTokenSource};
///
/// let tokens = MonitoredTokenSource::builder(source).name("orders").spawn()?;
/// let http = reqwest::Client::new();
/// let client = AuthLayer::new(tokens, &url)?.replay_once().wrap(http.clone());
///
/// let response = client.send(http.get(url).build()?).await?;
/// assert_eq!(response.status(), 200);
/// # Ok(()) }
/// ```
///
/// # Which services
///
/// Services of `http::Request<B>` and `http::Response<B>` with any bodies: hyper-util's legacy client, a tonic channel (see
/// [`inner_is_bound_to_origin`](Self::inner_is_bound_to_origin)), anything in a tower stack. With the feature `reqwest` also
/// `reqwest::Client` and `&reqwest::Client` themselves, and with `reqwest-middleware` the layer is a middleware. The inner
/// service must be `Clone`; for one that is not there is `tower::buffer`.
///
/// # Which requests
///
/// A request gets the token if its URL is of an allowed [`Origin`] and it has no such header yet. All others go out as they
/// are, and their responses mean nothing to the layer: credentials that the caller has put there are the caller's affair. Only
/// the current token itself, copied onto a request for elsewhere, is removed. A proxy therefore removes its own clients'
/// credentials before it hands a request on. TRACE and CONNECT never get the token (RFC 9110 §9.3.8, §9.3.6).
///
/// *Redirects:* a client that follows them does so below this layer. `reqwest` leaves `Authorization` behind when the origin
/// changes, and what the other origin answers, even an allowed one, says nothing about the token here. A redirect that leaves
/// the origin and comes back looks like one that never left, and its answer is taken for a verdict. See
/// [`header`](Self::header) for other headers. `tower_http::follow_redirect` goes around this layer, not into it: each hop is
/// then judged anew and gets the token of its own; inside, the layer would see the last answer only and not whose it is.
///
/// *Proxies:* a client may send its requests through one, also below this layer. `reqwest` takes them from the environment, for
/// loopback, too: plain http, with its token, then leaves the machine. For a loopback origin use `no_proxy()`.
///
/// Without a servable token a request waits as [`MonitoredTokenSource::token`] does, and holds no readiness of the inner
/// service meanwhile. If there is none to be had the error is [`LayerError::Auth`], and nothing was sent.
///
/// # What a response means
///
/// | response | consequence |
/// |---|---|
/// | 2xx | [`accept`](MonitoredTokenSource::accept) |
/// | 401 | [`reject`](MonitoredTokenSource::reject) with the challenge that says most |
/// | gRPC: 200 whose headers carry `grpc-status: 16` (trailers-only) | as a 401 |
/// | gRPC: 200 whose status comes in trailers | accepted: a service refuses a token before it begins to answer |
/// | whatever [`rejected_when`](Self::rejected_when) says | as a 401 |
/// | anything else, such as 403, 407, 429, 500 | none |
///
/// However many requests are refused with one token, at most one refresh follows. The extensions of a refused response hold
/// the [`Generation`](crate::Generation) of its token, and the [`Challenge`](crate::Challenge) if there was one.
///
/// # Replays
///
/// By default a request is sent once: its refusal helps the next one. [`replay_once`](Self::replay_once) and its sisters keep
/// a copy and send it again: once with a newer token, and once after the token has settled, if it was too fresh to be known
/// everywhere (see [`RefreshPolicy::settle`](crate::RefreshPolicy::settle)). That makes two replays at most, and one in
/// nearly all cases. Where no better token can be had, the caller gets the refused response as it came, body and all; where
/// the replay itself fails on its way, its error.
///
/// A replay goes out with the token there is by then: after [`reauthenticate`](MonitoredTokenSource::reauthenticate) with that
/// of the new account, though it was the old one's that was refused. Requests that belong to one account want a handle of their own.
///
/// What is left of the refused response's body is read before the replay, so that the connection can be used again; one that
/// is longer than 64 KiB or takes longer than a second is dropped, with its connection. Waiting needs a tokio runtime with
/// `enable_time`; outside any runtime nothing is sent again.
///
/// # Cost
///
/// With a valid token no allocation, no lock and no boxed future: the header map's own growth is all. A copy for a replay
/// costs what cloning the request costs, two allocations for a typical head.
#[derive(Clone)]
pub struct AuthLayer<P = SendOnce> {
    settings: Arc<Settings>,
    replay: P,
}

impl AuthLayer {
    /// A layer that attaches the tokens of this handle to requests for this origin, and to no others. The origin is a text
    /// such as `"https://api.github.com"`, a [`Uri`](http::Uri) or an [`Origin`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), steadfast::BoxError> {
    /// # use steadfast::{MonitoredTokenSource, StaticToken};
    /// use steadfast::{AuthLayer, OriginError};
    ///
    /// let tokens = MonitoredTokenSource::builder(StaticToken::new("s3cret")).spawn()?;
    /// let layer = AuthLayer::new(tokens.clone(), "https://api.github.com")?.allow_origin("https://uploads.github.com")?;
    /// assert!(!format!("{layer:?}").contains("s3cret"));
    /// assert_eq!(AuthLayer::new(tokens, "http://api.github.com").unwrap_err(), OriginError::Cleartext);
    /// # Ok(()) }
    /// ```
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

    /// The inner service can reach nothing but an allowed origin: a request whose URL names no host (origin-form, RFC 9112
    /// §3.2.1) gets the token too. One that names another origin still does not.
    ///
    /// For a tonic channel, whose requests get their host below the layer, and for a bare connection. A `Host` header
    /// plays no part: whoever says this vouches for the connection, and thus for all that the server at its end is.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), steadfast::BoxError> {
    /// # use steadfast::{AuthLayer, MonitoredTokenSource, StaticToken};
    /// use http::{Request, Response};
    ///
    /// # let tokens = MonitoredTokenSource::builder(StaticToken::new("s3cret")).spawn()?;
    /// let channel = tower::service_fn(|request: Request<()>| async move {
    ///     Ok::<_, steadfast::BoxError>(Response::new(request.headers().contains_key("authorization")))
    /// });
    /// let layer = AuthLayer::new(tokens, "https://grpc.example.com")?.inner_is_bound_to_origin();
    /// let response = layer.wrap(channel).send(Request::post("/pkg.Service/Method").body(())?).await?;
    /// assert!(response.into_body());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn inner_is_bound_to_origin(self) -> Self {
        self.set(|settings| settings.inner_is_bound = true)
    }

    /// What else counts as a 401, for servers that say it in another way. It is asked for each response to a request that
    /// carried the token, 2xx included. Defaults to nothing else.
    ///
    /// Together with a replay this may repeat a request that was carried out: that a 401 has done nothing is known, what else
    /// is named here is the host's to vouch for.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), steadfast::BoxError> {
    /// # use steadfast::{AuthLayer, Generation, MonitoredTokenSource, StaticToken};
    /// use http::{Request, Response, StatusCode};
    ///
    /// # let tokens = MonitoredTokenSource::builder(StaticToken::new("s3cret")).spawn()?;
    /// let api = tower::service_fn(|_: Request<()>| async {
    ///     Response::builder().status(400).header("x-error-code", "token_expired").body(())
    /// });
    /// let expired = |status: StatusCode, headers: &http::HeaderMap| {
    ///     status == 400 && headers.get("x-error-code").is_some_and(|code| code == "token_expired")
    /// };
    /// let client = AuthLayer::new(tokens, "https://api.example.com")?.rejected_when(expired).wrap(api);
    /// let response = client.send(Request::get("https://api.example.com/").body(())?).await?;
    /// assert!(response.extensions().get::<Generation>().is_some());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn rejected_when(self, refused: impl Fn(StatusCode, &HeaderMap) -> bool + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.rejected_when = Some(Arc::new(refused)))
    }

    /// Puts the [`Generation`](crate::Generation) of its token into the extensions of each response, not only of the refused.
    /// Costs three allocations for each. For hosts that find out later, from the body, what became of the token, and call
    /// [`reject`](MonitoredTokenSource::reject) themselves.
    #[must_use]
    pub fn tag_responses(self) -> Self {
        self.set(|settings| settings.tag_responses = true)
    }

    /// The header that carries the token, as `Bearer` and the secret. Defaults to `Authorization`.
    ///
    /// **With another header, turn off the following of redirects in the client.** `reqwest` and `tower-http` know that
    /// `Authorization` must not go to another origin; a header of another name they take along.
    #[must_use]
    pub fn header(self, name: HeaderName) -> Self {
        self.set(|settings| settings.header = name)
    }

    /// Sends a refused request again: each whose body can be cloned (`B: Clone`; `reqwest` knows by itself).
    ///
    /// A server that answers 401 has not acted on the request (RFC 9110 §15.5.2), so this is safe for any method as far as the
    /// server keeps to that. With [`rejected_when`](Self::rejected_when) it is safe only if what that calls a refusal has not
    /// acted either. A request that cannot be cloned is sent once.
    #[must_use]
    pub fn replay_once(self) -> AuthLayer<ReplayOnce> {
        AuthLayer { settings: self.settings, replay: ReplayOnce::default() }
    }

    /// Sends a refused request again if its method is idempotent (RFC 9110 §9.2.2) and it has no body. For proxies, which know
    /// little of the server and have streaming bodies: `B` need not be `Clone`, only `Body + Default`.
    ///
    /// A `reqwest::Request` may have a body, if it is one that can be cloned.
    #[must_use]
    pub fn replay_idempotent_once(self) -> AuthLayer<ReplayIdempotentOnce> {
        AuthLayer { settings: self.settings, replay: ReplayIdempotentOnce::default() }
    }

    /// Sends a refused request again if this function (`Fn(&Req) -> Option<Req>`) has made a copy of it. It is called before
    /// the request is sent, and sees no token.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), steadfast::BoxError> {
    /// # use steadfast::{AuthLayer, MonitoredTokenSource, StaticToken};
    /// use http::{Request, Response};
    ///
    /// # let tokens = MonitoredTokenSource::builder(StaticToken::new("s3cret")).spawn()?;
    /// let api = tower::service_fn(|request: Request<String>| async { Ok::<_, http::Error>(Response::new(request.into_body())) });
    /// let short = |request: &Request<String>| (request.body().len() < 1_000_000).then(|| request.clone());
    /// let client = AuthLayer::new(tokens, "https://api.example.com")?.replay_with(short).wrap(api);
    /// let response = client.send(Request::post("https://api.example.com/").body("text".to_owned())?).await?;
    /// assert_eq!(response.body(), "text");
    /// # Ok(()) }
    /// ```
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
    /// The service inside, to make a request with for example. What is sent through it carries no token.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The source of the tokens, for its status for example.
    #[must_use]
    pub fn tokens(&self) -> &MonitoredTokenSource {
        &self.settings.tokens
    }

    /// Sends one request: waits for the service to be ready and calls it, on a clone. For hosts without tower.
    ///
    /// Cancel safe: dropping the future ends the request, and never cancels a refresh.
    ///
    /// # Errors
    /// [`LayerError::Auth`] if there is no token to be had, [`LayerError::Inner`] if the inner service fails. A refusal is a
    /// response, not an error.
    ///
    /// # Panics
    /// In a tokio runtime that was built without `enable_time`, when it has to wait: for a token, as
    /// [`MonitoredTokenSource::token`] does, or before a replay.
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
            service.call(request).await
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
        let Some(destination) = settings.destination(&mut request) else {
            return ResponseFuture::untouched(settings, replay, ready, request);
        };
        match settings.tokens.servable() {
            Some(token) => {
                let mut exchange = Exchange::new(settings, replay, destination);
                let copy = exchange.attach(&mut request, token);
                ResponseFuture::sending(exchange.send(ready, request, copy), exchange)
            }
            None => {
                // What is ready is given back: while this request waits, others may need it to get on.
                drop(ready);
                ResponseFuture::waiting(settings, replay, destination, self.inner.clone(), request)
            }
        }
    }
}

impl<S, P> fmt::Debug for Auth<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.show(f, "Auth")
    }
}
