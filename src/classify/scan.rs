//! Finds phrases in a text: whole words, in one pass, without allocating.

use std::{
    error::Error,
    fmt::{self, Write as _},
};

use http::StatusCode;

use super::{
    Class,
    phrases::{Phrase, Says},
};

/// Phrases, and the index that finds them.
pub(super) struct Table<'a> {
    phrases: &'a [Phrase],
    heads: &'a Heads,
    next: &'a [u16],
}

/// A phrase that was found.
#[derive(Clone, Copy)]
pub(super) struct Hit {
    pub(super) class: Class,
    pub(super) rule: &'static str,
}

impl<'a> Table<'a> {
    pub(super) fn new(phrases: &'a [Phrase], index: &'a Index<impl AsRef<[u16]>>) -> Self {
        Self { phrases, heads: &index.heads, next: index.next.as_ref() }
    }

    /// The heaviest phrase in the text's first 4 KiB; among equals the earliest.
    ///
    /// A phrase takes its words out of the text, so that the `timeout` in `504 gateway timeout` does not count as well.
    pub(super) fn scan(&self, text: &[u8], removed: &[&str]) -> Option<Hit> {
        let text = text.get(..WINDOW).unwrap_or(text);
        let mut best = None;
        let mut resume = 0;
        for start in word_starts(text, self.heads) {
            if start < resume {
                continue;
            }
            if let Some(end) = end_of_url(text, start) {
                resume = end;
            } else if let Some((end, hit)) = self.longest_at(text, start, removed) {
                resume = end;
                best = Hit::heavier(best, hit);
                if best.is_some_and(|hit| hit.class.is_answer()) {
                    break;
                }
            }
        }
        best
    }

    /// The longest phrase that begins here, and where it ends. `None` inside for a look-alike, which means nothing.
    fn longest_at(&self, text: &[u8], start: usize, removed: &[&str]) -> Option<(usize, Option<Hit>)> {
        let mut longest: Option<(usize, Option<Hit>)> = None;
        let mut row = self.heads.first(*text.get(start)?);
        while let Some(phrase) = self.phrases.get(usize::from(row)) {
            row = self.next.get(usize::from(row)).copied().unwrap_or(NO_ROW);
            let Some(found) = phrase_at(phrase.name.as_bytes(), text, start) else {
                continue;
            };
            if longest.is_some_and(|(end, _)| end >= found.end) || removed.contains(&phrase.name) {
                continue;
            }
            let class = match phrase.says {
                Says::Class(class) => Some(class),
                Says::LookAlike => None,
                Says::Status => found.number.and_then(Class::of_status),
            };
            let rule = phrase.name;
            longest = Some((found.end, class.map(|class| Hit { class, rule })));
        }
        longest
    }
}

impl Hit {
    /// The heavier of two; the first of two equals.
    pub(super) fn heavier(first: Option<Self>, second: Option<Self>) -> Option<Self> {
        let weight = |hit: Option<Self>| hit.map_or(0, |hit| hit.class.weight());
        if weight(second) > weight(first) || first.is_none() { second } else { first }
    }
}

/// Finds the phrases that begin with the letter at hand. Rows with the same first letter are linked.
#[derive(Clone, Debug)]
pub(super) struct Index<N> {
    heads: Heads,
    next: N,
}

impl<const N: usize> Index<[u16; N]> {
    pub(super) const fn of_table(phrases: &[Phrase; N]) -> Self {
        let mut heads = Heads::EMPTY;
        let mut next = [NO_ROW; N];
        heads.link(phrases, &mut next);
        Self { heads, next }
    }
}

impl Index<Vec<u16>> {
    pub(super) fn of(phrases: &[Phrase]) -> Self {
        let mut heads = Heads::EMPTY;
        let mut next = vec![NO_ROW; phrases.len()];
        heads.link(phrases, &mut next);
        Self { heads, next }
    }
}

impl Default for Index<Vec<u16>> {
    fn default() -> Self {
        Self::of(&[])
    }
}

/// By the five low bits of a phrase's first letter, which are the same in both cases: the first row, and the second letters
/// that can follow. The two letters keep nearly every word of an ordinary text from being compared at all.
#[derive(Clone, Debug)]
struct Heads {
    first: [u16; 32],
    second: [u32; 32],
}

impl Heads {
    const EMPTY: Self = Self { first: [NO_ROW; 32], second: [0; 32] };

    #[allow(clippy::indexing_slicing)] // a const fn has no `get`; five bits index 32 entries
    const fn link(&mut self, phrases: &[Phrase], next: &mut [u16]) {
        // URLs are skipped, so they must be noticed.
        self.second[low_bits(b'h')] |= 1 << low_bits(b't');
        let mut row = phrases.len();
        while row > 0 {
            row -= 1;
            let name = phrases[row].name.as_bytes();
            if name.is_empty() {
                continue;
            }
            let first = low_bits(name[0]);
            self.second[first] |= match name {
                [_, second, ..] if is_letter(*second) => 1 << low_bits(*second),
                _ => u32::MAX,
            };
            next[row] = self.first[first];
            self.first[first] = row as u16;
        }
    }

    fn first(&self, letter: u8) -> u16 {
        let row = self.first.get(low_bits(letter));
        row.copied().unwrap_or(NO_ROW)
    }

    fn may_start(&self, first: u8, second: u8) -> bool {
        let seconds = self.second.get(low_bits(first)).copied().unwrap_or(0);
        seconds >> low_bits(second) & 1 == 1
    }
}

/// Where words begin whose first two letters begin a phrase.
fn word_starts(text: &[u8], heads: &Heads) -> impl Iterator<Item = usize> {
    let mut before = false;
    text.windows(2).enumerate().filter_map(move |(start, pair)| {
        let &[first, second] = pair else { return None };
        let inside = is_word(first);
        let starts = inside & !before & heads.may_start(first, second);
        before = inside;
        starts.then_some(start)
    })
}

struct Found {
    end: usize,
    number: Option<StatusCode>,
}

/// Whether the phrase stands here, as whole words with a [joint](after_joint) between them. `nnn` in a phrase is any HTTP
/// status; a word with a capital letter is found in exactly that case.
fn phrase_at(phrase: &[u8], text: &[u8], start: usize) -> Option<Found> {
    let words = phrase.split(|&byte| !is_letter(byte));
    let mut number = None;
    let mut at = start;
    for word in words.filter(|word| !word.is_empty()) {
        if at > start {
            at = after_joint(text, at)?;
        }
        let end = at.checked_add(word.len())?;
        let seen = text.get(at..end)?;
        if word == b"nnn" {
            number = Some(StatusCode::from_bytes(seen).ok()?);
        } else if !same_word(word, seen) {
            return None;
        }
        at = end;
    }
    let ends = text.get(at).is_none_or(|&byte| !is_word(byte));
    (ends && at > start).then_some(Found { end: at, number })
}

fn same_word(word: &[u8], seen: &[u8]) -> bool {
    if word.iter().any(u8::is_ascii_uppercase) { word == seen } else { word.eq_ignore_ascii_case(seen) }
}

/// What may stand between two words of a phrase: `status code 401`, `status_code=401`, `"status": 401`,
/// `401 (Unauthorized)`, `401 - Unauthorized`. Not a quotation mark alone: `field 'authorization' required` is no challenge.
fn after_joint(text: &[u8], at: usize) -> Option<usize> {
    let rest = text.get(at..)?;
    let is_joint = |byte: &&u8| matches!(byte, b' ' | b':' | b'=' | b'(' | b'_' | b'-' | b'"' | b'`');
    let len = rest.iter().take(4).take_while(is_joint).count();
    let joins = matches!(
        rest.get(..len)?,
        b" " | b" `" | b"_" | b"-" | b":" | b"=" | b"(" | b": " | b" (" | b" = " | b" - " | b"\":" | b"\": " | b"\":\""
    );
    joins.then_some(at.checked_add(len)?)
}

/// Addresses are full of words that mean nothing: `https://example.com/timeout`.
fn end_of_url(text: &[u8], start: usize) -> Option<usize> {
    let rest = text.get(start..)?;
    let begins = |scheme: &[u8]| rest.get(..scheme.len()).is_some_and(|seen| seen.eq_ignore_ascii_case(scheme));
    if !begins(b"http://") && !begins(b"https://") {
        return None;
    }
    let ends = |byte: &u8| byte.is_ascii_whitespace() || b"\"')>]`".contains(byte);
    Some(start + rest.iter().position(ends).unwrap_or(rest.len()))
}

/// What an error prints, cut off at the window's end.
pub(super) struct Shown {
    bytes: [u8; WINDOW],
    len: usize,
}

impl Shown {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; WINDOW], len: 0 }
    }

    /// An error that fails to print is taken for what it printed until then.
    pub(super) fn text_of(&mut self, error: &(dyn Error + 'static)) -> &[u8] {
        self.len = 0;
        let _ = write!(self, "{error}");
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl fmt::Write for Shown {
    /// An error ends the printing: what follows is not looked at.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        let len = text.len().min(room.len());
        if let (Some(room), Some(text)) = (room.get_mut(..len), text.as_bytes().get(..len)) {
            room.copy_from_slice(text);
        }
        self.len += len;
        if len == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// Part of a word, seen from outside it. `--timeout` and `timeout_ms` are names of things, not words.
#[allow(clippy::indexing_slicing)] // a u8 indexes 256 entries
const fn is_word(byte: u8) -> bool {
    WORD[byte as usize]
}

/// Part of a word of a phrase.
const fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

const fn low_bits(byte: u8) -> usize {
    (byte & 31) as usize
}

#[allow(clippy::indexing_slicing)] // a u8 indexes 256 entries
const WORD: [bool; 256] = {
    let mut word = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        word[byte] = is_letter(byte as u8) || byte as u8 == b'-';
        byte += 1;
    }
    word
};

const WINDOW: usize = 4096;
const NO_ROW: u16 = u16::MAX;
