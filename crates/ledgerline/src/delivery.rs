//! The delivery machine: gathers records, cuts batches, retries, settles.
//!
//! Pure. What happened goes in, with the time: records taken, verdicts on requests, the clock. What
//! to do comes out: [`Send`]s by [`Delivery::next_send`], [`Settlement`]s, connections to leave,
//! and the moment to call again. No sockets, no clock, no HTTP, and no bytes: a batch is a list of
//! records in blocks. Only what is wrong with a record makes the machine look into it, through
//! [`Contents`].
//!
//! Its law: hold and retry is the rule. Nothing leaves the machine but by an answer of the server,
//! or because `retries_max`, `give_up_after` or a lack of room said so. A batch waits for its retry
//! on its own timer and holds no connection meanwhile, so it delays nobody.
//!
//! The methods: commands ([`push`](Delivery::push), [`flush`](Delivery::flush),
//! [`evict`](Delivery::evict), [`retry_now`](Delivery::retry_now)); what happened
//! ([`advance`](Delivery::advance), [`first_byte`](Delivery::first_byte),
//! [`ended`](Delivery::ended)); what to do (`next_send`, `take_*`, [`next_ms`](Delivery::next_ms));
//! and questions.

mod abandon;
mod age;
mod batch;
mod breaker;
#[cfg(test)]
mod connections;
mod counts;
mod divide;
mod ended;
mod evict;
mod expire;
mod gather;
mod lateness;
mod learn;
mod limits;
mod proof;
mod questions;
#[cfg(test)]
mod refusals;
mod retry;
#[cfg(test)]
mod schedules;
mod send;
#[cfg(test)]
mod servers;
#[cfg(test)]
mod simulation;
mod slots;
mod suspects;
#[cfg(test)]
mod tests;
mod timeout_split;
mod window;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ledgerline_core::{Outcome, Record, Wheel};

pub use self::counts::FailedTries;
pub use self::lateness::{BlockedMs, Cause};
pub use self::suspects::SetApart;
pub(crate) use self::{
    batch::{Batch, Span},
    counts::{Counts, Whereabouts},
    ended::Ended,
    gather::Reason,
    lateness::{Blocked, Lateness},
    limits::Limits,
    proof::{IdCheck, Ids},
    slots::Renewal,
};
use self::{
    batch::{Place, Role, spans},
    breaker::Breaker,
    gather::Gather,
    learn::Learned,
    proof::Proofs,
    slots::Slots,
    suspects::Suspects,
    window::Window,
};
use crate::loss::ServerReason;

/// Names a batch for as long as the engine lives.
pub(crate) type BatchId = u64;

/// Put this batch on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Send {
    pub(crate) connection: usize,
    pub(crate) batch: BatchId,
}

/// What became of the records of a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settlement {
    pub(crate) span: Span,
    pub(crate) outcome: Outcome,
    /// The outcome of an earlier try is unknown: it may have stored them.
    pub(crate) doubt: Doubt,
    /// Why, in the server's words, if it said anything.
    pub(crate) reason: Option<Arc<ServerReason>>,
}

impl Settlement {
    /// Whether the same became of both, for the same reason.
    pub(crate) fn has_same_end(&self, other: &Self) -> bool {
        (self.outcome, self.doubt, &self.reason) == (other.outcome, other.doubt, &other.reason)
    }
}

/// What is known of the tries whose outcome isn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Doubt {
    /// There was one: it may have stored the records.
    pub(crate) is_ambiguous: bool,
    /// It was at a server that doesn't keep our ids: sent again, they are stored again.
    pub(crate) was_unkept: bool,
    /// They were sent again, and counted as possibly duplicated.
    pub(crate) is_counted: bool,
}

/// What the machine may ask of a record when something is wrong with it.
pub(crate) trait Contents {
    /// The event's type.
    fn event_type<T>(&self, record: &Record, read: impl FnOnce(&str) -> T) -> T;

    /// Its timestamp, in microseconds since 1970.
    fn timestamp_us(&self, record: &Record) -> i64;

    /// The wall clock, likewise.
    fn now_us(&self) -> i64;
}

/// Something that is worth a line in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Events of this type are set apart from now on, for this reason.
    SetApart { event_type: Arc<str>, reason: Option<Arc<ServerReason>> },
    /// One event of this type is held alone.
    Parked { record: Record, reason: Option<Arc<ServerReason>> },
    /// Events of this type are no longer set apart.
    Taken { event_type: Arc<str> },
}

#[derive(Debug)]
pub(crate) struct Delivery {
    limits: Limits,
    gather: Gather,
    batches: HashMap<BatchId, Batch>,
    next_id: BatchId,
    /// Batches whose turn has come again, or that were divided.
    ready: VecDeque<BatchId>,
    retries: Wheel<BatchId>,
    slots: Slots,
    /// Bytes of the events in flight.
    in_flight_bytes: u64,
    learned: Learned,
    proofs: Proofs,
    settlements: Vec<Settlement>,
    notices: Vec<Notice>,
    blocked: Blocked,
    lateness: Lateness,
    counts: Counts,
    random: fastrand::Rng,
    breaker: Breaker,
    suspects: Suspects,
    /// The last request was one of a suspected type.
    was_suspect: bool,
    /// The last probe was a new batch.
    probed_new: bool,
    window: Window,
    /// When a batch was last stored.
    stored_ms: Option<u64>,
    now_ms: u64,
}

impl Delivery {
    pub(crate) fn new(limits: Limits, now_ms: u64, random: fastrand::Rng) -> Self {
        Self {
            gather: Gather::default(),
            batches: HashMap::new(),
            next_id: 0,
            ready: VecDeque::new(),
            retries: Wheel::new(now_ms),
            slots: Slots::new(limits.connections_max),
            in_flight_bytes: 0,
            learned: Learned::new(&limits, now_ms),
            proofs: Proofs::default(),
            settlements: Vec::new(),
            notices: Vec::new(),
            blocked: Blocked::default(),
            lateness: Lateness::default(),
            counts: Counts::default(),
            random,
            breaker: Breaker::default(),
            suspects: Suspects::default(),
            was_suspect: false,
            probed_new: false,
            window: Window::new(limits.connections_max * limits.pipeline_depth_max),
            stored_ms: None,
            now_ms,
            limits,
        }
    }

    /// A record was taken from its lane.
    pub(crate) fn push(&mut self, record: Record) {
        self.gather.push(record);
    }

    /// Sends all that is gathered without waiting for it to fall due. Bypasses no backoff.
    pub(crate) fn flush(&mut self) {
        self.gather.force(Reason::Request);
    }

    /// Lets the time pass: retries come up, gathered records fall due.
    pub(crate) fn advance(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        let Self { ready, retries, batches, .. } = self;
        retries.advance(now_ms, &mut |id| {
            let batch = batches.get_mut(&id).expect("a batch that goes cancels its timer");
            batch.place = Place::Ready;
            ready.push_back(id);
        });
        if self.gather.due_ms(self.limits.flush_interval_ms).is_some_and(|due| due <= now_ms) {
            self.gather.force(Reason::Timer);
        }
        self.learned.advance(&self.limits, now_ms);
        self.suspects.advance(now_ms);
    }

    /// When to call [`advance`](Self::advance) next, if nothing happens before.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        let due_ms = self.gather.due_ms(self.limits.flush_interval_ms);
        // A probe that is due and can't be sent waits for something else to happen.
        let has_work = self.has_ordinary() || self.suspects.next_due(self.now_ms, true).is_some();
        let is_ahead = |at_ms: &u64| *at_ms > self.now_ms && has_work;
        let probe_ms = self.breaker.probe_ms().filter(is_ahead);
        let stalls_ms = self.stalls_ms().filter(is_ahead);
        let pause_ms = self.suspects.next_ms(self.now_ms);
        [self.retries.next_ms(), due_ms, probe_ms, stalls_ms, pause_ms].into_iter().flatten().min()
    }

    pub(crate) fn take_settlements(&mut self) -> Vec<Settlement> {
        std::mem::take(&mut self.settlements)
    }

    /// Connections to leave, before the next batch is sent.
    pub(crate) fn take_renewals(&mut self) -> Vec<Renewal> {
        self.slots.take_renewals()
    }

    /// Records that were set apart, or are no longer: to be noted before anything is settled.
    pub(crate) fn take_apart_changes(&mut self) -> Vec<(Span, bool)> {
        self.suspects.take_apart_changes()
    }

    pub(crate) fn take_notices(&mut self) -> Vec<Notice> {
        let released = self.suspects.take_released().into_iter();
        let taken = released.map(|event_type| Notice::Taken { event_type });
        self.notices.drain(..).chain(taken).collect()
    }

    /// Lets go of every record, after the engine has lost track: they will be pushed again. What
    /// the machine has learned and counted stays.
    pub(crate) fn restart(&mut self, now_ms: u64) {
        self.gather = Gather::default();
        self.batches.clear();
        self.ready.clear();
        self.retries = Wheel::new(now_ms);
        self.slots = Slots::new(self.limits.connections_max);
        self.in_flight_bytes = 0;
        self.settlements.clear();
        self.notices.clear();
        self.blocked.end(now_ms);
        self.breaker = Breaker::default();
        self.suspects.restart();
        self.window.restart();
    }

    /// Whether something is due that no suspicion keeps back.
    fn has_ordinary(&self) -> bool {
        !self.ready.is_empty() || self.is_cut_due()
    }

    fn is_cut_due(&self) -> bool {
        self.gather.is_cut_due(self.learned.events_max(), self.learned.bytes_max())
    }

    fn insert(&mut self, batch: Batch) -> BatchId {
        let id = self.next_id;
        self.next_id += 1;
        self.batches.insert(id, batch);
        id
    }

    /// A new batch, first or last of those whose turn has come.
    fn insert_ready(&mut self, batch: Batch, is_first: bool) -> BatchId {
        let id = self.insert(batch);
        if is_first {
            self.ready.push_front(id);
        } else {
            self.ready.push_back(id);
        }
        id
    }

    /// A batch's turn has come.
    fn make_ready(&mut self, id: BatchId, is_first: bool) {
        self.leave_place(id);
        self.batches.get_mut(&id).expect("it left its place").place = Place::Ready;
        if is_first {
            self.ready.push_front(id);
        } else {
            self.ready.push_back(id);
        }
    }

    /// Takes a batch out of whatever knows where it is.
    fn leave_place(&mut self, id: BatchId) {
        match self.batches[&id].place {
            Place::Ready => self.ready.retain(|ready| *ready != id),
            Place::Backoff(timer) => drop(self.retries.cancel(timer)),
            Place::Behind | Place::Returned => {}
            Place::InFlight(_) => unreachable!("a batch in flight is released first"),
        }
    }

    /// Removes a batch from the machine; `outcome` is what became of it, if it is settled.
    fn forget(&mut self, id: BatchId, outcome: Option<Outcome>) -> Batch {
        self.leave_place(id);
        let batch = self.batches.remove(&id).expect("it left its place");
        if let Role::Suspect(queue) = batch.role {
            self.suspects.returned(queue);
            self.suspects.leave_if_done(queue);
        }
        if let Role::Named { rest } = batch.role {
            self.release_rest(rest, outcome);
        }
        batch
    }

    fn settle(&mut self, id: BatchId, outcome: Outcome, now_ms: u64) {
        let batch = self.forget(id, Some(outcome));
        if outcome.is_delivered() {
            self.lateness.delivered(&batch.records, now_ms);
        }
        self.settle_records(&batch.records, outcome, batch.past.doubt, batch.past.reason);
    }

    fn settle_records(
        &mut self,
        records: &[Record],
        outcome: Outcome,
        doubt: Doubt,
        reason: Option<Arc<ServerReason>>,
    ) {
        let reason = reason.filter(|_| !outcome.is_delivered());
        let settled =
            spans(records).map(|span| Settlement { span, outcome, doubt, reason: reason.clone() });
        self.settlements.extend(settled);
    }
}
