//! What the server's operators find in the log of refused events, and what must not be in it.
//!
//! In a process of its own: it takes the log for itself.

use ledgerline_testkit::{Log, raw_event as event, serve};
use serde_json::{Value, json};

/// The only line with all of these words.
#[track_caller]
fn the_line(log: &Log, words: &[&str]) -> String {
    let text = log.text();
    let all = text.lines().filter(|line| words.iter().all(|word| line.contains(word)));
    let lines: Vec<_> = all.collect();
    assert_eq!(lines.len(), 1, "lines with {words:?} in\n{text}");
    lines[0].to_owned()
}

#[test]
fn a_refusal_leaves_a_line_that_says_which_rule_was_broken_and_no_contents() {
    let log = Log::take();
    let server = serve();
    let post = |events: &[Value]| {
        server.post_batch(serde_json::to_string(events).expect("values are JSON").as_bytes()).0
    };
    let first = event(1, json!({"event_type": "secret.type", "correlation_id": "rr-secret"}));
    assert_eq!(post(std::slice::from_ref(&first)), 201);

    let long = "hunter2".repeat(9);
    for _ in 0..5 {
        assert_eq!(post(&[first.clone(), event(2, json!({ "severity": long }))]), 400);
    }
    assert_eq!(post(&[event(3, json!({"event_timestamp": "2020-01-01T00:00:00Z"}))]), 400);
    assert_eq!(post(&[event(4, json!({"actor_ip": "hunter2"}))]), 400);
    assert_eq!(post(&[event(1, json!({"event_data": {"password": "hunter3"}}))]), 409);
    assert_eq!(server.post_batch(b"[{hunter2").0, 400);
    assert_eq!(post(&vec![first; 501]), 400);

    let line = the_line(&log, &["WARN", "events refused", "reason=\"too_long\""]);
    for field in ["status=400", "index=1", "field=\"severity\"", "limit=20", "peer=127.0.0.1:"] {
        assert!(line.contains(field), "no {field} in {line}");
    }
    the_line(&log, &["events refused", "reason=\"too_old\"", "field=\"event_timestamp\""]);
    the_line(&log, &["events refused", "reason=\"not_an_address\"", "index=0"]);
    the_line(&log, &["events refused", "status=409", "event_id=01990000-0000-7000-8000-00000000"]);
    the_line(&log, &["events refused", "reason=\"not_json\""]);
    the_line(&log, &["events refused", "reason=\"too_many\"", "limit=500"]);
    // What had no line of its own is summed up at the latest when the server ends.
    drop(server);
    let line = the_line(&log, &["WARN", "more events refused", "reason=\"too_long\""]);
    assert!(line.contains("unlogged=4"), "{line}");
    for content in ["hunter", "secret"] {
        assert!(!log.text().contains(content), "{}", log.text());
    }
}
