//! What a server is told at its start, and the bounds of it.
//!
//! Invariant: a [`Server`](crate::Server) runs only on a configuration that [`Config::check`] has
//! passed; nothing is clamped in silence. Limit: a running server's configuration doesn't change.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// Where events are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Storage {
    /// One SQLite file, with its write-ahead log beside it, on a local disk.
    Sqlite {
        /// The file; it is made if it isn't there. Its directory must exist.
        path: PathBuf,
    },
}

/// How a server listens, and its limits.
///
/// Memory for requests is at most three times [`bytes_in_flight_max`](Self::bytes_in_flight_max):
/// a body, the parser's copy of it, and what is made of it to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Where events are kept.
    pub storage: Storage,
    /// The API's address; port 0 takes a free one. Default 127.0.0.1:8080.
    pub listen: SocketAddr,
    /// An address of its own for `/healthz` and `/readyz`. Default none: the API's serves both.
    pub health_listen: Option<SocketAddr>,
    /// An address of its own for `/metrics`. Default none: the API's serves it.
    pub metrics_listen: Option<SocketAddr>,
    /// Most events in one request, 1 to 5,000. Default 500.
    pub batch_events_max: usize,
    /// Most bytes in one request's body, 1 to 50 MiB. Default 5 MiB.
    pub body_bytes_max: usize,
    /// Most bytes of bodies held at once; a request beyond it gets a 503. Default 256 MiB.
    pub bytes_in_flight_max: usize,
    /// Most requests that wait to be written; one beyond it gets a 503. Default 1,024.
    pub write_queue_len: usize,
    /// Most connections at once on the API's address; more wait to be accepted. Default 1,024.
    pub connections_max: usize,
    /// A connection is closed that sends no whole request header for so long, be it idle or slow.
    /// Default 120 s.
    pub idle_timeout: Duration,
    /// A body must have come so long after its header. Default 30 s.
    pub body_timeout: Duration,
    /// A query is stopped after so long. Default 10 s.
    pub query_timeout: Duration,
    /// Queries that run at once, each on a connection of its own. Default 4.
    pub readers: usize,
}

impl Config {
    /// The defaults, on this storage.
    #[must_use]
    pub fn new(storage: Storage) -> Self {
        Self {
            storage,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            health_listen: None,
            metrics_listen: None,
            batch_events_max: 500,
            body_bytes_max: 5 << 20,
            bytes_in_flight_max: 256 << 20,
            write_queue_len: 1_024,
            connections_max: 1_024,
            idle_timeout: Duration::from_secs(120),
            body_timeout: Duration::from_secs(30),
            query_timeout: Duration::from_secs(10),
            readers: 4,
        }
    }

    /// Checks every value against its bounds.
    ///
    /// # Errors
    /// The first value that is out of bounds, with the bounds.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Storage::Sqlite { path } = &self.storage;
        // SQLite takes both names for a database in memory, one per connection.
        if path.as_os_str().is_empty() || path.as_os_str() == ":memory:" {
            return Err(ConfigError::NotAFile { path: path.clone() });
        }
        let numbers = [
            ("batch_events_max", self.batch_events_max, 1, GROUP_EVENTS_MAX),
            ("body_bytes_max", self.body_bytes_max, 1 << 20, 50 << 20),
            ("bytes_in_flight_max", self.bytes_in_flight_max, self.body_bytes_max, 4 << 30),
            ("write_queue_len", self.write_queue_len, 1, 1 << 20),
            ("connections_max", self.connections_max, 1, 1 << 20),
            ("readers", self.readers, 1, 64),
        ];
        for (name, given, min, max) in numbers {
            if !(min..=max).contains(&given) {
                return Err(ConfigError::OutOfRange { name, given, min, max });
            }
        }
        let times = [
            ("idle_timeout", self.idle_timeout),
            ("body_timeout", self.body_timeout),
            ("query_timeout", self.query_timeout),
        ];
        for (name, given) in times {
            if !(TIMEOUT_MIN..=TIMEOUT_MAX).contains(&given) {
                return Err(ConfigError::TimeOutOfRange {
                    name,
                    given,
                    min: TIMEOUT_MIN,
                    max: TIMEOUT_MAX,
                });
            }
        }
        Ok(())
    }
}

/// A value that a server can't run with.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The storage's path is empty or means memory.
    #[error("the SQLite path {path:?} names no file")]
    NotAFile {
        /// What was given.
        path: PathBuf,
    },
    /// A number outside its bounds.
    #[error("{name} is {given}, allowed is {min} to {max}")]
    OutOfRange {
        /// Which value.
        name: &'static str,
        /// What was given.
        given: usize,
        /// The least allowed.
        min: usize,
        /// The most allowed.
        max: usize,
    },
    /// A time outside its bounds.
    #[error("{name} is {given:?}, allowed is {min:?} to {max:?}")]
    TimeOutOfRange {
        /// Which value.
        name: &'static str,
        /// What was given.
        given: Duration,
        /// The least allowed.
        min: Duration,
        /// The most allowed.
        max: Duration,
    },
}

/// Most events that one transaction takes: beyond it commits gain little, and each waits longer.
pub(crate) const GROUP_EVENTS_MAX: usize = 5_000;

const TIMEOUT_MIN: Duration = Duration::from_millis(10);
const TIMEOUT_MAX: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new(Storage::Sqlite { path: "events.db".into() })
    }

    #[test]
    fn the_defaults_pass() {
        assert_eq!(config().check(), Ok(()));
    }

    #[test]
    fn a_value_out_of_bounds_is_named_with_its_bounds() {
        let mut given = config();
        given.batch_events_max = 5_001;
        let error = given.check().unwrap_err();
        assert_eq!(error.to_string(), "batch_events_max is 5001, allowed is 1 to 5000");

        let mut given = config();
        given.bytes_in_flight_max = given.body_bytes_max - 1;
        assert!(matches!(
            given.check(),
            Err(ConfigError::OutOfRange { name: "bytes_in_flight_max", .. })
        ));

        let mut given = config();
        given.query_timeout = Duration::ZERO;
        let error = given.check().unwrap_err();
        assert_eq!(error.to_string(), "query_timeout is 0ns, allowed is 10ms to 3600s");

        let given = Config::new(Storage::Sqlite { path: ":memory:".into() });
        let error = given.check().unwrap_err();
        assert_eq!(error.to_string(), "the SQLite path \":memory:\" names no file");
    }
}
