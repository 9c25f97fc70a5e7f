//! What the server was seen to take at once, in events and in bytes.
//!
//! A limit that an answer names is believed for an hour; one that was found by halving is tried
//! again after a minute. Learning a limit is no failure.

use super::batch::{Batch, History, Role};
use super::{BatchId, Delivery, Limits};

#[derive(Debug)]
pub(crate) struct Learned {
    /// At most `batch_events_max`.
    events_max: usize,
    /// When to try `batch_events_max` again.
    raise_events_ms: u64,
    /// What it takes in time; at most `batch_bytes_max`.
    bytes_max: u64,
    /// When to try `batch_bytes_max` again.
    raise_bytes_ms: u64,
    /// The largest batch that was stored since a whole one was too big.
    events_stored_max: usize,
}

impl Learned {
    pub(crate) fn new(limits: &Limits, now_ms: u64) -> Self {
        Self {
            events_max: limits.batch_events_max.min(EVENTS_MAX_UNPROVEN),
            raise_events_ms: now_ms + RAISE_MAX_MS,
            bytes_max: limits.batch_bytes_max,
            raise_bytes_ms: 0,
            events_stored_max: 0,
        }
    }

    pub(crate) fn advance(&mut self, limits: &Limits, now_ms: u64) {
        if now_ms >= self.raise_events_ms {
            self.events_max = limits.batch_events_max;
        }
        if now_ms >= self.raise_bytes_ms {
            self.bytes_max = limits.batch_bytes_max;
        }
    }

    pub(crate) fn events_max(&self) -> usize {
        self.events_max
    }

    pub(crate) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    fn stored(&mut self, events: usize) {
        self.events_stored_max = self.events_stored_max.max(events);
        self.events_max = self.events_max.max(self.events_stored_max);
    }

    /// A batch of so many events is more than the server takes.
    fn too_big(&mut self, events: usize, named: Option<usize>, now_ms: u64) {
        if let Some(limit) = named.filter(|limit| *limit < events) {
            self.events_max = self.events_max.min(limit);
            self.events_stored_max = self.events_stored_max.min(limit);
            self.raise_events_ms = now_ms + RAISE_NAMED_MS;
        } else if events > self.events_stored_max {
            // A part as large as what was stored since is refused for one of its events.
            self.events_max = self.events_max.min((events / 2).max(1));
            self.raise_events_ms = now_ms + RAISE_MAX_MS;
        }
    }

    /// So many bytes are what the server takes in time.
    fn slow(&mut self, bytes: u64, now_ms: u64) {
        self.bytes_max = self.bytes_max.min(bytes.max(1));
        self.raise_bytes_ms = now_ms + RAISE_MAX_MS;
    }
}

impl Delivery {
    /// A batch was stored, after so long.
    pub(super) fn learn_from_stored(&mut self, id: BatchId, took_ms: u64, now_ms: u64) {
        let batch = &self.batches[&id];
        if let Role::Suspect(_) = batch.role {
            return; // As large as its suspicion allows.
        }
        self.learned.stored(batch.records.len());
        let is_slow = took_ms >= self.limits.request_timeout_ms / 2;
        if is_slow && batch.records.len() > 1 && batch.bytes / 2 >= BYTES_LEAST {
            // Before the next one takes too long.
            self.learned.slow(batch.bytes / 2, now_ms);
        } else if batch.past.is_slow_half {
            // A half of a batch that took too long was stored in time.
            self.learned.slow(batch.bytes, now_ms);
        }
    }

    /// The server takes no batch of this size: divides it, and cuts smaller ones for a while.
    pub(super) fn too_big(&mut self, id: BatchId, limit: Option<u32>, now_ms: u64) {
        let batch = &self.batches[&id];
        let (events, role) = (batch.records.len(), batch.role);
        if !batch.past.is_half {
            self.learned.events_stored_max = 0;
        }
        let limit = limit.map(|limit| limit as usize);
        self.learned.too_big(events, limit, now_ms);
        self.counts.batches_split += 1;
        if let Role::Suspect(queue) = role {
            return self.give_back(id, queue);
        }
        let batch = self.forget(id, None);
        let size = limit.filter(|limit| *limit < events).unwrap_or_else(|| events.div_ceil(2));
        for records in batch.records.chunks(size.max(1)) {
            let part = batch.part(records.to_vec());
            let past = History { is_half: true, attempts: 0, failures: 0, ..part.past };
            self.insert_ready(Batch { past, ..part }, false);
        }
    }
}

/// What every DataStorage is known to take at once. The first larger batch is a try.
const EVENTS_MAX_UNPROVEN: usize = 500;
/// How long after the start, and after the server found a batch too big, the next try is.
const RAISE_MAX_MS: u64 = 60_000;
/// The same, where the server has named its limit.
const RAISE_NAMED_MS: u64 = 3_600_000;
/// Whoever can't take so many bytes in the time for a request can't take one large event either.
pub(super) const BYTES_LEAST: u64 = 32 << 10;
