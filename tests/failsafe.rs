//! An event that can't be stored leaves a line, a copy and a report.
//!
//! In a process of its own: it takes the log and Sentry's hub for itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ledgerline::{Cause, Config, LossHook, Settled, Store};
use ledgerline_testkit::{Gate, Log, Reply, Request, Scripted, WAIT, config, event};
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
    let deadline = Instant::now() + WAIT;
    loop {
        let lines = audit_lines(&log);
        let summed: u64 = lines.iter().filter_map(|line| line["events"].as_u64()).sum();
        let own = lines.iter().filter(|line| line.get("action").is_some()).count() as u64;
        if own + summed == EVENTS as u64 {
            assert!(own < EVENTS as u64 / 2, "{own} lines");
            break;
        }
        assert!(Instant::now() < deadline, "{own} lines, {summed} summed up");
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

/// Its destructor panics, when a panic with it is dropped.
struct Spiteful;

impl Drop for Spiteful {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("as a destructor may");
        }
    }
}

#[test]
fn the_hook_is_lent_each_event_and_its_panic_harms_nothing() {
    const EVENTS: usize = 50;
    let (_alone, _log) = Log::alone();
    let spilled = Arc::new(Mutex::new(Vec::<String>::new()));
    let hook = {
        let spilled = Arc::clone(&spilled);
        LossHook::new(move |loss| {
            assert_eq!(loss.outcome, Settled::GaveUp);
            assert_eq!(loss.json().count() as u64, loss.events);
            let mut spilled = spilled.lock().unwrap_or_else(PoisonError::into_inner);
            spilled.extend(loss.json().map(str::to_owned));
            drop(spilled);
            std::panic::panic_any(Spiteful);
        })
    };
    let store = lose(EVENTS, |config| {
        config.on_loss = Some(hook);
        config.batch_events_max = 7;
    });
    store.close(WAIT).unwrap();
    let kept = store.lost_events().into_iter().map(|event| event.json).collect::<Vec<_>>();
    assert_eq!(*spilled.lock().unwrap(), kept);
    assert_eq!(kept.len(), EVENTS);
}

#[test]
fn what_a_close_leaves_behind_is_lent_to_the_hook() {
    let (_alone, _log) = Log::alone();
    let server = Scripted::start(|_| Reply::Hang);
    let mut config = config(&server.url());
    let spilled = Arc::new(Mutex::new(0));
    let count = Arc::clone(&spilled);
    config.on_loss = Some(LossHook::new(move |loss| {
        *count.lock().unwrap_or_else(PoisonError::into_inner) += loss.json().count();
    }));
    let store = Store::start(config).unwrap();
    for _ in 0..30 {
        store.record(&event("rr-1")).unwrap();
    }
    store.close(Duration::from_millis(50)).unwrap_err();
    assert_eq!(*spilled.lock().unwrap(), 30);
}

#[test]
fn a_hooks_time_is_driver_busy_however_short() {
    const TIME: Duration = Duration::from_millis(15); // Less than what is noticed otherwise.
    let (_alone, _log) = Log::alone();
    let hook = LossHook::new(|_| std::thread::sleep(TIME));
    let store = lose(1, |config| config.on_loss = Some(hook));
    for _ in 1..5 {
        store.record(&event("rr-1")).unwrap();
        store.flush(WAIT).unwrap_err();
    }
    let report = store.close(WAIT).unwrap().report;
    assert!(report.blocked_ms.of(Cause::DriverBusy) >= 75, "{:?}", report.blocked_ms);
}

#[test]
fn sentry_gets_a_warning_a_second_with_all_that_was_lost() {
    const EVENTS: usize = 20;
    let (_alone, _log) = Log::alone();
    let transport = TestTransport::new();
    let mut options = ClientOptions::default();
    options.dsn = "https://public@sentry.invalid/1".parse().ok();
    options.transport = Some(Arc::new(Arc::clone(&transport)));
    // Before the store's thread is made: its hub is made from this one.
    Hub::main().bind_client(Some(Arc::new(Client::from(options))));
    let begun = Instant::now();
    let store = lose(1, |config| config.on_loss = Some(LossHook::sentry()));
    for _ in 1..EVENTS {
        store.record(&event("rr-1")).unwrap();
        store.flush(WAIT).unwrap_err();
    }
    store.close(WAIT).unwrap();
    let seconds = begun.elapsed().as_secs() as usize;
    Hub::main().bind_client(None);
    let events = transport.fetch_and_clear_events();
    assert!(events.iter().all(|event| event.level == Level::Warning), "{events:?}");
    let messages: Vec<_> = events.iter().filter_map(|event| event.message.clone()).collect();
    let lost = messages.iter().filter_map(|it| it.split(' ').next()?.parse::<usize>().ok());
    assert_eq!(lost.sum::<usize>(), EVENTS, "{messages:?}");
    assert!(messages.iter().all(|it| it.contains("audit events lost")), "{messages:?}");
    assert!(messages.len() <= seconds + 2, "{messages:?}");
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

/// Refuses each event of that kind by itself, in words of its own; stores the others.
fn choosy(request: &Request) -> Reply {
    let bad = request.events.iter().position(|event| event.correlation_id == "rr-bad");
    let Some(index) = bad else { return Reply::Store };
    let detail = r#"event at \"place\":\n namespace is too long"#;
    let body = format!(
        r#"{{"type":"problems/validation-error","status":400,"detail":"{detail}",
            "reason":"too_long","field":"namespace","index":{index}}}"#
    );
    let head = "content-type: application/problem+json\r\n".to_owned();
    Reply::Answer { status: 400, head, body }
}

#[test]
fn a_dead_letter_has_its_reason_everywhere() {
    const DETAIL: &str = r#"event at "place":\n namespace is too long"#;
    let (_alone, log) = Log::alone();
    let server = Scripted::start(choosy);
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut config = config(&server.url());
    config.on_loss = Some(LossHook::new({
        let told = Arc::clone(&told);
        move |loss| {
            let reason = loss.reason.map(ToString::to_string);
            told.lock().unwrap_or_else(PoisonError::into_inner).push((loss.events, reason));
        }
    }));
    let store = Store::start(config).unwrap();
    for name in ["rr-1", "rr-bad", "rr-2"] {
        store.record(&event(name)).unwrap();
    }
    store.flush(WAIT).unwrap_err();

    let lost = store.lost_events();
    assert_eq!((lost.len(), lost[0].outcome), (1, Settled::DeadLettered));
    let reason = lost[0].reason.as_deref().expect("the server gave one");
    assert_eq!((reason.status, &*reason.detail, reason.index), (400, DETAIL, Some(0)));
    let (rule, field) = (reason.rule.as_deref(), reason.field.as_deref());
    assert_eq!((rule, field), (Some("too_long"), Some("namespace")));
    assert_eq!(*told.lock().unwrap(), [(1, Some(reason.to_string()))]);

    let lines = audit_lines(&log);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!((&lines[0]["status"], &lines[0]["index"]), (&400.into(), &0.into()));
    assert_eq!((&lines[0]["reason"], &lines[0]["field"]), (&DETAIL.into(), &"namespace".into()));
    log.wait_for("audit requests failed", WAIT);
    let text = log.text();
    let line = text.lines().find(|line| line.contains("audit requests failed")).unwrap();
    assert!(line.contains("status 400: event at") && line.contains("field namespace"), "{line}");
    let report = store.close(WAIT).unwrap().report;
    assert_eq!((report.dead_letters.invalid, report.accounts.dead_lettered), (1, 1));
}

#[test]
fn words_of_the_server_are_logged_whatever_the_status() {
    let (_alone, log) = Log::alone();
    let head = "content-type: application/problem+json\r\n".to_owned();
    let words = "x".repeat(1_000);
    let body = format!(r#"{{"status":403,"detail":"not in this\r\nnamespace {words}"}}"#);
    let denied = Reply::Answer { status: 403, head, body };
    let server = Scripted::replying([denied, Reply::Store]);
    let store = Store::start(config(&server.url())).unwrap();
    store.record(&event("rr-1")).unwrap();
    log.wait_for(r"status 403: not in this\r\nnamespace xxx", WAIT);
    let text = log.text();
    let line = text.lines().find(|line| line.contains("status 403: not")).unwrap();
    assert!(line.chars().filter(|letter| *letter == 'x').count() < 300, "{line}");
    store.close(WAIT).unwrap();
}

#[test]
fn what_a_close_drops_keeps_its_reason_and_its_doubt() {
    let (_alone, _log) = Log::alone();
    let gate = Gate::new();
    let head = "content-type: application/problem+json\r\n".to_owned();
    let body = r#"{"status":503,"detail":"the database is down"}"#.to_owned();
    let down = Reply::Answer { status: 503, head, body };
    let server = Scripted::start({
        let gate = gate.clone();
        move |request| if request.number == 0 { down.clone() } else { Reply::Hang.after(&gate) }
    });
    let doubts = Arc::new(Mutex::new(0));
    let mut config = config(&server.url());
    config.on_loss = Some(LossHook::new({
        let doubts = Arc::clone(&doubts);
        move |loss| {
            let mut doubts = doubts.lock().unwrap_or_else(PoisonError::into_inner);
            *doubts += if loss.is_possibly_stored { loss.events } else { 0 };
        }
    }));
    let store = Store::start(config).unwrap();
    store.record(&event("rr-1")).unwrap();
    server.wait_for_requests(2, WAIT);
    store.close(Duration::ZERO).unwrap_err();
    let lost = store.lost_events();
    let reason = lost[0].reason.as_deref().expect("the last answer");
    assert_eq!((lost[0].outcome, &*reason.detail), (Settled::Closed, "the database is down"));
    assert_eq!((store.accounts().possibly_stored, *doubts.lock().unwrap()), (1, 1));
    gate.open();
}
