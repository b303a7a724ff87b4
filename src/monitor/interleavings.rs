//! Every order in which the threads of a host can meet in one monitor, and every older value that they may still find there.
//!
//! ```text
//! RUSTFLAGS="--cfg steadfast_loom" cargo test --release --no-default-features --lib --target-dir target/interleavings interleavings
//! ```
//!
//! Loom runs each test once for each order, with at most [`SWITCHES`] switches away from a thread that could have gone on;
//! `LOOM_MAX_PREEMPTIONS` sets another number. All is the library's own code, on the stand-ins of `src/sync/modelled.rs`, but
//! for the driver's part, which the tests play: its tasks, timers and attempts are tokio's. A thread that is never woken is a
//! deadlock to loom, for in these tests no time passes. `std`'s `Arc` is not modelled: each of its operations happens at
//! once.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Mutex, OnceLock, PoisonError, atomic::Ordering},
    task::{Wake, Waker},
};

use async_trait::async_trait;
use loom::{future::block_on, sync::atomic::AtomicBool, thread};

use super::{
    shared::{Inbox, Letters},
    view::View,
    *,
};
use crate::{
    BoxError, IssuedToken, RetryCause, StaticToken, StatusEvent,
    machine::{Event, Machine, Run},
    schedule::{Budget, Deadline, Now},
    token::Term,
};

// The marks on a token.

#[test]
fn of_many_refusals_of_one_token_one_is_the_first() {
    explore(|| {
        let token = token(Generation::FIRST);
        let others = [(); 2].map(|()| {
            let token = token.clone();
            thread::spawn(move || token.refuse(true))
        });
        let mine = token.refuse(true);
        let firsts = others.into_iter().map(|other| other.join().unwrap()).chain([mine]).filter(|first| *first);
        assert_eq!(firsts.count(), 1);
    });
}

#[test]
fn an_acceptance_and_a_refusal_leave_one_of_the_two_and_a_withdrawal_is_never_lost() {
    explore(|| {
        let world = World::serving();
        let token = world.token();
        let accepting = world.tokens.clone();
        let accepting = thread::spawn(move || accepting.accept(Generation::FIRST));
        let withdrawing = token.clone();
        let withdrawing = thread::spawn(move || withdrawing.refuse(true));
        token.refuse(false);
        accepting.join().unwrap();
        withdrawing.join().unwrap();
        assert!(token.is_refused());
        assert!(world.tokens.servable().is_none());
    });
}

#[test]
fn the_last_word_that_the_driver_hears_of_a_token_is_the_last_that_it_was_marked_with() {
    explore(|| {
        let world = World::serving();
        let token = world.token();
        let accepting = world.tokens.clone();
        let accepting = thread::spawn(move || accepting.accept(Generation::FIRST));
        let _ = world.tokens.reject(Generation::FIRST, None);
        accepting.join().unwrap();
        let (Inbox { letters, .. }, _) = world.shared.take();
        let last = letters.unwrap().words.pop().unwrap();
        assert_eq!(matches!(last, Word::Rejected { .. }), token.is_refused());
        assert_eq!(matches!(last, Word::Accepted(_)), token.is_accepted());
    });
}

#[test]
fn a_rejected_token_is_got_by_nobody_who_looks_afterwards_whatever_is_published_meanwhile() {
    explore(|| {
        let world = World::serving();
        let rejected = Arc::new(Flag::default());
        let reader = world.tokens.clone();
        let reader = thread::spawn({
            let rejected = Arc::clone(&rejected);
            move || {
                let is_rejected = rejected.is_raised();
                assert!(!is_rejected || reader.servable().is_none());
            }
        });
        let driver = world.driver(|shared, run| {
            let old = View::clone(&shared.view());
            shared.publish(View { outcomes: 7, ..old }, Some(run), 0, false);
        });
        let _ = world.tokens.reject(Generation::FIRST, Some(&invalid_token()));
        rejected.raise();
        assert!(world.tokens.servable().is_none());
        driver.join().unwrap();
        reader.join().unwrap();
        assert!(world.tokens.servable().is_none());
    });
}

// Waiting.

#[test]
fn no_waiter_sleeps_through_a_token() {
    explore(|| {
        let world = World::starting();
        let waiter = world.waiter(None);
        world.shared.publish(running(Generation::FIRST), Some(first_run()), 0, false);
        assert_eq!(waiter.join().unwrap().unwrap().generation(), Generation::FIRST);
    });
}

#[test]
fn no_waiter_sleeps_through_a_failure() {
    explore(|| {
        let world = World::starting();
        let waiter = world.waiter(None);
        world.shared.publish(retrying(), Some(first_run()), 0, false);
        assert!(matches!(waiter.join().unwrap(), Err(AuthError::Retrying(_))));
    });
}

#[test]
fn no_waiter_sleeps_through_the_end() {
    explore(|| {
        let world = World::starting();
        let waiter = world.waiter(None);
        let stopped = world.tokens.clone();
        let stopped = thread::spawn(move || block_on(stopped.stopped()));
        world.shared.stop(StopReason::ShutDown);
        assert!(matches!(waiter.join().unwrap(), Err(AuthError::Stopped(_))));
        stopped.join().unwrap();
    });
}

#[test]
fn who_asks_for_a_token_is_heard_and_gets_it() {
    explore(|| {
        let world = World::starting();
        world.shared.publish(View { outlook: Outlook::From(Deadline::PAST), ..pending() }, Some(first_run()), 0, false);
        let waiter = world.waiter(None);
        let (Inbox { demanded, .. }, epoch) = world.next_word();
        assert!(demanded);
        world.shared.publish(running(Generation::FIRST), Some(first_run()), epoch, false);
        assert_eq!(waiter.join().unwrap().unwrap().generation(), Generation::FIRST);
    });
}

#[test]
fn who_was_told_that_a_new_token_is_on_its_way_gets_it() {
    explore(|| {
        let world = World::serving();
        let rejecting = world.tokens.clone();
        let rejecting = thread::spawn(move || {
            Runtime::enter();
            assert_eq!(rejecting.reject(Generation::FIRST, None), Rejection::Refreshing);
            block_on(rejecting.token_after(Generation::FIRST))
        });
        let (_, epoch) = world.next_word();
        let old = View::clone(&world.shared.view());
        world.shared.publish(View { outlook: Outlook::InFlight, ..old }, Some(first_run()), epoch, false);
        world.shared.read();
        world.shared.publish(running(Generation::FIRST.next()), Some(first_run()), epoch, false);
        assert_eq!(rejecting.join().unwrap().unwrap().generation(), Generation::FIRST.next());
    });
}

#[test]
fn whoever_was_not_the_first_to_be_refused_finds_the_word_of_the_first_left() {
    explore(|| {
        let world = World::serving();
        let reject = |world: &World| {
            let (tokens, shared) = (world.tokens.clone(), Arc::clone(&world.shared));
            move || {
                assert_eq!(tokens.reject(Generation::FIRST, None), Rejection::Refreshing);
                assert!(shared.is_unread());
            }
        };
        let other = thread::spawn(reject(&world));
        reject(&world)();
        other.join().unwrap();
    });
}

#[test]
fn who_waits_for_what_becomes_of_a_refusal_hears_that_nothing_does() {
    explore(|| {
        let world = World::serving();
        let rejecting = world.tokens.clone();
        let rejecting = thread::spawn(move || {
            Runtime::enter();
            let _ = rejecting.reject(Generation::FIRST, None);
            block_on(rejecting.token_after(Generation::FIRST))
        });
        let _ = world.next_word();
        world.shared.read();
        assert!(matches!(rejecting.join().unwrap(), Err(AuthError::Retrying(_))));
    });
}

#[test]
fn no_word_is_slept_through_by_the_driver() {
    explore(|| {
        let world = World::serving();
        let nudging = world.tokens.clone();
        let nudging = thread::spawn(move || nudging.retry_now());
        let rejecting = world.tokens.clone();
        let rejecting = thread::spawn(move || rejecting.reject(Generation::FIRST, None));
        let (mut nudged, mut words) = (false, 0);
        while !nudged || words == 0 {
            let (inbox, _) = world.next_word();
            nudged |= inbox.nudged;
            words += inbox.letters.map_or(0, |letters| letters.words.len());
        }
        assert_eq!(words, 1);
        nudging.join().unwrap();
        rejecting.join().unwrap();
    });
}

#[test]
fn whoever_is_woken_finds_no_lock_held() {
    struct Asks(MonitoredTokenSource);
    impl Wake for Asks {
        fn wake(self: Arc<Self>) {
            self.0.retry_now();
        }
    }
    explore(|| {
        let world = World::starting();
        let waker = Waker::from(Arc::new(Asks(world.tokens.clone())));
        let mut context = Context::from_waker(&waker);
        let mut waiting = pin!(world.tokens.stopped());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        world.shared.publish(running(Generation::FIRST), Some(first_run()), 0, true);
        assert!(world.shared.take().0.nudged);
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        assert!(!world.shared.has_word(&context));
        world.shared.stop(StopReason::ShutDown);
        assert!(world.shared.take().0.nudged);
    });
}

// The gate.

#[test]
fn after_the_end_no_attempt_may_start_and_nobody_gets_a_token() {
    explore(|| {
        let world = World::starting();
        let driver = world.driver(|shared, run| {
            shared.publish(running(Generation::FIRST), Some(run), 0, true);
        });
        let over = |world: &World| {
            assert!(!world.shared.may_start(first_run()));
            assert!(world.tokens.servable().is_none());
            assert_eq!(world.tokens.status(), AuthStatus::Stopped(StopReason::ShutDown));
        };
        world.shared.stop(StopReason::ShutDown);
        over(&world);
        driver.join().unwrap();
        over(&world);
    });
}

#[test]
fn whoever_sees_the_end_finds_the_gate_closed() {
    explore(|| {
        let world = World::serving();
        let stopping = Arc::clone(&world.shared);
        let stopping = thread::spawn(move || stopping.stop(StopReason::ShutDown));
        assert!(world.shared.stop_reason().is_none() || !world.shared.may_start(first_run()));
        stopping.join().unwrap();
    });
}

#[test]
fn when_the_last_handle_is_gone_no_attempt_may_start() {
    explore(|| {
        let world = World::starting();
        let driver = world.driver(|shared, run| {
            shared.publish(pending(), Some(run), 0, false);
        });
        let World { tokens, shared, .. } = world;
        let other = tokens.clone();
        let other = thread::spawn(move || drop(other));
        let weak = tokens.downgrade();
        drop(tokens);
        other.join().unwrap();
        assert!(weak.upgrade().is_none());
        assert!(!shared.may_start(first_run()));
        driver.join().unwrap();
        assert!(!shared.may_start(first_run()));
    });
}

#[test]
fn after_a_reauthentication_nobody_gets_the_old_accounts_token_whatever_the_driver_publishes() {
    explore(|| {
        let world = World::starting();
        let driver = world.driver(|shared, run| {
            shared.publish(running(Generation::FIRST), Some(run), 0, true);
            let (Inbox { letters, .. }, epoch) = shared.take();
            let Letters { reauthenticated, .. } = letters.map(|letters| *letters).unwrap_or_default();
            let (generation, run) = match reauthenticated {
                Some(_) => (Generation::FIRST.next(), second_run()),
                None => (Generation::FIRST, run),
            };
            shared.publish(running(generation), Some(run), epoch, true);
        });
        world.tokens.reauthenticate(StaticToken::new("new")).unwrap();
        let is_new = |token: AccessToken| token.generation() > Generation::FIRST;
        assert!(world.tokens.servable().is_none_or(is_new));
        assert!(!world.shared.may_start(first_run()));
        driver.join().unwrap();
        assert!(world.tokens.servable().is_none_or(is_new));
        assert!(!world.shared.may_start(first_run()));
    });
}

#[test]
fn whoever_sees_that_the_old_accounts_token_is_gone_finds_its_gate_closed() {
    explore(|| {
        let world = World::serving();
        let tokens = world.tokens.clone();
        let other = thread::spawn(move || tokens.reauthenticate(StaticToken::new("new")).unwrap());
        assert!(world.tokens.servable().is_some() || !world.shared.may_start(first_run()));
        other.join().unwrap();
    });
}

#[test]
fn new_credentials_are_either_refused_or_end_with_the_monitor() {
    explore(|| {
        let world = World::serving();
        let stopping = Arc::clone(&world.shared);
        let stopping = thread::spawn(move || stopping.stop(StopReason::ShutDown));
        let taken = world.tokens.reauthenticate(StaticToken::new("new"));
        assert!(taken.is_ok() || world.tokens.status() == AuthStatus::Stopped(StopReason::ShutDown));
        stopping.join().unwrap();
        assert_eq!(world.tokens.status(), AuthStatus::Stopped(StopReason::ShutDown));
        assert!(world.tokens.servable().is_none());
    });
}

// News.

#[test]
fn whoever_has_heard_of_news_finds_the_handle_no_older() {
    explore(|| {
        let world = World::starting();
        Runtime::enter();
        world.shared.publish(running(Generation::FIRST), Some(first_run()), 0, true);
        world.shared.publish(retrying(), Some(first_run()), 0, true);
        block_on(world.shared.wound_up());
        assert_eq!(world.heard().last().unwrap().to, retrying().status);
    });
}

#[test]
fn whoever_subscribes_misses_no_status_and_finds_the_handle_no_older() {
    explore(|| {
        let world = World::starting();
        let subscriber = world.tokens.clone();
        let subscriber = thread::spawn(move || {
            let subscription = subscriber.subscribe();
            let status = subscription.borrow().clone();
            assert!(age(&subscriber.status()) >= age(&status));
            subscription
        });
        world.shared.publish(running(Generation::FIRST), Some(first_run()), 0, false);
        world.shared.publish(retrying(), Some(first_run()), 0, false);
        assert_eq!(*subscriber.join().unwrap().borrow(), retrying().status);
    });
}

#[test]
fn whoever_hears_of_a_status_by_subscription_finds_the_handle_no_older() {
    explore(|| {
        let world = World::starting();
        let subscription = world.tokens.subscribe();
        let driver = world.driver(|shared, run| {
            shared.publish(running(Generation::FIRST), Some(run), 0, false);
        });
        let heard = age(&subscription.borrow());
        assert!(age(&world.tokens.status()) >= heard);
        driver.join().unwrap();
    });
}

#[test]
fn no_news_is_lost_or_overtaken_while_the_task_that_delivers_is_about_to_end() {
    explore(|| {
        let world = World::starting();
        let stopping = Arc::clone(&world.shared);
        let stopping = thread::spawn(move || {
            Runtime::enter();
            stopping.stop(StopReason::ShutDown);
        });
        Runtime::enter();
        world.shared.publish(running(Generation::FIRST), Some(first_run()), 0, true);
        stopping.join().unwrap();
        block_on(world.shared.wound_up());
        assert_eq!(world.heard().last().unwrap().to, AuthStatus::Stopped(StopReason::ShutDown));
    });
}

#[test]
fn news_that_the_sink_refused_gives_way_to_newer_news() {
    explore(|| {
        let world = World::of(pending(), |event| event.to != AuthStatus::Running);
        Runtime::enter();
        world.shared.publish(running(Generation::FIRST), Some(first_run()), 0, true);
        world.shared.publish(retrying(), Some(first_run()), 0, true);
        block_on(world.shared.wound_up());
        assert_eq!(world.heard().last().unwrap().to, retrying().status);
    });
}

#[test]
fn who_has_waited_for_the_shutdown_finds_that_the_sink_knows_whoever_began_it() {
    explore(|| {
        let world = World::starting();
        let knows = |heard: &Heard| assert_eq!(heard.events().len(), 1);
        let other = thread::spawn({
            let (tokens, heard) = (world.tokens.clone(), Arc::clone(&world.heard));
            move || {
                Runtime::enter();
                block_on(tokens.shutdown());
                knows(&heard);
            }
        });
        Runtime::enter();
        block_on(world.tokens.shutdown());
        knows(&world.heard);
        other.join().unwrap();
    });
}

#[test]
fn who_has_waited_for_the_delivery_finds_it_done_whoever_began_it() {
    explore(|| {
        let world = World::starting();
        world.shared.publish(running(Generation::FIRST), Some(first_run()), 0, true);
        let deliver = |world: &World| {
            let (shared, heard) = (Arc::clone(&world.shared), Arc::clone(&world.heard));
            move || {
                Runtime::enter();
                shared.deliver_on(&Runtime::try_current().unwrap_or_else(|_| panic!("entered above")));
                block_on(shared.wound_up());
                assert_eq!(heard.events().len(), 1);
            }
        };
        let other = thread::spawn(deliver(&world));
        deliver(&world)();
        other.join().unwrap();
    });
}

#[test]
fn the_sink_is_told_of_an_end_that_came_from_outside_the_runtime() {
    explore(|| {
        let world = World::starting();
        let driver = world.driver(|shared, _| {
            Runtime::enter();
            shared.begin();
            shared.end();
        });
        world.shared.stop(StopReason::ShutDown);
        driver.join().unwrap();
        block_on(world.shared.wound_up());
        assert_eq!(world.heard().last().unwrap().to, AuthStatus::Stopped(StopReason::ShutDown));
    });
}

#[test]
fn who_waits_for_the_driver_does_not_sleep_through_its_end() {
    explore(|| {
        let world = World::starting();
        world.shared.begin();
        let driver = world.driver(|shared, _| shared.end());
        block_on(world.shared.wound_up());
        driver.join().unwrap();
    });
}

struct World {
    tokens: MonitoredTokenSource,
    shared: Arc<Shared>,
    heard: Arc<Heard>,
}

impl World {
    fn starting() -> Self {
        Self::of(pending(), |_| true)
    }

    fn serving() -> Self {
        Self::of(running(Generation::FIRST), |_| true)
    }

    fn of(view: View, takes: fn(&StatusEvent) -> bool) -> Self {
        let heard = Arc::new(Heard { takes, handle: OnceLock::new(), events: Mutex::default() });
        let delivery = Delivery::to(Arc::clone(&heard) as Arc<dyn StatusSink>);
        let shared = Arc::new(Shared::new("test".into(), Arc::default(), Clock::system(), delivery, true));
        let _ = heard.handle.set(Arc::downgrade(&shared));
        shared.publish(view, Some(first_run()), 0, false);
        let tokens = MonitoredTokenSource { handle: Arc::new(Handle { shared: Arc::clone(&shared) }) };
        Self { tokens, shared, heard }
    }

    fn token(&self) -> AccessToken {
        self.tokens.servable().unwrap()
    }

    fn driver(&self, drive: impl FnOnce(&Arc<Shared>, Run) + 'static) -> thread::JoinHandle<()> {
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || drive(&shared, first_run()))
    }

    fn waiter(&self, after: Option<Generation>) -> thread::JoinHandle<Result<AccessToken, AuthError>> {
        let tokens = self.tokens.clone();
        thread::spawn(move || {
            Runtime::enter();
            block_on(TokenFuture::new(&tokens.handle.shared, after))
        })
    }

    /// Waits for word as the driver does, and takes it.
    fn next_word(&self) -> (Inbox, u32) {
        block_on(poll_fn(|context| if self.shared.has_word(context) { Poll::Ready(()) } else { Poll::Pending }));
        self.shared.take()
    }

    /// What the sink took, in order and without a break.
    fn heard(&self) -> Vec<StatusEvent> {
        let heard = self.heard.events();
        let mut told = (0, AuthStatus::Pending);
        for event in &heard {
            assert!(event.sequence > told.0);
            assert_eq!(event.from, told.1);
            told = (event.sequence, event.to.clone());
        }
        heard
    }
}

/// A sink that looks at the handle before it answers.
struct Heard {
    takes: fn(&StatusEvent) -> bool,
    handle: OnceLock<Weak<Shared>>,
    events: Mutex<Vec<StatusEvent>>,
}

impl Heard {
    fn events(&self) -> Vec<StatusEvent> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl StatusSink for Heard {
    async fn set_status(&self, event: &StatusEvent) -> Result<(), BoxError> {
        let shared = self.handle.get().unwrap().upgrade().unwrap();
        assert!(age(&shared.view().status) >= age(&event.to), "the news is newer than the handle");
        if !(self.takes)(event) {
            return Err("not now".into());
        }
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event.clone());
        Ok(())
    }
}

/// Tells another thread that something has happened before.
#[derive(Default)]
struct Flag(AtomicBool);

impl Flag {
    fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

fn explore(test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound.get_or_insert(SWITCHES);
    model.check(test);
}

/// In the order in which the tests publish them.
fn age(status: &AuthStatus) -> u8 {
    match status {
        AuthStatus::Pending => 0,
        AuthStatus::Running => 1,
        AuthStatus::AuthRetrying(_) => 2,
        AuthStatus::Unauthenticated(_) => 3,
        AuthStatus::Stopped(_) => 4,
    }
}

fn pending() -> View {
    View {
        token: None,
        status: AuthStatus::Pending,
        outlook: Outlook::InFlight,
        next_attempt: None,
        latest: None,
        forced: Budget::default(),
        can_refresh: true,
        outcomes: 0,
        since: 0,
        cause: None,
        unsaved: false,
    }
}

fn running(generation: Generation) -> View {
    let outcomes = u16::try_from(generation.get()).unwrap();
    let status = AuthStatus::Running;
    let outlook = Outlook::From(never());
    View { token: Some(token(generation)), status, outlook, latest: Some(generation), outcomes, ..pending() }
}

fn retrying() -> View {
    let status = AuthStatus::AuthRetrying(RetryCause::TokenEndpoint);
    View { status, outlook: Outlook::FailFast(Some(never())), outcomes: 9, ..pending() }
}

fn token(generation: Generation) -> AccessToken {
    let issued = IssuedToken::bearer(generation.to_string());
    let authorization = issued.authorization().unwrap();
    let term = Term { generation, expires_at: None, serve_until: None, settled_from: Duration::ZERO };
    AccessToken::new(issued, authorization, term)
}

fn first_run() -> Run {
    machine().open_run().unwrap()
}

fn second_run() -> Run {
    let mut machine = machine();
    let _ = machine.handle(Event::Reauthenticated { can_refresh: true }, THE_BEGINNING);
    machine.open_run().unwrap()
}

fn machine() -> Machine {
    Machine::new(Arc::default(), 0, true, THE_BEGINNING)
}

fn never() -> Deadline {
    THE_BEGINNING.after(Duration::MAX)
}

fn invalid_token() -> Challenge {
    r#"Bearer error="invalid_token""#.parse().unwrap()
}

const THE_BEGINNING: Now = Now { mono: Duration::ZERO, wall: Duration::ZERO };
const SWITCHES: usize = 3;
