//! One response after another, out of bytes that arrive in whatever pieces.
//!
//! Invariant: bytes are consumed up to the end of the response they belong to, never beyond it.
//!
//! Limit: holds one partial head and one partial content, each within [`Limits`]; of what is larger
//! only what has to be known of it. A head that arrives in pieces is parsed again with each piece,
//! which the limit on its size keeps cheap.

use super::{
    Limits,
    body::{Body, append},
    head::{Ending, Framing, Head, foreign},
    long_head::LongHead,
};
use crate::{Answer, Cause, Garbled, Part, TooLarge};

/// Reads the responses of one connection.
#[derive(Debug)]
pub(super) struct ResponseReader {
    limits: Limits,
    head: Vec<u8>,
    /// In place of `head`, once that is above a limit.
    long_head: Option<LongHead>,
    interim: usize,
    /// The current response began before its request was wholly written.
    is_early: bool,
    /// Final responses that are complete.
    completed: u64,
    content: Option<Content>,
    ending: Ending,
}

/// A response whose head is complete.
#[derive(Debug)]
struct Content {
    answer: Answer,
    body: Body,
    framing: Framing,
}

/// How far a content has come.
enum Progress {
    More,
    Complete,
    /// Above the limits by so much that its end is not waited for.
    GivenUp,
}

impl ResponseReader {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            head: Vec::new(),
            long_head: None,
            interim: 0,
            is_early: false,
            completed: 0,
            content: None,
            ending: Ending::No,
        }
    }

    /// Consumes `bytes` up to the end of the current response, or all of them if it has more. A
    /// response that begins while its request is not wholly written is an early one.
    pub(super) fn read(
        &mut self,
        bytes: &mut &[u8],
        is_request_written: bool,
    ) -> Result<Option<Answer>, Cause> {
        loop {
            if let Some(content) = &mut self.content {
                return Ok(match content.read(bytes, &self.limits)? {
                    Progress::More => None,
                    Progress::Complete => self.complete(),
                    Progress::GivenUp => self.give_up(),
                });
            }
            if bytes.is_empty() {
                return Ok(None);
            }
            if !self.is_in_head() {
                self.is_early = !is_request_written;
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

    /// Ends the current response if it is above a limit: its status is all that there is to know
    /// of it, and that is known.
    pub(super) fn cut(&mut self) -> Option<Answer> {
        let is_too_large = self.content.as_ref().is_some_and(|content| content.body.is_too_large());
        if is_too_large { self.give_up() } else { None }
    }

    /// Why bytes that answer no request end the connection. A server that speaks first speaks
    /// another protocol; whether it does is seen only in what it says before anything else.
    pub(super) fn unsolicited(&self, bytes: &[u8]) -> Cause {
        let is_first = self.completed == 0 && bytes.first().is_some_and(|byte| *byte != b'H');
        if is_first {
            Cause::Garbled(foreign(bytes).unwrap_or(Garbled::StatusLine))
        } else {
            Cause::Unsolicited
        }
    }

    /// Lets go of everything held.
    pub(super) fn clear(&mut self) {
        self.head = Vec::new();
        self.long_head = None;
        self.content = None;
    }

    /// Whether the connection ends with the last response whose head was complete.
    pub(super) fn ending(&self) -> Ending {
        self.ending
    }

    /// Whether part of a final response has been read.
    pub(super) fn is_midway(&self) -> bool {
        self.content.is_some() || self.is_in_head()
    }

    /// Bytes of memory held for a response.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        let content = self.content.as_ref().map_or(0, |content| {
            let trailers = match &content.framing {
                Framing::Chunked(decoder) => decoder.held_bytes(),
                Framing::Length(_) | Framing::UntilClose => 0,
            };
            content.body.held_bytes() + trailers
        });
        let long_head = self.long_head.as_ref().map_or(0, LongHead::held_bytes);
        self.head.capacity() + long_head + content
    }

    /// Whether part of a head has been read.
    fn is_in_head(&self) -> bool {
        !self.head.is_empty() || self.long_head.is_some()
    }

    fn read_head(&mut self, bytes: &mut &[u8]) -> Result<Option<Head>, Cause> {
        if let Some(long) = &mut self.long_head {
            let head = long.read(bytes, &self.limits)?;
            if head.is_some() {
                self.long_head = None;
            }
            return Ok(head);
        }
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
        let too_large = match Head::parse(window, &self.limits) {
            Ok(Some((head, length))) => {
                *bytes = &bytes[length - held..];
                self.head.clear();
                return Ok(Some(head));
            }
            Ok(None) if window.len() < limit => {
                if held == 0 {
                    append(&mut self.head, bytes, limit);
                }
                *bytes = &[];
                return Ok(None);
            }
            Ok(None) => TooLarge { part: Part::HeadBytes, limit },
            Err(Cause::TooLarge(too_large)) => too_large,
            Err(other) => return Err(other),
        };
        let mut long = LongHead::new(too_large);
        let mut rest = window;
        let head = long.read(&mut rest, &self.limits)?;
        *bytes = &bytes[window.len() - rest.len() - held..];
        self.head = Vec::new();
        if head.is_some() {
            return Ok(head);
        }
        self.long_head = Some(long);
        self.read_head(bytes)
    }

    fn begin(&mut self, head: Head) -> Result<(), Cause> {
        if head.is_interim() {
            let limit = self.limits.interim_max;
            if self.interim == limit {
                return Err(Cause::TooLarge(TooLarge { part: Part::InterimResponses, limit }));
            }
            self.interim += 1;
            return Ok(());
        }
        let Head { status, content_type, retry_after, date, framing, ending, too_large } = head;
        self.interim = 0;
        self.ending = ending;
        let mut body = Body::new(too_large);
        if let Framing::Length(length) = framing {
            body.announce(length, &self.limits);
            body.reserve();
        }
        let answer = Answer {
            content_type,
            retry_after,
            date,
            is_early: self.is_early,
            number_on_connection: self.completed,
            ..Answer::new(status)
        };
        self.content = Some(Content { answer, body, framing });
        Ok(())
    }

    fn complete(&mut self) -> Option<Answer> {
        let Content { answer, body, .. } = self.content.take()?;
        self.completed += 1;
        let (body, too_large) = body.into_parts();
        Some(Answer { body: body.into(), too_large, ..answer })
    }

    /// The connection ends with a response whose own end has not been seen.
    fn give_up(&mut self) -> Option<Answer> {
        if self.ending == Ending::No {
            self.ending = Ending::Undeclared;
        }
        self.complete()
    }
}

impl Content {
    /// Takes bytes until the content is complete or given up, or there are no more.
    fn read(&mut self, bytes: &mut &[u8], limits: &Limits) -> Result<Progress, Cause> {
        let Self { body, framing, .. } = self;
        if body.is_given_up() {
            return Ok(Progress::GivenUp);
        }
        let is_complete = match framing {
            Framing::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let (taken, rest) = bytes.split_at(most.min(bytes.len()));
                body.append(taken, limits);
                *left -= taken.len() as u64;
                *bytes = rest;
                *left == 0
            }
            Framing::Chunked(decoder) => decoder.read(bytes, body, limits)?,
            Framing::UntilClose => {
                body.announce(bytes.len() as u64, limits);
                body.append(bytes, limits);
                *bytes = &[];
                false
            }
        };
        Ok(match is_complete {
            true => Progress::Complete,
            false if body.is_given_up() => Progress::GivenUp,
            false => Progress::More,
        })
    }
}

#[cfg(test)]
mod tests;
