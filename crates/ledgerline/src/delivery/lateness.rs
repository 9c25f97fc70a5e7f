//! Punctuality, per record: late is what isn't blocked.
//!
//! A record is due one flush interval after it was accepted. If a connection could take it then,
//! the time until the first byte of its request is its lateness. If none could, the time until one
//! could is blocked time, counted by cause, and the rest is lateness.

use std::fmt;

use hdrhistogram::Histogram;
use ledgerline_core::Record;

use super::batch::History;

/// Why an event could not be sent when it was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// No connection is up.
    NoConnection,
    /// Every connection that may be used waits for an answer.
    ServerSlow,
    /// The server's answers are those of another service, can't be read, or contradict themselves.
    Misrouted,
    /// The server doesn't accept our token, or what it stands for.
    Unauthorized,
    /// The server refuses whatever it is sent.
    Rejecting,
    /// The server has failed several times in a row, or has asked to be left alone.
    Overloaded,
    /// The engine's thread slept for longer than it had asked to.
    TimerLate,
    /// The engine's thread was at something else for too long.
    DriverBusy,
    /// The buffer has no room: the event could not even be accepted.
    PoolFull,
}

impl Cause {
    /// All of them, in the order in which reports show them.
    pub const ALL: [Self; 9] = [
        Self::NoConnection,
        Self::ServerSlow,
        Self::Misrouted,
        Self::Unauthorized,
        Self::Rejecting,
        Self::Overloaded,
        Self::TimerLate,
        Self::DriverBusy,
        Self::PoolFull,
    ];

    /// Its name in reports and in labels of metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoConnection => "no_connection",
            Self::ServerSlow => "server_slow",
            Self::Misrouted => "misrouted",
            Self::Unauthorized => "unauthorized",
            Self::Rejecting => "rejecting",
            Self::Overloaded => "overloaded",
            Self::TimerLate => "timer_late",
            Self::DriverBusy => "driver_busy",
            Self::PoolFull => "pool_full",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.name().split('_').enumerate();
        for (place, word) in words {
            f.write_str(if place > 0 { " " } else { "" })?;
            f.write_str(word)?;
        }
        Ok(())
    }
}

/// Milliseconds by cause.
///
/// Of the causes outside the engine, the time during which something due could not be sent. Of its
/// own, the time that its thread overslept or was busy in one piece, where that was 20 ms or more:
/// events that fell due meanwhile were late. Of the buffer, the time during which it had no room.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockedMs([u64; Cause::ALL.len()]);

impl BlockedMs {
    /// The milliseconds of one cause.
    #[must_use]
    pub fn of(&self, cause: Cause) -> u64 {
        self.0[cause as usize]
    }

    /// Each cause with its milliseconds.
    pub fn by_cause(&self) -> impl Iterator<Item = (Cause, u64)> + use<> {
        Cause::ALL.into_iter().zip(self.0)
    }

    pub(crate) fn add(&mut self, cause: Cause, ms: u64) {
        self.0[cause as usize] += ms;
    }

    pub(crate) fn plus(mut self, other: &Self) -> Self {
        for (cause, ms) in other.by_cause() {
            self.add(cause, ms);
        }
        self
    }
}

impl fmt::Debug for BlockedMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.by_cause().map(|(cause, ms)| (cause.name(), ms))).finish()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Blocked {
    /// Since when, and since when for the present cause.
    now: Option<(u64, u64, Cause)>,
    total: BlockedMs,
}

impl Blocked {
    /// Something due can't be sent, for this cause.
    pub(crate) fn begin(&mut self, now_ms: u64, cause: Cause) {
        match self.now {
            Some((_, _, same)) if same == cause => {}
            Some((since_ms, _, _)) => {
                self.total = self.total(now_ms);
                self.now = Some((since_ms, now_ms, cause));
            }
            None => self.now = Some((now_ms, now_ms, cause)),
        }
    }

    /// Time that was blocked for this cause while nothing else was noted.
    pub(crate) fn add(&mut self, cause: Cause, ms: u64) {
        self.total.add(cause, ms);
    }

    /// Whether something due waits.
    pub(crate) fn is_now(&self) -> bool {
        self.now.is_some()
    }

    /// Nothing that is due waits any longer.
    pub(crate) fn end(&mut self, now_ms: u64) {
        self.total = self.total(now_ms);
        self.now = None;
    }

    pub(crate) fn since_ms(&self) -> Option<u64> {
        self.now.map(|(since_ms, ..)| since_ms)
    }

    pub(crate) fn total(&self, now_ms: u64) -> BlockedMs {
        let mut total = self.total;
        if let Some((_, since_ms, cause)) = self.now {
            total.add(cause, now_ms.saturating_sub(since_ms));
        }
        total
    }
}

/// Histograms over records, in milliseconds, up to an hour, two significant digits.
#[derive(Debug)]
pub(crate) struct Lateness {
    pub(crate) late_ms: Histogram<u64>,
    pub(crate) delivery_ms: Histogram<u64>,
    /// Of requests that were answered, from their first byte to the answer.
    pub(crate) write_ms: Histogram<u64>,
}

impl Default for Lateness {
    fn default() -> Self {
        let histogram = || Histogram::new_with_bounds(1, MS_MAX, 2).expect("constant bounds");
        Self { late_ms: histogram(), delivery_ms: histogram(), write_ms: histogram() }
    }
}

impl Lateness {
    /// A connection wrote the batch's first byte, for the first time.
    ///
    /// Late is the time from when they fell due until they were first put on a connection, less
    /// what was blocked of it, and what an open connection then took to write the first byte.
    pub(crate) fn offered(
        &mut self,
        records: &[Record],
        past: &History,
        flush_interval_ms: u64,
        waited_ms: u64,
    ) {
        let tried_ms = past.tried_ms.expect("it was put on a connection");
        for (accepted_ms, count) in moments(records) {
            let due_ms = accepted_ms + flush_interval_ms;
            let until_ms = past.blocked_since_ms.map_or(tried_ms, |since_ms| since_ms.max(due_ms));
            let late_ms = until_ms.min(tried_ms).saturating_sub(due_ms);
            // One that wasn't due when it was put there can't have waited since before it was.
            let waited_ms = (tried_ms + waited_ms).saturating_sub(due_ms).min(waited_ms);
            self.late_ms.saturating_record_n(late_ms + waited_ms, count);
        }
    }

    /// The server has them.
    pub(crate) fn delivered(&mut self, records: &[Record], at_ms: u64) {
        for (accepted_ms, count) in moments(records) {
            let took_ms = at_ms.saturating_sub(accepted_ms);
            self.delivery_ms.saturating_record_n(took_ms, count);
        }
    }
}

/// Neighbouring records that were accepted in the same millisecond, and how many.
fn moments(records: &[Record]) -> impl Iterator<Item = (u64, u64)> {
    let moments = records.chunk_by(|one, next| one.accepted_ms == next.accepted_ms);
    moments.map(|records| (records[0].accepted_ms, records.len() as u64))
}

const MS_MAX: u64 = 3_600_000;
