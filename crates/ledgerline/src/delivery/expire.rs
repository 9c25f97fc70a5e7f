//! Events that are given up for their age, where the configuration says so.

use ledgerline_core::{Outcome, Record};

use super::{Delivery, Doubt};

impl Delivery {
    /// Drops what was accepted longer than `give_up_after` ago and isn't in flight. The records of
    /// a batch were accepted close to each other: they go together, when the youngest is due.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        let Some(give_up_after_ms) = self.limits.give_up_after_ms else { return };
        let Some(before_ms) = now_ms.checked_sub(give_up_after_ms) else { return };
        let is_old = |record: &Record| record.accepted_ms < before_ms;
        let gathered = self.gather.expire(before_ms);
        self.settle_records(&gathered, Outcome::Expired, Doubt::default(), None);
        for (records, doubt, reason) in self.suspects.remove(is_old) {
            self.settle_records(&records, Outcome::Expired, doubt, reason);
        }
        let old = self
            .batches
            .iter()
            .filter(|(_, batch)| batch.flight().is_none() && batch.records.iter().all(is_old));
        let old: Vec<_> = old.map(|(id, _)| *id).collect();
        for id in old {
            self.settle(id, Outcome::Expired, now_ms);
        }
    }
}
