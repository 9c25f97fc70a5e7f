//! The skeleton of a body: what simd-json gets to see of it.
//!
//! One walk over the body checks all of it and writes a small document of the same shape that holds
//! the known fields only, `event_data` as `{}`. So three things can't happen: an unknown field or a
//! number inside `event_data` that simd-json can't represent doesn't refuse the batch; nothing that
//! RFC 8259 doesn't allow gets to simd-json; and `event_data` isn't parsed twice.
//!
//! Invariant: the skeleton is JSON, its events and fields are the body's in the body's order, and
//! there is one span per field `event_data` that is an object. Limits: [`BODY_LEVELS_MAX`]; as many
//! events as are allowed, and each field twice, because simd-json needs many times the memory of
//! what it reads.

use std::ops::Range;

use super::ParseError;
use super::event::FieldSet;
use crate::data;
use crate::json::{self, Rules, Scanner};
use crate::{Field, Problem};

/// Walks a body and fills `bytes` with its skeleton, `spans` with where each `event_data` lies.
pub(super) fn write(
    body: &str,
    shape: Shape,
    events_max: usize,
    bytes: &mut Vec<u8>,
    spans: &mut Vec<Range<usize>>,
) -> Result<Found, ParseError> {
    bytes.clear();
    spans.clear();
    let scanner = Scanner::new(body.as_bytes(), BODY_RULES);
    let mut writer = Writer { body, scanner, bytes, spans, events_max, events: 1, fault: None };
    writer.document(shape)?;
    Ok(Found { events: writer.events, fault: writer.fault })
}

/// What a body has besides its skeleton.
#[derive(Debug)]
pub(super) struct Found {
    /// Elements of the array, of which the skeleton may hold fewer.
    pub(super) events: usize,
    /// The first field whose text can't be stored; the skeleton holds a stand-in for it.
    pub(super) fault: Option<Fault>,
}

/// What an endpoint takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// An array of events.
    Batch,
    /// One event.
    Event,
}

/// A field whose text can't be stored.
#[derive(Debug)]
pub(super) struct Fault {
    /// The event's place.
    pub(super) index: usize,
    /// The field.
    pub(super) field: Field,
    /// What is wrong with it.
    pub(super) problem: Problem,
}

struct Writer<'s> {
    body: &'s str,
    scanner: Scanner<'s>,
    bytes: &'s mut Vec<u8>,
    spans: &'s mut Vec<Range<usize>>,
    events_max: usize,
    events: usize,
    fault: Option<Fault>,
}

impl Writer<'_> {
    fn document(&mut self, shape: Shape) -> Result<(), ParseError> {
        self.scanner.whitespace();
        let first = self.scanner.peek();
        let walked = match (shape, first) {
            (Shape::Batch, b'[') => self.array(),
            (Shape::Event, b'{') => self.event(0),
            _ => self.scanner.value(),
        };
        walked.and_then(|()| self.scanner.end()).map_err(refusal)?;
        let expected = match (shape, first) {
            (Shape::Batch, b'[') | (Shape::Event, b'{') => return Ok(()),
            (Shape::Batch, _) => "an array",
            (Shape::Event, _) => "an object",
        };
        Err(ParseError::WrongShape { expected, found: kind(first) })
    }

    fn array(&mut self) -> Result<(), Problem> {
        self.step(b'[');
        self.events = 0;
        if self.scanner.peek() == b']' {
            self.step(b']');
            return Ok(());
        }
        loop {
            let (bytes, spans) = (self.bytes.len(), self.spans.len());
            if self.scanner.peek() == b'{' {
                self.event(self.events)?;
            } else {
                self.element()?;
            }
            // One too many is still checked and counted, but nobody will read it.
            if self.events >= self.events_max {
                self.bytes.truncate(bytes);
                self.spans.truncate(spans);
            }
            self.events += 1;
            self.scanner.whitespace();
            if self.scanner.peek() == b']' {
                break;
            }
            self.scanner.expect(b',', "a comma or the end of the array")?;
            self.scanner.whitespace();
            if self.events < self.events_max {
                self.bytes.push(b',');
            }
        }
        self.step(b']');
        Ok(())
    }

    /// An element that isn't an object: only its kind matters.
    fn element(&mut self) -> Result<(), Problem> {
        let kind: &[u8] = match self.scanner.peek() {
            b'[' => b"[]",
            b'"' => b"\"\"",
            b't' | b'f' => b"true",
            b'n' => b"null",
            _ => b"0",
        };
        self.scanner.value()?;
        self.bytes.extend_from_slice(kind);
        Ok(())
    }

    fn event(&mut self, index: usize) -> Result<(), Problem> {
        self.step(b'{');
        if self.scanner.peek() == b'}' {
            self.step(b'}');
            return Ok(());
        }
        let mut is_first = true;
        let (mut once, mut twice) = (FieldSet::default(), FieldSet::default());
        loop {
            // The second of a name refuses the event; a third would only take memory.
            match self.key()?.filter(|field| once.insert(*field) || twice.insert(*field)) {
                None => self.scanner.value()?,
                Some(field) => {
                    let key = field.key();
                    self.bytes.extend_from_slice(if is_first { &key[1..] } else { key });
                    is_first = false;
                    self.field(index, field)?;
                }
            }
            self.scanner.whitespace();
            if self.scanner.peek() == b'}' {
                break;
            }
            self.scanner.expect(b',', "a comma or the end of the object")?;
            self.scanner.whitespace();
        }
        self.step(b'}');
        Ok(())
    }

    /// Copies the byte here, and steps over it and the whitespace behind it.
    fn step(&mut self, byte: u8) {
        debug_assert_eq!(self.scanner.peek(), byte);
        self.bytes.push(byte);
        self.scanner.advance();
        self.scanner.whitespace();
    }

    /// Steps over a key and its colon; tells which field it names.
    fn key(&mut self) -> Result<Option<Field>, Problem> {
        let start = self.scanner.at();
        if self.scanner.peek() != b'"' {
            return Err(self.scanner.expected("a key"));
        }
        self.scanner.string()?;
        let quoted = &self.body[start..self.scanner.at()];
        self.scanner.colon()?;
        let name = &quoted[1..quoted.len() - 1];
        if !name.contains('\\') {
            return Ok(Field::from_name(name));
        }
        // Nobody writes our names with escapes, but JSON says that they would be the same names.
        let name = serde_json::from_str::<String>(quoted).ok();
        Ok(name.and_then(|name| Field::from_name(&name)))
    }

    /// Steps over the value of a known field, and copies what simd-json may see of it.
    fn field(&mut self, index: usize, field: Field) -> Result<(), Problem> {
        let start = self.scanner.at();
        let first = self.scanner.peek();
        let problem = self.storable_value(start)?;
        let value = start..self.scanner.at();
        let is_data = field == Field::EventData && first == b'{';
        let problem = problem.or_else(|| {
            let size = if is_data { data::check_size(value.len()) } else { Ok(()) };
            size.err().map(|error| error.0)
        });
        let text = &self.body[value.clone()];
        let seen = match first {
            b'{' => "{}",
            b'[' => "[]",
            // Whatever is wrong with a string, an empty one can stand in.
            b'"' if problem.is_some() => "\"\"",
            b'-' | b'0'..=b'9' if text.parse::<i64>().is_err() && text.parse::<u64>().is_err() => {
                NOT_AN_INTEGER
            }
            _ => text,
        };
        self.bytes.extend_from_slice(seen.as_bytes());
        if is_data {
            self.spans.push(value);
        }
        if let (Some(problem), None) = (problem, &self.fault) {
            self.fault = Some(Fault { index, field, problem });
        }
        Ok(())
    }

    /// Steps over a value; says what keeps it from being stored.
    fn storable_value(&mut self, start: usize) -> Result<Option<Problem>, Problem> {
        self.scanner.restart(start, data::rules(0));
        let Err(problem) = self.scanner.value() else {
            self.scanner.restart(self.scanner.at(), BODY_RULES);
            return Ok(None);
        };
        // It may still be JSON, and then the rest of the body is to be looked at.
        self.scanner.restart(start, BODY_RULES);
        self.scanner.value()?;
        Ok(Some(match problem {
            Problem::NumberOutOfRange { offset } => {
                Problem::NumberOutOfRange { offset: offset - start }
            }
            other => other,
        }))
    }
}

/// The kind of value that starts with this byte.
const fn kind(first: u8) -> &'static str {
    match first {
        b'{' => "an object",
        b'[' => "an array",
        b'"' => "a string",
        b't' | b'f' => "a boolean",
        b'n' => "null",
        _ => "a number",
    }
}

fn refusal(problem: Problem) -> ParseError {
    ParseError::NotJson(match problem {
        Problem::InvalidJson { offset, expected } => {
            format!("expected {expected} at byte {offset}")
        }
        other => other.to_string(),
    })
}

/// Stands for every number that isn't an integer of 64 bits: simd-json refuses some of them.
const NOT_AN_INTEGER: &str = "0.5";

/// How deep an unknown field may nest.
const BODY_LEVELS_MAX: u32 = json::LEVELS_MAX;

/// The body as a whole need only be JSON.
const BODY_RULES: Rules = Rules { levels_max: BODY_LEVELS_MAX, must_be_storable: false };
