//! Reading events off the tape that simd-json made of the skeleton.
//!
//! Invariant: a [`ParsedEvent`] that comes out has every required field, each field once, and each
//! within its limits. The tape and the spans of `event_data` are consumed in step.

use std::net::IpAddr;
use std::ops::Range;
use std::slice;

use simd_json::{Node, StaticNode};
use uuid::Uuid;

use super::skeleton::Fault;
use super::{ParseError, ParsedEvent};
use crate::field::{RETENTION_DAYS_DEFAULT, shortened};
use crate::{Category, Field, FieldError, Outcome, Problem, Timestamp};

/// Takes events off a tape, one after the other.
pub(super) struct Reader<'t, 'a> {
    body: &'a str,
    nodes: slice::Iter<'t, Node<'a>>,
    spans: slice::Iter<'t, Range<usize>>,
    fault: Option<Fault>,
}

impl<'t, 'a> Reader<'t, 'a> {
    pub(super) fn new(
        body: &'a str,
        nodes: &'t [Node<'a>],
        spans: &'t [Range<usize>],
        fault: Option<Fault>,
    ) -> Self {
        Self { body, nodes: nodes.iter(), spans: spans.iter(), fault }
    }

    /// The next event.
    pub(super) fn event(&mut self, index: usize) -> Result<ParsedEvent<'a>, ParseError> {
        let fields = match self.next() {
            Node::Object { len, .. } => len,
            other => return Err(ParseError::NotAnObject { index, found: kind(other) }),
        };
        self.fields(index, fields).map_err(|error| ParseError::Field { index, error })
    }

    fn fields(&mut self, index: usize, fields: usize) -> Result<ParsedEvent<'a>, FieldError> {
        let mut event = blank();
        let mut seen = FieldSet::default();
        let mut given = FieldSet::default();
        for _ in 0..fields {
            let (key, value) = (self.next(), self.next());
            let Node::String(name) = key else { continue };
            let Some(field) = Field::from_name(name) else { continue };
            if !seen.insert(field) {
                return Err(field.error(Problem::Duplicate));
            }
            if let Some(problem) = self.take_fault(index, field) {
                return Err(field.error(problem));
            }
            if !matches!(value, Node::Static(StaticNode::Null)) {
                given.insert(field);
                self.set(&mut event, field, value)?;
            }
        }
        let missing = REQUIRED.iter().find(|field| !given.contains(**field));
        missing.map_or(Ok(event), |field| Err(field.error(Problem::Missing)))
    }

    fn set(
        &mut self,
        event: &mut ParsedEvent<'a>,
        field: Field,
        value: Node<'a>,
    ) -> Result<(), FieldError> {
        match field {
            Field::EventId => event.event_id = Some(uuid(field, value)?),
            Field::Producer => event.producer = Some(text(field, value)?),
            Field::ProducerSeq => event.producer_seq = Some(unsigned(field, value)?),
            Field::Version => event.version = text(field, value)?,
            Field::EventType => event.event_type = text(field, value)?,
            Field::EventTimestamp => event.event_timestamp = timestamp(field, value)?,
            Field::EventCategory => event.event_category = category(field, value)?,
            Field::EventAction => event.event_action = text(field, value)?,
            Field::EventOutcome => event.event_outcome = outcome(field, value)?,
            Field::CorrelationId => event.correlation_id = text(field, value)?,
            Field::EventData => event.event_data = self.data(value)?,
            Field::ActorType => event.actor_type = Some(text(field, value)?),
            Field::ActorId => event.actor_id = Some(text(field, value)?),
            Field::ActorIp => event.actor_ip = Some(address(field, value)?),
            Field::ResourceType => event.resource_type = Some(text(field, value)?),
            Field::ResourceId => event.resource_id = Some(text(field, value)?),
            Field::Namespace => event.namespace = Some(text(field, value)?),
            Field::ClusterId => event.cluster_id = Some(text(field, value)?),
            Field::Severity => event.severity = Some(text(field, value)?),
            Field::DurationMs => event.duration_ms = Some(integer(field, value)? as i32),
            Field::ParentEventId => event.parent_event_id = Some(uuid(field, value)?),
            Field::ParentEventDate => event.parent_event_date = Some(timestamp(field, value)?),
            Field::ErrorCode => event.error_code = Some(text(field, value)?),
            Field::ErrorMessage => event.error_message = Some(text(field, value)?),
            Field::RetentionDays => event.retention_days = integer(field, value)? as u16,
            Field::IsSensitive => event.is_sensitive = boolean(field, value)?,
        }
        Ok(())
    }

    /// The original text of an event's `event_data`.
    fn data(&mut self, value: Node<'a>) -> Result<&'a str, FieldError> {
        let Node::Object { .. } = value else {
            return Err(wrong_type(Field::EventData, "an object", value));
        };
        let span = self.spans.next().and_then(|span| self.body.get(span.clone()));
        span.ok_or_else(|| Field::EventData.error(Problem::Missing))
    }

    fn take_fault(&mut self, index: usize, field: Field) -> Option<Problem> {
        let fault = self.fault.take_if(|fault| fault.index == index && fault.field == field)?;
        Some(match fault.problem {
            // What JSON calls an escape is a character of a text.
            Problem::NulEscape if field != Field::EventData => Problem::Nul,
            other => other,
        })
    }

    /// The next node. Tapes are whole, so that the null at the end is never seen.
    fn next(&mut self) -> Node<'a> {
        self.nodes.next().copied().unwrap_or(Node::Static(StaticNode::Null))
    }
}

/// An event before its fields are known: the required ones hold values that never come out.
const fn blank<'a>() -> ParsedEvent<'a> {
    ParsedEvent {
        event_id: None,
        producer: None,
        producer_seq: None,
        version: "",
        event_type: "",
        event_timestamp: Timestamp::EPOCH,
        event_category: Category::Gateway,
        event_action: "",
        event_outcome: Outcome::Success,
        correlation_id: "",
        event_data: "",
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
        retention_days: RETENTION_DAYS_DEFAULT,
        is_sensitive: false,
    }
}

fn string<'a>(field: Field, value: Node<'a>) -> Result<&'a str, FieldError> {
    match value {
        Node::String(text) => Ok(text),
        other => Err(wrong_type(field, "a string", other)),
    }
}

fn text<'a>(field: Field, value: Node<'a>) -> Result<&'a str, FieldError> {
    let text = string(field, value)?;
    field.check_length(text)?;
    field.check_no_nul(text)?;
    Ok(text)
}

fn category<'a>(field: Field, value: Node<'a>) -> Result<Category<'a>, FieldError> {
    Category::parse(string(field, value)?).map_err(|problem| field.error(problem))
}

fn outcome(field: Field, value: Node<'_>) -> Result<Outcome, FieldError> {
    string(field, value)?.parse().map_err(|problem| field.error(problem))
}

fn timestamp(field: Field, value: Node<'_>) -> Result<Timestamp, FieldError> {
    let text = string(field, value)?;
    Timestamp::parse_rfc3339(text)
        .ok_or_else(|| field.error(Problem::NotATimestamp { given: shortened(text) }))
}

fn address(field: Field, value: Node<'_>) -> Result<IpAddr, FieldError> {
    let text = string(field, value)?;
    text.parse().map_err(|_| field.error(Problem::NotAnAddress { given: shortened(text) }))
}

fn uuid(field: Field, value: Node<'_>) -> Result<Uuid, FieldError> {
    let text = string(field, value)?;
    // The other forms that the crate reads have other lengths.
    let id = if text.len() == 36 { Uuid::try_parse(text).ok() } else { None };
    id.ok_or_else(|| field.error(Problem::NotAUuid { given: shortened(text) }))
}

fn integer(field: Field, value: Node<'_>) -> Result<i64, FieldError> {
    let given = match value {
        Node::Static(StaticNode::I64(given)) => given,
        // What is beyond is out of every field's range all the same.
        Node::Static(StaticNode::U64(given)) => i64::try_from(given).unwrap_or(i64::MAX),
        other => return Err(wrong_type(field, "an integer", other)),
    };
    field.check_range(given)?;
    Ok(given)
}

fn unsigned(field: Field, value: Node<'_>) -> Result<u64, FieldError> {
    let given = match value {
        Node::Static(StaticNode::U64(given)) => Some(given),
        Node::Static(StaticNode::I64(given)) => u64::try_from(given).ok(),
        _ => None,
    };
    given.ok_or_else(|| wrong_type(field, "an unsigned integer of 64 bits", value))
}

fn boolean(field: Field, value: Node<'_>) -> Result<bool, FieldError> {
    match value {
        Node::Static(StaticNode::Bool(given)) => Ok(given),
        other => Err(wrong_type(field, "a boolean", other)),
    }
}

const fn wrong_type(field: Field, expected: &'static str, value: Node<'_>) -> FieldError {
    field.error(Problem::WrongType { expected, found: kind(value) })
}

const fn kind(value: Node<'_>) -> &'static str {
    match value {
        Node::String(_) => "a string",
        Node::Object { .. } => "an object",
        Node::Array { .. } => "an array",
        Node::Static(StaticNode::Null) => "null",
        Node::Static(StaticNode::Bool(_)) => "a boolean",
        Node::Static(StaticNode::I64(..0)) => "a negative number",
        Node::Static(StaticNode::I64(_) | StaticNode::U64(_)) => "a number",
        Node::Static(StaticNode::F64(_)) => "a number with a fraction, an exponent or over 64 bits",
    }
}

/// A set of fields.
#[derive(Clone, Copy, Default)]
pub(super) struct FieldSet(u32);

impl FieldSet {
    /// Adds a field; false if it was there already.
    pub(super) const fn insert(&mut self, field: Field) -> bool {
        let is_new = !self.contains(field);
        self.0 |= 1 << field as u32;
        is_new
    }

    const fn contains(self, field: Field) -> bool {
        self.0 & (1 << field as u32) != 0
    }
}

const _: () = assert!(Field::ALL.len() <= u32::BITS as usize);

/// The fields that an event can't be without.
const REQUIRED: [Field; 8] = [
    Field::Version,
    Field::EventType,
    Field::EventTimestamp,
    Field::EventCategory,
    Field::EventAction,
    Field::EventOutcome,
    Field::CorrelationId,
    Field::EventData,
];
