//! Any text as ready JSON: what the checker accepts, serde_json accepts as an object, and nothing
//! is appended for what it refuses.
#![no_main]

use ledgerline_codec::{EventData, Json};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
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
});
