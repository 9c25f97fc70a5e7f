//! Records that are kept and not waited for.
//!
//! What a record is sent to may refuse all that are like it, and take the others. Then it is set
//! apart by whoever delivers: it stays pending, in its block and in the accounts; a flush steps
//! over it, and those that wait for it are told. The note is a bit of its status byte, so that it
//! costs no memory, and goes when the record is settled.

use crate::{driver::Driver, lanes::SeqTargets, standing::Status, sync::Ordering};

impl Driver {
    /// Sets `count` neighbouring records apart, from `first` on, or takes them back. What is
    /// settled stays as it is; what is so already, too.
    ///
    /// # Panics
    /// When one of them was not taken.
    pub fn set_apart(&mut self, block: u32, first: u32, count: u32, is_apart: bool) {
        let life = &mut self.lives[block as usize];
        assert!(life.is_known && first + count <= life.taken, "set apart before it was taken");
        let home = &self.shared.blocks()[block as usize];
        for status in &home.status[first as usize..(first + count) as usize] {
            let known = Status(status.load(Ordering::Relaxed));
            if known.is_settled() || known.is_apart() == is_apart {
                continue;
            }
            // Release: pairs with the Acquire in `Lanes::standing`, as in `settle_in_place`.
            status.store(known.apart(is_apart).0, Ordering::Release);
            life.apart = if is_apart { life.apart + 1 } else { life.apart - 1 };
        }
    }

    /// Records that are set apart.
    #[must_use]
    pub fn apart(&self) -> u64 {
        self.lives.iter().map(|life| u64::from(life.apart)).sum()
    }

    /// Sealed blocks in which nothing is pending but what is set apart, the oldest first.
    #[must_use]
    pub fn blocks_apart(&self) -> Vec<u32> {
        let mut blocks = self.sealed_blocks();
        blocks.retain(|id| {
            let life = &self.lives[*id as usize];
            life.final_count == Some(life.settled + life.apart)
        });
        blocks
    }

    /// How many records below the targets are set apart, if every other one below them is settled.
    /// Looks at each pending record: not for every turn of a loop.
    #[must_use]
    pub fn apart_below(&self, targets: &SeqTargets) -> Option<u64> {
        let lanes = self.ledgers.iter().zip(&targets.0).enumerate();
        let mut apart = 0;
        for (lane, (ledger, target)) in lanes {
            if ledger.watermark() >= *target {
                continue;
            }
            for base_seq in ledger.unsettled_below(*target)? {
                apart += self.apart_in(lane as u32, base_seq, *target)?;
            }
        }
        Some(apart)
    }

    /// The same for the block of a lane that begins at this place of its sequence.
    fn apart_in(&self, lane: u32, base_seq: u64, target: u64) -> Option<u64> {
        let is_it = |life: &&crate::driver::ledger::Life| {
            life.is_known && (life.lane, life.base_seq) == (lane, base_seq) && life.taken > 0
        };
        let (id, life) = self.lives.iter().enumerate().find(|(_, life)| is_it(life))?;
        let wanted = target - base_seq;
        // Of a sealed block no more may be wanted than it has.
        let wanted = life.final_count.map_or(wanted, |count| wanted.min(u64::from(count)));
        if u64::from(life.taken) < wanted {
            return None;
        }
        let statuses = &self.shared.blocks()[id].status[..wanted as usize];
        let mut apart = 0;
        for status in statuses {
            let status = Status(status.load(Ordering::Relaxed));
            if status.is_apart() {
                apart += 1;
            } else if !status.is_settled() {
                return None;
            }
        }
        Some(apart)
    }
}
