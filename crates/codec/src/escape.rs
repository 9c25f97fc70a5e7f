//! Writing records: constants, copies, and strings with what JSON wants escaped.
//!
//! Invariant: a string is written byte for byte as serde_json writes it. RFC 8259, section 7: the
//! quotation mark, the backslash and the bytes below 0x20 are special and must be escaped;
//! everything else is copied. Limits: SIMD is the SSE2 that every x86-64 has, which needs no
//! dispatch at run time and is as fast on strings of this length as anything wider; elsewhere the
//! portable twin looks at eight bytes at a time.

#![expect(unsafe_code, reason = "uninitialised room is written once, and intrinsics are called")]

use std::marker::PhantomData;
use std::ops::Range;

use crate::special::{Scan, Specials, Unlooked};

/// Appends to a buffer; asks it for room once for each field, and tells it of its length at the
/// end only. So that it stays in registers, all that borrows it mutably is inlined.
#[derive(Debug)]
pub(crate) struct Cursor<'a, S> {
    out: &'a mut Vec<u8>,
    /// Where the next byte goes: in the allocation of `out`, and all before it is initialised.
    at: *mut u8,
    /// Where the allocation ends; not before `at`.
    end: *mut u8,
    scan: PhantomData<S>,
}

impl<'a, S: Scan> Cursor<'a, S> {
    /// A cursor at the end of the buffer.
    #[inline(always)]
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        let Range { start, end } = out.spare_capacity_mut().as_mut_ptr_range();
        Self { out, at: start.cast(), end: end.cast(), scan: PhantomData }
    }

    /// Appends a key, which ends with a quotation mark, the text with what JSON wants escaped, and
    /// a quotation mark; says whether there was anything to escape.
    #[inline(always)]
    pub(crate) fn string(&mut self, key: &[u8], text: &str) -> bool {
        self.make_room(key.len() + text.len() + 1);
        // SAFETY: there is room for the key.
        unsafe { self.put(key) };
        // SAFETY: there is room for the text.
        let is_escaped = unsafe { copy::<S>(text.as_bytes(), self.at) };
        if is_escaped {
            self.append(|out| append_quoted_rest(text, out));
        } else {
            self.at = self.at.wrapping_add(text.len());
            // SAFETY: there is room for one byte more.
            unsafe { self.put(b"\"") };
        }
        is_escaped
    }

    /// Appends a key, a text that is known to need no escapes, and an end.
    #[inline(always)]
    pub(crate) fn plain(&mut self, key: &[u8], text: &str, end: &[u8]) {
        debug_assert!(!text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\'));
        self.make_room(key.len() + text.len() + end.len());
        // SAFETY: there is room for the key.
        unsafe { self.put(key) };
        // SAFETY: there is room for the text.
        unsafe { copy::<Unlooked>(text.as_bytes(), self.at) };
        self.at = self.at.wrapping_add(text.len());
        // SAFETY: there is room for the end.
        unsafe { self.put(end) };
    }

    /// Appends constants and bytes between them; gives the bytes back where they are now.
    #[inline(always)]
    pub(crate) fn bytes<const LEN: usize>(
        &mut self,
        key: &[u8],
        bytes: [u8; LEN],
        end: &[u8],
    ) -> &mut [u8; LEN] {
        self.make_room(key.len() + LEN + end.len());
        // SAFETY: there is room for the key.
        unsafe { self.put(key) };
        let written = self.at.cast::<[u8; LEN]>();
        // SAFETY: there is room for the bytes.
        unsafe { self.put(&bytes) };
        // SAFETY: there is room for the end.
        unsafe { self.put(end) };
        // SAFETY: the bytes have just been written, and only this cursor can reach them.
        unsafe { &mut *written }
    }

    /// How long the buffer is now.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.at.addr() - self.out.as_ptr().addr()
    }

    /// Has something appended that needs the buffer itself.
    #[inline(always)]
    pub(crate) fn append(&mut self, append: impl FnOnce(&mut Vec<u8>)) {
        let len = self.len();
        // SAFETY: `at` lies in the allocation, and all before it is initialised.
        unsafe { self.out.set_len(len) };
        append(self.out);
        let Range { start, end } = self.out.spare_capacity_mut().as_mut_ptr_range();
        (self.at, self.end) = (start.cast(), end.cast());
    }

    /// Lets the buffer know of all that was appended.
    #[inline(always)]
    pub(crate) fn finish(mut self) {
        self.append(|_| ());
    }

    #[inline(always)]
    fn make_room(&mut self, bytes: usize) {
        if self.end.addr() - self.at.addr() < bytes {
            self.append(|out| reserve(out, bytes));
        }
    }

    /// # Safety
    /// There must be room for the bytes.
    #[inline(always)]
    unsafe fn put(&mut self, bytes: &[u8]) {
        // SAFETY: the caller saw to the room, which nobody but this cursor can reach.
        unsafe { self.at.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.at = self.at.wrapping_add(bytes.len());
    }
}

/// The end of a string that has something to escape.
#[cold]
#[inline(never)]
fn append_quoted_rest(text: &str, out: &mut Vec<u8>) {
    append_escaped(text, out);
    out.push(b'"');
}

#[cold]
#[inline(never)]
fn reserve(out: &mut Vec<u8>, bytes: usize) {
    out.reserve(bytes);
}

/// Copies the text and says whether it has special bytes. Most texts are short: copying both their
/// ends, which may overlap, takes the place of a loop.
///
/// # Safety
/// `to` must be valid for writes of as many bytes as the text has.
#[inline(never)]
unsafe fn copy<S: Scan>(text: &[u8], to: *mut u8) -> bool {
    let last_at = |len| to.wrapping_add(text.len() - len);
    if text.len() > 64 {
        // SAFETY: the caller's.
        return unsafe { copy_long::<S>(text, to) };
    }
    if let Some(ends) = ends::<32>(text) {
        // SAFETY: the caller's, and that the text has 32 bytes.
        unsafe { store(to, ends[0]) };
        // SAFETY: the same.
        unsafe { store(last_at(32), ends[1]) };
        return S::any(ends.as_flattened());
    }
    if let Some(ends) = ends::<16>(text) {
        // SAFETY: the caller's, and that the text has 16 bytes.
        unsafe { store(to, ends[0]) };
        // SAFETY: the same.
        unsafe { store(last_at(16), ends[1]) };
        return S::any(ends.as_flattened());
    }
    if let Some(ends) = ends::<8>(text) {
        // SAFETY: the caller's, and that the text has 8 bytes.
        unsafe { store(to, ends[0]) };
        // SAFETY: the same.
        unsafe { store(last_at(8), ends[1]) };
        return S::any(&chunk(ends.map(u64::from_le_bytes)));
    }
    if let Some(ends) = ends::<4>(text) {
        // SAFETY: the caller's, and that the text has 4 bytes.
        unsafe { store(to, ends[0]) };
        // SAFETY: the same.
        unsafe { store(last_at(4), ends[1]) };
        let [first, last] = ends.map(u32::from_le_bytes);
        return S::any(&chunk([u64::from(first) | u64::from(last) << 32; 2]));
    }
    let Some([[first], [last]]) = ends::<1>(text) else { return false };
    let middle = text[text.len() / 2];
    // SAFETY: the caller's, and that the text has 1 byte.
    unsafe { store(to, [first]) };
    // SAFETY: the same.
    unsafe { store(to.wrapping_add(text.len() / 2), [middle]) };
    // SAFETY: the same.
    unsafe { store(last_at(1), [last]) };
    let word = u64::from_le_bytes([first, middle, last, last, last, last, last, last]);
    S::any(&chunk([word; 2]))
}

/// As [`copy`], for a text of 64 bytes or more.
///
/// # Safety
/// As for `copy`.
#[inline(never)]
unsafe fn copy_long<S: Scan>(text: &[u8], to: *mut u8) -> bool {
    // SAFETY: the caller's; the buffer is mutably borrowed, so the text isn't in it.
    unsafe { to.copy_from_nonoverlapping(text.as_ptr(), text.len()) };
    let (blocks, _) = text.as_chunks::<64>();
    blocks.iter().chain(text.last_chunk()).any(|block| S::any(block))
}

/// The first and the last bytes of a text that has as many.
#[inline(always)]
fn ends<const LEN: usize>(text: &[u8]) -> Option<[[u8; LEN]; 2]> {
    Some([*text.first_chunk()?, *text.last_chunk()?])
}

#[inline(always)]
const fn chunk([low, high]: [u64; 2]) -> [u8; 16] {
    (low as u128 | (high as u128) << 64).to_le_bytes()
}

/// # Safety
/// `to` must be valid for writes of as many bytes.
#[inline(always)]
unsafe fn store<const LEN: usize>(to: *mut u8, bytes: [u8; LEN]) {
    // SAFETY: the caller's; arrays of bytes have no alignment.
    unsafe { to.cast::<[u8; LEN]>().write(bytes) };
}

/// Appends the text with what JSON wants escaped; says whether there was anything to escape.
#[inline(never)]
pub(crate) fn append_escaped(text: &str, out: &mut Vec<u8>) -> bool {
    let bytes = text.as_bytes();
    let mut specials = Specials::new();
    let mut copied = 0;
    loop {
        let special = specials.next(bytes, copied);
        out.extend_from_slice(&bytes[copied..special]);
        let Some(&byte) = bytes.get(special) else { return copied != 0 };
        append_escape(byte, out);
        copied = special + 1;
    }
}

fn append_escape(byte: u8, out: &mut Vec<u8>) {
    const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";
    let letter = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        _ => {
            let high = HEX_DIGITS[usize::from(byte >> 4)];
            let low = HEX_DIGITS[usize::from(byte & 0x0f)];
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', letter]);
}

/// The fastest way on this machine.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
pub(crate) use sse2::Sse2 as Best;

/// The fastest way on this machine.
#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
pub(crate) use crate::special::Portable as Best;

#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
mod sse2 {
    use std::arch::x86_64::*;

    /// Sixteen bytes in a vector.
    #[derive(Debug)]
    pub(crate) struct Sse2;

    impl crate::special::Scan for Sse2 {
        #[inline(always)]
        fn marks(chunk: &[u8; 16]) -> u16 {
            // SAFETY: this module is only there where SSE2 is.
            unsafe { marks(chunk) }
        }

        #[inline(always)]
        fn any(bytes: &[u8]) -> bool {
            // SAFETY: this module is only there where SSE2 is.
            unsafe { any(bytes) }
        }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn marks(chunk: &[u8; 16]) -> u16 {
        zeros(differences(chunk))
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn any(bytes: &[u8]) -> bool {
        let (chunks, rest) = bytes.as_chunks();
        debug_assert!(rest.is_empty());
        let mut least = _mm_set1_epi8(-1);
        for chunk in chunks {
            least = _mm_min_epu8(least, differences(chunk));
        }
        zeros(least) != 0
    }

    /// How far each byte is from a special one, in some measure: 0 for the special ones alone.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn differences(chunk: &[u8; 16]) -> __m128i {
        let word = u128::from_le_bytes(*chunk);
        let bytes = _mm_set_epi64x((word >> 64) as i64, word as i64);
        // As in the portable twin, the quotation mark goes to the control characters.
        let turned = _mm_xor_si128(bytes, _mm_set1_epi8(0x02));
        let above_0x20 = _mm_subs_epu8(turned, _mm_set1_epi8(0x20));
        let from_backslash = _mm_xor_si128(bytes, _mm_set1_epi8(b'\\' as i8));
        _mm_min_epu8(above_0x20, from_backslash)
    }

    /// One bit for each byte: whether it is 0.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn zeros(bytes: __m128i) -> u16 {
        _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_setzero_si128())) as u16
    }
}

#[cfg(test)]
mod tests;
