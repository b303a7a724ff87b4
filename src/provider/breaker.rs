//! When the exchanges with one identity provider are let through: a pure state machine over instants of one clock.

use std::time::Duration;

use super::ProviderPolicy;
use crate::schedule::Doubling;

/// Which of the sources that share a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SourceId(pub(super) u64);

#[derive(Debug)]
pub(super) struct Breaker {
    policy: ProviderPolicy,
    state: State,
    /// The sources that failed since anybody last succeeded. As many as it takes to draw a conclusion, no more.
    failing: Vec<SourceId>,
}

#[derive(Debug)]
enum State {
    Closed,
    Open(Outage),
    /// The provider answers again. `limit` doubles with each window of as many successes, one step apart at least.
    Recovering {
        limit: usize,
        successes: usize,
        since: Duration,
        /// When it began, or last had a setback.
        calm_since: Duration,
        relapse: Doubling,
    },
}

#[derive(Debug)]
struct Outage {
    cadence: Duration,
    next: Duration,
    later: Doubling,
    probe: Probe,
}

/// The probe of an open breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    Awaited,
    InFlight(SourceId),
    /// This source has probed in vain. Should the trouble be its own, somebody else has to have a turn.
    Failed(SourceId),
}

/// May a source send now?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// As far as the number of exchanges in flight permits.
    Through,
    /// As the one probe of this cadence.
    Probe,
    /// Not before this much time has passed; then within `spread`, for all others hear the same.
    Refused { wait: Duration, spread: Duration },
}

/// What a change of the state is for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a breaker that opens in silence is a riddle to whoever is on call"]
pub(super) enum Change {
    None,
    Opened,
    Recovers,
    Closed,
}

impl Breaker {
    pub(super) fn new(policy: ProviderPolicy) -> Self {
        Self { policy, state: State::Closed, failing: Vec::new() }
    }

    pub(super) fn admit(&mut self, source: SourceId, now: Duration) -> Admission {
        let State::Open(Outage { cadence, next, probe, .. }) = &mut self.state else {
            return Admission::Through;
        };
        let from = if *probe == Probe::Failed(source) { next.saturating_add(*cadence) } else { *next };
        let wait = match probe {
            Probe::InFlight(_) => *cadence,
            Probe::Awaited | Probe::Failed(_) => from.saturating_sub(now),
        };
        if wait.is_zero() {
            *probe = Probe::InFlight(source);
            return Admission::Probe;
        }
        Admission::Refused { wait, spread: *cadence }
    }

    /// The provider has given an answer. A rejection of one grant is one, too.
    pub(super) fn answered(&mut self, now: Duration) -> Change {
        self.failing.clear();
        match &mut self.state {
            State::Closed => Change::None,
            State::Open(Outage { later, .. }) => {
                let relapse = later.clone();
                self.state = State::Recovering { limit: 1, successes: 0, since: now, calm_since: now, relapse };
                Change::Recovers
            }
            State::Recovering { limit, successes, since, calm_since, .. } => {
                *successes = successes.saturating_add(1);
                if *successes >= *limit && now.saturating_sub(*since) >= self.policy.ramp_step {
                    (*limit, *successes, *since) = (limit.saturating_mul(2), 0, now);
                }
                // A few sources never use as much as would prove the whole budget.
                let is_calm = now.saturating_sub(*calm_since) >= self.policy.ramp_step.saturating_mul(CALM_STEPS);
                if *limit < self.policy.max_in_flight && !is_calm {
                    return Change::None;
                }
                self.state = State::Closed;
                Change::Closed
            }
        }
    }

    /// An exchange came to nothing, and the provider may be why. `retry_after` is what it said, if it said anything.
    pub(super) fn failed(&mut self, source: SourceId, retry_after: Option<Duration>, now: Duration) -> Change {
        if let State::Open(outage) = &mut self.state {
            // Others come from exchanges that were in flight when it opened.
            if outage.probe == Probe::InFlight(source) {
                outage.cadence = outage.later.next().unwrap_or(outage.cadence);
                outage.next = now.saturating_add(outage.cadence.max(retry_after.unwrap_or_default()));
                outage.probe = Probe::Failed(source);
            }
            return Change::None;
        }
        if !self.failing.contains(&source) {
            self.failing.push(source);
        }
        let mut later = match &mut self.state {
            State::Recovering { limit, successes, since, calm_since, relapse } => {
                (*limit, *successes, *since, *calm_since) = ((*limit / 2).max(1), 0, now, now);
                if self.failing.len() < self.policy.open_after.min(RELAPSE) {
                    return Change::None;
                }
                relapse.clone()
            }
            State::Closed | State::Open(_) => {
                if self.failing.len() < self.policy.open_after {
                    return Change::None;
                }
                Doubling::new(self.policy.probe_interval, self.policy.max_probe_interval)
            }
        };
        self.failing.clear();
        let cadence = later.next().unwrap_or(self.policy.max_probe_interval);
        let next = now.saturating_add(cadence.max(retry_after.unwrap_or_default()));
        self.state = State::Open(Outage { cadence, next, later, probe: Probe::Awaited });
        Change::Opened
    }

    /// An exchange ended without a word about the provider. If it was the probe, the next comes one cadence later.
    pub(super) fn abandoned(&mut self, source: SourceId, now: Duration) {
        if let State::Open(Outage { cadence, next, probe, .. }) = &mut self.state
            && *probe == Probe::InFlight(source)
        {
            *next = now.saturating_add(*cadence);
            *probe = Probe::Failed(source);
        }
    }

    /// How many exchanges may be in flight at once.
    pub(super) fn limit(&self) -> usize {
        match &self.state {
            State::Closed => self.policy.max_in_flight,
            State::Open(_) => 1,
            State::Recovering { limit, .. } => *limit,
        }
    }

    /// Whether a probe is due and nobody has come to make it.
    pub(super) fn lacks_a_probe(&self, now: Duration) -> bool {
        let State::Open(Outage { next, probe, .. }) = &self.state else { return false };
        match probe {
            Probe::Awaited | Probe::Failed(_) => *next <= now,
            Probe::InFlight(_) => false,
        }
    }

    /// How long until the next probe, while one is needed.
    pub(super) fn next_probe(&self, now: Duration) -> Option<Duration> {
        match &self.state {
            State::Open(outage) => Some(outage.next.saturating_sub(now)),
            State::Closed | State::Recovering { .. } => None,
        }
    }
}

/// So many sources in a row, and a recovery was none. More than one, for one source's trouble may be its own.
const RELAPSE: usize = 2;
/// A recovery that has gone well for so many steps is over.
const CALM_STEPS: u32 = 60;

#[cfg(test)]
mod tests;
