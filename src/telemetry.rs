#![doc = include_str!("telemetry.md")]

use std::time::Duration;

#[cfg(feature = "metrics")]
mod meters;
#[cfg(feature = "metrics")]
pub(crate) use meters::*;

#[cfg(not(feature = "metrics"))]
mod silent;
#[cfg(not(feature = "metrics"))]
pub(crate) use silent::*;

// The targets of the log.
pub(crate) const REFRESH: &str = "steadfast::refresh";
pub(crate) const STATUS: &str = "steadfast::status";
pub(crate) const LAYER: &str = "steadfast::layer";
#[cfg(feature = "oauth2")]
pub(crate) const STORE: &str = "steadfast::store";
pub(crate) const PROVIDER: &str = "steadfast::provider";
pub(crate) const REGISTRY: &str = "steadfast::registry";
pub(crate) const HEALTH: &str = "steadfast::health";

/// As durations are logged: in seconds, to the millisecond.
pub(crate) fn seconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e3).round() / 1e3
}

/// Whether the nth failure in a row is worth a warning: the 1st, 2nd, 4th, 8th and so on are.
pub(crate) const fn is_worth_a_warning(nth: u32) -> bool {
    nth.is_power_of_two()
}

/// What a source counts as, among those that bear its name.
#[derive(Clone, Copy)]
#[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "only metrics count"))]
pub(crate) struct Standing {
    pub(crate) status: &'static str,
    pub(crate) serving: bool,
    pub(crate) unsaved: bool,
}

/// How an attempt ended.
#[derive(Clone, Copy)]
#[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "only metrics count"))]
pub(crate) struct Attempted {
    pub(crate) reason: &'static str,
    pub(crate) outcome: &'static str,
    /// Of a failure.
    pub(crate) rule: Option<&'static str>,
    pub(crate) elapsed: Duration,
}

/// The outcome of an attempt that brought a token.
pub(crate) const SUCCESS: &str = "success";
