//! The authorization server: rotating refresh tokens, client credentials, and trouble.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::Request;

use crate::{
    ledger::Ledger,
    server::{self, Reply},
    weather::{Fate, Weather},
};

#[derive(Clone)]
pub(crate) struct Idp {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) weather: Arc<Weather>,
    calls: Arc<AtomicU64>,
    url: Arc<str>,
}

impl Idp {
    pub(crate) async fn start(weather: Arc<Weather>) -> io::Result<Self> {
        let mut idp = Self { ledger: Arc::default(), weather, calls: Arc::default(), url: "".into() };
        let serving = idp.clone();
        let address = server::start(move |request| serving.clone().answer(request)).await?;
        idp.url = format!("http://{address}/token").into();
        Ok(idp)
    }

    pub(crate) fn token_url(&self) -> &str {
        &self.url
    }

    /// Token requests that have arrived.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// A user signs in.
    pub(crate) fn login(&self, may_be_revoked: bool) -> String {
        self.ledger.login(self.weather.number(), may_be_revoked)
    }

    async fn answer(self, request: Request<Bytes>) -> Reply {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let form: Vec<(String, String)> = url::form_urlencoded::parse(request.body()).into_owned().collect();
        match self.weather.at_the_token_endpoint() {
            Fate::Well => self.exchange(&form, false),
            Fate::Revoked => self.exchange(&form, true),
            Fate::Slow(delay) => {
                tokio::time::sleep(delay).await;
                self.exchange(&form, false)
            }
            Fate::Lost => {
                let _lost = self.exchange(&form, false);
                Reply::Reset
            }
            Fate::Limited => Reply::with(429, &[("retry-after", "1")], ""),
            Fate::Waf => Reply::with(403, &[("content-type", "text/html")], WAF),
            Fate::Status(status) => Reply::status(status),
            Fate::Reset | Fate::Stale | Fate::Rotated => Reply::Reset,
            Fate::Hang => Reply::Hang,
        }
    }

    fn exchange(&self, form: &[(String, String)], revoke: bool) -> Reply {
        let (ledger, weather) = (&self.ledger, &self.weather);
        let field = |name: &str| form.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
        let successor = match field("refresh_token") {
            None => None,
            Some(token) => match ledger.rotate(token, revoke) {
                None => return Reply::with(400, JSON, "{\"error\":\"invalid_grant\"}"),
                successor => successor,
            },
        };
        let lifetime = weather.lifetime();
        let mut answer = serde_json::json!({
            "access_token": ledger.issue(weather.number(), lifetime),
            "token_type": "Bearer",
            "expires_in": lifetime.as_secs(),
        });
        if let (Some(successor), Some(fields)) = (successor, answer.as_object_mut()) {
            fields.insert("refresh_token".to_owned(), successor.into());
        }
        Reply::with(200, JSON, answer.to_string())
    }
}

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const WAF: &str = "<!DOCTYPE html><title>Request blocked</title><h1>Access denied</h1>";
