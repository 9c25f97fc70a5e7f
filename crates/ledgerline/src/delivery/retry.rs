//! What came to nothing: hold and retry is the rule.
//!
//! A batch waits on its own timer and holds no slot meanwhile. When it is the endpoint that takes
//! nothing, the breaker opens, and all wait for one that finds out.

use std::collections::HashSet;

use ledgerline_core::{Outcome, Wheel};

use super::{Batch, BatchId, Delivery, lateness::Cause};

impl Delivery {
    /// No connection could be made.
    pub(super) fn unreachable(&mut self, batch: BatchId, now_ms: u64) {
        self.counts.failed.no_connection += 1;
        if self.is_given_up(batch) {
            return self.settle(batch, Outcome::GaveUp, now_ms);
        }
        self.ready.push_front(batch);
        self.window.restart();
        self.breaker.fail();
        self.open_breaker(Cause::NoConnection, 0, now_ms);
    }

    /// The server failed. One batch, or its parts, waits by itself; after several failures in a row
    /// all do.
    pub(super) fn overloaded(&mut self, batches: &[BatchId], is_ambiguous: bool, now_ms: u64) {
        let failed = &mut self.counts.failed;
        let counter = if is_ambiguous { &mut failed.ambiguous } else { &mut failed.not_processed };
        *counter += 1;
        for batch in batches {
            self.retry(*batch, 0, now_ms);
        }
        if self.breaker.fail() {
            self.open_breaker(Cause::Overloaded, 0, now_ms);
        }
    }

    /// The answer of something that isn't our DataStorage.
    pub(super) fn misrouted(&mut self, batch: BatchId, now_ms: u64) {
        self.hold(batch, now_ms);
        if self.breaker.fail() {
            self.open_breaker(Cause::Misrouted, HOLD_DELAY_MIN_MS, now_ms);
        }
    }

    /// The server refuses too many events alone: everything is kept. The batch waits on its own, so
    /// that the next to find out is another one.
    pub(super) fn reject(&mut self, batch: BatchId, now_ms: u64) {
        self.hold(batch, now_ms);
        self.breaker.fail();
        self.open_breaker(Cause::Rejecting, HOLD_DELAY_MIN_MS, now_ms);
    }

    /// Keeps a batch, and tries it again slowly, however often: what is wrong is not with it.
    pub(super) fn hold(&mut self, batch: BatchId, now_ms: u64) {
        let found = self.batches.get_mut(&batch).expect("what is held exists");
        found.holds += 1;
        let delay_ms = HOLD_DELAY_MIN_MS << (found.holds - 1).min(6);
        let jitter_ms = self.random.u64(0..HOLD_DELAY_MIN_MS);
        self.counts.failed.held += 1;
        self.retries.set(now_ms + delay_ms.min(HOLD_DELAY_MAX_MS) + jitter_ms, batch);
    }

    pub(super) fn open_breaker(&mut self, cause: Cause, pause_min_ms: u64, now_ms: u64) {
        let Self { breaker, random, limits, .. } = self;
        breaker.open(now_ms, cause, pause_min_ms, |tries| limits.probe_pause_ms(tries, random));
    }

    pub(super) fn retry(&mut self, batch: BatchId, delay_min_ms: u64, now_ms: u64) {
        if self.is_given_up(batch) {
            return self.settle(batch, Outcome::GaveUp, now_ms);
        }
        let failures = self.batches[&batch].failures;
        let delay_ms = delay_min_ms + self.limits.retry_pause_ms(failures, &mut self.random);
        self.retries.set(now_ms + delay_ms, batch);
    }

    /// Ends every pause, those that the server asked for included: for what would be lost
    /// otherwise. Of an endpoint that takes nothing it is still one batch that finds out.
    pub(crate) fn retry_now(&mut self, now_ms: u64) {
        let Self { retries, ready, batches, breaker, .. } = self;
        *retries = Wheel::new(now_ms);
        let is_ready: HashSet<BatchId> = ready.iter().copied().collect();
        let waits = |(id, batch): &(&BatchId, &Batch)| {
            batch.connection.is_none() && !is_ready.contains(*id)
        };
        let mut waiting: Vec<_> = batches.iter().filter(waits).map(|(id, _)| *id).collect();
        waiting.sort_unstable();
        ready.extend(waiting);
        breaker.probe_at(now_ms);
    }

    /// The batch's try has failed: whether that was the last that it was given.
    pub(super) fn is_given_up(&mut self, batch: BatchId) -> bool {
        let found = self.batches.get_mut(&batch).expect("what has failed exists");
        found.failures += 1;
        self.limits.retries_max.is_some_and(|max| found.failures > max)
    }
}

/// How a batch is held while the server's answers say that we talk to the wrong one.
const HOLD_DELAY_MIN_MS: u64 = 1_000;
const HOLD_DELAY_MAX_MS: u64 = 60_000;
