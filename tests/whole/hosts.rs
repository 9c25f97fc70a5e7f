//! What a host may do to the engine, and it still loses nothing in silence.

use std::cell::RefCell;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use ledgerline::testing::{MemoryStorage, panic_engine, set_wall_clock};
use ledgerline::{CloseError, FlushError, Refused, Settled, Stage, Store, WaitError};
use ledgerline_testkit::{Gate, Reply, Scripted, WAIT, assert_all_delivered, config, event};
use tokio::runtime::Builder;

/// Records an event when its thread's other locals are gone.
struct LastWords(Store);

impl Drop for LastWords {
    fn drop(&mut self) {
        self.0.record(&event("rr-last-words")).expect("a thread may record until its very end");
    }
}

thread_local! {
    static LAST_WORDS: RefCell<Option<LastWords>> = const { RefCell::new(None) };
}

#[test]
fn a_thread_may_record_while_its_locals_are_destroyed() {
    let storage = MemoryStorage::new();
    let store = storage.start();
    let thread = {
        let store = store.clone();
        thread::spawn(move || {
            // Before the engine's own local of this thread, and so destroyed after it.
            LAST_WORDS.set(Some(LastWords(store.clone())));
            store.record(&event("rr-words")).unwrap();
        })
    };
    thread.join().unwrap();
    storage.wait_for("rr-last-words", 1).unwrap();
    assert_all_delivered(&store.close(WAIT).unwrap().report.accounts, 2);
}

#[test]
fn hundreds_of_threads_share_the_lanes_and_lose_nothing() {
    const THREADS: usize = 500;
    const EVENTS: usize = 40;
    let storage = MemoryStorage::new();
    let store = storage.start();
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                for _ in 0..EVENTS {
                    store.record_wait(&event("rr-1"), WAIT).unwrap();
                }
            });
        }
    });
    let accounts = store.close(WAIT).unwrap().report.accounts;
    assert_all_delivered(&accounts, (THREADS * EVENTS) as u64);
    assert_eq!(storage.events().len(), THREADS * EVENTS);
}

#[test]
fn a_runtime_whose_threads_are_all_blocked_starves_nobody() {
    let server = Scripted::storing();
    let current = Builder::new_current_thread().enable_all().build().unwrap();
    let multi = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for (round, runtime) in [current, multi].into_iter().enumerate() {
        let store = Store::start(config(&server.url())).unwrap();
        let (task_store, server) = (store.clone(), &server);
        runtime.block_on(async move {
            task_store.record(&event("rr-1")).unwrap();
            // Blocks the only thread that could run anything of this runtime.
            server.wait_for_stored(round + 1, WAIT);
        });
        assert_all_delivered(&store.close(WAIT).unwrap().report.accounts, 1);
    }
}

#[test]
fn a_wall_clock_that_is_set_moves_stamps_and_nothing_else() {
    const HOUR_US: i64 = 3_600_000_000;
    let storage = MemoryStorage::new();
    let store = storage.start();
    for (number, ahead_us) in [0, HOUR_US, -HOUR_US, i64::MAX, 0].into_iter().enumerate() {
        set_wall_clock(&store, ahead_us);
        let recorded = Instant::now();
        let receipt = store.record(&event(&format!("rr-{number}"))).unwrap();
        store.wait(receipt, Stage::Stored, WAIT).unwrap();
        assert!(recorded.elapsed() < Duration::from_secs(2), "its interval is 10 ms");
    }
    let stamps: Vec<_> =
        storage.events().iter().map(|event| event.event_timestamp.micros()).collect();
    let near = |a: i64, b: i64| (a - b).abs() < HOUR_US / 10;
    assert!(near(stamps[1] - stamps[0], HOUR_US) && near(stamps[2] - stamps[0], -HOUR_US));
    let ids: std::collections::HashSet<_> =
        storage.events().iter().map(|event| event.event_id).collect();
    assert_eq!(ids.len(), 5);
    let report = store.close(WAIT).unwrap().report;
    assert_all_delivered(&report.accounts, 5);
    assert!(report.delivery_ms.max < 2_000, "{:?}", report.delivery_ms);
}

#[test]
fn a_wall_clock_that_is_far_off_makes_a_dead_letter() {
    let storage = MemoryStorage::new();
    let store = storage.start();
    for ahead_us in [2 * 3_600_000_000, 0] {
        set_wall_clock(&store, ahead_us);
        store.record(&event("rr-1")).unwrap();
    }
    store.flush(WAIT).unwrap_err();
    let accounts = store.accounts();
    assert_eq!((accounts.delivered, accounts.dead_lettered), (1, 1), "{accounts:?}");
}

/// Lets the engine panic, and waits until it has.
fn panic_and_wait(store: &Store, restarts: u32) {
    assert!(panic_engine(store));
    let deadline = Instant::now() + WAIT;
    while store.report(WAIT).is_none_or(|report| report.restarts < restarts) {
        assert!(Instant::now() < deadline, "the engine goes on");
        thread::yield_now();
    }
}

#[test]
fn an_engine_that_panics_goes_on_with_what_the_blocks_hold() {
    const EVENTS: usize = 3_000;
    let gate = Gate::new();
    let server = Scripted::start({
        let gate = gate.clone();
        move |request| match request.number {
            0 => Reply::Store,
            _ => Reply::Store.after(&gate),
        }
    });
    let store = Store::start(config(&server.url())).unwrap();
    // One batch is stored, others are on their way, others lie in the lanes.
    store.record(&event("rr-0")).unwrap();
    store.flush(WAIT).unwrap();
    for _ in 1..EVENTS {
        store.record_wait(&event("rr-1"), WAIT).unwrap();
    }
    server.wait_for_requests(2, WAIT);
    let flush = {
        let store = store.clone();
        thread::spawn(move || store.flush(WAIT))
    };
    for restarts in 1..=3 {
        panic_and_wait(&store, restarts);
        assert!(store.accounts().is_balanced());
    }
    gate.open();
    flush.join().unwrap().expect("a flush outlives its engine's panics");
    let report = store.close(WAIT).unwrap().report;
    assert_all_delivered(&report.accounts, EVENTS as u64);
    assert_eq!(report.restarts, 3);
    assert_eq!(server.stored_count(), EVENTS, "what was sent again was stored once");
}

#[test]
fn a_flush_that_waits_at_a_panic_is_not_left_to_the_interval() {
    let gate = Gate::new();
    let held = gate.clone();
    let server = Scripted::start(move |_| Reply::Store.after(&held));
    let mut config = config(&server.url());
    config.flush_interval = Duration::from_secs(600);
    let store = Store::start(config).unwrap();
    store.record(&event("rr-1")).unwrap();
    thread::scope(|scope| {
        let flush = scope.spawn(|| store.flush(WAIT));
        server.wait_for_requests(1, WAIT);
        panic_and_wait(&store, 1);
        gate.open();
        assert_all_delivered(&flush.join().unwrap().unwrap().accounts, 1);
    });
}

#[test]
fn an_engine_that_panics_once_too_often_gives_up_loudly() {
    let gate = Gate::new();
    let server = Scripted::start(move |_| Reply::Store.after(&gate));
    let store = Store::start(config(&server.url())).unwrap();
    let receipt = store.record(&event("rr-1")).unwrap();
    for restarts in 1..=3 {
        panic_and_wait(&store, restarts);
    }
    server.wait_for_requests(1, WAIT);
    let waiter = {
        let store = store.clone();
        thread::spawn(move || store.wait(receipt, Stage::Stored, WAIT))
    };
    assert!(panic_engine(&store));
    let given_up = WaitError::Undelivered { outcome: Settled::GaveUp, is_possibly_stored: true };
    assert_eq!(waiter.join().unwrap(), Err(given_up));
    assert_eq!(store.close(WAIT), Err(CloseError::Failed));
    assert_eq!(store.flush(WAIT), Err(FlushError::Failed));
    assert_eq!(store.record(&event("rr-2")), Err(Refused::Failed));
    assert_eq!(store.record_wait(&event("rr-3"), WAIT), Err(Refused::Failed));
    let accounts = store.accounts();
    assert!(accounts.is_balanced(), "{accounts:?}");
    assert_eq!((accounts.dropped.gave_up, accounts.possibly_stored), (1, 1), "{accounts:?}");
    assert_eq!((accounts.refused.failed, accounts.refused.closed), (2, 0), "{accounts:?}");
}
