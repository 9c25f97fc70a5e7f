//! What the log tells of batches, in the words that operators search for.
//!
//! Each flush and each written batch at debug level, slow writes as warnings. Never an event's
//! contents.

use tracing::Level;

use super::rate_limited_log::RateLimitedLog;
use crate::delivery::{Batch, Reason};

#[derive(Debug)]
pub(super) struct Lines {
    slow: RateLimitedLog<()>,
    last_flush_ms: u64,
    /// Flushes so far.
    tick: u64,
}

impl Lines {
    pub(super) fn new() -> Self {
        Self { slow: RateLimitedLog::new("slow audit batch write"), last_flush_ms: 0, tick: 0 }
    }

    /// A new batch is put on a connection. `buffer_utilization` is in percent.
    pub(super) fn flushed(
        &mut self,
        batch: &Batch,
        expected_interval_ms: u64,
        buffer_utilization: impl FnOnce() -> u64,
        now_ms: u64,
    ) {
        let Some((reason, batch_size_before_flush)) =
            batch.past.cut.filter(|_| batch.past.attempts == 1)
        else {
            return;
        };
        self.tick += 1;
        let last_flush_ms = std::mem::replace(&mut self.last_flush_ms, now_ms);
        if !tracing::enabled!(Level::DEBUG) {
            return;
        }
        let oldest_ms = batch.records.iter().map(|record| record.accepted_ms).min();
        tracing::debug!(
            tick = self.tick,
            elapsed_since_last_flush_ms = now_ms - last_flush_ms,
            batch_size = batch.events(),
            batch_size_before_flush,
            buffer_utilization = buffer_utilization(),
            expected_interval_ms,
            actual_interval_ms = now_ms.saturating_sub(oldest_ms.unwrap_or(now_ms)),
            "audit flush by {}",
            Reason::name(reason)
        );
    }

    /// A batch was answered.
    pub(super) fn written(&mut self, batch: &Batch, status: u16, now_ms: u64) {
        let (batch_size, attempt) = (batch.events(), batch.past.attempts);
        let duration_ms =
            now_ms.saturating_sub(batch.flight().map_or(now_ms, |flight| flight.begun_ms));
        if status == 201 || status == 202 {
            tracing::debug!(batch_size, duration_ms, attempt, status, "audit batch written");
        } else {
            tracing::debug!(batch_size, duration_ms, attempt, status, "audit batch not written");
        }
        if duration_ms >= SLOW_MS {
            let why = format_args!("{batch_size} events in {duration_ms} ms, status {status}");
            self.slow.warn(now_ms, (), &why);
        }
    }
}

/// A request that takes longer is worth a look at the server.
const SLOW_MS: u64 = 2_000;
