//! The one thread that writes: group commit.
//!
//! It takes the first request that waits, begins a transaction, then takes whatever else waits by
//! then and commits it all at once: while one group is synced the next one gathers, so groups grow
//! with the load and nobody waits for a timer. (Group commit: DeWitt et al., "Implementation
//! Techniques for Main Memory Database Systems", SIGMOD 1984.)
//!
//! Invariant: a request is refused before anything of it is written, so a refusal needs no
//! rollback; when the database itself fails, the group is rolled back and each request is tried
//! alone. Limit: [`GROUP_EVENTS_MAX`] events a group.

use std::collections::HashMap;
use std::time::Instant;

use prometheus_client::metrics::gauge::Gauge;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Statement, Transaction, TransactionBehavior};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use uuid::Uuid;

use super::super::canonical::{CORRELATION_ID, Digest, FIELDS, Fields, PARENT_EVENT_DATE};
use super::super::{NewEvent, NewEvents, Parent, WriteError, Written};
use super::storage_error;
use crate::config::GROUP_EVENTS_MAX;
use crate::metrics::WriteMetrics;

/// One request that waits to be stored, and who waits for it.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) events: NewEvents,
    pub(super) answer: oneshot::Sender<Outcome>,
    /// The leave to hold the request's bytes, which ends with the answer even if nobody waits.
    pub(super) _held: OwnedSemaphorePermit,
    pub(super) _counted: Counted,
}

/// Counts a request until it is answered, whatever the answer.
#[derive(Debug)]
pub(super) struct Counted(Gauge);

impl Counted {
    pub(super) fn new(waiting: &Gauge) -> Self {
        waiting.inc();
        Self(waiting.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

type Outcome = Result<Written, WriteError>;

type Queue = mpsc::Receiver<Option<Write>>;

pub(super) struct Writer<'c> {
    connection: &'c Connection,
    statements: Statements<'c>,
    metrics: WriteMetrics,
    request_events_max: usize,
}

struct Statements<'c> {
    digest: Statement<'c>,
    timestamp: Statement<'c>,
    head: Statement<'c>,
    event: Statement<'c>,
}

/// A new event with all that its row needs but its place in its head.
struct Planned<'a> {
    event: &'a NewEvent,
    fields: Fields<'a>,
    /// The parent's own day, where it is known.
    parent_day: Option<i64>,
}

/// A correlation id's row, and the places in it for this request's events.
#[derive(Default)]
struct Head {
    events: i64,
    /// The row's id and the next event's place; absent until the row was asked for.
    row: Option<(i64, i64)>,
}

impl<'c> Writer<'c> {
    pub(super) fn new(
        connection: &'c Connection,
        metrics: WriteMetrics,
        request_events_max: usize,
    ) -> rusqlite::Result<Self> {
        let statements = Statements::prepare(connection)?;
        Ok(Self { connection, statements, metrics, request_events_max })
    }

    /// Writes until it is told to stop, then what still waits.
    pub(super) fn run(mut self, mut queue: Queue) {
        while let Some(message) = queue.blocking_recv() {
            match message {
                Some(write) => self.write_group(write, &mut queue),
                // What was handed over before or meanwhile is still received; then comes the end.
                None => queue.close(),
            }
        }
    }

    fn write_group(&mut self, first: Write, queue: &mut Queue) {
        // The transaction comes first: what arrives while it waits for its lock joins the group.
        let begun = Transaction::new_unchecked(self.connection, TransactionBehavior::Immediate);
        let group = self.gather(first, queue);
        let transaction = match begun {
            Ok(transaction) => transaction,
            Err(error) => return refuse(group, error),
        };
        match self.commit(transaction, &group) {
            Ok(outcomes) => answer(group, outcomes),
            Err(error) if group.len() == 1 => refuse(group, error),
            Err(error) => {
                tracing::warn!(%error, requests = group.len(), "a group failed and is split");
                self.metrics.groups_split.inc();
                for write in group {
                    self.write_alone(write);
                }
            }
        }
    }

    fn write_alone(&mut self, write: Write) {
        let group = [write];
        let outcomes = Transaction::new_unchecked(self.connection, TransactionBehavior::Immediate)
            .and_then(|transaction| self.commit(transaction, &group));
        match outcomes {
            Ok(outcomes) => answer(group, outcomes),
            Err(error) => refuse(group, error),
        }
    }

    /// Whole requests that wait, as many as surely fit.
    fn gather(&self, first: Write, queue: &mut Queue) -> Vec<Write> {
        let mut events = first.events.events.len();
        let mut group = vec![first];
        while events + self.request_events_max <= GROUP_EVENTS_MAX {
            match queue.try_recv() {
                Ok(Some(write)) => {
                    events += write.events.events.len();
                    group.push(write);
                }
                Ok(None) => queue.close(),
                Err(_) => break,
            }
        }
        group
    }

    /// Stores the requests and commits; on an error nothing of any is stored.
    fn commit(
        &mut self,
        transaction: Transaction<'_>,
        group: &[Write],
    ) -> rusqlite::Result<Vec<Outcome>> {
        let started = Instant::now();
        let mut outcomes = Vec::with_capacity(group.len());
        for write in group {
            outcomes.push(self.statements.store(&write.events)?);
        }
        transaction.commit()?;
        self.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
        self.count(&outcomes);
        Ok(outcomes)
    }

    fn count(&self, outcomes: &[Outcome]) {
        let (mut stored, mut repeated) = (0, 0);
        for written in outcomes.iter().flatten() {
            stored += written.stored as u64;
            repeated += written.repeated as u64;
        }
        self.metrics.events_stored.inc_by(stored);
        self.metrics.events_repeated.inc_by(repeated);
        self.metrics.commit_events.observe(stored as f64);
    }
}

impl<'c> Statements<'c> {
    fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            digest: connection.prepare("SELECT digest FROM events WHERE event_id = ?1")?,
            timestamp: connection
                .prepare("SELECT event_timestamp FROM events WHERE event_id = ?1")?,
            head: connection.prepare(
                "INSERT INTO heads (correlation_id, next_seq) VALUES (?1, ?2)
                     ON CONFLICT (correlation_id) DO UPDATE SET next_seq = next_seq + ?2
                     RETURNING id, next_seq - ?2",
            )?,
            event: connection.prepare(&insert_event())?,
        })
    }

    /// Stores one request, or says why not before it has written anything.
    fn store(&mut self, request: &NewEvents) -> rusqlite::Result<Outcome> {
        let planned = match self.plan(request)? {
            Ok(planned) => planned,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut heads: HashMap<&[u8], Head> = HashMap::new();
        for event in &planned {
            heads.entry(event.fields.correlation_id()).or_default().events += 1;
        }
        for event in &planned {
            let correlation_id = event.fields.correlation_id();
            let head = heads.entry(correlation_id).or_default();
            let (id, seq) = match head.row {
                Some(row) => row,
                None => self.reserve(correlation_id, head.events)?,
            };
            head.row = Some((id, seq + 1));
            self.insert(event, id, seq)?;
        }
        let stored = planned.len();
        let repeated = request.repeated + request.events.len() - stored;
        Ok(Ok(Written { stored, repeated }))
    }

    /// The events that are new; or why the request can't be stored.
    fn plan<'a>(
        &mut self,
        request: &'a NewEvents,
    ) -> rusqlite::Result<Result<Vec<Planned<'a>>, WriteError>> {
        let mut planned = Vec::with_capacity(request.events.len());
        let mut start = 0;
        for event in &request.events {
            let fields = Fields::of(&request.bytes[start..event.bytes_end]);
            start = event.bytes_end;
            let NewEvent { index, event_id, .. } = *event;
            if event.id_was_sent {
                match self.stored_digest(event_id)? {
                    None => {}
                    Some(digest) if digest == event.digest => continue,
                    Some(_) => return Ok(Err(WriteError::Conflict { index, event_id })),
                }
            }
            let parent_day = match event.parent {
                Parent::None => None,
                Parent::InRequest { day } => Some(day),
                Parent::Stored(parent) => match self.stored_day(parent)? {
                    Some(day) => Some(day),
                    None => return Ok(Err(WriteError::UnknownParent { index, parent })),
                },
            };
            planned.push(Planned { event, fields, parent_day });
        }
        Ok(Ok(planned))
    }

    fn stored_digest(&mut self, event_id: Uuid) -> rusqlite::Result<Option<Digest>> {
        self.digest.query_row([event_id.as_bytes()], |row| row.get(0)).optional()
    }

    fn stored_day(&mut self, event_id: Uuid) -> rusqlite::Result<Option<i64>> {
        let micros: Option<i64> =
            self.timestamp.query_row([event_id.as_bytes()], |row| row.get(0)).optional()?;
        Ok(micros.map(|micros| micros.div_euclid(MICROS_PER_DAY)))
    }

    /// Takes places for so many events in the correlation's row, making it if need be.
    fn reserve(&mut self, correlation_id: &[u8], events: i64) -> rusqlite::Result<(i64, i64)> {
        self.head.raw_bind_parameter(1, text(correlation_id))?;
        self.head.raw_bind_parameter(2, events)?;
        let mut rows = self.head.raw_query();
        let row = rows.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        let reserved = (row.get(0)?, row.get(1)?);
        // The statement must run to its end: until then the upsert isn't over.
        while rows.next()?.is_some() {}
        Ok(reserved)
    }

    fn insert(&mut self, planned: &Planned<'_>, head: i64, seq: i64) -> rusqlite::Result<()> {
        let statement = &mut self.event;
        for (place, value) in planned.fields.values() {
            match (place, planned.parent_day) {
                (CORRELATION_ID, _) => {}
                (PARENT_EVENT_DATE, Some(day)) => statement.raw_bind_parameter(place + 1, day)?,
                _ => statement.raw_bind_parameter(place + 1, value)?,
            }
        }
        let place = FIELDS.len();
        statement.raw_bind_parameter(place + 1, head)?;
        statement.raw_bind_parameter(place + 2, seq)?;
        statement.raw_bind_parameter(place + 3, planned.event.retention_days)?;
        statement.raw_bind_parameter(place + 4, planned.event.digest)?;
        statement.raw_execute()?;
        Ok(())
    }
}

fn answer(group: impl IntoIterator<Item = Write>, outcomes: Vec<Outcome>) {
    for (write, outcome) in group.into_iter().zip(outcomes) {
        // Whoever asked may be gone; what was stored is stored.
        write.answer.send(outcome).ok();
    }
}

fn refuse(group: impl IntoIterator<Item = Write>, error: rusqlite::Error) {
    tracing::error!(%error, "requests can't be written");
    let error = WriteError::Storage(storage_error(error));
    for write in group {
        write.answer.send(Err(error.clone())).ok();
    }
}

/// The statement for one event: a canonical field's parameter has the field's place, from 1.
fn insert_event() -> String {
    let canonical = (1..).zip(&FIELDS).filter(|(_, field)| field.name != "correlation_id");
    let ours = ["head", "seq", "retention_days", "digest"];
    let (mut columns, mut parameters): (Vec<_>, Vec<_>) =
        canonical.map(|(place, field)| (field.name, format!("?{place}"))).unzip();
    columns.extend(ours);
    parameters.extend((1..=ours.len()).map(|place| format!("?{}", FIELDS.len() + place)));
    format!("INSERT INTO events ({}) VALUES ({})", columns.join(", "), parameters.join(", "))
}

const fn text(bytes: &[u8]) -> rusqlite::types::ToSqlOutput<'_> {
    rusqlite::types::ToSqlOutput::Borrowed(ValueRef::Text(bytes))
}

const MICROS_PER_DAY: i64 = 86_400_000_000;
