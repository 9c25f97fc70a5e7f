//! Encoding one event as one record: `,{...}`.
//!
//! A record starts with a comma, so that neighbours join into an array by skipping the first one.
//! Invariant: the event's id comes first, always at the same place, so that who holds a record can
//! name its event without reading JSON; `event_data` comes last. On an error nothing is appended.

use std::io::Write;
use std::net::IpAddr;

use memchr::memchr_iter;
use uuid::Uuid;

use crate::escape::{Best, Cursor};
use crate::field::RETENTION_DAYS_DEFAULT;
use crate::special::{Portable, Scan};
use crate::{Event, Field, FieldError, Timestamp};

/// What the engine adds to an event when it accepts it.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The event's id, for an event that doesn't bring its own.
    pub event_id: Uuid,
    /// Which process (and lane) emits it, in 1 to 100 characters.
    pub producer: &'a str,
    /// The emitter's running number for it.
    pub producer_seq: u64,
    /// The time of recording, for an event that doesn't bring its own.
    pub now: Timestamp,
}

/// What [`encode`] has appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Encoded {
    /// Where in the buffer the text of the correlation id starts; None if something in it had to
    /// be escaped. So that who keeps the record needn't search for it.
    pub correlation_id_at: Option<usize>,
}

/// Why an event can't become a record: one of its fields can't be stored.
pub type EncodeError = FieldError;

/// Where the text of the event's id starts in a record.
pub const EVENT_ID_OFFSET: usize = RECORD_START.len();

/// The text of the event's id in a record: 36 bytes, lower case. `None` for what is no record.
#[must_use]
pub fn event_id_text(record: &[u8]) -> Option<&[u8]> {
    record.strip_prefix(RECORD_START)?.get(..EVENT_ID_LEN)
}

/// The text of a field in a record, as JSON has it between its quotation marks. `None` if the
/// record doesn't have the field, or not as a text. Searches: for when things have gone wrong.
///
/// The fields before `event_data` are ours, and a quotation mark in one of them is escaped: what
/// looks like the beginning of a field is one.
#[must_use]
pub fn field_text(record: &[u8], field: Field) -> Option<&str> {
    // Each key begins with a comma.
    let (key, data) = (field.quoted_key(), Field::EventData.key());
    let is_either = |at: &usize| [key, data].iter().any(|it| record[*at..].starts_with(it));
    let at = memchr_iter(b',', record).find(is_either)?;
    let start = record[at..].starts_with(key).then_some(at + key.len())?;
    let mut is_escaped = false;
    let end = record[start..].iter().position(|byte| {
        let is_end = *byte == b'"' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        is_end
    })?;
    std::str::from_utf8(&record[start..start + end]).ok()
}

/// Appends the event as one record. Doesn't allocate while `out` has room.
///
/// Absent fields are left out, except those whose defaults a reader would have to know: `version`,
/// `event_timestamp`, `retention_days` and `is_sensitive`.
///
/// ```
/// use ledgerline_codec::{Category, Event, Identity, Json, Outcome, Timestamp, Uuid, encode};
///
/// let data = Json(r#"{"phase":"Classifying"}"#);
/// let event = Event::new("gateway.signal.received", Category::Gateway, Outcome::Success)
///     .with_correlation_id("rr-1")
///     .with_data(&data);
/// let identity = Identity {
///     event_id: Uuid::nil(),
///     producer: "gateway-0",
///     producer_seq: 1,
///     now: Timestamp::from_micros(0).unwrap(),
/// };
/// let mut records = Vec::new();
/// encode(&event, &identity, &mut records)?;
/// assert!(records.starts_with(br#",{"event_id":"00000000-"#));
/// # Ok::<(), ledgerline_codec::EncodeError>(())
/// ```
///
/// # Errors
/// The first field that can't be stored; `out` is then as it was.
pub fn encode(
    event: &Event<'_>,
    identity: &Identity<'_>,
    out: &mut Vec<u8>,
) -> Result<Encoded, EncodeError> {
    append_record::<Best>(event, identity, out)
}

/// As [`encode`], as machines without SIMD of ours do it; for comparison.
///
/// # Errors
/// As [`encode`].
#[doc(hidden)]
pub fn encode_portable(
    event: &Event<'_>,
    identity: &Identity<'_>,
    out: &mut Vec<u8>,
) -> Result<Encoded, EncodeError> {
    append_record::<Portable>(event, identity, out)
}

#[inline(always)]
fn append_record<S: Scan>(
    event: &Event<'_>,
    identity: &Identity<'_>,
    out: &mut Vec<u8>,
) -> Result<Encoded, FieldError> {
    let start = out.len();
    let result = append_parts::<S>(event, identity, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

#[inline(always)]
fn append_parts<S: Scan>(
    event: &Event<'_>,
    identity: &Identity<'_>,
    out: &mut Vec<u8>,
) -> Result<Encoded, FieldError> {
    let mut record = Record(Cursor::<S>::new(out));
    let encoded = record.fields(event, identity)?;
    record.0.finish();
    let appended = event.event_data.append_checked(0, out);
    appended.map_err(|error| Field::EventData.error(error.0))?;
    out.push(b'}');
    Ok(encoded)
}

/// A record that is being written.
struct Record<'a, S>(Cursor<'a, S>);

impl<S: Scan> Record<'_, S> {
    /// Appends everything up to the text of `event_data`.
    #[inline(always)]
    fn fields(
        &mut self,
        event: &Event<'_>,
        identity: &Identity<'_>,
    ) -> Result<Encoded, FieldError> {
        let event_id = event.event_id.unwrap_or(identity.event_id);
        self.0.bytes(RECORD_START, hyphenated(event_id), b"\"");
        self.text(Field::Producer, identity.producer)?;
        self.integer(Field::ProducerSeq, identity.producer_seq);

        match event.version {
            None => _ = self.0.bytes(VERSION, [], b""),
            Some(version) => _ = self.text(Field::Version, version)?,
        }
        self.text(Field::EventType, event.event_type)?;
        self.timestamp(Field::EventTimestamp, event.event_timestamp.unwrap_or(identity.now));
        let category = event.event_category;
        category.check().map_err(|problem| Field::EventCategory.error(problem))?;
        self.plain(Field::EventCategory, category.as_str());
        self.text(Field::EventAction, event.event_action)?;
        self.plain(Field::EventOutcome, event.event_outcome.as_str());
        let at = self.0.len() + Field::CorrelationId.quoted_key().len();
        let is_escaped = self.text(Field::CorrelationId, event.correlation_id)?;
        let encoded = Encoded { correlation_id_at: (!is_escaped).then_some(at) };

        self.text_if_any(Field::ActorType, event.actor_type)?;
        self.text_if_any(Field::ActorId, event.actor_id)?;
        if let Some(address) = event.actor_ip {
            self.address(Field::ActorIp, address);
        }
        self.text_if_any(Field::ResourceType, event.resource_type)?;
        self.text_if_any(Field::ResourceId, event.resource_id)?;
        self.text_if_any(Field::Namespace, event.namespace)?;
        self.text_if_any(Field::ClusterId, event.cluster_id)?;
        self.text_if_any(Field::Severity, event.severity)?;
        if let Some(duration_ms) = event.duration_ms {
            Field::DurationMs.check_range(duration_ms.into())?;
            self.integer(Field::DurationMs, duration_ms);
        }
        if let Some(parent) = event.parent_event_id {
            self.0.bytes(Field::ParentEventId.quoted_key(), hyphenated(parent), b"\"");
        }
        if let Some(date) = event.parent_event_date {
            self.timestamp(Field::ParentEventDate, date);
        }
        self.text_if_any(Field::ErrorCode, event.error_code)?;
        self.text_if_any(Field::ErrorMessage, event.error_message)?;
        if event.retention_days.is_none() && event.is_sensitive.is_none() {
            self.0.bytes(END, [], b"");
            return Ok(encoded);
        }
        let retention_days = event.retention_days.unwrap_or(RETENTION_DAYS_DEFAULT);
        Field::RetentionDays.check_range(retention_days.into())?;
        self.integer(Field::RetentionDays, retention_days);
        let is_sensitive = event.is_sensitive.unwrap_or(false);
        self.0.plain(Field::IsSensitive.key(), if is_sensitive { "true" } else { "false" }, b"");
        self.0.bytes(Field::EventData.key(), [], b"");
        Ok(encoded)
    }

    /// Appends a text, and says whether something in it had to be escaped.
    #[inline(always)]
    fn text(&mut self, field: Field, text: &str) -> Result<bool, FieldError> {
        field.check_length(text)?;
        let is_escaped = self.0.string(field.quoted_key(), text);
        // Only a text in which something had to be escaped can contain U+0000.
        if is_escaped {
            field.check_no_nul(text)?;
        }
        Ok(is_escaped)
    }

    #[inline(always)]
    fn text_if_any(&mut self, field: Field, text: Option<&str>) -> Result<(), FieldError> {
        let Some(text) = text else { return Ok(()) };
        self.text(field, text).map(drop)
    }

    /// Appends a text that is known to need no escapes.
    #[inline(always)]
    fn plain(&mut self, field: Field, text: &str) {
        self.0.plain(field.quoted_key(), text, b"\"");
    }

    #[inline(always)]
    fn timestamp(&mut self, field: Field, timestamp: Timestamp) {
        timestamp.write_to(self.0.bytes(field.quoted_key(), Timestamp::TEMPLATE, b"\""));
    }

    #[inline(always)]
    fn integer(&mut self, field: Field, integer: impl itoa::Integer) {
        self.0.plain(field.key(), itoa::Buffer::new().format(integer), b"");
    }

    #[inline(always)]
    fn address(&mut self, field: Field, address: IpAddr) {
        self.0.bytes(field.quoted_key(), [], b"");
        self.0.append(|out| append_address(address, out));
    }
}

#[cold]
fn append_address(address: IpAddr, out: &mut Vec<u8>) {
    write!(out, "{address}\"").expect("writing to a Vec can't fail");
}

/// The text of an id: 8, 4, 4, 4 and 12 hexadecimal digits, with hyphens between.
#[inline(always)]
fn hyphenated(id: Uuid) -> [u8; EVENT_ID_LEN] {
    let id = id.as_u128();
    let mut text = [b'-'; EVENT_ID_LEN];
    text[..8].copy_from_slice(&hex_digits((id >> 96) as u32));
    let digits = hex_digits((id >> 64) as u32);
    text[9..13].copy_from_slice(&digits[..4]);
    text[14..18].copy_from_slice(&digits[4..]);
    let digits = hex_digits((id >> 32) as u32);
    text[19..23].copy_from_slice(&digits[..4]);
    text[24..28].copy_from_slice(&digits[4..]);
    text[28..].copy_from_slice(&hex_digits(id as u32));
    text
}

/// Eight digits at once, each in a byte of its own.
#[inline(always)]
const fn hex_digits(number: u32) -> [u8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut digits = number as u64;
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & (0x0f * ONES);
    let letters = (digits + 6 * ONES) >> 4 & ONES;
    (digits + b'0' as u64 * ONES + letters * (b'a' - b'0' - 10) as u64).to_be_bytes()
}

const RECORD_START: &[u8] = b",{\"event_id\":\"";

const EVENT_ID_LEN: usize = 36;

/// What most events leave to its default is a constant.
const VERSION: &[u8] = b",\"version\":\"1.0\"";
const END: &[u8] = b",\"retention_days\":2555,\"is_sensitive\":false,\"event_data\":";
const _: () = assert!(RETENTION_DAYS_DEFAULT == 2555);

// Readers of stored records rely on the place.
const _: () = assert!(EVENT_ID_OFFSET == 14);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Category, Json, Outcome, Problem};

    const ID: Uuid = Uuid::from_u128(0x0190_abcd_ef01_7000_8000_0123_4567_89ab);

    fn identity() -> Identity<'static> {
        let now = Timestamp::from_micros(1_795_243_212_318_402).unwrap();
        Identity { event_id: ID, producer: "gateway-0/3", producer_seq: u64::MAX, now }
    }

    fn event() -> Event<'static> {
        Event::new("a.b.c", Category::AiAgent, Outcome::Pending)
            .with_action("received")
            .with_correlation_id("rr-1")
            .with_data(&Json(r#"{"phase": "Classifying"}"#))
    }

    fn record_of(event: &Event<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        encode(event, &identity(), &mut out).unwrap();
        out
    }

    #[test]
    fn a_bare_event_carries_its_identity_and_the_defaults() {
        let wanted = concat!(
            r#",{"event_id":"0190abcd-ef01-7000-8000-0123456789ab","producer":"gateway-0/3","#,
            r#""producer_seq":18446744073709551615,"version":"1.0","event_type":"a.b.c","#,
            r#""event_timestamp":"2026-11-21T06:40:12.318402Z","event_category":"aiagent","#,
            r#""event_action":"received","event_outcome":"pending","correlation_id":"rr-1","#,
            r#""retention_days":2555,"is_sensitive":false,"event_data":{"phase": "Classifying"}}"#,
        );
        assert_eq!(String::from_utf8(record_of(&event())).unwrap(), wanted);
    }

    #[test]
    fn every_field_is_written_as_serde_json_would_write_it() {
        let odd = "\"\\/\u{0}\u{1f}\u{7f}\u{e9}\u{2028}\u{10ffff}\n".replace('\0', "");
        let full = Event {
            version: Some("2"),
            event_timestamp: Timestamp::from_micros(-1),
            actor_type: Some(&odd),
            actor_id: Some(""),
            actor_ip: Some("2001:db8::1".parse().unwrap()),
            resource_type: Some("Signal"),
            resource_id: Some(&odd),
            namespace: Some("payments"),
            cluster_id: Some("prod"),
            severity: Some("info"),
            duration_ms: Some(i32::MAX),
            parent_event_id: Some(Uuid::max()),
            parent_event_date: Some(Timestamp::EPOCH),
            error_code: Some("E1"),
            error_message: Some(&odd),
            retention_days: Some(1),
            is_sensitive: Some(true),
            ..event()
        };
        let wanted = json!({
            "event_id": ID.to_string(), "producer": "gateway-0/3", "producer_seq": u64::MAX,
            "version": "2",
            "event_type": "a.b.c", "event_timestamp": "1969-12-31T23:59:59.999999Z",
            "event_category": "aiagent", "event_action": "received", "event_outcome": "pending",
            "correlation_id": "rr-1", "actor_type": odd, "actor_id": "", "actor_ip": "2001:db8::1",
            "resource_type": "Signal", "resource_id": odd, "namespace": "payments",
            "cluster_id": "prod", "severity": "info", "duration_ms": i32::MAX,
            "parent_event_id": Uuid::max().to_string(),
            "parent_event_date": "1970-01-01T00:00:00.000000Z",
            "error_code": "E1", "error_message": odd, "retention_days": 1, "is_sensitive": true,
            "event_data": {"phase": "Classifying"},
        });
        let record = record_of(&full);
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&record[1..]).unwrap(), wanted);
        assert_eq!(Field::ALL.len(), wanted.as_object().unwrap().len());
    }

    #[test]
    fn a_text_field_is_found_in_a_record_as_it_was_escaped() {
        let data = Json(r#"{"a":",\"event_action\":\"none\"","resource_id":"not this"}"#);
        let tricky = "\",\"resource_id\":\"no\\";
        let event = Event { actor_id: Some(tricky), event_data: &data, ..event() };
        let record = record_of(&event);
        assert_eq!(field_text(&record, Field::EventAction), Some("received"));
        let quoted = serde_json::to_string(tricky).unwrap();
        assert_eq!(field_text(&record, Field::ActorId), Some(&quoted[1..quoted.len() - 1]));
        assert_eq!(field_text(&record, Field::ResourceId), None);
        assert_eq!(field_text(b",{}", Field::EventAction), None);
    }

    #[test]
    fn the_id_is_found_in_a_record_and_in_nothing_else() {
        let record = record_of(&event());
        let id = event_id_text(&record).unwrap();
        assert_eq!(id, ID.to_string().as_bytes());
        assert_eq!(&record[EVENT_ID_OFFSET..][..36], id);
        assert_eq!(event_id_text(&record[1..]), None);
        assert_eq!(event_id_text(&record[..49]), None);
        assert_eq!(event_id_text(b""), None);
    }

    #[test]
    fn the_place_of_the_correlation_id_is_told() {
        let mut out = Vec::new();
        for id in ["rr-1", "\u{1f512}"] {
            let event = event().with_correlation_id(id).with_action(id).with_actor_id("\n");
            let at = encode(&event, &identity(), &mut out).unwrap().correlation_id_at.unwrap();
            assert!(out[..at].ends_with(br#","correlation_id":""#));
            assert!(out[at..].starts_with(format!("{id}\"").as_bytes()));
        }
        let escaped = event().with_correlation_id("with \"escapes\"");
        assert_eq!(encode(&escaped, &identity(), &mut out).unwrap().correlation_id_at, None);
    }

    #[test]
    fn neighbours_join_into_an_array() {
        let mut out = Vec::new();
        for _ in 0..3 {
            encode(&event(), &identity(), &mut out).unwrap();
        }
        out[0] = b'[';
        out.push(b']');
        let events = serde_json::from_slice::<Vec<serde_json::Value>>(&out).unwrap();
        assert_eq!(events.len(), 3);
    }

    #[test]
    fn an_error_leaves_nothing_behind() {
        let bad_data = Json(r#"{"a":"\u0000"}"#);
        let too_long = "x".repeat(51);
        let bad_events = [
            Event { event_data: &bad_data, ..event() },
            Event { error_code: Some(&too_long), ..event() },
            Event { duration_ms: Some(-1), ..event() },
        ];
        for event in bad_events {
            let mut out = b",{}".to_vec();
            encode(&event, &identity(), &mut out).unwrap_err();
            assert_eq!(out, b",{}");
        }
    }

    #[test]
    fn an_error_names_the_field_the_limit_and_what_was_given() {
        let event = Event { retention_days: Some(2556), ..event() };
        let error = encode(&event, &identity(), &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "retention_days is 2556, allowed is 1 to 2555");
        let problem = Problem::OutOfRange { given: 2556, min: 1, max: 2555 };
        assert_eq!(error, FieldError { field: Field::RetentionDays, problem });
    }
}
