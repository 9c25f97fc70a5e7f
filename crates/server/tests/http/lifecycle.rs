//! Starting, being watched, stopping, and starting again on the same file.

use std::error::Error;
use std::io::BufReader;
use std::net::TcpListener;
use std::time::Duration;

use ledgerline_server::{MigrationError, Server, ShutdownError, StartError, StorageError};

use crate::client::{get, post_bytes, read_answer, send};
use crate::fixture::{BATCH, Fixture, config, event, id, ids};

const FOREVER: Duration = Duration::from_secs(60);

fn request(number: u64) -> Vec<u8> {
    let body = format!("[{}]", event(number));
    post_bytes(BATCH, "Content-Type: application/json\r\n", body.as_bytes())
}

/// A server that listens for operators on addresses of their own.
fn watched() -> Fixture {
    Fixture::with(|config| {
        config.health_listen = Some("127.0.0.1:0".parse().unwrap());
        config.metrics_listen = Some("127.0.0.1:0".parse().unwrap());
    })
}

#[test]
fn operators_have_their_own_addresses_or_share_the_api_s() {
    let fixture = watched();
    let server = &fixture.server;
    let healthy = get(server.health_addr(), "/healthz");
    assert_eq!(healthy.status, 200);
    assert_eq!(healthy.json()["status"], "healthy");
    assert_eq!(get(server.health_addr(), "/readyz").text(), "{\"status\":\"ready\"}");
    assert_eq!(get(server.addr(), "/readyz").status, 200);
    let metrics = get(server.metrics_addr(), "/metrics");
    assert_eq!(metrics.status, 200);
    assert!(metrics.text().ends_with("# EOF\n"));
    let line = "datastorage_http_requests_total{route=\"readyz\",status=\"200\"} 2";
    assert!(metrics.text().contains(line), "{}", metrics.text());
    for (addr, path) in [
        (server.addr(), "/healthz"),
        (server.addr(), "/metrics"),
        (server.health_addr(), "/metrics"),
        (server.health_addr(), BATCH),
        (server.metrics_addr(), "/readyz"),
    ] {
        get(addr, path).problem(404, "not-found");
    }

    let fixture = Fixture::new();
    assert_eq!(fixture.server.health_addr(), fixture.server.addr());
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(get(fixture.server.addr(), path).status, 200);
    }
}

#[test]
fn a_header_beyond_the_limit_is_refused() {
    let fixture = Fixture::new();
    let head = format!("GET /readyz?{} HTTP/1.1\r\nHost: test\r\n\r\n", "x".repeat(20_000));
    // The connection is closed on what wasn't read, which may take the answer along.
    let answer = read_answer(&mut BufReader::new(send(fixture.server.addr(), head.as_bytes())));
    assert!(answer.is_none_or(|answer| answer.status == 431));
    assert_eq!(get(fixture.server.addr(), "/readyz").status, 200);
}

#[test]
fn rows_are_kept_over_a_restart() {
    let fixture = Fixture::new();
    let kept = [event(0), event(1)];
    fixture.store(&kept);
    let Fixture { server, directory } = fixture;
    server.shutdown(FOREVER).unwrap();
    let server = Server::start(config(&directory)).unwrap();
    let fixture = Fixture { server, directory };
    assert_eq!(fixture.rows(), 2);
    // They are known as repeats, too.
    fixture.store(&kept);
    assert_eq!(fixture.rows(), 2);
}

#[test]
fn a_dropped_server_has_stopped() {
    let Fixture { server, directory } = Fixture::new();
    let addr = server.addr();
    drop(server);
    TcpListener::bind(addr).unwrap();
    drop(directory);
}

#[test]
fn a_schema_from_a_newer_version_is_refused() {
    let Fixture { server, directory } = Fixture::new();
    server.shutdown(FOREVER).unwrap();
    let database = rusqlite::Connection::open(directory.path().join("events.db")).unwrap();
    database
        .execute("INSERT INTO schema_migrations VALUES (2, '002_next.sql', 'x', 'later')", [])
        .unwrap();
    drop(database);
    let error = Server::start(config(&directory)).unwrap_err();
    let StartError::Storage(storage) = error else { panic!("{error:?}") };
    let newer = MigrationError::Newer { found: 2, known: 1 };
    assert_eq!(storage, StorageError::Migration(newer));
    assert_eq!(storage.to_string(), "the schema has version 2, this program knows up to 1");
}

#[test]
fn what_keeps_a_server_from_starting_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let mut given = config(&directory);
    given.connections_max = 0;
    let error = Server::start(given).unwrap_err();
    assert_eq!(
        error.source().unwrap().to_string(),
        "connections_max is 0, allowed is 1 to 1048576"
    );

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut given = config(&directory);
    given.listen = taken.local_addr().unwrap();
    let error = Server::start(given).unwrap_err();
    assert_eq!(error.to_string(), format!("can't listen on {}", taken.local_addr().unwrap()));

    let missing = directory.path().join("nowhere");
    let mut given = config(&directory);
    given.storage = ledgerline_server::Storage::Sqlite { path: missing.join("events.db") };
    let error = Server::start(given).unwrap_err();
    let source = error.source().unwrap().to_string();
    assert!(source.contains("nowhere/events.db"), "{source}");

    std::fs::write(directory.path().join("events.db"), "x".repeat(10_000)).unwrap();
    let error = Server::start(config(&directory)).unwrap_err();
    let source = error.source().unwrap().to_string();
    assert!(source.contains("events.db"), "{source}");
}

#[test]
fn shutdown_says_so_at_once_finishes_what_runs_and_refuses_what_comes() {
    let fixture = watched();
    let held = fixture.hold_writer();
    let addr = fixture.server.addr();
    let health_addr = fixture.server.health_addr();
    let running = send(addr, &request(0));
    // Behind the first, so that the second is still waiting when the server stops.
    let queued = send(addr, &request(1));
    fixture.wait_for_metric("datastorage_write_queue_requests", 2.);

    let Fixture { server, directory } = fixture;
    let stopping = std::thread::spawn(move || server.shutdown(FOREVER));
    let not_ready = loop {
        let answer = get(health_addr, "/readyz");
        if answer.status != 200 {
            break answer;
        }
    };
    assert_eq!(not_ready.status, 503);
    assert_eq!(not_ready.text(), "{\"status\":\"not_ready\",\"reason\":\"shutting_down\"}");
    assert_eq!(get(health_addr, "/healthz").status, 200);
    let refused = read_answer(&mut BufReader::new(send(addr, &request(2)))).unwrap();
    refused.problem(503, "unavailable");
    assert_eq!(refused.header("connection"), Some("close"));

    held.execute_batch("COMMIT").unwrap();
    for stream in [running, queued] {
        let answer = read_answer(&mut BufReader::new(stream)).unwrap();
        assert_eq!(answer.status, 201);
        assert_eq!(answer.header("connection"), Some("close"));
    }
    stopping.join().unwrap().unwrap();
    TcpListener::bind(addr).unwrap();
    let server = Server::start(config(&directory)).unwrap();
    let fixture = Fixture { server, directory };
    let mut stored = ids(&fixture.query(""));
    stored.sort();
    assert_eq!(stored, [id(0), id(1)]);
}

#[test]
fn a_passed_deadline_is_told_and_what_was_handed_over_is_still_committed() {
    let fixture = Fixture::new();
    let held = fixture.hold_writer();
    let addr = fixture.server.addr();
    let first = send(addr, &request(0));
    let second = send(addr, &request(1));
    fixture.wait_for_metric("datastorage_write_queue_requests", 2.);
    let Fixture { server, directory } = fixture;
    let deadline = Duration::from_millis(10);
    let stopping = std::thread::spawn(move || server.shutdown(deadline));
    for stream in [first, second] {
        assert!(read_answer(&mut BufReader::new(stream)).is_none());
    }
    held.execute_batch("COMMIT").unwrap();
    let result = stopping.join().unwrap();
    assert_eq!(result, Err(ShutdownError::DeadlinePassed { deadline }));
    let server = Server::start(config(&directory)).unwrap();
    let fixture = Fixture { server, directory };
    assert_eq!(fixture.rows(), 2);
}
