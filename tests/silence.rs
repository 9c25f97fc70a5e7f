//! An engine's thread that is stuck is seen from another.
//!
//! In a process of its own: it takes the log for itself.

use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use ledgerline::{Cause, LossHook, Store};
use ledgerline_testkit::{Log, Reply, Scripted, WAIT, config, event};

#[test]
fn a_stuck_engine_is_reported_meanwhile_and_afterwards() {
    let log = Log::take();
    let server = Scripted::start(|_| Reply::status(503));
    let mut config = config(&server.url());
    config.retries_max = Some(0);
    let (go_on, stuck) = mpsc::channel::<()>();
    let stuck = Mutex::new(stuck);
    // A hook is called on the engine's thread, and must not do this.
    config.on_loss = Some(LossHook::new(move |_| {
        let _ = stuck.lock().expect("called by one thread").recv();
    }));
    let store = Store::start(config).unwrap();
    store.record(&event("rr-1")).unwrap();
    log.wait_for("the audit engine is silent", WAIT);
    assert!(log.text().contains("driver busy"), "{}", log.text());
    assert!(store.silence() >= Duration::from_secs(1));
    assert!(store.report(Duration::ZERO).is_none());

    drop(go_on);
    log.wait_for("the audit engine goes on", WAIT);
    let deadline = Instant::now() + WAIT;
    while store.silence() > Duration::ZERO {
        assert!(Instant::now() < deadline, "{:?}", store.silence());
    }
    let report = store.close(WAIT).unwrap().report;
    assert!(report.blocked_ms.of(Cause::DriverBusy) >= 1_000, "{:?}", report.blocked_ms);
}
