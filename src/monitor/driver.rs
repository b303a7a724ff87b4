//! The driver: the only writer of the state, and the only place that spawns attempts.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::HeaderValue;
use tokio::{
    task::{JoinError, JoinHandle, coop::consume_budget},
    time::{Sleep, sleep_until, timeout},
};
use tracing::Instrument;

use super::{
    clock::{Watch, wall_time},
    report::Report,
    shared::{Inbox, Letters, Shared, Word},
    view::View,
};
use crate::{
    AccessToken, Delivery, Generation, IssueError, IssueReason, IssueRequest, IssuedToken, Lifetime, StopReason,
    TokenSource,
    classify::Classifier,
    machine::{Adopted, EXPIRED_ON_ARRIVAL, Event, Machine, Objection, Outlook, Run, Step},
    telemetry::REFRESH,
    token::Term,
};

/// Everything the driver task owns. It is an *argument* of the driver's future, so dropping that future at any time, polled
/// or not, closes the gate.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    machine: Machine,
    source: Arc<dyn TokenSource>,
    classifier: Classifier,
    watch: Watch,
    /// Boxed: almost always there is none.
    attempt: Option<Box<Attempt>>,
    /// The last token adopted, servable or not.
    token: Option<AccessToken>,
    /// Claims that the next token must have been asked for with.
    claims: Option<Arc<String>>,
    cause: Option<Arc<IssueError>>,
    unsaved: bool,
    outcomes: u16,
    /// Attempts in a row that brought no token.
    failures: u32,
    epoch: u32,
    /// It is logged that tokens come with a lifetime that is none.
    odd_lifetimes: bool,
    /// News that was not published, for a handle had opened another run by then.
    owed: bool,
    /// None of our code runs, so a panic that drops us is somebody else's.
    resting: bool,
}

struct Attempt {
    run: Run,
    report: Report,
    /// The claims it was told of.
    asked: Option<Arc<String>>,
    task: JoinHandle<Outcome>,
}

type Outcome = Result<IssuedToken, IssueError>;

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        source: Arc<dyn TokenSource>,
        classifier: Classifier,
        jitter_seed: u64,
    ) -> Box<Self> {
        let policy = Arc::clone(&shared.policy);
        Box::new(Self {
            machine: Machine::new(policy, jitter_seed, source.can_refresh(), shared.clock.now()),
            watch: Watch::starting(&shared.clock),
            shared,
            source,
            classifier,
            attempt: None,
            token: None,
            claims: None,
            cause: None,
            unsaved: false,
            outcomes: 0,
            failures: 0,
            epoch: 0,
            odd_lifetimes: false,
            owed: false,
            resting: true,
        })
    }

    /// Boxed, and not an `async fn`: that would keep its argument twice, as it came and as it is used.
    #[expect(clippy::manual_async_fn, reason = "see above")]
    pub(crate) fn drive(mut self: Box<Self>) -> impl Future<Output = ()> + Send {
        async move {
            self.resting = false;
            self.shared.begin();
            self.step(Event::Start);
            while !self.has_stopped() {
                // Made here, where the panic of a runtime without timers counts as ours.
                let mut due = pin!(self.next_look().and_then(|look| self.shared.clock.instant(look)).map(sleep_until));
                self.resting = true;
                // Whoever asks without end keeps us busy, but not the runtime.
                consume_budget().await;
                let landed = poll_fn(|context| self.poll_next(due.as_mut(), context)).await;
                self.resting = false;
                let landed = landed.and_then(|result| Some((self.attempt.take()?, result)));
                let planned = due.as_ref().as_pin_ref().map(|due| due.deadline());
                if self.watch.jumped(&self.shared.clock, planned, self.shared.policy.clock_check) {
                    self.step(Event::ClockJumped);
                }
                // Before the result: a reauthentication that handles have already seen makes it another run's.
                self.read_inbox();
                match landed {
                    Some((attempt, result)) => self.landed(*attempt, result),
                    None => self.step(Event::DeadlineReached),
                }
            }
            // Boxed, for it needs a timer of its own, and only once.
            Box::pin(self.wind_up()).await;
        }
    }

    /// What ends a rest: the attempt has ended, a handle has left word, or the time has come.
    fn poll_next(
        &mut self,
        due: Pin<&mut Option<Sleep>>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Outcome, JoinError>>> {
        // First, so that handles which ask without end cannot hold up a token.
        if let Some(attempt) = &mut self.attempt
            && let Poll::Ready(outcome) = Pin::new(&mut attempt.task).poll(context)
        {
            return Poll::Ready(Some(outcome));
        }
        let is_due = |due: Pin<&mut Sleep>, context: &mut Context<'_>| due.poll(context).is_ready();
        if self.shared.has_word(context) || due.as_pin_mut().is_some_and(|due| is_due(due, context)) {
            return Poll::Ready(None);
        }
        Poll::Pending
    }

    /// The gate closed elsewhere, in whichever task had the reason; the machine only learns of it.
    fn has_stopped(&mut self) -> bool {
        let reason = self.shared.stop_reason();
        if let Some(reason) = reason {
            self.step(Event::ShutDown(reason));
        }
        reason.is_some()
    }

    /// Both clocks are looked at this often while anything is due; with nothing due there is nothing to be late for.
    fn next_look(&self) -> Option<Duration> {
        let due = self.machine.deadline().map(|deadline| {
            let now = self.shared.clock.now();
            now.mono.saturating_add(deadline.remaining(now).min(self.shared.policy.clock_check))
        });
        let in_flight = self.attempt.is_some();
        due.or_else(|| in_flight.then(|| self.shared.clock.now().mono.saturating_add(self.shared.policy.clock_check)))
    }

    fn read_inbox(&mut self) {
        let (inbox, epoch) = self.shared.take();
        let Inbox { demanded, nudged, letters, .. } = inbox;
        let Letters { words, reauthenticated } = letters.map(|letters| *letters).unwrap_or_default();
        for word in words {
            match word {
                Word::Accepted(generation) => self.step(Event::Accepted(generation)),
                Word::Rejected { generation, objection, claims } => self.rejected(generation, objection, claims),
            }
        }
        if nudged {
            self.step(Event::Nudged);
        }
        if demanded {
            self.step(Event::Demanded);
        }
        if let Some(source) = reauthenticated {
            let can_refresh = source.can_refresh();
            // An attempt of the old source goes on to its end, unheard: it may be saving a rotated refresh token.
            (self.source, self.epoch, self.attempt) = (source, epoch, None);
            (self.token, self.claims, self.cause) = (None, None, None);
            (self.unsaved, self.failures) = (false, 0);
            self.step(Event::Reauthenticated { can_refresh });
        }
        self.shared.read();
    }

    /// Wanted claims take one more attempt, unless the one in flight was told of these very claims.
    fn rejected(&mut self, generation: Generation, mut objection: Objection, claims: Option<String>) {
        let asked = self.attempt.as_ref().and_then(|attempt| attempt.asked.as_deref());
        if claims.is_some() && claims.as_ref() == asked {
            if objection == Objection::Claims {
                objection = Objection::Suspect;
            }
        } else if claims.is_some() {
            self.claims = claims.map(Arc::new);
            let in_flight = matches!(self.machine.outlook(), Outlook::InFlight | Outlook::FailFast(None));
            if in_flight && objection == Objection::Definite {
                // First the claims: nothing that is said of a token counts once it has been withdrawn.
                self.step(Event::Rejected { generation, objection: Objection::Claims });
            }
        }
        self.step(Event::Rejected { generation, objection });
    }

    fn landed(&mut self, attempt: Attempt, result: Result<Outcome, JoinError>) {
        let Attempt { run, report, asked, task: _ } = attempt;
        if self.machine.open_run() != Some(run) {
            return;
        }
        let result = result.unwrap_or_else(|error| {
            let rule = if error.is_panic() { "source-panicked" } else { "attempt-cancelled" };
            Err(IssueError::of_rule(Delivery::Unknown, rule))
        });
        match result.and_then(|issued| self.usable(issued)) {
            Ok((issued, authorization)) => self.issued(run, report, asked, issued, authorization),
            Err(error) => self.failed(run, report, error),
        }
    }

    /// What can be served as far as one can see without a clock.
    fn usable(&self, issued: IssuedToken) -> Result<(IssuedToken, HeaderValue), IssueError> {
        let unusable = |rule| IssueError::of_rule(Delivery::Answered, rule);
        let authorization = issued.authorization().ok_or_else(|| unusable("token-not-a-header-value"))?;
        // Only a source that can do better is at fault for bringing the same token again.
        let refused = self.token.as_ref().filter(|token| token.is_refused() && self.source.can_refresh());
        if refused.is_some_and(|token| token.secret() == issued.expose_secret()) {
            return Err(unusable("token-already-refused"));
        }
        Ok((issued, authorization))
    }

    fn issued(
        &mut self,
        run: Run,
        report: Report,
        asked: Option<Arc<String>>,
        issued: IssuedToken,
        authorization: HeaderValue,
    ) {
        let is_odd = issued.lifetime() == Lifetime::Malformed;
        if is_odd && !self.odd_lifetimes {
            tracing::warn!(
                target: REFRESH,
                workload = &*self.shared.name,
                "a token came with a lifetime that is none: taken as unknown"
            );
        }
        self.odd_lifetimes = is_odd;
        let (sent, now) = (report.sent, self.shared.clock.now());
        let lifetime = issued.lifetime().counted_from(sent.wall).or(self.shared.policy.assumed_lifetime);
        let step = self.machine.handle(Event::Issued { run, lifetime, sent }, now);
        let Some(Adopted { generation, ends }) = step.adopted else {
            return self.noted(report, IssueError::of_rule(Delivery::Answered, EXPIRED_ON_ARRIVAL), step);
        };
        let term = Term {
            generation,
            expires_at: lifetime.and_then(|lifetime| wall_time(sent.wall.saturating_add(lifetime))),
            serve_until: ends.and_then(|ends| wall_time(ends.wall())),
            settled_from: now.mono.saturating_add(self.shared.policy.settle),
        };
        self.unsaved = issued.is_unsaved();
        let token = AccessToken::new(issued, authorization, term);
        report.issued(&self.shared, &token, lifetime, self.machine.next_attempt());
        self.token = Some(token);
        (self.cause, self.failures) = (None, 0);
        self.outcomes = self.outcomes.wrapping_add(1);
        // Others may have been wanted in the meantime.
        self.claims.take_if(|claims| asked.as_ref() == Some(claims));
        self.carry_out(step);
    }

    fn failed(&mut self, run: Run, report: Report, error: IssueError) {
        let step = self.machine.handle(Event::Failed { run, error: &error }, self.shared.clock.now());
        self.noted(report, error, step);
    }

    fn noted(&mut self, report: Report, error: IssueError, step: Step) {
        report.failed(&self.shared, &error, self.machine.next_attempt());
        self.failures = self.failures.saturating_add(1);
        self.cause = Some(Arc::new(error));
        self.outcomes = self.outcomes.wrapping_add(1);
        self.carry_out(step);
    }

    fn step(&mut self, event: Event<'_>) {
        let step = self.machine.handle(event, self.shared.clock.now());
        self.carry_out(step);
    }

    /// Shows the outcome first: the gate has to stand open for the run before its attempt asks.
    fn carry_out(&mut self, step: Step) {
        let Step { start, publish, adopted: _ } = step;
        let view = View {
            token: self.machine.serving().and(self.token.clone()),
            status: self.machine.status(),
            outlook: self.machine.outlook(),
            next_attempt: self.machine.next_attempt(),
            latest: self.machine.latest(),
            forced: self.machine.forced_budget(),
            can_refresh: self.source.can_refresh(),
            outcomes: self.outcomes,
            since: 0,
            cause: self.cause.clone(),
            unsaved: self.unsaved,
        };
        let news = publish.is_some() || self.owed;
        let current = self.shared.publish(view, self.machine.open_run(), self.epoch, news);
        self.owed = news && !current;
        if let (true, Some(reason), Some(run)) = (current, start, self.machine.open_run()) {
            self.start(reason, run);
        }
    }

    fn start(&mut self, reason: IssueReason, run: Run) {
        let report = Report::beginning(&self.shared, reason, self.failures.saturating_add(1));
        let gate = Arc::clone(&self.shared);
        let mut request = IssueRequest::new(reason)
            .under(Arc::clone(&self.shared.policy))
            .cancelled_when(move || !gate.may_start(run));
        if let Some(claims) = &self.claims {
            request = request.with_claims(claims.as_str());
        }
        let (shared, source, classifier) =
            (Arc::clone(&self.shared), Arc::clone(&self.source), self.classifier.clone());
        let span = report.span.clone();
        let attempt = async move {
            if !shared.may_start(run) {
                return Err(IssueError::cancelled());
            }
            let limit = shared.policy.attempt_timeout.saturating_add(source.extra_time());
            match timeout(limit, source.issue(&request)).await {
                Ok(result) => result.map_err(|error| {
                    IssueError::from_source(error, |foreign| {
                        let classified = classifier.classify(foreign);
                        (classified.rule(), classified.retry_after())
                    })
                }),
                Err(_) => Err(IssueError::of_rule(Delivery::Unknown, "attempt-timeout")),
            }
        };
        let task = tokio::spawn(attempt.instrument(span));
        self.attempt = Some(Box::new(Attempt { run, report, asked: self.claims.clone(), task }));
    }

    /// The attempt in flight may carry a rotated refresh token: it is not cut off. Its own time limit ends it.
    async fn wind_up(&mut self) {
        if let Some(attempt) = &mut self.attempt {
            let _ = timeout(self.shared.policy.attempt_timeout, &mut attempt.task).await;
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let panicked = std::thread::panicking() && !self.resting;
        self.shared.stop(if panicked { StopReason::DriverPanicked } else { StopReason::DriverDropped });
        self.shared.end();
    }
}
