//! What handles and the driver share: the view that readers see, and the inbox in which they leave word.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};

use super::{
    clock::{Clock, wall_time},
    delivery::Delivery,
};
use crate::{
    AccessToken, AuthError, AuthStatus, Generation, IssueError, RefreshPolicy, StatusEvent, StopReason, Stopped,
    TokenSource, UnauthenticatedReason,
    error::Failure,
    machine::{Objection, Outlook, Run},
    schedule::{Budget, Deadline, Now},
};

pub(crate) struct Shared {
    pub(crate) name: Box<str>,
    pub(crate) policy: Arc<RefreshPolicy>,
    pub(crate) clock: Clock,
    /// Wakes the driver.
    pub(crate) wake: Notify,
    /// Wakes whoever waits for a token or for the end.
    pub(crate) turned: Notify,
    view: ArcSwap<View>,
    inbox: Mutex<Inbox>,
    gate: AtomicU64,
    stage: AtomicU8,
    runtime: OnceLock<Handle>,
    watch: OnceLock<watch::Sender<AuthStatus>>,
    delivery: Arc<Delivery>,
}

/// The state as readers see it: replaced whole, never changed.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) token: Option<AccessToken>,
    pub(crate) status: AuthStatus,
    pub(crate) outlook: Outlook,
    pub(crate) next_attempt: Option<Deadline>,
    pub(crate) latest: Option<Generation>,
    pub(crate) forced: Budget,
    pub(crate) can_refresh: bool,
    /// How many attempts have ended; a waiting caller waits for the next one.
    pub(crate) outcomes: u64,
    pub(crate) cause: Option<Arc<IssueError>>,
    /// The latest token's refresh token is in memory only.
    pub(crate) unsaved: bool,
}

/// What handles ask of the driver. Bounded, for a driver that nobody polls must not make it grow.
#[derive(Default)]
pub(crate) struct Inbox {
    pub(crate) demanded: bool,
    pub(crate) nudged: bool,
    /// In the order in which they came: the last word on a token counts.
    pub(crate) words: Vec<Word>,
    pub(crate) reauthenticated: Option<Arc<dyn TokenSource>>,
    /// The driver has taken a rejection and has not shown the outcome yet.
    handling: bool,
    /// How often handles have reauthenticated.
    epoch: u64,
    stopped: bool,
}

/// What a resource server said about a token.
pub(crate) enum Word {
    Accepted(Generation),
    Rejected { generation: Generation, objection: Objection, claims: Option<String> },
}

impl Inbox {
    pub(crate) fn hear(&mut self, word: Word) {
        if self.words.len() == MOST_WORDS {
            self.words.remove(0);
        }
        self.words.push(word);
    }

    fn holds_rejection(&self) -> bool {
        self.words.iter().any(|word| matches!(word, Word::Rejected { .. }))
    }
}

impl Shared {
    pub(crate) fn new(
        name: Box<str>,
        policy: Arc<RefreshPolicy>,
        clock: Clock,
        delivery: Delivery,
        can_refresh: bool,
    ) -> Self {
        let view = View {
            token: None,
            status: AuthStatus::Pending,
            outlook: Outlook::InFlight,
            next_attempt: None,
            latest: None,
            forced: Budget::full(policy.forced_refreshes),
            can_refresh,
            outcomes: 0,
            cause: None,
            unsaved: false,
        };
        Self {
            name,
            policy,
            clock,
            wake: Notify::new(),
            turned: Notify::new(),
            view: ArcSwap::from_pointee(view),
            inbox: Mutex::default(),
            gate: AtomicU64::new(CLOSED),
            stage: AtomicU8::new(NOT_STARTED),
            runtime: OnceLock::new(),
            watch: OnceLock::new(),
            delivery: Arc::new(delivery),
        }
    }

    pub(crate) fn view(&self) -> arc_swap::Guard<Arc<View>> {
        self.view.load()
    }

    /// Leaves word for the driver.
    pub(crate) fn ask(&self, leave_word: impl FnOnce(&mut Inbox)) {
        leave_word(&mut self.inbox());
        self.wake.notify_one();
    }

    /// Whether the driver has yet to show what became of the last word left.
    pub(crate) fn is_unread(&self) -> bool {
        let inbox = self.inbox();
        inbox.handling || inbox.holds_rejection()
    }

    /// New credentials. Takes effect for readers at once: the old account's token must not be handed out again.
    pub(crate) fn reauthenticate(&self, source: Arc<dyn TokenSource>) -> Result<(), Stopped> {
        // The host's code, so never under the lock: it may panic, or use the handle.
        let can_refresh = source.can_refresh();
        let mut inbox = self.inbox();
        if inbox.stopped {
            return Err(Stopped);
        }
        inbox.epoch += 1;
        self.gate.store(CLOSED, Ordering::Release);
        let view = View {
            token: None,
            status: AuthStatus::Pending,
            outlook: Outlook::InFlight,
            next_attempt: None,
            forced: Budget::full(self.policy.forced_refreshes),
            can_refresh,
            cause: None,
            ..View::clone(&self.view())
        };
        self.show(view, &inbox);
        let unused = inbox.reauthenticated.replace(source);
        drop(inbox);
        drop(unused);
        self.wake.notify_one();
        Ok(())
    }

    /// Ends everything, whatever the way here: the gate closes, readers and waiters see it, the sink is told. The first
    /// reason given stands.
    pub(crate) fn stop(&self, reason: StopReason) {
        let mut inbox = self.inbox();
        if inbox.stopped {
            return;
        }
        inbox.stopped = true;
        self.gate.store(CLOSED, Ordering::Release);
        let status = AuthStatus::Stopped(reason);
        let news = self.news(status.clone(), false, status.to_string(), None);
        let view =
            View { token: None, status, outlook: Outlook::Closed, next_attempt: None, ..View::clone(&self.view()) };
        self.show(view, &inbox);
        self.delivery.post(news, self.runtime().as_ref());
        let unused = inbox.reauthenticated.take();
        drop(inbox);
        drop(unused);
        self.turned.notify_waiters();
        self.wake.notify_one();
    }

    pub(crate) fn stop_reason(&self) -> Option<StopReason> {
        match self.view().status {
            AuthStatus::Stopped(reason) => Some(reason),
            AuthStatus::Pending
            | AuthStatus::Running
            | AuthStatus::AuthRetrying(_)
            | AuthStatus::Unauthenticated(_) => None,
        }
    }

    /// Whether an attempt of this run may start now.
    pub(crate) fn may_start(&self, run: Run) -> bool {
        self.gate.load(Ordering::Acquire) == run.number()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<AuthStatus> {
        // Under the lock, so that no status can fall between the first value and the first change.
        let _inbox = self.inbox();
        self.watch.get_or_init(|| watch::Sender::new(self.view().status.clone())).subscribe()
    }

    /// Waits until the driver has ended, if it ever began, and the sink knows.
    pub(crate) async fn wound_up(&self) {
        loop {
            let turned = self.turned.notified();
            if self.stage.load(Ordering::Acquire) != AT_WORK {
                break;
            }
            turned.await;
        }
        self.delivery.flushed().await;
    }

    /// Delivers what no runtime has delivered yet, or could not, for it went away.
    pub(crate) fn deliver_on(&self, runtime: &Handle) {
        self.delivery.go_to_work(runtime);
    }

    fn runtime(&self) -> Option<Handle> {
        self.runtime.get().cloned().or_else(|| Handle::try_current().ok())
    }

    /// Before anybody is woken: whoever hears of the news and then asks the handle must not find it older.
    fn show(&self, view: View, _locked: &Inbox) {
        let view = Arc::new(view);
        self.view.store(Arc::clone(&view));
        if let Some(watch) = self.watch.get() {
            watch.send_if_modified(|status| {
                let modified = *status != view.status;
                status.clone_from(&view.status);
                modified
            });
        }
    }

    fn news(&self, to: AuthStatus, serving: bool, reason: String, next_attempt: Option<Duration>) -> StatusEvent {
        StatusEvent {
            name: self.name.to_string(),
            sequence: 0,
            from: AuthStatus::Pending,
            serving,
            at: wall_time(self.clock.wall()).unwrap_or(std::time::SystemTime::UNIX_EPOCH),
            reason,
            next_attempt: next_attempt.and_then(wall_time),
            unsaved: false,
            restart_helps: to == AuthStatus::Stopped(StopReason::DriverPanicked),
            remediation: None,
            to,
        }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The driver's side.
impl Shared {
    pub(crate) fn begin(&self) {
        if let Ok(runtime) = Handle::try_current() {
            // The end may have come from where there is no runtime. Under the lock: either it came before us and its news is
            // there to deliver, or it finds the runtime.
            let _inbox = self.inbox();
            let runtime = self.runtime.get_or_init(|| runtime);
            self.deliver_on(runtime);
        }
        self.stage.store(AT_WORK, Ordering::Release);
    }

    pub(crate) fn end(&self) {
        self.stage.store(ENDED, Ordering::Release);
        self.turned.notify_waiters();
    }

    /// Takes what handles have left, with the number of reauthentications they have seen.
    pub(crate) fn take(&self) -> (Inbox, u64) {
        let mut inbox = self.inbox();
        let Inbox { epoch, stopped, .. } = *inbox;
        let handling = inbox.holds_rejection();
        (std::mem::replace(&mut *inbox, Inbox { handling, epoch, stopped, ..Inbox::default() }), epoch)
    }

    /// The outcome of what was taken is shown.
    pub(crate) fn read(&self) {
        if std::mem::take(&mut self.inbox().handling) {
            self.turned.notify_waiters();
        }
    }

    /// Shows readers a new view and opens the gate for `run`. `false`, and nothing is done, where a handle has stopped or
    /// reauthenticated the monitor in the meantime.
    pub(crate) fn publish(&self, view: View, run: Option<Run>, epoch: u64, news: bool) -> bool {
        let inbox = self.inbox();
        if inbox.stopped || inbox.epoch != epoch {
            return false;
        }
        self.gate.store(run.map_or(CLOSED, Run::number), Ordering::Release);
        let mut turned = false;
        let old = self.view.load_full();
        let news = (news || old.unsaved != view.unsaved).then(|| {
            let now = self.clock.now();
            let next_attempt = view.next_attempt.map(|at| now.wall.saturating_add(at.remaining(now)));
            let mut news = self.news(view.status.clone(), view.token.is_some(), view.reason(&old), next_attempt);
            news.unsaved = view.unsaved;
            if old.status != view.status {
                news.remediation = view.remediation();
            }
            news
        });
        if !view.is_same(&old) {
            turned = view.turns(&old);
            self.show(view, &inbox);
        }
        if let Some(news) = news {
            self.delivery.post(news, self.runtime().as_ref());
        }
        drop(inbox);
        if turned {
            self.turned.notify_waiters();
        }
        true
    }
}

impl View {
    pub(crate) fn servable(&self, wall: Duration) -> Option<&AccessToken> {
        self.token.as_ref().filter(|token| token.is_servable(wall))
    }

    /// Why a caller gets nothing now.
    pub(crate) fn refusal(&self, now: Now) -> AuthError {
        let wait = match self.outlook {
            Outlook::InFlight | Outlook::FailFast(None) => Some(SOON),
            Outlook::From(next) | Outlook::FailFast(Some(next)) => Some(whole_seconds(next.remaining(now)).max(SOON)),
            Outlook::Closed => None,
        };
        let failure = Failure::new(self.cause.clone(), wait);
        match (&self.status, self.outlook) {
            (AuthStatus::Stopped(_), _) => AuthError::Stopped(failure),
            (AuthStatus::Unauthenticated(_), _) => AuthError::Unauthenticated(failure),
            (AuthStatus::Pending | AuthStatus::Running, Outlook::InFlight) => AuthError::StillRefreshing(failure),
            (AuthStatus::Pending | AuthStatus::Running | AuthStatus::AuthRetrying(_), _) => {
                AuthError::Retrying(failure)
            }
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        let Self { token, status, outlook, next_attempt, latest, forced, can_refresh, outcomes, unsaved, cause: _ } =
            other;
        !self.turns(other)
            && self.token.is_some() == token.is_some()
            && self.status == *status
            && self.outlook == *outlook
            && self.next_attempt == *next_attempt
            && self.latest == *latest
            && self.forced == *forced
            && self.can_refresh == *can_refresh
            && self.outcomes == *outcomes
            && self.unsaved == *unsaved
    }

    /// Whether somebody who waits would find something new.
    fn turns(&self, old: &Self) -> bool {
        let generation = |view: &Self| view.token.as_ref().map(AccessToken::generation);
        self.outcomes != old.outcomes || self.status != old.status || generation(self) != generation(old)
    }

    /// The news in words. Only our own: what a foreign error says may hold anything.
    fn reason(&self, old: &Self) -> String {
        match (&self.status, &self.cause) {
            (AuthStatus::Running, _) if self.unsaved => {
                "a token is being served; its refresh token could not be saved, a restart now would lose the login"
                    .to_owned()
            }
            (AuthStatus::Running, _) if self.token.is_some() => "a token is being served".to_owned(),
            (status, _) if *status == old.status && self.token.is_none() => {
                format!("{status}; the held token has ended")
            }
            (status @ (AuthStatus::AuthRetrying(_) | AuthStatus::Unauthenticated(_)), Some(cause)) => {
                format!("{status}: {cause} [{}]", cause.rule())
            }
            (status, _) => status.to_string(),
        }
    }

    /// What a human can do about a permanent verdict.
    fn remediation(&self) -> Option<String> {
        let code = match &self.status {
            AuthStatus::Unauthenticated(UnauthenticatedReason::Rejected(code)) => Some(code.as_str()),
            AuthStatus::Unauthenticated(UnauthenticatedReason::Replaced) => None,
            AuthStatus::Pending
            | AuthStatus::Running
            | AuthStatus::AuthRetrying(_)
            | AuthStatus::Unauthenticated(_)
            | AuthStatus::Stopped(_) => return None,
        };
        if let Some(advice) = self.cause.as_deref().and_then(IssueError::advice) {
            return Some(advice.to_owned());
        }
        let advice = match code.unwrap_or_default() {
            "invalid_client"
            | "unauthorized_client"
            | "invalid_client_id"
            | "incorrect_client_credentials"
            | "bad_client_secret" => {
                let client = self.cause.as_deref().and_then(IssueError::client);
                let whose = client.map(|client| format!(" ({client})")).unwrap_or_default();
                format!("the cached client registration{whose} may be stale: delete it and register again (RFC 7591)")
            }
            _ => "sign in again".to_owned(),
        };
        Some(advice)
    }
}

/// Rounded up, for a caller that comes back too early has come for nothing.
fn whole_seconds(wait: Duration) -> Duration {
    Duration::from_secs(wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)))
}

/// The gate's value while no run's attempts may start; runs count from 1.
const CLOSED: u64 = 0;
const NOT_STARTED: u8 = 0;
const AT_WORK: u8 = 1;
const ENDED: u8 = 2;
const MOST_WORDS: usize = 8;
const SOON: Duration = Duration::from_secs(1);
