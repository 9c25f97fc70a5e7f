//! What is done for events that can't be stored: say so, keep a copy, tell the hook.
//!
//! Each lost event makes one line of JSON in the log, behind `[AUDIT]`, for whoever has nothing
//! left but the log; beyond a rate they are counted in a summary line a second, so that none is
//! passed over in silence. Where no tracing subscriber listens, they go to stderr. The last lost
//! events are kept in a ring, as the records that they were. Then the hook of the configuration is
//! told, while their blocks still hold them.
//!
//! Invariant: a hook or a log writer that panics costs nobody else their line, copy or call.

use std::fmt::{self, Display, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ledgerline_codec::{Field, Timestamp, event_id_text, field_text};
use ledgerline_core::{Loan, Outcome};

use super::lost_ring::LostRing;
use crate::config::LossHook;
use crate::delivery::Doubt;
use crate::error::CloseError;
use crate::loss::{DeadLetters, Loss, LostEvent, ServerReason};
use crate::stderr::{self, Stderr};

/// What became of some events, and why.
#[derive(Debug, Clone, Copy)]
pub(super) struct End<'a> {
    pub(super) outcome: Outcome,
    pub(super) doubt: Doubt,
    pub(super) reason: Option<&'a Arc<ServerReason>>,
}

#[derive(Debug)]
pub(super) struct Failsafe {
    ring: Arc<Mutex<LostRing>>,
    events_max: usize,
    bytes_max: usize,
    hook: Option<LossHook>,
    /// Time spent in the hook.
    hook_time: Duration,
    dead_letters: DeadLetters,
    stderr: Stderr,
    /// The second that is being counted.
    until_ms: u64,
    lines: u64,
    /// In this second, without a line of their own.
    unsaid: u64,
    /// The hook was called in this second.
    was_told: bool,
}

impl Failsafe {
    pub(super) fn new(
        ring: Arc<Mutex<LostRing>>,
        events_max: usize,
        bytes_max: usize,
        hook: Option<LossHook>,
    ) -> Self {
        Self {
            ring,
            events_max,
            bytes_max,
            hook,
            hook_time: Duration::ZERO,
            dead_letters: DeadLetters::default(),
            stderr: Stderr::default(),
            until_ms: 0,
            lines: 0,
            unsaid: 0,
            was_told: false,
        }
    }

    pub(super) fn hook_time(&self) -> Duration {
        self.hook_time
    }

    pub(super) fn dead_letters(&self) -> DeadLetters {
        self.dead_letters
    }

    /// Events are lost together: the loans are what they were, each with its leading comma.
    pub(super) fn lost(&mut self, loans: &[Loan], end: End<'_>, now: (Timestamp, u64)) {
        if end.outcome == Outcome::DeadLettered {
            self.dead_letters.count(end.reason.map(AsRef::as_ref), loans.len() as u64);
        }
        // Copies that the next ones would push out are not made.
        let copied_from = loans.len().saturating_sub(self.events_max);
        for (place, loan) in loans.iter().enumerate() {
            self.say_lost(loan.as_ref(), end, now);
            if place >= copied_from {
                self.keep(loan.as_ref(), end, now);
            }
        }
        if self.hook.is_none() {
            return;
        }
        for loans in loans.chunks(LOSS_EVENTS_MAX) {
            let records: Vec<_> = loans.iter().map(|loan| object(loan.as_ref())).collect();
            let loss = Loss {
                events: records.len() as u64,
                outcome: end.outcome,
                reason: end.reason.map(AsRef::as_ref),
                is_possibly_stored: end.doubt.is_ambiguous,
                records: &records,
            };
            self.was_told = true;
            self.call_hook(|hook| hook.lost(&loss));
        }
    }

    /// Says that an event is lost.
    fn say_lost(&mut self, record: &[u8], end: End<'_>, (now, now_ms): (Timestamp, u64)) {
        self.tick(now_ms);
        let is_said = self.lines < LINES_PER_SECOND && {
            self.lines += 1;
            let line = line(record, end, now);
            self.say(format_args!("{line}"))
        };
        self.unsaid += u64::from(!is_said);
    }

    /// Keeps a copy of an event that is lost.
    fn keep(&self, record: &[u8], end: End<'_>, (now, _): (Timestamp, u64)) {
        let event_id = event_id_text(record).map(String::from_utf8_lossy).unwrap_or_default();
        let event = LostEvent {
            outcome: end.outcome,
            reason: end.reason.cloned(),
            lost_at: now,
            event_id: event_id.into_owned(),
            json: text(object(record)),
        };
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.push(event, end.doubt, (self.events_max, self.bytes_max));
    }

    /// The server refuses too much: the dead letters among the last `refused` events may be its
    /// fault. Says which they are.
    pub(super) fn list_dead_letters(&self, refused: u32) {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = ring.dead_letters(refused as usize);
        if !ids.is_empty() {
            let (events, ids) = (ids.len(), ids.join(" "));
            tracing::warn!(
                events,
                ids,
                "dead letters that may be good: resend_dead_letters sends them once more"
            );
        }
    }

    /// Sums up a second that is over. To be called now and then, and at the end.
    pub(super) fn tick(&mut self, now_ms: u64) {
        if now_ms < self.until_ms {
            return;
        }
        self.until_ms = now_ms.saturating_add(SECOND_MS);
        self.lines = 0;
        let unsaid = std::mem::take(&mut self.unsaid);
        if unsaid > 0 {
            let words = "further audit events lost";
            let is_said = self.say(format_args!(r#"{{"summary":"{words}","events":{unsaid}}}"#));
            self.unsaid = if is_said { 0 } else { unsaid };
        }
        if std::mem::take(&mut self.was_told) {
            self.call_hook(|hook| hook.tick(now_ms == u64::MAX));
        }
    }

    /// When to call [`tick`](Self::tick), if there is something to sum up.
    pub(super) fn next_ms(&self) -> Option<u64> {
        (self.was_told || self.unsaid > 0).then_some(self.until_ms)
    }

    /// The store has closed, and not as it should: for whoever doesn't listen to tracing.
    pub(super) fn say_closed(&mut self, error: &CloseError) {
        if !stderr::is_heard() {
            self.stderr.write(format!("audit store closed: {error}\n"));
        }
    }

    /// Nothing more will be said: waits a moment for what is on its way to stderr.
    pub(super) fn finish(&mut self) {
        self.stderr.finish();
    }

    /// Says it to whoever listens; false if that can't be done now.
    fn say(&mut self, object: fmt::Arguments<'_>) -> bool {
        let mut is_heard = true;
        contain(|| {
            tracing::error!(target: stderr::TARGET, "[AUDIT] {object}");
            is_heard = stderr::is_heard();
        });
        is_heard || self.stderr.write(format!("[AUDIT] {object}\n"))
    }

    fn call_hook(&mut self, call: impl FnOnce(&LossHook)) {
        let Some(hook) = &self.hook else { return };
        let begun = Instant::now();
        if !contain(|| call(hook)) {
            contain(|| tracing::error!("the hook for lost audit events panicked"));
        }
        self.hook_time += begun.elapsed();
    }
}

/// Runs a caller's code, a hook or a log writer; false: it panicked.
fn contain(act: impl FnOnce()) -> bool {
    let result = catch_unwind(AssertUnwindSafe(act));
    result
        .map_err(|panic| {
            // What it panicked with has a destructor of the caller's, too.
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(panic)));
            let _ = dropped.map_err(std::mem::forget);
        })
        .is_ok()
}

/// A record's JSON object.
fn object(record: &[u8]) -> &[u8] {
    record.strip_prefix(b",").unwrap_or(record)
}

/// A record's bytes are UTF-8; checking that at once is quicker than looking for what isn't.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// What a reader of logs needs to know of the event, in the words of the services that had such
/// lines before.
fn line(record: &[u8], end: End<'_>, now: Timestamp) -> String {
    let mut line = format!(r#"{{"timestamp":"{now}","error":"{}""#, end.outcome);
    if let Some(reason) = end.reason {
        let detail = Escaped(&reason.detail);
        let _ = write!(line, r#","status":{},"reason":"{detail}""#, reason.status);
        if let Some(rule) = &reason.rule {
            let _ = write!(line, r#","rule":"{}""#, Escaped(rule));
        }
        if let Some(field) = &reason.field {
            let _ = write!(line, r#","field":"{}""#, Escaped(field));
        }
        if let Some(index) = reason.index {
            let _ = write!(line, r#","index":{index}"#);
        }
    }
    for (name, field) in [
        ("action", Field::EventAction),
        ("entityType", Field::ResourceType),
        ("entityId", Field::ResourceId),
        ("userId", Field::ActorId),
        ("correlationId", Field::CorrelationId),
    ] {
        if let Some(text) = field_text(record, field) {
            let _ = write!(line, r#","{name}":"{text}""#); // escaped as it is
        }
    }
    if let Some(id) = event_id_text(record).and_then(|id| std::str::from_utf8(id).ok()) {
        let _ = write!(line, r#","eventId":"{id}""#);
    }
    line.push('}');
    line
}

/// A text as it stands in a string of JSON.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '"' | '\\' => write!(f, "\\{character}")?,
                _ if character.is_ascii_control() => write!(f, "\\u{:04x}", character as u32)?,
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}

const LINES_PER_SECOND: u64 = 100;
const SECOND_MS: u64 = 1_000;
/// As many as the largest batch has.
pub(super) const LOSS_EVENTS_MAX: usize = 20_000;
