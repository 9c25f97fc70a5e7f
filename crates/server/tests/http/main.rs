//! The service as its clients see it: over a socket, through the public API alone.

#![expect(clippy::unwrap_used, reason = "a test that can't go on should panic, helpers too")]

mod client;
mod fixture;
mod ingest;
mod lifecycle;
mod query;
mod writer;
