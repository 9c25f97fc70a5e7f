//! What `record` gives back.

/// Names one accepted record: 8 bytes, free to copy.
///
/// Valid until its block has been used again 4,194,304 times, which takes hours of an uninterrupted
/// full load; for as many times more it is said to be forgotten, and after that it may be taken for
/// a later record's. Means nothing to another engine, which may take it for one of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt(u64);

impl Receipt {
    /// Block id in bits 38..64, generation 15..38, index 0..15.
    pub(crate) fn new(block: u32, generation: u32, index: u32) -> Self {
        Self(u64::from(block) << 38 | u64::from(generation) << 15 | u64::from(index))
    }

    pub(crate) fn block(self) -> u32 {
        (self.0 >> 38) as u32
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 15) as u32 & ((1 << 23) - 1)
    }

    pub(crate) fn index(self) -> u32 {
        self.0 as u32 & ((1 << 15) - 1)
    }
}
