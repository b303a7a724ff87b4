//! What surrounds everything: time, chance, the weather, and the journal in which all is written down.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fmt::{self, Write as _},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{promises::Checked, weather::Weather};

pub(crate) struct Nature {
    began: Instant,
    /// How long the machine has slept, in milliseconds: the monotonic clock has missed it, the rest of the world has not.
    slept: AtomicU64,
    over: AtomicBool,
    /// Whether the journal is kept.
    told: bool,
    dice: Mutex<fastrand::Rng>,
    weather: Mutex<Weather>,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    lines: Vec<String>,
    broken: Option<String>,
    /// What has come up in this life, to be seen from outside: whether the world is as bad as it should be.
    met: BTreeSet<String>,
}

impl Nature {
    pub(crate) fn of(seed: u64, told: bool) -> Arc<Self> {
        // The library's own randomness, where it takes no seed.
        fastrand::seed(seed);
        let nature = Arc::new(Self {
            began: Instant::now(),
            slept: AtomicU64::new(0),
            over: AtomicBool::new(false),
            told,
            dice: Mutex::new(fastrand::Rng::with_seed(seed)),
            weather: Mutex::default(),
            book: Mutex::default(),
        });
        PRESENT.with(|present| *present.borrow_mut() = Some(Arc::clone(&nature)));
        nature
    }

    /// The world of the seed that this thread is at.
    pub(crate) fn present() -> Option<Arc<Self>> {
        PRESENT.with(|present| present.borrow().clone())
    }

    /// The monotonic clock, since the world began.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// How much time has gone by for those who neither sleep nor have their clocks set: the servers.
    pub(crate) fn true_time(&self) -> Duration {
        self.now() + Duration::from_millis(self.slept.load(Ordering::Relaxed))
    }

    /// The world ends, and with it every task in it.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// All machines sleep, and the servers do not.
    pub(crate) fn suspend(&self, span: Duration) {
        self.slept.fetch_add(span.as_millis() as u64, Ordering::Relaxed);
    }
}

/// Chance.
impl Nature {
    pub(crate) fn roll(&self, sides: usize) -> usize {
        locked(&self.dice).usize(..sides)
    }

    pub(crate) fn chance(&self, percent: usize) -> bool {
        self.roll(100) < percent
    }

    pub(crate) fn pick<T: Copy>(&self, from: &[T]) -> T {
        from[self.roll(from.len())]
    }

    pub(crate) fn millis(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(locked(&self.dice).u64(from..=to))
    }

    pub(crate) fn secs(&self, from: u64, to: u64) -> Duration {
        self.millis(from * 1000, to * 1000)
    }

    pub(crate) fn weather(&self) -> Weather {
        *locked(&self.weather)
    }

    pub(crate) fn set_weather(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut locked(&self.weather));
    }
}

/// The journal.
impl Nature {
    pub(crate) fn note(&self, line: fmt::Arguments<'_>) {
        if !self.told {
            return;
        }
        let mut text = format!("{:>10.3} ", self.now().as_secs_f64());
        let _ = text.write_fmt(line);
        locked(&self.book).lines.push(text);
    }

    pub(crate) fn meets(&self, what: &str) {
        let mut book = locked(&self.book);
        if !book.met.contains(what) {
            book.met.insert(what.to_owned());
        }
    }

    /// The first broken promise ends the seed. Checks run in tasks whose panics the library catches, so they do not panic.
    pub(crate) fn check(&self, checked: Checked) {
        if let Err(broken) = checked {
            self.note(format_args!("BROKEN {broken}"));
            locked(&self.book).broken.get_or_insert(broken);
        }
    }

    pub(crate) fn broken(&self) -> Option<String> {
        locked(&self.book).broken.clone()
    }

    /// The story of this life, and what has come up in it.
    pub(crate) fn close(&self) -> (Vec<String>, BTreeSet<String>) {
        PRESENT.with(|present| *present.borrow_mut() = None);
        let mut book = locked(&self.book);
        (std::mem::take(&mut book.lines), std::mem::take(&mut book.met))
    }
}

/// A panic that was wanted has no lock in its hands that it could have spoiled.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    static PRESENT: RefCell<Option<Arc<Nature>>> = const { RefCell::new(None) };
}
