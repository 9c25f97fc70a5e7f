//! An engine's configuration: from flags, below them the environment, below that a file in TOML.
//!
//! ```toml
//! url = "http://127.0.0.1:8080"
//! flush_interval = "100ms"
//! buffer_bytes = "64MiB"
//! ```
//!
//! Invariant: every command that starts or shows an engine reads its settings here, so that what
//! `validate` shows is what `load` runs with. The keys are the engine's settings, read by the
//! engine's own code; a key that isn't one is an error, because a misspelt limit would be no limit.
//! Limit: 1 MiB.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use ledgerline::{Config, SettingError};
use toml::{Table, Value};

use crate::args::{EngineArgs, Usage};

/// The engine's configuration as flags, the environment and a file have it; `url` counts more than
/// all of them.
pub(crate) fn engine(args: &EngineArgs, url: Option<String>) -> Result<Config, Usage> {
    let url = url.or_else(|| args.url.clone());
    let mut config = Settings::load(args.config.as_deref())?.config(url)?;
    config.buffer_bytes = args.buffer_bytes.or(config.buffer_bytes);
    config.flush_interval = args.flush_interval.unwrap_or(config.flush_interval);
    config.batch_events_max = args.batch_events_max.unwrap_or(config.batch_events_max);
    Ok(config)
}

/// The engine's configuration as the environment has it, for the DataStorage at `url`.
pub(crate) fn engine_at(url: String) -> Result<Config, Usage> {
    Settings::default().config(Some(url))
}

/// The settings of one file.
#[derive(Debug, Default)]
struct Settings {
    table: Table,
    /// What messages call the file.
    name: String,
}

impl Settings {
    /// Reads the file; none is one without settings.
    fn load(path: Option<&Path>) -> Result<Self, Usage> {
        let Some(path) = path else { return Ok(Self::default()) };
        let name = path.display().to_string();
        let wrong = |why: &dyn std::fmt::Display| Usage(format!("--config: {name}: {why}"));
        let mut text = String::new();
        let file = File::open(path).map_err(|error| wrong(&error))?;
        file.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| wrong(&error))?;
        if text.len() as u64 > BYTES_MAX {
            return Err(wrong(&format_args!("longer than {BYTES_MAX} bytes")));
        }
        let table: Table = toml::from_str(&text).map_err(|error| wrong(&error))?;
        for (key, value) in &table {
            if !Config::SETTINGS.contains(&key.as_str()) {
                let known = Config::SETTINGS.join(", ");
                return Err(wrong(&format_args!("{key} is no setting, expected one of {known}")));
            }
            if !matches!(value, Value::String(_) | Value::Integer(_)) {
                let found = value.type_str(); // as in: array
                return Err(wrong(&format_args!("{key} is {found}, expected text or a number")));
            }
        }
        Ok(Self { table, name })
    }

    /// The engine's configuration: the environment counts more than the file.
    fn config(&self, url: Option<String>) -> Result<Config, Usage> {
        let given = |name| match (&url, name) {
            (Some(url), "url") => Some(url.clone()),
            _ => Config::setting_in_env(name).filter(|value| !value.is_empty()),
        };
        let config = Config::from_settings(|name| given(name).or_else(|| self.get(name)));
        config.map_err(|error| self.usage(&error))
    }

    fn get(&self, name: &str) -> Option<String> {
        match self.table.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Integer(number) => Some(number.to_string()),
            _ => None,
        }
    }

    fn usage(&self, error: &SettingError) -> Usage {
        let is_here = |given: &str| self.get(error.name()).is_some_and(|value| value == given);
        match error {
            SettingError::Malformed { given, .. } if is_here(given) => {
                Usage(format!("{}: {error}", self.name))
            }
            SettingError::Malformed { name, given, expected } => {
                Usage(format!("{} is {given:?}, expected {expected}", variable(name)))
            }
            _ => Usage(format!(
                "{} is not set, nor is url in a --config; --url gives it, and load may have a \
                 --null-sink instead",
                variable("url")
            )),
        }
    }
}

fn variable(name: &str) -> String {
    format!("LEDGERLINE_{}", name.to_uppercase())
}

const BYTES_MAX: u64 = 1 << 20;
