//! Why there is no response.

use crate::{AuthError, BoxError};

/// Why there is no response.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), steadfast::BoxError> {
/// # use steadfast::{AuthLayer, LayerError, MonitoredTokenSource, StaticToken};
/// use http::{Request, Response, StatusCode};
///
/// # let tokens = MonitoredTokenSource::builder(StaticToken::new("s3cret")).spawn()?;
/// # let api = tower::service_fn(|_: Request<()>| async { Ok::<_, http::Error>(Response::new(())) });
/// let client = AuthLayer::new(tokens.clone(), "https://api.example.com")?.wrap(api);
/// tokens.shutdown().await;
/// let answer = match client.send(Request::get("https://api.example.com/").body(())?).await {
///     Ok(_) => StatusCode::OK,
///     Err(LayerError::Auth(error)) => error.to_response().status(),
///     Err(LayerError::Inner(_)) => StatusCode::BAD_GATEWAY,
/// };
/// assert_eq!(answer, StatusCode::SERVICE_UNAVAILABLE);
/// # Ok(()) }
/// ```
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

    pub(super) fn inner_of(error: impl Into<BoxError>) -> Self {
        Self::Inner(error.into())
    }
}
