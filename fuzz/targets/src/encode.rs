//! Any strings in an event's fields: what is encoded is what serde_json reads back, and what is
//! refused leaves the buffer as it was, however little room it has.

use arbitrary::{Arbitrary, Unstructured};
use ledgerline_codec::{Category, Event, Identity, Json, Outcome, Timestamp, Uuid, encode};

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    room: u8,
    event_type: &'a str,
    correlation_id: &'a str,
    data: &'a str,
    actor_id: Option<&'a str>,
    namespace: Option<&'a str>,
    error_message: Option<&'a str>,
    duration_ms: Option<i32>,
    micros: i64,
}

/// Runs one input.
///
/// # Panics
/// If a promise is broken.
pub fn run(data: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let data = Json(input.data);
    let mut event = Event::new(input.event_type, Category::Gateway, Outcome::Success)
        .with_action("received")
        .with_correlation_id(input.correlation_id)
        .with_data(&data);
    event.actor_id = input.actor_id;
    event.namespace = input.namespace;
    event.error_message = input.error_message;
    event.duration_ms = input.duration_ms;
    event.event_timestamp = Timestamp::from_micros(input.micros);
    let identity = Identity {
        event_id: Uuid::from_u128(7),
        producer: "fuzz/0",
        producer_seq: u64::from(input.room),
        now: Timestamp::EPOCH,
    };
    let mut out = Vec::with_capacity(usize::from(input.room) + 6);
    out.extend_from_slice(b"before");
    if encode(&event, &identity, &mut out).is_err() {
        assert_eq!(out, b"before");
        return;
    }
    assert_eq!(&out[..7], b"before,");
    let read: serde_json::Value = serde_json::from_slice(&out[7..]).expect("it is JSON");
    assert_eq!(read["event_type"].as_str(), Some(input.event_type));
    assert_eq!(read["correlation_id"].as_str(), Some(input.correlation_id));
    let text = |name: &str| read.get(name).and_then(|value| value.as_str());
    assert_eq!(text("actor_id"), input.actor_id);
    assert_eq!(text("namespace"), input.namespace);
    assert_eq!(text("error_message"), input.error_message);
}
