//! A batch that the server refuses as it is: too big, or with an event that it won't have.
//!
//! Too big: halved, and smaller ones are cut for a while. Refused: the event that the answer names
//! is sent alone, else halves are, until the bad one stands alone and is dead-lettered; its
//! neighbours are delivered. The server refuses a batch as a whole, so that no part of it is
//! stored.

use ledgerline_core::Outcome;

use super::{Batch, BatchId, Delivery, RAISE_MAX_MS};

/// The search for the bad events of one batch.
#[derive(Debug)]
pub(crate) struct Isolation {
    /// Batches that it was divided into and that are not settled.
    pub(super) parts: u32,
    requests_left: u32,
    /// An event that an answer named was stored: its answers name the wrong ones.
    is_misled: bool,
}

impl Delivery {
    /// The server won't have this batch, because of the event at `index`, if it said so.
    pub(super) fn refused(&mut self, id: BatchId, index: Option<u32>, now_ms: u64) {
        let batch = &self.batches[&id];
        if batch.events == 1 {
            return self.refused_alone(id, now_ms);
        }
        if self.fuse.is_blown() {
            return self.reject(id, now_ms);
        }
        self.breaker.close(batch.begun_ms); // It reads what it is sent.
        let origin = batch.origin.unwrap_or(id);
        let isolation = self.isolations.entry(origin).or_insert(Isolation {
            parts: 1,
            requests_left: REQUESTS_MAX,
            is_misled: false,
        });
        if isolation.requests_left == 0 {
            isolation.requests_left = REQUESTS_MAX;
            return self.hold(id, now_ms);
        }
        isolation.parts += 1;
        let is_misled = isolation.is_misled;
        let found = self.batches.remove(&id).expect("looked at above");
        let index = index.filter(|index| *index < found.events && !is_misled);
        let named = index.is_some();
        let (mut one, mut other) = match index {
            Some(index) => found.without(index),
            None => found.halves(),
        };
        one.is_named = named;
        for part in [&mut one, &mut other] {
            part.origin = Some(origin);
            (part.attempts, part.failures) = (0, 0);
        }
        self.counts.batches_isolated += 1;
        for part in [one, other] {
            let part = self.insert(part);
            self.ready.push_front(part);
        }
    }

    /// An event that the server refuses by itself: a dead letter, unless too many are.
    pub(super) fn refused_alone(&mut self, id: BatchId, now_ms: u64) {
        if self.fuse.refuse() {
            self.settle(id, Outcome::DeadLettered, now_ms);
        } else {
            self.reject(id, now_ms);
        }
    }

    /// The server takes no batch of this size: halves it, and cuts smaller ones for a while.
    pub(super) fn too_big(&mut self, id: BatchId, now_ms: u64) {
        if self.batches[&id].events == 1 {
            return self.refused_alone(id, now_ms);
        }
        if self.fuse.is_blown() {
            return self.reject(id, now_ms);
        }
        let found = self.batches.remove(&id).expect("looked at above");
        let (is_half, events, origin) = (found.is_half, found.events, found.origin);
        let (mut first, mut second) = found.halves();
        for half in [&mut first, &mut second] {
            half.is_half = true;
            (half.attempts, half.failures) = (0, 0);
        }
        if !is_half {
            self.events_stored_max = 0;
        }
        // A half that is as large as what was stored since is refused for one of its events.
        if events > self.events_stored_max {
            self.events_max_now = self.events_max_now.min(first.events as usize);
            self.raise_events_max_ms = now_ms + RAISE_MAX_MS;
        }
        self.counts.batches_split += 1;
        if let Some(isolation) = origin.and_then(|origin| self.isolations.get_mut(&origin)) {
            isolation.parts += 1;
        }
        for half in [first, second] {
            let half = self.insert(half);
            self.ready.push_back(half);
        }
    }

    /// A request of a search is sent.
    pub(super) fn count_isolating(&mut self, origin: Option<BatchId>) {
        if let Some(isolation) = origin.and_then(|origin| self.isolations.get_mut(&origin)) {
            isolation.requests_left = isolation.requests_left.saturating_sub(1);
        }
    }

    /// A part is settled.
    pub(super) fn settled_part(&mut self, part: &Batch, outcome: Outcome) {
        let Some(origin) = part.origin else { return };
        let Some(isolation) = self.isolations.get_mut(&origin) else { return };
        isolation.is_misled |= part.is_named && outcome.is_delivered();
        isolation.parts -= 1;
        if isolation.parts == 0 {
            self.isolations.remove(&origin);
        }
    }
}

/// Requests to find the bad events of one batch before it is held for a while. One bad event among
/// 20,000 takes 29.
const REQUESTS_MAX: u32 = 64;
