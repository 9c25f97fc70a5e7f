//! A running server: its listeners, its connections, and how it stops.
//!
//! Invariant: when it stops, every request that was let in is answered before its connection
//! closes, and every write that was handed over is committed before the storage closes, unless the
//! deadline passes first; then the writes are still committed, but their answers are lost. Limit:
//! connections are bounded by their number, not by time: a client that doesn't read its answer
//! keeps its place.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::{Instant, interval, sleep, timeout_at};

use crate::config::{Config, ConfigError, Storage};
use crate::fresh_id::FreshIds;
use crate::metrics::Metrics;
use crate::refusals::{LINE_INTERVAL, Refusals};
use crate::routes::{self, App, Surface};
use crate::storage::{StorageError, Store, WriterThread};

/// A DataStorage service with threads of its own; it needs no runtime around it.
///
/// Dropping it stops it as [`shutdown`](Self::shutdown) does, with a deadline of one second.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    health_addr: SocketAddr,
    metrics_addr: SocketAddr,
    stop: Option<oneshot::Sender<Duration>>,
    thread: Option<JoinHandle<Result<(), ShutdownError>>>,
}

/// Why a server didn't start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is out of its bounds.
    #[error("the configuration is not valid")]
    Config(#[from] ConfigError),
    /// An address can't be listened on.
    #[error("can't listen on {address}")]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The storage doesn't open.
    #[error("the storage does not open")]
    Storage(#[from] StorageError),
    /// The threads can't be started.
    #[error("can't start the server's threads")]
    Threads(#[source] io::Error),
}

/// What went wrong while a server stopped. It has stopped nevertheless.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ShutdownError {
    /// Requests or connections were still open.
    #[error("requests were still running after {deadline:?}")]
    DeadlinePassed {
        /// The deadline that was given.
        deadline: Duration,
    },
    /// A thread of the server panicked.
    #[error("the server panicked")]
    Panicked,
}

impl Server {
    /// Opens the storage, brings its schema up to date, and listens.
    ///
    /// # Errors
    /// The configuration, the storage, an address, or the operating system refuses.
    pub fn start(config: Config) -> Result<Self, StartError> {
        config.check()?;
        let listeners = Listeners::bind(&config)?;
        let addr = listeners.events.addr;
        let health_addr = listeners.health.as_ref().map_or(addr, |listener| listener.addr);
        let metrics_addr = listeners.metrics.as_ref().map_or(addr, |listener| listener.addr);
        let metrics = Metrics::new();
        let Storage::Sqlite { path } = &config.storage;
        let (store, writer) = Store::open(path, &config, &metrics.writes)?;
        let app = Arc::new(App {
            running: Semaphore::new(config.connections_max),
            body_bytes: Arc::new(Semaphore::new(config.bytes_in_flight_max)),
            is_stopping: AtomicBool::new(false),
            refusals: Refusals::new(metrics.refusals.clone()),
            fresh_ids: FreshIds::default(),
            config,
            store,
            metrics,
        });
        let (stop, stopped) = oneshot::channel();
        let thread = spawn(app, listeners, stopped, writer).map_err(StartError::Threads)?;
        tracing::info!(%addr, %health_addr, %metrics_addr, "listening");
        let (stop, thread) = (Some(stop), Some(thread));
        Ok(Self { addr, health_addr, metrics_addr, stop, thread })
    }

    /// Stops: readiness says so at once, new requests are refused, those that run are finished,
    /// their writes are committed; then the listeners and the storage are closed. Blocks until
    /// then; it may be called from anywhere but is no place for an async task.
    ///
    /// # Errors
    /// The deadline passed before all requests were answered, or a thread panicked. Either way the
    /// server has stopped, and what was handed over to be written is committed.
    pub fn shutdown(mut self, deadline: Duration) -> Result<(), ShutdownError> {
        self.stop_within(deadline)
    }

    /// The API's address, with the port that it really got.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where `/healthz` and `/readyz` are served: the API's address if they have none of their own.
    #[must_use]
    pub const fn health_addr(&self) -> SocketAddr {
        self.health_addr
    }

    /// Where `/metrics` is served: the API's address if it has none of its own.
    #[must_use]
    pub const fn metrics_addr(&self) -> SocketAddr {
        self.metrics_addr
    }

    fn stop_within(&mut self, deadline: Duration) -> Result<(), ShutdownError> {
        let (Some(stop), Some(thread)) = (self.stop.take(), self.thread.take()) else {
            return Ok(());
        };
        // Fails only if the thread is gone, which joining it tells.
        stop.send(deadline).ok();
        thread.join().unwrap_or(Err(ShutdownError::Panicked))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop_within(DROP_DEADLINE) {
            tracing::warn!(%error, "the server was dropped");
        }
    }
}

/// A bound address and what is served there.
struct Listener {
    listener: StdTcpListener,
    /// With the port that it really got.
    addr: SocketAddr,
    surface: Surface,
}

struct Listeners {
    events: Listener,
    health: Option<Listener>,
    metrics: Option<Listener>,
}

impl Listeners {
    fn bind(config: &Config) -> Result<Self, StartError> {
        let nothing = Surface { events: false, liveness: false, readiness: false, metrics: false };
        let events = Surface {
            events: true,
            liveness: config.health_listen.is_none(),
            readiness: true,
            metrics: config.metrics_listen.is_none(),
        };
        let health = Surface { liveness: true, readiness: true, ..nothing };
        let metrics = Surface { metrics: true, ..nothing };
        let bind = |address: SocketAddr, surface: Surface| {
            let bound = StdTcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                let addr = listener.local_addr()?;
                Ok(Listener { listener, addr, surface })
            });
            bound.map_err(|source| StartError::Listen { address, source })
        };
        Ok(Self {
            events: bind(config.listen, events)?,
            health: config.health_listen.map(|address| bind(address, health)).transpose()?,
            metrics: config.metrics_listen.map(|address| bind(address, metrics)).transpose()?,
        })
    }
}

/// Runs the server on a thread of its own, so that neither starting nor stopping it needs a
/// runtime or minds one.
fn spawn(
    app: Arc<App>,
    listeners: Listeners,
    stopped: oneshot::Receiver<Duration>,
    writer: WriterThread,
) -> io::Result<JoinHandle<Result<(), ShutdownError>>> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(WORKERS)
        // One for each connection that reads, one of them the readiness probe's.
        .max_blocking_threads(app.config.readers + 1)
        .thread_name("datastorage")
        .enable_all()
        .build()?;
    thread::Builder::new().name("datastorage-main".to_owned()).spawn(move || {
        let result = runtime.block_on(serve(app, listeners, stopped));
        close(runtime);
        writer.stop();
        result
    })
}

/// Ends all tasks, and gives queries a moment to notice that they are interrupted.
fn close(runtime: Runtime) {
    runtime.shutdown_timeout(Duration::from_millis(100));
}

/// Serves until it is told to stop, then stops.
async fn serve(
    app: Arc<App>,
    listeners: Listeners,
    mut stopped: oneshot::Receiver<Duration>,
) -> Result<(), ShutdownError> {
    let connections_max = app.config.connections_max;
    let listen =
        |listener, connections_max| Acceptor::spawn(Arc::clone(&app), listener, connections_max);
    let events = listen(listeners.events, connections_max);
    let others = [listeners.health, listeners.metrics]
        .map(|listener| listener.map(|listener| listen(listener, OPERATOR_CONNECTIONS_MAX)));

    let mut summaries = interval(LINE_INTERVAL);
    let deadline = loop {
        tokio::select! {
            // Without a sender the server itself is gone.
            deadline = &mut stopped => break deadline.unwrap_or(DROP_DEADLINE),
            now = summaries.tick() => app.refusals.summarize(now),
        }
    };
    let deadline_at = Instant::now() + deadline;
    let passed = |_| ShutdownError::DeadlinePassed { deadline };
    app.stop();
    let permits = u32::try_from(connections_max).unwrap_or(u32::MAX);
    let finished = timeout_at(deadline_at, app.running.acquire_many(permits)).await.map_err(passed);
    // The permits stay taken: nothing is let in any more.
    let mut result = finished.map(|permits| permits.into_iter().for_each(SemaphorePermit::forget));
    // What is asked about the server is answered to the last.
    for acceptor in [Some(events)].into_iter().chain(others).flatten() {
        let closed = timeout_at(deadline_at, acceptor.close()).await.map_err(passed);
        result = result.and(closed);
    }
    result
}

/// A task that accepts connections.
struct Acceptor {
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<GracefulShutdown>,
}

impl Acceptor {
    fn spawn(app: Arc<App>, listener: Listener, connections_max: usize) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(accept(app, listener, connections_max, stopped));
        Self { stop, task }
    }

    /// Closes the listener, lets each connection finish what it is at, and closes it.
    async fn close(self) {
        // Fails only if the task is gone.
        self.stop.send(()).ok();
        if let Ok(connections) = self.task.await {
            connections.shutdown().await;
        }
    }
}

async fn accept(
    app: Arc<App>,
    listener: Listener,
    connections_max: usize,
    mut stopped: oneshot::Receiver<()>,
) -> GracefulShutdown {
    let connections = GracefulShutdown::new();
    let Listener { listener, surface, .. } = listener;
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a listener can't be served");
            return connections;
        }
    };
    let places = Arc::new(Semaphore::new(connections_max));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            _ = &mut stopped => return connections,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(Arc::clone(&app), surface, stream);
                let connection = connections.watch(connection);
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "a connection broke off");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Of the process's own limits, as of files: they ease when connections end.
                tracing::warn!(%error, "can't accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn connection(
    app: Arc<App>,
    surface: Surface,
    stream: TcpStream,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> {
    // Answers are written whole; waiting for more would only delay them.
    stream.set_nodelay(true).ok();
    let peer = stream.peer_addr().ok();
    let idle_timeout = app.config.idle_timeout;
    let service = service_fn(move |request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(routes::answer(app, surface, peer, request).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        // It runs from the end of the request before, so it bounds idleness too.
        .header_read_timeout(idle_timeout)
        .max_header_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
}

/// Enough for parsing, hashing and sending at the rate at which one thread can write.
const WORKERS: usize = 2;

/// Probes and scrapers are few.
const OPERATOR_CONNECTIONS_MAX: usize = 64;

const HEADER_BYTES_MAX: usize = 16 << 10;

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Whoever drops a server doesn't ask how it went, and shouldn't wait long.
const DROP_DEADLINE: Duration = Duration::from_secs(1);
