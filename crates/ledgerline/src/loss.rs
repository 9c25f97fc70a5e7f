//! Events that were accepted and will not be delivered: what is told of them, and to whom.

mod hook;

use std::fmt;
use std::sync::Arc;

use ledgerline_codec::Timestamp;
use ledgerline_core::Outcome;

pub use self::hook::LossHook;

/// An event that was dropped or dead-lettered, as [`Store::lost_events`](crate::Store::lost_events)
/// shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostEvent {
    /// What became of it.
    pub outcome: Outcome,
    /// Why, in DataStorage's words, if it said anything: of a dead letter why it was refused, of
    /// another event what the last answer to its batch was.
    pub reason: Option<Arc<ServerReason>>,
    /// When it was given up.
    pub lost_at: Timestamp,
    /// Its id, as it was, or would have been, sent.
    pub event_id: String,
    /// The event as it was, or would have been, sent: one JSON object.
    pub json: String,
}

/// What a [`LossHook`] is told: events that were lost together, a batch or what is left of one.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Loss<'a> {
    /// How many: at least one.
    pub events: u64,
    /// What became of them.
    pub outcome: Outcome,
    /// Why, in DataStorage's words, if it said anything.
    pub reason: Option<&'a ServerReason>,
    /// A try of unknown outcome may have stored them.
    pub is_possibly_stored: bool,
    pub(crate) records: &'a [&'a [u8]],
}

impl<'a> Loss<'a> {
    /// The events as they were, or would have been, sent: one JSON object each, in the order in
    /// which they were recorded.
    pub fn json(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        // The encoder writes UTF-8.
        self.records.iter().map(|record| std::str::from_utf8(record).unwrap_or_default())
    }
}

/// Without the events' contents.
impl fmt::Debug for Loss<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loss")
            .field("events", &self.events)
            .field("outcome", &self.outcome)
            .field("reason", &self.reason)
            .field("is_possibly_stored", &self.is_possibly_stored)
            .finish_non_exhaustive()
    }
}

/// Events that DataStorage has refused for good, by what it said of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DeadLetters {
    /// A rule is broken, most often of one field.
    pub invalid: u64,
    /// The event's id belongs to an event with other content.
    pub id_conflict: u64,
    /// The event was too old when it came.
    pub too_old: u64,
    /// One event alone is too large.
    pub too_large: u64,
    /// Events of its type were refused, and there was no room to keep it until they are taken
    /// again: it was not tried.
    pub not_tried: u64,
    /// It said nothing, or something else.
    pub other: u64,
}

impl DeadLetters {
    pub(crate) fn count(&mut self, reason: Option<&ServerReason>, events: u64) {
        let rule = reason.and_then(|reason| reason.rule.as_deref());
        let counter = match (rule, reason.map(|reason| reason.status)) {
            (Some(NOT_TRIED), _) => &mut self.not_tried,
            (Some("too_old"), _) => &mut self.too_old,
            (_, Some(409)) => &mut self.id_conflict,
            (_, Some(413)) => &mut self.too_large,
            (_, Some(400 | 422)) => &mut self.invalid,
            _ => &mut self.other,
        };
        *counter += events;
    }

    /// Each class with its count, by the name that metrics have for it.
    pub fn by_class(&self) -> [(&'static str, u64); 6] {
        [
            ("invalid", self.invalid),
            ("id_conflict", self.id_conflict),
            ("too_old", self.too_old),
            ("too_large", self.too_large),
            ("not_tried", self.not_tried),
            ("other", self.other),
        ]
    }
}

/// In DataStorage's words, why it refused a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerReason {
    /// The status of the answer.
    pub status: u16,
    /// The problem's `detail`: at most 300 characters, control characters escaped. Empty: none.
    pub detail: Box<str>,
    /// The broken rule in one word, as the problem's `reason` has it: `too_long`, `too_old`.
    pub rule: Option<Box<str>>,
    /// The field that it names.
    pub field: Option<Box<str>>,
    /// The place of the event that it names, from 0, in the request that was refused.
    pub index: Option<u32>,
}

impl fmt::Display for ServerReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.status)?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        if let Some(field) = &self.field {
            write!(f, ", field {field}")?;
        }
        self.index.map_or(Ok(()), |index| write!(f, ", event {index} of the request"))
    }
}

/// The rule of events that were not tried.
pub(crate) const NOT_TRIED: &str = "not_tried";
