//! Which batch goes next, and when it may.
//!
//! Ordinary batches and requests of suspected types share the window: these have a quarter of it,
//! or one request, and all of it when nothing else waits. While the endpoint takes nothing, one
//! request finds out whether that is over: an ordinary one if there is any, and of a type after the
//! other where it is events that the server refuses.

use ledgerline_core::Record;

use super::batch::{Batch, Flight, History, Place, Role};
use super::lateness::Cause;
use super::suspects::TypeId;
use super::{BatchId, Contents, Delivery, Send};

/// What can be sent next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// A batch whose turn has come, or a new one.
    Ordinary,
    /// The queue of a suspected type.
    Suspect(TypeId),
}

impl Delivery {
    /// The next batch to put on a connection, if there is one and a connection may take it. To be
    /// called until there is none: that is how it is known what waits, and why.
    pub(crate) fn next_send(&mut self, now_ms: u64, contents: &impl Contents) -> Option<Send> {
        loop {
            let has_ordinary = self.has_ordinary();
            let suspect = self.suspects.next_due(now_ms, !has_ordinary);
            let is_due = self.is_due(suspect);
            if !is_due {
                self.blocked.end(now_ms);
            }
            if !has_ordinary && suspect.is_none() {
                return None;
            }
            if let Some(cause) = self.breaker.blocks(now_ms) {
                self.note_blocked(is_due, cause, now_ms);
                return None;
            }
            let source = match suspect {
                _ if self.suspects.is_server() => self.next_probe(now_ms, contents),
                Some(queue) if !has_ordinary || self.is_turn_of_suspects() => {
                    Some(Source::Suspect(queue))
                }
                _ if has_ordinary => Some(Source::Ordinary),
                _ => None,
            };
            let Some(source) = source else {
                self.note_blocked(is_due, self.slots.cause(now_ms), now_ms);
                return None;
            };
            let avoids = self.avoided_by(source);
            let depth_max = self.limits.pipeline_depth_max;
            let depth = |proof| if self.proofs.allows_depth(proof, now_ms) { depth_max } else { 1 };
            let may_send = self.may_send(source, now_ms);
            let free = if may_send { self.slots.free(depth, avoids, now_ms) } else { None };
            let Some(connection) = free else {
                self.note_blocked(is_due, self.slots.cause(now_ms), now_ms);
                return None;
            };
            let batch = match source {
                Source::Suspect(queue) => Some(self.cut_suspect(queue)),
                Source::Ordinary => self.next_ordinary(contents),
            };
            if let Some(batch) = batch {
                return Some(self.put(batch, connection, now_ms));
            }
            // All of it was of suspected types.
        }
    }

    /// Whether anything waits that is due: what is set apart is not.
    fn is_due(&self, suspect: Option<TypeId>) -> bool {
        let is_parked = |id: &BatchId| self.batches[id].role == Role::Parked;
        self.is_cut_due()
            || !self.ready.iter().all(is_parked)
            || suspect.is_some_and(|queue| !self.suspects.is_apart(queue))
    }

    fn note_blocked(&mut self, is_due: bool, cause: Cause, now_ms: u64) {
        if is_due {
            self.blocked.begin(now_ms, cause);
        }
    }

    /// Of ordinary batches and suspected types, both waiting.
    fn is_turn_of_suspects(&self) -> bool {
        let is_probing = self.breaker.cause().is_some();
        let share = (self.window.limit() / SUSPECTS_SHARE).max(1);
        // One that waits for another try takes no part of the window.
        let is_theirs =
            |batch: &&Batch| matches!(batch.role, Role::Suspect(_)) && batch.flight().is_some();
        let in_flight = || self.batches.values().filter(is_theirs).count();
        !is_probing && !self.was_suspect && in_flight() < share
    }

    /// While the server refuses everything: what waits is sorted by types, batch after batch, and
    /// they probe by turns.
    fn next_probe(&mut self, now_ms: u64, contents: &impl Contents) -> Option<Source> {
        if self.has_ordinary() {
            let batch = self.pop_ordinary();
            if self.batches[&batch].role == Role::Old {
                // What its refusal says is of its age alone.
                self.make_ready(batch, true);
                return Some(Source::Ordinary);
            }
            if let Some(rest) = self.hold_by_type(batch, true, contents) {
                // There is no room in the table for its types: they have a turn as one.
                self.make_ready(rest, self.was_suspect);
                if self.was_suspect {
                    return Some(Source::Ordinary);
                }
            }
        }
        let suspect = self.suspects.next_due(now_ms, true).map(Source::Suspect);
        suspect.or_else(|| self.has_ordinary().then_some(Source::Ordinary))
    }

    fn avoided_by(&mut self, source: Source) -> Option<usize> {
        match source {
            Source::Suspect(queue) => self.suspects.queue(queue)?.avoids,
            Source::Ordinary => self.batches[&self.next_tried()?].past.avoids,
        }
    }

    /// Whether the next probe is to be a new batch: what has failed may be at fault itself.
    fn probes_new(&self) -> bool {
        let is_probe = self.breaker.cause().is_some_and(|cause| cause != Cause::NoConnection);
        is_probe && !self.probed_new && self.is_cut_due()
    }

    /// The batch whose turn has come, unless a new one is to be cut.
    fn next_tried(&self) -> Option<BatchId> {
        if self.probes_new() { None } else { self.ready.front().copied() }
    }

    fn pop_ordinary(&mut self) -> BatchId {
        let tried = self.next_tried();
        self.probed_new = self.probes_new();
        if let Some(batch) = tried {
            self.ready.pop_front();
            self.batches.get_mut(&batch).expect("a ready batch exists").place = Place::Returned;
            return batch;
        }
        let batch = self.gather.cut(self.learned.events_max(), self.learned.bytes_max());
        let batch = self.insert(batch);
        self.batches.get_mut(&batch).expect("inserted a moment ago").place = Place::Returned;
        batch
    }

    /// The next ordinary batch, less its records of suspected types; None if there are no others.
    fn next_ordinary(&mut self, contents: &impl Contents) -> Option<BatchId> {
        let batch = self.pop_ordinary();
        if self.suspects.is_empty() || !matches!(self.batches[&batch].role, Role::Ordinary) {
            return Some(batch);
        }
        self.hold_by_type(batch, false, contents)
    }

    /// Moves the records of a batch to the queues of their types, as far as these are in the table,
    /// or can enter it if `may_enter`. What is left of it, if anything is.
    pub(super) fn hold_by_type(
        &mut self,
        id: BatchId,
        may_enter: bool,
        contents: &impl Contents,
    ) -> Option<BatchId> {
        self.take_back(id);
        let Self { suspects, batches, learned, .. } = self;
        let batch = batches.get_mut(&id).expect("whoever divides a batch has it");
        let state = (batch.past.doubt, batch.past.is_offered);
        let mut left = Vec::with_capacity(batch.records.len());
        let mut moved: Vec<(TypeId, Vec<Record>)> = Vec::new();
        for record in &batch.records {
            let queue = contents.event_type(record, |event_type| {
                if may_enter {
                    suspects.enter(event_type, learned.events_max())
                } else {
                    suspects.find(event_type)
                }
            });
            match (queue, moved.iter_mut().find(|(other, _)| Some(*other) == queue)) {
                (None, _) => left.push(*record),
                (Some(_), Some((_, records))) => records.push(*record),
                (Some(queue), None) => moved.push((queue, vec![*record])),
            }
        }
        for (queue, records) in moved {
            suspects.hold(queue, &records, state, false);
        }
        if left.is_empty() {
            self.forget(id, None);
            return None;
        }
        batch.bytes = left.iter().map(|record| u64::from(record.bytes)).sum();
        batch.records = left;
        Some(id)
    }

    fn cut_suspect(&mut self, queue: TypeId) -> BatchId {
        let Self { suspects, learned, .. } = self;
        let (records, doubt, is_offered) =
            suspects.cut(queue, learned.events_max(), learned.bytes_max());
        let found = suspects.queue(queue).expect("it was cut from");
        let (avoids, reason, is_misled) = (found.avoids, found.reason.clone(), found.is_misled);
        let past = History { doubt, is_offered, avoids, reason, is_misled, ..History::default() };
        let batch = Batch::new(records, Role::Suspect(queue), past);
        self.insert(batch)
    }

    /// Puts a batch on a connection that is free.
    fn put(&mut self, id: BatchId, connection: usize, now_ms: u64) -> Send {
        let blocked_since_ms = self.blocked.since_ms();
        self.slots.occupy(connection, now_ms);
        self.window.sent(now_ms);
        self.breaker.sent(id);
        let keeps_ids = self.proofs.keeps_ids(self.slots.proof(connection), now_ms);
        let batch = self.batches.get_mut(&id).expect("whoever sends a batch has it");
        self.was_suspect = matches!(batch.role, Role::Suspect(_));
        let past = &mut batch.past;
        if past.tried_ms.is_none() {
            past.tried_ms = Some(now_ms);
            past.blocked_since_ms = blocked_since_ms;
        }
        self.counts.batches_retried += u64::from(past.attempts > 0);
        past.attempts += 1;
        batch.place = Place::InFlight(Flight { connection, begun_ms: now_ms, is_begun: false });
        self.in_flight_bytes += batch.bytes;
        self.counts.batches_sent += 1;
        self.counts.events_sent += u64::from(batch.events());
        if !keeps_ids || batch.past.doubt.was_unkept {
            self.count_duplicated(id);
        }
        Send { connection, batch: id }
    }

    /// A batch of which an earlier try may have been stored was sent again, and it isn't certain
    /// that both servers know it by its ids.
    pub(super) fn count_duplicated(&mut self, id: BatchId) {
        let batch = self.batches.get_mut(&id).expect("a batch that was sent exists");
        let events = u64::from(batch.events());
        let doubt = &mut batch.past.doubt;
        if doubt.is_ambiguous && !doubt.is_counted {
            doubt.is_counted = true;
            self.counts.possibly_duplicated += events;
        }
    }

    /// Whether the window is open, and there is room for more bytes in flight. Requests that have
    /// waited for so long that others would have had their answers must not keep it shut: one more
    /// a while finds out whether it is the server, or only their connections.
    fn may_send(&self, source: Source, now_ms: u64) -> bool {
        let is_open = self.slots.in_flight() < self.window.limit()
            || self.stalls_ms().is_some_and(|at_ms| at_ms <= now_ms);
        is_open && self.has_room_in_flight(source)
    }

    /// Whether the next batch fits beside those that are in flight.
    fn has_room_in_flight(&self, source: Source) -> bool {
        let bytes_max = self.learned.bytes_max();
        let next_bytes = match source {
            Source::Suspect(queue) => self.suspects.next_bytes(queue, bytes_max),
            Source::Ordinary => match self.next_tried() {
                Some(batch) => self.batches[&batch].bytes,
                None => self.gather.next_bytes(bytes_max),
            },
        };
        let has_room = self.in_flight_bytes + next_bytes <= self.limits.in_flight_bytes_max;
        has_room || self.slots.in_flight() == 0
    }

    /// When the requests in flight have waited for too long: twice as long for each that was sent
    /// beyond the window.
    pub(super) fn stalls_ms(&self) -> Option<u64> {
        let extra = self.slots.in_flight().saturating_sub(self.window.limit()).min(10);
        Some(self.slots.progress_ms()? + (self.window.patience_ms() << extra))
    }

    /// The first byte of the batch's request was written, on a connection that was made for it if
    /// `is_fresh`.
    pub(crate) fn first_byte(&mut self, id: BatchId, is_fresh: bool, at_ms: u64) {
        let Some(batch) = self.batches.get_mut(&id) else { return };
        let Place::InFlight(flight) = &mut batch.place else { return };
        flight.is_begun = true;
        let (connection, begun_ms) = (flight.connection, flight.begun_ms);
        self.slots.writes(connection, is_fresh);
        if is_fresh && !self.blocked.is_now() && at_ms >= begun_ms + super::slots::FRESH_MS {
            self.blocked.add(Cause::NoConnection, at_ms - begun_ms);
        }
        if !batch.past.is_offered {
            batch.past.is_offered = true;
            // What it took to make a connection, or several, is no lateness.
            let waited_ms = if is_fresh { 0 } else { at_ms.saturating_sub(begun_ms) };
            let interval_ms = self.limits.flush_interval_ms;
            self.lateness.offered(&batch.records, &batch.past, interval_ms, waited_ms);
        }
        self.breaker.connected();
    }
}

/// Requests of suspected types have one part in so many of the window.
const SUSPECTS_SHARE: usize = 4;
