//! tokio around the machine: one task and one socket per connection.
//!
//! The task connects when there is something to send, feeds the [`Pipeline`] and forwards what it
//! says. Reading and writing are polled side by side, so that a server that has stopped reading can
//! still answer, and one that closes an idle connection is noticed.
//!
//! Invariant: every request sent gets exactly one final [`ConnectionEvent`], for as long as the
//! [`Connection`] and its runtime live.
//!
//! A connection that is told to [renew](Connection::renew) itself leaves its socket after the last
//! outstanding answer, and connects elsewhere for the next request where the name has more than one
//! address.
//!
//! Limit: requests wait in a channel that is bounded only because the caller keeps to
//! [`ConnectionConfig::depth`]. Connecting is tried once per send; pauses between tries are the
//! caller's.

use std::{
    future::poll_fn,
    io::IoSlice,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::AbortHandle,
    time::{Instant, Sleep, sleep, timeout},
};
use tracing::debug;

use crate::{
    Cause, Certainty, Endpoint, Failure, Target, What,
    h1::{self, Limits, Pipeline},
    outcome::whole_ms,
    stream::{Stream, has_unread},
};

/// How a [`Connection`] behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectionConfig {
    /// Time for resolving the name and connecting to one of its addresses.
    pub connect_timeout: Duration,
    /// Time for an answer, from a request's first byte, or while that can't be written from when
    /// the request had its connection. It passes for the oldest request; all fail with it.
    pub request_timeout: Duration,
    /// Requests that the caller has outstanding at most.
    pub depth: usize,
    /// How much of a response is taken.
    pub limits: Limits,
    /// Whom to trust, and what to show, where the endpoint is `https`.
    #[cfg(feature = "__tls")]
    pub tls: Option<Arc<crate::Tls>>,
}

impl Default for ConnectionConfig {
    /// Five seconds, thirty seconds, four requests.
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            depth: 4,
            limits: Limits::default(),
            #[cfg(feature = "__tls")]
            tls: None,
        }
    }
}

/// Something that happened to a request on a connection; in order for each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionEvent {
    /// The connection, as it was named in [`Connection::spawn`].
    pub slot: usize,
    /// Which of the slot's sockets it happened on, counted from 1. 0: on none.
    pub connection: u64,
    /// The request, as it was named in [`Connection::send`].
    pub request_id: u64,
    /// What happened to it.
    pub what: What,
}

/// A handle to a task that owns at most one socket.
///
/// Dropping it ends the task and closes the socket. Outstanding requests get no more events then,
/// and those of them that were wholly written may have been processed. Only when the task happens
/// to be running on another thread at that moment, an event may still follow.
#[derive(Debug)]
pub struct Connection {
    slot: usize,
    commands: UnboundedSender<Command>,
    events: UnboundedSender<ConnectionEvent>,
    is_open: Arc<AtomicBool>,
    task: AbortHandle,
}

#[derive(Debug)]
enum Command {
    Send(Request),
    /// Leave this socket.
    Renew(u64),
}

#[derive(Debug)]
struct Request {
    id: u64,
    head: Bytes,
    body: Vec<Bytes>,
}

impl Connection {
    /// Starts the task on the current tokio runtime, of either kind. It connects when the first
    /// request is sent.
    ///
    /// # Panics
    /// If there is no current tokio runtime.
    #[must_use]
    pub fn spawn(
        slot: usize,
        endpoint: Arc<Endpoint>,
        config: ConnectionConfig,
        events: UnboundedSender<ConnectionEvent>,
    ) -> Self {
        let (commands, receiver) = mpsc::unbounded_channel();
        let is_open = Arc::new(AtomicBool::new(false));
        let task = Task {
            slot,
            endpoint,
            config,
            commands: receiver,
            events: events.clone(),
            is_open: Arc::clone(&is_open),
            current: 0,
            address: None,
            left: None,
        };
        let task = tokio::spawn(task.run()).abort_handle();
        Self { slot, commands, events, is_open, task }
    }

    /// Whether the task has an open socket at this moment. For observers: by the time that one
    /// acts on it, it may have changed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed) // It says nothing about other memory.
    }

    /// Sends a request, with these header lines beside the target's, each of which ends with a
    /// CRLF. Never blocks: the request waits in a channel for its connection.
    ///
    /// The caller counts its requests without a final event, and keeps to
    /// [`ConnectionConfig::depth`]: that bounds the channel. Debug builds check it, by a panic of
    /// the task.
    pub fn send(&self, request_id: u64, target: &Target, lines: &str, body: Vec<Bytes>) {
        let head = target.head(body.iter().map(Bytes::len).sum(), lines);
        let request = Request { id: request_id, head, body };
        if self.commands.send(Command::Send(request)).is_err() {
            let failure = Failure { certainty: Certainty::NotProcessed, cause: Cause::TaskEnded };
            let (slot, what) = (self.slot, What::Failed(failure));
            report(&self.events, ConnectionEvent { slot, connection: 0, request_id, what });
        }
    }

    /// Leaves a socket, which is named as in [`ConnectionEvent::connection`]: it takes no request
    /// that is sent from now on, and is closed after its last outstanding answer. The next request
    /// then resolves the name anew and connects, beginning behind the address that was left, so
    /// that one bad server of several is left. Nothing happens if that socket is gone already,
    /// but that its address comes last. Never blocks.
    ///
    /// Requests that are sent meanwhile wait, at most for as long as the outstanding ones have for
    /// their answers. How often this is done is for the caller to bound.
    pub fn renew(&self, connection: u64) {
        // Without its task, there is nothing to leave.
        let _ = self.commands.send(Command::Renew(connection));
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the spawned task owns between connections.
#[derive(Debug)]
struct Task {
    slot: usize,
    endpoint: Arc<Endpoint>,
    config: ConnectionConfig,
    commands: UnboundedReceiver<Command>,
    events: UnboundedSender<ConnectionEvent>,
    is_open: Arc<AtomicBool>,
    /// The socket that is open, or was last. 0: there was none.
    current: u64,
    /// Where that leads to.
    address: Option<SocketAddr>,
    /// The address that was left on purpose: others are tried before it.
    left: Option<SocketAddr>,
}

impl Task {
    /// Ends when the handle is dropped.
    async fn run(mut self) {
        let mut buffer = vec![0; READ_BYTES].into_boxed_slice();
        while let Some(command) = self.commands.recv().await {
            let request = match command {
                Command::Send(request) => request,
                Command::Renew(connection) => {
                    self.leave(connection);
                    continue;
                }
            };
            match connect(&self.endpoint, &self.config, self.left).await {
                Ok((stream, address)) => {
                    self.current += 1;
                    self.address = Some(address);
                    debug!(slot = self.slot, endpoint = %self.endpoint, "connected");
                    self.is_open.store(true, Ordering::Relaxed);
                    self.serve(stream, request, &mut buffer).await;
                    self.is_open.store(false, Ordering::Relaxed);
                    debug!(slot = self.slot, endpoint = %self.endpoint, "disconnected");
                }
                Err(cause) => self.refuse(&request, &cause),
            }
        }
    }

    /// Has the next socket lead elsewhere than this one, if it is or was the last.
    fn leave(&mut self, connection: u64) -> bool {
        let is_current = connection == self.current;
        if is_current {
            self.left = self.address;
        }
        is_current
    }

    /// Fails the request that wanted a connection, and those that came after it.
    fn refuse(&mut self, first: &Request, cause: &Cause) {
        debug!(slot = self.slot, endpoint = %self.endpoint, %cause, "not connected");
        let mut request_id = first.id;
        loop {
            let failure = Failure { certainty: Certainty::NotProcessed, cause: cause.clone() };
            let (slot, what) = (self.slot, What::Failed(failure));
            report(&self.events, ConnectionEvent { slot, connection: 0, request_id, what });
            request_id = loop {
                match self.commands.try_recv() {
                    Ok(Command::Send(request)) => break request.id,
                    Ok(Command::Renew(connection)) => drop(self.leave(connection)),
                    Err(_) => return,
                }
            };
        }
    }

    /// Runs one connection to its end. Requests that it doesn't take stay in the channel.
    async fn serve(&mut self, stream: Stream, first: Request, buffer: &mut [u8]) {
        let request_timeout = self.config.request_timeout;
        let mut line = Line {
            pipeline: Pipeline::new(self.config.limits.clone(), request_timeout),
            stream,
            is_writable: true,
            timer: Box::pin(sleep(request_timeout)),
        };
        line.push(first);
        poll_fn(|cx| {
            // Reading first: on a connection that the server has closed, requests that are still
            // in the channel are left there for the next connection.
            line.poll_read(cx, buffer);
            let is_dropped = self.poll_commands(cx, &mut line);
            line.poll_write(cx);
            line.poll_timer(cx);
            let (slot, connection) = (self.slot, self.current);
            while let Some(h1::Event { request_id, what }) = line.pipeline.poll_event() {
                report(&self.events, ConnectionEvent { slot, connection, request_id, what });
            }
            if is_dropped || line.pipeline.must_close() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Takes what was sent, as far as the connection takes it; true when the handle has been
    /// dropped.
    fn poll_commands(&mut self, cx: &mut Context<'_>, line: &mut Line) -> bool {
        while line.is_writable && line.pipeline.is_open() {
            match self.commands.poll_recv(cx) {
                Poll::Pending => return false,
                Poll::Ready(None) => return true,
                Poll::Ready(Some(Command::Send(request))) => line.push(request),
                Poll::Ready(Some(Command::Renew(connection))) => {
                    if self.leave(connection) {
                        line.pipeline.finish();
                    }
                }
            }
            let (outstanding, depth) = (line.pipeline.outstanding(), self.config.depth);
            debug_assert!(outstanding <= depth, "{outstanding} requests outstanding of {depth}");
        }
        false
    }
}

/// One connection while it lasts.
struct Line {
    pipeline: Pipeline,
    stream: Stream,
    is_writable: bool,
    /// Never later than the pipeline's deadline, and moved only when it has passed: moving it with
    /// each request would cost more than an idle wake-up per timeout.
    timer: Pin<Box<Sleep>>,
}

impl Line {
    fn push(&mut self, Request { id, head, body }: Request) {
        self.pipeline.push(now(), id, head, body);
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) {
        while !self.pipeline.must_close() {
            let mut buffer = ReadBuf::new(buffer);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => self.pipeline.eof(),
                Poll::Ready(Ok(())) => self.pipeline.read(buffer.filled()),
                Poll::Ready(Err(error)) => self.pipeline.fail(Cause::Broken(error.into())),
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) {
        while self.is_writable {
            // What TLS has taken and not written yet goes out first, so that it is known which
            // requests have left.
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) => self.pipeline.flushed(),
                Poll::Ready(Err(_)) => self.is_writable = false,
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.pipeline.write_slices(&mut slices);
            if count == 0 || !self.is_writable {
                return;
            }
            // What has come in already answers nothing that is still to be begun. Reading goes
            // first; the runtime says that there is something to read in a moment.
            if !self.pipeline.is_any_begun() && has_unread(&self.stream) {
                return;
            }
            match Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..count]) {
                Poll::Pending => return,
                Poll::Ready(Ok(written)) if written > 0 => self.pipeline.wrote(now(), written),
                // The server takes no more, but the answer that says why may still be on its way,
                // or be here already; if there is none, reading finds that out.
                Poll::Ready(_) => self.is_writable = false,
            }
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) {
        while let Some(deadline) = self.pipeline.deadline() {
            let deadline = Instant::from_std(deadline);
            if self.timer.is_elapsed() || deadline < self.timer.deadline() {
                self.timer.as_mut().reset(deadline);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return;
            }
            self.pipeline.handle_timeout(now());
        }
    }
}

/// Connects within the time that there is for it, TLS included. Tries each of the host's addresses,
/// those behind `left` first, and gives each a fair share of the time that is left.
async fn connect(
    endpoint: &Endpoint,
    config: &ConnectionConfig,
    left: Option<SocketAddr>,
) -> Result<(Stream, SocketAddr), Cause> {
    let (start, connect_timeout) = (Instant::now(), config.connect_timeout);
    let host = endpoint.host();
    let mut addresses = match timeout(connect_timeout, lookup_host((host, endpoint.port()))).await {
        Ok(Ok(addresses)) => addresses.take(ADDRESSES_MAX).collect::<Vec<_>>(),
        Ok(Err(error)) => return Err(Cause::Resolve { host: host.into(), fault: error.into() }),
        Err(_) => return Err(late(host, connect_timeout)),
    };
    begin_behind(&mut addresses, left);
    let mut tries_left = addresses.len();
    let mut cause = late(host, connect_timeout);
    for address in addresses {
        let share = connect_timeout.saturating_sub(start.elapsed()) / tries_left as u32;
        tries_left -= 1;
        let attempt = async {
            let stream = connect_to(address).await?;
            #[cfg(feature = "__tls")]
            let stream = encrypt(stream, endpoint, config).await?;
            Ok(stream)
        };
        cause = match timeout(share, attempt).await {
            Ok(Ok(stream)) => return Ok((stream, address)),
            Ok(Err(cause)) => cause,
            Err(_) => late(&address.to_string(), share),
        };
    }
    Err(cause)
}

async fn connect_to(address: SocketAddr) -> Result<TcpStream, Cause> {
    let broken = |error: std::io::Error| Cause::Connect { address, fault: error.into() };
    let stream = TcpStream::connect(address).await.map_err(broken)?;
    prepare(&stream).map_err(broken)?;
    Ok(stream)
}

/// Agrees on TLS, where the endpoint wants it.
#[cfg(feature = "__tls")]
async fn encrypt(
    stream: TcpStream,
    endpoint: &Endpoint,
    config: &ConnectionConfig,
) -> Result<Stream, Cause> {
    if !endpoint.is_tls() {
        return Ok(Stream::Plain(stream));
    }
    let untrusted = |why: &dyn std::fmt::Display| Cause::Tls {
        host: endpoint.host().into(),
        why: why.to_string().into(),
    };
    let tls = config.tls.as_ref().ok_or_else(|| untrusted(&"nothing says whom to trust"))?;
    let stream = tls.connect(endpoint.host(), stream).await.map_err(|error| untrusted(&error))?;
    Ok(Stream::Tls(Box::new(stream)))
}

/// Moves those before `left`, and itself, behind the others.
fn begin_behind(addresses: &mut [SocketAddr], left: Option<SocketAddr>) {
    let place = addresses.iter().position(|address| Some(*address) == left);
    addresses.rotate_left(place.map_or(0, |place| (place + 1) % addresses.len()));
}

fn late(to: &str, timeout: Duration) -> Cause {
    Cause::ConnectTimeout { to: to.into(), timeout_ms: whole_ms(timeout) }
}

/// Small requests go out at once. A peer that has vanished from an idle connection is noticed by
/// probes, and not by the next request, which would then be ambiguous.
fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let probes = TcpKeepalive::new().with_time(IDLE_BEFORE_PROBES).with_interval(PROBE_INTERVAL);
    SockRef::from(stream).set_tcp_keepalive(&probes)
}

fn report(events: &UnboundedSender<ConnectionEvent>, event: ConnectionEvent) {
    // Whoever has dropped the receiver doesn't want to know.
    let _ = events.send(event);
}

/// tokio's clock, so that tests may move it.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// One read takes in a whole answer about a thousand events, about 40 KB.
const READ_BYTES: usize = 64 * 1_024;

/// Slices per write: 2 KiB of stack, and some twenty batches.
const SLICES_MAX: usize = 64;

/// Addresses that are tried of one name.
const ADDRESSES_MAX: usize = 16;

/// Well below the minutes after which routers and load balancers forget idle connections.
const IDLE_BEFORE_PROBES: Duration = Duration::from_secs(30);

/// Between probes that go unanswered.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
