//! A DataStorage that stores nothing: it reads requests, and answers 201 with their events' ids.
//!
//! It is there to be cheap: one thread, which looks at each byte once, in a buffer that stays in
//! the cache. Invariant: the ids of a request's events, as our encoder writes them, come back in
//! their order. Limits: bodies need a Content-Length; one request at a time per connection, as
//! common servers work; an `event_data` with whole events of ours inside would add their ids.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use memchr::memmem::Finder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::runtime;

/// A running sink; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct NullSink {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl NullSink {
    /// Listens on a free port. Each request waits for `think` before it is answered.
    pub(crate) fn start(think: Duration) -> io::Result<Self> {
        let runtime = runtime::current_thread()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("null-sink".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, think) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for NullSink {
    fn drop(&mut self) {
        // Dropping the sender is enough.
        self.stop.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the null sink panicked");
        }
    }
}

async fn accept(listener: TcpListener, think: Duration) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, think).await {
                        tracing::debug!(%error, "a connection to the null sink broke off");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the null sink can't accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(mut stream: TcpStream, think: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut requests = Requests::new();
    let mut answer = Vec::new();
    loop {
        while requests.advance()? {
            if !think.is_zero() {
                tokio::time::sleep(think).await;
            }
            requests.answer(&mut answer)?;
            stream.write_all(&answer).await?;
        }
        let read = stream.read(requests.room()).await?;
        if read == 0 {
            return Ok(());
        }
        requests.filled(read);
    }
}

/// One connection's requests, without the connection: bytes in, ids out.
struct Requests {
    buffer: Box<[u8]>,
    /// Bytes of the buffer that were read and not looked at yet.
    start: usize,
    end: usize,
    /// Bytes of the present body from `start` on; None while a head is read.
    body_left: Option<usize>,
    /// The ids of the present body, each quoted and with a comma behind.
    ids: Vec<u8>,
    id_key: Finder<'static>,
}

impl Requests {
    fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES].into(),
            start: 0,
            end: 0,
            body_left: None,
            ids: Vec::new(),
            id_key: Finder::new(ID_KEY),
        }
    }

    /// Where the next bytes go.
    fn room(&mut self) -> &mut [u8] {
        // What is left is a piece of a head, or less than an id with its surroundings.
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        &mut self.buffer[self.end..]
    }

    fn filled(&mut self, bytes: usize) {
        self.end += bytes;
    }

    /// Looks at what was read; true if a request is complete, false if more must be read.
    fn advance(&mut self) -> io::Result<bool> {
        if self.body_left.is_none() {
            self.ids.clear();
            self.body_left = self.head()?;
        }
        let Some(body_left) = self.body_left else { return Ok(false) };
        let taken = self.scan(body_left);
        self.start += taken;
        let is_complete = taken == body_left;
        self.body_left = (!is_complete).then_some(body_left - taken);
        Ok(is_complete)
    }

    /// Takes a request's head, and gives the length of its body.
    fn head(&mut self) -> io::Result<Option<usize>> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        let head = &self.buffer[self.start..self.end];
        let httparse::Status::Complete(length) = request.parse(head).map_err(io::Error::other)?
        else {
            if head.len() > HEAD_BYTES_MAX {
                return Err(io::Error::other("a head has no end"));
            }
            return Ok(None);
        };
        let body = request
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("content-length"))
            .and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok())
            .ok_or_else(|| io::Error::other("a request has no Content-Length"))?;
        self.start += length;
        Ok(Some(body))
    }

    /// Finds ids in the part of the body that was read; gives how much of it is done with.
    fn scan(&mut self, body_left: usize) -> usize {
        let end = self.end.min(self.start + body_left);
        let part = &self.buffer[self.start..end];
        let is_last = part.len() == body_left;
        let mut at = 0;
        while let Some(found) = self.id_key.find(&part[at..]) {
            let id_at = at + found + ID_KEY.len();
            let Some(behind) = part.get(id_at + ID_LEN..id_at + ID_LEN + BEHIND_ID.len()) else {
                // Cut off here; looked at again when there is more.
                return if is_last { part.len() } else { at + found };
            };
            if behind == BEHIND_ID {
                self.ids.push(b'"');
                self.ids.extend_from_slice(&part[id_at..id_at + ID_LEN]);
                self.ids.extend_from_slice(b"\",");
            }
            at = id_at;
        }
        if is_last { part.len() } else { at.max(part.len().saturating_sub(ID_KEY.len() - 1)) }
    }

    /// Writes the answer to the request that is complete.
    fn answer(&self, answer: &mut Vec<u8>) -> io::Result<()> {
        let ids = self.ids.strip_suffix(b",").unwrap_or_default();
        let length = BODY_START.len() + ids.len() + BODY_END.len();
        answer.clear();
        write!(
            answer,
            "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: {length}\
             \r\n\r\n{BODY_START}"
        )?;
        answer.extend_from_slice(ids);
        answer.extend_from_slice(BODY_END.as_bytes());
        Ok(())
    }
}

/// How an event begins in our encoding: the id, then the producer.
const ID_KEY: &[u8] = b"{\"event_id\":\"";
const ID_LEN: usize = 36;
const BEHIND_ID: &[u8] = b"\",\"producer\":\"";
const BODY_START: &str = "{\"event_ids\":[";
const BODY_END: &str = "]}";

/// Fits into a core's own cache.
const BUFFER_BYTES: usize = 256 << 10;
const HEAD_BYTES_MAX: usize = 16 << 10;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "POST /x HTTP/1.1\r\nHost: a\r\ncontent-length: ";

    fn request(ids: &[u128]) -> Vec<u8> {
        let events = ids.iter().map(|&id| {
            let id = ledgerline::Uuid::from_u128(id);
            format!(r#"{{"event_id":"{id}","producer":"p/0","event_data":{{"event_id":"{id}"}}}}"#)
        });
        let body = format!("[{}]", events.collect::<Vec<_>>().join(","));
        format!("{HEAD}{}\r\n\r\n{body}", body.len()).into_bytes()
    }

    fn answer(ids: &[u128]) -> String {
        let ids = ids.iter().map(|&id| format!("\"{}\"", ledgerline::Uuid::from_u128(id)));
        let body = format!("{{\"event_ids\":[{}]}}", ids.collect::<Vec<_>>().join(","));
        let length = body.len();
        format!(
            "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
    }

    #[test]
    fn pipelined_requests_are_answered_with_their_ids_however_they_are_cut() {
        let stream = [request(&[1, 2, 3]), request(&[]), request(&[u128::MAX, 4])].concat();
        let wanted = [answer(&[1, 2, 3]), answer(&[]), answer(&[u128::MAX, 4])].concat();
        for piece_len in 1..stream.len() {
            let mut requests = Requests::new();
            let (mut answers, mut one) = (Vec::new(), Vec::new());
            for piece in stream.chunks(piece_len) {
                requests.room()[..piece.len()].copy_from_slice(piece);
                requests.filled(piece.len());
                while requests.advance().unwrap() {
                    requests.answer(&mut one).unwrap();
                    answers.extend_from_slice(&one);
                }
            }
            assert_eq!(String::from_utf8_lossy(&answers), wanted, "in pieces of {piece_len}");
        }
    }

    #[test]
    fn what_is_no_request_ends_the_connection() {
        for text in ["NONSENSE\r\n\r\n", "POST /x HTTP/1.1\r\nHost: a\r\n\r\n"] {
            let mut requests = Requests::new();
            requests.room()[..text.len()].copy_from_slice(text.as_bytes());
            requests.filled(text.len());
            requests.advance().unwrap_err();
        }
    }
}
