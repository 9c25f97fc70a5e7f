//! The packed words of the protocol, bit by bit. Pure arithmetic.
//!
//! Limits that follow: 2^23 generations, 2^26 blocks, 32,767 records and 16 MiB a block, offsets
//! up to 4 MiB, records up to 1 MiB, ages up to 35 minutes.

/// What a lane's word says. The top two bits are the tag; zero is `Empty(0)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaneWord {
    /// No block; the lane's next record will have this sequence number.
    Empty(u64),
    /// The lane's block, at this generation.
    Block(BlockWord),
    /// Refuses records; the lane accepted this many.
    Closed(u64),
}

impl LaneWord {
    pub(crate) fn pack(self) -> u64 {
        match self {
            Self::Empty(seq) => seq,
            Self::Block(block) => TAG_BLOCK | block.pack(),
            Self::Closed(seq) => TAG_CLOSED | seq,
        }
    }

    pub(crate) fn unpack(word: u64) -> Self {
        let payload = word & !TAG_MASK;
        match word & TAG_MASK {
            0 => Self::Empty(payload),
            TAG_BLOCK => Self::Block(BlockWord::unpack(payload)),
            _ => Self::Closed(payload),
        }
    }
}

/// Names one life of one block: id in bits 23..49, generation in bits 0..23.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockWord {
    pub(crate) id: u32,
    pub(crate) generation: u32,
}

impl BlockWord {
    fn pack(self) -> u64 {
        u64::from(self.id) << GENERATION_BITS | u64::from(self.generation)
    }

    fn unpack(word: u64) -> Self {
        Self {
            id: (word >> GENERATION_BITS) as u32,
            generation: (word & u64::from(GENERATION_MASK)) as u32,
        }
    }
}

/// A block's state: generation in bits 41..64, WATCHED 40, SEALED 39, count 24..39, used 0..24.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct State(pub(crate) u64);

impl State {
    /// A block in the pool: sealed, so that a producer with an old lane word can't reserve in it.
    pub(crate) fn free(generation: u32) -> Self {
        Self(u64::from(generation) << 41 | SEALED)
    }

    /// A block at its installation: watched, so that its first record wakes the driver.
    pub(crate) fn opened(generation: u32) -> Self {
        Self(u64::from(generation) << 41 | WATCHED)
    }

    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 41) as u32
    }

    pub(crate) fn is_sealed(self) -> bool {
        self.0 & SEALED != 0
    }

    pub(crate) fn is_watched(self) -> bool {
        self.0 & WATCHED != 0
    }

    pub(crate) fn count(self) -> u32 {
        (self.0 >> 24) as u32 & COUNT_MASK
    }

    pub(crate) fn used(self) -> u32 {
        self.0 as u32 & USED_MASK
    }

    /// With one more record of `bytes`; the driver's watch ends with it.
    pub(crate) fn reserved(self, bytes: u32) -> Self {
        debug_assert!(self.count() < COUNT_MASK && self.used() + bytes <= USED_MASK);
        Self((self.0 + (1 << 24) + u64::from(bytes)) & !WATCHED)
    }

    pub(crate) fn sealed(self) -> Self {
        Self((self.0 | SEALED) & !WATCHED)
    }

    pub(crate) fn watched(self) -> Self {
        Self(self.0 | WATCHED)
    }
}

/// The generation after this one.
pub(crate) fn next_generation(generation: u32) -> u32 {
    (generation + 1) & GENERATION_MASK
}

/// How many generations after `generation` a block at `now` is.
pub(crate) fn generations_between(generation: u32, now: u32) -> u32 {
    now.wrapping_sub(generation) & GENERATION_MASK
}

/// Where a record lies: offset in bits 42..64, length 22..42, age 1..22, COMMITTED 0.
///
/// Both bounds are in the word, so that a record in the making hides nothing behind it. Zero means
/// not committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexWord {
    pub(crate) offset: u32,
    pub(crate) length: u32,
    /// Milliseconds between the block's opening and the record.
    pub(crate) age_ms: u32,
}

impl IndexWord {
    pub(crate) fn pack(self) -> u64 {
        debug_assert!(self.offset < 1 << 22 && self.length <= LENGTH_MASK);
        debug_assert!(self.age_ms <= AGE_MS_MAX);
        u64::from(self.offset) << 42
            | u64::from(self.length) << 22
            | u64::from(self.age_ms) << 1
            | COMMITTED
    }

    pub(crate) fn unpack(word: u64) -> Option<Self> {
        (word & COMMITTED != 0).then_some(Self {
            offset: (word >> 42) as u32,
            length: (word >> 22) as u32 & LENGTH_MASK,
            age_ms: (word >> 1) as u32 & AGE_MS_MAX,
        })
    }
}

/// Ages that an index word can hold: 35 minutes. A block older than that takes no more records.
pub(crate) const AGE_MS_MAX: u32 = (1 << 21) - 1;
const TAG_MASK: u64 = 0b11 << 62;
const TAG_BLOCK: u64 = 0b01 << 62;
const TAG_CLOSED: u64 = 0b10 << 62;
const GENERATION_BITS: u32 = 23;
const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;
const WATCHED: u64 = 1 << 40;
const SEALED: u64 = 1 << 39;
const COUNT_MASK: u32 = (1 << 15) - 1;
const USED_MASK: u32 = (1 << 24) - 1;
const LENGTH_MASK: u32 = (1 << 20) - 1;
const COMMITTED: u64 = 1;

#[cfg(all(test, not(ledgerline_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_keep_every_part(
            id in 0u32..1 << 26, generation in 0u32..1 << 23, seq in 0u64..1 << 62,
        ) {
            for word in [
                LaneWord::Empty(seq),
                LaneWord::Closed(seq),
                LaneWord::Block(BlockWord { id, generation }),
            ] {
                prop_assert_eq!(LaneWord::unpack(word.pack()), word);
            }
        }

        #[test]
        fn index_words_keep_every_part(
            offset in 0u32..1 << 22, length in 0u32..1 << 20, age_ms in 0u32..1 << 21,
        ) {
            let word = IndexWord { offset, length, age_ms };
            prop_assert_eq!(IndexWord::unpack(word.pack()), Some(word));
        }
    }

    #[test]
    fn a_zero_word_is_an_empty_lane_and_no_record() {
        assert_eq!(LaneWord::unpack(0), LaneWord::Empty(0));
        assert_eq!(IndexWord::unpack(0), None);
    }

    #[test]
    fn reserving_counts_the_record_and_ends_the_watch() {
        let generation = GENERATION_MASK;
        let state = State::opened(generation).reserved(700).watched().reserved(1);
        assert_eq!((state.generation(), state.count(), state.used()), (generation, 2, 701));
        assert!(!state.is_watched() && !state.is_sealed());
        let sealed = state.watched().sealed();
        assert!(sealed.is_sealed() && !sealed.is_watched());
        assert_eq!((sealed.generation(), sealed.count(), sealed.used()), (generation, 2, 701));
        assert_eq!(next_generation(generation), 0);
    }
}
