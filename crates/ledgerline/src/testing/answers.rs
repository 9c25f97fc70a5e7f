//! What the memory answers to the body of a batch: what our DataStorage would.
//!
//! Invariant: a body is stored as a whole or refused as a whole, with the status and the problem
//! document that `ledgerline serve` has for it; a test sends the same bodies to both. Limit: the
//! server's defaults; and [`EVENTS_MAX`] events in all.

use std::collections::HashMap;

use bytes::Bytes;
use ledgerline_codec::parse::{ParseError, ParsedEvent, Scratch, parse_batch};
use ledgerline_codec::{Field, Timestamp, Uuid};
use ledgerline_transport::Answer;
use serde_json::{Map, Value, json};

use super::StoredEvent;
use crate::identity;

/// The events of one DataStorage.
#[derive(Debug, Default)]
pub(super) struct Events {
    pub(super) all: Vec<StoredEvent>,
    /// Where each id's event lies.
    places: HashMap<Uuid, usize>,
}

/// A status and the JSON that explains it.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: String,
}

/// An event of a request, checked against what the server knows.
struct New {
    index: usize,
    event: StoredEvent,
    id_was_sent: bool,
    /// Its parent precedes it in the request.
    has_parent_in_request: bool,
}

impl Events {
    /// Stores the events of a body, or says why not.
    pub(super) fn post(&mut self, body: &[u8], now: Timestamp) -> Reply {
        let stored = prepare(body, now).and_then(|request| self.store(request));
        stored.map_or_else(Refusal::into_reply, |ids| {
            let ids: Vec<_> = ids.iter().map(Uuid::to_string).collect();
            let body = json!({"event_ids": ids, "message": "the events are stored"});
            Reply { status: 201, body: body.to_string() }
        })
    }

    fn store(&mut self, request: Request) -> Result<Vec<Uuid>, Refusal> {
        let mut new = Vec::with_capacity(request.new.len());
        for candidate in request.new {
            if candidate.id_was_sent
                && let Some(stored) = self.get(candidate.event.event_id)
            {
                if !stored.has_content_of(&candidate.event) {
                    return Err(Refusal::conflict(candidate.index, candidate.event.event_id));
                }
                continue;
            }
            if let Some(parent) = candidate.event.parent_event_id
                && !candidate.has_parent_in_request
                && self.get(parent).is_none()
            {
                return Err(Refusal::unknown_parent(candidate.index, parent));
            }
            new.push(candidate.event);
        }
        if self.all.len() + new.len() > EVENTS_MAX {
            return Err(Refusal::full());
        }
        for event in new {
            self.places.insert(event.event_id, self.all.len());
            self.all.push(event);
        }
        Ok(request.ids)
    }

    fn get(&self, event_id: Uuid) -> Option<&StoredEvent> {
        self.places.get(&event_id).and_then(|&place| self.all.get(place))
    }
}

impl Reply {
    /// The same as it comes out of a connection.
    pub(super) fn into_answer(self) -> Answer {
        let is_success = (200..300).contains(&self.status);
        let content_type = if is_success { "application/json" } else { "application/problem+json" };
        answer(self.status, content_type, &self.body)
    }
}

pub(super) fn answer(status: u16, content_type: &str, body: &str) -> Answer {
    Answer {
        content_type: Some(content_type.into()),
        body: Bytes::copy_from_slice(body.as_bytes()),
        ..Answer::new(status)
    }
}

/// A request that breaks no rule which can be checked without what is stored.
struct Request {
    /// The id of each event, in the request's order.
    ids: Vec<Uuid>,
    /// The events, without those that repeat an earlier one.
    new: Vec<New>,
}

fn prepare(body: &[u8], now: Timestamp) -> Result<Request, Refusal> {
    if body.len() > BODY_BYTES_MAX {
        return Err(Refusal::too_large());
    }
    let mut scratch = Scratch::default();
    let events = parse_batch(body, BATCH_EVENTS_MAX, &mut scratch).map_err(Refusal::parse)?;
    let mut request = Request { ids: Vec::with_capacity(events.len()), new: Vec::new() };
    // Places in `new`, of the events whose ids were sent.
    let mut earlier: HashMap<Uuid, usize> = HashMap::new();
    for (index, parsed) in events.iter().enumerate() {
        check_time(index, parsed, now)?;
        let event_id =
            parsed.event_id.unwrap_or_else(|| identity::event_id(now, fastrand::u64(..)));
        request.ids.push(event_id);
        let event = StoredEvent::new(event_id, parsed);
        if let Some(&place) = earlier.get(&event_id) {
            if !request.new[place].event.has_content_of(&event) {
                return Err(Refusal::conflict(index, event_id));
            }
            continue;
        }
        let has_parent_in_request =
            parsed.parent_event_id.is_some_and(|parent| earlier.contains_key(&parent));
        let id_was_sent = parsed.event_id.is_some();
        if id_was_sent {
            earlier.insert(event_id, request.new.len());
        }
        request.new.push(New { index, event, id_was_sent, has_parent_in_request });
    }
    Ok(request)
}

fn check_time(index: usize, event: &ParsedEvent<'_>, now: Timestamp) -> Result<(), Refusal> {
    let given = event.event_timestamp;
    let ahead_us = given.micros() - now.micros();
    let (reason, limit) = if ahead_us > FUTURE_MINUTES_MAX * MICROS_PER_MINUTE {
        ("too_new", format!("{FUTURE_MINUTES_MAX} minutes in the future"))
    } else if -ahead_us > PAST_DAYS_MAX * MICROS_PER_DAY {
        ("too_old", format!("{PAST_DAYS_MAX} days in the past"))
    } else {
        return Ok(());
    };
    let detail = format!("event {index}: event_timestamp {given} is more than {limit}");
    Err(Refusal::validation(reason, detail).at(index).field(Field::EventTimestamp))
}

/// A problem document (RFC 7807), as the server writes it.
struct Refusal {
    status: u16,
    members: Map<String, Value>,
}

impl Refusal {
    fn new(status: u16, slug: &str, title: &str, reason: &str, detail: impl Into<String>) -> Self {
        let mut members = Map::new();
        members.insert("type".into(), format!("https://kubernaut.ai/problems/{slug}").into());
        members.insert("title".into(), title.into());
        members.insert("status".into(), status.into());
        members.insert("detail".into(), detail.into().into());
        members.insert("reason".into(), reason.into());
        Self { status, members }
    }

    fn validation(reason: &str, detail: impl Into<String>) -> Self {
        Self::new(400, "validation-error", "Validation Error", reason, detail)
    }

    fn parse(error: ParseError) -> Self {
        let detail = error.to_string();
        match error {
            ParseError::NotJson(_) => Self::validation("not_json", detail),
            ParseError::WrongShape { .. } => {
                Self::new(400, "invalid_request", "Invalid Request", "wrong_shape", detail)
            }
            ParseError::Empty => Self::validation("empty_batch", detail),
            ParseError::TooMany { max, .. } => {
                let title = "Batch Size Exceeded";
                Self::new(400, "batch-size-exceeded", title, "too_many", detail).with("limit", max)
            }
            ParseError::NotAnObject { index, .. } => {
                Self::validation("not_an_object", detail).at(index)
            }
            ParseError::Field { index, error } => {
                let refusal = Self::validation(error.problem.reason(), detail).at(index);
                let refusal = refusal.field(error.field);
                match error.problem.limit() {
                    Some(limit) => refusal.with("limit", limit),
                    None => refusal,
                }
            }
            _ => Self::validation("invalid", detail),
        }
    }

    fn too_large() -> Self {
        let detail = format!("the body has more than {BODY_BYTES_MAX} bytes");
        Self::new(413, "request-too-large", "Request Too Large", "too_large", detail)
            .with("limit", BODY_BYTES_MAX)
    }

    fn conflict(index: usize, event_id: Uuid) -> Self {
        let detail =
            format!("event {index}: event_id {event_id} is taken by an event with other content");
        Self::new(409, "event-id-conflict", "Event Id Conflict", "conflict", detail)
            .at(index)
            .field(Field::EventId)
            .with("event_id", event_id.to_string())
    }

    fn unknown_parent(index: usize, parent: Uuid) -> Self {
        let detail = format!("event {index}: parent_event_id {parent} is unknown");
        Self::validation("unknown_parent", detail).at(index).field(Field::ParentEventId)
    }

    fn full() -> Self {
        let detail = format!("the memory holds {EVENTS_MAX} events, which is the limit");
        Self::new(503, "unavailable", "Service Unavailable", "memory_full", detail)
            .with("limit", EVENTS_MAX)
    }

    fn at(self, index: usize) -> Self {
        self.with("index", index)
    }

    fn field(self, field: Field) -> Self {
        self.with("field", field.name())
    }

    fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.members.insert(member.into(), value.into());
        self
    }

    fn into_reply(self) -> Reply {
        Reply { status: self.status, body: Value::Object(self.members).to_string() }
    }
}

/// As `batch_events_max` of the server.
pub(super) const BATCH_EVENTS_MAX: usize = 500;

/// As `body_bytes_max` of the server.
const BODY_BYTES_MAX: usize = 5 << 20;

/// Most events that the memory holds.
const EVENTS_MAX: usize = 1_000_000;

const FUTURE_MINUTES_MAX: i64 = 60;
const PAST_DAYS_MAX: i64 = 7;
const MICROS_PER_MINUTE: i64 = 60_000_000;
const MICROS_PER_DAY: i64 = 86_400_000_000;
