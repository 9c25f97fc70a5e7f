//! Taken records that are not in a batch yet, in the order in which they were taken.
//!
//! Batches are cut only when a connection can take one, so that they are as full as the wait made
//! them. Bounded by the blocks: a record here is one that lies in a block.

use std::collections::VecDeque;

use ledgerline_core::Record;

use super::batch::{Batch, History, Place, Role};

/// Why a batch was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// There were enough records for a whole one.
    Size,
    /// The oldest of them was due.
    Timer,
    /// Somebody waits for them: a flush, a close, or a producer without room.
    Request,
}

impl Reason {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Timer => "timer",
            Self::Request => "request",
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Gather {
    records: VecDeque<Record>,
    bytes: u64,
    /// How many, from the front, go out even if they don't fill a batch.
    forced: usize,
    /// Why they do.
    forced_by: Option<Reason>,
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
    pub(crate) fn force(&mut self, reason: Reason) {
        self.forced = self.records.len();
        self.forced_by = Some(reason);
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
        let is_whole = self.records.len() >= events_max || body_bytes(self.bytes) >= bytes_max;
        let reason = self.forced_by.filter(|_| !is_whole).unwrap_or(Reason::Size);
        let cut = Some((reason, self.records.len()));
        let (count, bytes) = fitting(&self.records, events_max, bytes_max);
        let records = self.take(count, bytes);
        let past = History { cut, ..History::default() };
        Batch { records, bytes, place: Place::Ready, role: Role::Ordinary, past }
    }

    /// Bytes of the batch that would be cut, at most.
    pub(crate) fn next_bytes(&self, bytes_max: u64) -> u64 {
        self.bytes.min(bytes_max)
    }

    /// Lets go of the records from the front that were accepted before this moment.
    pub(crate) fn expire(&mut self, before_ms: u64) -> Vec<Record> {
        let is_old = |record: &&Record| record.accepted_ms < before_ms;
        let old = self.records.iter().take_while(is_old);
        let (count, bytes) =
            old.fold((0, 0), |(count, bytes), it| (count + 1, bytes + u64::from(it.bytes)));
        self.take(count, bytes)
    }

    /// Takes so many records, of so many bytes, from the front.
    fn take(&mut self, count: usize, bytes: u64) -> Vec<Record> {
        let records = self.records.drain(..count).collect();
        self.bytes -= bytes;
        self.forced = self.forced.saturating_sub(count);
        if self.records.len() == self.forced {
            self.oldest_ms = None;
        }
        records
    }

    /// Lets go of the records that lie in these blocks.
    pub(crate) fn evict(&mut self, is_evicted: impl Fn(u32) -> bool) -> Vec<Record> {
        let mut evicted = Vec::new();
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

/// How many records, from the front, make one request, and of how many bytes: at least one, and
/// then as many as the limits allow.
pub(crate) fn fitting<'a>(
    records: impl IntoIterator<Item = &'a Record>,
    events_max: usize,
    bytes_max: u64,
) -> (usize, u64) {
    let (mut count, mut bytes) = (0, 0);
    for record in records.into_iter().take(events_max) {
        let with_it = bytes + u64::from(record.bytes);
        if count > 0 && body_bytes(with_it) > bytes_max {
            break;
        }
        (count, bytes) = (count + 1, with_it);
    }
    (count, bytes)
}

/// The body of a batch: the records less the first comma, in brackets.
fn body_bytes(record_bytes: u64) -> u64 {
    record_bytes + 1
}
