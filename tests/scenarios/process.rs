//! One process of a scenario: its handle, its callers, its requests, and what its sink was told.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    error::Error as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response, header};
use steadfast::{
    AccessToken, AuthError, AuthLayer, Challenge, Generation, IssueError, MonitoredTokenSource, Rejection, StatusEvent,
    rotation::SharedLogin, testing::TestClock,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::format::{ApiRequest, Ask, Refuse};
/// One holder of a handle; several of them share a login through the store.
pub(crate) struct Process {
    /// `None` once every handle was dropped.
    pub(crate) tokens: Option<MonitoredTokenSource>,
    pub(crate) login: Option<SharedLogin>,
    events: Arc<Mutex<Vec<StatusEvent>>>,
    /// Each token seen so far, by its generation.
    seen: BTreeMap<u64, AccessToken>,
    asking: HashMap<String, Asking>,
    clock: TestClock,
}

struct Asking {
    since: Instant,
    callers: Vec<JoinHandle<(Result<AccessToken, AuthError>, Instant)>>,
}

pub(crate) struct Answered {
    pub(crate) takes: Duration,
    pub(crate) result: Result<u64, AuthError>,
}

impl Process {
    pub(crate) fn new(
        tokens: MonitoredTokenSource,
        login: Option<SharedLogin>,
        events: Arc<Mutex<Vec<StatusEvent>>>,
        clock: &TestClock,
    ) -> Self {
        let (seen, asking) = (BTreeMap::new(), HashMap::new());
        Self { tokens: Some(tokens), login, events, seen, asking, clock: clock.clone() }
    }

    /// The events since the last look at them.
    pub(crate) fn take_events(&self) -> Vec<StatusEvent> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    pub(crate) fn tokens(&self) -> Result<&MonitoredTokenSource, String> {
        self.tokens.as_ref().ok_or_else(|| "its handles were dropped".to_owned())
    }

    pub(crate) fn look(&mut self) -> Result<(), String> {
        match self.tokens.as_ref().and_then(|tokens| tokens.try_token().ok()) {
            Some(token) => self.keep(token),
            None => Ok(()),
        }
    }

    /// Whatever is handed out has to be good for a while, and no older than what was handed out before.
    fn keep(&mut self, token: AccessToken) -> Result<(), String> {
        let generation = token.generation().get();
        if token.expires_at().is_some_and(|end| end <= self.clock.wall()) {
            return Err(format!("token {generation} is handed out after its end"));
        }
        if self.seen.last_key_value().is_some_and(|(newest, _)| generation < *newest) {
            return Err(format!("token {generation} is handed out after a newer one"));
        }
        self.seen.insert(generation, token);
        Ok(())
    }

    pub(crate) fn generation(&self, number: u64) -> Result<Generation, String> {
        self.seen.get(&number).map(AccessToken::generation).ok_or_else(|| format!("no token {number} was seen yet"))
    }

    pub(crate) async fn ask(&mut self, ask: &Ask) -> Result<Option<Answered>, String> {
        let after = ask.after.map(|number| self.generation(number)).transpose()?;
        let tokens = self.tokens()?.clone();
        let callers = (0..ask.callers).map(|_| {
            let tokens = tokens.clone();
            tokio::spawn(async move {
                let answer = match after {
                    Some(generation) => tokens.token_after(generation).await,
                    None => tokens.token().await,
                };
                (answer, Instant::now())
            })
        });
        let asking = Asking { since: Instant::now(), callers: callers.collect() };
        match &ask.name {
            Some(name) => {
                self.asking.insert(name.clone(), asking);
                Ok(None)
            }
            None => self.collect(asking).await.map(Some),
        }
    }

    pub(crate) async fn answered(&mut self, name: &str) -> Result<Answered, String> {
        let asking = self.asking.remove(name).ok_or_else(|| format!("nobody is asking as {name:?}"))?;
        if asking.callers.iter().any(|caller| !caller.is_finished()) {
            return Err(format!("{name:?} is still waiting"));
        }
        self.collect(asking).await
    }

    /// The one answer that all of them got, at the same instant.
    async fn collect(&mut self, asking: Asking) -> Result<Answered, String> {
        let mut answers = Vec::new();
        for caller in asking.callers {
            let answer = timeout(DAY, caller).await.map_err(|_| "a caller is not answered for a day")?;
            answers.push(answer.map_err(|_| "a caller panicked")?);
        }
        let same = |one: &AuthError, other: &AuthError| {
            std::mem::discriminant(one) == std::mem::discriminant(other) && cause(one) == cause(other)
        };
        let (first, at) = answers.first().ok_or("nobody asks")?;
        for (answer, then) in &answers {
            let is_same = match (first, answer) {
                (Ok(one), Ok(other)) => one.generation() == other.generation(),
                (Err(one), Err(other)) => same(one, other),
                (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
            };
            if !is_same || then != at {
                return Err(format!("callers who waited together got different answers: {first:?}, {answer:?}"));
            }
        }
        if let Ok(token) = first {
            self.keep(token.clone())?;
        }
        let result = first.as_ref().map(|token| token.generation().get()).map_err(AuthError::clone);
        Ok(Answered { takes: *at - asking.since, result })
    }

    pub(crate) fn refuse(&self, refuse: &Refuse) -> Result<(Rejection, bool), String> {
        let generation = self.generation(refuse.generation)?;
        let challenge = refuse.challenge.as_deref().map(parse).transpose()?;
        let mut answers = Vec::new();
        for _ in 0..refuse.times {
            answers.push(self.tokens()?.reject(generation, challenge.as_ref()));
        }
        let first = *answers.first().ok_or("nothing was refused")?;
        match answers.iter().find(|answer| **answer != first) {
            Some(other) => Err(format!("the same refusal was answered {first:?} and {other:?}")),
            // Nobody else has run since.
            None => Ok((first, self.tokens()?.snapshot().generation == Some(generation))),
        }
    }

    /// A request through the layer, to an API that answers as it is told.
    pub(crate) async fn request(&mut self, request: &ApiRequest) -> Result<(u16, Vec<u64>), String> {
        let sent: Arc<Mutex<Vec<String>>> = Arc::default();
        let answers: Arc<Mutex<VecDeque<_>>> = Arc::new(Mutex::new(request.answers.iter().cloned().collect()));
        let api = {
            let (sent, answers) = (Arc::clone(&sent), Arc::clone(&answers));
            tower::service_fn(move |request: Request<String>| {
                let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
                sent.lock().unwrap().push(authorization.unwrap_or_default().to_owned());
                let answer = answers.lock().unwrap().pop_front();
                async move {
                    let Some(answer) = answer else { return Err("a request too many") };
                    let mut response = Response::builder().status(answer.status);
                    if let Some(challenge) = answer.challenge {
                        response = response.header(header::WWW_AUTHENTICATE, challenge);
                    }
                    Ok(response.body(String::new()).unwrap())
                }
            })
        };
        let layer = AuthLayer::new(self.tokens()?.clone(), API).map_err(|error| error.to_string())?;
        let message = Request::get(API).body(String::new()).unwrap();
        let response = if request.resend {
            layer.replay_once().wrap(api).send(message).await
        } else {
            layer.wrap(api).send(message).await
        };
        let response = response.map_err(|error| format!("{error}: {:?}", error.source()))?;
        if !answers.lock().unwrap().is_empty() {
            return Err("the API had more answers than it was asked for".into());
        }
        self.look()?;
        let named = |authorization: &String| {
            let token = self.seen.values().find(|token| authorization == &format!("Bearer {}", token.secret()));
            token.map(|token| token.generation().get()).ok_or("a token that nobody has seen")
        };
        let sent_with = sent.lock().unwrap().iter().map(named).collect::<Result<_, _>>()?;
        Ok((response.status().as_u16(), sent_with))
    }
}

/// Told by its address: callers share one failure.
fn cause(error: &AuthError) -> Option<*const IssueError> {
    error.source().and_then(|cause| cause.downcast_ref::<IssueError>()).map(std::ptr::from_ref)
}

fn parse(challenge: &str) -> Result<Challenge, String> {
    challenge.parse().map_err(|_| format!("{challenge:?} is no challenge"))
}

const API: &str = "https://api.example.com/";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
