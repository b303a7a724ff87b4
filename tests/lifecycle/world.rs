//! One monitor, its source and its sink, all of which a test drives and looks into.

use std::{
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use steadfast::{
    AuthStatus, BoxError, Builder, Driver, IssueError, IssueRequest, IssuedToken, MonitoredTokenSource, OAuthCode,
    RefreshPolicy, StatusEvent, StatusSink, TokenSource, testing::TestClock,
};
use tokio::{task::JoinHandle, time::sleep};

pub(crate) struct World {
    pub(crate) tokens: MonitoredTokenSource,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) sink: Arc<Recorder>,
    pub(crate) clock: TestClock,
    pub(crate) driver: Option<JoinHandle<()>>,
    began: SystemTime,
}

impl World {
    /// A monitor with a sink that takes everything, on the current runtime.
    pub(crate) fn of(answer: impl Fn(u64) -> Answer + Send + Sync + 'static) -> Self {
        Self::with(answer, |_, _| Reaction::Take)
    }

    pub(crate) fn with(
        answer: impl Fn(u64) -> Answer + Send + Sync + 'static,
        react: impl Fn(u64, &StatusEvent) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        Self::built(answer, react, |builder| builder)
    }

    pub(crate) fn built(
        answer: impl Fn(u64) -> Answer + Send + Sync + 'static,
        react: impl Fn(u64, &StatusEvent) -> Reaction + Send + Sync + 'static,
        describe: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let (mut world, driver) = Self::pair(answer, react, describe);
        world.driver = Some(tokio::spawn(driver));
        world
    }

    pub(crate) fn pair(
        answer: impl Fn(u64) -> Answer + Send + Sync + 'static,
        react: impl Fn(u64, &StatusEvent) -> Reaction + Send + Sync + 'static,
        describe: impl FnOnce(Builder) -> Builder,
    ) -> (Self, Driver) {
        let clock = TestClock::new();
        let (upstream, sink) = (Upstream::answering(answer), Recorder::reacting(clock.clone(), react));
        let builder = MonitoredTokenSource::builder(Arc::clone(&upstream))
            .name("workload")
            .clock(&clock)
            .sink(Ear(Arc::clone(&sink)))
            .jitter_seed(7);
        let (tokens, driver) = describe(builder).pair().unwrap();
        let began = clock.wall();
        (Self { tokens, upstream, sink, clock, driver: None, began }, driver)
    }

    /// How long the world has been going on.
    pub(crate) fn age(&self) -> Duration {
        self.clock.wall().duration_since(self.began).unwrap()
    }
}

/// A source that answers its n-th call (from 1) as it is told.
pub(crate) struct Upstream {
    answer: Box<dyn Fn(u64) -> Answer + Send + Sync>,
    calls: AtomicU64,
    ended: AtomicU64,
    trapped: AtomicBool,
}

#[derive(Clone)]
pub(crate) enum Answer {
    /// A token of this lifetime, named after the call.
    Token(Option<Duration>),
    Broken,
    Rejected(&'static str),
    Never,
    Late(Duration, Box<Self>),
}

impl Answer {
    pub(crate) fn late(self, by: Duration) -> Self {
        Self::Late(by, Box::new(self))
    }
}

impl Upstream {
    pub(crate) fn answering(answer: impl Fn(u64) -> Answer + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            answer: Box::new(answer),
            calls: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            trapped: AtomicBool::new(false),
        })
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// How many calls have come to their end, and were not dropped before.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::SeqCst)
    }

    /// Whoever next asks whether the source can refresh finds it broken. The driver asks, too: its panic is ours.
    pub(crate) fn trap(&self) {
        hush();
        self.trapped.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl TokenSource for Upstream {
    async fn issue(&self, _: &IssueRequest) -> Result<IssuedToken, BoxError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let mut answer = (self.answer)(call);
        while let Answer::Late(by, then) = answer {
            sleep(by).await;
            answer = *then;
        }
        let result = match answer {
            Answer::Token(lifetime) => {
                let token = IssuedToken::bearer(format!("s3cret-{call}"));
                Ok(lifetime.map_or(token.clone(), |lifetime| token.expires_in(lifetime)))
            }
            Answer::Broken => Err("the endpoint is down".into()),
            Answer::Rejected(code) => Err(IssueError::rejected(OAuthCode::new(code).unwrap(), "said no").into()),
            Answer::Never | Answer::Late(..) => std::future::pending().await,
        };
        self.ended.fetch_add(1, Ordering::SeqCst);
        result
    }

    fn can_refresh(&self) -> bool {
        assert!(!self.trapped.load(Ordering::SeqCst), "{TRAP}");
        true
    }
}

/// A sink that keeps what it is told, and when.
pub(crate) struct Recorder {
    react: Box<React>,
    clock: TestClock,
    began: SystemTime,
    busy: AtomicBool,
    crowded: AtomicBool,
    offered: Mutex<Vec<(Duration, StatusEvent)>>,
    taken: Mutex<Vec<StatusEvent>>,
}

/// What the sink does with its n-th call (from 1).
type React = dyn Fn(u64, &StatusEvent) -> Reaction + Send + Sync;

#[derive(Clone, Debug)]
pub(crate) enum Reaction {
    Take,
    Refuse(&'static str),
    Panic,
    Hang,
    Slow(Duration),
}

impl Recorder {
    pub(crate) fn reacting(
        clock: TestClock,
        react: impl Fn(u64, &StatusEvent) -> Reaction + Send + Sync + 'static,
    ) -> Arc<Self> {
        let began = clock.wall();
        Arc::new(Self {
            react: Box::new(react),
            clock,
            began,
            busy: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
            offered: Mutex::default(),
            taken: Mutex::default(),
        })
    }

    /// Every event the sink was called with, however the call ended.
    pub(crate) fn offered(&self) -> Vec<StatusEvent> {
        self.offered.lock().unwrap().iter().map(|(_, event)| event.clone()).collect()
    }

    /// When the sink was called.
    pub(crate) fn calls(&self) -> Vec<Duration> {
        self.offered.lock().unwrap().iter().map(|(at, _)| *at).collect()
    }

    pub(crate) fn taken(&self) -> Vec<StatusEvent> {
        assert!(!self.crowded.load(Ordering::SeqCst), "two calls of the sink at once");
        self.taken.lock().unwrap().clone()
    }

    /// The taken events as `(from, to, serving)`, in the words of [`AuthStatus::name`].
    pub(crate) fn told(&self) -> Vec<(&'static str, &'static str, bool)> {
        self.taken().iter().map(|event| (event.from.name(), event.to.name(), event.serving)).collect()
    }

    pub(crate) fn last(&self) -> StatusEvent {
        self.taken().pop().unwrap()
    }

    async fn hear(&self, event: &StatusEvent) -> Result<(), BoxError> {
        let _turn = Turn::of(self);
        let call = {
            let mut offered = self.offered.lock().unwrap();
            offered.push((self.clock.wall().duration_since(self.began).unwrap(), event.clone()));
            offered.len() as u64
        };
        match (self.react)(call, event) {
            Reaction::Take => {}
            Reaction::Refuse(words) => return Err(words.into()),
            Reaction::Panic => {
                hush();
                panic!("{TRAP}");
            }
            Reaction::Hang => std::future::pending().await,
            Reaction::Slow(wait) => sleep(wait).await,
        }
        self.taken.lock().unwrap().push(event.clone());
        Ok(())
    }
}

/// One call of the sink. A second one beside it is a defect wherever it happens, so every look at what was taken checks it.
struct Turn<'a>(&'a Recorder);

impl<'a> Turn<'a> {
    fn of(recorder: &'a Recorder) -> Self {
        if recorder.busy.swap(true, Ordering::SeqCst) {
            recorder.crowded.store(true, Ordering::SeqCst);
        }
        Self(recorder)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::SeqCst);
    }
}

struct Ear(pub(crate) Arc<Recorder>);

#[async_trait]
impl StatusSink for Ear {
    async fn set_status(&self, event: &StatusEvent) -> Result<(), BoxError> {
        self.0.hear(event).await
    }
}

/// The rules that hold for whatever a sink has taken.
pub(crate) fn assert_in_order(taken: &[StatusEvent]) {
    let mut before = (AuthStatus::Pending, 0);
    for event in taken {
        assert_eq!(event.from, before.0, "{taken:#?}");
        assert!(event.sequence > before.1, "{taken:#?}");
        before = (event.to.clone(), event.sequence);
    }
}

/// Lets every task that can run do so.
pub(crate) async fn settled() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn hour() -> Answer {
    Answer::Token(Some(HOUR))
}

pub(crate) fn forever() -> Answer {
    Answer::Token(None)
}

/// The long window begins with the first failure, and nobody's demand starts a probe.
pub(crate) fn impatient() -> RefreshPolicy {
    RefreshPolicy { max_tries: 1, demand_probe_interval: None, ..RefreshPolicy::DEFAULT }
}

pub(crate) const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(crate) const HOUR: Duration = secs(3600);
pub(crate) const DAYS: Duration = secs(3 * 24 * 3600);

/// Panics that a test wants would fill its output.
pub(crate) fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.payload_as_str().is_none_or(|words| !words.contains(TRAP)) {
                usual(panic);
            }
        }));
    });
}

pub(crate) const TRAP: &str = "a panic that the test wants";
