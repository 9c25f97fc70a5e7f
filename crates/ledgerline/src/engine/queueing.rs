//! Whether DataStorage stores events, or only queues them: said when it begins, and with the count
//! when it ends.
//!
//! An event that is answered with 202 is DataStorage's promise. Promises are kept late, or not, if
//! its database is down; whoever runs it has to know. Limit: answers of both kinds beside each
//! other count as queueing, until a second has passed without a 202.

use ledgerline_core::Outcome;

use super::rate_limited_log::ChangeLog;

#[derive(Debug, Default)]
pub(super) struct Queueing {
    is_on: bool,
    /// Events queued that no line has counted.
    events: u64,
    last_queued_ms: u64,
    /// Something was stored since.
    has_stored: bool,
    changes: ChangeLog,
}

impl Queueing {
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// The server has answered for so many events.
    pub(super) fn settled(&mut self, outcome: Outcome, events: u32, now_ms: u64) {
        match outcome {
            Outcome::QueuedByServer => {
                self.events += u64::from(events);
                self.last_queued_ms = now_ms;
                self.has_stored = false;
                if !self.is_on {
                    self.is_on = true;
                    self.changes.changed(now_ms);
                }
            }
            Outcome::Delivered => self.has_stored = true,
            _ => {}
        }
    }

    /// Says what has changed. To be called at least once a second.
    pub(super) fn tell(&mut self, now_ms: u64) {
        if self.is_on && self.has_stored && now_ms >= self.last_queued_ms + QUIET_MS {
            self.is_on = false;
            self.changes.changed(now_ms);
        }
        if self.changes.take(now_ms).is_none() {
        } else if self.is_on {
            tracing::warn!("DataStorage queues audit events (status 202) and does not store them");
        } else {
            self.tell_end();
        }
    }

    /// The engine has ended.
    pub(super) fn finish(&mut self) {
        if self.events > 0 {
            self.tell_end();
        }
    }

    fn tell_end(&mut self) {
        let queued = std::mem::take(&mut self.events);
        let still_queueing = self.is_on;
        tracing::warn!(
            queued,
            still_queueing,
            "DataStorage has queued audit events: it promises to store them"
        );
    }
}

const QUIET_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_when_all_is_stored_again() {
        let mut queueing = Queueing::default();
        queueing.settled(Outcome::Delivered, 10, 0);
        queueing.tell(0);
        assert!(!queueing.is_on());
        queueing.settled(Outcome::QueuedByServer, 7, 100);
        queueing.tell(100);
        queueing.settled(Outcome::Delivered, 10, 200);
        queueing.settled(Outcome::QueuedByServer, 3, 1_500);
        queueing.tell(5_000);
        assert!(queueing.is_on() && queueing.events == 10, "nothing was stored since");
        queueing.settled(Outcome::Delivered, 10, 5_100);
        queueing.tell(5_100);
        assert!(!queueing.is_on() && queueing.events == 0, "said, and counted");
    }
}
