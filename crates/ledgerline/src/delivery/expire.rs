//! Events that are given up for their age, where the configuration says so.

use ledgerline_core::Outcome;

use super::{Delivery, Doubt};

impl Delivery {
    /// Drops what was accepted longer than `give_up_after` ago and isn't on its way. The records of
    /// a batch were accepted close to each other: they go together, when the youngest is due.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        let Some(give_up_after_ms) = self.limits.give_up_after_ms else { return };
        let Some(before_ms) = now_ms.checked_sub(give_up_after_ms) else { return };
        let gathered = self.gather.expire(before_ms);
        self.settle_spans(&gathered.spans, Outcome::Expired, Doubt::default());
        let is_old = |batch: &super::Batch| {
            batch.connection.is_none()
                && batch.moments.iter().all(|moment| moment.accepted_ms < before_ms)
        };
        let old: Vec<_> =
            self.batches.iter().filter(|(_, batch)| is_old(batch)).map(|(id, _)| *id).collect();
        for batch in old {
            self.settle(batch, Outcome::Expired, now_ms);
        }
        let Self { ready, batches, .. } = self;
        ready.retain(|batch| batches.contains_key(batch));
    }
}
