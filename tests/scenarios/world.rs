//! What a scenario runs in: clocks, a server, a store, and the processes that hold handles.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    error::Error as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response, header};
use steadfast::{
    AccessToken, AuthError, AuthLayer, AuthStatus, Challenge, Generation, IssueError, MonitoredTokenSource,
    RefreshPolicy, Rejection, RetryCause, StaticToken, StatusEvent, StopReason, UnauthenticatedReason,
    oauth::RefreshTokenGrant, rotation::SharedLogin, sink_fn, store::GrantStore, testing::TestClock,
};
use tokio::{
    task::{JoinHandle, yield_now},
    time::{Instant, advance, sleep, timeout},
};

use crate::{
    endpoint::{Endpoint, Server},
    format::{Action, ApiRequest, Ask, Deed, Event, Given, Refuse, Script, Shift, Source, Start, StoreDeed},
    store::FaultyStore,
};

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) store: Arc<FaultyStore>,
    pub(crate) processes: BTreeMap<String, Process>,
    began: Instant,
    clock: TestClock,
    seed: u64,
    source: Source,
    policy: Arc<RefreshPolicy>,
    endpoints: Vec<Endpoint>,
    first_refresh_token: String,
}

/// One holder of a handle; several of them share a login through the store.
pub(crate) struct Process {
    /// `None` once every handle was dropped.
    pub(crate) tokens: Option<MonitoredTokenSource>,
    login: Option<SharedLogin>,
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

/// What a step brought.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) caller: Option<Answered>,
    /// What the refusal was answered, and whether the next caller would get the refused token all the same.
    pub(crate) refusal: Option<(Rejection, bool)>,
    pub(crate) response: Option<(u16, Vec<u64>)>,
}

pub(crate) struct Answered {
    pub(crate) takes: Duration,
    pub(crate) result: Result<u64, AuthError>,
}

impl World {
    pub(crate) async fn of(given: &Given, seed: u64) -> Result<Self, String> {
        let server = Server::new(given.rotation);
        let script = Script { answers: given.answers.clone(), always: given.always.clone() };
        let mut world = Self {
            endpoints: vec![server.endpoint(&script)],
            first_refresh_token: server.sign_in(),
            server,
            store: Arc::new(FaultyStore::new()),
            processes: BTreeMap::new(),
            began: Instant::now(),
            clock: TestClock::new(),
            seed,
            source: given.source,
            policy: Arc::new(given.policy.over_the_defaults()),
        };
        world.start(&Start { process: "a".into(), signed_in_anew: false, account: None }).await?;
        Ok(world)
    }

    pub(crate) async fn act(&mut self, process: &str, action: &Action) -> Result<Outcome, String> {
        let mut outcome = Outcome::default();
        match action {
            Action::Answers(answers) => self.endpoint().answers(answers),
            Action::Always(answer) => self.endpoint().always(answer.clone()),
            Action::Advance(span) => sleep(span.0).await,
            Action::AdvanceTo(instant) => {
                let ahead = instant.0.checked_sub(self.began.elapsed()).ok_or("that instant has passed")?;
                sleep(ahead).await;
            }
            Action::Suspend(span) => self.clock.suspend(span.0),
            Action::Oversleep(span) => advance(span.0).await,
            Action::SetWallClock(Shift::Forward(by)) => self.clock.step_forward(*by),
            Action::SetWallClock(Shift::Back(by)) => self.clock.step_back(*by),
            Action::Ask(ask) => outcome.caller = self.process(process)?.ask(ask).await?,
            Action::Answered(name) => outcome.caller = Some(self.process(process)?.answered(name).await?),
            Action::Refuse(refuse) => outcome.refusal = Some(self.process(process)?.refuse(refuse)?),
            Action::Accept(generation) => {
                let process = self.process(process)?;
                let generation = process.generation(*generation)?;
                process.tokens()?.accept(generation);
            }
            Action::Request(request) => outcome.response = Some(self.process(process)?.request(request).await?),
            Action::Do(Deed::Nudge) => self.process(process)?.tokens()?.retry_now(),
            Action::Do(Deed::ShutDown) => {
                let tokens = self.process(process)?.tokens()?.clone();
                tokens.shutdown().await;
            }
            Action::Do(Deed::DropEveryHandle) => self.process(process)?.tokens = None,
            Action::Do(Deed::Restore) => {
                let login = self.process(process)?.login.clone().ok_or("this process has no shared login")?;
                login.restore().await.map_err(|error| format!("the login could not be restored: {error}"))?;
            }
            Action::Reauthenticate(script) => {
                let endpoint = self.server.endpoint(script);
                let refresh_token = self.server.sign_in();
                self.endpoints.push(endpoint);
                let source = grant(self.endpoint(), &refresh_token);
                self.process(process)?.tokens()?.reauthenticate(source).map_err(|error| error.to_string())?;
            }
            Action::Start(start) => self.start(start).await?,
            Action::Store(StoreDeed::Fails(calls)) => self.store.fail(calls),
            Action::Store(StoreDeed::LosesItsContents(loses)) => {
                if *loses {
                    self.store.lose_contents();
                }
            }
            Action::Store(StoreDeed::LeasedElsewhereFor(span)) => {
                let (lease, span) = (self.store.memory().lease(DAY).await.map_err(|error| error.to_string())?, *span);
                tokio::spawn(async move {
                    sleep(span.0).await;
                    drop(lease);
                });
            }
        }
        self.settle().await?;
        Ok(outcome)
    }

    /// Lets everybody act who can, while time stands still, and looks at what is there.
    pub(crate) async fn settle(&mut self) -> Result<(), String> {
        for _ in 0..64 {
            yield_now().await;
        }
        self.processes.values_mut().try_for_each(Process::look)
    }

    pub(crate) fn process(&mut self, name: &str) -> Result<&mut Process, String> {
        self.processes.get_mut(name).ok_or_else(|| format!("there is no process {name:?}"))
    }

    pub(crate) fn unused_answers(&self) -> usize {
        self.endpoints.iter().map(Endpoint::unused).sum()
    }

    async fn start(&mut self, start: &Start) -> Result<(), String> {
        let refresh_token = if start.signed_in_anew { self.server.sign_in() } else { self.first_refresh_token.clone() };
        let grant = grant(self.endpoint(), &refresh_token);
        let (builder, login) = match self.source {
            Source::RefreshToken => (MonitoredTokenSource::builder(grant), None),
            Source::StaticToken => (MonitoredTokenSource::builder(StaticToken::new("at-fixed")), None),
            Source::SharedLogin => {
                let account = start.account.as_deref().unwrap_or("alice");
                let login = SharedLogin::builder(grant, Arc::clone(&self.store)).account(account).clock(&self.clock);
                let login = login.build();
                if start.signed_in_anew {
                    login.sign_in().await.map_err(|error| format!("nobody could sign in: {error}"))?;
                }
                (MonitoredTokenSource::builder(login.clone()), Some(login))
            }
        };
        let events = Arc::<Mutex<Vec<StatusEvent>>>::default();
        let heard = Arc::clone(&events);
        let builder = builder
            .name(start.process.clone())
            .policy(Arc::clone(&self.policy))
            .clock(&self.clock)
            .jitter_seed(self.seed.wrapping_add(self.processes.len() as u64))
            .sink(sink_fn(move |event| {
                heard.lock().unwrap().push(event);
                async { Ok(()) }
            }));
        let tokens = builder.spawn().map_err(|error| format!("{error}: {:?}", error.source()))?;
        let process = Process {
            tokens: Some(tokens),
            login,
            events,
            seen: BTreeMap::new(),
            asking: HashMap::new(),
            clock: self.clock.clone(),
        };
        self.processes.insert(start.process.clone(), process);
        Ok(())
    }

    /// Of the newest login.
    fn endpoint(&self) -> &Endpoint {
        self.endpoints.last().unwrap()
    }
}

impl Process {
    /// The events since the last look at them.
    pub(crate) fn take_events(&self) -> Vec<StatusEvent> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    fn tokens(&self) -> Result<&MonitoredTokenSource, String> {
        self.tokens.as_ref().ok_or_else(|| "its handles were dropped".to_owned())
    }

    fn look(&mut self) -> Result<(), String> {
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

    fn generation(&self, number: u64) -> Result<Generation, String> {
        self.seen.get(&number).map(AccessToken::generation).ok_or_else(|| format!("no token {number} was seen yet"))
    }

    async fn ask(&mut self, ask: &Ask) -> Result<Option<Answered>, String> {
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

    async fn answered(&mut self, name: &str) -> Result<Answered, String> {
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

    fn refuse(&self, refuse: &Refuse) -> Result<(Rejection, bool), String> {
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
    async fn request(&mut self, request: &ApiRequest) -> Result<(u16, Vec<u64>), String> {
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

/// The words of the format for what the library says.
pub(crate) fn in_words(status: &AuthStatus) -> String {
    let why = match status {
        AuthStatus::AuthRetrying(cause) => match cause {
            RetryCause::TokenEndpoint => "token endpoint",
            RetryCause::RejectedByResource => "rejected by resource",
            other => panic!("a cause that scenarios have no word for: {other:?}"),
        },
        AuthStatus::Unauthenticated(reason) => match reason {
            UnauthenticatedReason::Rejected(code) => code.as_str(),
            UnauthenticatedReason::CeilingExceeded(_) => "ceiling",
            UnauthenticatedReason::RejectedByResource => "rejected by resource",
            UnauthenticatedReason::Replaced => "replaced",
            other => panic!("a reason that scenarios have no word for: {other:?}"),
        },
        AuthStatus::Stopped(StopReason::ShutDown) => "shut down",
        AuthStatus::Stopped(StopReason::HandlesDropped) => "handles dropped",
        AuthStatus::Stopped(_) => "a defect",
        AuthStatus::Pending | AuthStatus::Running => return status.name().to_owned(),
        other => panic!("a status that scenarios have no word for: {other:?}"),
    };
    format!("{}: {why}", status.name().replace('_', " "))
}

pub(crate) fn event(event: &StatusEvent) -> Event {
    Event {
        from: in_words(&event.from),
        to: in_words(&event.to),
        serving: event.serving,
        unsaved: event.unsaved,
        remedy: event.remediation.clone(),
    }
}

pub(crate) fn kind(error: &AuthError) -> &'static str {
    match error {
        AuthError::Retrying(_) => "retrying",
        AuthError::StillRefreshing(_) => "still refreshing",
        AuthError::Unauthenticated(_) => "unauthenticated",
        AuthError::Stopped(_) => "stopped",
    }
}

/// Told by its address: callers share one failure.
fn cause(error: &AuthError) -> Option<*const IssueError> {
    error.source().and_then(|cause| cause.downcast_ref::<IssueError>()).map(std::ptr::from_ref)
}

fn grant(endpoint: &Endpoint, refresh_token: &str) -> RefreshTokenGrant {
    let endpoint = endpoint.clone();
    let http = move |request| {
        let endpoint = endpoint.clone();
        async move { endpoint.exchange(request).await }
    };
    RefreshTokenGrant::builder("https://login.example.com/token", "my-app", refresh_token).http(http).build().unwrap()
}

fn parse(challenge: &str) -> Result<Challenge, String> {
    challenge.parse().map_err(|_| format!("{challenge:?} is no challenge"))
}

const API: &str = "https://api.example.com/";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
