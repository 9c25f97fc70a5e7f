//! One snapshot of a store for probes and dashboards.

use std::time::Duration;

use crate::delivery::{Cause, SetApart};

/// How a store is, as [`Store::health`](crate::Store::health) tells: the counts and the silence of
/// this moment, the rest as it was at most a second ago.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Health {
    /// The engine's thread lives, in this process. False after `close`, after a defect that ended
    /// it, and in a process forked off the store's.
    pub is_running: bool,
    /// Why DataStorage takes nothing. None: it does, as far as is known.
    pub unavailable: Option<Cause>,
    /// DataStorage answers 202: it only queues events, and promises to store them.
    pub is_queueing: bool,
    /// Events that it has only queued, since the engine's start.
    pub queued_by_server: u64,
    /// Event types whose events are kept, but not waited for: DataStorage refuses them, or doesn't
    /// store one of them.
    pub set_apart: Vec<SetApart>,
    /// Events that are held.
    pub pending: u64,
    /// For how long the oldest of them has been held.
    pub oldest_pending: Duration,
    /// For how long the engine's thread is overdue; zero: less than 20 ms.
    pub silence: Duration,
}

impl Health {
    /// Whether DataStorage takes events, as far as is known.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.unavailable.is_none()
    }
}
