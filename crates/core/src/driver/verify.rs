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
        let lanes: Vec<_> = (0..self.ledgers.len()).map(|lane| self.lane_now(lane)).collect();
        let mut counted = vec![0; lanes.len()];
        for (id, block) in self.shared.blocks().iter().enumerate() {
            // Acquire: pairs with the Release of the install, so that lane and base_seq are those
            // of the life that the count belongs to.
            let mut state = block.load_state(Ordering::Acquire);
            if state.count() == 0 {
                continue;
            }
            let lane = block.opening.lane.load(Ordering::Relaxed) as usize;
            let LaneNow { open, next_seq } = &lanes[lane];
            // A block installed after the load of the lane word starts at or behind next_seq.
            if block.base_seq() >= *next_seq {
                continue;
            }
            if let Some((word, state_then)) = open
                && word.id as usize == id
            {
                state = *state_then;
            }
            counted[lane] += u64::from(state.count() - self.lives[id].settled);
        }
        for (lane, (LaneNow { next_seq, .. }, counted)) in lanes.iter().zip(counted).enumerate() {
            let expected = next_seq - self.ledgers[lane].settled();
            if expected != counted {
                return Err(Imbalance { lane: lane as u32, expected, counted });
            }
        }
        Ok(())
    }

    /// The lane's block with its state, and the sequence number that follows from that one load.
    fn lane_now(&self, lane: usize) -> LaneNow {
        // Acquire: pairs with the Release of the install.
        match LaneWord::unpack(self.shared.lanes[lane].word.load(Ordering::Acquire)) {
            LaneWord::Empty(next_seq) | LaneWord::Closed(next_seq) => {
                LaneNow { open: None, next_seq }
            }
            LaneWord::Block(word) => {
                let block = &self.shared.blocks()[word.id as usize];
                let state = block.load_state(Ordering::Relaxed);
                let next_seq = block.base_seq() + u64::from(state.count());
                LaneNow { open: Some((word, state)), next_seq }
            }
        }
    }
}

/// A lane at the moment of one load.
struct LaneNow {
    open: Option<(BlockWord, State)>,
    next_seq: u64,
}
