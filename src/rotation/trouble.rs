//! Why there is no token, and what it means for the login.

use crate::{Delivery, IssueError, OAuthCode, Verdict, oauth, store::StoreError};

/// Why a transaction brought no token.
pub(super) enum Trouble {
    Store(StoreError),
    Issue(IssueError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<IssueError> for Trouble {
    fn from(error: IssueError) -> Self {
        Self::Issue(error)
    }
}

pub(super) fn failed(error: StoreError) -> IssueError {
    if error.is_busy() {
        return IssueError::busy(error);
    }
    let verdict = if let StoreError::Foreign = error { Verdict::Replaced } else { Verdict::Transient };
    let (rule, remediation) = (error.rule(), remediation(&error));
    let failed = IssueError::new(verdict, Delivery::NotSent, rule, error);
    remediation.into_iter().fold(failed, IssueError::with_remediation)
}

/// What does not pass until somebody does something.
const fn remediation(error: &StoreError) -> Option<&'static str> {
    Some(match error {
        StoreError::Foreign => OTHER_LOGIN,
        StoreError::Corrupt(_) => "the stored login is damaged: remove it, and sign in again",
        StoreError::Newer => "a newer version of this program has written the stored login: update this one",
        StoreError::NotPrivate => "let only its owner read the stored login (mode 600), or remove it and sign in again",
        StoreError::Gone => "restore the stored login, or sign in again",
        StoreError::RolledBack => "restore the newer login, or sign in again",
        StoreError::Busy
        | StoreError::Unavailable(_)
        | StoreError::Stale
        | StoreError::LeaseLost
        | StoreError::UsedUp
        | StoreError::NoRefreshToken => return None,
    })
}

/// The code of a rejection that is about the refresh token.
pub(super) fn condemns(error: &IssueError) -> Option<&OAuthCode> {
    let Verdict::Rejected(code) = error.verdict() else { return None };
    oauth::condemns(code.as_str()).then_some(code)
}

/// What to do about a login that is marked as dead.
pub(super) fn advice_on(code: &str) -> &'static str {
    if OAuthCode::signed_out() == code { "sign in again" } else { SIGN_IN }
}

/// Under an [`IssueError`]: the stored login is a tombstone.
#[derive(Debug, thiserror::Error)]
#[error("the stored login was rejected before, and nobody has signed in since")]
pub(super) struct Condemned;

/// Nobody has signed in: there is nothing to exchange.
pub(super) fn not_signed_in() -> IssueError {
    let verdict = Verdict::Rejected(OAuthCode::login_required());
    IssueError::new(verdict, Delivery::NotSent, "not-signed-in", NotSignedIn).with_remediation("sign in")
}

/// Under an [`IssueError`]: the store holds no login.
#[derive(Debug, thiserror::Error)]
#[error("the store holds no login, and none was brought")]
struct NotSignedIn;

pub(super) const SIGN_IN: &str = "sign in again: the login was revoked, or its refresh token was used up by a process that ended \
                       before it could save the next one";
const OTHER_LOGIN: &str = "the store holds another login: start again with that account and client, or sign in again";
