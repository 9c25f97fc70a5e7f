//! Records that are set apart, and those that wait for others beside them.

use crate::{Anonymous, Bell, Driver, Lanes, Outcome, Receipt, Record, Standing};

struct Deaf;

impl Bell for Deaf {
    fn ring(&self) {}
}

/// One lane with three blocks, and so many records of ten bytes in it, taken.
fn engine(records: usize) -> (Lanes, Driver, Vec<Receipt>) {
    let (lanes, mut driver) =
        Lanes::new(Box::new(Anonymous::new(3).expect("memory")), 1, Box::new(Deaf));
    let receipts =
        (0..records).map(|_| lanes.record(0, &[1; 10], 0).expect("there is room")).collect();
    take(&mut driver);
    (lanes, driver, receipts)
}

fn take(driver: &mut Driver) -> Vec<Record> {
    let mut records = Vec::new();
    driver.take_sealed(&mut |record| records.push(record));
    driver.take_open(u64::MAX, &mut |record| records.push(record));
    records
}

#[test]
fn a_flush_steps_over_what_is_set_apart_when_all_else_is_settled() {
    let (lanes, mut driver, receipts) = engine(4);
    let targets = lanes.seq_targets();
    driver.set_apart(0, 1, 2, true);
    assert_eq!((driver.apart(), driver.apart_below(&targets)), (2, None));
    driver.settle(0, 0, 1, Outcome::Delivered);
    assert_eq!(driver.apart_below(&targets), None, "the last one is pending");
    driver.settle(0, 3, 1, Outcome::Delivered);
    assert_eq!(driver.apart_below(&targets), Some(2));
    assert!(!driver.has_reached(&targets));
    assert_eq!(lanes.standing(receipts[1]), Standing::SetApart);
    // What comes later is nobody's business who waits for these.
    lanes.record(0, &[2; 10], 0).unwrap();
    assert_eq!(driver.apart_below(&targets), Some(2));
    assert_eq!(driver.apart_below(&lanes.seq_targets()), None, "it isn't even taken");
    driver.set_apart(0, 1, 1, false);
    assert_eq!(driver.apart_below(&targets), None, "one is waited for again");
    assert_eq!(lanes.standing(receipts[1]), Standing::Recorded);
    driver.settle(0, 1, 2, Outcome::Delivered);
    assert_eq!((driver.apart(), driver.apart_below(&targets)), (0, Some(0)));
    assert!(driver.has_reached(&targets));
    driver.verify().unwrap();
}

#[test]
fn setting_apart_twice_or_what_is_settled_counts_nothing() {
    let (lanes, mut driver, receipts) = engine(3);
    driver.settle(0, 0, 1, Outcome::DeadLettered);
    for _ in 0..2 {
        driver.set_apart(0, 0, 2, true);
        assert_eq!(driver.apart(), 1);
    }
    let is_possibly_stored = false;
    let dead = Standing::Settled { outcome: Outcome::DeadLettered, is_possibly_stored };
    assert_eq!(lanes.standing(receipts[0]), dead);
    for _ in 0..2 {
        driver.set_apart(0, 0, 3, false);
        assert_eq!(driver.apart(), 0);
    }
    driver.verify().unwrap();
}

#[test]
#[should_panic(expected = "set apart before it was taken")]
fn what_was_not_taken_cannot_be_set_apart() {
    let (_lanes, mut driver, _) = engine(2);
    driver.set_apart(0, 1, 2, true);
}

#[test]
fn the_oldest_pending_record_is_not_one_that_is_set_apart() {
    let (lanes, mut driver) =
        Lanes::new(Box::new(Anonymous::new(3).expect("memory")), 1, Box::new(Deaf));
    for at_ms in [5, 6, 7] {
        lanes.record(0, &[1; 10], at_ms).unwrap();
    }
    take(&mut driver);
    assert_eq!(driver.oldest_pending_ms(), Some(5));
    driver.set_apart(0, 0, 1, true);
    driver.settle(0, 1, 1, Outcome::Delivered);
    assert_eq!(driver.oldest_pending_ms(), Some(7));
    driver.set_apart(0, 2, 1, true);
    assert_eq!(driver.oldest_pending_ms(), None);
    driver.set_apart(0, 0, 1, false);
    assert_eq!(driver.oldest_pending_ms(), Some(5));
}

#[test]
fn a_block_is_apart_when_nothing_else_in_it_is_pending_and_it_is_sealed() {
    let (lanes, mut driver, _) = engine(3);
    driver.set_apart(0, 0, 1, true);
    driver.settle(0, 1, 2, Outcome::Delivered);
    assert!(driver.blocks_apart().is_empty(), "more may come to it");
    driver.close(); // Seals it.
    take(&mut driver);
    assert_eq!(driver.blocks_apart(), [0]);
    driver.set_apart(0, 0, 1, false);
    assert!(driver.blocks_apart().is_empty());
    driver.settle(0, 0, 1, Outcome::Delivered);
    assert_eq!((driver.apart(), driver.accounts().pending), (0, 0));
    driver.verify().unwrap();
    drop(lanes);
}

#[test]
fn after_a_rebuild_nothing_is_set_apart_and_all_of_it_is_taken_again() {
    let (lanes, mut driver, receipts) = engine(4);
    let targets = lanes.seq_targets();
    driver.mark_sent(0, 1, 1);
    driver.set_apart(0, 1, 2, true);
    driver.settle(0, 0, 1, Outcome::Delivered);
    driver.settle(0, 3, 1, Outcome::Delivered);
    assert_eq!(driver.rebuild(), 1, "one was sent");
    assert_eq!((driver.apart(), driver.apart_below(&targets)), (0, None));
    assert_eq!(lanes.standing(receipts[1]), Standing::Sent);
    assert_eq!(lanes.standing(receipts[2]), Standing::Recorded);
    let taken: Vec<_> = take(&mut driver).iter().map(|record| record.index).collect();
    assert_eq!(taken, [1, 2]);
    assert_eq!(driver.apart_below(&targets), None);
    driver.set_apart(0, 1, 2, true);
    assert_eq!(driver.apart_below(&targets), Some(2));
    driver.verify().unwrap();
}

#[test]
fn what_is_abandoned_is_no_longer_set_apart() {
    let (_lanes, mut driver, _) = engine(3);
    driver.set_apart(0, 0, 2, true);
    driver.close();
    assert_eq!(driver.abandon(Outcome::Closed, &mut |_| {}), 3);
    assert_eq!((driver.apart(), driver.accounts().pending), (0, 0));
    driver.verify().unwrap();
}
