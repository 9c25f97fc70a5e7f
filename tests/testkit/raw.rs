//! Events as JSON, for requests that no engine would make.

use std::time::{SystemTime, UNIX_EPOCH};

use ledgerline::Timestamp;
use serde_json::{Value, json};

/// An event as it lies on the wire, with the required fields, the id of this number, the present
/// time, and then these fields, of which a null takes one out.
///
/// # Panics
/// If the fields are no object.
#[must_use]
pub fn raw_event(number: u64, fields: Value) -> Value {
    let mut event = json!({
        "event_id": format!("01990000-0000-7000-8000-{number:012x}"),
        "version": "1.0",
        "event_type": "gateway.signal.received",
        "event_timestamp": time_text(now_micros()),
        "event_category": "gateway",
        "event_action": "received",
        "event_outcome": "success",
        "correlation_id": "rr-1",
        "event_data": {"number": number},
    });
    let (Value::Object(event_fields), Value::Object(fields)) = (&mut event, fields) else {
        panic!("the fields are no object");
    };
    event_fields.extend(fields);
    event_fields.retain(|_, value| !value.is_null());
    event
}

/// The system's clock, in microseconds since 1970.
///
/// # Panics
/// If it shows a time before 1970.
#[must_use]
pub fn now_micros() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    i64::try_from(since_epoch.as_micros()).expect("and before the year 294,000")
}

/// The text of a time on the wire.
///
/// # Panics
/// If the time is outside the years 0001 to 9999.
#[must_use]
pub fn time_text(micros: i64) -> String {
    Timestamp::from_micros(micros).expect("a year from 0001 to 9999").to_string()
}
