//! What the project's own fuzz targets run of the engine's inside: feature `fuzzing`.
//!
//! No part of the library's interface. Invariant: each function panics if a promise is broken, and
//! depends on its bytes alone.

mod model;

use bytes::Bytes;
use ledgerline_transport::{Answer, TooLarge};

use crate::sink::http::verdict::{judge, reason};

/// What the engine makes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// The batch counts as stored, or as queued by the server.
    pub is_success: bool,
    /// It may be stored: sent again, it may be there twice.
    pub is_ambiguous: bool,
}

/// The verdict over an answer with this status and content, in time or `is_early`, to a batch of so
/// many events.
#[must_use]
pub fn verdict(
    status: u16,
    content_type: Option<&str>,
    retry_after: Option<&str>,
    body: &[u8],
    is_early: bool,
    too_large: Option<TooLarge>,
    events: usize,
) -> Judged {
    let mut answer = Answer::new(status);
    answer.content_type = content_type.map(Into::into);
    answer.retry_after = retry_after.map(Into::into);
    answer.body = Bytes::copy_from_slice(body);
    answer.is_early = is_early;
    answer.too_large = too_large;
    let verdict = judge(&answer, events);
    let reason = reason(&answer).to_string();
    assert!(!reason.contains(char::is_control), "what is logged stays in its line");
    Judged { is_success: verdict.is_success(), is_ambiguous: verdict.is_ambiguous() }
}

/// Commands and answers in any order, as the bytes say, and then a server that stores everything.
///
/// # Panics
/// If a record is settled twice or never, if one is said to be stored that no answer has stored, or
/// if the machine's counts don't add up.
pub fn delivery(data: &[u8]) {
    model::run(data);
}
