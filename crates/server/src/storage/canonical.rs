//! The canonical bytes of an event: what its digest covers, and what storing it reads.
//!
//! Each field in the order of [`FIELDS`], each as its length (four bytes, little-endian, -1 when
//! absent) and its bytes: an id's 16, an integer's 8 little-endian, a text's UTF-8. The lengths
//! make the encoding injective: no two events that differ share their bytes.
//!
//! Invariant: order and forms never change under one [`FORMAT`]; they are made from what is stored,
//! so they can be made again from a row. Limit: what may change after storing (retention, holds)
//! is left out.

use std::fmt::Write as _;

use ledgerline_codec::parse::ParsedEvent;
use rusqlite::types::{ToSqlOutput, ValueRef};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// SHA-256 over [`FORMAT`] and the canonical bytes.
pub(crate) type Digest = [u8; 32];

/// An event in its stored form: the sender's fields, with the defaults filled in.
#[derive(Debug)]
pub(crate) struct CanonicalEvent<'a> {
    pub(crate) event: &'a ParsedEvent<'a>,
    pub(crate) event_id: Uuid,
    /// The parent's date as sent, if the parent isn't named: a named one's own date is stored.
    pub(crate) parent_event_day: Option<i64>,
}

/// The name of a field's column, and the form of its value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Id,
    Integer,
    Text,
}

impl CanonicalEvent<'_> {
    /// Appends the canonical bytes and returns their digest.
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) -> Digest {
        let start = out.len();
        self.append_fields(out);
        let mut hasher = Sha256::new();
        hasher.update([FORMAT]);
        hasher.update(&out[start..]);
        hasher.finalize().into()
    }

    fn append_fields(&self, out: &mut Vec<u8>) {
        let event = self.event;
        let category = event.event_category.as_str();
        append_bytes(Some(self.event_id.as_bytes()), out);
        append_integer(Some(event.event_timestamp.micros()), out);
        append_text(Some(event.version), out);
        append_text(Some(event.event_type), out);
        append_text(Some(category), out);
        append_text(Some(event.event_action), out);
        append_text(Some(event.event_outcome.as_str()), out);
        append_text(Some(event.correlation_id), out);
        append_text(Some(event.actor_type.unwrap_or("service")), out);
        match event.actor_id {
            Some(actor_id) => append_text(Some(actor_id), out),
            None => append_text(Some(&format!("{category}-service")), out),
        }
        let mut address = String::new();
        if let Some(ip) = event.actor_ip {
            write!(address, "{ip}").expect("writing to a String doesn't fail");
        }
        append_text((!address.is_empty()).then_some(&*address), out);
        append_text(Some(event.resource_type.unwrap_or(category)), out);
        append_text(Some(event.resource_id.unwrap_or(event.correlation_id)), out);
        append_text(event.namespace, out);
        append_text(event.cluster_id, out);
        append_text(Some(event.severity.unwrap_or("info")), out);
        append_integer(event.duration_ms.map(i64::from), out);
        append_bytes(event.parent_event_id.as_ref().map(|id| &id.as_bytes()[..]), out);
        append_integer(self.parent_event_day, out);
        append_text(event.error_code, out);
        append_text(event.error_message, out);
        append_integer(Some(i64::from(event.is_sensitive)), out);
        append_text(event.producer, out);
        append_integer(event.producer_seq.map(u64::cast_signed), out);
        append_text(Some(event.event_data), out);
    }
}

/// Takes canonical bytes apart again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of one event.
    pub(super) const fn of(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Each field's place in [`FIELDS`] and its value as the database takes it.
    pub(super) fn values(self) -> impl Iterator<Item = (usize, ToSqlOutput<'a>)> {
        let mut rest = self.bytes;
        FIELDS.iter().enumerate().map(move |(place, field)| {
            let value = match split_field(&mut rest) {
                None => ValueRef::Null,
                Some(bytes) => match field.kind {
                    Kind::Id => ValueRef::Blob(bytes),
                    Kind::Integer => ValueRef::Integer(integer(bytes)),
                    Kind::Text => ValueRef::Text(bytes),
                },
            };
            (place, ToSqlOutput::Borrowed(value))
        })
    }

    /// The bytes of the field at this place.
    fn bytes_at(self, place: usize) -> &'a [u8] {
        let mut rest = self.bytes;
        for _ in 0..place {
            split_field(&mut rest);
        }
        split_field(&mut rest).unwrap_or_default()
    }

    pub(super) fn correlation_id(self) -> &'a [u8] {
        self.bytes_at(CORRELATION_ID)
    }
}

fn append_bytes(bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    let Some(bytes) = bytes else {
        out.extend_from_slice(&ABSENT.to_le_bytes());
        return;
    };
    let length = i32::try_from(bytes.len()).expect("a field is far below 2 GiB: bodies are");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn append_text(text: Option<&str>, out: &mut Vec<u8>) {
    append_bytes(text.map(str::as_bytes), out);
}

fn append_integer(integer: Option<i64>, out: &mut Vec<u8>) {
    append_bytes(integer.map(i64::to_le_bytes).as_ref().map(|bytes| &bytes[..]), out);
}

/// Cuts the next field off; `None` if it is absent.
fn split_field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk::<4>().expect("the bytes hold every field");
    let length = i32::from_le_bytes(*length);
    let (field, behind) = behind.split_at(usize::try_from(length).unwrap_or(0));
    *rest = behind;
    (length != ABSENT).then_some(field)
}

fn integer(bytes: &[u8]) -> i64 {
    i64::from_le_bytes(bytes.try_into().expect("an integer has 8 bytes"))
}

const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind }
}

/// The fields in their order, by the names of their columns.
pub(super) const FIELDS: [Field; 25] = [
    field("event_id", Kind::Id),
    field("event_timestamp", Kind::Integer),
    field("version", Kind::Text),
    field("event_type", Kind::Text),
    field("event_category", Kind::Text),
    field("event_action", Kind::Text),
    field("event_outcome", Kind::Text),
    field("correlation_id", Kind::Text),
    field("actor_type", Kind::Text),
    field("actor_id", Kind::Text),
    field("actor_ip", Kind::Text),
    field("resource_type", Kind::Text),
    field("resource_id", Kind::Text),
    field("namespace", Kind::Text),
    field("cluster_id", Kind::Text),
    field("severity", Kind::Text),
    field("duration_ms", Kind::Integer),
    field("parent_event_id", Kind::Id),
    field("parent_event_date", Kind::Integer),
    field("error_code", Kind::Text),
    field("error_message", Kind::Text),
    field("is_sensitive", Kind::Integer),
    field("producer", Kind::Text),
    field("producer_seq", Kind::Integer),
    field("event_data", Kind::Text),
];

/// Where the correlation id stands: it has a table of its own.
pub(super) const CORRELATION_ID: usize = 7;

/// Where the parent's date stands: a named parent's own date takes its place.
pub(super) const PARENT_EVENT_DATE: usize = 18;

/// The first byte under the digest.
const FORMAT: u8 = 1;

/// The length of a field that isn't there.
const ABSENT: i32 = -1;

#[cfg(test)]
mod tests {
    use ledgerline_codec::parse::{Scratch, parse_event};
    use serde_json::{Value, json};

    use super::*;

    fn event() -> Value {
        json!({
            "event_id": "01990000-0000-7000-8000-000000000001",
            "event_timestamp": "2026-11-21T06:40:12.318402Z", "version": "1.0",
            "event_type": "a.b", "event_category": "gateway", "event_action": "received",
            "event_outcome": "success", "correlation_id": "rr-1", "actor_type": "user",
            "actor_id": "u1", "actor_ip": "10.0.0.1", "resource_type": "Pod", "resource_id": "p1",
            "namespace": "ns", "cluster_id": "c1", "severity": "high", "duration_ms": 17,
            "parent_event_id": "01990000-0000-7000-8000-000000000002", "error_code": "E1",
            "error_message": "broke", "is_sensitive": true, "producer": "pod-1/0",
            "producer_seq": 9, "event_data": {"a": 1},
        })
    }

    fn canonical(event: &Value) -> (Vec<u8>, Digest) {
        let body = event.to_string();
        let mut scratch = Scratch::default();
        let event = parse_event(body.as_bytes(), &mut scratch).unwrap();
        let event_id = event.event_id.unwrap();
        let mut bytes = Vec::new();
        let canonical = CanonicalEvent { event: &event, event_id, parent_event_day: None };
        let digest = canonical.append_to(&mut bytes);
        (bytes, digest)
    }

    #[test]
    fn every_field_counts_and_what_may_change_later_does_not() {
        let (_, digest) = canonical(&event());
        let changes = json!({
            "event_id": "01990000-0000-7000-8000-000000000009",
            "event_timestamp": "2026-11-21T06:40:12.318403Z", "version": "1.1",
            "event_type": "a.c", "event_category": "security", "event_action": "sent",
            "event_outcome": "failure", "correlation_id": "rr-2", "actor_type": "service",
            "actor_id": "u2", "actor_ip": "10.0.0.2", "resource_type": "Job", "resource_id": "p2",
            "namespace": null, "cluster_id": "c2", "severity": "low", "duration_ms": 0,
            "parent_event_id": null, "error_code": "E2", "error_message": null,
            "is_sensitive": false, "producer": "pod-1/1", "producer_seq": 10,
            "event_data": {"a": 1.0},
        });
        for (name, value) in changes.as_object().unwrap() {
            let mut changed = event();
            changed[name] = value.clone();
            assert_ne!(canonical(&changed).1, digest, "{name}");
        }
        let mut changed = event();
        changed["retention_days"] = json!(30);
        assert_eq!(canonical(&changed).1, digest);
    }

    #[test]
    fn no_field_of_the_wire_is_forgotten() {
        let mut wire: Vec<_> =
            ledgerline_codec::Field::ALL.iter().map(|field| field.name()).collect();
        wire.retain(|name| *name != "retention_days");
        let mut canonical: Vec<_> = FIELDS.iter().map(|field| field.name).collect();
        wire.sort_unstable();
        canonical.sort_unstable();
        assert_eq!(canonical, wire);
    }

    #[test]
    fn a_field_s_end_can_t_be_moved_into_its_neighbour() {
        let mut first = event();
        first["resource_type"] = json!("ab");
        first["resource_id"] = json!("c");
        let mut second = event();
        second["resource_type"] = json!("a");
        second["resource_id"] = json!("bc");
        assert_ne!(canonical(&first).1, canonical(&second).1);
    }

    #[test]
    fn an_absent_field_means_the_same_as_its_default() {
        let mut absent = event();
        let mut given = event();
        for (name, value) in [
            ("actor_type", "service"),
            ("actor_id", "gateway-service"),
            ("resource_type", "gateway"),
            ("resource_id", "rr-1"),
            ("severity", "info"),
        ] {
            absent.as_object_mut().unwrap().remove(name);
            given[name] = json!(value);
        }
        assert_eq!(canonical(&absent), canonical(&given));
    }

    #[test]
    fn the_bytes_are_taken_apart_into_the_fields_they_were_made_of() {
        let (bytes, _) = canonical(&event());
        let fields = Fields::of(&bytes);
        assert_eq!(fields.correlation_id(), b"rr-1");
        let values: Vec<_> = fields.values().collect();
        assert_eq!(values.len(), FIELDS.len());
        let text = |text: &'static str| ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes()));
        let integer = |integer| ToSqlOutput::Borrowed(ValueRef::Integer(integer));
        let expected = [
            ("event_timestamp", integer(1_795_243_212_318_402)),
            ("correlation_id", text("rr-1")),
            ("actor_ip", text("10.0.0.1")),
            ("duration_ms", integer(17)),
            ("parent_event_date", ToSqlOutput::Borrowed(ValueRef::Null)),
            ("is_sensitive", integer(1)),
            ("event_data", text("{\"a\":1}")),
        ];
        for (name, value) in expected {
            let place = FIELDS.iter().position(|field| field.name == name).unwrap();
            assert_eq!(values[place], (place, value), "{name}");
        }
        assert_eq!(FIELDS[CORRELATION_ID].name, "correlation_id");
        assert_eq!(FIELDS[PARENT_EVENT_DATE].name, "parent_event_date");
    }

    #[test]
    fn the_digest_of_format_1_stays_what_it_is() {
        let (bytes, digest) = canonical(&event());
        assert_eq!(bytes[..4], 16_i32.to_le_bytes());
        assert_eq!(bytes[20..24], 8_i32.to_le_bytes());
        let mut text = String::new();
        for byte in digest {
            write!(text, "{byte:02x}").unwrap();
        }
        assert_eq!(text, "4986ecef185e0cef95be5fc557d0c3e6e0aa867dc82dbb39b52868a7e983cc0f");
    }
}
