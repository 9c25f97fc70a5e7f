//! One log line a second about a kind of trouble, however much of it there is.

use std::fmt::Display;

#[derive(Debug)]
pub(super) struct Complaints {
    about: &'static str,
    next_ms: u64,
    /// What happened since the last line without getting one.
    unsaid: u64,
}

impl Complaints {
    pub(super) fn new(about: &'static str) -> Self {
        Self { about, next_ms: 0, unsaid: 0 }
    }

    pub(super) fn say(&mut self, now_ms: u64, why: &dyn Display) {
        if now_ms < self.next_ms {
            self.unsaid += 1;
            return;
        }
        self.next_ms = now_ms + LINE_INTERVAL_MS;
        let others_since_last_line = std::mem::take(&mut self.unsaid);
        tracing::warn!(%why, others_since_last_line, "{}", self.about);
    }
}

const LINE_INTERVAL_MS: u64 = 1_000;
