//! Servers that behave in some way, in virtual time, and what the machine makes of them.
//!
//! One millisecond a step: records are pushed, what is sent reaches the server, and its answers
//! come back when it gives them. The oracle is the server's own list of what it stored.

use std::collections::HashSet;

use bytes::Bytes;
use ledgerline_transport::Answer;

use super::tests::OneType;
use super::*;
use crate::sink::http::verdict::{Verdict, judge, reason};

/// How a server behaves: at `now_ms`, with so many requests on the way to it, this one included.
pub(super) type Behaviour = Box<dyn FnMut(u64, usize, &[u32]) -> Reaction>;

/// What a server does about a request.
pub(super) enum Reaction {
    /// Stores it, and answers after so long.
    Store(u64),
    /// Answers with this status after so long, as a problem if a place is given.
    Refuse(u16, u64, Option<u32>),
    /// Asks to be left alone, with seconds.
    Later(u16, u64),
    /// Stores it, and the answer is lost after so long.
    StoreAndVanish(u64),
    /// Never answers; the client gives up after so long.
    Silent(u64),
    /// No connection can be made.
    Unreachable,
    /// Refuses it with this problem document after so long.
    Problem(String, u64),
}

pub(super) struct Simulation {
    pub(super) delivery: Delivery,
    now_ms: u64,
    server: Behaviour,
    /// Answers on the way: when, to what.
    coming: Vec<(u64, BatchId, Coming)>,
    pub(super) pushed: u32,
    pub(super) stored: Vec<u32>,
    pub(super) settled: HashMap<Outcome, Vec<u32>>,
    in_flight_max: usize,
    pub(super) requests: u64,
    /// The type of each event, and when it happened.
    pub(super) contents: Numbered,
    /// What is set apart, as far as it was told.
    pub(super) apart: HashSet<u32>,
}

enum Coming {
    Answer(Answer, Vec<u32>),
    Failure(Verdict),
}

/// What is to be known of events from their numbers.
pub(super) struct Numbered {
    pub(super) event_type: fn(u32) -> u32,
    pub(super) timestamp_us: fn(u32) -> i64,
}

impl Contents for Numbered {
    fn event_type<T>(&self, record: &Record, read: impl FnOnce(&str) -> T) -> T {
        read(&format!("type-{}", (self.event_type)(record.index)))
    }

    fn timestamp_us(&self, record: &Record) -> i64 {
        (self.timestamp_us)(record.index)
    }

    fn now_us(&self) -> i64 {
        NOW_US
    }
}

impl Simulation {
    pub(super) fn new(limits: Limits, server: Behaviour) -> Self {
        let delivery = Delivery::new(limits, 0, fastrand::Rng::with_seed(11));
        Self {
            delivery,
            now_ms: 0,
            server,
            coming: Vec::new(),
            pushed: 0,
            stored: Vec::new(),
            settled: HashMap::new(),
            in_flight_max: 0,
            requests: 0,
            contents: Numbered { event_type: |_| 0, timestamp_us: |_| NOW_US },
            apart: HashSet::new(),
        }
    }

    /// Lets so much time pass, with so many new events a millisecond.
    pub(super) fn run(&mut self, for_ms: u64, events_per_ms: u32) -> &mut Self {
        let end_ms = self.now_ms + for_ms;
        self.in_flight_max = 0;
        while self.now_ms < end_ms {
            let next_ms = if events_per_ms > 0 { Some(0) } else { self.next_ms() };
            self.now_ms = next_ms.unwrap_or(end_ms).clamp(self.now_ms + 1, end_ms);
            for _ in 0..events_per_ms {
                let (index, accepted_ms) = (self.pushed, self.now_ms);
                let block = index / BLOCK_RECORDS;
                self.delivery.push(Record { block, index, bytes: 700, accepted_ms });
                self.pushed += 1;
            }
            self.step();
        }
        self
    }

    /// Makes room for as many blocks, the oldest first, as far as they are full.
    pub(super) fn evict(&mut self, blocks: usize) {
        let full: Vec<_> = (0..self.pushed / BLOCK_RECORDS).collect();
        self.delivery.evict(&full, blocks);
        self.step();
    }

    /// Lets time pass until nothing is left, from one moment at which something happens to the
    /// next.
    pub(super) fn drain(&mut self) -> &mut Self {
        let end_ms = self.now_ms + 1_000_000;
        self.step();
        while self.delivery.whereabouts() != Whereabouts::default() && self.now_ms < end_ms {
            self.now_ms = self.next_ms().expect("something is left").max(self.now_ms + 1);
            self.step();
        }
        self
    }

    /// When something happens next.
    fn next_ms(&self) -> Option<u64> {
        let coming_ms = self.coming.iter().map(|it| it.0).min();
        self.delivery.next_ms().into_iter().chain(coming_ms).min()
    }

    fn step(&mut self) {
        self.delivery.advance(self.now_ms);
        self.delivery.expire(self.now_ms);
        let (due, coming) =
            std::mem::take(&mut self.coming).into_iter().partition(|it| it.0 <= self.now_ms);
        self.coming = coming;
        for (_, batch, coming) in due {
            match coming {
                Coming::Answer(answer, events) => {
                    if answer.status == 201 {
                        self.stored.extend(events);
                    }
                    let verdict =
                        judge(&answer, self.delivery.batch(batch).map_or(0, |it| it.records.len()));
                    let reason = Some(Arc::new(reason(&answer)));
                    let ended =
                        Ended { batch, verdict, status: answer.status, ids: Ids::Ours, reason };
                    self.delivery.ended(ended, self.now_ms, &self.contents);
                }
                Coming::Failure(verdict) => {
                    let ended =
                        Ended { batch, verdict, status: 0, ids: Ids::Unchecked, reason: None };
                    self.delivery.ended(ended, self.now_ms, &self.contents);
                }
            }
        }
        while let Some(send) = self.delivery.next_send(self.now_ms, &self.contents) {
            self.requests += 1;
            self.send(send.batch);
        }
        self.delivery.take_renewals();
        self.delivery.take_notices();
        for (span, is_apart) in self.delivery.take_apart_changes() {
            for event in span.first..span.first + span.count {
                if is_apart {
                    self.apart.insert(event);
                } else {
                    self.apart.remove(&event);
                }
            }
        }
        for settlement in self.delivery.take_settlements() {
            let span = settlement.span;
            let events = self.settled.entry(settlement.outcome).or_default();
            events.extend(span.first..span.first + span.count);
            self.apart.retain(|event| !(span.first..span.first + span.count).contains(event));
        }
    }

    fn send(&mut self, batch: BatchId) {
        let batch_of = self.delivery.batch(batch).expect("it was just sent");
        let events: Vec<_> = batch_of.records.iter().map(|record| record.index).collect();
        let in_flight = self.coming.len() + 1;
        let bytes = self.delivery.in_flight_bytes();
        assert!(in_flight == 1 || bytes <= self.delivery.limits.in_flight_bytes_max, "{bytes}");
        self.in_flight_max = self.in_flight_max.max(in_flight);
        let reaction = (self.server)(self.now_ms, in_flight, &events);
        let (after_ms, coming) = match reaction {
            Reaction::Store(after_ms) => {
                (after_ms, Coming::Answer(answer(201, None, None), events))
            }
            Reaction::Refuse(status, after_ms, index) => {
                (after_ms, Coming::Answer(answer(status, index, None), events))
            }
            Reaction::Later(status, seconds) => {
                (1, Coming::Answer(answer(status, None, Some(seconds)), events))
            }
            Reaction::StoreAndVanish(after_ms) => {
                self.stored.extend(events);
                (after_ms, Coming::Failure(Verdict::NoAnswer { is_timeout: false }))
            }
            Reaction::Silent(after_ms) => {
                (after_ms, Coming::Failure(Verdict::NoAnswer { is_timeout: true }))
            }
            Reaction::Unreachable => {
                let failed = Coming::Failure(Verdict::NotConnected);
                self.coming.push((self.now_ms + 1, batch, failed));
                return;
            }
            Reaction::Problem(body, after_ms) => {
                let problem = Answer { body: Bytes::from(body), ..answer(400, None, None) };
                (after_ms, Coming::Answer(problem, events))
            }
        };
        self.delivery.first_byte(batch, false, self.now_ms);
        self.coming.push((self.now_ms + after_ms, batch, coming));
    }

    fn dead(&self) -> usize {
        self.settled.get(&Outcome::DeadLettered).map_or(0, Vec::len)
    }

    /// Every event is stored once, but for so many dead letters.
    fn assert_delivered(&mut self, dead: usize) {
        self.stored.sort_unstable();
        let count = self.stored.len();
        self.stored.dedup();
        assert_eq!(self.stored.len(), count, "stored twice");
        assert_eq!((self.dead(), count + dead), (dead, self.pushed as usize));
        assert_eq!(self.delivery.whereabouts(), Whereabouts::default());
    }
}

fn answer(status: u16, index: Option<u32>, retry_after: Option<u64>) -> Answer {
    let is_problem = matches!(status, 400 | 422);
    let content_type = if is_problem { "application/problem+json" } else { "application/json" };
    Answer {
        content_type: Some(content_type.to_owned()),
        retry_after: retry_after.map(|seconds| seconds.to_string()),
        body: Bytes::from(index.map_or(String::new(), |index| format!("{{\"index\":{index}}}"))),
        ..Answer::new(status)
    }
}

pub(super) fn limits() -> Limits {
    Limits {
        batch_events_max: 500,
        batch_bytes_max: 4 << 20,
        flush_interval_ms: 100,
        retries_max: None,
        give_up_after_ms: None,
        retry_delay_min_ms: 100,
        retry_delay_max_ms: 30_000,
        request_timeout_ms: 20_000,
        connections_max: 16,
        pipeline_depth_max: 1,
        in_flight_bytes_max: 32 << 20,
    }
}

/// As if every so many records were a block of their own.
const BLOCK_RECORDS: u32 = 300;

/// The wall clock stands still.
pub(super) const NOW_US: i64 = 1_800_000_000_000_000;

fn place_of(event: u32, events: &[u32]) -> Option<u32> {
    events.iter().position(|it| *it == event).map(|place| place as u32)
}

/// One bad event in each thousand, named or not.
fn picky(is_named: bool) -> Behaviour {
    Box::new(move |_, _, events| match events.iter().find(|event| *event % 1_000 == 777) {
        Some(bad) => Reaction::Refuse(400, 2, place_of(*bad, events).filter(|_| is_named)),
        None => Reaction::Store(2),
    })
}

#[test]
fn a_bad_event_is_dead_lettered_alone_whether_it_is_named_or_not() {
    for (is_named, requests_max) in [(true, 3 * 50), (false, 22 * 50)] {
        let mut simulation = Simulation::new(limits(), picky(is_named));
        simulation.run(5_000, 10).drain().assert_delivered(50);
        assert!(simulation.requests < requests_max + 200, "{}", simulation.requests);
        assert!(simulation.settled[&Outcome::DeadLettered].iter().all(|it| it % 1_000 == 777));
    }
}

#[test]
fn a_server_that_names_the_wrong_event_misleads_once() {
    let server = |_, _, events: &[u32]| match events.contains(&250) {
        true if events.len() > 1 => Reaction::Refuse(422, 2, Some(0)),
        true => Reaction::Refuse(422, 2, None),
        false => Reaction::Store(2),
    };
    let mut simulation = Simulation::new(limits(), Box::new(server));
    simulation.run(50, 10).drain().assert_delivered(1);
    assert_eq!(simulation.settled[&Outcome::DeadLettered], [250]);
}

#[test]
fn a_server_that_refuses_everything_gets_everything_once_it_relents() {
    let server = |now_ms, _, _: &[u32]| match now_ms {
        0..60_000 => Reaction::Refuse(400, 2, Some(0)),
        _ => Reaction::Store(2),
    };
    let mut simulation = Simulation::new(limits(), Box::new(server));
    simulation.run(30_000, 1).run(29_000, 0);
    let dead = simulation.dead();
    assert!(dead < 20, "the fuse has blown: {dead}");
    assert!(simulation.stored.is_empty());
    assert_eq!(simulation.delivery.unavailable(), Some(Cause::Rejecting));
    assert!(simulation.requests < 200, "it is asked slowly: {}", simulation.requests);
    simulation.drain().assert_delivered(dead);
}

#[test]
fn a_misrouted_store_holds_everything_and_asks_slowly() {
    for status in [404, 403, 405, 301, 200, 421] {
        let server = move |now_ms, _, _: &[u32]| match now_ms {
            0..60_000 => Reaction::Refuse(status, 2, None),
            _ => Reaction::Store(2),
        };
        let mut simulation = Simulation::new(limits(), Box::new(server));
        simulation.run(59_000, 1);
        assert_eq!(simulation.delivery.unavailable(), Some(Cause::Misrouted), "{status}");
        assert!(simulation.requests < 80, "{status}: {}", simulation.requests);
        simulation.drain().assert_delivered(0);
    }
}

/// So do a network that is too narrow for a whole batch, and a server that takes long for each
/// event.
#[test]
fn batches_that_take_too_long_become_smaller_until_they_get_through() {
    let server = |_, _, events: &[u32]| match events.len() {
        0..=70 => Reaction::Store(9_000),
        _ => Reaction::Silent(10_000),
    };
    let mut simulation = Simulation::new(limits(), Box::new(server));
    simulation.run(2_000, 1).drain().assert_delivered(0);
    let requests = simulation.requests;
    assert!(requests < 100, "{requests}");
    // It has learnt.
    simulation.run(500, 1).drain().assert_delivered(0);
    assert!(simulation.requests - requests < 20, "{} more", simulation.requests - requests);
}

#[test]
fn parts_that_are_small_for_another_reason_teach_nothing_about_slowness() {
    let mut silent = 2;
    let server = move |_, _, events: &[u32]| {
        if silent > 0 {
            silent -= 1;
            return Reaction::Silent(1_000);
        }
        match events.contains(&100) {
            true => Reaction::Refuse(422, 2, None),
            false => Reaction::Store(2),
        }
    };
    let mut simulation = Simulation::new(limits(), Box::new(server));
    simulation.run(20, 10).drain().assert_delivered(1);
    let bytes_max = simulation.delivery.learned.bytes_max();
    assert!(bytes_max >= 200 * 700 / 2, "{bytes_max}: the half that was stored whole");
}

#[test]
fn a_server_that_was_silent_for_an_hour_does_not_get_crumbs() {
    let server = |now_ms, _, _: &[u32]| match now_ms {
        0..3_600_000 => Reaction::Silent(10_000),
        _ => Reaction::Store(5),
    };
    let mut simulation = Simulation::new(limits(), Box::new(server));
    simulation.run(60_000, 1).run(3_550_000, 0);
    let requests = simulation.requests;
    simulation.drain().assert_delivered(0);
    let crumbs = simulation.requests - requests;
    assert!(crumbs < 1_000, "{crumbs} requests for 60,000 events");
}

#[test]
fn after_an_outage_the_load_doubles_per_round() {
    let server = |now_ms, _, _: &[u32]| match now_ms {
        0..20_000 => Reaction::Unreachable,
        _ => Reaction::Store(50),
    };
    let mut simulation = Simulation::new(limits(), Box::new(server));
    simulation.run(20_000, 20);
    while simulation.stored.is_empty() {
        simulation.run(1, 20);
        assert!(simulation.in_flight_max <= 1 || !simulation.stored.is_empty());
    }
    // A round is 50 ms: the answers to each are in the first step of the next.
    simulation.run(49, 20);
    for most in [4, 8, 16] {
        simulation.run(50, 20);
        let used = simulation.in_flight_max;
        assert!(used <= most && used > most / 4, "{used} of {most}");
    }
    simulation.drain().assert_delivered(0);
}

#[test]
fn a_server_that_fails_for_an_hour_is_asked_slowly() {
    for status in [500, 503] {
        let server = move |now_ms, _, _: &[u32]| match now_ms {
            0..3_600_000 => Reaction::Refuse(status, 2, None),
            _ => Reaction::Store(2),
        };
        let mut simulation = Simulation::new(limits(), Box::new(server));
        simulation.run(60_000, 1).run(3_540_000, 0);
        let requests = simulation.requests;
        assert!(requests < 3_000, "{requests} in an hour");
        simulation.drain().assert_delivered(0);
    }
}

/// Each process of a fleet notices the outage at the same moment.
#[test]
fn a_fleet_does_not_come_back_in_step() {
    let mut first_probes_ms = Vec::new();
    for seed in 0..100 {
        let random = fastrand::Rng::with_seed(seed);
        let mut delivery = Delivery::new(limits(), 0, random);
        delivery.push(Record { block: 0, index: 0, bytes: 700, accepted_ms: 0 });
        delivery.flush();
        let send = delivery.next_send(1, &OneType).expect("the first try");
        let verdict = Verdict::NotConnected;
        let ended =
            Ended { batch: send.batch, verdict, status: 0, ids: Ids::Unchecked, reason: None };
        delivery.ended(ended, 1, &OneType);
        first_probes_ms.push(delivery.next_ms().expect("a probe is due"));
    }
    first_probes_ms.sort_unstable();
    assert!(first_probes_ms[90] - first_probes_ms[10] > 50, "over the least pause, 100 ms");
    first_probes_ms.dedup();
    assert!(first_probes_ms.len() > 40, "{first_probes_ms:?}");
}

#[test]
fn concurrency_follows_the_server() {
    let steady = |think_ms| move |_, _, _: &[u32]| Reaction::Store(think_ms);
    // One worker: each request waits for those before it.
    let mut busy_until_ms = 0;
    let queueing = move |now_ms: u64, _, _: &[u32]| {
        busy_until_ms = busy_until_ms.max(now_ms) + 50;
        Reaction::Store(busy_until_ms - now_ms)
    };
    // Quick up to four at a time, then it falls off a cliff.
    let cliff = |_, in_flight, _: &[u32]| Reaction::Store(if in_flight > 4 { 2_000 } else { 50 });
    let strict = |_, in_flight, _: &[u32]| match in_flight {
        0..=3 => Reaction::Store(50),
        _ => Reaction::Later(429, 0),
    };
    let failing = |now_ms: u64, _, _: &[u32]| match now_ms % 7 {
        0 => Reaction::Refuse(503, 20, None),
        _ => Reaction::Store(20),
    };
    let silent = |now_ms: u64, _, _: &[u32]| match now_ms {
        3_000..6_000 => Reaction::Silent(1_000),
        _ => Reaction::Store(20),
    };
    let flapping = |now_ms: u64, _, _: &[u32]| match now_ms / 1_000 % 2 {
        0 => Reaction::Store(20),
        _ => Reaction::Unreachable,
    };
    let slowing = |now_ms: u64, _, _: &[u32]| Reaction::Store(20 + now_ms / 80);
    let erring = |now_ms: u64, _, _: &[u32]| match now_ms {
        3_000..5_000 => Reaction::Refuse(500, 5, None),
        _ => Reaction::Store(20),
    };
    let polite = |now_ms: u64, _, _: &[u32]| match now_ms {
        3_000..4_000 => Reaction::Later(503, 2),
        _ => Reaction::Store(20),
    };
    let quick = steady(1);
    // Name, server, events per millisecond, and how many at a time it should get, at least and
    // most.
    let cases: Vec<(&str, Behaviour, u32, usize, usize)> = vec![
        ("quick", Box::new(quick), 20, 1, 3),
        ("steady", Box::new(steady(100)), 20, 4, 16),
        ("far away", Box::new(steady(400)), 20, 16, 16),
        ("slower than the load", Box::new(steady(1_000)), 5, 5, 16),
        ("queueing", Box::new(queueing), 30, 1, 6),
        ("off a cliff", Box::new(cliff), 60, 2, 10),
        ("429 above three", Box::new(strict), 60, 1, 6),
        ("503 now and then", Box::new(failing), 20, 1, 8),
        ("silent for a while", Box::new(silent), 10, 1, 16),
        ("flapping", Box::new(flapping), 10, 1, 16),
        ("slowing down", Box::new(slowing), 20, 4, 16),
        ("failing for a while", Box::new(erring), 10, 1, 16),
        ("asking for a pause", Box::new(polite), 10, 1, 16),
    ];
    for (name, server, events_per_ms, least, most) in cases {
        let mut simulation = Simulation::new(limits(), server);
        simulation.run(8_000, events_per_ms).run(4_000, events_per_ms);
        let used = simulation.in_flight_max;
        assert!((least..=most).contains(&used), "{name}: {used} at a time");
        assert!(used <= 16, "{name}");
        let backlog = simulation.pushed as usize - simulation.stored.len();
        simulation.drain();
        assert!(simulation.delivery.whereabouts() == Whereabouts::default(), "{name}: {backlog}");
        let mut stored = simulation.stored.clone();
        stored.sort_unstable();
        stored.dedup();
        assert_eq!(stored.len(), simulation.pushed as usize, "{name}");
        // Back to one when idle: what comes after a pause goes alone.
        simulation.run(12_000, 0).run(3, 300);
        assert!(
            simulation.in_flight_max <= 1,
            "{name}: {} after a pause",
            simulation.in_flight_max
        );
    }
}

#[test]
fn many_bad_events_at_once_keep_no_good_one_back() {
    // A burst of forty bad ones from one caller, in an engine that was idle, and then good ones.
    for is_named in [true, false] {
        let server = move |_, _, events: &[u32]| {
            let bad = events.iter().position(|event| (50..90).contains(event));
            match bad {
                Some(place) => Reaction::Refuse(400, 2, Some(place as u32).filter(|_| is_named)),
                None => Reaction::Store(2),
            }
        };
        let mut simulation = Simulation::new(limits(), Box::new(server));
        simulation.run(100, 1).run(60_000, 0).run(60_000, 1);
        let good = simulation.stored.len();
        let late = simulation.pushed as usize - 40 - good;
        assert!(late < 15_000, "{late} good ones are held back");
        simulation.drain().assert_delivered(40);
        let dead = &simulation.settled[&Outcome::DeadLettered];
        assert!(dead.iter().all(|event| (50..90).contains(event)));
    }
}

#[test]
fn a_pause_that_the_server_asked_for_is_kept_whatever_was_on_the_way() {
    // Requests sent before it come back as stored after it.
    let server = |now_ms, _, _: &[u32]| match now_ms {
        0..1_000 => Reaction::Store(100),
        1_000..1_010 => Reaction::Later(429, 10),
        1_010..11_000 => panic!("asked at {now_ms}, during the pause"),
        _ => Reaction::Store(2),
    };
    let mut simulation = Simulation::new(limits(), Box::new(server));
    simulation.run(12_000, 20).drain().assert_delivered(0);
}
