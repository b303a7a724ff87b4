//! Finds phrases in a text: whole words, without allocating.

use std::{
    error::Error,
    fmt::{self, Write as _},
};

use http::StatusCode;

use super::{
    Class,
    phrases::{Phrase, Says},
    words::{Heads, JOINT, NO_ROW, Near, eight_of, is_letter, is_word, letter_at, lower},
};

/// Phrases, and the index that finds them.
pub(super) struct Table<'a> {
    phrases: &'a [Phrase],
    heads: &'a Heads,
    rows: &'a [Row],
    any_stands: fn(&[u8]) -> bool,
}

/// What a scan has found so far, and where it goes on.
#[derive(Default)]
struct Found {
    best: Option<Hit>,
    resume: usize,
}

/// A phrase that was found.
#[derive(Clone, Copy)]
pub(super) struct Hit {
    pub(super) class: Class,
    pub(super) rule: &'static str,
}

impl<'a> Table<'a> {
    /// The heaviest phrase in the text's first 4 KiB; among equals the earliest.
    ///
    /// A phrase takes its words out of the text, so that the `timeout` in `504 gateway timeout` does not count as well.
    pub(super) fn scan(&self, text: &[u8], removed: &[&str]) -> Option<Hit> {
        let text = text.get(..WINDOW).unwrap_or(text);
        if !(self.any_stands)(text) {
            return None;
        }
        let mut found = Found::default();
        self.heads.any(text, |start, row| self.is_decided_at(text, start, row, removed, &mut found));
        found.best
    }

    /// Takes in what begins here. Kept out of the loop, which most words pass without coming here.
    #[inline(never)]
    fn is_decided_at(&self, text: &[u8], start: usize, row: u16, removed: &[&str], found: &mut Found) -> bool {
        if start < found.resume {
            return false;
        }
        if let Some(end) = end_of_url(text, start) {
            found.resume = end;
        } else if let Some((end, hit)) = self.longest_at(text, start, row, removed) {
            found.resume = end;
            found.best = Hit::heavier(found.best, hit);
        }
        found.best.is_some_and(|hit| hit.class.is_answer())
    }

    /// The longest phrase that begins here, and where it ends. `None` inside for a look-alike, which means nothing.
    fn longest_at(&self, text: &[u8], start: usize, mut row: u16, removed: &[&str]) -> Option<(usize, Option<Hit>)> {
        let mut longest: Option<(usize, Option<Hit>)> = None;
        let mut seen = Begins::at(text, start);
        while let (Some(phrase), Some(known)) = (self.phrases.get(usize::from(row)), self.rows.get(usize::from(row))) {
            row = known.next;
            if !seen.may_be(known) {
                continue;
            }
            let Some(found) = phrase_at(phrase, text, start) else {
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

/// Finds the phrases that can begin with the letters at hand.
#[derive(Clone, Debug)]
pub(super) struct Index<N> {
    heads: Heads,
    rows: N,
}

/// What is known of a phrase without looking at it: most phrases that begin with the letters at hand are passed over by that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// The next row with the same head.
    next: u16,
    /// How long the first word is, its letters, and the two behind it.
    len: usize,
    letters: u64,
    after: [u8; 2],
}

impl Row {
    #[allow(clippy::indexing_slicing)] // a const fn has no `get` and no iterator
    const fn of(phrase: &Phrase) -> Self {
        let name = phrase.name.as_bytes();
        let mut end = phrase.head;
        while end < name.len() && is_letter(name[end]) {
            end += 1;
        }
        let len = end - phrase.head;
        let number = matches!(eight_of(name, end), [_, b'n', b'n', b'n', ..]);
        let after = if number { [0; 2] } else { [letter_at(name, end + 1), letter_at(name, end + 2)] };
        Self { next: NO_ROW, len, letters: lower(eight_of(name, phrase.head), len), after }
    }
}

/// What stands where a phrase may begin.
struct Begins<'a> {
    rest: &'a [u8],
    eight: [u8; 8],
    /// What is behind a word of this length: the rows that share a word are looked at one after another.
    after: Option<(usize, Near)>,
}

impl<'a> Begins<'a> {
    fn at(text: &'a [u8], start: usize) -> Self {
        let rest = text.get(start..).unwrap_or_default();
        let eight = rest.first_chunk().copied().unwrap_or_else(|| eight_of(rest, 0));
        Self { rest, eight, after: None }
    }

    fn may_be(&mut self, row: &Row) -> bool {
        if lower(self.eight, row.len) != row.letters {
            return false;
        }
        match &self.after {
            Some((len, near)) if *len == row.len => near.may_be(row.after),
            _ => {
                let near = Near::of(self.rest.get(row.len..).unwrap_or_default().iter());
                let may_be = near.may_be(row.after);
                self.after = Some((row.len, near));
                may_be
            }
        }
    }
}

impl<const N: usize> Index<[Row; N]> {
    #[allow(clippy::indexing_slicing)] // a const fn has no `get` and no iterator
    pub(super) const fn of_table(phrases: &[Phrase; N]) -> Self {
        let mut starts = [0; N];
        let mut next = [NO_ROW; N];
        let mut row = 0;
        while row < N {
            starts[row] = phrases[row].head;
            row += 1;
        }
        let heads = Heads::link(phrases, &starts, &mut next);
        let mut rows = [Row::of(&phrases[0]); N];
        while row > 0 {
            row -= 1;
            rows[row] = Row { next: next[row], ..Row::of(&phrases[row]) };
        }
        Self { heads, rows }
    }

    /// `any_stands` says of a text that one of the phrases stands in it: cheaper to know than which.
    pub(super) const fn table<'a>(&'a self, phrases: &'a [Phrase], any_stands: fn(&[u8]) -> bool) -> Table<'a> {
        Table { phrases, heads: &self.heads, rows: &self.rows, any_stands }
    }
}

impl Index<Vec<Row>> {
    pub(super) fn of(phrases: &[Phrase]) -> Self {
        let starts: Vec<usize> = phrases.iter().map(|phrase| phrase.head).collect();
        let mut next = vec![NO_ROW; phrases.len()];
        let heads = Heads::link(phrases, &starts, &mut next);
        let rows = phrases.iter().zip(next).map(|(phrase, next)| Row { next, ..Row::of(phrase) }).collect();
        Self { heads, rows }
    }

    pub(super) fn table<'a>(&'a self, phrases: &'a [Phrase]) -> Table<'a> {
        Table { phrases, heads: &self.heads, rows: &self.rows, any_stands: |_| true }
    }
}

impl Default for Index<Vec<Row>> {
    fn default() -> Self {
        Self::of(&[])
    }
}

/// A phrase that stands somewhere.
pub(super) struct Standing {
    end: usize,
    pub(super) number: Option<StatusCode>,
}

/// Whether the phrase stands here, as whole words with a [joint](after_joint) between them. `nnn` in a phrase is any HTTP
/// status; a capital letter is found as a capital only.
pub(super) fn phrase_at(phrase: &Phrase, text: &[u8], start: usize) -> Option<Standing> {
    let (lead, mut phrase) = phrase.split_lead();
    let mut number = None;
    let mut at = start;
    while let [letter, rest @ ..] = phrase {
        let seen = *text.get(at)?;
        if *letter == seen || *letter == seen.to_ascii_lowercase() {
            at += 1;
            phrase = rest;
        } else if let Some(rest) = phrase.strip_prefix(b"nnn") {
            number = Some(StatusCode::from_bytes(text.get(at..at + 3)?).ok()?);
            at += 3;
            phrase = rest;
        } else if is_letter(*letter) {
            return None;
        } else {
            at = after_joint(text, at)?;
            phrase = rest;
        }
    }
    if text.get(at).is_some_and(|&byte| is_word(byte)) {
        return None;
    }
    let before = leading(lead, text, start)?;
    Some(Standing { end: at, number: number.or(before) })
}

/// Where the first word of a phrase begins that a scan stops at and that is not in every other text. The phrase is looked up
/// by that word.
#[allow(clippy::indexing_slicing)] // a const fn has no `get` and no iterator
pub(super) const fn head_of(phrase: &[u8]) -> usize {
    let mut lead = 0;
    while lead < LEADS.len() {
        if let Some((start, _)) = phrase.split_at_checked(LEADS[lead].len())
            && start.eq_ignore_ascii_case(LEADS[lead])
        {
            return start.len();
        }
        lead += 1;
    }
    let mut head = 0;
    let mut len = 0;
    while head + len < phrase.len() && len < 3 {
        if is_word(phrase[head + len]) {
            len += 1;
        } else {
            head += len + 1;
            len = 0;
        }
    }
    // Without a word of three letters the rest is too short for a head, and the phrase is never found.
    head
}

/// The status at the place of `nnn`, if there is one, in the words that are to end where the rest of the phrase starts. There
/// is a single space between these, and a capital letter is found as a capital only.
fn leading(lead: &[u8], text: &[u8], start: usize) -> Option<Option<StatusCode>> {
    let (before, seen) = text.get(..start)?.split_at_checked(start.checked_sub(lead.len())?)?;
    let same = |(lead, seen): (&u8, &u8)| match lead {
        b'-' => matches!(seen, b' ' | b'-'),
        letter => *letter == *seen || *letter == seen.to_ascii_lowercase(),
    };
    let begins_inside_a_word =
        || lead.first().is_some_and(|&byte| is_word(byte)) && before.last().is_some_and(|&byte| is_word(byte));
    if begins_inside_a_word() {
        None
    } else if lead == b"nnn-" {
        Some(Some(StatusCode::from_bytes(seen.strip_suffix(b" ")?).ok()?))
    } else {
        lead.iter().zip(seen).all(same).then_some(None)
    }
}

/// What may stand between two words of a phrase: `status code 401`, `status_code=401`, `"status": 401`,
/// `401 (Unauthorized)`, `401 - Unauthorized`, `'code': '401'`. Not a quotation mark alone: `field 'authorization' required` is no challenge.
fn after_joint(text: &[u8], at: usize) -> Option<usize> {
    let rest = text.get(at..)?;
    let is_joint = |byte: &&u8| matches!(byte, b' ' | b':' | b'=' | b'(' | b')' | b'_' | b'-' | b'"' | b'\'' | b'`');
    let len = rest.iter().take(JOINT + 1).take_while(is_joint).count();
    let joins = matches!(
        rest.get(..len)?,
        b" " | b"_"
            | b"-"
            | b":"
            | b"="
            | b"("
            | b": "
            | b" ("
            | b": ("
            | b") "
            | b" = "
            | b" - "
            | b" `"
            | b" '"
            | b" \""
            | b"\":"
            | b"\": "
            | b"\":\""
            | b"\": \""
            | b"': "
            | b"': '"
    );
    joins.then_some(at.checked_add(len)?)
}

/// Addresses are full of words that mean nothing: `https://example.com/timeout`.
fn end_of_url(text: &[u8], start: usize) -> Option<usize> {
    let rest = text.get(start..)?;
    let begins = |scheme: &[u8]| rest.get(..scheme.len()).is_some_and(|seen| seen.eq_ignore_ascii_case(scheme));
    if !matches!(rest, [b'h' | b'H', ..]) || !begins(b"http://") && !begins(b"https://") {
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

const LEADS: [&[u8]; 5] = [b"is-", b"no-", b"not-", b"nnn-", b"backend-"];
const WINDOW: usize = 4096;
