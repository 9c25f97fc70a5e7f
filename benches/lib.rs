//! What the benchmarks measure with: one realistic event of about 700 bytes.

use ledgerline_codec::{Category, Event, EventData, Outcome};

/// `event_data` of the event.
pub const DATA: &str = concat!(
    r#"{"event_type":"gateway.signal.received","signal_type":"alert","#,
    r#""signal_name":"KubePodCrashLooping","namespace":"payments","#,
    r#""fingerprint":"4be1c0a7d2f39e58b6a0417c9d3e2f10","severity":"critical","#,
    r#""resource_kind":"Deployment","resource_name":"payment-api"}"#
);

/// The event, around `data`.
#[must_use]
pub fn event<'a>(data: &'a dyn EventData) -> Event<'a> {
    Event::new("gateway.signal.received", Category::Gateway, Outcome::Success)
        .with_correlation_id("rr-4be1c0a7d2f3-1767571200")
        .with_data(data)
        .with_actor_type("authenticated-service")
        .with_actor_id("system:serviceaccount:monitoring:alertmanager-main")
        .with_resource_type("Signal")
        .with_namespace("payments")
        .with_cluster_id("prod-eu-1")
        .with_severity("critical")
}
