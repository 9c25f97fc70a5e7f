//! A batch: the records sent as one request.

use ledgerline_core::Record;

use super::{BatchId, Doubt, gather::Reason};

/// Neighbouring records of one block, and so one slice of its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) block: u32,
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// Records accepted in the same millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) accepted_ms: u64,
    pub(crate) count: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) spans: Vec<Span>,
    /// The same records, by when they were accepted, in the same order.
    pub(crate) moments: Vec<Moment>,
    pub(crate) events: u32,
    /// Their bytes; of a part of a divided batch, at most as many.
    pub(crate) bytes: u64,
    /// Why it was cut, and from how many records.
    pub(crate) cut: Option<(Reason, usize)>,
    pub(crate) attempts: u32,
    /// Of these, those that failed: not those that were answered, and held.
    pub(crate) failures: u32,
    /// Of these, tries that got no answer in time.
    pub(crate) timeouts: u32,
    /// Times that it, or what it is a part of, was halved for that.
    pub(crate) halvings: u32,
    /// It is what such a halving made it, and was not divided since.
    pub(crate) is_slow_half: bool,
    /// Times that it was held.
    pub(crate) holds: u32,
    /// The connection that it is on, while it is.
    pub(crate) connection: Option<usize>,
    /// When it was last put on a connection before one took it.
    pub(crate) sent_ms: u64,
    /// When the present try was put on its connection.
    pub(crate) begun_ms: u64,
    /// The first byte of the present try was written.
    pub(crate) is_begun: bool,
    /// A part of a batch that was too big.
    pub(crate) is_half: bool,
    /// The batch whose bad events are being searched for, of which this is a part.
    pub(crate) origin: Option<BatchId>,
    /// The server has once not accepted the token that it came with.
    pub(crate) was_unauthorized: bool,
    /// The one event that an answer named as bad.
    pub(crate) is_named: bool,
    /// Since when no connection could take a batch, when this one was first put on one.
    pub(crate) blocked_since_ms: Option<u64>,
    /// A connection took it once.
    pub(crate) is_offered: bool,
    /// The outcome of an earlier try is unknown: it may be stored.
    pub(crate) is_ambiguous: bool,
    pub(crate) is_counted_duplicated: bool,
}

impl Batch {
    /// Appends a record.
    pub(crate) fn push(&mut self, record: Record) {
        self.events += 1;
        self.bytes += u64::from(record.bytes);
        match self.spans.last_mut() {
            Some(span) if span.block == record.block && span.first + span.count == record.index => {
                span.count += 1;
            }
            _ => {
                self.spans.push(Span { block: record.block, first: record.index, count: 1 });
            }
        }
        self.push_moments(Moment { accepted_ms: record.accepted_ms, count: 1 });
    }

    /// What is known of its tries.
    pub(crate) fn doubt(&self) -> Doubt {
        Doubt { is_ambiguous: self.is_ambiguous, is_counted: self.is_counted_duplicated }
    }

    /// The same records as two batches; the first has as many, or one less.
    pub(crate) fn halves(self) -> (Self, Self) {
        let half = self.events / 2;
        self.split_at(half)
    }

    /// The record at `index`, and the others.
    pub(crate) fn without(self, index: u32) -> (Self, Self) {
        let (mut others, rest) = self.split_at(index);
        let (one, behind) = rest.split_at(1);
        others.append(behind);
        (one, others)
    }

    fn split_at(self, events: u32) -> (Self, Self) {
        let mut left = events;
        self.split(|span| {
            let taken = span.count.min(left);
            left -= taken;
            taken
        })
    }

    /// Takes over the records of another batch of the same past.
    fn append(&mut self, other: Self) {
        self.events += other.events;
        self.spans.extend(other.spans);
        for moment in other.moments {
            self.push_moments(moment);
        }
    }

    /// The same records as two batches of the same past: of each span, as many as `first_of` says
    /// go to the first, from its front, and the others to the second.
    pub(crate) fn split(self, mut first_of: impl FnMut(&Span) -> u32) -> (Self, Self) {
        let (mut first, mut second) = (self.like(), self.like());
        let mut moments = self.moments.iter().copied();
        let mut moment = Moment { accepted_ms: 0, count: 0 };
        for span in &self.spans {
            let taken = first_of(span);
            let rest = Span { first: span.first + taken, count: span.count - taken, ..*span };
            for (half, part) in [(&mut first, Span { count: taken, ..*span }), (&mut second, rest)]
            {
                if part.count == 0 {
                    continue;
                }
                half.events += part.count;
                half.spans.push(part);
                let mut left = part.count;
                while left > 0 {
                    if moment.count == 0 {
                        moment = moments.next().expect("each record has its moment");
                    }
                    let count = moment.count.min(left);
                    half.push_moments(Moment { count, ..moment });
                    moment.count -= count;
                    left -= count;
                }
            }
        }
        (first, second)
    }

    fn push_moments(&mut self, moment: Moment) {
        match self.moments.last_mut() {
            Some(last) if last.accepted_ms == moment.accepted_ms => last.count += moment.count,
            _ => self.moments.push(moment),
        }
    }

    /// Without records, and with the same past.
    fn like(&self) -> Self {
        Self {
            bytes: self.bytes,
            attempts: self.attempts,
            failures: self.failures,
            timeouts: self.timeouts,
            halvings: self.halvings,
            holds: self.holds,
            sent_ms: self.sent_ms,
            is_half: self.is_half,
            origin: self.origin,
            blocked_since_ms: self.blocked_since_ms,
            is_offered: self.is_offered,
            is_ambiguous: self.is_ambiguous,
            is_counted_duplicated: self.is_counted_duplicated,
            ..Self::default()
        }
    }
}
