//! How patient the monitor is: plain data, validated once.

use std::{env, ffi::OsString, time::Duration};

use crate::failure::printable;

/// How patient the monitor is: every interval, limit and count it goes by.
///
/// Plain data. The builder validates it once; a policy that cannot work is a [`PolicyError`], not a panic.
///
/// Guide: [choosing a policy, with numbers](crate::guide::policy).
///
/// ```
/// use std::time::Duration;
/// use steadfast::RefreshPolicy;
///
/// let policy = RefreshPolicy { auth_retrying_tick: Duration::from_secs(60), ..RefreshPolicy::default() };
/// assert!(policy.validate().is_ok());
///
/// let hasty = RefreshPolicy { auth_retrying_tick: Duration::ZERO, ..policy };
/// assert!(hasty.validate().unwrap_err().to_string().contains("auth_retrying_tick"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshPolicy {
    /// The wait before the second try of the short retry, give or take a fifth; it doubles with each further try. Defaults to 1s,
    /// because servers that forgive a replayed refresh token often do so for 30 s only.
    pub initial_retry_interval: Duration,
    /// The longest wait inside the short retry. Defaults to 2m.
    pub max_retry_interval: Duration,
    /// How many tries the short retry has, the first one included. Defaults to 8.
    pub max_tries: u32,
    /// How long the short retry may go on after its first failure. Defaults to 5m.
    pub max_elapsed: Duration,
    /// The wait between attempts in the long window after the short retry, give or take a tenth. Defaults to 10m.
    pub auth_retrying_tick: Duration,
    /// How long that window lasts, in time the machine was awake; the first failed attempt after it ends the run.
    /// Defaults to 24h.
    pub auth_retrying_ceiling: Duration,
    /// The time limit of one attempt, from connecting to the last byte of the answer. Defaults to 20s.
    pub attempt_timeout: Duration,
    /// The longest a caller waits for an attempt. Defaults to 10s.
    pub caller_wait: Duration,
    /// A caller waits for an attempt that has not started yet if it starts within this time. Defaults to 2s.
    pub blip_wait: Duration,
    /// In the long window a caller's demand starts an attempt before the tick, first after this gap (give or take a tenth),
    /// which doubles each time; `None` leaves it to the tick. Defaults to 30s.
    pub demand_probe_interval: Option<Duration>,
    /// How long before its expiry a token is refreshed. Defaults to [`RefreshAhead::ByLifetime`].
    pub refresh_ahead: RefreshAhead,
    /// A token is not served in this last stretch before its expiry, which is at most a tenth of its lifetime.
    /// Defaults to 10s.
    pub expiry_margin: Duration,
    /// The lifetime of tokens that come without a usable one; `None`: unknown, the token is served until it is
    /// refused. Defaults to none.
    pub assumed_lifetime: Option<Duration>,
    /// A server's `Retry-After` counts up to this much. Defaults to 1h.
    pub retry_after_cap: Duration,
    /// How many refreshes rejections by the resource server may force. Defaults to a burst of 4, one back every 15m.
    pub forced_refreshes: ForcedRefreshes,
    /// A token younger than this may be refused because the resource server has not heard of it yet. Defaults to 2s.
    pub settle: Duration,
    /// How often both clocks are looked at while anything is due. Defaults to 30s.
    pub clock_check: Duration,
}

/// How long before its expiry a token is refreshed: the *advisory window*, in which the held token is served while the
/// next one is fetched. At most half the token's lifetime, and begun up to a tenth of itself earlier, so that sources do not
/// refresh in step. Two refreshes ahead are at least 5 s apart: a token of less than six seconds is renewed on demand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefreshAhead {
    /// 5 minutes for lifetimes up to 20 minutes, 15 minutes up to 90 minutes, 60 minutes above.
    #[default]
    ByLifetime,
    /// Always this long.
    Fixed(Duration),
}

/// A budget of refreshes: `burst` at once, and one more after every `refill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForcedRefreshes {
    /// How many may come at once.
    pub burst: u32,
    /// How long until one more is allowed.
    pub refill: Duration,
}

impl RefreshPolicy {
    /// The defaults, as `RefreshPolicy::default()` gives them.
    pub const DEFAULT: Self = Self {
        initial_retry_interval: Duration::from_secs(1),
        max_retry_interval: Duration::from_secs(2 * 60),
        max_tries: 8,
        max_elapsed: Duration::from_secs(5 * 60),
        auth_retrying_tick: Duration::from_secs(10 * 60),
        auth_retrying_ceiling: Duration::from_secs(24 * 60 * 60),
        attempt_timeout: Duration::from_secs(20),
        caller_wait: Duration::from_secs(10),
        blip_wait: Duration::from_secs(2),
        demand_probe_interval: Some(Duration::from_secs(30)),
        refresh_ahead: RefreshAhead::ByLifetime,
        expiry_margin: Duration::from_secs(10),
        assumed_lifetime: None,
        retry_after_cap: Duration::from_secs(60 * 60),
        forced_refreshes: ForcedRefreshes { burst: 4, refill: Duration::from_secs(15 * 60) },
        settle: Duration::from_secs(2),
        clock_check: Duration::from_secs(30),
    };

    /// The defaults, with what the environment says in their place.
    ///
    /// Reads `{prefix}_TOKEN_REFRESH_INITIAL_RETRY_INTERVAL`, `…_TOKEN_REFRESH_MAX_RETRY_INTERVAL`,
    /// `…_TOKEN_REFRESH_MAX_TRIES`, `…_TOKEN_REFRESH_MAX_ELAPSED_TIME`, `…_TOKEN_AUTH_RETRYING_TICK_INTERVAL`,
    /// `…_TOKEN_AUTH_RETRYING_MAX_ELAPSED` (the ceiling), `…_TOKEN_ATTEMPT_TIMEOUT` and `…_TOKEN_CALLER_WAIT`;
    /// durations are written as `10s` or `1m30s`. A ceiling below an hour shortens `retry_after_cap` along with it, which
    /// has no variable of its own.
    ///
    /// ```
    /// assert_eq!(steadfast::RefreshPolicy::from_env("UNSET"), Ok(steadfast::RefreshPolicy::DEFAULT));
    /// ```
    ///
    /// # Errors
    /// A malformed value is a [`PolicyError::Variable`] that names the variable; values that do not go together are
    /// the error that [`validate`](Self::validate) gives.
    pub fn from_env(prefix: &str) -> Result<Self, PolicyError> {
        Self::from_vars(prefix, |name| env::var_os(name))
    }

    /// As [`from_env`](Self::from_env), for variables that are kept elsewhere: in a configuration file, or in a test.
    ///
    /// ```
    /// use std::time::Duration;
    /// use steadfast::RefreshPolicy;
    ///
    /// let policy = RefreshPolicy::from_vars("GW", |name| (name == "GW_TOKEN_CALLER_WAIT").then(|| "3s".into()));
    /// assert_eq!(policy.unwrap().caller_wait, Duration::from_secs(3));
    /// ```
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from_vars(prefix: &str, var: impl Fn(&str) -> Option<OsString>) -> Result<Self, PolicyError> {
        let mut policy = Self::DEFAULT;
        let read = |name: &str| {
            let name = format!("{prefix}_{name}");
            var(&name).map(|value| (name, value.to_string_lossy().into_owned()))
        };
        for (name, field) in [
            ("TOKEN_REFRESH_INITIAL_RETRY_INTERVAL", &mut policy.initial_retry_interval),
            ("TOKEN_REFRESH_MAX_RETRY_INTERVAL", &mut policy.max_retry_interval),
            ("TOKEN_REFRESH_MAX_ELAPSED_TIME", &mut policy.max_elapsed),
            ("TOKEN_AUTH_RETRYING_TICK_INTERVAL", &mut policy.auth_retrying_tick),
            ("TOKEN_AUTH_RETRYING_MAX_ELAPSED", &mut policy.auth_retrying_ceiling),
            ("TOKEN_ATTEMPT_TIMEOUT", &mut policy.attempt_timeout),
            ("TOKEN_CALLER_WAIT", &mut policy.caller_wait),
        ] {
            if let Some((name, value)) = read(name) {
                *field = duration(value.trim())
                    .ok_or_else(|| PolicyError::variable(name, &value, "a duration like 10s or 1m30s"))?;
            }
        }
        if let Some((name, value)) = read("TOKEN_REFRESH_MAX_TRIES") {
            policy.max_tries =
                value.trim().parse().map_err(|_| PolicyError::variable(name, &value, "a whole number like 8"))?;
        }
        policy.retry_after_cap = policy.retry_after_cap.min(policy.auth_retrying_ceiling);
        policy.validate()?;
        Ok(policy)
    }

    /// Checks that the values go together: `initial_retry_interval`, `max_tries`, `attempt_timeout`,
    /// `demand_probe_interval`, `assumed_lifetime`, the refill of `forced_refreshes` and `clock_check` are not zero;
    /// `auth_retrying_tick` is at least 1 s and at most `auth_retrying_ceiling`; `initial_retry_interval` is at most
    /// `max_retry_interval`, and `retry_after_cap` at most `auth_retrying_ceiling`.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), PolicyError> {
        // A field that is added here without a thought about its limits does not compile.
        let Self {
            initial_retry_interval,
            max_retry_interval,
            max_tries,
            max_elapsed: _,
            auth_retrying_tick,
            auth_retrying_ceiling,
            attempt_timeout,
            caller_wait: _,
            blip_wait: _,
            demand_probe_interval,
            refresh_ahead: _,
            expiry_margin: _,
            assumed_lifetime,
            retry_after_cap,
            forced_refreshes: ForcedRefreshes { burst: _, refill },
            settle: _,
            clock_check,
        } = self;
        let zero = |field| PolicyError::Zero { field };
        for (field, value) in [
            ("initial_retry_interval", *initial_retry_interval),
            ("attempt_timeout", *attempt_timeout),
            ("demand_probe_interval", demand_probe_interval.unwrap_or(Duration::MAX)),
            ("assumed_lifetime", assumed_lifetime.unwrap_or(Duration::MAX)),
            ("forced_refreshes.refill", *refill),
            ("clock_check", *clock_check),
        ] {
            if value.is_zero() {
                return Err(zero(field));
            }
        }
        if *max_tries == 0 {
            return Err(zero("max_tries"));
        }
        if *auth_retrying_tick < SHORTEST_TICK {
            return Err(PolicyError::TickTooShort { tick: *auth_retrying_tick });
        }
        for (smaller, small, larger, large) in [
            ("auth_retrying_tick", *auth_retrying_tick, "auth_retrying_ceiling", *auth_retrying_ceiling),
            ("initial_retry_interval", *initial_retry_interval, "max_retry_interval", *max_retry_interval),
            ("retry_after_cap", *retry_after_cap, "auth_retrying_ceiling", *auth_retrying_ceiling),
        ] {
            if small > large {
                return Err(PolicyError::OutOfOrder { smaller, small, larger, large });
            }
        }
        Ok(())
    }
}

impl Default for RefreshPolicy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What is wrong with a [`RefreshPolicy`], or with a [`ProviderPolicy`](crate::provider::ProviderPolicy), and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// A value that must be above zero is zero.
    #[error("{field} is zero; give it a value above zero")]
    Zero {
        /// The field of the policy.
        field: &'static str,
    },
    /// A count is beyond what can be counted.
    #[error("{field} is too large; give it at most {most}")]
    TooMany {
        /// The field of the policy.
        field: &'static str,
        /// The most it can be.
        most: usize,
    },
    /// A tick below one second would hammer a token endpoint that is down.
    #[error("auth_retrying_tick is {tick:?}; give it at least 1s")]
    TickTooShort {
        /// The tick as given.
        tick: Duration,
    },
    /// Two values are the wrong way round.
    #[error("{smaller} ({small:?}) is longer than {larger} ({large:?}); shorten the one or lengthen the other")]
    OutOfOrder {
        /// The field that has to be the smaller one.
        smaller: &'static str,
        /// Its value.
        small: Duration,
        /// The field that has to be the larger one.
        larger: &'static str,
        /// Its value.
        large: Duration,
    },
    /// An environment variable does not hold what it should.
    #[error("the environment variable {name} is {value:?}; write {wanted}")]
    Variable {
        /// The variable's name.
        name: String,
        /// The start of its value.
        value: String,
        /// What it should look like.
        wanted: &'static str,
    },
}

impl PolicyError {
    fn variable(name: String, value: &str, wanted: &'static str) -> Self {
        Self::Variable { name, value: printable(value, 64), wanted }
    }
}

/// Unit by unit, because humantime's own sum can panic (its issue 66).
fn duration(text: &str) -> Option<Duration> {
    let (mut sum, mut rest) = (Duration::ZERO, text);
    loop {
        let unit = rest.find(char::is_alphabetic).unwrap_or(rest.len());
        let (number, from_unit) = rest.split_at(unit);
        if from_unit.is_empty() && number.len() < text.len() {
            return None;
        }
        let end = from_unit.find(|next: char| !next.is_alphabetic()).unwrap_or(from_unit.len());
        let (part, next) = rest.split_at(number.len() + end);
        sum = sum.checked_add(humantime::parse_duration(part).ok()?)?;
        rest = next.trim_start();
        if rest.is_empty() {
            return Some(sum);
        }
    }
}

const SHORTEST_TICK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_what_its_documentation_says() {
        let text = include_str!("policy.rs");
        let shown = |duration: Duration| humantime::format_duration(duration).to_string();
        let RefreshPolicy {
            initial_retry_interval,
            max_retry_interval,
            max_tries,
            max_elapsed,
            auth_retrying_tick,
            auth_retrying_ceiling,
            attempt_timeout,
            caller_wait,
            blip_wait,
            demand_probe_interval,
            refresh_ahead,
            expiry_margin,
            assumed_lifetime,
            retry_after_cap,
            forced_refreshes: ForcedRefreshes { burst, refill },
            settle,
            clock_check,
        } = RefreshPolicy::default();
        assert_eq!((refresh_ahead, assumed_lifetime), (RefreshAhead::ByLifetime, None));
        for (field, default) in [
            ("initial_retry_interval", shown(initial_retry_interval)),
            ("max_retry_interval", shown(max_retry_interval)),
            ("max_tries", max_tries.to_string()),
            ("max_elapsed", shown(max_elapsed)),
            ("auth_retrying_tick", shown(auth_retrying_tick)),
            ("auth_retrying_ceiling", "24h".to_owned()),
            ("attempt_timeout", shown(attempt_timeout)),
            ("caller_wait", shown(caller_wait)),
            ("blip_wait", shown(blip_wait)),
            ("demand_probe_interval", shown(demand_probe_interval.unwrap())),
            ("expiry_margin", shown(expiry_margin)),
            ("retry_after_cap", shown(retry_after_cap)),
            ("forced_refreshes", format!("a burst of {burst}, one back every {}", shown(refill))),
            ("settle", shown(settle)),
            ("clock_check", shown(clock_check)),
        ] {
            let (before, _) = text.split_once(&format!("    pub {field}: ")).unwrap();
            let documentation = before.rsplit("    pub ").next().unwrap().replace("\n    ///", "");
            let sentence = format!("Defaults to {default}");
            assert!(documentation.contains(&sentence), "{field}: {documentation:?} does not say {sentence:?}");
        }
        assert_eq!(auth_retrying_ceiling, Duration::from_secs(24 * 3600));
    }

    #[test]
    fn a_policy_that_cannot_work_is_refused_with_the_field_named() {
        let good = RefreshPolicy::DEFAULT;
        let (zero, ms, hours) = (Duration::ZERO, Duration::from_millis(999), |h: u64| Duration::from_secs(h * 3600));
        for (policy, field) in [
            (RefreshPolicy { auth_retrying_tick: ms, ..good.clone() }, "auth_retrying_tick"),
            (RefreshPolicy { auth_retrying_tick: hours(25), ..good.clone() }, "auth_retrying_ceiling"),
            (RefreshPolicy { initial_retry_interval: hours(1), ..good.clone() }, "max_retry_interval"),
            (RefreshPolicy { retry_after_cap: hours(25), ..good.clone() }, "retry_after_cap"),
            (RefreshPolicy { max_tries: 0, ..good.clone() }, "max_tries"),
            (RefreshPolicy { initial_retry_interval: zero, ..good.clone() }, "initial_retry_interval"),
            (RefreshPolicy { attempt_timeout: zero, ..good.clone() }, "attempt_timeout"),
            (RefreshPolicy { demand_probe_interval: Some(zero), ..good.clone() }, "demand_probe_interval"),
            (RefreshPolicy { assumed_lifetime: Some(zero), ..good.clone() }, "assumed_lifetime"),
            (RefreshPolicy { clock_check: zero, ..good.clone() }, "clock_check"),
            (
                RefreshPolicy { forced_refreshes: ForcedRefreshes { burst: 4, refill: zero }, ..good.clone() },
                "forced_refreshes.refill",
            ),
        ] {
            assert!(policy.validate().unwrap_err().to_string().contains(field), "{field}");
        }
        assert_eq!(good.validate(), Ok(()));
    }

    #[test]
    fn the_environment_overrides_each_default_under_its_own_name() {
        let set = |name: &'static str, value: &'static str| {
            RefreshPolicy::from_vars("GW", move |wanted| (wanted == format!("GW_{name}")).then(|| value.into()))
        };
        let good = RefreshPolicy::DEFAULT;
        let span = Duration::from_secs(90);
        for (name, expected) in [
            ("TOKEN_REFRESH_INITIAL_RETRY_INTERVAL", RefreshPolicy { initial_retry_interval: span, ..good.clone() }),
            ("TOKEN_REFRESH_MAX_RETRY_INTERVAL", RefreshPolicy { max_retry_interval: span, ..good.clone() }),
            ("TOKEN_REFRESH_MAX_ELAPSED_TIME", RefreshPolicy { max_elapsed: span, ..good.clone() }),
            ("TOKEN_AUTH_RETRYING_TICK_INTERVAL", RefreshPolicy { auth_retrying_tick: span, ..good.clone() }),
            ("TOKEN_ATTEMPT_TIMEOUT", RefreshPolicy { attempt_timeout: span, ..good.clone() }),
            ("TOKEN_CALLER_WAIT", RefreshPolicy { caller_wait: span, ..good.clone() }),
        ] {
            assert_eq!(set(name, "1m30s"), Ok(expected), "{name}");
        }
        let longer = RefreshPolicy { auth_retrying_ceiling: Duration::from_secs(48 * 3600), ..good.clone() };
        assert_eq!(set("TOKEN_AUTH_RETRYING_MAX_ELAPSED", "48h"), Ok(longer));
        assert_eq!(set("TOKEN_REFRESH_MAX_TRIES", "3"), Ok(RefreshPolicy { max_tries: 3, ..good }));
    }

    #[test]
    fn a_malformed_variable_is_named_and_never_ignored() {
        for (name, value) in
            [("TOKEN_CALLER_WAIT", "soon"), ("TOKEN_CALLER_WAIT", ""), ("TOKEN_REFRESH_MAX_TRIES", "-1")]
        {
            let error = RefreshPolicy::from_vars("GW", |wanted| wanted.ends_with(name).then(|| value.into()));
            let Err(PolicyError::Variable { name: named, .. }) = error else { panic!("{error:?}") };
            assert_eq!(named, format!("GW_{name}"));
        }
        let unsound = RefreshPolicy::from_vars("GW", |name| name.ends_with("MAX_ELAPSED").then(|| "1s".into()));
        assert!(matches!(unsound, Err(PolicyError::OutOfOrder { .. })));
    }

    #[test]
    fn a_duration_is_the_sum_of_its_units_or_none_where_that_is_too_long() {
        let secs = |secs| Some(Duration::from_secs(secs));
        for (text, sum) in [
            ("10s", secs(10)),
            ("1m30s", secs(90)),
            ("1h 2 min  3s", secs(3723)),
            ("1.5m", secs(90)),
            ("0", secs(0)),
            ("18446744073709551615s", secs(u64::MAX)),
            ("18446744073709551615s 1000000000ns", None),
            ("18446744073709551615s 999999999ns 1ns", None),
            ("1m 0", None),
            ("30", None),
            ("s", None),
            ("1m,30s", None),
            ("-1s", None),
            ("", None),
        ] {
            assert_eq!(duration(text), sum, "{text:?}");
        }
    }

    #[test]
    fn a_short_ceiling_from_the_environment_brings_its_cap_along() {
        let policy =
            RefreshPolicy::from_vars("GW", |name| name.ends_with("MAX_ELAPSED").then(|| "30m".into())).unwrap();
        assert_eq!(policy.retry_after_cap, Duration::from_secs(30 * 60));
    }
}
