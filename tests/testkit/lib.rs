//! What the black-box tests use: a DataStorage that does what a script says, ours in a temporary
//! directory, and events to record.
//!
//! Nothing here sleeps to synchronise: who waits, waits on a condition with a deadline that only a
//! fault reaches. Everything listens on a free port of the loopback, and ends when it is dropped.
//!
//! ```
//! use ledgerline::Store;
//! use ledgerline_testkit::{Reply, Scripted, WAIT, config, event};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Scripted::replying([Reply::status(503), Reply::Store]);
//! let store = Store::start(config(&server.url()))?;
//! store.record(&event("rr-1"))?;
//! store.flush(WAIT)?;
//! assert!(server.has_stored("rr-1"));
//! assert_eq!(server.requests().len(), 2);
//! # Ok(())
//! # }
//! ```

pub mod bars;
mod events;
mod front;
mod gate;
mod http;
mod log;
mod proxy;
mod raw;
mod scripted;
mod served;

use std::time::Duration;

pub use events::{assert_all_delivered, config, event, record_until_refused};
pub use front::{Authority, Front};
pub use gate::Gate;
pub use log::Log;
pub use proxy::{End, Network, Proxy, Way};
pub use raw::{now_micros, raw_event, time_text};
pub use scripted::{Reply, Request, ReservedPort, Scripted, StoredEvent};
pub use served::{Row, Served, serve};

/// A deadline that only a fault reaches.
pub const WAIT: Duration = Duration::from_secs(20);
