//! The driver's own check of the accounts.

use crate::{
    driver::Driver,
    sync::Ordering,
    word::{BlockWord, LaneWord, State},
};

/// The two sides of the accounts differ: a defect of the engine, never of its use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("lane {lane}: {expected} records are pending by the accounts, {counted} by the blocks")]
pub struct Imbalance {
    /// The lane that doesn't balance.
    pub lane: u32,
    /// Accepted less settled.
    pub expected: u64,
    /// Unsettled records counted in the blocks.
    pub counted: u64,
}

impl Driver {
    /// Counts the pending records block by block, and compares with accepted less settled.
    ///
    /// Exact at any moment, without a lock and while producers record: the driver is the only one
    /// who settles, and a lane's acceptance is one load, used for both sides.
    ///
    /// # Errors
    /// [`Imbalance`] of the first lane that doesn't balance.
    pub fn verify(&self) -> Result<(), Imbalance> {
        for lane in 0..self.ledgers.len() {
            let (open, next_seq) = self.lane_now(lane);
            let expected = next_seq - self.ledgers[lane].settled();
            let counted = self.pending_in_blocks(lane as u32, open, next_seq);
            if expected != counted {
                return Err(Imbalance { lane: lane as u32, expected, counted });
            }
        }
        Ok(())
    }

    /// The lane's block with its state, and the sequence number that follows from that one load.
    fn lane_now(&self, lane: usize) -> (Option<(BlockWord, State)>, u64) {
        // Acquire: pairs with the Release of the install.
        match LaneWord::unpack(self.shared.lanes[lane].word.load(Ordering::Acquire)) {
            LaneWord::Empty(seq) | LaneWord::Closed(seq) => (None, seq),
            LaneWord::Block(word) => {
                let block = &self.shared.blocks()[word.id as usize];
                let state = block.load_state(Ordering::Relaxed);
                (Some((word, state)), block.base_seq() + u64::from(state.count()))
            }
        }
    }

    fn pending_in_blocks(&self, lane: u32, open: Option<(BlockWord, State)>, next_seq: u64) -> u64 {
        let blocks = self.shared.blocks().iter().enumerate();
        blocks
            .map(|(id, block)| {
                let state = match open {
                    Some((word, state)) if word.id as usize == id => state,
                    // Acquire: pairs with the Release of the install, so that lane and base_seq
                    // are those of the life that the count belongs to.
                    _ => block.load_state(Ordering::Acquire),
                };
                // A block installed after the load of the lane word starts at or behind next_seq.
                let is_of_lane = state.count() > 0
                    && block.opening.lane.load(Ordering::Relaxed) == lane
                    && block.base_seq() < next_seq;
                let settled = self.lives[id].settled;
                if is_of_lane { u64::from(state.count() - settled) } else { 0 }
            })
            .sum()
    }
}
