//! What others may ask of the machine.

#[cfg(test)]
use std::collections::BTreeSet;

#[cfg(test)]
use ledgerline_core::Record;

use super::batch::{Batch, Place, Role};
use super::{
    BatchId, BlockedMs, Cause, Counts, Delivery, IdCheck, Lateness, SetApart, Whereabouts,
};

impl Delivery {
    pub(crate) fn batch(&self, batch: BatchId) -> Option<&Batch> {
        self.batches.get(&batch)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn lateness(&self) -> &Lateness {
        &self.lateness
    }

    pub(crate) fn blocked_ms(&self, now_ms: u64) -> BlockedMs {
        self.blocked.total(now_ms)
    }

    /// How much of the ids in an answer to this batch is to be compared.
    pub(crate) fn id_check(&self, batch: BatchId) -> IdCheck {
        let flight = self.batches.get(&batch).and_then(Batch::flight);
        flight.map_or(IdCheck::Nothing, |flight| {
            self.proofs.check(self.slots.proof(flight.connection), self.now_ms)
        })
    }

    pub(crate) fn whereabouts(&self) -> Whereabouts {
        let mut whereabouts = Whereabouts {
            unsent: self.gather.len() as u64,
            set_apart: self.set_apart().iter().map(|apart| apart.events).sum(),
            retrying: self.suspects.held(),
            ..Whereabouts::default()
        };
        for batch in self.batches.values() {
            let events = u64::from(batch.events());
            match (&batch.place, batch.past.attempts) {
                // Counted as set apart, also while it is tried.
                _ if batch.role == Role::Parked => {}
                (Place::InFlight(_), _) => whereabouts.in_flight += events,
                (_, 0) => whereabouts.unsent += events,
                (_, _) => whereabouts.retrying += events,
            }
        }
        whereabouts
    }

    /// Why the endpoint takes nothing at present.
    pub(crate) fn unavailable(&self) -> Option<Cause> {
        self.breaker.cause()
    }

    /// How many events a batch may have at present.
    pub(crate) fn events_max_now(&self) -> usize {
        self.learned.events_max()
    }

    /// Requests in flight, and how many may be.
    pub(crate) fn concurrency(&self) -> (usize, usize) {
        (self.slots.in_flight(), self.window.limit())
    }

    pub(crate) fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// Events that were refused alone since anything was stored.
    pub(crate) fn refused_lately(&self) -> u32 {
        self.suspects.refused_in_all()
    }

    /// Whether the server has shown that it keeps our ids, so that a resend is harmless.
    pub(crate) fn is_idempotent(&self) -> bool {
        self.proofs.is_kept_by_all(self.now_ms)
    }

    /// What is set apart: events of types that the server refuses, and single events that it
    /// doesn't store while it stores others.
    pub(crate) fn set_apart(&self) -> Vec<SetApart> {
        let mut apart: Vec<_> = self.suspects.set_apart(self.now_ms).collect();
        for batch in self.batches.values().filter(|batch| batch.role == Role::Parked) {
            if let Some(event_type) = &batch.past.event_type {
                let held_ms = self.now_ms.saturating_sub(batch.records[0].accepted_ms);
                match apart.iter_mut().find(|other| other.event_type == *event_type) {
                    Some(other) => {
                        other.events += 1;
                        other.oldest_ms = other.oldest_ms.max(held_ms);
                    }
                    None => apart.push(SetApart {
                        event_type: event_type.clone(),
                        events: 1,
                        oldest_ms: held_ms,
                        reason: batch.past.reason.clone(),
                    }),
                }
            }
        }
        apart
    }

    /// Whether something that is set apart has still to be tried since all of it was to be.
    pub(crate) fn is_apart_busy(&self) -> bool {
        let is_tried = |batch: &Batch| {
            batch.role == Role::Parked && matches!(batch.place, Place::InFlight(_) | Place::Ready)
        };
        self.suspects.is_apart_hurried() || self.batches.values().any(is_tried)
    }

    /// The records that are set apart, and those that may be, because they are being tried.
    #[cfg(test)]
    pub(super) fn apart_records(&self) -> (BTreeSet<u32>, BTreeSet<u32>) {
        let index = |record: &Record| record.index;
        let mut must: BTreeSet<_> = self.suspects.apart_records().map(|it| it.index).collect();
        let mut may = BTreeSet::new();
        for batch in self.batches.values() {
            match batch.role {
                Role::Parked => must.extend(batch.records.iter().map(index)),
                Role::Suspect(queue) if self.suspects.is_apart(queue) => {
                    may.extend(batch.records.iter().map(index));
                }
                _ => {}
            }
        }
        (must, may)
    }
}
