//! What the log and the metrics are told of attempts.

use std::time::Duration;

use tracing::{Level, Span, field::Empty};

use super::{shared::Shared, view::facts};
use crate::{
    AccessToken, AuthStatus, IssueError, IssueReason, OAuthCode,
    schedule::{Deadline, Now},
    telemetry::{self, Attempted, REFRESH, SUCCESS, seconds},
};

/// An attempt under way, as it is told of.
pub(super) struct Report {
    reason: IssueReason,
    /// Which it is since the last token.
    number: u32,
    pub(super) sent: Now,
    pub(super) span: Span,
}

impl Report {
    pub(super) fn beginning(shared: &Shared, reason: IssueReason, number: u32) -> Self {
        let (workload, why) = (&*shared.name, reason.name());
        tracing::debug!(target: REFRESH, workload, reason = why, attempt = number, "an attempt starts");
        if reason == IssueReason::Rejected {
            telemetry::forced(workload);
        }
        // At ERROR, so that each line under it says whose it is, whatever the host lets through.
        let span = tracing::error_span!(
            target: REFRESH,
            "refresh",
            workload,
            reason = why,
            attempt = number,
            generation = Empty,
            outcome = Empty,
            rule = Empty
        );
        Self { reason, number, sent: shared.clock.now(), span }
    }

    pub(super) fn issued(
        self,
        shared: &Shared,
        token: &AccessToken,
        lifetime: Option<Duration>,
        next: Option<Deadline>,
    ) {
        let (workload, now) = (&*shared.name, shared.clock.now());
        let (elapsed, generation) = (self.elapsed(now), token.generation().get());
        tracing::debug!(
            target: REFRESH,
            workload,
            reason = self.reason.name(),
            attempt = self.number,
            elapsed = seconds(elapsed),
            generation,
            expires_in = lifetime.map(seconds),
            next_attempt = in_seconds(next, now),
            "a token was issued"
        );
        self.span.record("generation", generation).record("outcome", SUCCESS);
        telemetry::attempted(workload, self.attempted(SUCCESS, None, elapsed));
        telemetry::token_expires(workload, token.expires_at());
    }

    pub(super) fn failed(self, shared: &Shared, error: &IssueError, next: Option<Deadline>) {
        let (workload, now) = (&*shared.name, shared.clock.now());
        let (elapsed, verdict, rule) = (self.elapsed(now), error.verdict().name(), error.rule());
        let facts = facts(error);
        macro_rules! log {
            ($level:expr) => {
                tracing::event!(
                    target: REFRESH,
                    $level,
                    workload,
                    reason = self.reason.name(),
                    attempt = self.number,
                    elapsed = seconds(elapsed),
                    rule,
                    verdict,
                    code = facts.code.map(OAuthCode::as_str),
                    http_status = facts.status,
                    delivery = error.delivery().name(),
                    next_attempt = in_seconds(next, now),
                    "an attempt failed"
                )
            };
        }
        // Until the short retry is over there is no other word of a source that has never had a token.
        let is_first_word =
            self.number == 1 && shared.view().status == AuthStatus::Pending && !error.verdict().is_final();
        if is_first_word {
            log!(Level::WARN)
        } else {
            log!(Level::DEBUG)
        }
        self.span.record("outcome", verdict).record("rule", rule);
        telemetry::attempted(workload, self.attempted(verdict, Some(rule), elapsed));
    }

    fn elapsed(&self, now: Now) -> Duration {
        now.mono.saturating_sub(self.sent.mono)
    }

    const fn attempted(&self, outcome: &'static str, rule: Option<&'static str>, elapsed: Duration) -> Attempted {
        Attempted { reason: self.reason.name(), outcome, rule, elapsed }
    }
}

fn in_seconds(deadline: Option<Deadline>, now: Now) -> Option<f64> {
    deadline.map(|deadline| seconds(deadline.remaining(now)))
}
