//! What a response says about the token it was made with: the table, and nothing but the table.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

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
        Self { status, grpc_status: headers.get("grpc-status").map(AsRef::as_ref) }
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
