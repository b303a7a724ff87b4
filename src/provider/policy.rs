//! How much a provider is asked to bear: plain data, validated once.

use std::time::Duration;

use crate::PolicyError;

/// How much an [`IdentityProvider`](super::IdentityProvider) is asked to bear, and how its outages are borne.
///
/// ```
/// use steadfast::provider::ProviderPolicy;
///
/// let policy = ProviderPolicy { max_in_flight: 0, ..ProviderPolicy::default() };
/// assert!(policy.validate().unwrap_err().to_string().contains("max_in_flight"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderPolicy {
    /// How many exchanges may be under way at once. At 50 ms each, 64 of them are about 1,300 a second. Defaults to 64.
    pub max_in_flight: usize,
    /// How long an attempt waits for one of these to end. Defaults to 10s.
    pub queue_wait: Duration,
    /// How many attempts may wait for that. Those beyond come back by themselves within `queue_wait`. Defaults to 4096.
    pub max_queued: usize,
    /// How many sources have to fail in a row, none succeeding between, for the provider to count as down. Defaults to 5;
    /// fewer sources than that never do.
    pub open_after: usize,
    /// How often a provider that is down is probed, at first. Doubles with each probe that fails. Defaults to 5s.
    pub probe_interval: Duration,
    /// How often it is probed at last. Defaults to 30s.
    pub max_probe_interval: Duration,
    /// When it has healed, one exchange is let through at a time, and after each step of this length twice as many, if the
    /// last ones have succeeded; after sixty steps without a failure, all. Defaults to 1s.
    pub ramp_step: Duration,
    /// Makes the jitter repeatable. Defaults to none: a random seed.
    pub jitter_seed: Option<u64>,
}

impl ProviderPolicy {
    /// The defaults, as `ProviderPolicy::default()` gives them.
    pub const DEFAULT: Self = Self {
        max_in_flight: 64,
        queue_wait: Duration::from_secs(10),
        max_queued: 4_096,
        open_after: 5,
        probe_interval: Duration::from_secs(5),
        max_probe_interval: Duration::from_secs(30),
        ramp_step: Duration::from_secs(1),
        jitter_seed: None,
    };

    /// Checks that the values go together: `max_in_flight`, `open_after` and
    /// `probe_interval` are not zero, `probe_interval` is at most `max_probe_interval`, and `max_in_flight` can be counted
    /// (about 500 million where a pointer has 32 bits).
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), PolicyError> {
        let Self {
            max_in_flight,
            queue_wait: _,
            max_queued: _,
            open_after,
            probe_interval,
            max_probe_interval,
            ramp_step: _,
            jitter_seed: _,
        } = self;
        for (field, is_zero) in [
            ("max_in_flight", *max_in_flight == 0),
            ("open_after", *open_after == 0),
            ("probe_interval", probe_interval.is_zero()),
        ] {
            if is_zero {
                return Err(PolicyError::Zero { field });
            }
        }
        if *max_in_flight > MOST_IN_FLIGHT {
            return Err(PolicyError::TooMany { field: "max_in_flight", most: MOST_IN_FLIGHT });
        }
        if probe_interval > max_probe_interval {
            return Err(PolicyError::OutOfOrder {
                smaller: "probe_interval",
                small: *probe_interval,
                larger: "max_probe_interval",
                large: *max_probe_interval,
            });
        }
        Ok(())
    }
}

impl Default for ProviderPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What a semaphore can count, also where a pointer has 32 bits.
const MOST_IN_FLIGHT: usize = usize::MAX >> 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_named() {
        let good = ProviderPolicy::DEFAULT;
        let zero = Duration::ZERO;
        for (policy, field) in [
            (ProviderPolicy { max_in_flight: 0, ..good.clone() }, "max_in_flight"),
            (ProviderPolicy { max_in_flight: usize::MAX, ..good.clone() }, "max_in_flight"),
            (ProviderPolicy { open_after: 0, ..good.clone() }, "open_after"),
            (ProviderPolicy { probe_interval: zero, ..good.clone() }, "probe_interval"),
            (ProviderPolicy { max_probe_interval: zero, ..good.clone() }, "max_probe_interval"),
        ] {
            assert!(policy.validate().unwrap_err().to_string().contains(field), "{field}");
        }
        assert_eq!(good.validate(), Ok(()));
    }
}
