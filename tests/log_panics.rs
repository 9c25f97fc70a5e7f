//! A log writer that panics takes the engine down at worst, and never in silence.
//!
//! In a process of its own: it takes the log for itself.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use ledgerline::testing::panic_engine;
use ledgerline::{CloseError, FlushError, Refused, Stage, Store, WaitError};
use ledgerline_testkit::{Reply, Scripted, WAIT, config, event};
use tracing_subscriber::filter::LevelFilter;

const EVENTS: u64 = 5;

static LINES: AtomicU32 = AtomicU32::new(0);

/// Panics at each line.
fn writer() -> io::Sink {
    LINES.fetch_add(1, Ordering::Relaxed);
    panic!("as a writer may whose disk is full");
}

#[test]
fn an_engine_whose_log_panics_answers_everybody_who_waits() {
    tracing_subscriber::fmt().with_max_level(LevelFilter::ERROR).with_writer(writer).init();
    let server = Scripted::start(|_| Reply::Hang);
    let store = Store::start(config(&server.url())).unwrap();
    let receipt = store.record(&event("rr-1")).unwrap();
    for _ in 1..EVENTS {
        store.record(&event("rr-1")).unwrap();
    }
    server.wait_for_requests(1, WAIT);
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| store.flush(WAIT));
        let wait = scope.spawn(|| store.wait(receipt, Stage::Stored, WAIT));
        // It begins anew, says so, and that panics.
        assert!(panic_engine(&store));
        assert_eq!(flush.join().unwrap(), Err(FlushError::Failed));
        let waited = wait.join().unwrap();
        assert!(matches!(waited, Err(WaitError::Undelivered { .. })), "{waited:?}");
    });
    assert!(LINES.load(Ordering::Relaxed) >= 2, "the restart's line, and that of the end");
    assert_eq!(store.record(&event("rr-2")), Err(Refused::Failed));
    assert_eq!(store.close(WAIT), Err(CloseError::Failed));
    let accounts = store.accounts();
    assert!(accounts.is_balanced() && accounts.dropped.gave_up == EVENTS, "{accounts:?}");
}
