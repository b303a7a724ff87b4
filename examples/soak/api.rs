//! The protected API, and the way to it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, header::AUTHORIZATION};
use tower::Service;

use crate::{
    idp::Idp,
    ledger::{Ledger, Standing},
    server::{self, Reply},
    weather::Fate,
};

/// Starts the API: its URL.
pub(crate) async fn start(idp: &Idp) -> io::Result<String> {
    let idp = idp.clone();
    let address = server::start(move |request| answer(idp.clone(), request)).await?;
    Ok(format!("http://{address}"))
}

/// A client that looks at the token of each request it is about to send.
#[derive(Clone)]
pub(crate) struct Watched {
    pub(crate) http: reqwest::Client,
    pub(crate) ledger: Arc<Ledger>,
    /// Tokens that had expired when they were sent: must stay zero.
    pub(crate) expired: Arc<AtomicU64>,
}

impl Service<reqwest::Request> for Watched {
    type Response = reqwest::Response;
    type Error = reqwest::Error;
    type Future = <reqwest::Client as Service<reqwest::Request>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), reqwest::Error>> {
        self.http.poll_ready(context)
    }

    fn call(&mut self, request: reqwest::Request) -> Self::Future {
        let standing = bearer(request.headers()).map(|token| self.ledger.standing(token));
        if matches!(standing, Some(Standing::Expired | Standing::Unknown)) {
            self.expired.fetch_add(1, Ordering::Relaxed);
        }
        self.http.call(request)
    }
}

async fn answer(idp: Idp, request: Request<Bytes>) -> Reply {
    let token = bearer(request.headers()).unwrap_or_default();
    match idp.weather.at_the_api() {
        Fate::Well => {}
        Fate::Slow(delay) => tokio::time::sleep(delay).await,
        Fate::Stale => return Reply::with(401, REFUSED, ""),
        Fate::Rotated => idp.ledger.revoke(token),
        Fate::Status(status) => return Reply::status(status),
        Fate::Hang => return Reply::Hang,
        Fate::Reset | Fate::Lost | Fate::Limited | Fate::Waf | Fate::Revoked => return Reply::Reset,
    }
    match idp.ledger.standing(token) {
        Standing::Good => Reply::with(200, &[], request.into_body()),
        Standing::Revoked | Standing::Expired | Standing::Unknown => Reply::with(401, REFUSED, ""),
    }
}

fn bearer(headers: &http::HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

const REFUSED: &[(&str, &str)] = &[("www-authenticate", "Bearer error=\"invalid_token\"")];
