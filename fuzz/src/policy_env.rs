//! The environment: lines of `NAME=value`, the names without their prefix.

use std::{collections::HashMap, ffi::OsString, time::Duration};

use steadfast::{PolicyError, RefreshPolicy};

use super::{is_fit_to_be_shown, printed};

pub fn holds(data: &[u8]) {
    let environment = Environment::read(data);
    match environment.policy() {
        Ok(policy) => {
            assert_eq!(policy.validate(), Ok(()));
            assert!(policy.retry_after_cap <= policy.auth_retrying_ceiling);
            what_was_read_reads_the_same_when_it_is_written_again(&policy);
            what_is_not_set_keeps_its_default(&environment, &policy);
        }
        Err(error) => an_error_says_which_variable_or_field_it_is_about(&environment, &error),
    }
    a_malformed_number_is_never_ignored(&environment);
    other_names_are_none_of_its_business(environment);
}

fn what_was_read_reads_the_same_when_it_is_written_again(policy: &RefreshPolicy) {
    let written = DURATIONS.map(|(name, field)| (name, humantime::format_duration(field(policy)).to_string()));
    let mut again: Environment =
        Environment(written.into_iter().map(|(name, text)| (name.into(), text.into())).collect());
    again.0.insert(TRIES.into(), policy.max_tries.to_string().into());
    assert_eq!(again.policy().as_ref(), Ok(policy));
}

fn what_is_not_set_keeps_its_default(environment: &Environment, policy: &RefreshPolicy) {
    for (name, field) in DURATIONS {
        assert!(environment.0.contains_key(name) || field(policy) == field(&RefreshPolicy::DEFAULT), "{name}");
    }
    let RefreshPolicy { blip_wait, demand_probe_interval, expiry_margin, settle, clock_check, .. } = policy;
    let default = RefreshPolicy::DEFAULT;
    assert_eq!((blip_wait, demand_probe_interval), (&default.blip_wait, &default.demand_probe_interval));
    assert_eq!((expiry_margin, settle, clock_check), (&default.expiry_margin, &default.settle, &default.clock_check));
}

fn an_error_says_which_variable_or_field_it_is_about(environment: &Environment, error: &PolicyError) {
    if let PolicyError::Variable { name, .. } = error {
        let name = name.strip_prefix("GW_").unwrap();
        assert!(environment.0.contains_key(name), "{name} was not set");
        assert!(error.to_string().contains(name));
    }
    let printed = printed(error).replace('\n', " ");
    assert!(printed.chars().count() <= 1000 && is_fit_to_be_shown(&printed), "{printed:?}");
}

fn a_malformed_number_is_never_ignored(environment: &Environment) {
    let Some(tries) = environment.0.get(TRIES) else { return };
    let number = tries.to_str().and_then(|text| text.trim().parse::<u32>().ok());
    if let Ok(policy) = environment.policy() {
        assert_eq!(Some(policy.max_tries), number);
    }
}

fn other_names_are_none_of_its_business(mut environment: Environment) {
    let before = environment.policy();
    environment.0.insert("TOKEN_SOMETHING_ELSE".into(), "nonsense".into());
    assert_eq!(environment.policy(), before);
}

struct Environment(HashMap<String, OsString>);

impl Environment {
    fn read(data: &[u8]) -> Self {
        let lines = data.split(|&byte| byte == b'\n');
        let pairs = lines.filter_map(|line| {
            let at = line.iter().position(|&byte| byte == b'=')?;
            let (name, value) = line.split_at(at);
            Some((String::from_utf8(name.to_vec()).ok()?, native(&value[1..])))
        });
        Self(pairs.collect())
    }

    fn policy(&self) -> Result<RefreshPolicy, PolicyError> {
        RefreshPolicy::from_vars("GW", |name| self.0.get(name.strip_prefix("GW_")?).cloned())
    }
}

#[cfg(unix)]
fn native(bytes: &[u8]) -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec())
}

#[cfg(not(unix))]
fn native(bytes: &[u8]) -> OsString {
    String::from_utf8_lossy(bytes).into_owned().into()
}

type Field = fn(&RefreshPolicy) -> Duration;

const DURATIONS: [(&str, Field); 7] = [
    ("TOKEN_REFRESH_INITIAL_RETRY_INTERVAL", |policy| policy.initial_retry_interval),
    ("TOKEN_REFRESH_MAX_RETRY_INTERVAL", |policy| policy.max_retry_interval),
    ("TOKEN_REFRESH_MAX_ELAPSED_TIME", |policy| policy.max_elapsed),
    ("TOKEN_AUTH_RETRYING_TICK_INTERVAL", |policy| policy.auth_retrying_tick),
    ("TOKEN_AUTH_RETRYING_MAX_ELAPSED", |policy| policy.auth_retrying_ceiling),
    ("TOKEN_ATTEMPT_TIMEOUT", |policy| policy.attempt_timeout),
    ("TOKEN_CALLER_WAIT", |policy| policy.caller_wait),
];
const TRIES: &str = "TOKEN_REFRESH_MAX_TRIES";
