//! When an event isn't sent although it is due, the report says why, and for how long.

use std::time::{Duration, Instant};

use ledgerline::{Cause, Config, LossHook, Report, Store};
use ledgerline_testkit::{
    Gate, Reply, ReservedPort, Scripted, WAIT, assert_all_delivered, config, event,
    record_until_refused,
};

/// The first report that is as wanted.
fn report_when(store: &Store, is_as_wanted: impl Fn(&Report) -> bool) -> Report {
    let deadline = Instant::now() + WAIT;
    loop {
        let report = store.report(WAIT).expect("the engine answers");
        if is_as_wanted(&report) {
            return report;
        }
        assert!(Instant::now() < deadline, "{report:#?}");
        std::thread::yield_now();
    }
}

/// An engine at this URL that has something due; its report once that cause has lasted.
fn blocked(url: &str, cause: Cause, change: impl FnOnce(&mut Config)) -> (Store, Report) {
    let mut config = config(url);
    config.flush_interval = Duration::from_millis(1);
    change(&mut config);
    let store = Store::start(config).expect("a valid configuration");
    for _ in 0..30 {
        store.record(&event("rr-1")).expect("there is room");
    }
    let report = report_when(&store, |report| report.blocked_ms.of(cause) >= 50);
    (store, report)
}

#[test]
fn no_connection() {
    let port = ReservedPort::take();
    let (store, report) = blocked(&port.url(), Cause::NoConnection, |_| {});
    assert_eq!(report.present.unavailable, Some(Cause::NoConnection));
    assert_eq!(report.present.connections, 0);
    assert!(report.batches.failed.no_connection > 0, "{report:?}");
    let _server = port.listen(|_| Reply::Store);
    assert_all_delivered(&store.close(WAIT).unwrap().report.accounts, 30);
}

#[test]
fn server_slow() {
    let gate = Gate::new();
    let held = gate.clone();
    let server = Scripted::start(move |_| Reply::Store.after(&held));
    let (store, report) = blocked(&server.url(), Cause::ServerSlow, |config| {
        config.batch_events_max = 10;
        config.connections_max = 1;
    });
    assert_eq!((report.present.unavailable, report.present.connections), (None, 1));
    gate.open();
    assert_all_delivered(&store.close(WAIT).unwrap().report.accounts, 30);
}

/// What the breaker is opened for, and what a request is then counted as.
#[test]
fn the_server_takes_nothing() {
    for (reply, cause) in [
        (Reply::status(503), Cause::Overloaded),
        (Reply::status(404), Cause::Misrouted),
        (Reply::problem(422, "validation-error"), Cause::Rejecting),
    ] {
        let server = Scripted::start(move |_| reply.clone());
        let (store, report) = blocked(&server.url(), cause, |config| config.batch_events_max = 1);
        let present = report_when(&store, |report| report.present.unavailable.is_some()).present;
        assert_eq!(present.unavailable, Some(cause));
        let failed = report.batches.failed;
        let of_its_class =
            if cause == Cause::Overloaded { failed.not_processed } else { failed.held };
        assert!(of_its_class > 0, "{failed:?}");
        store.close(Duration::ZERO).unwrap_err();
    }
}

#[test]
fn pool_full() {
    let gate = Gate::new();
    let held = gate.clone();
    let server = Scripted::start(move |_| Reply::Store.after(&held));
    let store = Store::start(config(&server.url())).unwrap();
    let (accepted, _) = record_until_refused(&store, &event("rr-1"));
    report_when(&store, |report| report.blocked_ms.of(Cause::PoolFull) >= 50);
    gate.open();
    let report = store.close(WAIT).unwrap().report;
    assert_all_delivered(&report.accounts, accepted);
    let again = report.blocked_ms.of(Cause::PoolFull);
    assert_eq!(store.report(WAIT).unwrap().blocked_ms.of(Cause::PoolFull), again);
}

#[test]
fn driver_busy() {
    const BUSY: Duration = Duration::from_millis(100);
    let server = Scripted::start(|_| Reply::status(503));
    let mut config = config(&server.url());
    config.retries_max = Some(0);
    // A hook is called on the engine's thread, and must not do this.
    config.on_loss = Some(LossHook::new(|_| std::thread::sleep(BUSY)));
    let store = Store::start(config).unwrap();
    store.record(&event("rr-1")).unwrap();
    let wanted = BUSY.as_millis() as u64;
    report_when(&store, |report| report.blocked_ms.of(Cause::DriverBusy) >= wanted);
}
