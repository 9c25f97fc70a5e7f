//! Configuration: every bound of the engine, and the sum of the memory that they allow.

mod header;
mod recommended;
mod settings;

use std::path::PathBuf;
use std::time::Duration;

use ledgerline_core::{BLOCK_BYTES, Block, RECORD_BYTES_MAX};
use ledgerline_transport::{Endpoint, EndpointError};

use crate::delivery::Limits;
pub(crate) use crate::loss::LossHook;
use crate::trace::TraceIdHook;

pub use self::header::Header;
pub use self::settings::SettingError;

/// How an engine is to run. Start from [`Config::new`] and set the fields that should differ;
/// [`Store::start`](crate::Store::start) checks them all.
///
/// ```
/// use std::time::Duration;
///
/// let mut config = ledgerline::Config::new("http://127.0.0.1:8080");
/// config.flush_interval = Duration::from_millis(100);
/// config.buffer_events = 20_000;
/// assert!(config.memory()?.total_bytes() > 20_000 * 1024);
/// # Ok::<(), ledgerline::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Where DataStorage is: `http://host:port` or `https://host:port`, with a path in front of
    /// `/api/v1` if it has one. `https` needs the cargo feature `tls-aws-lc-rs` or `tls-ring`;
    /// without it [`ConfigError::Url`] says so.
    pub url: String,
    /// Name of this process in its events' `producer`, 1 to 64 characters. None: a random one,
    /// new at each start. The lane's number is appended, because each lane counts its own events.
    pub producer: Option<String>,
    /// How many events of 1 KiB must at least fit into the buffer: 1 to 16,777,216. Only sizes
    /// `buffer_bytes`, where that is not set. Default 10,000.
    pub buffer_events: u64,
    /// Bytes of encoded events that the engine holds at most, in blocks of 512 KiB, taken at
    /// start. None (default): 64 MiB, or what `buffer_events` takes if that is more. At least one
    /// block for each lane and one more, at most 16 GiB.
    pub buffer_bytes: Option<u64>,
    /// What happens to events that find the buffer full. Default [`Overflow::Reject`].
    pub overflow: Overflow,
    /// What happens to an event with something too long in it. Default [`Oversize::Refuse`].
    pub oversize: Oversize,
    /// How old an event may be by its own `event_timestamp`, when it is recorded: an older one is
    /// refused as [`Refused::TooOld`](crate::Refused::TooOld). None (default): any age, though
    /// DataStorage refuses what is older than 7 days when it arrives (and what is more than 60
    /// minutes ahead), and the event becomes a dead letter. 1 s to 366 days.
    pub event_age_max: Option<Duration>,
    /// Events in one request at most: 1 to 20,000. Default 1,000. The engine starts with 500 or
    /// this, whichever is less, because servers refuse what is above their own limit; after a
    /// minute it tries this, and again a minute after each refusal, or an hour where the server
    /// names its limit.
    pub batch_events_max: usize,
    /// Bytes in one request's body at most, 400,000 to 64 MiB. Default 4 MiB.
    pub batch_bytes_max: u64,
    /// How long an event waits for company: it is offered to a connection within this time.
    /// 1 ms to 10 min; default 1 s.
    pub flush_interval: Duration,
    /// Failed tries of a batch, after the first, until its events are dropped and counted as
    /// `gave_up`. None (default): never. A batch that is held has not failed: the server's answers
    /// are those of another service, or it refuses the token, the events or everything. Neither
    /// have the parts of one that was divided for an event that the server refuses.
    pub retries_max: Option<u32>,
    /// How long after its acceptance an event is dropped, and counted as `expired`, if it has not
    /// been delivered and isn't on its way; looked at once a second. 1 s to 366 days. None
    /// (default): never.
    pub give_up_after: Option<Duration>,
    /// Bounds of the pause before a batch is tried again: full jitter below a bound that doubles
    /// from the first to the second. Default 100 ms and 30 s. An endpoint that takes nothing is
    /// asked again after 5 s at most, with one batch for all, unless it asks for a longer pause.
    pub retry_delay_min: Duration,
    /// See [`retry_delay_min`](Self::retry_delay_min).
    pub retry_delay_max: Duration,
    /// Connections to the server at most, 1 to 64. Default 16. The engine finds out how many serve
    /// best: it begins with one, and opens the next only when all others wait for answers. Beside
    /// these there may be one that asks whether DataStorage is ready, and one for lost events that
    /// are sent once more.
    pub connections_max: usize,
    /// Requests on the way on one connection at most, 1 to 16. Default 2. Stays at 1 until the
    /// server has shown that it keeps our ids, so that a resend is harmless.
    pub pipeline_depth_max: usize,
    /// Bytes of events on the way at most, on all connections together: at least
    /// `batch_bytes_max`, at most 1 GiB. Default 32 MiB.
    pub in_flight_bytes_max: u64,
    /// How much of the buffer events may keep to themselves that are set apart, because DataStorage
    /// refuses those of their type. Beyond that the oldest of them become dead letters. At most
    /// `buffer_bytes`. None (default): a quarter of it.
    pub set_apart_bytes_max: Option<u64>,
    /// Time to resolve the host's name and to connect. Default 5 s.
    pub connect_timeout: Duration,
    /// Time between the first byte of a request and the last of its answer. Default 10 s.
    pub request_timeout: Duration,
    /// Certificates (PEM) of the authorities to trust for `https`. None (default): the system's.
    /// Looked at by each new connection, and read again when changed.
    pub ca_file: Option<PathBuf>,
    /// A client certificate (PEM, with those between it and its authority), if the server asks for
    /// one. Needs [`client_key_file`](Self::client_key_file).
    pub client_certificate_file: Option<PathBuf>,
    /// The key (PEM) of the client certificate.
    pub client_key_file: Option<PathBuf>,
    /// A file with a bearer token: sent with each request, read again when it has changed, every
    /// five minutes, and after a 401.
    pub token_file: Option<PathBuf>,
    /// Further headers of each request, at most 16.
    pub headers: Vec<Header>,
    /// Lost events, dropped or dead-lettered, of which a copy is kept: at most 100,000. Default
    /// 1,000. See [`Store::lost_events`](crate::Store::lost_events). Of these, the dropped ones are
    /// sent once more when DataStorage takes events again. Zero: none is kept, and none is sent.
    pub lost_events_max: usize,
    /// Bytes of these copies, at most 64 MiB. Default 4 MiB.
    pub lost_bytes_max: u64,
    /// Called when events were lost. None (default): the log tells.
    pub on_loss: Option<LossHook>,
    /// Gives an event without a correlation id the trace that the calling thread works for: the
    /// trace's id becomes the correlation id. None (default), or no trace: the event is refused.
    ///
    /// With `tracing-opentelemetry`, of whichever version the application has:
    ///
    /// ```ignore
    /// config.trace_id = Some(TraceIdHook::new(|| {
    ///     let context = tracing::Span::current().context();
    ///     TraceId::from_bytes(context.span().span_context().trace_id().to_bytes())
    /// }));
    /// ```
    pub trace_id: Option<TraceIdHook>,
    /// How long dropping the last handle of a store that was not closed waits for its events to be
    /// delivered. What is left then is dropped, counted as `closed`, and said in the log like any
    /// loss. Zero: nothing is waited for. At most 1 h; default 5 s. See
    /// [`Store`](crate::Store#leaving).
    pub drop_timeout: Duration,
    /// Entries for producers, 1 to 64. Threads share them. Default: two for each core, at most 16.
    pub lanes: usize,
}

/// Whose turn it is to be lost when the buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// The newest: `record` refuses, and the caller knows.
    #[default]
    Reject,
    /// The oldest: the engine keeps an eighth of the blocks free by dropping the oldest one whose
    /// events are not on their way, each counted as `dropped.evicted`. `record` still refuses if
    /// that isn't fast enough, or if everything that is held is on its way.
    EvictOldest,
}

/// What happens to an event with something too long in it: a text of more characters than its
/// field has, or data of more bytes or levels than are stored.
///
/// Where contents come from outside, refusing lets whoever makes them long keep their actions out
/// of the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Oversize {
    /// `record` refuses it, and the caller knows.
    #[default]
    Refuse,
    /// It is recorded with what fits, and counted
    /// ([`Store::truncated_events`](crate::Store::truncated_events)): a text is cut at a character
    /// and ends with an ellipsis (U+2026), as [`Field::fit`](crate::Field::fit) does it; data is
    /// replaced by an object whose `not_kept` says why. A text or data with a character that no
    /// database holds (U+0000) is treated alike. What is missing or malformed is still refused.
    Truncate,
}

/// A field of [`Config`] is outside its limits; nothing was started.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The URL can't be used.
    #[error("url {url:?}: {reason}")]
    Url {
        /// What was given; not shown if it has an `@`, before which a password may stand.
        url: String,
        /// What is wrong with it.
        reason: EndpointError,
    },
    /// A number is too small or too large.
    #[error("{field} is {given}, but must be at least {min} and at most {max}")]
    OutOfRange {
        /// The field's name.
        field: &'static str,
        /// What was given.
        given: u64,
        /// The least value.
        min: u64,
        /// The greatest value.
        max: u64,
    },
    /// A duration is too short or too long.
    #[error("{field} is {given:?}, but must be at least {min:?} and at most {max:?}")]
    DurationOutOfRange {
        /// The field's name.
        field: &'static str,
        /// What was given.
        given: Duration,
        /// The least value.
        min: Duration,
        /// The greatest value.
        max: Duration,
    },
    /// A client certificate without its key, or a key without its certificate.
    #[error("client_certificate_file and client_key_file go together, only {given} is set")]
    Identity {
        /// The one that is set.
        given: &'static str,
    },
    /// The producer's name is empty, too long, or has control characters.
    #[error("producer {given:?} must have 1 to 64 characters, none of them a control character")]
    Producer {
        /// What was given.
        given: String,
    },
}

/// What an engine's parts may hold, in bytes: the sum is its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// Blocks: the events, taken at start.
    pub block_count: u64,
    /// The blocks with their headers and indexes.
    pub blocks_bytes: u64,
    /// The driver's notes of taken records, at most.
    pub gather_bytes: u64,
    /// Read buffers and the largest answer, for each connection.
    pub connections_bytes: u64,
    /// Histograms.
    pub histograms_bytes: u64,
    /// Copies of lost events, and of those that are being sent once more.
    pub lost_bytes: u64,
}

impl Memory {
    /// All of it. Each producer thread holds a scratch beside: as long as the longest event that
    /// it has encoded, at most 1 MiB.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        let working = self.gather_bytes + self.connections_bytes + self.histograms_bytes;
        self.blocks_bytes + working + self.lost_bytes
    }
}

impl Config {
    /// The defaults, for the DataStorage at `url`.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            url: url.into(),
            producer: None,
            buffer_events: 10_000,
            buffer_bytes: None,
            overflow: Overflow::Reject,
            oversize: Oversize::Refuse,
            event_age_max: None,
            batch_events_max: 1_000,
            batch_bytes_max: 4 * MIB,
            flush_interval: Duration::from_secs(1),
            retries_max: None,
            give_up_after: None,
            retry_delay_min: Duration::from_millis(100),
            retry_delay_max: Duration::from_secs(30),
            connections_max: 16,
            pipeline_depth_max: 2,
            in_flight_bytes_max: 32 * MIB,
            set_apart_bytes_max: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(10),
            ca_file: None,
            client_certificate_file: None,
            client_key_file: None,
            token_file: None,
            headers: Vec::new(),
            lost_events_max: 1_000,
            lost_bytes_max: 4 * MIB,
            on_loss: None,
            trace_id: None,
            drop_timeout: Duration::from_secs(5),
            lanes: (2 * cores).min(16),
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first field that is outside its limits, with the limits.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.endpoint()?;
        if let Some(producer) = &self.producer {
            let length = producer.chars().count();
            if length == 0 || length > 64 || producer.chars().any(char::is_control) {
                return Err(ConfigError::Producer { given: producer.clone() });
            }
        }
        in_range("lost_events_max", self.lost_events_max as u64, 0, 100_000)?;
        in_range("lost_bytes_max", self.lost_bytes_max, 0, 64 * MIB)?;
        in_range("headers", self.headers.len() as u64, 0, 16)?;
        match (&self.client_certificate_file, &self.client_key_file) {
            (Some(_), None) => {
                return Err(ConfigError::Identity { given: "client_certificate_file" });
            }
            (None, Some(_)) => return Err(ConfigError::Identity { given: "client_key_file" }),
            _ => {}
        }
        in_range("lanes", self.lanes as u64, 1, 64)?;
        in_range("buffer_events", self.buffer_events, 1, 1 << 24)?;
        let buffer_min = (self.lanes as u64 + 1) * BLOCK_BYTES as u64;
        in_range("buffer_bytes", self.buffer_bytes(), buffer_min, 16 << 30)?;
        in_range("batch_events_max", self.batch_events_max as u64, 1, 20_000)?;
        in_range("batch_bytes_max", self.batch_bytes_max, BATCH_BYTES_LEAST, 64 * MIB)?;
        in_range("connections_max", self.connections_max as u64, 1, 64)?;
        in_range("pipeline_depth_max", self.pipeline_depth_max as u64, 1, 16)?;
        let in_flight_max = self.in_flight_bytes_max;
        in_range("in_flight_bytes_max", in_flight_max, self.batch_bytes_max, 1 << 30)?;
        in_range("set_apart_bytes_max", self.set_apart_bytes(), 0, self.buffer_bytes())?;
        let (tick, hour) = (Duration::from_millis(1), Duration::from_secs(3_600));
        lasts("flush_interval", self.flush_interval, tick, Duration::from_secs(600))?;
        let (second, year) = (Duration::from_secs(1), Duration::from_secs(366 * 86_400));
        if let Some(give_up_after) = self.give_up_after {
            lasts("give_up_after", give_up_after, second, year)?;
        }
        if let Some(age) = self.event_age_max {
            lasts("event_age_max", age, second, year)?;
        }
        lasts("retry_delay_min", self.retry_delay_min, tick, hour)?;
        lasts("retry_delay_max", self.retry_delay_max, self.retry_delay_min, hour)?;
        lasts("drop_timeout", self.drop_timeout, Duration::ZERO, hour)?;
        lasts("connect_timeout", self.connect_timeout, tick, hour)?;
        lasts("request_timeout", self.request_timeout, tick, hour)
    }

    /// The sum of what the engine's parts may hold.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn memory(&self) -> Result<Memory, ConfigError> {
        self.validate()?;
        let block_count = self.block_count() as u64;
        let records_max = self.buffer_bytes() / RECORD_BYTES_LEAST;
        Ok(Memory {
            block_count,
            blocks_bytes: block_count * size_of::<Block>() as u64,
            gather_bytes: records_max * size_of::<ledgerline_core::Record>() as u64,
            connections_bytes: (self.connections_max as u64 + SIDE_CONNECTIONS) * CONNECTION_BYTES,
            histograms_bytes: HISTOGRAMS_BYTES,
            lost_bytes: 2 * self.lost_bytes_max,
        })
    }

    pub(crate) fn endpoint(&self) -> Result<Endpoint, ConfigError> {
        Endpoint::parse(&self.url).map_err(|reason| {
            let has_secret = self.url.contains('@');
            let url = if has_secret { "(not shown)".to_owned() } else { self.url.clone() };
            ConfigError::Url { url, reason }
        })
    }

    #[cfg(feature = "__tls")]
    pub(crate) fn tls_files(&self) -> ledgerline_transport::TlsFiles {
        let identity = self.client_certificate_file.clone().zip(self.client_key_file.clone());
        ledgerline_transport::TlsFiles { ca: self.ca_file.clone(), identity }
    }

    pub(crate) fn buffer_bytes(&self) -> u64 {
        self.buffer_bytes.unwrap_or_else(|| {
            // A lane's open block may be nearly empty, and the end of each other block is unused.
            let blocks = self.buffer_events.div_ceil(EVENTS_PER_BLOCK) + self.lanes as u64;
            BUFFER_BYTES_DEFAULT.max(blocks * BLOCK_BYTES as u64)
        })
    }

    pub(crate) fn block_count(&self) -> usize {
        (self.buffer_bytes() / BLOCK_BYTES as u64) as usize
    }

    fn set_apart_bytes(&self) -> u64 {
        self.set_apart_bytes_max.unwrap_or_else(|| self.buffer_bytes() / 4)
    }

    /// Blocks in which events that are set apart may be all that is left.
    pub(crate) fn blocks_apart_max(&self) -> usize {
        (self.set_apart_bytes() / BLOCK_BYTES as u64) as usize
    }

    /// Blocks that eviction keeps free. Zero: nothing is evicted.
    pub(crate) fn reserve_blocks(&self) -> usize {
        match self.overflow {
            Overflow::Reject => 0,
            Overflow::EvictOldest => (self.block_count() / 8).max(1),
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            batch_events_max: self.batch_events_max,
            batch_bytes_max: self.batch_bytes_max,
            flush_interval_ms: self.flush_interval.as_millis() as u64,
            retries_max: self.retries_max,
            give_up_after_ms: self.give_up_after.map(|time| time.as_millis() as u64),
            retry_delay_min_ms: self.retry_delay_min.as_millis() as u64,
            retry_delay_max_ms: self.retry_delay_max.as_millis() as u64,
            request_timeout_ms: self.request_timeout.as_millis() as u64,
            connections_max: self.connections_max,
            pipeline_depth_max: self.pipeline_depth_max,
            in_flight_bytes_max: self.in_flight_bytes_max,
        }
    }
}

fn in_range(field: &'static str, given: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&given) {
        Ok(())
    } else {
        Err(ConfigError::OutOfRange { field, given, min, max })
    }
}

fn lasts(
    field: &'static str,
    given: Duration,
    min: Duration,
    max: Duration,
) -> Result<(), ConfigError> {
    if (min..=max).contains(&given) {
        Ok(())
    } else {
        Err(ConfigError::DurationOutOfRange { field, given, min, max })
    }
}

const MIB: u64 = 1 << 20;
const BUFFER_BYTES_DEFAULT: u64 = 64 * MIB;
/// Of 1 KiB, each with room for the end that is left when a larger one doesn't fit.
const EVENTS_PER_BLOCK: u64 = BLOCK_BYTES as u64 / 1_024 - 1;
/// A batch must be able to hold any single record.
const BATCH_BYTES_LEAST: u64 = 400_000;
const _: () = assert!(RECORD_BYTES_MAX < BATCH_BYTES_LEAST as usize);
/// An event's required fields, defaults and ids alone are longer than this.
const RECORD_BYTES_LEAST: u64 = 256;
/// One for readiness, one for lost events.
const SIDE_CONNECTIONS: u64 = 2;
/// A read buffer of 64 KiB, and an answer of up to 1 MiB being put together.
const CONNECTION_BYTES: u64 = (64 << 10) + MIB;
/// Three histograms of 64-bit counts up to an hour in milliseconds with two digits.
const HISTOGRAMS_BYTES: u64 = 96 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_sum_up() {
        let config = Config::new("http://localhost:8080");
        assert_eq!(config.validate(), Ok(()));
        let memory = config.memory().unwrap();
        assert_eq!(memory.block_count, 128);
        assert!(memory.blocks_bytes > 64 * MIB && memory.total_bytes() < 100 * MIB, "{memory:?}");
    }

    #[test]
    fn buffer_events_sizes_the_buffer_where_nothing_else_does() {
        let mut config = Config::new("http://localhost:8080");
        config.buffer_events = 100_000;
        assert!((100_000 * 1_024..101 << 20).contains(&config.buffer_bytes()));
        config.buffer_bytes = Some(8 * MIB);
        assert_eq!(config.buffer_bytes(), 8 * MIB);
    }

    #[cfg(not(feature = "__tls"))]
    #[test]
    fn https_needs_a_tls_feature() {
        let error = Config::new("https://localhost").validate().unwrap_err();
        assert!(matches!(error, ConfigError::Url { reason: EndpointError::NoTls, .. }));
        assert!(error.to_string().contains("tls-aws-lc-rs or tls-ring"), "{error}");
    }

    type Breakage = fn(&mut Config);

    #[test]
    fn an_invalid_field_is_named_with_its_limits() {
        let cases: [(Breakage, &str); 13] = [
            (|config| config.url = "ftp://x".into(), "url \"ftp://x\""),
            (|config| config.url = "http://me:secret@x".into(), "url \"(not shown)\""),
            (|config| config.buffer_events = 0, "buffer_events is 0"),
            (|config| config.buffer_bytes = Some(1), "buffer_bytes is 1"),
            (|config| config.batch_events_max = 0, "batch_events_max is 0"),
            (|config| config.flush_interval = Duration::ZERO, "flush_interval is 0ns"),
            (|config| config.retry_delay_max = Duration::from_millis(1), "retry_delay_max is 1ms"),
            (|config| config.in_flight_bytes_max = 1, "in_flight_bytes_max is 1"),
            (|config| config.set_apart_bytes_max = Some(1 << 40), "set_apart_bytes_max is"),
            (|config| config.give_up_after = Some(Duration::ZERO), "give_up_after is 0ns"),
            (|config| config.event_age_max = Some(Duration::ZERO), "event_age_max is 0ns"),
            (|config| config.lanes = 65, "lanes is 65, but must be at least 1 and at most 64"),
            (|config| config.producer = Some("a\nb".into()), "producer \"a\\nb\""),
        ];
        for (break_it, message) in cases {
            let mut config = Config::new("http://localhost:8080");
            break_it(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(message) && !error.contains("secret"), "{error}");
        }
    }
}
