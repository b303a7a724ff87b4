//! The authorization server, as strict as they come: refresh tokens rotate, and using one twice ends the login.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Response, StatusCode};

use crate::{
    SECRET,
    nature::{Nature, locked},
    weather::Provider,
};

pub(crate) struct Idp {
    nature: Arc<Nature>,
    /// How long a refresh token may be used once more after it was rotated.
    grace: Duration,
    lifetime: Duration,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    logins: Vec<Login>,
    access: BTreeMap<String, Access>,
    minted: u64,
}

struct Login {
    serial: u64,
    previous: Option<(String, Duration)>,
    revoked: bool,
    all: BTreeSet<String>,
}

/// What is known of an access token.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// By the servers' time.
    pub(crate) issued_at: Duration,
    pub(crate) ends: Option<Duration>,
    pub(crate) revoked: bool,
    pub(crate) with_claims: bool,
    /// The refresh token that came with it.
    pub(crate) companion: Option<String>,
    login: Option<usize>,
}

/// What a request asks for.
pub(crate) struct Asked {
    pub(crate) refresh_token: Option<String>,
    pub(crate) claims: bool,
}

impl Asked {
    pub(crate) fn of(body: &[u8]) -> Self {
        let mut asked = Self { refresh_token: None, claims: false };
        for (name, value) in url::form_urlencoded::parse(body) {
            match &*name {
                "refresh_token" => asked.refresh_token = Some(value.into_owned()),
                "claims" => asked.claims = true,
                _ => {}
            }
        }
        asked
    }
}

/// An answer, and what is behind it.
pub(crate) struct Answer {
    pub(crate) response: Response<Vec<u8>>,
    /// The refresh token that takes the place of the one sent, if the answer says so.
    pub(crate) rotated_to: Option<String>,
    pub(crate) code: Option<&'static str>,
    /// It says something about the login that is not so.
    pub(crate) lie: bool,
}

impl Idp {
    pub(crate) fn new(nature: &Arc<Nature>, grace: Duration, lifetime: Duration) -> Arc<Self> {
        Arc::new(Self { nature: Arc::clone(nature), grace, lifetime, books: Mutex::default() })
    }

    /// A user signs in; answers the first refresh token.
    pub(crate) fn sign_in(&self) -> String {
        let mut books = locked(&self.books);
        let number = books.logins.len();
        let token = refresh_token(number, 1);
        books.logins.push(Login { serial: 1, previous: None, revoked: false, all: BTreeSet::from([token.clone()]) });
        token
    }

    /// An administrator ends all logins, and what they have brought.
    pub(crate) fn revoke_logins(&self) {
        let mut books = locked(&self.books);
        for login in &mut books.logins {
            login.revoked = true;
        }
        for access in books.access.values_mut().filter(|access| access.login.is_some()) {
            access.revoked = true;
        }
    }

    /// A token for those who need no refresh token.
    pub(crate) fn mint_for_a_time(&self) -> (String, Duration) {
        let (token, ends) = (self.mint(), self.nature.true_time() + self.lifetime);
        if let Some(access) = locked(&self.books).access.get_mut(&token) {
            access.ends = Some(ends);
        }
        (token, self.lifetime)
    }

    /// A token that somebody has configured by hand: it does not end by itself.
    pub(crate) fn mint(&self) -> String {
        let mut books = locked(&self.books);
        books.minted += 1;
        let token = format!("{SECRET}-at-{}", books.minted);
        let issued_at = self.nature.true_time();
        let access = Access { issued_at, ends: None, revoked: false, with_claims: false, companion: None, login: None };
        books.access.insert(token.clone(), access);
        token
    }

    pub(crate) fn revoke_access_tokens(&self) {
        locked(&self.books).access.values_mut().for_each(|access| access.revoked = true);
    }

    pub(crate) fn access(&self, token: &str) -> Option<Access> {
        locked(&self.books).access.get(token).cloned()
    }

    /// Whether this refresh token would be taken now.
    pub(crate) fn is_good(&self, refresh_token: &str) -> bool {
        let (books, now) = (locked(&self.books), self.nature.true_time());
        let login = number_of(refresh_token).and_then(|number| books.logins.get(number));
        login.is_some_and(|login| login.takes(number_of(refresh_token).unwrap_or_default(), refresh_token, now))
    }

    pub(crate) fn answer(&self, asked: &Asked) -> Answer {
        let weather = match self.nature.weather().provider {
            Provider::Fickle => self.nature.pick(Provider::PASSING),
            steady => steady,
        };
        let asks = asked.refresh_token.is_some();
        let json = |status: u16, body: &str| respond(status, &[("content-type", "application/json")], body);
        let refusal = |code: &'static str| json(400, &format!(r#"{{"error":"{code}"}}"#));
        match weather {
            Provider::Firewall => Answer::plain(respond(403, &[], "<html>Request blocked. ID 4711</html>")),
            Provider::Portal => Answer::plain(respond(200, &[("content-type", "text/html")], "<html>Welcome</html>")),
            Provider::Redirect => Answer::plain(respond(302, &[("location", "https://evil.example/")], "")),
            Provider::Empty => Answer::plain(respond(200, &[], "")),
            Provider::NoCode => Answer::plain(json(400, r#"{"error":{"message":"Not Found"}}"#)),
            Provider::BadGateway => Answer::plain(respond(502, &[], "bad gateway")),
            Provider::Truncated => {
                let mut answer = self.act(asked, weather);
                let half = answer.response.body().len() / 2;
                answer.response.body_mut().truncate(half);
                Answer { rotated_to: None, ..answer }
            }
            Provider::BadGatewayAfterAll => {
                self.act(asked, weather);
                Answer::plain(respond(502, &[], "bad gateway"))
            }
            Provider::Overloaded => Answer::plain(respond(503, &[("retry-after", "45")], "busy")),
            Provider::Throttled => Answer::plain(respond(429, &[("retry-after", "90")], "slow down")),
            Provider::CodeOnAnOutage => Answer::plain(json(503, r#"{"error":"invalid_grant"}"#)),
            Provider::Denial if asks => Answer::lie("invalid_grant", refusal("invalid_grant")),
            Provider::DenialAsForm if asks => Answer::lie(
                "invalid_grant",
                respond(400, &[("content-type", "application/x-www-form-urlencoded")], "error=invalid_grant"),
            ),
            Provider::DenialOn200 if asks => {
                Answer::lie("invalid_grant", json(200, r#"{"error":"invalid_grant","ok":false}"#))
            }
            Provider::Denial | Provider::DenialAsForm | Provider::DenialOn200 | Provider::UnknownClient => {
                Answer::lie("invalid_client", json(401, r#"{"error":"invalid_client"}"#))
            }
            Provider::UnknownCode => Answer::lie("weird_mood", refusal("weird_mood")),
            Provider::Ambiguous => Answer::lie("access_denied", refusal("access_denied")),
            Provider::TemporarilyUnavailable => Answer::plain(refusal("temporarily_unavailable")),
            Provider::AlreadyBeingProcessed => Answer::plain(json(
                400,
                r#"{"error":"invalid_grant","error_description":"the token is already being processed"}"#,
            )),
            Provider::Indiscreet => {
                let told = asked.refresh_token.as_deref().unwrap_or(SECRET);
                Answer::lie(
                    "invalid_request",
                    json(400, &format!(r#"{{"error":"invalid_request","error_description":"{told} is unknown"}}"#)),
                )
            }
            Provider::Fair
            | Provider::Fickle
            | Provider::TextLifetime
            | Provider::ZeroLifetime
            | Provider::NoLifetime
            | Provider::HugeLifetime
            | Provider::ShortLifetime
            | Provider::Keeping
            | Provider::BoundToken => self.act(asked, weather),
        }
    }

    /// What an authorization server is for.
    fn act(&self, asked: &Asked, weather: Provider) -> Answer {
        let now = self.nature.true_time();
        let mut guard = locked(&self.books);
        let books = &mut *guard;
        let number = asked.refresh_token.as_deref().map(|token| number_of(token).unwrap_or(usize::MAX));
        let mut next = None;
        if let (Some(number), Some(sent)) = (number, asked.refresh_token.as_deref()) {
            let taken = books.logins.get(number).is_some_and(|login| login.takes(number, sent, now));
            let Some(login) = books.logins.get_mut(number).filter(|_| taken) else {
                // An old one: somebody has a copy, and nobody can tell the thief from the owner (RFC 9700 §4.14.2).
                if let Some(login) = books.logins.get_mut(number).filter(|login| login.all.contains(sent)) {
                    login.revoked = true;
                    for access in books.access.values_mut().filter(|access| access.login == Some(number)) {
                        access.revoked = true;
                    }
                }
                let body = r#"{"error":"invalid_grant"}"#;
                let response = respond(400, &[("content-type", "application/json")], body);
                return Answer { code: Some("invalid_grant"), ..Answer::plain(response) };
            };
            let current = refresh_token(number, login.serial);
            if sent == current && weather != Provider::Keeping {
                login.previous = Some((current, now + self.grace));
                login.serial += 1;
            }
            let token = refresh_token(number, login.serial);
            login.all.insert(token.clone());
            if weather != Provider::Keeping || sent != token {
                next = Some(token);
            }
        }
        books.minted += 1;
        let token = format!("{SECRET}-at-{}", books.minted);
        let lifetime = match weather {
            Provider::ShortLifetime => Duration::from_secs(3),
            Provider::HugeLifetime => Duration::from_secs(1 << 40),
            _ => self.lifetime,
        };
        let spoken = match weather {
            Provider::TextLifetime => format!(r#","expires_in":"{}""#, lifetime.as_secs()),
            Provider::ZeroLifetime => r#","expires_in":0"#.to_owned(),
            Provider::NoLifetime => String::new(),
            Provider::HugeLifetime => r#","expires_in":1e300"#.to_owned(),
            _ => format!(r#","expires_in":{}"#, lifetime.as_secs()),
        };
        let kind = if weather == Provider::BoundToken { "mac" } else { "Bearer" };
        let companion = next.as_ref().map(|next| format!(r#","refresh_token":"{next}""#)).unwrap_or_default();
        let body = format!(r#"{{"access_token":"{token}","token_type":"{kind}"{spoken}{companion}}}"#);
        let access = Access {
            issued_at: now,
            ends: Some(now + lifetime),
            revoked: false,
            with_claims: asked.claims,
            companion: next.clone().or_else(|| asked.refresh_token.clone()),
            login: number,
        };
        books.access.insert(token, access);
        Answer {
            rotated_to: next,
            code: (kind == "mac").then_some("unsupported_token_type"),
            ..Answer::plain(respond(200, &[("content-type", "application/json")], &body))
        }
    }
}

impl Login {
    fn takes(&self, number: usize, sent: &str, now: Duration) -> bool {
        let forgiven = self.previous.as_ref().is_some_and(|(previous, until)| previous == sent && now < *until);
        !self.revoked && (sent == refresh_token(number, self.serial) || forgiven)
    }
}

impl Answer {
    fn plain(response: Response<Vec<u8>>) -> Self {
        Self { response, rotated_to: None, code: None, lie: false }
    }

    fn lie(code: &'static str, response: Response<Vec<u8>>) -> Self {
        Self { code: Some(code), lie: true, ..Self::plain(response) }
    }
}

fn respond(status: u16, headers: &[(&str, &str)], body: &str) -> Response<Vec<u8>> {
    let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

fn refresh_token(login: usize, serial: u64) -> String {
    format!("{SECRET}-rt-{login}-{serial}")
}

/// The number of the login that a refresh token belongs to.
pub(crate) fn number_of(refresh_token: &str) -> Option<usize> {
    refresh_token.strip_prefix(SECRET)?.strip_prefix("-rt-")?.split('-').next()?.parse().ok()
}
