//! Events in one SQLite file: one thread writes, a few connections read.
//!
//! Invariant: the write connection belongs to the writer's thread alone. Write-ahead logging lets
//! readers see the last commit while the next one is written; `synchronous=FULL` syncs each commit
//! before it is answered. Limit: one process at a time should serve a file. A second one can, but
//! each then waits for the other's transactions.

mod migrate;
mod reader;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

pub use self::migrate::MigrationError;
use self::reader::Readers;
use self::writer::{Counted, Write, Writer};
use super::{NewEvents, PageEnd, RowSink, Selection, StorageError, WriteError, Written};
use crate::config::Config;
use crate::metrics::WriteMetrics;

/// The way to the events, shared by all requests.
#[derive(Debug)]
pub(crate) struct Store {
    /// `None` tells the writer to finish what waits and to stop.
    writes: mpsc::Sender<Option<Write>>,
    /// Requests that were handed over and are not answered.
    waiting: Gauge,
    queries: Arc<Readers>,
    /// A connection of its own, so that slow queries don't make the server look dead.
    probe: Arc<Readers>,
    query_timeout: Duration,
}

/// The writer's thread.
#[derive(Debug)]
pub(crate) struct WriterThread {
    thread: JoinHandle<()>,
    writes: mpsc::Sender<Option<Write>>,
}

impl Store {
    /// Opens or makes the file, brings its schema up to date, and starts the writer.
    ///
    /// # Errors
    /// The file can't be opened, is from a newer version, or isn't ours.
    pub(crate) fn open(
        path: &Path,
        config: &Config,
        metrics: &WriteMetrics,
    ) -> Result<(Self, WriterThread), StorageError> {
        let (writes, received) = mpsc::channel(config.write_queue_len);
        let (opened, outcome) = std_mpsc::sync_channel(1);
        let thread = spawn_writer(path.to_owned(), config, metrics.clone(), received, opened)?;
        // The sender goes down with the thread, so this returns even if the thread panics.
        let opened = outcome.recv().unwrap_or_else(|_| {
            Err(StorageError::Failed { reason: "the writer stopped while it opened".to_owned() })
        });
        if let Err(error) = opened {
            // It has ended, or ends now: nothing else holds its queue.
            thread.join().ok();
            return Err(error);
        }
        let writer = WriterThread { thread, writes: writes.clone() };
        let readers = Readers::open(path, config.readers)
            .and_then(|queries| Ok((queries, Readers::open(path, 1)?)));
        let (queries, probe) = match readers {
            Ok(readers) => readers,
            Err(error) => {
                writer.stop();
                return Err(error);
            }
        };
        let store = Self {
            writes,
            waiting: metrics.waiting.clone(),
            queries,
            probe,
            query_timeout: config.query_timeout,
        };
        Ok((store, writer))
    }

    /// Stores a request as a whole and waits for the synced commit. `held`, the leave to hold its
    /// bytes, is given back with them.
    ///
    /// Dropping the future doesn't take the request back: it may be stored, or not.
    pub(crate) async fn write(
        &self,
        events: NewEvents,
        held: OwnedSemaphorePermit,
    ) -> Result<Written, WriteError> {
        let (answer, answered) = oneshot::channel();
        let write = Write { events, answer, _held: held, _counted: Counted::new(&self.waiting) };
        if let Err(error) = self.writes.try_send(Some(write)) {
            return Err(match error {
                TrySendError::Full(_) => {
                    WriteError::QueueFull { limit: self.writes.max_capacity() }
                }
                TrySendError::Closed(_) => WriteError::Stopped,
            });
        }
        // Without an answer the writer died with the request in hand: it may be stored, or not.
        answered.await.unwrap_or_else(|_| {
            Err(StorageError::Failed { reason: "the writer stopped".to_owned() }.into())
        })
    }

    /// Gives a page's rows to the sink and returns it with what else is known of the page.
    pub(crate) async fn page<S: RowSink>(
        &self,
        selection: Selection,
        sink: S,
    ) -> Result<(S, PageEnd), StorageError> {
        let work = move |connection: &Connection| reader::page(connection, &selection, sink);
        Readers::read(&self.queries, self.query_timeout, work).await
    }

    /// Whether the storage answers.
    pub(crate) async fn probe(&self) -> Result<(), StorageError> {
        Readers::read(&self.probe, PROBE_TIMEOUT, reader::probe).await
    }
}

impl WriterThread {
    /// Has everything that was handed over committed and answered, then ends the thread.
    pub(crate) fn stop(self) {
        // Fails only if the thread is gone already.
        self.writes.blocking_send(None).ok();
        if self.thread.join().is_err() {
            tracing::error!("the writer panicked");
        }
    }
}

fn spawn_writer(
    path: PathBuf,
    config: &Config,
    metrics: WriteMetrics,
    received: mpsc::Receiver<Option<Write>>,
    opened: std_mpsc::SyncSender<Result<(), StorageError>>,
) -> Result<JoinHandle<()>, StorageError> {
    let request_events_max = config.batch_events_max;
    let body = move || {
        let connection = match open_for_writing(&path) {
            Ok(connection) => connection,
            Err(error) => {
                opened.send(Err(error)).ok();
                return;
            }
        };
        match Writer::new(&connection, metrics, request_events_max) {
            Ok(writer) => {
                opened.send(Ok(())).ok();
                writer.run(received);
            }
            Err(error) => {
                opened.send(Err(storage_error(error))).ok();
            }
        }
    };
    thread::Builder::new()
        .name("datastorage-write".to_owned())
        .spawn(body)
        .map_err(|error| StorageError::Unavailable { reason: error.to_string() })
}

fn open_for_writing(path: &Path) -> Result<Connection, StorageError> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_CREATE)?;
    let set = || {
        // The page size counts only before the first table; it must come before the journal mode.
        connection.pragma_update(None, "page_size", PAGE_BYTES)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "cache_size", -WRITE_CACHE_KIB)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0))
    };
    let journal_mode = set().map_err(|error| open_error(path, error))?;
    if journal_mode != "wal" {
        let reason = format!("the journal mode is {journal_mode:?}, expected \"wal\"");
        return Err(StorageError::Open { path: path.display().to_string(), reason });
    }
    migrate::migrate(&connection)?;
    Ok(connection)
}

fn open_for_reading(path: &Path) -> Result<Connection, StorageError> {
    let connection = open(path, OpenFlags::empty())?;
    let set = || {
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "cache_size", -READ_CACHE_KIB)
    };
    set().map_err(|error| open_error(path, error))?;
    Ok(connection)
}

fn open(path: &Path, more: OpenFlags) -> Result<Connection, StorageError> {
    // Each connection is used by one thread at a time, so SQLite needs no lock around it.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
    Connection::open_with_flags(path, flags)
        .and_then(|connection| {
            connection.busy_timeout(BUSY_TIMEOUT)?;
            Ok(connection)
        })
        .map_err(|error| open_error(path, error))
}

fn open_error(path: &Path, error: rusqlite::Error) -> StorageError {
    StorageError::Open { path: path.display().to_string(), reason: error.to_string() }
}

/// What an SQLite error means for the one who asked.
fn storage_error(error: rusqlite::Error) -> StorageError {
    let reason = error.to_string();
    match error.sqlite_error_code() {
        // Certainly not stored. A failed read or write of the disk is not among them: when the sync
        // of a commit fails, nobody knows what reached it, and a 503 would say that nothing did.
        Some(
            ErrorCode::DiskFull
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::OutOfMemory,
        ) => StorageError::Unavailable { reason },
        _ => StorageError::Failed { reason },
    }
}

const PAGE_BYTES: i64 = 8_192;

/// Holds the hot ends of all indexes over millions of rows; SQLite takes it as it needs it.
const WRITE_CACHE_KIB: i64 = 256 << 10;

const READ_CACHE_KIB: i64 = 16 << 10;

/// 128 MiB of log between checkpoints: fewer checkpoints write a page that changes often fewer
/// times.
const CHECKPOINT_PAGES: i64 = 16_000;

/// How long a transaction waits for another process's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A storage that doesn't answer so soon isn't ready.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
