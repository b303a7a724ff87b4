//! What an error's own type says. One rule per type; each looks at one error, never down the chain.

use std::{error::Error, io, time::Duration};

use super::Class;
use crate::{AuthError, IssueError, Verdict};

/// What a typed rule found out.
#[derive(Clone, Copy)]
pub(super) struct Finding {
    pub(super) class: Class,
    pub(super) retry_after: Option<Duration>,
}

impl From<Class> for Finding {
    fn from(class: Class) -> Self {
        Self { class, retry_after: None }
    }
}

pub(super) struct TypedRule {
    pub(super) name: &'static str,
    pub(super) says: &'static str,
    pub(super) origin: &'static str,
    pub(super) look: fn(&(dyn Error + 'static)) -> Option<Finding>,
}

/// Every type we know, the commonest first.
#[rustfmt::skip]
pub(super) static TYPED: &[TypedRule] = &[
    rule("io", "timeout, unavailable", "std::io::Error", |error| io(error.downcast_ref()?)),
    #[cfg(feature = "reqwest")]
    rule("reqwest", "by status, timeout, unavailable", "reqwest 0.13: Error", |error| reqwest_error!(error, reqwest)),
    #[cfg(feature = "hyper-util")]
    rule("hyper-util", "unavailable", "hyper-util 0.1: client::legacy::Error", |error| hyper_util(error.downcast_ref()?)),
    #[cfg(feature = "hyper")]
    rule("hyper", "timeout, unavailable", "hyper 1: Error", |error| hyper(error.downcast_ref()?)),
    rule("auth-error", "authentication, cancelled, unavailable", "steadfast: AuthError", |error| auth_error(error.downcast_ref()?)),
    rule("issue-error", "authentication, cancelled, unavailable", "steadfast: IssueError", |error| issue_error(error.downcast_ref()?)),
    #[cfg(feature = "oauth2")]
    rule("token-endpoint", "by OAuth code, rate limited, unavailable", "steadfast: oauth::TokenEndpointError", oauth2::token_endpoint_error),
    rule("tokio-elapsed", "timeout", "tokio 1: time::error::Elapsed", |error| is::<tokio::time::error::Elapsed>(error, Class::Timeout)),
    rule("tokio-join", "cancelled", "tokio 1: task::JoinError", |error| join(error.downcast_ref()?)),
    #[cfg(feature = "reqwest-012")]
    rule("reqwest-012", "by status, timeout, unavailable", "reqwest 0.12: Error", |error| reqwest_error!(error, reqwest012)),
    #[cfg(feature = "tonic")]
    rule("tonic", "by gRPC code", "tonic 0.14: Status", |error| tonic(error.downcast_ref()?)),
    #[cfg(feature = "tower")]
    rule("tower-elapsed", "timeout", "tower 0.5: timeout::error::Elapsed", |error| is::<tower::timeout::error::Elapsed>(error, Class::Timeout)),
    #[cfg(feature = "h2")]
    rule("h2", "by reason", "h2 0.4: Error", |error| h2(error.downcast_ref()?)),
    #[cfg(feature = "rustls")]
    rule("rustls", "unavailable", "rustls 0.23: Error", |error| is::<rustls::Error>(error, Class::Unavailable)),
    #[cfg(feature = "oauth2")]
    rule("oauth2", "by OAuth code", "oauth2 5: RequestTokenError", oauth2::request_token_error),
];

type Look = fn(&(dyn Error + 'static)) -> Option<Finding>;

const fn rule(name: &'static str, says: &'static str, origin: &'static str, look: Look) -> TypedRule {
    TypedRule { name, says, origin, look }
}

/// Whether this is an error of the way to a token, whatever it says and whichever rules are removed. No authentication or
/// authorization beneath one is about the backend.
pub(super) fn is_of_token_path(error: &(dyn Error + 'static)) -> bool {
    let is_ours = error.is::<AuthError>() || error.is::<IssueError>();
    #[cfg(feature = "oauth2")]
    let is_ours = is_ours || oauth2::is_of_token_path(error);
    is_ours
}

fn is<E: Error + 'static>(error: &(dyn Error + 'static), class: Class) -> Option<Finding> {
    error.is::<E>().then(|| class.into())
}

/// What the way to a token is like; of the backend it says nothing.
fn auth_error(error: &AuthError) -> Option<Finding> {
    let class = match error {
        AuthError::Retrying(_) | AuthError::StillRefreshing(_) => Class::Unavailable,
        AuthError::Unauthenticated(_) => Class::Authentication,
        AuthError::Stopped(_) => Class::Cancelled,
    };
    Some(Finding { class, retry_after: error.retry_after() })
}

/// Our own verdict stands: what failed is the way to a token, and the token endpoint's own word is in the verdict already.
fn issue_error(error: &IssueError) -> Option<Finding> {
    let class = match error.verdict() {
        Verdict::Rejected(_) | Verdict::Replaced => Class::Authentication,
        Verdict::Transient | Verdict::Unconfirmed(_) => Class::Unavailable,
        Verdict::Cancelled => Class::Cancelled,
    };
    Some(Finding { class, retry_after: error.retry_after() })
}

/// `PermissionDenied` is about files and sockets of this machine and says nothing about who is asking.
#[allow(clippy::wildcard_enum_match_arm)] // the standard library's enum, and it grows
fn io(error: &io::Error) -> Option<Finding> {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::TimedOut => Some(Class::Timeout.into()),
        Kind::ConnectionRefused
        | Kind::ConnectionReset
        | Kind::ConnectionAborted
        | Kind::NotConnected
        | Kind::BrokenPipe
        | Kind::UnexpectedEof
        | Kind::HostUnreachable
        | Kind::NetworkUnreachable
        | Kind::NetworkDown => Some(Class::Unavailable.into()),
        _ => None,
    }
}

fn join(error: &tokio::task::JoinError) -> Option<Finding> {
    error.is_cancelled().then(|| Class::Cancelled.into())
}

/// The same for each version of reqwest that hosts have. A decode error says nothing itself: what is under it may.
#[cfg(any(feature = "reqwest", feature = "reqwest-012"))]
macro_rules! reqwest_error {
    ($error:ident, $reqwest:ident) => {{
        let error = $error.downcast_ref::<$reqwest::Error>()?;
        let class = match error.status() {
            Some(status) => Class::of_status(status)?,
            None if error.is_timeout() => Class::Timeout,
            None if error.is_connect() => Class::Unavailable,
            None => return None,
        };
        Some(class.into())
    }};
}
#[cfg(any(feature = "reqwest", feature = "reqwest-012"))]
use reqwest_error;

/// "Canceled" is about the connection, which went away under the request; nobody changed their mind.
#[cfg(feature = "hyper")]
fn hyper(error: &hyper::Error) -> Option<Finding> {
    if error.is_timeout() {
        Some(Class::Timeout.into())
    } else if error.is_closed() || error.is_canceled() || error.is_incomplete_message() {
        Some(Class::Unavailable.into())
    } else {
        None
    }
}

#[cfg(feature = "hyper-util")]
fn hyper_util(error: &hyper_util::client::legacy::Error) -> Option<Finding> {
    error.is_connect().then(|| Class::Unavailable.into())
}

#[cfg(feature = "h2")]
fn h2(error: &h2::Error) -> Option<Finding> {
    let class = match error.reason()? {
        h2::Reason::ENHANCE_YOUR_CALM => Class::RateLimited,
        h2::Reason::SETTINGS_TIMEOUT => Class::Timeout,
        h2::Reason::CANCEL => Class::Cancelled,
        // NO_ERROR comes with the GOAWAY of a server that shuts down.
        h2::Reason::NO_ERROR | h2::Reason::REFUSED_STREAM | h2::Reason::CONNECT_ERROR | h2::Reason::INTERNAL_ERROR => {
            Class::Unavailable
        }
        // The rest says that one side does not speak the protocol well: a bug.
        _ => return None,
    };
    Some(class.into())
}

#[cfg(feature = "tonic")]
fn tonic(status: &tonic::Status) -> Option<Finding> {
    use tonic::Code;
    let class = match status.code() {
        Code::Unauthenticated => Class::Authentication,
        Code::PermissionDenied => Class::Authorization,
        Code::ResourceExhausted => Class::RateLimited,
        Code::DeadlineExceeded => Class::Timeout,
        // tonic's own time-out layers answer with this code and this text.
        Code::Cancelled if status.message() == "Timeout expired" => Class::Timeout,
        Code::Cancelled => Class::Cancelled,
        Code::Unavailable => Class::Unavailable,
        Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => return None,
    };
    Some(class.into())
}

#[cfg(feature = "oauth2")]
mod oauth2 {
    use oauth2::{HttpClientError, RequestTokenError, basic::BasicErrorResponse};

    use super::{Class, Error, Finding};
    use crate::oauth::{Saying, TokenEndpointError, saying_of};

    pub(super) fn is_of_token_path(error: &(dyn Error + 'static)) -> bool {
        error.is::<TokenEndpointError>() || said(error).is_some()
    }

    pub(super) fn request_token_error(error: &(dyn Error + 'static)) -> Option<Finding> {
        let code = said(error)??.error().as_ref();
        class_of_code(code).map(Finding::from)
    }

    /// What the server said, if the error is the library's. The type has the transport's error as a parameter, so each
    /// transport that hosts have is a type of its own.
    fn said<'a>(error: &'a (dyn Error + 'static)) -> Option<Option<&'a BasicErrorResponse>> {
        let found = over::<HttpClientError<std::io::Error>>(error);
        #[cfg(feature = "reqwest-012")]
        let found = found
            .or_else(|| over::<HttpClientError<reqwest012::Error>>(error))
            .or_else(|| over::<reqwest012::Error>(error));
        #[cfg(feature = "reqwest")]
        let found =
            found.or_else(|| over::<HttpClientError<reqwest::Error>>(error)).or_else(|| over::<reqwest::Error>(error));
        found
    }

    fn over<'a, RE: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<Option<&'a BasicErrorResponse>> {
        let error = error.downcast_ref::<RequestTokenError<RE, BasicErrorResponse>>()?;
        Some(match error {
            RequestTokenError::ServerResponse(response) => Some(response),
            // What is under it is the next error of the chain; a body is not looked into.
            RequestTokenError::Request(_) | RequestTokenError::Parse(..) | RequestTokenError::Other(_) => None,
        })
    }

    /// A 401 or 403 without a code came from something in front of the token endpoint. It is no word about the grant.
    pub(super) fn token_endpoint_error(error: &(dyn Error + 'static)) -> Option<Finding> {
        let error = error.downcast_ref::<TokenEndpointError>()?;
        let by_code = error.code().and_then(|code| class_of_code(code.as_str()));
        let by_status = || error.status().and_then(Class::of_status).filter(|class| !class.is_auth());
        let class = by_code.or_else(by_status).unwrap_or(Class::Unavailable);
        Some(Finding { class, retry_after: error.retry_after() })
    }

    fn class_of_code(code: &str) -> Option<Class> {
        match saying_of(code) {
            Saying::Final => Some(Class::Authentication),
            Saying::Later => Some(Class::Unavailable),
            Saying::Slower => Some(Class::RateLimited),
            Saying::Unclear => None,
        }
    }
}
