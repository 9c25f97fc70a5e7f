//! What the log tells of requests that failed: in the server's own words, and never an event's.

use std::mem::{Discriminant, discriminant};

use ledgerline_transport::{Cause, Failure};

use super::Engine;
use crate::loss::ServerReason;

/// Tells one kind of trouble from another, whatever its details.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// A status, with what the answer names as the broken rule and the field.
    Answer {
        status: u16,
        rule: Option<Box<str>>,
        field: Option<Box<str>>,
    },
    NoAnswer(Discriminant<Cause>),
}

impl Engine {
    /// The server refused the request, or answered as another service would.
    pub(super) fn log_answer(&mut self, reason: &ServerReason, now_ms: u64) {
        let (rule, field) = (reason.rule.clone(), reason.field.clone());
        let trouble = Trouble::Answer { status: reason.status, rule, field };
        if (200..300).contains(&reason.status) {
            let why = format_args!("{reason}, but not as DataStorage stores this request");
            return self.failures.warn(now_ms, trouble, &why);
        }
        self.failures.warn(now_ms, trouble, reason);
    }

    /// The request has no answer.
    pub(super) fn log_failure(&mut self, failure: &Failure, now_ms: u64) {
        self.failures.warn(now_ms, Trouble::NoAnswer(discriminant(&failure.cause)), failure);
    }
}
