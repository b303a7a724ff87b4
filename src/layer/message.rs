//! What the layer needs of requests and responses, whichever client they belong to.

use http::{Extensions, HeaderMap, Method, StatusCode};

use crate::origin::Target;

/// A request that a token can be attached to: `http::Request<B>` with any body, and `reqwest::Request`.
///
/// Sealed: this crate may ask more of requests in the future.
pub trait RequestMessage: sealed::Request {}

/// A response that can say something about a token: `http::Response<B>` with any body, and `reqwest::Response`.
///
/// Sealed: this crate may ask more of responses in the future.
pub trait ResponseMessage: sealed::Response {}

impl<T: sealed::Request> RequestMessage for T {}
impl<T: sealed::Response> ResponseMessage for T {}

pub(super) mod sealed {
    use super::{Extensions, HeaderMap, Method, StatusCode, Target};

    pub trait Request {
        fn method(&self) -> &Method;
        fn target(&self) -> Target<'_>;
        fn headers(&self) -> &HeaderMap;
        fn headers_mut(&mut self) -> &mut HeaderMap;
    }

    pub trait Response {
        type Body;

        fn status(&self) -> StatusCode;
        fn headers(&self) -> &HeaderMap;
        fn extensions_mut(&mut self) -> &mut Extensions;
        /// Where it comes from in the end, if the client follows redirects and says so.
        fn came_from(&self) -> Option<Target<'_>>;
        fn into_body(self) -> Self::Body;
    }
}

impl<B> sealed::Request for http::Request<B> {
    fn method(&self) -> &Method {
        self.method()
    }

    fn target(&self) -> Target<'_> {
        Target::of(self.uri())
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }
}

impl<B> sealed::Response for http::Response<B> {
    type Body = B;

    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn extensions_mut(&mut self) -> &mut Extensions {
        self.extensions_mut()
    }

    fn came_from(&self) -> Option<Target<'_>> {
        None
    }

    fn into_body(self) -> B {
        self.into_body()
    }
}

#[cfg(feature = "reqwest")]
impl sealed::Request for reqwest::Request {
    fn method(&self) -> &Method {
        self.method()
    }

    fn target(&self) -> Target<'_> {
        Target::of_url(self.url())
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }
}

#[cfg(feature = "reqwest")]
impl sealed::Response for reqwest::Response {
    type Body = reqwest::Body;

    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn extensions_mut(&mut self) -> &mut Extensions {
        self.extensions_mut()
    }

    fn came_from(&self) -> Option<Target<'_>> {
        Some(Target::of_url(self.url()))
    }

    fn into_body(self) -> reqwest::Body {
        self.into()
    }
}
