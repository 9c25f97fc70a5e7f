//! A batch: the records sent as one request, where they are, and what happened to them before.

use std::sync::Arc;

use ledgerline_core::{Record, TimerId};

use super::{BatchId, Doubt, gather::Reason, suspects::TypeId};
use crate::loss::ServerReason;
use crate::sink::http::verdict::Verdict;

/// Neighbouring records of one block, and so one slice of its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) block: u32,
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// The spans of these records, in their order.
pub(crate) fn spans(records: &[Record]) -> impl Iterator<Item = Span> {
    let follows = |one: &Record, next: &Record| {
        one.block == next.block && one.index.checked_add(1) == Some(next.index)
    };
    records.chunk_by(follows).map(|records| {
        let Record { block, index, .. } = records[0];
        Span { block, first: index, count: records.len() as u32 }
    })
}

#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) records: Vec<Record>,
    /// The length of all of them.
    pub(crate) bytes: u64,
    pub(crate) place: Place,
    pub(crate) role: Role,
    pub(crate) past: History,
}

/// Where a batch is.
#[derive(Debug)]
pub(crate) enum Place {
    /// Its turn has come.
    Ready,
    /// It waits for its next try.
    Backoff(TimerId),
    /// It waits for the one of its events that an answer named, which goes first.
    Behind,
    /// It is on a connection.
    InFlight(Flight),
    /// It came back, and what follows from that is being decided.
    Returned,
}

/// A try under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flight {
    pub(crate) connection: usize,
    /// When it was put there.
    pub(crate) begun_ms: u64,
    /// The first byte of its request was written.
    pub(crate) is_begun: bool,
}

/// Why a batch is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Role {
    /// Cut from what was gathered, or a part of that.
    #[default]
    Ordinary,
    /// The one event that an answer named as bad, and the batch that waits for its end.
    Named { rest: BatchId },
    /// Cut from the queue of a suspected type.
    Suspect(TypeId),
    /// Events as old as one that was refused for its age.
    Old,
    /// One event that is held alone.
    Parked,
}

/// What happened to a batch so far. Parts of a divided one inherit it.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// Why it was cut, and from how many records. None: it is a part.
    pub(crate) cut: Option<(Reason, usize)>,
    pub(crate) attempts: u32,
    /// Of these, those that failed: not those that were answered, and held.
    pub(crate) failures: u32,
    /// Of these, tries that got no answer in time.
    pub(crate) timeouts: u32,
    /// Times that it was halved for that.
    pub(crate) halvings: u32,
    /// It is what such a halving made it, and was not divided since.
    pub(crate) is_slow_half: bool,
    /// Times that it was held.
    pub(crate) holds: u32,
    /// Times that it was parked.
    pub(crate) parks: u32,
    /// A part of a batch that was too big.
    pub(crate) is_half: bool,
    /// The server has once not accepted the token that it came with.
    pub(crate) was_unauthorized: bool,
    /// Its refusal was doubted, and it was sent to somebody else.
    pub(crate) was_doubted: bool,
    /// An event that an answer named was stored: its answers name the wrong ones.
    pub(crate) is_misled: bool,
    /// An event that an answer named was taken out of it.
    pub(crate) is_remainder: bool,
    /// Since when no connection could take a batch, when this one was first put on one.
    pub(crate) blocked_since_ms: Option<u64>,
    /// When it was first put on a connection.
    pub(crate) tried_ms: Option<u64>,
    /// A connection took it once.
    pub(crate) is_offered: bool,
    pub(crate) doubt: Doubt,
    /// Answers of one kind in a row.
    pub(crate) same: SameAnswers,
    /// The connection that last refused or failed it.
    pub(crate) avoids: Option<usize>,
    /// Of one that is parked: its type.
    pub(crate) event_type: Option<Arc<str>>,
    /// What the server last said of it.
    pub(crate) reason: Option<Arc<ServerReason>>,
}

/// The same answer again and again, while others are stored: it is the batch.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SameAnswers {
    /// The verdict on it, and its status; 0 for no answer.
    pub(crate) kind: Option<(Verdict, u16)>,
    pub(crate) count: u32,
    /// When the last one came.
    pub(crate) at_ms: u64,
}

impl Batch {
    pub(crate) fn new(records: Vec<Record>, role: Role, past: History) -> Self {
        let bytes = records.iter().map(|record| u64::from(record.bytes)).sum();
        Self { records, bytes, place: Place::Ready, role, past }
    }

    pub(crate) fn events(&self) -> u32 {
        self.records.len() as u32
    }

    pub(crate) fn spans(&self) -> impl Iterator<Item = Span> {
        spans(&self.records)
    }

    /// The try under way.
    pub(crate) fn flight(&self) -> Option<&Flight> {
        match &self.place {
            Place::InFlight(flight) => Some(flight),
            _ => None,
        }
    }

    /// These records of it, with the same past, as a part of it.
    pub(crate) fn part(&self, records: Vec<Record>) -> Self {
        Self::new(records, self.role, History { cut: None, ..self.past.clone() })
    }

    /// The same records as two batches; the first has as many, or one less.
    pub(crate) fn halves(&self) -> (Self, Self) {
        let (first, second) = self.records.split_at(self.records.len() / 2);
        (self.part(first.to_vec()), self.part(second.to_vec()))
    }

    /// The record at `index`, and the others.
    pub(crate) fn without(&self, index: usize) -> (Self, Self) {
        let mut others = self.records.clone();
        let one = others.remove(index);
        (self.part(vec![one]), self.part(others))
    }
}
