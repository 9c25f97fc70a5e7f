//! What callers do with events: hold them, send them to other threads, build them.

use ledgerline::{Category, Envelope, Event, Json, Outcome, Store};
use ledgerline_testkit::{Scripted, WAIT, config};
use tokio::runtime::Builder;

/// A handler that records, awaits something, and still has its event.
async fn handle(store: Store, name: String) {
    let data = Envelope {
        version: "1.0",
        service: "gateway",
        operation: "received",
        status: "ok",
        payload: &Json("{}"),
        source_payload: None,
    };
    let event = Event::new(
        "gateway.received",
        Category::Gateway,
        "received",
        Outcome::Success,
        &name,
        &data,
    );
    store.record_async(&event).await.unwrap();
    tokio::task::yield_now().await;
    store.record(&event).unwrap();
}

#[test]
fn a_spawned_future_may_hold_an_event_across_an_await() {
    let server = Scripted::storing();
    let store = Store::start(config(&server.url())).unwrap();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let handler = runtime.spawn(handle(store.clone(), "rr-1".to_owned()));
    runtime.block_on(handler).unwrap();
    store.flush(WAIT).unwrap();
    assert_eq!(server.stored().len(), 2);
}
