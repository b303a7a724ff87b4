//! The metrics, through the facade of the crate `metrics`.

use std::{
    sync::Once,
    time::{Duration, SystemTime},
};

use metrics::{Counter, Gauge, Unit, counter, gauge, histogram};

use super::{Attempted, Standing};

/// What a source counts where nothing may be allocated, registered once. The rest is registered as it comes.
pub(crate) struct Meters(Box<Cached>);

struct Cached {
    fast_fails: [Counter; ERRORS.len()],
    rejections: [Counter; ANSWERS.len()],
    waiters: Gauge,
}

/// Somebody waits, for as long as this lives.
pub(crate) struct Waiting<'a>(&'a Gauge);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

impl Meters {
    pub(crate) fn of(workload: &str) -> Self {
        describe();
        Self(Box::new(Cached {
            fast_fails: ERRORS.map(|error| counter!(FAST_FAILS, WORKLOAD => workload.to_owned(), ERROR_TYPE => error)),
            rejections: ANSWERS.map(|answer| counter!(REJECTIONS, WORKLOAD => workload.to_owned(), ANSWER => answer)),
            waiters: gauge!(WAITERS, WORKLOAD => workload.to_owned()),
        }))
    }

    pub(crate) fn failed_fast(&self, error: &'static str) {
        count(&ERRORS, &self.0.fast_fails, error);
    }

    pub(crate) fn rejected(&self, answer: &'static str) {
        count(&ANSWERS, &self.0.rejections, answer);
    }

    pub(crate) fn waiting(&self) -> Waiting<'_> {
        self.0.waiters.increment(1);
        Waiting(&self.0.waiters)
    }
}

/// Not under a lock: a recorder is somebody else's code. Who comes first does not matter, for all of this is sums.
pub(crate) fn moved(workload: &str, from: Option<Standing>, to: Option<Standing>) {
    for (standing, by) in [(from, -1.0), (to, 1.0)] {
        let Some(Standing { status, serving, unsaved }) = standing else { continue };
        let serving = if serving { "true" } else { "false" };
        gauge!(SOURCES, WORKLOAD => workload.to_owned(), STATUS => status, SERVING => serving).increment(by);
        // Also where nothing is unsaved, so that an alert has something to look at.
        gauge!(UNSAVED, WORKLOAD => workload.to_owned()).increment(if unsaved { by } else { 0.0 });
    }
}

pub(crate) fn forced(workload: &str) {
    counter!(FORCED_REFRESHES, WORKLOAD => workload.to_owned()).increment(1);
}

pub(crate) fn attempted(workload: &str, attempted: Attempted) {
    let Attempted { reason, outcome, rule, elapsed } = attempted;
    let mut labels = vec![
        metrics::Label::new(WORKLOAD, workload.to_owned()),
        metrics::Label::from_static_parts(REASON, reason),
        metrics::Label::from_static_parts(OUTCOME, outcome),
    ];
    labels.extend(rule.map(|rule| metrics::Label::from_static_parts(ERROR_TYPE, rule)));
    counter!(REFRESHES, labels).increment(1);
    histogram!(REFRESH_DURATION, WORKLOAD => workload.to_owned(), OUTCOME => outcome).record(elapsed);
}

/// +Inf where nobody knows.
pub(crate) fn token_expires(workload: &str, at: Option<SystemTime>) {
    let since_1970 = at.map(|at| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    gauge!(TOKEN_EXPIRY, WORKLOAD => workload.to_owned())
        .set(since_1970.as_ref().map_or(f64::INFINITY, Duration::as_secs_f64));
}

pub(crate) fn stopped(workload: &str, reason: &'static str) {
    counter!(STOPS, WORKLOAD => workload.to_owned(), REASON => reason).increment(1);
}

pub(crate) fn failed_after_a_wait(workload: &str, error: &'static str) {
    counter!(FAILED_WAITS, WORKLOAD => workload.to_owned(), ERROR_TYPE => error).increment(1);
}

pub(crate) fn sink_failed(workload: &str, failure: &'static str) {
    counter!(SINK_FAILURES, WORKLOAD => workload.to_owned(), ERROR_TYPE => failure).increment(1);
}

#[cfg(feature = "oauth2")]
pub(crate) fn store_refused(rule: &'static str) {
    counter!(STORE_ERRORS, ERROR_TYPE => rule).increment(1);
}

/// From `None` when it begins, to `None` when it ends.
pub(crate) fn provider_moved(provider: &str, from: Option<&'static str>, to: Option<&'static str>) {
    describe();
    for (state, by) in [(from, -1.0), (to, 1.0)] {
        if let Some(state) = state {
            gauge!(PROVIDERS, PROVIDER => provider.to_owned(), STATE => state).increment(by);
        }
    }
}

/// A place in a registry, with a monitor or parked, counted for as long as it lives.
pub(crate) struct Seat<const LIVE: bool>(());

impl<const LIVE: bool> Seat<LIVE> {
    pub(crate) fn taken() -> Self {
        Self::count(1.0);
        Self(())
    }

    fn count(by: f64) {
        gauge!(REGISTRY_SOURCES, STATE => if LIVE { "live" } else { "parked" }).increment(by);
    }
}

impl<const LIVE: bool> Drop for Seat<LIVE> {
    fn drop(&mut self) {
        Self::count(-1.0);
    }
}

fn count(names: &[&str], counters: &[Counter], name: &str) {
    if let Some((_, counter)) = names.iter().zip(counters).find(|(known, _)| **known == name) {
        counter.increment(1);
    }
}

fn describe() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (name, kind, unit, description) in METRICS {
            match kind {
                Kind::Counter => metrics::describe_counter!(name, unit, description),
                Kind::Gauge => metrics::describe_gauge!(name, unit, description),
                Kind::Histogram => metrics::describe_histogram!(name, unit, description),
            }
        }
    });
}

enum Kind {
    Counter,
    Gauge,
    Histogram,
}

const REFRESHES: &str = "steadfast.refreshes";
const REFRESH_DURATION: &str = "steadfast.refresh.duration";
const FORCED_REFRESHES: &str = "steadfast.forced_refreshes";
const FAST_FAILS: &str = "steadfast.fast_fails";
const FAILED_WAITS: &str = "steadfast.failed_waits";
const WAITERS: &str = "steadfast.waiters";
const REJECTIONS: &str = "steadfast.rejections";
const SOURCES: &str = "steadfast.sources";
const UNSAVED: &str = "steadfast.unsaved";
const TOKEN_EXPIRY: &str = "steadfast.token.expiry.timestamp";
const STOPS: &str = "steadfast.stops";
const SINK_FAILURES: &str = "steadfast.sink.failures";
const STORE_ERRORS: &str = "steadfast.store.errors";
const PROVIDERS: &str = "steadfast.providers";
const REGISTRY_SOURCES: &str = "steadfast.registry.sources";

const METRICS: [(&str, Kind, Unit, &str); 15] = [
    (REFRESHES, Kind::Counter, Unit::Count, "Attempts to obtain a token that have ended"),
    (REFRESH_DURATION, Kind::Histogram, Unit::Seconds, "How long attempts to obtain a token took"),
    (FORCED_REFRESHES, Kind::Counter, Unit::Count, "Attempts begun because a resource server refused a token"),
    (FAST_FAILS, Kind::Counter, Unit::Count, "Calls that were refused a token at once"),
    (FAILED_WAITS, Kind::Counter, Unit::Count, "Calls that waited for a token and got none"),
    (WAITERS, Kind::Gauge, Unit::Count, "Calls that wait for a token now"),
    (REJECTIONS, Kind::Counter, Unit::Count, "Refusals of a token by a resource server, and what was made of them"),
    (SOURCES, Kind::Gauge, Unit::Count, "Sources in this status, serving a token or not"),
    (UNSAVED, Kind::Gauge, Unit::Count, "Sources whose refresh token is held in memory only"),
    (TOKEN_EXPIRY, Kind::Gauge, Unit::Seconds, "When the token issued last expires, in Unix time"),
    (STOPS, Kind::Counter, Unit::Count, "Sources that have ended"),
    (SINK_FAILURES, Kind::Counter, Unit::Count, "Offers of a status event that the sink did not take"),
    (STORE_ERRORS, Kind::Counter, Unit::Count, "Calls of a grant store that were refused or failed"),
    (PROVIDERS, Kind::Gauge, Unit::Count, "Identity providers in this state"),
    (REGISTRY_SOURCES, Kind::Gauge, Unit::Count, "Sources in registries, with a monitor or parked"),
];

const WORKLOAD: &str = "workload";
const REASON: &str = "reason";
const OUTCOME: &str = "outcome";
const ANSWER: &str = "answer";
const STATUS: &str = "status";
const SERVING: &str = "serving";
const PROVIDER: &str = "provider";
const STATE: &str = "state";
/// OpenTelemetry's name for it.
const ERROR_TYPE: &str = "error.type";

const ERRORS: [&str; 4] = ["retrying", "still_refreshing", "unauthenticated", "stopped"];
const ANSWERS: [&str; 6] = ["superseded", "refreshing", "settling", "pass_through", "out_of_budget", "hand_to_host"];
