//! Sources of `event_data`: ready text, serialisable values, and payloads in the common envelope.
//!
//! Invariant: what [`EventData::append_checked`] appends is one JSON object that can be stored; it
//! is checked exactly once, whoever wrote it. Limits: 262,144 bytes and 10 levels of nesting.

use std::fmt;
use std::io;

use serde::Serialize;
use thiserror::Error;

use crate::Problem;
use crate::escape::append_escaped;
use crate::json::{Rules, Scanner};

/// Something that can be the `event_data` of an event: every [`Serialize`] type that serialises as
/// an object is, and ready text is as [`Json`].
///
/// Sync, so that an [`Event`](crate::Event), which borrows it, is Send: a future that holds an
/// event across an `await` can be spawned.
///
/// ```
/// use ledgerline_codec::{DataError, EventData, Json};
///
/// struct Started;
///
/// impl EventData for Started {
///     fn append_to(&self, out: &mut Vec<u8>) -> Result<(), DataError> {
///         Json(r#"{"phase":"started"}"#).append_to(out)
///     }
/// }
///
/// let mut out = Vec::new();
/// Started.append_to(&mut out)?;
/// assert_eq!(out, br#"{"phase":"started"}"#);
/// # Ok::<(), DataError>(())
/// ```
pub trait EventData: Sync {
    /// Appends exactly one JSON object's text, or leaves `out` as it was.
    ///
    /// # Errors
    /// What is wrong with the data.
    fn append_to(&self, out: &mut Vec<u8>) -> Result<(), DataError>;

    /// As [`append_to`](Self::append_to), for an object that will stand inside `levels_above`
    /// others, and checked: what this appends is trusted to be one object that can be stored.
    ///
    /// The default checks what `append_to` wrote. To replace it is to vouch for the text, which
    /// only text known beforehand is worth.
    ///
    /// # Errors
    /// What is wrong with the data; `out` is then as it was.
    fn append_checked(&self, levels_above: u32, out: &mut Vec<u8>) -> Result<(), DataError> {
        append_or_undo(out, |out| {
            let start = out.len();
            self.append_to(out)?;
            let appended = out.get(start..).unwrap_or_default();
            let text = std::str::from_utf8(appended).map_err(|error| {
                let offset = error.valid_up_to();
                DataError(Problem::InvalidJson { offset, expected: "UTF-8" })
            })?;
            if check_object(text, levels_above)? != text {
                return Err(DataError(Problem::NotAnObject));
            }
            Ok(())
        })
    }
}

/// Why data can't be the `event_data` of an event.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("event_data {0}")]
pub struct DataError(pub Problem);

impl From<Problem> for DataError {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

/// Ready JSON text, borrowed or owned: an object, copied as it is, without the whitespace around
/// it.
///
/// ```
/// use ledgerline_codec::{EventData, Json};
///
/// let mut out = Vec::new();
/// Json(r#"{"n":1}"#).append_to(&mut out)?;
/// Json(format!(r#"{{"n":{}}}"#, 2)).append_to(&mut out)?;
/// assert_eq!(out, br#"{"n":1}{"n":2}"#);
/// # Ok::<(), ledgerline_codec::DataError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: AsRef<str> + Sync> EventData for Json<T> {
    fn append_to(&self, out: &mut Vec<u8>) -> Result<(), DataError> {
        self.append_checked(0, out)
    }

    fn append_checked(&self, levels_above: u32, out: &mut Vec<u8>) -> Result<(), DataError> {
        out.extend_from_slice(check_object(self.0.as_ref(), levels_above)?.as_bytes());
        Ok(())
    }
}

/// Any value that serialises as an object, as serde_json writes it.
impl<T: Serialize + Sync + ?Sized> EventData for T {
    fn append_to(&self, out: &mut Vec<u8>) -> Result<(), DataError> {
        append_or_undo(out, |out| {
            let mut bounded = BoundedWriter { out, bytes: 0 };
            let result = serde_json::to_writer(&mut bounded, self);
            let bytes = bounded.bytes;
            if bytes > BYTES_MAX {
                return Err(DataError(Problem::TooLarge { bytes, max: BYTES_MAX }));
            }
            result
                .map_err(|error| DataError(Problem::NotSerializable { reason: error.to_string() }))
        })
    }
}

/// A payload in the envelope that services of one family share:
/// `{"version":..,"service":..,"operation":..,"status":..,"payload":{..},"source_payload":{..}}`.
///
/// ```
/// use ledgerline_codec::{Envelope, EventData};
/// use serde_json::json;
///
/// let payload = json!({"step": 3});
/// let data = Envelope::new(&payload).with_service("runner").with_operation("step");
/// let mut out = Vec::new();
/// data.with_status("completed").append_to(&mut out)?;
/// assert!(out.starts_with(br#"{"version":"1.0","service":"runner","operation":"step","#));
/// # Ok::<(), ledgerline_codec::DataError>(())
/// ```
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Envelope<'a> {
    /// Version of the payload's schema.
    pub version: &'a str,
    /// The service that speaks.
    pub service: &'a str,
    /// What it did.
    pub operation: &'a str,
    /// How that ended.
    pub status: &'a str,
    /// What it has to say.
    pub payload: &'a dyn EventData,
    /// What it was given, if that is to be kept.
    pub source_payload: Option<&'a dyn EventData>,
}

impl<'a> Envelope<'a> {
    /// Around this payload: version `1.0`, the other texts empty.
    #[must_use]
    pub const fn new(payload: &'a dyn EventData) -> Self {
        Self {
            version: "1.0",
            service: "",
            operation: "",
            status: "",
            payload,
            source_payload: None,
        }
    }

    /// Sets the version of the payload's schema.
    #[must_use]
    pub const fn with_version(mut self, version: &'a str) -> Self {
        self.version = version;
        self
    }

    /// Sets the service that speaks.
    #[must_use]
    pub const fn with_service(mut self, service: &'a str) -> Self {
        self.service = service;
        self
    }

    /// Sets what it did.
    #[must_use]
    pub const fn with_operation(mut self, operation: &'a str) -> Self {
        self.operation = operation;
        self
    }

    /// Sets how that ended.
    #[must_use]
    pub const fn with_status(mut self, status: &'a str) -> Self {
        self.status = status;
        self
    }

    /// Sets what it was given, to be kept as well.
    #[must_use]
    pub const fn with_source_payload(mut self, source_payload: &'a dyn EventData) -> Self {
        self.source_payload = Some(source_payload);
        self
    }
}

impl EventData for Envelope<'_> {
    fn append_to(&self, out: &mut Vec<u8>) -> Result<(), DataError> {
        self.append_checked(0, out)
    }

    fn append_checked(&self, levels_above: u32, out: &mut Vec<u8>) -> Result<(), DataError> {
        append_or_undo(out, |out| {
            let start = out.len();
            append_text(b"{\"version\":\"", self.version, out)?;
            append_text(b"\",\"service\":\"", self.service, out)?;
            append_text(b"\",\"operation\":\"", self.operation, out)?;
            append_text(b"\",\"status\":\"", self.status, out)?;
            out.extend_from_slice(b"\",\"payload\":");
            self.payload.append_checked(levels_above.saturating_add(1), out)?;
            if let Some(source_payload) = self.source_payload {
                out.extend_from_slice(b",\"source_payload\":");
                source_payload.append_checked(levels_above.saturating_add(1), out)?;
            }
            out.push(b'}');
            check_size(out.len() - start)
        })
    }
}

/// Leaves the content out: contents don't belong in logs.
impl fmt::Debug for Envelope<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Envelope")
            .field("version", &self.version)
            .field("service", &self.service)
            .field("operation", &self.operation)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// What the text of one `event_data` object must keep to.
pub(crate) const fn rules(levels_above: u32) -> Rules {
    Rules { levels_max: LEVELS_MAX.saturating_sub(levels_above), must_be_storable: true }
}

/// Checks the size of an `event_data` object.
pub(crate) const fn check_size(bytes: usize) -> Result<(), DataError> {
    if bytes > BYTES_MAX {
        return Err(DataError(Problem::TooLarge { bytes, max: BYTES_MAX }));
    }
    Ok(())
}

/// The object in the text, which may have whitespace around it and nothing else.
fn check_object(text: &str, levels_above: u32) -> Result<&str, DataError> {
    check_size(text.len())?;
    let mut scanner = Scanner::new(text.as_bytes(), rules(levels_above));
    scanner.whitespace();
    let start = scanner.at();
    let is_object = scanner.peek() == b'{';
    scanner.value().map_err(|problem| match problem {
        Problem::TooDeep { .. } => Problem::TooDeep { max: LEVELS_MAX as usize },
        other => other,
    })?;
    let object = &text[start..scanner.at()];
    scanner.end()?;
    if is_object { Ok(object) } else { Err(DataError(Problem::NotAnObject)) }
}

fn append_text(key: &[u8], text: &str, out: &mut Vec<u8>) -> Result<(), DataError> {
    out.extend_from_slice(key);
    if append_escaped(text, out) && text.as_bytes().contains(&0) {
        return Err(DataError(Problem::NulEscape));
    }
    Ok(())
}

fn append_or_undo(
    out: &mut Vec<u8>,
    append: impl FnOnce(&mut Vec<u8>) -> Result<(), DataError>,
) -> Result<(), DataError> {
    let start = out.len();
    let result = append(out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Counts all that is written, and keeps it up to the limit, so that a huge value takes no memory.
struct BoundedWriter<'a> {
    out: &'a mut Vec<u8>,
    bytes: usize,
}

impl io::Write for BoundedWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len();
        if self.bytes <= BYTES_MAX {
            self.out.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that one `event_data` may have.
const BYTES_MAX: usize = 262_144;

/// Levels of objects and arrays that one `event_data` may have, itself included.
const LEVELS_MAX: u32 = 10;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn appended(data: &dyn EventData) -> Result<String, Problem> {
        let mut checked = b"before".to_vec();
        let result = data.append_checked(0, &mut checked);
        let mut plain = b"before".to_vec();
        if data.append_to(&mut plain).is_ok() && result.is_ok() {
            assert_eq!(plain, checked);
        }
        assert!(result.is_ok() || checked == b"before");
        result.map_err(|error| error.0)?;
        Ok(String::from_utf8(checked).unwrap().split_off("before".len()))
    }

    fn nested(levels: usize) -> String {
        format!("{}{{}}{}", "{\"a\":".repeat(levels - 1), "}".repeat(levels - 1))
    }

    fn envelope<'a>(payload: &'a dyn EventData) -> Envelope<'a> {
        Envelope {
            version: "1.0",
            service: "gateway",
            operation: "signal \"received\"",
            status: "ok",
            payload,
            source_payload: None,
        }
    }

    /// Appends whatever it holds, as a careless implementation could.
    struct Careless(&'static [u8]);

    impl EventData for Careless {
        fn append_to(&self, out: &mut Vec<u8>) -> Result<(), DataError> {
            out.extend_from_slice(self.0);
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn a_value_is_written_as_serde_json_writes_it(
            map in prop::collection::btree_map("[^\u{0}]{0,20}", "[^\u{0}]{0,20}", 0..8),
        ) {
            let written = appended(&map);
            prop_assert_eq!(written, Ok(serde_json::to_string(&map).unwrap()));
        }
    }

    #[test]
    fn ready_text_is_copied_without_the_whitespace_around_it() {
        let text = " {\"b\" : [1.50, \"\\u0041\"],\n\"a\":{}}";
        assert_eq!(appended(&Json(&format!("\r\n{text}\t "))).unwrap(), text.trim());
    }

    #[test]
    fn what_is_not_one_object_is_refused() {
        for text in ["[]", "1", "null", "\"{}\""] {
            assert_eq!(appended(&Json(text)), Err(Problem::NotAnObject), "{text}");
        }
        for text in ["", "{", "{}{}", "{},{}", "{}}", "{\"a\":}", "x"] {
            let refused = appended(&Json(text));
            assert!(matches!(refused, Err(Problem::InvalidJson { .. })), "{text} {refused:?}");
        }
        assert_eq!(appended(&[1, 2]), Err(Problem::NotAnObject));
        assert_eq!(appended(&"text"), Err(Problem::NotAnObject));
        assert_eq!(appended(&()), Err(Problem::NotAnObject));
    }

    #[test]
    fn the_size_limit_holds_for_every_source() {
        let fits = format!("{{\"a\":\"{}\"}}", "x".repeat(BYTES_MAX - 8));
        let over = format!("{{\"a\":\"{}\"}}", "x".repeat(BYTES_MAX - 7));
        let refused = Err(Problem::TooLarge { bytes: BYTES_MAX + 1, max: BYTES_MAX });
        assert_eq!(appended(&Json(&fits)).unwrap().len(), BYTES_MAX);
        assert_eq!(appended(&Json(&over)), refused);
        let map = |len: usize| BTreeMap::from([("a", "x".repeat(len))]);
        assert_eq!(appended(&map(BYTES_MAX - 8)).unwrap().len(), BYTES_MAX);
        assert_eq!(appended(&map(BYTES_MAX - 7)), refused);

        let around = appended(&envelope(&Json("{}"))).unwrap().len() - "{}".len();
        let payload = |len: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(len - around - 8));
        assert_eq!(appended(&envelope(&Json(&payload(BYTES_MAX)))).unwrap().len(), BYTES_MAX);
        assert_eq!(appended(&envelope(&Json(&payload(BYTES_MAX + 1)))), refused);
    }

    #[test]
    fn a_huge_value_takes_no_more_memory_than_the_limit() {
        let mut out = Vec::new();
        let refused = BTreeMap::from([("a", vec!["xxxxxxxx"; 1_000_000])]).append_to(&mut out);
        let Err(DataError(Problem::TooLarge { bytes: 11_000_007, .. })) = refused else {
            panic!("{refused:?}");
        };
        assert!(out.capacity() <= 2 * BYTES_MAX, "{}", out.capacity());
    }

    #[test]
    fn the_level_limit_holds_for_every_source() {
        let refused = Err(Problem::TooDeep { max: 10 });
        assert_eq!(appended(&Json(&nested(10))), Ok(nested(10)));
        assert_eq!(appended(&Json(&nested(11))), refused);
        let value = |levels| serde_json::from_str::<serde_json::Value>(&nested(levels)).unwrap();
        assert_eq!(appended(&value(10)), Ok(nested(10)));
        assert_eq!(appended(&value(11)), refused);
        assert!(appended(&envelope(&Json(&nested(9)))).is_ok());
        assert_eq!(appended(&envelope(&Json(&nested(10)))), refused);
        assert_eq!(appended(&envelope(&value(10))), refused);
        let inner = Json(&nested(8)).0.to_owned();
        assert!(appended(&envelope(&envelope(&Json(&inner)))).is_ok());
        let inner = nested(9);
        assert_eq!(appended(&envelope(&envelope(&Json(&inner)))), refused);
    }

    #[test]
    fn what_cannot_be_stored_is_refused_from_every_source() {
        assert_eq!(appended(&Json(r#"{"a":"\u0000"}"#)), Err(Problem::NulEscape));
        assert_eq!(appended(&Json(r#"{"a":"\ud800"}"#)), Err(Problem::LoneSurrogate));
        assert_eq!(appended(&Json(r#"{"a":1e999}"#)), Err(Problem::NumberOutOfRange { offset: 5 }));
        assert_eq!(appended(&json!({"a": "\0"})), Err(Problem::NulEscape));
        assert_eq!(appended(&envelope(&Json(r#"{"a":"\u0000"}"#))), Err(Problem::NulEscape));
        let odd = Envelope { service: "a\0b", ..envelope(&Json("{}")) };
        assert_eq!(appended(&odd), Err(Problem::NulEscape));
    }

    #[test]
    fn a_failing_serialize_is_an_error() {
        let map = BTreeMap::from([((1, 2), 3)]);
        let refused = appended(&map);
        assert!(matches!(refused, Err(Problem::NotSerializable { .. })), "{refused:?}");
    }

    #[test]
    fn an_envelope_is_an_object_with_its_parts() {
        let source = json!({"raw": [1, 2]});
        let data = Envelope { source_payload: Some(&source), ..envelope(&Json(r#"{"n": 1.0}"#)) };
        let wanted = concat!(
            r#"{"version":"1.0","service":"gateway","operation":"signal \"received\"","#,
            r#""status":"ok","payload":{"n": 1.0},"source_payload":{"raw":[1,2]}}"#,
        );
        assert_eq!(appended(&data).unwrap(), wanted);
    }

    #[test]
    fn a_careless_implementation_cannot_get_anything_past_the_check() {
        for bytes in [&b""[..], b"{", b"[]", b"{},{}", b"{} ", b" {}", b"{\"a\":\"\xff\"}"] {
            assert!(appended(&Careless(bytes)).is_err(), "{bytes:?}");
            assert!(appended(&envelope(&Careless(bytes))).is_err(), "{bytes:?}");
        }
        assert_eq!(appended(&Careless(b"{\"a\":1}")).unwrap(), "{\"a\":1}");
    }
}
