//! Room for the newest by dropping the oldest.
//!
//! Whole blocks, because only a whole block makes room. What is in flight is not dropped: its
//! memory is being read, and its answer may be a moment away.

use std::collections::HashSet;
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
        let is_evicted = |block: u32| evicted.contains(&block);
        let gathered = self.gather.evict(is_evicted);
        self.settle_records(&gathered, Outcome::Evicted, Doubt::default(), None);
        self.leave_blocks(&is_evicted, Outcome::Evicted);
    }

    /// Makes dead letters of the events that are set apart in the first `wanted` of these blocks,
    /// the oldest first, which hold nothing else: they keep more of the buffer than they may.
    pub(crate) fn dead_letter_apart(&mut self, oldest_first: &[u32], wanted: usize) {
        let chosen = self.first_free(oldest_first, wanted);
        if chosen.is_empty() {
            return;
        }
        let before = self.settlements.len();
        self.leave_blocks(&|block| chosen.contains(&block), Outcome::DeadLettered);
        for settlement in &mut self.settlements[before..] {
            settlement.reason = settlement.reason.as_deref().map(untried).or_else(|| {
                Some(untried(&ServerReason {
                    status: 0,
                    detail: "".into(),
                    rule: None,
                    field: None,
                    index: None,
                }))
            });
        }
    }

    /// The first `wanted` of these blocks that have no record in flight.
    fn first_free(&self, oldest_first: &[u32], wanted: usize) -> HashSet<u32> {
        let in_flight = self.batches.values().filter(|batch| batch.flight().is_some());
        let pinned: HashSet<u32> =
            in_flight.flat_map(|batch| &batch.records).map(|record| record.block).collect();
        let free = oldest_first.iter().copied().filter(|block| !pinned.contains(block));
        free.take(wanted).collect()
    }

    /// Gives the records in these blocks that wait in batches and queues this outcome.
    fn leave_blocks(&mut self, is_left: &impl Fn(u32) -> bool, outcome: Outcome) {
        let is_hit = |record: &Record| is_left(record.block);
        for (records, doubt, reason) in self.suspects.remove(is_hit) {
            self.settle_records(&records, outcome, doubt, reason);
        }
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

/// The reason of an event that was not tried, made from that of others of its type.
fn untried(reason: &ServerReason) -> Arc<ServerReason> {
    let detail = format!("not tried, events of its type are refused: {}", reason.detail).into();
    Arc::new(ServerReason { detail, index: None, rule: Some(NOT_TRIED.into()), ..reason.clone() })
}
