//! Configuration from named settings: of the environment, or of a file that somebody else reads.
//!
//! Only when asked: the library reads no variable by itself.

use std::env::{self, VarError};
use std::time::Duration;

use super::{Config, Header, Overflow, Oversize};

/// A setting can't be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// Nothing says where DataStorage is.
    #[error("{name} is not set: it says where DataStorage is, as in http://127.0.0.1:8080")]
    NoUrl {
        /// The setting, or the variable.
        name: String,
    },
    /// The value isn't of the setting's form.
    #[error("{name} is {given:?}, expected {expected}")]
    Malformed {
        /// The setting, or the variable.
        name: String,
        /// Its value.
        given: String,
        /// The form that it should have.
        expected: &'static str,
    },
}

impl SettingError {
    /// Whether there is no URL.
    #[must_use]
    pub fn is_no_url(&self) -> bool {
        matches!(self, Self::NoUrl { .. })
    }

    /// The setting that can't be used.
    #[must_use]
    pub fn name(&self) -> &str {
        let (Self::NoUrl { name } | Self::Malformed { name, .. }) = self;
        name
    }

    /// The same, said of the variable that holds the setting.
    fn of_variable(mut self) -> Self {
        let (Self::NoUrl { name } | Self::Malformed { name, .. }) = &mut self;
        *name = variable(name);
        self
    }
}

impl Config {
    /// The names that [`from_settings`](Self::from_settings) asks for.
    pub const SETTINGS: [&str; 30] = [
        "url",
        "service",
        "producer",
        "buffer_events",
        "buffer_bytes",
        "overflow",
        "oversize",
        "event_age_max",
        "batch_events_max",
        "batch_bytes_max",
        "flush_interval",
        "retries_max",
        "give_up_after",
        "retry_delay_min",
        "retry_delay_max",
        "connections_max",
        "pipeline_depth_max",
        "in_flight_bytes_max",
        "set_apart_bytes_max",
        "connect_timeout",
        "request_timeout",
        "ca_file",
        "client_certificate_file",
        "client_key_file",
        "token_file",
        "headers",
        "lost_events_max",
        "lost_bytes_max",
        "drop_timeout",
        "lanes",
    ];

    /// A configuration from settings by the names of the fields; what is not set, or empty, keeps
    /// its default. [`from_env`](Self::from_env) has the table of their forms. The limits are
    /// checked by [`validate`](Self::validate).
    ///
    /// ```
    /// # use ledgerline::Config;
    /// let settings = [("url", "http://127.0.0.1:8080"), ("flush_interval", "100ms")];
    /// let config = Config::from_settings(|name| {
    ///     let found = settings.iter().find(|(known, _)| *known == name);
    ///     found.map(|(_, value)| (*value).to_owned())
    /// })?;
    /// assert_eq!(config.flush_interval.as_millis(), 100);
    /// # Ok::<(), ledgerline::SettingError>(())
    /// ```
    ///
    /// # Errors
    /// The first setting that can't be used, with its value.
    pub fn from_settings(
        setting: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, SettingError> {
        let read = Reader { setting };
        let no_url = || SettingError::NoUrl { name: "url".to_owned() };
        let url = read.text("url").ok_or_else(no_url)?;
        let mut config = match read.text("service") {
            Some(service) => Self::recommended(&service, url),
            None => Self::new(url),
        };
        config.producer = read.text("producer");
        read.set("buffer_events", NUMBER, number, &mut config.buffer_events)?;
        let some_bytes = |text: &str| bytes(text).map(Some);
        read.set("buffer_bytes", BYTES, some_bytes, &mut config.buffer_bytes)?;
        read.set("overflow", OVERFLOW, overflow, &mut config.overflow)?;
        read.set("oversize", OVERSIZE, oversize, &mut config.oversize)?;
        let age = |text: &str| if text == "none" { Some(None) } else { time(text).map(Some) };
        read.set("event_age_max", AGE, age, &mut config.event_age_max)?;
        read.set("batch_events_max", NUMBER, number, &mut config.batch_events_max)?;
        read.set("batch_bytes_max", BYTES, bytes, &mut config.batch_bytes_max)?;
        read.set("flush_interval", TIME, time, &mut config.flush_interval)?;
        let retries = |text: &str| if text == "none" { Some(None) } else { number(text).map(Some) };
        read.set("retries_max", RETRIES, retries, &mut config.retries_max)?;
        read.set("give_up_after", AGE, age, &mut config.give_up_after)?;
        read.set("retry_delay_min", TIME, time, &mut config.retry_delay_min)?;
        read.set("retry_delay_max", TIME, time, &mut config.retry_delay_max)?;
        read.set("connections_max", NUMBER, number, &mut config.connections_max)?;
        read.set("pipeline_depth_max", NUMBER, number, &mut config.pipeline_depth_max)?;
        read.set("in_flight_bytes_max", BYTES, bytes, &mut config.in_flight_bytes_max)?;
        read.set("set_apart_bytes_max", BYTES, some_bytes, &mut config.set_apart_bytes_max)?;
        read.set("connect_timeout", TIME, time, &mut config.connect_timeout)?;
        read.set("request_timeout", TIME, time, &mut config.request_timeout)?;
        let path = |text: &str| Some(Some(text.into()));
        read.set("ca_file", PATH, path, &mut config.ca_file)?;
        read.set("client_certificate_file", PATH, path, &mut config.client_certificate_file)?;
        read.set("client_key_file", PATH, path, &mut config.client_key_file)?;
        read.set("token_file", PATH, path, &mut config.token_file)?;
        config.headers = match read.text("headers") {
            Some(text) => headers(&text).ok_or_else(|| SettingError::Malformed {
                name: "headers".to_owned(),
                given: "(not shown)".to_owned(),
                expected: HEADERS,
            })?,
            None => Vec::new(),
        };
        read.set("lost_events_max", NUMBER, number, &mut config.lost_events_max)?;
        read.set("lost_bytes_max", BYTES, bytes, &mut config.lost_bytes_max)?;
        read.set("drop_timeout", TIME, time, &mut config.drop_timeout)?;
        read.set("lanes", NUMBER, number, &mut config.lanes)?;
        Ok(config)
    }

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
    /// | `LEDGERLINE_OVERSIZE` | `oversize` | `refuse` or `truncate` |
    /// | `LEDGERLINE_EVENT_AGE_MAX` | `event_age_max` | time; `none` for any |
    /// | `LEDGERLINE_BATCH_EVENTS_MAX` | `batch_events_max` | number |
    /// | `LEDGERLINE_BATCH_BYTES_MAX` | `batch_bytes_max` | bytes |
    /// | `LEDGERLINE_FLUSH_INTERVAL` | `flush_interval` | time: `100ms`, `1s`, `1.5s`, `2m` |
    /// | `LEDGERLINE_RETRIES_MAX` | `retries_max` | number; `none` for no limit |
    /// | `LEDGERLINE_GIVE_UP_AFTER` | `give_up_after` | time; `none` for never |
    /// | `LEDGERLINE_RETRY_DELAY_MIN` | `retry_delay_min` | time |
    /// | `LEDGERLINE_RETRY_DELAY_MAX` | `retry_delay_max` | time |
    /// | `LEDGERLINE_CONNECTIONS_MAX` | `connections_max` | number |
    /// | `LEDGERLINE_PIPELINE_DEPTH_MAX` | `pipeline_depth_max` | number |
    /// | `LEDGERLINE_IN_FLIGHT_BYTES_MAX` | `in_flight_bytes_max` | bytes |
    /// | `LEDGERLINE_SET_APART_BYTES_MAX` | `set_apart_bytes_max` | bytes |
    /// | `LEDGERLINE_CONNECT_TIMEOUT` | `connect_timeout` | time |
    /// | `LEDGERLINE_REQUEST_TIMEOUT` | `request_timeout` | time |
    /// | `LEDGERLINE_CA_FILE` | `ca_file`; where it is not set, `TLS_CA_FILE` counts | path |
    /// | `LEDGERLINE_CLIENT_CERTIFICATE_FILE` | `client_certificate_file` | path |
    /// | `LEDGERLINE_CLIENT_KEY_FILE` | `client_key_file` | path |
    /// | `LEDGERLINE_TOKEN_FILE` | `token_file` | path |
    /// | `LEDGERLINE_HEADERS` | `headers` | `name: value`, several with `;` between |
    /// | `LEDGERLINE_LOST_EVENTS_MAX` | `lost_events_max` | number |
    /// | `LEDGERLINE_LOST_BYTES_MAX` | `lost_bytes_max` | bytes |
    /// | `LEDGERLINE_DROP_TIMEOUT` | `drop_timeout` | time |
    /// | `LEDGERLINE_LANES` | `lanes` | number |
    ///
    /// # Errors
    /// The first variable that can't be used, with its value.
    pub fn from_env() -> Result<Self, SettingError> {
        Self::from_settings(Self::setting_in_env).map_err(SettingError::of_variable)
    }

    /// [`from_env`](Self::from_env) for the DataStorage at `url`, whatever `LEDGERLINE_URL` says.
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from_env_at(url: impl Into<String>) -> Result<Self, SettingError> {
        let url = url.into();
        let setting =
            |name| if name == "url" { Some(url.clone()) } else { Self::setting_in_env(name) };
        Self::from_settings(setting).map_err(SettingError::of_variable)
    }

    /// A setting as this process's environment has it: for callers of
    /// [`from_settings`](Self::from_settings) who read a file beside.
    #[must_use]
    pub fn setting_in_env(name: &str) -> Option<String> {
        let of = |variable: &str| match env::var(variable) {
            Ok(value) => Some(value),
            Err(VarError::NotPresent) => None,
            Err(VarError::NotUnicode(value)) => Some(value.to_string_lossy().into_owned()),
        };
        let found = of(&variable(name)).filter(|value| !value.is_empty());
        found.or_else(|| (name == "ca_file").then(|| of("TLS_CA_FILE")).flatten())
    }
}

fn variable(setting: &str) -> String {
    format!("LEDGERLINE_{}", setting.to_uppercase())
}

struct Reader<F> {
    setting: F,
}

impl<F: Fn(&'static str) -> Option<String>> Reader<F> {
    fn text(&self, name: &'static str) -> Option<String> {
        (self.setting)(name).filter(|value| !value.is_empty())
    }

    /// Puts the setting's value into `field`, if it is set.
    fn set<T>(
        &self,
        name: &'static str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
        field: &mut T,
    ) -> Result<(), SettingError> {
        if let Some(given) = self.text(name) {
            *field = parse(given.trim()).ok_or_else(|| {
                let name = name.to_owned();
                SettingError::Malformed { name, given, expected }
            })?;
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn headers(text: &str) -> Option<Vec<Header>> {
    text.split(';').map(Header::parse).collect()
}

fn overflow(text: &str) -> Option<Overflow> {
    match text {
        "reject" => Some(Overflow::Reject),
        "evict_oldest" => Some(Overflow::EvictOldest),
        _ => None,
    }
}

fn oversize(text: &str) -> Option<Oversize> {
    match text {
        "refuse" => Some(Oversize::Refuse),
        "truncate" => Some(Oversize::Truncate),
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
const PATH: &str = "a path";
const HEADERS: &str = "name: value, several with ; between, none that HTTP itself needs";
const OVERFLOW: &str = "reject or evict_oldest";
const OVERSIZE: &str = "refuse or truncate";
const BYTES: &str = "bytes as in 67108864 or 64MiB";
const AGE: &str = "a time as in 90s or 60m, or none";
const TIME: &str = "a time as in 100ms, 1.5s or 2m";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Config, SettingError> {
        let setting = |name| {
            let found = variables.iter().find(|(known, _)| *known == variable(name));
            found.map(|(_, value)| (*value).to_owned())
        };
        Config::from_settings(setting).map_err(SettingError::of_variable)
    }

    #[test]
    fn what_is_not_set_keeps_its_default() {
        let url = "http://localhost:8080";
        let config = read(&[("LEDGERLINE_URL", url), ("LEDGERLINE_LANES", "")]).unwrap();
        assert_eq!(config, Config::new(url));
    }

    #[test]
    fn every_variable_reaches_its_field() {
        let variables = [
            ("LEDGERLINE_URL", "http://localhost:8080"),
            ("LEDGERLINE_SERVICE", "kubernaut-agent"),
            ("LEDGERLINE_PRODUCER", "gateway-0"),
            ("LEDGERLINE_BUFFER_EVENTS", "1"),
            ("LEDGERLINE_BUFFER_BYTES", "16MiB"),
            ("LEDGERLINE_OVERFLOW", "evict_oldest"),
            ("LEDGERLINE_OVERSIZE", "truncate"),
            ("LEDGERLINE_EVENT_AGE_MAX", "60m"),
            ("LEDGERLINE_BATCH_EVENTS_MAX", "3"),
            ("LEDGERLINE_BATCH_BYTES_MAX", "500000"),
            ("LEDGERLINE_FLUSH_INTERVAL", "1.5s"),
            ("LEDGERLINE_RETRIES_MAX", "6"),
            ("LEDGERLINE_GIVE_UP_AFTER", "90m"),
            ("LEDGERLINE_RETRY_DELAY_MIN", "7ms"),
            ("LEDGERLINE_RETRY_DELAY_MAX", "8 s"),
            ("LEDGERLINE_CONNECTIONS_MAX", "9"),
            ("LEDGERLINE_PIPELINE_DEPTH_MAX", "10"),
            ("LEDGERLINE_IN_FLIGHT_BYTES_MAX", "16MiB"),
            ("LEDGERLINE_SET_APART_BYTES_MAX", "8MiB"),
            ("LEDGERLINE_CONNECT_TIMEOUT", "11s"),
            ("LEDGERLINE_REQUEST_TIMEOUT", "2m"),
            ("LEDGERLINE_CA_FILE", "ca.pem"),
            ("LEDGERLINE_CLIENT_CERTIFICATE_FILE", "client.pem"),
            ("LEDGERLINE_CLIENT_KEY_FILE", "key.pem"),
            ("LEDGERLINE_TOKEN_FILE", "token"),
            ("LEDGERLINE_HEADERS", "x-tenant: payments; x-more: 1"),
            ("LEDGERLINE_LOST_EVENTS_MAX", "14"),
            ("LEDGERLINE_LOST_BYTES_MAX", "15KiB"),
            ("LEDGERLINE_DROP_TIMEOUT", "250ms"),
            ("LEDGERLINE_LANES", "13"),
        ];
        let named = variables.map(|(name, _)| name.to_owned());
        assert_eq!(named, Config::SETTINGS.map(variable));
        let config = read(&variables).unwrap();
        let mut expected = Config::new("http://localhost:8080");
        expected.producer = Some("gateway-0".into());
        expected.buffer_events = 1;
        expected.buffer_bytes = Some(16 << 20);
        expected.overflow = Overflow::EvictOldest;
        expected.oversize = Oversize::Truncate;
        expected.event_age_max = Some(Duration::from_secs(3_600));
        expected.batch_events_max = 3;
        expected.batch_bytes_max = 500_000;
        expected.flush_interval = Duration::from_millis(1_500);
        expected.retries_max = Some(6);
        expected.give_up_after = Some(Duration::from_secs(5_400));
        expected.retry_delay_min = Duration::from_millis(7);
        expected.retry_delay_max = Duration::from_secs(8);
        expected.connections_max = 9;
        expected.pipeline_depth_max = 10;
        expected.in_flight_bytes_max = 16 << 20;
        expected.set_apart_bytes_max = Some(8 << 20);
        expected.connect_timeout = Duration::from_secs(11);
        expected.request_timeout = Duration::from_secs(120);
        expected.ca_file = Some("ca.pem".into());
        expected.client_certificate_file = Some("client.pem".into());
        expected.client_key_file = Some("key.pem".into());
        expected.token_file = Some("token".into());
        expected.headers =
            ["x-tenant: payments", "x-more: 1"].map(|it| Header::parse(it).unwrap()).into();
        expected.lost_events_max = 14;
        expected.lost_bytes_max = 15 << 10;
        expected.drop_timeout = Duration::from_millis(250);
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
            ("LEDGERLINE_OVERSIZE", "cut"),
        ] {
            let error = read(&[("LEDGERLINE_URL", "http://x"), (name, given)]).unwrap_err();
            let message = error.to_string();
            assert!(message.contains(name) && message.contains(given), "{message}");
        }
        assert!(read(&[]).is_err_and(|error| error.is_no_url()));
    }
}
