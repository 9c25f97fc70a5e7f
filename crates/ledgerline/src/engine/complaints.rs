//! One log line a second about failed batches, however many fail.

use std::fmt::Display;

#[derive(Debug, Default)]
pub(super) struct Complaints {
    next_ms: u64,
    /// Failures since the last line, that line's own not counted.
    unsaid: u64,
}

impl Complaints {
    pub(super) fn complain(&mut self, now_ms: u64, why: &dyn Display) {
        if now_ms < self.next_ms {
            self.unsaid += 1;
            return;
        }
        self.next_ms = now_ms + LINE_INTERVAL_MS;
        let unsaid = std::mem::take(&mut self.unsaid);
        tracing::warn!(%why, others_since_last_line = unsaid, "audit batch not stored, will retry");
    }
}

const LINE_INTERVAL_MS: u64 = 1_000;
