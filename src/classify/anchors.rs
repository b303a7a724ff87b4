//! Whether any phrase stands in a text at all. Most texts hold none, and this is how they are done with.
//!
//! Phrases begin with words that are in every other error (`code`, `connection`, `request`). So each is looked for by its most
//! telling word, its anchor, and what is next to that. Where a phrase stands, the [scan](super::scan) decides what it means.

use super::{
    Class,
    phrases::{Phrase, Says},
    scan::phrase_at,
    words::{Heads, NO_ROW, SMALL, is_letter, is_plain, is_word},
};

/// The anchors of a table of phrases.
pub(super) struct Anchors<const N: usize> {
    heads: Heads,
    next: [u16; N],
    anchors: [Anchor; N],
}

/// A word of a phrase, and the two letters next to it on either side. 0: nothing is next to it there.
#[derive(Clone, Copy)]
struct Anchor {
    at: usize,
    len: usize,
    /// Its first eight, and those of eight that are its own.
    letters: u64,
    looked_at: u64,
    before: [u8; 2],
    after: [u8; 2],
}

impl<const N: usize> Anchors<N> {
    #[allow(clippy::indexing_slicing)] // a const fn has no `get` and no iterator
    pub(super) const fn of(phrases: &[Phrase; N]) -> Self {
        let mut anchors = [Anchor::at(0); N];
        let mut starts = [0; N];
        let mut row = 0;
        while row < N {
            anchors[row] = Anchor::of(&phrases[row]);
            starts[row] = anchors[row].at;
            row += 1;
        }
        let mut next = [NO_ROW; N];
        Self { heads: Heads::link(phrases, &starts, &mut next), next, anchors }
    }

    /// Whether one of the phrases stands in the text, were it in an address or in a look-alike.
    pub(super) fn any_stands(&self, phrases: &[Phrase; N], text: &[u8]) -> bool {
        self.heads.any(text, is_plain, |at, row| self.one_stands_at(phrases, text, at, row))
    }

    /// Kept out of the loop, which most words pass without coming here.
    #[inline(never)]
    fn one_stands_at(&self, phrases: &[Phrase; N], text: &[u8], at: usize, mut row: u16) -> bool {
        let letters = text.get(at..).map_or(0, first_letters);
        while let (Some(phrase), Some(anchor)) = (phrases.get(usize::from(row)), self.anchors.get(usize::from(row))) {
            if (letters ^ anchor.letters) & anchor.looked_at == 0
                && anchor.fits(text, at)
                && anchor.stands(phrase, text, at)
            {
                return true;
            }
            row = self.next.get(usize::from(row)).copied().unwrap_or(NO_ROW);
        }
        false
    }
}

impl Anchor {
    const fn at(at: usize) -> Self {
        Self { at, len: 0, letters: 0, looked_at: 0, before: [0; 2], after: [0; 2] }
    }

    /// The longest word that is not common; at the phrase's end if it is not to be found.
    #[allow(clippy::indexing_slicing)] // a const fn has no `get` and no iterator
    const fn of(phrase: &Phrase) -> Self {
        let name = phrase.name.as_bytes();
        let mut best = Self::at(name.len());
        let mut telling = 0;
        let mut at = if matches!(phrase.says, Says::LookAlike) { name.len() } else { phrase.head };
        while at < name.len() {
            let mut end = at;
            while end < name.len() && is_plain(name[end]) {
                end += 1;
            }
            let len = end - at;
            let common = is_one_of(name, at, end, &COMMON);
            if len >= 3 && (len > telling && !common || telling == 0) && !is_one_of(name, at, end, &["nnn"]) {
                telling = if common { 1 } else { len };
                let after = if end + 1 < name.len() && is_one_of(name, end + 1, name.len(), &["nnn"]) {
                    [DIGIT, 0]
                } else {
                    [letter_at(name, end + 1), letter_at(name, end + 2)]
                };
                let before = [letter_at(name, at.wrapping_sub(2)), letter_at(name, at.wrapping_sub(3))];
                let letters = first_letters(name.split_at(at).1);
                let looked_at = if len < 8 { (1 << (8 * len)) - 1 } else { u64::MAX };
                best = Self { at, len, letters, looked_at, before, after };
            }
            at = end + 1;
        }
        best
    }

    /// Whether it stands there, as a whole word, and what is next to it may be the phrase's.
    fn fits(&self, text: &[u8], at: usize) -> bool {
        let (before, rest) = text.split_at_checked(at).unwrap_or_default();
        let after = rest.get(self.len..).unwrap_or_default();
        after.first().is_none_or(|byte| !is_plain(*byte))
            && is_next(self.after, after.iter())
            && is_next(self.before, before.iter().rev())
    }

    /// Whether the phrase stands so that its anchor is `at` this place.
    fn stands(&self, phrase: &Phrase, text: &[u8], at: usize) -> bool {
        let before = phrase.name.as_bytes().get(phrase.head..self.at).unwrap_or_default();
        let joints = before.iter().filter(|byte| !is_letter(**byte)).count();
        let Some(latest) = at.checked_sub(before.len()) else {
            return false;
        };
        (latest.saturating_sub(joints * (JOINT - 1))..=latest).any(|start| {
            let begins = start.checked_sub(1).and_then(|before| text.get(before)).is_none_or(|byte| !is_word(*byte));
            let means = |number: Option<_>| match phrase.says {
                Says::Status => number.and_then(Class::of_status).is_some(),
                Says::Class(_) | Says::LookAlike => true,
            };
            begins && phrase_at(phrase, text, start).is_some_and(|found| means(found.number))
        })
    }
}

/// Whether these letters come next, behind a joint.
fn is_next<'a>(letters: [u8; 2], mut seen: impl Iterator<Item = &'a u8>) -> bool {
    let [first, second] = letters;
    let same = |letter: u8, seen: Option<&u8>| letter == 0 || seen.is_some_and(|seen| seen | SMALL == letter);
    if first == 0 {
        return true;
    }
    match seen.by_ref().take(JOINT + 1).find(|byte| is_plain(**byte)) {
        Some(digit) if first == DIGIT => digit.is_ascii_digit(),
        letter => same(first, letter) && same(second, seen.next()),
    }
}

/// In lower case; 0 if it is not a letter.
#[allow(clippy::indexing_slicing)] // a const fn has no `get`
const fn letter_at(name: &[u8], at: usize) -> u8 {
    if at < name.len() && is_plain(name[at]) { name[at] | SMALL } else { 0 }
}

/// Eight, in either case.
#[allow(clippy::indexing_slicing)] // a const fn has no `get` and no iterator
const fn first_letters(text: &[u8]) -> u64 {
    let mut letters = [0; 8];
    match text.first_chunk() {
        Some(eight) => letters = *eight,
        None => letters.split_at_mut(text.len()).0.copy_from_slice(text),
    }
    u64::from_le_bytes(letters) | u64::from_le_bytes([SMALL; 8])
}

#[allow(clippy::indexing_slicing)] // a const fn has no `get` and no iterator
const fn is_one_of(name: &[u8], start: usize, end: usize, words: &[&str]) -> bool {
    let mut word = 0;
    while word < words.len() {
        let (_, from) = name.split_at(start);
        let (seen, _) = from.split_at(end - start);
        if seen.eq_ignore_ascii_case(words[word].as_bytes()) {
            return true;
        }
        word += 1;
    }
    false
}

/// Words that tell little: errors are full of them.
const COMMON: [&str; 9] =
    ["client", "connection", "error", "operation", "request", "resource", "server", "service", "upstream"];
/// Stands for any digit next to an anchor.
const DIGIT: u8 = b'#';
/// How many bytes a joint between two words has at most.
const JOINT: usize = 3;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::classify::phrases::{ALL_LOOKED_AT, PHRASES, STANDARD};

    /// Every joint between the words, in either case, beside words and at the edges.
    #[test]
    fn no_phrase_is_passed_over() {
        for phrase in &PHRASES {
            for joint in [" ", "_", "-", ":", "=", "(", ": ", " (", " = ", " - ", "\":", "\": ", "\":\"", " `"] {
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

    const JOINTS: [&str; 16] =
        [" ", " ", " ", " ", "_", "-", ":", "=", "(", ": ", " (", " - ", "\": ", ", ", " http://", " x"];
}
