//! What is logged, against what the documentation says of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]
#![allow(clippy::disallowed_methods, reason = "what others have stored was issued just now")]

#[allow(dead_code, reason = "the other half is for the metrics")]
mod book;
mod changes;
mod day;
mod ear;
mod lines;
mod rules;
#[path = "../support/shelf.rs"]
#[allow(dead_code, reason = "a kit: not every test uses every tool")]
mod shelf;
mod world;
