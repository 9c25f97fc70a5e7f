//! The delivery machine: gathers records, cuts batches, retries, settles.
//!
//! Pure. What happened goes in, with the time: records taken, answers, failures, the clock. What to
//! do comes out: [`Send`]s by [`Delivery::next_send`], [`Settlement`]s, and the moment to call
//! again. No sockets, no clock, no bytes: a batch is a list of spans of blocks.
//!
//! Its law: hold and retry is the rule. Nothing leaves the machine but by an answer of the server,
//! or because `retries_max` or `give_up_after` said so. A batch waits for its retry on its own
//! timer and holds no slot meanwhile, so it delays nobody.

mod answer;
mod batch;
mod breaker;
mod counts;
mod evict;
mod expire;
mod fuse;
mod gather;
mod isolate;
mod lateness;
mod limits;
mod retry;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod simulation;
mod slots;
mod slow;
#[cfg(test)]
mod tests;
mod window;

use std::collections::{HashMap, VecDeque};

use ledgerline_core::{Outcome, Record, Wheel};
use ledgerline_transport::{self as transport, Answer, Certainty, Failure};

pub use self::counts::FailedTries;
pub use self::lateness::{BlockedMs, Cause};
pub(crate) use self::{
    answer::{Verdict, judge, keeps_our_ids},
    batch::{Batch, Span},
    counts::{Counts, Whereabouts},
    gather::Reason,
    lateness::{Blocked, Lateness},
    limits::Limits,
};
use self::{
    breaker::Breaker, fuse::Fuse, gather::Gather, isolate::Isolation, slots::Slots, window::Window,
};

/// Names a batch for as long as the engine lives.
pub(crate) type BatchId = u64;

/// Put this batch on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Send {
    pub(crate) connection: usize,
    pub(crate) batch: BatchId,
}

/// What became of the records of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settlement {
    pub(crate) span: Span,
    pub(crate) outcome: Outcome,
    /// The outcome of an earlier try is unknown: it may have stored them.
    pub(crate) doubt: Doubt,
}

impl Settlement {
    /// Whether the same became of both, for the same reason.
    pub(crate) fn has_same_end(&self, other: &Self) -> bool {
        self.outcome == other.outcome && self.doubt == other.doubt
    }
}

/// What is known of the tries whose outcome isn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Doubt {
    /// There was one: it may have stored the records.
    pub(crate) is_ambiguous: bool,
    /// They were sent again, and counted as possibly duplicated.
    pub(crate) is_counted: bool,
}

#[derive(Debug)]
pub(crate) struct Delivery {
    limits: Limits,
    gather: Gather,
    batches: HashMap<BatchId, Batch>,
    next_id: BatchId,
    /// Batches whose turn has come again, or that were split.
    ready: VecDeque<BatchId>,
    retries: Wheel<BatchId>,
    slots: Slots,
    /// Bytes of the events on the way.
    in_flight_bytes: u64,
    /// What the server has been seen to take; at most `batch_events_max`.
    events_max_now: usize,
    /// When to try `batch_events_max` again.
    raise_events_max_ms: u64,
    /// What it has been seen to take in time; at most `batch_bytes_max`.
    bytes_max_now: u64,
    /// When to try `batch_bytes_max` again.
    raise_bytes_max_ms: u64,
    /// The largest batch that was stored since a whole one was too big.
    events_stored_max: u32,
    /// The server's last checked answer listed our ids, in order.
    is_idempotent: bool,
    settlements: Vec<Settlement>,
    blocked: Blocked,
    lateness: Lateness,
    counts: Counts,
    random: fastrand::Rng,
    breaker: Breaker,
    fuse: Fuse,
    window: Window,
    /// By the batch that the server refused.
    isolations: HashMap<BatchId, Isolation>,
    now_ms: u64,
}

impl Delivery {
    pub(crate) fn new(limits: Limits, now_ms: u64, random: fastrand::Rng) -> Self {
        Self {
            gather: Gather::default(),
            batches: HashMap::new(),
            next_id: 0,
            ready: VecDeque::new(),
            retries: Wheel::new(now_ms),
            slots: Slots::new(limits.connections_max),
            in_flight_bytes: 0,
            events_max_now: limits.batch_events_max.min(EVENTS_MAX_UNPROVEN),
            raise_events_max_ms: now_ms + RAISE_MAX_MS,
            bytes_max_now: limits.batch_bytes_max,
            raise_bytes_max_ms: 0,
            events_stored_max: 0,
            is_idempotent: false,
            settlements: Vec::new(),
            blocked: Blocked::default(),
            lateness: Lateness::default(),
            counts: Counts::default(),
            random,
            breaker: Breaker::default(),
            fuse: Fuse::default(),
            window: Window::new(limits.connections_max * limits.pipeline_depth_max),
            isolations: HashMap::new(),
            now_ms,
            limits,
        }
    }

    /// A record was taken from its lane.
    pub(crate) fn push(&mut self, record: Record) {
        self.gather.push(record);
    }

    /// Sends all that is gathered without waiting for it to fall due. Bypasses no backoff.
    pub(crate) fn flush(&mut self) {
        self.gather.force(Reason::Request);
    }

    /// Lets the time pass: retries come up, gathered records fall due.
    pub(crate) fn advance(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        let Self { ready, retries, batches, .. } = self;
        retries.advance(now_ms, &mut |batch| {
            if batches.contains_key(&batch) {
                ready.push_back(batch); // It was not evicted meanwhile.
            }
        });
        if self.gather.due_ms(self.limits.flush_interval_ms).is_some_and(|due| due <= now_ms) {
            self.gather.force(Reason::Timer);
        }
        if now_ms >= self.raise_events_max_ms {
            self.events_max_now = self.limits.batch_events_max;
        }
        if now_ms >= self.raise_bytes_max_ms {
            self.bytes_max_now = self.limits.batch_bytes_max;
        }
    }

    /// When to call [`advance`](Self::advance) next, if nothing happens before.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        let due_ms = self.gather.due_ms(self.limits.flush_interval_ms);
        // A probe that is due and can't be sent waits for something else to happen.
        let probe_ms = self.breaker.probe_ms();
        let probe_ms = probe_ms.filter(|at_ms| *at_ms > self.now_ms && self.has_work());
        let stalls_ms = self.stalls_ms().filter(|at_ms| *at_ms > self.now_ms && self.has_work());
        [self.retries.next_ms(), due_ms, probe_ms, stalls_ms].into_iter().flatten().min()
    }

    /// The next batch to put on a connection, if there is one and a connection may take it.
    pub(crate) fn next_send(&mut self, now_ms: u64) -> Option<Send> {
        let has_work = self.has_work();
        if !has_work && self.batches.is_empty() {
            self.blocked.end(now_ms); // Nothing is held any longer: given up, or evicted.
        }
        if has_work && let Some(cause) = self.breaker.blocks(now_ms) {
            self.blocked.begin(now_ms, cause);
            return None;
        }
        let depth = if self.is_idempotent { self.limits.pipeline_depth_max } else { 1 };
        let may_send = has_work && self.may_send(now_ms);
        let free = if may_send { self.slots.free(depth, now_ms) } else { None };
        if has_work && free.is_none() {
            self.blocked.begin(now_ms, self.slots.cause(now_ms));
            return None;
        }
        let connection = free?;
        // Whether a server that has refused much takes what is new: what it has refused may be bad.
        let wants_new = self.breaker.cause() == Some(Cause::Rejecting) && self.is_cut_due();
        let tried = if wants_new { None } else { self.ready.pop_front() };
        let batch = tried.unwrap_or_else(|| self.cut(now_ms));
        let blocked_since_ms = self.blocked.since_ms();
        if self.breaker.cause().is_none() && !self.has_work() {
            self.blocked.end(now_ms);
        }
        self.slots.occupy(connection, now_ms);
        self.window.sent(now_ms);
        self.breaker.sent(batch);
        let found = self.batches.get_mut(&batch).expect("a ready batch exists");
        if !found.is_offered {
            found.sent_ms = now_ms;
            found.blocked_since_ms = found.blocked_since_ms.or(blocked_since_ms);
        }
        self.counts.batches_retried += u64::from(found.attempts > 0);
        found.attempts += 1;
        found.is_begun = false;
        found.connection = Some(connection);
        found.begun_ms = now_ms;
        let origin = found.origin;
        self.in_flight_bytes += found.bytes;
        self.counts.batches_sent += 1;
        self.counts.events_sent += u64::from(found.events);
        self.count_isolating(origin);
        if !self.is_idempotent {
            self.count_duplicated(batch);
        }
        Some(Send { connection, batch })
    }

    /// A batch of which an earlier try may have been stored was sent again, to a server that
    /// doesn't know it by its ids.
    fn count_duplicated(&mut self, batch: BatchId) {
        let found = self.batches.get_mut(&batch).expect("a batch that was sent exists");
        if found.is_ambiguous && !found.is_counted_duplicated {
            found.is_counted_duplicated = true;
            self.counts.possibly_duplicated += u64::from(found.events);
        }
    }

    /// Whether the window is open, and there is room on the way. Requests that have waited for so
    /// long that others would have had their answers must not keep it shut: one more a while finds
    /// out whether it is the server, or only their connections.
    fn may_send(&self, now_ms: u64) -> bool {
        let is_open = self.slots.in_flight() < self.window.limit()
            || self.stalls_ms().is_some_and(|at_ms| at_ms <= now_ms);
        is_open && self.has_room_on_the_way()
    }

    /// Whether the next batch, whichever it is, fits beside those that are on the way.
    fn has_room_on_the_way(&self) -> bool {
        let tried = self.ready.front().map_or(0, |batch| self.batches[batch].bytes);
        let next_bytes = tried.max(self.gather.next_bytes(self.bytes_max_now));
        let has_room = self.in_flight_bytes + next_bytes <= self.limits.in_flight_bytes_max;
        has_room || self.slots.in_flight() == 0
    }

    /// When the requests on the way have waited for too long: twice as long for each that was sent
    /// in another's stead.
    fn stalls_ms(&self) -> Option<u64> {
        let extra = self.slots.in_flight().saturating_sub(self.window.limit()).min(10);
        Some(self.slots.progress_ms()? + (self.window.patience_ms() << extra))
    }

    fn has_work(&self) -> bool {
        !self.ready.is_empty() || self.is_cut_due()
    }

    /// The first byte of the batch's request was written.
    pub(crate) fn first_byte(&mut self, batch: BatchId, at_ms: u64) {
        let Some(found) = self.batches.get_mut(&batch) else { return };
        found.is_begun = true;
        if let Some(connection) = found.connection {
            self.slots.writes(connection);
        }
        if !found.is_offered {
            found.is_offered = true;
            self.lateness.offered(found, self.limits.flush_interval_ms, at_ms);
        }
        if self.breaker.connected() && !self.has_work() {
            self.blocked.end(at_ms);
        }
    }

    /// The server answered. `keeps_ids`: whether the answer listed our ids, where it was checked.
    pub(crate) fn answered(
        &mut self,
        batch: BatchId,
        answer: &Answer,
        keeps_ids: Option<bool>,
        now_ms: u64,
    ) {
        let Some(connection) = self.release(batch) else { return };
        self.breaker.returned(batch);
        let (in_flight, begun_ms) = (self.slots.in_flight(), self.batches[&batch].begun_ms);
        self.slots.answered(connection, keeps_ids.is_some(), now_ms);
        self.is_idempotent = keeps_ids.unwrap_or(self.is_idempotent);
        if keeps_ids == Some(false) {
            self.count_duplicated(batch);
        }
        let verdict = judge(answer);
        match verdict {
            Verdict::Stored => self.settle(batch, Outcome::Delivered, now_ms),
            Verdict::Queued => self.settle(batch, Outcome::QueuedByServer, now_ms),
            Verdict::TooBig => self.too_big(batch, now_ms),
            Verdict::Refused { index } => self.refused(batch, index, now_ms),
            Verdict::Retry { is_ambiguous } => {
                let found = self.batches.get_mut(&batch).expect("released above");
                found.is_ambiguous |= is_ambiguous;
                self.window.failed();
                self.overloaded(&[batch], is_ambiguous, now_ms);
            }
            Verdict::Later { after_ms } => {
                self.window.failed();
                self.counts.failed.not_processed += 1;
                self.retry(batch, after_ms, now_ms);
                self.open_breaker(Cause::Overloaded, after_ms, now_ms);
            }
            Verdict::Unauthorized
                if !self.batches[&batch].was_unauthorized && self.unavailable().is_none() =>
            {
                self.batches.get_mut(&batch).expect("released above").was_unauthorized = true;
                self.counts.failed.unauthorized += 1;
                self.retry(batch, 0, now_ms);
            }
            Verdict::Unauthorized | Verdict::Hold => self.misrouted(batch, now_ms),
        }
        self.lateness.write_ms.saturating_record(now_ms.saturating_sub(begun_ms));
        if matches!(verdict, Verdict::Stored | Verdict::Queued) {
            self.window.answered(now_ms.saturating_sub(begun_ms), in_flight, now_ms);
        }
    }

    /// The request came to nothing.
    pub(crate) fn failed(&mut self, batch: BatchId, failure: &Failure, now_ms: u64) {
        let Some(connection) = self.release(batch) else { return };
        self.breaker.returned(batch);
        // The server answered an earlier request, and closed the connection with that.
        let is_follower = failure.cause == transport::Cause::EndedEarlier;
        self.slots.failed(connection, is_follower);
        let found = self.batches.get_mut(&batch).expect("released above");
        let is_unprocessed = failure.certainty == Certainty::NotProcessed;
        found.is_ambiguous |= !is_unprocessed;
        if is_unprocessed && is_follower {
            // The server never looked at it: no try, and no reason to pause.
            found.attempts -= 1;
            self.ready.push_front(batch);
        } else if is_unprocessed && !found.is_begun && !self.slots.is_any_up(now_ms) {
            self.unreachable(batch, now_ms);
        } else {
            self.window.failed();
            let is_late = matches!(failure.cause, transport::Cause::RequestTimeout { .. });
            let tried = if is_late { self.timed_out(batch) } else { vec![batch] };
            self.overloaded(&tried, !is_unprocessed, now_ms);
        }
    }

    /// Whether the next answer on this connection should be checked for our ids: the first, and
    /// each 1,000th.
    pub(crate) fn wants_proof(&self, batch: BatchId) -> bool {
        let connection = self.batches.get(&batch).and_then(|found| found.connection);
        connection.is_some_and(|connection| self.slots.wants_proof(connection))
    }

    pub(crate) fn batch(&self, batch: BatchId) -> Option<&Batch> {
        self.batches.get(&batch)
    }

    pub(crate) fn take_settlements(&mut self) -> Vec<Settlement> {
        std::mem::take(&mut self.settlements)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn lateness(&self) -> &Lateness {
        &self.lateness
    }

    pub(crate) fn blocked_ms(&self, now_ms: u64) -> BlockedMs {
        self.blocked.total(now_ms)
    }

    pub(crate) fn whereabouts(&self) -> Whereabouts {
        let mut whereabouts =
            Whereabouts { unsent: self.gather.len() as u64, ..Whereabouts::default() };
        for batch in self.batches.values() {
            let events = u64::from(batch.events);
            match (batch.connection, batch.attempts) {
                (Some(_), _) => whereabouts.in_flight += events,
                (None, 0) => whereabouts.unsent += events,
                (None, _) => whereabouts.retrying += events,
            }
        }
        whereabouts
    }

    /// The records whose outcome at the server is unknown at this moment.
    pub(crate) fn ambiguous_spans(&self) -> impl Iterator<Item = Span> {
        let is_ambiguous =
            |batch: &&Batch| batch.connection.is_some() && batch.is_begun || batch.is_ambiguous;
        self.batches.values().filter(is_ambiguous).flat_map(|batch| batch.spans.iter().copied())
    }

    /// Lets go of every record, after the engine has lost track: they will be pushed again. What
    /// the machine has learned and counted stays.
    pub(crate) fn restart(&mut self, now_ms: u64) {
        self.gather = Gather::default();
        self.batches.clear();
        self.ready.clear();
        self.retries = Wheel::new(now_ms);
        self.slots = Slots::new(self.limits.connections_max);
        self.in_flight_bytes = 0;
        self.settlements.clear();
        self.blocked.end(now_ms);
        self.isolations.clear();
        self.breaker = Breaker::default();
        self.window.restart();
    }

    /// Why the endpoint takes nothing at present.
    pub(crate) fn unavailable(&self) -> Option<Cause> {
        self.breaker.cause()
    }

    /// How many events a batch may have at present.
    pub(crate) fn events_max_now(&self) -> usize {
        self.events_max_now
    }

    /// Requests on the way, and how many may be.
    pub(crate) fn concurrency(&self) -> (usize, usize) {
        (self.slots.in_flight(), self.window.limit())
    }

    pub(crate) fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// Events that were refused alone, of the last 1,000.
    pub(crate) fn refused_lately(&self) -> u32 {
        self.fuse.refused()
    }

    /// Whether the server has shown that it keeps our ids, so that a resend is harmless.
    pub(crate) fn is_idempotent(&self) -> bool {
        self.is_idempotent
    }

    fn is_cut_due(&self) -> bool {
        self.gather.is_cut_due(self.events_max_now, self.bytes_max_now)
    }

    fn cut(&mut self, now_ms: u64) -> BatchId {
        let mut batch = self.gather.cut(self.events_max_now, self.bytes_max_now);
        batch.sent_ms = now_ms;
        self.insert(batch)
    }

    fn insert(&mut self, batch: Batch) -> BatchId {
        let id = self.next_id;
        self.next_id += 1;
        self.batches.insert(id, batch);
        id
    }

    /// Frees the slot of a batch that was on the way.
    fn release(&mut self, batch: BatchId) -> Option<usize> {
        let found = self.batches.get_mut(&batch)?;
        let connection = found.connection.take()?;
        self.in_flight_bytes -= found.bytes;
        Some(connection)
    }

    fn settle(&mut self, batch: BatchId, outcome: Outcome, now_ms: u64) {
        let found = self.batches.remove(&batch).expect("a batch is settled once");
        self.settled_part(&found, outcome);
        if outcome.is_delivered() {
            self.fuse.stored(found.events);
            if self.breaker.close(found.begun_ms) {
                self.window.restart();
                self.blocked.end(now_ms);
            }
            self.events_stored_max = self.events_stored_max.max(found.events);
            self.events_max_now = self.events_max_now.max(self.events_stored_max as usize);
            self.learn_from_slow(&found, now_ms);
            self.lateness.delivered(&found, now_ms);
        }
        self.settle_spans(&found.spans, outcome, found.doubt());
    }

    fn settle_spans(&mut self, spans: &[Span], outcome: Outcome, doubt: Doubt) {
        let settled = spans.iter().map(|&span| Settlement { span, outcome, doubt });
        self.settlements.extend(settled);
    }
}

/// What every DataStorage is known to take at once. The first larger batch is a try.
const EVENTS_MAX_UNPROVEN: usize = 500;
/// How long after the start, and after the server found a batch too big, the next try is.
const RAISE_MAX_MS: u64 = 60_000;
