//! The only file that reads a clock.
//!
//! Timers and schedules follow tokio's clock, so that a paused runtime drives them. A sleeping machine is found by
//! comparing the *real* monotonic clock with the wall clock: a runtime whose time is paused or advanced by a test has not
//! slept.

#![expect(clippy::disallowed_methods, reason = "this is the one file that may")]

use std::{
    sync::{Arc, LazyLock},
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

    /// The wall clock, since the Unix epoch.
    pub(crate) fn wall(&self) -> Duration {
        since_epoch(self.time())
    }

    /// The wall clock as the platform tells the time: the one reading on the path of a valid token, where turning it into a
    /// duration would cost more than all that is done with it.
    pub(crate) fn time(&self) -> SystemTime {
        match &self.source {
            Source::System => SystemTime::now(),
            Source::Driven(offset) => SystemTime::UNIX_EPOCH + offset.wall(self.began.elapsed()),
        }
    }

    /// The instant of tokio's clock at which the monotonic clock will show `mono`.
    pub(crate) fn instant(&self, mono: Duration) -> Option<tokio::time::Instant> {
        self.began.checked_add(mono)
    }

    /// How many nanoseconds the wall clock is ahead of the monotonic one, wherever that began.
    fn lead(&self) -> i64 {
        let mono = match &self.source {
            Source::System => FIRST_LOOK.elapsed(),
            Source::Driven(_) => self.began.elapsed(),
        };
        let nanos = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        nanos(self.wall()).saturating_sub(nanos(mono))
    }
}

/// Notices that the machine slept or that the wall clock was stepped.
#[derive(Debug)]
pub(crate) struct Watch {
    lead: i64,
}

impl Watch {
    pub(crate) fn starting(clock: &Clock) -> Self {
        Self { lead: clock.lead() }
    }

    /// Whether the two clocks have drifted apart since the last look, or this look came much later than planned.
    pub(crate) fn jumped(
        &mut self,
        clock: &Clock,
        planned: Option<tokio::time::Instant>,
        clock_check: Duration,
    ) -> bool {
        let last = std::mem::replace(&mut self.lead, clock.lead());
        let drift = Duration::from_nanos(self.lead.abs_diff(last));
        let late = planned.map(|planned| planned.elapsed());
        drift > MOST_DRIFT || late.is_some_and(|late| late > clock_check.saturating_mul(2))
    }
}

/// The real monotonic clock, which a runtime with paused time does not follow.
static FIRST_LOOK: LazyLock<Instant> = LazyLock::new(Instant::now);

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
        self.0.time()
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
