//! Which connection may take the next batch.
//!
//! Connections first, depth second: servers run one request at a time per connection, so that
//! depth hides only the round trip. Of those that are free, one that has stored is taken before one
//! that nothing is known of, and that before one whose last answers were bad: behind one address
//! may stand several servers, of which one is broken. Among equals it is the lowest-numbered, and
//! so an idle engine keeps one connection warm instead of many lukewarm.

use super::lateness::Cause;
use super::proof::Proof;

#[derive(Debug)]
pub(crate) struct Slots {
    connections: Vec<Slot>,
    in_flight: usize,
    renewals: Vec<Renewal>,
}

/// Leave a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Renewal {
    pub(crate) connection: usize,
    /// Not after its last answer, but now: its answers can't be trusted.
    pub(crate) is_at_once: bool,
}

#[derive(Debug, Clone, Default)]
struct Slot {
    in_flight: usize,
    /// When it last began to wait, or got an answer.
    progress_ms: u64,
    /// It has written a byte or had an answer since it last failed, or last began to wait.
    is_up: bool,
    proof: Proof,
    /// Its server ended the connection with an answer: a follower would be sent in vain.
    is_one_by_one: bool,
    /// The last answer came late.
    is_slow: bool,
    /// When it has last stored a batch.
    stored_ms: Option<u64>,
    /// Answers in a row that stored nothing, for no fault of the batch.
    bad_in_a_row: u32,
    /// Refusals in a row.
    refused_in_a_row: u32,
    renewed_ms: Option<u64>,
    /// It is being left: it takes nothing before its last answer.
    is_leaving: bool,
}

impl Slots {
    pub(crate) fn new(connections: usize) -> Self {
        let connections = vec![Slot::default(); connections];
        Self { connections, in_flight: 0, renewals: Vec::new() }
    }

    /// The connection to use next, when `depth_of` says how many requests one may have in flight,
    /// and `avoids` is to be used only if no other can be.
    ///
    /// Nothing is put behind a request that has waited for long: depth hides a round trip, and a
    /// connection that hangs would take the follower down with it.
    pub(crate) fn free(
        &self,
        depth_of: impl Fn(Proof) -> usize,
        avoids: Option<usize>,
        now_ms: u64,
    ) -> Option<usize> {
        let can_take = |slot: &Slot| {
            slot.in_flight == 0
                || (slot.in_flight < depth_of(slot.proof)
                    && !slot.is_leaving
                    && !slot.is_one_by_one
                    && !slot.is_slow
                    && now_ms < slot.progress_ms + FRESH_MS)
        };
        let rank = |(connection, slot): &(usize, &Slot)| {
            let is_bad = slot.bad_in_a_row > 0 || slot.refused_in_a_row >= REFUSED_MAX;
            let is_avoided = avoids == Some(*connection);
            (is_avoided, is_bad, slot.in_flight, slot.stored_ms.is_none(), *connection)
        };
        let slots = self.connections.iter().enumerate().filter(|(_, slot)| can_take(slot));
        slots.min_by_key(rank).map(|(connection, _)| connection)
    }

    pub(crate) fn occupy(&mut self, connection: usize, now_ms: u64) {
        self.leave_if_bad(connection, BAD_MAX, now_ms);
        let slot = &mut self.connections[connection];
        if slot.in_flight == 0 {
            slot.progress_ms = now_ms;
            slot.is_up = false;
            slot.is_leaving = false;
        }
        slot.in_flight += 1;
        self.in_flight += 1;
    }

    /// A request's first byte was written: on a connection that has just been made, if `is_fresh`.
    pub(crate) fn writes(&mut self, connection: usize, is_fresh: bool) {
        let slot = &mut self.connections[connection];
        slot.is_up = true;
        if is_fresh {
            slot.proof = Proof::default();
        }
    }

    pub(crate) fn proof(&self, connection: usize) -> Proof {
        self.connections[connection].proof
    }

    pub(crate) fn set_proof(&mut self, connection: usize, proof: Proof) {
        self.connections[connection].proof = proof;
    }

    /// An answer came, whatever it says.
    pub(crate) fn answered(&mut self, connection: usize, now_ms: u64) {
        let slot = &mut self.connections[connection];
        slot.is_up = true;
        slot.is_slow = now_ms >= slot.progress_ms + FRESH_MS;
        slot.progress_ms = now_ms;
        self.release(connection);
    }

    /// `is_follower`: the request was behind one with whose answer the server closed.
    pub(crate) fn failed(&mut self, connection: usize, is_follower: bool) {
        let slot = &mut self.connections[connection];
        slot.is_one_by_one |= is_follower;
        (slot.is_up, slot.is_slow, slot.proof) = (false, false, Proof::default());
        if !is_follower {
            slot.stored_ms = None;
        }
        self.release(connection);
    }

    fn release(&mut self, connection: usize) {
        let slot = &mut self.connections[connection];
        slot.in_flight -= 1;
        slot.is_leaving &= slot.in_flight > 0;
        self.in_flight -= 1;
    }

    /// It has stored a batch.
    pub(crate) fn stored(&mut self, connection: usize, now_ms: u64) {
        let slot = &mut self.connections[connection];
        slot.stored_ms = Some(now_ms);
        (slot.bad_in_a_row, slot.refused_in_a_row) = (0, 0);
    }

    /// It has refused a batch. That is the batch's fault, unless it goes on so: behind it may be a
    /// server that refuses everything.
    pub(crate) fn refuses(&mut self, connection: usize, now_ms: u64) {
        self.connections[connection].refused_in_a_row += 1;
        self.leave_if_bad(connection, BAD_MAX, now_ms);
    }

    /// Whether this connection has refused one after the other, and another has stored lately.
    pub(crate) fn refuses_alone(&self, connection: usize, now_ms: u64) -> bool {
        let stores = |slot: &Slot| slot.stored_ms.is_some_and(|at| now_ms < at + STORED_LATELY_MS);
        let mut others = self.connections.iter().enumerate().filter(|(at, _)| *at != connection);
        self.connections[connection].refused_in_a_row >= REFUSED_MAX
            && others.any(|(_, slot)| stores(slot))
    }

    /// Its answer stored nothing, for no fault of the batch. After a few in a row it is left: the
    /// next may lead to another server.
    pub(crate) fn bad(&mut self, connection: usize, now_ms: u64) {
        self.connections[connection].bad_in_a_row += 1;
        self.connections[connection].stored_ms = None;
        self.leave_if_bad(connection, BAD_MAX, now_ms);
    }

    /// Leaves every connection whose last answer was bad.
    pub(crate) fn leave_bad(&mut self, now_ms: u64) {
        for connection in 0..self.connections.len() {
            self.leave_if_bad(connection, 1, now_ms);
        }
    }

    fn leave_if_bad(&mut self, connection: usize, bad_max: u32, now_ms: u64) {
        let slot = &mut self.connections[connection];
        let is_time = slot.renewed_ms.is_none_or(|at_ms| now_ms >= at_ms + RENEW_INTERVAL_MS);
        let is_bad = slot.bad_in_a_row >= bad_max || slot.refused_in_a_row >= REFUSED_MAX * bad_max;
        if !is_bad || !is_time {
            return;
        }
        slot.renewed_ms = Some(now_ms);
        (slot.bad_in_a_row, slot.refused_in_a_row) = (0, 0);
        // What is in flight is judged by what this connection has shown.
        slot.is_leaving = slot.in_flight > 0;
        if !slot.is_leaving {
            slot.proof = Proof::default();
        }
        self.renewals.push(Renewal { connection, is_at_once: false });
    }

    /// Its answers can't be trusted: it is left now. The caller puts an end to its requests.
    pub(crate) fn abandon(&mut self, connection: usize) {
        let slot = &mut self.connections[connection];
        self.in_flight -= slot.in_flight;
        *slot = Slot { renewed_ms: slot.renewed_ms, ..Slot::default() };
        self.renewals.push(Renewal { connection, is_at_once: true });
    }

    /// Connections to leave, before anything more is sent.
    pub(crate) fn take_renewals(&mut self) -> Vec<Renewal> {
        std::mem::take(&mut self.renewals)
    }

    /// Whether a connection had an answer a moment ago.
    pub(crate) fn is_any_answering(&self, now_ms: u64) -> bool {
        let answers = |slot: &Slot| slot.is_up && now_ms < slot.progress_ms + SEEN_MS;
        self.connections.iter().any(answers)
    }

    /// When a request was last put on a connection, or answered on a busy one. None: all are idle.
    pub(crate) fn progress_ms(&self) -> Option<u64> {
        let busy = self.connections.iter().filter(|slot| slot.in_flight > 0);
        busy.map(|slot| slot.progress_ms).max()
    }

    /// Requests in flight, on all connections.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Why none is free. A request that has only just been put on a connection is taken to have
    /// one: the first byte follows within a turn of the loop, unless it must be made first.
    pub(crate) fn cause(&self, now_ms: u64) -> Cause {
        let is_connected = |slot: &Slot| slot.is_up || now_ms < slot.progress_ms + FRESH_MS;
        if self.connections.iter().any(is_connected) {
            Cause::ServerSlow
        } else {
            Cause::NoConnection
        }
    }
}

/// How long an answer shows that the server is there.
const SEEN_MS: u64 = 1_000;
/// How long a connection's last progress says that it works: so long, another request may be put
/// behind its first.
pub(super) const FRESH_MS: u64 = 50;
/// Bad answers in a row after which a connection is left.
const BAD_MAX: u32 = 2;
/// Refusals in a row that may be chance.
const REFUSED_MAX: u32 = 4;
/// How long a stored batch speaks for its connection.
const STORED_LATELY_MS: u64 = 2_000;
/// A connection is left no more often than this.
const RENEW_INTERVAL_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(slots: &mut Slots, times: u64) {
        for now_ms in 0..times {
            slots.occupy(0, now_ms);
            slots.answered(0, now_ms);
            slots.refuses(0, now_ms);
        }
    }

    #[test]
    fn a_connection_that_refuses_one_after_the_other_is_doubted_and_left() {
        let mut slots = Slots::new(2);
        refuse(&mut slots, u64::from(REFUSED_MAX));
        assert!(!slots.refuses_alone(0, 10), "nobody else has stored");
        slots.occupy(1, 10);
        slots.answered(1, 11);
        slots.stored(1, 11);
        assert!(slots.refuses_alone(0, 12) && !slots.refuses_alone(1, 12));
        assert!(!slots.refuses_alone(0, 11 + STORED_LATELY_MS), "that was long ago");
        assert_eq!(slots.free(|_| 1, None, 12), Some(1));
        assert!(slots.take_renewals().is_empty());
        refuse(&mut slots, u64::from(REFUSED_MAX));
        assert_eq!(slots.take_renewals(), [Renewal { connection: 0, is_at_once: false }]);
        slots.stored(0, 20);
        assert!(!slots.refuses_alone(0, 20));
    }

    #[test]
    fn what_is_in_flight_is_judged_by_what_its_connection_has_shown() {
        let mut slots = Slots::new(1);
        let given = Proof::Given { answers: 1 };
        slots.set_proof(0, given);
        slots.occupy(0, 0);
        slots.occupy(0, 0);
        slots.answered(0, 1);
        slots.bad(0, 1);
        slots.leave_bad(1);
        assert_eq!(slots.take_renewals().len(), 1);
        assert_eq!(slots.proof(0), given, "one is in flight: its answer may be another's");
        assert_eq!(slots.free(|_| 2, None, 1), None, "it is being left");
        slots.answered(0, 2);
        slots.writes(0, true);
        assert_eq!(slots.proof(0), Proof::default());
    }
}
