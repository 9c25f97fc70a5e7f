//! What a caller records: borrowed fields, so that recording copies each byte once.

use std::fmt;
use std::net::IpAddr;

use uuid::Uuid;

use crate::{Category, EventData, Json, Outcome, Timestamp};

/// One audit event, borrowed from its caller for the length of one call.
///
/// Built by [`Event::new`] and a chain of `with_` methods, each of which sets the field of its name
/// without the `event_` in front; the fields are public as well, for what is there only sometimes.
/// Nothing is allocated, and nothing is checked here: [`encode`](crate::encode), and so `record`,
/// checks every field. Send, since [`EventData`] is Sync.
///
/// ```
/// use ledgerline_codec::{Category, Event, Outcome};
/// use serde_json::json;
///
/// fn encode(event: &Event<'_>) {
///     assert_eq!(event.event_action, "received");
/// }
///
/// encode(
///     &Event::new("gateway.signal.received", Category::Gateway, Outcome::Success)
///         .with_correlation_id("rr-4be1c0a7d2f3")
///         .with_namespace("payments")
///         .with_data(&json!({"signal_name": "PodCrashLooping"})),
/// );
/// ```
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Event<'a> {
    /// What happened, dotted, emitter first: `gateway.signal.received`.
    pub event_type: &'a str,
    /// The domain that the event belongs to.
    pub event_category: Category<'a>,
    /// The action within the domain: `received`. At first, the last part of the event's type.
    pub event_action: &'a str,
    /// How the action ended.
    pub event_outcome: Outcome,
    /// What joins the events of one story, across services. Required: empty, as it is at first, it
    /// is refused. Take the id of the request, the trace or the workflow; for an event that is
    /// alone, a new UUID.
    pub correlation_id: &'a str,
    /// The event's own content: a JSON object. At first, an empty one.
    pub event_data: &'a dyn EventData,
    /// The event's id, which no other event may have. Absent: a new one, made at the recording.
    pub event_id: Option<Uuid>,
    /// Version of the event's schema. Absent: `"1.0"`.
    pub version: Option<&'a str>,
    /// When it happened. Absent: the moment of recording. When the event arrives, DataStorage
    /// refuses a time more than 7 days in the past or more than 60 minutes in the future.
    pub event_timestamp: Option<Timestamp>,
    /// What kind of actor: `service`, `user`.
    pub actor_type: Option<&'a str>,
    /// Who acted.
    pub actor_id: Option<&'a str>,
    /// From which address.
    pub actor_ip: Option<IpAddr>,
    /// What kind of thing was acted upon.
    pub resource_type: Option<&'a str>,
    /// Which thing was acted upon.
    pub resource_id: Option<&'a str>,
    /// Kubernetes namespace.
    pub namespace: Option<&'a str>,
    /// Kubernetes cluster.
    pub cluster_id: Option<&'a str>,
    /// Free text, at most 20 characters: `info`, `critical`.
    pub severity: Option<&'a str>,
    /// How long the action took, in milliseconds.
    pub duration_ms: Option<i32>,
    /// The event that caused this one. DataStorage refuses a parent that it doesn't have; while
    /// both wait to be sent, which arrives first is not promised.
    pub parent_event_id: Option<Uuid>,
    /// When the parent happened; spares the store a search.
    pub parent_event_date: Option<Timestamp>,
    /// Short code of what went wrong.
    pub error_code: Option<&'a str>,
    /// What went wrong, in words.
    pub error_message: Option<&'a str>,
    /// How long to keep the event, in days, 1 to 2555. Absent: 2555 (seven years).
    pub retention_days: Option<u16>,
    /// Whether the content needs protection. Absent: `false`.
    pub is_sensitive: Option<bool>,
}

impl<'a> Event<'a> {
    /// An event of this type, with neither correlation id nor content; its action is the last part
    /// of its type.
    #[inline(always)] // as the methods below
    #[must_use]
    pub fn new(event_type: &'a str, category: Category<'a>, outcome: Outcome) -> Self {
        Self {
            event_type,
            event_category: category,
            event_action: last_part(event_type),
            event_outcome: outcome,
            correlation_id: "",
            event_data: &Json("{}"),
            event_id: None,
            version: None,
            event_timestamp: None,
            actor_type: None,
            actor_id: None,
            actor_ip: None,
            resource_type: None,
            resource_id: None,
            namespace: None,
            cluster_id: None,
            severity: None,
            duration_ms: None,
            parent_event_id: None,
            parent_event_date: None,
            error_code: None,
            error_message: None,
            retention_days: None,
            is_sensitive: None,
        }
    }
}

/// What stands behind the last dot. Short, and without a panic, so that nothing is left of it where
/// the action is set.
#[inline(always)]
fn last_part(event_type: &str) -> &str {
    let dot = event_type.bytes().rposition(|byte| byte == b'.');
    event_type.get(dot.map_or(0, |dot| dot + 1)..).unwrap_or_default()
}

/// Makes the methods that set one field each.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident($value:ident: $type:ty) $field:ident = $set:expr;)*) => {
        impl<'a> Event<'a> {
            $(
                $(#[$doc])*
                #[inline(always)] // a call would copy the event
                #[must_use]
                pub const fn $name(mut self, $value: $type) -> Self {
                    self.$field = $set;
                    self
                }
            )*
        }
    };
}

setters! {
    /// Sets the action within the domain.
    with_action(action: &'a str) event_action = action;
    /// Sets what joins the events of one story, across services.
    with_correlation_id(id: &'a str) correlation_id = id;
    /// Sets the content: anything that serialises as an object (a struct, a map,
    /// `&json!({...})`), ready text as `&Json(text)`, or the common
    /// [`Envelope`](crate::Envelope).
    with_data(data: &'a dyn EventData) event_data = data;
    /// Sets the event's id, by which others can name it as their parent. No other event may have
    /// it: DataStorage takes a second one for a repeat, and refuses it if its content differs.
    with_id(id: Uuid) event_id = Some(id);
    /// Sets the version of the event's schema.
    with_version(version: &'a str) version = Some(version);
    /// Sets when it happened, if that isn't the moment of recording: at most 7 days ago and 60
    /// minutes ahead when it arrives, else DataStorage refuses the event.
    with_timestamp(timestamp: Timestamp) event_timestamp = Some(timestamp);
    /// Sets what kind of actor: `service`, `user`.
    with_actor_type(actor_type: &'a str) actor_type = Some(actor_type);
    /// Sets who acted.
    with_actor_id(id: &'a str) actor_id = Some(id);
    /// Sets from which address.
    with_actor_ip(address: IpAddr) actor_ip = Some(address);
    /// Sets what kind of thing was acted upon.
    with_resource_type(resource_type: &'a str) resource_type = Some(resource_type);
    /// Sets which thing was acted upon.
    with_resource_id(id: &'a str) resource_id = Some(id);
    /// Sets the Kubernetes namespace.
    with_namespace(namespace: &'a str) namespace = Some(namespace);
    /// Sets the Kubernetes cluster.
    with_cluster_id(id: &'a str) cluster_id = Some(id);
    /// Sets how grave it is, in at most 20 characters.
    with_severity(severity: &'a str) severity = Some(severity);
    /// Sets how long the action took, in milliseconds.
    with_duration_ms(duration_ms: i32) duration_ms = Some(duration_ms);
    /// Sets the event that caused this one.
    with_parent_event_id(id: Uuid) parent_event_id = Some(id);
    /// Sets when the parent happened; spares the store a search.
    with_parent_event_date(date: Timestamp) parent_event_date = Some(date);
    /// Sets the short code of what went wrong.
    with_error_code(code: &'a str) error_code = Some(code);
    /// Sets what went wrong, in words.
    with_error_message(message: &'a str) error_message = Some(message);
    /// Sets how long to keep the event, in days, 1 to 2555.
    with_retention_days(days: u16) retention_days = Some(days);
    /// Sets whether the content needs protection.
    with_is_sensitive(is_sensitive: bool) is_sensitive = Some(is_sensitive);
}

/// Names the event, and leaves its content out: contents don't belong in logs.
impl fmt::Debug for Event<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Event")
            .field("event_type", &self.event_type)
            .field("event_category", &self.event_category)
            .field("event_action", &self.event_action)
            .field("event_outcome", &self.event_outcome)
            .field("correlation_id", &self.correlation_id)
            .finish_non_exhaustive()
    }
}
