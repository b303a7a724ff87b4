//! What threads meet at: as everybody uses it, or, where `src/monitor/interleavings.rs` is run, stand-ins that let loom choose
//! who goes next and what a reader may still find.

#[cfg(not(all(test, steadfast_loom)))]
mod real {
    pub(crate) use std::sync::{
        Mutex, MutexGuard, OnceLock,
        atomic::{AtomicU8, AtomicU32},
    };

    pub(crate) use arc_swap::{ArcSwap, Guard};
    pub(crate) use tokio::{
        runtime::Handle,
        spawn,
        sync::{Notify, watch},
        time::timeout,
    };
}

#[cfg(not(all(test, steadfast_loom)))]
pub(crate) use real::*;

// Not `all(..)`, in which clippy does not find the test.
#[cfg(test)]
#[cfg(steadfast_loom)]
mod modelled;

#[cfg(all(test, steadfast_loom))]
pub(crate) use modelled::*;
