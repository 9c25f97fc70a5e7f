//! Random servers and random loads against the machine, in virtual time.
//!
//! Whatever happens, nothing may be lost, settled twice or left behind: at a server that keeps ids,
//! each event ends as stored once, or as a dead letter that the server had refused alone, or as
//! dropped for a reason that the limits give.
//! `LEDGERLINE_CASES` runs more seeds; a seed that fails is printed, and `LEDGERLINE_SEED` runs it
//! alone.

use std::collections::HashSet;

use super::simulation::{NOW_US, Reaction, Simulation, limits};
use super::*;

/// A server that changes its mood every now and then.
struct Moody {
    random: fastrand::Rng,
    mood: u32,
    until_ms: u64,
    /// From here on it is in its right mind, so that the run comes to an end.
    sane_from_ms: u64,
    /// Bad events: each `every`th, if any are.
    bad_every: Option<u32>,
    is_naming: bool,
    /// It names another event than the bad one.
    is_misleading: bool,
    events_max: usize,
    /// Types that it refuses at first, and until when: bit by type.
    refused_types: u32,
    refused_until_ms: u64,
    /// A phrase in these events doesn't get past something on the way: the status that comes of it.
    filter_status: Option<u16>,
    /// Events that are too old for it: those below.
    too_old_below: u32,
}

impl Moody {
    fn react(&mut self, now_ms: u64, in_flight: usize, events: &[u32]) -> Reaction {
        let random = &mut self.random;
        if now_ms >= self.until_ms {
            self.mood = random.u32(0..16);
            self.until_ms = now_ms + random.u64(1..5_000);
        }
        let delay_ms = random.u64(0..50);
        let mood = if now_ms >= self.sane_from_ms { 0 } else { self.mood };
        match mood {
            1 => return Reaction::Unreachable,
            2 => return Reaction::Silent(random.u64(1..3_000)),
            3 => return Reaction::Refuse([500, 502, 504][random.usize(0..3)], delay_ms, None),
            4 => return Reaction::Refuse([503, 429, 408][random.usize(0..3)], delay_ms, None),
            5 => return Reaction::Later(503, random.u64(0..3)),
            6 => return Reaction::Refuse([404, 403, 401, 302][random.usize(0..4)], delay_ms, None),
            7 if in_flight > 2 => return Reaction::Refuse(429, delay_ms, None),
            8 if random.bool() => return Reaction::Silent(500),
            9 if random.bool() => return Reaction::Refuse(500, delay_ms, None),
            10 if random.bool() => return Reaction::StoreAndVanish(delay_ms),
            11 if random.bool() => return Reaction::List(Ids::Others, delay_ms),
            12 if random.bool() => return Reaction::List(Ids::Absent, delay_ms),
            13 if random.bool() => return Reaction::Say(201, r#"{"event_ids":[]}"#, delay_ms),
            14 => return Reaction::Say([200, 207][random.usize(0..2)], "", delay_ms),
            _ => {}
        }
        if events.len() > self.events_max {
            return Reaction::Refuse(413, delay_ms, None);
        }
        if let Some(status) = self.filter_status
            && now_ms < self.sane_from_ms
            && events.iter().any(|event| event % 97 == 13)
        {
            return Reaction::Refuse(status, delay_ms, None);
        }
        if let Some(place) = events.iter().position(|event| *event < self.too_old_below) {
            let body = format!(r#"{{"reason":"too_old","index":{place}}}"#);
            return Reaction::Problem(body, delay_ms);
        }
        let is_refused = |event: &u32| {
            now_ms < self.refused_until_ms && self.refused_types >> type_of(*event) & 1 > 0
        };
        let is_bad = |event: &u32| self.bad_every.is_some_and(|every| event % every == every - 1);
        match events.iter().position(|event| is_bad(event) || is_refused(event)) {
            Some(place) => {
                let shift = if self.is_misleading { self.random.usize(0..2) } else { 0 };
                let place = (place + shift) % events.len();
                let index = self.is_naming.then_some(place as u32);
                Reaction::Refuse([400, 422][self.random.usize(0..2)], delay_ms, index)
            }
            None => Reaction::Store(delay_ms),
        }
    }
}

fn type_of(event: u32) -> u32 {
    event % 7 % 6
}

fn run(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let bad_every = random.bool().then(|| random.u32(150..2_000));
    let refused_types = if random.bool() { random.u32(0..64) } else { 0 };
    let has_old = random.u8(0..4) == 0;
    let mut server = Moody {
        mood: 0,
        until_ms: 0,
        sane_from_ms: random.u64(0..30_000),
        bad_every,
        is_naming: random.bool(),
        is_misleading: random.u8(0..4) == 0,
        refused_types,
        refused_until_ms: random.u64(0..60_000),
        filter_status: (random.u8(0..3) == 0).then(|| [403, 500, 404][random.usize(0..3)]),
        too_old_below: if has_old { OLD_BELOW } else { 0 },
        events_max: [1, 7, 100, 500, 1_000][random.usize(0..5)],
        random: random.fork(),
    };
    let mut limits = limits();
    limits.batch_events_max = [1, 10, 500, 1_000][random.usize(0..4)];
    limits.connections_max = random.usize(1..17);
    limits.pipeline_depth_max = random.usize(1..4);
    limits.retry_delay_max_ms = random.u64(100..10_000);
    limits.in_flight_bytes_max = [1, 100_000, 1 << 20, 32 << 20][random.usize(0..4)];
    limits.retries_max = (random.u8(0..4) == 0).then(|| random.u32(0..5));
    limits.give_up_after_ms = (random.u8(0..4) == 0).then(|| random.u64(1..20_000));
    let is_evicting = random.u8(0..4) == 0;
    let (may_give_up, may_expire) =
        (limits.retries_max.is_some(), limits.give_up_after_ms.is_some());
    let react = move |now_ms, in_flight, events: &[u32]| server.react(now_ms, in_flight, events);
    let mut simulation = Simulation::new(limits, Box::new(react));
    simulation.contents.event_type = type_of;
    simulation.contents.timestamp_us = |event| {
        const DAY_US: i64 = 24 * 3_600 * 1_000_000;
        if event < OLD_BELOW { NOW_US - 8 * DAY_US - i64::from(event) } else { NOW_US }
    };
    for _ in 0..random.u32(1..6) {
        let is_idle = random.u8(0..4) == 0;
        let events_per_ms = if is_idle { 0 } else { random.u32(0..2) };
        simulation.run(random.u64(1..1_500), events_per_ms);
        if random.bool() {
            simulation.delivery.flush();
        }
        if is_evicting && random.bool() {
            simulation.evict(random.usize(1..4));
        }
    }
    simulation.drain();
    let dead: HashSet<u32> =
        simulation.settled.get(&Outcome::DeadLettered).into_iter().flatten().copied().collect();
    let count = |outcome| simulation.settled.get(&outcome).map_or(0, Vec::len);
    for (outcome, may_be) in [
        (Outcome::GaveUp, may_give_up),
        (Outcome::Expired, may_expire),
        (Outcome::Evicted, is_evicting),
    ] {
        assert!(may_be || count(outcome) == 0, "{outcome}");
    }
    let mut settled: Vec<_> = simulation.settled.values().flatten().copied().collect();
    settled.sort_unstable();
    assert!(settled.into_iter().eq(0..simulation.pushed), "each is settled once");
    let stored: HashSet<u32> = simulation.stored.iter().copied().collect();
    for event in simulation.settled.get(&Outcome::Delivered).into_iter().flatten() {
        assert!(stored.contains(event), "{event} is said to be stored");
    }
    for event in &dead {
        let is_bad = bad_every.is_some_and(|every| event % every == every - 1);
        let is_refused = refused_types >> type_of(*event) & 1 > 0;
        let is_old = has_old && *event < OLD_BELOW;
        assert!(is_bad || is_refused || is_old, "{event} was a good one");
    }
    assert_eq!(simulation.delivery.whereabouts(), Whereabouts::default());
    assert!(simulation.delivery.suspects.is_empty(), "a suspicion has no end");
    assert!(simulation.apart.is_empty(), "{:?} are set apart", simulation.apart);
    assert_eq!(simulation.delivery.concurrency().0, 0, "requests in flight");
    assert_eq!(simulation.delivery.in_flight_bytes(), 0);
}

/// Events below this number are eight days old.
const OLD_BELOW: u32 = 100;

#[test]
fn whatever_the_server_does_each_event_ends_once_and_truly() {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse().ok());
    if let Some(seed) = number("LEDGERLINE_SEED") {
        return run(seed);
    }
    let first = fastrand::u64(..1 << 48);
    for seed in first..first + number("LEDGERLINE_CASES").unwrap_or(30) {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "LEDGERLINE_SEED={seed} fails");
    }
}
