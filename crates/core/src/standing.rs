//! What a record has come to: one byte while its block lives, a small memory of the rest after.
//!
//! While the block has the receipt's generation, its status byte is the answer. When the generation
//! has moved on, the record is settled, and what isn't remembered otherwise was delivered: the last
//! [`SPANS_MAX`] spans with any other outcome are kept, and for each block the youngest generation
//! of which one was forgotten. So an answer costs no memory per record, and it is never wrong:
//! where it can't be known any longer it is [`Standing::Forgotten`].

use std::collections::VecDeque;

use crate::{
    accounts::Outcome,
    sync::{AtomicU64, Mutex, Ordering, PoisonError},
    word::generations_between,
};

/// What is known of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is accepted, and was not sent.
    Recorded,
    /// A request with it was put on a connection; it isn't settled.
    Sent,
    /// It is kept, and not waited for: what it is sent to refuses events like it.
    SetApart,
    /// It is settled.
    Settled {
        /// What became of it.
        outcome: Outcome,
        /// It was dropped or dead-lettered, and an earlier try may have stored it.
        is_possibly_stored: bool,
    },
    /// It is settled for so long that its outcome is no longer known, or the receipt is none of
    /// this engine's.
    Forgotten,
}

/// A record's status byte: 0 recorded, 1 sent, 2 to 8 its outcome; bit 5 while it is set apart, bit
/// 7 if a try of unknown outcome may have stored it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) u8);

impl Status {
    pub(crate) const RECORDED: Self = Self(0);

    pub(crate) fn is_settled(self) -> bool {
        self.0 & CODE > SENT
    }

    pub(crate) fn is_sent(self) -> bool {
        self.0 & CODE == SENT
    }

    pub(crate) fn is_possibly_stored(self) -> bool {
        self.0 & POSSIBLY_STORED != 0
    }

    pub(crate) fn sent(self) -> Self {
        Self(SENT | self.0 & !CODE)
    }

    pub(crate) fn possibly_stored(self) -> Self {
        Self(self.0 | POSSIBLY_STORED)
    }

    pub(crate) fn is_apart(self) -> bool {
        self.0 & APART != 0
    }

    pub(crate) fn apart(self, is_apart: bool) -> Self {
        Self(if is_apart { self.0 | APART } else { self.0 & !APART })
    }

    /// What was stored for sure is not possibly stored; what is settled is not set apart.
    pub(crate) fn settled(self, outcome: Outcome) -> Self {
        let doubt = if outcome.is_delivered() { 0 } else { self.0 & POSSIBLY_STORED };
        Self((SENT + outcome as u8) | doubt)
    }

    fn standing(self) -> Standing {
        let is_possibly_stored = self.is_possibly_stored();
        match self.0 & CODE {
            0 | SENT if self.is_apart() => Standing::SetApart,
            0 => Standing::Recorded,
            SENT => Standing::Sent,
            code => match Outcome::from_code(code - SENT) {
                Some(outcome) => Standing::Settled { outcome, is_possibly_stored },
                None => Standing::Forgotten,
            },
        }
    }
}

/// Neighbouring records of one block with the same end, none of them simply delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exception {
    pub(crate) block: u32,
    pub(crate) generation: u32,
    pub(crate) first: u32,
    pub(crate) count: u32,
    pub(crate) status: Status,
}

/// The last records that were not simply delivered.
///
/// A lock, because only the driver writes, and only about such records; and who reads asks about a
/// record whose block is gone. No producer comes here.
#[derive(Debug)]
pub(crate) struct Exceptions {
    /// How many there ever were.
    noted: AtomicU64,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    spans: VecDeque<Exception>,
    /// Per block, the youngest generation of which a span was forgotten.
    forgotten: Box<[Option<u32>]>,
}

impl Exceptions {
    pub(crate) fn new(blocks: usize) -> Self {
        let forgotten = vec![None; blocks].into();
        let kept = Kept { spans: VecDeque::with_capacity(SPANS_MAX), forgotten };
        Self { noted: AtomicU64::new(0), kept: Mutex::new(kept) }
    }

    /// Only the driver calls this, before it recycles the block.
    pub(crate) fn note(&self, exception: Exception) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.spans.len() == SPANS_MAX
            && let Some(oldest) = kept.spans.pop_front()
        {
            kept.forgotten[oldest.block as usize] = Some(oldest.generation);
        }
        kept.spans.push_back(exception);
        // Relaxed: published by the store of the block's next state, as in `of_ended`.
        self.noted.store(1 + self.noted.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// What became of a record whose block now has the generation `now`, which isn't its own.
    pub(crate) fn of_ended(&self, block: u32, generation: u32, index: u32, now: u32) -> Standing {
        let age = generations_between(generation, now);
        if age > AGE_MAX {
            return Standing::Forgotten; // None of this engine's: it isn't there yet.
        }
        // Relaxed: who has seen the block's new state with Acquire sees what was noted before it.
        if self.noted.load(Ordering::Relaxed) > 0 {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let is_it = |span: &&Exception| {
                (span.block, span.generation) == (block, generation)
                    && (span.first..span.first + span.count).contains(&index)
            };
            if let Some(span) = kept.spans.iter().rev().find(is_it) {
                return span.status.standing();
            }
            // `now` was read before the lock: what was forgotten may be of a later life than that.
            let is_forgotten = |youngest| {
                let behind = generations_between(youngest, now);
                behind > AGE_MAX || age >= behind
            };
            if kept.forgotten[block as usize].is_some_and(is_forgotten) {
                return Standing::Forgotten;
            }
        }
        Standing::Settled { outcome: Outcome::Delivered, is_possibly_stored: false }
    }
}

/// What the status byte of a living block says.
pub(crate) fn of_living(status: u8) -> Standing {
    Status(status).standing()
}

/// 128 KiB. A server that answers 202 makes one span for each batch and block.
#[cfg(not(ledgerline_loom))]
const SPANS_MAX: usize = 4_096;
#[cfg(ledgerline_loom)]
const SPANS_MAX: usize = 1;
/// Half of the generations there are: what is further back is taken to lie ahead.
const AGE_MAX: u32 = 1 << 22;
const SENT: u8 = 1;
/// The bits of the outcome.
const CODE: u8 = 0x1f;
const APART: u8 = 1 << 5;
const POSSIBLY_STORED: u8 = 1 << 7;

#[cfg(all(test, not(ledgerline_loom)))]
mod tests {
    use super::*;

    fn exception(generation: u32, first: u32) -> Exception {
        let status = Status::RECORDED.settled(Outcome::DeadLettered);
        Exception { block: 0, generation, first, count: 2, status }
    }

    fn settled(outcome: Outcome) -> Standing {
        Standing::Settled { outcome, is_possibly_stored: false }
    }

    #[test]
    fn a_status_keeps_its_doubt_until_it_is_stored() {
        let doubted = Status::RECORDED.sent().possibly_stored().sent();
        assert!(doubted.is_sent() && !doubted.is_settled() && doubted.is_possibly_stored());
        for outcome in (0..9).filter_map(Outcome::from_code) {
            let is_possibly_stored = !outcome.is_delivered();
            let expected = Standing::Settled { outcome, is_possibly_stored };
            assert_eq!(doubted.settled(outcome).standing(), expected);
            assert!(doubted.settled(outcome).is_settled());
        }
    }

    #[test]
    fn a_status_is_apart_until_it_is_taken_back_or_settled() {
        let apart = Status::RECORDED.possibly_stored().apart(true);
        for status in [apart, apart.sent()] {
            assert_eq!(status.standing(), Standing::SetApart);
            assert!(!status.is_settled() && status.is_possibly_stored());
            assert!(!status.settled(Outcome::DeadLettered).is_apart());
        }
        assert!(apart.sent().is_sent());
        assert_eq!(apart.apart(false).standing(), Standing::Recorded);
        assert_eq!(apart.sent().apart(false).standing(), Standing::Sent);
    }

    #[test]
    fn what_is_not_remembered_was_delivered_until_something_is_forgotten() {
        let exceptions = Exceptions::new(1);
        assert_eq!(exceptions.of_ended(0, 4, 0, 5), settled(Outcome::Delivered));
        exceptions.note(exception(5, 3));
        assert_eq!(exceptions.of_ended(0, 5, 2, 6), settled(Outcome::Delivered));
        assert_eq!(exceptions.of_ended(0, 5, 3, 6), settled(Outcome::DeadLettered));
        assert_eq!(exceptions.of_ended(0, 5, 4, 9), settled(Outcome::DeadLettered));
        assert_eq!(exceptions.of_ended(0, 5, 5, 6), settled(Outcome::Delivered));
        for _ in 0..SPANS_MAX {
            exceptions.note(exception(7, 0));
        }
        assert_eq!(exceptions.of_ended(0, 5, 3, 8), Standing::Forgotten);
        assert_eq!(exceptions.of_ended(0, 4, 3, 8), Standing::Forgotten);
        assert_eq!(exceptions.of_ended(0, 6, 3, 8), settled(Outcome::Delivered));
        assert_eq!(exceptions.of_ended(0, 7, 1, 8), settled(Outcome::DeadLettered));
    }

    #[test]
    fn who_was_stopped_between_the_state_and_the_memory_is_told_no_falsehood() {
        let exceptions = Exceptions::new(1);
        exceptions.note(exception(5, 3)); // The reader sees the state of life 6, and is stopped.
        for _ in 0..SPANS_MAX {
            exceptions.note(exception(7, 0)); // Pushes out that of life 5,
        }
        assert_eq!(exceptions.of_ended(0, 5, 3, 6), Standing::Forgotten);
        exceptions.note(exception(8, 0)); // and one of life 7.
        assert_eq!(exceptions.of_ended(0, 5, 3, 6), Standing::Forgotten);
    }

    #[test]
    fn a_receipt_from_ahead_is_none_of_ours() {
        let exceptions = Exceptions::new(1);
        assert_eq!(exceptions.of_ended(0, 6, 0, 5), Standing::Forgotten);
        let (last, first) = ((1 << 23) - 1, 0);
        assert_eq!(exceptions.of_ended(0, last, 0, first), settled(Outcome::Delivered));
    }
}
