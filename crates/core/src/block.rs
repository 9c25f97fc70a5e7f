//! A block: a fixed piece of memory that lanes fill with records.
//!
//! All of a block lives in one place, header, index and bytes, so that a backing may be a file
//! mapping that survives the process. Only committed bytes are ever read (I5): a reference to a
//! record is made from its own bounds and spans nothing else.
#![expect(unsafe_code, reason = "producers copy records into memory shared with the driver")]

use crossbeam_utils::CachePadded;

use crate::{
    sync::{AtomicU8, AtomicU32, AtomicU64, Ordering},
    word::{IndexWord, State},
};

/// Bytes of records a block holds.
#[cfg(not(ledgerline_loom))]
pub const BLOCK_BYTES: usize = 512 * 1024;
/// Bytes of records a block holds.
#[cfg(ledgerline_loom)]
pub const BLOCK_BYTES: usize = 4;

/// Records a block holds at most. With 256 bytes for each it is never what fills a block: an
/// event's required fields and ids alone take more.
#[cfg(not(ledgerline_loom))]
pub const RECORDS_PER_BLOCK: usize = 2048;
/// Records a block holds at most.
#[cfg(ledgerline_loom)]
pub const RECORDS_PER_BLOCK: usize = 2;

/// One block. All bytes zero is a valid block.
#[repr(C)]
pub struct Block {
    /// See [`State`]. On a line of its own: every reservation of the lane writes it.
    pub(crate) state: CachePadded<AtomicU64>,
    pub(crate) opening: CachePadded<Opening>,
    /// See [`Status`](crate::standing::Status). Written by the driver only, and away from the
    /// index's lines.
    pub(crate) status: [AtomicU8; RECORDS_PER_BLOCK],
    /// See [`IndexWord`]. A line is shared by eight neighbouring records of one lane.
    pub(crate) index: [AtomicU64; RECORDS_PER_BLOCK],
    bytes: [Cell; BLOCK_BYTES],
}

/// Written between the pop from the pool and the installation, read-only afterwards.
pub(crate) struct Opening {
    /// Sequence number, in the lane, of the block's first record.
    pub(crate) base_seq: AtomicU64,
    /// The engine's clock at the installation, in milliseconds.
    pub(crate) opened_ms: AtomicU64,
    /// The lane that it was opened for.
    pub(crate) lane: AtomicU32,
}

#[cfg(not(ledgerline_loom))]
type Cell = std::cell::UnsafeCell<u8>;
#[cfg(ledgerline_loom)]
type Cell = loom::cell::UnsafeCell<u8>;

// SAFETY: `bytes` is the only part that isn't Sync by itself. A byte is written by the one
// producer that reserved it (I1), before its index word is committed with Release; it is read only
// after that word was loaded with Acquire (I5); it is written again only after the block was
// recycled, when no writer and no loan is left (I6).
unsafe impl Sync for Block {}

impl Block {
    /// The bounds of record `index`, if it is committed.
    pub(crate) fn committed(&self, index: u32) -> Option<IndexWord> {
        // Acquire: pairs with the Release in `commit`; makes the record's bytes visible.
        IndexWord::unpack(self.index[index as usize].load(Ordering::Acquire))
    }

    /// Publishes a record whose bytes have been written.
    pub(crate) fn commit(&self, index: u32, word: IndexWord) {
        // Release: pairs with the Acquire in `committed`; publishes the bytes.
        self.index[index as usize].store(word.pack(), Ordering::Release);
    }

    pub(crate) fn load_state(&self, ordering: Ordering) -> State {
        State(self.state.load(ordering))
    }

    /// Compare-and-swap of the state. Relaxed: the word's own atomicity is all that a reservation,
    /// a seal or a watch needs; bytes are published by the commit word, handles by the queue.
    pub(crate) fn swap_state(&self, from: State, to: State) -> Result<(), State> {
        let relaxed = Ordering::Relaxed;
        self.state.compare_exchange(from.0, to.0, relaxed, relaxed).map(drop).map_err(State)
    }
}

#[cfg(not(ledgerline_loom))]
impl Block {
    /// Writes one byte of each page of a block that nobody else has seen yet.
    pub(crate) fn touch_pages(&self) {
        for index in &self.index {
            index.store(0, Ordering::Relaxed);
        }
        for offset in (0..BLOCK_BYTES).step_by(PAGE_BYTES) {
            // SAFETY: a fresh block has no reservations; its maker alone holds it.
            unsafe { self.write(offset as u32, &[0]) };
        }
    }

    /// Has the cache lines of bytes that will be written, and the index word of their record,
    /// brought near. A hint: nothing is read, and whoever reserves the bytes may be another.
    #[inline]
    pub(crate) fn expect_write(&self, index: u32, offset: u32, length: usize) {
        #[cfg(all(target_arch = "x86_64", target_feature = "sse"))]
        {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            let first = self.bytes.as_ptr().cast::<i8>().wrapping_add(offset as usize);
            let length = length.min(BLOCK_BYTES - offset as usize);
            for line in (0..length).step_by(LINE_BYTES) {
                // SAFETY: SSE is there; a prefetch of any address is no access.
                unsafe { _mm_prefetch::<_MM_HINT_ET0>(first.wrapping_add(line)) };
            }
            let word = self.index.as_ptr().wrapping_add(index as usize).cast();
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_ET0>(word) };
        }
        #[cfg(not(all(target_arch = "x86_64", target_feature = "sse")))]
        let _ = (index, offset, length);
    }

    /// Copies a record into bytes that its caller reserved.
    ///
    /// # Safety
    /// `[offset, offset + record.len())` must have been reserved by the calling thread in the
    /// block's present generation, and not yet committed.
    pub(crate) unsafe fn write(&self, offset: u32, record: &[u8]) {
        let target = self.bytes[offset as usize..][..record.len()].as_ptr();
        // SAFETY: the slicing above checked the bounds; the cells allow writes through a shared
        // reference; by the caller's promise nobody else reads or writes these bytes now (I1, I5).
        unsafe {
            std::ptr::copy_nonoverlapping(record.as_ptr(), target.cast_mut().cast(), record.len());
        }
    }

    /// Committed bytes.
    ///
    /// # Safety
    /// Every record that `[offset, offset + length)` touches must be committed, seen as such by
    /// the calling thread, and must not be recycled while the slice lives.
    pub(crate) unsafe fn read(&self, offset: u32, length: u32) -> &[u8] {
        let source = self.bytes[offset as usize..][..length as usize].as_ptr();
        // SAFETY: in bounds by the slicing; committed bytes are not written until the block is
        // recycled (I1, I6), which the caller excludes.
        unsafe { std::slice::from_raw_parts(source.cast(), length as usize) }
    }
}

#[cfg(ledgerline_loom)]
impl Block {
    /// A block for a model, as zeroed memory would be.
    pub(crate) fn new() -> Self {
        Self {
            state: CachePadded::new(AtomicU64::new(0)),
            opening: CachePadded::new(Opening {
                base_seq: AtomicU64::new(0),
                opened_ms: AtomicU64::new(0),
                lane: AtomicU32::new(0),
            }),
            status: std::array::from_fn(|_| AtomicU8::new(0)),
            index: std::array::from_fn(|_| AtomicU64::new(0)),
            bytes: std::array::from_fn(|_| Cell::new(0)),
        }
    }

    /// As above, each byte through a cell that loom watches for races.
    ///
    /// # Safety
    /// As above; loom reports a breach.
    pub(crate) unsafe fn write(&self, offset: u32, record: &[u8]) {
        for (cell, byte) in self.bytes[offset as usize..].iter().zip(record) {
            // SAFETY: loom hands out a pointer to the cell's one byte.
            cell.with_mut(|target| unsafe { *target = *byte });
        }
    }

    /// As above, but a copy: loom's cells cannot be borrowed as a slice.
    ///
    /// # Safety
    /// As above; loom reports a breach.
    pub(crate) unsafe fn read(&self, offset: u32, length: u32) -> Vec<u8> {
        let cells = &self.bytes[offset as usize..][..length as usize];
        // SAFETY: loom hands out a pointer to the cell's one byte.
        cells.iter().map(|cell| cell.with(|source| unsafe { *source })).collect()
    }
}

impl std::fmt::Debug for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.load_state(Ordering::Relaxed);
        f.debug_struct("Block")
            .field("generation", &state.generation())
            .field("sealed", &state.is_sealed())
            .field("count", &state.count())
            .field("used", &state.used())
            .finish_non_exhaustive()
    }
}

#[cfg(all(not(ledgerline_loom), target_arch = "x86_64", target_feature = "sse"))]
const LINE_BYTES: usize = 64;

/// The smallest page size of the supported machines.
#[cfg(not(ledgerline_loom))]
const PAGE_BYTES: usize = 4096;

// The packed words must be able to name every record and byte.
const _: () = assert!(RECORDS_PER_BLOCK < 1 << 15);
const _: () = assert!(BLOCK_BYTES <= 1 << 22);
