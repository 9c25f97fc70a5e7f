//! Events that the server refuses because they are too far in the past.
//!
//! An engine that could not deliver for a week has many of them, and each is refused for good. It
//! is an age refusal only if the server says so and the event is old by our clock too, so that
//! neither a server's clock nor ours alone throws a trail away. The old events of the batch then
//! go together in a request of their own, the youngest first: what the server refuses of them for
//! age again, and what is older still, are dead letters. They say nothing about their types.

use ledgerline_core::{Outcome, Record};

use super::batch::{Batch, History, Role};
use super::{BatchId, Contents, Delivery};

impl Delivery {
    /// The server refused the event at `index`, or one it didn't name, for its age. False: it isn't
    /// old by our clock, or there is no saying which are; then it is refused as any other is.
    pub(super) fn refused_for_age(
        &mut self,
        id: BatchId,
        index: Option<u32>,
        now_ms: u64,
        contents: &impl Contents,
    ) -> bool {
        let old_us = contents.now_us().saturating_sub(OLD_US);
        let batch = &self.batches[&id];
        let named = index.and_then(|index| batch.records.get(index as usize));
        let is_old = |record: &Record| contents.timestamp_us(record) < old_us;
        if named.is_some_and(|record| !is_old(record)) {
            return false;
        }
        if batch.role == Role::Old {
            self.refused_again(id, named.copied(), now_ms, contents);
            return true;
        }
        let (mut old, others): (Vec<_>, Vec<_>) = batch.records.iter().partition(|it| is_old(it));
        if old.is_empty() {
            return false;
        }
        self.take_back(id);
        let batch = &self.batches[&id];
        old.sort_by_key(|record| std::cmp::Reverse(contents.timestamp_us(record)));
        self.insert_by_age(id, others, batch.role);
        self.insert_by_age(id, old, Role::Old);
        self.forget(id, None);
        true
    }

    /// Old events were refused for their age once more: those from the named one on are.
    fn refused_again(
        &mut self,
        id: BatchId,
        named: Option<Record>,
        now_ms: u64,
        contents: &impl Contents,
    ) {
        let batch = &self.batches[&id];
        let events = batch.records.len();
        // Without a name, the younger half may still be taken.
        let (younger, older) = match named {
            Some(named) => {
                let limit_us = contents.timestamp_us(&named);
                let is_younger = |it: &&Record| contents.timestamp_us(it) > limit_us;
                batch.records.iter().partition::<Vec<_>, _>(is_younger)
            }
            None => {
                let (younger, older) = batch.records.split_at(events / 2);
                (younger.to_vec(), older.to_vec())
            }
        };
        self.insert_by_age(id, younger, Role::Old);
        if named.is_none() && events > 1 {
            self.insert_by_age(id, older, Role::Old);
            self.forget(id, None);
            return;
        }
        let batch = self.batch_mut(id);
        batch.bytes = older.iter().map(|record| u64::from(record.bytes)).sum();
        batch.records = older;
        self.settle(id, Outcome::DeadLettered, now_ms);
    }

    fn insert_by_age(&mut self, of: BatchId, records: Vec<Record>, role: Role) {
        if records.is_empty() {
            return;
        }
        let role = if matches!(role, Role::Old) { Role::Old } else { Role::Ordinary };
        let part = self.batches[&of].part(records);
        let past = History { attempts: 0, failures: 0, ..part.past };
        self.insert_ready(Batch { role, past, ..part }, true);
    }
}

/// Six days: a day less than any DataStorage takes.
const OLD_US: i64 = 6 * 24 * 3_600 * 1_000_000;
