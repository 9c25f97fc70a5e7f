//! The connections that read, and the queries they run.
//!
//! Invariant: a query ends soon after its time is over, whether or not anybody waits for it, and
//! its connection always comes back. A page and its count are read from one snapshot. Limit: as
//! many queries at once as there are connections; others wait, and their time runs.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ledgerline_codec::Timestamp;
use rusqlite::types::{Type, Value};
use rusqlite::{Connection, Error, InterruptHandle, params_from_iter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use super::super::{
    Filter, PageEnd, Position, Row, RowSink, Selection, Start, StorageError, Taken,
};
use super::{open_for_reading, storage_error};

/// A fixed number of connections.
#[derive(Debug)]
pub(super) struct Readers {
    idle: Mutex<Vec<Connection>>,
    /// One permit for each idle connection.
    permits: Arc<Semaphore>,
}

/// Interrupts a connection when its guard ends, as it does when the runtime goes down. By then
/// nobody else uses the connection, and one that is idle doesn't mind.
struct InterruptOnDrop(InterruptHandle);

/// A connection in use; it goes back when this is dropped, before its permit does.
struct Borrowed {
    connection: Option<Connection>,
    readers: Arc<Readers>,
    _permit: OwnedSemaphorePermit,
}

impl Readers {
    pub(super) fn open(path: &Path, count: usize) -> Result<Arc<Self>, StorageError> {
        let idle = (0..count).map(|_| open_for_reading(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Arc::new(Self { idle: Mutex::new(idle), permits: Arc::new(Semaphore::new(count)) }))
    }

    /// Runs `work` on a thread that may block, for so long at most.
    ///
    /// Dropping the future lets the work run on, to its end or to its limit.
    pub(super) async fn read<T: Send + 'static>(
        readers: &Arc<Self>,
        limit: Duration,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StorageError> {
        let deadline = Instant::now() + limit;
        let too_slow = || StorageError::TooSlow { limit_ms: limit.as_millis() };
        let permits = Arc::clone(&readers.permits);
        let permit = timeout_at(deadline, permits.acquire_owned())
            .await
            .map_err(|_| too_slow())?
            .expect("the semaphore is never closed");
        let borrowed = Borrowed::take(readers, permit);
        let interrupt = borrowed.connection().get_interrupt_handle();
        // The connection comes back with the result, so that no interrupt meets its next user.
        let task = tokio::task::spawn_blocking(move || (work(borrowed.connection()), borrowed));
        // A task of its own, so that the limit holds when whoever asked has gone away.
        let guarded = tokio::spawn(guard(task, interrupt, deadline)).await;
        match guarded.and_then(|joined| joined).map(|(result, _)| result) {
            Ok(Err(error)) if is_interrupt(&error) => Err(too_slow()),
            Ok(result) => result.map_err(storage_error),
            // The work panicked, or the runtime is going down.
            Err(error) => Err(StorageError::Failed { reason: error.to_string() }),
        }
    }
}

/// Waits for the work, and interrupts it when its time is over.
async fn guard<T>(
    mut task: JoinHandle<T>,
    interrupt: InterruptHandle,
    deadline: Instant,
) -> Result<T, JoinError> {
    let interrupt = InterruptOnDrop(interrupt);
    if let Ok(joined) = timeout_at(deadline, &mut task).await {
        return joined;
    }
    loop {
        // An interrupt passes a statement by that hasn't begun, so it is repeated.
        interrupt.0.interrupt();
        if let Ok(joined) = timeout(INTERRUPT_INTERVAL, &mut task).await {
            return joined;
        }
    }
}

fn is_interrupt(error: &Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted)
}

impl Borrowed {
    fn take(readers: &Arc<Readers>, permit: OwnedSemaphorePermit) -> Self {
        let mut idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = idle.pop();
        drop(idle);
        Self { connection, readers: Arc::clone(readers), _permit: permit }
    }

    const fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("a permit stands for a connection, held until the drop")
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let mut idle = self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.extend(self.connection.take());
    }
}

impl Drop for InterruptOnDrop {
    fn drop(&mut self) {
        self.0.interrupt();
    }
}

/// Asks for something that only a file with our schema can answer.
pub(super) fn probe(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("SELECT next_seq FROM heads LIMIT 1")?;
    statement.exists([])?;
    Ok(())
}

/// Gives a page's rows to `sink`.
pub(super) fn page<S: RowSink>(
    connection: &Connection,
    selection: &Selection,
    mut sink: S,
) -> rusqlite::Result<(S, PageEnd)> {
    let snapshot = connection.unchecked_transaction()?;
    let conditions = Conditions::of(&selection.filter);
    let total = if selection.count { Some(conditions.count(&snapshot)?) } else { None };
    let (sql, parameters) = conditions.page(selection);
    let mut statement = snapshot.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(parameters))?;
    let mut end = PageEnd { has_more: false, last: None, total };
    let mut taken = 0;
    while let Some(row) = rows.next()? {
        let row = read_row(row)?;
        if taken == selection.limit || sink.take(&row) == Taken::No {
            end.has_more = true;
            break;
        }
        taken += 1;
        end.last = Some(Position { event_timestamp: row.event_timestamp, event_id: row.event_id });
    }
    Ok((sink, end))
}

/// A filter as SQL.
struct Conditions {
    index: &'static str,
    terms: Vec<&'static str>,
    parameters: Vec<Value>,
}

impl Conditions {
    fn of(filter: &Filter) -> Self {
        // The index is chosen here: without statistics the planner may prefer one that spares it
        // the sorting of ten rows to one that spares it the reading of ten million.
        let index = match filter {
            Filter { correlation_id: Some(_), .. } => "events_by_head",
            Filter { event_type: Some(_), .. } => "events_by_type",
            Filter { event_category: Some(_), .. } => "events_by_category",
            _ => "events_by_time",
        };
        let mut conditions = Self { index, terms: Vec::new(), parameters: Vec::new() };
        let texts = [
            (
                "head = (SELECT heads.id FROM heads WHERE heads.correlation_id = ?)",
                &filter.correlation_id,
            ),
            ("event_type = ?", &filter.event_type),
            ("event_category = ?", &filter.event_category),
            ("event_outcome = ?", &filter.event_outcome),
            ("severity = ?", &filter.severity),
        ];
        for (term, text) in texts {
            if let Some(text) = text {
                conditions.add(term, [Value::Text(text.clone())]);
            }
        }
        if let Some(since) = filter.since {
            conditions.add("event_timestamp >= ?", [Value::Integer(since.micros())]);
        }
        if let Some(until) = filter.until {
            conditions.add("event_timestamp <= ?", [Value::Integer(until.micros())]);
        }
        if let Some(detail) = &filter.detail {
            let path = Value::Text(format!("$.\"{}\"", detail.key));
            let value = Value::Text(detail.value.clone());
            conditions.add(DETAIL, [path.clone(), path.clone(), value.clone(), path, value]);
        }
        conditions
    }

    fn add<const N: usize>(&mut self, term: &'static str, parameters: [Value; N]) {
        self.terms.push(term);
        self.parameters.extend(parameters);
    }

    fn where_clause(&self) -> String {
        if self.terms.is_empty() {
            return String::new();
        }
        format!(" WHERE {}", self.terms.join(" AND "))
    }

    fn count(&self, connection: &Connection) -> rusqlite::Result<u64> {
        let Self { index, .. } = self;
        let sql = format!("SELECT count(*) FROM events INDEXED BY {index}{}", self.where_clause());
        let mut statement = connection.prepare_cached(&sql)?;
        let count: i64 =
            statement.query_row(params_from_iter(&self.parameters), |row| row.get(0))?;
        Ok(count.cast_unsigned())
    }

    /// The page's statement. It asks for a row more than the page holds, to see if there is one.
    fn page(mut self, selection: &Selection) -> (String, Vec<Value>) {
        let mut offset = 0;
        match selection.start {
            Start::Front => {}
            Start::Offset(events) => offset = events,
            Start::After(Position { event_timestamp, event_id }) => {
                // The first term alone lets the index be entered at the right place.
                let micros = Value::Integer(event_timestamp.micros());
                let id = Value::Blob(event_id.as_bytes().to_vec());
                let term = "event_timestamp <= ? AND (event_timestamp < ? OR event_id < ?)";
                self.add(term, [micros.clone(), micros, id]);
            }
        }
        let sql = format!(
            "SELECT {COLUMNS} FROM events INDEXED BY {}{} \
             ORDER BY event_timestamp DESC, event_id DESC LIMIT ? OFFSET ?",
            self.index,
            self.where_clause(),
        );
        let limit = i64::try_from(selection.limit).unwrap_or(i64::MAX).saturating_add(1);
        self.parameters.push(Value::Integer(limit));
        self.parameters.push(Value::Integer(i64::try_from(offset).unwrap_or(i64::MAX)));
        (sql, self.parameters)
    }
}

fn read_row<'a>(row: &'a rusqlite::Row<'_>) -> rusqlite::Result<Row<'a>> {
    let mut place = 0;
    let mut next = || {
        place += 1;
        place - 1
    };
    Ok(Row {
        event_id: id(row, next())?.ok_or(Error::QueryReturnedNoRows)?,
        event_timestamp: timestamp(row, next())?,
        version: text(row, next())?,
        event_type: text(row, next())?,
        event_category: text(row, next())?,
        event_action: text(row, next())?,
        event_outcome: text(row, next())?,
        correlation_id: text(row, next())?,
        actor_type: text(row, next())?,
        actor_id: text(row, next())?,
        actor_ip: optional_text(row, next())?,
        resource_type: text(row, next())?,
        resource_id: text(row, next())?,
        namespace: optional_text(row, next())?,
        cluster_id: optional_text(row, next())?,
        severity: text(row, next())?,
        duration_ms: row.get(next())?,
        parent_event_id: id(row, next())?,
        parent_event_day: row.get(next())?,
        error_code: optional_text(row, next())?,
        error_message: optional_text(row, next())?,
        is_sensitive: row.get(next())?,
        producer: optional_text(row, next())?,
        producer_seq: row.get::<_, Option<i64>>(next())?.map(i64::cast_unsigned),
        retention_days: row.get(next())?,
        event_data: text(row, next())?,
    })
}

fn optional_text<'a>(
    row: &'a rusqlite::Row<'_>,
    place: usize,
) -> rusqlite::Result<Option<&'a str>> {
    let text = row.get_ref(place)?.as_str_or_null();
    text.map_err(|error| Error::FromSqlConversionFailure(place, Type::Text, Box::new(error)))
}

fn text<'a>(row: &'a rusqlite::Row<'_>, place: usize) -> rusqlite::Result<&'a str> {
    let text = row.get_ref(place)?.as_str();
    text.map_err(|error| Error::FromSqlConversionFailure(place, Type::Text, Box::new(error)))
}

fn id(row: &rusqlite::Row<'_>, place: usize) -> rusqlite::Result<Option<Uuid>> {
    Ok(row.get::<_, Option<[u8; 16]>>(place)?.map(Uuid::from_bytes))
}

fn timestamp(row: &rusqlite::Row<'_>, place: usize) -> rusqlite::Result<Timestamp> {
    let micros = row.get(place)?;
    Timestamp::from_micros(micros).ok_or(Error::IntegralValueOutOfRange(place, micros))
}

/// In the order of [`read_row`]. The correlation id is looked up only for rows that are returned,
/// not for those that an offset passes over.
const COLUMNS: &str = "event_id, event_timestamp, version, event_type, event_category, \
    event_action, event_outcome, \
    (SELECT heads.correlation_id FROM heads WHERE heads.id = events.head), \
    actor_type, actor_id, actor_ip, resource_type, resource_id, namespace, cluster_id, severity, \
    duration_ms, parent_event_id, parent_event_date, error_code, error_message, is_sensitive, \
    producer, producer_seq, retention_days, event_data";

/// A top-level member's text, as PostgreSQL's `->>` gives it: a string's own text, the JSON text of
/// other values, nothing for null.
const DETAIL: &str = "CASE json_type(event_data, ?) \
    WHEN 'text' THEN event_data ->> ? = ? \
    WHEN 'null' THEN NULL \
    ELSE event_data -> ? = ? END";

/// How often a query that is over its time is interrupted again.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(50);
