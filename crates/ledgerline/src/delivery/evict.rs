//! Room for the newest by dropping the oldest.
//!
//! Whole blocks, because only a whole block makes room. What is on its way to the server is not
//! dropped: its memory is being read, and its answer may be a moment away.

use std::collections::HashSet;

use ledgerline_core::Outcome;

use super::{Delivery, Doubt};

impl Delivery {
    /// Drops the records of the first `wanted` of these blocks, the oldest first, that have none on
    /// the way.
    pub(crate) fn evict(&mut self, oldest_first: &[u32], wanted: usize) {
        let on_the_way = self.batches.values().filter(|batch| batch.connection.is_some());
        let pinned: HashSet<u32> =
            on_the_way.flat_map(|batch| &batch.spans).map(|span| span.block).collect();
        let free = oldest_first.iter().copied().filter(|block| !pinned.contains(block));
        let evicted: HashSet<u32> = free.take(wanted).collect();
        if evicted.is_empty() {
            return;
        }
        let is_evicted = |block: u32| evicted.contains(&block);
        let gathered = self.gather.evict(is_evicted);
        self.settle_spans(&gathered.spans, Outcome::Evicted, Doubt::default());
        let is_hit = |batch: &super::Batch| batch.spans.iter().any(|span| is_evicted(span.block));
        let hit: Vec<_> =
            self.batches.iter().filter(|(_, batch)| is_hit(batch)).map(|(id, _)| *id).collect();
        for id in hit {
            let batch = self.batches.remove(&id).expect("found a moment ago");
            let (gone, kept) =
                batch.split(|span| if is_evicted(span.block) { span.count } else { 0 });
            self.settle_spans(&gone.spans, Outcome::Evicted, gone.doubt());
            if kept.events > 0 {
                self.batches.insert(id, kept);
            } else {
                self.settled_part(&gone, Outcome::Evicted);
            }
        }
        let Self { ready, batches, .. } = self;
        ready.retain(|batch| batches.contains_key(batch));
    }
}
