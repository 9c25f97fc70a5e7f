//! What operators search the log for, and what must not be in it.
//!
//! In a process of its own: it takes the log for itself.

use std::time::Duration;

use ledgerline::{Json, Store};
use ledgerline_testkit::{Gate, Log, Reply, Scripted, WAIT, config, event};

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
    let log = Log::take();
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
