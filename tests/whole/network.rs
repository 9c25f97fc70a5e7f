//! Whatever the network does, every event is stored, once at a server that keeps our ids, and what
//! was the network's fault is nobody else's.

use std::time::Duration;

use ledgerline::{Config, Report, Store};
use ledgerline_testkit::{
    End, Network, Proxy, Reply, Scripted, WAIT, Way, assert_all_delivered, config, event,
};

const EVENTS: u64 = 300;

/// Delivers events over a network whose first connections are like this, and asserts that all are
/// stored once.
#[track_caller]
fn deliver(
    server: &Scripted,
    bad: usize,
    network: &Network,
    change: impl FnOnce(&mut Config),
) -> (Proxy, Report) {
    let network = network.clone();
    let proxy = Proxy::start(server.addr(), move |connection| {
        if connection < bad { network.clone() } else { Network::default() }
    });
    let mut config = config(&proxy.url());
    config.batch_events_max = 50;
    config.request_timeout = Duration::from_millis(200);
    change(&mut config);
    let store = Store::start(config).expect("a valid configuration");
    for _ in 0..EVENTS {
        store.record(&event("rr-1")).expect("there is room");
    }
    let report = store.close(WAIT).expect("all is delivered").report;
    assert_all_delivered(&report.accounts, EVENTS);
    assert_eq!(server.stored_count() as u64, EVENTS);
    (proxy, report)
}

/// A connection that ends after so many bytes, in each direction and at many places: within the
/// head, the body, the answer's head and content, and behind them.
#[test]
fn a_connection_that_is_cut_anywhere() {
    const REQUEST: [usize; 7] = [0, 1, 90, 300, 5_000, 20_000, 40_000];
    const ANSWER: [usize; 7] = [0, 1, 20, 70, 120, 2_000, 2_200];
    for end in [End::Reset, End::HalfClose, End::Hang] {
        for (request_bytes, answer_bytes) in REQUEST.into_iter().zip(ANSWER) {
            let cut_up = Network { up: Way::ending(request_bytes, end), ..Network::default() };
            let cut_down = Network { down: Way::ending(answer_bytes, end), ..Network::default() };
            for network in [cut_up, cut_down] {
                let server = Scripted::storing();
                let (proxy, report) = deliver(&server, 2, &network, |_| {});
                assert!(proxy.accepted() > 2, "{network:?}");
                assert!(report.batches.failed.total() > 0, "{network:?}");
            }
        }
    }
}

#[test]
fn a_network_that_is_slow_and_one_that_drips() {
    let slow = Way { latency: Duration::from_millis(20), ..Way::default() };
    let dripping = Way { piece_bytes: 7, ..Way::default() };
    let narrow = Way { latency: Duration::from_millis(1), piece_bytes: 4_000, ..Way::default() };
    for way in [slow, dripping, narrow] {
        let server = Scripted::storing();
        let network = Network { up: way.clone(), down: way };
        let (_proxy, report) =
            deliver(&server, usize::MAX, &network, |config| config.request_timeout = WAIT);
        assert_eq!((report.batches.failed.total(), server.repeats()), (0, 0));
    }
}

/// 100 KB/s at most: all events together take more than a second, and a quarter of them doesn't
/// take the half of one that there is.
#[test]
fn a_network_that_is_too_narrow_for_a_batch_gets_smaller_ones() {
    let up = Way { latency: Duration::from_millis(10), piece_bytes: 1_000, ..Way::default() };
    let server = Scripted::storing();
    let network = Network { up, down: Way::default() };
    let (_proxy, report) = deliver(&server, usize::MAX, &network, |config| {
        config.batch_events_max = 1_000;
        config.connections_max = 1;
        config.request_timeout = Duration::from_millis(500);
    });
    assert!(report.batches.split > 0, "{report:?}");
}

/// A byte now and then doesn't make an answer that is in time.
#[test]
fn an_answer_that_drips_for_longer_than_there_is_time_is_given_up() {
    let down = Way { latency: Duration::from_millis(20), piece_bytes: 1, ..Way::default() };
    let server = Scripted::storing();
    let network = Network { up: Way::default(), down };
    let (_proxy, report) = deliver(&server, 1, &network, |_| {});
    assert!(report.batches.failed.ambiguous > 0 && server.repeats() > 0, "{report:?}");
}

/// What a proxy in between says by itself, while the request is still being written.
#[test]
fn an_early_answer_is_read_though_the_request_is_not_wholly_written() {
    const TOO_LARGE: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nconnection: close\r\n\
        content-length: 0\r\n\r\n";
    const BUSY: &[u8] = b"HTTP/1.1 503 Busy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    for (said, is_split) in [(TOO_LARGE, true), (BUSY, false)] {
        let server = Scripted::storing();
        let network = Network { up: Way::ending(9_000, End::Say(said)), ..Network::default() };
        let (_proxy, report) = deliver(&server, 1, &network, |_| {});
        assert_eq!(report.batches.split > 0, is_split, "{report:?}");
        assert_eq!(server.repeats(), 0, "the server never saw it");
    }
}

#[test]
fn nonsense_in_the_middle_of_a_connection() {
    const GARBAGE: &[u8] = b"\x16\x03\x01\x02\x00\x01 HTTP/1.1 201 Created\r\n\r\n";
    let server = Scripted::storing();
    let network = Network { down: Way::ending(3_000, End::Say(GARBAGE)), ..Network::default() };
    let (_proxy, report) = deliver(&server, 3, &network, |_| {});
    assert!(report.batches.failed.ambiguous > 0, "{report:?}");
}

#[test]
fn a_server_that_closes_after_answers_as_it_pleases() {
    let seed = fastrand::u64(..1 << 48);
    let mut random = fastrand::Rng::with_seed(seed);
    let server =
        Scripted::start(move |_| if random.bool() { Reply::StoreAndClose } else { Reply::Store });
    let perfect = Network::default();
    let (_proxy, report) = deliver(&server, 0, &perfect, |config| {
        config.batch_events_max = 5;
        config.pipeline_depth_max = 4;
    });
    // It has read a follower, or not; but its close says that it didn't look at it.
    assert_eq!(server.repeats(), 0, "seed {seed}: {report:?}");
    assert_eq!(report.batches.failed.ambiguous, 0, "seed {seed}: {report:?}");
}
