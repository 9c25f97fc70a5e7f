//! An event that owns what it consists of: for queues, files and tests.
//!
//! Invariant: it has every field that a caller can set, and its JSON is an event's on the wire, so
//! that what one process writes another can read and record. Limit: `event_data` is kept as its
//! text, which only JSON can carry: other serde formats may not read back what they wrote.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Category, Event, Field, FieldError, Json, Outcome, Problem, Timestamp};

/// An [`Event`] with owned fields, which serde writes and reads as the JSON of the wire.
///
/// Absent fields are left out; unknown ones are ignored, and only the data of an event that was
/// made from another is checked: as for every event, recording checks the rest.
///
/// ```
/// use ledgerline_codec::{Category, Event, Outcome, OwnedEvent};
/// use serde_json::json;
///
/// let data = json!({"order": 7});
/// let event = Event::new("shop.order.paid", Category::Other("shop"), Outcome::Success)
///     .with_correlation_id("order-7")
///     .with_data(&data);
/// let queued = serde_json::to_string(&OwnedEvent::try_from(&event)?)?;
///
/// let owned: OwnedEvent = serde_json::from_str(&queued)?;
/// assert_eq!(owned.event_action, "paid");
/// let event = owned.as_event(); // to be recorded
/// assert_eq!(event.event_category, Category::Other("shop"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OwnedEvent {
    /// See [`Event::event_type`].
    pub event_type: String,
    /// See [`Event::event_category`]. A text that is no category is refused when it is recorded.
    pub event_category: String,
    /// See [`Event::event_action`].
    pub event_action: String,
    /// See [`Event::event_outcome`].
    pub event_outcome: Outcome,
    /// See [`Event::correlation_id`].
    pub correlation_id: String,
    /// See [`Event::event_id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Uuid>,
    /// See [`Event::version`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// See [`Event::event_timestamp`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_timestamp: Option<Timestamp>,
    /// See [`Event::actor_type`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_type: Option<String>,
    /// See [`Event::actor_id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_id: Option<String>,
    /// See [`Event::actor_ip`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_ip: Option<IpAddr>,
    /// See [`Event::resource_type`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_type: Option<String>,
    /// See [`Event::resource_id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_id: Option<String>,
    /// See [`Event::namespace`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// See [`Event::cluster_id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// See [`Event::severity`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// See [`Event::duration_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<i32>,
    /// See [`Event::parent_event_id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_event_id: Option<Uuid>,
    /// See [`Event::parent_event_date`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_event_date: Option<Timestamp>,
    /// See [`Event::error_code`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
    /// See [`Event::error_message`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// See [`Event::retention_days`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u16>,
    /// See [`Event::is_sensitive`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_sensitive: Option<bool>,
    /// See [`Event::event_data`]: the text of the object, byte for byte.
    #[serde(with = "as_raw")]
    pub event_data: Json<String>,
}

impl OwnedEvent {
    /// The event, borrowed: to be recorded, or changed with its `with_` methods.
    #[must_use]
    pub fn as_event(&self) -> Event<'_> {
        Event {
            event_type: &self.event_type,
            event_category: Category::from(self.event_category.as_str()),
            event_action: &self.event_action,
            event_outcome: self.event_outcome,
            correlation_id: &self.correlation_id,
            event_data: &self.event_data,
            event_id: self.event_id,
            version: self.version.as_deref(),
            event_timestamp: self.event_timestamp,
            actor_type: self.actor_type.as_deref(),
            actor_id: self.actor_id.as_deref(),
            actor_ip: self.actor_ip,
            resource_type: self.resource_type.as_deref(),
            resource_id: self.resource_id.as_deref(),
            namespace: self.namespace.as_deref(),
            cluster_id: self.cluster_id.as_deref(),
            severity: self.severity.as_deref(),
            duration_ms: self.duration_ms,
            parent_event_id: self.parent_event_id,
            parent_event_date: self.parent_event_date,
            error_code: self.error_code.as_deref(),
            error_message: self.error_message.as_deref(),
            retention_days: self.retention_days,
            is_sensitive: self.is_sensitive,
        }
    }
}

/// Copies the event. Fails only if its data can't be stored.
impl TryFrom<&Event<'_>> for OwnedEvent {
    type Error = FieldError;

    fn try_from(event: &Event<'_>) -> Result<Self, FieldError> {
        let mut data = Vec::new();
        let appended = event.event_data.append_checked(0, &mut data);
        appended.map_err(|error| Field::EventData.error(error.0))?;
        let data = String::from_utf8(data).map_err(|error| {
            let offset = error.utf8_error().valid_up_to();
            Field::EventData.error(Problem::InvalidJson { offset, expected: "UTF-8" })
        })?;
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Ok(Self {
            event_type: event.event_type.to_owned(),
            event_category: event.event_category.to_string(),
            event_action: event.event_action.to_owned(),
            event_outcome: event.event_outcome,
            correlation_id: event.correlation_id.to_owned(),
            event_id: event.event_id,
            version: owned(event.version),
            event_timestamp: event.event_timestamp,
            actor_type: owned(event.actor_type),
            actor_id: owned(event.actor_id),
            actor_ip: event.actor_ip,
            resource_type: owned(event.resource_type),
            resource_id: owned(event.resource_id),
            namespace: owned(event.namespace),
            cluster_id: owned(event.cluster_id),
            severity: owned(event.severity),
            duration_ms: event.duration_ms,
            parent_event_id: event.parent_event_id,
            parent_event_date: event.parent_event_date,
            error_code: owned(event.error_code),
            error_message: owned(event.error_message),
            retention_days: event.retention_days,
            is_sensitive: event.is_sensitive,
            event_data: Json(data),
        })
    }
}

/// JSON text as part of the JSON around it, byte for byte.
mod as_raw {
    use serde::de::{Deserialize, Deserializer};
    use serde::ser::{Error, Serialize, Serializer};
    use serde_json::value::RawValue;

    use crate::Json;

    pub(super) fn serialize<S: Serializer>(
        data: &Json<String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&data.0).map_err(S::Error::custom)?;
        raw.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Json<String>, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Json(String::from(Box::<str>::from(raw))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Identity, encode};

    fn full() -> OwnedEvent {
        let event = Event::new("shop.order.paid", Category::Other("shop"), Outcome::Pending)
            .with_action("pay")
            .with_correlation_id("rr-\"1\"")
            .with_data(&Json(r#" {"n": 1.50, "big": 12345678901234567890123} "#))
            .with_id(Uuid::from_u128(7))
            .with_version("2")
            .with_timestamp(Timestamp::EPOCH)
            .with_actor_type("user")
            .with_actor_id("u-1")
            .with_actor_ip(IpAddr::from([192, 0, 2, 1]))
            .with_resource_type("Order")
            .with_resource_id("o-1")
            .with_namespace("payments")
            .with_cluster_id("prod")
            .with_severity("info")
            .with_duration_ms(12)
            .with_parent_event_id(Uuid::max())
            .with_parent_event_date(Timestamp::EPOCH)
            .with_error_code("E1")
            .with_error_message("none")
            .with_retention_days(30)
            .with_is_sensitive(true);
        OwnedEvent::try_from(&event).unwrap()
    }

    fn record_of(event: &Event<'_>) -> Vec<u8> {
        let identity = Identity {
            event_id: Uuid::nil(),
            producer: "p",
            producer_seq: 1,
            now: Timestamp::EPOCH,
        };
        let mut record = Vec::new();
        encode(event, &identity, &mut record).unwrap();
        record
    }

    #[test]
    fn every_field_passes_through_json() {
        let owned = full();
        let text = serde_json::to_string(&owned).unwrap();
        let read: OwnedEvent = serde_json::from_str(&text).unwrap();
        assert_eq!(read, owned);
        let streamed: OwnedEvent = serde_json::from_reader(text.as_bytes()).unwrap();
        assert_eq!(streamed, owned);
        let fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&text).unwrap();
        let made_by_the_engine = [Field::Producer, Field::ProducerSeq];
        for field in Field::ALL.iter().filter(|field| !made_by_the_engine.contains(field)) {
            assert!(fields.contains_key(field.name()), "{field}");
        }
    }

    #[test]
    fn its_json_is_that_of_the_wire() {
        let owned = full();
        let record = record_of(&owned.as_event());
        let read: OwnedEvent = serde_json::from_slice(&record[1..]).unwrap();
        assert_eq!(read, owned);
        assert_eq!(record_of(&read.as_event()), record);
        let data = r#"{"n": 1.50, "big": 12345678901234567890123}"#;
        assert_eq!(read.event_data.0, data, "byte for byte");
    }

    #[test]
    fn what_is_absent_stays_absent() {
        let event = Event::new("a.b", Category::Gateway, Outcome::Success);
        let owned = OwnedEvent::try_from(&event).unwrap();
        let wanted = concat!(
            r#"{"event_type":"a.b","event_category":"gateway","event_action":"b","#,
            r#""event_outcome":"success","correlation_id":"","event_data":{}}"#,
        );
        assert_eq!(serde_json::to_string(&owned).unwrap(), wanted);
        assert_eq!(serde_json::from_str::<OwnedEvent>(wanted).unwrap(), owned);
    }

    #[test]
    fn data_that_cannot_be_stored_is_no_owned_event() {
        let event = Event::new("a.b", Category::Gateway, Outcome::Success).with_data(&[1]);
        let error = OwnedEvent::try_from(&event).unwrap_err();
        assert_eq!(error, Field::EventData.error(Problem::NotAnObject));
    }
}
