//! Times as a query may write them: relative to now, or absolute.
//!
//! Tried in this order: whole days (`7d`), a Go duration (`1h30m`), RFC 3339, a date and time
//! without an offset (taken as UTC), a date (its midnight in UTC). Relative ones are subtracted
//! from now, so a negative duration lies ahead. Limit: the years 0001 to 9999.

use ledgerline_codec::Timestamp;

/// The instant that `text` means at `now`; `None` if it is none of the forms.
pub(crate) fn parse(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Some(micros) = days(text).or_else(|| go_duration(text)) {
        return Timestamp::from_micros(now.micros().checked_sub(micros)?);
    }
    if let Some(instant) = Timestamp::parse_rfc3339(text) {
        return Some(instant);
    }
    if has_shape(text, b"0000-00-00T00:00:00") {
        return Timestamp::parse_rfc3339(&format!("{text}Z"));
    }
    if has_shape(text, b"0000-00-00") {
        return Timestamp::parse_rfc3339(&format!("{text}T00:00:00Z"));
    }
    None
}

/// `<n>d`, not negative, in microseconds.
fn days(text: &str) -> Option<i64> {
    let digits = text.strip_suffix('d')?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<i64>().ok()?.checked_mul(MICROS_PER_DAY)
}

/// A duration as Go's `time.ParseDuration` has it: a sign, then numbers with fractions and units.
/// In microseconds; what is finer is cut.
fn go_duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    // The text is at most a request line long, and each turn takes at least two bytes of it.
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits_of(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits_of(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let (unit_nanos, after) = unit_of(after)?;
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        nanos += i128::from(whole) * unit_nanos + fraction_nanos(fraction, unit_nanos);
        // Go's durations are 64 bits of nanoseconds, and longer ones are refused.
        if nanos > i128::from(i64::MAX) {
            return None;
        }
        rest = after;
    }
    i64::try_from(nanos / 1_000).ok().map(|micros| sign * micros)
}

/// The leading ASCII digits, and the rest.
fn digits_of(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// A unit's nanoseconds, and the rest.
fn unit_of(text: &str) -> Option<(i128, &str)> {
    // Longer units first: "ms" before "m".
    let units = [
        ("ns", 1),
        ("us", 1_000),
        ("\u{b5}s", 1_000),
        ("\u{3bc}s", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    units.iter().find_map(|(unit, nanos)| Some((*nanos, text.strip_prefix(unit)?)))
}

/// What the digits behind a point are worth; those beyond the 18th are worth nothing.
fn fraction_nanos(digits: &str, unit_nanos: i128) -> i128 {
    let mut value: i128 = 0;
    let mut scale: i128 = 1;
    for digit in digits.bytes().take(18) {
        value = value * 10 + i128::from(digit - b'0');
        scale *= 10;
    }
    value * unit_nanos / scale
}

/// Whether `text` has a digit wherever `shape` has a 0, and is equal to it elsewhere.
fn has_shape(text: &str, shape: &[u8]) -> bool {
    text.len() == shape.len()
        && text.bytes().zip(shape).all(|(byte, &wanted)| {
            if wanted == b'0' { byte.is_ascii_digit() } else { byte == wanted }
        })
}

const MICROS_PER_DAY: i64 = 86_400_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MICROS: i64 = 1_795_243_212_318_402;

    /// How far before now the text lies, in microseconds.
    fn ago(text: &str) -> Option<i64> {
        let now = Timestamp::from_micros(NOW_MICROS).unwrap();
        parse(text, now).map(|instant| NOW_MICROS - instant.micros())
    }

    fn absolute(text: &str) -> Option<i64> {
        ago(text).map(|micros| NOW_MICROS - micros)
    }

    #[test]
    fn days_and_durations_are_subtracted_from_now() {
        const SECOND: i64 = 1_000_000;
        let cases = [
            ("0d", 0),
            ("7d", 7 * 86_400 * SECOND),
            ("24h", 86_400 * SECOND),
            ("30m", 1_800 * SECOND),
            ("1h30m", 5_400 * SECOND),
            ("1.5h", 5_400 * SECOND),
            (".5s", 500_000),
            ("1.s", SECOND),
            ("1h15m30.918273645s", 4_530 * SECOND + 918_273),
            ("+5s", 5 * SECOND),
            ("-1h", -3_600 * SECOND),
            ("250ms", 250_000),
            ("250us", 250),
            ("250\u{b5}s", 250),
            ("250\u{3bc}s", 250),
            ("1500ns", 1),
            ("0", 0),
            ("-0", 0),
        ];
        for (text, micros) in cases {
            assert_eq!(ago(text), Some(micros), "{text}");
        }
    }

    #[test]
    fn absolute_forms_are_utc_unless_they_say_their_offset() {
        assert_eq!(absolute("1970-01-02"), Some(86_400_000_000));
        assert_eq!(absolute("1970-01-01T00:01:00"), Some(60_000_000));
        assert_eq!(absolute("1970-01-01T00:01:00Z"), Some(60_000_000));
        assert_eq!(absolute("1970-01-01T01:01:00.000001+01:00"), Some(60_000_001));
    }

    #[test]
    fn what_is_none_of_the_forms_is_refused() {
        let texts = [
            "",
            "d",
            "-7d",
            "1.5d",
            "yesterday",
            "5",
            "5x",
            "h",
            ".h",
            "1h30",
            "--1h",
            "+",
            "1 h",
            "1970-1-1",
            "1970-13-01",
            "1970-02-30",
            "1970-01-01T00:00",
            "1970-01-01 00:00:00",
            "9999999999999h",
            "99999999999999999999h",
            "999999999999999d",
            "2562048h",
        ];
        for text in texts {
            assert_eq!(ago(text), None, "{text}");
        }
    }

    #[test]
    fn go_s_longest_duration_is_still_a_duration() {
        // 2^63 - 1 nanoseconds, some 292 years.
        assert_eq!(ago("9223372036854775807ns"), Some(9_223_372_036_854_775));
        assert_eq!(ago("9223372036854775808ns"), None);
    }
}
