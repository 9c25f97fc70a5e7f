//! Nobody sleeps over work: the watch, the bell, loans and starving producers.

use loom::thread;

use crate::{
    Outcome, Refusal,
    model::{assert_same, drain, engine, produce, settle_all, take_all},
};

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

/// Who finds no block because a loser of an install has it for a moment is woken when that one
/// gives it back: a lost wake-up would leave the model without a thread to run.
#[test]
fn a_block_that_an_install_gives_back_is_heard_of() {
    loom::model(|| {
        let (lanes, _driver, token) = engine(2, 2);
        let others: Vec<_> = (0..2)
            .map(|name| {
                let lanes = lanes.clone();
                thread::spawn(move || drop(lanes.record(0, &[name, 0], 0)))
            })
            .collect();
        while lanes.record(1, &[7, 7], 0).is_err() {
            token.0.wait();
        }
        others.into_iter().for_each(|other| other.join().unwrap());
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
