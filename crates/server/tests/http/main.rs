//! The service as its clients see it: over a socket, through the public API alone.

mod client;
mod fixture;
mod ingest;
mod lifecycle;
mod query;
mod writer;
