//! Where a text has bytes that can't stand in a JSON string as they are: many looked at together.
//!
//! Special are the quotation mark, the backslash and the bytes below 0x20 (RFC 8259, section 7).
//! Invariant: on every machine the marks are exact, the same as those of [`Portable`]. Limit: a
//! text is looked at in blocks of 64 bytes from its start, so one that is only glanced at costs a
//! block all the same.

use crate::escape::Best;

/// A way to find special bytes.
pub(crate) trait Scan {
    /// One bit for each byte, the first lowest: whether it is special.
    fn marks(chunk: &[u8; CHUNK_LEN]) -> u16;

    /// Whether any byte is special. There must be a whole number of chunks.
    fn any(bytes: &[u8]) -> bool;
}

/// The way that works anywhere: eight bytes in a word.
#[derive(Debug)]
pub(crate) struct Portable;

impl Scan for Portable {
    #[inline(always)]
    fn marks(chunk: &[u8; CHUNK_LEN]) -> u16 {
        // Each of the eight lowest bits of bytes is multiplied to its own bit of the highest byte.
        let gathered = |marks: u64| (marks >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        let [low, high] = words(chunk).map(high_bits_of_special).map(gathered);
        (low | high << 8) as u16
    }

    #[inline(always)]
    fn any(bytes: &[u8]) -> bool {
        let (chunks, rest) = bytes.as_chunks();
        debug_assert!(rest.is_empty());
        let mut marks = 0;
        for chunk in chunks {
            let [low, high] = words(chunk).map(high_bits_of_special);
            marks |= low | high;
        }
        marks != 0
    }
}

/// Doesn't look: for what is known to have no special bytes.
#[derive(Debug)]
pub(crate) struct Unlooked;

impl Scan for Unlooked {
    #[inline(always)]
    fn marks(_: &[u8; CHUNK_LEN]) -> u16 {
        0
    }

    #[inline(always)]
    fn any(_: &[u8]) -> bool {
        false
    }
}

/// Finds the special bytes of one text, and looks at each of its blocks once.
#[derive(Debug, Clone)]
pub(crate) struct Specials {
    /// Where the block starts that `marks` tells of.
    block_at: usize,
    /// One bit for each byte of the block, the first lowest: whether it is special.
    marks: u64,
}

impl Specials {
    /// Before any block was looked at.
    pub(crate) const fn new() -> Self {
        // No text reaches to this place.
        Self { block_at: usize::MAX - BLOCK_LEN, marks: 0 }
    }

    /// The place of the first special byte from `from` on; the text's length if there is none.
    /// The text must be the same in all calls.
    #[inline(always)]
    pub(crate) fn next(&mut self, text: &[u8], from: usize) -> usize {
        let mut from = from;
        loop {
            let offset = from.wrapping_sub(self.block_at);
            if offset < BLOCK_LEN {
                let rest = self.marks >> offset;
                if rest != 0 {
                    return from + rest.trailing_zeros() as usize;
                }
                from = self.block_at + BLOCK_LEN;
            }
            if from >= text.len() {
                return text.len();
            }
            self.block_at = from & !(BLOCK_LEN - 1);
            self.marks = match text[self.block_at..].first_chunk() {
                Some(block) => marks::<Best>(block),
                None => last_marks(text, self.block_at),
            };
        }
    }
}

/// The marks of the last block of a text, which isn't a whole one.
#[inline(never)]
fn last_marks(text: &[u8], block_at: usize) -> u64 {
    match text.last_chunk() {
        // What the last 64 bytes share with the block before is shifted out.
        Some(block) => marks::<Best>(block) >> (BLOCK_LEN - (text.len() - block_at)),
        None => {
            let mut block = [b' '; BLOCK_LEN];
            block[..text.len()].copy_from_slice(text);
            marks::<Best>(&block)
        }
    }
}

#[inline(always)]
fn marks<S: Scan>(block: &[u8; BLOCK_LEN]) -> u64 {
    let (chunks, _) = block.as_chunks();
    let marks = chunks.iter().map(S::marks);
    marks.rev().fold(0, |all, marks| all << CHUNK_LEN | u64::from(marks))
}

#[inline(always)]
fn words(chunk: &[u8; CHUNK_LEN]) -> [u64; 2] {
    let both = u128::from_le_bytes(*chunk);
    [both as u64, (both >> 64) as u64]
}

/// The high bits of the bytes that are special.
///
/// To seven bits another seven can be added without a carry into the next byte. (Sean Eron
/// Anderson, "Bit Twiddling Hacks", "Determine if a word has a zero byte".)
#[inline(always)]
const fn high_bits_of_special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH_BITS: u64 = 0x80 * ONES;
    // Turning this bit over takes the quotation mark to 0x20, next to the control characters, and
    // what was there out of the way.
    let turned = (word ^ (0x02 * ONES)) & !HIGH_BITS;
    let above_0x20 = turned + (0x7f - 0x20) * ONES;
    let from_backslash = (word ^ (b'\\' as u64 * ONES)) & !HIGH_BITS;
    let not_backslash = from_backslash + 0x7f * ONES;
    !(above_0x20 & not_backslash | word) & HIGH_BITS
}

/// Bytes that a [`Scan`] looks at together.
const CHUNK_LEN: usize = 16;

/// Bytes whose marks are kept, a bit each.
const BLOCK_LEN: usize = 64;

const _: () = assert!(BLOCK_LEN == u64::BITS as usize && CHUNK_LEN == u16::BITS as usize);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn is_special(byte: u8) -> bool {
        byte < 0x20 || byte == b'"' || byte == b'\\'
    }

    #[test]
    fn every_byte_is_marked_rightly_at_every_place_and_marks_no_other() {
        for filler in *b" !#[]\x7f\x80\xff" {
            for byte in 0..=u8::MAX {
                for place in 0..16 {
                    let mut chunk = [filler; 16];
                    chunk[place] = byte;
                    let wanted = u16::from(is_special(byte)) << place;
                    assert_eq!(Portable::marks(&chunk), wanted, "{chunk:?}");
                    assert_eq!(Best::marks(&chunk), wanted, "{chunk:?}");
                    assert_eq!(Portable::any(&chunk), wanted != 0, "{chunk:?}");
                    assert_eq!(Best::any(&chunk), wanted != 0, "{chunk:?}");
                }
            }
        }
    }

    /// Bytes among which a fair share is special.
    fn any_bytes(len: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            9 => any::<u8>(),
            1 => prop::sample::select(&b"\"\\\0\n\x1f !#[]"[..]),
            30 => b'a'..=b'z',
        ];
        prop::collection::vec(byte, len)
    }

    proptest! {
        #[test]
        fn the_best_way_marks_what_the_portable_one_marks(bytes in any_bytes(64)) {
            let block = bytes.first_chunk().unwrap();
            prop_assert_eq!(marks::<Best>(block), marks::<Portable>(block));
            prop_assert_eq!(Best::any(block), Portable::any(block));
            prop_assert_eq!(Best::any(block), marks::<Portable>(block) != 0);
        }

        #[test]
        fn the_next_special_byte_is_found_from_every_place(
            text in any_bytes(0..=130),
            places in prop::collection::vec(any::<prop::sample::Index>(), 8),
        ) {
            let wanted = |from: usize| {
                let found = text[from..].iter().position(|byte| is_special(*byte));
                found.map_or(text.len(), |found| from + found)
            };
            let mut specials = Specials::new();
            for from in 0..=text.len() {
                prop_assert_eq!(Specials::new().next(&text, from), wanted(from));
                prop_assert_eq!(specials.next(&text, from), wanted(from));
            }
            for from in places.iter().map(|place| place.index(text.len() + 1)) {
                prop_assert_eq!(specials.next(&text, from), wanted(from));
            }
        }
    }
}
