//! The world around a monitor: a scripted source, a sink that takes notes, and clocks that the test drives.

#![allow(clippy::disallowed_methods, reason = "tests look at the virtual clock")]
#![allow(dead_code, reason = "a kit: not every module uses every tool")]

use std::{
    collections::VecDeque,
    error::Error,
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use steadfast::{
    AccessToken, AuthError, AuthStatus, BoxError, Builder, Challenge, Delivery, IssueError, IssueReason, IssueRequest,
    IssuedToken, Lifetime, MonitoredTokenSource, OAuthCode, RefreshPolicy, RetryCause, StatusEvent, TokenSource,
    UnauthenticatedReason, sink_fn, testing::TestClock,
};
use tokio::{
    task::{JoinHandle, yield_now},
    time::{Instant, sleep, timeout},
};

/// A monitor, and all that it touches.
pub(crate) struct World {
    pub(crate) tokens: MonitoredTokenSource,
    pub(crate) source: FakeSource,
    pub(crate) events: Events,
    pub(crate) clock: TestClock,
    began: Instant,
}

impl World {
    /// A monitor with the default policy.
    pub(crate) fn of(source: FakeSource) -> Self {
        Self::with(source, RefreshPolicy::default())
    }

    pub(crate) fn with(source: FakeSource, policy: RefreshPolicy) -> Self {
        let (clock, events) = (TestClock::new(), Events::default());
        let tokens = builder(&source, &events, &clock).policy(policy).spawn().unwrap();
        Self { tokens, source, events, clock, began: Instant::now() }
    }

    /// A monitor that holds a token, at rest.
    pub(crate) async fn holding(source: FakeSource) -> (Self, AccessToken) {
        let world = Self::of(source);
        let token = world.tokens.token().await.unwrap();
        quiet().await;
        world.forget();
        (world, token)
    }

    /// A monitor whose source failed until the short retry was over; it goes on failing.
    pub(crate) async fn in_outage(policy: RefreshPolicy) -> Self {
        let world = Self::with(FakeSource::always(failure()), policy);
        world.until(&AUTH_RETRYING).await;
        world.forget();
        world
    }

    /// Virtual time since the world began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) async fn until(&self, status: &AuthStatus) {
        let mut changes = self.tokens.subscribe();
        timeout(DAY * 60, changes.wait_for(|now| now == status)).await.expect("in time").expect("not dropped");
        quiet().await;
    }

    /// Forgets the calls and events so far.
    pub(crate) fn forget(&self) {
        self.source.take_calls();
        self.events.take();
    }

    /// What a caller gets who must not wait: time stands still.
    pub(crate) async fn token_at_once(&self) -> Result<AccessToken, AuthError> {
        at_once(self.tokens.token()).await
    }

    /// `count` callers at the same time.
    pub(crate) fn callers(&self, count: usize) -> Vec<JoinHandle<Result<AccessToken, AuthError>>> {
        (0..count)
            .map(|_| {
                let tokens = self.tokens.clone();
                tokio::spawn(async move { tokens.token().await })
            })
            .collect()
    }

    pub(crate) fn caller(&self) -> JoinHandle<Result<AccessToken, AuthError>> {
        self.callers(1).remove(0)
    }

    /// Somebody who waits for a token newer than this one.
    pub(crate) fn caller_after(&self, token: &AccessToken) -> JoinHandle<Result<AccessToken, AuthError>> {
        let (tokens, generation) = (self.tokens.clone(), token.generation());
        tokio::spawn(async move { tokens.token_after(generation).await })
    }
}

/// A source that answers as it was told to.
///
/// A call that nobody told it how to answer fails the test, and so do two calls at a time: when this is dropped, which is
/// why the monitor is given not this but what is [inside](Self::inside).
pub(crate) struct FakeSource {
    inside: Arc<Inside>,
}

pub(crate) struct Inside {
    name: &'static str,
    began: Instant,
    refreshes: bool,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    queue: VecDeque<Answer>,
    standing: Option<Answer>,
    calls: Vec<Call>,
    issued: usize,
    in_flight: usize,
    most_in_flight: usize,
    unexpected: usize,
}

/// One call of the source.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) reason: IssueReason,
    pub(crate) claims: Option<String>,
    /// Since the source was made.
    pub(crate) at: Duration,
}

impl FakeSource {
    /// Answers like this, one after the other; a call beyond the last is a defect.
    pub(crate) fn scripted(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::named("token", true, answers, None)
    }

    pub(crate) fn always(answer: Answer) -> Self {
        Self::named("token", true, [], Some(answer))
    }

    /// Its tokens are called differently from those of the other constructors.
    pub(crate) fn of_new_login(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::named("new-login", true, answers, None)
    }

    /// Says that asking again is no use.
    pub(crate) fn fixed() -> Self {
        Self::named("fixed", false, [eternal()], None)
    }

    /// These answers first, before what it would answer otherwise.
    pub(crate) fn first(&self, answers: impl IntoIterator<Item = Answer>) {
        self.book().queue.extend(answers);
    }

    /// What it answers once the script is over.
    pub(crate) fn standing(&self, answer: Answer) {
        self.book().standing = Some(answer);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.book().calls.clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.book().calls.len()
    }

    pub(crate) fn reasons(&self) -> Vec<IssueReason> {
        self.book().calls.iter().map(|call| call.reason).collect()
    }

    pub(crate) fn is_called(&self) -> bool {
        self.book().in_flight > 0
    }

    pub(crate) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.book().calls)
    }

    fn named(
        name: &'static str,
        refreshes: bool,
        answers: impl IntoIterator<Item = Answer>,
        standing: Option<Answer>,
    ) -> Self {
        let book = Book { queue: answers.into_iter().collect(), standing, ..Book::default() };
        Self { inside: Arc::new(Inside { name, began: Instant::now(), refreshes, book: Mutex::new(book) }) }
    }

    pub(crate) fn inside(&self) -> Arc<Inside> {
        Arc::clone(&self.inside)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.inside.book()
    }
}

impl Inside {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }
}

#[async_trait]
impl TokenSource for Inside {
    async fn issue(&self, request: &IssueRequest) -> Result<IssuedToken, BoxError> {
        let (answer, _call) = {
            let mut book = self.book();
            let claims = request.claims().map(str::to_owned);
            book.calls.push(Call { reason: request.reason(), claims, at: self.began.elapsed() });
            book.in_flight += 1;
            book.most_in_flight = book.most_in_flight.max(book.in_flight);
            let next = book.queue.pop_front();
            let answer = next.or_else(|| book.standing.clone());
            book.unexpected += usize::from(answer.is_none());
            (answer, InFlight(self))
        };
        let Answer { takes, what } = answer.expect("an unexpected call");
        if !takes.is_zero() {
            sleep(takes).await;
        }
        match what {
            What::Token(lifetime) => {
                let number = {
                    let mut book = self.book();
                    book.issued += 1;
                    book.issued
                };
                Ok(IssuedToken::bearer(format!("{}-{number}", self.name)).expires_in(lifetime))
            }
            What::Same(secret) => Ok(IssuedToken::bearer(secret)),
            What::Failure { retry_after } => {
                let error = IssueError::transient("503 from the token endpoint").with_delivery(Delivery::Answered);
                Err(error.with_retry_after(retry_after).into())
            }
            What::Rejection(code) => {
                Err(IssueError::rejected(OAuthCode::new(code).unwrap(), "400 from the token endpoint").into())
            }
            What::Foreign => Err("connection reset".into()),
            What::Panic => panic!("the source panics"),
        }
    }

    fn can_refresh(&self) -> bool {
        self.refreshes
    }
}

struct InFlight<'a>(&'a Inside);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.book().in_flight -= 1;
    }
}

impl Drop for FakeSource {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let book = self.book();
            assert_eq!(book.unexpected, 0, "calls of the source that nobody expected: {:?}", book.calls);
            assert!(book.most_in_flight <= 1, "{} calls at a time", book.most_in_flight);
        }
    }
}

/// What a source answers, and how long that takes.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    takes: Duration,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Token(Lifetime),
    Same(&'static str),
    Failure { retry_after: Option<Duration> },
    Rejection(&'static str),
    Foreign,
    Panic,
}

impl Answer {
    pub(crate) fn taking(mut self, takes: Duration) -> Self {
        self.takes = takes;
        self
    }

    const fn at_once(what: What) -> Self {
        Self { takes: Duration::ZERO, what }
    }
}

/// The next token of the source, good for this long.
pub(crate) fn token(lifetime: Duration) -> Answer {
    Answer::at_once(What::Token(lifetime.into()))
}

/// A token whose lifetime nobody knows.
pub(crate) fn eternal() -> Answer {
    token_for(Lifetime::Unknown)
}

pub(crate) fn token_for(lifetime: Lifetime) -> Answer {
    Answer::at_once(What::Token(lifetime))
}

/// A token of unknown lifetime with a secret of the test's choice.
pub(crate) fn secret(secret: &'static str) -> Answer {
    Answer::at_once(What::Same(secret))
}

/// A 503.
pub(crate) fn failure() -> Answer {
    Answer::at_once(What::Failure { retry_after: None })
}

/// A 503 with `Retry-After`.
pub(crate) fn busy_for(retry_after: Duration) -> Answer {
    Answer::at_once(What::Failure { retry_after: Some(retry_after) })
}

/// The authorization server's final word.
pub(crate) fn rejection(code: &'static str) -> Answer {
    Answer::at_once(What::Rejection(code))
}

/// An error that the monitor knows nothing about.
pub(crate) fn foreign() -> Answer {
    Answer::at_once(What::Foreign)
}

pub(crate) fn hang() -> Answer {
    failure().taking(DAY * 3650)
}

pub(crate) fn panics() -> Answer {
    Answer::at_once(What::Panic)
}

/// What the sink was told.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<StatusEvent>>>);

impl Events {
    pub(crate) fn take(&self) -> Vec<StatusEvent> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// The statuses, with whether a token was being served; forgets them.
    pub(crate) fn told(&self) -> Vec<(AuthStatus, bool)> {
        self.take().into_iter().map(|event| (event.to, event.serving)).collect()
    }
}

pub(crate) fn builder(source: &FakeSource, events: &Events, clock: &TestClock) -> Builder {
    let events = events.clone();
    let sink = sink_fn(move |event| {
        events.0.lock().unwrap().push(event);
        async { Ok(()) }
    });
    MonitoredTokenSource::builder(source.inside()).sink(sink).clock(clock).jitter_seed(7)
}

/// Lets everybody act who can, while time stands still.
pub(crate) async fn quiet() {
    for _ in 0..64 {
        yield_now().await;
    }
}

/// What comes of `future`, which must not take any time.
pub(crate) async fn at_once<F: Future>(future: F) -> F::Output {
    let before = Instant::now();
    let output = timeout(Duration::from_millis(1), future).await.expect("an answer at once");
    assert_eq!(Instant::now(), before, "an answer at once");
    output
}

pub(crate) async fn all<T>(tasks: Vec<JoinHandle<T>>) -> Vec<T> {
    join_all(tasks).await.into_iter().map(Result::unwrap).collect()
}

/// The failure behind an error; what two errors share is told by the pointer.
pub(crate) fn cause(error: &AuthError) -> &IssueError {
    let source = error.source().expect("a cause");
    source.downcast_ref().expect("the failure of an attempt")
}

pub(crate) fn challenge(text: &str) -> Challenge {
    text.parse().unwrap()
}

pub(crate) fn invalid_token() -> Challenge {
    challenge(r#"Bearer error="invalid_token""#)
}

/// A challenge for claims; these stand for `{"access_token":{}}`.
pub(crate) fn claims_needed() -> Challenge {
    challenge(r#"Bearer error="insufficient_claims", claims="eyJhY2Nlc3NfdG9rZW4iOnt9fQ==""#)
}

pub(crate) fn rejected(code: &str) -> AuthStatus {
    AuthStatus::Unauthenticated(UnauthenticatedReason::Rejected(OAuthCode::new(code).unwrap()))
}

pub(crate) const CLAIMS: &str = r#"{"access_token":{}}"#;
pub(crate) const AUTH_RETRYING: AuthStatus = AuthStatus::AuthRetrying(RetryCause::TokenEndpoint);
pub(crate) const RESOURCE_REFUSES: AuthStatus = AuthStatus::AuthRetrying(RetryCause::RejectedByResource);
pub(crate) const FIXED_TOKEN_REFUSED: AuthStatus =
    AuthStatus::Unauthenticated(UnauthenticatedReason::RejectedByResource);
pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
