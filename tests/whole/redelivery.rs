//! What was lost is stored after all, where that is possible, and under the same ids.
//!
//! The first try comes a second after the loss, and these tests take as long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ledgerline::{Accounts, Config, Overflow, Settled, Store};
use ledgerline_testkit::{Gate, Reply, Request, Scripted, WAIT, config, event};

/// Records events of these names at an engine that tries nothing twice.
fn record(url: &str, names: &[&str], change: impl FnOnce(&mut Config)) -> Store {
    let mut config = config(url);
    config.retries_max = Some(0);
    change(&mut config);
    let store = Store::start(config).expect("a valid configuration");
    for name in names {
        store.record(&event(name)).expect("there is room");
    }
    store
}

fn wait_until_redelivered(store: &Store, events: u64) -> Accounts {
    let deadline = Instant::now() + WAIT;
    while store.accounts().redelivered < events {
        assert!(Instant::now() < deadline, "{:?}", store.accounts());
        std::thread::yield_now();
    }
    store.accounts()
}

fn has(request: &Request, name: &str) -> bool {
    request.events.iter().any(|event| event.correlation_id == name)
}

#[test]
fn dropped_events_are_stored_when_storage_is_back_and_stay_dropped_in_the_accounts() {
    let server = Scripted::replying([Reply::status(503), Reply::status(503), Reply::Store]);
    let store = record(&server.url(), &["rr-1", "rr-2", "rr-3"], |_| {});
    store.flush(WAIT).unwrap_err();
    let mut lost: Vec<_> = store.lost_events().into_iter().map(|lost| lost.event_id).collect();
    let accounts = wait_until_redelivered(&store, 3);
    assert_eq!((accounts.dropped.gave_up, accounts.delivered), (3, 0));
    assert!(accounts.is_balanced() && accounts.possibly_duplicated == 0, "{accounts:?}");
    let mut stored: Vec<_> = server.stored().iter().map(|it| it.event_id.to_string()).collect();
    stored.sort_unstable();
    lost.sort_unstable();
    assert_eq!(stored, lost);
    assert_eq!(store.lost_events(), []);
    store.close(WAIT).unwrap();
}

#[test]
fn an_event_that_is_refused_again_keeps_no_other_from_being_stored_and_stays_to_be_read() {
    let is_back = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_back);
    let server = Scripted::start(move |request| match has(request, "rr-bad") {
        _ if !seen.load(Ordering::Relaxed) => Reply::status(503),
        true => Reply::problem(422, "validation-error"),
        false => Reply::Store,
    });
    let names = ["rr-1", "rr-2", "rr-bad", "rr-3", "rr-4"];
    let store = record(&server.url(), &names, |_| {});
    store.flush(WAIT).unwrap_err();
    is_back.store(true, Ordering::Relaxed);
    wait_until_redelivered(&store, 4);
    let left = store.lost_events();
    assert!(left.len() == 1 && left[0].json.contains("rr-bad"), "{left:?}");
    assert_eq!(server.stored_count(), 4);
}

#[test]
fn dead_letters_are_sent_once_more_on_command() {
    let is_wiser = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_wiser);
    let server = Scripted::start(move |request| {
        if has(request, "rr-bad") && !seen.load(Ordering::Relaxed) {
            Reply::problem(422, "validation-error")
        } else {
            Reply::Store
        }
    });
    let store = record(&server.url(), &["rr-1", "rr-bad"], |_| {});
    store.flush(WAIT).unwrap_err();
    let lost = store.lost_events();
    assert!(lost.len() == 1 && lost[0].outcome == Settled::DeadLettered, "{lost:?}");
    is_wiser.store(true, Ordering::Relaxed);
    assert_eq!(store.resend_dead_letters(), 1);
    let accounts = wait_until_redelivered(&store, 1);
    assert_eq!((accounts.dead_lettered, accounts.delivered), (1, 1));
    assert!(server.has_stored("rr-bad") && server.repeats() == 0);
    store.close(WAIT).unwrap();
    assert_eq!(store.resend_dead_letters(), 0);
}

/// Takes some seconds: each try that comes to nothing is followed by a longer pause.
#[test]
fn an_event_at_which_the_server_fails_keeps_no_other_from_being_stored() {
    let is_back = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_back);
    let server = Scripted::start(move |request| match has(request, "rr-bad") {
        _ if !seen.load(Ordering::Relaxed) => Reply::status(503),
        true => Reply::status(500),
        false => Reply::Store,
    });
    let store = record(&server.url(), &["rr-bad", "rr-1"], |_| {});
    store.flush(WAIT).unwrap_err();
    is_back.store(true, Ordering::Relaxed);
    wait_until_redelivered(&store, 1);
    assert!(server.has_stored("rr-1"));
}

#[test]
fn an_event_that_was_counted_as_possibly_duplicated_is_not_counted_again() {
    let failed = Reply::status(500);
    let server = Scripted::replying([failed.clone(), failed, Reply::StoreUnderOwnIds]);
    let store = record(&server.url(), &["rr-1"], |config| config.retries_max = Some(1));
    store.flush(WAIT).unwrap_err();
    assert_eq!(store.accounts().possibly_duplicated, 1, "tried twice");
    let accounts = wait_until_redelivered(&store, 1);
    assert_eq!((accounts.possibly_duplicated, accounts.possibly_stored), (1, 1));
}

/// Takes the two seconds that the server asks for.
#[test]
fn a_pause_that_the_server_asks_for_is_kept() {
    let pause = Reply::Answer {
        status: 503,
        head: "content-type: text/plain\r\nretry-after: 2\r\n".to_owned(),
        body: String::new(),
    };
    let server = Scripted::replying([Reply::status(503), pause]);
    let store = record(&server.url(), &["rr-1"], |_| {});
    store.flush(WAIT).unwrap_err();
    wait_until_redelivered(&store, 1);
    let times: Vec<_> = server.requests().iter().map(|request| request.at).collect();
    let pause = times[2] - times[1];
    assert!(pause >= Duration::from_secs(2), "{pause:?}");
}

/// Takes some seconds: it is asked slowly.
#[test]
fn a_server_that_refuses_whatever_it_is_sent_is_asked_slowly_until_it_relents() {
    let state = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&state);
    let server = Scripted::start(move |_| match seen.load(Ordering::Relaxed) {
        0 => Reply::status(503),
        1 => Reply::problem(422, "validation-error"),
        _ => Reply::Store,
    });
    let store = record(&server.url(), &["rr-1"; 20], |_| {});
    store.flush(WAIT).unwrap_err();
    let before = server.requests().len();
    state.store(1, Ordering::Relaxed);
    // 20, 10, 5, 2, 1, and then those alone.
    server.wait_for_requests(before + 4 + 6, WAIT);
    state.store(2, Ordering::Relaxed);
    wait_until_redelivered(&store, 15);
    assert_eq!(store.lost_events().len(), 5);
    assert!(server.requests().len() < before + 10 + 15, "it was not asked for each");
    assert_eq!(store.resend_dead_letters(), 5);
    wait_until_redelivered(&store, 20);
}

#[test]
fn evicted_events_come_after_the_ones_that_evicted_them() {
    let gate = Gate::new();
    let held = gate.clone();
    let server = Scripted::start(move |_| Reply::Store.after(&held));
    let store = record(&server.url(), &[], |config| {
        config.overflow = Overflow::EvictOldest;
        config.connections_max = 1;
        config.lost_events_max = 100;
    });
    let deadline = Instant::now() + WAIT;
    while store.accounts().dropped.evicted == 0 {
        let _ = store.record(&event("rr-1"));
        assert!(Instant::now() < deadline, "{:?}", store.accounts());
    }
    gate.open();
    let accounts = wait_until_redelivered(&store, 100);
    assert_eq!(accounts.redelivered, 100, "the ring has no more: {accounts:?}");
    store.flush(WAIT).unwrap();
    let accounts = store.accounts();
    assert_eq!(server.stored_count() as u64, accounts.delivered + accounts.redelivered);
    assert!(accounts.is_balanced() && server.repeats() == 0, "{accounts:?}");
}

#[test]
fn a_close_waits_for_what_is_being_sent_again() {
    let (gate, asked) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
    let (held, seen) = (gate.clone(), Arc::clone(&asked));
    let server = Scripted::start(move |_| match seen.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::status(503),
        _ => Reply::Store.after(&held),
    });
    let store = record(&server.url(), &["rr-1"], |_| {});
    store.flush(WAIT).unwrap_err();
    let deadline = Instant::now() + WAIT;
    while asked.load(Ordering::Relaxed) < 2 {
        assert!(Instant::now() < deadline, "it is not sent again");
        std::thread::yield_now();
    }
    let opener = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200)); // Long enough for a close to end too early.
        gate.open();
    });
    store.close(WAIT).unwrap();
    assert_eq!(store.accounts().redelivered, 1);
    opener.join().unwrap();
}
