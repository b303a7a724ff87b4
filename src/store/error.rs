//! What can be wrong with a store, and how to mend it.

use crate::BoxError;

/// Why a [`GrantStore`](super::GrantStore) did not do what it was asked, and how to mend it.
///
/// ```
/// use steadfast::store::{Record, StoreError};
///
/// let error = Record::from_json(r#"{"version":2}"#).unwrap_err();
/// assert!(matches!(error, StoreError::Newer));
/// assert!(error.to_string().contains("update"));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Somebody else holds the lease.
    #[error("the login is leased to another process: try again in a moment")]
    Busy,
    /// The store does not answer, or cannot be written: a full disk, a read-only directory, a server that is down. Whether
    /// a commit that failed like this took effect is unknown.
    #[error("the store cannot be reached or written: mend what is under this error")]
    Unavailable(#[source] BoxError),
    /// What is stored is damaged. It stays as it is.
    #[error("the stored login cannot be read: restore it from a copy, or remove it and sign in again")]
    Corrupt(#[source] BoxError),
    /// What is stored was written by a later version of this library. It stays as it is.
    #[error("the stored login was written by a newer version of this library: update this program")]
    Newer,
    /// Others can read what is stored, or it or its lock is not a file of its own (a symbolic link, a directory, a device).
    #[error(
        "the stored login, or its lock, is not private: it has to be a file of the mode 600, no link and no directory; \
         sign in again if others may have read it"
    )]
    NotPrivate,
    /// The stored login is of another account, another issuer or another client.
    #[error("the store holds another login: keep each account's login in a store of its own, or sign in again")]
    Foreign,
    /// Another revision is stored than the one the commit was made for.
    #[error("the stored login has changed since it was read: read it again")]
    Stale,
    /// The lease ran out, and somebody else has leased the login since.
    #[error("the lease is lost: lease the login again, and read it again")]
    LeaseLost,
    /// A login that this process has seen in the store is not there any more: somebody signed out, or the store lost its
    /// contents.
    #[error("the stored login is gone: restore it if nobody signed out, or sign in again")]
    Gone,
    /// The store was put back to an earlier state: what it holds is older than what this process has seen there, and its
    /// refresh token is spent.
    #[error("the stored login is older than one that was stored before: restore the newer one, or sign in again")]
    RolledBack,
    /// The host wants to store a login that is known to be of no use any more.
    #[error("this login is used up or rejected: sign in again, and build a new SharedLogin with the new refresh token")]
    UsedUp,
    /// There is no refresh token to sign in with.
    #[error("the grant has no refresh token: build the SharedLogin with the one that signing in has brought")]
    NoRefreshToken,
}

impl StoreError {
    /// Whether somebody else is at work: to be tried again soon, nothing is wrong.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        matches!(self, Self::Busy | Self::LeaseLost)
    }

    /// The store does not answer, or cannot be written; with the cause.
    pub fn unavailable(cause: impl Into<BoxError>) -> Self {
        Self::Unavailable(cause.into())
    }

    /// A short name, for logs.
    pub(crate) const fn rule(&self) -> &'static str {
        match self {
            Self::Busy => "store-busy",
            Self::Unavailable(_) => "store-unavailable",
            Self::Corrupt(_) => "store-corrupt",
            Self::Newer => "store-newer",
            Self::NotPrivate => "store-not-private",
            Self::Foreign => "store-foreign-login",
            Self::Stale => "store-changed",
            Self::LeaseLost => "store-lease-lost",
            Self::Gone => "store-login-gone",
            Self::RolledBack => "store-rolled-back",
            Self::UsedUp => "login-used-up",
            Self::NoRefreshToken => "no-refresh-token",
        }
    }
}
