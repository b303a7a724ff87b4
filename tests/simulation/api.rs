//! The resource server, as one process reaches it: a tower service that judges tokens.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::WWW_AUTHENTICATE};
use http_body_util::Empty;
use steadfast::BoxError;
use tokio::time::sleep;
use tower_service::Service;

use crate::{
    idp::Idp,
    nature::{Nature, locked},
    process::Kind,
    promises,
    source::Record,
    weather,
};

pub(crate) type Body = Empty<Bytes>;

/// The tokens that a request was sent with, one after the other.
#[derive(Clone, Default)]
pub(crate) struct Sent(Arc<Mutex<Vec<String>>>);

impl Sent {
    /// A fixed token is the same however often it is refused, so there is nothing to tell apart.
    pub(crate) fn of(kind: Kind) -> Option<Self> {
        (kind != Kind::Fixed).then(Self::default)
    }
}

#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) nature: Arc<Nature>,
    pub(crate) idp: Arc<Idp>,
    pub(crate) record: Arc<Record>,
}

impl Service<Request<Body>> for Api {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let api = self.clone();
        let secret = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        let secret = secret.and_then(|text| text.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
        let host = request.uri().host().map(str::to_owned);
        self.nature.check(promises::a_token_goes_to_its_origin_only(host.as_deref(), !secret.is_empty()));
        // The copy for a replay has the same list.
        if let Some(Some(Sent(sent))) = request.extensions().get::<Option<Sent>>() {
            let mut sent = locked(sent);
            // The store may give new credentials the token of the old ones.
            sent.push(format!("{secret} of source {}", locked(&self.record.pages).epoch));
            self.nature.check(promises::a_request_is_replayed_twice_at_most(&sent));
        }
        self.record.sees(&secret, None);
        Box::pin(async move {
            sleep(api.nature.millis(0, 40)).await;
            let answer = api.judge(&secret);
            // Some answers take so long that they find another token in use.
            let straggles = api.nature.chance(10);
            sleep(if straggles { api.nature.secs(0, 8) } else { api.nature.millis(0, 40) }).await;
            if let Ok(response) = &answer {
                api.hears(&secret, response);
            }
            answer
        })
    }
}

impl Api {
    fn judge(&self, secret: &str) -> Result<Response<Body>, BoxError> {
        let (weather, now) = (self.nature.weather().api, self.nature.true_time());
        let access = self.idp.access(secret);
        let age = access.as_ref().map(|access| now.saturating_sub(access.issued_at));
        let good = access.as_ref().is_some_and(|access| !access.revoked && access.ends.is_none_or(|ends| now < ends));
        let with_claims = access.as_ref().is_some_and(|access| access.with_claims);
        let answer = match weather {
            weather::Api::Unreachable => return Err("connection refused".into()),
            weather::Api::Failing => respond(500, None),
            weather::Api::Scope => respond(403, Some(r#"Bearer error="insufficient_scope", scope="write""#)),
            weather::Api::KeysLost => respond(401, Some(INVALID)),
            weather::Api::Sulking => respond(401, None),
            weather::Api::GrpcRefusal => {
                let mut response = respond(200, None);
                response.headers_mut().insert("grpc-status", "16".parse()?);
                response
            }
            weather::Api::StepUp => respond(401, Some(r#"Bearer error="insufficient_user_authentication""#)),
            weather::Api::Lagging if age.is_some_and(|age| age < Duration::from_secs(1)) => respond(401, Some(INVALID)),
            weather::Api::Claims if good && !with_claims => {
                respond(401, Some(r#"Bearer error="insufficient_claims", claims="e30=""#))
            }
            weather::Api::Fair | weather::Api::Lagging | weather::Api::Claims if good => respond(200, None),
            weather::Api::Fair | weather::Api::Lagging | weather::Api::Claims => respond(401, Some(INVALID)),
        };
        Ok(answer)
    }

    /// What the process hears of its token. For the token's sake, before the layer does.
    fn hears(&self, secret: &str, response: &Response<Body>) {
        let refused = response.status() == 401 || response.headers().contains_key("grpc-status");
        let challenge = response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        self.nature.note(format_args!("process {} hears {} of {secret}", self.record.process, response.status()));
        let mut pages = locked(&self.record.pages);
        if refused {
            pages.refused.insert(secret.to_owned());
            if challenge.is_some_and(|challenge| challenge.contains("claims")) {
                pages.claims.insert(secret.to_owned());
            }
        } else if response.status().is_success() {
            pages.accepted.insert(secret.to_owned());
        }
    }
}

fn respond(status: u16, challenge: Option<&str>) -> Response<Body> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    if let Some(challenge) = challenge {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
    }
    response
}

pub(crate) const INVALID: &str = r#"Bearer error="invalid_token""#;
