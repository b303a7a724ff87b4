//! The fuzzer's corpora, replayed without the fuzzer, with what is near: each input cut short, and with a byte changed.
//! What has to hold of every input is in `fuzz/src`, one file per target, which the fuzzer runs as well.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a check fails by panicking, and is public in the fuzzer's own package"
)]

use std::{collections::BTreeSet, fs};

use proptest::prelude::*;

#[path = "../fuzz/src/lib.rs"]
mod holds;

use holds::classify_text::whatever_is_read_stands_there;

#[test]
fn what_is_read_in_a_text_stands_there() {
    replay("classify_text", 1, holds::classify_text::holds);
}

#[test]
fn a_policy_from_the_environment_can_work_or_the_error_says_which_variable_is_wrong() {
    replay("policy_env", 1, holds::policy_env::holds);
}

#[cfg(feature = "oauth2")]
#[test]
fn the_longest_wish_to_stay_away_counts_and_none_is_endless() {
    replay("retry_after", 1, holds::retry_after::holds);
}

#[cfg(feature = "oauth2")]
#[test]
fn a_scenario_is_read_whole_or_not_at_all() {
    replay("scenario_file", 7, holds::scenario_file::holds);
}

#[cfg(feature = "oauth2")]
#[test]
fn a_stored_login_reads_the_same_again_or_stays_as_it_is_and_is_not_printed() {
    replay("store_file", 23, holds::store_file::holds);
}

#[cfg(feature = "oauth2")]
#[test]
fn an_answer_of_the_token_endpoint_is_a_token_that_can_be_sent_or_a_bounded_error_without_a_secret() {
    replay("token_response", 5, holds::token_response::holds);
}

#[test]
fn a_challenge_reads_the_same_again_and_is_shown_without_its_secrets() {
    replay("www_authenticate", 1, holds::www_authenticate::holds);
}

#[test]
fn every_target_has_a_corpus_and_a_replay() {
    let names = |directory: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let targets = names("fuzz/fuzz_targets");
    assert_eq!(names("fuzz/corpus"), targets);
    let replays = include_str!("fuzz_corpus.rs");
    let manifest = include_str!("../fuzz/Cargo.toml");
    for target in targets {
        assert!(replays.contains(&format!("replay(\"{target}\", ")), "{target} is not replayed");
        assert!(manifest.contains(&format!("name = \"{target}\"\n")), "{target} is not built");
    }
}

// Near the corners of the classifier's window.

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

/// Changes come at each `step`-th place: a target that works on files takes a while.
fn replay(target: &str, step: usize, holds: fn(&[u8])) {
    let mut inputs = 0;
    for entry in fs::read_dir(format!("fuzz/corpus/{target}")).unwrap() {
        let path = entry.unwrap().path();
        let input = fs::read(&path).unwrap();
        // Which input it was; shown if a check fails.
        println!("{}", path.display());
        holds(&input);
        inputs += 1;
        for at in (0..input.len().min(NEAR)).step_by(step) {
            holds(&input[..at]);
            let mut changed = input.clone();
            changed[at] ^= CHANGES[at / step % CHANGES.len()];
            holds(&changed);
        }
    }
    assert!(inputs > 0);
}

/// Longer inputs hold the same thing many times.
const NEAR: usize = 400;

/// Other case or sign, next digit, no ASCII, no text.
const CHANGES: [u8; 4] = [0x20, 0x01, 0x80, 0x7f];

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
