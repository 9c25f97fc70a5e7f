//! Lanes and driver from outside: real threads, few blocks, outcomes in any order.

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

use engine::{Engine, Noise, RECORD_BYTES_MIN, fill_lane, take_all};
use ledgerline_core::{Lanes, Loan, Outcome, RECORD_BYTES_MAX, Record, Refusal};

const PRODUCERS: u32 = 4;
const LANES: usize = 3;

/// What a producer did: how many of its records were accepted, how often it was told `Full`.
struct Produced {
    accepted: u32,
    full: u64,
}

/// Records numbers 0.. as `producer` until `count` are accepted, or the engine is closed.
fn produce(lanes: &Lanes, noise: &Noise, producer: u32, count: u32, seed: u64) -> Produced {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut produced = Produced { accepted: 0, full: 0 };
    while produced.accepted < count {
        let record = noise.record(producer, produced.accepted, random_len(&mut random));
        match lanes.record(producer as usize % lanes.len(), &record, 0) {
            Ok(_) => produced.accepted += 1,
            Err(Refusal::Full) => {
                produced.full += 1;
                thread::yield_now();
            }
            Err(Refusal::Closed) => break,
        }
    }
    produced
}

/// Mostly short, sometimes as long as they may be.
fn random_len(random: &mut fastrand::Rng) -> usize {
    match random.u32(0..100) {
        0 => RECORD_BYTES_MAX,
        1..10 => random.usize(RECORD_BYTES_MIN..RECORD_BYTES_MAX),
        _ => random.usize(RECORD_BYTES_MIN..2_000),
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
        assert!(record.index == *next || record.index == 0, "{record:?} after index {next}");
        *next = record.index + 1;
    }

    fn note_whole(&mut self, noise: &Noise, bytes: &[u8]) {
        *self.seen.entry(noise.identify(bytes)).or_default() += 1;
    }

    fn assert_exactly(&self, produced: &[Produced]) {
        let accepted: u32 = produced.iter().map(|produced| produced.accepted).sum();
        assert_eq!(self.seen.len(), accepted as usize);
        for (producer, produced) in produced.iter().enumerate() {
            for number in 0..produced.accepted {
                assert_eq!(self.seen.get(&(producer as u32, number)), Some(&1), "{producer} {number}");
            }
        }
    }
}

/// Neighbouring records that were taken and not yet settled.
struct InFlight {
    block: u32,
    first: u32,
    count: u32,
    /// Which of [`OUTCOMES`] it will have.
    outcome: usize,
}

/// Cuts what was taken into runs of neighbours, checks their bytes, and hands some of the loans to
/// `borrower`.
fn send(
    engine: &mut Engine,
    noise: &Noise,
    records: &[Record],
    arrivals: &mut Arrivals,
    borrower: &mpsc::Sender<(Loan, Vec<u8>)>,
    random: &mut fastrand::Rng,
) -> Vec<InFlight> {
    let mut runs = Vec::new();
    let mut rest = records;
    while let Some(head) = rest.first() {
        let len_max = random.usize(1..20);
        let is_next = |(k, record): (usize, &Record)| {
            record.block == head.block && record.index == head.index + k as u32
        };
        let len = rest.iter().enumerate().take(len_max).take_while(|pair| is_next(*pair)).count();
        let loan = engine.driver.lend(head.block, head.index, len as u32);
        let mut bytes = loan.as_ref();
        for record in &rest[..len] {
            arrivals.note_taken(*record);
            let (one, others) = bytes.split_at(record.bytes as usize);
            arrivals.note_whole(noise, one);
            bytes = others;
        }
        assert!(bytes.is_empty(), "a loan spans its records and nothing else");
        if random.u32(0..4) == 0 {
            let copy = loan.as_ref().to_vec();
            borrower.send((loan, copy)).unwrap();
        }
        let outcome = random.usize(..OUTCOMES.len());
        runs.push(InFlight { block: head.block, first: head.index, count: len as u32, outcome });
        rest = &rest[len..];
    }
    runs
}

/// Holds loans for a while, then looks whether their bytes are still the same.
fn borrow(loans: &mpsc::Receiver<(Loan, Vec<u8>)>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut held: Vec<(Loan, Vec<u8>)> = Vec::new();
    for lent in loans {
        held.push(lent);
        while held.len() > random.usize(0..8) {
            let (loan, copy) = held.swap_remove(random.usize(..held.len()));
            assert!(loan.as_ref() == copy, "changed while on loan");
        }
    }
}

#[test]
fn every_accepted_record_arrives_once_and_whole_and_the_accounts_agree() {
    let seed = engine::seed();
    let noise = Noise::new(seed);
    let mut engine = Engine::new(6, LANES);
    let lanes = engine.lanes.clone();
    let (is_over, count) = (AtomicBool::new(false), 3_000);
    let mut arrivals = Arrivals::default();
    let mut settled = [0; OUTCOMES.len()];
    let produced = thread::scope(|scope| {
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let (lanes, noise) = (lanes.clone(), &noise);
                let seed = seed.wrapping_add(u64::from(producer));
                scope.spawn(move || produce(&lanes, noise, producer, count, seed))
            })
            .collect();
        let reader = scope.spawn(|| {
            let mut last = lanes.accounts();
            while !is_over.load(Ordering::Relaxed) {
                let accounts = lanes.accounts();
                assert!(accounts.is_balanced(), "{accounts:?}");
                assert!(accounts.accepted >= last.accepted, "{accounts:?} after {last:?}");
                assert!(accounts.delivered >= last.delivered, "{accounts:?} after {last:?}");
                last = accounts;
                thread::yield_now();
            }
        });
        let (lend, loans) = mpsc::channel();
        let borrower = scope.spawn(move || borrow(&loans, seed));
        let mut random = fastrand::Rng::with_seed(!seed);
        let mut in_flight: Vec<InFlight> = Vec::new();
        let total = usize::try_from(PRODUCERS * count).unwrap();
        while arrivals.seen.len() < total || !in_flight.is_empty() {
            let records = take_all(&mut engine.driver);
            let runs = send(&mut engine, &noise, &records, &mut arrivals, &lend, &mut random);
            in_flight.extend(runs);
            engine.driver.verify().unwrap();
            let keep = if records.is_empty() { 0 } else { random.usize(0..200) };
            while in_flight.len() > keep {
                let run = in_flight.swap_remove(random.usize(..in_flight.len()));
                engine.driver.settle(run.block, run.first, run.count, OUTCOMES[run.outcome]);
                settled[run.outcome] += u64::from(run.count);
            }
            engine.driver.tend_pool();
            engine.driver.verify().unwrap();
            if arrivals.seen.len() < total && engine.driver.park() {
                engine.token.wait();
            }
        }
        is_over.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        drop(lend);
        borrower.join().unwrap();
        producers.into_iter().map(|producer| producer.join().unwrap()).collect::<Vec<_>>()
    });
    arrivals.assert_exactly(&produced);
    let accounts = engine.driver.accounts();
    assert_eq!(accounts, lanes.accounts());
    let [delivered, queued_by_server, dead_lettered, evicted] = settled;
    assert_eq!(accounts.accepted, u64::from(PRODUCERS * count));
    assert_eq!(accounts.delivered, delivered + queued_by_server);
    assert_eq!(accounts.queued_by_server, queued_by_server);
    assert_eq!(accounts.dead_lettered, dead_lettered);
    assert_eq!(accounts.dropped.evicted, evicted);
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
        let lanes = engine.lanes.clone();
        let start = Barrier::new(PRODUCERS as usize + 1);
        let mut arrivals = Arrivals::default();
        let (produced, accepted_at_close) = thread::scope(|scope| {
            let producers: Vec<_> = (0..PRODUCERS)
                .map(|producer| {
                    let (lanes, noise, start) = (lanes.clone(), &noise, &start);
                    let seed = seed.wrapping_add(u64::from(round * PRODUCERS + producer));
                    scope.spawn(move || {
                        start.wait();
                        produce(&lanes, noise, producer, u32::MAX, seed)
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

#[test]
fn a_flush_target_is_reached_when_and_only_when_all_before_it_is_settled() {
    let seed = engine::seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut engine = Engine::new(6, 2);
    for _ in 0..20 {
        for _ in 0..random.u32(1..30) {
            let record = vec![1; random.usize(1..60_000)];
            engine.lanes.record(random.usize(..2), &record, 0).unwrap();
        }
        let targets = engine.lanes.seq_targets();
        let mut before = take_all(&mut engine.driver);
        engine.lanes.record(random.usize(..2), &[2; 100], 0).unwrap();
        random.shuffle(&mut before);
        for record in before {
            assert!(!engine.driver.has_reached(&targets), "{record:?} isn't settled");
            engine.driver.settle(record.block, record.index, 1, Outcome::Delivered);
        }
        assert!(engine.driver.has_reached(&targets), "what came later doesn't count");
        for record in take_all(&mut engine.driver) {
            engine.driver.settle(record.block, record.index, 1, Outcome::Delivered);
        }
    }
}

#[test]
fn a_full_engine_refuses_counts_it_and_has_room_again_once_records_are_settled() {
    let mut engine = Engine::new(2, 1);
    let lanes = engine.lanes.clone();
    let accepted = fill_lane(&lanes, 0);
    for _ in 0..9 {
        assert_eq!(lanes.record(0, &[0; 700], 0), Err(Refusal::Full));
    }
    let accounts = lanes.accounts();
    assert_eq!((accounts.accepted, accounts.pending), (accepted, accepted));
    assert_eq!(accounts.refused.full, 10, "the one that ended the filling, and nine");
    let records = take_all(&mut engine.driver);
    assert_eq!(records.len() as u64, accepted);
    for record in &records {
        engine.driver.settle(record.block, record.index, 1, Outcome::DeadLettered);
    }
    lanes.record(0, &[0; RECORD_BYTES_MAX], 0).unwrap();
    assert_eq!(engine.driver.accounts().dead_lettered, accepted);
    engine.driver.verify().unwrap();
}

#[test]
fn a_block_on_loan_is_not_used_again_and_the_end_of_the_loan_wakes_the_driver() {
    let mut engine = Engine::new(1, 1);
    let lanes = engine.lanes.clone();
    let accepted = fill_lane(&lanes, 0) as u32;
    let records = take_all(&mut engine.driver);
    let loan = engine.driver.lend(records[0].block, 0, accepted);
    engine.driver.settle(records[0].block, 0, accepted, Outcome::Delivered);
    engine.driver.tend_pool();
    assert_eq!(lanes.record(0, &[9; 9], 0), Err(Refusal::Full), "its bytes are still being sent");
    assert!(engine.driver.is_starving() && engine.driver.park());
    engine.token.clear();
    let (send, receive) = mpsc::channel::<Loan>();
    let borrower = thread::spawn(move || drop(receive.recv().unwrap()));
    send.send(loan).unwrap();
    engine.token.wait();
    engine.driver.tend_pool();
    lanes.record(0, &[9; 9], 0).unwrap();
    borrower.join().unwrap();
}

#[test]
fn a_starving_lane_gets_the_block_of_an_idle_one() {
    let mut engine = Engine::new(1, 2);
    let lanes = engine.lanes.clone();
    lanes.record(1, &[1; 10], 0).unwrap();
    assert_eq!(lanes.record(0, &[2; 10], 0), Err(Refusal::Full));
    engine.driver.tend_pool();
    assert_eq!(lanes.record(0, &[2; 10], 0), Err(Refusal::Full), "the other one is not idle");
    let record = take_all(&mut engine.driver)[0];
    engine.driver.settle(record.block, record.index, 1, Outcome::Delivered);
    engine.driver.tend_pool();
    assert!(!engine.driver.is_starving());
    lanes.record(0, &[2; 10], 0).unwrap();
    assert_eq!(lanes.record(1, &[1; 10], 0), Err(Refusal::Full), "now it is the other way round");
    engine.driver.verify().unwrap();
}

#[test]
fn a_record_keeps_its_time_however_long_its_lane_was_quiet() {
    const HOUR_MS: u64 = 3_600_000;
    let mut engine = Engine::new(3, 1);
    let times_ms = [7, 8, HOUR_MS, HOUR_MS + 1, 100 * HOUR_MS];
    for now_ms in times_ms {
        engine.lanes.record(0, &[0; 20], now_ms).unwrap();
    }
    let taken = take_all(&mut engine.driver);
    let accepted_ms: Vec<_> = taken.iter().map(|record| record.accepted_ms).collect();
    assert_eq!(accepted_ms, times_ms);
}

#[test]
fn only_what_is_old_enough_is_taken_from_an_open_block() {
    let mut engine = Engine::new(2, 1);
    engine.lanes.record(0, &[1; 10], 100).unwrap();
    engine.lanes.record(0, &[2; 10], 130).unwrap();
    let mut taken = Vec::new();
    let waiting = engine.driver.take_open(99, &mut |record| taken.push(record));
    assert_eq!((taken.len(), waiting.oldest_ms, waiting.has_hole), (0, Some(100), false));
    assert!(!engine.driver.park(), "there is something to take");
    let waiting = engine.driver.take_open(100, &mut |record| taken.push(record));
    assert_eq!((taken.len(), waiting.oldest_ms), (2, None), "what follows goes with the oldest");
    assert!(engine.driver.park());
    engine.token.clear();
    engine.lanes.record(0, &[3; 10], 140).unwrap();
    engine.token.wait();
}

#[test]
fn abandoning_after_close_settles_the_rest_and_leaves_nothing_to_take() {
    let mut engine = Engine::new(3, 2);
    let lanes = engine.lanes.clone();
    lanes.record(1, &[1; 10], 0).unwrap();
    let accepted = 1 + fill_lane(&lanes, 0);
    let (mut taken, driver) = (Vec::new(), &mut engine.driver);
    driver.take_open(u64::MAX, &mut |record| taken.push(record));
    driver.settle(taken[0].block, taken[0].index, 1, Outcome::Delivered);
    driver.close();
    assert_eq!(driver.abandon(Outcome::Closed), accepted - 1);
    assert_eq!(driver.abandon(Outcome::Closed), 0);
    driver.take_sealed(&mut |record| panic!("{record:?} was abandoned"));
    driver.tend_pool();
    assert!(!driver.has_hole());
    let accounts = lanes.accounts();
    assert_eq!((accounts.pending, accounts.dropped.closed), (0, accepted - 1));
    driver.verify().unwrap();
}

const OUTCOMES: [Outcome; 4] =
    [Outcome::Delivered, Outcome::QueuedByServer, Outcome::DeadLettered, Outcome::Evicted];
