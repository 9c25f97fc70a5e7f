//! The producers' half: reserve, copy, commit.

use std::fmt;

use crossbeam_utils::CachePadded;

use crate::{
    accounts::{Accounts, PublishedTotals, Refused},
    backing::Backing,
    block::{BLOCK_BYTES, Block, RECORDS_PER_BLOCK},
    driver::Driver,
    pool::{Pool, Ready},
    receipt::Receipt,
    standing::{Exceptions, Standing, of_living},
    sync::{Arc, AtomicBool, AtomicU32, AtomicU64, Ordering, spin_loop},
    word::{AGE_MS_MAX, BlockWord, IndexWord, LaneWord, State},
};

/// The largest record, in bytes. Three quarters of a block: a record never needs two.
pub const RECORD_BYTES_MAX: usize = BLOCK_BYTES / 4 * 3;

/// Wakes the driver. A ring before the driver sleeps must be kept for it.
pub trait Bell: Send + Sync + 'static {
    /// Called by producers: must not block.
    fn ring(&self);
}

/// The producers' entries to the engine. Cheap to clone; any thread may use any lane.
#[derive(Clone)]
pub struct Lanes {
    shared: Arc<Shared>,
}

/// Why a record was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Every block is in use.
    #[error("the buffer is full")]
    Full,
    /// The engine takes no more records.
    #[error("the engine is closed")]
    Closed,
    /// The engine takes no more records, because it has failed.
    #[error("the engine has failed")]
    Failed,
    /// This process was forked off the engine's.
    #[error("the engine is in another process")]
    Forked,
}

/// For each lane, the sequence number that its next record would have had at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeqTargets(pub(crate) Box<[u64]>);

/// What producers and driver share.
pub(crate) struct Shared {
    pub(crate) lanes: Box<[Lane]>,
    pub(crate) pool: Pool,
    pub(crate) out: CachePadded<PublishedTotals>,
    /// A producer found no block; the driver should look for one to reclaim.
    pub(crate) is_starving: CachePadded<AtomicBool>,
    /// Loans out per block, see `loan.rs`. Not in the block: they end with the process.
    pub(crate) lent: Box<[CachePadded<AtomicU32>]>,
    /// How records ended that were not simply delivered.
    pub(crate) exceptions: Exceptions,
    /// The engine was closed because it had failed.
    pub(crate) has_failed: AtomicBool,
    pub(crate) bell: Box<dyn Bell>,
    backing: Box<dyn Backing>,
}

pub(crate) struct Lane {
    /// See [`LaneWord`]. Read by every record, written once per block.
    pub(crate) word: CachePadded<AtomicU64>,
    tally: CachePadded<Tally>,
}

/// What the lane's producers count and note, on a line of its own.
#[derive(Default)]
struct Tally {
    /// The lane's word when a producer last found no block for it.
    full_word: AtomicU64,
    emitted: AtomicU64,
    full: AtomicU64,
    closed: AtomicU64,
    invalid: AtomicU64,
    too_large: AtomicU64,
    forked: AtomicU64,
    failed: AtomicU64,
}

impl Lanes {
    /// Divides `backing` among `lanes` lanes. The bell is rung whenever the driver has work.
    ///
    /// # Panics
    /// With no lane or no block.
    #[must_use]
    pub fn new(backing: Box<dyn Backing>, lanes: usize, bell: Box<dyn Bell>) -> (Self, Driver) {
        let blocks = backing.blocks();
        assert!(lanes > 0 && !blocks.is_empty(), "an engine needs a lane and a block");
        for block in blocks {
            // Relaxed: whoever uses the block gets its id from a queue, or from a lane word
            // installed by one who did.
            block.state.store(State::free(0).0, Ordering::Relaxed);
        }
        let shared = Arc::new(Shared {
            lanes: (0..lanes).map(|_| Lane::new()).collect(),
            pool: Pool::new(blocks.len(), HOT_BLOCKS_PER_LANE * lanes),
            out: CachePadded::new(PublishedTotals::new()),
            is_starving: CachePadded::new(AtomicBool::new(false)),
            lent: blocks.iter().map(|_| CachePadded::new(AtomicU32::new(0))).collect(),
            exceptions: Exceptions::new(blocks.len()),
            has_failed: AtomicBool::new(false),
            bell,
            backing,
        });
        (Self { shared: Arc::clone(&shared) }, Driver::new(shared))
    }

    /// Number of lanes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.lanes.len()
    }

    /// Never: there is at least one lane.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Takes the next number of those that the lane's producers give to their events, refused ones
    /// included.
    pub fn next_producer_seq(&self, lane: usize) -> u64 {
        // Relaxed: a counter; nothing is published through it.
        self.shared.lanes[lane].tally.emitted.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells the processor that a record of about so many bytes, at most 4 KiB of them, is being
    /// made for the lane: the memory that it will be written to was last read by another core, or
    /// long ago, and comes near while the record is encoded. Changes nothing.
    #[cfg(not(ledgerline_loom))]
    #[inline]
    pub fn expect_record(&self, lane: usize, bytes: usize) {
        // Relaxed, as the state: a hint may be wrong.
        let word = self.shared.lanes[lane].word.load(Ordering::Relaxed);
        if let LaneWord::Block(word) = LaneWord::unpack(word) {
            let block = &self.shared.blocks()[word.id as usize];
            let state = block.load_state(Ordering::Relaxed);
            block.expect_write(state.count(), state.used(), bytes.min(EXPECTED_BYTES_MAX));
        }
    }

    /// Whether a producer has found no block since one was last recycled: the driver knows.
    #[must_use]
    pub fn is_starving(&self) -> bool {
        self.shared.is_starving.load(Ordering::Relaxed) // A hint, as in `starve`.
    }

    /// Whether a record of any length would find no room in the lane at this moment: so that none
    /// is made in vain. Who is refused because of this alone has told nobody: ask only while
    /// [`is_starving`](Self::is_starving).
    #[must_use]
    pub fn is_full(&self, lane: usize) -> bool {
        let Lane { word, tally } = &self.shared.lanes[lane];
        // Relaxed: nothing is read through the word. If it is still the one for which there was no
        // block, the lane needs one now: what is sealed stays so, and no word names a life of a
        // block twice (I3).
        word.load(Ordering::Relaxed) == tally.full_word.load(Ordering::Relaxed)
            && self.shared.pool.blocks_free() == 0
    }

    /// Accepts a record, or says why not. Never waits, never allocates, makes no system call but
    /// to wake a sleeping driver.
    ///
    /// `now_ms` is the engine's monotonic clock; a coarse one will do.
    ///
    /// # Errors
    /// [`Refusal`]; it has been counted.
    ///
    /// # Panics
    /// When the record is empty or longer than [`RECORD_BYTES_MAX`], or the lane doesn't exist.
    pub fn record(&self, lane: usize, record: &[u8], now_ms: u64) -> Result<Receipt, Refusal> {
        let result = self.try_record(lane, record, now_ms);
        if let Err(refusal) = result {
            self.count_refusal(lane, refusal);
        }
        result
    }

    /// As [`record`](Self::record), for callers that will try the same record again: a refusal is
    /// not counted.
    ///
    /// # Errors
    /// [`Refusal`]; count the last one with [`count_refusal`](Self::count_refusal).
    ///
    /// # Panics
    /// As [`record`](Self::record).
    pub fn try_record(&self, lane: usize, record: &[u8], now_ms: u64) -> Result<Receipt, Refusal> {
        assert!(!record.is_empty() && record.len() <= RECORD_BYTES_MAX, "record length");
        self.shared.record(lane, record, now_ms)
    }

    /// Counts a record that was refused, and is not tried again.
    pub fn count_refusal(&self, lane: usize, refusal: Refusal) {
        let tally = &self.shared.lanes[lane].tally;
        let counter = match refusal {
            Refusal::Full => &tally.full,
            Refusal::Closed => &tally.closed,
            Refusal::Failed => &tally.failed,
            Refusal::Forked => &tally.forked,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an event that was refused for what it says, before it became a record.
    pub fn count_invalid(&self, lane: usize) {
        self.shared.lanes[lane].tally.invalid.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an event whose record would have been longer than [`RECORD_BYTES_MAX`].
    pub fn count_too_large(&self, lane: usize) {
        self.shared.lanes[lane].tally.too_large.fetch_add(1, Ordering::Relaxed);
    }

    /// What a flush must wait for: everything accepted so far, by this thread or by any whose
    /// `record` happened before this call.
    #[must_use]
    pub fn seq_targets(&self) -> SeqTargets {
        let lanes = 0..self.len();
        SeqTargets(lanes.map(|lane| self.shared.next_seq(lane)).collect())
    }

    /// A consistent cut of the accounts: out side first, then in.
    #[must_use]
    pub fn accounts(&self) -> Accounts {
        let out = self.shared.out.read();
        let accepted = (0..self.len()).map(|lane| self.shared.next_seq(lane)).sum();
        out.accounts(accepted, self.shared.refused())
    }

    /// Events that were not accepted, by reason. Touches no block.
    #[must_use]
    pub fn refused(&self) -> Refused {
        self.shared.refused()
    }

    /// What a record has come to. Costs a few loads, or a search of some thousand spans if its
    /// block is gone and not everything was delivered.
    #[must_use]
    pub fn standing(&self, receipt: Receipt) -> Standing {
        let (generation, index) = (receipt.generation(), receipt.index());
        let Some(block) = self.shared.blocks().get(receipt.block() as usize) else {
            return Standing::Forgotten;
        };
        let Some(status) = block.status.get(index as usize) else { return Standing::Forgotten };
        // Acquire: pairs with the Release stores of the driver. Who reads a byte of a later life,
        // or one cleared for it, also sees the later state below.
        let status = status.load(Ordering::Acquire);
        // Acquire: pairs with the Release in `Driver::recycle`; what was noted of the records is
        // seen when their generation is over.
        let state = block.load_state(Ordering::Acquire);
        if state.generation() != generation {
            let now = state.generation();
            return self.shared.exceptions.of_ended(receipt.block(), generation, index, now);
        }
        if index < state.count() { of_living(status) } else { Standing::Forgotten }
    }
}

#[cfg(test)]
impl Lanes {
    /// For a test that looks at the words themselves.
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Shared {
    pub(crate) fn blocks(&self) -> &[Block] {
        self.backing.blocks()
    }

    /// Sequence number of the lane's next record: the number accepted so far. Monotone.
    pub(crate) fn next_seq(&self, lane: usize) -> u64 {
        loop {
            // Acquire: pairs with the Release of the install; makes base_seq visible.
            match LaneWord::unpack(self.lanes[lane].word.load(Ordering::Acquire)) {
                LaneWord::Empty(seq) | LaneWord::Closed(seq) => return seq,
                LaneWord::Block(word) => {
                    let block = &self.blocks()[word.id as usize];
                    // Acquire, and before the state: pairs with the Release in `install`. Who sees
                    // a later life's value also sees the later generation, and tries again.
                    let base_seq = block.opening.base_seq.load(Ordering::Acquire);
                    let state = block.load_state(Ordering::Relaxed);
                    if state.generation() == word.generation {
                        return base_seq + u64::from(state.count());
                    }
                    spin_loop(); // The lane word has moved on (I4).
                }
            }
        }
    }

    pub(crate) fn refused(&self) -> Refused {
        let sum = |counter: fn(&Tally) -> &AtomicU64| {
            self.lanes.iter().map(|lane| counter(&lane.tally).load(Ordering::Relaxed)).sum()
        };
        Refused {
            full: sum(|tally| &tally.full),
            closed: sum(|tally| &tally.closed),
            invalid: sum(|tally| &tally.invalid),
            too_large: sum(|tally| &tally.too_large),
            forked: sum(|tally| &tally.forked),
            failed: sum(|tally| &tally.failed),
        }
    }

    fn record(&self, lane: usize, record: &[u8], now_ms: u64) -> Result<Receipt, Refusal> {
        let lane_word = &self.lanes[lane].word;
        loop {
            // Acquire: pairs with the Release of the install; makes base_seq, opened_ms and the
            // driver's recycling of the block visible.
            let packed = lane_word.load(Ordering::Acquire);
            match LaneWord::unpack(packed) {
                // Relaxed: set before the lane was closed, which the load above has seen.
                LaneWord::Closed(_) if self.has_failed.load(Ordering::Relaxed) => {
                    return Err(Refusal::Failed);
                }
                LaneWord::Closed(_) => return Err(Refusal::Closed),
                LaneWord::Empty(seq) => self.install(lane, packed, seq, now_ms)?,
                LaneWord::Block(word) => {
                    match self.reserve(lane, word, record.len() as u32, now_ms) {
                        Reservation::Made { before, age_ms } => {
                            return Ok(self.fill(word, before, record, age_ms));
                        }
                        Reservation::Sealed(state) => {
                            let block = &self.blocks()[word.id as usize];
                            let seq = block.base_seq() + u64::from(state.count());
                            self.install(lane, packed, seq, now_ms)?;
                        }
                        Reservation::MovedOn => spin_loop(),
                    }
                }
            }
        }
    }

    /// Reserves `bytes` in the block, or seals it when they don't fit, or their age doesn't.
    fn reserve(&self, lane: usize, word: BlockWord, bytes: u32, now_ms: u64) -> Reservation {
        let block = &self.blocks()[word.id as usize];
        // Relaxed: the lane word's Acquire made it visible. If it is a later life's, the generation
        // has changed and no swap below succeeds.
        let age_ms = now_ms.saturating_sub(block.opening.opened_ms.load(Ordering::Relaxed));
        let mut state = block.load_state(Ordering::Relaxed);
        loop {
            if state.generation() != word.generation {
                return Reservation::MovedOn;
            }
            if state.is_sealed() {
                return Reservation::Sealed(state);
            }
            let fits = state.count() < RECORDS_PER_BLOCK as u32
                && state.used() + bytes <= BLOCK_BYTES as u32
                && age_ms <= u64::from(AGE_MS_MAX);
            let wanted = if fits { state.reserved(bytes) } else { state.sealed() };
            match block.swap_state(state, wanted) {
                Ok(()) if fits => {
                    return Reservation::Made { before: state, age_ms: age_ms as u32 };
                }
                Ok(()) => {
                    self.pool.push_ready(Ready { lane: lane as u32, block: word });
                    self.bell.ring();
                    return Reservation::Sealed(wanted);
                }
                Err(current) => state = current,
            }
        }
    }

    /// Writes and commits a record reserved on top of `before`.
    #[expect(unsafe_code, reason = "writes the bytes that were just reserved")]
    fn fill(&self, word: BlockWord, before: State, record: &[u8], age_ms: u32) -> Receipt {
        let block = &self.blocks()[word.id as usize];
        let (index, offset) = (before.count(), before.used());
        // SAFETY: `reserve` on this thread moved the state from `before` to `before` and this
        // record, in this generation (I1); nothing has been committed for it.
        unsafe { block.write(offset, record) };
        block.commit(index, IndexWord { offset, length: record.len() as u32, age_ms });
        if before.is_watched() {
            self.bell.ring();
        }
        Receipt::new(word.id, word.generation, index)
    }

    /// Gives the lane a new block, unless its word has changed from `from` meanwhile. Whoever
    /// finds the old block sealed does this, so that nobody waits for the one that sealed (I9).
    fn install(&self, lane: usize, from: u64, seq: u64, now_ms: u64) -> Result<(), Refusal> {
        let lane_word = &self.lanes[lane].word;
        let Some(id) = self.pool.pop_block() else {
            // Relaxed: only equality matters here; the caller loads again with Acquire.
            if lane_word.load(Ordering::Relaxed) != from {
                return Ok(());
            }
            self.starve(lane, from);
            return Err(Refusal::Full);
        };
        let block = &self.blocks()[id as usize];
        let generation = block.load_state(Ordering::Relaxed).generation();
        // Release: pairs with the Acquire in `next_seq`; publishes the generation that the driver
        // gave to the block before it came into the pool.
        block.opening.base_seq.store(seq, Ordering::Release);
        block.opening.opened_ms.store(now_ms, Ordering::Relaxed);
        block.opening.lane.store(lane as u32, Ordering::Relaxed);
        // Release: pairs with the Acquire in `Driver::verify`, which looks at every block, also at
        // those that no lane word has led it to.
        block.state.store(State::opened(generation).0, Ordering::Release);
        let to = LaneWord::Block(BlockWord { id, generation }).pack();
        // Release: pairs with the Acquire loads of the lane word; publishes the stores above and,
        // through the pop, the driver's recycling.
        let release = Ordering::Release;
        if lane_word.compare_exchange(from, to, release, Ordering::Relaxed).is_err() {
            // Another was faster. No lane word has ever named this life of the block (I3).
            block.state.store(State::free(generation).0, Ordering::Release);
            self.pool.push_block(id);
            // Relaxed: a hint, as in `starve`. Who found no block meanwhile waits for the driver.
            if self.is_starving.load(Ordering::Relaxed) {
                self.bell.ring();
            }
        }
        Ok(())
    }

    /// Notes that there is no block for the lane while its word is this, and tells the driver once.
    fn starve(&self, lane: usize, word: u64) {
        let full_word = &self.lanes[lane].tally.full_word;
        if full_word.load(Ordering::Relaxed) != word {
            full_word.store(word, Ordering::Relaxed);
        }
        // Relaxed: a hint. The bell makes the driver look; the flag only keeps a storm of refusals
        // from ringing for each.
        if !self.is_starving.load(Ordering::Relaxed)
            && !self.is_starving.swap(true, Ordering::Relaxed)
        {
            self.bell.ring();
        }
    }
}

enum Reservation {
    /// The state that the reservation was made on, and the record's age in its block.
    Made { before: State, age_ms: u32 },
    /// The final state.
    Sealed(State),
    /// The block has another generation: the lane word names another block by now.
    MovedOn,
}

impl Block {
    /// Relaxed: visible through the lane word's Acquire. A helper that still holds an old lane
    /// word may read a later life's value; its install then fails (I4).
    pub(crate) fn base_seq(&self) -> u64 {
        self.opening.base_seq.load(Ordering::Relaxed)
    }
}

impl Lane {
    fn new() -> Self {
        Self {
            word: CachePadded::new(AtomicU64::new(LaneWord::Empty(0).pack())),
            tally: CachePadded::default(),
        }
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes").field("lanes", &self.len()).finish_non_exhaustive()
    }
}

/// More lines than this push each other out before they are written.
#[cfg(not(ledgerline_loom))]
const EXPECTED_BYTES_MAX: usize = 4 * 1024;

/// Enough for a lane's open block and the one before it, still in flight.
const HOT_BLOCKS_PER_LANE: usize = 2;
