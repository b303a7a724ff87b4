//! The testing kit.
#![allow(clippy::panic, clippy::expect_used, reason = "a kit that goes on after a misuse hides it")]

mod api;
mod call;
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
