//! What a response says about the token it was made with: the table, and nothing but the table.

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode};

use super::Rejection;
use crate::{
    Challenge, Generation,
    challenge::Meaning,
    machine::{Objection, Outlook},
};

/// A response, as far as it can concern a token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer<'a> {
    status: StatusCode,
    grpc_status: Option<&'a [u8]>,
}

/// What a response says about its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Say {
    Accepted,
    Refused,
    Nothing,
}

/// What the handle knows at this instant.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    /// The newest generation there is, held or not.
    pub(crate) latest: Option<Generation>,
    /// The servable token, which is of that generation.
    pub(crate) held: Option<Held>,
    pub(crate) budget_is_spent: bool,
    pub(crate) can_refresh: bool,
    pub(crate) outlook: Outlook,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// How much younger it is than a token that every replica has heard of.
    pub(crate) settles_in: Duration,
    /// Whether it was ever accepted.
    pub(crate) is_proven: bool,
}

/// What to do about a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing but answer.
    Answer(Rejection),
    /// As `Answer(PassThrough)`; worth a line in the log.
    OutOfBudget,
    /// Mark the token, take it away from readers if it is to be withdrawn, and tell the driver once.
    Mark { objection: Objection, withdraw: bool, claims: Option<String>, answer: Rejection },
}

impl<'a> Answer<'a> {
    pub(crate) fn of(status: StatusCode, headers: &'a HeaderMap) -> Self {
        Self { status, grpc_status: headers.get(&GRPC_STATUS).map(AsRef::as_ref) }
    }

    /// A response that its receiver takes for a refusal, whatever its status.
    pub(crate) const fn refusal() -> Self {
        Self { status: StatusCode::UNAUTHORIZED, grpc_status: None }
    }

    pub(crate) fn say(&self) -> Say {
        match (self.status, self.grpc_status) {
            // gRPC answers 200 whatever happened. What went wrong before any message is in the headers
            // ("trailers-only"); 16 is UNAUTHENTICATED, and the others prove nothing either way.
            (StatusCode::OK, Some(b"16")) | (StatusCode::UNAUTHORIZED, _) => Say::Refused,
            (status, None | Some(b"0")) if status.is_success() => Say::Accepted,
            // Neither 403 nor 407 is about the token's validity (RFC 9110 §15.5.4, §15.5.8).
            _ => Say::Nothing,
        }
    }
}

/// Rows in order; the first that fits decides.
pub(crate) fn decide(
    answer: Answer<'_>,
    challenge: Option<&Challenge>,
    generation: Generation,
    position: &Position,
) -> Action {
    if answer.say() != Say::Refused {
        return Action::Answer(Rejection::PassThrough);
    }
    match position.latest {
        Some(latest) if latest > generation => return Action::Answer(Rejection::Superseded),
        Some(latest) if latest == generation => {}
        Some(_) | None => return Action::Answer(Rejection::PassThrough),
    }
    let meaning = challenge.map_or(Meaning::Suspect, Challenge::meaning);
    if meaning == Meaning::HandToHost {
        return Action::Answer(Rejection::HandToHost);
    }
    let answer = match position.outlook {
        Outlook::InFlight | Outlook::From(_) if position.can_refresh => Rejection::Refreshing,
        Outlook::InFlight | Outlook::From(_) | Outlook::FailFast(_) | Outlook::Closed => Rejection::PassThrough,
    };
    let Some(held) = position.held else { return Action::Answer(answer) };
    if position.budget_is_spent {
        return Action::OutOfBudget;
    }
    if !held.settles_in.is_zero() {
        return Action::Answer(Rejection::Settling(held.settles_in));
    }
    let (objection, claims) = match meaning {
        Meaning::InvalidToken { claims } if held.is_proven => (Objection::Suspect, claims),
        Meaning::InvalidToken { claims } => (Objection::Definite, claims),
        Meaning::ClaimsNeeded { claims } => (Objection::Claims, Some(claims)),
        Meaning::HandToHost | Meaning::Suspect => (Objection::Suspect, None),
    };
    // A static token is all there is, and the resource may change its mind.
    let withdraw = objection == Objection::Definite && position.can_refresh;
    Action::Mark { objection, withdraw, claims, answer }
}

/// Made once: every response is asked for it.
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header::WWW_AUTHENTICATE};

    use super::*;
    use crate::schedule::Deadline;

    // One test for each row of the table.

    #[test]
    fn a_refusal_of_an_older_token_is_superseded_whatever_it_says() {
        for challenge in [BARE, INVALID, CLAIMS, STEP_UP] {
            assert_eq!(refused(challenge, older(), &good()), answer(Rejection::Superseded));
        }
        let spent = Position { budget_is_spent: true, ..good() };
        assert_eq!(refused(INVALID, older(), &spent), answer(Rejection::Superseded));
    }

    #[test]
    fn a_refusal_of_a_token_that_this_handle_never_had_is_passed_through() {
        assert_eq!(refused(INVALID, current().next(), &good()), answer(Rejection::PassThrough));
        assert_eq!(refused(INVALID, current(), &Position { latest: None, ..good() }), answer(Rejection::PassThrough));
    }

    #[test]
    fn with_the_budget_spent_nothing_is_marked_or_withdrawn() {
        let spent = Position { budget_is_spent: true, ..good() };
        for challenge in [BARE, INVALID, CLAIMS] {
            assert_eq!(refused(challenge, current(), &spent), Action::OutOfBudget);
            let young = Position { held: Some(Held { settles_in: A_SECOND, is_proven: false }), ..spent.clone() };
            assert_eq!(refused(challenge, current(), &young), Action::OutOfBudget);
        }
    }

    #[test]
    fn a_token_younger_than_settle_settles() {
        let young = Position { held: Some(Held { settles_in: A_SECOND, is_proven: false }), ..good() };
        for challenge in [BARE, INVALID, CLAIMS] {
            assert_eq!(refused(challenge, current(), &young), answer(Rejection::Settling(A_SECOND)));
        }
        let fixed = Position { can_refresh: false, ..young };
        assert_eq!(refused(INVALID, current(), &fixed), answer(Rejection::Settling(A_SECOND)));
    }

    #[test]
    fn a_static_token_is_marked_but_stays_and_nothing_is_to_be_waited_for() {
        let fixed = Position { can_refresh: false, ..good() };
        let mark =
            |objection| Action::Mark { objection, withdraw: false, claims: None, answer: Rejection::PassThrough };
        assert_eq!(refused(BARE, current(), &fixed), mark(Objection::Suspect));
        assert_eq!(refused(INVALID, current(), &fixed), mark(Objection::Definite));
    }

    #[test]
    fn invalid_token_withdraws_a_token_that_was_never_accepted() {
        let expected = Action::Mark {
            objection: Objection::Definite,
            withdraw: true,
            claims: None,
            answer: Rejection::Refreshing,
        };
        assert_eq!(refused(INVALID, current(), &good()), expected);
    }

    #[test]
    fn without_an_error_or_after_an_acceptance_the_token_is_only_suspect() {
        let proven = Position { held: Some(Held { settles_in: Duration::ZERO, is_proven: true }), ..good() };
        assert_eq!(refused(BARE, current(), &good()), suspect(Rejection::Refreshing));
        assert_eq!(refused(BASIC, current(), &good()), suspect(Rejection::Refreshing));
        assert_eq!(refused(INVALID, current(), &proven), suspect(Rejection::Refreshing));
        assert_eq!(decide(Answer::refusal(), None, current(), &good()), suspect(Rejection::Refreshing));
    }

    #[test]
    fn where_callers_fail_fast_a_refusal_is_marked_and_nothing_is_to_be_waited_for() {
        for outlook in [Outlook::FailFast(None), Outlook::FailFast(Some(Deadline::PAST)), Outlook::Closed] {
            let position = Position { outlook, ..good() };
            assert_eq!(refused(BARE, current(), &position), suspect(Rejection::PassThrough));
        }
    }

    #[test]
    fn during_an_attempt_or_a_short_retry_a_refusal_joins_it() {
        for outlook in [Outlook::InFlight, Outlook::From(Deadline::PAST)] {
            let position = Position { outlook, ..good() };
            assert_eq!(refused(BARE, current(), &position), suspect(Rejection::Refreshing));
        }
    }

    #[test]
    fn a_token_that_is_not_served_any_more_is_not_marked_again() {
        let gone = Position { held: None, ..good() };
        assert_eq!(refused(INVALID, current(), &gone), answer(Rejection::Refreshing));
        let closed = Position { outlook: Outlook::Closed, ..gone };
        assert_eq!(refused(INVALID, current(), &closed), answer(Rejection::PassThrough));
    }

    #[test]
    fn what_only_the_host_can_cure_is_handed_to_it() {
        for challenge in [STEP_UP, r#"DPoP error="use_dpop_nonce""#] {
            assert_eq!(refused(challenge, current(), &good()), answer(Rejection::HandToHost));
            let spent = Position { budget_is_spent: true, ..good() };
            assert_eq!(refused(challenge, current(), &spent), answer(Rejection::HandToHost));
        }
    }

    #[test]
    fn missing_claims_are_asked_for_and_the_token_stays() {
        let expected = Action::Mark {
            objection: Objection::Claims,
            withdraw: false,
            claims: Some("{}".to_owned()),
            answer: Rejection::Refreshing,
        };
        assert_eq!(refused(CLAIMS, current(), &good()), expected);
    }

    #[test]
    fn no_other_status_is_about_the_token() {
        for status in [100, 302, 400, 403, 404, 407, 419, 429, 500, 503] {
            let headers = headers(INVALID, Some("16"));
            let said = Answer::of(StatusCode::from_u16(status).unwrap(), &headers);
            assert_eq!(said.say(), Say::Nothing, "{status}");
            let challenge = Challenge::most_telling(&headers);
            let action = decide(said, challenge.as_ref(), current(), &good());
            assert_eq!(action, answer(Rejection::PassThrough), "{status}");
        }
    }

    #[test]
    fn grpc_status_16_in_the_headers_is_a_refusal() {
        let said = |status, grpc_status| Answer::of(status, &headers(BARE, grpc_status)).say();
        assert_eq!(said(StatusCode::OK, Some("16")), Say::Refused);
        assert_eq!(said(StatusCode::OK, Some("0")), Say::Accepted);
        assert_eq!(said(StatusCode::OK, None), Say::Accepted);
        assert_eq!(said(StatusCode::NO_CONTENT, None), Say::Accepted);
        for other in ["1", "7", "14", "160", " 16", ""] {
            assert_eq!(said(StatusCode::OK, Some(other)), Say::Nothing, "{other}");
        }
        assert_eq!(said(StatusCode::UNAUTHORIZED, None), Say::Refused);
        let headers = headers(BARE, Some("16"));
        let action = decide(Answer::of(StatusCode::OK, &headers), None, current(), &good());
        assert_eq!(action, suspect(Rejection::Refreshing));
    }

    fn refused(challenge: &str, generation: Generation, position: &Position) -> Action {
        let headers = headers(challenge, None);
        let challenge = Challenge::most_telling(&headers);
        decide(Answer::of(StatusCode::UNAUTHORIZED, &headers), challenge.as_ref(), generation, position)
    }

    fn headers(challenge: &str, grpc_status: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_str(challenge).unwrap());
        if let Some(status) = grpc_status {
            headers.insert("grpc-status", HeaderValue::from_str(status).unwrap());
        }
        headers
    }

    fn answer(rejection: Rejection) -> Action {
        Action::Answer(rejection)
    }

    fn suspect(answer: Rejection) -> Action {
        Action::Mark { objection: Objection::Suspect, withdraw: false, claims: None, answer }
    }

    /// A servable, settled token of a source that can refresh, with nothing going on.
    fn good() -> Position {
        Position {
            latest: Some(current()),
            held: Some(Held { settles_in: Duration::ZERO, is_proven: false }),
            budget_is_spent: false,
            can_refresh: true,
            outlook: Outlook::From(Deadline::PAST),
        }
    }

    fn older() -> Generation {
        Generation::FIRST
    }

    fn current() -> Generation {
        Generation::FIRST.next()
    }

    const A_SECOND: Duration = Duration::from_secs(1);
    const BARE: &str = "Bearer";
    const BASIC: &str = r#"Basic realm="x", error="invalid_token""#;
    const INVALID: &str = r#"Bearer error="invalid_token""#;
    const STEP_UP: &str = r#"Bearer error="insufficient_user_authentication""#;
    const CLAIMS: &str = r#"Bearer error="insufficient_claims", claims="e30=""#;
}
