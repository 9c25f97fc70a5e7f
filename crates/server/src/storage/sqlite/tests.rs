//! The writer and the readers where a client can't make them fail: full disks, endless queries.

use std::time::Duration;

use ledgerline_codec::Timestamp;
use rusqlite::types::Value as SqlValue;
use rusqlite::{Connection, params_from_iter};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::super::canonical::FIELDS;
use super::*;
use crate::fresh_id::FreshIds;
use crate::ingest;
use crate::metrics::Metrics;

/// The time that the events carry and that the clock shows.
fn now() -> Timestamp {
    Timestamp::from_micros(1_795_243_212_318_402).unwrap()
}

fn prepared(fields: &[Value]) -> NewEvents {
    let events: Vec<Value> = fields
        .iter()
        .map(|fields| {
            let mut event = json!({
                "event_timestamp": "2026-11-21T06:40:12.318402Z", "version": "1.0",
                "event_type": "a.b", "event_category": "gateway", "event_action": "received",
                "event_outcome": "success", "correlation_id": "rr-1", "event_data": {},
            });
            for (name, value) in fields.as_object().unwrap() {
                event[name] = value.clone();
            }
            event
        })
        .collect();
    let body = serde_json::to_vec(&events).unwrap();
    ingest::batch(&body, 500, &FreshIds::default(), now()).unwrap().events
}

/// Lets a writer store these requests, all of which wait when it begins.
fn write_all(
    connection: &Connection,
    metrics: &Metrics,
    requests: Vec<NewEvents>,
) -> Vec<Result<Written, WriteError>> {
    let (queue, received) = mpsc::channel(requests.len());
    let bytes = Arc::new(Semaphore::new(requests.len()));
    let answers: Vec<_> = requests
        .into_iter()
        .map(|events| {
            let (answer, answered) = oneshot::channel();
            let _counted = Counted::new(&metrics.writes.waiting);
            let held = Arc::clone(&bytes).try_acquire_owned().unwrap();
            queue.try_send(Some(Write { events, answer, _held: held, _counted })).unwrap();
            answered
        })
        .collect();
    drop(queue);
    Writer::new(connection, metrics.writes.clone(), 500).unwrap().run(received);
    assert_eq!(bytes.available_permits(), answers.len());
    answers.into_iter().map(|answered| answered.blocking_recv().unwrap()).collect()
}

#[test]
fn a_request_that_the_disk_has_no_room_for_is_refused_alone() {
    let connection = Connection::open_in_memory().unwrap();
    migrate::migrate(&connection).unwrap();
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    connection.pragma_update_and_check(None, "max_page_count", pages + 30, |_| Ok(())).unwrap();
    let metrics = Metrics::new();
    let huge = json!({"event_data": {"filler": "x".repeat(250_000)}});
    let requests =
        vec![prepared(&[json!({})]), prepared(&[json!({}), huge]), prepared(&[json!({})])];
    let outcomes = write_all(&connection, &metrics, requests);
    let one = Ok(Written { stored: 1, repeated: 0 });
    assert_eq!(outcomes[0], one);
    assert!(
        matches!(outcomes[1], Err(WriteError::Storage(StorageError::Unavailable { .. }))),
        "{:?}",
        outcomes[1]
    );
    assert_eq!(outcomes[2], one);
    let rows: i64 =
        connection.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 2);
    assert_eq!(metrics.writes.groups_split.get(), 1);
    assert_eq!(metrics.writes.waiting.get(), 0);
}

#[test]
fn a_row_yields_the_bytes_that_its_digest_covers() {
    let connection = Connection::open_in_memory().unwrap();
    migrate::migrate(&connection).unwrap();
    let full = json!({
        "event_id": "01990000-0000-7000-8000-000000000001", "actor_ip": "2001:DB8::0:1",
        "namespace": "ns", "duration_ms": 0, "error_message": "caf\u{e9}", "producer": "p",
        "producer_seq": u64::MAX, "is_sensitive": true, "parent_event_date": "2026-11-20T23:00:00Z",
        "event_data": {"a": [1, 2.50]}, "retention_days": 7,
    });
    let events = prepared(&[full, json!({})]);
    let bytes = events.bytes.clone();
    write_all(&connection, &Metrics::new(), vec![events]);

    let columns = FIELDS.map(|field| match field.name {
        "correlation_id" => "heads.correlation_id",
        name => name,
    });
    let sql = format!(
        "SELECT {}, digest FROM events JOIN heads ON heads.id = head ORDER BY events.id",
        columns.join(", ")
    );
    let mut statement = connection.prepare(&sql).unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut again = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let start = again.len();
        for place in 0..FIELDS.len() {
            let value = match row.get(place).unwrap() {
                SqlValue::Null => None,
                SqlValue::Integer(integer) => Some(integer.to_le_bytes().to_vec()),
                SqlValue::Text(text) => Some(text.into_bytes()),
                SqlValue::Blob(bytes) => Some(bytes),
                SqlValue::Real(real) => panic!("{real}"),
            };
            let length = value.as_ref().map_or(-1, |value| i32::try_from(value.len()).unwrap());
            again.extend_from_slice(&length.to_le_bytes());
            again.extend(value.unwrap_or_default());
        }
        let digest: [u8; 32] = row.get(FIELDS.len()).unwrap();
        let mut hasher = Sha256::new_with_prefix([1]);
        hasher.update(&again[start..]);
        assert_eq!(digest[..], hasher.finalize()[..]);
    }
    assert_eq!(again, bytes);
}

#[test]
fn a_query_over_its_time_is_stopped_and_its_connection_serves_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events.db");
    drop(open_for_writing(&path).unwrap());
    let readers = Readers::open(&path, 1).unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let endless = |connection: &Connection| {
            let sql = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)
                       SELECT max(x) FROM n";
            connection.query_row(sql, params_from_iter([0; 0]), |row| row.get::<_, i64>(0))
        };
        let result = Readers::read(&readers, Duration::from_millis(20), endless).await;
        assert_eq!(result, Err(StorageError::TooSlow { limit_ms: 20 }));
        let result = Readers::read(&readers, Duration::from_secs(60), reader::probe).await;
        assert_eq!(result, Ok(()));
    });
}
