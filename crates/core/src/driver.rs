//! The driver's half: take, lend, settle, recycle, park, close.
//!
//! One thread owns the [`Driver`]; nothing here is shared but the words in `lanes` and `block`.

mod apart;
#[cfg(all(test, not(ledgerline_loom)))]
mod apart_tests;
mod close;
mod ledger;
mod loan;
mod rebuild;
#[cfg(all(test, not(ledgerline_loom)))]
mod tests;
mod verify;

use std::fmt;

use crate::{
    accounts::{Accounts, Outcome, Totals},
    driver::ledger::{LaneLedger, Life},
    lanes::{SeqTargets, Shared},
    pool::Ready,
    standing::{Exception, Status},
    sync::{Arc, AtomicU8, Ordering},
    word::{BlockWord, LaneWord, State, next_generation},
};

pub use loan::Loan;
pub use rebuild::REBUILDS_MAX;
pub use verify::Imbalance;

/// The one handle that may take, settle and recycle.
pub struct Driver {
    shared: Arc<Shared>,
    /// Per block: what is known of its present life.
    lives: Box<[Life]>,
    ledgers: Box<[LaneLedger]>,
    /// Sealed blocks with a record that isn't committed yet.
    held: Vec<u32>,
    /// Sealed blocks, all settled, with bytes still on loan.
    lent_out: Vec<u32>,
    totals: Totals,
    is_closed: bool,
    rebuilds: u32,
    /// A block was recycled since that was last asked.
    has_recycled: bool,
}

/// A committed record that was taken: the driver now owes it an [`Outcome`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The block that it lies in.
    pub block: u32,
    /// Its place in the block.
    pub index: u32,
    /// Its length.
    pub bytes: u32,
    /// When it was accepted, on the clock that `record` was given.
    pub accepted_ms: u64,
}

/// What [`Driver::take_open`] left in the lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// When the oldest of the records left behind was accepted.
    pub oldest_ms: Option<u64>,
    /// A record is reserved but not committed: look again in a tick.
    pub has_hole: bool,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            lives: shared.blocks().iter().map(|_| Life::default()).collect(),
            ledgers: shared.lanes.iter().map(|_| LaneLedger::default()).collect(),
            held: Vec::with_capacity(shared.blocks().len()),
            lent_out: Vec::with_capacity(shared.blocks().len()),
            totals: Totals::default(),
            is_closed: false,
            rebuilds: 0,
            has_recycled: false,
            shared,
        }
    }

    /// Takes what was sealed, and what has been committed since in sealed blocks that had a hole.
    pub fn take_sealed(&mut self, sink: &mut impl FnMut(Record)) {
        for id in std::mem::take(&mut self.held) {
            self.take_whole(id, sink);
        }
        while let Some(Ready { lane, block }) = self.shared.pool.pop_ready() {
            let state = self.shared.blocks()[block.id as usize].load_state(Ordering::Relaxed);
            if state.generation() != block.generation {
                continue; // A rebuild found it sealed before its sealer pushed it.
            }
            self.meet(lane, block);
            if self.lives[block.id as usize].final_count.is_some() {
                continue; // It was abandoned before its sealer pushed it.
            }
            self.seal_known(block.id, state);
            self.take_whole(block.id, sink);
        }
    }

    /// Takes, from each lane's open block, the committed prefix if its oldest record was accepted
    /// at or before `accepted_by_ms`. Open blocks stay open.
    pub fn take_open(&mut self, accepted_by_ms: u64, sink: &mut impl FnMut(Record)) -> Waiting {
        let mut waiting = Waiting::default();
        for lane in 0..self.ledgers.len() {
            let Some((word, state)) = self.open_block(lane) else { continue };
            if state.count() == 0 {
                continue;
            }
            self.meet(lane as u32, word);
            // A sealed block that hasn't come through `ready` is taken here as well: its sealer may
            // have been stopped on the way. One that has is `take_sealed`'s alone.
            let life = &self.lives[word.id as usize];
            if life.final_count.is_some() || state.count() == life.taken {
                continue;
            }
            match self.oldest_untaken_ms(word.id) {
                Some(oldest_ms) if oldest_ms <= accepted_by_ms => {
                    self.take_prefix(word.id, state.count(), sink);
                    waiting.has_hole |= self.lives[word.id as usize].taken < state.count();
                }
                Some(oldest_ms) => {
                    waiting.oldest_ms =
                        Some(waiting.oldest_ms.map_or(oldest_ms, |other| other.min(oldest_ms)));
                }
                None => waiting.has_hole = true,
            }
        }
        waiting
    }

    /// Whether a sealed block has a record that isn't committed yet: look again in a tick.
    #[must_use]
    pub fn has_hole(&self) -> bool {
        !self.held.is_empty()
    }

    /// The sealed blocks with such a record.
    #[must_use]
    pub fn blocks_with_hole(&self) -> &[u32] {
        &self.held
    }

    /// Asks to be woken: true if the driver may sleep until the bell rings. False: there is
    /// something to take.
    ///
    /// Producer and driver meet on one word, the block's state: either the watch is set on exactly
    /// the state whose records are all taken, and the next reservation clears it and rings, or the
    /// swap fails and there is more to take. A sealed block needs no watch: its sealer rings after
    /// pushing it.
    pub fn park(&mut self) -> bool {
        if self.has_hole() {
            return false;
        }
        for lane in 0..self.ledgers.len() {
            let Some((word, state)) = self.open_block(lane) else { continue };
            if state.is_sealed() || state.is_watched() {
                continue;
            }
            self.meet(lane as u32, word);
            if state.count() != self.lives[word.id as usize].taken {
                return false;
            }
            let block = &self.shared.blocks()[word.id as usize];
            if block.swap_state(state, state.watched()).is_err() {
                return false;
            }
        }
        true
    }

    /// Gives `count` neighbouring records, from `first` on, their outcome.
    ///
    /// # Panics
    /// When one of them was not taken, or is settled already: both would make the accounts lie.
    pub fn settle(&mut self, block: u32, first: u32, count: u32, outcome: Outcome) {
        self.settle_in_place(block, first, count, outcome);
        self.recycle_if_done(block);
    }

    /// Notes, for those who ask, that `count` neighbouring records were put on a connection.
    ///
    /// # Panics
    /// As [`settle`](Self::settle).
    pub fn mark_sent(&mut self, block: u32, first: u32, count: u32) {
        self.mark(block, first, count, Status::sent);
    }

    /// Notes that a try of unknown outcome may have stored `count` neighbouring records: should
    /// they be dropped or dead-lettered, they are counted as possibly stored.
    ///
    /// # Panics
    /// As [`settle`](Self::settle).
    pub fn mark_possibly_stored(&mut self, block: u32, first: u32, count: u32) {
        self.mark(block, first, count, Status::possibly_stored);
    }

    fn mark(&self, block: u32, first: u32, count: u32, change: impl Fn(Status) -> Status) {
        for status in self.owed(block, first, count) {
            let marked = change(Status(status.load(Ordering::Relaxed)));
            // Release: pairs with the Acquire in `Lanes::standing`, as in `settle_in_place`.
            status.store(marked.0, Ordering::Release);
        }
    }

    /// Counts records whose resend may have stored them twice.
    pub fn count_possibly_duplicated(&mut self, records: u64) {
        self.totals.possibly_duplicated += records;
        self.publish();
    }

    /// Counts records that were delivered after they had been dropped or dead-lettered.
    pub fn count_redelivered(&mut self, records: u64) {
        self.totals.redelivered += records;
        self.publish();
    }

    /// Recycles blocks whose last loan has ended. While fewer blocks are free than there are lanes,
    /// also reclaims the open blocks of idle lanes, so that none is refused for want of one.
    pub fn tend_pool(&mut self) {
        for id in std::mem::take(&mut self.lent_out) {
            self.recycle_if_done(id);
        }
        if self.shared.pool.blocks_free() < self.ledgers.len() {
            for lane in 0..self.ledgers.len() {
                self.reclaim(lane);
            }
        }
    }

    /// Sealed blocks, the oldest first, whose records are all taken and not all settled.
    #[must_use]
    pub fn sealed_blocks(&self) -> Vec<u32> {
        let is_waiting = |life: &Life| {
            life.final_count.is_some_and(|count| life.taken == count && life.settled < count)
        };
        let lives = self.lives.iter().enumerate().filter(|(_, life)| is_waiting(life));
        let mut sealed: Vec<_> = lives.map(|(id, life)| (life.opened_ms, id as u32)).collect();
        sealed.sort_unstable();
        sealed.into_iter().map(|(_, id)| id).collect()
    }

    /// When the oldest record that is neither settled nor set apart was accepted.
    #[must_use]
    pub fn oldest_pending_ms(&self) -> Option<u64> {
        let blocks = self.shared.blocks().iter().zip(&self.lives);
        let oldest = blocks.filter_map(|(block, life)| {
            // Acquire: pairs with the Release of the install; makes opened_ms visible.
            let count = block.load_state(Ordering::Acquire).count();
            let is_pending = |index: &u32| {
                let status = Status(block.status[*index as usize].load(Ordering::Relaxed));
                !status.is_settled() && !status.is_apart()
            };
            let first =
                if life.apart > 0 { (life.prefix..count).find(is_pending)? } else { life.prefix };
            let word = (first < count).then(|| block.committed(first))??;
            Some(block.opening.opened_ms.load(Ordering::Relaxed) + u64::from(word.age_ms))
        });
        oldest.min()
    }

    /// Blocks whose records are all settled, and that will be free when the last loan ends.
    #[must_use]
    pub fn blocks_lent_out(&self) -> usize {
        self.lent_out.len()
    }

    /// Blocks, all of them.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.shared.blocks().len()
    }

    /// Blocks that no lane holds.
    #[must_use]
    pub fn blocks_free(&self) -> usize {
        self.shared.pool.blocks_free()
    }

    /// Whether those who wait for room should try: a lane would find a block, or may have been
    /// given one since this was last asked, or somebody has just failed to find one.
    ///
    /// With a block to be had nobody starves any longer, whatever was noted while it came back.
    pub fn may_have_room(&mut self) -> bool {
        let has_room = self.shared.pool.blocks_free() > 0;
        let is_starving = self.is_starving();
        if has_room && is_starving {
            self.shared.is_starving.store(false, Ordering::Relaxed); // A hint, as where it is set.
        }
        std::mem::take(&mut self.has_recycled) || has_room || is_starving
    }

    /// Whether a producer has found no block since one was last recycled.
    #[must_use]
    pub fn is_starving(&self) -> bool {
        self.shared.is_starving.load(Ordering::Relaxed)
    }

    /// Whether every record below the targets is settled.
    #[must_use]
    pub fn has_reached(&self, targets: &SeqTargets) -> bool {
        self.ledgers.iter().zip(&targets.0).all(|(ledger, target)| ledger.watermark() >= *target)
    }

    /// The accounts, exact on the out side.
    #[must_use]
    pub fn accounts(&self) -> Accounts {
        let accepted = (0..self.ledgers.len()).map(|lane| self.shared.next_seq(lane)).sum();
        self.totals.accounts(accepted, self.shared.refused())
    }

    /// The lane's block and its state, if it has one.
    fn open_block(&self, lane: usize) -> Option<(BlockWord, State)> {
        // Acquire: pairs with the Release of the install; makes base_seq and opened_ms visible.
        let packed = self.shared.lanes[lane].word.load(Ordering::Acquire);
        let LaneWord::Block(word) = LaneWord::unpack(packed) else { return None };
        let state = self.shared.blocks()[word.id as usize].load_state(Ordering::Relaxed);
        debug_assert_eq!(state.generation(), word.generation, "I4: only the driver bumps it");
        Some((word, state))
    }

    fn oldest_untaken_ms(&self, id: u32) -> Option<u64> {
        let life = &self.lives[id as usize];
        let word = self.shared.blocks()[id as usize].committed(life.taken)?;
        Some(life.opened_ms + u64::from(word.age_ms))
    }

    fn take_prefix(&mut self, id: u32, count: u32, sink: &mut impl FnMut(Record)) {
        let life = &mut self.lives[id as usize];
        let block = &self.shared.blocks()[id as usize];
        while life.taken < count
            && let Some(word) = block.committed(life.taken)
        {
            let index = life.taken;
            life.taken += 1;
            // Only after a rebuild there are settled ones among those to be taken.
            if !Status(block.status[index as usize].load(Ordering::Relaxed)).is_settled() {
                let accepted_ms = life.opened_ms + u64::from(word.age_ms);
                sink(Record { block: id, index, bytes: word.length, accepted_ms });
            }
        }
    }

    /// Takes what is committed of a sealed block; holds it if that isn't all.
    fn take_whole(&mut self, id: u32, sink: &mut impl FnMut(Record)) {
        let count = self.lives[id as usize].final_count.expect("the block was seen sealed");
        self.take_prefix(id, count, sink);
        if self.lives[id as usize].taken < count {
            self.held.push(id);
        } else {
            self.recycle_if_done(id);
        }
    }

    /// The status bytes of records that were taken and are not settled.
    fn owed(&self, id: u32, first: u32, count: u32) -> &[AtomicU8] {
        let life = &self.lives[id as usize];
        assert!(life.is_known && first + count <= life.taken, "settled before it was taken");
        let block = &self.shared.blocks()[id as usize];
        let statuses = &block.status[first as usize..(first + count) as usize];
        let is_open = |status: &AtomicU8| !Status(status.load(Ordering::Relaxed)).is_settled();
        assert!(statuses.iter().all(is_open), "settled twice");
        statuses
    }

    /// Nothing between the first status and the totals can panic: after a panic elsewhere, a
    /// rebuild finds the two in agreement.
    fn settle_in_place(&mut self, id: u32, first: u32, count: u32, outcome: Outcome) {
        let (mut possibly_stored, mut apart) = (0, 0);
        let mut exception: Option<Exception> = None;
        let Life { lane, generation, .. } = self.lives[id as usize];
        for (status, index) in self.owed(id, first, count).iter().zip(first..) {
            let known = Status(status.load(Ordering::Relaxed));
            apart += u32::from(known.is_apart());
            let settled = known.settled(outcome);
            // Release: pairs with the Acquire in `Lanes::standing`; a byte of this life is not
            // seen with the state of the one before.
            status.store(settled.0, Ordering::Release);
            possibly_stored += u64::from(settled.is_possibly_stored());
            if outcome == Outcome::Delivered {
                continue;
            }
            match &mut exception {
                Some(span) if span.status == settled => span.count += 1,
                _ => {
                    let span = Exception {
                        block: id,
                        generation,
                        first: index,
                        count: 1,
                        status: settled,
                    };
                    if let Some(ended) = exception.replace(span) {
                        self.shared.exceptions.note(ended);
                    }
                }
            }
        }
        if let Some(ended) = exception {
            self.shared.exceptions.note(ended);
        }
        self.totals.add(outcome, u64::from(count));
        self.totals.possibly_stored += possibly_stored;
        self.publish();
        self.ledgers[lane as usize].count(count);
        self.lives[id as usize].apart -= apart;
        self.advance_life(id, count);
    }

    fn advance_life(&mut self, id: u32, count: u32) {
        let life = &mut self.lives[id as usize];
        let block = &self.shared.blocks()[id as usize];
        life.settled += count;
        while life.prefix < life.taken
            && Status(block.status[life.prefix as usize].load(Ordering::Relaxed)).is_settled()
        {
            life.prefix += 1;
        }
        self.ledgers[life.lane as usize].settle(life);
    }

    fn is_settled(&self, id: u32, index: u32) -> bool {
        let block = &self.shared.blocks()[id as usize];
        Status(block.status[index as usize].load(Ordering::Relaxed)).is_settled()
    }

    /// Notes the block's present life, if it isn't known yet.
    fn meet(&mut self, lane: u32, word: BlockWord) {
        let life = &mut self.lives[word.id as usize];
        if life.is_known {
            return;
        }
        let block = &self.shared.blocks()[word.id as usize];
        *life = Life {
            is_known: true,
            lane,
            generation: word.generation,
            base_seq: block.base_seq(),
            opened_ms: block.opening.opened_ms.load(Ordering::Relaxed),
            ..Life::default()
        };
        self.ledgers[lane as usize].open(life.base_seq);
    }

    fn seal_known(&mut self, id: u32, state: State) {
        let life = &mut self.lives[id as usize];
        life.final_count = Some(state.count());
        self.ledgers[life.lane as usize].seal(life);
    }

    fn reclaim(&mut self, lane: usize) {
        let Some((word, state)) = self.open_block(lane) else { return };
        let life = &self.lives[word.id as usize];
        let is_idle = life.is_known && state.count() > 0 && life.settled == state.count();
        if !is_idle || state.is_sealed() {
            return;
        }
        if self.shared.blocks()[word.id as usize].swap_state(state, state.sealed()).is_ok() {
            self.seal_known(word.id, state);
            self.recycle_if_done(word.id);
        }
    }

    fn recycle_if_done(&mut self, id: u32) {
        let life = &self.lives[id as usize];
        if life.final_count != Some(life.settled) {
            return;
        }
        if self.is_lent(id) {
            self.lent_out.push(id);
            return;
        }
        self.recycle(id);
    }

    /// Puts a block whose records are all settled back into the pool (I6).
    fn recycle(&mut self, id: u32) {
        let life = std::mem::take(&mut self.lives[id as usize]);
        let block = &self.shared.blocks()[id as usize];
        let word = BlockWord { id, generation: life.generation };
        let from = LaneWord::Block(word).pack();
        let to = LaneWord::Empty(life.base_seq + u64::from(life.settled)).pack();
        // Release: pairs with the Acquire loads of the lane word. Failure is fine: a producer has
        // installed the next block already (I4 holds either way).
        let (release, relaxed) = (Ordering::Release, Ordering::Relaxed);
        let lane_word = &self.shared.lanes[life.lane as usize].word;
        let _ = lane_word.compare_exchange(from, to, release, relaxed);
        for index in &block.index[..life.settled as usize] {
            // Relaxed: published by the store of the state and by the queue.
            index.store(0, Ordering::Relaxed);
        }
        // Release: publishes the cleared index before the new generation (I7), and what was noted
        // of the records to those who find their generation over.
        let free = State::free(next_generation(life.generation));
        block.state.store(free.0, Ordering::Release);
        for status in &block.status[..life.settled as usize] {
            // Release, and after the state: pairs with the Acquire in `Lanes::standing`; who reads
            // a cleared status sees that the generation is over.
            status.store(Status::RECORDED.0, Ordering::Release);
        }
        // Relaxed, and before the push: who pops the block, or finds it gone, sees it, so that a
        // producer that starves after that says so again.
        self.shared.is_starving.store(false, Ordering::Relaxed);
        self.shared.pool.push_block(id);
        self.has_recycled = true;
    }

    fn publish(&self) {
        self.shared.out.publish(&self.totals);
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("accounts", &self.accounts()).finish_non_exhaustive()
    }
}
