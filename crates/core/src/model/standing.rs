//! What those are told who ask about one record, and those who wait for it.

use loom::{sync::Notify, thread};

use crate::{
    Lanes, Outcome, Receipt, Refusal, Sleepers, Standing,
    model::{assert_same, drain, engine, produce, settle_all, take_all},
    sync::Arc,
};

fn settled(outcome: Outcome) -> Standing {
    Standing::Settled { outcome, is_possibly_stored: false }
}

/// Fills the only block of the only lane, and has it sealed; the receipt of its first record.
fn fill(lanes: &Lanes) -> Receipt {
    let receipt = lanes.record(0, &[1, 0], 0).unwrap();
    lanes.record(0, &[1, 1], 0).unwrap();
    assert_eq!(lanes.record(0, &[1, 2], 0), Err(Refusal::Full));
    receipt
}

/// Whoever looks while the record is sent, settled, recycled and its place used again sees nothing
/// but what was true of it.
#[test]
fn a_standing_is_never_that_of_another_life() {
    loom::model(|| {
        let (lanes, mut driver, _) = engine(1, 1);
        let receipt = fill(&lanes);
        let records = take_all(&mut driver);
        let reader = {
            let lanes = lanes.clone();
            thread::spawn(move || [lanes.standing(receipt), lanes.standing(receipt)])
        };
        driver.mark_sent(records[0].block, 0, 1);
        driver.settle(records[0].block, 0, 1, Outcome::DeadLettered);
        driver.settle(records[0].block, 1, 1, Outcome::Delivered);
        lanes.record(0, &[3, 3], 0).unwrap();
        let block = take_all(&mut driver)[0].block;
        driver.mark_sent(block, 0, 1);
        driver.settle(block, 0, 1, Outcome::Delivered);
        let order = [Standing::Recorded, Standing::Sent, settled(Outcome::DeadLettered)];
        let places = reader.join().unwrap().map(|seen| order.iter().position(|it| *it == seen));
        assert!(places[0].is_some() && places[0] <= places[1], "{places:?}");
        assert_eq!(lanes.standing(receipt), settled(Outcome::DeadLettered));
    });
}

/// What was pushed out of the memory is said to be forgotten, and never to be delivered.
#[test]
fn what_is_forgotten_is_not_said_to_be_delivered() {
    loom::model(|| {
        let (lanes, mut driver, _) = engine(1, 1);
        let receipt = fill(&lanes);
        let records = take_all(&mut driver);
        let reader = {
            let lanes = lanes.clone();
            thread::spawn(move || lanes.standing(receipt))
        };
        // The model's memory holds one span: the second pushes out the first.
        driver.settle(records[0].block, 0, 1, Outcome::Evicted);
        driver.settle(records[0].block, 1, 1, Outcome::DeadLettered);
        let known = [Standing::Recorded, settled(Outcome::Evicted), Standing::Forgotten];
        let seen = reader.join().unwrap();
        assert!(known.contains(&seen), "{seen:?}");
        assert_eq!(lanes.standing(receipt), Standing::Forgotten);
    });
}

/// The same while the block lives on, and what is pushed out is of lives that the reader has not
/// seen.
#[test]
fn what_is_forgotten_in_later_lives_is_not_said_to_be_delivered() {
    loom::model(|| {
        let (lanes, mut driver, _) = engine(1, 1);
        let receipt = fill(&lanes);
        let records = take_all(&mut driver);
        let reader = {
            let lanes = lanes.clone();
            thread::spawn(move || lanes.standing(receipt))
        };
        driver.settle(records[0].block, 0, 2, Outcome::Evicted);
        for _ in 0..3 {
            fill(&lanes);
            let records = take_all(&mut driver);
            driver.settle(records[0].block, 0, 2, Outcome::DeadLettered);
        }
        let known = [Standing::Recorded, settled(Outcome::Evicted), Standing::Forgotten];
        let seen = reader.join().unwrap();
        assert!(known.contains(&seen), "{seen:?}");
    });
}

/// A rebuild marks what was sent, and what it marks is of the block's present life.
#[test]
fn a_standing_across_a_rebuild_is_never_that_of_another_life() {
    loom::model(|| {
        let (lanes, mut driver, _) = engine(1, 1);
        let receipt = fill(&lanes);
        let records = take_all(&mut driver);
        let reader = {
            let lanes = lanes.clone();
            thread::spawn(move || lanes.standing(receipt))
        };
        driver.settle(records[0].block, 0, 2, Outcome::DeadLettered);
        lanes.record(0, &[3, 3], 0).unwrap();
        let block = take_all(&mut driver)[0].block;
        driver.mark_sent(block, 0, 1);
        driver.rebuild();
        let known = [Standing::Recorded, settled(Outcome::DeadLettered)];
        let seen = reader.join().unwrap();
        assert!(known.contains(&seen), "{seen:?}");
    });
}

/// Whoever looks while the record is set apart, taken back, settled and its place set apart again
/// for another one sees nothing but what was true of it.
#[test]
fn a_record_is_not_set_apart_for_that_of_another_life() {
    loom::model(|| {
        let (lanes, mut driver, _) = engine(1, 1);
        let receipt = fill(&lanes);
        let records = take_all(&mut driver);
        let reader = {
            let lanes = lanes.clone();
            thread::spawn(move || [lanes.standing(receipt), lanes.standing(receipt)])
        };
        driver.set_apart(records[0].block, 0, 1, true);
        driver.settle(records[0].block, 0, 2, Outcome::DeadLettered);
        lanes.record(0, &[3, 3], 0).unwrap();
        let block = take_all(&mut driver)[0].block;
        driver.set_apart(block, 0, 1, true);
        let order = [Standing::Recorded, Standing::SetApart, settled(Outcome::DeadLettered)];
        let places = reader.join().unwrap().map(|seen| order.iter().position(|it| *it == seen));
        assert!(places[0].is_some() && places[0] <= places[1], "{places:?}");
        assert_eq!(driver.apart(), 1);
        driver.settle(block, 0, 1, Outcome::Delivered);
        assert_eq!(driver.apart(), 0);
        assert_eq!(lanes.standing(receipt), settled(Outcome::DeadLettered));
    });
}

/// A lost wake-up would leave the model without a thread to run.
#[test]
fn a_sleeper_is_woken_by_what_it_waits_for() {
    loom::model(|| {
        let (lanes, mut driver, _) = engine(1, 1);
        let receipt = lanes.record(0, &[1, 0], 0).unwrap();
        let records = take_all(&mut driver);
        let (sleepers, token) = (Arc::new(Sleepers::default()), Arc::new(Notify::new()));
        let sleeper = {
            let (sleepers, token) = (Arc::clone(&sleepers), Arc::clone(&token));
            thread::spawn(move || {
                let _sleeper = sleepers.enter();
                while lanes.standing(receipt) != settled(Outcome::Delivered) {
                    token.wait();
                }
            })
        };
        driver.settle(records[0].block, 0, 1, Outcome::Delivered);
        if sleepers.is_any() {
            token.notify();
        }
        sleeper.join().unwrap();
    });
}

/// A driver that forgets everything, at any moment, finds each record again that isn't settled, and
/// no other.
#[test]
fn a_rebuilt_driver_takes_what_is_not_settled_once_more() {
    loom::model(|| {
        let (lanes, mut driver, _) = engine(1, 3);
        let producer = {
            let lanes = lanes.clone();
            thread::spawn(move || produce(&lanes, 1, 4))
        };
        let mut arrived = Vec::new();
        let records = take_all(&mut driver);
        settle_all(&mut driver, &records[..records.len().min(1)], &mut arrived);
        driver.rebuild();
        driver.verify().unwrap();
        let targets = lanes.seq_targets();
        if driver.has_reached(&targets) {
            assert_eq!(arrived.len() as u64, targets.0[0], "nothing below it is unsettled");
        }
        let accepted = producer.join().unwrap();
        drain(&mut driver, accepted.len(), &mut arrived);
        assert!(driver.has_reached(&targets));
        assert_same(arrived, accepted);
        assert_eq!(driver.accounts().pending, 0);
        driver.verify().unwrap();
    });
}
