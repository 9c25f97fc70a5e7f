//! Our DataStorage in a temporary directory, and questions to it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use ledgerline_server::{Config, Server, Storage};
use serde::Deserialize;
use serde_json::value::RawValue;
use tempfile::TempDir;

use crate::http::{Client, query_string};

/// A running DataStorage of ours. It stops, and its files go, when it is dropped.
#[derive(Debug)]
pub struct Served {
    client: Mutex<Client>,
    server: Server,
    /// Dropped after the server.
    _directory: TempDir,
}

/// One stored event, as the server shows it.
#[derive(Debug, Deserialize)]
pub struct Row(BTreeMap<String, Box<RawValue>>);

#[derive(Deserialize)]
struct Page {
    data: Vec<Row>,
    pagination: Pagination,
}

#[derive(Deserialize)]
struct Pagination {
    total: Option<u64>,
    next_cursor: Option<String>,
}

/// Starts our DataStorage on SQLite in a temporary directory.
///
/// # Panics
/// If it doesn't start.
#[must_use]
pub fn serve() -> Served {
    let directory = tempfile::tempdir().expect("there is room for a temporary directory");
    let path = directory.path().join("events.db");
    let mut config = Config::new(Storage::Sqlite { path });
    config.listen = ([127, 0, 0, 1], 0).into();
    let server = Server::start(config).expect("a server starts in an empty directory");
    let client = Mutex::new(Client::connect(server.addr()));
    Served { client, server, _directory: directory }
}

impl Served {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// The same as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.server.addr())
    }

    /// Every event that passes the filters, from all pages.
    ///
    /// # Panics
    /// If the server refuses the query or gives the same page for ever.
    #[must_use]
    #[track_caller]
    pub fn query(&self, filters: &[(&str, &str)]) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut cursor = String::new();
        for _ in 0..PAGES_MAX {
            let paging = [("limit", "1000"), ("cursor", cursor.as_str())];
            let mut page = self.page(&[filters, &paging].concat());
            rows.append(&mut page.data);
            match page.pagination.next_cursor {
                Some(next) => cursor = next,
                None => return rows,
            }
        }
        panic!("more than {PAGES_MAX} pages");
    }

    /// The only event of that correlation id.
    ///
    /// # Panics
    /// If there is none, or more than one.
    #[must_use]
    #[track_caller]
    pub fn one(&self, correlation_id: &str) -> Row {
        let mut rows = self.query(&[("correlation_id", correlation_id)]);
        assert_eq!(rows.len(), 1, "events of correlation id {correlation_id:?}");
        rows.remove(0)
    }

    /// How many events pass the filters.
    ///
    /// # Panics
    /// If the server refuses the query.
    #[must_use]
    #[track_caller]
    pub fn count(&self, filters: &[(&str, &str)]) -> u64 {
        let page = self.page(&[filters, &[("limit", "1")]].concat());
        page.pagination.total.expect("pages by offset are counted")
    }

    /// The status and the body of the answer to this body of a batch, on a connection of its own.
    ///
    /// # Panics
    /// If the server doesn't answer.
    #[must_use]
    pub fn post_batch(&self, body: &[u8]) -> (u16, String) {
        Client::connect(self.server.addr()).post("/api/v1/audit/events/batch", body)
    }

    #[track_caller]
    fn page(&self, parameters: &[(&str, &str)]) -> Page {
        let target = format!("/api/v1/audit/events{}", query_string(parameters));
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, body) = client.get(&target);
        assert_eq!(status, 200, "{target}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error} in {body}"))
    }
}

impl Row {
    /// The field's JSON, byte for byte; None if the row doesn't have it.
    #[must_use]
    pub fn raw(&self, field: &str) -> Option<&str> {
        self.0.get(field).map(|value| value.get())
    }

    /// The field's text.
    ///
    /// # Panics
    /// If the row doesn't have it, or it isn't a string.
    #[must_use]
    #[track_caller]
    pub fn text(&self, field: &str) -> String {
        let raw = self.raw(field).unwrap_or_else(|| panic!("no {field} in {self:?}"));
        serde_json::from_str(raw).unwrap_or_else(|error| panic!("{field} is {raw}: {error}"))
    }
}

const PAGES_MAX: usize = 1_000;
