//! The one line for whoever is woken by it: is it serving, what is wrong, does anything need doing.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use steadfast::{AuthStatus, RetryCause, Snapshot, StatusEvent};

use crate::words::{Next, brief, need};

/// In three parts, none of which holds a line break.
pub(crate) struct InWords {
    /// Who, and whether requests get a token.
    serving: String,
    /// What is wrong, if something is.
    trouble: Option<String>,
    /// "nothing to do" or "to do:", and what.
    pub(crate) need: String,
}

impl InWords {
    pub(crate) fn of(snapshot: &Snapshot, newest_first: &[StatusEvent], now: SystemTime) -> Self {
        let Snapshot { name, status, serving, remediation, .. } = snapshot;
        let need = need(status, next(snapshot), remediation.as_deref());
        let trouble =
            trouble(snapshot, since(status, newest_first).map(|at| now.duration_since(at).unwrap_or_default()));
        let serving = match (serving, status) {
            (true, AuthStatus::Running) => "serving".to_owned(),
            (true, _) => snapshot.expires_at.map_or_else(
                || "still serving".to_owned(),
                |end| format!("still serving, for {} more", brief(whole(end.duration_since(now).unwrap_or_default()))),
            ),
            (false, AuthStatus::Pending) => "not serving yet".to_owned(),
            (false, _) => "not serving".to_owned(),
        };
        Self {
            serving: on_one_line(&format!("{name}: {serving}")),
            trouble: trouble.map(|trouble| on_one_line(&trouble)),
            need: on_one_line(&need),
        }
    }

    /// All but what needs doing.
    pub(crate) fn state(&self) -> String {
        let Self { serving, trouble, .. } = self;
        trouble.as_ref().map_or_else(|| serving.clone(), |trouble| format!("{serving}; {trouble}"))
    }
}

impl fmt::Display for InWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.state(), self.need)
    }
}

/// When the status became what it is, as far as anybody remembers.
pub(crate) fn since(status: &AuthStatus, newest_first: &[StatusEvent]) -> Option<SystemTime> {
    newest_first.iter().take_while(|event| event.to == *status).last().map(|event| event.at)
}

pub(crate) fn next(snapshot: &Snapshot) -> Next {
    match snapshot.next_attempt_in {
        _ if snapshot.attempt_in_flight => Next::UnderWay,
        Some(wait) => Next::In(whole(wait)),
        None => Next::WhenNeeded,
    }
}

fn trouble(snapshot: &Snapshot, lasting: Option<Duration>) -> Option<String> {
    let Snapshot { status, serving, last_failure, .. } = snapshot;
    // The status came after the first failures.
    let lasting = lasting.filter(|span| span.as_secs() > 0);
    let lasting = lasting.map(|span| format!(" for over {}", brief(whole(span)))).unwrap_or_default();
    Some(match status {
        AuthStatus::Pending if last_failure.is_some() => "no attempt to get the first token has succeeded".to_owned(),
        AuthStatus::Pending => "the first token is on its way".to_owned(),
        AuthStatus::Running if !serving => "the token has ended, and there is no new one yet".to_owned(),
        AuthStatus::Running if last_failure.is_some() => "the last attempt to renew the token failed".to_owned(),
        AuthStatus::Running => return None,
        AuthStatus::AuthRetrying(RetryCause::RejectedByResource) => {
            format!("the API has refused fresh tokens{lasting}")
        }
        AuthStatus::AuthRetrying(_) => format!("the token endpoint has given no token{lasting}"),
        AuthStatus::Unauthenticated(reason) => reason.to_string(),
        AuthStatus::Stopped(reason) => format!("the monitor has ended ({reason})"),
        status => status.to_string(),
    })
}

const fn whole(span: Duration) -> Duration {
    Duration::from_secs(span.as_secs())
}

/// The name is the host's, and may hold anything: line breaks, and what turns the direction of the rest around.
fn on_one_line(text: &str) -> String {
    let breaks =
        |letter: char| letter.is_control() || matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.replace(breaks, " ")
}
