//! One response after another, out of bytes that arrive in whatever pieces.
//!
//! Invariant: bytes are consumed up to the end of the response they belong to, never beyond it.
//!
//! Limit: holds one partial head and one partial content, each within [`Limits`]. A head that
//! arrives in pieces is parsed again with each piece, which the limit on its size keeps cheap.

use bytes::Bytes;

use super::{
    Limits,
    head::{Ending, Framing, Head},
};
use crate::{Answer, Cause, Part};

/// Reads the responses of one connection.
#[derive(Debug)]
pub(super) struct ResponseReader {
    limits: Limits,
    head: Vec<u8>,
    interim: usize,
    content: Option<Content>,
    ending: Ending,
}

/// A response whose head is complete.
#[derive(Debug)]
struct Content {
    answer: Answer,
    body: Vec<u8>,
    framing: Framing,
}

impl ResponseReader {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, head: Vec::new(), interim: 0, content: None, ending: Ending::No }
    }

    /// Consumes `bytes` up to the end of the current response, or all of them if it has more.
    pub(super) fn read(&mut self, bytes: &mut &[u8]) -> Result<Option<Answer>, Cause> {
        loop {
            if let Some(content) = &mut self.content {
                let complete = content.read(bytes, &self.limits)?;
                return Ok(if complete { self.complete() } else { None });
            }
            if bytes.is_empty() {
                return Ok(None);
            }
            let Some(head) = self.read_head(bytes)? else { return Ok(None) };
            self.begin(head)?;
        }
    }

    /// The response that is complete because the connection has ended, if there is one.
    pub(super) fn read_end(&mut self) -> Option<Answer> {
        let framing = self.content.as_ref().map(|content| &content.framing);
        if matches!(framing, Some(Framing::UntilClose)) { self.complete() } else { None }
    }

    /// Lets go of everything held.
    pub(super) fn clear(&mut self) {
        self.head = Vec::new();
        self.content = None;
    }

    /// Whether the connection ends with the last response whose head was complete.
    pub(super) fn ending(&self) -> Ending {
        self.ending
    }

    /// Whether part of a final response has been read.
    pub(super) fn is_midway(&self) -> bool {
        self.content.is_some() || !self.head.is_empty()
    }

    /// Bytes of memory held for a response.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        let content = self.content.as_ref().map_or(0, |content| {
            let trailers = match &content.framing {
                Framing::Chunked(decoder) => decoder.held_bytes(),
                Framing::Length(_) | Framing::UntilClose => 0,
            };
            content.body.capacity() + trailers
        });
        self.head.capacity() + content
    }

    fn read_head(&mut self, bytes: &mut &[u8]) -> Result<Option<Head>, Cause> {
        let limit = self.limits.head_bytes_max;
        let held = self.head.len();
        let taken = bytes.len().min(limit - held);
        // Most heads arrive whole and are parsed where they lie.
        let window = if held == 0 {
            &bytes[..taken]
        } else {
            append(&mut self.head, &bytes[..taken], limit);
            &self.head
        };
        if let Some((head, length)) = Head::parse(window, &self.limits)? {
            *bytes = &bytes[length - held..];
            self.head.clear();
            return Ok(Some(head));
        }
        if window.len() == limit {
            return Err(Cause::TooLarge { part: Part::HeadBytes, limit });
        }
        if held == 0 {
            append(&mut self.head, bytes, limit);
        }
        *bytes = &[];
        Ok(None)
    }

    fn begin(&mut self, head: Head) -> Result<(), Cause> {
        if head.is_interim() {
            let limit = self.limits.interim_max;
            if self.interim == limit {
                return Err(Cause::TooLarge { part: Part::InterimResponses, limit });
            }
            self.interim += 1;
            return Ok(());
        }
        let Head { status, content_type, retry_after, date, framing, ending } = head;
        self.interim = 0;
        self.ending = ending;
        let body = match framing {
            Framing::Length(length) => Vec::with_capacity(length),
            Framing::Chunked(_) | Framing::UntilClose => Vec::new(),
        };
        let answer = Answer { status, content_type, retry_after, date, body: Bytes::new() };
        self.content = Some(Content { answer, body, framing });
        Ok(())
    }

    fn complete(&mut self) -> Option<Answer> {
        self.content
            .take()
            .map(|Content { answer, body, .. }| Answer { body: body.into(), ..answer })
    }
}

impl Content {
    /// Takes bytes until the content is complete (true) or there are no more.
    fn read(&mut self, bytes: &mut &[u8], limits: &Limits) -> Result<bool, Cause> {
        let limit = limits.body_bytes_max;
        match &mut self.framing {
            Framing::Length(left) => {
                let (taken, rest) = bytes.split_at((*left).min(bytes.len()));
                append(&mut self.body, taken, limit);
                *left -= taken.len();
                *bytes = rest;
                Ok(*left == 0)
            }
            Framing::Chunked(decoder) => decoder.read(bytes, &mut self.body, limits),
            Framing::UntilClose if bytes.len() > limit - self.body.len() => {
                Err(Cause::TooLarge { part: Part::BodyBytes, limit })
            }
            Framing::UntilClose => {
                append(&mut self.body, bytes, limit);
                *bytes = &[];
                Ok(false)
            }
        }
    }
}

/// Appends bytes that fit in `limit`, doubling the memory as needed but never beyond `limit`.
pub(super) fn append(to: &mut Vec<u8>, bytes: &[u8], limit: usize) {
    let needed = to.len() + bytes.len();
    debug_assert!(needed <= limit, "{needed} bytes appended within a limit of {limit}");
    if needed > to.capacity() {
        let capacity = needed.max(to.capacity() * 2).min(limit);
        to.reserve_exact(capacity.saturating_sub(to.len()));
    }
    to.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests;
