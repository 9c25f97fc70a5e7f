//! Those who ask to wait for room get it when there is some, and a true answer when there isn't.

use std::future::Future;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use ledgerline::{Refused, Store};
use ledgerline_testkit::{
    Gate, Reply, Scripted, WAIT, assert_all_delivered, config, event, record_until_refused,
};

/// A server that stores once the gate is open, and a store of 1 MiB that is full.
fn full() -> (Gate, Scripted, Store, u64) {
    let gate = Gate::new();
    let server = Scripted::start({
        let gate = gate.clone();
        move |_| Reply::Store.after(&gate)
    });
    let mut config = config(&server.url());
    config.lanes = 1;
    config.buffer_bytes = Some(1 << 20);
    let store = Store::start(config).expect("a valid configuration");
    let (accepted, _) = record_until_refused(&store, &event("rr-filler"));
    (gate, server, store, accepted)
}

#[test]
fn whoever_waits_for_room_is_accepted_once_there_is_some() {
    let (gate, server, store, accepted) = full();
    let waiters: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            thread::spawn(move || store.record_wait(&event("rr-waiting"), WAIT))
        })
        .collect();
    gate.open();
    for waiter in waiters {
        waiter.join().unwrap().expect("there was room in time");
    }
    assert_all_delivered(&store.close(WAIT).unwrap().report.accounts, accepted + 4);
    assert_eq!(store.accounts().refused.full, 1, "the filler's; waiting is no refusal");
    assert!(server.has_stored("rr-waiting"));
}

#[test]
fn with_room_nobody_waits() {
    let server = Scripted::storing();
    let store = Store::start(config(&server.url())).unwrap();
    store.record_wait(&event("rr-1"), Duration::ZERO).unwrap();
    let mut future = std::pin::pin!(store.record_async(&event("rr-2")));
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(future.as_mut().poll(&mut context), Poll::Ready(Ok(_))));
    assert_all_delivered(&store.close(WAIT).unwrap().report.accounts, 2);
}

#[test]
fn a_wait_that_ends_at_its_deadline_is_refused_and_counted_once() {
    let (_gate, _server, store, accepted) = full();
    let refused = store.record_wait(&event("rr-late"), Duration::from_millis(20)).unwrap_err();
    assert_eq!(refused, Refused::Full { buffer_bytes: 1 << 20 });
    assert_eq!((store.accounts().accepted, store.accounts().refused.full), (accepted, 2));
}

#[test]
fn closing_ends_every_wait() {
    let (_gate, _server, store, _) = full();
    let blocked = {
        let store = store.clone();
        thread::spawn(move || store.record_wait(&event("rr-1"), WAIT).unwrap_err())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let future = store.record_async(&event("rr-2"));
    let awaiting = thread::spawn(move || runtime.block_on(future).unwrap_err());
    store.close(Duration::ZERO).unwrap_err();
    assert_eq!(blocked.join().unwrap(), Refused::Closed);
    assert_eq!(awaiting.join().unwrap(), Refused::Closed);
}

#[test]
fn a_future_dropped_while_it_waits_has_recorded_nothing() {
    let (gate, server, store, accepted) = full();
    {
        let mut future = std::pin::pin!(store.record_async(&event("rr-dropped")));
        let mut context = Context::from_waker(Waker::noop());
        assert!(future.as_mut().poll(&mut context).is_pending());
        assert_eq!(store.accounts().refused.full, 1, "not refused yet");
    }
    assert_eq!(store.accounts().refused.full, 2);
    let kept = store.record_async(&event("rr-kept"));
    gate.open();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(kept).unwrap();
    assert_all_delivered(&store.close(WAIT).unwrap().report.accounts, accepted + 1);
    assert!(server.has_stored("rr-kept") && !server.has_stored("rr-dropped"));
}
