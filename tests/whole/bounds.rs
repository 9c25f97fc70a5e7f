//! What is too much is refused with a typed error, counted, and harms nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ledgerline::{Config, Event, Field, FieldError, Json, Problem, Refused, StartError, Store};
use ledgerline_testkit::{
    Gate, Reply, Scripted, WAIT, assert_all_delivered, config, event, record_until_refused,
};
use serde::{Serialize, Serializer};

/// One lane and two blocks, the least there is.
fn least(url: &str) -> Config {
    let mut config = config(url);
    config.lanes = 1;
    config.buffer_bytes = Some(1 << 20);
    config
}

/// An event with this data.
fn with<'a>(data: &'a dyn ledgerline::EventData, correlation_id: &'a str) -> Event<'a> {
    let mut event = event(correlation_id);
    event.event_data = data;
    event
}

#[test]
fn a_full_buffer_refuses_and_takes_events_again_once_the_server_recovers() {
    let gate = Gate::new();
    let server = Scripted::start({
        let gate = gate.clone();
        move |_| Reply::Store.after(&gate)
    });
    let store = Store::start(least(&server.url())).unwrap();
    let text = format!(r#"{{"a":"{}"}}"#, "x".repeat(4_000));
    let data = Json(&text);
    let (accepted, refused) = record_until_refused(&store, &with(&data, "rr-too-much"));
    assert_eq!(refused, Refused::Full { buffer_bytes: 1 << 20 });
    assert_eq!(refused.to_string(), "refused: the buffer of 1048576 bytes is full");
    assert!(accepted >= 200, "a buffer of 1 MiB holds 200 events of 4 KiB, not {accepted}");
    let accounts = store.accounts();
    assert!(accounts.is_balanced());
    assert_eq!((accounts.accepted, accounts.pending), (accepted, accepted));
    assert_eq!((accounts.refused.full, accounts.refused.total()), (1, 1));

    gate.open();
    assert_all_delivered(&store.flush(WAIT).unwrap().accounts, accepted);
    store.record(&with(&data, "rr-again")).expect("there is room again");
    let closed = store.close(WAIT).unwrap();
    assert_all_delivered(&closed.report.accounts, accepted + 1);
    assert_eq!(closed.report.accounts.refused.full, 1);
    assert_eq!(server.stored_count() as u64, accepted + 1);
    assert_eq!(server.repeats(), 0);
}

#[test]
fn a_full_buffer_costs_callers_no_encoding() {
    let gate = Gate::new();
    let held = gate.clone();
    let server = Scripted::start(move |_| Reply::Store.after(&held));
    let store = Store::start(least(&server.url())).unwrap();
    let (accepted, _) = record_until_refused(&store, &event("rr-too-much"));
    let unseen = Unseen(AtomicUsize::new(0));
    for _ in 0..100 {
        let refused = store.record(&with(&unseen, "rr-unseen")).unwrap_err();
        assert_eq!(refused, Refused::Full { buffer_bytes: 1 << 20 });
    }
    assert_eq!(unseen.0.load(Ordering::Relaxed), 0);
    assert_eq!(store.accounts().refused.full, 101, "and each is counted");
    gate.open();
    store.flush(WAIT).unwrap();
    store.record(&with(&unseen, "rr-seen")).expect("there is room again");
    assert_eq!(unseen.0.load(Ordering::Relaxed), 1);
    assert_all_delivered(&store.close(WAIT).unwrap().report.accounts, accepted + 1);
}

/// Counts how often it is encoded.
struct Unseen(AtomicUsize);

impl Serialize for Unseen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.fetch_add(1, Ordering::Relaxed);
        serializer.serialize_some(&Kind { event_type: "gateway.signal.received" })
    }
}

#[derive(Serialize)]
struct Kind {
    event_type: &'static str,
}

#[test]
fn the_buffer_is_used_again_many_times_over() {
    let server = Scripted::storing();
    let store = Store::start(least(&server.url())).unwrap();
    let text = format!(r#"{{"a":"{}"}}"#, "x".repeat(100_000));
    let data = Json(&text);
    for round in 1..=16 {
        // A block holds five of these, so that one block is always left.
        for _ in 0..5 {
            store.record(&with(&data, "rr-1")).unwrap();
        }
        assert_all_delivered(&store.flush(WAIT).unwrap().accounts, round * 5);
    }
    assert_eq!(server.stored_count(), 80);
}

#[test]
fn a_full_buffer_empties_without_a_flush() {
    let server = Scripted::storing();
    let mut config = least(&server.url());
    config.flush_interval = Duration::from_secs(600);
    let store = Store::start(config).unwrap();
    let text = format!(r#"{{"a":"{}"}}"#, "x".repeat(100_000));
    let data = Json(&text);
    let deadline = Instant::now() + WAIT;
    let (mut accepted, mut refused) = (0, 0);
    while accepted < 100 {
        assert!(Instant::now() < deadline, "the buffer stays full: {:?}", store.accounts());
        match store.record(&with(&data, "rr-1")) {
            Ok(_) => accepted += 1,
            Err(_) => refused += 1,
        }
        std::thread::yield_now();
    }
    let accounts = store.close(WAIT).unwrap().report.accounts;
    assert_all_delivered(&accounts, accepted);
    assert_eq!(accounts.refused.full, refused);
}

#[test]
fn event_data_over_its_limit_is_refused_by_name_and_size() {
    const BYTES: usize = 300 << 10;
    let server = Scripted::storing();
    let store = Store::start(config(&server.url())).unwrap();
    let text = format!(r#"{{"a":"{}"}}"#, "x".repeat(BYTES - 8));
    let refused = store.record(&with(&Json(&text), "rr-big")).unwrap_err();
    let problem = Problem::TooLarge { bytes: BYTES, max: 262_144 };
    assert_eq!(refused, Refused::Invalid(FieldError { field: Field::EventData, problem }));
    let message = "refused: event_data has 307200 bytes, the limit is 262144";
    assert_eq!(refused.to_string(), message);
    store.record(&event("rr-small")).unwrap();
    let accounts = store.close(WAIT).unwrap().report.accounts;
    assert_all_delivered(&accounts, 1);
    assert_eq!((accounts.refused.invalid, accounts.refused.total()), (1, 1));
}

#[test]
fn an_event_whose_fields_are_too_long_together_is_refused() {
    let server = Scripted::storing();
    let store = Store::start(config(&server.url())).unwrap();
    // Each control character becomes six bytes.
    let message = "\u{1}".repeat(65_536);
    let text = format!(r#"{{"a":"{}"}}"#, "x".repeat(262_144 - 8));
    let data = Json(&text);
    let mut event = with(&data, "rr-big");
    store.record(&event).expect("the data alone fits");
    event.error_message = Some(&message);
    let refused = store.record(&event).unwrap_err();
    let Refused::TooLarge { bytes, max } = refused else { panic!("{refused}") };
    assert!(bytes > max && max == 384 << 10, "{bytes} bytes, the limit is {max}");
    let accounts = store.close(WAIT).unwrap().report.accounts;
    assert_all_delivered(&accounts, 1);
    assert_eq!((accounts.refused.too_large, accounts.refused.total()), (1, 1));
}

struct Panics;

impl Serialize for Panics {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("this value does not serialise");
    }
}

struct Fails;

impl Serialize for Fails {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("not today"))
    }
}

#[test]
fn a_serialize_that_panics_is_counted_and_harms_nothing() {
    let server = Scripted::storing();
    let store = Store::start(config(&server.url())).unwrap();
    for round in 1..=3 {
        let recorded = event("rr-good");
        let record = || store.record(&with(&Panics, "rr-panic"));
        catch_unwind(AssertUnwindSafe(record)).expect_err("the caller gets its own panic");
        assert_eq!(store.accounts().refused.invalid, round);
        store.record(&recorded).unwrap();
    }
    let accounts = store.close(WAIT).unwrap().report.accounts;
    assert_all_delivered(&accounts, 3);
    assert_eq!((accounts.refused.invalid, accounts.refused.total()), (3, 3));
    assert!(!server.has_stored("rr-panic"));
}

#[test]
fn a_serialize_that_fails_is_refused_with_its_reason() {
    let server = Scripted::storing();
    let store = Store::start(config(&server.url())).unwrap();
    let refused = store.record(&with(&Fails, "rr-1")).unwrap_err();
    assert!(refused.to_string().contains("not today"), "{refused}");
    assert_eq!(store.accounts().refused.invalid, 1);
}

/// Records an event of its own while it is serialised.
struct Records<'a>(&'a Store);

impl Serialize for Records<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.record(&event("rr-inner")).map_err(serde::ser::Error::custom)?;
        serializer.collect_map([("outer", true)])
    }
}

#[test]
fn a_serialize_may_record_an_event_of_its_own() {
    let server = Scripted::storing();
    let store = Store::start(config(&server.url())).unwrap();
    for _ in 0..2 {
        store.record(&with(&Records(&store), "rr-outer")).unwrap();
    }
    assert_all_delivered(&store.close(WAIT).unwrap().report.accounts, 4);
    let count = |correlation_id| {
        server.stored().iter().filter(|event| event.correlation_id == correlation_id).count()
    };
    assert_eq!((count("rr-inner"), count("rr-outer")), (2, 2));
    let texts: String = server.requests().iter().map(|request| request.text.clone()).collect();
    assert_eq!(texts.matches(r#""event_data":{"outer":true}}"#).count(), 2, "{texts}");
}

#[test]
fn a_configuration_outside_its_bounds_starts_nothing_and_names_the_field() {
    let mut config = config("http://127.0.0.1:1");
    config.lanes = 0;
    let Err(StartError::Config(error)) = Store::start(config) else { panic!("no lanes") };
    assert_eq!(error.to_string(), "lanes is 0, but must be at least 1 and at most 64");
}
