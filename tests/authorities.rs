//! Where no `ca_file` is named, the system's authorities are trusted.
//!
//! In a process of its own: it tells the process which the system's are.
#![expect(unsafe_code, reason = "sets a variable of the environment")]

use std::time::Duration;

use ledgerline::Store;
use ledgerline_testkit::{Authority, Scripted, WAIT, config, event};

#[test]
fn the_systems_authorities_are_trusted_and_no_others() {
    let (server, authority) = (Scripted::storing(), Authority::new());
    // SAFETY: the only test of its process, which has started no thread that reads the environment.
    unsafe { std::env::set_var("SSL_CERT_FILE", authority.ca_file()) };
    let (known, unknown) = (authority.front(server.addr(), false), Authority::new());
    let unknown = unknown.front(server.addr(), false);

    let store = Store::start(config(&unknown.url())).unwrap();
    store.record(&event("rr-unknown")).unwrap();
    store.flush(Duration::from_millis(300)).unwrap_err();
    assert_eq!(server.requests().len(), 0);

    let store = Store::start(config(&known.url())).unwrap();
    store.record(&event("rr-known")).unwrap();
    store.flush(WAIT).unwrap();
    assert!(server.has_stored("rr-known") && !server.has_stored("rr-unknown"));
}
