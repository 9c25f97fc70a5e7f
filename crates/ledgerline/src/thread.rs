//! What each producing thread keeps for itself: where it encodes, its generator of ids, and the
//! last timestamp it gave.
//!
//! Invariant: events of one correlation id that a thread records one after the other have
//! timestamps that rise; where that would lead 1 ms ahead of the clock, they are equal. They go
//! back only with a clock that was set back by more than a minute: DataStorage refuses events from
//! the future. Limit: an event that is recorded while another is serialised doesn't count as
//! before it, for it works with tools of its own.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use ledgerline_codec::Timestamp;
use ledgerline_core::Process;

/// A producing thread's tools. Taken out of their cell while in use, so that a `Serialize` which
/// records an event of its own meets an empty cell and gets tools of its own.
pub(crate) struct Tools {
    /// Where an event is encoded. Grows to the longest event of the thread.
    pub(crate) scratch: Vec<u8>,
    pub(crate) random: fastrand::Rng,
    /// The last timestamp that was given to an event of this thread.
    last: Timestamp,
    /// Where in the scratch the correlation id of that event lies; empty if something else was
    /// encoded since, or it was escaped.
    correlation_id: Range<usize>,
    /// The process that `random` was seeded in.
    process: Process,
}

impl Tools {
    /// This thread's, or new ones if they are in use or the thread is ending.
    pub(crate) fn take(process: Process) -> Box<Self> {
        let mut tools = TOOLS.try_with(Cell::take).ok().flatten().unwrap_or_else(|| {
            let scratch = Vec::with_capacity(SCRATCH_BYTES);
            let random = random(fastrand::u64(..));
            let last = Timestamp::MIN;
            Box::new(Self { scratch, random, last, correlation_id: 0..0, process })
        });
        if tools.process != process {
            // A forked child has its parent's generator, and would give its parent's ids.
            tools.random = random(tools.random.u64(..));
            tools.process = process;
        }
        tools
    }

    /// The timestamp of an event that is recorded now: the clock's, unless that isn't after the
    /// last one given, and that was given to an event of the same correlation id. Then it is the
    /// microsecond after that one, or, 1 ms ahead of the clock, that one; or, a minute ahead, the
    /// clock's after all.
    ///
    /// To be called while the scratch still has the thread's last event.
    #[inline]
    pub(crate) fn stamp(&self, now: Timestamp, correlation_id: &str) -> Timestamp {
        // Flat out, several events fall into one microsecond.
        if now > self.last || !self.was_last(correlation_id) {
            return now;
        }
        let next = self.last.micros() + 1;
        match next - now.micros() {
            ahead if ahead < AHEAD_MICROS_MAX => Timestamp::from_micros(next).unwrap_or(now),
            ahead if ahead < SET_BACK_MICROS => self.last,
            _ => now,
        }
    }

    /// Notes the timestamp that was given to the event that lies in the scratch, and where its
    /// correlation id lies there, of so many bytes.
    #[inline]
    pub(crate) fn stamped(&mut self, given: Timestamp, at: Option<usize>, len: usize) {
        self.last = given;
        self.correlation_id = at.map_or(0..0, |at| at..at + len);
    }

    /// Notes that the scratch has no longer the event of the last timestamp.
    #[inline]
    pub(crate) fn overwritten(&mut self) {
        self.correlation_id = 0..0;
    }

    /// Whether the last timestamp was given to an event of this correlation id. What can't be
    /// compared counts as equal: a microsecond ahead of the clock harms nobody.
    #[inline]
    fn was_last(&self, correlation_id: &str) -> bool {
        let last = self.scratch.get(self.correlation_id.clone()).unwrap_or_default();
        last.is_empty() || last == correlation_id.as_bytes()
    }

    /// Keeps them for the thread's next event.
    pub(crate) fn put_back(self: Box<Self>) {
        let _ = TOOLS.try_with(|cell| cell.set(Some(self)));
    }
}

/// A generator that no other process has, whatever they share: a fork copies every generator there
/// is, fastrand's own included.
pub(crate) fn random(shared: u64) -> fastrand::Rng {
    let mut hasher = DefaultHasher::new();
    (shared, std::process::id(), SystemTime::now()).hash(&mut hasher);
    fastrand::Rng::with_seed(hasher.finish())
}

/// The lane of the calling thread: threads are dealt out in the order of their first event.
pub(crate) fn lane(lanes: usize) -> usize {
    let number = NUMBER.try_with(|number| *number).unwrap_or_default();
    number % lanes
}

thread_local! {
    static TOOLS: Cell<Option<Box<Tools>>> = const { Cell::new(None) };
    // Relaxed: only a running number.
    static NUMBER: usize = THREADS.fetch_add(1, Ordering::Relaxed);
}

static THREADS: AtomicUsize = AtomicUsize::new(0);

const SCRATCH_BYTES: usize = 4 * 1024;
/// How far ahead of the clock a timestamp may not be.
const AHEAD_MICROS_MAX: i64 = 1_000;
/// A clock that is further back than this was wrong before, and is right now.
const SET_BACK_MICROS: i64 = 60_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros).unwrap()
    }

    /// Tools whose last event had this correlation id and this timestamp.
    fn after(correlation_id: &str, micros: i64) -> Box<Tools> {
        let mut tools = Tools::take(Process::current());
        tools.scratch = format!("x\"{correlation_id}\",").into_bytes();
        tools.stamped(at(micros), Some(2), correlation_id.len());
        tools
    }

    #[test]
    fn a_clock_that_moved_on_is_believed() {
        assert_eq!(after("rr-1", 7).stamp(at(8), "rr-1"), at(8));
    }

    #[test]
    fn within_a_microsecond_a_story_goes_on() {
        assert_eq!(after("rr-1", 7).stamp(at(7), "rr-1"), at(8));
        assert_eq!(after("rr-1", 7).stamp(at(5), "rr-1"), at(8));
    }

    #[test]
    fn other_stories_have_the_clock() {
        for other in ["rr-2", "rr-", "rr-11", "", "r\"", "\\"] {
            assert_eq!(after("rr-1", 7).stamp(at(5), other), at(5), "{other:?}");
        }
    }

    #[test]
    fn it_is_never_a_millisecond_ahead_and_never_goes_back() {
        assert_eq!(after("rr-1", 1_000).stamp(at(2), "rr-1"), at(1_001));
        assert_eq!(after("rr-1", 1_000).stamp(at(1), "rr-1"), at(1_000));
        assert_eq!(after("rr-1", 1_000).stamp(at(-59_000_000), "rr-1"), at(1_000));
    }

    #[test]
    fn a_clock_that_was_set_back_by_more_than_a_minute_is_believed() {
        assert_eq!(after("rr-1", 1_000).stamp(at(-60_000_000), "rr-1"), at(-60_000_000));
    }

    #[test]
    fn what_cannot_be_compared_counts_as_the_same_story() {
        let mut tools = after("rr-1", 7);
        tools.stamped(at(7), None, 4);
        assert_eq!(tools.stamp(at(7), "a\"b"), at(8));
        tools.overwritten();
        assert_eq!(tools.stamp(at(7), "rr-1"), at(8));
    }
}
