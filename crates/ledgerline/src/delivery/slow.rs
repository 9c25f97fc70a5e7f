//! A batch that can't be sent and answered within the time that there is for a request.
//!
//! A narrow network, or a server that takes its time for each event, never gets through with it,
//! however often it is tried. After two timeouts it is halved, and its parts again at each, down to
//! 32 KiB: that bounds what a server that is only silent makes of it. What is stored then has as
//! many bytes as the next batches may have, until larger ones are tried again.
//!
//! Also at a server that doesn't know events by their ids: there the same bytes once more may be
//! stored once more, and without an end.

use super::{Batch, BatchId, Delivery, RAISE_MAX_MS};

impl Delivery {
    /// The batch got no answer in time: the batches to try in its stead.
    pub(super) fn timed_out(&mut self, id: BatchId) -> Vec<BatchId> {
        let found = self.batches.get_mut(&id).expect("what has failed exists");
        found.timeouts += 1;
        let is_slow = found.halvings > 0 || found.timeouts >= TIMEOUTS_MAX;
        if !is_slow || found.events == 1 || found.bytes >> found.halvings < BYTES_LEAST {
            return vec![id];
        }
        let found = self.batches.remove(&id).expect("looked at above");
        let halvings = found.halvings + 1;
        self.counts.batches_split += 1;
        if let Some(isolation) = found.origin.and_then(|origin| self.isolations.get_mut(&origin)) {
            isolation.parts += 1;
        }
        let (first, second) = found.halves();
        let is_slow_half = true;
        [first, second].map(|half| self.insert(Batch { halvings, is_slow_half, ..half })).into()
    }

    /// A half of such a batch was stored in time: the next ones have no more bytes for a while.
    pub(super) fn learn_from_slow(&mut self, batch: &Batch, now_ms: u64) {
        if batch.is_slow_half {
            self.bytes_max_now = (batch.bytes >> batch.halvings).max(1);
            self.raise_bytes_max_ms = now_ms + RAISE_MAX_MS;
        }
    }
}

/// One may be a server that was stopped, or a connection that was cut and said nothing.
const TIMEOUTS_MAX: u32 = 2;
/// Whoever can't take so many bytes in the time for a request can't take one large event either.
const BYTES_LEAST: u64 = 32 << 10;
