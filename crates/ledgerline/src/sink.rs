//! Where batches go, and what comes back from there.
//!
//! The one place that knows the protocol: behind it, delivery sees batches and verdicts only.

pub(crate) mod http;
