//! A token source for hosts that call OAuth-protected APIs: it keeps the access token fresh, lives through outages of the token
//! endpoint, and says honestly what state it is in.
//!
//! ```
//! # #[cfg(all(feature = "oauth2", feature = "reqwest", feature = "testing"))]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), steadfast::BoxError> {
//! # use steadfast::testing::{Answer, ScriptedIdp};
//! # let idp = ScriptedIdp::start().await;
//! # idp.always(Answer::success().expires_in(3600));
//! # let (token_url, refresh_token) = (idp.token_url(), idp.login());
//! use steadfast::{AuthStatus, MonitoredTokenSource, oauth::RefreshTokenGrant};
//!
//! let grant = RefreshTokenGrant::builder(token_url, "my-client", refresh_token).build()?;
//! let tokens = MonitoredTokenSource::builder(grant).name("github").spawn()?;
//!
//! // On every request: no lock and no allocation while a token is valid.
//! let token = tokens.token().await?;
//! assert!(token.authorization().is_sensitive());
//! assert_eq!(tokens.status(), AuthStatus::Running);
//! # Ok(()) }
//! # #[cfg(not(all(feature = "oauth2", feature = "reqwest", feature = "testing")))] fn main() {}
//! ```
//!
//! This is what an outage looks like from inside. There is one attempt at a time, nobody waits for nothing, a valid token is
//! served all along, the host is told the truth, and recovery needs no human:
//!
//! <div style="overflow-x:auto">
#![doc = include_str!("guide/timeline.svg")]
//! </div>
//!
//! A real run, in which tokens live four seconds (`cargo run --example outage`, in the repository). With the defaults the short
//! retry takes two minutes and the slow cadence is one attempt in ten.
//!
//! # Where to go next
//!
//! | you want to | read |
//! |---|---|
//! | have a working client in five minutes | [`guide::quick_start`] |
//! | get tokens from something that is no OAuth endpoint | [`guide::token_source`] |
//! | know what the intervals cost, and choose others | [`guide::policy`] |
//! | know what happens on a 401 | [`guide::rejections`] |
//! | keep a login over restarts, or share it between processes or machines | [`guide::shared_login`] |
//! | wire up readiness probes, alerts and logs | [`guide::readiness`] |
//! | test what your host does in an outage | [`guide::testing`] |
//! | put it into axum, hyper, tonic, tower or reqwest-middleware | [`guide::frameworks`] |
//! | decide yourself where the background task runs | [`guide::embedding`] |
//! | come from another crate, or from the Go original | [`guide::migrating`] |
//! | find out whether a known problem is solved | [`guide::faq`] |
//! | have a source for each tenant or user | [`TokenRegistry`], and [`IdentityProvider`] for what they share |
//! | read other people's errors; report a backend's health | [`classify`], [`health`] |
//! | know what is promised, and where it is proved | [`security`] |
//!
//! # The states
//!
//! <div style="overflow-x:auto">
#![doc = include_str!("guide/states.svg")]
//! </div>
//!
//! - **Pending**: this run has had no token yet.
//! - **Running** says that all is well, or that a short retry is under way, which nobody needs to know of as long as a token is
//!   served ([`StatusEvent::serving`]).
//! - **AuthRetrying** is the long window after it: attempts go on at a slow cadence, up to a ceiling. Callers without a
//!   valid token get an [`AuthError`] at once instead of waiting. Three fresh tokens in a row that the resource server refuses
//!   lead here, too ([`RetryCause`]).
//! - **Unauthenticated** means that the authorization server has rejected the *grant*, or that the ceiling was reached. The
//!   access token may still be good: it is served to its end, and [`StatusEvent::serving`] says so. That makes the status
//!   an early warning.
//! - **Stopped** is final.
//!
//! A token that is *servable* (not past its expiry margin, and not definitely rejected by the resource server) is served in
//! every state but `Stopped`. An expired token is never served.
//!
//! # What a failed attempt means
//!
//! *Permanent only from an OAuth verdict; everything else retries, bounded by the ceiling.* A firewall's 403 page, HTML with
//! status 200, an empty answer, a broken connection, a 503 that happens to carry `invalid_grant`: all of them may pass. A 4xx
//! that carries a final OAuth code is a rejection at once; `invalid_request`, `access_denied` and codes that nobody knows have
//! to be repeated over a minute first. See [`IssueError`] and [`Verdict`].
//!
//! # Cancellation, panics, runtimes
//!
//! An attempt runs in a task that no caller owns. A caller that goes away changes nothing for anyone else, and a refresh token
//! that the server has already rotated is never lost because a client hung up. A panic inside [`TokenSource::issue`] is a
//! failed attempt; a panic of a sink is caught and logged (where panics unwind, that is). The monitor needs a tokio runtime
//! with `enable_time`, and what your source needs. Without a runtime there is a typed error, [`BuildError::NoRuntime`]; in one
//! without timers tokio panics, and the monitor ends as `Stopped`.
//!
//! # What it does not do
//!
//! - One handle is for one resource (one audience). Two APIs that judge tokens differently get two handles.
//! - Alone, `oauth::RefreshTokenGrant` keeps a rotated refresh token in memory. A login that is to survive a restart, or that
//!   several processes or machines share, goes into a store: see the modules `rotation` and `store`. What even then can be
//!   lost, and when, is written down in `rotation`: in short, a crash between the server's rotation and our write, and an
//!   answer that never arrives, if the server gives no grace for replayed tokens.
//! - It does not sign anybody in: the first refresh token is the host's to get.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `oauth2` | yes | the `oauth` module: refresh token and client credentials grants; `store` and `rotation` for logins that many processes share |
//! | `reqwest` | yes | the ready-made HTTP client for the token endpoint, [`AuthLayer`] on `reqwest::Client`, its errors by type |
//! | `rustls` | yes | TLS for that client, and its errors by type |
//! | `redis` | no | `store::RedisStore`, for logins that many machines share |
//! | `redis-rustls` | no | TLS to Redis |
//! | `h2`, `hyper`, `hyper-util`, `reqwest-012`, `reqwest-middleware`, `tonic`, `tower` | no | the [classifier](classify) knows that library's errors by type; `reqwest` brings `hyper` and `hyper-util` |
//! | `reqwest-middleware` | no | besides, `AuthLayer` is a middleware of `reqwest-middleware` 0.5 |
//! | `metrics` | no | metrics through the facade [`metrics`](https://docs.rs/metrics); see [`telemetry`] |
//! | `serde` | no | [`Snapshot`] can be written and read, as JSON for a status page for example |
//! | `testing` | no | the `testing` module: a scripted authorization server, a protected API, clocks to drive |
//!
//! Without default features the monitor, the layer, the classifier and health remain, for hosts with token sources of their
//! own.
//!
//! # What it brings along
//!
//! Without features: `arc-swap`, `async-trait`, `base64`, `bytes`, `fastrand`, `http`, `http-body`, `httpdate`, `humantime`,
//! `pin-project-lite`, `secrecy`, `thiserror`, `tokio`, `tower-layer`, `tower-service`, `tracing`.
//!
//! With `oauth2` besides: `getrandom`, `oauth2`, `serde`, `serde_json`, `sha2`, `url`.
//!
//! The other features each bring the crate they are named after.
//!
//! # Types of other crates
//!
//! These are part of this crate's public interface: a new major version of theirs is a new major version of this one.
//!
//! | crate | version | types and traits |
//! |---|---|---|
//! | `http` | 1 | `Extensions`, `HeaderMap`, `HeaderName`, `HeaderValue`, `Method`, `Request`, `Response`, `StatusCode`, `Uri` |
//! | `http_body` | 1 | `Body`, which a service's bodies implement |
//! | `redis` | 1 | `ConnectionManager` |
//! | `reqwest` | 0.13 | `ClientBuilder`, `Request`, `Response` |
//! | `reqwest_middleware` | 0.5 | `Middleware`, `Next`, `Result` |
//! | `secrecy` | 0.10 | `SecretString` |
//! | `serde` | 1 | `Deserialize`, `Deserializer`, `Serialize`, `Serializer`, on snapshots |
//! | `serde_json` | 1 | `Value`, `json`, in the testing kit |
//! | `tokio` | 1 | `Receiver` of a watch channel, `Sender` of an mpsc one |
//! | `tower_layer` | 0.3 | `Layer` |
//! | `tower_service` | 0.3 | `Service` |
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod sync;

pub mod telemetry;

mod token;
pub use token::{AccessToken, Generation, IssuedToken, Lifetime};

mod origin;
pub use origin::{Origin, OriginError};

mod challenge;
pub use challenge::{Challenge, ParseChallengeError, retry_after};

mod failure;
pub use failure::{Delivery, IssueError, OAuthCode, ParseOAuthCodeError, Verdict};

mod policy;
pub use policy::{ForcedRefreshes, PolicyError, RefreshAhead, RefreshPolicy};

mod schedule;

mod status;
pub use status::{
    AuthStatus, RetryCause, Snapshot, StatusEvent, StatusSink, StopReason, TracingSink, UnauthenticatedReason, sink_fn,
};

mod error;
pub use error::{AuthError, Failure, Stopped};

mod source;
pub use source::{IssueReason, IssueRequest, SourceFn, StaticToken, TokenSource, source_fn};

#[cfg(feature = "oauth2")]
pub mod oauth;

pub mod classify;

pub mod health;

mod machine;

mod monitor;
pub use monitor::{BuildError, Builder, Driver, MonitoredTokenSource, Rejection, TokenFuture, WeakTokenSource};

pub mod layer;
pub use layer::{Auth, AuthLayer, LayerError};

#[cfg(feature = "oauth2")]
pub mod store;

#[cfg(feature = "oauth2")]
pub mod rotation;

pub mod provider;
pub use provider::IdentityProvider;

pub mod registry;
pub use registry::{RegistryError, TokenRegistry};

#[cfg(feature = "testing")]
pub mod testing;

/// An error of any type, as hosts and their libraries pass them on.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

#[doc = include_str!("security.md")]
pub mod security {}

pub mod guide;

/// The README's snippets are compiled and run with the documentation's.
#[cfg(all(doctest, feature = "oauth2", feature = "reqwest", feature = "testing"))]
#[doc = include_str!("../README.md")]
struct Readme;
