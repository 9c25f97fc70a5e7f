//! `ledgerline demo`.

use serde_json::{Value, json};

use crate::binary::{command, report, report_of, run, text};

#[test]
fn everything_recorded_is_found_once_in_the_storage() {
    let report = report(&["demo", "--events", "1000", "--producers", "3", "--json"], 0);
    assert_eq!(report["schema"], "ledgerline.report/1");
    let accounts = &report["accounts"];
    assert_eq!(accounts["accepted"], 1_000);
    assert_eq!(accounts["delivered"], 1_000);
    assert_eq!(accounts["pending"], 0);
    let stored = json!({"rows": 1_000, "distinct_event_ids": 1_000, "missing": 0, "duplicates": 0});
    assert_eq!(report["stored"], stored);
    assert_eq!(report["config"]["producers"], 3);
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
    assert!(report["record_ns"]["p50"].as_u64().unwrap() > 0);
    assert!(report["cpu_us_per_event"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_report_has_every_promised_key() {
    let report = report(&["demo", "--events", "10", "--json"], 0);
    let promised: Value = serde_json::from_str(PROMISED).unwrap();
    assert_has_keys_of(&report, &promised, "");
}

fn assert_has_keys_of(given: &Value, promised: &Value, path: &str) {
    let Value::Object(promised) = promised else {
        assert_eq!(given.is_number(), promised.is_number(), "{path}");
        return;
    };
    for (key, promised) in promised {
        let path = format!("{path}.{key}");
        let given = given.get(key).unwrap_or_else(|| panic!("{path} is missing"));
        assert_has_keys_of(given, promised, &path);
    }
}

#[test]
fn lines_of_a_file_become_event_data_in_a_database_that_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("events.ndjson");
    std::fs::write(&input, "{\"verb\": \"create\"}\n{\"verb\":\"delete\"}\n").unwrap();
    let keep = directory.path().join("kept");
    let (input, keep) = (input.to_str().unwrap(), keep.to_str().unwrap());
    let arguments = ["demo", "--events", "501", "--json", "--input", input, "--keep", keep];
    assert_eq!(report(&arguments, 0)["stored"]["rows"], 501);
    // A second run in the same database counts its own events only.
    assert_eq!(report(&arguments, 0)["stored"]["rows"], 501);
    assert!(std::path::Path::new(keep).join("events.db").exists());
}

#[test]
fn without_json_the_findings_are_for_people() {
    let output = run(&["demo", "--events", "1000"]);
    assert_eq!(output.status.code(), Some(0));
    let stdout = text(&output.stdout);
    assert!(stdout.contains("1,000 rows, 1,000 distinct event ids, 0 missing"), "{stdout}");
    assert!(!stdout.contains('{'), "{stdout}");
    let (_, drawn) = stdout.split_once("time in record, in ns").unwrap();
    assert_eq!(drawn.matches(&"#".repeat(40)).count(), 1, "{drawn}");
    assert!(drawn.lines().all(|line| line.len() <= 80), "{drawn}");
}

#[test]
fn the_engines_settings_may_come_from_the_environment() {
    let mut demo = command(&["demo", "--events", "70", "--json"]);
    demo.env("LEDGERLINE_BATCH_EVENTS_MAX", "7").env("LEDGERLINE_URL", "http://127.0.0.1:1");
    let report = report_of(&demo.output().unwrap(), 0);
    assert_eq!(report["config"]["batch_events_max"], 7);
    assert!(report["batches"]["events_mean"].as_f64().unwrap() <= 7.0, "{report}");
    let mut demo = command(&["demo", "--events", "70"]);
    let output = demo.env("LEDGERLINE_LANES", "many").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("LEDGERLINE_LANES is \"many\""), "{output:?}");
}

#[test]
fn with_json_no_times_are_drawn() {
    let output = run(&["demo", "--events", "10", "--json"]);
    assert!(!text(&output.stdout).contains('#'), "{output:?}");
}

#[test]
fn the_times_are_drawn_to_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("times.svg");
    std::fs::write(&file, "x".repeat(100_000)).unwrap();
    let plot = file.to_str().unwrap();
    report(&["demo", "--events", "1000", "--plot", plot, "--json"], 0);
    let drawn = std::fs::read_to_string(&file).unwrap();
    assert!(drawn.starts_with("<svg ") && drawn.ends_with("</svg>\n"), "{drawn}");
    assert!(drawn.contains(">1,000 calls: p50 "), "{drawn}");
}

const PROMISED: &str = r#"{"schema":"ledgerline.report/1",
 "accounts":{"accepted":0,"recovered":0,"delivered":0,"queued_by_server":0,"dead_lettered":0,
  "dropped":{"evicted":0,"gave_up":0,"closed":0,"expired":0},"pending":0,
  "refused":{"full":0,"closed":0,"invalid":0,"too_large":0,"forked":0,"failed":0},
  "possibly_duplicated":0,"possibly_stored":0,"redelivered":0},
 "stored":{"rows":0,"distinct_event_ids":0,"missing":0,"duplicates":0},
 "seconds":0.0,"events_per_second":0.0,
 "record_ns":{"p50":0,"p99":0,"p999":0,"max":0},
 "delivery_ms":{"p50":0,"p99":0,"p999":0,"max":0},
 "flush_lateness_ms":{"p50":0,"p99":0,"p999":0,"max":0},"blocked_ms":{},
 "batches":{"sent":0,"retried":0,"split":0,"events_mean":0.0},
 "cpu_us_per_event":0.0,
 "allocations_per_record":0.0,
 "machine":{"cores":0,"handoff_ns":0,"fdatasync_us":0},"config":{}}"#;
