//! Lanes and driver from outside, step by step on one thread.

mod engine;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use engine::{Engine, take_all};
use ledgerline_core::{Anonymous, Bell, Lanes, Loan, Outcome, RECORD_BYTES_MAX, Refusal};

/// Records in the lane until it is refused; returns how many were accepted.
fn fill_lane(lanes: &Lanes, lane: usize) -> u64 {
    (0..).take_while(|_| lanes.record(lane, &[7; 5_000], 0).is_ok()).count() as u64
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
    engine.token.wait();
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
    for index in 0..2 {
        let record = take_all(&mut engine.driver)[0];
        engine.driver.tend_pool();
        if index == 0 {
            lanes.record(1, &[1; 10], 0).expect("a lane with a record pending isn't idle");
        }
        engine.driver.settle(record.block, index, 1, Outcome::Delivered);
    }
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
    engine.token.wait();
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
    assert_eq!(driver.abandon(Outcome::Closed, &mut drop), accepted - 1);
    assert_eq!(driver.abandon(Outcome::Closed, &mut drop), 0);
    driver.take_sealed(&mut |record| panic!("{record:?} was abandoned"));
    driver.tend_pool();
    assert!(!driver.has_hole());
    let accounts = lanes.accounts();
    assert_eq!((accounts.pending, accounts.dropped.closed), (0, accepted - 1));
    driver.verify().unwrap();
}

#[test]
fn a_full_block_rings_even_if_another_producer_starves_already() {
    let mut engine = Engine::new(1, 2);
    engine.lanes.record(0, &[1; 10], 0).unwrap();
    engine.token.wait();
    assert_eq!(engine.lanes.record(1, &[2; 10], 0), Err(Refusal::Full));
    engine.token.wait();
    let accepted = 1 + fill_lane(&engine.lanes, 0);
    engine.token.wait();
    assert_eq!(take_all(&mut engine.driver).len() as u64, accepted);
}

#[test]
fn a_driver_that_is_awake_is_not_rung_for_each_record() {
    let rings = Arc::new(AtomicU64::new(0));
    let bell = Box::new(Counter(Arc::clone(&rings)));
    let (lanes, _driver) = Lanes::new(Box::new(Anonymous::new(2).unwrap()), 1, bell);
    for _ in 0..100 {
        lanes.record(0, &[1; 10], 0).unwrap();
    }
    assert_eq!(rings.load(Ordering::Relaxed), 1, "the block's first record");
}

struct Counter(Arc<AtomicU64>);

impl Bell for Counter {
    fn ring(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
