//! A producer that is stopped in the middle of `record`, played by hand on its words.

use crate::{
    Anonymous, Bell, Driver, Lanes, Outcome, Record, Refusal,
    pool::Ready,
    sync::Ordering,
    word::{BlockWord, IndexWord, LaneWord, State},
};

struct Deaf;

impl Bell for Deaf {
    fn ring(&self) {}
}

/// What a producer does step by step.
struct Stopped {
    lanes: Lanes,
    word: BlockWord,
}

impl Stopped {
    /// On its way through the lane's open block.
    fn new(lanes: &Lanes) -> Self {
        let word = lanes.shared().lanes[0].word.load(Ordering::Acquire);
        let LaneWord::Block(word) = LaneWord::unpack(word) else { panic!("the lane has no block") };
        Self { lanes: lanes.clone(), word }
    }

    fn seal(&self) {
        let block = &self.lanes.shared().blocks()[self.word.id as usize];
        let state = block.load_state(Ordering::Relaxed);
        assert!(block.swap_state(state, state.sealed()).is_ok());
    }

    fn push(&self) {
        self.lanes.shared().pool.push_ready(Ready { lane: 0, block: self.word });
    }

    /// Reserves ten bytes; what commits them is given back.
    fn reserve(&self) -> impl FnOnce() {
        let block = &self.lanes.shared().blocks()[self.word.id as usize];
        let state = block.load_state(Ordering::Relaxed);
        assert!(block.swap_state(state, state.reserved(10)).is_ok());
        let word = IndexWord { offset: state.used(), length: 10, age_ms: 0 };
        move || block.commit(state.count(), word)
    }
}

fn engine() -> (Lanes, Driver) {
    Lanes::new(Box::new(Anonymous::new(3).expect("memory")), 1, Box::new(Deaf))
}

fn taken(take: impl FnOnce(&mut dyn FnMut(Record))) -> Vec<u32> {
    let mut indices = Vec::new();
    take(&mut |record| indices.push(record.index));
    indices
}

#[test]
fn a_sealed_block_is_taken_although_its_sealer_was_stopped_before_the_push() {
    let (lanes, mut driver) = engine();
    lanes.record(0, &[1; 10], 0).unwrap();
    let targets = lanes.seq_targets();
    let sealer = Stopped::new(&lanes);
    sealer.seal();
    let id = sealer.word.id;
    assert_eq!(taken(|sink| _ = driver.take_open(0, &mut |record| sink(record))), [0]);
    driver.settle(id, 0, 1, Outcome::Delivered);
    assert!(driver.has_reached(&targets));
    driver.verify().unwrap();

    lanes.record(0, &[2; 10], 0).unwrap();
    assert_ne!(Stopped::new(&lanes).word.id, id, "another producer installed the next block");
    driver.verify().unwrap();
    assert_eq!(driver.shared.pool.blocks_free(), 1);
    sealer.push();
    assert!(taken(|sink| driver.take_sealed(&mut |record| sink(record))).is_empty());
    assert_eq!(driver.shared.pool.blocks_free(), 2, "recycled once it came through");
    driver.verify().unwrap();
}

#[test]
fn a_block_met_before_the_one_in_front_of_it_doesnt_move_the_watermark() {
    let (lanes, mut driver) = engine();
    lanes.record(0, &[1; 10], 0).unwrap();
    let sealer = Stopped::new(&lanes);
    sealer.seal();
    lanes.record(0, &[2; 10], 0).unwrap();
    let (targets, second) = (lanes.seq_targets(), Stopped::new(&lanes).word.id);
    assert_eq!(taken(|sink| _ = driver.take_open(0, &mut |record| sink(record))), [0]);
    driver.settle(second, 0, 1, Outcome::Delivered);
    driver.verify().unwrap();
    assert!(!driver.has_reached(&targets), "the first record is unsettled");
    sealer.push();
    assert_eq!(taken(|sink| driver.take_sealed(&mut |record| sink(record))), [0]);
    driver.settle(sealer.word.id, 0, 1, Outcome::Delivered);
    assert!(driver.has_reached(&targets));
    driver.verify().unwrap();
}

#[test]
fn a_record_in_the_making_hides_what_is_behind_it_until_it_is_committed() {
    let (lanes, mut driver) = engine();
    lanes.record(0, &[1; 10], 0).unwrap();
    let producer = Stopped::new(&lanes);
    let commit = producer.reserve();
    lanes.record(0, &[3; 10], 0).unwrap();
    let mut waiting = None;
    let first = taken(|sink| waiting = Some(driver.take_open(0, &mut |record| sink(record))));
    assert_eq!((first, waiting.unwrap().has_hole), (vec![0], true));
    producer.seal();
    producer.push();
    assert!(taken(|sink| driver.take_sealed(&mut |record| sink(record))).is_empty());
    assert!(driver.has_hole() && !driver.park());
    commit();
    assert!(taken(|sink| _ = driver.take_open(0, &mut |record| sink(record))).is_empty());
    assert_eq!(taken(|sink| driver.take_sealed(&mut |record| sink(record))), [1, 2]);
    driver.settle(producer.word.id, 0, 3, Outcome::Delivered);
    assert!(!driver.has_hole() && driver.park());
    driver.verify().unwrap();
}

#[test]
fn a_block_abandoned_with_a_writer_inside_is_not_used_again() {
    let (lanes, mut driver) = engine();
    lanes.record(0, &[1; 10], 0).unwrap();
    let producer = Stopped::new(&lanes);
    let commit = producer.reserve();
    driver.close();
    assert_eq!(driver.abandon(Outcome::Closed, &mut drop), 2);
    driver.take_sealed(&mut |record| panic!("{record:?} was abandoned"));
    driver.tend_pool();
    assert_eq!(driver.shared.pool.blocks_free(), 2, "the third keeps its generation");
    commit();
    driver.take_sealed(&mut |record| panic!("{record:?} was abandoned"));
    assert_eq!((driver.has_hole(), driver.accounts().pending), (false, 0));
    driver.verify().unwrap();
}

#[test]
fn a_rebuilt_driver_owes_exactly_what_is_not_settled() {
    let (lanes, mut driver) = engine();
    for number in 0..5 {
        lanes.record(0, &[number; 100], 0).unwrap();
    }
    assert_eq!(
        taken(|sink| _ = driver.take_open(u64::MAX, &mut |record| sink(record))),
        [0, 1, 2, 3, 4]
    );
    driver.mark_sent(0, 1, 3);
    driver.settle(0, 0, 1, Outcome::Delivered);
    driver.settle(0, 2, 1, Outcome::Delivered);
    let before = driver.accounts();
    assert_eq!(driver.rebuild(), 2, "records 1 and 3 were sent");
    driver.verify().unwrap();
    assert_eq!(driver.accounts(), before);
    let targets = lanes.seq_targets();
    assert_eq!(taken(|sink| _ = driver.take_open(u64::MAX, &mut |record| sink(record))), [1, 3, 4]);
    driver.settle(0, 1, 1, Outcome::GaveUp);
    driver.settle(0, 3, 2, Outcome::GaveUp);
    assert!(driver.has_reached(&targets));
    assert_eq!(driver.accounts().possibly_stored, 2, "of the three, 4 was never sent");
    driver.verify().unwrap();
}

#[test]
fn a_rebuilt_driver_recycles_a_sealed_block_once() {
    let (lanes, mut driver) = engine();
    lanes.record(0, &[1; 100], 0).unwrap();
    let stopped = Stopped::new(&lanes);
    stopped.seal();
    driver.rebuild();
    assert_eq!(taken(|sink| driver.take_sealed(&mut |record| sink(record))), [0]);
    driver.settle(0, 0, 1, Outcome::Delivered);
    driver.tend_pool();
    assert_eq!(driver.blocks_free(), 3);
    stopped.push(); // Its sealer comes late.
    driver.take_sealed(&mut |record| panic!("{record:?} was taken twice"));
    driver.tend_pool();
    assert_eq!(driver.blocks_free(), 3);
    driver.verify().unwrap();
}

#[test]
fn a_rebuilt_driver_knows_that_what_has_no_block_any_longer_was_settled() {
    let (lanes, mut driver) = engine();
    for _ in 0..2 {
        lanes.record(0, &[1; 100], 0).unwrap();
        let stopped = Stopped::new(&lanes);
        stopped.seal();
        stopped.push();
        assert_eq!(taken(|sink| driver.take_sealed(&mut |record| sink(record))), [0]);
        driver.settle(0, 0, 1, Outcome::Delivered);
        driver.rebuild();
        assert!(driver.has_reached(&lanes.seq_targets()));
    }
    lanes.record(0, &[1; 100], 0).unwrap();
    let targets = lanes.seq_targets();
    driver.rebuild();
    assert!(!driver.has_reached(&targets));
    assert_eq!(taken(|sink| _ = driver.take_open(u64::MAX, &mut |record| sink(record))), [0]);
    driver.settle(0, 0, 1, Outcome::Delivered);
    assert!(driver.has_reached(&targets));
    driver.verify().unwrap();
}

/// As `install` does, for a lane whose block is sealed, or that has none.
fn install(lanes: &Lanes, seq: u64) -> Stopped {
    let shared = lanes.shared();
    let id = shared.pool.pop_block().expect("a block is free");
    let block = &shared.blocks()[id as usize];
    let generation = block.load_state(Ordering::Relaxed).generation();
    block.opening.base_seq.store(seq, Ordering::Release);
    block.state.store(State::opened(generation).0, Ordering::Release);
    let word = LaneWord::Block(BlockWord { id, generation });
    shared.lanes[0].word.store(word.pack(), Ordering::Release);
    Stopped::new(lanes)
}

/// Longer than a record's age in its block can be said.
const HOUR_MS: u64 = 3_600_000;

#[test]
fn a_block_sealed_without_a_record_stops_no_watermark_whenever_it_is_met() {
    for is_parked_on in [false, true] {
        let (lanes, mut driver) = engine();
        let empty = install(&lanes, 0); // Its installer was stopped right behind this.
        if is_parked_on {
            assert!(driver.park(), "there is nothing in it");
        }
        empty.seal(); // Another found it too old, and was stopped before the push.
        lanes.record(0, &[1; 10], HOUR_MS).unwrap();
        lanes.record(0, &[1; 10], HOUR_MS).unwrap();
        let (targets, id) = (lanes.seq_targets(), Stopped::new(&lanes).word.id);
        assert_eq!(
            taken(|sink| _ = driver.take_open(u64::MAX, &mut |record| sink(record))),
            [0, 1]
        );
        driver.settle(id, 0, 1, Outcome::Delivered);
        empty.push();
        driver.take_sealed(&mut |_| panic!("it is empty"));
        driver.settle(id, 1, 1, Outcome::Delivered);
        driver.verify().unwrap();
        assert!(driver.has_reached(&targets), "a flush would wait for ever");
    }
}

#[test]
fn a_block_sealed_without_a_record_stops_no_watermark_after_a_rebuild() {
    let (lanes, mut driver) = engine();
    let _empty = install(&lanes, 0);
    lanes.record(0, &[1; 10], HOUR_MS).unwrap(); // Seals it, and installs the next.
    driver.rebuild();
    let (targets, id) = (lanes.seq_targets(), Stopped::new(&lanes).word.id);
    driver.take_sealed(&mut |_| panic!("it is empty"));
    assert_eq!(taken(|sink| _ = driver.take_open(u64::MAX, &mut |record| sink(record))), [0]);
    driver.settle(id, 0, 1, Outcome::Delivered);
    driver.verify().unwrap();
    assert!(driver.has_reached(&targets), "a flush would wait for ever");
}

#[test]
fn a_sealer_that_comes_after_a_rebuild_finds_room_for_its_push() {
    let (lanes, mut driver) = engine();
    let big = vec![1; 300 * 1024]; // One to a block.
    lanes.record(0, &[1; 100], 0).unwrap();
    let stopped = Stopped::new(&lanes);
    stopped.seal();
    driver.rebuild();
    assert_eq!(taken(|sink| driver.take_sealed(&mut |record| sink(record))), [0]);
    driver.settle(0, 0, 1, Outcome::Delivered);
    assert_eq!(driver.blocks_free(), 3);
    for _ in 0..3 {
        lanes.record(0, &big, 0).unwrap();
    }
    assert_eq!(lanes.record(0, &big, 0), Err(Refusal::Full)); // Seals and pushes the third.
    stopped.push();
    assert_eq!(taken(|sink| driver.take_sealed(&mut |record| sink(record))), [0, 0, 0]);
    driver.verify().unwrap();
}

#[test]
fn who_waits_for_room_is_told_although_another_has_taken_the_block() {
    let (lanes, mut driver) = engine();
    let big = vec![1; 300 * 1024];
    for _ in 0..3 {
        lanes.record(0, &big, 0).unwrap();
    }
    assert_eq!(lanes.try_record(0, &big, 0), Err(Refusal::Full)); // The one who waits.
    assert!(driver.may_have_room(), "it may have come too late to see a block");
    driver.take_sealed(&mut |_| {});
    driver.settle(0, 0, 1, Outcome::Delivered);
    lanes.record(0, &[1; 10], 0).unwrap();
    assert!(driver.may_have_room());
    lanes.try_record(0, &[1; 10], 0).expect("there is room in the block that another installed");
    assert!(!driver.may_have_room());
}

#[test]
fn nobody_starves_while_there_is_a_block() {
    let (lanes, mut driver) = engine();
    lanes.shared().is_starving.store(true, Ordering::Relaxed); // Noted late.
    assert!(driver.may_have_room() && !driver.is_starving());
}

#[test]
fn what_a_rebuild_has_marked_it_does_not_count_again() {
    let (lanes, mut driver) = engine();
    lanes.record(0, &[1; 10], 0).unwrap();
    taken(|sink| _ = driver.take_open(u64::MAX, &mut |record| sink(record)));
    driver.mark_sent(0, 0, 1);
    assert_eq!(driver.rebuild(), 1);
    assert_eq!(driver.rebuild(), 0, "it was not sent since");
}

#[test]
fn an_engine_that_failed_with_wrong_notes_closes_all_the_same() {
    let (lanes, mut driver) = engine();
    lanes.record(0, &[1; 10], 0).unwrap();
    // No record is known to be taken: nothing but the words is looked at.
    driver.fail();
    assert_eq!(lanes.record(0, &[1; 10], 0), Err(Refusal::Failed));
    driver.rebuild();
    driver.close();
    assert_eq!(driver.abandon(Outcome::GaveUp, &mut |_| {}), 1);
    driver.verify().unwrap();
    assert_eq!(driver.accounts().pending, 0);
}
