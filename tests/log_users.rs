//! Whoever listens to `log` instead of `tracing` sees what is lost, and stderr is spared.
//!
//! In a process of its own: it takes `log` for itself.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ledgerline::{Config, Store};
use ledgerline_testkit::{Reply, Scripted, WAIT, event};

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(record.args().to_string());
    }

    fn flush(&self) {}
}

#[test]
fn a_logger_is_told_of_each_loss() {
    log::set_logger(&Lines).unwrap();
    log::set_max_level(log::LevelFilter::Error);
    let server = Scripted::start(|_| Reply::Hang);
    let mut config = Config::new(server.url());
    config.flush_interval = Duration::from_millis(10);
    let store = Store::start(config).unwrap();
    for _ in 0..3 {
        store.record(&event("rr-1")).unwrap();
    }
    server.wait_for_requests(1, WAIT);
    store.close(Duration::ZERO).unwrap_err();
    let lines = LINES.lock().unwrap();
    let lost = lines.iter().filter(|line| line.contains("[AUDIT] {") && line.contains("rr-1"));
    assert_eq!(lost.count(), 3, "{lines:?}");
}
