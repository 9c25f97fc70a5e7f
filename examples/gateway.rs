//! A web service on axum that records each of its requests, and stops in order.
//!
//! ```console
//! $ cargo run -p ledgerline-examples --example gateway [-- 127.0.0.1:3000]
//! ```
//!
//! It starts a DataStorage of its own, or takes the one at `LEDGERLINE_URL`. This file is the life
//! of the engine around a service: start, serve, close. The service itself, with a layer and a
//! handler that record, is in `src/gateway.rs`.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use ledgerline::Store;
use ledgerline_examples::{configuration, router};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;

fn main() -> anyhow::Result<()> {
    // The engine logs by `tracing`: when DataStorage can't be reached, and when it can again.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::INFO)
        .init();
    let listen = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let (config, own_storage) = configuration()?;
    let storage_url = config.url.clone();

    // Takes the engine's memory and starts its thread; DataStorage needn't be there yet.
    let store = Store::start(config)?;
    let served = serve(&listen, &storage_url, store.clone());
    // Nobody records any more. Close before leaving, also when serving has failed: events are held
    // in memory, and those not yet delivered go with the process.
    let closed = close(&store);
    drop(own_storage); // not earlier: the engine was still sending to it
    served.and(closed)
}

/// Serves until SIGINT or SIGTERM. The runtime ends with this function and so do all requests.
#[tokio::main]
async fn serve(listen: &str, storage_url: &str, store: Store) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("can't listen on {listen}"))?;
    print_how_to_try_it(listener.local_addr()?, storage_url);

    // With connect info, so that the layer knows the client's address.
    let app = router(store).into_make_service_with_connect_info::<SocketAddr>();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = axum::serve(listener, app).with_graceful_shutdown(async move {
        stopped.await.ok(); // an error is the sender's drop, which is how we stop
    });
    let mut serving = tokio::spawn(serving.into_future());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        ended = &mut serving => return Ok(ended??),
    }
    eprintln!("stopping");
    drop(stop); // takes no new connections, finishes the requests under way
    match timeout(REQUESTS_DEADLINE, serving).await {
        Ok(ended) => Ok(ended??),
        Err(_) => {
            eprintln!("requests still open after {REQUESTS_DEADLINE:?} are cut off");
            Ok(())
        }
    }
}

/// Delivers what the engine holds, and says what became of everything.
fn close(store: &Store) -> anyhow::Result<()> {
    // A flush gives up nothing: at its deadline it says where the events are, and they are still
    // on their way. `close` alone would deliver as well; this tells early that it is slow.
    if let Err(error) = store.flush(FLUSH_DEADLINE) {
        eprintln!("flush: {error}");
    }
    // The last word: what isn't delivered by the deadline is dropped, counted, and in the error.
    let closed = store.close(CLOSE_DEADLINE);
    let accounts = store.accounts();
    println!(
        "{} events accepted: {} delivered, {} dead-lettered, {} dropped, {} pending; {} refused",
        accounts.accepted,
        accounts.delivered,
        accounts.dead_lettered,
        accounts.dropped.total(),
        accounts.pending,
        accounts.refused.total(),
    );
    closed.map(drop).context("not every event was delivered")
}

fn print_how_to_try_it(address: SocketAddr, storage_url: &str) {
    println!("listening on http://{address}, recording to {storage_url}. Try");
    println!("  curl -i -X POST -H 'X-Request-ID: try-1' http://{address}/signals/PodCrashLooping");
    println!("and a second later, when the event was sent,");
    println!("  curl '{storage_url}/api/v1/audit/events?correlation_id=try-1'");
    println!("Stop it with Ctrl-C.");
}

/// Together 20 s, which leaves room in the 30 s that Kubernetes gives a process to stop.
const REQUESTS_DEADLINE: Duration = Duration::from_secs(10);
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
