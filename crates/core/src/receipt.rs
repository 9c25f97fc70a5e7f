//! What `record` gives back.

/// Names one accepted record: 8 bytes, free to copy, valid for as long as the engine lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt(u64);

impl Receipt {
    /// Block id in bits 38..64, generation 15..38, index 0..15.
    pub(crate) fn new(block: u32, generation: u32, index: u32) -> Self {
        Self(u64::from(block) << 38 | u64::from(generation) << 15 | u64::from(index))
    }
}
