//! One connection of a fleet: reads requests, does what the backend says.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::SockRef;
use uuid::Uuid;

use super::{Answer, Balance, Batch, Content, End, Shared, State};
use crate::bars::ledger::{Item, Storing};
use crate::scripted::request_head;

/// Accepts until the fleet stops, and joins the connections' threads.
pub(super) fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let mut state = shared.state();
        if state.is_stopping {
            break;
        }
        let stream = Arc::new(stream);
        state.streams.push(Arc::clone(&stream));
        drop(state);
        shared.ledger.lock().connections += 1;
        let owned = Arc::clone(shared);
        threads.push(std::thread::spawn(move || serve(&owned, &stream)));
        threads.retain(|thread| !thread.is_finished());
    }
    for thread in threads {
        thread.join().expect("a connection's thread ends well");
    }
}

fn serve(shared: &Shared, stream: &Arc<TcpStream>) {
    stream.set_nodelay(true).ok(); // The client may have gone.
    let backend = shared.next();
    let mut connection = Connection { shared, stream, backend, buffer: Vec::new(), requests: 0 };
    while let Ok(true) = connection.exchange() {}
    // The socket closes with its last owner.
    let State { streams, .. } = &mut *shared.state();
    streams.retain(|known| !Arc::ptr_eq(known, stream));
}

struct Connection<'a> {
    shared: &'a Shared,
    stream: &'a TcpStream,
    backend: usize,
    /// What was read and isn't used yet.
    buffer: Vec<u8>,
    requests: u64,
}

impl Connection<'_> {
    /// Reads a request and answers it; false when the connection is at its end.
    fn exchange(&mut self) -> io::Result<bool> {
        let (head_bytes, body_bytes) = loop {
            match request_head(&self.buffer) {
                Ok(Some(found)) => break found,
                Ok(None) if self.read()? == 0 => return Ok(false),
                Ok(None) => {}
                Err(fault) => return Ok(self.give_up(fault)),
            }
        };
        if self.shared.balance == Balance::PerRequest && self.requests > 0 {
            self.backend = self.shared.next();
        }
        let hasty_until = self.shared.backends[self.backend].hasty_until;
        if self.shared.ledger.now() < hasty_until {
            self.shared.ledger.lock().receive_part(&self.buffer[head_bytes..]);
            return self.answer_hastily();
        }
        let whole = head_bytes + body_bytes;
        while self.buffer.len() < whole {
            if !matches!(self.read(), Ok(1..)) {
                self.shared.ledger.lock().receive_part(&self.buffer[head_bytes..]);
                return Ok(false);
            }
        }
        let rest = self.buffer.split_off(whole);
        let request = std::mem::replace(&mut self.buffer, rest);
        let Ok(text) = std::str::from_utf8(&request[head_bytes..]) else {
            return Ok(self.give_up("a body that is no text".to_owned()));
        };
        let received = self.shared.ledger.lock().receive(text);
        match received {
            Ok(items) => self.respond(text, &items),
            Err(fault) => Ok(self.give_up(fault)),
        }
    }

    fn respond(&mut self, text: &str, items: &[Item]) -> io::Result<bool> {
        let at = self.shared.ledger.now();
        let batch = Batch { at, text, items, requests_before: self.requests };
        self.requests += 1;
        let answer = {
            let backend = &self.shared.backends[self.backend];
            let mut respond = backend.respond.lock().unwrap_or_else(PoisonError::into_inner);
            respond(&batch)
        };
        if !self.shared.think(answer.after) {
            return Ok(false);
        }
        let now = self.shared.ledger.now();
        let mut books = self.shared.ledger.lock();
        if answer.storing != Storing::Nothing {
            books.store(items, answer.storing, now);
        }
        *books.answers.entry(answer.status).or_default() += 1;
        drop(books);
        if answer.end == End::Reset {
            return self.reset();
        }
        let (head, content) = written(&answer, items);
        let sent = match answer.end {
            End::Cut(bytes) => &content[..bytes.min(content.len())],
            End::Kept | End::Reset => &content,
        };
        self.write(&[head.as_bytes(), sent.as_bytes()].concat())?;
        Ok(answer.end == End::Kept)
    }

    /// 201 without having read, as a proxy does that has gone wrong.
    fn answer_hastily(&self) -> io::Result<bool> {
        *self.shared.ledger.lock().answers.entry(201).or_default() += 1;
        let content = r#"{"event_ids":[]}"#;
        let length = content.len();
        self.write(
            format!(
                "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\n\
                 content-length: {length}\r\n\r\n{content}"
            )
            .as_bytes(),
        )?;
        self.shared.think(HASTE);
        self.reset()
    }

    /// Closing with a linger of zero sends a reset.
    fn reset(&self) -> io::Result<bool> {
        SockRef::from(self.stream).set_linger(Some(Duration::ZERO))?;
        Ok(false)
    }

    fn read(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 64 << 10];
        let count = (&mut &*self.stream).read(&mut bytes)?;
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        (&mut &*self.stream).write_all(bytes)
    }

    fn give_up(&self, fault: String) -> bool {
        self.shared.ledger.lock().faults.push(fault);
        false
    }
}

/// Head and content of an answer.
fn written(answer: &Answer, items: &[Item]) -> (String, String) {
    let listed = |ids: &mut dyn Iterator<Item = Uuid>| {
        let ids: Vec<String> = ids.map(|id| format!("\"{}\"", id.hyphenated())).collect();
        format!(r#"{{"event_ids":[{}],"message":"stored"}}"#, ids.join(","))
    };
    let mut own = items.iter().map(|item| item.id);
    let content = match &answer.content {
        Content::Ids => listed(&mut own),
        Content::NewIds => listed(&mut own.map(|id| Uuid::from_u128(!id.as_u128()))),
        Content::HalfOfIds => listed(&mut own.take(items.len() / 2)),
        Content::Text(text) => text.clone(),
    };
    let (status, kind, length) = (answer.status, &answer.content_type, content.len());
    let length =
        if status == 204 { String::new() } else { format!("content-length: {length}\r\n") };
    let head = format!("HTTP/1.1 {status} Told\r\ncontent-type: {kind}\r\n{length}\r\n");
    (head, if status == 204 { String::new() } else { content })
}

/// Between a hasty answer and its reset, so that the answer arrives.
const HASTE: Duration = Duration::from_millis(20);
