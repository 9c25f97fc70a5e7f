//! Suspicion belongs to an event type: the table of types whose events the server has refused.
//!
//! A suspected type has a queue, which sends requests of its own. Stored, the next request is twice
//! as large; refused, half: so the bad events of a type are found among its good ones by adaptive
//! group testing (Hwang, "A method for detecting all defective members", 1972). A refused single is
//! a dead letter, unless so many in a row were refused that it isn't the event: then the queue
//! pauses, and its events are *set apart*: kept, but neither due nor waited for.
//!
//! Invariants: the table is nearly always empty, and while it is, no record is looked into. It has
//! at most [`TYPES_MAX`] types. Nothing here settles a record.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use ledgerline_core::Record;

use super::{Doubt, batch::Span, batch::spans, gather::fitting};
use crate::loss::ServerReason;

/// Names a queue for as long as the engine lives.
pub(crate) type TypeId = u64;

#[derive(Debug, Default)]
pub(crate) struct Suspects {
    queues: BTreeMap<TypeId, Queue>,
    by_type: HashMap<Arc<str>, TypeId>,
    next_id: TypeId,
    /// The queue that has sent last.
    last: TypeId,
    /// Singles of each type without a queue that were refused since one of it was stored.
    tallies: HashMap<Box<str>, u32>,
    /// Singles refused since anything was stored.
    refused_in_all: u32,
    /// It is the server: everything is held.
    is_server: bool,
    now_ms: u64,
    apart_changes: Vec<(Span, bool)>,
    /// Types whose events are no longer set apart.
    released: Vec<Arc<str>>,
}

/// The events of one type, the oldest first.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) event_type: Arc<str>,
    held: VecDeque<Held>,
    /// How many events the next request has.
    events_next: usize,
    /// Singles refused since one of the type was stored.
    in_a_row: u32,
    /// Whole requests stored since any was refused.
    whole_in_a_row: u32,
    pauses: u32,
    paused_until_ms: u64,
    is_apart: bool,
    /// When the type came into the table.
    entered_ms: u64,
    /// Events of other types were stored that were sent after that.
    are_others_taken: bool,
    /// Its requests that have not ended, or wait for another try.
    in_flight: u32,
    /// Somebody wants it tried once, whatever it waits for.
    is_hurried: bool,
    /// Its answers have named an event that was stored.
    pub(crate) is_misled: bool,
    /// The connection that refused it last.
    pub(crate) avoids: Option<usize>,
    pub(crate) reason: Option<Arc<ServerReason>>,
}

/// A record in a queue.
#[derive(Debug, Clone, Copy)]
struct Held {
    record: Record,
    doubt: Doubt,
    /// Its lateness was measured, or isn't to be.
    is_offered: bool,
}

/// Records that leave a queue together.
pub(crate) type Removed = (Vec<Record>, Doubt, Option<Arc<ServerReason>>);

/// What to do with an event that was refused alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Single {
    DeadLetter,
    /// Keep it, in its type's queue.
    Keep,
    /// Keep it, and everything: it is the server.
    KeepAll,
}

/// The events of one type that are set apart.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetApart {
    /// The type.
    pub event_type: Arc<str>,
    /// How many events are pending because DataStorage refuses events of their type, or one of
    /// them alone.
    pub events: u64,
    /// For how long the oldest of them has been held, in milliseconds.
    pub oldest_ms: u64,
    /// Why, in the server's words, if it gave any.
    pub reason: Option<Arc<ServerReason>>,
}

impl Suspects {
    pub(crate) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    pub(crate) fn is_server(&self) -> bool {
        self.is_server
    }

    /// Whether events of any type without a queue were refused alone lately.
    pub(crate) fn has_tallies(&self) -> bool {
        !self.tallies.is_empty()
    }

    /// Events refused alone since anything was stored.
    pub(crate) fn refused_in_all(&self) -> u32 {
        self.refused_in_all
    }

    pub(crate) fn find(&self, event_type: &str) -> Option<TypeId> {
        self.by_type.get(event_type).copied()
    }

    /// The type's queue, made if there is room for one.
    pub(crate) fn enter(&mut self, event_type: &str, events_next: usize) -> Option<TypeId> {
        if let Some(id) = self.find(event_type) {
            return Some(id);
        }
        if self.queues.len() >= TYPES_MAX {
            return None;
        }
        let (event_type, id) = (Arc::<str>::from(event_type), self.next_id);
        self.next_id += 1;
        self.by_type.insert(Arc::clone(&event_type), id);
        let queue = Queue {
            in_a_row: self.tallies.remove(&*event_type).unwrap_or(0),
            event_type,
            held: VecDeque::new(),
            events_next: events_next.max(1),
            whole_in_a_row: 0,
            pauses: 0,
            paused_until_ms: 0,
            is_apart: false,
            in_flight: 0,
            entered_ms: self.now_ms,
            are_others_taken: false,
            is_hurried: false,
            is_misled: false,
            avoids: None,
            reason: None,
        };
        self.queues.insert(id, queue);
        Some(id)
    }

    pub(crate) fn queue(&mut self, id: TypeId) -> Option<&mut Queue> {
        self.queues.get_mut(&id)
    }

    /// Puts records into the queue, which exists: behind the others, or before them.
    pub(crate) fn hold(
        &mut self,
        id: TypeId,
        records: &[Record],
        (doubt, is_offered): (Doubt, bool),
        is_first: bool,
    ) {
        let Self { queues, apart_changes, is_server, .. } = self;
        let queue = queues.get_mut(&id).expect("whoever holds a record has found its queue");
        let is_apart = queue.is_apart && !*is_server;
        if is_apart {
            apart_changes.extend(spans(records).map(|span| (span, true)));
        }
        let is_offered = is_offered || is_apart;
        let held = records.iter().map(|record| Held { record: *record, doubt, is_offered });
        if is_first {
            held.rev().for_each(|held| queue.held.push_front(held));
        } else {
            queue.held.extend(held);
        }
    }

    /// The queue whose turn it is: it has something to send at this moment, and nothing in flight
    /// unless it `is_alone`.
    pub(crate) fn next_due(&self, now_ms: u64, is_alone: bool) -> Option<TypeId> {
        let is_due = |queue: &Queue| !queue.held.is_empty() && queue.paused_until_ms <= now_ms;
        let mut due = self.queues.iter().filter(|(_, queue)| is_due(queue)).peekable();
        due.peek()?;
        let due: Vec<_> = due.map(|(id, queue)| (*id, queue)).collect();
        let is_only = is_alone && due.len() == 1 && !due[0].1.is_apart;
        let behind_last = due.partition_point(|(id, _)| *id <= self.last);
        let by_turns = due[behind_last..].iter().chain(&due[..behind_last]);
        let mut free = by_turns.filter(|(_, queue)| queue.in_flight == 0 || is_only);
        free.next().map(|(id, _)| *id)
    }

    /// When a pause ends next.
    pub(crate) fn next_ms(&self, now_ms: u64) -> Option<u64> {
        let waiting = self.queues.values().filter(|queue| !queue.held.is_empty());
        waiting.map(|queue| queue.paused_until_ms).filter(|at_ms| *at_ms > now_ms).min()
    }

    /// Takes the queue's next request: records of one past.
    pub(crate) fn cut(
        &mut self,
        id: TypeId,
        events_max: usize,
        bytes_max: u64,
    ) -> (Vec<Record>, Doubt, bool) {
        self.last = id;
        let queue = self.queues.get_mut(&id).expect("a queue with something to send exists");
        queue.in_flight += 1;
        let first = queue.held[0];
        let is_like =
            |held: &&Held| (held.doubt, held.is_offered) == (first.doubt, first.is_offered);
        let like = queue.held.iter().take_while(is_like).map(|held| &held.record);
        let (count, _) = fitting(like, events_max.min(queue.events_next), bytes_max);
        let records = queue.held.drain(..count).map(|held| held.record).collect();
        (records, first.doubt, first.is_offered)
    }

    /// A request of the queue is no longer in flight, whatever became of it.
    pub(crate) fn returned(&mut self, id: TypeId) {
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.in_flight -= 1;
            queue.is_hurried = false;
        }
    }

    /// A request of the queue was refused, of so many events.
    pub(crate) fn halve(&mut self, id: TypeId, events: usize) {
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.whole_in_a_row = 0;
            queue.events_next = (events / 2).clamp(1, queue.events_next.max(1));
        }
    }

    /// Lets the time pass.
    pub(crate) fn advance(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// The server has stored something that was sent at this moment: a request of this queue, or an
    /// ordinary one.
    pub(crate) fn stored(&mut self, sent_ms: u64, queue: Option<TypeId>) {
        self.refused_in_all = 0;
        self.is_server = false;
        for (_, other) in self.queues.iter_mut().filter(|(id, _)| Some(**id) != queue) {
            other.are_others_taken |= sent_ms > other.entered_ms;
        }
    }

    /// Whether the server has taken other types since this one came into the table: then it is the
    /// type that it refuses, also when nothing else is left to be stored.
    fn is_type_alone(&self, event_type: &str) -> bool {
        self.find(event_type).is_some_and(|id| self.queues[&id].are_others_taken)
    }

    /// The server has stored a request of the queue, of so many events. Whether events of the type
    /// were set apart until now.
    pub(crate) fn stored_of(&mut self, id: TypeId, events: usize, events_max: usize) -> bool {
        let Some(queue) = self.queues.get_mut(&id) else { return false };
        queue.in_a_row = 0;
        queue.pauses = 0;
        queue.paused_until_ms = 0;
        queue.events_next = queue.events_next.max(2 * events).min(events_max.max(1));
        let was_apart = queue.is_apart;
        self.end_apart(id);
        was_apart
    }

    /// A request of the queue was stored that was as large as any. After a few in a row the type
    /// is trusted, and what its queue holds goes with the other events: at full load it would never
    /// be empty. Records of one past, the oldest first.
    pub(crate) fn stored_whole(&mut self, id: TypeId) -> Vec<(Vec<Record>, Doubt, bool)> {
        let Some(queue) = self.queues.get_mut(&id) else { return Vec::new() };
        queue.whole_in_a_row += 1;
        if queue.whole_in_a_row < WHOLE_MIN || queue.in_flight > 1 {
            return Vec::new();
        }
        let past = |held: &Held| (held.doubt, held.is_offered);
        let held = queue.held.make_contiguous();
        let alike = held.chunk_by(|one, next| past(one) == past(next)).map(|alike| {
            let records = alike.iter().map(|held| held.record).collect();
            (records, alike[0].doubt, alike[0].is_offered)
        });
        let released = alike.collect();
        queue.held.clear();
        released
    }

    /// Events of these types were stored: those refused alone before don't speak against them.
    pub(crate) fn forget_tally(&mut self, event_type: &str) {
        self.tallies.remove(event_type);
    }

    /// Singles of the type that were refused since one was stored.
    pub(crate) fn refused_in_a_row(&self, event_type: &str) -> u32 {
        match self.find(event_type) {
            Some(id) => self.queues[&id].in_a_row,
            None => self.tallies.get(event_type).copied().unwrap_or(0),
        }
    }

    /// Whether so many were that it isn't the event.
    pub(crate) fn is_refused(&self, event_type: &str) -> bool {
        self.refused_in_a_row(event_type) >= REFUSED_MAX
    }

    /// An event of the type was refused alone. `counts_for_type`: for what it is, and not for how
    /// large.
    pub(crate) fn refused_single(&mut self, event_type: &str, counts_for_type: bool) -> Single {
        let known = self.find(event_type).and_then(|id| self.queues.get_mut(&id));
        if let Some(queue) = known.filter(|queue| queue.is_apart) {
            queue.in_a_row += 1;
            return Single::Keep; // That was known, and says nothing of the server.
        }
        let is_type_alone = self.is_type_alone(event_type);
        self.refused_in_all += u32::from(!is_type_alone);
        let count = u32::from(counts_for_type) + self.refused_in_a_row(event_type);
        match self.find(event_type).and_then(|id| self.queues.get_mut(&id)) {
            Some(queue) => queue.in_a_row = count,
            None => self.note_tally(event_type, count),
        }
        if self.is_server || (!is_type_alone && self.refused_in_all >= REFUSED_MAX) {
            return Single::KeepAll;
        }
        if !counts_for_type {
            return Single::DeadLetter;
        }
        if count >= REFUSED_MAX { Single::Keep } else { Single::DeadLetter }
    }

    /// So many in a row were refused that the queue pauses. Whether its events are set apart by
    /// this.
    pub(crate) fn pause(&mut self, id: TypeId, now_ms: u64) -> bool {
        let Self { queues, apart_changes, is_server, .. } = self;
        let Some(queue) = queues.get_mut(&id) else { return false };
        let pause_ms = (PAUSE_MIN_MS << queue.pauses.min(10)).min(PAUSE_MAX_MS);
        queue.pauses += 1;
        queue.paused_until_ms = now_ms + pause_ms;
        queue.events_next = 1;
        if queue.is_apart || *is_server {
            return false;
        }
        queue.is_apart = true;
        let records: Vec<_> = queue.held.iter().map(|held| held.record).collect();
        queue.held.iter_mut().for_each(|held| held.is_offered = true);
        apart_changes.extend(spans(&records).map(|span| (span, true)));
        true
    }

    /// It is the server that refuses: nothing is set apart, all is due.
    pub(crate) fn suspect_server(&mut self) {
        self.is_server = true;
        for id in self.queues.keys().copied().collect::<Vec<_>>() {
            self.end_apart(id);
            let queue = self.queues.get_mut(&id).expect("listed a moment ago");
            (queue.paused_until_ms, queue.pauses) = (0, 0);
        }
    }

    fn end_apart(&mut self, id: TypeId) {
        let Self { queues, apart_changes, released, .. } = self;
        let Some(queue) = queues.get_mut(&id).filter(|queue| queue.is_apart) else { return };
        queue.is_apart = false;
        released.push(Arc::clone(&queue.event_type));
        let records: Vec<_> = queue.held.iter().map(|held| held.record).collect();
        apart_changes.extend(spans(&records).map(|span| (span, false)));
    }

    /// Ends every pause, so that each queue is tried once more.
    pub(crate) fn hurry(&mut self) {
        for queue in self.queues.values_mut() {
            queue.paused_until_ms = 0;
            queue.is_hurried = true;
        }
    }

    /// Whether a queue whose events are set apart has still to be tried since it was hurried.
    pub(crate) fn is_apart_hurried(&self) -> bool {
        let is_left = |queue: &Queue| queue.in_flight > 0 || !queue.held.is_empty();
        self.queues.values().any(|queue| queue.is_apart && queue.is_hurried && is_left(queue))
    }

    /// Lets go of every record. What the types have come to stays known.
    pub(crate) fn restart(&mut self) {
        let Self { queues, tallies, refused_in_all, is_server, .. } = std::mem::take(self);
        (self.refused_in_all, self.is_server) = (refused_in_all, is_server);
        self.tallies = tallies;
        for queue in queues.into_values() {
            self.note_tally(&queue.event_type, queue.in_a_row);
            self.released.extend(queue.is_apart.then_some(queue.event_type));
        }
    }

    /// Remembers how many singles of a type without a queue were refused.
    fn note_tally(&mut self, event_type: &str, count: u32) {
        if count == 0 {
            return;
        }
        if self.tallies.len() >= TALLIES_MAX {
            self.tallies.clear();
        }
        self.tallies.insert(event_type.into(), count);
    }

    /// Takes the queue out of the table if nothing of it is left.
    pub(crate) fn leave_if_done(&mut self, id: TypeId) {
        let is_done = |queue: &Queue| queue.held.is_empty() && queue.in_flight == 0;
        if self.queues.get(&id).is_some_and(is_done)
            && let Some(queue) = self.queues.remove(&id)
        {
            self.by_type.remove(&queue.event_type);
            self.note_tally(&queue.event_type, queue.in_a_row);
            self.released.extend(queue.is_apart.then_some(queue.event_type));
        }
    }

    /// Types whose events are no longer set apart, since this was last asked.
    pub(crate) fn take_released(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.released)
    }

    /// Takes out the records that are so, with what is known of them.
    pub(crate) fn remove(&mut self, is_meant: impl Fn(&Record) -> bool) -> Vec<Removed> {
        let mut removed = Vec::new();
        for id in self.queues.keys().copied().collect::<Vec<_>>() {
            let queue = self.queues.get_mut(&id).expect("listed a moment ago");
            let before = queue.held.len();
            let mut gone: Vec<Held> = Vec::new();
            queue.held.retain(|held| {
                let is_gone = is_meant(&held.record);
                gone.extend(is_gone.then_some(*held));
                !is_gone
            });
            if queue.held.len() == before {
                continue;
            }
            let reason = queue.reason.clone();
            for like in gone.chunk_by(|one, next| one.doubt == next.doubt) {
                let records = like.iter().map(|held| held.record).collect();
                removed.push((records, like[0].doubt, reason.clone()));
            }
            self.leave_if_done(id);
        }
        removed
    }

    /// Records that wait in queues, and are not set apart.
    pub(crate) fn held(&self) -> u64 {
        let queues = self.queues.values().filter(|queue| !queue.is_apart);
        queues.map(|queue| queue.held.len() as u64).sum()
    }

    /// Bytes of the queue's next record, which exists.
    pub(crate) fn next_bytes(&self, id: TypeId, bytes_max: u64) -> u64 {
        let Some(queue) = self.queues.get(&id) else { return 0 };
        let next = queue.held.iter().take(queue.events_next);
        next.map(|held| u64::from(held.record.bytes)).sum::<u64>().min(bytes_max)
    }

    /// What is set apart in queues, by type.
    pub(crate) fn set_apart(&self, now_ms: u64) -> impl Iterator<Item = SetApart> {
        let apart = self.queues.values().filter(|queue| queue.is_apart && !queue.held.is_empty());
        apart.map(move |queue| {
            let oldest = queue.held.iter().map(|held| held.record.accepted_ms).min();
            SetApart {
                event_type: Arc::clone(&queue.event_type),
                events: queue.held.len() as u64,
                oldest_ms: now_ms.saturating_sub(oldest.unwrap_or(now_ms)),
                reason: queue.reason.clone(),
            }
        })
    }

    #[cfg(test)]
    pub(crate) fn apart_records(&self) -> impl Iterator<Item = &Record> {
        let apart = self.queues.values().filter(|queue| queue.is_apart);
        apart.flat_map(|queue| queue.held.iter().map(|held| &held.record))
    }

    /// Whether the queue's events are set apart.
    pub(crate) fn is_apart(&self, id: TypeId) -> bool {
        self.queues.get(&id).is_some_and(|queue| queue.is_apart)
    }

    /// Records that were set apart, or are no longer, since this was last asked.
    pub(crate) fn take_apart_changes(&mut self) -> Vec<(Span, bool)> {
        std::mem::take(&mut self.apart_changes)
    }

    /// Notes such a change of records outside the queues.
    pub(crate) fn note_apart(&mut self, records: &[Record], is_apart: bool) {
        self.apart_changes.extend(spans(records).map(|span| (span, is_apart)));
    }
}

/// Types in the table. Events of further ones are held as any other that is not stored.
pub(super) const TYPES_MAX: usize = 64;
/// Types without a queue whose refused events are counted.
const TALLIES_MAX: usize = 256;
/// Singles refused in a row before it isn't the event.
const REFUSED_MAX: u32 = 20;
/// Whole requests stored in a row after which a type is trusted again.
const WHOLE_MIN: u32 = 4;
const PAUSE_MIN_MS: u64 = 1_000;
const PAUSE_MAX_MS: u64 = 10_000;
