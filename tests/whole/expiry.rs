//! Nothing is dropped for its age, unless the configuration says so.

use std::time::Duration;

use ledgerline::{Settled, Standing, Store};
use ledgerline_testkit::{Reply, Scripted, WAIT, config, event};

/// Takes its second, the shortest age that can be set.
#[test]
fn events_are_given_up_after_the_age_that_was_set_and_newer_ones_are_not() {
    let server = Scripted::start(|request| match request.events[0].correlation_id.as_str() {
        "rr-kept" => Reply::Store,
        _ => Reply::status(503),
    });
    let mut config = config(&server.url());
    config.give_up_after = Some(Duration::from_secs(1));
    config.batch_events_max = 1;
    let store = Store::start(config).unwrap();
    let given_up = store.record(&event("rr-given-up")).unwrap();
    let lost = store.flush(WAIT).unwrap_err();
    assert!(matches!(lost, ledgerline::FlushError::Lost(lost) if lost.dropped == 1), "{lost}");
    let (outcome, is_possibly_stored) = (Settled::Expired, false);
    assert_eq!(store.standing(given_up), Standing::Settled { outcome, is_possibly_stored });
    let accounts = store.accounts();
    assert_eq!((accounts.dropped.expired, accounts.dropped.total()), (1, 1));

    store.record(&event("rr-kept")).unwrap();
    store.flush(WAIT).unwrap();
    assert!(server.has_stored("rr-kept"));
    assert!(store.accounts().is_balanced());
}
