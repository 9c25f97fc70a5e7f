//! Any bytes as the body of a batch: no panic, and what is accepted is what serde_json reads there,
//! with `event_data` byte for byte.

use ledgerline_codec::parse::{Scratch, parse_batch};

/// Runs one input.
///
/// # Panics
/// If a promise is broken.
pub fn run(body: &[u8]) {
    let mut scratch = Scratch::default();
    let Ok(events) = parse_batch(body, 1_000, &mut scratch) else { return };
    let oracle: Vec<serde_json::Map<String, serde_json::Value>> =
        serde_json::from_slice(body).expect("what is accepted is JSON");
    assert_eq!(events.len(), oracle.len());
    for (event, expected) in events.iter().zip(&oracle) {
        assert_eq!(Some(event.event_type), expected["event_type"].as_str());
        assert_eq!(Some(event.correlation_id), expected["correlation_id"].as_str());
        assert_eq!(event.namespace, expected.get("namespace").and_then(|value| value.as_str()));
        let data: serde_json::Value =
            serde_json::from_str(event.event_data).expect("a verbatim object");
        assert_eq!(data, expected["event_data"]);
        let start = event.event_data.as_ptr() as usize - body.as_ptr() as usize;
        assert!(start + event.event_data.len() <= body.len(), "it lies in the untouched body");
    }
}
