//! What is done for events that can't be stored: say so, and keep a copy.
//!
//! Each lost event makes one line of JSON in the log, behind `[AUDIT]`, for whoever has nothing
//! left but the log; beyond a rate they are counted in a summary line a second, so that none is
//! passed over in silence. Where no tracing subscriber listens, they go to stderr. The last lost
//! events are kept in a ring, as the records that they were.
//! Then the hook of the configuration is told, at most once a second.

use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use ledgerline_codec::{Field, Timestamp, event_id_text, field_text};
use ledgerline_core::Outcome;

use super::lost_ring::LostRing;
use crate::config::LossHook;
use crate::delivery::Doubt;
use crate::error::CloseError;
use crate::loss::{Loss, LostEvent};
use crate::stderr::{self, Stderr};

#[derive(Debug)]
pub(super) struct Failsafe {
    ring: Arc<Mutex<LostRing>>,
    events_max: usize,
    bytes_max: usize,
    hook: Option<LossHook>,
    stderr: Stderr,
    /// The second that is being counted.
    until_ms: u64,
    lines: u64,
    /// In this second, without a line of their own.
    unsaid: u64,
    /// Since the hook was last told.
    untold: u64,
    last: Option<Outcome>,
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
            stderr: Stderr::default(),
            until_ms: 0,
            lines: 0,
            unsaid: 0,
            untold: 0,
            last: None,
        }
    }

    /// An event is lost: `record` is what it was, with its leading comma.
    pub(super) fn lost(
        &mut self,
        record: &[u8],
        outcome: Outcome,
        doubt: Doubt,
        (now, now_ms): (Timestamp, u64),
    ) {
        self.tick(now_ms);
        let json = record.strip_prefix(b",").unwrap_or(record);
        self.untold += 1;
        self.last = Some(outcome);
        let is_said = self.lines < LINES_PER_SECOND && {
            self.lines += 1;
            let line = line(record, outcome, now);
            self.say(format_args!("{line}"))
        };
        self.unsaid += u64::from(!is_said);
        let json = String::from_utf8_lossy(json).into_owned();
        let event_id = event_id_text(record).map(String::from_utf8_lossy).unwrap_or_default();
        let event = LostEvent { outcome, lost_at: now, event_id: event_id.into_owned(), json };
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.push(event, doubt, (self.events_max, self.bytes_max));
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
        let events = std::mem::take(&mut self.untold);
        if events > 0
            && let (Some(hook), Some(outcome)) = (&self.hook, self.last)
        {
            let loss = Loss { events, outcome };
            // A hook is a caller's code; that it panics is no reason to lose more.
            if catch_unwind(AssertUnwindSafe(|| hook.call(&loss))).is_err() {
                tracing::error!("the hook for lost audit events panicked");
            }
        }
    }

    /// When to call [`tick`](Self::tick), if there is something to sum up.
    pub(super) fn next_ms(&self) -> Option<u64> {
        (self.untold > 0 || self.unsaid > 0).then_some(self.until_ms)
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
        // A log's writer is a caller's code, too: should it panic, the other losses are told all
        // the same.
        let is_heard = catch_unwind(AssertUnwindSafe(|| {
            tracing::error!(target: stderr::TARGET, "[AUDIT] {object}");
            stderr::is_heard()
        }));
        is_heard.unwrap_or(true) || self.stderr.write(format!("[AUDIT] {object}\n"))
    }
}

/// What a reader of logs needs to know of the event, in the words of the services that had such
/// lines before.
fn line(record: &[u8], outcome: Outcome, now: Timestamp) -> String {
    let mut line = format!(r#"{{"timestamp":"{now}","error":"{outcome}""#);
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

const LINES_PER_SECOND: u64 = 100;
const SECOND_MS: u64 = 1_000;
