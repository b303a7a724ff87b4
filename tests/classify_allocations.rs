//! Reading an error allocates nothing.
#![allow(unsafe_code)] // a global allocator cannot be written without

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fmt, io,
};

use steadfast::classify::{Class, Classifier};

#[test]
fn a_type_is_read_without_an_allocation() {
    let error = io::Error::from(io::ErrorKind::ConnectionRefused);
    let (class, allocations) = counted(|| STANDARD.classify(&error).class());
    assert_eq!((class, allocations), (Class::Unavailable, 0));
}

#[test]
fn a_text_is_read_without_an_allocation() {
    let error = io::Error::other(Story("the server said 401 Unauthorized"));
    let (class, allocations) = counted(|| STANDARD.classify(&error).class());
    assert_eq!((class, allocations), (Class::Authentication, 0));
}

#[test]
fn a_text_longer_than_the_window_is_read_without_an_allocation() {
    let long = "nothing to see here, ".repeat(1000);
    let (class, allocations) = counted(|| STANDARD.classify_text(&long).class());
    assert_eq!((class, allocations), (Class::Unknown, 0));
}

#[test]
fn a_clone_of_a_classifier_with_rules_allocates_nothing() {
    let classifier = Classifier::standard().on_phrase("please sign in", Class::Authentication);
    let (clone, allocations) = counted(|| classifier.clone());
    assert_eq!(allocations, 0);
    assert_eq!(clone.classify_text("please sign in").class(), Class::Authentication);
}

static STANDARD: Classifier = Classifier::standard();

#[derive(Debug)]
struct Story(&'static str);

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Story {}

fn counted<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATIONS.get();
    let done = work();
    (done, ALLOCATIONS.get() - before)
}

/// Counts by thread, so that tests that run beside each other do not count each other's.
struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
