//! A middleware that records every request, and a service small enough to show it.
//!
//! Invariant: each request makes one event, whether it is answered, its client leaves or its
//! handler panics; and it is answered whether the event is accepted or not. Limit: `duration_ms`
//! ends when the answer's head is ready, not when its last byte is sent.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use axum::Router;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use ledgerline::{Category, Event, Outcome, Store};
use serde::Serialize;

/// The service: takes signals, and records each request in `store`.
///
/// Serve it with `into_make_service_with_connect_info::<SocketAddr>()`: the client's address is
/// part of the event, and without it every request is answered with 500.
pub fn router(store: Store) -> Router {
    let router = Router::new()
        .route("/", get(|| async { "POST to /signals/{name}\n" }))
        .route("/signals/{name}", post(receive));
    audited(router, store)
}

/// Records each request to `router` in `store`, those that no route takes included.
pub fn audited(router: Router, store: Store) -> Router {
    // A store is a cheap clone: all clones are the same engine.
    router.layer(from_fn_with_state(store, record))
}

async fn receive(Path(name): Path<String>) -> (StatusCode, String) {
    (StatusCode::ACCEPTED, format!("{name} received\n"))
}

async fn record(
    State(store): State<Store>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let mut exchange = Exchange {
        store,
        started: Instant::now(),
        correlation_id: correlation_id(request.headers()),
        actor_ip: peer.ip().to_canonical(),
        method: request.method().clone(),
        path: request.uri().path().to_owned(), // not the query, which may hold secrets
        status: None,
    };
    let mut response = next.run(request).await;
    exchange.status = Some(response.status());
    if let Ok(id) = HeaderValue::from_str(&exchange.correlation_id) {
        response.headers_mut().insert(X_REQUEST_ID, id);
    }
    response // the exchange is dropped, and so recorded, before the answer leaves
}

/// One request and what became of it. Recorded when it is dropped, because that happens in any
/// case: hyper drops the future of a request whose client has gone, and a panic unwinds it.
struct Exchange {
    store: Store,
    started: Instant,
    correlation_id: String,
    actor_ip: IpAddr,
    method: Method,
    path: String,
    status: Option<StatusCode>,
}

/// The event's own content. Anything that serialises as an object will do.
#[derive(Serialize)]
struct Served<'a> {
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let served = Served {
            method: start_of(self.method.as_str()),
            path: start_of(&self.path),
            status: self.status.map(|status| status.as_u16()),
        };
        let is_success = self.status.is_some_and(|status| status.as_u16() < 400);
        let outcome = if is_success { Outcome::Success } else { Outcome::Failure };
        let mut event = Event::new("gateway.request.served", Category::Gateway, outcome)
            .with_correlation_id(&self.correlation_id)
            .with_actor_ip(self.actor_ip)
            .with_data(&served);
        event.duration_ms = i32::try_from(self.started.elapsed().as_millis()).ok();
        if self.status.is_none() {
            event.error_message = Some("ended without an answer");
        }
        // Never waits. A refused event doesn't keep the answer from the client: the store has
        // counted it, and the log tells of the first, second, fourth, eighth and so on.
        if let Err(refused) = self.store.record(&event) {
            let refused_events = self.store.accounts().refused.total();
            if refused_events.is_power_of_two() {
                tracing::warn!(refused_events, "{refused}");
            }
        }
    }
}

/// The client's X-Request-ID if it is a plain one, else a new id: an id that DataStorage would
/// refuse must not keep a request out of the audit.
fn correlation_id(headers: &HeaderMap) -> String {
    let is_plain = |id: &&str| {
        (1..=64).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let given = headers.get(X_REQUEST_ID).and_then(|id| id.to_str().ok()).filter(is_plain);
    given.map_or_else(|| format!("gw-{:032x}", fastrand::u128(..)), str::to_owned)
}

/// The first 4 KiB: no client can make its event too large to be recorded.
fn start_of(text: &str) -> &str {
    let end = (0..=text.len().min(4_096)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
