//! A small web service: it takes signals, and answers for each with an event.
//!
//! Two kinds of event: the layer records every request, as it ended; the handler records what the
//! service did, before it says that it did it. Limit: a signal whose event finds no room within two
//! seconds is not taken.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderName, StatusCode, header, request};
use axum::routing::{get, post};
use axum::{Extension, Router};
use ledgerline::tower::{AuditLayer, CorrelationId};
use ledgerline::{Category, Event, Outcome, Store};
use serde::Serialize;
use tokio::time::timeout;

/// The service. Serve it with `into_make_service_with_connect_info::<SocketAddr>()`, so that events
/// have the client's address.
pub fn router(store: Store) -> Router {
    Router::new()
        .route("/", get(|| async { "POST to /signals/{name}\n" }))
        .route("/signals/{name}", post(receive))
        .layer(audit(store.clone())) // a store is a cheap clone: all clones are the same engine
        .with_state(store)
}

/// Records each request in `store`.
pub fn audit(store: Store) -> AuditLayer {
    AuditLayer::new(store, "gateway.request.served", Category::Gateway)
        .traceparent()
        .request_id_header(X_REQUEST_ID)
        .request_headers([header::USER_AGENT])
        .peer(peer)
}

fn peer(request: &request::Parts) -> Option<IpAddr> {
    let ConnectInfo(peer) = request.extensions.get::<ConnectInfo<SocketAddr>>()?;
    Some(peer.ip())
}

/// The event's own content. Anything that serialises as an object will do.
#[derive(Serialize)]
struct Received<'a> {
    event_type: &'a str,
    signal_name: &'a str,
}

async fn receive(
    State(store): State<Store>,
    Extension(correlation_id): Extension<CorrelationId>,
    Path(name): Path<String>,
) -> (StatusCode, String) {
    let data = Received { event_type: "gateway.signal.received", signal_name: &name };
    let event = Event::new(data.event_type, Category::Gateway, Outcome::Success)
        .with_correlation_id(correlation_id.as_str())
        .with_data(&data);
    // When the buffer is full, `record` refuses at once; this waits for room. Dropped by the
    // timeout, it has recorded nothing.
    match timeout(ROOM_TIMEOUT, store.record_async(&event)).await {
        Ok(Ok(_receipt)) => (StatusCode::ACCEPTED, format!("{name} received\n")),
        Ok(Err(refused)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{refused}\n")),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "no room for the event\n".to_owned()),
    }
}

const ROOM_TIMEOUT: Duration = Duration::from_secs(2);

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
