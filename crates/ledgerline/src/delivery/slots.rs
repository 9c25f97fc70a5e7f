//! Which connection may take the next batch.
//!
//! Connections first, depth second: servers run one request at a time per connection, so that
//! depth hides only the round trip. The lowest-numbered connection that is idle is taken, and so an
//! idle engine keeps one connection warm instead of many lukewarm.

use super::lateness::Cause;

#[derive(Debug)]
pub(crate) struct Slots {
    connections: Vec<Slot>,
    in_flight: usize,
}

#[derive(Debug, Clone, Default)]
struct Slot {
    in_flight: usize,
    /// When it last began to wait, or got an answer.
    progress_ms: u64,
    /// It has written a byte or had an answer since it last failed, or last began to wait.
    is_up: bool,
    /// Answers since the last whose ids were checked, that one counted. None: since it last
    /// failed, none was.
    answers_since_proof: Option<u64>,
    /// Its server ended the connection with an answer: a follower would be sent in vain.
    is_one_by_one: bool,
    /// The last answer came late.
    is_slow: bool,
}

impl Slots {
    pub(crate) fn new(connections: usize) -> Self {
        Self { connections: vec![Slot::default(); connections], in_flight: 0 }
    }

    /// The connection to use next, when each may have `depth` requests on the way.
    ///
    /// Nothing is put behind a request that has waited for long: depth hides a round trip, and a
    /// connection that hangs would take the follower down with it.
    pub(crate) fn free(&self, depth: usize, now_ms: u64) -> Option<usize> {
        let can_take = |slot: &Slot| {
            slot.in_flight == 0
                || (slot.in_flight < depth
                    && !slot.is_one_by_one
                    && !slot.is_slow
                    && now_ms < slot.progress_ms + FRESH_MS)
        };
        let slots = self.connections.iter().enumerate().filter(|(_, slot)| can_take(slot));
        slots.min_by_key(|(_, slot)| slot.in_flight).map(|(connection, _)| connection)
    }

    pub(crate) fn occupy(&mut self, connection: usize, now_ms: u64) {
        let slot = &mut self.connections[connection];
        if slot.in_flight == 0 {
            slot.progress_ms = now_ms;
            slot.is_up = false;
        }
        slot.in_flight += 1;
        self.in_flight += 1;
    }

    pub(crate) fn writes(&mut self, connection: usize) {
        self.connections[connection].is_up = true;
    }

    pub(crate) fn answered(&mut self, connection: usize, is_checked: bool, now_ms: u64) {
        let slot = &mut self.connections[connection];
        slot.is_up = true;
        slot.is_slow = now_ms >= slot.progress_ms + FRESH_MS;
        slot.progress_ms = now_ms;
        slot.in_flight -= 1;
        self.in_flight -= 1;
        slot.answers_since_proof =
            if is_checked { Some(1) } else { slot.answers_since_proof.map(|answers| answers + 1) };
    }

    /// `is_follower`: the request was behind one with whose answer the server closed.
    pub(crate) fn failed(&mut self, connection: usize, is_follower: bool) {
        let slot = &mut self.connections[connection];
        let is_one_by_one = slot.is_one_by_one || is_follower;
        *slot = Slot { in_flight: slot.in_flight - 1, is_one_by_one, ..Slot::default() };
        self.in_flight -= 1;
    }

    /// Whether the server is there, by what a connection shows: it is up and waits for an answer,
    /// or had one a moment ago. One that has been idle for longer shows nothing.
    pub(crate) fn is_any_up(&self, now_ms: u64) -> bool {
        let shows_it =
            |slot: &Slot| slot.is_up && (slot.in_flight > 0 || now_ms < slot.progress_ms + SEEN_MS);
        self.connections.iter().any(shows_it)
    }

    /// When a request was last put on a connection, or answered on a busy one. None: all are idle.
    pub(crate) fn progress_ms(&self) -> Option<u64> {
        let busy = self.connections.iter().filter(|slot| slot.in_flight > 0);
        busy.map(|slot| slot.progress_ms).max()
    }

    /// Requests on the way, on all connections.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(crate) fn wants_proof(&self, connection: usize) -> bool {
        self.connections[connection].answers_since_proof.is_none_or(|n| n >= ANSWERS_PER_PROOF)
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
const ANSWERS_PER_PROOF: u64 = 1_000;
/// How long a connection's last progress says that it works: so long, another request may be put
/// behind its first.
const FRESH_MS: u64 = 50;
