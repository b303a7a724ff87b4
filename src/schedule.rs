//! When: deadlines on two clocks, refresh instants, the short retry, probes and budgets. Pure arithmetic that saturates.

use std::time::Duration;

use crate::policy::{ForcedRefreshes, RefreshAhead, RefreshPolicy};

/// One instant, read on both clocks. The monotonic one stands still while most machines sleep; the wall clock can be
/// stepped. Neither is trusted alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Now {
    /// Since the monitor began.
    pub(crate) mono: Duration,
    /// Since the Unix epoch.
    pub(crate) wall: Duration,
}

impl Now {
    pub(crate) const fn after(self, wait: Duration) -> Deadline {
        Deadline { mono: self.mono.saturating_add(wait), wall: self.wall.saturating_add(wait) }
    }
}

/// An instant to come. It has passed as soon as either clock says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub(crate) mono: Duration,
    pub(crate) wall: Duration,
}

impl Deadline {
    /// Has passed at any instant.
    pub(crate) const PAST: Self = Self { mono: Duration::ZERO, wall: Duration::ZERO };

    pub(crate) fn passed(self, now: Now) -> bool {
        now.mono >= self.mono || now.wall >= self.wall
    }

    pub(crate) fn remaining(self, now: Now) -> Duration {
        self.mono.saturating_sub(now.mono).min(self.wall.saturating_sub(now.wall))
    }

    pub(crate) fn max(self, other: Self) -> Self {
        Self { mono: self.mono.max(other.mono), wall: self.wall.max(other.wall) }
    }

    pub(crate) fn min(self, other: Self) -> Self {
        if other.mono < self.mono { other } else { self }
    }
}

/// Randomness for spreading things out; seeded, so that a run can be repeated.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(fastrand::Rng);

impl Jitter {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// `span`, give or take `fraction` of it.
    fn around(&mut self, span: Duration, fraction: f64) -> Duration {
        scale(span, fraction.mul_add(self.0.f64().mul_add(2.0, -1.0), 1.0))
    }

    /// Somewhere between nothing and `fraction` of `span`.
    fn up_to(&mut self, span: Duration, fraction: f64) -> Duration {
        scale(span, fraction * self.0.f64())
    }

    /// The next wait of the long window.
    pub(crate) fn tick(&mut self, policy: &RefreshPolicy) -> Duration {
        self.around(policy.auth_retrying_tick, LONG_JITTER)
    }
}

/// What a lifetime means for a token whose request was sent at some instant; both spans count from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    /// Not served after this.
    pub(crate) serve_for: Duration,
    /// Refreshed after this.
    pub(crate) refresh_after: Duration,
}

impl Validity {
    pub(crate) fn of(lifetime: Duration, policy: &RefreshPolicy, jitter: &mut Jitter) -> Self {
        let window = match policy.refresh_ahead {
            RefreshAhead::Fixed(window) => window,
            RefreshAhead::ByLifetime if lifetime <= minutes(20) => minutes(5),
            RefreshAhead::ByLifetime if lifetime <= minutes(90) => minutes(15),
            RefreshAhead::ByLifetime => minutes(60),
        };
        // Capped before the jitter, which thus never pushes the refresh of a short token to its very start.
        let window = window.min(lifetime / 2);
        let early = window.saturating_add(jitter.up_to(window, REFRESH_JITTER));
        Self {
            serve_for: lifetime.saturating_sub(policy.expiry_margin.min(lifetime / 10)),
            refresh_after: lifetime.saturating_sub(early),
        }
    }
}

/// The short retry: how far it has come. It begins with a failure, so it cannot exist without one.
#[derive(Clone, Debug)]
pub(crate) struct ShortRetry {
    tries: u32,
    until: Deadline,
    waits: Doubling,
}

impl ShortRetry {
    /// A short retry whose next failure is its first.
    pub(crate) fn starting(now: Now, policy: &RefreshPolicy) -> Self {
        Self {
            tries: 0,
            until: now.after(policy.max_elapsed),
            waits: Doubling::new(policy.initial_retry_interval, policy.max_retry_interval),
        }
    }

    /// One more try has failed. When is the next, not before `floor`? `None` when the short retry is over.
    pub(crate) fn failed(
        &mut self,
        now: Now,
        floor: Deadline,
        policy: &RefreshPolicy,
        jitter: &mut Jitter,
    ) -> Option<Deadline> {
        self.tries = self.tries.saturating_add(1);
        let wait = jitter.around(self.waits.next()?, SHORT_JITTER).min(policy.max_retry_interval);
        let due = now.after(wait).max(floor);
        (self.tries < policy.max_tries && due.mono <= self.until.mono).then_some(due)
    }

    /// A try came to nothing because somebody else was at work: no try counted, no wait doubled. The time it takes counts,
    /// or whoever never finishes would hold us here for ever.
    pub(crate) fn deferred(
        &self,
        now: Now,
        floor: Deadline,
        policy: &RefreshPolicy,
        jitter: &mut Jitter,
    ) -> Option<Deadline> {
        let due = now.after(jitter.around(policy.initial_retry_interval, SHORT_JITTER)).max(floor);
        (due.mono <= self.until.mono).then_some(due)
    }
}

/// Waits that double up to a cap.
#[derive(Clone, Debug)]
pub(crate) struct Doubling {
    next: Duration,
    cap: Duration,
}

impl Doubling {
    pub(crate) const fn new(first: Duration, cap: Duration) -> Self {
        Self { next: first, cap }
    }
}

impl Iterator for Doubling {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = self.next.min(self.cap);
        self.next = wait.saturating_mul(2);
        Some(wait)
    }
}

/// When callers' demand may start an attempt in the long window: a gap after the last attempt, whatever started that
/// one, so that probes and ticks together come no more often than the tick alone once the gap has grown to it.
#[derive(Clone, Debug)]
pub(crate) struct DemandProbe {
    gaps: Doubling,
    gap: Duration,
    from: Deadline,
}

impl DemandProbe {
    /// `None` where the policy wants no such probes.
    pub(crate) fn starting(now: Now, policy: &RefreshPolicy, jitter: &mut Jitter) -> Option<Self> {
        let mut gaps = Doubling::new(policy.demand_probe_interval?, policy.auth_retrying_tick);
        let gap = gaps.next()?;
        let mut probe = Self { gaps, gap, from: now.after(gap) };
        probe.attempt_ended(now, jitter);
        Some(probe)
    }

    pub(crate) const fn from(&self) -> Deadline {
        self.from
    }

    pub(crate) fn attempt_ended(&mut self, now: Now, jitter: &mut Jitter) {
        self.from = now.after(jitter.around(self.gap, LONG_JITTER));
    }

    /// A probe starts: the next gap is twice as long.
    pub(crate) fn started(&mut self) {
        self.gap = self.gaps.next().unwrap_or(self.gap);
    }
}

/// A budget that refills at a steady pace, kept as the one instant at which it is full again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    full_at: Duration,
    size: ForcedRefreshes,
}

impl Budget {
    pub(crate) const fn full(size: ForcedRefreshes) -> Self {
        Self { full_at: Duration::ZERO, size }
    }

    pub(crate) fn is_empty(self, now: Now) -> bool {
        self.after_spending(now).is_none()
    }

    /// Takes one out; `false` if there is none.
    pub(crate) fn spend(&mut self, now: Now) -> bool {
        let spent = self.after_spending(now);
        self.full_at = spent.unwrap_or(self.full_at);
        spent.is_some()
    }

    fn after_spending(self, now: Now) -> Option<Duration> {
        let full_at = self.full_at.max(now.mono).saturating_add(self.size.refill);
        let deepest = now.mono.saturating_add(self.size.refill.saturating_mul(self.size.burst));
        (full_at <= deepest).then_some(full_at)
    }
}

/// The part of `wait` that a retry hint may claim.
pub(crate) fn capped(wait: Duration, policy: &RefreshPolicy) -> Duration {
    wait.min(policy.retry_after_cap)
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

fn scale(span: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(span.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

const SHORT_JITTER: f64 = 0.2;
const LONG_JITTER: f64 = 0.1;
const REFRESH_JITTER: f64 = 0.1;
