//! What `flush`, `close` and dropping promise about events that were recorded before.

use std::time::Duration;

use ledgerline::{CloseError, FlushError, Refused, Store};
use ledgerline_testkit::{Gate, Reply, Scripted, WAIT, assert_all_delivered, config, event, serve};

/// An interval that no test lives to see: what is sent, is sent for another reason.
const NEVER: Duration = Duration::from_secs(600);

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn what_was_flushed_is_found_by_a_query_at_once() {
    let server = serve();
    let mut config = config(&server.url());
    config.flush_interval = NEVER;
    let store = Store::start(config).unwrap();
    for round in 1..=3 {
        for _ in 0..100 {
            store.record(&event("rr-flush")).unwrap();
        }
        let flushed = store.flush(WAIT).unwrap();
        assert_all_delivered(&flushed.accounts, round * 100);
        let rows = server.query(&[("correlation_id", "rr-flush")]);
        assert_eq!(rows.len() as u64, round * 100);
    }
}

#[test]
fn a_flush_of_nothing_is_no_request() {
    let server = Scripted::storing();
    let store = Store::start(config(&server.url())).unwrap();
    assert_all_delivered(&store.flush(WAIT).unwrap().accounts, 0);
    assert_all_delivered(&store.close(WAIT).unwrap().report.accounts, 0);
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_flush_waits_for_a_batch_that_is_being_retried() {
    let server = Scripted::replying([Reply::status(503), Reply::status(503)]);
    let mut config = config(&server.url());
    config.flush_interval = NEVER;
    let store = Store::start(config).unwrap();
    store.record(&event("rr-1")).unwrap();
    let flushed = store.flush(WAIT).unwrap();
    assert!(server.has_stored("rr-1"));
    assert_all_delivered(&flushed.accounts, 1);
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|request| request.text == requests[0].text), "resent as it was");
}

#[test]
fn a_flush_covers_a_batch_that_failed_before_it_began() {
    let server = Scripted::replying([Reply::status(503), Reply::status(503)]);
    let store = Store::start(config(&server.url())).unwrap();
    store.record(&event("rr-1")).unwrap();
    server.wait_for_requests(1, WAIT);
    store.flush(WAIT).unwrap();
    assert!(server.has_stored("rr-1"));
}

#[test]
fn a_flush_at_its_deadline_says_where_the_events_are_and_loses_none() {
    let gate = Gate::new();
    let server = Scripted::replying([Reply::Store.after(&gate)]);
    let store = Store::start(config(&server.url())).unwrap();
    store.record(&event("rr-1")).unwrap();
    server.wait_for_requests(1, WAIT);
    let Err(FlushError::Deadline(unsettled)) = store.flush(Duration::from_millis(30)) else {
        panic!("the server has not answered");
    };
    assert_eq!((unsettled.in_flight, unsettled.retrying, unsettled.unsent), (1, 0, 0));
    assert_eq!(unsettled.accounts.pending, 1);
    gate.open();
    assert_all_delivered(&store.flush(WAIT).unwrap().accounts, 1);
}

#[test]
fn close_leaves_nothing_behind() {
    let server = serve();
    let mut config = config(&server.url());
    config.flush_interval = NEVER;
    let store = Store::start(config).unwrap();
    for _ in 0..1_000 {
        store.record(&event("rr-close")).unwrap();
    }
    let closed = store.close(WAIT).unwrap();
    assert_all_delivered(&closed.report.accounts, 1_000);
    assert_all_delivered(&store.accounts(), 1_000);
    assert_eq!(server.count(&[("correlation_id", "rr-close")]), 1_000);
}

#[test]
fn close_against_a_hanging_server_says_how_much_it_left_and_where() {
    // Held for a second or more.
    let server = Scripted::replying([Reply::status(404), Reply::Hang]);
    let mut config = config(&server.url());
    config.flush_interval = NEVER;
    config.connections_max = 1;
    config.batch_events_max = 10;
    let store = Store::start(config).unwrap();
    for _ in 0..25 {
        store.record(&event("rr-1")).unwrap();
    }
    let Err(FlushError::Deadline(_)) = store.flush(Duration::from_millis(1)) else {
        panic!("the server stores nothing");
    };
    server.wait_for_requests(2, WAIT);
    let deadline = Duration::from_millis(100);
    let Err(CloseError::LeftBehind(left)) = store.close(deadline) else {
        panic!("the server has stored nothing");
    };
    assert_eq!((left.in_flight, left.retrying, left.unsent), (10, 10, 5));
    assert_eq!(left.deadline, deadline);
    let accounts = store.accounts();
    assert_eq!(left.accounts, accounts);
    assert!(accounts.is_balanced());
    assert_eq!((accounts.accepted, accounts.delivered, accounts.pending), (25, 0, 0));
    assert_eq!((accounts.dropped.closed, accounts.dropped.total()), (25, 25));
    assert_eq!(accounts.possibly_stored, 10, "what was in flight may have arrived");
}

#[test]
fn a_flush_that_waits_when_a_close_gives_up_is_told_so() {
    let server = Scripted::start(|_| Reply::Hang);
    let store = Store::start(config(&server.url())).unwrap();
    store.record(&event("rr-1")).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| store.flush(10 * WAIT));
        server.wait_for_requests(1, WAIT);
        store.close(Duration::from_millis(50)).unwrap_err();
        assert_eq!(waiting.join().unwrap(), Err(FlushError::Closed));
    });
}

#[test]
fn close_tries_once_more_what_was_to_wait_for_longer_than_it_does() {
    for refusal in ["retry-after: 300\r\n", ""] {
        let head = format!("content-type: text/plain\r\n{refusal}");
        let (status, body) = (503, String::new());
        let server = Scripted::replying([Reply::Answer { status, head, body }]);
        let mut config = config(&server.url());
        (config.retry_delay_min, config.retry_delay_max) = (HOUR, HOUR);
        let store = Store::start(config).unwrap();
        store.record(&event("rr-1")).unwrap();
        store.flush(Duration::from_millis(100)).unwrap_err();
        assert_all_delivered(&store.close(Duration::from_secs(2)).unwrap().report.accounts, 1);
        assert_eq!(server.requests().len(), 2);
    }
}

#[test]
fn after_close_every_call_says_that_the_store_is_closed() {
    let server = Scripted::storing();
    let store = Store::start(config(&server.url())).unwrap();
    let clone = store.clone();
    store.record(&event("rr-1")).unwrap();
    let closed = store.close(WAIT).unwrap();
    assert_eq!(store.close(Duration::ZERO), Ok(closed.clone()), "the same answer again");
    assert_eq!(clone.close(WAIT), Ok(closed.clone()), "from every clone");

    let refused = store.record(&event("rr-late")).unwrap_err();
    assert_eq!(refused, Refused::Closed);
    let accounts = store.accounts();
    assert_all_delivered(&accounts, 1);
    assert_eq!((accounts.refused.closed, accounts.refused.total()), (1, 1));

    assert_eq!(store.flush(WAIT), Err(FlushError::Closed));
    let report = store.report(WAIT).unwrap();
    assert_eq!(report.accounts, closed.report.accounts);
}

#[test]
fn a_failed_close_gives_the_same_answer_again() {
    let server = Scripted::start(|_| Reply::Hang);
    let store = Store::start(config(&server.url())).unwrap();
    store.record(&event("rr-1")).unwrap();
    let first = store.close(Duration::from_millis(20)).unwrap_err();
    assert!(matches!(first, CloseError::LeftBehind(_)), "{first:?}");
    assert_eq!(store.close(WAIT), Err(first));
}

#[test]
fn the_guard_closes_and_delivers() {
    let server = Scripted::storing();
    let mut config = config(&server.url());
    config.flush_interval = NEVER;
    let store = Store::start(config).unwrap();
    let guard = store.close_on_drop(WAIT);
    store.record(&event("rr-1")).unwrap();
    drop(guard);
    assert!(server.has_stored("rr-1"));
    assert_eq!(store.record(&event("rr-2")).unwrap_err(), Refused::Closed);
}

#[test]
fn a_store_that_is_dropped_without_close_still_delivers() {
    let server = Scripted::replying([Reply::status(503)]);
    let mut config = config(&server.url());
    config.flush_interval = NEVER;
    config.drop_timeout = WAIT;
    let store = Store::start(config).unwrap();
    let clone = store.clone();
    store.record(&event("rr-1")).unwrap();
    drop(store);
    clone.record(&event("rr-2")).unwrap();
    drop(clone);
    server.wait_for_stored(2, WAIT);
    assert_eq!(server.repeats(), 0);
}
