//! A token endpoint and a protected API for the tests of hosts: real HTTP servers on the loopback interface that do as they
//! are told, fail in each way real ones do, and fail the test when something arrives that it did not tell them to expect.
//!
//! ```
//! use std::time::Duration;
//! use steadfast::testing::{Answer, Mishap, ProtectedApi, ScriptedIdp};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let idp = ScriptedIdp::start().await;
//! let api = ProtectedApi::start(&idp).await;
//!
//! // A user signs in; the first refresh meets a firewall, the second is lost on its way back, the others succeed.
//! let refresh_token = idp.rotating_with_grace(Duration::from_secs(30)).login();
//! idp.then(Answer::waf()).then(Answer::success().but(Mishap::Reset)).always(Answer::success());
//!
//! // ... the host at work with `idp.token_url()`, `refresh_token` and `api.url()` ...
//!
//! assert!(!idp.reuse_detected());
//! assert!(idp.most_in_flight() <= 1);
//! let output = "whatever the host has logged";
//! assert!(!idp.secrets().iter().any(|secret| output.contains(secret)));
//! # }
//! ```
//!
//! # With a paused clock
//!
//! The servers live in the runtime of the test and on its clock. Under `#[tokio::test(start_paused = true)]` an exchange
//! takes no time at all, and [`Answer::after`] exactly as long as it says, without any waiting. Two conditions:
//!
//! - **tokio 1.53.3 or later** (or 1.51.6). Earlier versions move a paused clock to the next timer although I/O has just
//!   woken a task, so a client's time-out can fire while its answer is ready to be read.
//! - **Everything in one runtime.** While a test waits for another thread (a client with a runtime of its own, a real
//!   server, a child process), its runtime is idle, and the clock jumps to the next timer. Only `spawn_blocking` holds the
//!   clock. A test that cannot do without another thread either keeps the clock running, or waits for the thread in
//!   `spawn_blocking`.
//!
//! For the same reason a test waits for its servers with [`ScriptedIdp::called`] rather than by sleeping.
//!
//! Guide: [testing your host](crate::guide::testing).
#![allow(clippy::panic, clippy::expect_used, reason = "a kit that carries on after a misuse hides it")]

mod api;
mod call;
#[cfg(feature = "oauth2")]
#[cfg_attr(docsrs, doc(cfg(feature = "oauth2")))]
pub mod conformance;
mod fields;
mod grants;
mod idp;
mod log;
mod message;
mod script;
mod wire;

pub use api::ProtectedApi;
pub use call::{ApiCall, Call};
pub use idp::ScriptedIdp;
pub use script::{Answer, Mishap};
pub use serde_json::{Value, json};

pub use crate::monitor::clock::TestClock;
