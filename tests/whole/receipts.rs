//! What is said about one event is true: when it is asked, when it is waited for, and long after.

use std::future::Future as _;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use ledgerline::{Config, Settled, Stage, Standing, Store, WaitError};
use ledgerline_testkit::{Gate, Reply, Scripted, WAIT, assert_all_delivered, config, event};

const STORED: Standing =
    Standing::Settled { outcome: Settled::Delivered, is_possibly_stored: false };

/// A store that sends nothing by itself for as long as a test lasts.
fn patient(server: &Scripted) -> Store {
    let mut config = config(&server.url());
    config.flush_interval = Duration::from_secs(600);
    Store::start(config).expect("a valid configuration")
}

fn held_by(gate: &Gate, reply: Reply) -> Scripted {
    let gate = gate.clone();
    Scripted::start(move |_| reply.clone().after(&gate))
}

#[test]
fn an_event_is_stored_when_its_wait_says_so() {
    let server = Scripted::storing();
    let store = Store::start(config(&server.url())).unwrap();
    thread::scope(|scope| {
        for thread in 0..20 {
            let (store, server) = (&store, &server);
            scope.spawn(move || {
                for number in 0..10 {
                    let correlation_id = format!("rr-{thread}-{number}");
                    let receipt = store.record(&event(&correlation_id)).unwrap();
                    assert_eq!(store.wait(receipt, Stage::Stored, WAIT), Ok(STORED));
                    assert!(server.has_stored(&correlation_id), "{correlation_id}");
                }
            });
        }
    });
    assert_all_delivered(&store.close(WAIT).unwrap().report.accounts, 200);
}

#[test]
fn each_stage_is_told_apart_while_the_server_thinks() {
    let gate = Gate::new();
    let server = held_by(&gate, Reply::Store);
    let store = patient(&server);
    let receipt = store.record(&event("rr-1")).unwrap();
    assert_eq!(store.standing(receipt), Standing::Recorded);
    assert_eq!(store.wait(receipt, Stage::Accepted, Duration::ZERO), Ok(Standing::Recorded));
    let (stage, deadline) = (Stage::Sent, Duration::ZERO);
    assert_eq!(store.wait(receipt, stage, deadline), Err(WaitError::Deadline { stage, deadline }));
    let through = {
        let store = store.clone();
        thread::spawn(move || store.flush_through(receipt, WAIT))
    };
    assert_eq!(store.wait(receipt, Stage::Sent, WAIT), Ok(Standing::Sent));
    for stage in [Stage::Stored, Stage::Synced] {
        let late = Err(WaitError::Deadline { stage, deadline });
        assert_eq!(store.wait(receipt, stage, deadline), late, "the server has not answered");
    }
    gate.open();
    assert_eq!(through.join().unwrap(), Ok(STORED));
    for stage in [Stage::Accepted, Stage::Sent, Stage::Synced, Stage::Stored] {
        assert_eq!(store.wait(receipt, stage, Duration::ZERO), Ok(STORED));
    }
}

#[test]
fn flushing_through_an_event_waits_for_no_other() {
    let gate = Gate::new();
    let server = Scripted::start({
        let gate = gate.clone();
        move |request| match request.number {
            0 => Reply::Store.after(&gate),
            _ => Reply::Store,
        }
    });
    let store = patient(&server);
    let first = store.record(&event("rr-first")).unwrap();
    let flush = {
        let store = store.clone();
        thread::spawn(move || store.flush_through(first, WAIT))
    };
    store.wait(first, Stage::Sent, WAIT).unwrap();
    let second = store.record(&event("rr-second")).unwrap();
    assert_eq!(store.flush_through(second, WAIT), Ok(STORED));
    assert_eq!(store.standing(first), Standing::Sent, "the server still thinks about it");
    gate.open();
    assert_eq!(flush.join().unwrap(), Ok(STORED));
}

/// What a wait says of an event that the server never stores.
fn undelivered(reply: Reply, change: fn(&mut Config)) -> WaitError {
    let server = Scripted::start(move |_| reply.clone());
    let mut config = config(&server.url());
    change(&mut config);
    let store = Store::start(config).expect("a valid configuration");
    let receipt = store.record(&event("rr-1")).expect("there is room");
    let error = store.wait(receipt, Stage::Stored, WAIT).expect_err("it is never stored");
    store.close(WAIT).expect("the loss came before the close");
    assert_eq!(store.wait(receipt, Stage::Stored, WAIT), Err(error), "also after the close");
    error
}

#[test]
fn an_event_that_is_not_stored_is_said_to_be_what_it_is() {
    let is = |outcome, is_possibly_stored| WaitError::Undelivered { outcome, is_possibly_stored };
    let dead = undelivered(Reply::status(413), |_| {});
    assert_eq!(dead, is(Settled::DeadLettered, false));
    let unprocessed = undelivered(Reply::status(503), |config| config.retries_max = Some(1));
    assert_eq!(unprocessed, is(Settled::GaveUp, false));
    let ambiguous = undelivered(Reply::status(500), |config| config.retries_max = Some(1));
    assert_eq!(ambiguous, is(Settled::GaveUp, true));
    assert_eq!(ambiguous.to_string(), "given up, though a try may have stored it");
}

#[test]
fn an_event_that_a_close_leaves_behind_is_said_to_be_dropped() {
    let gate = Gate::new();
    let server = held_by(&gate, Reply::Store);
    let store = patient(&server);
    let sent = store.record(&event("rr-sent")).unwrap();
    let waiter = {
        let store = store.clone();
        thread::spawn(move || store.flush_through(sent, WAIT))
    };
    server.wait_for_requests(1, WAIT);
    let unsent = store.record(&event("rr-unsent")).unwrap();
    store.close(Duration::ZERO).unwrap_err();
    let is = |outcome, is_possibly_stored| WaitError::Undelivered { outcome, is_possibly_stored };
    assert_eq!(waiter.join().unwrap(), Err(is(Settled::Closed, true)));
    let unsent = store.wait(unsent, Stage::Stored, WAIT).unwrap_err();
    assert!(matches!(unsent, WaitError::Undelivered { outcome: Settled::Closed, .. }), "{unsent}");
}

#[test]
fn an_event_that_the_server_queued_is_not_said_to_be_stored() {
    let queue = Reply::Answer {
        status: 202,
        head: "content-type: application/json\r\n".into(),
        body: r#"{"status":"accepted"}"#.into(),
    };
    let server = Scripted::start(move |_| queue.clone());
    let store = Store::start(config(&server.url())).unwrap();
    let receipt = store.record(&event("rr-1")).unwrap();
    let queued = Standing::Settled { outcome: Settled::QueuedByServer, is_possibly_stored: false };
    assert_eq!(store.wait(receipt, Stage::Stored, WAIT), Ok(queued));
}

#[test]
fn receipts_outlive_the_memory_of_their_events() {
    const EVENTS: usize = 20_000;
    let server = Scripted::storing();
    let store = Store::start(config(&server.url())).unwrap();
    let receipts: Vec<_> =
        (0..EVENTS).map(|_| store.record_wait(&event("rr-1"), WAIT).unwrap()).collect();
    store.flush(WAIT).unwrap();
    assert!(receipts.iter().all(|receipt| store.standing(*receipt) == STORED));
}

#[test]
fn a_future_is_told_the_same_and_may_be_dropped() {
    let gate = Gate::new();
    let server = held_by(&gate, Reply::Store);
    let store = patient(&server);
    let receipt = store.record(&event("rr-1")).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    {
        let mut dropped = std::pin::pin!(store.wait_async(receipt, Stage::Stored));
        assert!(dropped.as_mut().poll(&mut context).is_pending());
    }
    let mut through = Box::pin(store.flush_through_async(receipt));
    assert!(through.as_mut().poll(&mut context).is_pending());
    server.wait_for_requests(1, WAIT);
    gate.open();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(through), Ok(STORED));
    assert_eq!(runtime.block_on(store.wait_async(receipt, Stage::Stored)), Ok(STORED));
}
