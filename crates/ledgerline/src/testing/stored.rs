//! An event as the memory holds it.

use std::net::IpAddr;

use ledgerline_codec::parse::ParsedEvent;
use ledgerline_codec::{Outcome, Timestamp, Uuid};

/// An event that was stored, every field as it was sent.
///
/// Optional texts that were not sent are `None` here. DataStorage fills some of them in:
/// `actor_type` is then `service`, `actor_id` the category and `-service`, `resource_type` the
/// category, `resource_id` the correlation id, and `severity` is `info`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StoredEvent {
    /// The id that the store gave it.
    pub event_id: Uuid,
    /// The process (and lane) that emitted it.
    pub producer: Option<String>,
    /// The emitter's running number for it.
    pub producer_seq: Option<u64>,
    /// Version of the event's schema.
    pub version: String,
    /// What happened.
    pub event_type: String,
    /// When.
    pub event_timestamp: Timestamp,
    /// The domain.
    pub event_category: String,
    /// The action.
    pub event_action: String,
    /// How it ended.
    pub event_outcome: Outcome,
    /// What joins the events of one story.
    pub correlation_id: String,
    /// Kind of actor.
    pub actor_type: Option<String>,
    /// Who acted.
    pub actor_id: Option<String>,
    /// From which address.
    pub actor_ip: Option<IpAddr>,
    /// Kind of resource.
    pub resource_type: Option<String>,
    /// Which resource.
    pub resource_id: Option<String>,
    /// Kubernetes namespace.
    pub namespace: Option<String>,
    /// Kubernetes cluster.
    pub cluster_id: Option<String>,
    /// Severity.
    pub severity: Option<String>,
    /// Duration in milliseconds.
    pub duration_ms: Option<i32>,
    /// The event that caused this one.
    pub parent_event_id: Option<Uuid>,
    /// When the parent happened.
    pub parent_event_date: Option<Timestamp>,
    /// Error code.
    pub error_code: Option<String>,
    /// Error text.
    pub error_message: Option<String>,
    /// How long to keep it, in days; 2555 unless the event said otherwise.
    pub retention_days: u16,
    /// Whether the content needs protection; `false` unless the event said otherwise.
    pub is_sensitive: bool,
    /// The text of one JSON object, as it was recorded.
    pub event_data: String,
}

impl StoredEvent {
    pub(super) fn new(event_id: Uuid, event: &ParsedEvent<'_>) -> Self {
        let text = |field: Option<&str>| field.map(str::to_owned);
        Self {
            event_id,
            producer: text(event.producer),
            producer_seq: event.producer_seq,
            version: event.version.into(),
            event_type: event.event_type.into(),
            event_timestamp: event.event_timestamp,
            event_category: event.event_category.as_str().into(),
            event_action: event.event_action.into(),
            event_outcome: event.event_outcome,
            correlation_id: event.correlation_id.into(),
            actor_type: text(event.actor_type),
            actor_id: text(event.actor_id),
            actor_ip: event.actor_ip,
            resource_type: text(event.resource_type),
            resource_id: text(event.resource_id),
            namespace: text(event.namespace),
            cluster_id: text(event.cluster_id),
            severity: text(event.severity),
            duration_ms: event.duration_ms,
            parent_event_id: event.parent_event_id,
            parent_event_date: event.parent_event_date,
            error_code: text(event.error_code),
            error_message: text(event.error_message),
            retention_days: event.retention_days,
            is_sensitive: event.is_sensitive,
            event_data: event.event_data.into(),
        }
    }

    /// Whether DataStorage would store both as the same row: with its defaults filled in, without
    /// the retention, which may change later, and with a parent's date only where no parent is
    /// named, to the day.
    pub(super) fn has_content_of(&self, other: &Self) -> bool {
        self.content() == other.content()
    }

    fn content(&self) -> Self {
        let or = |field: &Option<String>, default: &str| {
            Some(field.clone().unwrap_or_else(|| default.to_owned()))
        };
        let category = &*self.event_category;
        let day = |date: Timestamp| {
            let micros = date.micros().div_euclid(MICROS_PER_DAY) * MICROS_PER_DAY;
            Timestamp::from_micros(micros)
        };
        let date = self.parent_event_date.filter(|_| self.parent_event_id.is_none());
        Self {
            actor_type: or(&self.actor_type, "service"),
            actor_id: or(&self.actor_id, &format!("{category}-service")),
            resource_type: or(&self.resource_type, category),
            resource_id: or(&self.resource_id, &self.correlation_id),
            severity: or(&self.severity, "info"),
            parent_event_date: date.and_then(day),
            retention_days: 0,
            ..self.clone()
        }
    }
}

const MICROS_PER_DAY: i64 = 86_400_000_000;

#[cfg(test)]
mod tests {
    use ledgerline_codec::Field;
    use ledgerline_codec::parse::{Scratch, parse_event};

    use super::*;

    const EVENT: &str = r#"{"version":"1.0","event_type":"a.b","event_category":"gateway",
        "event_timestamp":"2026-11-21T06:40:12.318402Z","event_action":"received",
        "event_outcome":"success","correlation_id":"rr-1","event_data":{}}"#;

    #[test]
    fn stored_event_has_every_field() {
        let mut scratch = Scratch::default();
        let event = parse_event(EVENT.as_bytes(), &mut scratch).unwrap();
        let text = format!("{:#?}", StoredEvent::new(Uuid::nil(), &event));
        // The fields of the struct are indented once, those of a field's own value deeper.
        let names = text.lines().filter_map(|line| {
            let name = line.strip_prefix("    ")?.split_once(": ")?.0;
            (!name.starts_with(' ')).then_some(name)
        });
        let names: Vec<_> = names.collect();
        let table: Vec<_> = Field::ALL.iter().map(|field| field.name()).collect();
        assert_eq!(names, table);
    }
}
