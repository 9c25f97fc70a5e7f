//! What follows from the end of a request.

use std::sync::Arc;

use ledgerline_core::Outcome;

use super::batch::{Batch, Flight, History, Place, Role, SameAnswers};
use super::gather::fitting;
use super::lateness::Cause;
use super::proof::Strange;
use super::slots::FRESH_MS;
use super::suspects::TypeId;
use super::{BatchId, Contents, Delivery, Ids, Notice};
use crate::loss::ServerReason;
use crate::sink::http::verdict::{Verdict, Why};

/// The end of a batch's request.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) batch: BatchId,
    pub(crate) verdict: Verdict,
    /// The status of the answer; 0: there is none.
    pub(crate) status: u16,
    /// Whose ids it lists, where that was looked at.
    pub(crate) ids: Ids,
    /// What the server said.
    pub(crate) reason: Option<Arc<ServerReason>>,
}

impl Delivery {
    /// A request has ended. One that the machine doesn't know any longer changes nothing.
    pub(crate) fn ended(&mut self, ended: Ended, now_ms: u64, contents: &impl Contents) {
        let id = ended.batch;
        let Some(flight) = self.release(id) else { return };
        self.breaker.returned(id);
        let connection = flight.connection;
        let in_flight = self.slots.in_flight();
        if ended.status == 0 {
            self.slots.failed(connection, ended.verdict == Verdict::Skipped);
        } else {
            self.slots.answered(connection, now_ms);
            self.lateness.write_ms.saturating_record(now_ms.saturating_sub(flight.begun_ms));
        }
        self.note_ambiguity(id, connection, ended.verdict, now_ms);
        if let Some(reason) = &ended.reason {
            self.batch_mut(id).past.reason = Some(Arc::clone(reason));
        }
        if ended.verdict.is_success() {
            self.stored(&ended, flight, in_flight, now_ms, contents);
        } else {
            self.not_stored(&ended, flight, now_ms, contents);
        }
    }

    fn stored(
        &mut self,
        ended: &Ended,
        flight: Flight,
        in_flight: usize,
        now_ms: u64,
        contents: &impl Contents,
    ) {
        let (id, connection) = (ended.batch, flight.connection);
        let ids = if ended.status == 201 { ended.ids } else { Ids::Unchecked };
        match self.proofs.stored(self.slots.proof(connection), ids, now_ms) {
            Ok(proof) => self.slots.set_proof(connection, proof),
            Err(Strange) => return self.strange(id, connection),
        }
        if matches!(ids, Ids::Absent | Ids::Others) {
            self.count_duplicated(id); // It was sent again to somebody who doesn't know it.
        }
        self.slots.stored(connection, now_ms);
        self.stored_ms = Some(now_ms);
        let took_ms = now_ms.saturating_sub(flight.begun_ms);
        if took_ms >= self.limits.request_timeout_ms / 2 {
            self.window.failed(); // Before requests take too long.
        } else {
            self.window.answered(took_ms, in_flight, now_ms);
        }
        if self.breaker.close(flight.begun_ms) {
            self.window.restart();
        }
        self.learn_from_stored(id, took_ms, now_ms);
        self.clear_suspicion(id, flight, contents);
        let is_queued = ended.verdict == Verdict::Queued;
        let outcome = if is_queued { Outcome::QueuedByServer } else { Outcome::Delivered };
        self.settle(id, outcome, now_ms);
    }

    /// A batch was stored: what that says of the types of its events.
    fn clear_suspicion(&mut self, id: BatchId, flight: Flight, contents: &impl Contents) {
        let queue = match self.batches[&id].role {
            Role::Suspect(queue) => Some(queue),
            _ => None,
        };
        self.suspects.stored(flight.begun_ms, queue);
        let Self { suspects, batches, learned, .. } = self;
        let batch = &batches[&id];
        if let Role::Suspect(queue) = batch.role {
            let events = batch.records.len();
            if suspects.stored_of(queue, events, learned.events_max()) {
                let others = batches.values().filter(|batch| batch.role == Role::Suspect(queue));
                let records: Vec<_> = others.flat_map(|batch| batch.records.clone()).collect();
                suspects.note_apart(&records, false);
            }
            self.trust_if_whole(id, queue);
        } else if batch.past.is_remainder && suspects.has_tallies() {
            for record in &batch.records {
                contents.event_type(record, |it| suspects.forget_tally(it));
            }
        }
    }

    /// A request of a suspected type was stored: if it was one of several whole ones, the type is
    /// suspected no longer.
    fn trust_if_whole(&mut self, id: BatchId, queue: TypeId) {
        let (events_max, bytes_max) = (self.learned.events_max(), self.learned.bytes_max());
        let batch = &self.batches[&id];
        if batch.records.len() < events_max && batch.bytes < bytes_max / 2 {
            return;
        }
        let mut parts = Vec::new();
        for (records, doubt, is_offered) in self.suspects.stored_whole(queue) {
            let mut left = &records[..];
            while !left.is_empty() {
                let (part, rest) = left.split_at(fitting(left, events_max, bytes_max).0);
                let past = History { doubt, is_offered, ..History::default() };
                parts.push(Batch::new(part.to_vec(), Role::Ordinary, past));
                left = rest;
            }
        }
        for part in parts.into_iter().rev() {
            self.insert_ready(part, true);
        }
    }

    /// The ids of others, on a connection that had given ours: it may be the answer to an earlier
    /// request, as those behind it may be. The connection is left, and what it carried is sent once
    /// more on another one. That is nobody's failure.
    fn strange(&mut self, id: BatchId, connection: usize) {
        let on_it = |flight: &Flight| flight.connection == connection;
        let mut hit: Vec<BatchId> = self
            .batches
            .iter()
            .filter(|(_, batch)| batch.flight().is_some_and(on_it))
            .map(|(id, _)| *id)
            .collect();
        for id in &hit {
            let Some(Flight { is_begun, .. }) = self.release(*id) else { continue };
            self.breaker.returned(*id);
            self.batch_mut(*id).past.doubt.is_ambiguous |= is_begun;
        }
        self.slots.abandon(connection);
        hit.push(id);
        hit.sort_unstable_by(|one, other| other.cmp(one));
        self.counts.failed.ambiguous += 1;
        self.batch_mut(id).past.doubt.is_ambiguous = true;
        for id in hit {
            let past = &mut self.batch_mut(id).past;
            past.doubt.was_unkept |= past.doubt.is_ambiguous;
            past.avoids = None;
            self.make_ready(id, true);
        }
    }

    fn not_stored(&mut self, ended: &Ended, flight: Flight, now_ms: u64, contents: &impl Contents) {
        let (id, verdict) = (ended.batch, ended.verdict);
        match verdict {
            Verdict::Skipped => {
                // The server never looked at it: no try, and no reason to pause.
                self.batch_mut(id).past.attempts -= 1;
                return self.make_ready(id, true);
            }
            Verdict::TooBig { .. } | Verdict::Refused { .. } => {
                self.slots.refuses(flight.connection, now_ms);
                self.batch_mut(id).past.avoids = Some(flight.connection);
                if self.is_in_doubt(id, verdict, flight.connection, now_ms) {
                    return self.make_ready(id, true);
                }
                return self.rejected(id, verdict, flight, now_ms, contents);
            }
            Verdict::NotConnected => return self.unreachable(id, flight, now_ms),
            _ => {}
        }
        self.slots.bad(flight.connection, now_ms);
        self.end_named(id); // Whatever holds it need not hold the others.
        self.batch_mut(id).past.avoids = Some(flight.connection);
        if self.is_its_own_fault(id, ended, flight, now_ms) {
            self.counts.failed.held += 1;
            if self.batches[&id].records.len() == 1 {
                return self.park(id, now_ms, contents);
            }
            return self.divide(id, false, now_ms, contents);
        }
        match verdict {
            Verdict::Overloaded { after_ms: Some(after_ms) } => {
                self.window.failed();
                self.counts.failed.not_processed += 1;
                self.retry(id, after_ms, now_ms);
                self.breaker.fail();
                self.open_breaker(Cause::Overloaded, after_ms, now_ms);
            }
            Verdict::Overloaded { after_ms: None } | Verdict::ServerError => {
                self.window.failed();
                self.overloaded(&[id], verdict.is_ambiguous(), now_ms);
            }
            Verdict::Unauthorized => self.unauthorized(id, now_ms),
            Verdict::Unreadable => {
                // It would be stored once more at each try.
                self.hold_for(id, UNREADABLE_MS, now_ms);
                self.blame(Cause::Misrouted, now_ms);
            }
            Verdict::Misrouted { .. } => {
                self.hold(id, now_ms);
                self.blame(Cause::Misrouted, now_ms);
            }
            _ => {
                self.window.failed();
                let is_timeout = matches!(verdict, Verdict::NoAnswer { is_timeout: true });
                let tried = if is_timeout { self.timed_out(id) } else { vec![id] };
                self.overloaded(&tried, verdict.is_ambiguous(), now_ms);
            }
        }
    }

    /// Whether an event that was refused alone is asked for once more, on another connection: the
    /// one that refused it has stored nothing lately, and another one has. Behind it may be a
    /// server that refuses everything.
    fn is_in_doubt(
        &mut self,
        id: BatchId,
        verdict: Verdict,
        connection: usize,
        now_ms: u64,
    ) -> bool {
        let is_refused = matches!(verdict, Verdict::Refused { why, .. } if why != Why::IdConflict);
        let is_alone = self.slots.refuses_alone(connection, now_ms);
        let batch = self.batch_mut(id);
        let is_single = batch.records.len() == 1 && batch.role != Role::Old;
        let may_be = is_refused && is_alone && is_single && !self.suspects.is_server();
        may_be && !std::mem::replace(&mut self.batch_mut(id).past.was_doubted, true)
    }

    /// More events than the server takes, or one that it won't have.
    fn rejected(
        &mut self,
        id: BatchId,
        verdict: Verdict,
        flight: Flight,
        now_ms: u64,
        contents: &impl Contents,
    ) {
        let is_single = self.batches[&id].records.len() == 1;
        if let Verdict::Refused { index, why: Why::TooOld } = verdict
            && self.refused_for_age(id, index, now_ms, contents)
        {
            if self.suspects.is_server() {
                self.breaker.fail();
                self.open_breaker(Cause::Rejecting, 0, now_ms);
            }
        } else {
            match verdict {
                Verdict::TooBig { .. } if is_single => {
                    self.refused_single(id, false, now_ms, contents);
                }
                _ if self.suspects.is_server() && !is_single => self.reject(id, now_ms, contents),
                Verdict::TooBig { limit } => self.too_big(id, limit, now_ms),
                Verdict::Refused { index, why } => self.refused(id, index, why, now_ms, contents),
                _ => unreachable!("only these are rejections"),
            }
        }
        if !self.suspects.is_server() {
            self.breaker.close(flight.begun_ms); // It reads what it is sent.
        }
    }

    /// Whether a batch has had the same answer so often, while others were stored, that it is the
    /// batch: something on the way doesn't let one of its events pass.
    fn is_its_own_fault(
        &mut self,
        id: BatchId,
        ended: &Ended,
        flight: Flight,
        now_ms: u64,
    ) -> bool {
        let is_overload = matches!(
            ended.verdict,
            Verdict::Overloaded { .. }
                | Verdict::Unauthorized
                | Verdict::NoAnswer { is_timeout: true }
        );
        let is_server = self.suspects.is_server();
        let (kind, stored_ms) = (Some((ended.verdict, ended.status)), self.stored_ms);
        let batch = self.batch_mut(id);
        let same = &mut batch.past.same;
        if is_overload || ended.verdict == Verdict::Unreadable || is_server {
            return false;
        }
        if batch.role == Role::Parked {
            return true; // Nothing follows from it for others, however long it is the only one.
        }
        // Others were stored since it was last answered so, or at least since it was sent. What it
        // is a part of has shown already that it isn't the server.
        let is_first = same.kind != kind;
        let since_ms = match same.count {
            _ if is_first => flight.begun_ms,
            SAME_MAX.. => now_ms.saturating_sub(SHOWN_MS),
            _ => same.at_ms,
        };
        let are_others_stored = stored_ms.is_some_and(|at_ms| at_ms >= since_ms);
        if is_first {
            *same = SameAnswers { kind, count: 1, at_ms: now_ms };
        } else if are_others_stored {
            *same = SameAnswers { count: same.count + 1, at_ms: now_ms, ..*same };
        }
        are_others_stored && same.count >= SAME_MAX
    }

    /// Frees the connection of a batch that was in flight.
    fn release(&mut self, id: BatchId) -> Option<Flight> {
        let batch = self.batches.get_mut(&id)?;
        let flight = *batch.flight()?;
        batch.place = Place::Returned;
        self.in_flight_bytes -= batch.bytes;
        Some(flight)
    }

    fn note_ambiguity(&mut self, id: BatchId, connection: usize, verdict: Verdict, now_ms: u64) {
        if !verdict.is_ambiguous() {
            return;
        }
        let keeps_ids = self.proofs.keeps_ids(self.slots.proof(connection), now_ms);
        let doubt = &mut self.batch_mut(id).past.doubt;
        doubt.is_ambiguous = true;
        doubt.was_unkept |= !keeps_ids;
    }

    /// No connection could be made: nobody is there, unless another connection has just had an
    /// answer.
    fn unreachable(&mut self, id: BatchId, flight: Flight, now_ms: u64) {
        self.counts.failed.no_connection += 1;
        let took_ms = now_ms.saturating_sub(flight.begun_ms);
        if took_ms >= FRESH_MS && !self.blocked.is_now() {
            self.blocked.add(Cause::NoConnection, took_ms);
        }
        if self.is_given_up(id) {
            return self.settle(id, Outcome::GaveUp, now_ms);
        }
        let is_worst = self.breaker.fail();
        if self.slots.is_any_answering(now_ms) && !is_worst {
            return self.pause(id, 0, now_ms);
        }
        self.make_ready(id, true);
        self.window.restart();
        self.open_breaker(Cause::NoConnection, 0, now_ms);
    }

    fn unauthorized(&mut self, id: BatchId, now_ms: u64) {
        self.counts.failed.unauthorized += 1;
        let is_available = self.unavailable().is_none();
        let past = &mut self.batch_mut(id).past;
        if !std::mem::replace(&mut past.was_unauthorized, true) && is_available {
            // The token may have been replaced.
            return self.pause(id, 0, now_ms);
        }
        self.hold(id, now_ms);
        self.blame(Cause::Unauthorized, now_ms);
    }

    pub(super) fn batch_mut(&mut self, id: BatchId) -> &mut Batch {
        self.batches.get_mut(&id).expect("whoever decides about a batch has it")
    }

    /// Says that events of a type are set apart, or no longer.
    pub(super) fn notice(&mut self, notice: Notice) {
        if self.notices.len() < NOTICES_MAX {
            self.notices.push(notice);
        }
    }
}

/// The same answer so many times, while others are stored, and it is the batch.
const SAME_MAX: u32 = 3;
/// How long it counts, for the parts of such a batch, that others were stored.
const SHOWN_MS: u64 = 60_000;
const UNREADABLE_MS: u64 = 60_000;
/// Between two looks at them.
const NOTICES_MAX: usize = 64;
