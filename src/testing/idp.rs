//! The token endpoint.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    call::{Call, PATH},
    grants::{Grants, Pair},
    log::{Log, lock},
    message::Request,
    script::{Answer, Script},
    wire::{Reply, Server, now},
};

/// An OAuth token endpoint (RFC 6749 §3.2) on the loopback interface, which answers as it is told.
///
/// What it says next comes from a queue ([`then`](Self::then)) and, when that is empty, from a standing answer
/// ([`always`](Self::always)). A request it was not told to expect fails the test: when nothing is scripted, when the
/// method, the path or the form is wrong, or when the grant is not `refresh_token` or `client_credentials`.
///
/// It is a handle: clones talk about the same server, which ends with the last of them.
///
/// Guide: [testing your host](crate::guide::testing).
///
/// ```
/// use steadfast::testing::{Answer, ScriptedIdp};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), reqwest::Error> {
/// let idp = ScriptedIdp::start().await;
/// idp.rotating().then(Answer::waf()).always(Answer::success());
/// let refresh_token = idp.login();
///
/// let form = format!("grant_type=refresh_token&refresh_token={refresh_token}");
/// let ask = || {
///     reqwest::Client::new()
///         .post(idp.token_url())
///         .header("content-type", "application/x-www-form-urlencoded")
///         .body(form.clone())
///         .send()
/// };
/// assert_eq!(ask().await?.status(), 403);
/// assert_eq!(ask().await?.status(), 200);
/// assert_eq!(ask().await?.status(), 400, "a rotated refresh token is good for one use");
/// assert!(idp.reuse_detected());
/// assert_eq!(idp.calls(), 3);
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// When the last handle is dropped after an unexpected request, unless the thread is panicking already. A panic reaches
/// the test only from a handle that the test itself drops last; [`verify`](Self::verify) says it at any time.
#[derive(Clone)]
pub struct ScriptedIdp(Arc<Running>);

impl ScriptedIdp {
    /// Starts a server in the current runtime.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time, and if the loopback interface gives no port.
    pub async fn start() -> Self {
        let idp = Arc::new(Idp {
            script: Mutex::default(),
            client: Mutex::default(),
            grants: Arc::default(),
            log: Log::new("scripted token endpoint"),
            started: now(),
        });
        let server = Server::start({
            let idp = Arc::clone(&idp);
            move |request, now| idp.respond(request, now)
        });
        Self(Arc::new(Running { idp, server }))
    }

    /// The URL to send token requests to.
    #[must_use]
    pub fn token_url(&self) -> String {
        format!("http://{}{PATH}", self.0.server.address())
    }

    /// Queues an answer for one request, after those queued before.
    pub fn then(&self, answer: Answer) -> &Self {
        lock(&self.0.idp.script).queue(answer);
        self
    }

    /// The answer from now on, whenever nothing is queued. `None`, as at the start: such a request fails the test.
    pub fn always(&self, answer: impl Into<Option<Answer>>) -> &Self {
        lock(&self.0.idp.script).stand(answer.into());
        self
    }

    /// How many queued answers have not been given yet.
    #[must_use]
    pub fn queued(&self) -> usize {
        lock(&self.0.idp.script).queued()
    }

    /// From now on each successful refresh issues a new refresh token and uses up the old one. Presenting a used one
    /// revokes all that came of the same login (RFC 9700 §4.14.2). Defaults to refresh tokens that stay as they are.
    pub fn rotating(&self) -> &Self {
        self.rotating_with_grace(Duration::ZERO)
    }

    /// As [`rotating`](Self::rotating), but for this long after its use the previous refresh token can be presented again,
    /// and brings the same tokens again, unless their refresh token has been used.
    pub fn rotating_with_grace(&self, grace: Duration) -> &Self {
        lock(&self.0.idp.grants).rotate(grace);
        self
    }

    /// From now on a success requires this client, by Basic header or in the form; others get `invalid_client`. Defaults
    /// to any client or none.
    pub fn client(&self, id: &str, secret: &str) -> &Self {
        lock(&self.0.idp.grants).note(secret);
        *lock(&self.0.idp.client) = Some((id.to_owned(), secret.to_owned()));
        self
    }

    /// A user signs in: a new refresh token, of a family of its own.
    #[must_use]
    pub fn login(&self) -> String {
        lock(&self.0.idp.grants).login(None)
    }

    /// A user signs in, and the refresh token is this one.
    pub fn login_as(&self, refresh_token: &str) -> &Self {
        lock(&self.0.idp.grants).login(Some(refresh_token.to_owned()));
        self
    }

    /// The user signs out, or an administrator steps in: refresh tokens issued so far are not good any more. Access tokens
    /// stay good until they expire.
    pub fn revoke_logins(&self) -> &Self {
        lock(&self.0.idp.grants).revoke_all();
        self
    }

    /// The access token issued last.
    #[must_use]
    pub fn current_access_token(&self) -> Option<String> {
        lock(&self.0.idp.grants).current_access_token()
    }

    /// The refresh token issued last.
    #[must_use]
    pub fn current_refresh_token(&self) -> Option<String> {
        lock(&self.0.idp.grants).current_refresh_token()
    }

    /// Whether a used refresh token was presented.
    #[must_use]
    pub fn reuse_detected(&self) -> bool {
        lock(&self.0.idp.grants).reuses() > 0
    }

    /// Each secret the server has issued or seen: tokens, client secrets, and Basic credentials as they stand in the header.
    /// None of them may show up in anything the client under test prints.
    #[must_use]
    pub fn secrets(&self) -> Vec<String> {
        lock(&self.0.idp.grants).secrets()
    }

    /// How many token requests have arrived.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.0.idp.log.count()
    }

    /// The token requests that have arrived.
    #[must_use]
    pub fn log(&self) -> Vec<Call> {
        self.0.idp.log.calls()
    }

    /// The largest number of requests that were in flight at once: arrived, and neither answered nor given up by the client.
    #[must_use]
    pub fn most_in_flight(&self) -> usize {
        self.0.idp.log.most_in_flight()
    }

    /// Waits until so many requests have arrived, counted from the start.
    pub async fn called(&self, calls: usize) {
        self.0.idp.log.called(calls).await;
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

    /// Checks that no unexpected request has arrived since the last check.
    ///
    /// # Panics
    ///
    /// If one has.
    #[track_caller]
    pub fn verify(&self) {
        self.0.idp.log.verify();
    }

    pub(super) fn grants(&self) -> Arc<Mutex<Grants>> {
        Arc::clone(&self.0.idp.grants)
    }
}

impl fmt::Debug for ScriptedIdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedIdp")
            .field("token_url", &self.token_url())
            .field("calls", &self.calls())
            .finish_non_exhaustive()
    }
}

struct Running {
    idp: Arc<Idp>,
    server: Server,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.idp.log.verify_at_the_end();
    }
}

struct Idp {
    script: Mutex<Script>,
    client: Mutex<Option<(String, String)>>,
    grants: Arc<Mutex<Grants>>,
    log: Arc<Log<Call>>,
    started: Instant,
}

impl Idp {
    fn respond(&self, request: Result<Request, String>, now: Instant) -> Reply {
        let at = now.duration_since(self.started);
        let call = match request.and_then(|request| Call::read(request, at)) {
            Ok(call) => call,
            Err(complaint) => return self.log.complain(complaint),
        };
        for secret in call.secrets() {
            lock(&self.grants).note(secret);
        }
        let Some(planned) = lock(&self.script).next() else {
            return self.log.complain(format!("a request with nothing scripted: {call:?}"));
        };
        let (answer, issued) = self.process(planned, &call, now);
        let call = call.answer(&answer);
        Reply::new(&answer, issued.as_ref(), self.log.arrive(call))
    }

    /// What a success turns out to be for this request; and what it issues.
    fn process(&self, planned: Answer, call: &Call, now: Instant) -> (Answer, Option<Pair>) {
        let Some(mint) = planned.mint() else {
            return (planned, None);
        };
        let client = lock(&self.client);
        if client.is_some() && client.as_ref() != call.client() {
            let refusal = Answer::error("invalid_client").with_status(401);
            let refusal = refusal.header("www-authenticate", "Basic realm=\"token\"");
            return (refusal.instead_of(&planned), None);
        }
        let mut grants = lock(&self.grants);
        let issued = match call.refresh_token() {
            Some(token) => grants.refresh(token, mint, now),
            None => Some(grants.issue(mint, now)),
        };
        match issued {
            Some(pair) => (planned, Some(pair)),
            None => (Answer::error("invalid_grant").instead_of(&planned), None),
        }
    }
}
