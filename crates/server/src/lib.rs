//! DataStorage: stores audit events and answers queries over HTTP/1.1.
//!
//! A [`Server`] listens, checks each request as a whole, and stores it as a whole: a 201 means
//! that every event of the request is committed and synced. Events are known by their ids, so
//! that sending a request again does no harm, and an id that comes back with other content is
//! refused.
//!
//! # Refusals
//!
//! A request is refused as a whole, with a problem document (RFC 7807) that has these members
//! beside `type`, `title` and `status`, each only where it applies:
//!
//! | member | |
//! |---|---|
//! | `detail` | what was wrong, in words; may repeat up to 48 characters of what was sent |
//! | `index` | the event's place in the request, from 0 |
//! | `field` | the field, or the parameter of a query |
//! | `reason` | the rule that was broken: `missing`, `too_long`, `too_old`, `conflict`, ... |
//! | `limit` | the bound that was broken: characters, bytes, levels, events, or the field's unit |
//! | `event_id` | the id, where it is taken by other content |
//!
//! An `event_timestamp` may be at most **7 days** in the past (`reason` is `too_old` beyond it)
//! and at most **60 minutes** in the future (`too_new`), by this server's clock. So an event that
//! was held for longer than a week can't be stored here any more.
//!
//! An `event_category` may be any well-formed one: a lower-case letter of ASCII, then at most 49
//! lower-case letters, digits, `_`, `-` or `.`.
//!
//! Each refusal of events is counted in the metric `datastorage_refusals_total`, by status, reason
//! and field, and logged at the level warn ("events refused") with the same members but the
//! detail: nothing of an event's contents goes into the log. Of refusals that agree in status,
//! reason and field one in ten seconds has a line; the others are counted in the next.
//!
//! ```
//! use std::time::Duration;
//!
//! use ledgerline_server::{Config, Server, Storage};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("events.db");
//! let mut config = Config::new(Storage::Sqlite { path });
//! config.listen = "127.0.0.1:0".parse()?;
//! let server = Server::start(config)?;
//! println!("listening on {}", server.addr());
//! server.shutdown(Duration::from_secs(25))?;
//! # Ok(())
//! # }
//! ```

mod config;
mod fresh_id;
mod ingest;
mod metrics;
mod problem;
mod query;
mod query_parameters;
mod refusals;
mod routes;
mod server;
mod storage;
mod time_filter;

pub use config::{Config, ConfigError, Storage};
pub use server::{Server, ShutdownError, StartError};
pub use storage::{MigrationError, StorageError};
