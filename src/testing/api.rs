//! The resource that tokens are for.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    ScriptedIdp,
    call::ApiCall,
    grants::Grants,
    log::{Log, lock},
    message::Request,
    script::{Answer, Script},
    wire::{Reply, Server, now},
};

/// An HTTP API on the loopback interface that wants a bearer token (RFC 6750) it accepts.
///
/// Whatever the method and the path: with such a token it answers 200 and the body of the request, or what it was told to
/// [`serve`](Self::serve); without one 401. Queued answers ([`then`](Self::then)) and a standing one ([`always`](Self::always)) come before that.
///
/// It is a handle: clones talk about the same server, which ends with the last of them.
///
/// ```
/// use steadfast::testing::ProtectedApi;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), reqwest::Error> {
/// let api = ProtectedApi::alone().await;
/// api.accept("s3cret");
/// let ask = || reqwest::Client::new().get(api.url()).bearer_auth("s3cret").send();
/// assert_eq!(ask().await?.status(), 200);
///
/// api.revoke("s3cret").challenge("Bearer");
/// let refusal = ask().await?;
/// assert_eq!(refusal.status(), 401);
/// assert_eq!(refusal.headers()["www-authenticate"], "Bearer");
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// When the last handle is dropped after something that is not HTTP/1.1 or had more than one `Authorization`, unless the
/// thread is panicking already; [`verify`](Self::verify) says it at any time.
#[derive(Clone)]
pub struct ProtectedApi(Arc<Running>);

impl ProtectedApi {
    /// Starts an API that accepts what this token endpoint has issued, until it expires on tokio's clock: what a test does to
    /// the wall clock alone is the client's affair.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time, and if the loopback interface gives no port.
    pub async fn start(idp: &ScriptedIdp) -> Self {
        Self::with(idp.grants())
    }

    /// Starts an API that accepts nothing but what [`accept`](Self::accept) names.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub async fn alone() -> Self {
        Self::with(Arc::default())
    }

    /// The URL of the API, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.0.server.address())
    }

    /// Accepts this token from now on, whoever issued it.
    pub fn accept(&self, token: &str) -> &Self {
        let mut door = self.door();
        door.revoked.remove(token);
        door.accepted.insert(token.to_owned());
        drop(door);
        self
    }

    /// Refuses this token from now on.
    pub fn revoke(&self, token: &str) -> &Self {
        self.door().revoked.insert(token.to_owned());
        self
    }

    /// Refuses each token there is by now; those issued later are good.
    pub fn revoke_all(&self) -> &Self {
        let issued = lock(&self.0.api.grants).access_tokens();
        let mut door = self.door();
        door.accepted.clear();
        door.revoked.extend(issued);
        drop(door);
        self
    }

    /// Refuses each token, however new, as an API does that has lost its keys.
    pub fn reject_everything(&self) -> &Self {
        self.door().closed = true;
        self
    }

    /// Ends [`reject_everything`](Self::reject_everything).
    pub fn accept_again(&self) -> &Self {
        self.door().closed = false;
        self
    }

    /// Refuses tokens that were issued less than this long ago: they have not got round to it yet. Defaults to none.
    pub fn replication_lag(&self, lag: Duration) -> &Self {
        self.door().lag = lag;
        self
    }

    /// The `WWW-Authenticate` of a refusal from now on. Defaults to `Bearer error="invalid_token"`.
    ///
    /// A request without a bearer token gets a bare `Bearer` all the same (RFC 6750 §3.1).
    pub fn challenge(&self, challenge: &str) -> &Self {
        self.challenges([challenge])
    }

    /// The `WWW-Authenticate` lines of a refusal from now on: several, or none at all.
    pub fn challenges<'a>(&self, challenges: impl IntoIterator<Item = &'a str>) -> &Self {
        let challenges = challenges.into_iter().map(str::to_owned).collect();
        self.door().challenges = challenges;
        self
    }

    /// The answer to requests with an accepted token, from now on.
    ///
    /// ```
    /// use steadfast::testing::{Answer, ProtectedApi, json};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), reqwest::Error> {
    /// let api = ProtectedApi::alone().await;
    /// api.accept("s3cret").serve(Answer::status(200).json(&json!({ "login": "ada" })));
    /// let ask = |token| reqwest::Client::new().get(api.url()).bearer_auth(token).send();
    /// assert_eq!(ask("s3cret").await?.text().await?, r#"{"login":"ada"}"#);
    /// assert_eq!(ask("another").await?.status(), 401);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// As [`then`](Self::then).
    #[track_caller]
    pub fn serve(&self, answer: Answer) -> &Self {
        self.door().goods = Some(not_issuing(answer));
        self
    }

    /// Queues an answer for one request, whatever its token, after those queued before.
    ///
    /// # Panics
    ///
    /// If it is an [`Answer::success`]: an API issues no tokens.
    #[track_caller]
    pub fn then(&self, answer: Answer) -> &Self {
        lock(&self.0.api.script).queue(not_issuing(answer));
        self
    }

    /// The answer from now on, whatever the token, whenever nothing is queued. `None` goes back to checking tokens.
    ///
    /// # Panics
    ///
    /// As [`then`](Self::then).
    #[track_caller]
    pub fn always(&self, answer: impl Into<Option<Answer>>) -> &Self {
        lock(&self.0.api.script).stand(answer.into().map(not_issuing));
        self
    }

    /// How many queued answers have not been given yet.
    #[must_use]
    pub fn queued(&self) -> usize {
        lock(&self.0.api.script).queued()
    }

    /// How many requests have arrived.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.0.api.log.count()
    }

    /// The requests that have arrived.
    #[must_use]
    pub fn log(&self) -> Vec<ApiCall> {
        self.0.api.log.calls()
    }

    /// The largest number of requests that were in flight at once.
    #[must_use]
    pub fn most_in_flight(&self) -> usize {
        self.0.api.log.most_in_flight()
    }

    /// Waits until so many requests have arrived, counted from the start.
    pub async fn called(&self, calls: usize) {
        self.0.api.log.called(calls).await;
    }

    /// As if the server had died: connections are cut, and new ones refused.
    pub async fn refuse_connections(&self) {
        self.0.server.refuse_connections().await;
    }

    /// Listens again, at the same URL. Nothing happens if it does already.
    ///
    /// # Panics
    ///
    /// If the port is lost to somebody else.
    pub async fn listen_again(&self) {
        self.0.server.listen_again().await;
    }

    /// Checks that nothing unexpected has arrived since the last check.
    ///
    /// # Panics
    ///
    /// If something has.
    #[track_caller]
    pub fn verify(&self) {
        self.0.api.log.verify();
    }

    fn with(grants: Arc<Mutex<Grants>>) -> Self {
        let api = Arc::new(Api {
            script: Mutex::default(),
            door: Mutex::default(),
            grants,
            log: Log::new("protected API"),
            started: now(),
        });
        let server = Server::start({
            let api = Arc::clone(&api);
            move |request, now| api.respond(request, now)
        });
        Self(Arc::new(Running { api, server }))
    }

    fn door(&self) -> MutexGuard<'_, Door> {
        lock(&self.0.api.door)
    }
}

impl fmt::Debug for ProtectedApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtectedApi").field("url", &self.url()).field("calls", &self.calls()).finish_non_exhaustive()
    }
}

struct Running {
    api: Arc<Api>,
    server: Server,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.api.log.verify_at_the_end();
    }
}

struct Api {
    script: Mutex<Script>,
    door: Mutex<Door>,
    grants: Arc<Mutex<Grants>>,
    log: Arc<Log<ApiCall>>,
    started: Instant,
}

impl Api {
    fn respond(&self, request: Result<Request, String>, now: Instant) -> Reply {
        let at = now.duration_since(self.started);
        let call = match request.and_then(|request| ApiCall::read(request, at)) {
            Ok(call) => call,
            Err(complaint) => return self.log.complain(complaint),
        };
        let scripted = lock(&self.script).next();
        let answer = scripted.unwrap_or_else(|| self.judge(&call, now));
        Reply::new(&answer, None, self.log.arrive(call.answer(&answer)))
    }

    fn judge(&self, call: &ApiCall, now: Instant) -> Answer {
        let refusal = Answer::status(401);
        let Some(token) = call.token() else {
            return refusal.header(CHALLENGE, "Bearer");
        };
        let door = lock(&self.door);
        if door.lets_in(token, &lock(&self.grants), now) {
            if let Some(goods) = &door.goods {
                return goods.clone();
            }
            let kind = call.header("content-type").unwrap_or_default();
            return Answer::status(200).header("content-type", kind).body(call.body());
        }
        let challenges = door.challenges.iter();
        challenges.fold(refusal, |refusal, line| refusal.header(CHALLENGE, line))
    }
}

struct Door {
    accepted: HashSet<String>,
    revoked: HashSet<String>,
    closed: bool,
    lag: Duration,
    challenges: Vec<String>,
    goods: Option<Answer>,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            accepted: HashSet::new(),
            revoked: HashSet::new(),
            closed: false,
            lag: Duration::ZERO,
            challenges: vec![INVALID_TOKEN.to_owned()],
            goods: None,
        }
    }
}

impl Door {
    fn lets_in(&self, token: &str, grants: &Grants, now: Instant) -> bool {
        let arrived = || grants.age_of_live(token, now).is_some_and(|age| age >= self.lag);
        !self.closed && !self.revoked.contains(token) && (self.accepted.contains(token) || arrived())
    }
}

#[track_caller]
fn not_issuing(answer: Answer) -> Answer {
    assert!(answer.mint().is_none(), "an API issues no tokens");
    answer
}

const CHALLENGE: &str = "www-authenticate";
const INVALID_TOKEN: &str = "Bearer error=\"invalid_token\"";
