//! The layer, against real servers and strict services.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests read the clock of the test, and their helpers fail by panicking"
)]

mod clients;
mod origins;
mod refusals;
mod replays;
mod services;
mod support;
