//! The fuzz targets: each takes any bytes, and panics if a promise is broken.
//!
//! Plain functions, so that the ordinary tests replay the corpora as the fuzzer does. Invariant: a
//! target depends on its bytes alone: no clock decides, nothing random, no file. Limit: what needs
//! a socket or a thread is not fuzzed here.

pub mod canary;
pub mod delivery;
pub mod encode;
pub mod event_data;
pub mod parse_batch;
pub mod pipeline;
pub mod verdict;

/// One target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: of the corpus, of the fuzzer's binary, and of the module here.
    pub name: &'static str,
    /// Panics if these bytes break a promise.
    pub run: fn(&[u8]),
}

/// All that must hold; the canary, which must not, isn't among them.
pub const TARGETS: &[Target] = &[
    Target { name: "delivery", run: delivery::run },
    Target { name: "encode", run: encode::run },
    Target { name: "event_data", run: event_data::run },
    Target { name: "parse_batch", run: parse_batch::run },
    Target { name: "pipeline", run: pipeline::run },
    Target { name: "verdict", run: verdict::run },
];
