//! Stand-ins for what loom has no version of, each as weak as the documents of the real one allow.

use std::{
    cell::Cell,
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

pub(crate) use loom::sync::{Mutex, MutexGuard};
use loom::{
    future::block_on,
    sync::atomic::{self, Ordering},
    thread,
};

/// Loom remembers only the last look at an atomic, and so would not try a change before each of the looks that came before it.
/// Here every access takes a turn first, which loom does not forget; relaxed, so that it tells nobody anything.
macro_rules! atomic {
    ($name:ident, $number:ty) => {
        pub(crate) struct $name {
            turns: atomic::AtomicUsize,
            value: atomic::$name,
        }

        #[allow(dead_code, reason = "not each of them needs all")]
        impl $name {
            pub(crate) fn new(value: $number) -> Self {
                Self { turns: atomic::AtomicUsize::new(0), value: atomic::$name::new(value) }
            }

            pub(crate) fn load(&self, order: Ordering) -> $number {
                self.in_turn().load(order)
            }

            pub(crate) fn store(&self, value: $number, order: Ordering) {
                self.in_turn().store(value, order);
            }

            pub(crate) fn fetch_add(&self, by: $number, order: Ordering) -> $number {
                self.in_turn().fetch_add(by, order)
            }

            pub(crate) fn fetch_update(
                &self,
                changed: Ordering,
                unchanged: Ordering,
                change: impl FnMut($number) -> Option<$number>,
            ) -> Result<$number, $number> {
                self.in_turn().fetch_update(changed, unchanged, change)
            }

            fn in_turn(&self) -> &atomic::$name {
                self.turns.fetch_add(1, Ordering::Relaxed);
                &self.value
            }
        }
    };
}

atomic!(AtomicU8, u8);
atomic!(AtomicU32, u32);
atomic!(AtomicUsize, usize);

/// Set once, in one go: whoever comes second finds what the first has set.
pub(crate) struct OnceLock<T> {
    turns: atomic::AtomicUsize,
    value: std::sync::OnceLock<T>,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self { turns: atomic::AtomicUsize::new(0), value: std::sync::OnceLock::new() }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.turns.fetch_add(1, Ordering::AcqRel);
        self.value.get()
    }

    pub(crate) fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
        let value = init();
        self.turns.fetch_add(1, Ordering::AcqRel);
        self.value.get_or_init(|| value)
    }
}

/// An atomic pointer: `store` releases, `load` acquires, and a reader whom nothing else tells may find an older value.
///
/// Assumes that what the real one does to keep the value alive for its readers is right: here nothing is freed.
pub(crate) struct ArcSwap<T> {
    current: AtomicUsize,
    stored: std::sync::Mutex<Vec<Arc<T>>>,
}

pub(crate) type Guard<T> = T;

impl<T> ArcSwap<T> {
    pub(crate) fn from_pointee(value: T) -> Self {
        Self { current: AtomicUsize::new(0), stored: std::sync::Mutex::new(vec![Arc::new(value)]) }
    }

    pub(crate) fn load(&self) -> Arc<T> {
        let current = self.current.load(Ordering::Acquire);
        Arc::clone(&self.stored.lock().unwrap()[current])
    }

    pub(crate) fn load_full(&self) -> Arc<T> {
        self.load()
    }

    pub(crate) fn store(&self, value: Arc<T>) {
        let next = {
            let mut stored = self.stored.lock().unwrap();
            stored.push(value);
            stored.len() - 1
        };
        self.current.store(next, Ordering::Release);
    }
}

/// Who holds a `Notified` is woken by each `notify_waiters` since that was made, polled or not.
pub(crate) struct Notify {
    calls: AtomicUsize,
    waiting: Mutex<Vec<Waker>>,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self { calls: AtomicUsize::new(0), waiting: Mutex::new(Vec::new()) }
    }

    pub(crate) fn notified(&self) -> impl Future<Output = ()> + Send + '_ {
        let seen = self.calls.load(Ordering::SeqCst);
        poll_fn(move |context| self.poll(seen, context))
    }

    pub(crate) fn notify_waiters(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.calls.fetch_add(1, Ordering::SeqCst);
        let woken = std::mem::take(&mut *waiting);
        drop(waiting);
        woken.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, seen: usize, context: &Context<'_>) -> Poll<()> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.calls.load(Ordering::SeqCst) != seen {
            return Poll::Ready(());
        }
        waiting.push(context.waker().clone());
        Poll::Pending
    }
}

/// The value under a lock; who waits for a change is not modelled.
pub(crate) mod watch {
    use super::{Arc, Mutex, MutexGuard, PoisonError};

    pub(crate) struct Sender<T>(Arc<Mutex<T>>);

    #[derive(Debug)]
    pub struct Receiver<T>(Arc<Mutex<T>>);

    impl<T> Sender<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(Arc::new(Mutex::new(value)))
        }

        pub(crate) fn subscribe(&self) -> Receiver<T> {
            Receiver(Arc::clone(&self.0))
        }

        pub(crate) fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) {
            modify(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn borrow(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

/// A runtime whose every task is a thread. Whoever is inside says so.
#[derive(Clone)]
pub(crate) struct Handle(());

impl Handle {
    pub(crate) fn try_current() -> Result<Self, NoRuntime> {
        if INSIDE.with(Cell::get) { Ok(Self(())) } else { Err(NoRuntime) }
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        thread::spawn(|| {
            Self::enter();
            block_on(task);
        });
    }

    /// From here on this thread is one of the runtime's.
    pub(crate) fn enter() {
        INSIDE.with(|inside| inside.set(true));
    }
}

pub(crate) struct NoRuntime;

loom::thread_local! {
    static INSIDE: Cell<bool> = Cell::new(false);
}

/// Runs where it is awaited.
pub(crate) fn spawn<T>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    JoinHandle(Box::pin(task))
}

pub(crate) struct JoinHandle<T>(Pin<Box<dyn Future<Output = T> + Send>>);

impl<T> JoinHandle<T> {
    pub(crate) fn abort(&self) {}
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context).map(Ok)
    }
}

/// Time stands still: who is not woken waits for ever, which loom reports as a deadlock.
pub(crate) async fn timeout<F: Future>(_: Duration, future: F) -> Result<F::Output, Infallible> {
    Ok(future.await)
}
