//! Where the newest events matter more than the oldest, the oldest make room, each one counted.

use std::time::Duration;

use ledgerline::{Config, Overflow, Settled, Stage, Store, WaitError};
use ledgerline_testkit::{Gate, Reply, ReservedPort, Scripted, WAIT, config, event};

fn evicting(url: &str) -> Config {
    let mut config = config(url);
    config.lanes = 1;
    config.buffer_bytes = Some(8 << 20);
    config.overflow = Overflow::EvictOldest;
    config.lost_events_max = 0; // What is evicted is gone.
    config
}

#[test]
fn during_an_outage_the_oldest_make_room_and_the_newest_are_delivered() {
    const EVENTS: usize = 60_000;
    let port = ReservedPort::take();
    let store = Store::start(evicting(&port.url())).unwrap();
    let names: Vec<_> = (0..EVENTS).map(|number| format!("rr-{number}")).collect();
    let receipts: Vec<_> = names
        .iter()
        .map(|name| store.record_wait(&event(name), WAIT).expect("the oldest make room"))
        .collect();
    let accounts = store.accounts();
    assert_eq!(accounts.accepted, EVENTS as u64);
    assert!(accounts.dropped.evicted > 0 && accounts.is_balanced(), "{accounts:?}");
    let server = port.listen(|_| Reply::Store);
    let mut evicted = 0;
    for (name, receipt) in names.iter().zip(receipts) {
        match store.wait(receipt, Stage::Stored, WAIT) {
            Ok(_) => assert!(server.has_stored(name), "{name}"),
            Err(WaitError::Undelivered { outcome: Settled::Evicted, .. }) => {
                assert!(!server.has_stored(name), "{name}");
                evicted += 1;
            }
            Err(error) => panic!("{name}: {error}"),
        }
    }
    store.close(WAIT).unwrap();
    let accounts = store.accounts();
    assert_eq!((accounts.dropped.evicted, accounts.pending), (evicted, 0), "{accounts:?}");
    assert_eq!(accounts.delivered + evicted, EVENTS as u64);
    assert!(accounts.delivered > EVENTS as u64 / 10, "a buffer's worth is kept: {accounts:?}");
    assert!(server.has_stored(&names[EVENTS - 1]) && !server.has_stored(&names[0]));
}

#[test]
fn what_is_on_its_way_is_not_evicted() {
    let gate = Gate::new();
    let server = Scripted::start({
        let gate = gate.clone();
        move |_| Reply::Store.after(&gate)
    });
    let mut config = evicting(&server.url());
    config.connections_max = 1;
    config.flush_interval = Duration::from_millis(1);
    let store = Store::start(config).unwrap();
    let first = store.record(&event("rr-first")).unwrap();
    store.wait(first, Stage::Sent, WAIT).unwrap();
    while store.accounts().dropped.evicted == 0 {
        let _ = store.record_wait(&event("rr-filler"), Duration::from_millis(1));
    }
    gate.open();
    store.wait(first, Stage::Stored, WAIT).expect("it was on its way");
    store.close(WAIT).unwrap();
    assert!(store.accounts().is_balanced());
}

#[test]
fn without_an_overflow_nothing_is_evicted() {
    let server = Scripted::storing();
    let store = Store::start(evicting(&server.url())).unwrap();
    for _ in 0..5_000 {
        store.record_wait(&event("rr-1"), WAIT).unwrap();
        if store.accounts().pending > 1_000 {
            store.flush(WAIT).unwrap();
        }
    }
    let accounts = store.close(WAIT).unwrap().report.accounts;
    assert_eq!((accounts.delivered, accounts.dropped.evicted), (5_000, 0));
}
