//! The memory of an engine is no more than its configuration adds up.
//!
//! In a process of its own, because it measures the process.

use std::fs;
use std::net::TcpListener;
use std::time::Duration;

use ledgerline::Store;
use ledgerline_testkit::{WAIT, config, event};

/// Resident memory, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).expect("Linux says it");
    kib.trim().parse::<u64>().expect("a number") << 10
}

#[test]
fn a_full_engine_takes_no_more_memory_than_it_said() {
    // Takes connections into its backlog, and never reads.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(&format!("http://{}", silent.local_addr().unwrap()));
    config.buffer_bytes = Some(64 << 20);
    config.flush_interval = Duration::from_millis(1);
    // As small as they get: so many more notes there are.
    let small = event("r");
    let memory = config.memory().unwrap();
    let before = resident();
    let store = Store::start(config).unwrap();
    let mut accepted = 0_u64;
    loop {
        while store.record(&small).is_ok() {
            accepted += 1;
        }
        // Whatever the engine has to note of them is noted by now.
        let report = store.report(WAIT).expect("the engine answers");
        if report.accounts.accepted == accepted && report.present.blocks_free == 0 {
            break;
        }
    }
    let taken = resident() - before;
    assert!(accepted > 100_000, "{accepted}");
    let slack = 2 << 20; // Threads' stacks, the allocator's own.
    assert!(taken <= memory.total_bytes() + slack, "{taken} of {memory:?}");
    assert!(taken > memory.blocks_bytes, "{taken}: all of it is there");
    store.close(Duration::ZERO).unwrap_err();
}
