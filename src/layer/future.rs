//! One request's way through the layer.

use std::{
    fmt,
    future::Future,
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::{runtime::Handle, time::sleep};
use tower_service::Service;

use super::{
    LayerError, Replay,
    message::{RequestMessage, ResponseMessage},
    settings::{Destination, Settings},
};
use crate::{
    AccessToken, AuthError, BoxError, Challenge, Generation, Rejection,
    monitor::rejection::Say,
    telemetry::{LAYER, seconds},
};

pin_project! {
    /// The future of [`Auth`](super::Auth): the response, after a replay where one was due.
    ///
    /// Cancel safe: dropping it gives back all it holds of the inner service, and never cancels a refresh.
    ///
    /// # Panics
    /// When it is polled again after its result; in a tokio runtime that was built without `enable_time`, when it has to wait
    /// for a token or before a replay.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, P, Req>
    where
        S: Service<Req>,
        P: Replay<Req, S::Response>,
    {
        #[pin]
        state: State<S::Future, Pause<S, Req, S::Response, P::Drain>>,
        exchange: Exchange<P, P::Spare<S>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, P> {
        Sending {
            #[pin]
            response: F,
        },
        // Boxed, so that the future of the path that is taken every time stays small. Empty once there was a result.
        Paused { pause: Option<Box<P>> },
    }
}

/// A request that cannot go out yet, for the first time or again. While it waits for a token it holds no readiness of the
/// inner service, which others may need to get on: `service` has not been polled since it was cloned or called.
struct Pause<S, Req, Res, D> {
    service: S,
    request: Req,
    until: Until<Res, D>,
}

enum Until<Res, D> {
    /// There is a token. If there is none to be had, the refused response is all there is to return.
    Token { token: Waiting, refused: Option<Res> },
    /// The refused response has made way for the replay.
    Drained { drain: D, token: AccessToken },
    /// The service is ready.
    Ready { token: AccessToken },
}

type Waiting = Pin<Box<dyn Future<Output = Result<AccessToken, AuthError>> + Send>>;

/// What accompanies a request, whatever it waits for.
pub(super) struct Exchange<P, Spare> {
    settings: Arc<Settings>,
    replay: P,
    /// The token that the request carries; none where it carries none of ours.
    token: Option<AccessToken>,
    destination: Destination,
    /// What a replay needs, if the request may be sent again.
    spare: Option<Spare>,
    /// It has been sent again with another token.
    renewed: bool,
    /// It has been sent again after the token had settled.
    settled: bool,
}

impl<S, P, Req> ResponseFuture<S, P, Req>
where
    S: Service<Req>,
    Req: RequestMessage,
    P: Replay<Req, S::Response>,
{
    /// The request does not concern us: it goes out as it is.
    pub(super) fn untouched(settings: Arc<Settings>, replay: P, mut ready: S, request: Req) -> Self {
        let response = ready.call(request);
        Self { state: State::Sending { response }, exchange: Exchange::new(settings, replay, Destination::Unnamed) }
    }

    pub(super) const fn sending(response: S::Future, exchange: Exchange<P, P::Spare<S>>) -> Self {
        Self { state: State::Sending { response }, exchange }
    }

    pub(super) fn waiting(
        settings: Arc<Settings>,
        replay: P,
        destination: Destination,
        unpolled: S,
        request: Req,
    ) -> Self {
        let tokens = settings.tokens.clone();
        let token: Waiting = Box::pin(async move { tokens.token().await });
        let pause = Pause { service: unpolled, request, until: Until::Token { token, refused: None } };
        let exchange = Exchange::new(settings, replay, destination);
        Self { state: State::Paused { pause: Some(Box::new(pause)) }, exchange }
    }
}

impl<S, P, Req> Future for ResponseFuture<S, P, Req>
where
    S: Service<Req, Response: ResponseMessage, Error: Into<BoxError>>,
    Req: RequestMessage,
    P: Replay<Req, S::Response>,
{
    type Output = Result<S::Response, LayerError>;

    #[expect(clippy::panic, reason = "the contract of futures: they are not polled after their result")]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Sending { response } => {
                    let response = ready!(response.poll(context)).map_err(LayerError::inner_of)?;
                    match this.exchange.answered(response) {
                        ControlFlow::Break(response) => return Poll::Ready(Ok(response)),
                        ControlFlow::Continue(pause) => State::Paused { pause: Some(Box::new(pause)) },
                    }
                }
                StateProj::Paused { pause } => {
                    let Some(mut waiting) = pause.take() else { panic!("`ResponseFuture` polled after its result") };
                    match waiting.poll::<P>(context) {
                        Poll::Pending => {
                            *pause = Some(waiting);
                            return Poll::Pending;
                        }
                        Poll::Ready(ControlFlow::Break(result)) => {
                            if let Err(LayerError::Auth(error)) = &result {
                                let workload = this.exchange.settings.tokens.name();
                                let (error, retry_after) = (error.name(), error.retry_after().map(seconds));
                                tracing::debug!(target: LAYER, workload, error, retry_after, "a request got no token");
                            }
                            return Poll::Ready(result);
                        }
                        Poll::Ready(ControlFlow::Continue(token)) => {
                            let Pause { service, mut request, until: _ } = *waiting;
                            let copy = this.exchange.attach(&mut request, token);
                            State::Sending { response: this.exchange.send(service, request, copy) }
                        }
                    }
                }
            };
            // Drops what has been waited for before the next step: a permit in it may be the one the replay needs.
            this.state.set(next);
        }
    }
}

impl<S, Req, Res, D> Pause<S, Req, Res, D>
where
    D: Future<Output = ()> + Unpin,
{
    /// The token to send the request with, or the result if it is not to be sent.
    fn poll<P>(&mut self, context: &mut Context<'_>) -> Poll<ControlFlow<Result<Res, LayerError>, AccessToken>>
    where
        S: Service<Req, Response = Res, Error: Into<BoxError>>,
        P: Replay<Req, Res, Drain = D>,
    {
        loop {
            self.until = match &mut self.until {
                Until::Token { token, refused } => match (ready!(token.as_mut().poll(context)), refused.take()) {
                    (Ok(token), Some(refused)) => Until::Drained { drain: P::drain(refused), token },
                    (Ok(token), None) => Until::Ready { token },
                    (Err(_), Some(refused)) => return Poll::Ready(ControlFlow::Break(Ok(refused))),
                    (Err(error), None) => return Poll::Ready(ControlFlow::Break(Err(LayerError::Auth(error)))),
                },
                Until::Drained { drain, token } => {
                    ready!(Pin::new(drain).poll(context));
                    Until::Ready { token: token.clone() }
                }
                Until::Ready { token } => {
                    return Poll::Ready(match ready!(self.service.poll_ready(context)) {
                        Ok(()) => ControlFlow::Continue(token.clone()),
                        Err(error) => ControlFlow::Break(Err(LayerError::inner_of(error))),
                    });
                }
            };
        }
    }
}

impl<P, Spare> Exchange<P, Spare> {
    pub(super) const fn new(settings: Arc<Settings>, replay: P, destination: Destination) -> Self {
        Self { settings, replay, token: None, destination, spare: None, renewed: false, settled: false }
    }

    /// Attaches the token, and keeps a copy that holds none if the request may be sent again.
    #[inline]
    pub(super) fn attach<Req, Res>(&mut self, request: &mut Req, token: AccessToken) -> Option<P::Copy>
    where
        Req: RequestMessage,
        P: Replay<Req, Res>,
    {
        let may_be_resent = !(self.renewed && self.settled);
        let copy = if may_be_resent { self.replay.copy(request) } else { None };
        self.settings.attach(request, &token);
        self.token = Some(token);
        copy
    }

    /// Apart from [`attach`](Self::attach), and inlined: moving a request once more costs as much as attaching to it.
    #[inline]
    pub(super) fn send<S, Req>(&mut self, mut ready: S, request: Req, copy: Option<P::Copy>) -> S::Future
    where
        S: Service<Req>,
        P: Replay<Req, S::Response, Spare<S> = Spare>,
    {
        let response = ready.call(request);
        self.spare = copy.map(|copy| P::keep(copy, ready));
        response
    }

    /// Says what the response means, and whether it is the one to return.
    fn answered<S, Req, Res>(&mut self, mut response: Res) -> ControlFlow<Res, Pause<S, Req, Res, P::Drain>>
    where
        Res: ResponseMessage,
        P: Replay<Req, Res, Spare<S> = Spare>,
    {
        let Some(token) = &self.token else { return ControlFlow::Break(response) };
        let (generation, tokens) = (token.generation(), &self.settings.tokens);
        match self.settings.say(self.destination, &response) {
            Say::Refused => {}
            said @ (Say::Accepted | Say::Nothing) => {
                if said == Say::Accepted && !token.is_accepted() {
                    tokens.accept(generation);
                }
                if self.settings.tag_responses {
                    response.extensions_mut().insert(generation);
                }
                return ControlFlow::Break(response);
            }
        }
        let challenge = Challenge::most_telling(response.headers());
        let rejection = tokens.reject(generation, challenge.as_ref());
        response.extensions_mut().insert(generation);
        if let Some(challenge) = challenge {
            response.extensions_mut().insert(challenge);
        }
        let spare = self.spare.take();
        let again = spare.and_then(|spare| Some((spare, self.next_token(rejection, generation)?)));
        let workload = self.settings.tokens.name();
        let (rejection, generation) = (rejection.name(), generation.get());
        let Some((spare, token)) = again else {
            tracing::debug!(target: LAYER, workload, generation, rejection, "a request was refused");
            return ControlFlow::Break(response);
        };
        tracing::debug!(target: LAYER, workload, generation, rejection, "a request was refused and will be sent again");
        let (request, service) = P::take(spare);
        ControlFlow::Continue(Pause { service, request, until: Until::Token { token, refused: Some(response) } })
    }

    /// The token to send the request again with, if it is to be sent again.
    fn next_token(&mut self, rejection: Rejection, generation: Generation) -> Option<Waiting> {
        let tokens = self.settings.tokens.clone();
        match rejection {
            Rejection::Superseded | Rejection::Refreshing if !self.renewed => {
                self.renewed = true;
                Some(Box::pin(async move { tokens.token_after(generation).await }))
            }
            // Outside a runtime nobody can wait.
            Rejection::Settling(wait) if !self.settled && Handle::try_current().is_ok() => {
                self.settled = true;
                Some(Box::pin(async move {
                    sleep(wait).await;
                    // Meanwhile a neighbour's verdict may have withdrawn the token: then the next is on its way.
                    tokens.token().await
                }))
            }
            Rejection::Superseded
            | Rejection::Refreshing
            | Rejection::Settling(_)
            | Rejection::PassThrough
            | Rejection::HandToHost => None,
        }
    }
}

impl<S, P, Req> fmt::Debug for ResponseFuture<S, P, Req>
where
    S: Service<Req>,
    P: Replay<Req, S::Response>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("token", &self.exchange.token).finish_non_exhaustive()
    }
}
