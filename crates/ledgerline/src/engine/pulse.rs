//! Whether the driver is alive: what it does is noted, and watched from another thread.
//!
//! The driver can count by itself for how long it was busy, or overslept, but only afterwards. The
//! watchdog says so meanwhile, to the log and to whoever asks.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::rate_limited_log::ChangeLog;
use crate::clock::Clock;
use crate::delivery::{BlockedMs, Cause};

/// What the driver does, where any thread can read it.
#[derive(Debug)]
pub(crate) struct Pulse {
    clock: Clock,
    /// In the lowest bit, whether it sleeps; above, until when, or since when it doesn't. A
    /// number that says nothing about other memory: all accesses are relaxed.
    word: AtomicU64,
}

impl Pulse {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, word: AtomicU64::new(ENDED) }
    }

    /// For how long the driver has been overdue, if it is.
    pub(crate) fn silence(&self) -> Duration {
        self.overdue().map_or(Duration::ZERO, |(_, _, ms)| Duration::from_millis(ms))
    }

    /// Why, since when, and for how long.
    fn overdue(&self) -> Option<(Cause, u64, u64)> {
        let word = self.word.load(Ordering::Relaxed);
        if word == ENDED {
            return None;
        }
        let cause = if word & ASLEEP == 0 { Cause::DriverBusy } else { Cause::TimerLate };
        let since_ms = word >> 1;
        let overdue_ms = self.clock.now_ms().saturating_sub(since_ms);
        (overdue_ms >= NOTICED_MS).then_some((cause, since_ms, overdue_ms))
    }
}

/// The driver's own side.
#[derive(Debug)]
pub(super) struct Heart {
    pulse: Arc<Pulse>,
    /// When it last woke, or fell asleep, or is to wake if that is later.
    since_ms: u64,
    /// The time that it overslept or was busy, as far as that was noticed.
    lost: BlockedMs,
    /// Time spent in hooks, which is counted whatever it is.
    hook_ms: u64,
}

impl Heart {
    pub(super) fn new(pulse: Arc<Pulse>) -> Self {
        Self { pulse, since_ms: 0, lost: BlockedMs::default(), hook_ms: 0 }
    }

    /// The driver begins, or begins anew: what was before is no delay of its own.
    pub(super) fn begins(&mut self, now_ms: u64) {
        self.since_ms = now_ms;
        self.pulse.word.store(now_ms << 1, Ordering::Relaxed);
    }

    /// The driver has nothing to do until this moment.
    pub(super) fn sleeps(&mut self, now_ms: u64, until_ms: u64) {
        self.note(Cause::DriverBusy, now_ms);
        self.since_ms = until_ms.max(now_ms);
        self.pulse.word.store(self.since_ms << 1 | ASLEEP, Ordering::Relaxed);
    }

    /// Something has woken it.
    pub(super) fn wakes(&mut self, now_ms: u64) {
        self.note(Cause::TimerLate, now_ms);
        self.begins(now_ms);
    }

    /// So much time was spent in hooks so far: it is no work of the driver's own.
    pub(super) fn sets_aside(&mut self, hook_time: Duration) {
        let hook_ms = hook_time.as_millis() as u64;
        self.since_ms += hook_ms - self.hook_ms;
        self.lost.add(Cause::DriverBusy, hook_ms - self.hook_ms);
        self.hook_ms = hook_ms;
    }

    /// It will never do anything again.
    pub(super) fn stops(&self) {
        self.pulse.word.store(ENDED, Ordering::Relaxed);
    }

    pub(super) fn lost(&self) -> &BlockedMs {
        &self.lost
    }

    fn note(&mut self, cause: Cause, now_ms: u64) {
        let lost_ms = now_ms.saturating_sub(self.since_ms);
        if lost_ms >= NOTICED_MS {
            self.lost.add(cause, lost_ms);
        }
    }
}

/// Keeps the watchdog's thread alive.
#[derive(Debug)]
pub(super) struct Watchdog(
    #[expect(dead_code, reason = "its drop ends the thread")] mpsc::Sender<()>,
);

impl Watchdog {
    /// Starts the thread, which ends when this is dropped.
    pub(super) fn spawn(pulse: Arc<Pulse>) -> io::Result<Self> {
        let (alive, ended) = mpsc::channel();
        let watch = move || watch(&pulse, &ended);
        std::thread::Builder::new().name("ledgerline-watch".into()).spawn(watch)?;
        Ok(Self(alive))
    }
}

fn watch(pulse: &Pulse, ended: &mpsc::Receiver<()>) {
    let mut silent: Option<(Cause, u64, u64)> = None;
    let mut lasted_ms = 0;
    let mut changes = ChangeLog::default();
    let mut pause_ms = SILENT_MS;
    while ended.recv_timeout(Duration::from_millis(pause_ms)) == Err(RecvTimeoutError::Timeout) {
        let overdue = pulse.overdue();
        let now_ms = pulse.clock.now_ms();
        if let Some((_, since_ms, silent_ms)) = silent
            && overdue.is_none_or(|(_, since_now_ms, _)| since_now_ms != since_ms)
        {
            lasted_ms = silent_ms.max(now_ms.saturating_sub(since_ms));
            silent = None;
            changes.changed(now_ms);
        }
        pause_ms = match overdue {
            Some((cause, since_ms, silent_ms)) if silent_ms >= SILENT_MS => {
                if silent.is_none() {
                    changes.changed(now_ms);
                }
                silent = Some((cause, since_ms, silent_ms));
                CLOSE_LOOK_MS
            }
            Some((_, _, overdue_ms)) => (SILENT_MS - overdue_ms).max(CLOSE_LOOK_MS),
            None => SILENT_MS,
        };
        match (changes.take(now_ms), silent) {
            (None, _) => {}
            (Some(changes), Some((cause, _, silent_ms))) => {
                tracing::warn!(%cause, silent_ms, changes, "the audit engine is silent");
            }
            (Some(changes), None) => {
                tracing::warn!(after_ms = lasted_ms, changes, "the audit engine goes on");
            }
        }
    }
}

const ASLEEP: u64 = 1;
/// Not a moment that a clock of milliseconds reaches.
const ENDED: u64 = u64::MAX;
/// Less is the noise of a busy machine, and no event's delay that anybody would see.
const NOTICED_MS: u64 = 20;
/// The driver wakes at least once a second.
const SILENT_MS: u64 = 1_000;
const CLOSE_LOOK_MS: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_overslept_and_what_took_too_long_are_told_apart() {
        let mut heart = Heart::new(Arc::new(Pulse::new(Clock::start())));
        heart.wakes(0);
        heart.sleeps(5, 100); // A turn of 5 ms is work.
        heart.wakes(60); // A bell.
        heart.sleeps(1_060, 1_100);
        heart.wakes(1_400);
        heart.sleeps(1_401, 1_402);
        heart.wakes(1_410); // 8 ms are noise.
        let of = |cause| heart.lost().of(cause);
        assert_eq!((of(Cause::DriverBusy), of(Cause::TimerLate)), (1_000, 300));
    }

    #[test]
    fn a_driver_that_has_ended_is_not_silent() {
        let pulse = Arc::new(Pulse::new(Clock::start()));
        assert_eq!(pulse.silence(), Duration::ZERO);
        let mut heart = Heart::new(Arc::clone(&pulse));
        heart.wakes(0);
        while pulse.silence() < Duration::from_millis(NOTICED_MS) {
            std::thread::yield_now();
        }
        heart.stops();
        assert_eq!(pulse.silence(), Duration::ZERO);
    }
}
