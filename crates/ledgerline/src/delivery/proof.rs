//! Whether DataStorage keeps our event ids, so that a resend is harmless.
//!
//! The proof belongs to a connection: old and new servers stand behind one address while a fleet is
//! migrated. An answer with other ids on a connection that had given ours may be the late answer to
//! an earlier request, and is believed by nobody; so the first answer of a connection decides,
//! which can't be late. Where a first answer lists other ids, or several connections change their
//! minds, ids mean nothing for a while, and one request at a time is sent on each connection: that
//! is how an answer is known to be its own.

use std::collections::VecDeque;

/// What the ids in an answer are, where they were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ids {
    Unchecked,
    /// Those of the batch, as far as was to be checked.
    Ours,
    /// It lists none.
    Absent,
    /// It lists others.
    Others,
}

/// How much of an answer's ids to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdCheck {
    Nothing,
    /// The first one: the answer is not another batch's.
    First,
    /// All, in order: the server keeps them.
    All,
}

/// What a connection has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// So many answers with our ids, not enough yet.
    Pending { ours: u32 },
    /// It keeps them; so many answers since all of one's ids were compared.
    Given { answers: u32 },
    /// It doesn't.
    Refuted,
}

impl Default for Proof {
    fn default() -> Self {
        Self::Pending { ours: 0 }
    }
}

/// What the connections of the endpoint have shown together.
#[derive(Debug, Default)]
pub(crate) struct Proofs {
    /// A connection has given proof.
    is_given: bool,
    /// A server behind the address was seen not to keep our ids: believed until then.
    refuted_until_ms: u64,
    /// Ids mean nothing until then.
    mixed_until_ms: u64,
    /// When connections changed their minds.
    changes_ms: VecDeque<u64>,
}

impl Proofs {
    pub(crate) fn check(&self, proof: Proof, now_ms: u64) -> IdCheck {
        match proof {
            _ if self.is_mixed(now_ms) => IdCheck::Nothing,
            Proof::Pending { .. } => IdCheck::All,
            Proof::Given { answers } if answers >= ANSWERS_PER_PROOF => IdCheck::All,
            Proof::Given { .. } => IdCheck::First,
            Proof::Refuted => IdCheck::Nothing,
        }
    }

    /// Whether more than one request may be in flight on the connection.
    pub(crate) fn allows_depth(&self, proof: Proof, now_ms: u64) -> bool {
        matches!(proof, Proof::Given { .. }) && !self.is_mixed(now_ms)
    }

    /// Whether a batch that is sent over the connection is stored once, however often it is sent.
    pub(crate) fn keeps_ids(&self, proof: Proof, now_ms: u64) -> bool {
        match proof {
            _ if self.is_mixed(now_ms) => false,
            Proof::Given { .. } => true,
            Proof::Pending { .. } => self.is_kept_by_all(now_ms),
            Proof::Refuted => false,
        }
    }

    /// Whether everybody behind the address keeps our ids, as far as is known.
    pub(crate) fn is_kept_by_all(&self, now_ms: u64) -> bool {
        self.is_given && now_ms >= self.refuted_until_ms
    }

    /// An answer that stored: what the connection has shown by it. `Err`: the ids of others on a
    /// connection that has kept ours. It is not believed.
    pub(crate) fn stored(&mut self, proof: Proof, ids: Ids, now_ms: u64) -> Result<Proof, Strange> {
        match (proof, ids) {
            (Proof::Given { answers }, Ids::Unchecked) => {
                Ok(Proof::Given { answers: answers.saturating_add(1) })
            }
            (_, Ids::Unchecked) => Ok(proof),
            (Proof::Given { answers }, Ids::Ours) => {
                let answers = if answers >= ANSWERS_PER_PROOF { 1 } else { answers + 1 };
                Ok(Proof::Given { answers })
            }
            (Proof::Pending { ours }, Ids::Ours) => {
                // One is enough, but where somebody has changed its mind a moment ago.
                self.forget(now_ms);
                let wanted = if self.changes_ms.is_empty() { 1 } else { PROOFS_AFTER_CHANGE };
                if ours + 1 < wanted {
                    return Ok(Proof::Pending { ours: ours + 1 });
                }
                self.is_given = true;
                Ok(Proof::Given { answers: 1 })
            }
            (Proof::Refuted, Ids::Ours) => Ok(Proof::Refuted),
            (Proof::Given { .. }, Ids::Absent | Ids::Others) => {
                self.changed(now_ms);
                Err(Strange)
            }
            (Proof::Pending { ours }, Ids::Absent | Ids::Others) => {
                self.refuted_until_ms = now_ms + MIXED_MS;
                if ids == Ids::Others && ours == 0 {
                    self.mixed_until_ms = now_ms + MIXED_MS;
                }
                if ours > 0 {
                    self.changed(now_ms);
                }
                Ok(Proof::Refuted)
            }
            (Proof::Refuted, Ids::Absent | Ids::Others) => Ok(Proof::Refuted),
        }
    }

    fn is_mixed(&self, now_ms: u64) -> bool {
        now_ms < self.mixed_until_ms
    }

    /// A connection gave our ids, and then others.
    fn changed(&mut self, now_ms: u64) {
        self.forget(now_ms);
        self.refuted_until_ms = now_ms + MIXED_MS;
        self.changes_ms.push_back(now_ms);
        if self.changes_ms.len() >= CHANGES_MAX {
            self.mixed_until_ms = now_ms + MIXED_MS;
        }
    }

    fn forget(&mut self, now_ms: u64) {
        while self.changes_ms.front().is_some_and(|at_ms| at_ms + MIXED_MS <= now_ms) {
            self.changes_ms.pop_front();
        }
    }
}

/// An answer that may be another batch's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Strange;

const ANSWERS_PER_PROOF: u32 = 1_000;
/// Answers in a row that must list our ids, after a balancer per request was suspected: one of four
/// servers that keep ids passes by chance once in a million connections.
const PROOFS_AFTER_CHANGE: u32 = 10;
const CHANGES_MAX: usize = 3;
const MIXED_MS: u64 = 600_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(proofs: &mut Proofs, ids: &[Ids], now_ms: u64) -> Result<Proof, Strange> {
        let mut proof = Proof::default();
        for ids in ids {
            proof = proofs.stored(proof, *ids, now_ms)?;
        }
        Ok(proof)
    }

    #[test]
    fn the_first_answer_of_a_connection_decides() {
        let mut proofs = Proofs::default();
        assert_eq!(shown(&mut proofs, &[Ids::Ours], 0), Ok(Proof::Given { answers: 1 }));
        assert!(proofs.is_kept_by_all(0));
        assert_eq!(shown(&mut proofs, &[Ids::Absent], 1), Ok(Proof::Refuted));
        assert!(!proofs.is_kept_by_all(1), "somebody there doesn't");
        assert_eq!(proofs.check(Proof::default(), 1), IdCheck::All, "others may");
        assert_eq!(shown(&mut proofs, &[Ids::Others], 2), Ok(Proof::Refuted));
        assert_eq!(proofs.check(Proof::Given { answers: 1 }, 2), IdCheck::Nothing);
        assert!(!proofs.allows_depth(Proof::Given { answers: 1 }, 2));
        assert!(proofs.is_kept_by_all(2 + MIXED_MS));
        assert_eq!(proofs.check(Proof::default(), 2 + MIXED_MS), IdCheck::All);
    }

    #[test]
    fn other_ids_after_ours_are_not_believed() {
        let mut proofs = Proofs::default();
        let given = Proof::Given { answers: 1 };
        for ids in [Ids::Others, Ids::Absent] {
            assert_eq!(proofs.stored(given, ids, 0), Err(Strange));
        }
        assert_eq!(proofs.check(Proof::default(), 0), IdCheck::All, "two of three");
        assert_eq!(shown(&mut proofs, &[Ids::Ours], 1), Ok(Proof::Pending { ours: 1 }));
        assert_eq!(shown(&mut proofs, &[Ids::Ours, Ids::Absent], 1), Ok(Proof::Refuted));
        assert_eq!(proofs.check(Proof::default(), 1), IdCheck::Nothing, "a balancer per request");
        let ours = [Ids::Ours; PROOFS_AFTER_CHANGE as usize];
        let later_ms = 2 + MIXED_MS;
        assert_eq!(shown(&mut proofs, &ours, later_ms), Ok(Proof::Given { answers: 10 }));
    }

    #[test]
    fn the_proof_is_asked_for_again_after_a_thousand_answers() {
        let mut proofs = Proofs::default();
        let mut proof = Proof::default();
        let mut asked = Vec::new();
        for number in 0..2_001 {
            let is_asked = proofs.check(proof, 0) == IdCheck::All;
            asked.extend(is_asked.then_some(number));
            proof = proofs.stored(proof, Ids::Ours, 0).expect("they are ours");
        }
        assert_eq!(asked, [0, 1_000, 2_000]);
    }
}
