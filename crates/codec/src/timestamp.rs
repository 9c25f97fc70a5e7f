//! Instants on the wire: microseconds since the Unix epoch in, RFC 3339 text out and back.
//!
//! Invariant: a [`Timestamp`] lies in the years 0001 to 9999, so its text always has 27 bytes.
//! Limit: leap seconds don't exist, as in POSIX time; a text that names one means the second
//! before.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Problem;
use crate::field::shortened;

/// An instant in UTC, to the microsecond.
///
/// ```
/// use ledgerline_codec::Timestamp;
///
/// let mut text = Vec::new();
/// Timestamp::from_micros(1_795_243_212_318_402).unwrap().append_to(&mut text);
/// assert_eq!(text, b"2026-11-21T06:40:12.318402Z");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    micros: i64,
}

impl Timestamp {
    /// The text without its digits.
    pub(crate) const TEMPLATE: [u8; 27] = *b"0000-00-00T00:00:00.000000Z";

    /// 0001-01-01T00:00:00Z, the first.
    pub const MIN: Self = Self { micros: MICROS_MIN };

    /// 9999-12-31T23:59:59.999999Z, the last.
    pub const MAX: Self = Self { micros: MICROS_MAX };

    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self { micros: 0 };

    /// The instant so many microseconds after (or before) the Unix epoch; `None` outside the years
    /// 0001 to 9999, which RFC 3339 can't write.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Option<Self> {
        if micros < MICROS_MIN || micros > MICROS_MAX { None } else { Some(Self { micros }) }
    }

    /// Reads RFC 3339 text, which must say its offset. What is finer than a microsecond is cut.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let (local_micros, offset_minutes) = rfc3339::read(text)?;
        Self::from_micros(local_micros - offset_minutes * MICROS_PER_MINUTE)
    }

    /// Appends the instant as RFC 3339 text, always with six decimals.
    pub fn append_to(self, out: &mut Vec<u8>) {
        let mut text = Self::TEMPLATE;
        self.write_to(&mut text);
        out.extend_from_slice(&text);
    }

    /// Writes the digits of the RFC 3339 text into the template.
    #[inline(always)]
    pub(crate) fn write_to(self, text: &mut [u8; 27]) {
        let micros = (self.micros + DAYS_FROM_MARCH_0000_TO_EPOCH * MICROS_PER_DAY) as u64;
        let (seconds, micros) = (micros / 1_000_000, (micros % 1_000_000) as u32);
        let second_of_day = (seconds % SECONDS_PER_DAY) as u32;
        let (year, month, day) = civil_from_days((seconds / SECONDS_PER_DAY) as u32);
        put_two_digits(text, 0, year / 100);
        put_two_digits(text, 2, year % 100);
        put_two_digits(text, 5, month);
        put_two_digits(text, 8, day);
        put_two_digits(text, 11, second_of_day / 3600);
        put_two_digits(text, 14, second_of_day / 60 % 60);
        put_two_digits(text, 17, second_of_day % 60);
        put_two_digits(text, 20, micros / 10_000);
        put_two_digits(text, 22, micros / 100 % 100);
        put_two_digits(text, 24, micros % 100);
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.micros
    }
}

/// Year, month and day of a day counted from the first of March in the year 0.
///
/// Neri and Schneider, "Euclidean affine functions and their application to calendar algorithms":
/// years start in March, so that the leap day is the last of its year, and two divisions are
/// multiplications, whose high half is the quotient and whose low half tells the remainder.
#[inline(always)]
fn civil_from_days(days: u32) -> (u32, u32, u32) {
    let quarter_days = 4 * days + 3;
    let century = quarter_days / DAYS_PER_ERA;
    let day_of_century = quarter_days % DAYS_PER_ERA / 4;
    // By 1461, the days of four years.
    let scaled = 2_939_745 * u64::from(4 * day_of_century + 3);
    let year_of_century = (scaled >> 32) as u32;
    let day_of_year = scaled as u32 / 2_939_745 / 4;
    // By 153 / 5, the days of a month from March on; 197,913 makes March the third.
    let scaled = 2_141 * day_of_year + 197_913;
    let (month_from_march, day) = (scaled >> 16, scaled % (1 << 16) / 2_141 + 1);
    // January and February are the last two.
    let is_next_year = day_of_year >= 306;
    let month = if is_next_year { month_from_march - 12 } else { month_from_march };
    (100 * century + year_of_century + u32::from(is_next_year), month, day)
}

#[inline(always)]
fn put_two_digits(text: &mut [u8; 27], at: usize, value: u32) {
    text[at..at + 2].copy_from_slice(&TWO_DIGITS[value as usize]);
}

/// RFC 3339, section 5.6.
mod rfc3339 {
    use super::{DAYS_FROM_MARCH_0000_TO_EPOCH, DAYS_PER_ERA, SECONDS_PER_DAY};

    /// The local time in microseconds since 1970, and its offset in minutes east of UTC.
    pub(super) fn read(text: &str) -> Option<(i64, i64)> {
        let bytes = text.as_bytes();
        let whole = bytes.first_chunk::<19>()?;
        let fits = whole.iter().zip(b"0000-00-00T00:00:00").all(|(&given, &wanted)| match wanted {
            b'0' => given.is_ascii_digit(),
            b'T' => given == b'T' || given == b't',
            separator => given == separator,
        });
        if !fits {
            return None;
        }
        let two = |at: usize| number(&whole[at..at + 2]);
        let days = days_from_civil(number(&whole[..4]), two(5), two(8))?;
        let (hour, minute, second) = (two(11), two(14), two(17));
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let (micros, offset) = fraction(&bytes[whole.len()..])?;
        // A leap second is the second before it.
        let second_of_day = hour * 3_600 + minute * 60 + second.min(59);
        let seconds = days * SECONDS_PER_DAY as i64 + second_of_day;
        Some((seconds * 1_000_000 + micros, offset_minutes(offset)?))
    }

    /// The microseconds of the fraction, if there is one, and what follows it.
    fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
        let [b'.', text @ ..] = text else { return Some((0, text)) };
        let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        // RFC 3339 allows any number of them.
        if digits == 0 {
            return None;
        }
        let mut micros = [b'0'; 6];
        let kept = digits.min(micros.len());
        micros[..kept].copy_from_slice(&text[..kept]);
        Some((number(&micros), &text[digits..]))
    }

    /// The days since 1970, if there is such a date; the way back from `civil_from_days`.
    fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days_of_month = match month {
            2 => 28 + i64::from(is_leap),
            4 | 6 | 9 | 11 => 30,
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            _ => return None,
        };
        if day < 1 || day > days_of_month {
            return None;
        }
        // Years start in March. The first of them before the year 0 is one of 400 that repeat.
        let year = 400 + if month < 3 { year - 1 } else { year };
        let month_from_march = (month + 9) % 12;
        let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
        let days = 365 * year + year / 4 - year / 100 + year / 400 + day_of_year;
        Some(days - i64::from(DAYS_PER_ERA) - DAYS_FROM_MARCH_0000_TO_EPOCH)
    }

    fn offset_minutes(text: &[u8]) -> Option<i64> {
        match *text {
            [b'Z' | b'z'] => Some(0),
            [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
                let hours = two_digits(h1, h2).filter(|hours| *hours < 24)?;
                let minutes = two_digits(m1, m2).filter(|minutes| *minutes < 60)?;
                let offset = hours * 60 + minutes;
                Some(if sign == b'-' { -offset } else { offset })
            }
            _ => None,
        }
    }

    fn two_digits(tens: u8, ones: u8) -> Option<i64> {
        let digits = tens.is_ascii_digit() && ones.is_ascii_digit();
        digits.then(|| number(&[tens, ones]))
    }

    /// The number that these digits are.
    fn number(digits: &[u8]) -> i64 {
        digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'))
    }
}

/// Reads RFC 3339 text, as [`Timestamp::parse_rfc3339`] does.
impl FromStr for Timestamp {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        Self::parse_rfc3339(text).ok_or_else(|| Problem::NotATimestamp { given: shortened(text) })
    }
}

/// The microsecond that the time lies in; beyond the years 0001 to 9999, the nearest within.
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let micros = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(MICROS_MAX),
            Err(before) => {
                let micros = before.duration().as_nanos().div_ceil(1_000);
                i64::try_from(micros).map_or(MICROS_MIN, |micros| -micros)
            }
        };
        Self { micros: micros.clamp(MICROS_MIN, MICROS_MAX) }
    }
}

/// As RFC 3339 text.
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From RFC 3339 text.
impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::words::deserialize(deserializer)
    }
}

/// As RFC 3339 text, with six decimals.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Self::TEMPLATE;
        self.write_to(&mut text);
        text.iter().try_for_each(|byte| f.write_char(char::from(*byte)))
    }
}

/// 0001-01-01T00:00:00Z.
const MICROS_MIN: i64 = -62_135_596_800_000_000;

/// 9999-12-31T23:59:59.999999Z.
const MICROS_MAX: i64 = 253_402_300_799_999_999;

const MICROS_PER_MINUTE: i64 = 60_000_000;

const SECONDS_PER_DAY: u64 = 86_400;

const MICROS_PER_DAY: i64 = 86_400_000_000;

const DAYS_FROM_MARCH_0000_TO_EPOCH: i64 = 719_468;

/// Days of 400 years.
const DAYS_PER_ERA: u32 = 146_097;

const TWO_DIGITS: [[u8; 2]; 100] = {
    let mut digits = [[b'0'; 2]; 100];
    let mut value = 0;
    while value < 100 {
        digits[value] = [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8];
        value += 1;
    }
    digits
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text_of(micros: i64) -> String {
        let mut text = Vec::new();
        Timestamp::from_micros(micros).unwrap().append_to(&mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn the_bounds_are_the_years_0001_and_9999() {
        assert_eq!(text_of(MICROS_MIN), "0001-01-01T00:00:00.000000Z");
        assert_eq!(text_of(MICROS_MAX), "9999-12-31T23:59:59.999999Z");
        assert_eq!(Timestamp::from_micros(MICROS_MIN - 1), None);
        assert_eq!(Timestamp::from_micros(MICROS_MAX + 1), None);
        assert_eq!(Timestamp::from_micros(i64::MIN), None);
        assert_eq!(Timestamp::from_micros(i64::MAX), None);
    }

    #[test]
    fn a_system_time_is_the_microsecond_that_it_lies_in() {
        let at = |nanos: i64| {
            let since = std::time::Duration::from_nanos(nanos.unsigned_abs());
            let epoch = SystemTime::UNIX_EPOCH;
            Timestamp::from(if nanos < 0 { epoch - since } else { epoch + since }).micros()
        };
        assert_eq!((at(0), at(1_999), at(2_000)), (0, 1, 2));
        assert_eq!((at(-1), at(-1_000), at(-1_001)), (-1, -1, -2));
        let far = std::time::Duration::from_secs(1 << 40);
        let bounds = [SystemTime::UNIX_EPOCH + far, SystemTime::UNIX_EPOCH - far];
        assert_eq!(bounds.map(|time| Timestamp::from(time).micros()), [MICROS_MAX, MICROS_MIN]);
    }

    #[test]
    fn every_day_has_the_date_that_jiff_gives_it() {
        let first = jiff::civil::date(1, 1, 1);
        let first_day = MICROS_MIN.div_euclid(MICROS_PER_DAY);
        let last_day = MICROS_MAX.div_euclid(MICROS_PER_DAY);
        let step = if cfg!(miri) { 5_000 } else { 1 };
        let mut date = first;
        for days in (first_day..=last_day).step_by(step) {
            if days > first_day {
                date = date.checked_add(jiff::Span::new().days(step as i64)).unwrap();
            }
            let (year, month, day) = civil_from_days((days + DAYS_FROM_MARCH_0000_TO_EPOCH) as u32);
            let theirs = (date.year() as u32, date.month() as u32, date.day() as u32);
            assert_eq!((year, month, day), theirs);
        }
    }

    proptest! {
        #[test]
        fn the_text_is_what_jiff_writes(micros in MICROS_MIN..253_402_207_200_000_000) {
            let theirs = jiff::Timestamp::from_microsecond(micros).unwrap();
            prop_assert_eq!(text_of(micros), format!("{theirs:.6}"));
        }
    }

    mod parse {
        use super::*;

        proptest! {
            #[test]
            fn what_is_written_is_read_back(micros in MICROS_MIN..=MICROS_MAX) {
                let read = Timestamp::parse_rfc3339(&text_of(micros));
                prop_assert_eq!(read, Timestamp::from_micros(micros));
            }

            #[test]
            fn any_text_is_read_or_refused(text in ".{0,40}") {
                let _ = Timestamp::parse_rfc3339(&text);
            }

            #[test]
            fn an_offset_is_taken_as_jiff_takes_it(
                micros in -1_000_000_000_000_000_i64..4_000_000_000_000_000,
                minutes in -1_439_i32..=1_439,
            ) {
                let offset = jiff::tz::Offset::from_seconds(minutes * 60).unwrap();
                let instant = jiff::Timestamp::from_microsecond(micros).unwrap();
                let text = instant.display_with_offset(offset).to_string();
                let read = Timestamp::parse_rfc3339(&text);
                prop_assert_eq!(read, Timestamp::from_micros(micros), "{}", text);
            }
        }

        #[test]
        fn every_date_there_may_be_is_read_as_jiff_reads_it() {
            let step = if cfg!(miri) { 500 } else { 1 };
            for year in (0..=9999).step_by(step) {
                for month in 0..=13 {
                    for day in [0, 1, 28, 29, 30, 31, 32] {
                        let text = format!("{year:04}-{month:02}-{day:02}T12:34:56.789Z");
                        let theirs = text.trim_end_matches('Z').parse::<jiff::civil::DateTime>();
                        let epoch = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
                        let theirs = theirs.ok().map(|local| local.duration_since(epoch));
                        let theirs = theirs.map(|since| since.as_micros() as i64);
                        let theirs = theirs.and_then(Timestamp::from_micros);
                        assert_eq!(Timestamp::parse_rfc3339(&text), theirs, "{text}");
                    }
                }
            }
        }

        #[test]
        fn the_last_instant_is_read() {
            let last = Timestamp::from_micros(MICROS_MAX);
            assert_eq!(Timestamp::parse_rfc3339("9999-12-31T23:59:59.999999Z"), last);
            assert_eq!(Timestamp::parse_rfc3339("9999-12-31T23:59:59-00:01"), None);
            assert_eq!(Timestamp::parse_rfc3339("0001-01-01T00:00:00+00:01"), None);
            assert_eq!(Timestamp::parse_rfc3339("0000-12-31T23:59:59Z"), None);
        }

        #[test]
        fn nanoseconds_are_cut_also_before_the_epoch() {
            let read = |text| Timestamp::parse_rfc3339(text).map(Timestamp::micros);
            assert_eq!(read("1970-01-01T00:00:00.123456789Z"), Some(123_456));
            assert_eq!(read("1969-12-31T23:59:59.999999999Z"), Some(-1));
            assert_eq!(read("1969-12-31T23:59:59.9Z"), Some(-100_000));
            let digits = "9".repeat(10_000);
            assert_eq!(read(&format!("1970-01-01T00:00:00.{digits}Z")), Some(999_999));
        }

        #[test]
        fn a_leap_second_is_the_second_before_it() {
            let read = Timestamp::parse_rfc3339;
            let before = read("2016-12-31T23:59:59Z");
            assert!(before.is_some());
            assert_eq!(read("2016-12-31T23:59:60Z"), before);
        }

        #[test]
        fn text_that_is_not_rfc_3339_is_refused() {
            for text in [
                "",
                "2026-11-21",
                "2026-11-21T06:40:12",
                "2026-11-21 06:40:12Z",
                "2026-11-21T06:40:12,5Z",
                "2026-11-21T06:40:12.Z",
                "2026-11-21T06:40Z",
                "20261121T064012Z",
                "2026-11-21T06:40:12+01",
                "2026-11-21T06:40:12+0100",
                "2026-11-21T06:40:12+24:00",
                "2026-11-21T06:40:12+01:60",
                "2026-11-21T06:40:12Z[UTC]",
                "2026-11-21T06:40:12Z ",
                " 2026-11-21T06:40:12Z",
                "+002026-11-21T06:40:12Z",
                "2026-02-29T00:00:00Z",
                "2026-13-01T00:00:00Z",
                "2026-11-21T24:00:00Z",
                "2026-11-21T06:61:00Z",
                "2026-11-21T06:40:\u{661}2Z",
            ] {
                assert_eq!(Timestamp::parse_rfc3339(text), None, "{text:?}");
            }
        }
    }
}
