//! The words of the format for what the library says.

use steadfast::{AuthError, AuthStatus, RetryCause, StatusEvent, StopReason, UnauthenticatedReason};

use crate::format::Event;

pub(crate) fn in_words(status: &AuthStatus) -> String {
    let why = match status {
        AuthStatus::AuthRetrying(cause) => match cause {
            RetryCause::TokenEndpoint => "token endpoint",
            RetryCause::RejectedByResource => "rejected by resource",
            other => panic!("a cause that scenarios have no word for: {other:?}"),
        },
        AuthStatus::Unauthenticated(reason) => match reason {
            UnauthenticatedReason::Rejected(code) => code.as_str(),
            UnauthenticatedReason::CeilingExceeded(_) => "ceiling",
            UnauthenticatedReason::RejectedByResource => "rejected by resource",
            UnauthenticatedReason::Replaced => "replaced",
            other => panic!("a reason that scenarios have no word for: {other:?}"),
        },
        AuthStatus::Stopped(StopReason::ShutDown) => "shut down",
        AuthStatus::Stopped(StopReason::HandlesDropped) => "handles dropped",
        AuthStatus::Stopped(_) => "a defect",
        AuthStatus::Pending | AuthStatus::Running => return status.name().to_owned(),
        other => panic!("a status that scenarios have no word for: {other:?}"),
    };
    format!("{}: {why}", status.name().replace('_', " "))
}

pub(crate) fn event(event: &StatusEvent) -> Event {
    Event {
        from: in_words(&event.from),
        to: in_words(&event.to),
        serving: event.serving,
        unsaved: event.unsaved,
        remedy: event.remediation.clone(),
    }
}

pub(crate) fn kind(error: &AuthError) -> &'static str {
    match error {
        AuthError::Retrying(_) => "retrying",
        AuthError::StillRefreshing(_) => "still refreshing",
        AuthError::Unauthenticated(_) => "unauthenticated",
        AuthError::Stopped(_) => "stopped",
    }
}
