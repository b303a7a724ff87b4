//! Bytes of heap, counted where somebody asks for it.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

pub(crate) struct Counted(());

impl Counted {
    /// Counts from here on, and from nothing.
    pub(crate) fn start() -> Self {
        HELD.store(0, Ordering::SeqCst);
        COUNTS.store(true, Ordering::SeqCst);
        Self(())
    }

    /// What was allocated since and is not freed.
    pub(crate) fn held(&self) -> usize {
        HELD.load(Ordering::SeqCst)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        COUNTS.store(false, Ordering::SeqCst);
    }
}

static COUNTS: AtomicBool = AtomicBool::new(false);
static HELD: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call is handed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTS.load(Ordering::Relaxed) {
            HELD.fetch_add(layout.size(), Ordering::Relaxed);
        }
        // SAFETY: as promised by our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if COUNTS.load(Ordering::Relaxed) {
            // What was there before is not counted when it goes.
            let _ = HELD.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| held.checked_sub(layout.size()));
        }
        // SAFETY: as promised by our caller.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
