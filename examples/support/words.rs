//! For somebody who is woken at three in the morning: does anything need doing?
#![allow(dead_code, reason = "each example uses its part of it")]

use std::time::Duration;

use steadfast::{AuthStatus, StatusEvent, StopReason, UnauthenticatedReason};

/// What comes by itself.
#[derive(Clone, Copy)]
pub(crate) enum Next {
    UnderWay,
    In(Duration),
    /// Nothing is due; a caller or a 401 may change that.
    WhenNeeded,
}

/// Begins with "nothing to do" or with "to do:", and says what.
pub(crate) fn need(status: &AuthStatus, next: Next, advice: Option<&str>) -> String {
    let task = match (status, advice) {
        (AuthStatus::Pending | AuthStatus::Running | AuthStatus::AuthRetrying(_), _) => {
            let attempt = if *status == AuthStatus::Running { "refresh" } else { "attempt" };
            return match next {
                Next::UnderWay => "nothing to do, an attempt is under way".to_owned(),
                Next::In(wait) => format!("nothing to do, next {attempt} in {}", brief(wait)),
                Next::WhenNeeded => "nothing to do".to_owned(),
            };
        }
        (AuthStatus::Unauthenticated(_), Some(advice)) => advice,
        (AuthStatus::Unauthenticated(UnauthenticatedReason::RejectedByResource), None) => "give it another token",
        (AuthStatus::Unauthenticated(UnauthenticatedReason::CeilingExceeded(_)), None) => {
            "see to the token endpoint, then restart this process"
        }
        (AuthStatus::Unauthenticated(_), None) => "give it new credentials",
        (AuthStatus::Stopped(StopReason::DriverPanicked | StopReason::DriverDropped), _) => "restart this process",
        (AuthStatus::Stopped(_) | _, _) => "start it again, unless somebody meant to stop it",
    };
    format!("to do: {task}")
}

/// The same of an event, where there is something to say that has not been said.
pub(crate) fn need_after(event: &StatusEvent) -> Option<String> {
    let next = match event.next_attempt {
        Some(at) => Next::In(at.duration_since(event.at).unwrap_or_default()),
        None if event.serving => Next::WhenNeeded,
        None => Next::UnderWay,
    };
    let has_more_to_say = match &event.to {
        AuthStatus::Running => !event.serving,
        AuthStatus::AuthRetrying(_) => true,
        // Advice is given once.
        AuthStatus::Unauthenticated(_) => event.from != event.to,
        AuthStatus::Stopped(reason) => *reason != StopReason::ShutDown,
        AuthStatus::Pending | _ => false,
    };
    has_more_to_say.then(|| need(&event.to, next, event.remediation.as_deref()))
}

/// The largest two units: nobody needs the milliseconds of a day.
pub(crate) fn brief(span: Duration) -> String {
    match span.as_secs() {
        0 => "less than a second".to_owned(),
        secs @ ..60 => format!("{secs} s"),
        secs @ ..3_600 => two(secs / 60, "min", secs % 60, "s"),
        secs @ ..86_400 => two(secs / 3_600, "h", secs % 3_600 / 60, "min"),
        secs => two(secs / 86_400, "d", secs % 86_400 / 3_600, "h"),
    }
}

fn two(many: u64, unit: &str, few: u64, smaller: &str) -> String {
    if few == 0 { format!("{many} {unit}") } else { format!("{many} {unit} {few} {smaller}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units_at_most() {
        let shown = [1, 59, 60, 61, 3_600, 3_661, 86_400, 90_000].map(|secs| brief(Duration::from_secs(secs)));
        assert_eq!(shown, ["1 s", "59 s", "1 min", "1 min 1 s", "1 h", "1 h 1 min", "1 d", "1 d 1 h"]);
        assert_eq!(brief(Duration::from_millis(400)), "less than a second");
        assert_eq!(brief(Duration::ZERO), "less than a second");
    }
}
