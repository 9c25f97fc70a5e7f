//! A DataStorage that does what a script says, and remembers everything.
//!
//! One thread accepts, one serves each connection, request by request, as the real servers do.
//! Invariant: a request is in the log before its script is asked, and an event counts as stored
//! before the first byte of its answer is written: who has the answer finds it stored. Limits:
//! [`CONNECTIONS_MAX`] connections in a life; requests are POSTs of JSON with a `content-length`,
//! and whatever else comes is a fault that fails the test when the server is dropped.

mod connection;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Deserialize;
use socket2::{Domain, Socket, Type};
use uuid::Uuid;

use crate::Gate;

pub(crate) use self::connection::head as request_head;

/// What the server does about a request that it has read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Reply {
    /// Stores the events, and answers 201 with their ids. An id that is known isn't stored again.
    Store,
    /// Stores the events, and answers 201 with ids of its own, as a server does that makes the ids.
    StoreUnderOwnIds,
    /// Stores the events, and closes the connection after so many bytes of the answer. None of
    /// them, and the answer is lost.
    StoreAndCut {
        /// Bytes of the answer that are sent.
        bytes: usize,
    },
    /// Stores the events, answers that it closes the connection with that, and does.
    StoreAndClose,
    /// Stores the events, answers, and sends these bytes right behind, as nobody asked for.
    StoreAndMore(&'static [u8]),
    /// An answer; nothing is stored.
    Answer {
        /// The status.
        status: u16,
        /// Header lines, each with its CRLF, beside `content-length`.
        head: String,
        /// The content.
        body: String,
    },
    /// These bytes, whatever they are; then the connection is kept, as if all were well.
    Garbage(&'static [u8]),
    /// Closes the connection without a word; nothing is stored.
    Close,
    /// Never answers, and holds the connection until the client leaves.
    Hang,
    /// Waits at the gate, and does the other thing then.
    After(Gate, Box<Self>),
}

impl Reply {
    /// An answer with that status and no content of use.
    #[must_use]
    pub fn status(status: u16) -> Self {
        let head = "content-type: text/plain\r\n".to_owned();
        Self::Answer { status, head, body: "no".to_owned() }
    }

    /// An RFC 9457 problem of that kind.
    #[must_use]
    pub fn problem(status: u16, slug: &str) -> Self {
        let head = "content-type: application/problem+json\r\n".to_owned();
        let body = format!(
            r#"{{"type":"https://kubernaut.ai/problems/{slug}","title":"no","status":{status}}}"#
        );
        Self::Answer { status, head, body }
    }

    /// A problem with the event at that place of the request.
    #[must_use]
    pub fn problem_at(status: u16, index: usize) -> Self {
        let head = "content-type: application/problem+json\r\n".to_owned();
        let kind = "https://kubernaut.ai/problems/validation-error";
        let body = format!(r#"{{"type":"{kind}","status":{status},"index":{index}}}"#);
        Self::Answer { status, head, body }
    }

    /// This, but not before the gate is open.
    #[must_use]
    pub fn after(self, gate: &Gate) -> Self {
        Self::After(gate.clone(), Box::new(self))
    }
}

/// A request as it came.
#[derive(Debug)]
#[non_exhaustive]
pub struct Request {
    /// Its place in the log, from 0.
    pub number: usize,
    /// Which connection it came over, in the order in which they were accepted, from 0.
    pub connection: usize,
    /// When it had come as a whole.
    pub at: Instant,
    /// Its header lines.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub text: String,
    /// Its events.
    pub events: Vec<StoredEvent>,
}

/// What identifies an event, and its JSON.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct StoredEvent {
    /// The id that its producer gave it.
    pub event_id: Uuid,
    /// What joins it to others.
    pub correlation_id: String,
    /// Who made it.
    pub producer: String,
    /// Its producer's number for it.
    pub producer_seq: u64,
}

impl Request {
    /// The value of the first header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// How many events it carries.
    #[must_use]
    pub fn event_count(&self) -> usize {
        self.events.len()
    }

    /// Each event as a value.
    ///
    /// # Panics
    /// Never: the body was parsed before.
    #[must_use]
    pub fn values(&self) -> Vec<serde_json::Value> {
        serde_json::from_str(&self.text).expect("the body was parsed when it came")
    }
}

/// The server. Dropping it closes its connections and joins its threads.
pub struct Scripted {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

type Script = Box<dyn FnMut(&Request) -> Reply + Send>;

struct Shared {
    script: Mutex<Script>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    requests: Vec<Arc<Request>>,
    stored: HashMap<Uuid, StoredEvent>,
    stored_correlations: HashSet<String>,
    repeats: u64,
    faults: Vec<String>,
    /// Of the next requests, after how many bytes of their bodies they are reset.
    resets: VecDeque<usize>,
    connections: HashMap<usize, Arc<TcpStream>>,
    /// Where connections wait.
    gates: Vec<Gate>,
    is_stopping: bool,
}

/// A port that refuses connections, and that nobody else can take.
#[derive(Debug)]
pub struct ReservedPort {
    socket: Socket,
    addr: SocketAddr,
}

impl ReservedPort {
    /// Takes a free one.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn take() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket to be had");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        socket.bind(&any.into()).expect("a free port on the loopback");
        let addr = socket.local_addr().expect("a bound socket has an address").as_socket();
        Self { socket, addr: addr.expect("an IPv4 socket has an IPv4 address") }
    }

    /// Where nobody answers yet.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Begins to listen, and leaves the rest to the caller.
    ///
    /// # Panics
    /// If the system doesn't let it listen.
    #[must_use]
    pub fn bind(self) -> TcpListener {
        self.socket.listen(BACKLOG).expect("a bound socket can listen");
        self.socket.into()
    }

    /// Begins to answer.
    ///
    /// # Panics
    /// If the system doesn't let it listen.
    #[must_use]
    pub fn listen(self, script: impl FnMut(&Request) -> Reply + Send + 'static) -> Scripted {
        self.socket.listen(BACKLOG).expect("a bound socket can listen");
        Scripted::accept_on(self.socket.into(), Box::new(script))
    }
}

impl Scripted {
    /// Starts a server that asks the script about each request.
    ///
    /// # Panics
    /// If there is no port or no thread to be had.
    #[must_use]
    pub fn start(script: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        ReservedPort::take().listen(script)
    }

    /// Starts a server that gives these replies, in order, and stores everything after them.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    #[must_use]
    pub fn replying(replies: impl IntoIterator<Item = Reply>) -> Self {
        let mut replies = replies.into_iter().collect::<VecDeque<_>>();
        Self::start(move |_| replies.pop_front().unwrap_or(Reply::Store))
    }

    /// Starts a server that stores everything.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    #[must_use]
    pub fn storing() -> Self {
        Self::start(|_| Reply::Store)
    }

    fn accept_on(listener: TcpListener, script: Script) -> Self {
        let addr = listener.local_addr().expect("a listener has an address");
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { script: Mutex::new(script), state, changed });
        let acceptor = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || connection::accept(&listener, &shared)
        });
        Self { addr, shared, acceptor: Some(acceptor) }
    }

    /// Its address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Every request so far, those that are waiting for their answers too.
    #[must_use]
    pub fn requests(&self) -> Vec<Arc<Request>> {
        self.shared.state().requests.clone()
    }

    /// Every stored event, each once, in no order.
    #[must_use]
    pub fn stored(&self) -> Vec<StoredEvent> {
        self.shared.state().stored.values().cloned().collect()
    }

    /// How many different events are stored.
    #[must_use]
    pub fn stored_count(&self) -> usize {
        self.shared.state().stored.len()
    }

    /// Whether an event of that correlation id is stored.
    #[must_use]
    pub fn has_stored(&self, correlation_id: &str) -> bool {
        self.shared.state().stored_correlations.contains(correlation_id)
    }

    /// How many events came again that were stored already.
    #[must_use]
    pub fn repeats(&self) -> u64 {
        self.shared.state().repeats
    }

    /// Resets the connection of the next request, after so many bytes of its body were read. It
    /// doesn't appear among the requests.
    pub fn reset_next(&self, body_bytes: usize) {
        self.shared.state().resets.push_back(body_bytes);
    }

    /// How many of the resets that were ordered have not happened yet.
    #[must_use]
    pub fn resets_left(&self) -> usize {
        self.shared.state().resets.len()
    }

    /// Closes every connection, and waits until the last is gone.
    ///
    /// # Panics
    /// If one doesn't go, because it waits at a gate.
    #[track_caller]
    pub fn hang_up(&self) {
        self.shared.close_all(&self.shared.state());
        self.wait("connections to go", crate::WAIT, |state| state.connections.is_empty());
    }

    /// Waits until so many requests have come.
    ///
    /// # Panics
    /// At the deadline.
    #[track_caller]
    pub fn wait_for_requests(&self, count: usize, deadline: Duration) {
        self.wait("requests", deadline, |state| state.requests.len() >= count);
    }

    /// Waits until so many different events are stored.
    ///
    /// # Panics
    /// At the deadline.
    #[track_caller]
    pub fn wait_for_stored(&self, count: usize, deadline: Duration) {
        self.wait("stored events", deadline, |state| state.stored.len() >= count);
    }

    #[track_caller]
    fn wait(&self, what: &str, deadline: Duration, mut is_reached: impl FnMut(&State) -> bool) {
        let state = self.shared.state();
        let waited =
            self.shared.changed.wait_timeout_while(state, deadline, |state| !is_reached(state));
        let (state, result) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!result.timed_out(), "waited {deadline:?} for {what}: {state:?}");
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.is_stopping = true;
        self.shared.close_all(&state);
        let gates = std::mem::take(&mut state.gates);
        drop(state);
        for gate in gates {
            gate.open();
        }
        // The acceptor sees a connection, and then that it is to stop.
        drop(TcpStream::connect(self.addr));
        if let Some(acceptor) = self.acceptor.take()
            && acceptor.join().is_err()
            && !std::thread::panicking()
        {
            panic!("a thread of the scripted server panicked");
        }
        let faults = std::mem::take(&mut self.shared.state().faults);
        if !faults.is_empty() && !std::thread::panicking() {
            panic!("requests that no client should send: {faults:?}");
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    fn close_all(&self, state: &State) {
        for stream in state.connections.values() {
            stream.shutdown(Shutdown::Both).ok(); // The client may have closed it.
        }
    }

    fn store(&self, request: &Request) {
        self.change(|state| {
            for event in &request.events {
                if state.stored.insert(event.event_id, event.clone()).is_some() {
                    state.repeats += 1;
                }
                state.stored_correlations.insert(event.correlation_id.clone());
            }
        });
    }

    /// Waits at the gate, unless the server is about to stop.
    fn pass(&self, gate: &Gate) {
        let mut state = self.state();
        if !state.is_stopping {
            state.gates.push(gate.clone());
            drop(state);
            gate.pass();
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("requests", &self.requests.len())
            .field("stored", &self.stored.len())
            .field("repeats", &self.repeats)
            .field("faults", &self.faults)
            .field("connections", &self.connections.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scripted").field("addr", &self.addr).finish_non_exhaustive()
    }
}

const BACKLOG: i32 = 128;

/// Connections that a server takes in its life: more is a client that can't keep one.
const CONNECTIONS_MAX: usize = 1_024;
