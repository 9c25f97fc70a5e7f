//! Any text as ready JSON: what the checker accepts, serde_json accepts as an object, and nothing
//! is appended for what it refuses.

use ledgerline_codec::{EventData, Json};

/// Runs one input.
///
/// # Panics
/// If a promise is broken.
pub fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let mut out = b"before".to_vec();
    match Json(text).append_to(&mut out) {
        Ok(()) => {
            let object: serde_json::Map<String, serde_json::Value> =
                serde_json::from_slice(&out[6..]).expect("what is accepted is an object");
            drop(object);
            assert_eq!(&out[6..], text.trim_matches([' ', '\t', '\n', '\r']).as_bytes());
        }
        Err(_) => assert_eq!(out, b"before"),
    }
}
