//! What the log tells of requests that failed.

use std::mem::{Discriminant, discriminant};

use ledgerline_transport::{Answer, Cause, Failure};

use super::Engine;

/// Tells one kind of trouble from another, whatever its details.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Status(u16),
    NoAnswer(Discriminant<Cause>),
}

impl Engine {
    /// The server refused the request, or answered as another service would.
    pub(super) fn log_answer(&mut self, answer: &Answer, now_ms: u64) {
        let why = format_args!("status {}", answer.status);
        self.failures.warn(now_ms, Trouble::Status(answer.status), &why);
    }

    /// The request has no answer.
    pub(super) fn log_failure(&mut self, failure: &Failure, now_ms: u64) {
        self.failures.warn(now_ms, Trouble::NoAnswer(discriminant(&failure.cause)), failure);
    }
}
