//! The parameters of a query, from the request's URI.
//!
//! Invariant: a parameter that is known and can't be understood refuses the query, by its name and
//! value; one that isn't known is ignored, and so are all but the first of equal names. Limit: the
//! size of a request's header bounds them all.

use ledgerline_codec::{Outcome, Timestamp};
use uuid::Uuid;

use crate::problem::{Kind, Problem};
use crate::storage::{Detail, Filter, Position, Selection, Start};
use crate::time_filter;

/// Reads the part of the URI behind the question mark.
///
/// Paging is by `offset`, or by `cursor`: empty for the first page, then each answer's
/// `next_cursor`. All events that pass are counted on pages by offset, as the contract promises,
/// and not on those by cursor, where counting would cost more than the page, unless `count` says
/// otherwise.
pub(crate) fn parse(query: &str, now: Timestamp) -> Result<Selection, Problem> {
    let parameters = Parameters::split(query)?;
    let filter = parameters.filter(now)?;
    let limit = match parameters.number("limit")? {
        None => LIMIT_DEFAULT,
        Some(limit) if (1..=LIMIT_MAX).contains(&limit) => limit,
        Some(limit) => {
            return Err(bad("limit", &limit.to_string(), "a number from 1 to 1000"));
        }
    };
    let start = match (parameters.get("cursor"), parameters.number("offset")?) {
        (Some(cursor), Some(_)) => return Err(bad("cursor", cursor, "no offset beside it")),
        (Some(""), None) => Start::Front,
        (Some(cursor), None) => Start::After(
            position(cursor).ok_or_else(|| bad("cursor", cursor, "a next_cursor of an answer"))?,
        ),
        (None, offset) => Start::Offset(offset.unwrap_or(0)),
    };
    let count = match parameters.get("count") {
        None => matches!(start, Start::Offset(_)),
        Some("true") => true,
        Some("false") => false,
        Some(other) => return Err(bad("count", other, "true or false")),
    };
    Ok(Selection { filter, start, limit: limit as usize, count })
}

/// A place in the order as opaque text, safe in a URI.
pub(crate) fn cursor(position: Position) -> String {
    let micros = position.event_timestamp.micros().cast_unsigned();
    format!("{CURSOR_FORMAT}{micros:016x}{}", position.event_id.simple())
}

fn position(cursor: &str) -> Option<Position> {
    let digits = cursor.strip_prefix(CURSOR_FORMAT)?;
    if digits.len() != 48 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let (micros, id) = digits.split_at(16);
    let micros = u64::from_str_radix(micros, 16).ok()?.cast_signed();
    Some(Position {
        event_timestamp: Timestamp::from_micros(micros)?,
        event_id: Uuid::from_u128(u128::from_str_radix(id, 16).ok()?),
    })
}

/// Names and values, decoded.
struct Parameters {
    pairs: Vec<(String, String)>,
}

impl Parameters {
    fn split(query: &str) -> Result<Self, Problem> {
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = decode(name).zip(decode(value));
            pairs.push(decoded.ok_or_else(|| misread(name, value, "percent-encoded UTF-8"))?);
        }
        Ok(Self { pairs })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(given, _)| given == name).map(|(_, value)| &**value)
    }

    /// A filter's text; an empty one is no filter, as forms send one for each field left empty.
    fn text(&self, name: &str) -> Option<String> {
        self.get(name).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    fn number(&self, name: &'static str) -> Result<Option<u64>, Problem> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        // SQL's integers have a sign.
        let number = value.parse().ok().filter(|&number| digits && number <= i64::MAX as u64);
        number.map(Some).ok_or_else(|| bad(name, value, "a number from 0"))
    }

    fn time(&self, name: &'static str, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
        let Some(value) = self.text(name) else { return Ok(None) };
        let time = time_filter::parse(&value, now);
        time.map(Some).ok_or_else(|| bad(name, &value, "days (7d), a duration (1h30m) or a time"))
    }

    fn filter(&self, now: Timestamp) -> Result<Filter, Problem> {
        let event_outcome = self.text("event_outcome");
        if let Some(outcome) = &event_outcome
            && outcome.parse::<Outcome>().is_err()
        {
            return Err(bad("event_outcome", outcome, "success, failure or pending"));
        }
        Ok(Filter {
            event_type: self.text("event_type"),
            event_category: self.text("event_category"),
            event_outcome,
            severity: self.text("severity"),
            correlation_id: self.text("correlation_id"),
            since: self.time("since", now)?,
            until: self.time("until", now)?,
            detail: self.detail()?,
        })
    }

    fn detail(&self) -> Result<Option<Detail>, Problem> {
        let (key, value) = match (self.text("detail_key"), self.get("detail_value")) {
            (None, None | Some("")) => return Ok(None),
            (Some(key), Some(value)) => (key, value.to_owned()),
            (Some(key), None) => return Err(bad("detail_key", &key, "a detail_value beside it")),
            (None, Some(value)) => {
                return Err(bad("detail_value", value, "a detail_key beside it"));
            }
        };
        if !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(bad("detail_key", &key, "letters, digits and underscores"));
        }
        Ok(Some(Detail { key, value }))
    }
}

/// A known parameter that can't be understood.
fn bad(name: &'static str, value: &str, expected: &str) -> Problem {
    misread(name, value, expected).field(name)
}

fn misread(name: &str, value: &str, expected: &str) -> Problem {
    let detail = format!("the parameter {name} is {value:?}, expected {expected}");
    Problem::new(Kind::Validation, detail)
}

/// Undoes the encoding of forms: `+` is a space, `%` begins two hexadecimal digits.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (&[high, low], behind) = rest.split_first_chunk()?;
                let digit = |byte| char::from(byte).to_digit(16);
                let value = digit(high)? << 4 | digit(low)?;
                bytes.push(u8::try_from(value).ok()?);
                rest = behind;
            }
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

/// The first character of each cursor, so that other forms may come later.
const CURSOR_FORMAT: &str = "1";

const LIMIT_DEFAULT: u64 = 50;
const LIMIT_MAX: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_micros(1_795_243_212_318_402).unwrap()
    }

    fn refused(query: &str) -> String {
        let problem = parse(query, now()).expect_err(query);
        format!("{problem:?}")
    }

    #[test]
    fn without_parameters_the_first_fifty_are_wanted_and_all_are_counted() {
        let selection = parse("", now()).unwrap();
        assert_eq!(selection.filter, Filter::default());
        assert_eq!(selection.start, Start::Offset(0));
        assert_eq!(selection.limit, 50);
        assert!(selection.count);
    }

    #[test]
    fn values_are_decoded_and_unknown_parameters_are_ignored() {
        let selection =
            parse("correlation_id=a%2Bb+c%C3%A9&colour=red&&limit=7&limit=9", now()).unwrap();
        assert_eq!(selection.filter.correlation_id.as_deref(), Some("a+b c\u{e9}"));
        assert_eq!(selection.limit, 7);
    }

    #[test]
    fn a_cursor_comes_back_as_the_place_it_was_made_of() {
        for micros in [0, -1, 1_795_243_212_318_402, -62_135_596_800_000_000] {
            let place = Position {
                event_timestamp: Timestamp::from_micros(micros).unwrap(),
                event_id: Uuid::from_u128(0x0197_5c1e_0000_7000_8000_0000_0000_00ff),
            };
            let selection = parse(&format!("cursor={}", cursor(place)), now()).unwrap();
            assert_eq!(selection.start, Start::After(place));
            assert!(!selection.count);
        }
        assert_eq!(parse("cursor=", now()).unwrap().start, Start::Front);
        assert!(parse("cursor=&count=true", now()).unwrap().count);
    }

    #[test]
    fn a_bad_parameter_is_named_with_its_value() {
        let cases = [
            "limit=0",
            "limit=1001",
            "limit=x",
            "limit=",
            "limit=-5",
            "offset=-1",
            "offset=9223372036854775808",
            "event_outcome=maybe",
            "since=yesterday",
            "until=2026-13-01",
            "detail_key=a-b&detail_value=x",
            "detail_key=alone",
            "detail_value=alone",
            "cursor=abc",
            "cursor=2000661f6ac0cca4201975c1e0000700080000000000000ff",
            "cursor=1+00661f6ac0cca4201975c1e000070008000000000000ff",
            "count=maybe",
            "severity=%zz",
            "severity=%e9",
            "severity=%4",
        ];
        for query in cases {
            let (name, value) = query.split('&').next().unwrap().split_once('=').unwrap();
            let problem = refused(query);
            assert!(problem.contains(name), "{query}: {problem}");
            assert!(problem.contains(&value.replace('+', " ")), "{query}: {problem}");
        }
        assert!(refused("cursor=&offset=0").contains("offset"));
    }
}
