//! For the tests of services that record events: a store whose DataStorage is a memory.
//!
//! Everything but the network is the real thing: lanes, batches, retries, accounts. Requests can be
//! made to fail. Feature `testing`; not for production, where the memory would only grow.
//!
//! ```
//! use ledgerline::testing::{Fault, MemoryStorage};
//! use ledgerline::{Category, Event, Json, Outcome, Store};
//!
//! /// What is to be tested.
//! fn approve(audit: &Store, order: &str) {
//!     let event = Event::new("order.approved", Category::Approval, Outcome::Success)
//!         .with_correlation_id(order)
//!         .with_data(&Json(r#"{"event_type":"order.approved"}"#));
//!     audit.record(&event).expect("the audit trail takes it");
//! }
//!
//! let storage = MemoryStorage::new();
//! let audit = storage.start();
//! approve(&audit, "order-1");
//! let events = storage.wait_for("order-1", 1)?;
//! assert_eq!(events[0].event_action, "approved");
//!
//! // An outage delays events, and loses none.
//! storage.fail(Fault::Unreachable);
//! approve(&audit, "order-2");
//! storage.recover();
//! storage.wait_for("order-2", 1)?;
//! assert_eq!(audit.accounts().dropped.total(), 0);
//! # Ok::<(), ledgerline::testing::NotStored>(())
//! ```

mod answers;
mod stored;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ledgerline_codec::Timestamp;
use ledgerline_transport::{Answer, Cause, Certainty, ConnectionEvent, Failure, IoFault, What};
use tokio::sync::mpsc::UnboundedSender;

use self::answers::{BATCH_EVENTS_MAX, Events, answer};
pub use self::stored::StoredEvent;
use crate::clock::wall_clock;
use crate::config::Config;
use crate::delivery::BatchId;
use crate::engine::{Command, Link};
use crate::error::StartError;
use crate::store::Store;

/// A DataStorage in this process's memory. Clones are the same one; any thread may use it.
///
/// It answers as `ledgerline serve` does with its defaults: 500 events and 5 MiB a request, every
/// field held to its limits, `event_timestamp` at most 7 days in the past and 60 minutes in the
/// future, parents that must be stored, an equal repeat taken and another event under the same id
/// refused. Holds at most 1,000,000 events, and answers 503 from then on.
#[derive(Debug, Clone, Default)]
pub struct MemoryStorage(Arc<Memory>);

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// No connection can be made.
    Unreachable,
    /// The answer has this status and is no JSON; nothing is stored.
    Status(u16),
    /// The events are stored, but the answer is lost.
    AnswerLost,
}

/// [`MemoryStorage::wait_for`] has waited for too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found} of {wanted} events of correlation id {correlation_id:?} within {waited:?}")]
#[non_exhaustive]
pub struct NotStored {
    /// What was waited for.
    pub correlation_id: String,
    /// How many of its events.
    pub wanted: usize,
    /// How many there are.
    pub found: usize,
    /// How long it was waited.
    pub waited: Duration,
}

#[derive(Debug, Default)]
struct Memory {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    events: Events,
    /// How the next requests fail.
    next_faults: VecDeque<Fault>,
    /// How every request fails after these.
    lasting_fault: Option<Fault>,
}

impl MemoryStorage {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a store on it that is small and quick: 4 MiB, an interval of 10 ms, retries after
    /// some milliseconds; dropped without a close, it waits for a second at most.
    ///
    /// # Panics
    /// If the system has no memory or no thread for it.
    #[must_use]
    pub fn start(&self) -> Store {
        let mut config = Config::new("http://memory.invalid");
        config.lanes = 2;
        config.buffer_bytes = Some(4 << 20);
        config.batch_events_max = BATCH_EVENTS_MAX;
        config.flush_interval = Duration::from_millis(10);
        config.retry_delay_min = Duration::from_millis(1);
        config.retry_delay_max = Duration::from_millis(10);
        config.drop_timeout = Duration::from_secs(1);
        self.start_with(config).expect("a small store starts")
    }

    /// Starts a store on it with this configuration, whose URL is not used.
    ///
    /// # Errors
    /// As [`Store::start`].
    pub fn start_with(&self, config: Config) -> Result<Store, StartError> {
        Store::start_on(config, Link::Memory(self.clone()))
    }

    /// All events, in the order in which they were stored.
    #[must_use]
    pub fn events(&self) -> Vec<StoredEvent> {
        self.state().events.all.clone()
    }

    /// The events of a correlation id, as soon as there are `count` of them, in the order in which
    /// they were stored.
    ///
    /// # Errors
    /// [`NotStored`] after 5 s.
    pub fn wait_for(
        &self,
        correlation_id: &str,
        count: usize,
    ) -> Result<Vec<StoredEvent>, NotStored> {
        let deadline = Instant::now() + WAIT;
        let mut state = self.state();
        loop {
            let is_its = |event: &&StoredEvent| event.correlation_id == correlation_id;
            let found: Vec<_> = state.events.all.iter().filter(is_its).cloned().collect();
            if found.len() >= count {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                let correlation_id = correlation_id.to_owned();
                let found = found.len();
                return Err(NotStored { correlation_id, wanted: count, found, waited: WAIT });
            }
            let woken = self.0.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Stores the body of a batch request that no engine of this crate has made, or refuses it, and
    /// gives the status and the JSON of the answer. No fault applies to it.
    ///
    /// ```
    /// let storage = ledgerline::testing::MemoryStorage::new();
    /// let (status, problem) = storage.post_batch(br#"[{"version":"1.0"}]"#);
    /// assert_eq!(status, 400);
    /// assert!(problem.contains("event 0: event_type is missing"));
    /// ```
    #[must_use]
    pub fn post_batch(&self, body: &[u8]) -> (u16, String) {
        let reply = self.state().events.post(body, wall_clock());
        self.0.changed.notify_all();
        (reply.status, reply.body)
    }

    /// Lets the next `requests` requests fail, after those of earlier calls.
    pub fn fail_next(&self, fault: Fault, requests: usize) {
        self.state().next_faults.extend(std::iter::repeat_n(fault, requests));
    }

    /// Lets every request fail until [`recover`](Self::recover).
    pub fn fail(&self, fault: Fault) {
        self.state().lasting_fault = Some(fault);
    }

    /// Nothing fails any longer.
    pub fn recover(&self) {
        let mut state = self.state();
        state.lasting_fault = None;
        state.next_faults.clear();
    }

    pub(crate) fn wire(&self, slot: usize, events: UnboundedSender<ConnectionEvent>) -> MemoryWire {
        MemoryWire { storage: self.clone(), slot, events }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a server would do about a request.
    fn receive(&self, body: &[u8]) -> Result<Answer, Failure> {
        let mut state = self.state();
        let fault = state.next_faults.pop_front().or(state.lasting_fault);
        match fault {
            Some(Fault::Unreachable) => {
                let fault =
                    IoFault::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
                let cause = Cause::Connect { address, fault };
                return Err(Failure { certainty: Certainty::NotProcessed, cause });
            }
            Some(Fault::Status(status)) => return Ok(answer(status, "text/plain", "as asked")),
            Some(Fault::AnswerLost) | None => {}
        }
        let reply = state.events.post(body, wall_clock());
        self.0.changed.notify_all();
        if fault == Some(Fault::AnswerLost) {
            let cause = Cause::ClosedByServer;
            return Err(Failure { certainty: Certainty::Ambiguous, cause });
        }
        Ok(reply.into_answer())
    }
}

/// An engine's way to the memory: answers before `send` returns.
#[derive(Debug)]
pub(crate) struct MemoryWire {
    storage: MemoryStorage,
    slot: usize,
    events: UnboundedSender<ConnectionEvent>,
}

impl MemoryWire {
    pub(crate) fn send(&self, batch: BatchId, body: &[Bytes]) {
        let what = match self.storage.receive(&body.concat()) {
            Ok(answer) => What::Answered(answer),
            Err(failure) => What::Failed(failure),
        };
        let is_connected = !matches!(&what, What::Failed(failure)
            if failure.certainty == Certainty::NotProcessed);
        let first_byte = is_connected.then(|| What::FirstByte(Instant::now()));
        for what in first_byte.into_iter().chain([what]) {
            let event = ConnectionEvent { slot: self.slot, connection: 1, request_id: batch, what };
            let _ = self.events.send(event); // The engine has ended.
        }
    }
}

/// Makes the engine's thread panic, as a defect of the engine would; false if it has ended.
///
/// For tests of this crate and of alarms: the store goes on, up to three times.
pub fn panic_engine(store: &Store) -> bool {
    store.send(Command::Panic)
}

/// Makes the store's wall clock differ from the system's by so many microseconds, as if it had been
/// set. Stamps and ids follow it; nothing else may.
pub fn set_wall_clock(store: &Store, ahead_us: i64) {
    store.wall_clock().set(ahead_us);
}

/// Makes the store's wall clock stand still at this moment, until it is set.
pub fn stop_wall_clock(store: &Store, at: Timestamp) {
    store.wall_clock().stop(at);
}

/// A deadline that only a fault reaches.
const WAIT: Duration = Duration::from_secs(5);
