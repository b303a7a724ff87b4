//! Without the feature `metrics`: nothing, at no cost.

use std::time::SystemTime;

use super::{Attempted, Standing};

pub(crate) struct Meters;

pub(crate) struct Waiting;

impl Meters {
    pub(crate) const fn of(_workload: &str) -> Self {
        Self
    }

    pub(crate) const fn failed_fast(&self, _error: &'static str) {}

    pub(crate) const fn rejected(&self, _answer: &'static str) {}

    pub(crate) const fn waiting(&self) -> Waiting {
        Waiting
    }
}

pub(crate) const fn moved(_workload: &str, _from: Option<Standing>, _to: Option<Standing>) {}

pub(crate) const fn forced(_workload: &str) {}

pub(crate) const fn attempted(_workload: &str, _attempted: Attempted) {}

pub(crate) const fn token_expires(_workload: &str, _at: Option<SystemTime>) {}

pub(crate) const fn stopped(_workload: &str, _reason: &'static str) {}

pub(crate) const fn failed_after_a_wait(_workload: &str, _error: &'static str) {}

pub(crate) const fn sink_failed(_workload: &str, _failure: &'static str) {}

#[cfg(feature = "oauth2")]
pub(crate) const fn store_refused(_rule: &'static str) {}

pub(crate) const fn provider_moved(_provider: &str, _from: Option<&'static str>, _to: Option<&'static str>) {}

/// A place in a registry, with a monitor or parked.
pub(crate) struct Seat<const LIVE: bool>(());

impl<const LIVE: bool> Seat<LIVE> {
    pub(crate) const fn taken() -> Self {
        Self(())
    }
}
