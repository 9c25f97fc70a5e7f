//! Room for the newest by dropping the oldest.
//!
//! Whole blocks, because only a whole block makes room. What is in flight is not dropped: its
//! memory is being read, and its answer may be a moment away.

use std::sync::Arc;

use ledgerline_core::{Outcome, Record};

use super::{BatchId, Delivery, Doubt};
use crate::loss::{NOT_TRIED, ServerReason};

impl Delivery {
    /// Drops the records of the first `wanted` of these blocks, the oldest first, that have none in
    /// flight.
    pub(crate) fn evict(&mut self, oldest_first: &[u32], wanted: usize) {
        let evicted = self.first_free(oldest_first, wanted);
        if evicted.is_empty() {
            return;
        }
        let is_evicted = |block: u32| evicted.contains(block);
        let gathered = self.gather.evict(is_evicted);
        self.settle_records(&gathered, Outcome::Evicted, Doubt::default(), None);
        self.leave_queues(&is_evicted, Outcome::Evicted);
        self.leave_batches(&is_evicted, Outcome::Evicted);
    }

    /// Makes dead letters of the events that are set apart in the first `wanted` of these blocks,
    /// the oldest first, which hold nothing else: they keep more of the buffer than they may.
    pub(crate) fn dead_letter_apart(&mut self, oldest_first: &[u32], wanted: usize) {
        let chosen = self.first_free(oldest_first, wanted);
        if chosen.is_empty() {
            return;
        }
        let before = self.settlements.len();
        let is_left = |block| chosen.contains(block);
        self.leave_queues(&is_left, Outcome::DeadLettered);
        // Neighbours have the same reason: it is made once for all of them.
        let mut last: Option<(Option<Arc<ServerReason>>, Arc<ServerReason>)> = None;
        for settlement in &mut self.settlements[before..] {
            let given = settlement.reason.take();
            let made = match last.take() {
                Some((of, made)) if is_same(of.as_ref(), given.as_ref()) => made,
                _ => untried(given.as_deref()),
            };
            settlement.reason = Some(Arc::clone(&made));
            last = Some((given, made));
        }
        // One that was tried alone has a reason of its own.
        self.leave_batches(&is_left, Outcome::DeadLettered);
    }

    /// The first `wanted` of these blocks that have no record in flight.
    fn first_free(&self, oldest_first: &[u32], wanted: usize) -> Blocks {
        let in_flight = self.batches.values().filter(|batch| batch.flight().is_some());
        let pinned = Blocks::of(in_flight.flat_map(|batch| &batch.records).map(|it| it.block));
        let free = oldest_first.iter().copied().filter(|block| !pinned.contains(*block));
        Blocks::of(free.take(wanted))
    }

    /// Gives the records in these blocks that wait in queues this outcome.
    fn leave_queues(&mut self, is_left: &impl Fn(u32) -> bool, outcome: Outcome) {
        for (records, doubt, reason) in self.suspects.remove(|it| is_left(it.block)) {
            self.settle_records(&records, outcome, doubt, reason);
        }
    }

    /// Gives the records in these blocks that wait in batches this outcome.
    fn leave_batches(&mut self, is_left: &impl Fn(u32) -> bool, outcome: Outcome) {
        let is_hit = |record: &Record| is_left(record.block);
        let hit: Vec<BatchId> = self
            .batches
            .iter()
            .filter(|(_, batch)| batch.flight().is_none() && batch.records.iter().any(is_hit))
            .map(|(id, _)| *id)
            .collect();
        for id in hit {
            let batch = self.batches.get_mut(&id).expect("found a moment ago");
            let (gone, kept): (Vec<Record>, Vec<Record>) =
                batch.records.iter().partition(|it| is_hit(it));
            let (doubt, reason) = (batch.past.doubt, batch.past.reason.clone());
            batch.bytes = kept.iter().map(|record| u64::from(record.bytes)).sum();
            batch.records = kept;
            let is_empty = batch.records.is_empty();
            self.settle_records(&gone, outcome, doubt, reason);
            if is_empty {
                self.forget(id, None);
            }
        }
    }
}

/// A set of blocks.
struct Blocks(Vec<bool>);

impl Blocks {
    fn of(blocks: impl IntoIterator<Item = u32>) -> Self {
        let mut is_in = Vec::new();
        for block in blocks {
            let place = block as usize;
            if place >= is_in.len() {
                is_in.resize(place + 1, false);
            }
            is_in[place] = true;
        }
        Self(is_in)
    }

    fn contains(&self, block: u32) -> bool {
        self.0.get(block as usize).is_some_and(|is_in| *is_in)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn is_same(one: Option<&Arc<ServerReason>>, other: Option<&Arc<ServerReason>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

/// The reason of an event that was not tried, made from that of others of its type.
fn untried(reason: Option<&ServerReason>) -> Arc<ServerReason> {
    let said = reason.map_or("", |reason| &reason.detail);
    Arc::new(ServerReason {
        status: reason.map_or(0, |reason| reason.status),
        detail: format!("not tried, events of its type are refused: {said}").into(),
        rule: Some(NOT_TRIED.into()),
        field: reason.and_then(|reason| reason.field.clone()),
        index: None,
    })
}
