//! The lane and block protocol against every interleaving of small cases.
//!
//! Blocks hold two records of two bytes, queues are mutexed black boxes, preemptions are bounded
//! by `LOOM_MAX_PREEMPTIONS`. A bounded model is not a proof; it is the only net under the
//! orderings on machines that this code isn't run on.
//!
//! Mutants tried by hand, at two preemptions. Each makes the named model fail, many of them others
//! too:
//! - commit store Relaxed, or its load: `records_arrive_whole_once_and_in_sequence`
//! - commit before the copy; holes not minded: `records_arrive_whole_once_and_in_sequence`
//! - `ready` pushed before the seal: `records_arrive_whole_once_and_in_sequence`
//! - blocks with a hole forgotten; taken from twice: `records_arrive_whole_once_and_in_sequence`
//! - install Relaxed; lane word loaded Relaxed in `record`: `a_recycled_block_serves_again`
//! - generation not bumped: `a_recycled_block_serves_again`
//! - generation not compared in `reserve`: `an_idle_lanes_block_is_reclaimed_for_a_starving_one`
//! - lane word not moved off when recycling, or after the push:
//!   `a_late_helper_does_not_bend_the_sequence`
//! - a sealed block's count not added to its base: `a_late_helper_does_not_bend_the_sequence`
//! - index or state not cleared, or after the push: `a_parked_driver_is_woken_by_the_next_block`
//! - no bell when a reservation ends the watch: `a_parked_driver_is_woken_by_the_next_block`
//! - blocks installed without the watch: `a_parked_driver_is_woken_by_the_next_block`
//! - an install that lost overwrites the lane word, or keeps its block:
//!   `a_parked_driver_is_woken_by_the_next_block`
//! - the watch set without a compare: `a_parked_driver_is_woken_by_the_next_block`
//! - the watch not set, or over records not taken: `a_parked_driver_is_woken_by_the_next_record`
//! - close without sealing, with the lane word Relaxed, or with the lane word before the seal:
//!   `a_record_racing_close_is_taken_or_refused`
//! - seal not minded in `reserve`; recycled when taken: `a_record_racing_close_is_taken_or_refused`
//! - uncommitted records not abandoned; abandoned ones taken: `abandoning_settles_the_rest_exactly`
//! - lane word loaded Relaxed by the driver: `a_flush_target_covers_what_came_before`
//! - watermark moved over a gap: `a_flush_target_covers_what_came_before`
//! - accounts read in first, out second: `accounts_are_a_consistent_cut_for_any_thread`
//! - either fence of the sequence lock left out, its version loaded or stored Relaxed:
//!   `published_totals_are_read_whole`
//! - `next_seq` with the lane word Relaxed, base_seq Relaxed on either side or read after the
//!   state, or generations not compared: `accounts_read_while_a_block_is_used_again_stay_true`
//! - state stored Relaxed at the install, loaded Relaxed or twice in `verify`, or blocks counted
//!   that came later: `the_driver_balances_between_any_two_steps`
//! - recycling a block with a loan out; the loan's end or the look at it Relaxed:
//!   `a_loan_keeps_its_block_from_being_used_again`
//! - no bell at the loan's end; the driver's mark on it not left:
//!   `the_end_of_a_loan_wakes_a_parked_driver`
//! - a status cleared before the state, or Relaxed; stored Relaxed when settled; loaded Relaxed, or
//!   the state behind it: `a_standing_is_never_that_of_another_life`
//! - a status set apart Relaxed: `a_record_is_not_set_apart_for_that_of_another_life`
//! - nothing noted of what was pushed out: `what_is_forgotten_is_not_said_to_be_delivered`
//! - what was forgotten taken to be no younger than the state that was read:
//!   `what_is_forgotten_in_later_lives_is_not_said_to_be_delivered`
//! - a status marked Relaxed: `a_standing_is_never_that_of_another_life`; by a rebuild:
//!   `a_standing_across_a_rebuild_is_never_that_of_another_life`
//! - the rebuild's watermark read after its walk:
//!   `a_rebuilt_driver_takes_what_is_not_settled_once_more`
//! - either fence of the sleepers left out: `a_sleeper_is_woken_by_what_it_waits_for`
//! - a rebuild that forgets sealed blocks, or that they are sealed:
//!   `a_rebuilt_driver_takes_what_is_not_settled_once_more`
//! - starving forgotten after the push, or not noted: `a_starving_producer_is_heard`
//! - no bell when an install gives its block back: `a_block_that_an_install_gives_back_is_heard_of`
//! - a block without a record reclaimed: `a_block_just_installed_is_not_reclaimed`
//!
//! These fail a test under std: no bell after sealing, or when starving; the watch kept by a
//! reservation; a block with unsettled records reclaimed; a sealed block not taken before its push;
//! a block abandoned with a hole recycled; an age that doesn't fit.
//!
//! These nothing notices, nor does it at three preemptions, because something else covers them:
//! - recycling: the state stored Relaxed, the index cleared behind it, the lane word set to empty
//!   Relaxed. The queue's push and pop publish all of it.
//! - close with a Relaxed swap: who reads `Closed` uses nothing but the word.
//! - an install that lost leaves its block open: no lane word names that life of it.
//! - ring before the commit: a driver doesn't park over a hole. Ring before the push of a sealed
//!   block: the next block's first record rings again.
//! - `Full` without a second look at the lane: one more refusal than need be.
//! - totals published before the records are settled, or after the block is recycled: nobody reads
//!   both.
//! - the driver's mark on loans not wiped: a ring too many.

mod accounts;
mod record;
mod standing;
mod wake;

use loom::{sync::Notify, thread};

use crate::{Anonymous, Bell, Driver, Lanes, Outcome, Record, sync::Arc};

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
        Lanes::new(Box::new(Anonymous::new(blocks).unwrap()), lanes, Box::new(token.clone()));
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
