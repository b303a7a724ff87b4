//! Auth resilience for hosts that call OAuth-protected APIs.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod token;
pub use token::{AccessToken, Generation, IssuedToken, Lifetime};

mod origin;
pub use origin::{Origin, OriginError};

mod challenge;
pub use challenge::{Challenge, ParseChallengeError};

mod failure;
pub use failure::{Delivery, IssueError, OAuthCode, Verdict};

mod policy;
pub use policy::{ForcedRefreshes, PolicyError, RefreshAhead, RefreshPolicy};

mod schedule;

mod status;
pub use status::{
    AuthStatus, RetryCause, Snapshot, StatusEvent, StatusSink, StopReason, TracingSink, UnauthenticatedReason, sink_fn,
};

mod machine;

mod error;
pub use error::{AuthError, Failure, Stopped};

mod source;
pub use source::{IssueReason, IssueRequest, SourceFn, StaticToken, TokenSource, source_fn};

mod monitor;
pub use monitor::{BuildError, Builder, Driver, MonitoredTokenSource, Rejection, WeakTokenSource};

pub mod layer;
pub use layer::{Auth, AuthLayer, LayerError};

#[cfg(feature = "oauth2")]
pub mod oauth;

#[cfg(feature = "testing")]
pub mod testing;

/// An error of any type, as hosts and their libraries pass them on.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;
