//! An event that can't be stored leaves a line, a copy and a report.
//!
//! In a process of its own: it takes the log and Sentry's hub for itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ledgerline::{Config, Loss, LossHook, Settled, Store};
use ledgerline_testkit::{Log, Reply, Scripted, WAIT, config, event};
use sentry_core::test::TestTransport;
use sentry_core::{Client, ClientOptions, Hub, Level};
use serde_json::Value;

/// The objects behind `[AUDIT]`.
fn audit_lines(log: &Log) -> Vec<Value> {
    let text = log.text();
    let objects = text.lines().filter_map(|line| line.split_once("[AUDIT] "));
    objects
        .map(|(_, json)| serde_json::from_str(json).expect("JSON to the end of the line"))
        .collect()
}

/// Loses so many events: the server fails, and nothing is tried twice.
fn lose(events: usize, change: impl FnOnce(&mut Config)) -> Store {
    let server = Scripted::start(|_| Reply::status(503));
    let mut config = config(&server.url());
    config.retries_max = Some(0);
    change(&mut config);
    let store = Store::start(config).expect("a valid configuration");
    for number in 0..events {
        let name = format!("rr-{number}");
        let mut event = event(&name);
        event.actor_id = Some("alice \"the\" admin");
        event.resource_type = Some("Order");
        store.record_wait(&event, WAIT).expect("there is room");
    }
    store.flush(WAIT).expect_err("they are lost");
    store
}

#[test]
fn each_lost_event_leaves_a_line_and_a_copy() {
    let (_alone, log) = Log::alone();
    let store = lose(3, |_| {});
    let lines = audit_lines(&log);
    assert_eq!(lines.len(), 3, "{lines:?}");
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(line["correlationId"], format!("rr-{number}"));
        assert_eq!((&line["action"], &line["error"]), (&"received".into(), &"given up".into()));
        assert_eq!(
            (&line["userId"], &line["entityType"]),
            (&"alice \"the\" admin".into(), &"Order".into())
        );
        assert!(line["timestamp"].as_str().is_some_and(|it| it.ends_with('Z')), "{line}");
    }
    let copies = store.lost_events();
    assert_eq!(copies.len(), 3);
    for (line, copy) in lines.iter().zip(copies) {
        let event: Value = serde_json::from_str(&copy.json).expect("a copy is the event's JSON");
        assert_eq!((&event["event_id"], copy.outcome), (&line["eventId"], Settled::GaveUp));
    }
}

#[test]
fn beyond_a_rate_lost_events_are_summed_up_and_none_is_passed_over() {
    const EVENTS: usize = 1_500;
    let (_alone, log) = Log::alone();
    let store = lose(EVENTS, |config| config.lost_events_max = 100);
    store.close(WAIT).unwrap();
    let deadline = std::time::Instant::now() + WAIT;
    loop {
        let lines = audit_lines(&log);
        let summed: u64 = lines.iter().filter_map(|line| line["events"].as_u64()).sum();
        let own = lines.iter().filter(|line| line.get("action").is_some()).count() as u64;
        if own + summed == EVENTS as u64 {
            assert!(own < EVENTS as u64 / 2, "{own} lines");
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{own} lines, {summed} summed up");
        std::thread::yield_now();
    }
    let copies = store.lost_events();
    assert_eq!(copies.len(), 100, "the last ones");
    assert!(copies[99].json.contains("rr-1499"));
}

#[test]
fn what_a_close_leaves_behind_is_told_too() {
    let (_alone, log) = Log::alone();
    let server = Scripted::start(|_| Reply::Hang);
    let mut config = config(&server.url());
    config.batch_events_max = 2;
    let store = Store::start(config).unwrap();
    for _ in 0..7 {
        store.record(&event("rr-1")).unwrap();
    }
    store.close(Duration::from_millis(50)).unwrap_err();
    assert_eq!(audit_lines(&log).len(), 7);
    assert_eq!(store.lost_events().len(), 7);
}

#[test]
fn the_hook_is_told_how_many_and_its_panic_harms_nothing() {
    let (_alone, _log) = Log::alone();
    let told = Arc::new(Mutex::new(Vec::<Loss>::new()));
    let hook = {
        let told = Arc::clone(&told);
        LossHook::new(move |loss| {
            told.lock().unwrap_or_else(PoisonError::into_inner).push(loss.clone());
            panic!("as a hook may");
        })
    };
    let store = lose(50, |config| config.on_loss = Some(hook));
    store.close(WAIT).unwrap();
    let told = told.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(told.iter().map(|loss| loss.events).sum::<u64>(), 50);
    assert!(told.len() <= 3 && told.iter().all(|loss| loss.outcome == Settled::GaveUp), "{told:?}");
}

#[test]
fn sentry_gets_a_warning() {
    let (_alone, _log) = Log::alone();
    let transport = TestTransport::new();
    let mut options = ClientOptions::default();
    options.dsn = "https://public@sentry.invalid/1".parse().ok();
    options.transport = Some(Arc::new(Arc::clone(&transport)));
    // Before the store's thread is made: its hub is made from this one.
    Hub::main().bind_client(Some(Arc::new(Client::from(options))));
    let store = lose(5, |config| config.on_loss = Some(LossHook::sentry()));
    store.close(WAIT).unwrap();
    Hub::main().bind_client(None);
    let events = transport.fetch_and_clear_events();
    assert!(!events.is_empty());
    assert!(events.iter().all(|event| event.level == Level::Warning), "{events:?}");
    let messages: Vec<_> = events.iter().filter_map(|event| event.message.clone()).collect();
    assert!(messages.iter().any(|it| it.contains("audit events lost")), "{messages:?}");
}

#[test]
fn the_dead_letters_before_the_fuse_blew_are_listed() {
    let (_alone, log) = Log::alone();
    let server = Scripted::start(|_| Reply::problem(422, "validation-error"));
    let store = Store::start(config(&server.url())).unwrap();
    for _ in 0..200 {
        store.record(&event("rr-1")).unwrap();
    }
    log.wait_for("dead letters that may be good", WAIT);
    let dead = store.lost_events();
    assert!(!dead.is_empty() && dead.len() < 20, "{}", dead.len());
    let text = log.text();
    let line = text.lines().find(|line| line.contains("dead letters that may be good"));
    let line = line.expect("waited for");
    assert!(dead.iter().all(|it| line.contains(&it.event_id)), "{line}");
    assert_eq!(store.resend_dead_letters(), dead.len());
    store.close(Duration::ZERO).unwrap_err();
}
