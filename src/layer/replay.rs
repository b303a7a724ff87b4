//! Which requests are sent again after a refusal.

use std::{
    convert::Infallible,
    fmt,
    future::{Future, Ready, ready},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Buf;
use http::Request;
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::{
    runtime::Handle,
    time::{Sleep, sleep},
};

use super::message::ResponseMessage;

/// Which requests an [`AuthLayer`](super::AuthLayer) sends again after a refusal, and how it gets hold of a second copy.
///
/// Chosen with the methods of the layer. Sealed: this crate may ask more of a policy in the future.
pub trait Replay<Req, Res>: sealed::Policy<Req, Res> {}

impl<T: sealed::Policy<Req, Res>, Req, Res> Replay<Req, Res> for T {}

pub(super) mod sealed {
    use super::Future;

    pub trait Policy<Req, Res>: Clone {
        /// A copy of a request.
        type Copy;
        /// What is kept while the request is under way: the copy, and the service to send it with. Uninhabited where none
        /// is ever kept, so that it takes no room.
        type Spare<S>;
        type Drain: Future<Output = ()> + Unpin;

        fn copy(&self, request: &Req) -> Option<Self::Copy>;
        fn keep<S>(copy: Self::Copy, service: S) -> Self::Spare<S>;
        fn take<S>(spare: Self::Spare<S>) -> (Req, S);
        /// Gets rid of a refused response so that its connection can be used again.
        fn drain(refused: Res) -> Self::Drain;
    }
}

/// Each request is sent once. The refusal still makes the handle fetch a new token, for the requests that follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendOnce(());

/// See [`AuthLayer::replay_once`](super::AuthLayer::replay_once).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayOnce(());

/// See [`AuthLayer::replay_idempotent_once`](super::AuthLayer::replay_idempotent_once).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayIdempotentOnce(());

/// See [`AuthLayer::replay_with`](super::AuthLayer::replay_with).
#[derive(Clone, Copy)]
pub struct ReplayWith<F> {
    clone: F,
}

impl<F> ReplayWith<F> {
    pub(super) const fn new(clone: F) -> Self {
        Self { clone }
    }
}

impl<F> fmt::Debug for ReplayWith<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplayWith")
    }
}

impl<Req, Res> sealed::Policy<Req, Res> for SendOnce {
    type Copy = Infallible;
    type Spare<S> = Infallible;
    type Drain = Ready<()>;

    fn copy(&self, _: &Req) -> Option<Infallible> {
        None
    }

    fn keep<S>(copy: Infallible, _: S) -> Infallible {
        copy
    }

    fn take<S>(spare: Infallible) -> (Req, S) {
        match spare {}
    }

    fn drain(_: Res) -> Ready<()> {
        ready(())
    }
}

impl<B, Res> sealed::Policy<Request<B>, Res> for ReplayOnce
where
    B: Clone,
    Res: ResponseMessage<Body: Body>,
{
    type Copy = Request<B>;
    type Spare<S> = (Request<B>, S);
    type Drain = Drain<Res::Body>;

    fn copy(&self, request: &Request<B>) -> Option<Request<B>> {
        Some(request.clone())
    }

    fn keep<S>(copy: Request<B>, service: S) -> (Request<B>, S) {
        (copy, service)
    }

    fn take<S>(spare: (Request<B>, S)) -> (Request<B>, S) {
        spare
    }

    fn drain(refused: Res) -> Drain<Res::Body> {
        Drain::of(refused.into_body())
    }
}

impl<B, Res> sealed::Policy<Request<B>, Res> for ReplayIdempotentOnce
where
    B: Body + Default,
    Res: ResponseMessage<Body: Body>,
{
    type Copy = Request<()>;
    type Spare<S> = (Request<()>, S);
    type Drain = Drain<Res::Body>;

    fn copy(&self, request: &Request<B>) -> Option<Request<()>> {
        if !request.method().is_idempotent() || !request.body().is_end_stream() {
            return None;
        }
        let mut head = Request::new(());
        head.method_mut().clone_from(request.method());
        head.uri_mut().clone_from(request.uri());
        *head.version_mut() = request.version();
        head.headers_mut().clone_from(request.headers());
        head.extensions_mut().clone_from(request.extensions());
        Some(head)
    }

    fn keep<S>(copy: Request<()>, service: S) -> (Request<()>, S) {
        (copy, service)
    }

    fn take<S>((head, service): (Request<()>, S)) -> (Request<B>, S) {
        (head.map(|()| B::default()), service)
    }

    fn drain(refused: Res) -> Drain<Res::Body> {
        Drain::of(refused.into_body())
    }
}

impl<F, Req, Res> sealed::Policy<Req, Res> for ReplayWith<F>
where
    F: Fn(&Req) -> Option<Req> + Clone,
    Res: ResponseMessage<Body: Body>,
{
    type Copy = Req;
    type Spare<S> = (Req, S);
    type Drain = Drain<Res::Body>;

    fn copy(&self, request: &Req) -> Option<Req> {
        (self.clone)(request)
    }

    fn keep<S>(copy: Req, service: S) -> (Req, S) {
        (copy, service)
    }

    fn take<S>(spare: (Req, S)) -> (Req, S) {
        spare
    }

    fn drain(refused: Res) -> Drain<Res::Body> {
        Drain::of(refused.into_body())
    }
}

#[cfg(feature = "reqwest")]
impl sealed::Policy<reqwest::Request, reqwest::Response> for ReplayOnce {
    type Copy = reqwest::Request;
    type Spare<S> = (reqwest::Request, S);
    type Drain = Drain<reqwest::Body>;

    fn copy(&self, request: &reqwest::Request) -> Option<reqwest::Request> {
        request.try_clone()
    }

    fn keep<S>(copy: reqwest::Request, service: S) -> (reqwest::Request, S) {
        (copy, service)
    }

    fn take<S>(spare: (reqwest::Request, S)) -> (reqwest::Request, S) {
        spare
    }

    fn drain(refused: reqwest::Response) -> Drain<reqwest::Body> {
        Drain::of(refused.into())
    }
}

#[cfg(feature = "reqwest")]
impl sealed::Policy<reqwest::Request, reqwest::Response> for ReplayIdempotentOnce {
    type Copy = reqwest::Request;
    type Spare<S> = (reqwest::Request, S);
    type Drain = Drain<reqwest::Body>;

    fn copy(&self, request: &reqwest::Request) -> Option<reqwest::Request> {
        if request.method().is_idempotent() { request.try_clone() } else { None }
    }

    fn keep<S>(copy: reqwest::Request, service: S) -> (reqwest::Request, S) {
        (copy, service)
    }

    fn take<S>(spare: (reqwest::Request, S)) -> (reqwest::Request, S) {
        spare
    }

    fn drain(refused: reqwest::Response) -> Drain<reqwest::Body> {
        Drain::of(refused.into())
    }
}

/// Reads what is left of a refused response, so that its connection can carry the replay. Gives up, and lets the
/// connection go, on a body that is long, slow or broken.
#[derive(Debug)]
pub struct Drain<B>(Option<Pin<Box<Draining<B>>>>);

pin_project! {
    #[derive(Debug)]
    struct Draining<B> {
        #[pin]
        body: B,
        #[pin]
        patience: Sleep,
        left: u64,
    }
}

impl<B: Body> Drain<B> {
    fn of(body: B) -> Self {
        let worth_it = body.size_hint().lower() <= MOST_DRAINED && !body.is_end_stream();
        let patience = (worth_it && Handle::try_current().is_ok()).then(|| sleep(PATIENCE));
        Self(patience.map(|patience| Box::pin(Draining { body, patience, left: MOST_DRAINED })))
    }
}

impl<B: Body> Future for Drain<B> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(draining) = &mut self.0 else { return Poll::Ready(()) };
        loop {
            let mut this = draining.as_mut().project();
            if this.patience.as_mut().poll(context).is_ready() {
                break;
            }
            match ready!(this.body.as_mut().poll_frame(context)) {
                Some(Ok(frame)) => {
                    let length = frame.data_ref().map_or(0, |data| u64::try_from(data.remaining()).unwrap_or(u64::MAX));
                    // An empty frame counts too, or a body of nothing else would never end.
                    match this.left.checked_sub(length.max(1)) {
                        Some(left) => *this.left = left,
                        None => break,
                    }
                }
                Some(Err(_)) | None => break,
            }
        }
        self.0 = None;
        Poll::Ready(())
    }
}

const MOST_DRAINED: u64 = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(1);
