//! The README's web service: each of its requests is recorded, and it stops in order.
//!
//! ```console
//! $ LEDGERLINE_URL=http://127.0.0.1:8080 cargo run -p ledgerline-examples --example requests
//! ```

use std::{net::SocketAddr, time::Duration};

use axum::{Router, extract::ConnectInfo, extract::Path, routing::post};
use ledgerline::{Category, Config, Store, tower::AuditLayer};
use tokio::net::TcpListener;
use tokio::signal::{ctrl_c, unix};

pub(crate) fn app(store: Store) -> Router {
    let audit = AuditLayer::new(store, "gateway.request.served", Category::Gateway)
        .traceparent()
        .peer(|request| Some(request.extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip()));
    let received = |Path(name): Path<String>| async move { format!("{name} received\n") };
    Router::new().route("/signals/{name}", post(received)).layer(audit)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let store = Store::start(Config::from_env()?)?;
    let app = app(store.clone()).into_make_service_with_connect_info::<SocketAddr>();
    let mut sigterm = unix::signal(unix::SignalKind::terminate())?;
    let stop = async move {
        tokio::select! { _ = sigterm.recv() => {}, _ = ctrl_c() => {} }
    };
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    store.close_async(Duration::from_secs(10)).await?; // delivers what is left, or says what is not
    Ok(())
}
