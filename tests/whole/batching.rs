//! How events become requests: cut by count, by bytes, by age; halved when too big.

use std::time::Duration;

use ledgerline::{FlushError, Json, Store};
use ledgerline_testkit::{Reply, Request, Scripted, WAIT, assert_all_delivered, config, event};

const NEVER: Duration = Duration::from_secs(600);

/// An `event_data` of that many bytes.
fn data(bytes: usize) -> String {
    let around = r#"{"a":""}"#.len();
    format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - around))
}

#[test]
fn no_request_has_more_events_than_allowed() {
    let server = Scripted::storing();
    let mut config = config(&server.url());
    config.flush_interval = NEVER;
    config.batch_events_max = 10;
    let store = Store::start(config).unwrap();
    for _ in 0..95 {
        store.record(&event("rr-1")).unwrap();
    }
    let flushed = store.flush(WAIT).unwrap();
    assert_all_delivered(&flushed.accounts, 95);
    let mut counts: Vec<_> =
        server.requests().iter().map(|request| request.event_count()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [5, 10, 10, 10, 10, 10, 10, 10, 10, 10]);
}

#[test]
fn no_request_has_more_bytes_than_allowed() {
    const BYTES_MAX: usize = 400_000;
    let server = Scripted::storing();
    let mut config = config(&server.url());
    config.flush_interval = NEVER;
    config.batch_bytes_max = BYTES_MAX as u64;
    let store = Store::start(config).unwrap();
    let data = data(60_000);
    for _ in 0..40 {
        let mut event = event("rr-1");
        let data = Json(&data);
        event.event_data = &data;
        store.record(&event).unwrap();
    }
    assert_all_delivered(&store.flush(WAIT).unwrap().accounts, 40);
    let requests = server.requests();
    let most = requests.iter().map(|request| request.text.len()).max().unwrap();
    assert!(most <= BYTES_MAX, "{most}");
    assert!(most > BYTES_MAX - 61_000, "as full as the limit lets it be: {most}");
    assert_eq!(server.stored_count(), 40);
}

#[test]
fn a_batch_that_is_not_full_goes_out_by_its_age() {
    let server = Scripted::storing();
    let mut config = config(&server.url());
    config.flush_interval = Duration::from_millis(200);
    let store = Store::start(config).unwrap();
    for _ in 0..5 {
        store.record(&event("rr-1")).unwrap();
    }
    server.wait_for_stored(5, WAIT);
    assert_eq!(server.requests().len(), 1, "they had time to meet");
}

#[test]
fn neighbours_from_several_threads_share_a_request() {
    let server = Scripted::storing();
    let mut config = config(&server.url());
    config.flush_interval = NEVER;
    let store = Store::start(config).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| store.record(&event("rr-1")).unwrap());
        }
    });
    store.flush(WAIT).unwrap();
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn by_default_no_request_has_more_than_500_events() {
    let server = Scripted::storing();
    let mut config = config(&server.url());
    config.flush_interval = NEVER;
    let store = Store::start(config).unwrap();
    for _ in 0..1_700 {
        store.record(&event("rr-1")).unwrap();
    }
    assert_all_delivered(&store.flush(WAIT).unwrap().accounts, 1_700);
    let counts: Vec<_> = server.requests().iter().map(|request| request.event_count()).collect();
    assert_eq!(counts.iter().max(), Some(&500), "{counts:?}");
    assert_eq!(counts.len(), 4, "as few as that allows: {counts:?}");
}

/// Records 500 events at a server that refuses some requests, and returns the server.
fn split_by(refuse: fn(&Request) -> Option<Reply>) -> Scripted {
    let server = Scripted::start(move |request| refuse(request).unwrap_or(Reply::Store));
    let mut config = config(&server.url());
    config.flush_interval = NEVER;
    let store = Store::start(config).expect("the configuration is valid");
    for _ in 0..500 {
        store.record(&event("rr-1")).expect("there is room");
    }
    let flushed = store.flush(WAIT).expect("small enough requests are stored");
    assert_all_delivered(&flushed.accounts, 500);
    assert_eq!(flushed.accounts.possibly_duplicated, 0, "a refused request stored nothing");
    assert_eq!((server.stored_count(), server.repeats()), (500, 0));
    let batches = store.report(WAIT).expect("the engine answers").batches;
    assert!(batches.split > 0, "{batches:?}");
    server
}

#[test]
fn a_batch_with_too_many_events_is_halved_until_it_fits() {
    split_by(|request| {
        (request.event_count() > 100).then(|| Reply::problem(400, "batch-size-exceeded"))
    });
}

#[test]
fn a_batch_with_too_many_bytes_is_halved_until_it_fits() {
    split_by(|request| {
        (request.text.len() > 20_000).then(|| Reply::problem(413, "request-too-large"))
    });
}

#[test]
fn what_was_too_big_once_is_not_tried_again_at_once() {
    let server = Scripted::start(|request| {
        if request.event_count() > 125 {
            Reply::problem(400, "batch-size-exceeded")
        } else {
            Reply::Store
        }
    });
    let mut config = config(&server.url());
    config.flush_interval = NEVER;
    config.connections_max = 1;
    let store = Store::start(config).unwrap();
    for round in 0..2 {
        for _ in 0..500 {
            store.record(&event("rr-1")).unwrap();
        }
        store.flush(WAIT).unwrap();
        let requests = server.requests();
        let refused = requests.iter().filter(|request| request.event_count() > 125).count();
        assert_eq!(refused, 3, "500 once and 250 twice, all in the first round, not in {round}");
    }
}

#[test]
fn an_event_that_alone_is_too_big_is_dead_lettered_and_its_neighbours_are_stored() {
    let server = Scripted::start(|request| {
        if request.text.len() > 20_000 { Reply::status(413) } else { Reply::Store }
    });
    let mut config = config(&server.url());
    config.flush_interval = NEVER;
    let store = Store::start(config).unwrap();
    let big = data(20_000);
    for number in 0..9 {
        let data = Json(&big);
        let mut event = event("rr-1");
        if number == 4 {
            event.event_data = &data;
        }
        store.record(&event).unwrap();
    }
    let Err(FlushError::Lost(lost)) = store.flush(WAIT) else { panic!("one was lost") };
    assert_eq!((lost.dropped, lost.dead_lettered, lost.total()), (0, 1, 1));
    let accounts = store.accounts();
    assert!(accounts.is_balanced());
    assert_eq!((accounts.delivered, accounts.dead_lettered), (8, 1));
    assert_eq!(server.stored_count(), 8);
    assert!(store.flush(WAIT).is_ok(), "a loss before a flush is no failure of it");
}
