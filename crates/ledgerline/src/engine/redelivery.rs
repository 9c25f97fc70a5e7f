//! Lost events, sent once more when DataStorage takes events again.
//!
//! What was dropped stays dropped in the accounts, because somebody may have been told so already;
//! what is stored after all is counted as `redelivered` beside them, and its copy removed. One
//! request at a time, over a connection of its own, with the events' own ids: a DataStorage that
//! keeps them takes no event twice. Dead letters only when asked for: DataStorage refused them.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ledgerline_transport::{Answer, What};

use super::Engine;
use super::link::Wire;
use super::lost_ring::{Again, LostRing};
use crate::sink::http::{
    ids,
    verdict::{Verdict, judge, judge_failure},
};

#[derive(Debug)]
pub(super) struct Redelivery {
    ring: Arc<Mutex<LostRing>>,
    pub(super) wire: Option<Wire>,
    under_way: Option<Again>,
    /// When to look for lost events to send. None: there are none.
    next_ms: Option<u64>,
    /// How many to send in one request: less for a while after one that came to nothing.
    events_max: usize,
    raise_events_max_ms: u64,
    /// It is less because of a refused event, not because of the size.
    is_searching: bool,
    /// Requests that came to nothing, in a row.
    failures: u32,
    /// Events that were refused alone, in a row.
    refused: u32,
    /// Answers with foreign ids, in a row.
    strange: u32,
}

impl Redelivery {
    pub(super) fn new(ring: Arc<Mutex<LostRing>>) -> Self {
        Self {
            ring,
            wire: None,
            under_way: None,
            next_ms: None,
            events_max: EVENTS_MAX,
            raise_events_max_ms: 0,
            is_searching: false,
            failures: 0,
            refused: 0,
            strange: 0,
        }
    }

    /// There is something to be sent, in a while.
    pub(super) fn wants(&mut self, at_ms: u64) {
        self.next_ms.get_or_insert(at_ms);
    }

    /// Somebody asks for it, or DataStorage is back.
    pub(super) fn hurry(&mut self, at_ms: u64) {
        self.failures = 0;
        self.next_ms = Some(at_ms);
    }

    /// When there is something to do, as long as DataStorage takes events.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.next_ms.filter(|_| self.under_way.is_none())
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// The engine has ended, or begins anew.
    pub(super) fn disconnect(&mut self) {
        self.wire = None;
        if let Some(again) = self.under_way.take() {
            self.with_ring(|ring| ring.doubt(&again.numbers));
        }
    }

    /// The request came to nothing: fewer at a time for a while, and a single one later than the
    /// others, whatever it was.
    fn give_way(&mut self, again: &Again, now_ms: u64) {
        if let [number] = again.numbers[..] {
            self.with_ring(|ring| ring.postpone(number));
        }
        self.events_max = (again.numbers.len() / 2).max(1);
        self.is_searching = false;
        self.raise_events_max_ms = now_ms + RAISE_EVENTS_MAX_MS;
    }

    fn with_ring<T>(&self, act: impl FnOnce(&mut LostRing) -> T) -> T {
        act(&mut self.ring.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Engine {
    /// Sends some lost events, if it is time to.
    pub(super) fn redeliver(&mut self, now_ms: u64) {
        let is_time = self.redelivery.next_ms().is_some_and(|at_ms| at_ms <= now_ms);
        if !is_time || self.delivery.unavailable().is_some() || self.calls.is_closing() {
            return;
        }
        let Self { redelivery, credentials, .. } = self;
        if now_ms >= redelivery.raise_events_max_ms {
            redelivery.events_max = EVENTS_MAX;
        }
        let bytes_max = self.batch_bytes_max;
        let mut again = redelivery.with_ring(|ring| ring.due(redelivery.events_max, bytes_max));
        let Some(wire) = redelivery.wire.as_ref().filter(|_| !again.numbers.is_empty()) else {
            redelivery.next_ms = None;
            return;
        };
        if !self.delivery.is_idempotent() {
            let doubtful = redelivery.with_ring(|ring| ring.count_doubtful(&again.numbers));
            self.driver.count_possibly_duplicated(doubtful);
        }
        let body = vec![Bytes::from(std::mem::take(&mut again.body))];
        wire.send(0, &self.target, credentials.lines(now_ms), body);
        redelivery.under_way = Some(again);
    }

    pub(super) fn on_redelivery(&mut self, what: &What, now_ms: u64) {
        let result = match what {
            What::FirstByte(_) => return,
            What::Answered(answer) => Ok(answer),
            What::Failed(failure) => Err(failure),
        };
        let Some(again) = self.redelivery.under_way.take() else { return };
        match result {
            Ok(answer) => self.on_redelivery_answer(&again, answer, now_ms),
            Err(failure) => {
                if judge_failure(failure).is_ambiguous() {
                    self.doubt_redelivery(&again);
                }
                if !failure.cause.is_without_connection() {
                    self.redelivery.give_way(&again, now_ms);
                }
                self.pause_redelivery(0, now_ms);
            }
        }
    }

    fn on_redelivery_answer(&mut self, again: &Again, answer: &Answer, now_ms: u64) {
        let verdict = judge(answer, again.numbers.len());
        if verdict.is_ambiguous() {
            self.doubt_redelivery(again);
        }
        let is_strange = verdict.is_success() && !self.names_first(again, answer);
        self.redelivery.strange = if is_strange { self.redelivery.strange + 1 } else { 0 };
        match verdict {
            _ if is_strange && self.redelivery.strange <= STRANGE_MAX => {
                // Sent again, whoever gets it.
                self.doubt_redelivery(again);
                self.count_doubtful(again);
                self.pause_redelivery(0, now_ms);
            }
            Verdict::Stored | Verdict::Queued => self.redelivered(again, now_ms),
            Verdict::TooBig { .. } | Verdict::Refused { .. } => {
                self.redelivery_refused(again, answer.status, now_ms);
                self.redelivery.is_searching = matches!(verdict, Verdict::Refused { .. });
            }
            Verdict::Overloaded { after_ms: Some(after_ms) } => {
                self.pause_redelivery(after_ms, now_ms);
            }
            Verdict::Unauthorized => {
                self.credentials.refused(now_ms);
                self.pause_redelivery(0, now_ms);
            }
            _ => {
                self.redelivery.give_way(again, now_ms);
                self.pause_redelivery(0, now_ms);
            }
        }
    }

    fn redelivered(&mut self, again: &Again, now_ms: u64) {
        let events = again.numbers.len();
        self.redelivery.with_ring(|ring| ring.remove(&again.numbers));
        self.driver.count_redelivered(events as u64);
        tracing::info!(events, "lost audit events delivered after all");
        self.redelivery.refused = 0;
        if self.redelivery.is_searching {
            self.redelivery.events_max = EVENTS_MAX.min(2 * events);
        }
        self.redelivery.hurry(now_ms);
    }

    fn redelivery_refused(&mut self, again: &Again, status: u16, now_ms: u64) {
        if again.numbers.len() > 1 {
            self.redelivery.give_way(again, now_ms);
            return self.redelivery.hurry(now_ms);
        }
        self.redelivery.refused += 1;
        if self.redelivery.refused > REFUSED_MAX {
            self.redelivery.give_way(again, now_ms);
            return self.pause_redelivery(0, now_ms);
        }
        self.redelivery.with_ring(|ring| ring.refuse(again.numbers[0]));
        tracing::warn!(status, "a lost audit event is refused again");
        self.redelivery.hurry(now_ms);
    }

    fn count_doubtful(&mut self, again: &Again) {
        let doubtful = self.redelivery.with_ring(|ring| ring.count_doubtful(&again.numbers));
        self.driver.count_possibly_duplicated(doubtful);
    }

    /// They may be stored.
    fn doubt_redelivery(&self, again: &Again) {
        self.redelivery.with_ring(|ring| ring.doubt(&again.numbers));
    }

    /// Whether the answer is to this request, as far as a server that keeps our ids shows it.
    fn names_first(&self, again: &Again, answer: &Answer) -> bool {
        answer.status != 201
            || !self.delivery.is_idempotent()
            || ids::names(&answer.body, again.first_id.as_bytes())
    }

    fn pause_redelivery(&mut self, pause_min_ms: u64, now_ms: u64) {
        let redelivery = &mut self.redelivery;
        let bound_ms = (PAUSE_MIN_MS << redelivery.failures.min(6)).min(PAUSE_MAX_MS);
        redelivery.failures += 1;
        let jitter_ms = fastrand::u64(..=bound_ms / 2);
        redelivery.next_ms = Some(now_ms + pause_min_ms + bound_ms / 2 + jitter_ms);
    }

    /// DataStorage is back: a jitter, because it is for a fleet.
    pub(super) fn hurry_redelivery(&mut self, now_ms: u64) {
        if self.redelivery.with_ring(|ring| ring.is_any_due()) {
            self.redelivery.hurry(now_ms + fastrand::u64(..=PAUSE_MIN_MS));
        }
    }

    /// If there are lost events to be sent, they are due in a while. To be called now and then.
    pub(super) fn expect_redelivery(&mut self, now_ms: u64) {
        if self.redelivery.with_ring(|ring| ring.is_any_due()) {
            self.redelivery.wants(now_ms + PAUSE_MIN_MS);
        }
    }
}

/// No batch is ever sent over it.
pub(super) const REDELIVERY_SLOT: usize = usize::MAX - 1;
/// What every DataStorage takes at once.
const EVENTS_MAX: usize = 500;
/// More in a row, and it is the server that refuses, whatever the events.
const REFUSED_MAX: u32 = 5;
/// More in a row, and it is a server that doesn't keep our ids.
const STRANGE_MAX: u32 = 2;
const RAISE_EVENTS_MAX_MS: u64 = 60_000;
const PAUSE_MIN_MS: u64 = 1_000;
const PAUSE_MAX_MS: u64 = 60_000;
