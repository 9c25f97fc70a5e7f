//! What the driver knows of each block's life and of each lane's sequence.

use std::collections::VecDeque;

/// The present life of a block, as far as the driver has met it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Life {
    pub(super) is_known: bool,
    pub(super) lane: u32,
    pub(super) generation: u32,
    pub(super) base_seq: u64,
    pub(super) opened_ms: u64,
    /// Records taken: the driver's cursor.
    pub(super) taken: u32,
    /// Records settled, in any order.
    pub(super) settled: u32,
    /// Records settled without a gap from the first.
    pub(super) prefix: u32,
    /// Records that are set apart.
    pub(super) apart: u32,
    /// Known once the block was popped from `ready`, or sealed by the driver itself.
    pub(super) final_count: Option<u32>,
}

/// A lane's settled records, as stretches of its sequence.
///
/// Blocks of one lane can be met out of order: the one that sealed a block may be delayed before
/// it pushes it, while others fill the next. So the watermark advances over stretches in the order
/// of their sequence, and stops where one is unknown.
#[derive(Debug, Default)]
pub(super) struct LaneLedger {
    watermark: u64,
    settled: u64,
    /// In the order of `base_seq`; as many as the lane has blocks in flight.
    stretches: VecDeque<Stretch>,
}

#[derive(Debug)]
struct Stretch {
    base_seq: u64,
    /// Where the settled prefix ends.
    settled_to: u64,
    /// Where the stretch ends, once its block is sealed.
    end: Option<u64>,
}

impl LaneLedger {
    /// Everything below this sequence number is settled.
    pub(super) fn watermark(&self) -> u64 {
        self.watermark
    }

    /// Records settled, wherever they stand in the sequence.
    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    pub(super) fn open(&mut self, base_seq: u64) {
        let place = self.stretches.partition_point(|stretch| stretch.base_seq <= base_seq);
        self.stretches.insert(place, Stretch { base_seq, settled_to: base_seq, end: None });
    }

    pub(super) fn seal(&mut self, life: &Life) {
        let count = life.final_count.expect("sealed");
        if count == 0 {
            return self.forget(life.base_seq);
        }
        self.stretch(life).end = Some(life.base_seq + u64::from(count));
        self.advance();
    }

    /// A block sealed without a record shares its base with the next one, whichever was met first.
    /// Its stretch is one of those on which nothing was noted, and these are all alike.
    fn forget(&mut self, base_seq: u64) {
        let untouched = |stretch: &Stretch| {
            (stretch.base_seq, stretch.settled_to, stretch.end) == (base_seq, base_seq, None)
        };
        let place = self.stretches.iter().position(untouched);
        self.stretches.remove(place.expect("a block that was met has its stretch"));
        self.advance();
    }

    /// Counts settled records.
    pub(super) fn count(&mut self, count: u32) {
        self.settled += u64::from(count);
    }

    /// Forgets everything but the count.
    pub(super) fn reset(&mut self) {
        self.watermark = 0;
        self.stretches.clear();
    }

    /// Every block with a record below `next_seq` has been opened again: what lies before the first
    /// of them is settled.
    pub(super) fn resume(&mut self, next_seq: u64) {
        let first = self.stretches.front().map_or(next_seq, |first| first.base_seq);
        self.watermark = first.min(next_seq);
    }

    /// Notes how far the block's records are settled without a gap.
    pub(super) fn settle(&mut self, life: &Life) {
        self.stretch(life).settled_to = life.base_seq + u64::from(life.prefix);
        self.advance();
    }

    /// The stretch of a block that isn't recycled yet, and has a record. One without may share its
    /// base, met before it, until it is known to be sealed.
    fn stretch(&mut self, life: &Life) -> &mut Stretch {
        let end = self.stretches.partition_point(|stretch| stretch.base_seq <= life.base_seq);
        let stretch = &mut self.stretches[end - 1];
        assert_eq!(stretch.base_seq, life.base_seq, "every live block has its stretch");
        stretch
    }

    /// The blocks whose records reach from the watermark to `target`, as the places of their first
    /// records and, of what is not settled, the first place: `None` where one isn't known yet.
    pub(super) fn unsettled_below(&self, target: u64) -> Option<Vec<u64>> {
        let mut reached = self.watermark;
        let mut open = Vec::new();
        for stretch in self.stretches.iter().filter(|stretch| stretch.base_seq < target) {
            if reached < stretch.base_seq {
                return None;
            }
            match stretch.end {
                Some(end) if end == stretch.settled_to => reached = reached.max(end),
                end => {
                    open.push(stretch.base_seq);
                    // An open block may have any number of records; its life says how many.
                    reached = reached.max(end.unwrap_or(u64::MAX));
                }
            }
        }
        (reached >= target).then_some(open)
    }

    fn advance(&mut self) {
        while let Some(first) = self.stretches.front()
            && first.base_seq <= self.watermark
        {
            self.watermark = self.watermark.max(first.settled_to);
            if first.end != Some(first.settled_to) {
                return;
            }
            self.stretches.pop_front();
        }
    }
}
