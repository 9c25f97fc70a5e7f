//! What goes wrong on the way: everything accepted is stored once, and nobody else is held up.

use std::time::{Duration, Instant};

use ledgerline::{Accounts, FlushError, Json, Store};
use ledgerline_testkit::{
    End, Gate, Network, Proxy, Reply, ReservedPort, Scripted, WAIT, Way, assert_all_delivered,
    config, event, serve,
};

/// Records one event at a server with these replies, flushes, and returns what came of it.
fn deliver_one(replies: impl IntoIterator<Item = Reply>) -> (Scripted, Accounts) {
    deliver_one_within(WAIT, replies)
}

/// The same, with a timeout for each request.
fn deliver_one_within(
    request_timeout: Duration,
    replies: impl IntoIterator<Item = Reply>,
) -> (Scripted, Accounts) {
    let server = Scripted::replying(replies);
    let mut config = config(&server.url());
    config.request_timeout = request_timeout;
    let store = Store::start(config).expect("the configuration is valid");
    store.record(&event("rr-1")).expect("there is room");
    let accounts = store.flush(WAIT).expect("the server stores it in the end").accounts;
    assert_all_delivered(&accounts, 1);
    assert_eq!(server.stored_count(), 1);
    (server, accounts)
}

#[test]
fn a_hanging_connection_delays_no_other_batch_and_no_timer() {
    const INTERVAL: Duration = Duration::from_millis(30);
    let gate = Gate::new();
    // The second is refused: the retry's timer has to run, too.
    let server = Scripted::replying([Reply::Store.after(&gate), Reply::status(503)]);
    let mut config = config(&server.url());
    config.connections_max = 2;
    config.flush_interval = INTERVAL;
    let store = Store::start(config).unwrap();
    store.record(&event("rr-hanging")).unwrap();
    server.wait_for_requests(1, WAIT);

    store.record(&event("rr-retried")).unwrap();
    server.wait_for_stored(1, WAIT);
    assert!(server.has_stored("rr-retried"));
    let mut times: Vec<_> = (3..18)
        .map(|count| {
            let recorded = Instant::now();
            store.record(&event("rr-other")).unwrap();
            server.wait_for_requests(count + 1, WAIT);
            server.requests()[count].at - recorded
        })
        .collect();
    times.sort_unstable();
    // The median, because a single one may meet another process on this machine.
    assert!(times[7] <= INTERVAL + Duration::from_millis(50), "{times:?}");
    let Err(FlushError::Deadline(unsettled)) = store.flush(Duration::from_millis(50)) else {
        panic!("one request hangs");
    };
    assert_eq!((unsettled.in_flight, unsettled.accounts.pending), (1, 1));
    gate.open();
    assert_all_delivered(&store.close(WAIT).unwrap().report.accounts, 17);
}

#[test]
fn a_garbled_answer_closes_its_connection_and_the_batch_is_sent_again() {
    let answers: [&[u8]; 8] = [
        b"\x00\x01\x02\xff\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nno colon\r\n\r\n",
        b"HTTP/1.1 201 Created\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}!",
        b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: 2, 5\r\n\r\n{}",
    ];
    for garbage in answers {
        let shown = String::from_utf8_lossy(garbage);
        // Within the deadline of the flush only if it is seen to be garbled, and not given up.
        let (server, _) = deliver_one_within(2 * WAIT, [Reply::Garbage(garbage)]);
        let requests = server.requests();
        assert_eq!(requests.len(), 2, "{shown:?}");
        assert_ne!(requests[0].connection, requests[1].connection, "{shown:?}");
        assert_eq!(requests[0].text, requests[1].text, "resent as it was: {shown:?}");
    }
}

#[test]
fn a_truncated_answer_is_no_answer_and_the_batch_is_stored_once() {
    for bytes in [0, 5, 30, 90] {
        let (server, _) = deliver_one([Reply::StoreAndCut { bytes }]);
        let requests = server.requests();
        assert_eq!(requests.len(), 2, "{bytes}");
        assert_ne!(requests[0].connection, requests[1].connection, "{bytes}");
        assert_eq!(server.repeats(), 1, "the server knew the event by its id");
    }
}

#[test]
fn an_answer_that_does_not_end_is_given_up_at_the_timeout() {
    const TIMEOUT: Duration = Duration::from_millis(200);
    let endless = b"HTTP/1.1 201 Created\r\ncontent-length: 100\r\n\r\n{";
    for reply in [Reply::Garbage(endless), Reply::Hang] {
        let (server, _) = deliver_one_within(TIMEOUT, [reply]);
        let requests = server.requests();
        assert_ne!(requests[0].connection, requests[1].connection);
        // Less a little: the clock starts with the first byte, and the server saw the last.
        assert!(requests[1].at - requests[0].at >= TIMEOUT / 2);
    }
}

#[test]
fn an_answer_that_nobody_asked_for_settles_nothing() {
    let more = b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\n\
        content-length: 2\r\n\r\n{}";
    let server = Scripted::replying([Reply::StoreAndMore(more)]);
    let store = Store::start(config(&server.url())).unwrap();
    for (correlation_id, count) in [("rr-1", 1), ("rr-2", 2)] {
        store.record(&event(correlation_id)).unwrap();
        assert_all_delivered(&store.flush(WAIT).unwrap().accounts, count);
        assert!(server.has_stored(correlation_id), "what is delivered is stored");
    }
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_ne!(requests[0].connection, requests[1].connection);
}

#[test]
fn a_server_that_appears_after_the_start_gets_everything() {
    let port = ReservedPort::take();
    let mut config = config(&port.url());
    config.batch_events_max = 10;
    let store = Store::start(config).unwrap();
    for _ in 0..50 {
        store.record(&event("rr-early")).unwrap();
    }
    let begun = Instant::now();
    while store.report(WAIT).unwrap().batches.retried < 10 {
        assert!(begun.elapsed() < WAIT, "nothing was tried");
    }
    assert_eq!(store.accounts().pending, 50, "all are held");
    let server = port.listen(|_| Reply::Store);
    store.record(&event("rr-late")).unwrap();
    let accounts = store.close(WAIT).unwrap().report.accounts;
    assert_all_delivered(&accounts, 51);
    assert_eq!((accounts.possibly_duplicated, server.repeats()), (0, 0), "none was sent before");
}

#[test]
fn a_server_error_is_retried_until_the_batch_is_stored() {
    for status in [408, 429, 500, 502, 503, 504, 599] {
        let (server, _) = deliver_one([Reply::status(status), Reply::status(status)]);
        assert_eq!(server.requests().len(), 3, "{status}");
    }
}

#[test]
fn retry_after_is_heeded() {
    let head = "content-type: text/plain\r\nretry-after: 1\r\n".to_owned();
    let (server, _) = deliver_one([Reply::Answer { status: 503, head, body: String::new() }]);
    let requests = server.requests();
    assert!(requests[1].at - requests[0].at >= Duration::from_millis(990));
}

#[test]
fn a_202_is_delivered_and_counted_as_queued_by_the_server() {
    let server = Scripted::start(|_| Reply::Answer {
        status: 202,
        head: "content-type: application/json\r\n".to_owned(),
        body: r#"{"status":"accepted","message":"queued","count":3}"#.to_owned(),
    });
    let store = Store::start(config(&server.url())).unwrap();
    for _ in 0..3 {
        store.record(&event("rr-1")).unwrap();
    }
    let accounts = store.flush(WAIT).unwrap().accounts;
    assert_all_delivered(&accounts, 3);
    assert_eq!(accounts.queued_by_server, 3);
}

#[test]
fn possibly_duplicated_counts_what_was_sent_again_after_doubt_and_nothing_else() {
    let (error, overload) = (Reply::status(500), Reply::status(503));
    let cases: [(&str, Vec<Reply>, u64); 7] = [
        ("stored at once", vec![], 0),
        ("certainly not processed", vec![overload.clone(), overload], 0),
        ("a server error leaves it open", vec![error.clone()], 1),
        ("counted once for each event", vec![error.clone(), error, Reply::Close], 1),
        ("closed without an answer", vec![Reply::Close], 1),
        ("stored, and the answer lost", vec![Reply::StoreAndCut { bytes: 20 }], 1),
        ("no answer in time", vec![Reply::Hang], 1),
    ];
    for (case, replies, expected) in cases {
        let (_server, accounts) = deliver_one_within(Duration::from_millis(500), replies);
        assert_eq!(accounts.possibly_duplicated, expected, "{case}");
    }
}

#[test]
fn a_server_that_proved_to_keep_our_ids_makes_a_resend_harmless() {
    for (first, expected) in [(Reply::Store, 0), (Reply::StoreUnderOwnIds, 2)] {
        let server = Scripted::replying([first.clone(), Reply::status(500)]);
        let mut config = config(&server.url());
        // So that only a flush sends, and both events share a request.
        config.flush_interval = Duration::from_secs(600);
        let store = Store::start(config).unwrap();
        store.record(&event("rr-proof")).unwrap();
        store.flush(WAIT).unwrap();
        store.record(&event("rr-1")).unwrap();
        store.record(&event("rr-2")).unwrap();
        let accounts = store.flush(WAIT).unwrap().accounts;
        assert_all_delivered(&accounts, 3);
        assert_eq!(accounts.possibly_duplicated, expected, "{first:?}");
        let requests = server.requests();
        assert_eq!(requests[1].text, requests[2].text, "the same bytes once more");
    }
}

#[test]
fn a_batch_that_is_held_has_not_failed() {
    let server = Scripted::replying([Reply::status(404), Reply::status(403)]);
    let mut config = config(&server.url());
    config.retries_max = Some(0);
    let store = Store::start(config).unwrap();
    store.record(&event("rr-1")).unwrap();
    assert_all_delivered(&store.flush(WAIT).unwrap().accounts, 1);
}

/// With our own DataStorage, whose answers are lost on the way: asked, it has each event once.
#[test]
fn answers_that_are_lost_leave_no_event_twice_in_the_real_server() {
    const EVENTS: u64 = 300;
    let server = serve();
    let lossy = Network { down: Way::ending(60, End::Reset), ..Network::default() };
    let network = Proxy::start(server.addr(), move |connection| {
        if connection < 3 { lossy.clone() } else { Network::default() }
    });
    let mut config = config(&network.url());
    config.batch_events_max = 50;
    let store = Store::start(config).unwrap();
    for _ in 0..EVENTS {
        store.record(&event("rr-1")).unwrap();
    }
    let report = store.close(WAIT).unwrap().report;
    assert_all_delivered(&report.accounts, EVENTS);
    assert!(report.batches.failed.ambiguous > 0, "{report:?}");
    assert_eq!(server.count(&[("correlation_id", "rr-1")]), EVENTS);
}

#[test]
fn after_the_last_retry_a_batch_is_dropped_and_every_call_says_so() {
    for (status, possibly_stored) in [(503, 0), (500, 1)] {
        let server = Scripted::replying(vec![Reply::status(status); 3]);
        let mut config = config(&server.url());
        config.retries_max = Some(2);
        let store = Store::start(config).unwrap();
        store.record(&event("rr-1")).unwrap();
        let Err(FlushError::Lost(lost)) = store.flush(WAIT) else { panic!("it was dropped") };
        assert_eq!((lost.dropped, lost.dead_lettered), (1, 0));
        assert_eq!(server.requests().len(), 3, "the first try and two more");
        let accounts = store.accounts();
        assert!(accounts.is_balanced());
        assert_eq!((accounts.dropped.gave_up, accounts.dropped.total()), (1, 1));
        assert_eq!((accounts.delivered, accounts.pending), (0, 0));
        assert_eq!(accounts.possibly_stored, possibly_stored, "{status}");

        store.record(&event("rr-2")).unwrap();
        let accounts = store.close(WAIT).unwrap().report.accounts;
        assert_eq!((accounts.accepted, accounts.delivered), (2, 1));
    }
}

#[test]
fn answers_of_something_else_hold_the_batch_and_drop_nothing() {
    let html = |status| Reply::Answer {
        status,
        head: "content-type: text/html\r\nlocation: /login\r\n".to_owned(),
        body: "<html>Please log in</html>".to_owned(),
    };
    for status in [200, 201, 202, 204, 301, 400, 401, 403, 404, 405, 415, 421, 426] {
        let server = Scripted::start(move |_| html(status));
        let store = Store::start(config(&server.url())).unwrap();
        store.record(&event("rr-1")).unwrap();
        server.wait_for_requests(1, WAIT);
        let Err(FlushError::Deadline(unsettled)) = store.flush(Duration::from_millis(40)) else {
            panic!("{status} stores nothing");
        };
        let accounts = unsettled.accounts;
        assert!(accounts.is_balanced());
        assert_eq!((accounts.pending, accounts.accepted), (1, 1), "{status}: {accounts:?}");
        assert_eq!(unsettled.retrying, 1, "{status}: {unsettled:?}");
        // A token may just have been replaced: after a 401 there is one try more.
        let requests = if status == 401 { 2 } else { 1 };
        assert!(server.requests().len() <= requests, "{status}: tried again only slowly");
    }
}

#[test]
fn a_held_batch_is_stored_once_the_right_server_answers() {
    let (server, accounts) = deliver_one([Reply::status(404)]);
    assert_eq!(server.requests().len(), 2);
    assert_eq!(accounts.possibly_duplicated, 0);
}

#[test]
fn a_reset_in_the_middle_of_a_body_loses_nothing() {
    for body_bytes in [0, 1, 100_000] {
        let server = Scripted::storing();
        server.reset_next(body_bytes);
        server.reset_next(body_bytes);
        let store = Store::start(config(&server.url())).unwrap();
        let text = format!(r#"{{"a":"{}"}}"#, "x".repeat(100_000));
        let data = Json(&text);
        for _ in 0..20 {
            let mut event = event("rr-1");
            event.event_data = &data;
            store.record(&event).unwrap();
        }
        let accounts = store.flush(WAIT).unwrap().accounts;
        assert_all_delivered(&accounts, 20);
        assert_eq!((server.stored_count(), server.repeats()), (20, 0));
        assert_eq!(server.resets_left(), 0);
    }
}

#[test]
fn a_connection_that_was_closed_while_idle_is_replaced() {
    let server = Scripted::storing();
    let store = Store::start(config(&server.url())).unwrap();
    for count in 1..=5 {
        store.record(&event("rr-1")).unwrap();
        let accounts = store.flush(WAIT).unwrap().accounts;
        assert_all_delivered(&accounts, count);
        assert_eq!(accounts.possibly_duplicated, 0);
        server.hang_up();
    }
    assert_eq!((server.stored_count(), server.repeats()), (5, 0));
}

#[test]
fn one_connection_serves_one_request_after_the_other() {
    let server = Scripted::storing();
    let store = Store::start(config(&server.url())).unwrap();
    for _ in 0..5 {
        store.record(&event("rr-1")).unwrap();
        store.flush(WAIT).unwrap();
    }
    assert!(server.requests().iter().all(|request| request.connection == 0), "it is kept");
}

#[test]
fn a_server_that_fails_all_the_time_still_stores_everything_once() {
    let server = Scripted::start(|request| match request.number % 7 {
        0 => Reply::Close,
        1 => Reply::StoreAndCut { bytes: 10 },
        2 => Reply::status(500),
        3 => Reply::Garbage(b"nonsense\r\n\r\n"),
        4 => Reply::status(429),
        _ => Reply::Store,
    });
    let mut config = config(&server.url());
    config.batch_events_max = 20;
    config.connections_max = 4;
    let store = Store::start(config).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..250 {
                    store.record(&event("rr-1")).unwrap();
                }
            });
        }
    });
    let accounts = store.close(WAIT).unwrap().report.accounts;
    assert_all_delivered(&accounts, 1_000);
    assert_eq!(server.stored_count(), 1_000);
}
