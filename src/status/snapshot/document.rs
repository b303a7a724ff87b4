//! The form in which a snapshot is written down.

use std::{
    num::NonZeroU64,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::rfc3339;
use crate::{AuthStatus, Generation, OAuthCode, RetryCause, Snapshot, StopReason, UnauthenticatedReason};

#[derive(Deserialize, Serialize)]
pub(super) struct Document {
    version: u32,
    name: String,
    status: Word,
    reason: Option<Reason>,
    oauth_error: Option<String>,
    ceiling_seconds: Option<f64>,
    since: String,
    serving: bool,
    generation: Option<NonZeroU64>,
    expires_at: Option<String>,
    unsaved: bool,
    attempt_in_flight: bool,
    next_attempt_in_seconds: Option<f64>,
    last_failure: Option<String>,
    remediation: Option<String>,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Pending,
    Running,
    AuthRetrying,
    Unauthenticated,
    Stopped,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Reason {
    TokenEndpoint,
    RejectedByResource,
    Rejected,
    CeilingExceeded,
    Replaced,
    ShutDown,
    HandlesDropped,
    Idle,
    DriverPanicked,
    DriverDropped,
}

impl From<Snapshot> for Document {
    fn from(snapshot: Snapshot) -> Self {
        let Snapshot {
            name,
            status,
            since,
            serving,
            generation,
            expires_at,
            unsaved,
            attempt_in_flight,
            next_attempt_in,
            last_failure,
            remediation,
        } = snapshot;
        let (mut oauth_error, mut ceiling_seconds) = (None, None);
        let (status, reason) = match status {
            AuthStatus::Pending => (Word::Pending, None),
            AuthStatus::Running => (Word::Running, None),
            AuthStatus::AuthRetrying(cause) => (
                Word::AuthRetrying,
                Some(match cause {
                    RetryCause::TokenEndpoint => Reason::TokenEndpoint,
                    RetryCause::RejectedByResource => Reason::RejectedByResource,
                }),
            ),
            AuthStatus::Unauthenticated(reason) => (
                Word::Unauthenticated,
                Some(match reason {
                    UnauthenticatedReason::Rejected(code) => {
                        oauth_error = Some(code.to_string());
                        Reason::Rejected
                    }
                    UnauthenticatedReason::CeilingExceeded(ceiling) => {
                        ceiling_seconds = Some(ceiling.as_secs_f64());
                        Reason::CeilingExceeded
                    }
                    UnauthenticatedReason::RejectedByResource => Reason::RejectedByResource,
                    UnauthenticatedReason::Replaced => Reason::Replaced,
                }),
            ),
            AuthStatus::Stopped(reason) => (
                Word::Stopped,
                Some(match reason {
                    StopReason::ShutDown => Reason::ShutDown,
                    StopReason::HandlesDropped => Reason::HandlesDropped,
                    StopReason::Idle => Reason::Idle,
                    StopReason::DriverPanicked => Reason::DriverPanicked,
                    StopReason::DriverDropped => Reason::DriverDropped,
                }),
            ),
        };
        Self {
            version: VERSION,
            name,
            status,
            reason,
            oauth_error,
            ceiling_seconds,
            since: rfc3339(since),
            serving,
            generation: generation.map(NonZeroU64::from),
            expires_at: expires_at.map(rfc3339),
            unsaved,
            attempt_in_flight,
            next_attempt_in_seconds: next_attempt_in.map(|wait| wait.as_secs_f64()),
            last_failure,
            remediation,
        }
    }
}

impl TryFrom<Document> for Snapshot {
    type Error = String;

    fn try_from(document: Document) -> Result<Self, String> {
        let Document {
            version,
            name,
            status,
            reason,
            oauth_error,
            ceiling_seconds,
            since,
            serving,
            generation,
            expires_at,
            unsaved,
            attempt_in_flight,
            next_attempt_in_seconds,
            last_failure,
            remediation,
        } = document;
        if version != VERSION {
            return Err(format!("a snapshot of version {version}, and only version {VERSION} is known here"));
        }
        let status = match (status, reason) {
            (Word::Pending, None) => AuthStatus::Pending,
            (Word::Running, None) => AuthStatus::Running,
            (Word::AuthRetrying, Some(Reason::TokenEndpoint)) => AuthStatus::AuthRetrying(RetryCause::TokenEndpoint),
            (Word::AuthRetrying, Some(Reason::RejectedByResource)) => {
                AuthStatus::AuthRetrying(RetryCause::RejectedByResource)
            }
            (Word::Unauthenticated, Some(reason)) => AuthStatus::Unauthenticated(match reason {
                Reason::Rejected => {
                    let code = oauth_error.as_deref().and_then(OAuthCode::new);
                    UnauthenticatedReason::Rejected(code.ok_or("rejected, but oauth_error holds no code")?)
                }
                Reason::CeilingExceeded => UnauthenticatedReason::CeilingExceeded(
                    duration(ceiling_seconds)?.ok_or("the ceiling is exceeded, but ceiling_seconds is missing")?,
                ),
                Reason::RejectedByResource => UnauthenticatedReason::RejectedByResource,
                Reason::Replaced => UnauthenticatedReason::Replaced,
                Reason::TokenEndpoint
                | Reason::ShutDown
                | Reason::HandlesDropped
                | Reason::Idle
                | Reason::DriverPanicked
                | Reason::DriverDropped => return Err(MISMATCH.to_owned()),
            }),
            (Word::Stopped, Some(Reason::ShutDown)) => AuthStatus::Stopped(StopReason::ShutDown),
            (Word::Stopped, Some(Reason::HandlesDropped)) => AuthStatus::Stopped(StopReason::HandlesDropped),
            (Word::Stopped, Some(Reason::Idle)) => AuthStatus::Stopped(StopReason::Idle),
            (Word::Stopped, Some(Reason::DriverPanicked)) => AuthStatus::Stopped(StopReason::DriverPanicked),
            (Word::Stopped, Some(Reason::DriverDropped)) => AuthStatus::Stopped(StopReason::DriverDropped),
            (Word::Pending | Word::Running | Word::AuthRetrying | Word::Unauthenticated | Word::Stopped, _) => {
                return Err(MISMATCH.to_owned());
            }
        };
        Ok(Self {
            name,
            status,
            since: time("since", &since)?,
            serving,
            generation: generation.map(Generation::from),
            expires_at: expires_at.map(|at| time("expires_at", &at)).transpose()?,
            unsaved,
            attempt_in_flight,
            next_attempt_in: duration(next_attempt_in_seconds)?,
            last_failure,
            remediation,
        })
    }
}

fn time(field: &str, text: &str) -> Result<SystemTime, String> {
    humantime::parse_rfc3339(text).map_err(|error| format!("{field} is no time as RFC 3339 writes it: {error}"))
}

fn duration(seconds: Option<f64>) -> Result<Option<Duration>, String> {
    let duration = seconds.map(Duration::try_from_secs_f64).transpose();
    duration.map_err(|error| format!("a number of seconds that is none: {error}"))
}

const VERSION: u32 = 1;
const MISMATCH: &str = "this reason does not belong to this status";
