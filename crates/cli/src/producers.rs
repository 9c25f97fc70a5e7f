//! Threads that record: pacing them, and measuring each call.
//!
//! Invariant: every call of `record` is timed, refused ones included, by two readings of the
//! processor's clock right around it, which are part of the time. A thread works on an absolute
//! schedule: what it is late by it catches up. Limit: a sleep ends some 60 us late, so that at high
//! rates events come in bursts of as much.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use hdrhistogram::Histogram;
use ledgerline::{Refused, Store};
use rustix::time::{ClockId, clock_gettime};

use crate::allocations;
use crate::events::{Payloads, Stories};

/// What producers are to record.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) producers: u64,
    /// How many events to have accepted, all together. None: no end.
    pub(crate) events: Option<u64>,
    /// How long. None: no end.
    pub(crate) duration: Option<Duration>,
    /// Events per second, all together. None: as fast as can be.
    pub(crate) rate: Option<u64>,
    /// Beside the rate, so many at once.
    pub(crate) burst: Option<Burst>,
    /// An event that finds no room is left out, as a service would, instead of tried again.
    pub(crate) skips_refused: bool,
    pub(crate) payloads: Payloads,
    /// Names the run in correlation ids.
    pub(crate) run: String,
}

/// Events that all producers together record as fast as they can, once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Burst {
    pub(crate) events: u64,
    /// How long after the start.
    pub(crate) after: Duration,
}

/// What producers did, all together.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Each call's time.
    pub(crate) record_ns: Histogram<u64>,
    /// Of these, the calls that were refused.
    pub(crate) refused_ns: Histogram<u64>,
    /// Of all calls, those of the burst, if there was one.
    pub(crate) burst_ns: Histogram<u64>,
    pub(crate) cpu: Duration,
    /// By the threads after their first calls.
    pub(crate) allocations: u64,
    /// When the first call began, if there was one.
    pub(crate) began_at: Option<Instant>,
}

impl Plan {
    /// Records as planned, or until the flag says to stop; `look` is called every now and then.
    pub(crate) fn run(
        &self,
        store: &Store,
        stop: &AtomicBool,
        mut look: impl FnMut(),
    ) -> anyhow::Result<Tally> {
        // Nobody sends on it: it closes when the last producer has let go of its end.
        let (alive, ended) = mpsc::channel::<()>();
        let start_at = Instant::now();
        thread::scope(|scope| {
            let spawn = |index| {
                let alive = alive.clone();
                let producer = Producer::new(self, index, start_at);
                let work = move || {
                    let result = producer.run(store, stop);
                    drop(alive);
                    result
                };
                thread::Builder::new().name(format!("producer-{index}")).spawn_scoped(scope, work)
            };
            let threads = (0..self.producers).map(spawn).collect::<Result<Vec<_>, _>>();
            drop(alive);
            let threads = threads.inspect_err(|_| stop.store(true, Ordering::Relaxed));
            while ended.recv_timeout(LOOK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                look();
            }
            let mut total = Tally::new()?;
            for thread in threads.context("no thread for a producer")? {
                total.add(&thread.join().map_err(|_| anyhow!("a producer panicked"))??)?;
            }
            Ok(total)
        })
    }
}

impl Tally {
    fn new() -> anyhow::Result<Self> {
        let histogram = || Histogram::new_with_bounds(1, RECORD_NS_MAX, 3);
        Ok(Self {
            record_ns: histogram()?,
            refused_ns: histogram()?,
            burst_ns: histogram()?,
            cpu: Duration::ZERO,
            allocations: 0,
            began_at: None,
        })
    }

    fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.record_ns.add(&other.record_ns)?;
        self.refused_ns.add(&other.refused_ns)?;
        self.burst_ns.add(&other.burst_ns)?;
        self.cpu += other.cpu;
        self.allocations += other.allocations;
        self.began_at = self.began_at.into_iter().chain(other.began_at).min();
        Ok(())
    }
}

/// One thread's part of a plan.
struct Producer {
    stories: Stories,
    events: u64,
    skips_refused: bool,
    end_at: Option<Instant>,
    pace: Option<Pace>,
    /// What is left of this thread's part of the burst, and when it begins.
    burst: (u64, Instant),
    /// Reads the processor's counter, where that is steady: a third of the price of the system's
    /// clock, which would be the larger half of what is measured.
    clock: quanta::Clock,
}

impl Producer {
    fn new(plan: &Plan, index: u64, start_at: Instant) -> Self {
        let producers = plan.producers;
        let share = |events| events / producers + u64::from(index < events % producers);
        Self {
            stories: Stories::new(plan.payloads.clone(), &plan.run, index, producers),
            events: plan.events.map_or(u64::MAX, share),
            skips_refused: plan.skips_refused,
            end_at: plan.duration.and_then(|duration| start_at.checked_add(duration)),
            burst: plan
                .burst
                .map_or((0, start_at), |burst| (share(burst.events), start_at + burst.after)),
            pace: plan.rate.map(|rate| Pace { start_at, index, producers, rate }),
            clock: quanta::Clock::new(),
        }
    }

    fn run(mut self, store: &Store, stop: &AtomicBool) -> anyhow::Result<Tally> {
        let mut tally = Tally::new()?;
        let cpu_before = thread_cpu();
        let mut allocations_before = None;
        let mut pause = PAUSE_MIN;
        let (mut accepted, mut number, mut in_burst) = (0, 0, 0);
        let end_at = self
            .end_at
            .map(|end_at| self.clock.now() + end_at.saturating_duration_since(Instant::now()));
        // Relaxed: the flag says nothing about other memory.
        while accepted < self.events && !stop.load(Ordering::Relaxed) {
            let is_burst = self.is_burst(number - in_burst, stop);
            if let Some(pace) = &self.pace
                && !is_burst
                && !pace.wait_for(number - in_burst, self.end_at, stop)
            {
                break;
            }
            let event = self.stories.event(number);
            if tally.began_at.is_none() {
                tally.began_at = Some(Instant::now());
            }
            let began_at = self.clock.raw();
            let result = store.record(&event);
            let ended_at = self.clock.raw();
            let nanos = self.clock.delta_as_nanos(began_at, ended_at);
            tally.record_ns.saturating_record(nanos);
            if is_burst {
                tally.burst_ns.saturating_record(nanos);
                let is_done = result.is_ok() || self.skips_refused;
                in_burst += u64::from(is_done);
                self.burst.0 -= u64::from(is_done);
            }
            if allocations_before.is_none() {
                allocations_before = Some(allocations::of_this_thread());
            }
            let is_over = end_at.is_some_and(|end_at| self.clock.now() >= end_at);
            match result {
                Ok(_) => {
                    accepted += 1;
                    number += 1;
                    pause = PAUSE_MIN;
                    // A paced event that was due before the end is recorded, if late.
                    if is_over && self.pace.is_none() {
                        break;
                    }
                }
                Err(Refused::Full { .. }) if self.skips_refused => {
                    tally.refused_ns.saturating_record(nanos);
                    number += 1;
                    if is_over && self.pace.is_none() {
                        break;
                    }
                }
                // A store that was closed meanwhile because it is to stop.
                Err(_) if is_over || stop.load(Ordering::Relaxed) => break,
                Err(Refused::Full { .. }) => {
                    tally.refused_ns.saturating_record(nanos);
                    thread::sleep(pause);
                    pause = (2 * pause).min(PAUSE_MAX);
                }
                Err(refused) => return Err(refused.into()),
            }
        }
        let allocations = allocations::of_this_thread();
        tally.allocations = allocations - allocations_before.unwrap_or(allocations);
        tally.cpu = thread_cpu().saturating_sub(cpu_before);
        Ok(tally)
    }

    /// Whether the next event is one of the burst, which begins before the paced event of this
    /// number is due. Waits for its beginning.
    fn is_burst(&self, paced_number: u64, stop: &AtomicBool) -> bool {
        let (left, begins_at) = self.burst;
        let due_at = self.pace.as_ref().and_then(|pace| pace.due_at(paced_number));
        left > 0 && due_at.is_none_or(|due_at| begins_at <= due_at) && sleep_until(begins_at, stop)
    }
}

/// False if it is to stop.
fn sleep_until(at: Instant, stop: &AtomicBool) -> bool {
    loop {
        let now = Instant::now();
        if now >= at {
            return true;
        }
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        thread::sleep((at - now).min(NAP_MAX));
    }
}

/// How many threads record, if nothing else is said.
pub(crate) const PRODUCERS_DEFAULT: u16 = 4;

/// When a producer's events are due: evenly spread, and evenly between the producers.
struct Pace {
    start_at: Instant,
    index: u64,
    producers: u64,
    rate: u64,
}

impl Pace {
    fn due_at(&self, number: u64) -> Option<Instant> {
        let place = u128::from(number) * u128::from(self.producers) + u128::from(self.index);
        let nanos = place * 1_000_000_000 / u128::from(self.rate);
        self.start_at.checked_add(Duration::from_nanos(u64::try_from(nanos).ok()?))
    }

    /// Sleeps until the event is due; false if that is not before the end.
    fn wait_for(&self, number: u64, end_at: Option<Instant>, stop: &AtomicBool) -> bool {
        let Some(due_at) = self.due_at(number) else { return false };
        if end_at.is_some_and(|end_at| due_at >= end_at) {
            return false;
        }
        sleep_until(due_at, stop)
    }
}

/// A name that no other run has, from the seed of the standard library's hash maps.
pub(crate) fn run_name() -> String {
    format!("{:012x}", RandomState::new().build_hasher().finish() >> 16)
}

/// Processor time of the calling thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// How long a producer that was refused waits for room: at first about as long as the shortest
/// sleep takes, at last as long as it takes to send some batches.
const PAUSE_MIN: Duration = Duration::from_micros(50);
const PAUSE_MAX: Duration = Duration::from_millis(1);
/// How late a paced producer notices that it is to stop.
const NAP_MAX: Duration = Duration::from_millis(50);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
const RECORD_NS_MAX: u64 = 60_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producers_share_the_events_and_the_rate() {
        let plan = Plan {
            producers: 3,
            events: Some(11),
            duration: None,
            rate: Some(1_000),
            burst: Some(Burst { events: 4, after: Duration::from_secs(1) }),
            skips_refused: false,
            payloads: Payloads::load(None).unwrap(),
            run: String::new(),
        };
        let start_at = Instant::now();
        let producers: Vec<_> = (0..3).map(|index| Producer::new(&plan, index, start_at)).collect();
        assert_eq!(producers.iter().map(|producer| producer.events).sum::<u64>(), 11);
        assert_eq!(producers.iter().map(|producer| producer.burst.0).sum::<u64>(), 4);
        let due_at = |index: usize, number| {
            let pace = producers[index].pace.as_ref().unwrap();
            pace.due_at(number).unwrap() - start_at
        };
        assert_eq!(due_at(0, 0), Duration::ZERO);
        assert_eq!(due_at(1, 0), Duration::from_millis(1));
        assert_eq!(due_at(0, 1), Duration::from_millis(3));
        assert_eq!(due_at(2, 1_000_000), Duration::from_millis(3_000_002));
    }
}
