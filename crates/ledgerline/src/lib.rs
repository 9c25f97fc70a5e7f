//! Record audit events without waiting, and know where each one is.
//!
//! [`Store::record`] encodes an event into memory taken at start, and returns: on its common path
//! it makes no system call and takes no lock, and it doesn't allocate once its thread is warm. A
//! thread of the engine's own batches the events and ships them to DataStorage over HTTP/1.1,
//! retrying until they are stored. [`Store::accounts`] says, at any moment, what became of every
//! event.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use ledgerline::{Category, Config, Event, Json, Outcome, Store};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Store::start(Config::new("http://127.0.0.1:8080"))?;
//! let _guard = store.close_on_drop(Duration::from_secs(10));
//!
//! let data = Json(r#"{"event_type":"gateway.signal.received","signal_name":"PodCrashLooping"}"#);
//! let event = Event::new("gateway.signal.received", Category::Gateway, Outcome::Success)
//!     .with_correlation_id("rr-4be1c0a7d2f3")
//!     .with_namespace("payments")
//!     .with_data(&data);
//! store.record(&event)?;
//!
//! let flushed = store.flush(Duration::from_secs(5))?;
//! assert!(flushed.accounts.is_balanced());
//! # Ok(())
//! # }
//! ```
//!
//! # Threads and runtimes
//! A [`Store`] is a cheap clone, and every method may be called from any thread, inside a tokio
//! runtime of either flavour and outside of any: the engine has a thread and a runtime of its own,
//! and a second thread that watches the first. Methods that wait come in two kinds: `flush` and
//! `close` block their thread, `flush_async` and `close_async` are futures for any executor.
//!
//! # Features
//! None is on by default: the engine speaks plain HTTP, and nothing in it compiles C.
//! - `tls-aws-lc-rs`, `tls-ring`: `https`, with the cryptography of that name; with both,
//!   aws-lc-rs. Either needs a C compiler.
//! - `tower`: `tower::AuditLayer` records one event for each HTTP request.
//! - `metrics`: a collector for `prometheus-client`.
//! - `log`: the engine's lines go to `log` where no `tracing` subscriber is set.
//! - `sentry`: a hook that tells Sentry of lost events.
//! - `testing`: a store whose DataStorage is a memory, for a service's own tests.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod clock;
mod config;
mod delivery;
mod engine;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod identity;
mod loss;
#[cfg(feature = "metrics")]
pub mod metrics;
mod report;
mod signal;
mod sink;
mod stderr;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod thread;
#[cfg(feature = "tower")]
pub mod tower;
mod trace;
mod waiting;

pub use config::{Config, ConfigError, Header, Memory, Overflow, Oversize, SettingError};
pub use delivery::{BlockedMs, Cause, FailedTries, SetApart};
pub use error::{
    CloseError, FlushError, Lost, ReadyError, Refused, StartError, Unsettled, WaitError,
};
pub use health::Health;
pub use ledgerline_codec::{
    Category, DataError, EncodeError, Envelope, Event, EventData, Field, FieldError, Json, Outcome,
    OwnedEvent, Problem, Timestamp, Uuid,
};
pub use ledgerline_core::{
    Accounts, Dropped, Imbalance, Outcome as Settled, Receipt, Refused as RefusedCounts, Standing,
};
pub use loss::{DeadLetters, Loss, LossHook, LostEvent, ServerReason};
pub use report::{Batches, Closed, Flushed, Percentiles, Present, Report};
pub use store::{CloseOnDrop, Stage, Store};
pub use trace::{TraceId, TraceIdHook};

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
