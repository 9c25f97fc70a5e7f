//! The end: no record is accepted any more, and what is left gets an outcome.

use crate::{
    accounts::Outcome,
    driver::{Driver, Loan},
    sync::Ordering,
    word::{BlockWord, LaneWord, State},
};

impl Driver {
    /// Refuses records from now on, on every lane; what was accepted before can still be taken.
    /// Idempotent. For each lane the swap to `Closed` is the moment that decides.
    pub fn close(&mut self) {
        for lane in 0..self.ledgers.len() {
            while !self.close_lane(lane) {}
        }
        self.is_closed = true;
    }

    /// After [`close`](Self::close): gives everything that is left an outcome, taken or not,
    /// committed or not. Returns how many records that were; those that are committed are lent to
    /// `lost` then. No block is used again.
    ///
    /// # Panics
    /// When the engine isn't closed.
    pub fn abandon(&mut self, outcome: Outcome, lost: &mut impl FnMut(Loan)) -> u64 {
        assert!(self.is_closed, "only a closed engine may abandon records");
        let mut abandoned = 0;
        for id in 0..self.lives.len() as u32 {
            let block = &self.shared.blocks()[id as usize];
            // Acquire: pairs with the Release of the install; makes the lane visible.
            let state = block.load_state(Ordering::Acquire);
            if state.count() == 0 {
                continue;
            }
            let lane = block.opening.lane.load(Ordering::Relaxed);
            self.meet(lane, BlockWord { id, generation: state.generation() });
            if self.lives[id as usize].final_count.is_none() {
                self.seal_known(id, state);
            }
            self.lives[id as usize].taken = state.count();
            for index in 0..state.count() {
                if !self.is_settled(id, index) {
                    let is_committed = self.shared.blocks()[id as usize].committed(index).is_some();
                    let loan = is_committed.then(|| self.lend(id, index, 1));
                    self.settle_in_place(id, index, 1, outcome);
                    abandoned += 1;
                    loan.into_iter().for_each(&mut *lost);
                }
            }
        }
        self.held.clear();
        abandoned
    }

    /// [`close`](Self::close) for an engine that has failed: who records is told so. Of blocks and
    /// lanes it looks at nothing but their words, so that it works whatever else is wrong; what it
    /// seals, [`rebuild`](Self::rebuild) finds.
    pub fn fail(&mut self) {
        // Relaxed: the swaps that close the lanes publish it.
        self.shared.has_failed.store(true, Ordering::Relaxed);
        for lane in 0..self.shared.lanes.len() {
            while !self.shut_lane(lane, |_, _| {}) {}
        }
    }

    fn close_lane(&mut self, lane: usize) -> bool {
        let mut sealed = None;
        let is_closed = self.shut_lane(lane, |word, state| sealed = Some((word, state)));
        if let Some((word, state)) = sealed {
            self.meet(lane as u32, word);
            self.seal_known(word.id, state);
            self.held.push(word.id); // Taken, and recycled, by the next `take_sealed`.
        }
        is_closed
    }

    /// Seals the lane's block and closes the lane; false if somebody was faster. Tells which block
    /// it has sealed.
    fn shut_lane(&self, lane: usize, sealed: impl FnOnce(BlockWord, State)) -> bool {
        // Acquire: as in `open_block`.
        let packed = self.shared.lanes[lane].word.load(Ordering::Acquire);
        let seq = match LaneWord::unpack(packed) {
            LaneWord::Closed(_) => return true,
            LaneWord::Empty(seq) => seq,
            LaneWord::Block(word) => {
                let block = &self.shared.blocks()[word.id as usize];
                let state = block.load_state(Ordering::Relaxed);
                if !state.is_sealed() {
                    if block.swap_state(state, state.sealed()).is_err() {
                        return false;
                    }
                    sealed(word, state);
                }
                block.base_seq() + u64::from(state.count())
            }
        };
        let closed = LaneWord::Closed(seq).pack();
        // Release: pairs with the Acquire loads of the lane word.
        let (release, relaxed) = (Ordering::Release, Ordering::Relaxed);
        let lane_word = &self.shared.lanes[lane].word;
        lane_word.compare_exchange(packed, closed, release, relaxed).is_ok()
    }
}
