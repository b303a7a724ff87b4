//! When: deadlines on two clocks, refresh instants, the short retry, probes and budgets. Pure arithmetic that saturates.

use std::{num::NonZeroU64, time::Duration};

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
        Deadline::at(self.mono.saturating_add(wait), self.wall.saturating_add(wait))
    }
}

/// An instant to come. It has passed as soon as either clock says so.
///
/// Kept in nanoseconds, which last until the year 2554 and then mean never: a state holds many deadlines, and a host may
/// hold a hundred thousand states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline {
    mono: u64,
    /// Never zero, so that having no deadline takes no room.
    wall: NonZeroU64,
}

impl Deadline {
    /// Has passed at any instant.
    pub(crate) const PAST: Self = Self { mono: 0, wall: NonZeroU64::MIN };

    const fn at(mono: Duration, wall: Duration) -> Self {
        let wall = match NonZeroU64::new(nanos(wall)) {
            Some(wall) => wall,
            None => NonZeroU64::MIN,
        };
        Self { mono: nanos(mono), wall }
    }

    pub(crate) const fn mono(self) -> Duration {
        duration(self.mono)
    }

    pub(crate) const fn wall(self) -> Duration {
        duration(self.wall.get())
    }

    pub(crate) fn passed(self, now: Now) -> bool {
        now.mono >= self.mono() || now.wall >= self.wall()
    }

    pub(crate) fn remaining(self, now: Now) -> Duration {
        self.mono().saturating_sub(now.mono).min(self.wall().saturating_sub(now.wall))
    }

    pub(crate) fn max(self, other: Self) -> Self {
        Self { mono: self.mono.max(other.mono), wall: self.wall.max(other.wall) }
    }

    /// Has passed as soon as either has.
    pub(crate) fn min(self, other: Self) -> Self {
        Self { mono: self.mono.min(other.mono), wall: self.wall.min(other.wall) }
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
    pub(crate) fn up_to(&mut self, span: Duration, fraction: f64) -> Duration {
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
}

impl ShortRetry {
    /// A short retry whose next failure is its first.
    pub(crate) fn starting(now: Now, policy: &RefreshPolicy) -> Self {
        Self { tries: 0, until: now.after(policy.max_elapsed) }
    }

    /// One more try has failed. When is the next, not before `floor`? `None` when the short retry is over.
    pub(crate) fn failed(
        &mut self,
        now: Now,
        floor: Deadline,
        policy: &RefreshPolicy,
        jitter: &mut Jitter,
    ) -> Option<Deadline> {
        let exact = Doubling::new(policy.initial_retry_interval, policy.max_retry_interval).after(self.tries);
        self.tries = self.tries.saturating_add(1);
        let wait = jitter.around(exact, SHORT_JITTER).min(policy.max_retry_interval);
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

    /// The wait that follows this many others.
    fn after(self, others: u32) -> Duration {
        self.next.saturating_mul(2_u32.saturating_pow(others)).min(self.cap)
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
    /// How many have been started.
    probes: u32,
    from: Deadline,
}

impl DemandProbe {
    /// `None` where the policy wants no such probes.
    pub(crate) fn starting(now: Now, policy: &RefreshPolicy, jitter: &mut Jitter) -> Option<Self> {
        policy.demand_probe_interval?;
        let mut probe = Self { probes: 0, from: Deadline::PAST };
        probe.attempt_ended(now, policy, jitter);
        Some(probe)
    }

    pub(crate) const fn from(&self) -> Deadline {
        self.from
    }

    pub(crate) fn attempt_ended(&mut self, now: Now, policy: &RefreshPolicy, jitter: &mut Jitter) {
        let first = policy.demand_probe_interval.unwrap_or(policy.auth_retrying_tick);
        let gap = Doubling::new(first, policy.auth_retrying_tick).after(self.probes);
        self.from = now.after(jitter.around(gap, LONG_JITTER));
    }

    /// A probe starts: the next gap is twice as long.
    pub(crate) fn started(&mut self) {
        self.probes = self.probes.saturating_add(1);
    }
}

/// A budget that refills at a steady pace, kept as the one instant at which it is full again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Budget {
    /// In nanoseconds of the monotonic clock.
    full_at: u64,
}

impl Budget {
    pub(crate) fn is_empty(self, size: ForcedRefreshes, now: Now) -> bool {
        !self.open_from(size).passed(now)
    }

    /// When there is one to take out. The budget goes by time the machine was awake, so only by the monotonic clock.
    pub(crate) fn open_from(self, size: ForcedRefreshes) -> Deadline {
        let mono = match size.burst.checked_sub(1) {
            Some(others) => duration(self.full_at).saturating_sub(refill(size).saturating_mul(others)),
            None => Duration::MAX,
        };
        Deadline::at(mono, Duration::MAX)
    }

    /// Takes one out; `false` if there is none.
    pub(crate) fn spend(&mut self, size: ForcedRefreshes, now: Now) -> bool {
        let open = !self.is_empty(size, now);
        if open {
            self.full_at = nanos(duration(self.full_at).max(now.mono).saturating_add(refill(size)));
        }
        open
    }
}

/// A refill of `Duration::MAX` is meant to be never; unbounded, it would saturate and never run dry instead.
fn refill(size: ForcedRefreshes) -> Duration {
    size.refill.min(LONGEST_REFILL)
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

/// Saturates after 584 years.
const fn nanos(duration: Duration) -> u64 {
    let nanos = duration.as_nanos();
    if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 }
}

/// What has been saturated is not reached.
const fn duration(nanos: u64) -> Duration {
    if nanos == u64::MAX { Duration::MAX } else { Duration::from_nanos(nanos) }
}

const LONGEST_REFILL: Duration = minutes(10 * 365 * 24 * 60);
const SHORT_JITTER: f64 = 0.2;
const LONG_JITTER: f64 = 0.1;
const REFRESH_JITTER: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_has_passed_as_soon_as_either_clock_says_so() {
        let due = at(100, 1000).after(secs(60));
        for (mono, wall, passed) in
            [(159, 1059, false), (160, 1000, true), (100, 1060, true), (160, 0, true), (0, 1060, true), (0, 0, false)]
        {
            assert_eq!(due.passed(at(mono, wall)), passed, "{mono} {wall}");
            assert_eq!(due.remaining(at(mono, wall)).is_zero(), passed, "{mono} {wall}");
        }
    }

    #[test]
    fn the_earlier_of_two_deadlines_has_passed_as_soon_as_either_has() {
        // A suspend of 55 s has brought the older one close by the wall clock only.
        let older = at(0, 0).after(secs(60));
        let newer = at(0, 55).after(secs(10));
        assert_eq!(older.min(newer).remaining(at(0, 55)), secs(5));
        assert_eq!(older.min(newer), newer.min(older));
        assert_eq!(older.max(newer).remaining(at(0, 55)), secs(10));
    }

    #[test]
    fn a_refresh_is_due_one_window_before_expiry_and_up_to_a_tenth_of_it_earlier() {
        for (lifetime, window) in [
            (minutes(10), minutes(5)),
            (minutes(20), minutes(5)),
            (minutes(20) + secs(1), minutes(10) + secs(1) / 2),
            (minutes(40), minutes(15)),
            (minutes(90), minutes(15)),
            (minutes(90) + secs(1), minutes(45) + secs(1) / 2),
            (minutes(120), minutes(60)),
            (minutes(240), minutes(60)),
            // Capped at half the lifetime, before the jitter.
            (minutes(6), minutes(3)),
            (secs(2), secs(1)),
        ] {
            check_refresh(&RefreshPolicy::DEFAULT, lifetime, window);
        }
    }

    #[test]
    fn a_fixed_window_is_capped_at_half_the_lifetime_too() {
        let fixed = |window| RefreshPolicy { refresh_ahead: RefreshAhead::Fixed(window), ..RefreshPolicy::DEFAULT };
        check_refresh(&fixed(minutes(7)), minutes(60), minutes(7));
        check_refresh(&fixed(minutes(7)), minutes(10), minutes(5));
        check_refresh(&fixed(Duration::MAX), minutes(10), minutes(5));
    }

    #[test]
    fn a_token_is_not_served_in_its_margin_which_is_a_tenth_of_its_life_at_most() {
        let policy = RefreshPolicy::DEFAULT;
        for (lifetime, served) in [(secs(3600), secs(3590)), (secs(100), secs(90)), (secs(50), secs(45))] {
            assert_eq!(Validity::of(lifetime, &policy, &mut Jitter::seeded(1)).serve_for, served);
        }
    }

    #[test]
    fn the_short_retry_doubles_its_waits_gives_or_takes_a_fifth_and_caps_last() {
        let policy = RefreshPolicy { max_tries: 20, max_elapsed: Duration::MAX, ..RefreshPolicy::DEFAULT };
        let (mut shortest, mut longest) = ([Duration::MAX; 10], [Duration::ZERO; 10]);
        for seed in 0..200 {
            let waits = retry_waits(&policy, seed);
            assert_eq!(waits.len(), 19);
            for (nth, wait) in waits.iter().take(10).enumerate() {
                shortest[nth] = shortest[nth].min(*wait);
                longest[nth] = longest[nth].max(*wait);
            }
        }
        for (nth, exact) in [1, 2, 4, 8, 16, 32, 64].into_iter().enumerate() {
            let spread = (secs(exact) * 8 / 10, secs(exact) * 12 / 10);
            assert!(shortest[nth] >= spread.0 && longest[nth] <= spread.1, "{nth}");
            assert!(shortest[nth] < secs(exact) * 9 / 10 && longest[nth] > secs(exact) * 11 / 10, "{nth}: no jitter");
        }
        // The jitter never lifts a wait over the cap.
        assert_eq!(longest[7], secs(120));
        assert_eq!(longest[9], secs(120));
    }

    #[test]
    fn max_tries_counts_the_first() {
        for max_tries in [1, 2, 8] {
            let policy = RefreshPolicy { max_tries, ..RefreshPolicy::DEFAULT };
            assert_eq!(retry_waits(&policy, 1).len(), max_tries as usize - 1);
        }
    }

    #[test]
    fn max_elapsed_runs_from_the_first_failure() {
        let policy = RefreshPolicy { max_tries: 100, ..RefreshPolicy::DEFAULT };
        for seed in 0..20 {
            let total: Duration = retry_waits(&policy, seed).iter().sum();
            assert!((secs(180)..=secs(300)).contains(&total), "{total:?}");
        }
        // What passes before the first failure does not count; what an attempt takes does.
        let mut retry = ShortRetry::starting(at(1000, 1000), &policy);
        let mut fail = |now: Now| retry.failed(now, Deadline::PAST, &policy, &mut Jitter::seeded(1));
        assert!(fail(at(1000, 1000)).is_some());
        assert!(fail(at(1297, 1297)).is_some());
        assert!(fail(at(1299, 1299)).is_none());
    }

    #[test]
    fn no_try_comes_before_the_floor_and_a_floor_beyond_max_elapsed_ends_the_short_retry() {
        let policy = RefreshPolicy::DEFAULT;
        for (floor, due) in [(secs(60), Some(secs(60))), (secs(300), Some(secs(300))), (secs(301), None)] {
            let mut retry = ShortRetry::starting(at(0, 0), &policy);
            let next = retry.failed(at(0, 0), at(0, 0).after(floor), &policy, &mut Jitter::seeded(1));
            assert_eq!(next.map(Deadline::mono), due);
        }
    }

    #[test]
    fn the_tick_is_give_or_take_a_tenth() {
        let mut jitter = Jitter::seeded(1);
        let ticks: Vec<_> = (0..500).map(|_| jitter.tick(&RefreshPolicy::DEFAULT)).collect();
        assert!(ticks.iter().all(|tick| (minutes(9)..=minutes(11)).contains(tick)));
        assert!(ticks.iter().any(|tick| *tick < secs(560)) && ticks.iter().any(|tick| *tick > secs(640)));
    }

    #[test]
    fn the_gap_of_demand_probes_doubles_up_to_the_tick() {
        let policy = RefreshPolicy::DEFAULT;
        let (mut now, mut jitter) = (at(0, 0), Jitter::seeded(1));
        let mut probe = DemandProbe::starting(now, &policy, &mut jitter).unwrap();
        for exact in [30, 60, 120, 240, 480, 600, 600] {
            let gap = probe.from().remaining(now);
            assert!(gap.abs_diff(secs(exact)) <= secs(exact) / 10, "{gap:?} instead of {exact}s");
            now = Now { mono: now.mono + gap, wall: now.wall + gap };
            probe.started();
            probe.attempt_ended(now, &policy, &mut jitter);
        }
        let off = RefreshPolicy { demand_probe_interval: None, ..policy };
        assert!(DemandProbe::starting(now, &off, &mut jitter).is_none());
    }

    #[test]
    fn a_budget_has_a_burst_and_gets_one_back_at_a_time() {
        let (mut budget, size) = (Budget::default(), RefreshPolicy::DEFAULT.forced_refreshes);
        for _ in 0..4 {
            assert!(budget.spend(size, at(0, 0)));
        }
        assert!(!budget.spend(size, at(0, 0)) && budget.is_empty(size, at(899, 0)));
        assert_eq!(budget.open_from(size).mono(), minutes(15));
        assert!(budget.spend(size, at(900, 0)) && !budget.spend(size, at(900, 0)));
        // Two are back after twice the time, never more than the burst, and a wall clock that jumps brings none.
        assert!(budget.is_empty(size, at(1799, 1_000_000)));
        assert!(budget.spend(size, at(2700, 0)) && budget.spend(size, at(2700, 0)) && !budget.spend(size, at(2700, 0)));
        for _ in 0..4 {
            assert!(budget.spend(size, at(1_000_000, 0)));
        }
        assert!(!budget.spend(size, at(1_000_000, 0)));
    }

    #[test]
    fn a_budget_without_refill_runs_dry_and_one_without_burst_is_empty() {
        let (mut budget, size) = (Budget::default(), ForcedRefreshes { burst: 2, refill: Duration::MAX });
        assert!(budget.spend(size, at(5, 5)) && budget.spend(size, at(5, 5)) && !budget.spend(size, at(1_000_000, 5)));
        assert!(!{ Budget::default() }.spend(ForcedRefreshes { burst: 0, refill: secs(1) }, at(100, 100)));
        assert!({ Budget::default() }.spend(ForcedRefreshes { burst: u32::MAX, refill: secs(1) }, at(0, 0)));
    }

    /// The refresh falls into the tenth of the window before it, and is spread over it.
    fn check_refresh(policy: &RefreshPolicy, lifetime: Duration, window: Duration) {
        let due: Vec<_> =
            (0..200).map(|seed| Validity::of(lifetime, policy, &mut Jitter::seeded(seed)).refresh_after).collect();
        let (latest, spread) = (lifetime - window, window / 10);
        assert!(due.iter().all(|due| (latest - spread..=latest).contains(due)), "{lifetime:?}");
        let (first, last) = (due.iter().min().unwrap(), due.iter().max().unwrap());
        assert!(*last - *first > spread * 9 / 10, "{lifetime:?}: hardly spread");
    }

    /// The waits of a short retry whose tries fail as soon as they start.
    fn retry_waits(policy: &RefreshPolicy, seed: u64) -> Vec<Duration> {
        let (mut now, mut jitter) = (at(50, 5000), Jitter::seeded(seed));
        let mut retry = ShortRetry::starting(now, policy);
        std::iter::from_fn(|| {
            let wait = retry.failed(now, Deadline::PAST, policy, &mut jitter)?.remaining(now);
            now = Now { mono: now.mono + wait, wall: now.wall + wait };
            Some(wait)
        })
        .take(200)
        .collect()
    }

    const fn at(mono: u64, wall: u64) -> Now {
        Now { mono: secs(mono), wall: secs(wall) }
    }

    const fn secs(count: u64) -> Duration {
        Duration::from_secs(count)
    }
}
