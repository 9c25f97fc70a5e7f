//! The engine's clocks: milliseconds since its start, and the wall clock for stamps.

#[cfg(feature = "testing")]
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ledgerline_codec::Timestamp;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// Monotonic milliseconds since the engine's start, which is at 1: nothing happened at 0, so that
/// what was accepted in the first millisecond isn't due before its time. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
    start_millis: i64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now(), start_millis: millis(clock_gettime(ClockId::Monotonic)) }
    }

    /// For the driver: exact to the millisecond.
    pub(crate) fn now_ms(&self) -> u64 {
        self.ms_at(Instant::now())
    }

    /// For producers: a quarter of the price, and up to one kernel tick (4 ms or less) behind, so
    /// that a record counts as due a little early, never late.
    pub(crate) fn coarse_ms(&self) -> u64 {
        let now = millis(clock_gettime(COARSE));
        ORIGIN_MS + now.saturating_sub(self.start_millis).max(0) as u64
    }

    pub(crate) fn ms_at(&self, instant: Instant) -> u64 {
        ORIGIN_MS + instant.saturating_duration_since(self.start).as_millis() as u64
    }

    /// The moment at which `now_ms` reaches `ms`.
    pub(crate) fn instant_at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms.saturating_sub(ORIGIN_MS))
    }
}

/// The wall clock, in UTC.
pub(crate) fn wall_clock() -> Timestamp {
    let now = clock_gettime(ClockId::Realtime);
    let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1_000);
    Timestamp::from_micros(micros).unwrap_or(Timestamp::EPOCH)
}

/// The wall clock as a test has set it.
#[cfg(feature = "testing")]
#[derive(Debug)]
pub(crate) struct SetClock {
    /// By how much it is ahead of the system's.
    ahead_us: AtomicI64,
    /// Where it stands still; [`RUNS`] if it doesn't.
    stands_at_us: AtomicI64,
}

#[cfg(feature = "testing")]
impl SetClock {
    pub(crate) fn set(&self, ahead_us: i64) {
        self.ahead_us.store(ahead_us, Relaxed);
        self.stands_at_us.store(RUNS, Relaxed);
    }

    pub(crate) fn stop(&self, at: Timestamp) {
        self.stands_at_us.store(at.micros(), Relaxed);
    }

    pub(crate) fn read(&self) -> Timestamp {
        let now = wall_clock();
        let micros = match self.stands_at_us.load(Relaxed) {
            RUNS => now.micros().saturating_add(self.ahead_us.load(Relaxed)),
            at => at,
        };
        Timestamp::from_micros(micros).unwrap_or(now)
    }
}

#[cfg(feature = "testing")]
impl Default for SetClock {
    fn default() -> Self {
        Self { ahead_us: AtomicI64::new(0), stands_at_us: AtomicI64::new(RUNS) }
    }
}

/// What the clock says at the engine's start.
const ORIGIN_MS: u64 = 1;

fn millis(time: Timespec) -> i64 {
    time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
}

#[cfg(target_os = "linux")]
const COARSE: ClockId = ClockId::MonotonicCoarse;
#[cfg(not(target_os = "linux"))]
const COARSE: ClockId = ClockId::Monotonic;
/// No timestamp.
#[cfg(feature = "testing")]
const RUNS: i64 = i64::MAX;
