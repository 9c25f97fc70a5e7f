//! One connection of the scripted server: reads requests, does what the script says.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use socket2::SockRef;
use uuid::Uuid;

use super::{CONNECTIONS_MAX, Reply, Request, Shared, StoredEvent};

/// Accepts until the server stops, and joins the connections' threads.
pub(super) fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads = Vec::new();
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let mut state = shared.state();
        if state.is_stopping {
            break;
        }
        if threads.len() == CONNECTIONS_MAX {
            state.faults.push(format!("more than {CONNECTIONS_MAX} connections"));
            continue;
        }
        let (number, stream) = (threads.len(), Arc::new(stream));
        state.connections.insert(number, Arc::clone(&stream));
        drop(state);
        let shared = Arc::clone(shared);
        threads.push(std::thread::spawn(move || serve(&shared, number, stream)));
    }
    for thread in threads {
        thread.join().expect("a connection's thread ends well");
    }
}

fn serve(shared: &Shared, number: usize, stream: Arc<TcpStream>) {
    stream.set_nodelay(true).ok(); // The client may have gone.
    let mut connection = Connection { number, stream: &stream, buffer: Vec::new() };
    while let Ok(Some(request)) = connection.next_request(shared) {
        let reply = {
            let mut script = shared.script.lock().unwrap_or_else(PoisonError::into_inner);
            script(&request)
        };
        if !matches!(connection.reply(shared, &request, reply), Ok(Next::Request)) {
            break;
        }
    }
    // The socket closes with its last owner, and only then it is gone from the list.
    shared.change(|state| {
        drop(stream);
        state.connections.remove(&number);
    });
}

enum Next {
    Request,
    Close,
}

struct Connection<'a> {
    number: usize,
    stream: &'a TcpStream,
    /// What was read and isn't used yet.
    buffer: Vec<u8>,
}

impl Connection<'_> {
    /// The next request; None when the client has closed, or is to be cut off.
    fn next_request(&mut self, shared: &Shared) -> io::Result<Option<Arc<Request>>> {
        let (head_len, body_len) = loop {
            match head(&self.buffer) {
                Ok(Some(found)) => break found,
                Ok(None) if self.read()? == 0 => return Ok(None),
                Ok(None) => {}
                Err(fault) => return Ok(self.give_up(shared, fault)),
            }
        };
        let reset_at = shared.state().resets.front().copied();
        let wanted = head_len + reset_at.map_or(body_len, |bytes| bytes.min(body_len));
        while self.buffer.len() < wanted {
            if self.read()? == 0 {
                return Ok(None);
            }
        }
        if reset_at.is_some() {
            // Closing with a linger of zero sends a reset.
            SockRef::from(self.stream).set_linger(Some(Duration::ZERO))?;
            shared.change(|state| {
                state.resets.pop_front();
            });
            return Ok(None);
        }
        let at = Instant::now();
        let rest = self.buffer.split_off(wanted);
        let mut head = std::mem::replace(&mut self.buffer, rest);
        let body = head.split_off(head_len);
        match events(body) {
            Ok((text, events)) => Ok(Some(self.log(shared, at, &head, text, events))),
            Err(fault) => Ok(self.give_up(shared, fault)),
        }
    }

    fn log(
        &self,
        shared: &Shared,
        at: Instant,
        head: &[u8],
        text: String,
        events: Vec<StoredEvent>,
    ) -> Arc<Request> {
        let mut state = shared.state();
        let number = state.requests.len();
        let (connection, headers) = (self.number, headers(head));
        let request = Arc::new(Request { number, connection, at, headers, text, events });
        state.requests.push(Arc::clone(&request));
        drop(state);
        shared.changed.notify_all();
        request
    }

    fn reply(&mut self, shared: &Shared, request: &Request, reply: Reply) -> io::Result<Next> {
        match reply {
            Reply::Store => {
                shared.store(request);
                self.write(&stored(request, "", |event| event.event_id))?;
            }
            Reply::StoreUnderOwnIds => {
                shared.store(request);
                let own = |event: &StoredEvent| Uuid::from_u128(!event.event_id.as_u128());
                self.write(&stored(request, "", own))?;
            }
            Reply::StoreAndCut { bytes } => {
                shared.store(request);
                let answer = stored(request, "", |event| event.event_id);
                assert!(bytes < answer.len(), "the answer has only {} bytes", answer.len());
                self.write(&answer[..bytes])?;
                return Ok(Next::Close);
            }
            Reply::StoreAndClose => {
                shared.store(request);
                self.write(&stored(request, "connection: close\r\n", |event| event.event_id))?;
                return Ok(Next::Close);
            }
            Reply::StoreAndMore(more) => {
                shared.store(request);
                let answer = stored(request, "", |event| event.event_id);
                self.write(&[answer.as_slice(), more].concat())?;
            }
            Reply::Answer { status, head, body } => self.write(&answer(status, &head, &body))?,
            Reply::Garbage(bytes) => self.write(bytes)?,
            Reply::Close => return Ok(Next::Close),
            Reply::Hang => while self.read()? > 0 {},
            Reply::After(gate, reply) => {
                shared.pass(&gate);
                return self.reply(shared, request, *reply);
            }
        }
        Ok(Next::Request)
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

    fn give_up<T>(&self, shared: &Shared, fault: String) -> Option<T> {
        shared.change(|state| state.faults.push(fault));
        None
    }
}

/// The lengths of head and body, once the head is there; what is wrong with it, if something is.
pub(crate) fn head(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let head_len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(head_len)) => head_len,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => return Err("a head without an end".to_owned()),
        Err(error) => return Err(format!("{error} in {:?}", String::from_utf8_lossy(bytes))),
    };
    let header = |name: &str| {
        let mut found =
            request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        let value = found.next().and_then(|header| std::str::from_utf8(header.value).ok());
        if found.next().is_some() { None } else { value }
    };
    let body_len = header("content-length").and_then(|length| length.parse().ok());
    let is_right = request.method == Some("POST")
        && request.path == Some("/api/v1/audit/events/batch")
        && header("content-type") == Some("application/json")
        && header("host").is_some();
    match body_len {
        Some(body_len) if is_right => Ok(Some((head_len, body_len))),
        _ => Err(format!("the head {:?}", String::from_utf8_lossy(&bytes[..head_len]))),
    }
}

/// The body's events, if it is an array of at least one, each with an id of its own.
fn events(body: Vec<u8>) -> Result<(String, Vec<StoredEvent>), String> {
    let text = String::from_utf8(body).map_err(|error| error.to_string())?;
    let events: Vec<StoredEvent> =
        serde_json::from_str(&text).map_err(|error| format!("{error} in {text}"))?;
    let mut ids: Vec<Uuid> = events.iter().map(|event| event.event_id).collect();
    ids.sort_unstable();
    ids.dedup();
    if events.is_empty() || ids.len() < events.len() {
        return Err(format!("{} ids for {} events", ids.len(), events.len()));
    }
    Ok((text, events))
}

/// What our DataStorage answers.
fn stored(request: &Request, head: &str, id: impl Fn(&StoredEvent) -> Uuid) -> Vec<u8> {
    let ids: Vec<String> =
        request.events.iter().map(|event| format!("\"{}\"", id(event).hyphenated())).collect();
    let body = format!(r#"{{"event_ids":[{}],"message":"stored"}}"#, ids.join(","));
    answer(201, &format!("content-type: application/json\r\n{head}"), &body)
}

fn answer(status: u16, head: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} Scripted\r\n{head}content-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

const HEAD_BYTES_MAX: usize = 16 << 10;

/// The lines of a head that was found to be one.
fn headers(head: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(head);
    let lines = text.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}
