//! What producers and driver do to words and bytes: reserve, commit, take, recycle, close.

use loom::thread;

use crate::{
    Outcome, Refusal,
    model::{assert_same, drain, engine, produce, settle_all, take_all},
    sync::Ordering,
    word::LaneWord,
};

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
        let abandoned = driver.abandon(Outcome::Closed, &mut drop);
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
