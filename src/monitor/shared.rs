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
    view::View,
};
use crate::{
    AuthStatus, Generation, RefreshPolicy, StatusEvent, StopReason, Stopped, TokenSource,
    machine::{Objection, Outlook, Run},
    schedule::Budget,
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

/// What handles ask of the driver. Bounded, for a driver that nobody polls must not make it grow.
#[derive(Default)]
pub(crate) struct Inbox {
    pub(crate) demanded: bool,
    pub(crate) nudged: bool,
    /// In the order in which they came: the last word on a token counts.
    pub(crate) words: Vec<Word>,
    pub(crate) reauthenticated: Option<Arc<dyn TokenSource>>,
    /// The last source that came by reauthentication, for whoever parks the monitor: not kept after any other end.
    newest: Option<Arc<dyn TokenSource>>,
    /// The driver has taken a rejection and has not shown the outcome yet.
    handling: bool,
    /// How often handles have reauthenticated.
    epoch: u64,
    stopped: bool,
}

/// What a resource server said about a token.
#[derive(PartialEq)]
pub(crate) enum Word {
    Accepted(Generation),
    Rejected { generation: Generation, objection: Objection, claims: Option<String> },
}

impl Inbox {
    pub(crate) fn hear(&mut self, word: Word) {
        // Many requests are refused with one word; repeating it must not push out another.
        if self.words.last() == Some(&word) {
            return;
        }
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
        let unused = (inbox.newest.replace(Arc::clone(&source)), inbox.reauthenticated.replace(source));
        drop(inbox);
        drop(unused);
        self.wake.notify_one();
        Ok(())
    }

    /// Ends everything, whatever the way here: the gate closes, readers and waiters see it, the sink is told. The first
    /// reason given stands.
    pub(crate) fn stop(&self, reason: StopReason) {
        let inbox = self.inbox();
        if !inbox.stopped {
            self.stop_under(inbox, reason);
        }
    }

    /// Ends everything unless an attempt is in flight or asked for. `false` also where it has ended already.
    pub(crate) fn stop_at_rest(&self, reason: StopReason) -> bool {
        let inbox = self.inbox();
        let in_flight = matches!(self.view().outlook, Outlook::InFlight | Outlook::FailFast(None));
        let at_rest = !inbox.stopped && !in_flight && !inbox.demanded && !inbox.nudged;
        if at_rest {
            self.stop_under(inbox, reason);
        }
        at_rest
    }

    fn stop_under(&self, mut inbox: MutexGuard<'_, Inbox>, reason: StopReason) {
        inbox.stopped = true;
        self.gate.store(CLOSED, Ordering::Release);
        let status = AuthStatus::Stopped(reason);
        let news = self.news(status.clone(), false, status.to_string(), None);
        let view =
            View { token: None, status, outlook: Outlook::Closed, next_attempt: None, ..View::clone(&self.view()) };
        self.show(view, &inbox);
        self.delivery.post(news, self.runtime().as_ref());
        let newest = if reason == StopReason::Idle { None } else { inbox.newest.take() };
        let unused = (newest, inbox.reauthenticated.take());
        drop(inbox);
        drop(unused);
        self.turned.notify_waiters();
        self.wake.notify_one();
    }

    /// The source that the monitor has, or had when it was parked, if that is not the one that it began with, which stands
    /// for itself: `begun_with`. `None`: its end has taken it along.
    pub(crate) fn newest_source(&self, begun_with: &Arc<dyn TokenSource>) -> Option<Arc<dyn TokenSource>> {
        let inbox = self.inbox();
        if inbox.epoch == 0 { Some(Arc::clone(begun_with)) } else { inbox.newest.clone() }
    }

    pub(crate) fn has_wound_up(&self) -> bool {
        self.stage.load(Ordering::Acquire) != AT_WORK
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
        let newest = inbox.newest.take();
        (std::mem::replace(&mut *inbox, Inbox { handling, epoch, stopped, newest, ..Inbox::default() }), epoch)
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

/// The gate's value while no run's attempts may start; runs count from 1.
const CLOSED: u64 = 0;
const NOT_STARTED: u8 = 0;
const AT_WORK: u8 = 1;
const ENDED: u8 = 2;
const MOST_WORDS: usize = 8;
