//! What operators search the log for, and what must not be in it.
//!
//! In a process of its own: it takes the log for itself.

use std::time::{Duration, Instant};

use ledgerline::metrics::Metrics;
use ledgerline::testing::{Fault, MemoryStorage};
use ledgerline::{Json, Store};
use ledgerline_testkit::{Gate, Log, Reply, Scripted, StoredEvent, WAIT, config, event};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// The first line with these words, in which all of these fields are.
#[track_caller]
fn assert_line(log: &Log, words: &str, fields: &[&str]) {
    let text = log.text();
    let is_it = |line: &&str| line.contains(words);
    let line = text.lines().find(is_it).unwrap_or_else(|| panic!("no {words:?} in\n{text}"));
    for field in fields {
        assert!(line.contains(field), "no {field:?} in {line}");
    }
}

/// Takes two seconds: so long a write must last to count as slow.
#[test]
fn each_flush_and_each_write_leave_a_line_and_no_event_leaves_its_contents() {
    let (_alone, log) = Log::alone();
    let gate = Gate::new();
    let slow = Reply::Store.after(&gate);
    let server = Scripted::replying([Reply::status(503), Reply::Store, slow, Reply::Store]);
    let mut config = config(&server.url());
    config.batch_events_max = 3;
    config.connections_max = 1;
    let store = Store::start(config).unwrap();
    let data = Json(r#"{"event_type":"gateway.signal.received","password":"hunter2"}"#);
    let mut secret = event("rr-secret");
    secret.event_data = &data;

    store.record(&secret).unwrap();
    server.wait_for_requests(2, WAIT);
    store.record(&secret).unwrap();
    store.flush(Duration::from_millis(2_100)).unwrap_err();
    gate.open();
    store.flush(WAIT).unwrap();
    for _ in 0..3 {
        store.record(&secret).unwrap();
    }
    store.close(WAIT).unwrap();

    assert_line(
        &log,
        "audit writer started",
        &["url=", "flush_interval_ms=20", "batch_size=3", "buffer_size=8192"],
    );
    let flush = [
        "tick=",
        "elapsed_since_last_flush_ms=",
        "batch_size=1",
        "batch_size_before_flush=1",
        "buffer_utilization=",
        "expected_interval_ms=20",
        "actual_interval_ms=",
    ];
    assert_line(&log, "audit flush by timer", &flush);
    assert_line(&log, "audit flush by request", &flush);
    assert_line(&log, "audit flush by size", &["batch_size=3", "batch_size_before_flush=3"]);
    assert_line(&log, "audit batch not written", &["batch_size=1", "attempt=1", "status=503"]);
    assert_line(&log, "audit batch written", &["batch_size=1", "duration_ms=", "status=201"]);
    assert_line(&log, "slow audit batch write", &["WARN", "1 events in 2"]);
    assert_line(
        &log,
        "audit store closed",
        &["buffered_count=5", "written_count=5", "dropped_count=0", "failed_batch_count=1"],
    );
    for content in ["hunter2", "rr-secret", "gateway.signal"] {
        assert!(!log.text().contains(content), "{}", log.text());
    }
}

fn count(log: &Log, words: &str) -> usize {
    log.text().lines().filter(|line| line.contains(words)).count()
}

#[track_caller]
fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !condition() {
        assert!(Instant::now() < deadline, "it never comes");
        std::thread::yield_now();
    }
}

#[test]
fn a_flapping_storage_is_told_seldom_and_its_last_state_always() {
    const FLAPS: usize = 10;
    let (_alone, log) = Log::alone();
    let storage = MemoryStorage::new();
    let store = storage.start();
    for _ in 0..FLAPS {
        storage.fail(Fault::Unreachable);
        store.record(&event("rr-1")).unwrap();
        until(|| !store.health().is_available());
        storage.recover();
        until(|| store.health().is_available());
    }
    let changes = || -> usize {
        let text = log.text();
        let lines = text.lines().filter(|line| line.contains("audit storage "));
        let told = lines.filter_map(|line| {
            line.split_once("changes=")?.1.split(' ').next()?.parse::<usize>().ok()
        });
        told.sum()
    };
    until(|| changes() == 2 * FLAPS);
    let text = log.text();
    let last = text.lines().rfind(|line| line.contains("audit storage ")).expect("told");
    assert!(last.contains("available again"), "{text}");
    assert!(count(&log, "audit storage ") < FLAPS, "{text}");
    store.close(WAIT).unwrap();
}

#[test]
fn a_size_limit_is_no_failure_and_said_once() {
    let (_alone, log) = Log::alone();
    let server = Scripted::start(|request| match request.events.len() {
        0..=10 => Reply::Store,
        _ => Reply::problem(400, "batch-size-exceeded"),
    });
    let mut config = config(&server.url());
    config.batch_events_max = 40;
    let store = Store::start(config).unwrap();
    for _ in 0..2 {
        for _ in 0..200 {
            store.record(&event("rr-1")).unwrap();
        }
        store.flush(WAIT).unwrap();
        log.wait_for("DataStorage limits the size of audit batches", WAIT);
    }
    store.close(WAIT).unwrap();
    assert_eq!(count(&log, "audit requests failed"), 0, "{}", log.text());
    assert_line(&log, "DataStorage limits the size of audit batches", &["INFO", "batch_size=10"]);
    assert_eq!(count(&log, "limits the size"), 1, "{}", log.text());
}

#[test]
fn queued_instead_of_stored_is_said_when_it_begins_and_when_it_ends() {
    let (_alone, log) = Log::alone();
    let queued = || Reply::Answer {
        status: 202,
        head: "content-type: application/json\r\n".to_owned(),
        body: "{}".to_owned(),
    };
    let server = Scripted::replying([Reply::Store, queued(), queued()]);
    let store = Store::start(config(&server.url())).unwrap();
    let record = |events| {
        for _ in 0..events {
            store.record(&event("rr-1")).unwrap();
        }
        store.flush(WAIT).unwrap();
    };
    record(1);
    assert!(!store.health().is_queueing && count(&log, "queue") == 0, "{}", log.text());
    record(3);
    record(4);
    until(|| store.health().is_queueing);
    assert_eq!(store.health().queued_by_server, 7);
    assert!(store.health().is_available(), "it takes them");
    assert_line(&log, "DataStorage queues audit events", &["WARN"]);
    record(1);
    log.wait_for("DataStorage has queued audit events", WAIT);
    assert_line(&log, "DataStorage has queued", &["queued=7", "still_queueing=false"]);
    until(|| !store.health().is_queueing);
    store.close(WAIT).unwrap();
    assert_eq!(count(&log, "DataStorage queues"), 1, "{}", log.text());
    assert_eq!(count(&log, "DataStorage has queued"), 1, "{}", log.text());
    assert!(!store.health().is_running);
}

#[test]
fn a_type_that_is_refused_is_named_everywhere() {
    let (_alone, log) = Log::alone();
    let server = Scripted::start(|request| {
        let is_bad = |event: &StoredEvent| event.correlation_id == "rr-bad";
        if request.events.iter().any(is_bad) {
            let head = "content-type: application/problem+json\r\n".to_owned();
            let body = r#"{"status":400,"detail":"no such shape"}"#.to_owned();
            Reply::Answer { status: 400, head, body }
        } else {
            Reply::Store
        }
    });
    let store = Store::start(config(&server.url())).unwrap();
    let mut bad = event("rr-bad");
    bad.event_type = "gateway.signal.unknown";
    for _ in 0..100 {
        store.record(&bad).unwrap();
    }
    until(|| {
        store.record(&event("rr-1")).unwrap(); // It is the type, not the server.
        let _ = store.flush(Duration::from_millis(20));
        count(&log, "audit events of a type are set apart") > 0
    });
    assert_line(
        &log,
        "audit events of a type are set apart",
        &["WARN", "gateway.signal.unknown", "status 400: no such shape"],
    );
    until(|| store.health().set_apart.iter().any(|apart| apart.events > 50));
    let health = store.health();
    assert_eq!(&*health.set_apart[0].event_type, "gateway.signal.unknown");
    let reason = health.set_apart[0].reason.as_deref().expect("the server gave one");
    assert_eq!(&*reason.detail, "no such shape");
    assert!(health.is_available(), "it stores the others");
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics::new(&store, "gateway")));
    let mut page = String::new();
    encode(&mut page, &registry).unwrap();
    let labels = r#"{service="gateway",event_type="gateway.signal.unknown"}"#;
    let gauge = format!("ledgerline_events_set_apart{labels}");
    assert!(page.contains(&gauge), "{page}");
    store.close(WAIT).unwrap_err();
    assert_eq!(count(&log, "are set apart"), 1, "{}", log.text());
}
