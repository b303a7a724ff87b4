//! The layer, against real servers and strict services.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a helper of a test fails by panicking"
)]

mod clients;
mod origins;
mod refusals;
mod replays;
mod services;
mod support;
