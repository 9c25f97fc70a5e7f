//! Lending committed bytes, straight from the block, to whoever sends them.
//!
//! One word per block counts its loans, and says whether the driver waits for the last one to end.
//! Both meet on that word, so a driver that went to sleep over a block on loan is always woken.
#![expect(unsafe_code, reason = "reads committed bytes in place")]

use std::fmt;

use crate::{
    block::Block,
    driver::Driver,
    lanes::Shared,
    sync::{Arc, Ordering},
};

/// Neighbouring committed records, in place. While it lives, its block is not recycled.
///
/// Send and Sync; dropping it on any thread ends the loan.
pub struct Loan {
    shared: Arc<Shared>,
    block: u32,
    offset: u32,
    length: u32,
}

impl Driver {
    /// Lends the bytes of `count` neighbouring records of a block, from `first` on. They were
    /// reserved one behind the other, so they are one slice.
    ///
    /// # Panics
    /// When one of them was not taken.
    #[must_use]
    pub fn lend(&self, block: u32, first: u32, count: u32) -> Loan {
        let life = &self.lives[block as usize];
        assert!(life.is_known && count > 0 && first + count <= life.taken, "lent before taken");
        let home = &self.shared.blocks()[block as usize];
        let bounds = |index| home.committed(index).expect("taken records are committed");
        let (from, to) = (bounds(first), bounds(first + count - 1));
        // Relaxed: the driver itself, on this thread, is the one that looks at it before it
        // recycles; a loan can only be handed on after this.
        self.shared.lent[block as usize].fetch_add(1, Ordering::Relaxed);
        let length = to.offset + to.length - from.offset;
        Loan { shared: Arc::clone(&self.shared), block, offset: from.offset, length }
    }

    /// Whether bytes of the block are on loan; if so, the end of the last loan rings the bell.
    pub(super) fn is_lent(&self, block: u32) -> bool {
        let lent = &self.shared.lent[block as usize];
        // Acquire: pairs with the Release in `Loan::drop`; the borrowers' reads are over.
        if lent.fetch_or(AWAITED, Ordering::Acquire) & !AWAITED > 0 {
            return true;
        }
        // Relaxed: only the driver makes loans, so nobody else touches the word now.
        lent.store(0, Ordering::Relaxed);
        false
    }
}

impl Loan {
    fn home(&self) -> &Block {
        &self.shared.blocks()[self.block as usize]
    }
}

#[cfg(not(ledgerline_loom))]
impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `lend` saw every record of the range committed, on the thread that made this
        // loan; the count of loans keeps the block from being recycled until the drop below.
        unsafe { self.home().read(self.offset, self.length) }
    }
}

#[cfg(ledgerline_loom)]
impl Loan {
    /// A copy of the bytes, for a model.
    pub(crate) fn copy(&self) -> Vec<u8> {
        // SAFETY: as above.
        unsafe { self.home().read(self.offset, self.length) }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        // Release: pairs with the Acquire in `is_lent`; the reads come before it.
        let before = self.shared.lent[self.block as usize].fetch_sub(1, Ordering::Release);
        if before == AWAITED | 1 {
            self.shared.bell.ring();
        }
    }
}

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan")
            .field("block", &self.block)
            .field("offset", &self.offset)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// In a block's count of loans: the driver has nothing left to do for the block but recycle it.
const AWAITED: u32 = 1 << 31;
