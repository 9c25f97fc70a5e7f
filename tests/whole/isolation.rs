//! One bad event costs its neighbours nothing, and a server that has gone wrong costs nobody
//! anything.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ledgerline::{Config, Event, Settled, Stage, Store, Timestamp, WaitError};
use ledgerline_testkit::{
    Reply, Request, Scripted, WAIT, assert_all_delivered, config, event, serve,
};

/// How many times as much as in the test suite: `LEDGERLINE_SCALE=50` for a thousand batches.
fn scale() -> usize {
    std::env::var("LEDGERLINE_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn is_poison(correlation_id: &str) -> bool {
    correlation_id.starts_with("poison-")
}

/// A problem for the first bad event of a request, with or without its place.
fn picky(request: &Request, is_named: bool) -> Reply {
    match request.events.iter().position(|event| is_poison(&event.correlation_id)) {
        Some(place) if is_named => Reply::problem_at(400, place),
        Some(_) => Reply::problem(422, "validation-error"),
        None => Reply::Store,
    }
}

#[test]
fn one_bad_event_in_each_batch_is_dead_lettered_and_its_neighbours_are_stored_once() {
    let (batches, events) = (20 * scale(), 500);
    for is_named in [true, false] {
        let server = Scripted::start(move |request| picky(request, is_named));
        let mut config = config(&server.url());
        config.batch_events_max = events;
        config.buffer_bytes = Some(64 << 20);
        let store = Store::start(config).unwrap();
        for batch in 0..batches {
            for number in 0..events {
                let is_bad = number == batch % events;
                let name = if is_bad { format!("poison-{batch}") } else { "rr-good".to_owned() };
                store.record_wait(&event(&name), WAIT).unwrap();
            }
        }
        store.flush(WAIT).unwrap_err(); // It tells of the dead letters.
        let accounts = store.accounts();
        assert!(accounts.is_balanced() && accounts.pending == 0, "{accounts:?}");
        assert_eq!(accounts.dead_lettered, batches as u64);
        let good = batches * (events - 1);
        assert_eq!((accounts.delivered, accounts.possibly_duplicated), (good as u64, 0));
        assert_eq!((server.stored_count(), server.repeats()), (good, 0));
        assert!(!server.stored().iter().any(|event| is_poison(&event.correlation_id)));
    }
}

#[test]
fn our_own_server_refuses_only_the_guilty() {
    let server = serve();
    let store = Store::start(config(&server.url())).unwrap();
    let mut receipts = Vec::new();
    for number in 0..300 {
        let name = format!("rr-{number}");
        let mut event: Event<'_> = event(&name);
        if number % 100 == 50 {
            event.event_timestamp = Timestamp::from_micros(0); // more than a week ago
        }
        receipts.push(store.record(&event).unwrap());
    }
    store.flush(WAIT).unwrap_err();
    for (number, receipt) in receipts.into_iter().enumerate() {
        let standing = store.wait(receipt, Stage::Stored, Duration::ZERO);
        if number % 100 == 50 {
            let (outcome, is_possibly_stored) = (Settled::DeadLettered, false);
            let dead = WaitError::Undelivered { outcome, is_possibly_stored };
            assert_eq!(standing, Err(dead), "{number}");
        } else {
            assert!(standing.is_ok(), "{number}: {standing:?}");
        }
    }
    assert_eq!(server.count(&[]), 297);
}

/// A server that answers like this until it relents; how it then stores everything is the test.
fn delivered_once_it_relents(reply: Reply, dead_max: u64) {
    let has_relented = Arc::new(AtomicBool::new(false));
    let server = Scripted::start({
        let has_relented = Arc::clone(&has_relented);
        move |_| if has_relented.load(Ordering::Relaxed) { Reply::Store } else { reply.clone() }
    });
    let mut config: Config = config(&server.url());
    config.batch_events_max = 50;
    let store = Store::start(config).expect("a valid configuration");
    for number in 0..1_000 {
        store.record(&event(&format!("rr-{number}"))).expect("there is room");
    }
    let _ = store.flush(Duration::from_millis(700));
    let dead = store.accounts().dead_lettered;
    assert!(dead <= dead_max, "{dead}");
    has_relented.store(true, Ordering::Relaxed);
    let accounts = match store.close(WAIT) {
        Ok(closed) => closed.report.accounts,
        Err(_) => store.accounts(),
    };
    assert_eq!(accounts.dead_lettered, dead, "none after the fuse");
    assert_eq!((accounts.delivered, accounts.pending), (1_000 - dead, 0), "{accounts:?}");
    let stored: HashSet<_> =
        server.stored().into_iter().map(|event| event.correlation_id).collect();
    assert_eq!(stored.len() as u64, 1_000 - dead);
    if dead == 0 {
        assert_all_delivered(&accounts, 1_000);
    }
}

#[test]
fn a_server_that_refuses_every_event_gets_them_all_when_it_relents() {
    delivered_once_it_relents(Reply::problem(400, "validation-error"), 19);
}

#[test]
fn a_proxy_that_finds_every_body_too_big_gets_them_all_when_it_relents() {
    delivered_once_it_relents(Reply::status(413), 19);
}

#[test]
fn answers_of_another_service_cost_no_event() {
    // Each is held for a second or two: all at once.
    std::thread::scope(|scope| {
        for status in [404, 403, 401, 405, 302, 200] {
            scope.spawn(move || delivered_once_it_relents(Reply::status(status), 0));
        }
    });
}

/// An id that the server has with other content: a repeat would never be stored.
#[test]
fn an_event_whose_id_is_taken_is_dead_lettered_alone() {
    let server = Scripted::start(|request| {
        let taken = request.events.iter().position(|event| is_poison(&event.correlation_id));
        match taken {
            Some(index) => Reply::Answer {
                status: 409,
                head: "content-type: application/problem+json\r\n".to_owned(),
                body: format!(
                    r#"{{"type":"https://x/problems/event-id-conflict","index":{index}}}"#
                ),
            },
            None => Reply::Store,
        }
    });
    let store = Store::start(config(&server.url())).unwrap();
    let bad = store.record(&event("poison-1")).unwrap();
    for _ in 0..9 {
        store.record(&event("rr-1")).unwrap();
    }
    store.flush(WAIT).unwrap_err();
    let accounts = store.accounts();
    assert_eq!((accounts.delivered, accounts.dead_lettered), (9, 1), "{accounts:?}");
    let error = store.wait(bad, Stage::Stored, WAIT).unwrap_err();
    assert!(matches!(error, WaitError::Undelivered { outcome: Settled::DeadLettered, .. }));
}
