//! What readers see of the state, and what it tells them.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    AccessToken, AuthError, AuthStatus, Delivery, Generation, IssueError, OAuthCode, UnauthenticatedReason,
    error::Failure,
    failure::fault,
    machine::Outlook,
    schedule::{Budget, Deadline, Now},
    telemetry::Standing,
};
#[cfg(feature = "oauth2")]
use crate::{failure::chain, oauth::TokenEndpointError};

/// The state as readers see it: replaced whole, never changed.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) token: Option<AccessToken>,
    pub(crate) status: AuthStatus,
    pub(crate) outlook: Outlook,
    pub(crate) next_attempt: Option<Deadline>,
    pub(crate) latest: Option<Generation>,
    pub(crate) forced: Budget,
    pub(crate) can_refresh: bool,
    /// How many attempts have ended; a waiting caller waits for the next one.
    pub(crate) outcomes: u16,
    /// Since when it has this status, in seconds of the wall clock; set by whoever shows it.
    pub(crate) since: u32,
    pub(crate) cause: Option<Arc<IssueError>>,
    /// The latest token's refresh token is in memory only.
    pub(crate) unsaved: bool,
}

impl View {
    pub(crate) fn servable(&self, at: SystemTime) -> Option<&AccessToken> {
        self.token.as_ref().filter(|token| token.is_servable(at))
    }

    /// Why a caller gets nothing now.
    pub(crate) fn refusal(&self, now: Now) -> AuthError {
        let wait = match self.outlook {
            Outlook::InFlight | Outlook::FailFast(None) => Some(SOON),
            Outlook::From(next) | Outlook::FailFast(Some(next)) => Some(whole_seconds(next.remaining(now)).max(SOON)),
            Outlook::Closed => None,
        };
        let failure = Failure::shared(self.cause.clone(), wait);
        match (&self.status, self.outlook) {
            (AuthStatus::Stopped(_), _) => AuthError::Stopped(failure),
            (AuthStatus::Unauthenticated(_), _) => AuthError::Unauthenticated(failure),
            (AuthStatus::Pending | AuthStatus::Running, Outlook::InFlight) => AuthError::StillRefreshing(failure),
            (AuthStatus::Pending | AuthStatus::Running | AuthStatus::AuthRetrying(_), _) => {
                AuthError::Retrying(failure)
            }
        }
    }

    /// As what the source counts; a stopped one counts no more.
    pub(super) fn standing(&self) -> Option<Standing> {
        let standing = Standing { status: self.status.name(), serving: self.token.is_some(), unsaved: self.unsaved };
        (!matches!(self.status, AuthStatus::Stopped(_))).then_some(standing)
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        let Self {
            token,
            status,
            outlook,
            next_attempt,
            latest,
            forced,
            can_refresh,
            outcomes,
            unsaved,
            since: _,
            cause: _,
        } = other;
        !self.turns(other)
            && self.token.is_some() == token.is_some()
            && self.status == *status
            && self.outlook == *outlook
            && self.next_attempt == *next_attempt
            && self.latest == *latest
            && self.forced == *forced
            && self.can_refresh == *can_refresh
            && self.outcomes == *outcomes
            && self.unsaved == *unsaved
    }

    /// Whether somebody who waits would find something new.
    pub(super) fn turns(&self, old: &Self) -> bool {
        let generation = |view: &Self| view.token.as_ref().map(AccessToken::generation);
        self.outcomes != old.outcomes || self.status != old.status || generation(self) != generation(old)
    }

    /// The news in words. Only our own: what a foreign error says may hold anything.
    pub(super) fn reason(&self, old: &Self) -> String {
        let Self { token, status, cause, .. } = self;
        if token.is_some() && *status == AuthStatus::Running {
            let unsaved = "; its refresh token could not be saved so far: until it is, a restart loses the login";
            return format!("a token is being served{}", if self.unsaved { unsaved } else { "" });
        }
        if let (None, Some(held)) = (token, &old.token)
            && *status == old.status
        {
            let end = if held.is_refused() { "was refused by the resource server" } else { "has ended" };
            let why = self.failure().map(|why| format!(": {why}")).unwrap_or_default();
            return format!("{status}; the held token {end}{why}");
        }
        match (status, cause) {
            // The status names the reason already.
            (
                AuthStatus::Unauthenticated(UnauthenticatedReason::Rejected(_) | UnauthenticatedReason::Replaced),
                Some(cause),
            ) => {
                format!("{status} [{}]", told(cause))
            }
            (AuthStatus::AuthRetrying(_) | AuthStatus::Unauthenticated(_), Some(cause)) => {
                format!("{status}: {cause} [{}]", told(cause))
            }
            (AuthStatus::Pending, _) => "pending: a new run begins".to_owned(),
            (status, _) => status.to_string(),
        }
    }

    /// The last attempt's failure in words, if it failed.
    pub(super) fn failure(&self) -> Option<String> {
        self.cause.as_ref().map(|cause| format!("{cause} [{}]", told(cause)))
    }

    /// What a human can do, whether or not attempts go on.
    pub(super) fn to_do(&self) -> Option<String> {
        let of_cause = || self.cause.as_deref().and_then(IssueError::remediation).map(str::to_owned);
        if matches!(self.status, AuthStatus::Stopped(_)) { None } else { self.remediation().or_else(of_cause) }
    }

    /// What a human can do about a permanent verdict.
    pub(super) fn remediation(&self) -> Option<String> {
        let code = match &self.status {
            AuthStatus::Unauthenticated(UnauthenticatedReason::Rejected(code)) => code.as_str(),
            AuthStatus::Unauthenticated(UnauthenticatedReason::Replaced) => "",
            AuthStatus::Pending
            | AuthStatus::Running
            | AuthStatus::AuthRetrying(_)
            | AuthStatus::Unauthenticated(_)
            | AuthStatus::Stopped(_) => return None,
        };
        if let Some(advice) = self.cause.as_deref().and_then(IssueError::remediation) {
            return Some(advice.to_owned());
        }
        let advice = match code {
            "invalid_client"
            | "unauthorized_client"
            | "invalid_client_id"
            | "incorrect_client_credentials"
            | "bad_client_secret" => {
                let client = self.cause.as_deref().and_then(IssueError::client);
                let whose = client.map(|client| format!(" ({client})")).unwrap_or_default();
                format!(
                    "check the client's secret; or the cached client registration{whose} may be stale: delete it and \
                     register again (RFC 7591)"
                )
            }
            "invalid_scope" | "invalid_target" | "unsupported_grant_type" | "unsupported_token_type" => {
                "check what the client is configured to ask for: the server does not give it".to_owned()
            }
            _ => "sign in again".to_owned(),
        };
        Some(advice)
    }
}

/// What is known of the token endpoint's answer.
#[derive(Default)]
pub(super) struct Facts<'a> {
    pub(super) status: Option<u16>,
    pub(super) code: Option<&'a OAuthCode>,
    token_host: Option<&'a str>,
}

pub(super) fn facts(cause: &IssueError) -> Facts<'_> {
    let facts = Facts { code: cause.verdict().code(), ..Facts::default() };
    #[cfg(feature = "oauth2")]
    if let Some(told) = chain(cause).find_map(|cause| cause.downcast_ref::<TokenEndpointError>()) {
        let status = told.status().map(|status| status.as_u16());
        return Facts { status, code: told.code().or(facts.code), token_host: Some(told.token_host()) };
    }
    facts
}

/// Which rule spoke, and about which answer: enough to look in the right place at night.
fn told(cause: &IssueError) -> String {
    let Facts { status, token_host, code: _ } = facts(cause);
    let (rule, Some(host)) = (cause.rule(), token_host) else { return cause.rule().to_owned() };
    match (status, cause.delivery()) {
        (Some(status), _) => format!("{rule}, {status} from {host}"),
        (None, delivery) => {
            let way = if delivery == Delivery::NotSent { "to" } else { "from" };
            let fault = fault(cause).map(|fault| format!(": {fault}")).unwrap_or_default();
            format!("{rule}, {way} {host}{fault}")
        }
    }
}

/// Rounded up, for a caller that comes back too early has come for nothing.
fn whole_seconds(wait: Duration) -> Duration {
    Duration::from_secs(wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)))
}

const SOON: Duration = Duration::from_secs(1);
