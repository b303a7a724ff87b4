//! What can be read off a handle at any time, and how it is written down.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use crate::{AuthStatus, Generation, StopReason};

#[cfg(feature = "serde")]
mod document;

/// All that a status page needs, read without a lock.
///
/// Shown, it is one line that says what is wrong and whether anything is to be done:
///
/// ```text
/// github: running; since 2026-01-31T09:00:00Z; serving; next attempt in 40m 12s; nothing to do
/// github: unauthenticated: the ... rejected the grant (invalid_grant); since ...; not serving; to do: sign in again
/// ```
///
/// With the feature `serde` it can be written and read in any format; in JSON it is one flat object:
///
/// | field | type | what it holds |
/// |---|---|---|
/// | `version` | number | of this table: 1. Fields may be added to it; a change of their meaning makes it 2 |
/// | `name` | string | [`name`](Self::name) |
/// | `status` | string | [`AuthStatus::name`]: `pending`, `running`, `auth_retrying`, `unauthenticated`, `stopped` |
/// | `reason` | string or null | `token_endpoint`, `rejected_by_resource`, `rejected`, `ceiling_exceeded`, `replaced`, `shut_down`, `handles_dropped`, `idle`, `driver_panicked`, `driver_dropped` |
/// | `oauth_error` | string or null | the authorization server's code, with `rejected` |
/// | `ceiling_seconds` | number or null | with `ceiling_exceeded` |
/// | `since` | string | [`since`](Self::since), in UTC, as RFC 3339 writes it |
/// | `serving` | boolean | [`serving`](Self::serving) |
/// | `generation` | number or null | [`generation`](Self::generation) |
/// | `expires_at` | string or null | [`expires_at`](Self::expires_at), in UTC, as RFC 3339 writes it |
/// | `unsaved` | boolean | [`unsaved`](Self::unsaved) |
/// | `attempt_in_flight` | boolean | [`attempt_in_flight`](Self::attempt_in_flight) |
/// | `next_attempt_in_seconds` | number or null | [`next_attempt_in`](Self::next_attempt_in) |
/// | `last_failure` | string or null | [`last_failure`](Self::last_failure) |
/// | `remediation` | string or null | [`remediation`](Self::remediation) |
///
/// It holds no secret, and no text of a server's or of another library's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "serde", serde(into = "document::Document", try_from = "document::Document"))]
#[non_exhaustive]
pub struct Snapshot {
    /// The workload's name, as given to the builder.
    pub name: String,
    /// The status.
    pub status: AuthStatus,
    /// Since when it has been this, by the wall clock, to the second.
    pub since: SystemTime,
    /// Whether callers get a token now.
    pub serving: bool,
    /// The token being served.
    pub generation: Option<Generation>,
    /// When that token expires, if it is known.
    pub expires_at: Option<SystemTime>,
    /// Whether a restart may lose the login; see [`StatusEvent::unsaved`](crate::StatusEvent::unsaved).
    pub unsaved: bool,
    /// Whether an attempt is in flight.
    pub attempt_in_flight: bool,
    /// How long until the next attempt is due, if one is scheduled.
    pub next_attempt_in: Option<Duration>,
    /// The last attempt's failure in words, if it failed.
    pub last_failure: Option<String>,
    /// What a human can do about it, if the verdict is permanent, or the store of a shared login has to be mended.
    pub remediation: Option<String>,
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            status,
            since,
            serving,
            attempt_in_flight,
            next_attempt_in,
            unsaved,
            last_failure,
            remediation,
            ..
        } = self;
        let serving = if *serving { "serving" } else { "not serving" };
        write!(f, "{name}: {status}; since {}; {serving}", rfc3339(*since))?;
        if let (Some(failure), AuthStatus::Pending | AuthStatus::Running | AuthStatus::AuthRetrying(_)) =
            (last_failure, status)
        {
            write!(f, "; {failure}")?;
        }
        match next_attempt_in {
            _ if *attempt_in_flight => f.write_str("; an attempt is under way")?,
            Some(wait) => {
                let seconds = wait.as_millis().div_ceil(1000);
                let wait = Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX));
                write!(f, "; next attempt in {}", humantime::format_duration(wait))?;
            }
            None => {}
        }
        if *unsaved {
            f.write_str("; a restart may lose the login")?;
        }
        match (remediation, status) {
            (Some(remediation), _) => write!(f, "; to do: {remediation}"),
            (None, AuthStatus::Pending | AuthStatus::Running | AuthStatus::AuthRetrying(_)) => {
                f.write_str("; nothing to do")
            }
            (None, AuthStatus::Unauthenticated(_)) => f.write_str("; to do: give it new credentials, or nudge it"),
            (None, AuthStatus::Stopped(StopReason::Idle)) => {
                f.write_str("; nothing to do: it begins anew when it is wanted")
            }
            (None, AuthStatus::Stopped(StopReason::ShutDown | StopReason::HandlesDropped)) => {
                f.write_str("; nothing to do: its host has ended it")
            }
            (None, AuthStatus::Stopped(StopReason::DriverDropped)) => f.write_str("; to do: build a new one"),
            (None, AuthStatus::Stopped(StopReason::DriverPanicked)) => f.write_str("; to do: restart, and report it"),
        }
    }
}

/// With what can be written: years of four digits, from 1970.
fn rfc3339(at: SystemTime) -> String {
    let latest = SystemTime::UNIX_EPOCH.checked_add(LATEST).unwrap_or(SystemTime::UNIX_EPOCH);
    humantime::format_rfc3339(at.clamp(SystemTime::UNIX_EPOCH, latest)).to_string()
}

/// The last second of the year 9999.
const LATEST: Duration = Duration::from_secs(253_402_300_799);
