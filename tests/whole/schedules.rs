//! Random faults over real sockets: whatever server and network do to connections, what is said to
//! be stored is stored, and nothing else is lost.
//!
//! `LEDGERLINE_CASES` runs more seeds; one that fails is printed, and `LEDGERLINE_SEED` runs it
//! alone.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ledgerline::{Stage, Store};
use ledgerline_testkit::{
    End, Network, Proxy, Reply, Scripted, WAIT, Way, assert_all_delivered, config, event,
};

const JSON_201: &[u8] = b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\n";

/// What the server does about its next request: mostly wrong things, until it has had its fun.
fn reply(random: &mut fastrand::Rng, faults_left: &mut u32) -> Reply {
    if *faults_left == 0 || random.u8(0..3) == 0 {
        return Reply::Store;
    }
    *faults_left -= 1;
    match random.u8(0..13) {
        0 => Reply::Close,
        1 => Reply::Hang,
        2 => Reply::StoreAndCut { bytes: 0 },
        3 => Reply::StoreAndCut { bytes: random.usize(1..100) },
        4 => Reply::StoreAndMore(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        5 => Reply::Garbage(b"\x16\x03\x01\x02\x00\x01"),
        6 => Reply::Garbage(
            b"HTTP/1.1 201 Created\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        ),
        7 => Reply::Garbage(JSON_201),
        8 => Reply::status([500, 502, 504][random.usize(0..3)]),
        9 => Reply::status([503, 429, 408][random.usize(0..3)]),
        10 => Reply::StoreAndClose,
        _ => Reply::Answer {
            status: 503,
            head: "connection: close\r\n".to_owned(),
            body: String::new(),
        },
    }
}

/// One way of the next connection: mostly a bad one, until the network has had its fun.
fn way(random: &mut fastrand::Rng, faults_left: &mut u32, bytes_max: usize) -> Way {
    let mut way = Way::default();
    if *faults_left == 0 || random.bool() {
        return way;
    }
    *faults_left -= 1;
    match random.u8(0..8) {
        0 => way.latency = Duration::from_millis(random.u64(1..5)),
        1 => way.piece_bytes = random.usize(1..200),
        2..4 => way.end = Some((random.usize(0..bytes_max), End::Reset)),
        4..6 => way.end = Some((random.usize(0..bytes_max), End::HalfClose)),
        _ => way.end = Some((random.usize(0..bytes_max), End::Hang)),
    }
    way
}

fn run(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut faults_left = random.u32(0..12);
    let mut server_random = random.fork();
    let server = Scripted::start(move |_| reply(&mut server_random, &mut faults_left));
    for _ in 0..random.u32(0..4) {
        server.reset_next(random.usize(0..5_000));
    }
    let (mut network_random, mut network_faults_left) = (random.fork(), random.u32(0..8));
    let network = Proxy::start(server.addr(), move |_| {
        let (random, faults_left) = (&mut network_random, &mut network_faults_left);
        let up = way(random, faults_left, 100_000);
        Network { up, down: way(random, faults_left, 5_000) }
    });
    let mut config = config(&network.url());
    config.batch_events_max = random.usize(1..200);
    config.connections_max = random.usize(1..6);
    config.pipeline_depth_max = random.usize(1..4);
    config.request_timeout = Duration::from_millis(60);
    let store = Store::start(config).expect("a valid configuration");
    let names: Vec<_> = (0..random.usize(1..400)).map(|number| format!("rr-{number}")).collect();
    let receipts: Vec<_> = names
        .iter()
        .map(|name| {
            if random.u8(0..50) == 0 {
                let _ = store.flush(Duration::from_millis(random.u64(0..5)));
            }
            store.record_wait(&event(name), WAIT).expect("there is room in time")
        })
        .collect();
    for receipt in receipts {
        store.wait(receipt, Stage::Stored, WAIT).expect("it is stored in the end");
    }
    assert_all_delivered(
        &store.close(WAIT).expect("all is well").report.accounts,
        names.len() as u64,
    );
    let stored: HashSet<_> = server.stored().into_iter().map(|it| it.correlation_id).collect();
    assert!(names.iter().all(|name| stored.contains(name)), "what is said to be stored is");
    assert_eq!(server.stored_count(), names.len(), "and once");
}

#[test]
fn whatever_happens_to_connections_each_event_is_stored_once() {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse().ok());
    if let Some(seed) = number("LEDGERLINE_SEED") {
        return run(seed);
    }
    let first = fastrand::u64(..1 << 48);
    let cases = number("LEDGERLINE_CASES").unwrap_or(200);
    let next = AtomicU64::new(first);
    std::thread::scope(|scope| {
        // Most of a case's time is waiting for timeouts.
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + cases {
                        return;
                    }
                    let result = std::panic::catch_unwind(|| run(seed));
                    assert!(result.is_ok(), "LEDGERLINE_SEED={seed} fails");
                }
            });
        }
    });
}
