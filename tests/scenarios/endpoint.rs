//! A token endpoint in the process: it answers as it is told, and keeps the books on refresh tokens as RFC 9700 §4.14 asks.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::pending,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use http::{Request, Response, header};
use serde_json::{Value, json};
use steadfast::oauth::TransportError;
use tokio::time::{Instant, sleep};

use crate::format::{Answer, Connection, Lifetime, Rotation, Script};

/// What all logins of a scenario have in common: the server's memory.
#[derive(Clone)]
pub(crate) struct Server {
    rotation: Option<Rotation>,
    began: Instant,
    books: Arc<Mutex<Books>>,
}

/// The part of the server that one login talks to.
#[derive(Clone)]
pub(crate) struct Endpoint {
    server: Server,
    script: Arc<Mutex<Queue>>,
}

#[derive(Default)]
struct Queue {
    answers: VecDeque<Answer>,
    always: Option<Answer>,
    in_flight: usize,
}

#[derive(Default)]
struct Books {
    exchanges: Vec<Exchange>,
    refresh_tokens: HashMap<String, RefreshToken>,
    revoked: HashSet<usize>,
    logins: usize,
    issued: usize,
    reuse_detected: bool,
    defects: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Exchange {
    pub(crate) at: Duration,
    pub(crate) refresh_token: String,
    pub(crate) claims: Option<String>,
}

struct RefreshToken {
    login: usize,
    used: Option<Instant>,
}

impl Server {
    pub(crate) fn new(rotation: Option<Rotation>) -> Self {
        Self { rotation, began: Instant::now(), books: Arc::default() }
    }

    /// A user signs in: the first refresh token of a login.
    pub(crate) fn sign_in(&self) -> String {
        let mut books = self.books();
        books.logins += 1;
        let login = books.logins;
        books.mint(login)
    }

    pub(crate) fn endpoint(&self, script: &Script) -> Endpoint {
        let answers = script.answers.iter().cloned().collect();
        let queue = Queue { answers, always: script.always.clone(), in_flight: 0 };
        Endpoint { server: self.clone(), script: Arc::new(Mutex::new(queue)) }
    }

    pub(crate) fn exchanges(&self) -> Vec<Exchange> {
        self.books().exchanges.clone()
    }

    /// Whether a used refresh token was presented, which RFC 9700 takes for a theft.
    pub(crate) fn reuse_detected(&self) -> bool {
        self.books().reuse_detected
    }

    /// What must not happen in any scenario.
    pub(crate) fn defects(&self) -> Vec<String> {
        self.books().defects.clone()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }
}

impl Endpoint {
    pub(crate) fn answers(&self, answers: &[Answer]) {
        self.queue().answers.extend(answers.iter().cloned());
    }

    pub(crate) fn always(&self, answer: Option<Answer>) {
        self.queue().always = answer;
    }

    pub(crate) fn unused(&self) -> usize {
        self.queue().answers.len()
    }

    pub(crate) async fn exchange(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, TransportError> {
        let form: HashMap<_, _> = url::form_urlencoded::parse(request.body()).into_owned().collect();
        let refresh_token = form.get("refresh_token").cloned().unwrap_or_default();
        let exchange = Exchange {
            at: self.server.began.elapsed(),
            refresh_token: refresh_token.clone(),
            claims: form.get("claims").cloned(),
        };
        self.server.books().exchanges.push(exchange);
        let _in_flight = InFlight::of(self);
        let (next, in_flight) = {
            let mut queue = self.queue();
            (queue.answers.pop_front().or_else(|| queue.always.clone()), queue.in_flight)
        };
        if in_flight > 1 {
            self.server.books().defects.push(format!("{in_flight} exchanges at a time with one login"));
        }
        let Some(answer) = next else {
            self.server.books().defects.push("an exchange that the scenario has no answer for".into());
            return Err(TransportError::not_sent("no answer"));
        };
        // Decided when the request comes in; what `takes` delays is the way back.
        let decided = self.decide(&answer, &refresh_token);
        sleep(answer.takes.0).await;
        match answer.connection {
            Some(Connection::Refused) => Err(TransportError::not_sent("connection refused")),
            Some(Connection::Lost) => Err(TransportError::unknown("connection reset")),
            Some(Connection::Hangs) => pending().await,
            None => Ok(decided),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.script.lock().unwrap()
    }

    fn decide(&self, answer: &Answer, refresh_token: &str) -> Response<Vec<u8>> {
        let lost = answer.connection == Some(Connection::Lost);
        if answer.token.is_some() || lost {
            return self.grant(answer, refresh_token);
        }
        let mut response = Response::builder().status(answer.status.unwrap_or(400));
        if let Some(wait) = answer.retry_after {
            response = response.header(header::RETRY_AFTER, wait.0.as_secs());
        }
        let body = match &answer.oauth_error {
            Some(code) => {
                response = response.header(header::CONTENT_TYPE, "application/json");
                json!({ "error": code }).to_string()
            }
            None => answer.body.clone(),
        };
        response.body(body.into_bytes()).unwrap()
    }

    fn grant(&self, answer: &Answer, refresh_token: &str) -> Response<Vec<u8>> {
        let mut books = self.server.books();
        let mut fields = json!({ "token_type": "Bearer" });
        if let Some(rotation) = self.server.rotation {
            let Some(next) = books.rotate(refresh_token, rotation.grace.0) else {
                return respond(400, &json!({ "error": "invalid_grant" }));
            };
            fields["refresh_token"] = next.into();
        }
        books.issued += 1;
        fields["access_token"] = format!("at-{}", books.issued).into();
        if let Some(Lifetime::Known(lifetime)) = answer.token {
            fields["expires_in"] = lifetime.0.as_secs().into();
        }
        for (name, value) in &answer.fields {
            fields[name] = value.clone();
        }
        respond(200, &fields)
    }
}

impl Books {
    fn mint(&mut self, login: usize) -> String {
        let token = format!("rt-{}", self.refresh_tokens.len() + 1);
        self.refresh_tokens.insert(token.clone(), RefreshToken { login, used: None });
        token
    }

    /// The next refresh token for this one; `None` where it is not good, which revokes the whole login if it was used up.
    fn rotate(&mut self, refresh_token: &str, grace: Duration) -> Option<String> {
        let revoked = &mut self.revoked;
        let token = self.refresh_tokens.get_mut(refresh_token).filter(|token| !revoked.contains(&token.login))?;
        if token.used.is_some_and(|used| used.elapsed() >= grace) {
            self.reuse_detected = true;
            revoked.insert(token.login);
            return None;
        }
        token.used.get_or_insert_with(Instant::now);
        let login = token.login;
        Some(self.mint(login))
    }
}

struct InFlight(Arc<Mutex<Queue>>);

impl InFlight {
    fn of(endpoint: &Endpoint) -> Self {
        endpoint.queue().in_flight += 1;
        Self(Arc::clone(&endpoint.script))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.lock().unwrap().in_flight -= 1;
    }
}

fn respond(status: u16, fields: &Value) -> Response<Vec<u8>> {
    let fields: serde_json::Map<_, _> =
        fields.as_object().unwrap().clone().into_iter().filter(|(_, value)| !value.is_null()).collect();
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    response.body(Value::Object(fields).to_string().into_bytes()).unwrap()
}
