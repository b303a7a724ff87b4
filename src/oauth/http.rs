//! The one thing a grant needs from an HTTP client.

use std::{error::Error, fmt, future::Future, sync::Arc};

use async_trait::async_trait;

use crate::{BoxError, Delivery};

/// One HTTP exchange with the token endpoint: the seam for a host's own HTTP client.
///
/// An implementation never follows a redirect (it would carry the refresh token to a place nobody named), never retries
/// (a refresh token is single-use, RFC 9700 §4.14), and should keep no idle connections: a dead pooled one is the
/// commonest way to lose an answer. Bodies over 1 MiB are no token answers; give such an answer an empty body. The
/// request holds secrets in its body: do not log it.
///
/// Dropping the future must end the exchange. Closures are clients too:
///
/// ```
/// use http::{Request, Response};
/// use steadfast::oauth::{TokenHttp, TransportError};
///
/// fn takes_a_client(_: impl TokenHttp) {}
/// takes_a_client(|_: Request<Vec<u8>>| async { Err(TransportError::not_sent("the cable is out")) });
/// ```
#[async_trait]
pub trait TokenHttp: Send + Sync + 'static {
    /// Sends the request and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// A [`TransportError`], which says whether the server can have seen the request.
    async fn send(&self, request: http::Request<Vec<u8>>) -> Result<http::Response<Vec<u8>>, TransportError>;
}

#[async_trait]
impl<F, Fut> TokenHttp for F
where
    F: Fn(http::Request<Vec<u8>>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<http::Response<Vec<u8>>, TransportError>> + Send,
{
    async fn send(&self, request: http::Request<Vec<u8>>) -> Result<http::Response<Vec<u8>>, TransportError> {
        self(request).await
    }
}

#[async_trait]
impl<T: TokenHttp + ?Sized> TokenHttp for Arc<T> {
    async fn send(&self, request: http::Request<Vec<u8>>) -> Result<http::Response<Vec<u8>>, TransportError> {
        (**self).send(request).await
    }
}

/// Why no whole answer came back, and how far the request got.
///
/// ```
/// use steadfast::{Delivery, oauth::TransportError};
///
/// assert_eq!(TransportError::not_sent("connection refused").delivery(), Delivery::NotSent);
/// assert_eq!(TransportError::unknown("connection reset").delivery(), Delivery::Unknown);
/// ```
#[derive(Debug)]
pub struct TransportError {
    delivery: Delivery,
    cause: BoxError,
}

impl TransportError {
    /// The server cannot have seen the request: DNS, connection refused or unreachable, TLS, certificate,
    /// HTTP/2 `REFUSED_STREAM`. The cause must hold no secret.
    pub fn not_sent(cause: impl Into<BoxError>) -> Self {
        Self { delivery: Delivery::NotSent, cause: cause.into() }
    }

    /// The server may have acted on the request: everything that goes wrong after the first byte was written. The cause
    /// must hold no secret.
    pub fn unknown(cause: impl Into<BoxError>) -> Self {
        Self { delivery: Delivery::Unknown, cause: cause.into() }
    }

    /// How far the request got; never [`Delivery::Answered`].
    #[must_use]
    pub const fn delivery(&self) -> Delivery {
        self.delivery
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.delivery {
            Delivery::NotSent => "the request was not sent",
            Delivery::Answered | Delivery::Unknown => "the exchange broke off",
        })
    }
}

impl Error for TransportError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.cause)
    }
}

/// The longest body that is looked at. Token answers are a few KiB, even with a JWT for each scope.
pub(super) const MAX_BODY: usize = 1024 * 1024;
