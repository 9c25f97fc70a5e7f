//! JSON string escaping, eight bytes at a time.
//!
//! Invariant: byte for byte what serde_json writes. RFC 8259, section 7: the quotation mark, the
//! backslash and the bytes below 0x20 must be escaped; everything else is copied. Limit: no SIMD;
//! the word-at-a-time scan loses little to it, and needs neither `unsafe` nor dispatch.

/// Appends the text with what JSON wants escaped; says whether there was anything to escape.
pub(crate) fn append_escaped(text: &str, out: &mut Vec<u8>) -> bool {
    let bytes = text.as_bytes();
    let mut special = find_special(bytes, 0);
    if special == bytes.len() {
        out.extend_from_slice(bytes);
        return false;
    }
    let mut copied = 0;
    while let Some(&byte) = bytes.get(special) {
        out.extend_from_slice(&bytes[copied..special]);
        append_escape(byte, out);
        copied = special + 1;
        special = find_special(bytes, copied);
    }
    out.extend_from_slice(&bytes[copied..]);
    true
}

/// The place of the first byte from `from` on that can't stand in a JSON string as it is; the
/// length if there is none.
#[inline]
pub(crate) fn find_special(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let found = special_bytes(u64::from_le_bytes(*word));
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += size_of::<u64>();
    }
    while let Some(&byte) = bytes.get(at) {
        if byte < 0x20 || byte == b'"' || byte == b'\\' {
            break;
        }
        at += 1;
    }
    at
}

/// Marks the bytes that can't stand in a JSON string: the lowest mark is exact, higher ones may be
/// false.
///
/// Subtracting from all bytes at once borrows only upwards out of a byte that is itself below what
/// is subtracted, hence marked. (Sean Eron Anderson, "Bit Twiddling Hacks", "Determine if a word
/// has a byte less than n".)
#[inline]
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH_BITS: u64 = 0x80 * ONES;
    let control = word.wrapping_sub(0x20 * ONES);
    let quote = (word ^ (b'"' as u64 * ONES)).wrapping_sub(ONES);
    let backslash = (word ^ (b'\\' as u64 * ONES)).wrapping_sub(ONES);
    (control | quote | backslash) & !word & HIGH_BITS
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(text: &str) -> String {
        let mut out = vec![b'"'];
        let is_changed = append_escaped(text, &mut out);
        assert_eq!(is_changed, out.len() != text.len() + 1);
        out.push(b'"');
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn any_text_is_escaped_as_serde_json_does(text in any::<String>()) {
            prop_assert_eq!(escaped(&text), serde_json::to_string(&text).unwrap());
        }

        #[test]
        fn text_full_of_escapes_is_escaped_as_serde_json_does(
            text in "[\\x00-\\x22\\\\-\u{81}]{0,40}",
        ) {
            prop_assert_eq!(escaped(&text), serde_json::to_string(&text).unwrap());
        }
    }

    #[test]
    fn every_byte_is_found_at_every_place_of_a_word() {
        for filler in ["a", "\u{ff}", "!", "#", "[", "]", " ", "\u{7f}", "\u{10ffff}"] {
            for code in 0..=0x100_u32 {
                for before in 0..20 {
                    let odd = char::from_u32(code).unwrap();
                    let text = format!("{}{odd}{}", filler.repeat(before), filler.repeat(11));
                    assert_eq!(escaped(&text), serde_json::to_string(&text).unwrap());
                }
            }
        }
    }
}
