//! The delivery machine: gathers records, cuts batches, retries, settles.
//!
//! Pure. What happened goes in, with the time: records taken, answers, failures, the clock. What to
//! do comes out: [`Send`]s by [`Delivery::next_send`], [`Settlement`]s, and the moment to call
//! again. No sockets, no clock, no bytes: a batch is a list of spans of blocks.
//!
//! Its law: hold and retry is the rule. Nothing leaves the machine but by an answer of the server,
//! or because `retries_max` said so. A batch waits for its retry on its own timer and holds no slot
//! meanwhile, so it delays nobody.

mod answer;
mod batch;
mod gather;
mod lateness;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};

use ledgerline_core::{Outcome, Record, Wheel};
use ledgerline_transport::{Answer, Certainty, Failure};

pub use self::lateness::BlockedMs;
pub(crate) use self::{
    answer::keeps_our_ids,
    batch::{Batch, Span},
    lateness::Lateness,
};
use self::{
    answer::{Verdict, judge},
    gather::Gather,
    lateness::Blocked,
    slots::Slots,
};

/// Bounds of the machine, from `Config`.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) batch_events_max: usize,
    pub(crate) batch_bytes_max: u64,
    pub(crate) flush_interval_ms: u64,
    /// Failed tries after which a batch is dropped. None: never.
    pub(crate) retries_max: Option<u32>,
    pub(crate) retry_delay_min_ms: u64,
    pub(crate) retry_delay_max_ms: u64,
    pub(crate) connections_max: usize,
    /// Requests on the way on one connection, once the server has shown that it keeps our ids.
    pub(crate) pipeline_depth_max: usize,
}

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
}

/// How many records are where, of those that the machine holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Whereabouts {
    pub(crate) in_flight: u64,
    pub(crate) retrying: u64,
    pub(crate) unsent: u64,
    /// Of the first two, those whose outcome at the server is unknown.
    pub(crate) possibly_stored: u64,
}

/// Counts of the machine's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) batches_sent: u64,
    pub(crate) batches_retried: u64,
    pub(crate) batches_split: u64,
    pub(crate) events_sent: u64,
    pub(crate) possibly_duplicated: u64,
    pub(crate) possibly_stored: u64,
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
    /// What the server has been seen to take; at most `batch_events_max`.
    events_max_now: usize,
    restore_events_max_ms: u64,
    /// The server's last checked answer listed our ids, in order.
    is_idempotent: bool,
    settlements: Vec<Settlement>,
    blocked: Blocked,
    lateness: Lateness,
    counts: Counts,
    random: fastrand::Rng,
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
            events_max_now: limits.batch_events_max.min(EVENTS_MAX_UNPROVEN),
            restore_events_max_ms: 0,
            is_idempotent: false,
            settlements: Vec::new(),
            blocked: Blocked::default(),
            lateness: Lateness::default(),
            counts: Counts::default(),
            random,
            limits,
        }
    }

    /// A record was taken from its lane.
    pub(crate) fn push(&mut self, record: Record) {
        self.gather.push(record);
    }

    /// Sends all that is gathered without waiting for it to fall due. Bypasses no backoff.
    pub(crate) fn flush(&mut self) {
        self.gather.force();
    }

    /// Lets the time pass: retries come up, gathered records fall due.
    pub(crate) fn advance(&mut self, now_ms: u64) {
        let Self { ready, retries, .. } = self;
        retries.advance(now_ms, &mut |batch| ready.push_back(batch));
        if self.gather.due_ms(self.limits.flush_interval_ms).is_some_and(|due| due <= now_ms) {
            self.gather.force();
        }
        if now_ms >= self.restore_events_max_ms {
            self.events_max_now = self.limits.batch_events_max.min(EVENTS_MAX_UNPROVEN);
        }
    }

    /// When to call [`advance`](Self::advance) next, if nothing happens before.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        let due_ms = self.gather.due_ms(self.limits.flush_interval_ms);
        [self.retries.next_ms(), due_ms].into_iter().flatten().min()
    }

    /// The next batch to put on a connection, if there is one and a connection may take it.
    pub(crate) fn next_send(&mut self, now_ms: u64) -> Option<Send> {
        let has_work = !self.ready.is_empty() || self.is_cut_due();
        let depth = if self.is_idempotent { self.limits.pipeline_depth_max } else { 1 };
        let free = if has_work { self.slots.free(depth, now_ms) } else { None };
        if has_work && free.is_none() {
            self.blocked.begin(now_ms, self.slots.cause());
            return None;
        }
        let connection = free?;
        let batch = self.ready.pop_front().unwrap_or_else(|| self.cut(now_ms));
        if self.ready.is_empty() && !self.is_cut_due() {
            self.blocked.end(now_ms);
        }
        self.slots.occupy(connection, now_ms);
        let found = self.batches.get_mut(&batch).expect("a ready batch exists");
        found.attempts += 1;
        found.connection = Some(connection);
        self.counts.batches_sent += 1;
        self.counts.events_sent += u64::from(found.events);
        if found.is_ambiguous && !self.is_idempotent && !found.is_counted_duplicated {
            found.is_counted_duplicated = true;
            self.counts.possibly_duplicated += u64::from(found.events);
        }
        Some(Send { connection, batch })
    }

    /// The first byte of the batch's request was written.
    pub(crate) fn first_byte(&mut self, batch: BatchId, at_ms: u64) {
        let Some(found) = self.batches.get_mut(&batch) else { return };
        if let Some(connection) = found.connection {
            self.slots.writes(connection);
        }
        if !found.is_offered {
            found.is_offered = true;
            self.lateness.offered(found, self.limits.flush_interval_ms, at_ms);
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
        self.slots.answered(connection, now_ms);
        self.is_idempotent = keeps_ids.unwrap_or(self.is_idempotent);
        match judge(answer) {
            Verdict::Stored => self.settle(batch, Outcome::Delivered, now_ms),
            Verdict::Queued => self.settle(batch, Outcome::QueuedByServer, now_ms),
            Verdict::TooBig => self.split(batch, now_ms),
            Verdict::Retry { is_ambiguous, after_ms } => {
                let found = self.batches.get_mut(&batch).expect("released above");
                found.is_ambiguous |= is_ambiguous;
                self.retry(batch, after_ms.unwrap_or(0), now_ms);
            }
            Verdict::Hold => {
                let found = &self.batches[&batch];
                let delay_ms = HOLD_DELAY_MIN_MS << found.attempts.min(6).saturating_sub(1);
                self.retry(batch, delay_ms.min(HOLD_DELAY_MAX_MS), now_ms);
            }
        }
    }

    /// The request came to nothing.
    pub(crate) fn failed(&mut self, batch: BatchId, failure: &Failure, now_ms: u64) {
        let Some(connection) = self.release(batch) else { return };
        self.slots.failed(connection);
        let found = self.batches.get_mut(&batch).expect("released above");
        found.is_ambiguous |= failure.certainty == Certainty::Ambiguous;
        self.retry(batch, 0, now_ms);
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
            if batch.connection.is_some() || batch.is_ambiguous {
                whereabouts.possibly_stored += events;
            }
        }
        whereabouts
    }

    fn is_cut_due(&self) -> bool {
        self.gather.is_cut_due(self.events_max_now, self.limits.batch_bytes_max)
    }

    fn cut(&mut self, now_ms: u64) -> BatchId {
        let mut batch = self.gather.cut(self.events_max_now, self.limits.batch_bytes_max);
        batch.cut_ms = now_ms;
        batch.blocked_since_ms = self.blocked.since_ms();
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
        self.batches.get_mut(&batch)?.connection.take()
    }

    fn settle(&mut self, batch: BatchId, outcome: Outcome, now_ms: u64) {
        let found = self.batches.remove(&batch).expect("a batch is settled once");
        let is_delivered = matches!(outcome, Outcome::Delivered | Outcome::QueuedByServer);
        if is_delivered {
            self.lateness.delivered(&found, now_ms);
        } else if found.is_ambiguous {
            self.counts.possibly_stored += u64::from(found.events);
        }
        self.settlements.extend(found.spans.iter().map(|&span| Settlement { span, outcome }));
    }

    fn retry(&mut self, batch: BatchId, delay_min_ms: u64, now_ms: u64) {
        let found = &self.batches[&batch];
        if self.limits.retries_max.is_some_and(|max| found.attempts > max) {
            tracing::error!(
                events = found.events,
                attempts = found.attempts,
                "audit batch dropped: retries_max reached"
            );
            return self.settle(batch, Outcome::GaveUp, now_ms);
        }
        self.counts.batches_retried += 1;
        let delay_ms = delay_min_ms + self.jitter_ms(found.attempts);
        self.retries.set(now_ms + delay_ms, batch);
    }

    /// Full jitter: evenly from nothing to the exponential bound. Brooker, "Exponential backoff
    /// and jitter", AWS Architecture Blog, 2015.
    fn jitter_ms(&mut self, attempts: u32) -> u64 {
        let doublings = attempts.saturating_sub(1).min(20);
        let bound_ms =
            (self.limits.retry_delay_min_ms << doublings).min(self.limits.retry_delay_max_ms);
        self.random.u64(1..=bound_ms.max(1))
    }

    /// The server takes no batch of this size: halves it, and cuts smaller ones for a while.
    fn split(&mut self, batch: BatchId, now_ms: u64) {
        if self.batches[&batch].events == 1 {
            tracing::error!("audit event dead-lettered: larger than the server takes");
            return self.settle(batch, Outcome::DeadLettered, now_ms);
        }
        let found = self.batches.remove(&batch).expect("looked at above");
        let (first, second) = found.halves();
        self.events_max_now = self.events_max_now.min(first.events as usize);
        self.restore_events_max_ms = now_ms + RESTORE_EVENTS_MAX_MS;
        self.counts.batches_split += 1;
        for half in [first, second] {
            let id = self.insert(half);
            self.ready.push_back(id);
        }
    }
}

/// What every DataStorage is known to take at once. Servers may allow more; ours learn it.
const EVENTS_MAX_UNPROVEN: usize = 500;
/// How long smaller batches are cut after the server found one too big.
const RESTORE_EVENTS_MAX_MS: u64 = 60_000;
/// How a batch is held while the server's answers say that we talk to the wrong one.
const HOLD_DELAY_MIN_MS: u64 = 1_000;
const HOLD_DELAY_MAX_MS: u64 = 60_000;
