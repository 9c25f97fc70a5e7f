//! Taken records that are not in a batch yet, in the order in which they were taken.
//!
//! Batches are cut only when a connection can take one, so that they are as full as the wait made
//! them. Bounded by the blocks: a record here is one that lies in a block.

use std::collections::VecDeque;

use ledgerline_core::Record;

use super::Batch;

#[derive(Debug, Default)]
pub(crate) struct Gather {
    records: VecDeque<Record>,
    bytes: u64,
    /// How many, from the front, go out even if they don't fill a batch.
    forced: usize,
    /// When the oldest of the others was accepted; records of several lanes are not in order.
    oldest_ms: Option<u64>,
}

impl Gather {
    pub(crate) fn push(&mut self, record: Record) {
        self.bytes += u64::from(record.bytes);
        let oldest_ms = self.oldest_ms.unwrap_or(record.accepted_ms);
        self.oldest_ms = Some(oldest_ms.min(record.accepted_ms));
        self.records.push_back(record);
    }

    /// All that is here goes out now.
    pub(crate) fn force(&mut self) {
        self.forced = self.records.len();
        self.oldest_ms = None;
    }

    /// When the first record that isn't forced yet falls due.
    pub(crate) fn due_ms(&self, flush_interval_ms: u64) -> Option<u64> {
        self.oldest_ms.map(|oldest_ms| oldest_ms + flush_interval_ms)
    }

    pub(crate) fn is_cut_due(&self, events_max: usize, bytes_max: u64) -> bool {
        self.forced > 0 || self.records.len() >= events_max || body_bytes(self.bytes) >= bytes_max
    }

    /// Takes a batch's worth from the front: at least one record, and then as many as the limits
    /// allow.
    pub(crate) fn cut(&mut self, events_max: usize, bytes_max: u64) -> Batch {
        let mut batch = Batch::default();
        let mut bytes = 0;
        while let Some(record) = self.records.front()
            && (batch.events as usize) < events_max
            && (batch.events == 0 || body_bytes(bytes + u64::from(record.bytes)) <= bytes_max)
        {
            bytes += u64::from(record.bytes);
            batch.push(*record);
            self.records.pop_front();
        }
        self.bytes -= bytes;
        self.forced = self.forced.saturating_sub(batch.events as usize);
        if self.records.len() == self.forced {
            self.oldest_ms = None;
        }
        batch
    }

    /// Lets go of the records that lie in these blocks.
    pub(crate) fn evict(&mut self, is_evicted: impl Fn(u32) -> bool) -> Batch {
        let mut evicted = Batch::default();
        let forced = std::mem::take(&mut self.forced);
        self.oldest_ms = None;
        for (place, record) in std::mem::take(&mut self.records).into_iter().enumerate() {
            if is_evicted(record.block) {
                self.bytes -= u64::from(record.bytes);
                evicted.push(record);
            } else if place < forced {
                self.records.push_back(record);
                self.forced += 1;
            } else {
                self.bytes -= u64::from(record.bytes);
                self.push(record);
            }
        }
        evicted
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }
}

/// The body of a batch: the records less the first comma, in brackets.
fn body_bytes(record_bytes: u64) -> u64 {
    record_bytes + 1
}
