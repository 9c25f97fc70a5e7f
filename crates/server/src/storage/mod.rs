//! What is stored, and what can be asked for, whatever the database.
//!
//! Invariant: a request is stored as a whole or not at all, and is answered only after its commit
//! was synced. The words here know nothing of HTTP or of SQL.

mod canonical;
mod sqlite;

use ledgerline_codec::Timestamp;
use thiserror::Error;
use uuid::Uuid;

pub(crate) use canonical::{CanonicalEvent, Digest};
pub use sqlite::MigrationError;
pub(crate) use sqlite::{Store, WriterThread};

/// The events of one request, ready to be stored.
#[derive(Debug, Default)]
pub(crate) struct NewEvents {
    /// The canonical bytes of all events, one behind the other.
    pub(crate) bytes: Vec<u8>,
    /// The events, in the request's order. None repeats another; none shares another's id.
    pub(crate) events: Vec<NewEvent>,
    /// Events of the request that repeat an earlier one of it, and so aren't in `events`.
    pub(crate) repeated: usize,
}

/// One event to be stored.
#[derive(Debug)]
pub(crate) struct NewEvent {
    /// Its place in the request, from 0.
    pub(crate) index: usize,
    pub(crate) event_id: Uuid,
    /// Whether the sender chose the id, so that it may be stored already.
    pub(crate) id_was_sent: bool,
    /// Where its canonical bytes end; they begin where the event before it ends.
    pub(crate) bytes_end: usize,
    pub(crate) digest: Digest,
    pub(crate) parent: Parent,
    /// May change after storing, so it isn't part of the canonical bytes.
    pub(crate) retention_days: u16,
}

/// What is known of an event's parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parent {
    /// Nothing, or only a date, which is part of the canonical bytes.
    None,
    /// It precedes the event in the same request, and happened on this day (since 1970).
    InRequest { day: i64 },
    /// It must be stored already.
    Stored(Uuid),
}

/// How a request was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    /// Events that are new.
    pub(crate) stored: usize,
    /// Events that were stored before, with the same content.
    pub(crate) repeated: usize,
}

/// Why a request was not stored; nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum WriteError {
    #[error("event {index}: event_id {event_id} is taken by an event with other content")]
    Conflict { index: usize, event_id: Uuid },
    #[error("event {index}: parent_event_id {parent} is unknown")]
    UnknownParent { index: usize, parent: Uuid },
    #[error("{limit} requests wait to be written, which is the limit")]
    QueueFull { limit: usize },
    #[error("the server is stopping")]
    Stopped,
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What a database couldn't do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The file can't be opened or made.
    #[error("can't open {path}: {reason}")]
    Open {
        /// Which file.
        path: String,
        /// What the database said.
        reason: String,
    },
    /// The schema can't be brought to this version's.
    #[error(transparent)]
    Migration(#[from] MigrationError),
    /// The disk is full, or the database is locked: nothing was stored, and trying again later may
    /// help.
    #[error("the storage is unavailable: {reason}")]
    Unavailable {
        /// What the database said.
        reason: String,
    },
    /// A query took longer than it may.
    #[error("the query was stopped after {limit_ms} ms, which is the limit")]
    TooSlow {
        /// How long a query may take.
        limit_ms: u128,
    },
    /// Anything else: a disk that fails, a damaged file, a broken constraint, a fault of ours.
    #[error("the storage failed: {reason}")]
    Failed {
        /// What the database said.
        reason: String,
    },
}

impl StorageError {
    /// Whether the same request may succeed later without anybody doing anything about it.
    pub(crate) const fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::TooSlow { .. })
    }
}

/// Which events a query wants: those that pass every filter that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) event_type: Option<String>,
    pub(crate) event_category: Option<String>,
    pub(crate) event_outcome: Option<String>,
    pub(crate) severity: Option<String>,
    pub(crate) correlation_id: Option<String>,
    /// The earliest time, itself included.
    pub(crate) since: Option<Timestamp>,
    /// The latest time, itself included.
    pub(crate) until: Option<Timestamp>,
    pub(crate) detail: Option<Detail>,
}

/// A top-level member of `event_data` that must have this text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Detail {
    /// Letters, digits and underscores.
    pub(crate) key: String,
    pub(crate) value: String,
}

/// Which part of the answer is wanted. The order is newest first: by time, then by id, descending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) filter: Filter,
    pub(crate) start: Start,
    pub(crate) limit: usize,
    /// Whether to count everything that passes the filter.
    pub(crate) count: bool,
}

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Behind so many events.
    Offset(u64),
    /// At the newest event; later pages go on behind the last one of the page before.
    Front,
    /// Behind this event, whether or not it is still there.
    After(Position),
}

/// An event's place in the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) event_timestamp: Timestamp,
    pub(crate) event_id: Uuid,
}

/// One stored event, borrowed from the database for the length of a call.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) event_id: Uuid,
    pub(crate) event_timestamp: Timestamp,
    pub(crate) version: &'a str,
    pub(crate) event_type: &'a str,
    pub(crate) event_category: &'a str,
    pub(crate) event_action: &'a str,
    pub(crate) event_outcome: &'a str,
    pub(crate) correlation_id: &'a str,
    pub(crate) actor_type: &'a str,
    pub(crate) actor_id: &'a str,
    pub(crate) actor_ip: Option<&'a str>,
    pub(crate) resource_type: &'a str,
    pub(crate) resource_id: &'a str,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) cluster_id: Option<&'a str>,
    pub(crate) severity: &'a str,
    pub(crate) duration_ms: Option<i64>,
    pub(crate) parent_event_id: Option<Uuid>,
    /// Days since 1970.
    pub(crate) parent_event_day: Option<i64>,
    pub(crate) error_code: Option<&'a str>,
    pub(crate) error_message: Option<&'a str>,
    pub(crate) is_sensitive: bool,
    pub(crate) producer: Option<&'a str>,
    pub(crate) producer_seq: Option<u64>,
    pub(crate) retention_days: i64,
    pub(crate) event_data: &'a str,
}

/// Takes the rows of a page, one after the other, on a thread that may block.
pub(crate) trait RowSink: Send + 'static {
    /// Takes a row, unless the page is full without it.
    fn take(&mut self, row: &Row<'_>) -> Taken;
}

/// What a [`RowSink`] did with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    Yes,
    /// The row and those behind it don't fit.
    No,
}

/// What is known of a page besides its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageEnd {
    /// Events behind the page exist.
    pub(crate) has_more: bool,
    /// The last event of the page.
    pub(crate) last: Option<Position>,
    /// All events that pass the filter, if they were to be counted.
    pub(crate) total: Option<u64>,
}
