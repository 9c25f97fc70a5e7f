//! A network between the engine and its server, as bad as a test wants it.
//!
//! It passes bytes on and knows nothing of HTTP. Invariant: a way that ends, ends after exactly so
//! many bytes. Limit: delays hold up what comes behind, so that latency costs bandwidth, too.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::sleep;

/// What happens to the two ways of one connection.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// From the engine to the server.
    pub up: Way,
    /// From the server to the engine.
    pub down: Way,
}

/// What happens on one way.
#[derive(Debug, Clone)]
pub struct Way {
    /// How long each piece is held up.
    pub latency: Duration,
    /// Bytes in a piece at most.
    pub piece_bytes: usize,
    /// How the way ends, and after how many bytes. None: with the connection.
    pub end: Option<(usize, End)>,
}

/// How a way ends before its connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both ends see a reset.
    Reset,
    /// The far end sees that no more will come; the other way goes on.
    HalfClose,
    /// Nothing comes any longer, and nobody is told.
    Hang,
    /// The engine gets these bytes, as if the server had sent them, and no more will come.
    Say(&'static [u8]),
}

impl Default for Way {
    /// A perfect one.
    fn default() -> Self {
        Self { latency: Duration::ZERO, piece_bytes: PIECE_BYTES, end: None }
    }
}

impl Way {
    /// A way that ends like this.
    #[must_use]
    pub fn ending(after_bytes: usize, end: End) -> Self {
        Self { end: Some((after_bytes, end)), ..Self::default() }
    }
}

/// A running network. It stops when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    accepted: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl Proxy {
    /// A network in front of the server at this address; `network` is asked for each connection,
    /// by its number from 0.
    ///
    /// # Panics
    /// If the machine has no port or no thread for it.
    #[must_use]
    pub fn start(
        server: SocketAddr,
        mut network: impl FnMut(usize) -> Network + Send + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("there is a thread");
        let listener = runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .expect("the loopback has a free port");
        let addr = listener.local_addr().expect("it is bound");
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        runtime.spawn(async move {
            while let Ok((engine, _)) = listener.accept().await {
                let network = network(count.fetch_add(1, Ordering::Relaxed));
                tokio::spawn(pass(engine, server, network));
            }
        });
        Self { addr, accepted, _runtime: runtime }
    }

    /// What to give the engine as its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Connections so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// Why both ways end at once.
enum Stop {
    Reset,
    Say(&'static [u8]),
}

async fn pass(mut engine: TcpStream, server: SocketAddr, network: Network) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    for stream in [&engine, &server] {
        stream.set_nodelay(true).ok(); // It may have gone.
    }
    let (from_engine, to_engine) = engine.split();
    let (from_server, to_server) = server.split();
    let up = carry(from_engine, to_server, network.up);
    let down = carry(from_server, to_engine, network.down);
    match tokio::try_join!(up, down) {
        Ok(_) => {}
        Err(Stop::Reset) => {
            for stream in [&engine, &server] {
                // Closing with a linger of zero sends a reset.
                SockRef::from(stream).set_linger(Some(Duration::ZERO)).ok();
            }
        }
        Err(Stop::Say(bytes)) => {
            // Whatever fails here: the engine has closed.
            let _ = engine.write_all(bytes).await;
            let _ = engine.shutdown().await;
            let mut rest = vec![0; PIECE_BYTES];
            while engine.read(&mut rest).await.is_ok_and(|count| count > 0) {}
        }
    }
}

/// Carries bytes until the near end closes, or the way ends.
async fn carry(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, way: Way) -> Result<(), Stop> {
    let mut piece = vec![0; way.piece_bytes];
    let mut carried = 0;
    loop {
        let left = way.end.map_or(usize::MAX, |(after_bytes, _)| after_bytes - carried);
        if left == 0 {
            break;
        }
        let room = piece.len().min(left);
        let count = from.read(&mut piece[..room]).await.map_err(|_| Stop::Reset)?;
        if count == 0 {
            let _ = to.shutdown().await; // It may have closed.
            return Ok(());
        }
        if way.latency > Duration::ZERO {
            sleep(way.latency).await;
        }
        to.write_all(&piece[..count]).await.map_err(|_| Stop::Reset)?;
        carried += count;
    }
    match way.end.map(|(_, end)| end) {
        Some(End::Reset) => Err(Stop::Reset),
        Some(End::Say(bytes)) => Err(Stop::Say(bytes)),
        Some(End::HalfClose) => {
            let _ = to.shutdown().await; // It may have closed.
            // What still comes goes nowhere.
            while from.read(&mut piece).await.is_ok_and(|count| count > 0) {}
            Ok(())
        }
        Some(End::Hang) | None => std::future::pending().await,
    }
}

const PIECE_BYTES: usize = 16 << 10;
