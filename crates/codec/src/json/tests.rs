//! The scanner against serde_json, and its limits from both sides.

use std::str::FromStr;

use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::*;

const SYNTAX: Rules = Rules { levels_max: LEVELS_MAX, must_be_storable: false };
const STORABLE: Rules = Rules { levels_max: 127, must_be_storable: true };

fn scan(text: &str, rules: Rules) -> Result<(), Problem> {
    let mut scanner = Scanner::new(text.as_bytes(), rules);
    scanner.whitespace();
    scanner.value()?;
    scanner.end()
}

/// serde_json skips an ignored value by grammar alone, and reads a `Value` down to its characters
/// and numbers: the same two grades that we have.
fn agrees_with_serde_json(text: &str) {
    let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
    match scan(text, SYNTAX) {
        Err(Problem::TooDeep { .. }) => assert!(text.len() >= LEVELS_MAX as usize),
        scanned => assert_eq!(scanned.is_ok(), is_json, "{text:?} {scanned:?}"),
    }
    let is_value = serde_json::from_str::<Value>(text).is_ok();
    match scan(text, STORABLE) {
        // What PostgreSQL can't hold, or serde_json's own limit of 127 levels.
        Err(Problem::NulEscape) => assert!(text.contains("\\u0000")),
        Err(Problem::NumberOutOfRange { .. }) if is_value => assert!(text.contains(['e', 'E'])),
        scanned => assert_eq!(scanned.is_ok(), is_value, "{text:?} {scanned:?}"),
    }
}

pub(crate) fn any_value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![any::<String>(), "[a-z\"\\\\\u{0}\n]{0,20}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_tokens() -> impl Strategy<Value = String> {
    const TOKENS: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        " ",
        "\n",
        "\t",
        "\u{b}",
        "\u{a0}",
        "\"",
        "\"a\"",
        "\"a\":",
        "\\",
        "\"\\u0000\"",
        "\"\\uD83D\\uDE00\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\\ud800\\n\"",
        "\"\\ud800\\ud800\"",
        "\"\\u12\"",
        "\"\\x\"",
        "\"\u{1}\"",
        "\"\u{7f}\u{e9}\"",
        "0",
        "-0",
        "-",
        "01",
        "1",
        "+1",
        ".5",
        "1.",
        "1.5",
        "1e",
        "1e5",
        "1E+5",
        "1e-5",
        "1e400",
        "-1e400",
        "1e308",
        "1e99999999999999999999",
        "0e99999",
        "1e-20000",
        "true",
        "false",
        "null",
        "nul",
        "True",
        "NaN",
    ];
    prop::collection::vec(prop::sample::select(TOKENS), 0..12).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn what_serde_json_writes_is_judged_as_it_judges_it(value in any_value()) {
        agrees_with_serde_json(&value.to_string());
        agrees_with_serde_json(&serde_json::to_string_pretty(&value).unwrap());
    }

    #[test]
    fn a_damaged_text_is_judged_as_serde_json_judges_it(
        value in any_value(),
        at in any::<prop::sample::Index>(),
        odd in prop_oneof![any::<char>(), prop::char::range(' ', '~')],
        is_cut in any::<bool>(),
    ) {
        let mut chars: Vec<char> = value.to_string().chars().collect();
        let at = at.index(chars.len());
        if is_cut { chars.truncate(at) } else { chars[at] = odd }
        agrees_with_serde_json(&chars.into_iter().collect::<String>());
    }

    #[test]
    fn tokens_in_any_order_are_judged_as_serde_json_judges_them(text in any_tokens()) {
        agrees_with_serde_json(&text);
    }

    #[test]
    fn any_bytes_at_all_are_refused_or_scanned(bytes in any::<Vec<u8>>()) {
        let mut scanner = Scanner::new(&bytes, STORABLE);
        let _ = scanner.value();
        prop_assert!(scanner.at() <= bytes.len());
    }
}

#[test]
fn each_kind_of_token_is_judged_alone_as_serde_json_judges_it() {
    for text in [
        "",
        " ",
        "{}",
        "[]",
        "{\"a\":1,}",
        "[1,]",
        "[,1]",
        "{,}",
        "{1:2}",
        "{\"a\" 1}",
        "[}",
        "{]",
        "[1 2]",
        "1 2",
        "\"\\ud83d\\ude00\"",
        "01",
        "-01",
        "-",
        "-a",
        "0",
        "00",
        "1.0",
        "1.",
        "1e",
        "+1",
        "tru",
        "truex",
        "-0.0e-0",
        "\u{feff}1",
        "[[[]]]",
        "[{}]",
    ] {
        agrees_with_serde_json(text);
    }
}

#[test]
fn levels_are_allowed_up_to_the_limit_and_no_further() {
    for (levels_max, objects_too) in [(1, false), (10, true), (LEVELS_MAX as usize, true)] {
        let rules = Rules { levels_max: levels_max as u32, must_be_storable: true };
        let nested = |levels: usize| {
            let is_object = |level: usize| objects_too && level % 2 == 1;
            let open = |level| if is_object(level) { "{\"a\":" } else { "[" };
            let close = |level| if is_object(level) { "}" } else { "]" };
            let opened: String = (0..levels).map(open).collect();
            opened + "0" + &(0..levels).rev().map(close).collect::<String>()
        };
        assert_eq!(scan(&nested(levels_max), rules), Ok(()));
        let refused = Err(Problem::TooDeep { max: levels_max });
        assert_eq!(scan(&nested(levels_max + 1), rules), refused);
        assert_eq!(scan(&"[".repeat(100_000), rules), refused);
    }
}

#[test]
fn the_offset_is_where_the_text_goes_wrong() {
    for (text, offset, expected) in [
        ("", 0, "a value"),
        ("{\"a\":1,}", 7, "a key"),
        ("{\"a\"=1}", 4, "a colon"),
        ("[1;2]", 2, "a comma or the end of the array"),
        ("{\"a\":1]", 6, "a comma or the end of the object"),
        ("\"abcdefghijkl", 13, "a closing quote"),
        ("\"abcdefgh\u{1}\"", 9, "an escape instead of a control character"),
        ("\"\\q\"", 2, "the letter of an escape"),
        ("\"\\u12g4\"", 5, "a hexadecimal digit"),
        ("1.x", 2, "a digit"),
        ("[] []", 3, "the end of the text"),
    ] {
        assert_eq!(
            scan(text, STORABLE),
            Err(Problem::InvalidJson { offset, expected }),
            "{text:?}"
        );
    }
}

/// The decimal places were tried on PostgreSQL 15, which holds 16,383 and refuses one more.
#[test]
fn numbers_are_held_to_what_a_double_and_a_numeric_can_hold() {
    let zeros = "0".repeat(16_382);
    for text in ["1e308", "-1.7976931348623157e308", "1e-16383", "0e-16383", "1.5e-16382"] {
        assert_eq!(scan(text, STORABLE), Ok(()), "{text}");
    }
    assert_eq!(scan(&format!("0.{zeros}1"), STORABLE), Ok(()));
    assert_eq!(scan(&"9".repeat(308), STORABLE), Ok(()));
    for text in ["1e309", "-1e309", "1e-16384", "0e-16384", "1.5e-16383", "0e16384"] {
        assert_eq!(scan(text, STORABLE), Err(Problem::NumberOutOfRange { offset: 0 }), "{text}");
        assert_eq!(scan(text, SYNTAX), Ok(()), "{text}");
    }
    for text in [format!("[0.{zeros}01]"), format!("[{}]", "9".repeat(310))] {
        assert_eq!(scan(&text, STORABLE), Err(Problem::NumberOutOfRange { offset: 1 }));
    }
}

#[test]
fn what_cannot_be_stored_is_json_all_the_same() {
    for (text, problem) in [
        ("[\"a\\u0000\"]", Problem::NulEscape),
        ("{\"\\u0000\":1}", Problem::NulEscape),
        ("\"\\ud800\"", Problem::LoneSurrogate),
        ("\"\\ude00\\ud83d\"", Problem::LoneSurrogate),
        ("\"\\ud83d\\u0041\"", Problem::LoneSurrogate),
        ("\"\\ud83d\\n\"", Problem::LoneSurrogate),
    ] {
        assert_eq!(scan(text, STORABLE), Err(problem), "{text}");
        assert_eq!(scan(text, SYNTAX), Ok(()), "{text}");
    }
    assert_eq!(scan("\"\\\\u0000\"", STORABLE), Ok(()));
    assert!(Value::from_str("\"\\ud83d\\ude00\"").is_ok());
    assert_eq!(scan("\"\\ud83d\\ude00\"", STORABLE), Ok(()));
}
