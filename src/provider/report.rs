//! What an exchange that has ended says about its provider.

use std::time::Duration;

#[cfg(feature = "oauth2")]
use crate::store::StoreError;
use crate::{BoxError, Delivery, IssueError, IssueRequest, IssuedToken, Verdict, failure::chain, schedule::capped};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// It answers, be it with a rejection of this one grant.
    Answered,
    /// It may be down.
    Failed { retry_after: Option<Duration> },
    /// The trouble was on our side.
    Nothing,
}

impl Report {
    pub(super) fn of(issued: &Result<IssuedToken, BoxError>, request: &IssueRequest) -> Self {
        let error = match issued {
            Ok(_) => return Self::Answered,
            Err(error) => &**error,
        };
        #[cfg(feature = "oauth2")]
        if chain(error).any(|cause| cause.is::<StoreError>()) {
            return Self::Nothing;
        }
        let Some(error) = chain(error).find_map(|cause| cause.downcast_ref::<IssueError>()) else {
            return Self::Failed { retry_after: None };
        };
        match (error.verdict(), error.delivery()) {
            (Verdict::Rejected(_), _) => Self::Answered,
            // Servers use these codes for outages, too.
            (Verdict::Unconfirmed(_), _) | (Verdict::Replaced | Verdict::Cancelled, _) => Self::Nothing,
            (Verdict::Transient, _) if error.is_busy() => Self::Nothing,
            (Verdict::Transient, Delivery::NotSent | Delivery::Answered | Delivery::Unknown) => {
                Self::Failed { retry_after: error.retry_after().map(|wait| capped(wait, request.policy())) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IssueReason, OAuthCode};

    #[test]
    fn what_an_exchange_says_about_its_provider() {
        let code = || OAuthCode::new("invalid_grant").unwrap();
        let down = |retry_after| Report::Failed { retry_after };
        let minute = Duration::from_secs(60);
        let table: [(Result<IssuedToken, BoxError>, Report); 9] = [
            (Ok(IssuedToken::bearer("s3cret")), Report::Answered),
            (Err(IssueError::rejected(code(), "revoked").into()), Report::Answered),
            (Err("no rule knows this".into()), down(None)),
            (Err(IssueError::transient("503").with_retry_after(minute).into()), down(Some(minute))),
            (Err(IssueError::transient("refused").with_delivery(Delivery::NotSent).into()), down(None)),
            (Err(IssueError::transient("429").with_retry_after(minute * 600).into()), down(Some(minute * 60))),
            (Err(IssueError::busy("leased").into()), Report::Nothing),
            (Err(IssueError::cancelled().into()), Report::Nothing),
            (
                Err(IssueError::new(Verdict::Unconfirmed(code()), Delivery::Answered, "test", "400").into()),
                Report::Nothing,
            ),
        ];
        for (issued, report) in table {
            assert_eq!(Report::of(&issued, &IssueRequest::new(IssueReason::Ahead)), report, "{issued:?}");
        }
    }

    #[cfg(feature = "oauth2")]
    #[test]
    fn a_store_that_is_down_says_nothing_about_the_provider() {
        let error = StoreError::unavailable("disk full");
        let error = IssueError::new(Verdict::Transient, Delivery::NotSent, error.rule(), error);
        assert_eq!(Report::of(&Err(error.into()), &IssueRequest::new(IssueReason::Ahead)), Report::Nothing);
    }
}
