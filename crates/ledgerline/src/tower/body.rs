//! The body of a recorded response: it follows the exchange to its end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::exchange::Ending;
use super::service::Open;

pin_project! {
    /// The response's body. At its end it records the exchange; dropped earlier, it records a
    /// truncated one.
    #[derive(Debug)]
    pub struct AuditBody<B> {
        #[pin]
        body: B,
        // None once the exchange has ended.
        open: Option<Open>,
        // A server drops a body of known length when it has that, without asking for its end.
        bytes_expected: Option<u64>,
    }
}

impl<B: Body> AuditBody<B> {
    pub(super) fn new(body: B, open: Open) -> Self {
        let bytes_expected = open.bytes_expected();
        let mut this = Self { body, open: Some(open), bytes_expected };
        if this.body.is_end_stream() || bytes_expected == Some(0) {
            end(&mut this.open, Ending::Complete);
        }
        this
    }
}

impl<B: Body> Body for AuditBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let Some(open) = this.open.as_mut() else {
            return this.body.poll_frame(cx);
        };
        let frame = ready!(open.watch(|| this.body.as_mut().poll_frame(cx)));
        match &frame {
            None => end(this.open, Ending::Complete),
            Some(Err(_)) => end(this.open, Ending::BodyError),
            Some(Ok(frame)) => {
                let bytes = frame.data_ref().map_or(0, |data| data.remaining() as u64);
                let sent = open.add_bytes(bytes);
                let is_whole = this.bytes_expected.is_some_and(|expected| sent >= expected);
                if is_whole || frame.is_trailers() || this.body.is_end_stream() {
                    end(this.open, Ending::Complete);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn end(open: &mut Option<Open>, ending: Ending) {
    if let Some(open) = open.take() {
        open.end(ending);
    }
}
