//! Configuration from the environment. Only when asked: the library reads no variable by itself.

use std::env::{self, VarError};
use std::time::Duration;

use super::{Config, Overflow};

/// A variable of the environment can't be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvironmentError {
    /// `LEDGERLINE_URL` is not set, and nothing else says where DataStorage is.
    #[error("LEDGERLINE_URL is not set: it says where DataStorage is, as in http://127.0.0.1:8080")]
    NoUrl,
    /// The value isn't of the variable's form.
    #[error("{name} is {given:?}, expected {expected}")]
    Malformed {
        /// The variable.
        name: &'static str,
        /// Its value.
        given: String,
        /// The form that it should have.
        expected: &'static str,
    },
}

impl Config {
    /// A configuration from the environment; what is not set keeps its default, and an empty
    /// variable counts as not set. The limits are checked by [`validate`](Self::validate).
    ///
    /// | variable | field | form |
    /// |---|---|---|
    /// | `LEDGERLINE_URL` | `url` | required |
    /// | `LEDGERLINE_SERVICE` | defaults as in [`recommended`](Self::recommended) | name |
    /// | `LEDGERLINE_PRODUCER` | `producer` | text |
    /// | `LEDGERLINE_BUFFER_EVENTS` | `buffer_events` | number |
    /// | `LEDGERLINE_BUFFER_BYTES` | `buffer_bytes` | bytes: `67108864`, `64MiB` |
    /// | `LEDGERLINE_OVERFLOW` | `overflow` | `reject` or `evict_oldest` |
    /// | `LEDGERLINE_BATCH_EVENTS_MAX` | `batch_events_max` | number |
    /// | `LEDGERLINE_BATCH_BYTES_MAX` | `batch_bytes_max` | bytes |
    /// | `LEDGERLINE_FLUSH_INTERVAL` | `flush_interval` | time: `100ms`, `1s`, `1.5s`, `2m` |
    /// | `LEDGERLINE_RETRIES_MAX` | `retries_max` | number; `none` for no limit |
    /// | `LEDGERLINE_RETRY_DELAY_MIN` | `retry_delay_min` | time |
    /// | `LEDGERLINE_RETRY_DELAY_MAX` | `retry_delay_max` | time |
    /// | `LEDGERLINE_CONNECTIONS_MAX` | `connections_max` | number |
    /// | `LEDGERLINE_PIPELINE_DEPTH_MAX` | `pipeline_depth_max` | number |
    /// | `LEDGERLINE_CONNECT_TIMEOUT` | `connect_timeout` | time |
    /// | `LEDGERLINE_REQUEST_TIMEOUT` | `request_timeout` | time |
    /// | `LEDGERLINE_LANES` | `lanes` | number |
    ///
    /// # Errors
    /// The first variable that can't be used, with its value.
    pub fn from_env() -> Result<Self, EnvironmentError> {
        Self::from_variables(None, of_process)
    }

    /// [`from_env`](Self::from_env) for the DataStorage at `url`, whatever `LEDGERLINE_URL` says.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from_env_at(url: impl Into<String>) -> Result<Self, EnvironmentError> {
        Self::from_variables(Some(url.into()), of_process)
    }

    fn from_variables(
        url: Option<String>,
        variable: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, EnvironmentError> {
        let read = Reader { variable };
        let url = url.or_else(|| read.text("LEDGERLINE_URL")).ok_or(EnvironmentError::NoUrl)?;
        let mut config = match read.text("LEDGERLINE_SERVICE") {
            Some(service) => Self::recommended(&service, url),
            None => Self::new(url),
        };
        config.producer = read.text("LEDGERLINE_PRODUCER");
        read.set("LEDGERLINE_BUFFER_EVENTS", NUMBER, number, &mut config.buffer_events)?;
        let some_bytes = |text: &str| bytes(text).map(Some);
        read.set("LEDGERLINE_BUFFER_BYTES", BYTES, some_bytes, &mut config.buffer_bytes)?;
        read.set("LEDGERLINE_OVERFLOW", OVERFLOW, overflow, &mut config.overflow)?;
        let events_max = &mut config.batch_events_max;
        read.set("LEDGERLINE_BATCH_EVENTS_MAX", NUMBER, number, events_max)?;
        read.set("LEDGERLINE_BATCH_BYTES_MAX", BYTES, bytes, &mut config.batch_bytes_max)?;
        read.set("LEDGERLINE_FLUSH_INTERVAL", TIME, time, &mut config.flush_interval)?;
        let retries = |text: &str| if text == "none" { Some(None) } else { number(text).map(Some) };
        read.set("LEDGERLINE_RETRIES_MAX", RETRIES, retries, &mut config.retries_max)?;
        read.set("LEDGERLINE_RETRY_DELAY_MIN", TIME, time, &mut config.retry_delay_min)?;
        read.set("LEDGERLINE_RETRY_DELAY_MAX", TIME, time, &mut config.retry_delay_max)?;
        read.set("LEDGERLINE_CONNECTIONS_MAX", NUMBER, number, &mut config.connections_max)?;
        let depth_max = &mut config.pipeline_depth_max;
        read.set("LEDGERLINE_PIPELINE_DEPTH_MAX", NUMBER, number, depth_max)?;
        read.set("LEDGERLINE_CONNECT_TIMEOUT", TIME, time, &mut config.connect_timeout)?;
        read.set("LEDGERLINE_REQUEST_TIMEOUT", TIME, time, &mut config.request_timeout)?;
        read.set("LEDGERLINE_LANES", NUMBER, number, &mut config.lanes)?;
        Ok(config)
    }
}

/// The variable as this process has it.
fn of_process(name: &'static str) -> Option<String> {
    match env::var(name) {
        Ok(value) => Some(value),
        Err(VarError::NotPresent) => None,
        Err(VarError::NotUnicode(value)) => Some(value.to_string_lossy().into_owned()),
    }
}

struct Reader<F> {
    variable: F,
}

impl<F: Fn(&'static str) -> Option<String>> Reader<F> {
    fn text(&self, name: &'static str) -> Option<String> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    /// Puts the variable's value into `field`, if it is set.
    fn set<T>(
        &self,
        name: &'static str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
        field: &mut T,
    ) -> Result<(), EnvironmentError> {
        if let Some(given) = self.text(name) {
            *field =
                parse(given.trim()).ok_or(EnvironmentError::Malformed { name, given, expected })?;
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn overflow(text: &str) -> Option<Overflow> {
    match text {
        "reject" => Some(Overflow::Reject),
        "evict_oldest" => Some(Overflow::EvictOldest),
        _ => None,
    }
}

/// A number and a unit: B (or none), KiB, MiB, GiB.
fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text);
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A number, with decimals if need be, and a unit: ms, s, m.
fn time(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

const NUMBER: &str = "a number";
const RETRIES: &str = "a number or none";
const OVERFLOW: &str = "reject or evict_oldest";
const BYTES: &str = "bytes as in 67108864 or 64MiB";
const TIME: &str = "a time as in 100ms, 1.5s or 2m";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Config, EnvironmentError> {
        Config::from_variables(None, |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn what_is_not_set_keeps_its_default() {
        let url = "http://localhost:8080";
        let config = read(&[("LEDGERLINE_URL", url), ("LEDGERLINE_LANES", "")]).unwrap();
        assert_eq!(config, Config::new(url));
    }

    #[test]
    fn every_variable_reaches_its_field() {
        let config = read(&[
            ("LEDGERLINE_URL", "http://localhost:8080"),
            ("LEDGERLINE_SERVICE", "kubernaut-agent"),
            ("LEDGERLINE_PRODUCER", "gateway-0"),
            ("LEDGERLINE_BUFFER_EVENTS", "1"),
            ("LEDGERLINE_BUFFER_BYTES", "16MiB"),
            ("LEDGERLINE_OVERFLOW", "evict_oldest"),
            ("LEDGERLINE_BATCH_EVENTS_MAX", "3"),
            ("LEDGERLINE_BATCH_BYTES_MAX", "500000"),
            ("LEDGERLINE_FLUSH_INTERVAL", "1.5s"),
            ("LEDGERLINE_RETRIES_MAX", "6"),
            ("LEDGERLINE_RETRY_DELAY_MIN", "7ms"),
            ("LEDGERLINE_RETRY_DELAY_MAX", "8 s"),
            ("LEDGERLINE_CONNECTIONS_MAX", "9"),
            ("LEDGERLINE_PIPELINE_DEPTH_MAX", "10"),
            ("LEDGERLINE_CONNECT_TIMEOUT", "11s"),
            ("LEDGERLINE_REQUEST_TIMEOUT", "2m"),
            ("LEDGERLINE_LANES", "13"),
        ])
        .unwrap();
        let mut expected = Config::new("http://localhost:8080");
        expected.producer = Some("gateway-0".into());
        expected.buffer_events = 1;
        expected.buffer_bytes = Some(16 << 20);
        expected.overflow = Overflow::EvictOldest;
        expected.batch_events_max = 3;
        expected.batch_bytes_max = 500_000;
        expected.flush_interval = Duration::from_millis(1_500);
        expected.retries_max = Some(6);
        expected.retry_delay_min = Duration::from_millis(7);
        expected.retry_delay_max = Duration::from_secs(8);
        expected.connections_max = 9;
        expected.pipeline_depth_max = 10;
        expected.connect_timeout = Duration::from_secs(11);
        expected.request_timeout = Duration::from_secs(120);
        expected.lanes = 13;
        assert_eq!(config, expected);
    }

    #[test]
    fn a_value_that_cannot_be_used_is_named() {
        for (name, given) in [
            ("LEDGERLINE_LANES", "-1"),
            ("LEDGERLINE_FLUSH_INTERVAL", "1"),
            ("LEDGERLINE_FLUSH_INTERVAL", "1e999s"),
            ("LEDGERLINE_BUFFER_BYTES", "64MB"),
            ("LEDGERLINE_BUFFER_BYTES", "99999999999999GiB"),
            ("LEDGERLINE_RETRIES_MAX", "many"),
            ("LEDGERLINE_OVERFLOW", "evict"),
        ] {
            let error = read(&[("LEDGERLINE_URL", "http://x"), (name, given)]).unwrap_err();
            let message = error.to_string();
            assert!(message.contains(name) && message.contains(given), "{message}");
        }
        assert_eq!(read(&[]), Err(EnvironmentError::NoUrl));
    }
}
