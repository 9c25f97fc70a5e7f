//! Where the examples send their events: to `LEDGERLINE_URL`, or to a DataStorage of their own.
//!
//! A service of yours needs only `Config::from_env`. Limit: what an example's own DataStorage holds
//! is deleted with it.

use anyhow::Context as _;
use ledgerline::Config;
use ledgerline_server::{Server, Storage};
use tempfile::TempDir;

/// A DataStorage in this process, on SQLite in a temporary directory and on a free port. It stops
/// when it is dropped: drop it after the store that sends to it is closed.
#[derive(Debug)]
pub struct DataStorage {
    server: Server,
    /// Fields are dropped in order: the files go after the server has stopped.
    _directory: TempDir,
}

impl DataStorage {
    /// Starts it.
    ///
    /// # Errors
    /// There is no room for a temporary directory, or the server can't start.
    pub fn start() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("no temporary directory")?;
        let path = directory.path().join("events.db");
        let mut config = ledgerline_server::Config::new(Storage::Sqlite { path });
        config.listen = ([127, 0, 0, 1], 0).into();
        let server = Server::start(config).context("DataStorage doesn't start")?;
        Ok(Self { server, _directory: directory })
    }

    /// What an engine's [`Config`] takes as its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.server.addr())
    }
}

/// The engine's configuration from the environment. If `LEDGERLINE_URL` isn't set, for a
/// DataStorage of our own, to hold on to.
///
/// # Errors
/// A variable can't be used, or our own DataStorage doesn't start.
pub fn configuration() -> anyhow::Result<(Config, Option<DataStorage>)> {
    match Config::from_env() {
        Ok(config) => Ok((config, None)),
        Err(error) if error.is_no_url() => {
            let own = DataStorage::start()?;
            Ok((Config::from_env_at(own.url())?, Some(own)))
        }
        Err(error) => Err(error.into()),
    }
}
