//! From a request to its answer.
//!
//! Invariant: a write is refused or answered by its commit, never both; a request that begins after
//! the server was told to stop is refused untouched. Limit: the bytes of all bodies held at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, EXPECT, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use uuid::Uuid;

use crate::config::Config;
use crate::fresh_id::FreshIds;
use crate::ingest::{self, Prepared};
use crate::metrics::{self, Metrics};
use crate::problem::{Kind, Problem};
use crate::query::JsonPage;
use crate::query_parameters;
use crate::refusals::Refusals;
use crate::storage::{Store, WriteError};

/// What all connections share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) metrics: Metrics,
    pub(crate) refusals: Refusals,
    pub(crate) fresh_ids: FreshIds,
    /// Set once, when the server is told to stop.
    pub(crate) is_stopping: AtomicBool,
    /// A permit for each connection, held while it runs a request on events. Whoever takes all of
    /// them has waited for every request, and keeps new ones out.
    pub(crate) running: Semaphore,
    /// A permit for each byte of a body.
    pub(crate) body_bytes: Arc<Semaphore>,
}

/// What a listener serves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Surface {
    pub(crate) events: bool,
    pub(crate) liveness: bool,
    pub(crate) readiness: bool,
    pub(crate) metrics: bool,
}

#[derive(Debug, Clone, Copy)]
enum Route {
    StoreOne,
    StoreBatch,
    Query,
    Liveness,
    Readiness,
    Metrics,
}

type Answer = Response<Full<Bytes>>;

/// Answers one request.
///
/// Dropping the future while it waits for a commit doesn't take the write back.
pub(crate) async fn answer(
    app: Arc<App>,
    surface: Surface,
    peer: Option<SocketAddr>,
    request: Request<Incoming>,
) -> Answer {
    let (parts, mut body) = request.into_parts();
    let route = find(surface, &parts.method, parts.uri.path());
    let name = route.as_ref().map_or("none", |route| route.name());
    let result = match &route {
        Ok(Route::Liveness) => Ok(liveness()),
        Ok(Route::Readiness) => Ok(app.readiness().await),
        Ok(Route::Metrics) => Ok(with_type(app.metrics.text().into(), metrics::CONTENT_TYPE)),
        Ok(Route::Query) => app.query(parts.uri.query().unwrap_or("")).await,
        Ok(Route::StoreOne) => app.store_one(&parts.headers, &mut body).await,
        Ok(Route::StoreBatch) => app.store_batch(&parts.headers, &mut body).await,
        Err(problem) => Err(problem.clone()),
    };
    if let (Ok(Route::StoreOne | Route::StoreBatch), Err(problem)) = (&route, &result) {
        app.refusals.refused(problem, peer);
    }
    let mut answer = result.unwrap_or_else(Problem::into_response);
    if app.is_stopping.load(Ordering::Relaxed) {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    // Who waits for leave to send has nothing under way; asking for the body would be that leave.
    if !body.is_end_stream() && !parts.headers.contains_key(EXPECT) {
        tokio::spawn(drain(body));
    }
    app.metrics.answered(name, answer.status().as_u16());
    answer
}

impl App {
    /// Tells new requests, and who asks for readiness, that the server goes away.
    pub(crate) fn stop(&self) {
        // Relaxed: it publishes nothing but itself; `running` is what keeps requests out.
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    async fn store_one(&self, headers: &HeaderMap, body: &mut Incoming) -> Result<Answer, Problem> {
        let _running = self.enter()?;
        let (body, held) = self.read_body(headers, body).await?;
        let prepared = ingest::single(&body, &self.fresh_ids, ingest::now())?;
        drop(body);
        let Prepared { events, ids, first_timestamp } = prepared;
        self.store.write(events, held).await?;
        let mut json = b"{\"event_id\":".to_vec();
        append_ids(&ids, &mut json);
        json.extend_from_slice(b",\"event_timestamp\":\"");
        first_timestamp.append_to(&mut json);
        json.extend_from_slice(b"\",\"message\":\"the event is stored\"}");
        Ok(created(json))
    }

    async fn store_batch(
        &self,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Result<Answer, Problem> {
        let _running = self.enter()?;
        let (body, held) = self.read_body(headers, body).await?;
        let events_max = self.config.batch_events_max;
        let prepared = ingest::batch(&body, events_max, &self.fresh_ids, ingest::now())?;
        drop(body);
        let Prepared { events, ids, .. } = prepared;
        self.store.write(events, held).await?;
        let mut json = Vec::with_capacity(64 + 39 * ids.len());
        json.extend_from_slice(b"{\"event_ids\":[");
        append_ids(&ids, &mut json);
        json.extend_from_slice(b"],\"message\":\"the events are stored\"}");
        Ok(created(json))
    }

    async fn query(&self, query: &str) -> Result<Answer, Problem> {
        let _running = self.enter()?;
        let selection = query_parameters::parse(query, ingest::now())?;
        let (page, end) = self.store.page(selection.clone(), JsonPage::new()).await?;
        Ok(with_type(page.finish(&selection, end)?.into(), JSON))
    }

    async fn readiness(&self) -> Answer {
        let reason = if self.is_stopping.load(Ordering::Relaxed) {
            "shutting_down"
        } else if let Err(error) = self.store.probe().await {
            tracing::warn!(%error, "not ready");
            "database_unreachable"
        } else {
            return with_type(Bytes::from_static(b"{\"status\":\"ready\"}"), JSON);
        };
        let body = format!("{{\"status\":\"not_ready\",\"reason\":\"{reason}\"}}");
        let mut answer = with_type(body.into(), JSON);
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        answer
    }

    /// Leave to work on events. A connection runs one request at a time, so there is a permit for
    /// each request until the server stops.
    fn enter(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Problem> {
        self.running.try_acquire().map_err(|_| WriteError::Stopped.into())
    }

    /// The body, and the leave to hold its bytes.
    async fn read_body(
        &self,
        headers: &HeaderMap,
        body: &mut Incoming,
    ) -> Result<(Bytes, OwnedSemaphorePermit), Problem> {
        check_media_type(headers)?;
        check_encoding(headers)?;
        let max = self.config.body_bytes_max;
        let too_large = || {
            let detail = format!("the body has more than {max} bytes");
            Problem::new(Kind::RequestTooLarge, detail).because("too_large").limit(max)
        };
        // A body in chunks doesn't say how long it is: it may be as long as any.
        let expected = match body.size_hint().exact() {
            None => max,
            Some(bytes) => {
                usize::try_from(bytes).ok().filter(|&bytes| bytes <= max).ok_or_else(too_large)?
            }
        };
        let mut held = self.hold(expected)?;
        let collect = Limited::new(body, max).collect();
        let bytes = match timeout(self.config.body_timeout, collect).await {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
            Ok(Err(error)) => {
                let detail = format!("the body broke off: {error}");
                return Err(Problem::new(Kind::InvalidRequest, detail).because("incomplete_body"));
            }
            Err(_) => {
                let limit = self.config.body_timeout;
                let detail = format!("the body did not come within {limit:?}");
                return Err(Problem::new(Kind::RequestTimeout, detail).because("body_timeout"));
            }
        };
        drop(held.split(expected.saturating_sub(bytes.len())));
        Ok((bytes, held))
    }

    fn hold(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let held = u32::try_from(bytes)
            .ok()
            .and_then(|bytes| Arc::clone(&self.body_bytes).try_acquire_many_owned(bytes).ok());
        held.ok_or_else(|| {
            let max = self.config.bytes_in_flight_max;
            let detail = format!("{bytes} bytes more would be over the {max} held at once");
            Problem::new(Kind::Unavailable, detail).because("memory_full").limit(max)
        })
    }
}

impl Route {
    /// Its name among the metrics.
    const fn name(self) -> &'static str {
        match self {
            Self::StoreOne => "store_one",
            Self::StoreBatch => "store_batch",
            Self::Query => "query",
            Self::Liveness => "healthz",
            Self::Readiness => "readyz",
            Self::Metrics => "metrics",
        }
    }
}

fn find(surface: Surface, method: &Method, path: &str) -> Result<Route, Problem> {
    let (is_served, routes, allow): (_, &[_], _) = match path {
        "/api/v1/audit/events" => (
            surface.events,
            &[(Method::GET, Route::Query), (Method::POST, Route::StoreOne)],
            "GET, POST",
        ),
        "/api/v1/audit/events/batch" => {
            (surface.events, &[(Method::POST, Route::StoreBatch)], "POST")
        }
        "/healthz" => (surface.liveness, &[(Method::GET, Route::Liveness)], "GET"),
        "/readyz" => (surface.readiness, &[(Method::GET, Route::Readiness)], "GET"),
        "/metrics" => (surface.metrics, &[(Method::GET, Route::Metrics)], "GET"),
        _ => (false, &[], ""),
    };
    if !is_served {
        return Err(Problem::new(Kind::NotFound, format!("nothing is served at {path:?}")));
    }
    let route = routes.iter().find(|(served, _)| served == method).map(|(_, route)| *route);
    route.ok_or_else(|| Problem::method_not_allowed(method.as_str(), allow))
}

/// Media types are compared without regard to case, and may have parameters (RFC 9110 section
/// 8.3.1).
fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or("unreadable"));
    let essence = given.map(|given| given.split(';').next().unwrap_or(given).trim());
    if essence.is_some_and(|essence| essence.eq_ignore_ascii_case(JSON)) {
        return Ok(());
    }
    let given = given.map_or_else(|| "missing".to_owned(), |given| format!("{given:?}"));
    let detail = format!("the header Content-Type is {given}, expected {JSON:?}");
    Err(Problem::new(Kind::Validation, detail).because("content_type"))
}

/// Nothing is decompressed here. A body that something on the way has compressed would pass for
/// events that are no JSON, and be refused for good.
fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("unreadable"));
    match given.filter(|given| !given.eq_ignore_ascii_case("identity")) {
        None => Ok(()),
        Some(given) => {
            let detail = format!("the header Content-Encoding is {given:?}, expected none");
            Err(Problem::new(Kind::UnsupportedMediaType, detail).because("content_encoding"))
        }
    }
}

fn liveness() -> Answer {
    let mut body = b"{\"status\":\"healthy\",\"timestamp\":\"".to_vec();
    ingest::now().append_to(&mut body);
    body.extend_from_slice(b"\"}");
    with_type(body.into(), JSON)
}

fn created(json: Vec<u8>) -> Answer {
    let mut answer = with_type(json.into(), JSON);
    *answer.status_mut() = StatusCode::CREATED;
    answer
}

fn with_type(body: Bytes, content_type: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Appends ids as JSON strings with commas between them.
fn append_ids(ids: &[Uuid], json: &mut Vec<u8>) {
    for (place, id) in ids.iter().enumerate() {
        if place > 0 {
            json.push(b',');
        }
        json.push(b'"');
        json.extend_from_slice(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
        json.push(b'"');
    }
}

/// Reads on in a body that was refused, for a while: a client that is still sending would lose the
/// answer if the connection were closed on it (RFC 9112 section 9.6).
async fn drain(mut body: Incoming) {
    let read = async {
        let mut bytes = 0;
        while bytes < DRAIN_BYTES_MAX
            && let Some(Ok(frame)) = body.frame().await
        {
            bytes += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    timeout(DRAIN_TIMEOUT, read).await.ok();
}

const JSON: &str = "application/json";

/// Three of the largest bodies by default: what one client has under way.
const DRAIN_BYTES_MAX: usize = 16 << 20;

const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
