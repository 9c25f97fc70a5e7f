//! DataStorage: stores audit events and answers queries over HTTP/1.1.
//!
//! A [`Server`] listens, checks each request as a whole, and stores it as a whole: a 201 means
//! that every event of the request is committed and synced. Events are known by their ids, so
//! that sending a request again does no harm, and an id that comes back with other content is
//! refused.
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
mod routes;
mod server;
mod storage;
mod time_filter;

pub use config::{Config, ConfigError, Storage};
pub use server::{Server, ShutdownError, StartError};
pub use storage::{MigrationError, StorageError};
