//! Encoding one event as one record: `,{...}`.
//!
//! A record starts with a comma, so that neighbours join into an array by skipping the first one.
//! Invariant: the event's id comes first, always at the same place, so that who holds a record can
//! name its event without reading JSON; `event_data` comes last. On an error nothing is appended.

use std::io::Write;

use uuid::Uuid;

use crate::escape::append_escaped;
use crate::field::{RETENTION_DAYS_DEFAULT, VERSION_DEFAULT};
use crate::{Event, Field, FieldError, Timestamp};

/// What the engine adds to an event when it accepts it.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The event's id.
    pub event_id: Uuid,
    /// Which process (and lane) emits it, in 1 to 100 characters.
    pub producer: &'a str,
    /// The emitter's running number for it.
    pub producer_seq: u64,
    /// The time of recording, for an event that doesn't bring its own.
    pub now: Timestamp,
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

/// Appends the event as one record. Doesn't allocate while `out` has room.
///
/// Absent fields are left out, except those whose defaults a reader would have to know: `version`,
/// `event_timestamp`, `retention_days` and `is_sensitive`.
///
/// ```
/// use ledgerline_codec::{Category, Event, Identity, Json, Outcome, Timestamp, Uuid, encode};
///
/// let data = Json(r#"{"phase":"Classifying"}"#);
/// let event =
///     Event::new("a.b.c", Category::Gateway, "received", Outcome::Success, "rr-1", &data);
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
) -> Result<(), EncodeError> {
    let start = out.len();
    let result = append_record(event, identity, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn append_record(
    event: &Event<'_>,
    identity: &Identity<'_>,
    out: &mut Vec<u8>,
) -> Result<(), FieldError> {
    out.extend_from_slice(RECORD_START);
    let mut id = [0; EVENT_ID_LEN];
    out.extend_from_slice(identity.event_id.hyphenated().encode_lower(&mut id).as_bytes());
    out.push(b'"');
    append_text(Field::Producer, identity.producer, out)?;
    append_integer(Field::ProducerSeq, identity.producer_seq, out);

    append_text(Field::Version, event.version.unwrap_or(VERSION_DEFAULT), out)?;
    append_text(Field::EventType, event.event_type, out)?;
    append_timestamp(Field::EventTimestamp, event.event_timestamp.unwrap_or(identity.now), out);
    append_plain(Field::EventCategory, event.event_category.as_str(), out);
    append_text(Field::EventAction, event.event_action, out)?;
    append_plain(Field::EventOutcome, event.event_outcome.as_str(), out);
    append_text(Field::CorrelationId, event.correlation_id, out)?;

    append_text_if_any(Field::ActorType, event.actor_type, out)?;
    append_text_if_any(Field::ActorId, event.actor_id, out)?;
    if let Some(address) = event.actor_ip {
        out.extend_from_slice(Field::ActorIp.quoted_key());
        write!(out, "{address}\"").expect("writing to a Vec can't fail");
    }
    append_text_if_any(Field::ResourceType, event.resource_type, out)?;
    append_text_if_any(Field::ResourceId, event.resource_id, out)?;
    append_text_if_any(Field::Namespace, event.namespace, out)?;
    append_text_if_any(Field::ClusterId, event.cluster_id, out)?;
    append_text_if_any(Field::Severity, event.severity, out)?;
    if let Some(duration_ms) = event.duration_ms {
        Field::DurationMs.check_range(duration_ms.into())?;
        append_integer(Field::DurationMs, duration_ms, out);
    }
    if let Some(parent) = event.parent_event_id {
        append_plain(Field::ParentEventId, parent.hyphenated().encode_lower(&mut id), out);
    }
    if let Some(date) = event.parent_event_date {
        append_timestamp(Field::ParentEventDate, date, out);
    }
    append_text_if_any(Field::ErrorCode, event.error_code, out)?;
    append_text_if_any(Field::ErrorMessage, event.error_message, out)?;
    let retention_days = event.retention_days.unwrap_or(RETENTION_DAYS_DEFAULT);
    Field::RetentionDays.check_range(retention_days.into())?;
    append_integer(Field::RetentionDays, retention_days, out);
    append_key(Field::IsSensitive, out);
    let is_sensitive = event.is_sensitive.unwrap_or(false);
    out.extend_from_slice(if is_sensitive { b"true" } else { b"false" });

    append_key(Field::EventData, out);
    let appended = event.event_data.append_checked(0, out);
    appended.map_err(|error| Field::EventData.error(error.0))?;
    out.push(b'}');
    Ok(())
}

#[inline]
fn append_key(field: Field, out: &mut Vec<u8>) {
    out.extend_from_slice(field.key());
}

#[inline]
fn append_text(field: Field, text: &str, out: &mut Vec<u8>) -> Result<(), FieldError> {
    field.check_length(text)?;
    out.extend_from_slice(field.quoted_key());
    // Only a text in which something had to be escaped can contain U+0000.
    if append_escaped(text, out) {
        field.check_no_nul(text)?;
    }
    out.push(b'"');
    Ok(())
}

#[inline]
fn append_text_if_any(
    field: Field,
    text: Option<&str>,
    out: &mut Vec<u8>,
) -> Result<(), FieldError> {
    text.map_or(Ok(()), |text| append_text(field, text, out))
}

/// Appends a text that is known to need no escapes.
#[inline]
fn append_plain(field: Field, text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(field.quoted_key());
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

#[inline]
fn append_timestamp(field: Field, timestamp: Timestamp, out: &mut Vec<u8>) {
    out.extend_from_slice(field.quoted_key());
    timestamp.append_to(out);
    out.push(b'"');
}

#[inline]
fn append_integer(field: Field, integer: impl itoa::Integer, out: &mut Vec<u8>) {
    append_key(field, out);
    out.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes());
}

const RECORD_START: &[u8] = b",{\"event_id\":\"";

const EVENT_ID_LEN: usize = 36;

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
        const DATA: &Json<'static> = &Json(r#"{"phase": "Classifying"}"#);
        Event::new("a.b.c", Category::AiAgent, "received", Outcome::Pending, "rr-1", DATA)
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
