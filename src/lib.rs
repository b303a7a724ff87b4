//! Auth resilience for hosts that call OAuth-protected APIs.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod token;
pub use token::{Generation, IssuedToken, Lifetime};

mod challenge;
pub use challenge::Challenge;

mod failure;
pub use failure::{Delivery, IssueError, OAuthCode, Verdict};

mod source;
pub use source::{IssueReason, IssueRequest, SourceFn, StaticToken, TokenSource, source_fn};

pub mod classify;

pub mod health;

#[cfg(feature = "oauth2")]
pub mod oauth;

#[cfg(feature = "testing")]
pub mod testing;

/// An error of any type, as hosts and their libraries pass them on.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;
