//! What operators see is true, and what they are told to look at exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ledgerline::metrics::Metrics;
use ledgerline::{Cause, Store};
use ledgerline_testkit::{Reply, ReservedPort, Scripted, WAIT, config, event};
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

fn scrape(store: &Store) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics::new(store, "gateway")));
    let mut page = String::new();
    text::encode(&mut page, &registry).expect("a String takes it");
    page
}

fn value(page: &str, metric: &str) -> f64 {
    let line =
        page.lines().find(|line| line.strip_prefix(metric).is_some_and(|it| it.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("no {metric} in {page}"));
    line.rsplit(' ').next().and_then(|text| text.parse().ok()).expect("a number")
}

#[test]
fn the_metrics_say_what_the_accounts_say() {
    let server = Scripted::replying([Reply::status(503)]);
    let store = Store::start(config(&server.url())).unwrap();
    for _ in 0..7 {
        store.record(&event("rr-1")).unwrap();
    }
    store.record(&event("")).unwrap_err();
    store.close(WAIT).unwrap();
    let page = scrape(&store);
    for (metric, expected) in [
        ("audit_events_buffered_total{service=\"gateway\"}", 7.0),
        ("audit_events_written_total{service=\"gateway\"}", 7.0),
        ("audit_events_dropped_total{service=\"gateway\"}", 0.0),
        ("audit_batches_failed_total{service=\"gateway\"}", 1.0),
        ("audit_buffer_size{service=\"gateway\"}", 0.0),
        ("audit_write_duration_seconds_count{service=\"gateway\"}", 2.0),
        ("ledgerline_events_refused_total{service=\"gateway\",reason=\"invalid\"}", 1.0),
        ("ledgerline_requests_total{service=\"gateway\"}", 2.0),
        ("ledgerline_requests_failed_total{service=\"gateway\",class=\"not_processed\"}", 1.0),
        ("ledgerline_requests_failed_total{service=\"gateway\",class=\"ambiguous\"}", 0.0),
        ("ledgerline_in_flight_bytes{service=\"gateway\"}", 0.0),
        ("ledgerline_pinned_seconds{service=\"gateway\"}", 0.0),
        ("ledgerline_engine_silent_seconds{service=\"gateway\"}", 0.0),
        ("ledgerline_storage_available{service=\"gateway\"}", 1.0),
        ("ledgerline_buffer_blocks{service=\"gateway\"}", 16.0),
    ] {
        assert_eq!(value(&page, metric), expected, "{metric} in {page}");
    }
    let below_infinity = "audit_write_duration_seconds_bucket{le=\"+Inf\",service=\"gateway\"}";
    assert_eq!(value(&page, below_infinity), 2.0, "{page}");
}

#[test]
fn an_outage_is_seen_while_it_lasts() {
    let port = ReservedPort::take();
    let store = Store::start(config(&port.url())).unwrap();
    store.record(&event("rr-1")).unwrap();
    let seen = |available: bool| {
        let deadline = std::time::Instant::now() + WAIT;
        while store.latest_report().is_none_or(|it| it.present.unavailable.is_none() != available) {
            assert!(std::time::Instant::now() < deadline, "{:?}", store.latest_report());
            std::thread::yield_now();
        }
    };
    seen(false);
    let cause = store.latest_report().and_then(|report| report.present.unavailable);
    assert_eq!(cause, Some(Cause::NoConnection));
    assert_eq!(value(&scrape(&store), "ledgerline_storage_available{service=\"gateway\"}"), 0.0);
    let _server = port.listen(|_| Reply::Store);
    seen(true);
    assert_eq!(value(&scrape(&store), "ledgerline_storage_available{service=\"gateway\"}"), 1.0);
}

#[test]
fn each_cause_of_an_outage_has_its_gauge() {
    let found = |status| match status {
        400 => Reply::problem(400, "validation-error"),
        status => Reply::status(status),
    };
    for (status, cause) in [
        (404, Cause::Misrouted),
        (401, Cause::Unauthorized),
        (400, Cause::Rejecting),
        (503, Cause::Overloaded),
    ] {
        let server = Scripted::start(move |_| found(status));
        let store = Store::start(config(&server.url())).unwrap();
        for _ in 0..100 {
            store.record(&event("rr-1")).unwrap();
        }
        let deadline = std::time::Instant::now() + WAIT;
        while store.health().unavailable != Some(cause) {
            assert!(std::time::Instant::now() < deadline, "{:?}", store.health());
            std::thread::yield_now();
        }
        let labels = format!("{{service=\"gateway\",cause=\"{}\"}}", cause.name());
        let gauge = format!("ledgerline_storage_unavailable{labels}");
        assert_eq!(value(&scrape(&store), &gauge), 1.0, "{cause}");
    }
}

/// Names that look like metrics of ours.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter: char| !is_part(letter));
    let is_ours = |word: &&str| word.starts_with("ledgerline_") || word.starts_with("audit_");
    words.filter(is_ours).map(str::to_owned).collect()
}

#[test]
fn every_alarm_and_panel_asks_for_metrics_that_exist_and_has_its_page() {
    let server = Scripted::storing();
    let store = Store::start(config(&server.url())).unwrap();
    store.close(WAIT).unwrap();
    let exported = names(&scrape(&store));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| fs::read_to_string(root.join(path)).expect("it is in the repository");
    let (rules, runbook) = (read("deploy/prometheus/rules.yaml"), read("docs/runbook.md"));
    for (path, text) in [
        ("deploy/prometheus/rules.yaml", &rules),
        ("deploy/grafana/ledgerline.json", &read("deploy/grafana/ledgerline.json")),
        ("docs/runbook.md", &runbook),
    ] {
        let asked = names(text);
        assert!(asked.len() > 3, "{path} asks for nothing");
        let unknown: Vec<_> = asked.difference(&exported).collect();
        assert!(unknown.is_empty(), "{path} asks for {unknown:?}");
    }
    let alarms: Vec<_> = rules.lines().filter_map(|line| line.split_once("alert: ")).collect();
    assert!(alarms.len() > 5);
    for (_, alarm) in alarms {
        assert!(runbook.contains(&format!("\n## {alarm}\n")), "{alarm} has no page");
        assert!(rules.contains(&format!("#{}", alarm.to_lowercase())), "{alarm} has no link");
    }
}
