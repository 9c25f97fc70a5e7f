//! The machine of one connection: requests in order, their answers in the same order.
//!
//! Four kinds of method, and no others: commands ([`Pipeline::push`], [`Pipeline::finish`],
//! [`Pipeline::fail`]); what the network did ([`Pipeline::wrote`], [`Pipeline::flushed`],
//! [`Pipeline::read`], [`Pipeline::eof`]) or the clock ([`Pipeline::handle_timeout`]); what to do
//! next ([`Pipeline::write_slices`], [`Pipeline::deadline`], [`Pipeline::poll_event`]); and
//! questions.
//!
//! Invariant: each pushed request gives exactly one final event, and the order of final events is
//! the order of the requests. Once nothing more can come of the connection, none is outstanding.
//!
//! Limit: the number of requests is the caller's to bound. Each takes up the memory of its
//! unwritten bytes, which are shared with the caller, and let go as they are written.

use std::{
    collections::VecDeque,
    io::IoSlice,
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};

use super::{Limits, head::Ending, response::ResponseReader};
use crate::{Answer, Cause, Certainty, Failure, What, outcome::whole_ms};

/// Something that happened to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The request, as it was named in [`Pipeline::push`].
    pub request_id: u64,
    /// What happened to it.
    pub what: What,
}

/// The requests and responses of one connection.
///
/// ```
/// use std::{io::IoSlice, time::{Duration, Instant}};
///
/// use bytes::Bytes;
/// use ledgerline_transport::{What, h1::{Limits, Pipeline}};
///
/// let now = Instant::now();
/// let mut pipeline = Pipeline::new(Limits::default(), Duration::from_secs(30));
/// let head = Bytes::from_static(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n");
/// pipeline.push(now, 7, head, vec![Bytes::from_static(b"[]")]);
///
/// let mut slices = [IoSlice::new(&[]); 8];
/// let count = pipeline.write_slices(&mut slices);
/// let written = slices[..count].iter().map(|slice| slice.len()).sum();
/// pipeline.wrote(now, written);
/// pipeline.flushed();
/// pipeline.read(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n");
///
/// assert_eq!(pipeline.poll_event().unwrap().what, What::FirstByte(now));
/// let What::Answered(answer) = pipeline.poll_event().unwrap().what else { unreachable!() };
/// assert_eq!(answer.status, 201);
/// ```
#[derive(Debug)]
pub struct Pipeline {
    request_timeout: Duration,
    /// Requests without a final event, oldest first.
    requests: VecDeque<Request>,
    /// How many of `requests`, from the front, are wholly written.
    written: usize,
    /// How many of those have left this process.
    flushed: usize,
    responses: ResponseReader,
    is_finishing: bool,
    closed: bool,
    events: VecDeque<Event>,
}

#[derive(Debug)]
struct Request {
    id: u64,
    /// When it was pushed, then when its first byte was written.
    since: Instant,
    is_begun: bool,
    /// What is unwritten of the head and of the content.
    head: Bytes,
    body: VecDeque<Bytes>,
}

impl Pipeline {
    /// The machine of a connection that has just been made.
    #[must_use]
    pub fn new(limits: Limits, request_timeout: Duration) -> Self {
        Self {
            request_timeout,
            requests: VecDeque::new(),
            written: 0,
            flushed: 0,
            responses: ResponseReader::new(limits),
            is_finishing: false,
            closed: false,
            events: VecDeque::new(),
        }
    }

    /// Queues a request. `head` is everything up to and including the empty line.
    ///
    /// When the connection takes no more requests, this one fails at once, unprocessed.
    ///
    /// # Panics
    /// If `head` is empty: such a request could never be begun.
    pub fn push(&mut self, now: Instant, request_id: u64, head: Bytes, body: Vec<Bytes>) {
        assert!(!head.is_empty(), "request {request_id} has no head");
        if !self.is_open() {
            let failure = Failure { certainty: Certainty::NotProcessed, cause: Cause::NotOpen };
            self.events.push_back(Event { request_id, what: What::Failed(failure) });
            return;
        }
        let mut body = VecDeque::from(body);
        body.retain(|piece| !piece.is_empty());
        let request = Request { id: request_id, since: now, is_begun: false, head, body };
        self.requests.push_back(request);
    }

    /// Notes that the connection accepted `count` more bytes of those in [`Self::write_slices`].
    ///
    /// # Panics
    /// If they are more than were offered.
    pub fn wrote(&mut self, now: Instant, mut count: usize) {
        while count > 0 {
            let request = self.requests.get_mut(self.written);
            let request = request.expect("no more bytes are written than were offered");
            if !request.is_begun {
                request.is_begun = true;
                request.since = now;
                self.events.push_back(Event { request_id: request.id, what: What::FirstByte(now) });
            }
            count -= request.advance(count);
            if request.is_written() {
                self.written += 1;
            }
        }
    }

    /// Notes that all of [`Self::wrote`] was handed to the system, and lies in no buffer here. An
    /// answer that begins before this is said of its request is an early one.
    pub fn flushed(&mut self) {
        self.flushed = self.written;
    }

    /// Takes bytes that came in. Any that come before the first byte of the oldest request was
    /// written are no answer to it, and end the connection.
    pub fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.closed {
            if !self.is_any_begun() {
                self.fail(self.responses.unsolicited(bytes));
                return;
            }
            match self.responses.read(&mut bytes, self.flushed > 0) {
                Ok(Some(answer)) => self.answer(answer),
                Ok(None) => debug_assert!(bytes.is_empty(), "bytes of no response are left"),
                Err(cause) => self.fail(cause),
            }
        }
    }

    /// Notes that nothing more will come in.
    pub fn eof(&mut self) {
        if let Some(answer) = self.responses.read_end() {
            self.answer(answer);
        } else if self.responses.is_midway() {
            self.fail(Cause::Truncated);
        } else {
            self.fail(Cause::ClosedByServer);
        }
    }

    /// Fails every outstanding request if the oldest has waited too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.fail(Cause::RequestTimeout { timeout_ms: whole_ms(self.request_timeout) });
        }
    }

    /// Takes no more requests, and ends the connection after the last outstanding answer.
    pub fn finish(&mut self) {
        self.is_finishing = true;
        self.closed |= self.requests.is_empty();
    }

    /// Ends the connection: every outstanding request fails, each with its own certainty. Only one
    /// whose answer is above a limit is answered, since no more of it would be told anyway.
    pub fn fail(&mut self, cause: Cause) {
        if let Some(answer) = self.responses.cut() {
            self.take_answered(answer);
            let cause = match cause {
                // None of the others has used up its time.
                Cause::RequestTimeout { .. } => Cause::GivenUpEarlier,
                other => other,
            };
            let is_last = self.responses.ending() == Ending::Declared;
            return self.end(&cause, if is_last { 0 } else { usize::MAX });
        }
        // The response that said so was for the oldest request, and only its fate is in doubt.
        let is_last = self.responses.ending() == Ending::Declared;
        self.end(&cause, if is_last { 1 } else { usize::MAX });
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Fills `slices` with what to write next, in order; gives their number.
    pub fn write_slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        // Once the connection ends with the oldest request's answer, later requests would get none.
        let answerable = if self.is_persistent() { self.requests.len() } else { 1 };
        let unwritten = self.requests.iter().take(answerable).skip(self.written);
        let pieces = unwritten.flat_map(Request::pieces);
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        count
    }

    /// When to call [`Self::handle_timeout`] at the latest: the oldest outstanding request governs.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        // A deadline beyond what the clock can say is none.
        self.requests.front().and_then(|request| request.since.checked_add(self.request_timeout))
    }

    /// Requests without a final event.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.requests.len()
    }

    /// Whether more requests may be pushed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_persistent() && !self.is_finishing
    }

    /// Whether a request waits for an answer of which some byte was written.
    #[must_use]
    pub fn is_any_begun(&self) -> bool {
        self.requests.front().is_some_and(|request| request.is_begun)
    }

    /// Whether the connection has to be closed: nothing is outstanding, and nothing will be.
    #[must_use]
    pub fn must_close(&self) -> bool {
        self.closed
    }

    /// Whether the connection outlasts the current response.
    fn is_persistent(&self) -> bool {
        !self.closed && self.responses.ending() == Ending::No
    }

    fn answer(&mut self, answer: Answer) {
        let is_written = self.take_answered(answer);
        match self.responses.ending() {
            // The rest of a request can't be left out (RFC 9112 section 9.5).
            Ending::No if is_written => {
                self.closed |= self.is_finishing && self.requests.is_empty()
            }
            Ending::No | Ending::Undeclared => self.end(&Cause::EndedEarlier, usize::MAX),
            Ending::Declared => self.end(&Cause::EndedEarlier, 0),
        }
    }

    /// Ends the oldest request with its answer; gives whether it was wholly written.
    fn take_answered(&mut self, answer: Answer) -> bool {
        let request = self.requests.pop_front().expect("only a begun request is answered");
        let is_written = request.is_written();
        self.written -= usize::from(is_written);
        self.flushed = self.flushed.saturating_sub(1);
        self.events.push_back(Event { request_id: request.id, what: What::Answered(answer) });
        is_written
    }

    /// Fails all that is outstanding. From position `unprocessed` on, requests are certainly
    /// unprocessed even if they were wholly written.
    fn end(&mut self, cause: &Cause, unprocessed: usize) {
        self.closed = true;
        self.responses.clear();
        let doubtful = self.written.min(unprocessed);
        self.written = 0;
        self.flushed = 0;
        for (position, request) in self.requests.drain(..).enumerate() {
            let certainty =
                if position < doubtful { Certainty::Ambiguous } else { Certainty::NotProcessed };
            // Of those that waited behind the oldest, none has used up its time.
            let is_behind = position > 0 && matches!(cause, Cause::RequestTimeout { .. });
            let cause = if is_behind { Cause::GivenUpEarlier } else { cause.clone() };
            let failure = Failure { certainty, cause };
            self.events.push_back(Event { request_id: request.id, what: What::Failed(failure) });
        }
    }

    /// Bytes of memory held for a response.
    #[cfg(test)]
    fn held_bytes(&self) -> usize {
        self.responses.held_bytes()
    }
}

impl Request {
    /// Drops up to `count` bytes that were written; gives how many.
    fn advance(&mut self, count: usize) -> usize {
        let piece = if self.head.is_empty() { self.body.front_mut() } else { Some(&mut self.head) };
        let Some(piece) = piece else { return 0 };
        let advanced = count.min(piece.len());
        piece.advance(advanced);
        if self.head.is_empty() && self.body.front().is_some_and(Bytes::is_empty) {
            self.body.pop_front();
        }
        advanced
    }

    fn is_written(&self) -> bool {
        self.head.is_empty() && self.body.is_empty()
    }

    fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        let head = (!self.head.is_empty()).then_some(&self.head);
        head.into_iter().chain(&self.body)
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
