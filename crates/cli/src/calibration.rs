//! What the machine can do at this moment: figures without which no other one can be read.
//!
//! Invariant: takes some 100 ms, at most a second, 2 ms for each thread, and as much longer as the
//! scheduler takes to give each of the threads a turn. Limit: virtual cores wander between physical
//! ones and disks are shared, so that both figures may be others a minute later.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

/// The machine's figures, as reports carry them.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    /// One way of a cache line between two threads.
    pub(crate) handoff_ns: u64,
    /// Rewriting 4 KiB of a file and waiting for the disk.
    pub(crate) fdatasync_us: u64,
    /// The longest that one of as many threads as the load has, doing nothing but reading the
    /// clock, was kept from the processor: the longest call of `record` is to be read beside it.
    pub(crate) longest_gap_us: u64,
}

impl Machine {
    /// Measures, with a file of no name in `directory`, and with so many threads.
    pub(crate) fn measure(directory: &Path, threads: usize) -> io::Result<Self> {
        Ok(Self {
            cores: thread::available_parallelism().map_or(1, usize::from),
            handoff_ns: handoff_ns(),
            fdatasync_us: fdatasync_us(tempfile::tempfile_in(directory)?)?,
            longest_gap_us: longest_gap_us(threads)?,
        })
    }
}

/// Half a round trip of a number between two threads: the median of some rounds.
fn handoff_ns() -> u64 {
    let ball = AtomicU32::new(0);
    let give_up_at = Instant::now() + HANDOFF_TIME_MAX;
    let mut rounds_ns = thread::scope(|scope| {
        scope.spawn(|| {
            // The other side makes the even numbers and ends with STOP.
            let mut odd = 1;
            while await_number(&ball, odd) {
                ball.store(odd + 1, Ordering::Release);
                odd += 2;
            }
        });
        let mut even = 0;
        let mut rounds_ns = Vec::with_capacity(ROUNDS);
        while rounds_ns.len() < ROUNDS && (rounds_ns.is_empty() || Instant::now() < give_up_at) {
            let began = Instant::now();
            for _ in 0..ROUND_TRIPS {
                ball.store(even + 1, Ordering::Release);
                even += 2;
                await_number(&ball, even);
            }
            rounds_ns.push(began.elapsed().as_nanos() as u64 / (2 * ROUND_TRIPS));
        }
        ball.store(STOP, Ordering::Release);
        rounds_ns
    });
    median(&mut rounds_ns)
}

/// Spins until the number is there; false if it is over. Where two threads share a core, spinning
/// only keeps the other from answering.
fn await_number(ball: &AtomicU32, number: u32) -> bool {
    let mut spins = 0_u32;
    loop {
        match ball.load(Ordering::Acquire) {
            STOP => return false,
            found if found == number => return true,
            _ => std::hint::spin_loop(),
        }
        spins += 1;
        if spins.is_multiple_of(SPINS_MAX) {
            thread::yield_now();
        }
    }
}

/// The longest time between two readings of the clock, one right behind the other.
fn longest_gap_us(threads: usize) -> io::Result<u64> {
    let end_at = Instant::now() + GAP_TIME_PER_THREAD.saturating_mul(threads as u32).max(GAP_TIME);
    let watch = || {
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        while last < end_at {
            let now = Instant::now();
            longest = longest.max(now - last);
            last = now;
        }
        longest
    };
    let longest = thread::scope(|scope| {
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, watch);
        let watchers = (0..threads).map(spawn).collect::<io::Result<Vec<_>>>()?;
        let gaps = watchers.into_iter().map(|watcher| watcher.join().unwrap_or_default());
        Ok::<_, io::Error>(gaps.max().unwrap_or_default())
    })?;
    Ok(longest.as_micros() as u64)
}

fn fdatasync_us(mut file: File) -> io::Result<u64> {
    let page = [0x5a; 4_096];
    file.write_all(&page)?;
    file.sync_data()?;
    let give_up_at = Instant::now() + SYNC_TIME_MAX;
    let mut syncs_us = Vec::with_capacity(SYNCS);
    while syncs_us.len() < SYNCS && (syncs_us.is_empty() || Instant::now() < give_up_at) {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&page)?;
        let began = Instant::now();
        file.sync_data()?;
        syncs_us.push(began.elapsed().as_micros() as u64);
    }
    Ok(median(&mut syncs_us))
}

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

const STOP: u32 = u32::MAX;
/// 21 rounds of 1,000 round trips take 2 to 20 ms, as the cores are near or far.
const ROUNDS: usize = 21;
const ROUND_TRIPS: u64 = 1_000;
const SPINS_MAX: u32 = 1_000;
const HANDOFF_TIME_MAX: Duration = Duration::from_millis(100);
/// Some turns of the scheduler, each of which takes milliseconds for each thread on a core.
const GAP_TIME: Duration = Duration::from_millis(50);
const GAP_TIME_PER_THREAD: Duration = Duration::from_millis(2);
const SYNCS: usize = 11;
const SYNC_TIME_MAX: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_measured() {
        let machine = Machine::measure(&std::env::temp_dir(), 2).unwrap();
        assert!(machine.cores > 0 && machine.handoff_ns > 0, "{machine:?}");
    }
}
