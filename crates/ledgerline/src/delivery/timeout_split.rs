//! A batch that can't be sent and answered within the time that there is for a request.
//!
//! A narrow network, or a server that takes its time for each event, never gets through with it,
//! however often it is tried. After two timeouts it is halved, and its parts again at each, down to
//! 32 KiB: that bounds what a server that is only silent makes of it. What is stored then has as
//! many bytes as the next batches may have, until larger ones are tried again.
//!
//! Also at a server that doesn't know events by their ids: there the same bytes once more may be
//! stored once more, and without an end.

use super::batch::{Batch, History, Role};
use super::learn::BYTES_LEAST;
use super::{BatchId, Delivery};

impl Delivery {
    /// The batch got no answer in time: the batches to try in its stead.
    pub(super) fn timed_out(&mut self, id: BatchId) -> Vec<BatchId> {
        let batch = self.batches.get_mut(&id).expect("what has failed exists");
        batch.past.timeouts += 1;
        let is_slow = batch.past.halvings > 0 || batch.past.timeouts >= TIMEOUTS_MAX;
        if !is_slow || batch.records.len() == 1 || batch.bytes < BYTES_LEAST {
            return vec![id];
        }
        if let Role::Suspect(queue) = batch.role {
            self.give_back(id, queue);
            return Vec::new();
        }
        let batch = self.forget(id, None);
        self.counts.batches_split += 1;
        let halvings = batch.past.halvings + 1;
        let (first, second) = batch.halves();
        [first, second]
            .map(|half| {
                let past = History { halvings, is_slow_half: true, ..half.past };
                self.insert_ready(Batch { past, ..half }, false)
            })
            .into()
    }
}

/// One may be a server that was stopped, or a connection that was cut and said nothing.
const TIMEOUTS_MAX: u32 = 2;
