//! Recording makes no system call.
//!
//! In a process of its own, with a thread that the kernel ends at its first system call but that by
//! which it leaves: see `SECCOMP_MODE_FILTER` in seccomp(2).
#![expect(unsafe_code, reason = "there is no safe way to forbid a thread its system calls")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use ledgerline::Store;
use ledgerline_testkit::{Scripted, WAIT, assert_all_delivered, config, event};

const EVENTS: u32 = 500;

/// From here on the thread may do nothing but compute, and leave by `exit`.
fn forbid_system_calls() {
    let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let (load, equal, end) =
        (libc::BPF_LD | libc::BPF_W, libc::BPF_JMP | libc::BPF_JEQ, libc::BPF_RET);
    let filter = [
        instruction(load as u16, 0, 0, 0), // The call's number.
        instruction(equal as u16, 0, 1, libc::SYS_exit as u32),
        instruction(end as u16, 0, 0, libc::SECCOMP_RET_ALLOW),
        instruction(end as u16, 0, 0, libc::SECCOMP_RET_KILL_THREAD),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: no pointer is handed over.
    let is_bound = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } == 0;
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the kernel copies the program, whose length is right.
    let is_set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) } == 0;
    assert!(is_bound && is_set, "the kernel takes the filter");
}

#[test]
fn a_warm_thread_records_without_any_system_call() {
    let server = Scripted::storing();
    let mut config = config(&server.url());
    // So that nobody sleeps whom a record would have to wake, and all of them fit into a block.
    config.flush_interval = Duration::from_secs(600);
    config.lanes = 1;
    let store = Store::start(config).unwrap();
    store.record(&event("rr-first")).unwrap();
    while store.report(WAIT).expect("the engine answers").accounts.accepted < 1 {}

    let recorded = Arc::new(AtomicU32::new(0));
    let thread = {
        let (store, recorded) = (store.clone(), Arc::clone(&recorded));
        std::thread::spawn(move || {
            store.record(&event("rr-warm")).expect("there is room");
            forbid_system_calls();
            for _ in 0..EVENTS {
                if store.record(&event("rr-1")).is_ok() {
                    recorded.fetch_add(1, Ordering::Relaxed);
                }
            }
            // SAFETY: ends this thread only; what it holds is leaked.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        })
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while recorded.load(Ordering::Relaxed) < EVENTS {
        let so_far = recorded.load(Ordering::Relaxed);
        assert!(Instant::now() < deadline, "the kernel ended it after {so_far} events");
    }
    std::mem::forget(thread); // It left nothing to be joined.
    assert_all_delivered(&store.close(WAIT).unwrap().report.accounts, u64::from(EVENTS) + 2);
}
