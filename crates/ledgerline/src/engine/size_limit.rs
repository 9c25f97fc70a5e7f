//! How many events DataStorage takes at once, as the log has said it.
//!
//! A batch that is too big is no failure: the engine finds out the limit, and says it once, and
//! again only when it has changed.

#[derive(Debug, Default)]
pub(super) struct SizeLimit {
    told: Option<usize>,
    /// When to say what was found out.
    tell_ms: Option<u64>,
}

impl SizeLimit {
    /// A batch was too big. Others will be, until the limit is found.
    pub(super) fn refused(&mut self, now_ms: u64) {
        self.tell_ms.get_or_insert(now_ms + SEARCH_MS);
    }

    /// A batch of this size was stored.
    pub(super) fn stored(&mut self, events: usize) {
        if self.told.is_some_and(|told| events > told) {
            self.told = None;
            tracing::info!(batch_size = events, "DataStorage takes larger audit batches again");
        }
    }

    /// Says the limit if it is new. To be called at least once a second.
    pub(super) fn tell(&mut self, events_max: usize, now_ms: u64) {
        let is_due = self.tell_ms.take_if(|at_ms| *at_ms <= now_ms).is_some();
        if is_due && self.told != Some(events_max) {
            self.told = Some(events_max);
            tracing::info!(batch_size = events_max, "DataStorage limits the size of audit batches");
        }
    }
}

/// It is found by halving.
const SEARCH_MS: u64 = 1_000;
