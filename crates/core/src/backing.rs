//! Where blocks live.
#![cfg_attr(not(ledgerline_loom), expect(unsafe_code, reason = "takes mapped memory as blocks"))]

use std::io;
#[cfg(not(ledgerline_loom))]
use std::mem::ManuallyDrop;

use crate::block::Block;
#[cfg(not(ledgerline_loom))]
use crate::process::Process;

/// Memory that holds an engine's blocks.
///
/// Implemented by [`Anonymous`] memory; a file mapping is the other kind.
pub trait Backing: Send + Sync + 'static {
    /// The blocks: always the same ones, in the same order, zeroed or initialised when first used.
    fn blocks(&self) -> &[Block];
}

/// Anonymous memory: gone with the process, and not there in a process forked off it.
///
/// A fork would otherwise mark every page as shared, and the parent's producers would pay for a
/// copy of each at their next record.
#[cfg(not(ledgerline_loom))]
#[derive(Debug)]
pub struct Anonymous {
    /// Not there in a forked child, which may have other memory where it was.
    memory: ManuallyDrop<memmap2::MmapRaw>,
    blocks: usize,
    process: Process,
}

#[cfg(not(ledgerline_loom))]
impl Anonymous {
    /// Takes the memory of `blocks` blocks now, every page of it, so that no producer meets a page
    /// fault later.
    ///
    /// # Errors
    /// The system has no such memory, or no address space for it.
    pub fn new(blocks: usize) -> io::Result<Self> {
        let bytes = blocks.checked_mul(size_of::<Block>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let memory = memmap2::MmapMut::map_anon(bytes)?;
        #[cfg(target_os = "linux")]
        {
            memory.advise(memmap2::Advice::DontFork)?;
            // Each record goes to other cache lines, and each sixth to another page: with huge ones
            // the addresses stay known. A kernel that has none refuses, and it is as well.
            let _ = memory.advise(memmap2::Advice::HugePage);
        }
        let memory = ManuallyDrop::new(memory.into());
        let anonymous = Self { memory, blocks, process: Process::current() };
        for block in anonymous.blocks() {
            block.touch_pages();
        }
        Ok(anonymous)
    }
}

#[cfg(not(ledgerline_loom))]
impl Drop for Anonymous {
    fn drop(&mut self) {
        if self.process == Process::current() {
            // SAFETY: once, and nobody uses the memory after this.
            unsafe { ManuallyDrop::drop(&mut self.memory) }
        }
    }
}

#[cfg(not(ledgerline_loom))]
impl Backing for Anonymous {
    fn blocks(&self) -> &[Block] {
        let first = self.memory.as_ptr().cast::<Block>();
        // SAFETY: the mapping is as long as `blocks` blocks, lives as long as self, and begins at a
        // page, which is aligned for a block. It began as zeroes, and every field of a block is an
        // atomic or a cell of an integer: all-zero bytes are a value of each, and writing through
        // a shared reference is theirs to allow.
        unsafe { std::slice::from_raw_parts(first, self.blocks) }
    }
}

/// Blocks for a model.
#[cfg(ledgerline_loom)]
#[derive(Debug)]
pub struct Anonymous {
    blocks: Box<[Block]>,
}

#[cfg(ledgerline_loom)]
impl Anonymous {
    /// So many.
    ///
    /// # Errors
    /// None.
    pub fn new(blocks: usize) -> io::Result<Self> {
        Ok(Self { blocks: (0..blocks).map(|_| Block::new()).collect() })
    }
}

#[cfg(ledgerline_loom)]
impl Backing for Anonymous {
    fn blocks(&self) -> &[Block] {
        &self.blocks
    }
}

// A mapping begins at a page.
const _: () = assert!(align_of::<Block>() <= 4096);
