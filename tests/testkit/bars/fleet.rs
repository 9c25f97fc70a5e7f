//! Servers behind one address, each as good or as bad as a bar wants it, with one ledger.
//!
//! One thread accepts, one serves each connection, request by request. Invariant: a request is in
//! the ledger before its backend is asked. Limit: a balancer's health checks are not played.

mod connection;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::ledger::{Item, Ledger, Storing};

/// How requests are spread over the backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Each connection goes to the next one, as a level-4 balancer does it.
    PerConnection,
    /// Each connection goes to one by chance, from this seed, as a Kubernetes Service does it.
    ByChance(u64),
    /// Each request goes to the next one, as a level-7 balancer does it.
    PerRequest,
}

/// A request that came as a whole.
#[derive(Debug)]
#[non_exhaustive]
pub struct Batch<'a> {
    /// When, since the fleet's start.
    pub at: Duration,
    /// Its body.
    pub text: &'a str,
    /// Its events.
    pub items: &'a [Item],
    /// How often this connection was asked before.
    pub requests_before: u64,
}

/// What a backend does about a request.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Answer {
    /// How long it thinks.
    pub after: Duration,
    /// What it stores, before it answers.
    pub storing: Storing,
    /// The status.
    pub status: u16,
    /// The `content-type`, and whatever header lines follow it; without the last CRLF.
    pub content_type: String,
    /// The content.
    pub content: Content,
    /// What becomes of the connection.
    pub end: End,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The ids of the request's events.
    Ids,
    /// As many ids of the server's making.
    NewIds,
    /// The ids of the first half of the request's events.
    HalfOfIds,
    /// This text.
    Text(String),
}

/// What becomes of a connection with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is kept.
    Kept,
    /// It is closed behind so many bytes of the answer's content, or behind its last one.
    Cut(usize),
    /// It is reset; nothing is answered.
    Reset,
}

/// One server of a fleet.
pub struct Backend {
    respond: Mutex<Respond>,
    /// Until then it answers 201 when it has read no more than a request's head, and resets.
    hasty_until: Duration,
}

type Respond = Box<dyn FnMut(&Batch<'_>) -> Answer + Send>;

/// A running fleet. It stops when it is dropped.
pub struct Fleet {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    ledger: Ledger,
    balance: Balance,
    backends: Vec<Backend>,
    /// Whose turn it is.
    turn: AtomicUsize,
    state: Mutex<State>,
    stopping: Condvar,
}

#[derive(Default)]
struct State {
    streams: Vec<Arc<TcpStream>>,
    is_stopping: bool,
}

impl Answer {
    /// Events stored under their ids, and 201 with these.
    #[must_use]
    pub fn stored() -> Self {
        Self {
            after: Duration::ZERO,
            storing: Storing::OwnIds,
            status: 201,
            content_type: JSON.to_owned(),
            content: Content::Ids,
            end: End::Kept,
        }
    }

    /// Events stored under new ids, and 201 with those: an old server.
    #[must_use]
    pub fn stored_under_new_ids() -> Self {
        Self { storing: Storing::NewIds, content: Content::NewIds, ..Self::stored() }
    }

    /// Events stored under new ids, and 201 that lists none.
    #[must_use]
    pub fn stored_without_ids() -> Self {
        let content = Content::Text(r#"{"message":"stored"}"#.to_owned());
        Self { storing: Storing::NewIds, content, ..Self::stored() }
    }

    /// Nothing stored, and a text of no use.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self {
            storing: Storing::Nothing,
            status,
            content_type: "text/plain".to_owned(),
            content: Content::Text("no".to_owned()),
            ..Self::stored()
        }
    }

    /// Nothing stored, and a problem without a place.
    #[must_use]
    pub fn problem(status: u16, slug: &str) -> Self {
        let detail = "The request did not pass OpenAPI schema validation";
        let kind = format!("https://kubernaut.ai/problems/{slug}");
        let content =
            format!(r#"{{"type":"{kind}","title":"no","status":{status},"detail":"{detail}"}}"#);
        Self::status(status).with_problem(content)
    }

    /// Nothing stored, and a problem with that place.
    #[must_use]
    pub fn problem_at(status: u16, index: usize) -> Self {
        let kind = "https://kubernaut.ai/problems/validation-error";
        let content =
            format!(r#"{{"type":"{kind}","title":"no","status":{status},"index":{index}}}"#);
        Self::status(status).with_problem(content)
    }

    /// Nothing stored, and no answer.
    #[must_use]
    pub fn reset() -> Self {
        Self { end: End::Reset, ..Self::status(0) }
    }

    /// This, after so long.
    #[must_use]
    pub fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }

    /// This, with other contents.
    #[must_use]
    pub fn with_content(self, content: Content) -> Self {
        Self { content, ..self }
    }

    fn with_problem(self, text: String) -> Self {
        let content_type = "application/problem+json".to_owned();
        Self { content_type, content: Content::Text(text), ..self }
    }
}

impl Backend {
    /// A server that does what this says, request by request.
    #[must_use]
    pub fn new(respond: impl FnMut(&Batch<'_>) -> Answer + Send + 'static) -> Self {
        Self { respond: Mutex::new(Box::new(respond)), hasty_until: Duration::ZERO }
    }

    /// A server that always does this.
    #[must_use]
    pub fn always(answer: Answer) -> Self {
        Self::new(move |_| answer.clone())
    }

    /// This one, but until then it reads no more than a request's head, answers 201 and resets.
    #[must_use]
    pub fn hasty_until(self, hasty_until: Duration) -> Self {
        Self { hasty_until, ..self }
    }
}

impl Fleet {
    /// Starts these servers behind an address on the loopback.
    ///
    /// # Panics
    /// If there is no port or no thread to be had.
    #[must_use]
    pub fn start(balance: Balance, backends: Vec<Backend>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            ledger: Ledger::new(),
            balance,
            backends,
            turn: AtomicUsize::new(0),
            state: Mutex::default(),
            stopping: Condvar::new(),
        });
        let acceptor = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || connection::accept(&listener, &shared)
        });
        Self { addr, shared, acceptor: Some(acceptor) }
    }

    /// One server.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    #[must_use]
    pub fn of_one(respond: impl FnMut(&Batch<'_>) -> Answer + Send + 'static) -> Self {
        Self::start(Balance::PerConnection, vec![Backend::new(respond)])
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Its ledger.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.is_stopping = true;
        for stream in &state.streams {
            stream.shutdown(std::net::Shutdown::Both).ok(); // The client may have closed it.
        }
        drop(state);
        self.shared.stopping.notify_all();
        // The acceptor sees a connection, and then that it is to stop.
        drop(TcpStream::connect(self.addr));
        if let Some(acceptor) = self.acceptor.take()
            && acceptor.join().is_err()
            && !std::thread::panicking()
        {
            panic!("a thread of the fleet panicked");
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The backend of the next connection or request.
    fn next(&self) -> usize {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        match self.balance {
            Balance::PerConnection | Balance::PerRequest => turn % self.backends.len(),
            Balance::ByChance(seed) => {
                let mixed =
                    (seed ^ turn as u64).wrapping_add(1).wrapping_mul(0xd134_2543_de82_ef95);
                (mixed >> 33) as usize % self.backends.len()
            }
        }
    }

    /// Waits so long; false if the fleet stops before.
    fn think(&self, time: Duration) -> bool {
        if time.is_zero() {
            return true;
        }
        let until = Instant::now() + time;
        let mut state = self.state();
        while !state.is_stopping {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let waited = self.stopping.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("hasty_until", &self.hasty_until).finish_non_exhaustive()
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("addr", &self.addr).finish_non_exhaustive()
    }
}

const JSON: &str = "application/json";
