//! Where in a text the words begin that a phrase may be found by. Looks at 64 bytes at a time.

use super::phrases::Phrase;

/// Which words may be looked for, by their first four letters. That keeps nearly every word of an ordinary text from being
/// compared at all. Both cases of a letter are one.
#[derive(Clone, Debug)]
struct Known {
    /// By the first three letters: the fourth letters that can follow.
    fourth: [u32; HEADS],
}

impl Known {
    const NOTHING: Self = Self { fourth: [0; HEADS] };

    /// The fourth is of no account if it is no letter.
    #[allow(clippy::indexing_slicing)] // a const fn has no `get`; a head is below HEADS
    const fn add(&mut self, [a, b, c, d]: [u8; 4]) {
        self.fourth[head(u32::from_le_bytes([a, b, c, 0]))] |= if is_letter(d) { 1 << (d & 31) } else { u32::MAX };
    }

    fn has(&self, letters: u32) -> bool {
        let fourths = self.fourth.get(head(letters)).copied().unwrap_or(0);
        fourths >> (letters >> 24 & 31) & 1 != 0
    }
}

/// By the first three letters of a word: the first row that has it. Rows that share a head are linked.
#[derive(Clone, Debug)]
pub(super) struct Heads {
    known: Known,
    row: [u16; HEADS],
}

impl Heads {
    /// `starts` says of each phrase where the word begins that it is found by, or where the phrase ends if it is not to be found.
    #[allow(clippy::indexing_slicing)] // a const fn has no `get`; a head is below HEADS
    pub(super) const fn link(phrases: &[Phrase], starts: &[usize], next: &mut [u16]) -> Self {
        let mut heads = Self { known: Known::NOTHING, row: [NO_ROW; HEADS] };
        let mut row = phrases.len();
        while row > 0 {
            row -= 1;
            let (_, name) = phrases[row].name.as_bytes().split_at(starts[row]);
            let [a, b, c, ref rest @ ..] = *name else { continue };
            let d = if let [d, ..] = *rest { d } else { 0 };
            heads.known.add([a, b, c, d]);
            let head = head(u32::from_le_bytes([a, b, c, 0]));
            next[row] = heads.row[head];
            heads.row[head] = row as u16;
        }
        heads
    }

    /// Shows every place where a row may stand, and the first such row, until the answer is true. Then it is true.
    #[inline]
    pub(super) fn any(&self, text: &[u8], mut is_it: impl FnMut(usize, u16) -> bool) -> bool {
        any_word(text, is_word, |word| {
            let row = self.first_row(&word);
            row != NO_ROW && is_it(word.at(), row)
        })
    }

    fn first_row(&self, word: &Word<'_>) -> u16 {
        let Some([a, b, c, d, ..]) = word.first_eight() else { return NO_ROW };
        let letters = u32::from_le_bytes([*a, *b, *c, *d]);
        if !self.known.has(letters) {
            return NO_ROW;
        }
        self.row.get(head(letters)).copied().unwrap_or(NO_ROW)
    }
}

/// By the letters of a whole word, of which no more than eight are looked at: the first row that has it. Every number is one
/// word.
pub(super) struct Whole {
    known: Known,
    /// Which of 16 kinds of words have a row at the place: it keeps most of the others out.
    kinds: [u16; HEADS],
    row: [u16; HEADS],
    number: u16,
}

impl Whole {
    pub(super) const EMPTY: Self =
        Self { known: Known::NOTHING, kinds: [0; HEADS], row: [NO_ROW; HEADS], number: NO_ROW };

    /// Puts a row in front of those that have the same word, and says which was the first of these.
    #[allow(clippy::indexing_slicing)] // a const fn has no `get`; a place is below HEADS
    pub(super) const fn add(&mut self, letters: u64, row: u16) -> u16 {
        self.know(letters);
        let (place, kind) = place(letters);
        self.kinds[place] |= kind;
        let next = self.row[place];
        self.row[place] = row;
        next
    }

    /// The same for the rows that have a number. It is found if it is [known](Self::know).
    pub(super) const fn add_to_numbers(&mut self, row: u16) -> u16 {
        let next = self.number;
        self.number = row;
        next
    }

    pub(super) const fn know(&mut self, letters: u64) {
        let [a, b, c, d, ..] = letters.to_le_bytes();
        self.known.add([a, b, c, d]);
    }

    /// Shows every place where a row may stand, its letters, and the first such row, until the answer is true. Then it is true.
    #[inline]
    pub(super) fn any(&self, text: &[u8], mut is_it: impl FnMut(usize, u64, u16) -> bool) -> bool {
        any_word(text, is_plain, |word| {
            let Some([a, b, c, d, ..]) = word.first_eight() else { return false };
            if !self.known.has(u32::from_le_bytes([*a, *b, *c, *d])) {
                return false;
            }
            let letters = word.letters();
            let row = if a.is_ascii_digit() { self.number } else { self.first_row(letters) };
            row != NO_ROW && is_it(word.at(), letters, row)
        })
    }
}

impl Whole {
    fn first_row(&self, letters: u64) -> u16 {
        let (place, kind) = place(letters);
        let kinds = self.kinds.get(place).copied().unwrap_or(0);
        if kinds & kind == 0 { NO_ROW } else { self.row.get(place).copied().unwrap_or(NO_ROW) }
    }
}

/// A word that begins in a block.
struct Word<'a> {
    base: usize,
    start: usize,
    /// One bit for each byte of the block that is part of a word.
    parts: u64,
    seen: &'a Seen,
}

impl Word<'_> {
    const fn at(&self) -> usize {
        self.base + self.start
    }

    fn first_eight(&self) -> Option<&[u8; 8]> {
        self.seen.get(self.start..)?.first_chunk()
    }

    /// Eight letters in lower case, or fewer if the word is shorter.
    fn letters(&self) -> u64 {
        let Some(eight) = self.first_eight() else { return 0 };
        let mut len = (self.parts >> self.start).trailing_ones() as usize;
        if self.start + len == BLOCK {
            len += eight.iter().skip(len).take_while(|byte| is_plain(**byte)).count();
        }
        lower(*eight, len)
    }
}

/// The first letters of a word, in lower case.
pub(super) const fn lower(eight: [u8; 8], len: usize) -> u64 {
    let own = if len < 8 { (1 << (8 * len)) - 1 } else { u64::MAX };
    (u64::from_le_bytes(eight) | u64::from_le_bytes([SMALL; 8])) & own
}

/// Shows every word of three letters or more, until the answer is true. Then it is true.
#[inline]
fn any_word(text: &[u8], is_part: impl Fn(u8) -> bool + Copy, mut is_it: impl FnMut(Word<'_>) -> bool) -> bool {
    let mut inside = 0;
    let mut end = [b' '; BLOCK + 8];
    for base in (0..text.len()).step_by(BLOCK) {
        let seen = window(text, base, &mut end);
        let parts = marks(seen, is_part);
        // A word of fewer than three letters begins no phrase. What the block does not show counts as one more letter.
        let mut starts = parts & !(parts << 1 | inside) & (parts >> 1 | 1 << 63) & (parts >> 2 | 3 << 62);
        inside = parts >> 63;
        while starts != 0 {
            let start = starts.trailing_zeros() as usize;
            starts &= starts - 1;
            if is_it(Word { base, start, parts, seen }) {
                return true;
            }
        }
    }
    false
}

/// The two letters next to a word, behind a joint. 0: nothing is there.
pub(super) struct Near([u8; 2]);

impl Near {
    pub(super) fn of<'a>(mut seen: impl Iterator<Item = &'a u8>) -> Self {
        let first = seen.by_ref().take(JOINT + 1).find(|byte| is_plain(**byte));
        Self([first, seen.next()].map(|letter| letter.map_or(0, |letter| letter | SMALL)))
    }

    pub(super) const fn may_be(&self, letters: [u8; 2]) -> bool {
        let (Self([first, second]), [own, next]) = (self, letters);
        match own {
            0 => true,
            own => *first == own && (next == 0 || *second == next),
        }
    }
}

/// In lower case; 0 if it is not a letter.
#[allow(clippy::indexing_slicing)] // a const fn has no `get`
pub(super) const fn letter_at(name: &[u8], at: usize) -> u8 {
    if at < name.len() && is_plain(name[at]) { name[at] | SMALL } else { 0 }
}

/// What there is of the eight bytes from here on.
pub(super) const fn eight_of(text: &[u8], at: usize) -> [u8; 8] {
    let mut eight = [0; 8];
    let (_, rest) = text.split_at(if at < text.len() { at } else { text.len() });
    let shown = if rest.len() < 8 { rest.len() } else { 8 };
    eight.split_at_mut(shown).0.copy_from_slice(rest.split_at(shown).0);
    eight
}

/// By the lower three of four letters, in either case.
const fn head(letters: u32) -> usize {
    let three = letters << 8 | 0x2020_2000;
    (three.wrapping_mul(0x9E37_79B1) >> (32 - HEADS.ilog2())) as usize
}

/// By a whole word's letters; and its kind.
const fn place(letters: u64) -> (usize, u16) {
    let mixed = letters.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((mixed >> (64 - HEADS.ilog2())) as usize, 1 << (mixed >> (60 - HEADS.ilog2()) & 15))
}

/// The block that begins here and the letters after it. The text's end is filled up with spaces.
fn window<'a>(text: &'a [u8], base: usize, end: &'a mut Seen) -> &'a Seen {
    let rest = text.get(base..).unwrap_or_default();
    rest.first_chunk().unwrap_or_else(|| {
        end.fill(b' ');
        if let Some(start) = end.get_mut(..rest.len()) {
            start.copy_from_slice(rest);
        }
        end
    })
}

/// One bit for each byte of the block that is part of a word.
///
/// Each byte gives its bit of eight, and eight bytes give their sum: the compiler has instructions for both that take 16 bytes
/// at a time.
#[inline(never)] // measured: inlined, the loop around it gets slower code
fn marks(seen: &Seen, is_part: impl Fn(u8) -> bool) -> u64 {
    let mut bits = [0_u8; BLOCK];
    for (index, (bit, byte)) in bits.iter_mut().zip(seen).enumerate() {
        *bit = if is_part(*byte) { 1 << (index % 8) } else { 0 };
    }
    let (groups, _) = bits.as_chunks::<8>();
    let mut sums = [0; 8];
    for (sum, group) in sums.iter_mut().zip(groups) {
        *sum = group.iter().fold(0_u8, |sum, bit| sum.wrapping_add(*bit));
    }
    u64::from_le_bytes(sums)
}

/// Part of a word, seen from outside it. `--timeout` and `timeout_ms` are names of things, not words.
pub(super) const fn is_word(byte: u8) -> bool {
    is_letter(byte) | (byte == b'-')
}

/// Part of a word of a phrase.
pub(super) const fn is_letter(byte: u8) -> bool {
    is_plain(byte) | (byte == b'_') | (byte >= 0x80)
}

/// A letter or a digit of ASCII: part of a word whatever it is joined to.
pub(super) const fn is_plain(byte: u8) -> bool {
    ((byte | SMALL).wrapping_sub(b'a') < 26) | (byte.wrapping_sub(b'0') < 10)
}

/// A block, and the letters behind it that begin in it.
type Seen = [u8; BLOCK + 8];

/// How many bytes a joint between two words has at most.
pub(super) const JOINT: usize = 4;
/// What a small letter has that its capital has not.
pub(super) const SMALL: u8 = 0x20;
pub(super) const NO_ROW: u16 = u16::MAX;
const BLOCK: usize = 64;
const HEADS: usize = 4096;
