//! Escaping and copying against serde_json and byte by byte, the best way and the portable one.

use proptest::prelude::*;

use super::*;
use crate::special::Portable;

fn string<S: Scan>(text: &str, capacity: usize) -> String {
    let mut out = Vec::with_capacity(capacity);
    let mut cursor = Cursor::<S>::new(&mut out);
    let is_escaped = cursor.string(b"\"", text);
    cursor.finish();
    assert_eq!(is_escaped, out.len() != text.len() + 2);
    String::from_utf8(out).unwrap()
}

fn is_written_as_serde_json_does(text: &str) {
    let wanted = serde_json::to_string(text).unwrap();
    for capacity in [0, text.len() + 2] {
        assert_eq!(string::<Best>(text, capacity), wanted);
        assert_eq!(string::<Portable>(text, capacity), wanted);
    }
    let mut out = vec![b'"'];
    assert_eq!(append_escaped(text, &mut out), wanted.len() != text.len() + 2);
    out.push(b'"');
    assert_eq!(out, wanted.as_bytes());
}

/// Copies into the middle of a buffer and looks at what became of all of it.
fn is_copied<S: Scan>(text: &[u8], is_special: bool) {
    let mut buffer = [b'.'; 160];
    let room = &mut buffer[10..10 + text.len()];
    // SAFETY: there is as much room as the text is long.
    assert_eq!(unsafe { copy::<S>(text, room.as_mut_ptr()) }, is_special, "{text:?}");
    assert_eq!(room, text);
    assert!(buffer[..10].iter().chain(&buffer[10 + text.len()..]).all(|byte| *byte == b'.'));
}

proptest! {
    #[test]
    fn any_text_is_escaped_as_serde_json_does(text in any::<String>()) {
        is_written_as_serde_json_does(&text);
    }

    #[test]
    fn text_full_of_escapes_is_escaped_as_serde_json_does(
        text in "[\\x00-\\x22\\\\-\u{81}]{0,40}",
    ) {
        is_written_as_serde_json_does(&text);
    }

    #[test]
    fn a_long_text_with_few_escapes_is_escaped_as_serde_json_does(
        text in "[a-z\u{e9}\u{10ffff}]{0,200}[\\x00-\\x22\\\\]?[a-z]{0,200}",
    ) {
        is_written_as_serde_json_does(&text);
    }
}

#[test]
fn every_byte_is_found_at_every_place_of_a_word() {
    for filler in ["a", "\u{ff}", "!", "#", "[", "]", " ", "\u{7f}", "\u{10ffff}"] {
        for code in 0..=0x100_u32 {
            for before in 0..20 {
                let odd = char::from_u32(code).unwrap();
                let text = format!("{}{odd}{}", filler.repeat(before), filler.repeat(11));
                assert_eq!(string::<Best>(&text, 0), serde_json::to_string(&text).unwrap());
            }
        }
    }
}

#[test]
fn texts_of_every_length_are_copied_whole_and_a_special_byte_is_seen_at_every_place() {
    let step = if cfg!(miri) { 67 } else { 1 };
    for len in 0..=130 {
        is_copied::<Best>(&vec![b'a'; len], false);
        is_copied::<Portable>(&vec![b'a'; len], false);
        for place in (0..len).step_by(step) {
            let mut text: Vec<u8> = (b'A'..=b'Z').cycle().take(len).collect();
            for byte in *b"\0\x1f !\"#[\\]\x7f\x80\xff" {
                let is_special = byte < 0x20 || byte == b'"' || byte == b'\\';
                text[place] = byte;
                is_copied::<Best>(&text, is_special);
                is_copied::<Portable>(&text, is_special);
            }
        }
    }
}

#[test]
fn what_a_cursor_appends_stands_behind_what_was_there_however_little_room_there_is() {
    for capacity in 0..80 {
        let mut out = Vec::with_capacity(capacity);
        out.extend_from_slice(b"before");
        let mut cursor = Cursor::<Best>::new(&mut out);
        cursor.bytes(b"<", *b"0123456789", b">")[9] = b'!';
        cursor.plain(b"plain ", "text", b"");
        cursor.string(b" \"", "a\nb");
        cursor.append(|out| out.extend_from_slice(b" by others "));
        cursor.string(b"\"", "");
        cursor.finish();
        let wanted = r#"before<012345678!>plain text "a\nb" by others """#;
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }
}

#[test]
fn a_cursor_that_is_not_finished_appends_nothing() {
    let mut out = Vec::with_capacity(64);
    out.push(b'a');
    Cursor::<Best>::new(&mut out).string(b"\"", "lost");
    assert_eq!(out, b"a");
}
