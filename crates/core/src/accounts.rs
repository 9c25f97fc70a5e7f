//! The accounts: what came in, and what became of it.
//!
//! Two sides, counted independently. What came in is the lanes' sequence numbers, written by
//! producers. What went out is one tuple, written by the driver alone under a sequence lock. Read
//! out first, then in: every settled event read is contained in the accepted ones, so `pending` is
//! never negative, and never less than it was when the out side was read.

use std::fmt;

use crate::sync::{AtomicU64, Ordering, fence, spin_loop};

/// What finally became of a record. Each accepted record gets exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// Stored by DataStorage.
    Delivered = 1,
    /// DataStorage took it into a queue of its own (status 202).
    QueuedByServer = 2,
    /// DataStorage refused it, by itself, for good.
    DeadLettered = 3,
    /// Made room for newer records.
    Evicted = 4,
    /// The configured number of tries was used up.
    GaveUp = 5,
    /// Still here at the deadline of `close`.
    Closed = 6,
    /// Older than the configured age.
    Expired = 7,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Delivered => "delivered",
            Self::QueuedByServer => "queued by the server",
            Self::DeadLettered => "dead-lettered",
            Self::Evicted => "evicted",
            Self::GaveUp => "given up",
            Self::Closed => "dropped at close",
            Self::Expired => "expired",
        })
    }
}

impl Outcome {
    /// Whether DataStorage has it.
    #[must_use]
    pub fn is_delivered(self) -> bool {
        matches!(self, Self::Delivered | Self::QueuedByServer)
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        ALL.into_iter().find(|outcome| *outcome as u8 == code)
    }
}

/// A consistent cut of the accounts. All figures count events since the engine's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Accounts {
    /// `record` returned Ok, or was about to at that moment.
    pub accepted: u64,
    /// Of these, taken over from an earlier process.
    pub recovered: u64,
    /// Stored, or queued by the server.
    pub delivered: u64,
    /// Of the delivered ones, those that the server answered with 202.
    pub queued_by_server: u64,
    /// Refused by DataStorage for good.
    pub dead_lettered: u64,
    /// Given up by us, by reason.
    pub dropped: Dropped,
    /// Accepted and not settled yet.
    pub pending: u64,
    /// Not accepted, by reason. No other figure contains these.
    pub refused: Refused,
    /// Sent again after a try whose outcome is unknown, to a server that hasn't shown that it
    /// keeps our ids.
    pub possibly_duplicated: u64,
    /// Dropped or dead-lettered after a try whose outcome is unknown.
    pub possibly_stored: u64,
    /// Delivered after they had been dropped.
    pub redelivered: u64,
}

impl Accounts {
    /// Whether every accepted event is delivered, dead-lettered, dropped or pending.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.accepted == self.delivered + self.dead_lettered + self.dropped.total() + self.pending
    }
}

/// Accepted events that were given up, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Dropped {
    /// See [`Outcome::Evicted`].
    pub evicted: u64,
    /// See [`Outcome::GaveUp`].
    pub gave_up: u64,
    /// See [`Outcome::Closed`].
    pub closed: u64,
    /// See [`Outcome::Expired`].
    pub expired: u64,
}

impl Dropped {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.evicted + self.gave_up + self.closed + self.expired
    }
}

/// Events that were not accepted, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Refused {
    /// No room in the buffer.
    pub full: u64,
    /// The engine was closed.
    pub closed: u64,
    /// A field was outside its limits.
    pub invalid: u64,
    /// The encoded event was larger than a record may be.
    pub too_large: u64,
    /// Recorded in a forked child.
    pub forked: u64,
    /// The engine had failed.
    pub failed: u64,
}

impl Refused {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.full + self.closed + self.invalid + self.too_large + self.forked + self.failed
    }
}

/// The out side, as the driver counts it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    settled: [u64; OUTCOMES],
    pub(crate) possibly_duplicated: u64,
    pub(crate) possibly_stored: u64,
    pub(crate) redelivered: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, outcome: Outcome, records: u64) {
        self.settled[outcome as usize - 1] += records;
    }

    pub(crate) fn settled(&self) -> u64 {
        self.settled.iter().sum()
    }

    fn of(&self, outcome: Outcome) -> u64 {
        self.settled[outcome as usize - 1]
    }

    /// The accounts that follow from this side, the accepted ones and the refused ones.
    pub(crate) fn accounts(&self, accepted: u64, refused: Refused) -> Accounts {
        Accounts {
            accepted,
            recovered: 0,
            delivered: self.of(Outcome::Delivered) + self.of(Outcome::QueuedByServer),
            queued_by_server: self.of(Outcome::QueuedByServer),
            dead_lettered: self.of(Outcome::DeadLettered),
            dropped: Dropped {
                evicted: self.of(Outcome::Evicted),
                gave_up: self.of(Outcome::GaveUp),
                closed: self.of(Outcome::Closed),
                expired: self.of(Outcome::Expired),
            },
            pending: accepted - self.settled(),
            refused,
            possibly_duplicated: self.possibly_duplicated,
            possibly_stored: self.possibly_stored,
            redelivered: self.redelivered,
        }
    }

    fn words(&self) -> [u64; WORDS] {
        let mut words = [0; WORDS];
        words[..OUTCOMES].copy_from_slice(&self.settled);
        words[OUTCOMES..].copy_from_slice(&[
            self.possibly_duplicated,
            self.possibly_stored,
            self.redelivered,
        ]);
        words
    }

    fn from_words(words: &[u64; WORDS]) -> Self {
        let mut settled = [0; OUTCOMES];
        settled.copy_from_slice(&words[..OUTCOMES]);
        Self {
            settled,
            possibly_duplicated: words[OUTCOMES],
            possibly_stored: words[OUTCOMES + 1],
            redelivered: words[OUTCOMES + 2],
        }
    }
}

/// The out side where any thread can read it: a sequence lock with one writer.
///
/// Orderings after Boehm, "Can seqlocks get along with programming language memory models?" (2012).
#[derive(Debug)]
pub(crate) struct PublishedTotals {
    /// Odd while the driver is writing.
    version: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl PublishedTotals {
    pub(crate) fn new() -> Self {
        Self { version: AtomicU64::new(0), words: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Only the driver calls this.
    pub(crate) fn publish(&self, totals: &Totals) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        // Release fence: pairs with the Acquire fence in `read`; who reads a word written below
        // also sees the odd version.
        fence(Ordering::Release);
        for (word, value) in self.words.iter().zip(totals.words()) {
            // Most words stay as they are; a store less is a case less for a model to look at.
            if word.load(Ordering::Relaxed) != value {
                word.store(value, Ordering::Relaxed);
            }
        }
        // Release: pairs with the Acquire load in `read`; publishes the words.
        self.version.store(version + 2, Ordering::Release);
    }

    /// Waits, a few nanoseconds, for a write that is under way.
    pub(crate) fn read(&self) -> Totals {
        loop {
            // Acquire: pairs with the Release store in `publish`.
            let before = self.version.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let words = std::array::from_fn(|k| self.words[k].load(Ordering::Relaxed));
                // Acquire fence: pairs with the Release fence in `publish`.
                fence(Ordering::Acquire);
                if self.version.load(Ordering::Relaxed) == before {
                    return Totals::from_words(&words);
                }
            }
            spin_loop();
        }
    }
}

const ALL: [Outcome; OUTCOMES] = [
    Outcome::Delivered,
    Outcome::QueuedByServer,
    Outcome::DeadLettered,
    Outcome::Evicted,
    Outcome::GaveUp,
    Outcome::Closed,
    Outcome::Expired,
];
const OUTCOMES: usize = 7;
const WORDS: usize = OUTCOMES + 3;
