//! Audit events of Kubernetes API servers go through the engine and our DataStorage and come back
//! as they were, byte for byte.
//!
//! Ten events of our making are always there. Real ones are read from the file that the variable
//! `LEDGERLINE_KUBERNETES_EVENTS` names, or from beside the workspace, if it is there.

use std::path::{Path, PathBuf};

use ledgerline::{Json, Store};
use ledgerline_testkit::{WAIT, assert_all_delivered, config, event, serve};

/// Records each line as an event's data, and compares what a query finds.
#[track_caller]
fn assert_come_back(lines: &[&str]) {
    let server = serve();
    let store = Store::start(config(&server.url())).expect("the configuration is valid");
    for (number, line) in lines.iter().enumerate() {
        let (own, data) = (format!("rr-{number}"), Json(line));
        let mut event = event(&own);
        event.event_type = "apiserver.request.audited";
        event.event_data = &data;
        if let Err(refused) = store.record(&event) {
            panic!("line {number}: {refused}");
        }
    }
    let closed = store.close(WAIT).expect("the server stores them");
    assert_all_delivered(&closed.report.accounts, lines.len() as u64);
    assert_eq!(server.query(&[]).len(), lines.len());
    for (number, line) in lines.iter().enumerate() {
        let row = server.one(&format!("rr-{number}"));
        assert_eq!(row.raw("event_data"), Some(*line), "line {number}");
    }
}

#[test]
fn events_of_our_making_come_back_byte_for_byte() {
    let lines: Vec<_> = include_str!("../data/kubernetes-audit.ndjson").lines().collect();
    assert_eq!(lines.len(), 10);
    assert_come_back(&lines);
}

#[test]
fn real_events_come_back_byte_for_byte() {
    let path = std::env::var_os("LEDGERLINE_KUBERNETES_EVENTS").map(PathBuf::from);
    let beside =
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/kubernetes-audit.ndjson");
    let is_named = path.is_some();
    match std::fs::read_to_string(path.unwrap_or_else(beside)) {
        Ok(text) => assert_come_back(&text.lines().collect::<Vec<_>>()),
        Err(error) => assert!(!is_named, "LEDGERLINE_KUBERNETES_EVENTS: {error}"),
    }
}
