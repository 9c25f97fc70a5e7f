//! What the servers of a fleet got and stored, kept apart from the engine's own accounts.
//!
//! Invariant: an event is entered as stored before the first byte of its answer is written, so that
//! whoever has the answer finds it here. Limit: it knows the events of [`Load`](super::Load) only,
//! by their resource ids; any other event is a fault.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ledgerline::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use super::load::{Key, key_of};

/// One event of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Item {
    /// Which event of the load it is.
    pub key: Key,
    /// The id that its producer gave it.
    pub id: Uuid,
}

/// What the fleet knows of one event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Its id, once it has come.
    pub id: Option<Uuid>,
    /// Requests that carried it and came as a whole.
    pub came: u32,
    /// Rows that the fleet holds of it.
    pub rows: u32,
    /// Its time, in microseconds since 1970.
    pub timestamp_us: Option<i64>,
    /// When its first row was stored, since the fleet's start.
    pub stored_at: Option<Duration>,
    /// Whether one of the rows has its own id.
    has_own_id: bool,
}

/// How events are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storing {
    /// Not at all.
    Nothing,
    /// Under their own ids: what has come before isn't stored again.
    OwnIds,
    /// Under ids of the server's making: each time, a row more.
    NewIds,
}

/// The books of one fleet. Clones are the same.
#[derive(Debug, Clone)]
pub struct Ledger {
    begun: Instant,
    begun_at: SystemTime,
    books: Arc<Mutex<Books>>,
}

/// The books themselves.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Books {
    /// By [`Key`]; events that haven't come have empty entries.
    pub entries: Vec<Entry>,
    /// Requests that came as a whole.
    pub requests: u64,
    /// Requests that were cut off.
    pub requests_cut: u64,
    /// Of these, the events that came before the end, and how often.
    pub cut: HashMap<Uuid, u32>,
    /// Answers by their status; 0 for requests that were given none.
    pub answers: BTreeMap<u16, u64>,
    /// Connections that were accepted.
    pub connections: u64,
    /// Different events that are stored.
    pub stored: u64,
    /// Rows that are stored beyond one for each event.
    pub repeats: u64,
    /// When the first event was stored, since the fleet's start.
    pub first_stored_at: Option<Duration>,
    /// What no client should send.
    pub faults: Vec<String>,
}

#[derive(Deserialize)]
struct Head<'a> {
    event_id: Uuid,
    resource_id: &'a str,
    event_timestamp: &'a str,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), begun_at: SystemTime::now(), books: Arc::default() }
    }

    /// Since the fleet's start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The wall clock at the fleet's start.
    #[must_use]
    pub fn begun_at(&self) -> SystemTime {
        self.begun_at
    }

    /// A copy of the books as they are.
    #[must_use]
    pub fn books(&self) -> Books {
        self.lock().clone()
    }

    /// How many different events are stored.
    #[must_use]
    pub fn stored(&self) -> u64 {
        self.lock().stored
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// What is known of that event.
    #[must_use]
    pub fn entry(&self, key: Key) -> Entry {
        self.entries.get(key).copied().unwrap_or_default()
    }

    /// How many events were stored more than once.
    #[must_use]
    pub fn stored_twice(&self) -> u64 {
        self.entries.iter().filter(|entry| entry.rows > 1).count() as u64
    }

    /// How many events were sent more than once, in requests that were cut off too.
    #[must_use]
    pub fn sent_twice(&self) -> u64 {
        let cut = |entry: &Entry| entry.id.and_then(|id| self.cut.get(&id)).copied();
        let is_repeated = |entry: &&Entry| entry.came + cut(entry).unwrap_or(0) > 1;
        self.entries.iter().filter(is_repeated).count() as u64
    }

    /// The events of a body, entered as having come; what is wrong with it, if something is.
    pub(super) fn receive(&mut self, body: &str) -> Result<Vec<Item>, String> {
        let heads: Vec<Head<'_>> = serde_json::from_str(body)
            .map_err(|error| format!("{error} in {:?}", body.get(..200)))?;
        self.requests += 1;
        let mut items = Vec::with_capacity(heads.len());
        for head in heads {
            items.push(self.enter(&head)?);
        }
        Ok(items)
    }

    /// The beginning of a body that was cut off: the ids that can be read of it.
    pub(super) fn receive_part(&mut self, text: &[u8]) {
        self.requests_cut += 1;
        let text = String::from_utf8_lossy(text);
        for rest in text.split(r#""event_id":""#).skip(1) {
            let id = rest.get(..UUID_CHARS).and_then(|id| id.parse().ok());
            if let Some(id) = id {
                *self.cut.entry(id).or_default() += 1;
            }
        }
    }

    /// Enters events as stored.
    pub(super) fn store(&mut self, items: &[Item], storing: Storing, now: Duration) {
        for item in items {
            let entry = &mut self.entries[item.key];
            match storing {
                Storing::Nothing => continue,
                Storing::OwnIds if entry.has_own_id => continue,
                Storing::OwnIds => entry.has_own_id = true,
                Storing::NewIds => {}
            }
            if entry.rows == 0 {
                entry.stored_at = Some(now);
                self.stored += 1;
                self.first_stored_at.get_or_insert(now);
            } else {
                self.repeats += 1;
            }
            entry.rows += 1;
        }
    }

    fn enter(&mut self, head: &Head<'_>) -> Result<Item, String> {
        let Head { event_id, resource_id, event_timestamp } = *head;
        let key = key_of(resource_id).ok_or_else(|| format!("{resource_id} is not known"))?;
        if self.entries.len() <= key {
            self.entries.resize_with(key + 1, Entry::default);
        }
        let entry = &mut self.entries[key];
        entry.came += 1;
        entry.timestamp_us = Timestamp::parse_rfc3339(event_timestamp).map(Timestamp::micros);
        let known = *entry.id.get_or_insert(event_id);
        if known == event_id {
            Ok(Item { key, id: event_id })
        } else {
            Err(format!("{resource_id} came as {known} and as {event_id}"))
        }
    }
}

const UUID_CHARS: usize = 36;
