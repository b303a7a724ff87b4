//! What handles and the driver share: the view that readers see, and the inbox in which they leave word.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    task::{Context, Waker},
    time::Duration,
};

use super::{
    clock::{Clock, wall_time},
    delivery::{Delivers, Delivery},
    view::View,
};
use crate::{
    AuthStatus, Generation, RefreshPolicy, StatusEvent, StopReason, Stopped, TokenSource,
    machine::{Objection, Outlook, Run},
    schedule::Budget,
    sync::{ArcSwap, AtomicU8, AtomicU32, Guard, Handle, Mutex, MutexGuard, Notify, OnceLock, watch},
    telemetry::{self, Meters, Standing},
};

pub(crate) struct Shared {
    pub(crate) name: Box<str>,
    pub(crate) policy: Arc<RefreshPolicy>,
    pub(crate) clock: Clock,
    pub(crate) meters: Meters,
    /// Wakes whoever waits for a token, for the end, or for news to deliver.
    pub(crate) turned: Notify,
    view: ArcSwap<View>,
    inbox: Mutex<Inbox>,
    gate: AtomicU32,
    stage: AtomicU8,
    runtime: OnceLock<Handle>,
    watch: OnceLock<watch::Sender<AuthStatus>>,
    delivery: Delivery,
}

/// What handles ask of the driver. Bounded, for a driver that nobody polls must not make it grow.
#[derive(Default)]
pub(crate) struct Inbox {
    pub(crate) demanded: bool,
    pub(crate) nudged: bool,
    /// Boxed: almost always there are none.
    pub(crate) letters: Option<Box<Letters>>,
    /// The last source that came by reauthentication, for whoever parks the monitor: not kept after any other end. Boxed,
    /// for the same reason.
    newest: Option<Box<Arc<dyn TokenSource>>>,
    /// Something was left since the driver last looked.
    unread: bool,
    /// Wakes the driver.
    driver: Option<Waker>,
    /// The driver has taken a rejection and has not shown the outcome yet.
    handling: bool,
    /// How often handles have reauthenticated.
    epoch: u32,
}

#[derive(Default)]
pub(crate) struct Letters {
    /// In the order in which they came: the last word on a token counts.
    pub(crate) words: Vec<Word>,
    pub(crate) reauthenticated: Option<Arc<dyn TokenSource>>,
}

/// What a resource server said about a token.
#[derive(PartialEq)]
pub(crate) enum Word {
    Accepted(Generation),
    Rejected { generation: Generation, objection: Objection, claims: Option<String> },
}

impl Inbox {
    fn hear(&mut self, word: Word) {
        let words = &mut self.letters().words;
        // Many requests are refused with one word; repeating it must not push out another.
        if words.last() == Some(&word) {
            return;
        }
        if words.len() == MOST_WORDS {
            words.remove(0);
        }
        words.push(word);
    }

    fn holds_rejection(&self) -> bool {
        let mut words = self.letters.iter().flat_map(|letters| &letters.words);
        words.any(|word| matches!(word, Word::Rejected { .. }))
    }

    fn letters(&mut self) -> &mut Letters {
        self.letters.get_or_insert_default()
    }

    /// To be woken when the lock is free again.
    #[must_use = "the driver sleeps on"]
    fn ring(&mut self) -> Option<Waker> {
        self.unread = true;
        self.driver.take()
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
            forced: Budget::default(),
            can_refresh,
            outcomes: 0,
            since: seconds_of(clock.now().wall),
            cause: None,
            unsaved: false,
        };
        let meters = Meters::of(&name);
        telemetry::moved(&name, None, view.standing());
        Self {
            name,
            policy,
            clock,
            meters,
            turned: Notify::new(),
            view: ArcSwap::from_pointee(view),
            inbox: Mutex::default(),
            gate: AtomicU32::new(CLOSED),
            stage: AtomicU8::new(NOT_STARTED),
            runtime: OnceLock::new(),
            watch: OnceLock::new(),
            delivery,
        }
    }

    pub(crate) fn view(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    /// Leaves word for the driver.
    pub(crate) fn ask(&self, leave_word: impl FnOnce(&mut Inbox)) {
        let mut inbox = self.inbox();
        leave_word(&mut inbox);
        let driver = inbox.ring();
        drop(inbox);
        wake(driver);
    }

    /// Leaves word of a token, if `mark` says that it is the first. Under the lock, for the words have to lie in the order in
    /// which the token was marked: where the driver hears the older one last, the newer is never told again.
    pub(crate) fn hear(&self, mark: impl FnOnce() -> bool, word: Word) {
        let mut inbox = self.inbox();
        if !mark() {
            return;
        }
        inbox.hear(word);
        let driver = inbox.ring();
        drop(inbox);
        wake(driver);
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
        if self.stop_reason().is_some() {
            return Err(Stopped);
        }
        inbox.epoch = inbox.epoch.wrapping_add(1);
        self.gate.store(CLOSED, Ordering::Release);
        let old = self.view.load_full();
        let view = View {
            token: None,
            status: AuthStatus::Pending,
            outlook: Outlook::InFlight,
            next_attempt: None,
            forced: Budget::default(),
            can_refresh,
            cause: None,
            ..View::clone(&old)
        };
        let moved = self.show(&old, view, &inbox);
        let newest = Box::new(Arc::clone(&source));
        let unused = (inbox.newest.replace(newest), inbox.letters().reauthenticated.replace(source));
        let driver = inbox.ring();
        drop(inbox);
        drop(unused);
        wake(driver);
        self.count(moved);
        Ok(())
    }

    /// Ends everything, whatever the way here: the gate closes, readers and waiters see it, the sink is told. The first
    /// reason given stands.
    pub(crate) fn stop(self: &Arc<Self>, reason: StopReason) {
        let inbox = self.inbox();
        if self.stop_reason().is_none() {
            self.stop_under(inbox, reason);
        }
    }

    /// Ends everything unless an attempt is in flight or asked for. `false` also where it has ended already.
    pub(crate) fn stop_at_rest(self: &Arc<Self>, reason: StopReason) -> bool {
        let inbox = self.inbox();
        let in_flight = matches!(self.view().outlook, Outlook::InFlight | Outlook::FailFast(None));
        let at_rest = self.stop_reason().is_none() && !in_flight && !inbox.demanded && !inbox.nudged;
        if at_rest {
            self.stop_under(inbox, reason);
        }
        at_rest
    }

    fn stop_under(self: &Arc<Self>, mut inbox: MutexGuard<'_, Inbox>, reason: StopReason) {
        self.gate.store(CLOSED, Ordering::Release);
        let status = AuthStatus::Stopped(reason);
        let news = self.news(status.clone(), false, status.to_string(), None);
        let old = self.view.load_full();
        let view = View { token: None, status, outlook: Outlook::Closed, next_attempt: None, ..View::clone(&old) };
        let moved = self.show(&old, view, &inbox);
        self.tell(news);
        let newest = if reason == StopReason::Idle { None } else { inbox.newest.take() };
        let unused = (newest, inbox.letters.take());
        let driver = inbox.ring();
        drop(inbox);
        drop(unused);
        self.turned.notify_waiters();
        wake(driver);
        self.count(moved);
        telemetry::stopped(&self.name, reason.name());
    }

    /// The source that the monitor has, or had when it was parked, if that is not the one that it began with, which stands
    /// for itself: `begun_with`. `None`: its end has taken it along.
    pub(crate) fn newest_source(&self, begun_with: &Arc<dyn TokenSource>) -> Option<Arc<dyn TokenSource>> {
        let inbox = self.inbox();
        if inbox.epoch == 0 { Some(Arc::clone(begun_with)) } else { inbox.newest.as_deref().cloned() }
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
            if self.stage.load(Ordering::Acquire) != AT_WORK && !self.delivery.is_at_work() {
                return;
            }
            turned.await;
        }
    }

    /// Delivers what no runtime has delivered yet, or could not, for it went away.
    pub(crate) fn deliver_on(self: &Arc<Self>, runtime: &Handle) {
        Delivery::go_to_work(self, runtime);
    }

    /// Never waits, and leaves it to the caller to wake who waits for news, for a waker may be anybody's code, and the lock is
    /// held here. Without a runtime to deliver on, the news is kept for the next that comes with one.
    fn tell(self: &Arc<Self>, news: StatusEvent) {
        self.delivery.post(news);
        if let Some(runtime) = self.runtime.get().cloned().or_else(|| Handle::try_current().ok()) {
            self.deliver_on(&runtime);
        }
    }

    /// Before anybody is woken: whoever hears of the news and then asks the handle must not find it older.
    fn show(&self, old: &View, mut view: View, _locked: &Inbox) -> Moved {
        view.since = if view.status == old.status { old.since } else { seconds_of(self.clock.now().wall) };
        let moved = Moved { from: old.standing(), to: view.standing() };
        let view = Arc::new(view);
        self.view.store(Arc::clone(&view));
        if let Some(watch) = self.watch.get() {
            watch.send_if_modified(|status| {
                let modified = *status != view.status;
                status.clone_from(&view.status);
                modified
            });
        }
        moved
    }

    fn count(&self, moved: Moved) {
        telemetry::moved(&self.name, moved.from, moved.to);
    }

    fn news(&self, to: AuthStatus, serving: bool, reason: String, next_attempt: Option<Duration>) -> StatusEvent {
        StatusEvent {
            name: self.name.to_string(),
            sequence: 0,
            from: AuthStatus::Pending,
            serving,
            at: self.clock.time(),
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

impl Delivers for Shared {
    fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    fn turned(&self) -> &Notify {
        &self.turned
    }
}

/// The driver's side.
impl Shared {
    pub(crate) fn begin(self: &Arc<Self>) {
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

    /// Whether handles have left word since it was last taken; if not, the driver is woken when they do.
    pub(crate) fn has_word(&self, context: &Context<'_>) -> bool {
        // A waker may be anybody's code, so none is cloned or dropped under the lock.
        let waker = context.waker().clone();
        let mut inbox = self.inbox();
        if inbox.unread {
            return true;
        }
        let old = inbox.driver.replace(waker);
        drop(inbox);
        drop(old);
        false
    }

    /// Takes what handles have left, with the number of reauthentications they have seen.
    pub(crate) fn take(&self) -> (Inbox, u32) {
        let mut inbox = self.inbox();
        let epoch = inbox.epoch;
        let handling = inbox.holds_rejection();
        let newest = inbox.newest.take();
        (std::mem::replace(&mut *inbox, Inbox { handling, epoch, newest, ..Inbox::default() }), epoch)
    }

    /// The outcome of what was taken is shown.
    pub(crate) fn read(&self) {
        if std::mem::take(&mut self.inbox().handling) {
            self.turned.notify_waiters();
        }
    }

    /// Shows readers a new view and opens the gate for `run`. `false`, and nothing is done, where a handle has stopped or
    /// reauthenticated the monitor in the meantime.
    pub(crate) fn publish(self: &Arc<Self>, view: View, run: Option<Run>, epoch: u32, news: bool) -> bool {
        let inbox = self.inbox();
        if self.stop_reason().is_some() || inbox.epoch != epoch {
            return false;
        }
        self.gate.store(run.map_or(CLOSED, Run::number), Ordering::Release);
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
        let turned = news.is_some() || view.turns(&old);
        let moved = (!view.is_same(&old)).then(|| self.show(&old, view, &inbox));
        if let Some(news) = news {
            self.tell(news);
        }
        drop(inbox);
        if turned {
            self.turned.notify_waiters();
        }
        if let Some(moved) = moved {
            self.count(moved);
        }
        true
    }
}

/// What has become of a source, to be counted once the lock is free again.
#[must_use = "the metrics are wrong from here on"]
struct Moved {
    from: Option<Standing>,
    to: Option<Standing>,
}

fn seconds_of(wall: Duration) -> u32 {
    u32::try_from(wall.as_secs()).unwrap_or(u32::MAX)
}

fn wake(driver: Option<Waker>) {
    if let Some(driver) = driver {
        driver.wake();
    }
}

/// The gate's value while no run's attempts may start; runs count from 1.
const CLOSED: u32 = 0;
const NOT_STARTED: u8 = 0;
const AT_WORK: u8 = 1;
const ENDED: u8 = 2;
const MOST_WORDS: usize = 8;
