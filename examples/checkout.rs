//! How a service's own tests ask whether it records what it must: against a store whose DataStorage
//! is a memory, with outages on demand.
//!
//! ```toml
//! [dev-dependencies]
//! ledgerline = { version = "0.1", features = ["testing"] }
//! ```
//!
//! ```console
//! $ cargo test -p ledgerline-examples --test checkout
//! ```

use std::time::Duration;

use ledgerline::testing::{Fault, MemoryStorage};
use ledgerline::{Category, Event, Outcome, Receipt, Refused, Stage, Store};
use serde::Serialize;

/// The service: it may not say that a payment was taken before the trail has it.
struct Checkout {
    audit: Store,
}

#[derive(Serialize)]
struct Payment<'a> {
    cents: u64,
    card: &'a str,
}

impl Checkout {
    fn pay(&self, order: &str, cents: u64) -> Result<&'static str, Refused> {
        let receipt = self.record(order, cents)?;
        match self.audit.wait(receipt, Stage::Stored, Duration::from_millis(500)) {
            Ok(_) => Ok("paid"),
            Err(_) => Ok("pending"), // the event is held, and will be delivered
        }
    }

    fn record(&self, order: &str, cents: u64) -> Result<Receipt, Refused> {
        self.audit.record(
            &Event::new("payment.taken", Category::Other("checkout"), Outcome::Success)
                .with_correlation_id(order)
                .with_resource_type("order")
                .with_resource_id(order)
                .with_data(&Payment { cents, card: "**** 4242" }),
        )
    }
}

fn checkout() -> (MemoryStorage, Checkout) {
    let storage = MemoryStorage::new();
    let audit = storage.start();
    (storage, Checkout { audit })
}

#[test]
fn a_payment_is_on_the_trail_before_it_is_confirmed() {
    let (storage, checkout) = checkout();
    assert_eq!(checkout.pay("order-1", 1_250), Ok("paid"));
    let events = storage.wait_for("order-1", 1).expect("it was confirmed");
    assert_eq!(events[0].event_type, "payment.taken");
    assert_eq!(events[0].resource_id.as_deref(), Some("order-1"));
    assert_eq!(events[0].event_data, r#"{"cents":1250,"card":"**** 4242"}"#);
}

#[test]
fn an_outage_delays_the_confirmation_and_loses_nothing() {
    let (storage, checkout) = checkout();
    storage.fail(Fault::Unreachable);
    assert_eq!(checkout.pay("order-2", 99), Ok("pending"));
    storage.recover();
    storage.wait_for("order-2", 1).expect("it is delivered after the outage");
}

#[test]
fn a_lost_answer_does_not_double_the_payment() {
    let (storage, checkout) = checkout();
    storage.fail_next(Fault::AnswerLost, 1);
    assert_eq!(checkout.pay("order-3", 99), Ok("paid"));
    assert_eq!(storage.events().len(), 1, "sent twice, stored once");
}
