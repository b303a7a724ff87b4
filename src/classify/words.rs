//! Where in a text the words begin that a phrase may be found by. Looks at 64 bytes at a time.

use super::phrases::Phrase;

/// By the first three letters of a word: the first row that has it, and the fourth letters that can follow. That keeps nearly
/// every word of an ordinary text from being compared at all. Both cases of a letter are one; rows that share a head are
/// linked.
#[derive(Clone, Debug)]
pub(super) struct Heads {
    row: [u16; HEADS],
    fourth: [u32; HEADS],
}

impl Heads {
    /// `starts` says of each phrase where the word begins that it is found by, or where the phrase ends if it is not to be found.
    #[allow(clippy::indexing_slicing)] // a const fn has no `get`; a head is below HEADS
    pub(super) const fn link(phrases: &[Phrase], starts: &[usize], next: &mut [u16]) -> Self {
        let mut heads = Self { row: [NO_ROW; HEADS], fourth: [0; HEADS] };
        let mut row = phrases.len();
        while row > 0 {
            row -= 1;
            let (_, name) = phrases[row].name.as_bytes().split_at(starts[row]);
            let [a, b, c, ref rest @ ..] = *name else { continue };
            let head = head(u32::from_le_bytes([a, b, c, 0]));
            heads.fourth[head] |= match *rest {
                [d, ..] if is_letter(d) => 1 << (d & 31),
                _ => u32::MAX,
            };
            next[row] = heads.row[head];
            heads.row[head] = row as u16;
        }
        heads
    }

    /// Shows every place where a row may stand, and the first such row, until the answer is true. Then it is true.
    #[inline]
    pub(super) fn any(
        &self,
        text: &[u8],
        is_part: impl Fn(u8) -> bool + Copy,
        mut is_it: impl FnMut(usize, u16) -> bool,
    ) -> bool {
        let mut inside = 0;
        let mut end = [b' '; BLOCK + 4];
        for base in (0..text.len()).step_by(BLOCK) {
            let seen = window(text, base, &mut end);
            let parts = marks(seen, is_part);
            // A word of fewer than three letters begins no phrase. What the block does not show counts as one more letter.
            let mut starts = parts & !(parts << 1 | inside) & (parts >> 1 | 1 << 63) & (parts >> 2 | 3 << 62);
            inside = parts >> 63;
            while starts != 0 {
                let start = starts.trailing_zeros() as usize;
                starts &= starts - 1;
                let row = self.first_row(seen, start);
                if row != NO_ROW && is_it(base + start, row) {
                    return true;
                }
            }
        }
        false
    }

    fn first_row(&self, seen: &[u8; BLOCK + 4], start: usize) -> u16 {
        let Some(letters) = seen.get(start..).and_then(|rest| rest.first_chunk()) else { return NO_ROW };
        let letters = u32::from_le_bytes(*letters);
        let head = head(letters);
        let fourths = self.fourth.get(head).copied().unwrap_or(0);
        if fourths >> (letters >> 24 & 31) & 1 == 0 {
            return NO_ROW;
        }
        self.row.get(head).copied().unwrap_or(NO_ROW)
    }
}

/// By the lower three of four letters, in either case.
const fn head(letters: u32) -> usize {
    let three = letters << 8 | 0x2020_2000;
    (three.wrapping_mul(0x9E37_79B1) >> (32 - HEADS.ilog2())) as usize
}

/// The block that begins here and the letters after it. The text's end is filled up with spaces.
fn window<'a>(text: &'a [u8], base: usize, end: &'a mut [u8; BLOCK + 4]) -> &'a [u8; BLOCK + 4] {
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
fn marks(seen: &[u8; BLOCK + 4], is_part: impl Fn(u8) -> bool) -> u64 {
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

/// What a small letter has that its capital has not.
pub(super) const SMALL: u8 = 0x20;
pub(super) const NO_ROW: u16 = u16::MAX;
const BLOCK: usize = 64;
const HEADS: usize = 2048;
