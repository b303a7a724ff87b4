//! What a scenario runs in: clocks, a server, a store, and the processes that hold handles.

use std::{
    collections::BTreeMap,
    error::Error as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use steadfast::{
    MonitoredTokenSource, RefreshPolicy, Rejection, StaticToken, StatusEvent, oauth::RefreshTokenGrant,
    rotation::SharedLogin, sink_fn, store::GrantStore, testing::TestClock,
};
use tokio::{
    task::yield_now,
    time::{Instant, advance, sleep},
};

use crate::{
    endpoint::{Endpoint, Server},
    format::{Action, Deed, Given, Script, Shift, Source, Start, StoreDeed},
    process::{Answered, Process},
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

/// What a step brought.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) caller: Option<Answered>,
    /// What the refusal was answered, and whether the next caller would get the refused token all the same.
    pub(crate) refusal: Option<(Rejection, bool)>,
    pub(crate) response: Option<(u16, Vec<u64>)>,
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
        let process = Process::new(tokens, login, events, &self.clock);
        self.processes.insert(start.process.clone(), process);
        Ok(())
    }

    /// Of the newest login.
    fn endpoint(&self) -> &Endpoint {
        self.endpoints.last().unwrap()
    }
}

fn grant(endpoint: &Endpoint, refresh_token: &str) -> RefreshTokenGrant {
    let endpoint = endpoint.clone();
    let http = move |request| {
        let endpoint = endpoint.clone();
        async move { endpoint.exchange(request).await }
    };
    RefreshTokenGrant::builder("https://login.example.com/token", "my-app", refresh_token).http(http).build().unwrap()
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
