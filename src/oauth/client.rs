//! The ready-made client: reqwest, with everything turned off that could spend a refresh token twice.

use std::{error::Error, fmt, mem, time::Duration};

use async_trait::async_trait;

use super::http::{MAX_BODY, TokenHttp, TransportError};

/// A [`TokenHttp`] on `reqwest`, for one endpoint or many; cheap to clone.
///
/// Follows no redirect, retries nothing, keeps no idle connection, asks for no compression, speaks HTTP/1.1, and reads
/// at most 1 MiB of an answer. Its connect timeout is ten seconds; the limit for a whole exchange is the monitor's
/// ([`RefreshPolicy::attempt_timeout`](crate::RefreshPolicy::attempt_timeout)).
///
/// A grant without [`http`](super::GrantBuilder::http) makes one for itself. Share one between grants to load the
/// system's certificates once:
///
/// ```
/// use steadfast::oauth::{ClientCredentialsGrant, ReqwestHttp};
///
/// let http = ReqwestHttp::new().expect("the system has certificates");
/// let grants = ["billing", "search"].map(|client_id| {
///     ClientCredentialsGrant::builder("https://login.example.com/token", client_id)
///         .client_secret("s3cret")
///         .http(http.clone())
///         .build()
/// });
/// assert!(grants.iter().all(Result::is_ok));
/// ```
#[derive(Clone)]
pub struct ReqwestHttp(reqwest::Client);

impl ReqwestHttp {
    /// A client with the defaults above, and the proxies that the environment names.
    ///
    /// # Errors
    /// The TLS stack cannot be set up; usually the system has no CA certificates.
    pub fn new() -> Result<Self, HttpSetupError> {
        Self::from_builder(defaults())
    }

    /// A client with a host's own proxies, CA certificates or client certificate (RFC 8705). The rules that protect a
    /// refresh token (redirects, retries, idle connections, compression) are set over whatever the builder says.
    ///
    /// ```
    /// use steadfast::oauth::ReqwestHttp;
    ///
    /// let http = ReqwestHttp::from_builder(reqwest::Client::builder().no_proxy());
    /// assert!(http.is_ok());
    /// ```
    ///
    /// # Errors
    /// The builder's settings do not make a client.
    pub fn from_builder(builder: reqwest::ClientBuilder) -> Result<Self, HttpSetupError> {
        builder
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(0)
            .http1_only()
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .build()
            .map(Self)
            .map_err(|error| HttpSetupError(error.without_url()))
    }

    /// For an endpoint on this machine: plain http must not leave it, and through a proxy from the environment it would.
    pub(super) fn loopback() -> Result<Self, HttpSetupError> {
        Self::from_builder(defaults().no_proxy())
    }
}

impl fmt::Debug for ReqwestHttp {
    // reqwest's own prints the default headers, where a host may keep secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReqwestHttp")
    }
}

#[async_trait]
impl TokenHttp for ReqwestHttp {
    async fn send(&self, request: http::Request<Vec<u8>>) -> Result<http::Response<Vec<u8>>, TransportError> {
        let request = reqwest::Request::try_from(request).map_err(broken)?;
        let mut answer = self.0.execute(request).await.map_err(broken)?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(broken)? {
            if body.len().saturating_add(chunk.len()) > MAX_BODY {
                body.clear();
                break;
            }
            body.extend_from_slice(&chunk);
        }
        let mut whole = http::Response::new(body);
        *whole.status_mut() = answer.status();
        *whole.headers_mut() = mem::take(answer.headers_mut());
        Ok(whole)
    }
}

/// Why there is no HTTP client.
#[derive(Debug)]
pub struct HttpSetupError(reqwest::Error);

impl fmt::Display for HttpSetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the http client for the token endpoint could not be set up")
    }
}

impl Error for HttpSetupError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

fn defaults() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        // Some gateways answer 403 to a client without a name.
        .user_agent(concat!("steadfast/", env!("CARGO_PKG_VERSION")))
}

/// `is_connect` covers DNS, the TCP connection, a proxy's tunnel and the TLS handshake: what happens before a byte of
/// the request is written.
fn broken(error: reqwest::Error) -> TransportError {
    let not_sent = error.is_connect() || error.is_builder();
    // A token URL may carry a tenant or a key in its query.
    let error = error.without_url();
    if not_sent { TransportError::not_sent(error) } else { TransportError::unknown(error) }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
