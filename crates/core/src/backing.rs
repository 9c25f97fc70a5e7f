//! Where blocks live.
#![cfg_attr(not(ledgerline_loom), expect(unsafe_code, reason = "takes zeroed memory as blocks"))]

use crate::block::Block;

/// Memory that holds an engine's blocks.
///
/// Implemented by [`Anonymous`] memory; a file mapping is the other kind.
pub trait Backing: Send + Sync + 'static {
    /// The blocks: always the same ones, in the same order, zeroed or initialised when first used.
    fn blocks(&self) -> &[Block];
}

/// Anonymous memory: gone with the process.
#[derive(Debug)]
pub struct Anonymous {
    blocks: Box<[Block]>,
}

impl Anonymous {
    /// Takes the memory of `blocks` blocks now, every page of it, so that no producer meets a page
    /// fault later.
    ///
    /// # Panics
    /// When the allocator has no such memory, as every allocation does.
    #[cfg(not(ledgerline_loom))]
    #[must_use]
    pub fn new(blocks: usize) -> Self {
        let zeroed = Box::<[Block]>::new_zeroed_slice(blocks);
        // SAFETY: every field of a block is an integer, an atomic or a cell of one; all-zero bytes
        // are a value of each.
        let blocks = unsafe { zeroed.assume_init() };
        for block in &blocks {
            block.touch_pages();
        }
        Self { blocks }
    }

    /// Blocks for a model.
    #[cfg(ledgerline_loom)]
    #[must_use]
    pub fn new(blocks: usize) -> Self {
        Self { blocks: (0..blocks).map(|_| Block::new()).collect() }
    }
}

impl Backing for Anonymous {
    fn blocks(&self) -> &[Block] {
        &self.blocks
    }
}
