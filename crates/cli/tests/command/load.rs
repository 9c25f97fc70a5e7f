//! `ledgerline load`.

use std::io::{BufRead, BufReader, Read as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ledgerline_testkit::{Authority, Reply, Scripted};

use crate::binary::{command, report, report_of, run, signal, terminate, text};
use crate::serve::Service;

#[test]
fn the_null_sink_takes_everything() {
    let report = report(&["load", "--null-sink", "--events", "20000", "--json"], 0);
    assert_eq!(report["accounts"]["accepted"], 20_000);
    assert_eq!(report["accounts"]["delivered"], 20_000);
    assert_eq!(report["accounts"]["possibly_duplicated"], 0);
    assert_eq!(report.get("stored"), None);
}

#[test]
fn recording_does_not_allocate_while_there_is_room() {
    let report = report(&["load", "--null-sink", "--events", "20000", "--json"], 0);
    assert_eq!(report["accounts"]["refused"]["full"], 0);
    assert_eq!(report["allocations_per_record"], 0.0);
}

#[test]
fn a_producer_that_finds_no_room_tries_again_until_there_is() {
    let arguments =
        ["load", "--null-sink=100", "--events", "30000", "--buffer-bytes", "10MiB", "--json"];
    let report = report(&arguments, 0);
    assert!(report["accounts"]["refused"]["full"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(report["accounts"]["accepted"], 30_000);
    assert_eq!(report["accounts"]["delivered"], 30_000);
}

#[test]
fn a_rate_is_kept_on_an_absolute_schedule() {
    let arguments =
        ["load", "--null-sink", "--rate", "2000", "--duration", "500ms", "--producers", "2"];
    let arguments = [&arguments[..], &["--flush-interval", "20ms", "--json"]].concat();
    let began_at = Instant::now();
    let report = report(&arguments, 0);
    // Every event that falls due within the time, however late the threads wake.
    assert_eq!(report["accounts"]["accepted"], 1_000);
    // The report's own seconds begin with the first call, which on a busy machine comes late.
    assert!(began_at.elapsed() > Duration::from_millis(499));
}

#[test]
fn sigterm_ends_recording_and_delivers_what_was_accepted() {
    let mut command = command(&["load", "--null-sink", "--rate", "1000", "--duration", "1h"]);
    command.args(["--flush-interval", "20ms", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    wait_for_line(&mut stderr, "delivering: ");
    terminate(&child);
    let report = report_of(&child.wait_with_output().unwrap(), 0);
    assert_eq!(report["accounts"]["accepted"], report["accounts"]["delivered"]);
    assert!(report["accounts"]["accepted"].as_u64().unwrap() > 0);
}

#[test]
fn a_second_signal_ends_the_drain_and_says_what_was_lost() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let mut command = command(&["load", "--url", &url, "--rate", "1000", "--duration", "1h"]);
    command.args(["--flush-interval", "20ms", "--shutdown-timeout", "1h", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    // It connects when it has something to deliver.
    let _connection = silent.accept().unwrap();
    terminate(&child);
    wait_for_line(&mut stderr, "stopping");
    terminate(&child);
    let lines = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        text
    });
    let report = report_of(&child.wait_with_output().unwrap(), 3);
    let accounts = &report["accounts"];
    assert!(accounts["accepted"].as_u64().unwrap() > 0);
    assert_eq!(accounts["accepted"], accounts["dropped"]["closed"]);
    assert_eq!(accounts["pending"], 0);
    let lines = lines.join().unwrap();
    assert!(lines.contains("[AUDIT]"), "{lines}");
}

#[test]
fn too_few_file_descriptors_are_an_error() {
    let binary = env!("CARGO_BIN_EXE_ledgerline");
    let url = ["load", "--url", "http://127.0.0.1:1", "--events", "1"];
    for arguments in [&url[..], &["load", "--null-sink", "--events", "1"], &["serve"]] {
        for limit in 4..10 {
            let mut limited = Command::new("sh");
            limited.args(["-c", "ulimit -n $0 && exec \"$@\"", &limit.to_string(), binary]);
            let output = limited.args(arguments).output().unwrap();
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{limit} {arguments:?}: {stderr}");
            assert!(stderr.contains("Too many open files"), "{limit} {arguments:?}: {stderr}");
            assert!(!stderr.contains("panicked"), "{limit} {arguments:?}: {stderr}");
            let is_engine = arguments == url && limit == 7;
            let engine = "the engine's thread could not be started";
            assert!(!is_engine || stderr.contains(engine), "{stderr}");
        }
    }
}

#[test]
fn an_outage_and_its_end_are_said_at_the_default_level() {
    let server = Scripted::replying(vec![Reply::status(503); 6]);
    let mut command = command(&["load", "--url", &server.url(), "--rate", "100"]);
    command.args(["--duration", "1h", "--flush-interval", "5ms", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    wait_for_line(&mut stderr, "audit storage unavailable");
    wait_for_line(&mut stderr, "audit storage available again");
    terminate(&child);
    report_of(&child.wait_with_output().unwrap(), 0);
}

fn wait_for_line(stderr: &mut impl BufRead, wanted: &str) {
    let mut line = String::new();
    while !line.contains(wanted) {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended by itself");
    }
}

#[test]
fn what_was_accepted_and_not_delivered_is_status_3() {
    // Takes connections into its backlog and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let arguments =
        ["load", "--url", &url, "--events", "100", "--shutdown-timeout", "200ms", "--json"];
    let report = report_of(&run(&arguments), 3);
    assert_eq!(report["accounts"]["accepted"], 100);
    assert_eq!(report["accounts"]["dropped"]["closed"], 100);
}

/// Takes its five seconds: what is stopped for longer than timers, intervals and probes last must
/// go on as if nothing had been.
#[test]
fn a_process_that_is_stopped_for_five_seconds_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path());
    let url = format!("http://{}", service.api);
    let mut command = command(&["load", "--url", &url, "--rate", "2000", "--duration", "2s"]);
    command.args(["--flush-interval", "20ms", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    wait_for_line(&mut stderr, "delivering: ");
    signal(&child, "-STOP");
    std::thread::sleep(Duration::from_secs(5));
    signal(&child, "-CONT");
    let report = report_of(&child.wait_with_output().unwrap(), 0);
    assert_eq!(report["accounts"]["accepted"], 4_000, "on an absolute schedule");
    assert_eq!(report["accounts"]["delivered"], 4_000);
    assert!(report["delivery_ms"]["max"].as_u64().unwrap() < 7_000, "{report}");
}

/// Sleeps, because a process that is stopped gives no sign: for longer than the second at which
/// the engine wakes at the latest, whatever it was doing when it was stopped.
#[test]
fn an_engine_that_was_stopped_says_for_how_long() {
    let mut command = command(&["load", "--null-sink", "--rate", "20", "--duration", "1h"]);
    command.args(["--flush-interval", "20ms", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    wait_for_line(&mut stderr, "delivering: ");
    signal(&child, "-STOP");
    std::thread::sleep(Duration::from_millis(1_400));
    signal(&child, "-CONT");
    terminate(&child);
    let report = report_of(&child.wait_with_output().unwrap(), 0);
    let blocked = |cause| report["blocked_ms"][cause].as_u64().unwrap();
    // Which of them depends on whether it was asleep.
    assert!(blocked("timer_late") + blocked("driver_busy") >= 300, "{report}");
}

#[test]
fn an_event_that_finds_no_room_may_be_skipped_and_is_counted() {
    // Takes connections into its backlog and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let arguments = ["load", "--url", &url, "--rate", "50000", "--duration", "1s", "--on-full"];
    let more = ["skip", "--buffer-bytes", "5MiB", "--shutdown-timeout", "10ms", "--json"];
    let report = report_of(&run(&[&arguments[..], &more].concat()), 3);
    let accounts = &report["accounts"];
    let offered =
        accounts["accepted"].as_u64().unwrap() + accounts["refused"]["full"].as_u64().unwrap();
    assert_eq!(offered, 50_000, "{report}");
    assert!(report["refused_ns"]["p50"].as_u64().unwrap() > 0, "{report}");
    assert!(report["blocked_ms"]["pool_full"].as_u64().unwrap() > 0, "{report}");
}

#[test]
fn the_engines_settings_may_come_from_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("engine.toml");
    std::fs::write(&path, "batch_events_max = 7\nflush_interval = \"5ms\"\n").unwrap();
    let path = path.to_str().unwrap();
    let arguments = ["load", "--null-sink", "--events", "700", "--config", path, "--json"];
    let report = report(&arguments, 0);
    assert_eq!(report["accounts"]["delivered"], 700);
    assert_eq!(report["config"]["flush_interval_ms"], 5);
    assert!(report["batches"]["events_mean"].as_f64().unwrap() <= 7.0, "{report}");
}

#[test]
fn the_engines_settings_may_come_from_the_environment() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let (server, authority) = (Scripted::storing(), Authority::new());
    let front = authority.front(server.addr(), false);
    let mut load = command(&["load", "--events", "70", "--flush-interval", "5ms", "--json"]);
    load.env("LEDGERLINE_URL", front.url()).env("LEDGERLINE_CA_FILE", authority.ca_file());
    load.env("LEDGERLINE_TOKEN_FILE", token).env("LEDGERLINE_HEADERS", "x-tenant: payments");
    load.env("LEDGERLINE_BATCH_EVENTS_MAX", "7").env("LEDGERLINE_CONNECTIONS_MAX", "1");
    load.env("LEDGERLINE_FLUSH_INTERVAL", "9 s").env("LEDGERLINE_BUFFER_BYTES", "");
    let report = report_of(&load.output().unwrap(), 0);
    assert_eq!(report["config"]["url"], front.url());
    assert_eq!(report["config"]["flush_interval_ms"], 5, "the flag's");
    assert_eq!(report["config"]["connections"], 1);
    let requests = server.requests();
    assert_eq!(server.stored_count(), 70);
    for request in requests.iter() {
        assert_eq!(request.header("authorization"), Some("Bearer s3cret"));
        assert_eq!(request.header("x-tenant"), Some("payments"));
        assert!(request.event_count() <= 7);
    }
}

#[test]
fn the_null_sink_counts_more_than_a_url_in_the_environment() {
    let mut load = command(&["load", "--null-sink", "--events", "100", "--json"]);
    let output = load.env("LEDGERLINE_URL", "http://127.0.0.1:1").output().unwrap();
    assert_eq!(report_of(&output, 0)["accounts"]["delivered"], 100);
}

#[test]
fn the_gateway_scenario_has_its_rate_and_its_burst() {
    let arguments = ["load", "--null-sink", "--scenario", "gateway", "--duration", "1s", "--json"];
    let report = report(&arguments, 0);
    assert_eq!(report["accounts"]["accepted"], 3_000 + 25_000);
    assert_eq!(report["accounts"]["delivered"], 3_000 + 25_000);
    let config = &report["config"];
    assert_eq!(config["scenario"], "gateway");
    let given = ["producers", "rate", "burst_events"].map(|name| config[name].as_u64().unwrap());
    assert_eq!(given, [16, 3_000, 25_000]);
    assert!(report["burst_ns"]["p999"].as_u64().unwrap() > 0, "{report}");
    assert!(report["seconds"].as_f64().unwrap() > 0.4, "{report}");
}
