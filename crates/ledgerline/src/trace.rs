//! Trace ids: read from a W3C `traceparent`, or asked of the tracing library in use.
//!
//! Limit: no tracing library is a dependency. Each has its own idea of the current span, and one
//! that is built against another version than the application's finds none; so the application
//! says how to ask, in a line of its own.

use std::fmt;
use std::sync::Arc;

/// The id of a trace (W3C Trace Context, OpenTelemetry): 16 bytes, not all zero.
///
/// Shown as 32 lower-case hexadecimal digits, which is how it stands in a correlation id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

impl TraceId {
    /// The id of these bytes, in network order. `None` if all are zero, which stands for no trace.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// The id in the value of a `traceparent` header, without spaces around it.
    ///
    /// Strict, as section 3.2 of the W3C recommendation wants it: lower-case digits, no id all
    /// zero, version 00 without a fifth part, `ff` never. Of a later version it takes the parts
    /// that it knows. `None`: the header is to be ignored, and the trace starts here.
    ///
    /// ```
    /// use ledgerline::TraceId;
    ///
    /// let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    /// let id = TraceId::from_traceparent(header).map(|id| id.to_string());
    /// assert_eq!(id.as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
    /// ```
    #[must_use]
    pub fn from_traceparent(value: &str) -> Option<Self> {
        let known = value.as_bytes().get(..TRACEPARENT_LEN)?;
        let rest = &value.as_bytes()[TRACEPARENT_LEN..];
        let (version, trace_id) = (hex::<1>(&known[..2])?, hex::<16>(&known[3..35])?);
        let (parent_id, _flags) = (hex::<8>(&known[36..52])?, hex::<1>(&known[53..])?);
        let is_separated = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let is_ended = match version {
            [0] => rest.is_empty(),
            [0xff] => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        let is_valid = is_separated && is_ended && parent_id != [0; 8];
        if is_valid { Self::from_bytes(trace_id) } else { None }
    }

    /// The bytes, in network order.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// The 32 digits.
    pub(crate) fn digits(self) -> [u8; 32] {
        let mut digits = [0; 32];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 0xf)];
        }
        digits
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.digits()).unwrap_or_default())
    }
}

/// The bytes of lower-case hexadecimal digits.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

/// An application's function that says which trace the calling thread works for.
///
/// See [`Config::trace_id`](crate::Config::trace_id). Called by `record` on the caller's thread,
/// for each event without a correlation id: it must not block, and must not record.
#[derive(Clone)]
pub struct TraceIdHook(Arc<dyn Fn() -> Option<TraceId> + Send + Sync>);

impl TraceIdHook {
    /// A hook that calls this function.
    pub fn new(hook: impl Fn() -> Option<TraceId> + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }

    pub(crate) fn call(&self) -> Option<TraceId> {
        (self.0)()
    }
}

impl fmt::Debug for TraceIdHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TraceIdHook")
    }
}

/// The same function.
impl PartialEq for TraceIdHook {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Version, trace id, parent id and flags, with hyphens between.
const TRACEPARENT_LEN: usize = 55;

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "12345678901234567890123456789012";

    fn id(value: &str) -> Option<String> {
        TraceId::from_traceparent(value).map(|id| id.to_string())
    }

    /// The cases of the W3C's own test suite for trace contexts.
    #[test]
    fn traceparent_is_parsed_as_the_w3c_tests_it() {
        let valid = [
            format!("00-{TRACE}-1234567890123456-01"),
            format!("00-{TRACE}-1234567890123456-ff"),
            format!("cc-{TRACE}-1234567890123456-01"),
            format!("cc-{TRACE}-1234567890123456-01-what-the-future-will-be-like"),
            format!("cc-{TRACE}-1234567890123456-01-"),
        ];
        for value in valid {
            assert_eq!(id(&value).as_deref(), Some(TRACE), "{value}");
        }
        let invalid = [
            String::new(),
            TRACE.to_owned(),
            format!("00-{TRACE}-1234567890123456-01."),
            format!("00-{TRACE}-1234567890123456-01-what-the-future-will-be-like"),
            format!("00-{TRACE}-1234567890123456-01-"),
            format!("cc-{TRACE}-1234567890123456-01.what-the-future-will-be-like"),
            format!("cc-{TRACE}-1234567890123456-0"),
            format!("ff-{TRACE}-1234567890123456-01"),
            format!(".0-{TRACE}-1234567890123456-01"),
            format!("0.-{TRACE}-1234567890123456-01"),
            format!("CC-{TRACE}-1234567890123456-01"),
            format!("0-{TRACE}-1234567890123456-01"),
            format!("000-{TRACE}-1234567890123456-01"),
            format!("00-{}-1234567890123456-01", "0".repeat(32)),
            format!("00-.{}-1234567890123456-01", &TRACE[1..]),
            format!("00-{}.-1234567890123456-01", &TRACE[1..]),
            format!("00-{}-1234567890123456-01", TRACE.replace('1', "A")),
            format!("00-{}-1234567890123456-01", &TRACE[1..]),
            format!("00-{TRACE}0-1234567890123456-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{TRACE}-.234567890123456-01"),
            format!("00-{TRACE}-123456789012345-01"),
            format!("00-{TRACE}-12345678901234560-01"),
            format!("00-{TRACE}-1234567890123456-.0"),
            format!("00-{TRACE}-1234567890123456-0"),
            format!("00-{TRACE}-1234567890123456-F0"),
            format!("00_{TRACE}_1234567890123456_01"),
            format!(" 00-{TRACE}-1234567890123456-01"),
            format!("00-{TRACE}-1234567890123456-0\u{e9}"),
        ];
        for value in invalid {
            assert_eq!(id(&value), None, "{value}");
        }
    }

    #[test]
    fn a_trace_id_of_zeros_is_none() {
        assert_eq!(TraceId::from_bytes([0; 16]), None);
        let bytes = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef_u128.to_be_bytes();
        let id = TraceId::from_bytes(bytes).unwrap();
        assert_eq!(id.to_string(), "0123456789abcdef0123456789abcdef");
        assert_eq!(id.to_bytes(), bytes);
    }
}
