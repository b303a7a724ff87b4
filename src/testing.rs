//! The testing kit.

pub use crate::monitor::clock::TestClock;
