//! A batch with an event that the server refuses, or that something on the way won't pass.
//!
//! The server refuses a batch as a whole, so that no part of it is stored. The event that it names
//! goes alone, and the others wait for what becomes of it: if it is stored, the answer had named
//! the wrong one. Without a name the batch is divided by event types, half of them to each part,
//! until a part has one type; if that is refused, the type is suspected ([`suspects`]).
//!
//! [`suspects`]: super::suspects

use std::collections::HashMap;

use ledgerline_core::{Outcome, Record};

use super::batch::{Batch, History, Place, Role};
use super::lateness::Cause;
use super::suspects::{Single, TYPES_MAX, TypeId};
use super::{BatchId, Contents, Delivery, Notice};
use crate::sink::http::verdict::Why;

impl Delivery {
    /// The server won't have this batch, because of the event at `index`, if it said so.
    pub(super) fn refused(
        &mut self,
        id: BatchId,
        index: Option<u32>,
        why: Why,
        now_ms: u64,
        contents: &impl Contents,
    ) {
        let batch = &self.batches[&id];
        if batch.records.len() == 1 {
            return self.refused_alone(id, why, now_ms, contents);
        }
        let is_trusted = !batch.past.is_misled;
        let index = index.map(|index| index as usize);
        let Some(index) = index.filter(|index| is_trusted && *index < batch.records.len()) else {
            return self.divide(id, true, now_ms, contents);
        };
        let event_type = contents.event_type(&batch.records[index], str::to_owned);
        if self.suspects.refused_in_a_row(&event_type) < NAMED_MAX {
            return self.send_alone(id, index);
        }
        // It would name one after the other.
        if let Role::Suspect(queue) = batch.role {
            return self.give_back(id, queue);
        }
        self.counts.batches_isolated += 1;
        if self.suspects.enter(&event_type, self.learned.events_max()).is_none() {
            return self.divide(id, true, now_ms, contents);
        }
        if let Some(rest) = self.hold_by_type(id, false, contents) {
            self.make_ready(rest, true);
        }
    }

    /// The event that an answer named goes first, alone. The others wait for its end.
    fn send_alone(&mut self, id: BatchId, index: usize) {
        self.counts.batches_isolated += 1;
        let batch = self.batch_mut(id);
        let (one, others) = batch.without(index);
        batch.records = others.records;
        batch.bytes = others.bytes;
        let past = &mut batch.past;
        (past.attempts, past.failures, past.is_remainder) = (0, 0, true);
        let past = History { attempts: 0, failures: 0, ..one.past };
        let one = Batch { role: Role::Named { rest: id }, past, ..one };
        self.insert_ready(one, true);
        self.batch_mut(id).place = Place::Behind;
    }

    /// The named event is out of the way. `outcome`: what became of it, if it is settled.
    pub(super) fn release_rest(&mut self, rest: BatchId, outcome: Option<Outcome>) {
        let Some(batch) = self.batches.get_mut(&rest) else { return };
        if !matches!(batch.place, Place::Behind) {
            return;
        }
        if outcome.is_some_and(Outcome::is_delivered) {
            batch.past.is_misled = true; // It was another one.
            if let Role::Suspect(queue) = batch.role
                && let Some(queue) = self.suspects.queue(queue)
            {
                queue.is_misled = true;
            }
        }
        self.make_ready(rest, true);
    }

    /// The event that an answer named is held as any other, and its batch waits for it no longer.
    pub(super) fn end_named(&mut self, id: BatchId) {
        let batch = self.batch_mut(id);
        if let Role::Named { rest } = batch.role {
            batch.role = Role::Ordinary;
            self.release_rest(rest, None);
        }
    }

    /// The batch's records are no longer set apart, if they were: from now on they are as others.
    pub(super) fn take_back(&mut self, id: BatchId) {
        let Self { batches, suspects, .. } = self;
        let batch = batches.get_mut(&id).expect("whoever decides about a batch has it");
        match batch.role {
            Role::Parked => batch.role = Role::Ordinary,
            Role::Suspect(queue) if suspects.is_apart(queue) => {}
            _ => return,
        }
        suspects.note_apart(&batch.records, false);
    }

    /// Divides a batch with a bad event somewhere: by types as long as it has several. One type
    /// is suspected if it `is_refused`, and halved if it is only held.
    pub(super) fn divide(
        &mut self,
        id: BatchId,
        is_refused: bool,
        now_ms: u64,
        contents: &impl Contents,
    ) {
        self.counts.batches_isolated += 1;
        if let Role::Suspect(queue) = self.batches[&id].role {
            return self.give_back(id, queue);
        }
        let by_type = self.by_type(id, contents);
        let [(event_type, records)] = &by_type[..] else {
            let (first, second) = by_type.split_at(by_type.len() / 2);
            for types in [second, first] {
                let records = types.iter().flat_map(|(_, records)| records).copied().collect();
                self.insert_divided(id, records);
            }
            self.forget(id, None);
            return;
        };
        let events = records.len();
        let queue = if is_refused { self.suspects.enter(event_type, events / 2) } else { None };
        match queue {
            Some(queue) => self.give_back(id, queue),
            // One of a type that is known to be refused, or one event.
            None if events == 1 || self.suspects.is_refused(event_type) => self.hold(id, now_ms),
            None => self.halve(id),
        }
    }

    /// Halves a batch of one type.
    fn halve(&mut self, id: BatchId) {
        let (first, second) = self.batches[&id].halves();
        self.insert_divided(id, second.records);
        self.insert_divided(id, first.records);
        self.forget(id, None);
    }

    fn insert_divided(&mut self, of: BatchId, records: Vec<Record>) {
        let part = self.batches[&of].part(records);
        let past = History { attempts: 0, failures: 0, holds: 0, ..part.past };
        self.insert_ready(Batch { past, ..part }, true);
    }

    /// The records of a batch by their types, in the order of the types' first records.
    fn by_type(&self, id: BatchId, contents: &impl Contents) -> Vec<(String, Vec<Record>)> {
        let mut places = HashMap::new();
        let mut by_type: Vec<(String, Vec<Record>)> = Vec::new();
        for record in &self.batches[&id].records {
            contents.event_type(record, |event_type| match places.get(event_type) {
                Some(place) => {
                    let (_, records): &mut (String, Vec<Record>) = &mut by_type[*place];
                    records.push(*record);
                }
                None => {
                    places.insert(event_type.to_owned(), by_type.len());
                    by_type.push((event_type.to_owned(), vec![*record]));
                }
            });
        }
        by_type
    }

    /// Records of a suspected type were refused: they go back, and fewer go next.
    pub(super) fn give_back(&mut self, id: BatchId, queue: TypeId) {
        self.suspects.halve(queue, self.batches[&id].records.len());
        self.hold_in(id, queue, true);
    }

    /// Puts a batch's records into the queue: before the others, or behind them.
    fn hold_in(&mut self, id: BatchId, queue: TypeId, is_first: bool) {
        self.take_back(id);
        let batch = &self.batches[&id];
        let (records, past) = (batch.records.clone(), batch.past.clone());
        if let Some(queue) = self.suspects.queue(queue) {
            queue.avoids = past.avoids;
            queue.reason = past.reason.or_else(|| queue.reason.take());
        }
        self.suspects.hold(queue, &records, (past.doubt, past.is_offered), is_first);
        self.forget(id, None);
    }

    /// An event that the server refuses by itself: a dead letter, unless too many are.
    fn refused_alone(&mut self, id: BatchId, why: Why, now_ms: u64, contents: &impl Contents) {
        if why == Why::IdConflict {
            return self.settle(id, Outcome::DeadLettered, now_ms); // Whatever the others come to.
        }
        self.refused_single(id, true, now_ms, contents);
    }

    /// An event was refused alone. `counts_for_type`: it is not only too large.
    pub(super) fn refused_single(
        &mut self,
        id: BatchId,
        counts_for_type: bool,
        now_ms: u64,
        contents: &impl Contents,
    ) {
        let record = self.batches[&id].records[0];
        let event_type = contents.event_type(&record, str::to_owned);
        match self.suspects.refused_single(&event_type, counts_for_type) {
            Single::DeadLetter => self.settle(id, Outcome::DeadLettered, now_ms),
            Single::Keep => self.suspect(id, &event_type, now_ms),
            Single::KeepAll => self.suspect_server(id, &event_type, now_ms),
        }
    }

    /// Too many of the type were refused in a row: the event is kept, behind the others.
    fn suspect(&mut self, id: BatchId, event_type: &str, now_ms: u64) {
        let was_known = self.suspects.find(event_type).is_some();
        let Some(queue) = self.suspects.enter(event_type, self.learned.events_max()) else {
            self.end_named(id);
            return self.hold(id, now_ms);
        };
        let reason = self.batches[&id].past.reason.clone();
        self.hold_in(id, queue, false);
        // One whose refused events were all named is given a try with more of its events.
        if was_known && self.suspects.pause(queue, now_ms) {
            self.notice(Notice::SetApart { event_type: event_type.into(), reason });
        }
    }

    /// The server refuses one event after the other, whatever its type, and stores nothing:
    /// everything is kept.
    fn suspect_server(&mut self, id: BatchId, event_type: &str, now_ms: u64) {
        if !self.suspects.is_server() {
            self.suspects.suspect_server();
            for batch in self.batches.values_mut() {
                if matches!(batch.role, Role::Suspect(_) | Role::Parked) {
                    self.suspects.note_apart(&batch.records, false);
                }
                if batch.role == Role::Parked {
                    batch.role = Role::Ordinary;
                }
            }
        }
        match self.suspects.enter(event_type, 1) {
            Some(queue) => self.hold_in(id, queue, false),
            None => {
                self.end_named(id);
                self.hold(id, now_ms);
            }
        }
        self.counts.failed.held += 1;
        self.breaker.fail();
        self.open_breaker(Cause::Rejecting, 0, now_ms);
    }

    /// Whether an event may be set apart: it is, or events of its type are, or of few other types.
    fn may_be_apart(&self, id: BatchId, contents: &impl Contents) -> bool {
        let batch = &self.batches[&id];
        if batch.role == Role::Parked {
            return true;
        }
        let apart = self.set_apart();
        let is_known = |event_type: &str| apart.iter().any(|it| &*it.event_type == event_type);
        apart.len() < TYPES_MAX || contents.event_type(&batch.records[0], is_known)
    }

    /// Holds one event alone, set apart, with a backoff of its own.
    pub(super) fn park(&mut self, id: BatchId, now_ms: u64, contents: &impl Contents) {
        if !self.may_be_apart(id, contents) {
            return self.hold(id, now_ms);
        }
        let batch = self.batches.get_mut(&id).expect("whoever parks a batch has it");
        let record = batch.records[0];
        let role = std::mem::replace(&mut batch.role, Role::Parked);
        let delay_ms = (PARK_MIN_MS << batch.past.parks.min(10)).min(PARK_MAX_MS);
        batch.past.parks += 1;
        batch.past.is_offered = true;
        if batch.past.event_type.is_none() {
            batch.past.event_type =
                Some(contents.event_type(&record, |event_type| event_type.into()));
        }
        let reason = batch.past.reason.clone();
        match role {
            Role::Suspect(queue) => {
                self.suspects.returned(queue);
                self.suspects.leave_if_done(queue);
            }
            Role::Named { rest } => self.release_rest(rest, None),
            Role::Ordinary | Role::Old | Role::Parked => {}
        }
        if role != Role::Parked {
            self.suspects.note_apart(&[record], true);
            self.notice(Notice::Parked { record, reason });
        }
        self.set_backoff(id, delay_ms, now_ms);
    }
}

/// Events of a type that were refused alone, one after the other, before its type is suspected.
const NAMED_MAX: u32 = 2;
/// Between tries of one event that is held alone.
const PARK_MIN_MS: u64 = 1_000;
const PARK_MAX_MS: u64 = 60_000;
