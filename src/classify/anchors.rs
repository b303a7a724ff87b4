//! Whether any phrase stands in a text at all. Most texts hold none, and this is how they are done with.
//!
//! Phrases begin with words that are in every other error (`code`, `connection`, `request`). So each is looked for by its most
//! telling word, its anchor, and what is next to that; one of a status by the number. Where a phrase stands, the
//! [scan](super::scan) decides what it means.

use super::{
    Class,
    phrases::{Phrase, Says},
    scan::phrase_at,
    words::{JOINT, NO_ROW, Near, Whole, eight_of, is_letter, is_plain, is_word, letter_at, lower},
};

/// The anchors of a table of phrases.
pub(super) struct Anchors<const N: usize> {
    words: Whole,
    next: [u16; N],
    anchors: [Anchor; N],
}

/// A word of a phrase, and the two letters next to it on either side. 0: nothing is next to it there.
#[derive(Clone, Copy)]
struct Anchor {
    at: usize,
    len: usize,
    letters: u64,
    before: [u8; 2],
    after: [u8; 2],
}

impl<const N: usize> Anchors<N> {
    #[allow(clippy::indexing_slicing)] // a const fn has no `get` and no iterator
    pub(super) const fn of(phrases: &[Phrase; N]) -> Self {
        let mut anchors = [Anchor::at(0); N];
        let mut next = [NO_ROW; N];
        let mut words = Whole::EMPTY;
        let mut row = N;
        while row > 0 {
            row -= 1;
            anchors[row] = Anchor::of(&phrases[row]);
            next[row] = match (&phrases[row].says, anchors[row].len) {
                (_, 0) => NO_ROW,
                (Says::Status, _) => words.add_to_numbers(row as u16),
                (Says::Class(_) | Says::LookAlike, _) => words.add(anchors[row].letters, row as u16),
            };
        }
        let mut number = 100;
        while number < 600 {
            if Class::of_number(number).is_some() {
                let [a, b, c] = [number / 100, number / 10 % 10, number % 10];
                words.know(lower([b'0' + a as u8, b'0' + b as u8, b'0' + c as u8, 0, 0, 0, 0, 0], 3));
            }
            number += 1;
        }
        Self { words, next, anchors }
    }

    /// Whether one of the phrases stands in the text, were it in an address or in a look-alike.
    pub(super) fn any_stands(&self, phrases: &[Phrase; N], text: &[u8]) -> bool {
        self.words.any(text, |at, letters, row| self.one_stands_at(phrases, text, at, letters, row))
    }

    /// Kept out of the loop, which most words pass without coming here.
    #[inline(never)]
    fn one_stands_at(&self, phrases: &[Phrase; N], text: &[u8], at: usize, letters: u64, mut row: u16) -> bool {
        let (before, rest) = text.split_at_checked(at).unwrap_or_default();
        let len = rest.iter().take_while(|byte| is_plain(**byte)).count();
        let before = Near::of(before.iter().rev());
        let after = Near::of(rest.get(len..).unwrap_or_default().iter());
        while let (Some(phrase), Some(anchor)) = (phrases.get(usize::from(row)), self.anchors.get(usize::from(row))) {
            let fits = letters == anchor.letters || matches!(phrase.says, Says::Status);
            let near = || after.may_be(anchor.after) && before.may_be(anchor.before);
            if fits && len == anchor.len && near() && anchor.stands(phrase, text, at) {
                return true;
            }
            row = self.next.get(usize::from(row)).copied().unwrap_or(NO_ROW);
        }
        false
    }
}

impl Anchor {
    const fn at(at: usize) -> Self {
        Self { at, len: 0, letters: 0, before: [0; 2], after: [0; 2] }
    }

    /// The number, or the longest word that is not common; at the phrase's end if it is not to be found.
    #[allow(clippy::indexing_slicing)] // a const fn has no `get` and no iterator
    const fn of(phrase: &Phrase) -> Self {
        let name = phrase.name.as_bytes();
        let mut best = Self::at(name.len());
        let mut telling = 0;
        let mut at = match phrase.says {
            Says::LookAlike => name.len(),
            Says::Status => 0,
            Says::Class(_) => phrase.head,
        };
        while at < name.len() {
            let mut end = at;
            while end < name.len() && is_plain(name[end]) {
                end += 1;
            }
            let len = end - at;
            let is_number = len == 3 && matches!(phrase.says, Says::Status) && is_one_of(name, at, end, &["nnn"]);
            let longer = len >= 3 && len > telling;
            let common = longer && is_one_of(name, at, end, &COMMON);
            if is_number || longer && (!common || telling == 0) {
                telling = match (is_number, common) {
                    (true, _) => usize::MAX,
                    (false, true) => 1,
                    (false, false) => len,
                };
                let after = [letter_at(name, end + 1), letter_at(name, end + 2)];
                let before = [letter_at(name, at.wrapping_sub(2)), letter_at(name, at.wrapping_sub(3))];
                best = Self { at, len, letters: lower(eight_of(name, at), len), before, after };
            }
            at = end + 1;
        }
        best
    }

    /// Whether the phrase stands so that its anchor is `at` this place.
    fn stands(&self, phrase: &Phrase, text: &[u8], at: usize) -> bool {
        let before = phrase.name.as_bytes().get(phrase.head..self.at).unwrap_or_default();
        let at = at + phrase.head.saturating_sub(self.at);
        let joints = before.iter().filter(|byte| !is_letter(**byte)).count();
        let Some(latest) = at.checked_sub(before.len()) else {
            return false;
        };
        (latest.saturating_sub(joints * (JOINT - 1))..=latest).any(|start| {
            let begins = start.checked_sub(1).and_then(|before| text.get(before)).is_none_or(|byte| !is_word(*byte));
            begins && phrase_at(phrase, text, start).is_some()
        })
    }
}

#[allow(clippy::indexing_slicing)] // a const fn has no `get` and no iterator
const fn is_one_of(name: &[u8], start: usize, end: usize, words: &[&str]) -> bool {
    let (_, from) = name.split_at(start);
    let (seen, _) = from.split_at(end - start);
    let mut word = 0;
    while word < words.len() {
        if seen.len() == words[word].len() && seen.eq_ignore_ascii_case(words[word].as_bytes()) {
            return true;
        }
        word += 1;
    }
    false
}

/// Words that tell little: errors are full of them.
const COMMON: [&str; 38] = [
    "access",
    "again",
    "and",
    "api",
    "cannot",
    "client",
    "code",
    "connection",
    "connections",
    "could",
    "does",
    "error",
    "failed",
    "for",
    "found",
    "has",
    "have",
    "host",
    "invalid",
    "large",
    "missing",
    "name",
    "not",
    "operation",
    "process",
    "provided",
    "request",
    "resource",
    "response",
    "server",
    "service",
    "session",
    "status",
    "the",
    "transport",
    "was",
    "with",
    "you",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::classify::phrases::{ALL_LOOKED_AT, PHRASES, STANDARD};

    /// Every joint between the words, in either case, beside words and at the edges.
    #[test]
    fn no_phrase_is_passed_over() {
        for phrase in &PHRASES {
            for joint in JOINTS {
                let text = phrase.name.replace('-', joint).replace("nnn", "503");
                for text in [text.to_uppercase(), format!("it said, {text}."), format!("{text} again"), text] {
                    assert_same(&text);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn a_text_means_what_it_means_where_every_word_is_looked_at(
            pieces in proptest::collection::vec((0..PHRASES.len(), 0..12_usize, 0..JOINTS.len()), 0..60),
        ) {
            let text = pieces.into_iter().fold(String::new(), |text, (row, word, joint)| {
                let words = PHRASES[row].name.replace("nnn", "503");
                let word = words.split('-').cycle().nth(word).unwrap_or_default();
                text + word + JOINTS[joint]
            });
            assert_same(&text);
        }
    }

    fn assert_same(text: &str) {
        let rule = |hit: Option<crate::classify::scan::Hit>| hit.map(|hit| hit.rule);
        let (found, there) = (STANDARD.scan(text.as_bytes(), &[]), ALL_LOOKED_AT.scan(text.as_bytes(), &[]));
        assert_eq!(rule(found), rule(there), "{text:?}");
    }

    const JOINTS: [&str; 27] = [
        " ", " ", " ", " ", "_", "-", ":", "=", "(", ": ", " (", ": (", ") ", " = ", " - ", " `", " '", " \"", "\":",
        "\": ", "\":\"", "\": \"", "': ", "': '", ", ", " http://", " x",
    ];
}
