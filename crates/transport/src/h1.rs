//! The HTTP/1.1 machine of one connection: no sockets, no clock, no runtime.
//!
//! [`Pipeline`] queues requests, offers their bytes as slices, reads responses as the bytes arrive
//! in whatever pieces, and matches them to the requests in order (RFC 9112 section 9.3.2).
//!
//! Invariant: the outcome depends on the bytes and on what was written before them, never on how
//! the bytes were cut into reads.
//!
//! Limit: it sends what it is given and understands responses only; requests are neither built nor
//! checked here. It holds at most one response, within [`Limits`].

mod body;
mod chunked;
mod head;
mod lines;
mod long_head;
mod pipeline;
mod response;

pub use pipeline::{Event, Pipeline};

/// How much of a response a [`Pipeline`] takes.
///
/// What is above is read to its end and thrown away, and its answer says so; where the end can't be
/// found, the connection is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Status line and header fields; as much again for trailer fields and for chunk extensions.
    pub head_bytes_max: usize,
    /// Header fields, and trailer fields.
    pub headers_max: usize,
    /// Content, without its framing.
    pub body_bytes_max: usize,
    /// Interim (1xx) responses before a final one.
    pub interim_max: usize,
    /// Bytes of head, and again of content, that are read of a response above another limit for the
    /// sake of the responses behind it. With more, the connection ends there. Time bounds it too:
    /// the request timeout.
    pub skipped_bytes_max: u64,
}

impl Default for Limits {
    /// 16 KiB and 64 fields are what common servers send at most by default; 1 MiB holds the ids of
    /// some 25,000 events. Beyond 64 MiB a new connection costs less than reading on.
    fn default() -> Self {
        Self {
            head_bytes_max: 16 * 1_024,
            headers_max: 64,
            body_bytes_max: 1_024 * 1_024,
            interim_max: 16,
            skipped_bytes_max: 64 * 1_024 * 1_024,
        }
    }
}
