//! The monitor as hosts see it: through its public surface, in virtual time.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

mod callers;
mod clocks;
mod outage;
mod reauthenticate;
mod rejections;
mod world;
