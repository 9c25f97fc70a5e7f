//! A forked child has a copy of the store and none of its threads: it is refused, and harms
//! nothing.
//!
//! In a process of its own, because a fork copies whatever other tests of the process are doing.
#![expect(unsafe_code, reason = "there is no safe way to fork")]

use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ledgerline::{CloseError, FlushError, Refused, Stage, Standing, Store, WaitError};
use ledgerline_testkit::{
    Reply, Scripted, WAIT, assert_all_delivered, config, event, record_until_refused,
};

/// Runs `child` in a forked child, and returns its exit status; None if a signal ended it.
fn in_a_child(child: impl FnOnce() -> i32) -> Option<i32> {
    // SAFETY: the child calls nothing but `child`, and leaves without running destructors.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "the system has room for a process");
    if pid == 0 {
        // SAFETY: no handler is set: a child that hangs is ended by the signal.
        unsafe { libc::alarm(WAIT.as_secs() as u32) };
        let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child));
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(status.unwrap_or(99)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above, into an integer of ours.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
}

#[test]
fn a_forked_child_is_refused_and_may_start_a_store_of_its_own() {
    let server = Scripted::storing();
    let store = Store::start(config(&server.url())).unwrap();
    let before = store.record(&event("rr-before")).unwrap();
    let url = server.url();
    let status = in_a_child(|| {
        let checks = [
            store.record(&event("rr-lost")) == Err(Refused::Forked),
            store.record_wait(&event("rr-lost"), Duration::from_secs(1)) == Err(Refused::Forked),
            store.standing(before) == Standing::Forgotten,
            store.wait(before, Stage::Stored, WAIT) == Err(WaitError::Forked),
            store.flush(WAIT) == Err(FlushError::Forked),
            store.close(WAIT) == Err(CloseError::Forked),
            store.report(WAIT).is_none(),
            store.latest_report().is_none() && store.lost_events().is_empty(),
            store.resend_dead_letters() == 0 && store.silence() == Duration::ZERO,
            store.accounts().refused.forked == 2 && store.accounts().accepted == 0,
        ];
        if let Some(failed) = checks.iter().position(|holds| !holds) {
            return failed as i32 + 1;
        }
        drop(store.close_on_drop(WAIT));
        drop(store.clone());
        let own = Store::start(config(&url)).expect("a child may have a store of its own");
        let receipt = own.record(&event("rr-child")).expect("there is room");
        match own.flush_through(receipt, WAIT) {
            Ok(_) => 0,
            Err(_) => 50,
        }
    });
    assert_eq!(status, Some(0), "the number of the check that failed");
    assert!(server.has_stored("rr-child"));
    store.record(&event("rr-after")).expect("the parent goes on");
    assert_all_delivered(&store.close(WAIT).unwrap().report.accounts, 2);
    assert!(server.has_stored("rr-after") && !server.has_stored("rr-lost"));
    // Both drew from the same generator, copied by the fork.
    let id_of = |correlation_id: &str| {
        let requests = server.requests();
        let mut events = requests.iter().flat_map(|request| &request.events);
        events.find(|event| event.correlation_id == correlation_id).expect("stored").event_id
    };
    let random = |id: ledgerline::Uuid| id.as_u128() as u64;
    assert_ne!(random(id_of("rr-child")), random(id_of("rr-after")));
}

/// The blocks aren't in the child, and what it has where they were is its own.
#[test]
fn the_last_handle_dropped_in_a_child_takes_none_of_its_memory() {
    let server = Scripted::storing();
    let store = Store::start(config(&server.url())).unwrap();
    store.record(&event("rr-1")).unwrap();
    store.close(WAIT).unwrap();
    let mut handle = Some(store);
    let status = in_a_child(|| {
        // Each large enough for a mapping of its own: some lie where the blocks were.
        let mut maps: Vec<_> = (0..32).map(|_| vec![1_u8; 4 << 20]).collect();
        drop(handle.take());
        maps.iter_mut().flatten().step_by(4_096).for_each(|byte| *byte = 2);
        i32::from(maps.iter().flatten().step_by(4_096).any(|byte| *byte != 2))
    });
    assert_eq!(status, Some(0), "a signal ended it");
}

#[test]
fn a_store_dropped_in_a_child_touches_none_of_its_threads() {
    let server = Scripted::storing();
    let mut config = config(&server.url());
    config.drop_timeout = Duration::from_secs(3_600); // A child waits for nothing.
    let mut store = Some(Store::start(config).unwrap());
    let status = in_a_child(|| {
        // The system may give them what named the engine's threads.
        let (go_on, waits) = mpsc::channel::<()>();
        let waits = Arc::new(Mutex::new(waits));
        let spawn = |_| {
            let waits = Arc::clone(&waits);
            std::thread::spawn(move || waits.lock().is_ok_and(|waits| waits.recv().is_err()))
        };
        let threads: Vec<_> = (0..4).map(spawn).collect();
        drop(store.take());
        drop(go_on);
        let joined = threads.into_iter().map(std::thread::JoinHandle::join);
        i32::from(joined.filter(|joined| matches!(joined, Ok(true))).count() != 4)
    });
    assert_eq!(status, Some(0));
    store.expect("the parent has it").close(WAIT).unwrap();
}

#[test]
fn a_future_that_a_child_is_the_first_to_poll_is_refused() {
    let server = Scripted::start(|_| Reply::Hang);
    let store = Store::start(config(&server.url())).unwrap();
    record_until_refused(&store, &event("rr-1"));
    let mut waiting = std::pin::pin!(store.record_async(&event("rr-waiting")));
    let status = in_a_child(|| {
        let polled = waiting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        i32::from(polled != Poll::Ready(Err(Refused::Forked)))
    });
    assert_eq!(status, Some(0));
}
