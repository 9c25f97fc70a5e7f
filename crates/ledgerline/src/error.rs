//! What can go wrong, one type per operation.

use std::time::Duration;

use ledgerline_codec::EncodeError;
use ledgerline_core::{Accounts, Imbalance, Outcome as Settled};

use crate::config::ConfigError;
use crate::report::Closed;
use crate::store::Stage;

/// [`Store::start`](crate::Store::start) failed; nothing was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is invalid.
    #[error("invalid configuration")]
    Config(#[from] ConfigError),
    /// The system has no memory for the buffer.
    #[error("no memory for the buffer of {buffer_bytes} bytes")]
    Memory {
        /// Its size.
        buffer_bytes: u64,
        /// What the system said.
        source: std::io::Error,
    },
    /// Certificates or keys can't be used.
    #[cfg(feature = "__tls")]
    #[cfg_attr(docsrs, doc(cfg(any(feature = "tls-aws-lc-rs", feature = "tls-ring"))))]
    #[error("TLS can't be used")]
    Tls(#[source] ledgerline_transport::TlsError),
    /// The token can't be read.
    #[error("the token file {} can't be used", path.display())]
    Token {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The engine's thread or runtime could not be made.
    #[error("the engine's thread could not be started")]
    Thread(#[source] std::io::Error),
}

/// [`Store::record`](crate::Store::record) did not accept an event. It was counted under this
/// reason; the caller still has the event.
///
/// Plain data, so that being refused costs a caller no allocation. Who logs it adds what names the
/// event.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The buffer has no room. Recording again later may succeed. The event may not have been
    /// looked at: another reason to refuse it shows only when there is room.
    #[error("refused: the buffer of {buffer_bytes} bytes is full")]
    Full {
        /// The bound.
        buffer_bytes: u64,
    },
    /// The store was closed.
    #[error("refused: the store is closed")]
    Closed,
    /// A field can't be stored.
    #[error("refused: {0}")]
    Invalid(EncodeError),
    /// Its `event_timestamp` lies further back than
    /// [`Config::event_age_max`](crate::Config::event_age_max) allows. Counted as invalid.
    #[error("refused: event_timestamp is {age:?} in the past, the limit is {max:?}")]
    TooOld {
        /// How old it is by this machine's clock.
        age: Duration,
        /// The oldest allowed.
        max: Duration,
    },
    /// The event is too long, all fields together.
    #[error("refused: it is {bytes} bytes long when encoded, the limit is {max}")]
    TooLarge {
        /// Its length as a record.
        bytes: usize,
        /// The longest record.
        max: usize,
    },
    /// The engine's thread is gone after a defect.
    #[error("refused: the engine has failed")]
    Failed,
    /// This process was forked off the store's: nobody here would send the event. Start a store of
    /// this process's own.
    #[error("refused: the store was started before this process was forked")]
    Forked,
}

/// [`Store::wait`](crate::Store::wait) can't say that an event has reached the stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The deadline came first. The event is still held.
    #[error("not {stage} within {deadline:?}")]
    Deadline {
        /// What was waited for.
        stage: Stage,
        /// The deadline that was given.
        deadline: Duration,
    },
    /// The event is set apart: DataStorage refuses it, or events of its type, and stores others. It
    /// is kept, and tried again now and then.
    #[error("set apart: events like it are refused, and others are stored")]
    SetApart,
    /// The event is settled, and DataStorage has not acknowledged it.
    #[error("{outcome}{}", if *.is_possibly_stored { POSSIBLY_STORED } else { "" })]
    Undelivered {
        /// What became of it.
        outcome: Settled,
        /// An earlier try, whose outcome is unknown, may have stored it.
        is_possibly_stored: bool,
    },
    /// The event is settled for so long that it is no longer known how: more than 4,096 batches
    /// have ended otherwise than stored since. Or the receipt is another store's.
    #[error("what became of the event is no longer known")]
    Forgotten,
    /// The engine's thread is gone after a defect, and the event was not settled.
    #[error("the engine has failed")]
    Failed,
    /// This process was forked off the store's.
    #[error("the store was started before this process was forked")]
    Forked,
}

/// [`Store::flush`](crate::Store::flush) can't say that everything before it is settled.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FlushError {
    /// The deadline came first. The events are still held, and will be sent.
    #[error(
        "not everything was settled within {deadline:?}: {} in flight, {} waiting for a retry, \
         {} not sent yet, {} set apart", .0.in_flight, .0.retrying, .0.unsent, .0.set_apart,
        deadline = .0.deadline
    )]
    Deadline(Box<Unsettled>),
    /// Everything is settled, but not all of it was delivered: so many events were lost while the
    /// flush waited. A loss before it is in the accounts, and no failure of this flush.
    #[error(
        "while waiting, {} events were dropped and {} dead-lettered", .0.dropped, .0.dead_lettered
    )]
    Lost(Lost),
    /// Everything is settled but for events that are set apart: DataStorage refuses those of their
    /// types, or one of them alone, and stores others. They are kept, tried again now and then, and
    /// named in the log and in [`Report::set_apart`](crate::Report::set_apart).
    #[error(
        "{events} events are set apart, because DataStorage refuses events like them; while \
         waiting, {} events were dropped and {} dead-lettered", .lost.dropped, .lost.dead_lettered
    )]
    SetApart {
        /// How many of those before the flush.
        events: u64,
        /// Events that were lost while the flush waited.
        lost: Lost,
    },
    /// The store was closed. [`Store::close`](crate::Store::close) tells what became of its events.
    #[error("the store is closed")]
    Closed,
    /// The engine's thread did not answer within the deadline and a second; it is still at work.
    #[error("the engine did not answer within {deadline:?} and a second")]
    Unresponsive {
        /// The deadline that was given.
        deadline: Duration,
    },
    /// More than 1,024 calls are waiting for the engine's thread.
    #[error("too many calls are waiting for the engine")]
    Busy,
    /// The accounts don't balance: a defect of the engine. Nothing it says can be trusted.
    #[error("the accounts do not balance: {0}")]
    Imbalance(Imbalance),
    /// The engine's thread is gone after a defect.
    #[error("the engine has failed")]
    Failed,
    /// This process was forked off the store's.
    #[error("the store was started before this process was forked")]
    Forked,
}

impl FlushError {
    /// What a flush is told when the engine has ended like this.
    pub(crate) fn after(closed: &Result<Closed, CloseError>) -> Self {
        if matches!(closed, Err(CloseError::Failed)) { Self::Failed } else { Self::Closed }
    }
}

/// [`Store::ready`](crate::Store::ready) can't say that DataStorage is ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadyError {
    /// The deadline came first.
    #[error("not ready within {deadline:?}: {}", last.as_deref().unwrap_or("no answer"))]
    Deadline {
        /// The deadline that was given.
        deadline: Duration,
        /// What the last probe came to.
        last: Option<Box<str>>,
    },
    /// The store was closed, or its engine has failed.
    #[error("the store is closed")]
    Closed,
    /// More than 1,024 calls are waiting for the engine's thread.
    #[error("too many calls are waiting for the engine")]
    Busy,
    /// This process was forked off the store's.
    #[error("the store was started before this process was forked")]
    Forked,
}

/// Where events were at a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unsettled {
    /// The deadline that was given.
    pub deadline: Duration,
    /// Events in requests without an answer.
    pub in_flight: u64,
    /// Events of batches that failed and wait for their next try.
    pub retrying: u64,
    /// Events that no request has carried yet.
    pub unsent: u64,
    /// Events that are set apart: DataStorage refuses those of their types, or one of them alone.
    pub set_apart: u64,
    /// The accounts at that moment.
    pub accounts: Accounts,
}

/// Accepted events that were settled otherwise than by delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Lost {
    /// Given up by the engine, for any reason.
    pub dropped: u64,
    /// Refused by DataStorage for good.
    pub dead_lettered: u64,
}

impl Lost {
    /// Both.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.dropped + self.dead_lettered
    }

    pub(crate) fn of(accounts: &Accounts) -> Self {
        Self { dropped: accounts.dropped.total(), dead_lettered: accounts.dead_lettered }
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            dropped: self.dropped - before.dropped,
            dead_lettered: self.dead_lettered - before.dead_lettered,
        }
    }
}

/// [`Store::close`](crate::Store::close) left something behind.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseError {
    /// The deadline came first, or nothing was left but what is set apart: what was left was
    /// dropped, and counted as `dropped.closed`.
    #[error(
        "{} events were dropped at the deadline of {deadline:?}: {} in flight, {} waiting for a \
         retry, {} never sent, {} set apart", .0.accounts.dropped.closed, .0.in_flight,
        .0.retrying, .0.unsent, .0.set_apart, deadline = .0.deadline
    )]
    LeftBehind(Box<Unsettled>),
    /// Everything is settled, but not all of it was delivered: so many events were lost while the
    /// close waited.
    #[error(
        "while closing, {} events were dropped and {} dead-lettered", .0.dropped, .0.dead_lettered
    )]
    Lost(Lost),
    /// The engine's thread did not answer within the deadline and a second; it is still at work.
    #[error("the engine did not answer within {deadline:?} and a second")]
    Unresponsive {
        /// The deadline that was given.
        deadline: Duration,
    },
    /// More than 1,024 calls are waiting for the engine's thread.
    #[error("too many calls are waiting for the engine")]
    Busy,
    /// The accounts don't balance: a defect of the engine. Nothing it says can be trusted.
    #[error("the accounts do not balance: {0}")]
    Imbalance(Imbalance),
    /// The engine's thread is gone after a defect.
    #[error("the engine has failed")]
    Failed,
    /// This process was forked off the store's, which is not closed by this.
    #[error("the store was started before this process was forked")]
    Forked,
}

const POSSIBLY_STORED: &str = ", though a try may have stored it";
