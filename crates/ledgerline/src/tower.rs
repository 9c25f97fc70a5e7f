//! A `tower` layer that records one event for each HTTP request. Feature `tower`.
//!
//! ```
//! use std::net::{IpAddr, SocketAddr};
//!
//! use http::header;
//! use ledgerline::tower::AuditLayer;
//! use ledgerline::{Category, Store};
//!
//! fn layer(store: Store) -> AuditLayer {
//!     AuditLayer::new(store, "gateway.request.served", Category::Gateway)
//!         .traceparent()
//!         .request_headers([header::USER_AGENT])
//!         .peer(|request| request.extensions.get::<SocketAddr>().map(SocketAddr::ip))
//! }
//! # let _: fn(_) -> _ = layer;
//! ```
//!
//! Invariants: each request makes one event, at its end, whether it is answered, its client leaves
//! or its handler panics; and it is answered whether the event is accepted or not. The layer never
//! waits: a refused event is counted by the store, and logged at most once a second.
//!
//! Limits: what the layer doesn't see makes no event, such as a request that the server refused
//! before its first service. A response's end is where the server has taken the last of its body;
//! a WebSocket's is its handshake.

mod body;
mod exchange;
mod service;

use std::fmt;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::{HeaderMap, HeaderName, request};
use ledgerline_codec::{Category, Event};
use tower_layer::Layer;

pub use self::body::AuditBody;
pub use self::exchange::{Ending, Exchange};
pub use self::service::{Audit, AuditFuture};
use crate::error::Refused;
use crate::store::Store;
use crate::trace::TraceId;

/// Makes services record their requests. Cheap to clone; Send and Sync.
///
/// Its services put a [`CorrelationId`] into each request's extensions, for the handler's own
/// events and calls.
#[derive(Clone, Debug)]
pub struct AuditLayer {
    settings: Arc<Settings>,
}

/// What joins the events of one request: read from the request, or made for it.
#[derive(Clone, PartialEq, Eq)]
pub struct CorrelationId(Arc<str>);

impl CorrelationId {
    /// Its text: 1 to 64 characters, letters, digits, `-`, `_` and `.` only.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

type Peer = Arc<dyn Fn(&request::Parts) -> Option<IpAddr> + Send + Sync>;
type ToEvent = Arc<dyn Fn(&Exchange, &mut dyn FnMut(&Event<'_>)) + Send + Sync>;

/// What all services of a layer share.
#[derive(Clone)]
struct Settings {
    store: Store,
    event_type: Box<str>,
    event_category: Category<'static>,
    request_headers: Box<[HeaderName]>,
    response_headers: Box<[HeaderName]>,
    is_traceparent_used: bool,
    request_id_header: Option<HeaderName>,
    peer: Option<Peer>,
    to_event: Option<ToEvent>,
    refusals: Arc<Refusals>,
}

impl AuditLayer {
    /// A layer that records in `store` an event of this type and category for each request. What
    /// the event holds by itself is told at [`Exchange::event`].
    pub fn new(
        store: Store,
        event_type: impl Into<Box<str>>,
        event_category: Category<'static>,
    ) -> Self {
        let settings = Settings {
            store,
            event_type: event_type.into(),
            event_category,
            request_headers: Box::default(),
            response_headers: Box::default(),
            is_traceparent_used: false,
            request_id_header: None,
            peer: None,
            to_event: None,
            refusals: Arc::new(Refusals::new()),
        };
        Self { settings: Arc::new(settings) }
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }

    /// Puts these headers of the request into the event. Default: none.
    #[must_use]
    pub fn request_headers(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.with(|settings| settings.request_headers = names.into_iter().collect())
    }

    /// Puts these headers of the response into the event. Default: none.
    #[must_use]
    pub fn response_headers(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.with(|settings| settings.response_headers = names.into_iter().collect())
    }

    /// Takes the trace id of a valid W3C `traceparent` header as the correlation id, before any
    /// other. At a public edge this lets clients choose correlation ids.
    #[must_use]
    pub fn traceparent(self) -> Self {
        self.with(|settings| settings.is_traceparent_used = true)
    }

    /// Takes the correlation id from this header of the request, `x-request-id` for example, if
    /// it is 1 to 64 letters, digits, `-`, `_` or `.`; and puts the request's correlation id,
    /// wherever it came from, into the same header of a response that has none.
    ///
    /// Without this and [`traceparent`](Self::traceparent), each request gets an id of its own: 32
    /// random hexadecimal digits.
    #[must_use]
    pub fn request_id_header(self, name: HeaderName) -> Self {
        self.with(|settings| settings.request_id_header = Some(name))
    }

    /// Says where a request came from, for the event's `actor_ip`. With axum's
    /// `into_make_service_with_connect_info::<SocketAddr>()` the address is in the extensions:
    /// `request.extensions.get::<ConnectInfo<SocketAddr>>()`. Default: unknown.
    #[must_use]
    pub fn peer(
        self,
        peer: impl Fn(&request::Parts) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.peer = Some(Arc::new(peer)))
    }

    /// Makes the event of each exchange: this function gets the exchange, and a function that
    /// records an event. Not calling the latter, for health probes say, records none.
    ///
    /// Called when the exchange has ended, in the service's thread: it must not block. A panic in
    /// it is caught and logged, and the event is then missing.
    ///
    /// ```
    /// # use ledgerline::{Category, Store, tower::AuditLayer};
    /// # fn layer(store: Store) -> AuditLayer {
    /// AuditLayer::new(store, "gateway.request.served", Category::Gateway).map(
    ///     |exchange, record| {
    ///         if exchange.request().uri.path() != "/healthz" {
    ///             record(&exchange.event().with_namespace("payments"));
    ///         }
    ///     },
    /// )
    /// # }
    /// ```
    #[must_use]
    pub fn map(
        self,
        to_event: impl Fn(&Exchange, &mut dyn FnMut(&Event<'_>)) + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.to_event = Some(Arc::new(to_event)))
    }
}

impl<S> Layer<S> for AuditLayer {
    type Service = Audit<S>;

    fn layer(&self, inner: S) -> Audit<S> {
        Audit::new(inner, Arc::clone(&self.settings))
    }
}

impl Settings {
    fn correlation_id(&self, headers: &HeaderMap) -> CorrelationId {
        let trace_id = || {
            let mut values = headers.get_all("traceparent").iter();
            let (value, None) = (values.next()?, values.next()) else { return None };
            Some(TraceId::from_traceparent(value.to_str().ok()?)?.to_string().into())
        };
        let request_id = || {
            let given = headers.get(self.request_id_header.as_ref()?)?.to_str().ok()?;
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            let is_valid = (1..=64).contains(&given.len()) && given.bytes().all(is_plain);
            is_valid.then(|| given.into())
        };
        let given = if self.is_traceparent_used { trace_id() } else { None };
        let id = given.or_else(request_id);
        CorrelationId(id.unwrap_or_else(|| format!("{:032x}", fastrand::u128(..)).into()))
    }

    /// Records the exchange. Never waits, never panics: it runs while a future is dropped.
    fn record(&self, exchange: &Exchange) {
        let mut record = |event: &Event<'_>| {
            if let Err(refused) = self.store.record(event) {
                self.refusals.tell(&refused);
            }
        };
        let made = catch_unwind(AssertUnwindSafe(|| match &self.to_event {
            Some(to_event) => to_event(exchange, &mut record),
            None => record(&exchange.event()),
        }));
        if made.is_err() {
            tracing::error!("no audit event of a request: the function that makes it panicked");
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("event_type", &self.event_type)
            .field("event_category", &self.event_category)
            .finish_non_exhaustive()
    }
}

/// Tells the log of refused events, at most once a second.
struct Refusals {
    epoch: Instant,
    /// Events refused since the last line.
    untold: AtomicU64,
    /// When the next line may be written, in milliseconds after `epoch`.
    next_ms: AtomicU64,
}

impl Refusals {
    fn new() -> Self {
        Self { epoch: Instant::now(), untold: AtomicU64::new(0), next_ms: AtomicU64::new(0) }
    }

    fn tell(&self, refused: &Refused) {
        if let Some(refused_events) = self.count(self.epoch.elapsed().as_millis() as u64) {
            tracing::warn!(refused_events, reason = %refused, "audit events of requests refused");
        }
    }

    /// Counts one more; returns how many a line has to tell of, if one is due.
    fn count(&self, now_ms: u64) -> Option<u64> {
        self.untold.fetch_add(1, Ordering::Relaxed);
        let next_ms = self.next_ms.load(Ordering::Relaxed);
        if now_ms < next_ms {
            return None;
        }
        // Only one of those that come at once writes the line. Relaxed: no other memory depends
        // on it.
        let (after, order) = (now_ms + LINE_INTERVAL_MS, Ordering::Relaxed);
        self.next_ms.compare_exchange(next_ms, after, order, order).ok()?;
        Some(self.untold.swap(0, Ordering::Relaxed))
    }
}

const LINE_INTERVAL_MS: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_logged_once_a_second_with_their_number() {
        let refusals = Refusals::new();
        let told = [0, 0, 999, 1_000, 1_001, 9_000].map(|now_ms| refusals.count(now_ms));
        assert_eq!(told, [Some(1), None, None, Some(3), None, Some(2)]);
    }
}
