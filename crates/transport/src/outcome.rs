//! What can become of a request, and why.
//!
//! Invariant: [`Certainty::NotProcessed`] is only said where it is certain; every doubt is
//! [`Certainty::Ambiguous`].
//!
//! Limit: a cause describes the first thing that went wrong with a connection, not what followed.

use std::{fmt, io, net::SocketAddr, time::Duration, time::Instant};

use bytes::Bytes;
use thiserror::Error;

/// What happened to a request. The last two are final, and one of them always comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The first byte of the request was written at this time.
    FirstByte(Instant),
    /// The server answered, whatever the status.
    Answered(Answer),
    /// There is no answer, and none will come.
    Failed(Failure),
}

/// The server's final response to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code, 200 to 999. RFC 9110 section 15 wants 600 and more read as a 5xx.
    pub status: u16,
    /// The first `content-type`, as it was sent.
    pub content_type: Option<String>,
    /// The first `retry-after`, as it was sent: seconds or a date.
    pub retry_after: Option<String>,
    /// The first `date`, as it was sent: the server's clock when it answered.
    pub date: Option<String>,
    /// The content, without its framing. Empty where the response was [too large](Self::too_large).
    pub body: Bytes,
    /// The limit that the response was above, if it was. What is above is read and thrown away, so
    /// that the status is known all the same; the connection may end with it.
    pub too_large: Option<TooLarge>,
    /// Whether the response began before its request was wholly handed to the system: read while
    /// bytes of the request were unwritten. Such a success is none, since the server has not seen
    /// all of what it claims to have taken.
    pub is_early: bool,
    /// How many final responses this connection gave before. The first (0) can't be a late or
    /// surplus answer to an earlier request.
    pub number_on_connection: u64,
}

impl Answer {
    /// A response without fields and content, in time, the first on its connection.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self {
            status,
            content_type: None,
            retry_after: None,
            date: None,
            body: Bytes::new(),
            too_large: None,
            is_early: false,
            number_on_connection: 0,
        }
    }
}

/// Why a request has no answer, and what that says about the server.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{cause} ({certainty})")]
pub struct Failure {
    /// Whether the server may have processed the request.
    pub certainty: Certainty,
    /// What went wrong.
    pub cause: Cause,
}

/// Whether a request without an answer may have been processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// The request was not wholly written, or the server said that it would process nothing more
    /// on this connection (RFC 9112 section 9.6). Sending it again is safe.
    NotProcessed,
    /// The request was wholly written: the server may or may not have processed it.
    Ambiguous,
}

impl fmt::Display for Certainty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotProcessed => "certainly not processed",
            Self::Ambiguous => "possibly processed",
        })
    }
}

/// What went wrong with a connection.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Cause {
    /// The host's name could not be resolved.
    #[error("could not resolve {host}: {fault}")]
    Resolve {
        /// The name.
        host: Box<str>,
        /// What the resolver said.
        fault: IoFault,
    },
    /// The last of the host's addresses could not be connected to.
    #[error("could not connect to {address}: {fault}")]
    Connect {
        /// The address.
        address: SocketAddr,
        /// What the system said: refused, unreachable and so on.
        fault: IoFault,
    },
    /// Resolving the name, or connecting to an address, took too long.
    #[error("no connection to {to} within {timeout_ms} ms")]
    ConnectTimeout {
        /// The name or the address.
        to: Box<str>,
        /// The time that it was given.
        timeout_ms: u64,
    },
    /// No encrypted connection could be agreed on: a certificate that isn't trusted, or the like.
    #[error("no TLS with {host}: {why}")]
    Tls {
        /// The host.
        host: Box<str>,
        /// What the TLS library, or the file system, said.
        why: Box<str>,
    },
    /// The answer was not complete in time.
    #[error("no complete answer within {timeout_ms} ms")]
    RequestTimeout {
        /// The time that it was given.
        timeout_ms: u64,
    },
    /// The connection was given up, because an earlier request got no answer in time.
    #[error("connection given up for an earlier request without an answer")]
    GivenUpEarlier,
    /// The connection broke, for example by a reset.
    #[error("connection broke: {0}")]
    Broken(IoFault),
    /// The server closed the connection instead of answering.
    #[error("connection closed by the server before it answered")]
    ClosedByServer,
    /// The server closed the connection in the middle of its answer.
    #[error("connection closed by the server in the middle of its answer")]
    Truncated,
    /// The connection ended with the answer to an earlier request.
    #[error("connection ended with the answer to an earlier request")]
    EndedEarlier,
    /// The request was pushed onto a connection that takes no more.
    #[error("connection takes no more requests")]
    NotOpen,
    /// The answer breaks the rules of HTTP/1.1.
    #[error("garbled answer: {0}")]
    Garbled(Garbled),
    /// The answer is larger than a limit allows, so that its end can't be found.
    #[error("answer has {0}")]
    TooLarge(TooLarge),
    /// The server sent something although no request was waiting for an answer.
    #[error("the server sent an answer to no request")]
    Unsolicited,
    /// The connection's task is gone, because its runtime is.
    #[error("the connection's task has ended")]
    TaskEnded,
}

impl Cause {
    /// Whether there was no connection: the name, an address, the network or TLS was the trouble,
    /// and nothing of the request was sent.
    #[must_use]
    pub fn is_without_connection(&self) -> bool {
        matches!(
            self,
            Self::Resolve { .. }
                | Self::Connect { .. }
                | Self::ConnectTimeout { .. }
                | Self::Tls { .. }
        )
    }

    /// Whether the server sent something that is no HTTP/1.1 response, or none that can be read
    /// within the limits: it is another kind of server than the one that is wanted, and trying
    /// again soon won't help.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Garbled(_) | Self::TooLarge(_))
    }
}

/// Which rule of HTTP/1.1 an answer breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Garbled {
    /// An SSH server's greeting.
    #[error("the server speaks SSH, not HTTP")]
    Ssh,
    /// A TLS record, although the endpoint is `http`.
    #[error("the server speaks TLS: the endpoint should begin with https://")]
    Tls,
    /// A frame of HTTP/2.
    #[error("the server speaks HTTP/2 only")]
    Http2,
    /// The status line is none, or its version is neither 1.0 nor 1.1.
    #[error("malformed status line")]
    StatusLine,
    /// The status code is below 100.
    #[error("status {0} below 100")]
    Status(u16),
    /// A header field or a line end in the head is malformed.
    #[error("malformed header field")]
    Header,
    /// `content-length` is no number, or there are several that differ.
    #[error("invalid or contradictory content-length")]
    ContentLength,
    /// `transfer-encoding` is something else than one `chunked`, or was sent with HTTP/1.0.
    #[error("unusable transfer-encoding")]
    TransferEncoding,
    /// Both `content-length` and `transfer-encoding` are there.
    #[error("both content-length and transfer-encoding")]
    TwoLengths,
    /// The line before a chunk is malformed.
    #[error("malformed chunk size")]
    ChunkSize,
    /// A chunk is not followed by a line end.
    #[error("chunk without its end")]
    ChunkEnd,
    /// A trailer field is malformed.
    #[error("malformed trailer field")]
    Trailer,
    /// The server switched protocols, unasked.
    #[error("unexpected switch of protocols")]
    Upgrade,
}

/// The limit that an answer is above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge {
    /// What there is too much of.
    pub part: Part,
    /// How much of it is allowed.
    pub limit: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "more than {} {}", self.limit, self.part)
    }
}

/// What there is too much of in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// Bytes in the status line and the header fields.
    HeadBytes,
    /// Header or trailer fields.
    Headers,
    /// Bytes of content.
    BodyBytes,
    /// Bytes in chunk extensions, over all chunks.
    ExtensionBytes,
    /// Bytes in the trailer fields.
    TrailerBytes,
    /// Interim (1xx) responses before the final one.
    InterimResponses,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HeadBytes => "bytes of head",
            Self::Headers => "header fields",
            Self::BodyBytes => "bytes of content",
            Self::ExtensionBytes => "bytes of chunk extensions",
            Self::TrailerBytes => "bytes of trailers",
            Self::InterimResponses => "interim responses",
        })
    }
}

/// An I/O error in a form that can be copied to every request it ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct IoFault {
    kind: io::ErrorKind,
    text: Box<str>,
}

impl IoFault {
    /// What kind of error it was.
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.kind
    }
}

impl From<io::Error> for IoFault {
    fn from(error: io::Error) -> Self {
        Self { kind: error.kind(), text: error.to_string().into() }
    }
}

/// A duration as whole milliseconds, for a message.
pub(crate) fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_an_operator_what_where_and_how_sure() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let cause = Cause::Connect {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            fault: refused.into(),
        };
        let failure = Failure { certainty: Certainty::NotProcessed, cause };
        assert_eq!(
            failure.to_string(),
            "could not connect to 127.0.0.1:8080: connection refused (certainly not processed)"
        );
        let large = Cause::TooLarge(TooLarge { part: Part::BodyBytes, limit: 1_024 });
        assert_eq!(large.to_string(), "answer has more than 1024 bytes of content");
        let garbled = Cause::Garbled(Garbled::Status(42));
        assert_eq!(garbled.to_string(), "garbled answer: status 42 below 100");
    }
}
