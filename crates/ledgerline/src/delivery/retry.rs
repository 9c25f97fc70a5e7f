//! What was not stored: hold and retry is the rule.
//!
//! A batch waits on its own timer and holds no connection meanwhile. When it is the endpoint that
//! takes nothing, the breaker opens, and all wait for one that finds out.

use ledgerline_core::Outcome;

use super::batch::{Batch, Place, Role};
use super::lateness::Cause;
use super::{BatchId, Contents, Delivery};

impl Delivery {
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

    /// A failure of this kind: after several in a row it is the endpoint's.
    pub(super) fn blame(&mut self, cause: Cause, now_ms: u64) {
        if self.breaker.fail() {
            self.open_breaker(cause, HOLD_DELAY_MIN_MS, now_ms);
        }
    }

    /// A batch came back refused while the server refuses everything: its records are kept with
    /// those of their types, which find out by turns whether that is over.
    pub(super) fn reject(&mut self, id: BatchId, now_ms: u64, contents: &impl Contents) {
        if let Role::Suspect(queue) = self.batches[&id].role {
            self.give_back(id, queue);
        } else if let Some(rest) = self.hold_by_type(id, true, contents) {
            // Of these one may be taken: the table has no room to find out by turns.
            self.divide(rest, false, now_ms, contents);
        }
        self.counts.failed.held += 1;
        self.breaker.fail();
        self.open_breaker(Cause::Rejecting, 0, now_ms);
    }

    /// Keeps a batch, and tries it again slowly, however often: what is wrong is not with it. While
    /// others are stored by another server, it soon meets that one.
    pub(super) fn hold(&mut self, id: BatchId, now_ms: u64) {
        let are_others_stored =
            self.stored_ms.is_some_and(|at_ms| now_ms < at_ms + STORED_LATELY_MS);
        let holds = self.patience(self.batches[&id].past.holds);
        let delay_ms = if are_others_stored && holds < QUICK_HOLDS {
            self.random.u64(QUICK_HOLD_MS / 2..QUICK_HOLD_MS)
        } else {
            let delay_ms = (HOLD_DELAY_MIN_MS << holds.min(6)).min(HOLD_DELAY_MAX_MS);
            delay_ms + self.random.u64(0..HOLD_DELAY_MIN_MS)
        };
        self.hold_for(id, delay_ms, now_ms);
    }

    pub(super) fn hold_for(&mut self, id: BatchId, delay_ms: u64, now_ms: u64) {
        self.batch_mut(id).past.holds += 1;
        self.counts.failed.held += 1;
        self.set_backoff(id, delay_ms, now_ms);
    }

    /// Opens the breaker. Connections whose answers were bad are left by then: the next probe may
    /// find another server.
    pub(super) fn open_breaker(&mut self, cause: Cause, pause_min_ms: u64, now_ms: u64) {
        let Self { breaker, random, limits, slots, .. } = self;
        breaker.open(now_ms, cause, pause_min_ms, |tries| {
            if cause == Cause::Rejecting {
                random.u64(PROBE_REJECTING_MS / 2..PROBE_REJECTING_MS)
            } else {
                limits.probe_pause_ms(tries, random)
            }
        });
        slots.leave_bad(now_ms);
    }

    /// The batch's try has failed.
    pub(super) fn retry(&mut self, id: BatchId, delay_min_ms: u64, now_ms: u64) {
        if self.is_given_up(id) {
            return self.settle(id, Outcome::GaveUp, now_ms);
        }
        self.pause(id, delay_min_ms, now_ms);
    }

    /// Before the next try of a batch that has failed.
    pub(super) fn pause(&mut self, id: BatchId, delay_min_ms: u64, now_ms: u64) {
        let failures = self.patience(self.batches[&id].past.failures);
        let delay_ms = delay_min_ms + self.limits.retry_pause_ms(failures, &mut self.random);
        self.set_backoff(id, delay_ms, now_ms);
    }

    /// How often a batch counts as having failed: while others are stored, it fails by chance, or
    /// at one server of several, and its pauses grow more slowly.
    fn patience(&self, failures: u32) -> u32 {
        failures.min(self.breaker.in_a_row().max(failures / 3))
    }

    pub(super) fn set_backoff(&mut self, id: BatchId, delay_ms: u64, now_ms: u64) {
        self.leave_place(id);
        let timer = self.retries.set(now_ms + delay_ms, id);
        self.batch_mut(id).place = Place::Backoff(timer);
    }

    /// Ends every pause, those that the server asked for included, and leaves connections whose
    /// answers were bad: for what would be lost otherwise. Of an endpoint that takes nothing it is
    /// still one batch that finds out.
    pub(crate) fn retry_now(&mut self, now_ms: u64) {
        self.end_backoffs(|_| true);
        self.suspects.hurry();
        self.breaker.probe_at(now_ms);
        self.slots.leave_bad(now_ms);
    }

    /// Tries each type that is set apart, and each event, once more: only they are left.
    pub(crate) fn retry_apart(&mut self) {
        self.end_backoffs(|batch| matches!(batch.role, Role::Parked | Role::Suspect(_)));
        self.suspects.hurry();
    }

    fn end_backoffs(&mut self, is_meant: impl Fn(&Batch) -> bool) {
        let waits = |batch: &Batch| matches!(batch.place, Place::Backoff(_) | Place::Behind);
        let meant = self.batches.iter().filter(|(_, batch)| waits(batch) && is_meant(batch));
        let mut meant: Vec<_> = meant.map(|(id, _)| *id).collect();
        meant.sort_unstable();
        meant.into_iter().for_each(|id| self.make_ready(id, false));
    }

    /// The batch's try has failed: whether that was the last that it was given.
    pub(super) fn is_given_up(&mut self, id: BatchId) -> bool {
        let past = &mut self.batch_mut(id).past;
        past.failures += 1;
        let failures = past.failures;
        self.limits.retries_max.is_some_and(|max| failures > max)
    }
}

/// How a batch is held while the server's answers say that we talk to the wrong one.
const HOLD_DELAY_MIN_MS: u64 = 1_000;
const HOLD_DELAY_MAX_MS: u64 = 60_000;
/// How it is first held while others are stored.
const QUICK_HOLD_MS: u64 = 300;
const QUICK_HOLDS: u32 = 3;
const STORED_LATELY_MS: u64 = 2_000;
/// Between probes of a server that refuses everything, each with another type.
const PROBE_REJECTING_MS: u64 = 1_000;
