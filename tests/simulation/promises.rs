//! What is checked: one function for each promise, named after it.

use std::time::Duration;

use steadfast::{
    AuthError, AuthStatus, ForcedRefreshes, IssueReason, RefreshPolicy, RetryCause, Snapshot, StatusEvent,
    UnauthenticatedReason,
};

use crate::SECRET;

/// `Err`: the promise that was broken, and how.
pub(crate) type Checked = Result<(), String>;

/// A token as its process got it.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    /// Of which of the process's sources.
    pub(crate) epoch: usize,
    /// When it was asked for, on both clocks.
    pub(crate) mono: Duration,
    pub(crate) wall: Duration,
    pub(crate) lifetime: Option<Duration>,
    pub(crate) unsaved: bool,
}

// Exchanges and refresh tokens.

/// At most one exchange is in flight for each grant, whichever processes share it.
pub(crate) fn one_exchange_in_flight_for_each_grant(login: usize, in_flight: usize) -> Checked {
    ensure(in_flight <= 1, || format!("one exchange in flight for each grant: {in_flight} of login {login}"))
}

/// No refresh token is sent again after its success was received, by whomever.
pub(crate) fn no_refresh_token_is_sent_after_its_success(sent: &str, by: usize, spent: Option<usize>) -> Checked {
    ensure(spent.is_none(), || {
        format!("no refresh token is sent again after its success: {sent} by client {by}, spent by client {spent:?}")
    })
}

/// The new pair is durable before anybody sees the access token, or it is reported as unsaved.
pub(crate) fn a_new_pair_is_durable_first(refresh_token: &str, saved_or_reported: bool) -> Checked {
    ensure(saved_or_reported, || format!("a new pair is durable before its token is seen: {refresh_token}"))
}

/// The end of the processes, in whatever way and in the middle of whatever, does not cost the login.
pub(crate) fn the_login_survives_the_end(before: Option<&str>, after: Option<&str>, good: bool) -> Checked {
    ensure(good, || format!("the login survives the end: {before:?} was good before it, {after:?} is not after it"))
}

/// A login is not condemned while the store holds a good one.
pub(crate) fn a_good_login_is_not_condemned(stored: Option<&str>, good: bool) -> Checked {
    ensure(!good, || format!("a good login is not condemned: {stored:?} is stored"))
}

// Attempts.

/// At most one attempt is in flight for each run.
pub(crate) fn one_attempt_in_flight_for_each_run(in_flight: usize) -> Checked {
    ensure(in_flight <= 1, || format!("one attempt in flight for each run: {in_flight}"))
}

/// An attempt starts a second after the last one has ended, at the earliest.
pub(crate) fn attempts_are_a_second_apart(rested: Duration) -> Checked {
    ensure(rested >= Duration::from_secs(1), || format!("attempts are a second apart: {rested:?}"))
}

/// What a server asks for with `Retry-After` bounds every attempt but a nudged one.
pub(crate) fn retry_after_is_heeded(heeded: bool, reason: IssueReason) -> Checked {
    ensure(heeded, || format!("Retry-After is heeded: an attempt ({reason}) before its time"))
}

/// However many 401s one token meets, they force at most one refresh.
pub(crate) fn refusals_of_a_token_force_one_refresh(token: &str, asked_for: bool, again: bool) -> Checked {
    ensure(asked_for && !again, || {
        format!("refusals of a token force one refresh: {token}, refused: {asked_for}, forced before: {again}")
    })
}

/// Refreshes that rejections force keep to their budget.
pub(crate) fn forced_refreshes_keep_to_their_budget(
    count: usize,
    within: Duration,
    budget: ForcedRefreshes,
) -> Checked {
    let refilled = within.as_secs() / budget.refill.as_secs().max(1);
    let most = u64::from(budget.burst) + refilled;
    ensure(count as u64 <= most, || format!("forced refreshes keep to their budget: {count} within {within:?}"))
}

/// Attempts in an hour are bounded, whatever goes wrong and however often callers ask: a short retry and the ticks and
/// probes of the long window, and as many again for each thing that starts a short retry over.
pub(crate) fn attempts_per_hour_are_bounded(attempts: usize, excuses: usize, policy: &RefreshPolicy) -> Checked {
    let ticks = (3600.0 / (policy.auth_retrying_tick.as_secs_f64() * 0.9)) as usize + 1;
    let most = ticks + 8 + (policy.max_tries as usize + 1) * (excuses + 1);
    ensure(attempts <= most, || format!("attempts per hour are bounded: {attempts} with {excuses} reasons for more"))
}

/// Nobody but its own time limit cuts an attempt short: no caller who goes away, no shutdown.
pub(crate) fn nobody_cuts_an_attempt_short(cut: bool, after: Duration) -> Checked {
    ensure(!cut, || format!("nobody cuts an attempt short: one was dropped after {after:?}"))
}

/// No attempt starts in a status that is not live.
pub(crate) fn an_ended_run_attempts_nothing(status: Option<&AuthStatus>) -> Checked {
    ensure(status.is_some_and(AuthStatus::is_live), || {
        format!("an ended run attempts nothing: one starts in {status:?}")
    })
}

/// After the authorization server's final word only a nudge starts another attempt.
pub(crate) fn a_final_word_ends_the_run(went_on: bool) -> Checked {
    ensure(!went_on, || "a final word ends the run: another attempt all the same".to_owned())
}

/// After a run has ended, nothing is done upstream in its name.
pub(crate) fn a_closed_gate_means_silence(closed: Option<&'static str>, what: &str) -> Checked {
    ensure(closed.is_none(), || format!("a closed gate means silence: {what} after {}", closed.unwrap_or_default()))
}

// Callers.

/// Every caller is answered within `caller_wait`.
pub(crate) fn every_caller_is_answered_in_time(took: Duration, limit: Duration) -> Checked {
    // The timer's resolution.
    ensure(took <= limit + Duration::from_millis(1), || {
        format!("every caller is answered in time: {took:?} instead of {limit:?}")
    })
}

/// In the long window a caller without a token is answered at once.
pub(crate) fn callers_fail_fast_in_the_long_window(retrying: bool, took: Duration) -> Checked {
    ensure(!retrying || took.is_zero(), || format!("callers fail fast in the long window: after {took:?}"))
}

/// A request is sent again twice at most: once with another token, once after the token has settled.
pub(crate) fn a_request_is_replayed_twice_at_most(sent: &[String]) -> Checked {
    let other = sent.windows(2).filter(|pair| pair[0] != pair[1]).count();
    ensure(sent.len() <= 3 && other <= 2 && sent.len() <= other + 2, || {
        format!("a request is replayed twice at most, once with each token: {sent:?}")
    })
}

/// The token goes to its own origin, and to no other.
pub(crate) fn a_token_goes_to_its_origin_only(host: Option<&str>, carries: bool) -> Checked {
    ensure(!carries || host == Some("api.example.com"), || format!("a token goes to its origin only: {host:?}"))
}

/// While all is well a token is served without a gap.
pub(crate) fn a_token_is_served_without_a_gap(process: usize, serving: bool) -> Checked {
    ensure(serving, || format!("a token is served without a gap: process {process} has none"))
}

/// A generation never goes back.
pub(crate) fn generations_only_grow(before: u64, now: u64) -> Checked {
    ensure(now >= before, || format!("a generation never goes back: {now} after {before}"))
}

/// `token_after` brings a newer token or none.
pub(crate) fn a_token_after_is_newer(after: u64, got: u64) -> Checked {
    ensure(got > after, || format!("token_after({after}) brings a newer token: {got}"))
}

/// An expired token is never served, by whichever clock.
pub(crate) fn an_expired_token_is_never_served(
    secret: &str,
    token: &Token,
    mono: Duration,
    wall: Duration,
    policy: &RefreshPolicy,
) -> Checked {
    let Some(lifetime) = token.lifetime else { return Ok(()) };
    let served_for = served_for(lifetime, policy);
    let by_wall = wall.saturating_sub(token.wall);
    // The driver retires it by the monotonic clock; its margin is more than the driver needs for that.
    let by_mono = mono.saturating_sub(token.mono);
    ensure(by_wall < served_for && by_mono < lifetime, || {
        format!(
            "an expired token is never served: {secret} of {lifetime:?} after {by_mono:?} ({by_wall:?} by the wall)"
        )
    })
}

/// After a reauthentication nobody gets a token of the old credentials.
pub(crate) fn old_credentials_serve_nobody(secret: &str, of: usize, asked: usize) -> Checked {
    ensure(of >= asked, || format!("old credentials serve nobody: {secret} of source {of}, asked after source {asked}"))
}

/// A token that the resource server has definitely rejected is not handed out again.
pub(crate) fn a_withdrawn_token_is_not_seen_again(secret: &str, withdrawn: bool) -> Checked {
    ensure(!withdrawn, || format!("a withdrawn token is not seen again: {secret}"))
}

/// Nobody is told to come back in no time, and a caller hears what is true.
pub(crate) fn an_error_tells_the_truth(error: &AuthError, status: &AuthStatus) -> Checked {
    let fits = match error {
        AuthError::Unauthenticated(_) => matches!(status, AuthStatus::Unauthenticated(_)),
        AuthError::Stopped(_) => matches!(status, AuthStatus::Stopped(_)),
        AuthError::Retrying(_) | AuthError::StillRefreshing(_) => true,
    };
    let soon = error.retry_after().is_some_and(|wait| wait < Duration::from_secs(1));
    ensure(fits && !soon, || format!("an error tells the truth: {error:?} in {status:?}"))
}

/// Nobody is refused while nothing is scheduled: whoever may come back later is told when, and an attempt is on its way.
pub(crate) fn a_refusal_promises_an_attempt(error: &AuthError, snapshot: &Snapshot) -> Checked {
    let later = matches!(error, AuthError::Retrying(_) | AuthError::StillRefreshing(_));
    let coming = snapshot.attempt_in_flight || snapshot.next_attempt_in.is_some();
    ensure(!later || (error.retry_after().is_some() && coming), || {
        format!("a refusal promises an attempt: {error:?}, but {snapshot:?}")
    })
}

// The host.

/// News comes in order: numbers grow, and each event begins where the last one that was taken ended.
pub(crate) fn news_comes_in_order(last: u64, told: &AuthStatus, event: &StatusEvent) -> Checked {
    ensure(event.sequence > last && event.from == *told, || {
        format!("news comes in order: {event:?} after #{last} and {told:?}")
    })
}

/// One call of the sink at a time.
pub(crate) fn the_sink_is_called_once_at_a_time(calls: usize) -> Checked {
    ensure(calls == 1, || format!("the sink is called once at a time: {calls} calls"))
}

/// A published status follows the last one by the table of the states.
pub(crate) fn a_status_follows_the_table(from: &AuthStatus, to: &AuthStatus) -> Checked {
    use AuthStatus::{AuthRetrying, Pending, Running, Stopped, Unauthenticated};
    use RetryCause::{RejectedByResource, TokenEndpoint};
    use UnauthenticatedReason::{CeilingExceeded, Rejected, Replaced};
    let allowed = from == to
        || match (from, to) {
            (Stopped(_), _) => false,
            // A shutdown; new credentials, or a nudge after the end of a run.
            (_, Stopped(_) | Pending) => true,
            (Pending | AuthRetrying(_), Running) => true,
            (Pending | Running, AuthRetrying(TokenEndpoint)) | (Running, AuthRetrying(RejectedByResource)) => true,
            (Pending | Running | AuthRetrying(_), Unauthenticated(Rejected(_) | Replaced)) => true,
            (AuthRetrying(_), Unauthenticated(CeilingExceeded(_))) => true,
            (Running, Unauthenticated(UnauthenticatedReason::RejectedByResource)) => true,
            (Unauthenticated(UnauthenticatedReason::RejectedByResource), Running) => true,
            _ => false,
        };
    ensure(allowed, || format!("a status follows the table: {from:?} -> {to:?}"))
}

/// What the sink was told last is how things are.
pub(crate) fn the_last_news_is_true(
    told: Option<&StatusEvent>,
    status: &AuthStatus,
    serving: bool,
    unsaved: bool,
) -> Checked {
    let true_to = |event: &StatusEvent| event.to == *status && event.serving == serving && event.unsaved == unsaved;
    ensure(told.is_some_and(true_to), || {
        format!("the last news is true: told {told:?}, but it is {status:?}, serving {serving}, unsaved {unsaved}")
    })
}

/// Only an OAuth verdict, the ceiling or another's login ends a run.
pub(crate) fn a_run_ends_for_a_reason(reason: &UnauthenticatedReason, grounds: bool) -> Checked {
    ensure(grounds, || format!("a run ends for a reason: {reason:?} without one"))
}

/// Once everything is well again, so is every process, within one cadence.
pub(crate) fn it_recovers_within_a_cadence(process: usize, status: &AuthStatus, serving: bool) -> Checked {
    ensure(*status == AuthStatus::Running && serving, || {
        format!("it recovers within a cadence: process {process} is {status:?}, serving {serving}")
    })
}

/// A shutdown ends within `attempt_timeout` and five seconds.
pub(crate) fn a_shutdown_ends_in_time(took: Duration, limit: Duration) -> Checked {
    ensure(took <= limit + Duration::from_millis(1), || format!("a shutdown ends in time: {took:?}"))
}

/// Nobody is left waiting.
pub(crate) fn nobody_waits_in_the_end(waiting: usize) -> Checked {
    ensure(waiting == 0, || format!("nobody waits in the end: {waiting} do"))
}

/// The sink hears of the end, if it has ears for it.
pub(crate) fn the_end_is_told(process: usize, told: Option<&StatusEvent>) -> Checked {
    let stopped = told.is_some_and(|event| matches!(event.to, AuthStatus::Stopped(_)));
    ensure(stopped, || format!("the end is told: process {process} was told {told:?}"))
}

/// No secret is in any output.
pub(crate) fn no_secret_in_any_output(what: &str, text: &str) -> Checked {
    ensure(!text.contains(SECRET), || format!("no secret in any output: {what}: {text}"))
}

/// How long after its request a token may be served.
pub(crate) fn served_for(lifetime: Duration, policy: &RefreshPolicy) -> Duration {
    lifetime.saturating_sub(policy.expiry_margin.min(lifetime / 10))
}

fn ensure(kept: bool, broken: impl FnOnce() -> String) -> Checked {
    if kept { Ok(()) } else { Err(broken()) }
}
