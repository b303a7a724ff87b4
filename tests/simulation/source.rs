//! A token source under observation: what one process's monitor asks of it, and what it gets.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use steadfast::{
    BoxError, Delivery, IssueError, IssueReason, IssueRequest, IssuedToken, RefreshPolicy, TokenSource, Verdict,
    WeakTokenSource, testing::TestClock,
};

use crate::{
    TRAP,
    idp::{Idp, number_of},
    nature::{Nature, locked},
    promises::{self, Token},
    store::SimStore,
    weather::Source,
    wire::Cables,
};

/// What is known of one process's attempts.
pub(crate) struct Record {
    pub(crate) nature: Arc<Nature>,
    pub(crate) policy: Arc<RefreshPolicy>,
    pub(crate) process: usize,
    /// Each process is on a machine of its own, whose clock is set by people.
    pub(crate) clock: TestClock,
    pub(crate) tokens: OnceLock<WeakTokenSource>,
    pub(crate) pages: Mutex<Pages>,
}

#[derive(Default)]
pub(crate) struct Pages {
    /// Which source counts: grows with each reauthentication.
    pub(crate) epoch: usize,
    pub(crate) account: String,
    /// The run has ended.
    pub(crate) closed: Option<&'static str>,
    in_flight: usize,
    last: Option<Ended>,
    /// By secret.
    pub(crate) tokens: BTreeMap<String, Token>,
    newest: Option<String>,
    /// Tokens that the resource server has refused, and those that a refresh was forced for.
    pub(crate) refused: BTreeSet<String>,
    pub(crate) accepted: BTreeSet<String>,
    /// Tokens that were definitely rejected: not to be seen again.
    pub(crate) withdrawn: BTreeSet<String>,
    /// Tokens that claims were wanted for, and not asked for yet.
    pub(crate) claims: BTreeSet<String>,
    /// The authorization server has said its last word.
    condemned: bool,
    forced: BTreeSet<String>,
    forced_at: Vec<Duration>,
    /// What allows more attempts than an outage does by itself: nudges, jumps of the clock, new credentials, successes.
    pub(crate) excuses: VecDeque<Duration>,
    attempts: VecDeque<Duration>,
    /// No attempt before this, on either clock, but a nudged one.
    retry_after: Option<(Duration, Duration)>,
    pub(crate) reasons: BTreeSet<&'static str>,
}

/// The end of an attempt, on both clocks.
#[derive(Clone, Copy)]
struct Ended {
    mono: Duration,
    wall: Duration,
    succeeded: bool,
}

impl Record {
    pub(crate) fn new(nature: &Arc<Nature>, policy: &Arc<RefreshPolicy>, process: usize) -> Arc<Self> {
        let (nature, policy) = (Arc::clone(nature), Arc::clone(policy));
        let clock = TestClock::new();
        Arc::new(Self { nature, policy, process, clock, tokens: OnceLock::new(), pages: Mutex::default() })
    }

    /// The wall clock, since the Unix epoch.
    pub(crate) fn wall(&self) -> Duration {
        self.clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    /// More attempts than before have a reason.
    pub(crate) fn excuse(&self) {
        locked(&self.pages).excuses.push_back(self.nature.now());
    }

    /// New credentials: what was known of the old ones counts no more.
    pub(crate) fn begins_anew(&self, account: &str) {
        let mut pages = locked(&self.pages);
        let (epoch, account) = (pages.epoch + 1, account.to_owned());
        let Pages { tokens, excuses, attempts, refused, accepted, reasons, in_flight: _, .. } =
            std::mem::take(&mut *pages);
        *pages = Pages { epoch, tokens, excuses, attempts, refused, accepted, reasons, account, ..Pages::default() };
        pages.excuses.push_back(self.nature.now());
    }

    pub(crate) fn close(&self, why: &'static str) {
        locked(&self.pages).closed.get_or_insert(why);
    }

    /// Whether the newest token came without its refresh token being saved.
    pub(crate) fn is_unsaved(&self) -> bool {
        let pages = locked(&self.pages);
        pages.newest.as_ref().and_then(|newest| pages.tokens.get(newest)).is_some_and(|token| token.unsaved)
    }

    pub(crate) fn token(&self, secret: &str) -> Option<Token> {
        locked(&self.pages).tokens.get(secret).cloned()
    }
}

/// A source of one epoch.
pub(crate) struct Watched {
    pub(crate) inner: Box<dyn TokenSource>,
    pub(crate) record: Arc<Record>,
    pub(crate) epoch: usize,
    pub(crate) client: usize,
    pub(crate) cables: Arc<Cables>,
    pub(crate) idp: Arc<Idp>,
    /// Where the refresh tokens are kept, if anywhere.
    pub(crate) store: Option<SimStore>,
}

#[async_trait]
impl TokenSource for Watched {
    async fn issue(&self, request: &IssueRequest) -> Result<IssuedToken, BoxError> {
        let nature = &self.record.nature;
        let began = (nature.now(), self.record.wall());
        let mut attempt = self.begins(request, began);
        if nature.weather().source == Source::PanicsBefore {
            attempt.cut = false;
            panic!("{TRAP}");
        }
        let result = self.inner.issue(request).await;
        if nature.weather().source == Source::PanicsAfter {
            attempt.cut = false;
            panic!("{TRAP}");
        }
        match &result {
            Ok(issued) => self.issued(issued, began),
            Err(error) => self.failed(error),
        }
        attempt.cut = false;
        attempt.succeeded = result.as_ref().is_ok_and(|issued| !self.is_over(issued, began));
        result
    }

    fn can_refresh(&self) -> bool {
        self.inner.can_refresh()
    }

    fn extra_time(&self) -> Duration {
        self.inner.extra_time()
    }
}

impl Watched {
    fn begins(&self, request: &IssueRequest, (mono, wall): (Duration, Duration)) -> Attempt<'_> {
        let (record, nature) = (&self.record, &self.record.nature);
        nature.note(format_args!(
            "process {} attempts: {}{}",
            record.process,
            request.reason(),
            if request.claims().is_some() { ", with claims" } else { "" }
        ));
        let mut pages = locked(&record.pages);
        let current = pages.epoch == self.epoch;
        let closed = if current { pages.closed } else { Some("new credentials") };
        nature.check(promises::a_closed_gate_means_silence(closed, "an attempt"));
        let attempt = Attempt { source: self, began: mono, cut: true, succeeded: false };
        if !current {
            return attempt;
        }
        let status = record.tokens.get().and_then(WeakTokenSource::upgrade).map(|tokens| tokens.status());
        nature.check(promises::an_ended_run_attempts_nothing(status.as_ref()));
        let condemned = std::mem::take(&mut pages.condemned) && request.reason() != IssueReason::Nudged;
        nature.check(promises::a_final_word_ends_the_run(condemned));
        pages.reasons.insert(reason(request.reason()));
        pages.in_flight += 1;
        nature.check(promises::one_attempt_in_flight_for_each_run(pages.in_flight));
        if let Some(Ended { mono: then, wall: by_wall, .. }) = pages.last {
            let rested = mono.saturating_sub(then).max(wall.saturating_sub(by_wall));
            nature.check(promises::attempts_are_a_second_apart(rested));
        }
        if let Some((until, by_wall)) = pages.retry_after
            && request.reason() != IssueReason::Nudged
        {
            nature.check(promises::retry_after_is_heeded(mono >= until || wall >= by_wall, request.reason()));
        }
        let continued = pages.last.is_some_and(|last| !last.succeeded);
        if request.reason() == IssueReason::Rejected && !continued {
            self.forced(&mut pages, request.claims().is_some(), mono);
        }
        let hour = Duration::from_secs(3600);
        pages.attempts.push_back(mono);
        let Pages { attempts, excuses, .. } = &mut *pages;
        for times in [&mut *attempts, &mut *excuses] {
            while times.front().is_some_and(|at| mono.saturating_sub(*at) > hour) {
                times.pop_front();
            }
        }
        nature.check(promises::attempts_per_hour_are_bounded(attempts.len(), excuses.len(), &record.policy));
        attempt
    }

    /// A refresh that the resource server's word has forced.
    fn forced(&self, pages: &mut Pages, with_claims: bool, now: Duration) {
        let nature = &self.record.nature;
        if let Some(newest) = pages.newest.clone() {
            let refused = pages.refused.contains(&newest);
            let wanted = with_claims && !pages.claims.is_empty();
            let again = !pages.forced.insert(newest.clone());
            nature.check(promises::refusals_of_a_token_force_one_refresh(&newest, refused || wanted, again && !wanted));
            if wanted {
                pages.claims.clear();
            }
        }
        pages.forced_at.push(now);
        let since = pages.forced_at.first().copied().unwrap_or(now);
        let budget = self.record.policy.forced_refreshes;
        nature.check(promises::forced_refreshes_keep_to_their_budget(pages.forced_at.len(), now - since, budget));
    }

    fn issued(&self, issued: &IssuedToken, (mono, wall): (Duration, Duration)) {
        let (record, nature) = (&self.record, &self.record.nature);
        let secret = issued.expose_secret().to_owned();
        nature.note(format_args!("process {} gets {secret}, unsaved: {}", record.process, issued.is_unsaved()));
        let companion = self.idp.access(&secret).and_then(|access| access.companion);
        if let (Some(store), Some(companion)) = (&self.store, &companion) {
            let saved = store.has_kept(companion);
            let replaced = store.keeps().is_some_and(|kept| number_of(&kept) != number_of(companion));
            nature.check(promises::a_new_pair_is_durable_first(companion, saved || issued.is_unsaved() || replaced));
        }
        let lifetime = issued.lifetime().known().or(record.policy.assumed_lifetime);
        let mut pages = locked(&record.pages);
        let token = Token { epoch: self.epoch, mono, wall, lifetime, unsaved: issued.is_unsaved() };
        // What an old source brings late may be what the new one has brought already, from their store.
        if pages.tokens.get(&secret).is_none_or(|known| known.epoch <= self.epoch) {
            pages.tokens.insert(secret.clone(), token);
        }
        if pages.epoch == self.epoch {
            pages.newest = Some(secret);
            pages.retry_after = None;
            pages.excuses.push_back(nature.now());
        }
    }

    /// Whether the token has ended before it was there.
    fn is_over(&self, issued: &IssuedToken, (mono, wall): (Duration, Duration)) -> bool {
        let (nature, policy) = (&self.record.nature, &self.record.policy);
        let lifetime = issued.lifetime().known().or(policy.assumed_lifetime);
        let age = (nature.now() - mono).max(self.record.wall().saturating_sub(wall));
        lifetime.is_some_and(|lifetime| age >= promises::served_for(lifetime, policy))
    }

    fn failed(&self, error: &BoxError) {
        let (record, nature) = (&self.record, &self.record.nature);
        let Some(error) = error.downcast_ref::<IssueError>() else { return };
        nature.note(format_args!("process {} fails: {error:?}", record.process));
        nature.check(promises::no_secret_in_any_output("a failure", &format!("{error} {error:?}")));
        let mut pages = locked(&record.pages);
        if pages.epoch != self.epoch {
            return;
        }
        if error.is_busy() {
            // Nobody was asked.
            pages.attempts.pop_back();
        }
        if error.retry_after().is_some() || error.delivery() == Delivery::Answered {
            let wait = error.retry_after().map(|wait| wait.min(record.policy.retry_after_cap));
            pages.retry_after = wait.map(|wait| (nature.now() + wait, record.wall() + wait));
        }
        pages.condemned = matches!(error.verdict(), Verdict::Rejected(_) | Verdict::Replaced);
        if let (Verdict::Rejected(code), Some(store)) = (error.verdict(), &self.store)
            && *code == "invalid_grant"
        {
            let stored = store.keeps();
            let good = stored.as_ref().is_some_and(|stored| self.idp.is_good(stored));
            let honest = !self.cables.was_lied_to(self.client);
            nature.check(promises::a_good_login_is_not_condemned(stored.as_deref(), good && honest));
        }
    }
}

struct Attempt<'a> {
    source: &'a Watched,
    began: Duration,
    /// Nobody has waited for its end.
    cut: bool,
    succeeded: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let record = &self.source.record;
        let (mono, wall) = (record.nature.now(), record.wall());
        let limit = record.policy.attempt_timeout + self.source.inner.extra_time();
        let cut = self.cut && mono - self.began < limit && !record.nature.is_over();
        record.nature.check(promises::nobody_cuts_an_attempt_short(cut, mono - self.began));
        let mut pages = locked(&record.pages);
        if pages.epoch == self.source.epoch {
            pages.in_flight = pages.in_flight.saturating_sub(1);
            pages.last = Some(Ended { mono, wall, succeeded: self.succeeded });
        }
    }
}

const fn reason(reason: IssueReason) -> &'static str {
    match reason {
        IssueReason::Initial => "initial",
        IssueReason::Ahead => "ahead",
        IssueReason::Expired => "expired",
        IssueReason::Rejected => "rejected",
        IssueReason::Nudged => "nudged",
        IssueReason::Probe => "probe",
        _ => "unknown",
    }
}
