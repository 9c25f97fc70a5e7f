//! Events to record, and an engine's configuration for tests.

use std::time::Duration;

use ledgerline::{Accounts, Category, Config, Event, Json, Outcome, Refused, Store};

/// A small event of that correlation id.
#[must_use]
pub fn event(correlation_id: &str) -> Event<'_> {
    Event::new("gateway.signal.received", Category::Gateway, Outcome::Success)
        .with_correlation_id(correlation_id)
        .with_data(&Json(r#"{"event_type":"gateway.signal.received","number":1}"#))
}

/// An engine that is quick to send and to try again, and small: one lane for each of 4 threads and
/// 8 MiB, so that tests can start many. Dropped without a close, it waits for nothing. What it logs
/// is ignored, unless a [`Log`](crate::Log) was taken before.
#[must_use]
pub fn config(url: &str) -> Config {
    crate::log::ignore();
    let mut config = Config::new(url);
    config.flush_interval = Duration::from_millis(20);
    config.retry_delay_min = Duration::from_millis(2);
    config.retry_delay_max = Duration::from_millis(20);
    config.lanes = 4;
    config.buffer_bytes = Some(8 << 20);
    config.drop_timeout = Duration::ZERO;
    config
}

/// Records events with this data until one is refused; returns how many were accepted, and the
/// refusal.
///
/// # Panics
/// If 100,000 events are accepted.
#[track_caller]
pub fn record_until_refused(store: &Store, event: &Event<'_>) -> (u64, Refused) {
    for accepted in 0..100_000 {
        if let Err(refused) = store.record(event) {
            return (accepted, refused);
        }
    }
    panic!("nothing is ever refused: {:?}", store.accounts());
}

/// Asserts that exactly so many events were accepted, that all of them were delivered, and that
/// nothing else happened to any.
///
/// # Panics
/// If that isn't so.
#[track_caller]
pub fn assert_all_delivered(accounts: &Accounts, events: u64) {
    assert!(accounts.is_balanced(), "{accounts:?}");
    assert_eq!((accounts.accepted, accounts.delivered), (events, events), "{accounts:?}");
    let lost = accounts.dropped.total() + accounts.dead_lettered + accounts.pending;
    assert_eq!(lost, 0, "{accounts:?}");
}
