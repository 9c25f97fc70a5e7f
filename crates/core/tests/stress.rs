//! Real threads on few blocks: everything arrives once, whole, and the accounts agree.

mod engine;

use std::{
    collections::HashMap,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use engine::{Engine, take_all};
use ledgerline_core::{Accounts, Driver, Lanes, Loan, Outcome, RECORD_BYTES_MAX, Record, Refusal};

#[test]
fn every_accepted_record_arrives_once_and_whole_and_the_accounts_agree() {
    let seed = engine::seed();
    let noise = Noise::new(seed);
    let mut engine = Engine::new(6, LANES);
    let lanes = engine.lanes.clone();
    let is_over = AtomicBool::new(false);
    let (lend, loans) = mpsc::channel();
    let mut sender = Sender {
        noise: &noise,
        random: fastrand::Rng::with_seed(!seed),
        lend,
        arrivals: Arrivals::default(),
        in_flight: Vec::new(),
        settled: [0; OUTCOMES.len()],
    };
    let produced = thread::scope(|scope| {
        let _end = SetOnDrop(&is_over);
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let (lanes, noise, is_over) = (&lanes, &noise, &is_over);
                let seed = seed.wrapping_add(u64::from(producer));
                scope.spawn(move || produce(lanes, noise, producer, RECORDS, seed, is_over))
            })
            .collect();
        scope.spawn(|| watch(&lanes, &is_over));
        let is_over = &is_over;
        scope.spawn(move || borrow(&loans, seed, is_over));
        let total = (PRODUCERS * RECORDS) as usize;
        while sender.arrivals.seen.len() < total || !sender.in_flight.is_empty() {
            sender.step(&mut engine.driver);
            let is_idle = sender.in_flight.is_empty() && sender.arrivals.seen.len() < total;
            if is_idle && engine.driver.park() {
                engine.token.wait();
            }
        }
        producers.into_iter().map(|producer| producer.join().unwrap()).collect::<Vec<_>>()
    });
    sender.arrivals.assert_exactly(&produced);
    let accounts = engine.driver.accounts();
    assert_eq!(accounts, lanes.accounts());
    sender.assert_settled(&accounts);
    assert_eq!(accounts.accepted, u64::from(PRODUCERS * RECORDS));
    assert_eq!(accounts.pending, 0);
    assert_eq!(accounts.refused.full, produced.iter().map(|produced| produced.full).sum::<u64>());
    assert_eq!(accounts.refused.total(), accounts.refused.full);
}

#[test]
fn close_decides_for_every_record_that_races_it() {
    let seed = engine::seed();
    let noise = Noise::new(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..20 {
        let mut engine = Engine::new(8, 2);
        let (lanes, never) = (engine.lanes.clone(), AtomicBool::new(false));
        let start = Barrier::new(PRODUCERS as usize + 1);
        let (produced, accepted_at_close) = thread::scope(|scope| {
            let producers: Vec<_> = (0..PRODUCERS)
                .map(|producer| {
                    let (lanes, noise, start, never) = (&lanes, &noise, &start, &never);
                    let seed = seed.wrapping_add(u64::from(round * PRODUCERS + producer));
                    scope.spawn(move || {
                        start.wait();
                        produce(lanes, noise, producer, u32::MAX, seed, never)
                    })
                })
                .collect();
            start.wait();
            for _ in 0..random.u32(0..3_000) {
                std::hint::spin_loop();
            }
            engine.driver.close();
            let accepted_at_close = engine.driver.accounts().accepted;
            let produced =
                producers.into_iter().map(|producer| producer.join().unwrap()).collect::<Vec<_>>();
            (produced, accepted_at_close)
        });
        let mut arrivals = Arrivals::default();
        for record in take_all(&mut engine.driver) {
            arrivals.note_taken(record);
            let loan = engine.driver.lend(record.block, record.index, 1);
            arrivals.note_whole(&noise, loan.as_ref());
            drop(loan);
            engine.driver.settle(record.block, record.index, 1, Outcome::Delivered);
        }
        arrivals.assert_exactly(&produced);
        let accounts = lanes.accounts();
        assert_eq!(accounts.accepted, accepted_at_close);
        assert_eq!((accounts.pending, accounts.refused.closed), (0, u64::from(PRODUCERS)));
        engine.driver.verify().unwrap();
    }
}

/// What a producer did: how many of its records were accepted, how often it was told `Full`.
struct Produced {
    accepted: u32,
    full: u64,
}

/// Records numbers 0.. as `producer` until `count` are accepted, or the engine is closed.
fn produce(
    lanes: &Lanes,
    noise: &Noise,
    producer: u32,
    count: u32,
    seed: u64,
    is_over: &AtomicBool,
) -> Produced {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut produced = Produced { accepted: 0, full: 0 };
    while produced.accepted < count && !is_over.load(Ordering::Relaxed) {
        let record = noise.record(producer, produced.accepted, record_len(&mut random));
        match lanes.record(producer as usize % lanes.len(), &record, 0) {
            Ok(_) => produced.accepted += 1,
            Err(Refusal::Full) => {
                produced.full += 1;
                thread::yield_now();
            }
            Err(_) => break,
        }
    }
    produced
}

/// Mostly short, sometimes as long as they may be.
fn record_len(random: &mut fastrand::Rng) -> usize {
    match random.u32(0..200) {
        0 => RECORD_BYTES_MAX,
        1..8 => random.usize(NAME_BYTES..RECORD_BYTES_MAX),
        _ => random.usize(NAME_BYTES..2_000),
    }
}

/// Reads the accounts all along, as any thread may.
fn watch(lanes: &Lanes, is_over: &AtomicBool) {
    let mut last = lanes.accounts();
    while !is_over.load(Ordering::Relaxed) {
        let accounts = lanes.accounts();
        assert!(accounts.is_balanced(), "{accounts:?}");
        assert!(accounts.accepted >= last.accepted, "{accounts:?} after {last:?}");
        assert!(accounts.delivered >= last.delivered, "{accounts:?} after {last:?}");
        assert!(accounts.accepted <= u64::from(PRODUCERS * RECORDS), "{accounts:?}");
        last = accounts;
        thread::yield_now();
    }
}

/// Holds loans for a while, then looks whether their bytes are still the same.
fn borrow(loans: &mpsc::Receiver<(Loan, Vec<u8>)>, seed: u64, is_over: &AtomicBool) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut held: Vec<(Loan, Vec<u8>)> = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        match loans.try_recv() {
            Ok(lent) => held.push(lent),
            Err(_) => thread::yield_now(),
        }
        if !held.is_empty() && random.u32(0..4) == 0 {
            let (loan, copy) = held.swap_remove(random.usize(..held.len()));
            assert!(loan.as_ref() == copy, "changed while on loan");
        }
    }
}

/// Lends what was taken, checks it, and settles it in any order.
struct Sender<'a> {
    noise: &'a Noise,
    random: fastrand::Rng,
    lend: mpsc::Sender<(Loan, Vec<u8>)>,
    arrivals: Arrivals,
    in_flight: Vec<InFlight>,
    /// How many of each of [`OUTCOMES`].
    settled: [u64; OUTCOMES.len()],
}

/// Neighbouring records that were taken and not yet settled.
struct InFlight {
    block: u32,
    first: u32,
    count: u32,
}

impl Sender<'_> {
    fn step(&mut self, driver: &mut Driver) {
        let records = take_all(driver);
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            let count = self.send_run(driver, rest);
            rest = &rest[count..];
        }
        driver.verify().expect("balanced");
        let keep = if records.is_empty() { 0 } else { self.random.usize(0..200) };
        while self.in_flight.len() > keep {
            let run = self.in_flight.swap_remove(self.random.usize(..self.in_flight.len()));
            let outcome = self.random.usize(..OUTCOMES.len());
            driver.settle(run.block, run.first, run.count, OUTCOMES[outcome]);
            self.settled[outcome] += u64::from(run.count);
        }
        driver.tend_pool();
        driver.verify().expect("balanced");
    }

    /// Sends some neighbouring records from the head of `records` on; returns how many.
    fn send_run(&mut self, driver: &Driver, records: &[Record]) -> usize {
        let head = records[0];
        let count_max = self.random.usize(1..20);
        let is_neighbour = |(k, record): &(usize, &Record)| {
            record.block == head.block && record.index == head.index + *k as u32
        };
        let run = records.iter().enumerate().take(count_max).take_while(is_neighbour);
        let count = run.count();
        let loan = driver.lend(head.block, head.index, count as u32);
        let mut bytes = loan.as_ref();
        for record in &records[..count] {
            self.arrivals.note_taken(*record);
            let (one, others) = bytes.split_at(record.bytes as usize);
            self.arrivals.note_whole(self.noise, one);
            bytes = others;
        }
        assert!(bytes.is_empty(), "a loan spans its records and nothing else");
        if self.random.u32(0..4) == 0 {
            let copy = loan.as_ref().to_vec();
            self.lend.send((loan, copy)).expect("the borrower waits for the end");
        }
        self.in_flight.push(InFlight { block: head.block, first: head.index, count: count as u32 });
        count
    }

    fn assert_settled(&self, accounts: &Accounts) {
        let [delivered, queued_by_server, dead_lettered, evicted] = self.settled;
        assert_eq!(accounts.delivered, delivered + queued_by_server);
        assert_eq!(accounts.queued_by_server, queued_by_server);
        assert_eq!(accounts.dead_lettered, dead_lettered);
        assert_eq!(accounts.dropped.evicted, evicted);
        assert_eq!(accounts.dropped.total(), evicted);
    }
}

/// Notes what arrives, and that it arrives once, in order and whole.
#[derive(Default)]
struct Arrivals {
    /// How often each (producer, number) arrived.
    seen: HashMap<(u32, u32), u32>,
    /// Per block, the index that is taken next in its present life.
    next_index: HashMap<u32, u32>,
}

impl Arrivals {
    fn note_taken(&mut self, record: Record) {
        let next = self.next_index.entry(record.block).or_default();
        assert!(record.index == *next || record.index == 0, "{record:?} where {next} was next");
        *next = record.index + 1;
    }

    fn note_whole(&mut self, noise: &Noise, bytes: &[u8]) {
        *self.seen.entry(noise.identify(bytes)).or_default() += 1;
    }

    fn assert_exactly(&self, produced: &[Produced]) {
        let accepted: u32 = produced.iter().map(|produced| produced.accepted).sum();
        assert_eq!(self.seen.len(), accepted as usize);
        for (producer, produced) in (0..).zip(produced) {
            for number in 0..produced.accepted {
                let times = self.seen.get(&(producer, number));
                assert_eq!(times, Some(&1), "producer {producer}, record {number}");
            }
        }
    }
}

/// Bytes to make records of.
struct Noise(Vec<u8>);

impl Noise {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = vec![0; RECORD_BYTES_MAX + STARTS];
        random.fill(&mut bytes);
        Self(bytes)
    }

    /// Names itself and its length, then noise.
    fn record(&self, producer: u32, number: u32, len: usize) -> Vec<u8> {
        let mut record = Vec::with_capacity(len);
        for word in [producer, number, len as u32] {
            record.extend_from_slice(&word.to_le_bytes());
        }
        record.extend_from_slice(self.body(producer, number, len));
        record
    }

    /// The (producer, number) of a record that is whole.
    fn identify(&self, record: &[u8]) -> (u32, u32) {
        let word =
            |k: usize| u32::from_le_bytes(record[4 * k..][..4].try_into().expect("four bytes"));
        let (producer, number) = (word(0), word(1));
        assert_eq!(word(2) as usize, record.len(), "{producer} {number}");
        let body = self.body(producer, number, record.len());
        assert!(record[NAME_BYTES..] == *body, "{producer} {number} isn't whole");
        (producer, number)
    }

    fn body(&self, producer: u32, number: u32, len: usize) -> &[u8] {
        let start = (producer.wrapping_mul(7_919) ^ number.wrapping_mul(31)) as usize % STARTS;
        &self.0[start..][..len - NAME_BYTES]
    }
}

/// Ends the other threads when this one is through, or has failed.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

const PRODUCERS: u32 = 4;
const LANES: usize = 3;
/// Of each producer.
const RECORDS: u32 = 20_000;
const OUTCOMES: [Outcome; 4] =
    [Outcome::Delivered, Outcome::QueuedByServer, Outcome::DeadLettered, Outcome::Evicted];
/// What names a record stands in front of its noise.
const NAME_BYTES: usize = 12;
const STARTS: usize = 4_099;
