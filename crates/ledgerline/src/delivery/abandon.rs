//! The end: what was sent and has no answer that settles it is given up.

use ledgerline_core::Outcome;

use super::Delivery;

impl Delivery {
    /// Gives everything in batches and queues this outcome, with what is known of it: nothing more
    /// will be sent. What was only gathered stays.
    pub(crate) fn abandon(&mut self, outcome: Outcome) {
        for (records, doubt, reason) in self.suspects.remove(|_| true) {
            self.settle_records(&records, outcome, doubt, reason);
        }
        let mut batches: Vec<_> = self.batches.drain().collect();
        batches.sort_unstable_by_key(|(id, _)| *id);
        for (_, batch) in batches {
            let mut doubt = batch.past.doubt;
            doubt.is_ambiguous |= batch.flight().is_some_and(|flight| flight.is_begun);
            self.settle_records(&batch.records, outcome, doubt, batch.past.reason);
        }
    }
}
