//! What is logged and counted, against what the documentation says of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test fails by panicking"
)]
#![allow(clippy::disallowed_methods, reason = "what others have stored was issued just now")]

mod book;
mod day;
#[cfg(feature = "metrics")]
#[path = "../../examples/observability/disk.rs"]
mod disk;
#[cfg(feature = "metrics")]
#[path = "../../examples/observability/drill.rs"]
mod drill;
mod ear;
mod lines;
#[cfg(feature = "metrics")]
mod metrics;
#[path = "../support/shelf.rs"]
#[allow(dead_code, reason = "a kit: not every test uses every tool")]
mod shelf;
