//! What is known of the current account: its token, its floors, its budget, its record.

use std::time::Duration;

use crate::{
    Delivery, Generation, IssueError, IssueReason, OAuthCode, RefreshPolicy, UnauthenticatedReason, Verdict,
    schedule::{Budget, Deadline, Now, capped},
};

/// What is known of the current account. Dropped with it.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) held: Option<Held>,
    /// No attempt before this: the last one ended only just now.
    rest: Option<Deadline>,
    /// No refresh that nobody asked for before this, or tokens that live for a second would make a hot loop.
    pub(super) unasked_from: Option<Deadline>,
    /// Boxed: most hosts never nudge.
    pub(super) nudge_from: Option<Box<Deadline>>,
    pub(super) forced: Budget,
    /// Boxed: most tokens are never refused.
    pub(super) strikes: Option<Box<Strikes>>,
    /// Boxed: most token endpoints have nothing to say.
    said: Option<Box<Said>>,
}

/// What the token endpoint said when it gave no token, as far as it still counts.
#[derive(Debug, Default)]
struct Said {
    /// No attempt but a nudged one before this.
    retry_after: Option<Deadline>,
    suspicion: Option<Suspicion>,
}

/// The servable token. A token that has ended or was withdrawn is not held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) generation: Generation,
    pub(super) ends: Option<Deadline>,
    pub(super) refresh: Option<Deadline>,
}

/// Fresh generations refused one right after the other.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Strikes {
    last: Option<Generation>,
    count: u32,
}

/// A code that is not final until the server has repeated it often and long enough.
#[derive(Clone, Debug)]
struct Suspicion {
    code: OAuthCode,
    answers: u32,
    confirmed_from: Deadline,
}

impl Account {
    pub(super) fn attempt_succeeded(&mut self, now: Now) {
        self.rest = Some(now.after(REST));
        self.said = None;
    }

    /// What a server asked for stands until a server answers again: an attempt that reached nobody does not lift it.
    pub(super) fn attempt_failed(&mut self, error: &IssueError, policy: &RefreshPolicy, now: Now) {
        self.rest = Some(now.after(REST));
        let retry_after = error.retry_after().map(|wait| now.after(capped(wait, policy)));
        if retry_after.is_some() || error.delivery() == Delivery::Answered {
            self.said().retry_after = retry_after;
        }
    }

    /// No attempt for this reason may start before this.
    pub(super) fn floor(&self, reason: IssueReason) -> Deadline {
        let retry_after =
            if reason == IssueReason::Nudged { None } else { self.said.as_ref().and_then(|said| said.retry_after) };
        [self.rest, retry_after].into_iter().flatten().fold(Deadline::PAST, Deadline::max)
    }

    /// The earliest instant from now on at which an attempt for this reason may start.
    pub(super) fn at_once(&self, reason: IssueReason, now: Now) -> Deadline {
        let floor = self.floor(reason);
        if floor.passed(now) { now.after(Duration::ZERO) } else { floor }
    }

    /// Whether this failure is the last word on the grant.
    pub(super) fn final_word(
        &mut self,
        error: &IssueError,
        confirmations: u32,
        now: Now,
    ) -> Option<UnauthenticatedReason> {
        match (error.verdict(), error.delivery()) {
            (Verdict::Rejected(code), _) => return Some(UnauthenticatedReason::Rejected(code.clone())),
            (Verdict::Replaced, _) => return Some(UnauthenticatedReason::Replaced),
            (Verdict::Unconfirmed(code), _) => {
                let known = self.said().suspicion.take().filter(|suspicion| suspicion.code == *code);
                let mut suspicion = known.unwrap_or_else(|| Suspicion::new(code, now));
                suspicion.answers = suspicion.answers.saturating_add(1);
                let confirmed = suspicion.answers >= confirmations && suspicion.confirmed_from.passed(now);
                self.said().suspicion = Some(suspicion);
                if confirmed && self.held.is_none() {
                    return Some(UnauthenticatedReason::Rejected(code.clone()));
                }
            }
            // Another answer came in between: the code was not repeated. A broken connection says nothing about it.
            (Verdict::Transient, Delivery::Answered) => self.said().suspicion = None,
            (Verdict::Transient, Delivery::NotSent | Delivery::Unknown) | (Verdict::Cancelled, _) => {}
        }
        None
    }

    pub(super) fn forget_record(&mut self) {
        self.said().suspicion = None;
        self.strikes = None;
    }

    fn said(&mut self) -> &mut Said {
        self.said.get_or_insert_default()
    }
}

impl Suspicion {
    fn new(code: &OAuthCode, now: Now) -> Self {
        Self { code: code.clone(), answers: 0, confirmed_from: now.after(CONFIRMED_AFTER) }
    }
}

impl Strikes {
    /// The current generation was refused; how many have been, in a row?
    pub(super) fn refused(&mut self, generation: Generation) -> u32 {
        if self.last == Some(generation) {
            return self.count;
        }
        let in_a_row = self.last.map(Generation::next) == Some(generation);
        *self = Self { last: Some(generation), count: if in_a_row { self.count.saturating_add(1) } else { 1 } };
        self.count
    }
}

const REST: Duration = Duration::from_secs(1);
const CONFIRMED_AFTER: Duration = Duration::from_secs(60);
