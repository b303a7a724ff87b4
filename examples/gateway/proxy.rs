//! The part to copy: requests are passed on with the gateway's token.

use std::time::Duration;

use axum::{body::Body, extract::Request, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use steadfast::{
    Auth, AuthLayer, BoxError, Generation, LayerError, MonitoredTokenSource, Origin, layer::ReplayIdempotentOnce,
};

/// A service that wants tokens, and the way there.
#[derive(Clone)]
pub(crate) struct Upstream {
    base: Uri,
    client: Auth<Client<HttpsConnector<HttpConnector>, Body>, ReplayIdempotentOnce>,
}

impl Upstream {
    /// The client's path comes after that of `base`, whose origin is the only one that gets the tokens.
    pub(crate) fn new(base: Uri, tokens: MonitoredTokenSource) -> Result<Self, BoxError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let tls = HttpsConnectorBuilder::new().try_with_platform_verifier()?.https_or_http().enable_http1();
        let client = Client::builder(TokioExecutor::new()).build(tls.wrap_connector(tcp));
        // A request with a body streams through, so there is no second copy of it to send.
        let layer = AuthLayer::new(tokens, Origin::of(&base)?)?.replay_idempotent_once();
        Ok(Self { base, client: layer.wrap(client) })
    }

    /// Answers a request with what the upstream answers, both bodies streamed.
    pub(crate) async fn forward(self, mut request: Request) -> Response {
        // The upstream would send back to the client what it was sent, the gateway's own headers included.
        if request.method() == Method::TRACE {
            let mut refusal = problem(StatusCode::METHOD_NOT_ALLOWED, "this gateway passes no TRACE on");
            refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static(PASSED_ON));
            return refusal;
        }
        let Some(target) = self.target(request.uri()) else {
            return problem(StatusCode::BAD_REQUEST, "this request has no place upstream");
        };
        *request.uri_mut() = target;
        *request.version_mut() = Version::HTTP_11;
        let headers = request.headers_mut();
        keep_end_to_end(headers);
        // The client's credentials are for the gateway. The layer would leave them alone, and they would go upstream.
        headers.remove(header::AUTHORIZATION);
        // hyper writes the one of the new target.
        headers.remove(header::HOST);

        match self.client.send(request).await {
            // The upstream means the gateway's token, not the client: a client that gets this 401 would sign in again in vain.
            Ok(response) if is_refusal_of_our_token(&response) => {
                problem(StatusCode::BAD_GATEWAY, "the upstream service refuses the gateway's token")
            }
            Ok(mut response) => {
                keep_end_to_end(response.headers_mut());
                *response.version_mut() = Version::HTTP_11;
                response.map(Body::new)
            }
            Err(LayerError::Auth(error)) => error.to_response().map(Body::from),
            Err(LayerError::Inner(_)) => problem(StatusCode::BAD_GATEWAY, "the upstream service cannot be reached"),
        }
    }

    /// Only path and query are the client's to choose; the origin never is. `CONNECT` and `OPTIONS *` have no path.
    fn target(&self, requested: &Uri) -> Option<Uri> {
        let path = requested.path_and_query()?.as_str();
        let path = path.starts_with('/').then(|| format!("{}{path}", self.base.path().trim_end_matches('/')))?;
        let mut parts = self.base.clone().into_parts();
        parts.path_and_query = Some(path.parse().ok()?);
        Uri::from_parts(parts).ok()
    }
}

/// Removes what is meant for the next hop only (RFC 9110 §7.6.1).
fn keep_end_to_end(headers: &mut HeaderMap) {
    let listed = headers.get_all(header::CONNECTION).into_iter().filter_map(|line| line.to_str().ok());
    let listed: Vec<HeaderName> =
        listed.flat_map(|line| line.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    for name in listed.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn is_refusal_of_our_token<B>(response: &http::Response<B>) -> bool {
    response.status() == StatusCode::UNAUTHORIZED && response.extensions().get::<Generation>().is_some()
}

/// A problem document (RFC 9457), as the layer's own errors make them.
fn problem(status: StatusCode, title: &str) -> Response {
    let body = format!(r#"{{"type":"about:blank","title":"{title}","status":{}}}"#, status.as_u16());
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The methods of RFC 9110 and 5789 but TRACE, and CONNECT, which has no place upstream.
const PASSED_ON: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];
