//! The policy in words.

use std::time::Duration;

use serde::Deserialize;
use steadfast::{ForcedRefreshes, RefreshAhead, RefreshPolicy};

use super::format::Span;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Policy {
    initial_retry_interval: Option<Span>,
    max_retry_interval: Option<Span>,
    max_tries: Option<u32>,
    max_elapsed: Option<Span>,
    auth_retrying_tick: Option<Span>,
    auth_retrying_ceiling: Option<Span>,
    attempt_timeout: Option<Span>,
    caller_wait: Option<Span>,
    blip_wait: Option<Span>,
    demand_probe_interval: Option<OrOff>,
    refresh_ahead: Option<Span>,
    expiry_margin: Option<Span>,
    assumed_lifetime: Option<Span>,
    retry_after_cap: Option<Span>,
    forced_refreshes: Option<Bucket>,
    settle: Option<Span>,
    clock_check: Option<Span>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bucket {
    burst: u32,
    refill: Span,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum OrOff {
    Off(Off),
    Every(Span),
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Off {
    #[serde(rename = "off")]
    Off,
}

impl Policy {
    pub(crate) fn over_the_defaults(&self) -> RefreshPolicy {
        let usual = RefreshPolicy::DEFAULT;
        let or = |span: Option<Span>, usual: Duration| span.map_or(usual, |span| span.0);
        RefreshPolicy {
            initial_retry_interval: or(self.initial_retry_interval, usual.initial_retry_interval),
            max_retry_interval: or(self.max_retry_interval, usual.max_retry_interval),
            max_tries: self.max_tries.unwrap_or(usual.max_tries),
            max_elapsed: or(self.max_elapsed, usual.max_elapsed),
            auth_retrying_tick: or(self.auth_retrying_tick, usual.auth_retrying_tick),
            auth_retrying_ceiling: or(self.auth_retrying_ceiling, usual.auth_retrying_ceiling),
            attempt_timeout: or(self.attempt_timeout, usual.attempt_timeout),
            caller_wait: or(self.caller_wait, usual.caller_wait),
            blip_wait: or(self.blip_wait, usual.blip_wait),
            demand_probe_interval: match self.demand_probe_interval {
                Some(OrOff::Off(Off::Off)) => None,
                Some(OrOff::Every(gap)) => Some(gap.0),
                None => usual.demand_probe_interval,
            },
            refresh_ahead: self.refresh_ahead.map_or(usual.refresh_ahead, |window| RefreshAhead::Fixed(window.0)),
            expiry_margin: or(self.expiry_margin, usual.expiry_margin),
            assumed_lifetime: self.assumed_lifetime.map(|lifetime| lifetime.0),
            retry_after_cap: or(self.retry_after_cap, usual.retry_after_cap),
            forced_refreshes: self.forced_refreshes.map_or(usual.forced_refreshes, |bucket| ForcedRefreshes {
                burst: bucket.burst,
                refill: bucket.refill.0,
            }),
            settle: or(self.settle, usual.settle),
            clock_check: or(self.clock_check, usual.clock_check),
        }
    }
}
