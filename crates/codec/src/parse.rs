//! Borrowed parsing of request bodies, for a server.
//!
//! A scanner of our own checks the whole body, takes the spans of `event_data` from it, so that
//! what is stored is, byte for byte, what was sent, and copies the other known fields; simd-json
//! reads the copy and unescapes its strings there. Limits: those of [`Field`](crate::Field), and
//! 128 levels for what is ignored. The size of a body is for the caller to limit.

mod event;
mod skeleton;

use std::fmt;
use std::mem;
use std::ops::Range;

use simd_json::{Buffers, Node, Tape};
use uuid::Uuid;

use self::event::Reader;
use self::skeleton::{Found, Shape};
use crate::{Category, FieldError, Outcome, Timestamp};

/// One event of a request body; every field has been checked.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ParsedEvent<'a> {
    /// The client's id for the event, if it sent one.
    pub event_id: Option<Uuid>,
    /// Which process (and lane) emitted the event.
    pub producer: Option<&'a str>,
    /// The emitter's running number for the event.
    pub producer_seq: Option<u64>,
    /// Schema version.
    pub version: &'a str,
    /// What happened.
    pub event_type: &'a str,
    /// When, in UTC microseconds.
    pub event_timestamp: Timestamp,
    /// The domain.
    pub event_category: Category<'a>,
    /// The action.
    pub event_action: &'a str,
    /// How it ended.
    pub event_outcome: Outcome,
    /// What joins the events of one story.
    pub correlation_id: &'a str,
    /// `event_data` exactly as it was sent: the text of one JSON object.
    pub event_data: &'a str,
    /// Kind of actor.
    pub actor_type: Option<&'a str>,
    /// Who acted.
    pub actor_id: Option<&'a str>,
    /// From which address.
    pub actor_ip: Option<std::net::IpAddr>,
    /// Kind of resource.
    pub resource_type: Option<&'a str>,
    /// Which resource.
    pub resource_id: Option<&'a str>,
    /// Kubernetes namespace.
    pub namespace: Option<&'a str>,
    /// Kubernetes cluster.
    pub cluster_id: Option<&'a str>,
    /// Severity.
    pub severity: Option<&'a str>,
    /// Duration in milliseconds.
    pub duration_ms: Option<i32>,
    /// The event that caused this one.
    pub parent_event_id: Option<Uuid>,
    /// When the parent happened.
    pub parent_event_date: Option<Timestamp>,
    /// Error code.
    pub error_code: Option<&'a str>,
    /// Error text.
    pub error_message: Option<&'a str>,
    /// Retention in days; 2555 when absent.
    pub retention_days: u16,
    /// Sensitivity; `false` when absent.
    pub is_sensitive: bool,
}

/// Memory that one parse works in; reused from request to request to spare allocations.
#[derive(Default)]
pub struct Scratch {
    bytes: Vec<u8>,
    spans: Vec<Range<usize>>,
    buffers: Buffers,
    nodes: Vec<Node<'static>>,
}

impl fmt::Debug for Scratch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes.capacity();
        formatter.debug_struct("Scratch").field("bytes", &bytes).finish_non_exhaustive()
    }
}

/// Why a body was refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The body isn't JSON, or nests too deep to look at.
    #[error("the body is not valid JSON: {0}")]
    NotJson(String),
    /// The batch endpoint wants an array, the single endpoint an object.
    #[error("the body is {found}, expected {expected}")]
    WrongShape {
        /// What the endpoint wants: `an array`, `an object`.
        expected: &'static str,
        /// What came: `a string`, `null`.
        found: &'static str,
    },
    /// An array without events.
    #[error("the batch is empty")]
    Empty,
    /// More events than the server takes at once.
    #[error("the batch has {given} events, the limit is {max}")]
    TooMany {
        /// Events in the body.
        given: usize,
        /// Events allowed.
        max: usize,
    },
    /// An element of the array isn't an object.
    #[error("event {index} is {found}, expected an object")]
    NotAnObject {
        /// Its place in the array, from 0.
        index: usize,
        /// What it is instead.
        found: &'static str,
    },
    /// A field of an event is missing, given twice, or outside its limits.
    #[error("event {index}: {error}")]
    Field {
        /// The event's place in the array, from 0.
        index: usize,
        /// Field, limit, and what was given.
        error: FieldError,
    },
}

/// Parses the body of `POST /api/v1/audit/events/batch`.
///
/// Unknown fields are ignored; a null means that the field is absent.
///
/// # Errors
/// The first thing that is wrong: with the body, then with the number of events, then with the
/// events in the order of the array, fields in the order given, missing ones last.
pub fn parse_batch<'a>(
    body: &'a [u8],
    events_max: usize,
    scratch: &'a mut Scratch,
) -> Result<Vec<ParsedEvent<'a>>, ParseError> {
    parse(body, Shape::Batch, events_max, scratch)
}

/// Parses the body of `POST /api/v1/audit/events`: one object.
///
/// # Errors
/// As [`parse_batch`], with index 0.
pub fn parse_event<'a>(
    body: &'a [u8],
    scratch: &'a mut Scratch,
) -> Result<ParsedEvent<'a>, ParseError> {
    parse(body, Shape::Event, 1, scratch)?.pop().ok_or(ParseError::Empty)
}

fn parse<'a>(
    body: &'a [u8],
    shape: Shape,
    events_max: usize,
    scratch: &'a mut Scratch,
) -> Result<Vec<ParsedEvent<'a>>, ParseError> {
    let body = std::str::from_utf8(body).map_err(|error| {
        ParseError::NotJson(format!("expected UTF-8 at byte {}", error.valid_up_to()))
    })?;
    let Scratch { bytes, spans, buffers, nodes } = scratch;
    let Found { events: given, fault } = skeleton::write(body, shape, events_max, bytes, spans)?;
    if given == 0 {
        return Err(ParseError::Empty);
    }
    if given > events_max {
        return Err(ParseError::TooMany { given, max: events_max });
    }
    let mut tape = Tape(mem::take(nodes)).reset();
    let filled = simd_json::fill_tape(bytes, buffers, &mut tape);
    filled.map_err(|error| ParseError::NotJson(error.to_string()))?;

    let elements = match (shape, tape.0.as_slice()) {
        (Shape::Batch, [Node::Array { .. }, elements @ ..]) => elements,
        (_, elements) => elements,
    };
    let mut reader = Reader::new(body, elements, spans, fault);
    let events = (0..given).map(|index| reader.event(index)).collect::<Result<_, _>>()?;
    *nodes = tape.reset().0;
    Ok(events)
}

#[cfg(test)]
mod tests;
