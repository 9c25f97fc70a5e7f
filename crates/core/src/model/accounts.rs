//! Every reader of the accounts, at any moment: threads, flushes and the driver itself.

use loom::thread;

use crate::{
    Outcome, Refusal, Refused,
    accounts::{PublishedTotals, Totals},
    model::{engine, produce, settle_all, take_all},
    sync::Arc,
};

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
