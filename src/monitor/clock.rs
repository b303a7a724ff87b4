//! The only file that reads a clock.
//!
//! Timers and schedules follow tokio's clock, so that a paused runtime drives them. A sleeping machine is found by
//! comparing the *real* monotonic clock with the wall clock: a runtime whose time is paused or advanced by a test has not
//! slept.

#![expect(clippy::disallowed_methods, reason = "this is the one file that may")]

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use crate::schedule::Now;

/// Both clocks, as the monitor sees them.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    began: tokio::time::Instant,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    System,
    #[cfg_attr(not(any(test, feature = "testing")), expect(dead_code, reason = "only tests drive clocks"))]
    Driven(Arc<driven::Offset>),
}

impl Clock {
    pub(crate) fn system() -> Self {
        Self { began: tokio::time::Instant::now(), source: Source::System }
    }

    pub(crate) fn now(&self) -> Now {
        Now { mono: self.mono(), wall: self.wall() }
    }

    /// Since the clock was made.
    pub(crate) fn mono(&self) -> Duration {
        self.began.elapsed()
    }

    /// Since the Unix epoch. The one reading on the path of a valid token.
    pub(crate) fn wall(&self) -> Duration {
        match &self.source {
            Source::System => since_epoch(SystemTime::now()),
            Source::Driven(offset) => offset.wall(self.began.elapsed()),
        }
    }

    /// The instant of tokio's clock at which the monotonic clock will show `mono`.
    pub(crate) fn instant(&self, mono: Duration) -> Option<tokio::time::Instant> {
        self.began.checked_add(mono)
    }

    fn reading(&self) -> Reading {
        match &self.source {
            Source::System => Reading { mono: Mono::Real(Instant::now()), wall: self.wall() },
            Source::Driven(_) => Reading { mono: Mono::Driven(self.began.elapsed()), wall: self.wall() },
        }
    }
}

/// Notices that the machine slept or that the wall clock was stepped.
#[derive(Debug)]
pub(crate) struct Watch {
    last: Reading,
}

impl Watch {
    pub(crate) fn starting(clock: &Clock) -> Self {
        Self { last: clock.reading() }
    }

    /// Whether the two clocks have drifted apart since the last look, or this look came much later than planned.
    pub(crate) fn jumped(&mut self, clock: &Clock, planned: Option<Duration>, clock_check: Duration) -> bool {
        let last = std::mem::replace(&mut self.last, clock.reading());
        let mono = self.last.mono.since(&last.mono);
        let drift = last.wall.saturating_add(mono).abs_diff(self.last.wall);
        let late = planned.map(|planned| clock.began.elapsed().saturating_sub(planned));
        drift > MOST_DRIFT || late.is_some_and(|late| late > clock_check.saturating_mul(2))
    }
}

#[derive(Debug)]
struct Reading {
    mono: Mono,
    wall: Duration,
}

#[derive(Debug)]
enum Mono {
    Real(Instant),
    Driven(Duration),
}

impl Mono {
    fn since(&self, earlier: &Self) -> Duration {
        match (self, earlier) {
            (Self::Real(now), Self::Real(then)) => now.saturating_duration_since(*then),
            (Self::Driven(now), Self::Driven(then)) => now.saturating_sub(*then),
            (Self::Real(_), Self::Driven(_)) | (Self::Driven(_), Self::Real(_)) => Duration::ZERO,
        }
    }
}

pub(crate) fn since_epoch(wall: SystemTime) -> Duration {
    wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// An instant of the wall clock; `None` beyond what the platform can name.
pub(crate) fn wall_time(since_epoch: Duration) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(since_epoch)
}

const MOST_DRIFT: Duration = Duration::from_secs(5);

mod driven {
    use std::{
        sync::atomic::{AtomicI64, Ordering},
        time::Duration,
    };

    /// How far a test has moved the wall clock away from the monotonic one.
    #[derive(Debug, Default)]
    pub(super) struct Offset(AtomicI64);

    impl Offset {
        #[cfg(any(test, feature = "testing"))]
        pub(super) fn shift(&self, by: i64) {
            self.0.fetch_add(by, Ordering::Relaxed);
        }

        pub(super) fn wall(&self, elapsed: Duration) -> Duration {
            let shift = self.0.load(Ordering::Relaxed);
            let distance = Duration::from_millis(shift.unsigned_abs());
            let wall = BEGINNING.saturating_add(elapsed);
            if shift < 0 { wall.saturating_sub(distance) } else { wall.saturating_add(distance) }
        }
    }

    /// The wall clock of a driven clock begins at 2025-01-01T00:00:00Z, so that runs repeat.
    const BEGINNING: Duration = Duration::from_secs(1_735_689_600);
}

/// A pair of clocks for tests: the monotonic one is tokio's, the wall clock follows it but for what the test does to it.
///
/// Needs a runtime with paused time to be of use.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// use std::time::Duration;
/// use steadfast::{AuthStatus, IssuedToken, MonitoredTokenSource, testing::TestClock};
///
/// let clock = TestClock::new();
/// let source = || async { Ok(IssuedToken::bearer("s3cret").expires_in(Duration::from_secs(3600))) };
/// let tokens = MonitoredTokenSource::builder(source).clock(&clock).spawn().unwrap();
/// let first = tokens.token().await.unwrap();
///
/// clock.suspend(Duration::from_secs(8 * 3600));
/// assert!(tokens.try_token().is_err(), "the token ended while the machine slept");
/// assert!(tokens.token().await.unwrap().generation() > first.generation());
/// # }
/// ```
#[cfg(any(test, feature = "testing"))]
#[derive(Clone, Debug)]
pub struct TestClock(Clock);

#[cfg(any(test, feature = "testing"))]
impl TestClock {
    /// Both clocks begin now, at 2025-01-01T00:00:00Z.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "reading a clock is no default")]
    pub fn new() -> Self {
        Self(Clock { began: tokio::time::Instant::now(), source: Source::Driven(Arc::default()) })
    }

    /// The machine sleeps this long: the wall clock goes on, the monotonic one stands still.
    pub fn suspend(&self, for_this_long: Duration) {
        self.step_forward(for_this_long);
    }

    /// Somebody sets the wall clock forward.
    pub fn step_forward(&self, by: Duration) {
        self.shift(i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
    }

    /// Somebody sets the wall clock back.
    pub fn step_back(&self, by: Duration) {
        self.shift(i64::try_from(by.as_millis()).map_or(i64::MIN, i64::wrapping_neg));
    }

    /// What the wall clock shows.
    #[must_use]
    pub fn wall(&self) -> SystemTime {
        wall_time(self.0.wall()).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    pub(crate) fn clock(&self) -> Clock {
        self.0.clone()
    }

    fn shift(&self, by: i64) {
        match &self.0.source {
            Source::Driven(offset) => offset.shift(by),
            Source::System => {}
        }
    }
}
