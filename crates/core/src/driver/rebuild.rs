//! The driver's notes, made anew from the blocks after a panic.
//!
//! The blocks are the truth: what is accepted, committed and settled stands in them. Everything
//! else that the driver knows of a block follows from it. Limit: a block that the driver held in
//! its hands at the panic, between two queues, isn't used again; no record is in such a one.

use crate::{
    driver::Driver,
    driver::ledger::{LaneLedger, Life},
    standing::Status,
    sync::{Arc, Ordering},
    word::BlockWord,
};

impl Driver {
    /// Forgets what was taken, and takes it again: records that are not settled come once more.
    /// Those that were sent may have been stored; they are marked, and the number of those that
    /// were not marked before is returned.
    ///
    /// For the owner of a driver after a panic, with no request under way any longer.
    ///
    /// # Panics
    /// At more than [`REBUILDS_MAX`] in the driver's life.
    pub fn rebuild(&mut self) -> u64 {
        self.rebuilds += 1;
        assert!(self.rebuilds <= REBUILDS_MAX, "the queue of sealed blocks has room for no more");
        let shared = Arc::clone(&self.shared);
        self.lives.fill(Life::default());
        self.held.clear();
        self.lent_out.clear();
        self.ledgers.iter_mut().for_each(LaneLedger::reset);
        // In this order: what is accepted below next_seq lies in a block that the walk finds.
        let next_seqs: Vec<_> = (0..shared.lanes.len()).map(|lane| shared.next_seq(lane)).collect();
        for (id, block) in shared.blocks().iter().enumerate() {
            // Acquire: pairs with the Release of the install; makes the lane visible.
            let state = block.load_state(Ordering::Acquire);
            if state.count() > 0 {
                let lane = block.opening.lane.load(Ordering::Relaxed);
                self.meet(lane, BlockWord { id: id as u32, generation: state.generation() });
            }
        }
        for (ledger, next_seq) in self.ledgers.iter_mut().zip(next_seqs) {
            ledger.resume(next_seq);
        }
        (0..self.lives.len() as u32).map(|id| self.rebuild_life(id)).sum()
    }

    /// As far as the block is known; one that was installed since then is met as any other.
    fn rebuild_life(&mut self, id: u32) -> u64 {
        if !self.lives[id as usize].is_known {
            return 0;
        }
        let shared = Arc::clone(&self.shared);
        let block = &shared.blocks()[id as usize];
        let state = block.load_state(Ordering::Relaxed);
        let (mut settled, mut sent) = (0, 0);
        for status in &block.status[..state.count() as usize] {
            let mut known = Status(status.load(Ordering::Relaxed));
            if known.is_apart() {
                // It will be taken as any other. Release: as below.
                known = known.apart(false);
                status.store(known.0, Ordering::Release);
            }
            settled += u32::from(known.is_settled());
            if known.is_sent() && !known.is_possibly_stored() {
                sent += 1;
                // Release: pairs with the Acquire in `Lanes::standing`.
                status.store(known.possibly_stored().0, Ordering::Release);
            }
        }
        // Statuses that are set are of records that were taken.
        self.lives[id as usize].taken = state.count();
        self.advance_life(id, settled);
        self.lives[id as usize].taken = 0;
        if state.is_sealed() {
            self.seal_known(id, state);
            self.held.push(id); // Taken, or recycled, by the next `take_sealed`.
        }
        sent
    }
}

/// How often a driver may be rebuilt: each time costs room in a queue.
pub const REBUILDS_MAX: u32 = 4;
