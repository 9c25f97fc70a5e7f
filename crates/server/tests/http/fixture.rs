//! A server on a file of its own, and events to send to it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ledgerline_codec::{Timestamp, Uuid};
use ledgerline_server::{Config, Server, Storage};
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Answer, get, post};

pub(crate) const ONE: &str = "/api/v1/audit/events";
pub(crate) const BATCH: &str = "/api/v1/audit/events/batch";

pub(crate) struct Fixture {
    pub(crate) server: Server,
    pub(crate) directory: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(&directory);
        change(&mut config);
        Self { server: Server::start(config).unwrap(), directory }
    }

    pub(crate) fn batch(&self, events: &[Value]) -> Answer {
        post(self.server.addr(), BATCH, serde_json::to_string(events).unwrap().as_bytes())
    }

    /// Stores events that must be stored.
    #[track_caller]
    pub(crate) fn store(&self, events: &[Value]) {
        let answer = self.batch(events);
        assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    }

    /// The answer to a query that must be answered.
    #[track_caller]
    pub(crate) fn query(&self, parameters: &str) -> Value {
        let answer = get(self.server.addr(), &format!("{ONE}?{parameters}"));
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    pub(crate) fn rows(&self) -> u64 {
        self.query("limit=1")["pagination"]["total"].as_u64().unwrap()
    }

    /// The value of a metric without labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let answer = get(self.server.metrics_addr(), "/metrics");
        let line = answer.text().lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    }

    /// Looks at the metric until it has the value.
    pub(crate) fn wait_for_metric(&self, name: &str, value: f64) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.metric(name) != value {
            assert!(Instant::now() < deadline, "{name} is {}, not {value}", self.metric(name));
            std::thread::yield_now();
        }
    }

    /// A second connection to the server's file.
    pub(crate) fn database(&self) -> Connection {
        Connection::open(self.directory.path().join("events.db")).unwrap()
    }

    /// Keeps the writer from writing until the connection says `COMMIT`.
    pub(crate) fn hold_writer(&self) -> Connection {
        let connection = self.database();
        connection.busy_timeout(Duration::from_secs(5)).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        connection
    }
}

pub(crate) fn config(directory: &TempDir) -> Config {
    let path = directory.path().join("events.db");
    let mut config = Config::new(Storage::Sqlite { path });
    config.listen = "127.0.0.1:0".parse().unwrap();
    config
}

pub(crate) fn now_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros().try_into().unwrap()
}

pub(crate) fn time_text(micros: i64) -> String {
    let mut text = Vec::new();
    Timestamp::from_micros(micros).unwrap().append_to(&mut text);
    String::from_utf8(text).unwrap()
}

/// The id that tests know by this number.
pub(crate) fn id(number: u64) -> String {
    Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 | u128::from(number)).to_string()
}

/// An event with the required fields and an id.
pub(crate) fn event(number: u64) -> Value {
    json!({
        "event_id": id(number),
        "version": "1.0",
        "event_type": "gateway.signal.received",
        "event_timestamp": time_text(now_micros()),
        "event_category": "gateway",
        "event_action": "received",
        "event_outcome": "success",
        "correlation_id": "rr-1",
        "event_data": {"event_type": "gateway.signal.received", "number": number},
    })
}

/// The event with these fields set; null takes a field out.
pub(crate) fn event_with(number: u64, fields: Value) -> Value {
    let mut event = event(number);
    for (name, value) in fields.as_object().unwrap() {
        let object = event.as_object_mut().unwrap();
        if value.is_null() {
            object.remove(name);
        } else {
            object.insert(name.clone(), value.clone());
        }
    }
    event
}

/// The ids of a page, in its order.
pub(crate) fn ids(page: &Value) -> Vec<String> {
    let rows = page["data"].as_array().unwrap();
    rows.iter().map(|row| row["event_id"].as_str().unwrap().to_owned()).collect()
}
