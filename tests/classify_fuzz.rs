//! The fuzzer's corpus, and texts near the corners, without the fuzzer.
#![allow(clippy::expect_used, clippy::unwrap_used)] // a test may

#[path = "support/classify_text.rs"]
mod holds;

use holds::whatever_is_read_stands_there;
use proptest::prelude::*;

#[test]
fn the_fuzzers_corpus_holds() {
    let mut replayed = 0;
    for entry in std::fs::read_dir("fuzz/corpus/classify_text").expect("the corpus") {
        let bytes = std::fs::read(entry.expect("an entry").path()).expect("a file");
        whatever_is_read_stands_there(&String::from_utf8_lossy(&bytes));
        replayed += 1;
    }
    assert!(replayed > 0);
}

/// A phrase across each edge of the blocks that are looked at together, and across the window's end.
#[test]
fn a_phrase_is_found_wherever_it_starts_and_only_within_the_window() {
    use steadfast::classify::{Class, Classifier};

    for before in (0..200).chain(4000..4200) {
        let text = format!("{:before$}401 unauthorized", "");
        let whole = before + "401 unauthorized".len() <= 4096;
        let read = Classifier::standard().classify_text(&text).class();
        assert_eq!(read == Class::Authentication, whole, "after {before} spaces");
        whatever_is_read_stands_there(&text);
    }
}

#[test]
fn a_phrase_is_not_found_inside_a_word_wherever_that_starts() {
    for before in 0..200 {
        let text = format!("{:before$}x401 unauthorized", "");
        assert_eq!(steadfast::classify::Classifier::standard().classify_text(&text).rule(), "unrecognised");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_holds(text in ".{0,300}") {
        whatever_is_read_stands_there(&text);
    }

    #[test]
    fn any_arrangement_of_telling_words_holds(pieces in proptest::collection::vec(prop::sample::select(PIECES), 0..1500)) {
        whatever_is_read_stands_there(&pieces.concat());
    }
}

const PIECES: &[&str] = &[
    "401",
    "4010",
    "unauthorized",
    "Unauthorized",
    "status",
    "code",
    "http",
    "https://",
    "timeout",
    "timed",
    "out",
    "EOF",
    "eof",
    "no",
    "not",
    "route to host",
    "caller does not",
    "have-permission",
    " ",
    " ",
    "  ",
    ": ",
    "_",
    "-",
    "\"",
    "(",
    ")",
    "é",
    "\u{0}",
    "\n",
    "504 gateway",
    "connection",
    "refused",
    "invalid_",
    "grant",
];
