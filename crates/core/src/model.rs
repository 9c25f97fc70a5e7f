//! The lane and block protocol against every interleaving of small cases.
//!
//! Blocks hold two records of two bytes, queues are mutexed black boxes, preemptions are bounded
//! by `LOOM_MAX_PREEMPTIONS`. A bounded model is not a proof; it is the only net under the
//! orderings on machines that this code isn't run on.
//!
//! Mutants tried by hand. Each makes the named model fail:
//! - commit store Relaxed, or its load: `records_arrive_whole_once_and_in_sequence`
//! - install Relaxed: `records_arrive_whole_once_and_in_sequence`
//! - lane word loaded Relaxed in `record`: `a_recycled_block_serves_again`
//! - index not cleared when recycling: `a_recycled_block_serves_again`
//! - generation not compared in `reserve`: `a_recycled_block_serves_again`
//! - recycling without moving the lane word off: `a_recycled_block_serves_again`, as endless loop
//! - no bell when a reservation ends the watch: `a_parked_driver_is_woken`
//! - blocks installed without the watch: `a_parked_driver_is_woken`
//! - no bell after sealing: `a_parked_driver_is_woken`
//! - close without sealing: `a_record_racing_close_is_taken_or_refused`
//! - lane word set to closed before the seal: `a_record_racing_close_is_taken_or_refused`
//! - accounts read in first, out second: `accounts_are_a_consistent_cut_for_any_thread`
//! - no fences in the sequence lock: `accounts_are_a_consistent_cut_for_any_thread`
//! - recycling a block with a loan out: `a_loan_keeps_its_block_from_being_used_again`
//! - loan's end Relaxed: `a_loan_keeps_its_block_from_being_used_again`
//! - state stored Relaxed at the install: `the_driver_balances_between_any_two_steps`

use loom::{sync::Notify, thread};

use crate::{
    Anonymous, Bell, Driver, Lanes, Outcome, Record, Refusal, Refused,
    accounts::{PublishedTotals, Totals},
    sync::{Arc, Ordering},
    word::LaneWord,
};

/// A bell with a token, as the engine's is.
#[derive(Clone)]
struct Token(Arc<Notify>);

impl Bell for Token {
    fn ring(&self) {
        self.0.notify();
    }
}

fn engine(lanes: usize, blocks: usize) -> (Lanes, Driver, Token) {
    let token = Token(Arc::new(Notify::new()));
    let (lanes, driver) =
        Lanes::new(Box::new(Anonymous::new(blocks)), lanes, Box::new(token.clone()));
    (lanes, driver, token)
}

/// Records `count` two-byte records as producer `name`; returns those accepted.
fn produce(lanes: &Lanes, name: u8, count: u8) -> Vec<[u8; 2]> {
    let records = (0..count).map(|number| [name, number]);
    records.filter(|record| lanes.record(0, record, 0).is_ok()).collect()
}

/// Takes whatever there is.
fn take_all(driver: &mut Driver) -> Vec<Record> {
    let mut records = Vec::new();
    driver.take_sealed(&mut |record| records.push(record));
    driver.take_open(u64::MAX, &mut |record| records.push(record));
    records
}

/// Reads what was taken, and settles it.
fn settle_all(driver: &mut Driver, records: &[Record], arrived: &mut Vec<[u8; 2]>) {
    for record in records {
        let loan = driver.lend(record.block, record.index, 1);
        arrived.push(loan.copy().try_into().expect("two bytes each"));
        drop(loan);
        driver.settle(record.block, record.index, 1, Outcome::Delivered);
    }
}

/// Takes and settles until `count` records have arrived.
fn drain(driver: &mut Driver, count: usize, arrived: &mut Vec<[u8; 2]>) {
    loop {
        let records = take_all(driver);
        settle_all(driver, &records, arrived);
        if arrived.len() >= count {
            return;
        }
        thread::yield_now();
    }
}

fn assert_same(mut arrived: Vec<[u8; 2]>, mut accepted: Vec<[u8; 2]>) {
    arrived.sort_unstable();
    accepted.sort_unstable();
    assert_eq!(arrived, accepted);
}

/// I1, I2, I5, I9, I11.
#[test]
fn records_arrive_whole_once_and_in_sequence() {
    loom::model(|| {
        let (lanes, mut driver, _) = engine(1, 3);
        let producers: Vec<_> = [(1, 2), (2, 1)]
            .map(|(name, count)| {
                let lanes = lanes.clone();
                thread::spawn(move || produce(&lanes, name, count))
            })
            .into();
        let mut arrived = Vec::new();
        let records = take_all(&mut driver);
        settle_all(&mut driver, &records, &mut arrived);
        let accepted: Vec<_> =
            producers.into_iter().flat_map(|producer| producer.join().unwrap()).collect();
        assert_eq!(accepted.len(), 3, "there was room");
        drain(&mut driver, 3, &mut arrived);
        assert_same(arrived, accepted);
        assert_eq!(driver.accounts().accepted, 3);
        driver.verify().unwrap();
    });
}

/// I3, I4, I6, I7.
#[test]
fn a_recycled_block_serves_again() {
    loom::model(|| {
        let (lanes, mut driver, _) = engine(1, 2);
        let mut accepted = produce(&lanes, 1, 2);
        let other = {
            let lanes = lanes.clone();
            thread::spawn(move || produce(&lanes, 2, 2))
        };
        let mut arrived = Vec::new();
        for _ in 0..2 {
            let records = take_all(&mut driver);
            settle_all(&mut driver, &records, &mut arrived);
        }
        accepted.extend(produce(&lanes, 3, 1));
        accepted.extend(other.join().unwrap());
        drain(&mut driver, accepted.len(), &mut arrived);
        assert_same(arrived, accepted);
        driver.verify().unwrap();
    });
}

/// I10: a lost wake-up would leave the model without a thread to run.
fn model_of_parking(records: u8) {
    loom::model(move || {
        let (lanes, mut driver, token) = engine(1, 2);
        let producer = thread::spawn(move || produce(&lanes, 1, records));
        let mut arrived = Vec::new();
        while arrived.len() < usize::from(records) {
            let records = take_all(&mut driver);
            if records.is_empty() {
                if driver.park() {
                    token.0.wait();
                } else {
                    thread::yield_now();
                }
            }
            settle_all(&mut driver, &records, &mut arrived);
        }
        assert_same(arrived, producer.join().unwrap());
    });
}

#[test]
fn a_parked_driver_is_woken_by_the_next_record() {
    model_of_parking(2);
}

#[test]
fn a_parked_driver_is_woken_by_the_next_block() {
    model_of_parking(3);
}

/// I8, I11.
#[test]
fn a_record_racing_close_is_taken_or_refused() {
    loom::model(|| {
        let (lanes, mut driver, _) = engine(1, 3);
        let producers: Vec<_> = [(1, 2), (2, 1)]
            .map(|(name, count)| {
                let lanes = lanes.clone();
                thread::spawn(move || produce(&lanes, name, count))
            })
            .into();
        driver.close();
        let closed_at = driver.accounts().accepted;
        let accepted: Vec<_> =
            producers.into_iter().flat_map(|producer| producer.join().unwrap()).collect();
        assert_eq!(accepted.len() as u64, closed_at, "the close decided");
        assert_eq!(lanes.record(0, &[9, 9], 0), Err(Refusal::Closed));
        let mut arrived = Vec::new();
        drain(&mut driver, accepted.len(), &mut arrived);
        assert_same(arrived, accepted);
        assert_eq!(driver.accounts().pending, 0);
        driver.verify().unwrap();
    });
}

/// What the driver abandons after a close is exactly what it hadn't settled.
#[test]
fn abandoning_settles_the_rest_exactly() {
    loom::model(|| {
        let (lanes, mut driver, _) = engine(1, 3);
        let producer = {
            let lanes = lanes.clone();
            thread::spawn(move || produce(&lanes, 1, 3).len() as u64)
        };
        let mut arrived = Vec::new();
        let records = take_all(&mut driver);
        settle_all(&mut driver, &records, &mut arrived);
        driver.close();
        let abandoned = driver.abandon(Outcome::Closed);
        let accounts = driver.accounts();
        assert_eq!(accounts.pending, 0);
        assert_eq!(accounts.delivered, arrived.len() as u64);
        assert_eq!(accounts.dropped.closed, abandoned);
        assert_eq!(accounts.accepted, producer.join().unwrap());
        assert!(accounts.is_balanced());
        driver.take_sealed(&mut |record| panic!("{record:?} was abandoned"));
        driver.tend_pool();
        driver.verify().unwrap();
    });
}

/// Flush: what was recorded before it, on any thread that happens before it, is below its target.
#[test]
fn a_flush_target_covers_what_came_before() {
    loom::model(|| {
        let (lanes, mut driver, _) = engine(1, 3);
        let producer = {
            let lanes = lanes.clone();
            thread::spawn(move || {
                let accepted = produce(&lanes, 1, 2);
                (accepted, lanes.seq_targets())
            })
        };
        let other = {
            let lanes = lanes.clone();
            thread::spawn(move || produce(&lanes, 2, 1))
        };
        let (before, targets) = producer.join().unwrap();
        let mut arrived = Vec::new();
        loop {
            let records = take_all(&mut driver);
            settle_all(&mut driver, &records, &mut arrived);
            if driver.has_reached(&targets) {
                break;
            }
            thread::yield_now();
        }
        assert!(before.iter().all(|record| arrived.contains(record)));
        other.join().unwrap();
    });
}

/// Promise 1 as any thread sees it.
#[test]
fn accounts_are_a_consistent_cut_for_any_thread() {
    loom::model(|| {
        let (lanes, mut driver, _) = engine(1, 2);
        let reader = {
            let lanes = lanes.clone();
            thread::spawn(move || {
                let accounts = lanes.accounts();
                assert!(accounts.is_balanced() && accounts.pending <= 2, "{accounts:?}");
            })
        };
        assert_eq!(produce(&lanes, 1, 2).len(), 2);
        for record in take_all(&mut driver) {
            driver.settle(record.block, record.index, 1, Outcome::Delivered);
        }
        reader.join().unwrap();
    });
}

/// The sequence lock, with two words that change at once.
#[test]
fn published_totals_are_read_whole() {
    loom::model(|| {
        let published = Arc::new(PublishedTotals::new());
        let reader = {
            let published = Arc::clone(&published);
            thread::spawn(move || {
                let accounts = published.read().accounts(4, Refused::default());
                assert_eq!(accounts.delivered, accounts.dropped.evicted);
            })
        };
        let mut totals = Totals::default();
        for _ in 0..2 {
            totals.add(Outcome::Delivered, 1);
            totals.add(Outcome::Evicted, 1);
            published.publish(&totals);
        }
        reader.join().unwrap();
    });
}

/// The sum over the lanes never mixes two lives of one block.
#[test]
fn accounts_read_while_a_block_is_used_again_stay_true() {
    loom::model(|| {
        let (lanes, mut driver, _) = engine(1, 1);
        assert_eq!(produce(&lanes, 1, 2).len(), 2);
        assert_eq!(lanes.record(0, &[1, 2], 0), Err(Refusal::Full)); // Seals the only block.
        let records = take_all(&mut driver);
        let reader = {
            let lanes = lanes.clone();
            thread::spawn(move || {
                let accepted = lanes.shared().next_seq(0);
                assert!((2..=3).contains(&accepted), "{accepted}");
            })
        };
        driver.settle(records[0].block, 0, 2, Outcome::Delivered);
        lanes.record(0, &[3, 3], 0).unwrap();
        reader.join().unwrap();
    });
}

/// The driver's own check is exact at any moment, while producers record.
#[test]
fn the_driver_balances_between_any_two_steps() {
    loom::model(|| {
        let (lanes, mut driver, _) = engine(1, 2);
        let producer = {
            let lanes = lanes.clone();
            thread::spawn(move || produce(&lanes, 1, 3))
        };
        let mut arrived = Vec::new();
        driver.verify().unwrap();
        let records = take_all(&mut driver);
        driver.verify().unwrap();
        settle_all(&mut driver, &records, &mut arrived);
        driver.verify().unwrap();
        producer.join().unwrap();
        driver.verify().unwrap();
    });
}

/// I6: a race between the borrower's read and the next life's write would be reported.
#[test]
fn a_loan_keeps_its_block_from_being_used_again() {
    loom::model(|| {
        let (lanes, mut driver, _) = engine(1, 1);
        assert_eq!(produce(&lanes, 1, 2).len(), 2);
        assert_eq!(lanes.record(0, &[1, 2], 0), Err(Refusal::Full)); // Seals the only block.
        let records = take_all(&mut driver);
        let loan = driver.lend(records[0].block, 0, 2);
        let borrower = thread::spawn(move || assert_eq!(loan.copy(), [1, 0, 1, 1]));
        let producer = thread::spawn(move || produce(&lanes, 2, 1));
        driver.settle(records[0].block, 0, 2, Outcome::Delivered);
        driver.tend_pool();
        borrower.join().unwrap();
        driver.tend_pool();
        producer.join().unwrap();
        driver.verify().unwrap();
    });
}

/// A driver that sleeps although a producer starves, because the only block is on loan, is woken.
#[test]
fn the_end_of_a_loan_wakes_a_parked_driver() {
    loom::model(|| {
        let (lanes, mut driver, token) = engine(1, 1);
        assert_eq!(produce(&lanes, 1, 2).len(), 2);
        assert_eq!(lanes.record(0, &[1, 2], 0), Err(Refusal::Full));
        let records = take_all(&mut driver);
        let loan = driver.lend(records[0].block, 0, 2);
        let borrower = thread::spawn(move || drop(loan));
        driver.settle(records[0].block, 0, 2, Outcome::Delivered);
        while lanes.record(0, &[1, 2], 0).is_err() {
            assert!(driver.park(), "everything is taken");
            token.0.wait();
            driver.tend_pool();
        }
        borrower.join().unwrap();
    });
}

/// Who finds no block after the driver has given one back is heard, whoever got that one.
#[test]
fn a_starving_producer_is_heard() {
    loom::model(|| {
        let (lanes, mut driver, _) = engine(2, 1);
        assert_eq!(produce(&lanes, 1, 2).len(), 2);
        assert_eq!(lanes.record(0, &[1, 2], 0), Err(Refusal::Full));
        let records = take_all(&mut driver);
        let producer = thread::spawn(move || {
            lanes.record(1, &[2, 2], 0).is_ok() && lanes.record(0, &[1, 2], 0).is_err()
        });
        driver.settle(records[0].block, 0, 2, Outcome::Delivered);
        if producer.join().unwrap() {
            assert!(driver.is_starving());
        }
    });
}

/// I8: a producer that found no block gets the idle lane's, and nothing is lost on either.
#[test]
fn an_idle_lanes_block_is_reclaimed_for_a_starving_one() {
    loom::model(|| {
        let (lanes, mut driver, _) = engine(2, 1);
        lanes.record(1, &[7, 7], 0).unwrap();
        let mut arrived = Vec::new();
        let records = take_all(&mut driver);
        settle_all(&mut driver, &records, &mut arrived);
        assert_eq!(lanes.record(0, &[8, 8], 0), Err(Refusal::Full));
        let idle = {
            let lanes = lanes.clone();
            thread::spawn(move || lanes.record(1, &[9, 9], 0).is_ok())
        };
        driver.tend_pool();
        let was_accepted = lanes.record(0, &[8, 8], 0).is_ok();
        let other_was_accepted = idle.join().unwrap();
        let count = 1 + usize::from(was_accepted) + usize::from(other_was_accepted);
        assert!(count >= 2, "one of the two got the block");
        drain(&mut driver, count, &mut arrived);
        assert_eq!(driver.accounts().accepted, count as u64);
        driver.verify().unwrap();
    });
}

/// As above; a block that was installed a moment ago is not idle, though nothing is pending in it.
#[test]
fn a_block_just_installed_is_not_reclaimed() {
    loom::model(|| {
        let (lanes, mut driver, _) = engine(2, 1);
        let other = {
            let lanes = lanes.clone();
            thread::spawn(move || lanes.record(1, &[9, 9], 0).is_ok())
        };
        let was_accepted = lanes.record(0, &[8, 8], 0).is_ok();
        driver.tend_pool();
        let count = usize::from(was_accepted) + usize::from(other.join().unwrap());
        assert!(count >= 1, "one of the two got the block");
        drain(&mut driver, count, &mut Vec::new());
        driver.verify().unwrap();
    });
}

/// I4: a producer that saw the seal reads base_seq while the block already serves another lane.
#[test]
fn a_late_helper_does_not_bend_the_sequence() {
    loom::model(|| {
        let (lanes, mut driver, _) = engine(2, 4);
        for lane in [0, 0, 1, 1] {
            lanes.record(lane, &[1, 1], 0).unwrap();
        }
        let producers: Vec<_> = [0, 1]
            .map(|lane| {
                let lanes = lanes.clone();
                thread::spawn(move || lanes.record(lane, &[2, 2], 0).unwrap())
            })
            .into();
        let mut records = Vec::new();
        while records.is_empty() {
            thread::yield_now();
            driver.take_sealed(&mut |record| records.push(record));
        }
        for record in records {
            driver.settle(record.block, record.index, 1, Outcome::Delivered);
        }
        for producer in producers {
            producer.join().unwrap();
        }
        let next = [0, 1].map(|lane| lanes.shared().next_seq(lane));
        assert_eq!(next, [3, 3]);
    });
}

/// I3: no life of a block is ever named by two installs.
#[test]
fn an_install_that_lost_gives_its_block_back() {
    loom::model(|| {
        let (lanes, driver, _) = engine(1, 2);
        let other = {
            let lanes = lanes.clone();
            thread::spawn(move || lanes.record(0, &[1, 1], 0).unwrap())
        };
        let one = lanes.record(0, &[2, 2], 0).unwrap();
        assert_ne!(one, other.join().unwrap());
        assert_eq!(driver.accounts().accepted, 2);
        let shared = lanes.shared();
        assert_eq!(shared.pool.blocks_free(), 1, "both records went into one block");
        let word = LaneWord::unpack(shared.lanes[0].word.load(Ordering::Relaxed));
        assert!(matches!(word, LaneWord::Block(_)));
    });
}
