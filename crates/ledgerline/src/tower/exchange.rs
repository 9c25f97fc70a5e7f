//! One request and what became of it, and the event that says so.
//!
//! Invariant: whatever a client sends, [`Exchange::event`] can be stored: what is long is cut, and
//! what is cut is marked.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, StatusCode, request, response};
use ledgerline_codec::{Event, Outcome};
use serde::{Serialize, Serializer};

use super::{CorrelationId, Settings};

/// One request, its response if there was one, and how it ended.
#[derive(Debug)]
pub struct Exchange {
    pub(super) settings: Arc<Settings>,
    pub(super) request: request::Parts,
    pub(super) response: Option<response::Parts>,
    pub(super) correlation_id: CorrelationId,
    pub(super) started: Instant,
    pub(super) latency: Option<Duration>,
    pub(super) response_bytes: u64,
    pub(super) ending: Ending,
}

/// How an [`Exchange`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ending {
    /// The whole response was handed to the server. Whether the client got it is not known.
    Complete,
    /// The service's future was dropped before it had a response: the client disconnected, or a
    /// timeout outside this layer ran out.
    Cancelled,
    /// The response's body was dropped before its end: the client disconnected, most likely.
    Truncated,
    /// The service returned an error instead of a response.
    ServiceError,
    /// The response's body returned an error.
    BodyError,
    /// The service or the response's body panicked.
    Panicked,
}

impl Ending {
    /// The ending's text in an event.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Cancelled => "cancelled",
            Self::Truncated => "truncated",
            Self::ServiceError => "service_error",
            Self::BodyError => "body_error",
            Self::Panicked => "panicked",
        }
    }

    const fn message(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Cancelled => "the request was dropped before its response",
            Self::Truncated => "the response was dropped before its end",
            Self::ServiceError => "the service returned an error instead of a response",
            Self::BodyError => "the response's body returned an error",
            Self::Panicked => "the service panicked",
        }
    }
}

impl Exchange {
    /// The request's head as it came to the layer, with the extensions that it had then: the peer
    /// of axum's `ConnectInfo`, its `MatchedPath`, what a layer further out has put there.
    #[must_use]
    pub fn request(&self) -> &request::Parts {
        &self.request
    }

    /// The response's head, if the service had a response. An inner layer or a handler can leave
    /// something for the event in its extensions: whom it authenticated, say.
    #[must_use]
    pub fn response(&self) -> Option<&response::Parts> {
        self.response.as_ref()
    }

    /// How it ended.
    #[must_use]
    pub fn ending(&self) -> Ending {
        self.ending
    }

    /// The correlation id, as the handler had it in the request's extensions.
    #[must_use]
    pub fn correlation_id(&self) -> &CorrelationId {
        &self.correlation_id
    }

    /// From the request to the response's head. `None` if the service had no response.
    #[must_use]
    pub fn latency(&self) -> Option<Duration> {
        self.latency
    }

    /// Bytes of the response's body that were handed to the server.
    #[must_use]
    pub fn response_bytes(&self) -> u64 {
        self.response_bytes
    }

    /// The event of this exchange, to be recorded as it is or changed before.
    ///
    /// Its type and category are the layer's, and its action the last part of the type. Its outcome
    /// is a success if the status is below 400 and the exchange [`Complete`](Ending::Complete).
    /// `actor_ip` is the peer, `duration_ms` the time to the exchange's end. `event_data` is the
    /// exchange:
    ///
    /// ```json
    /// {"event_type": "gateway.request.served", "method": "GET", "path": "/signals", "status": 200,
    ///  "ending": "complete", "latency_us": 812, "response_bytes": 2,
    ///  "request_headers": {"user-agent": "curl/8.14.1"}}
    /// ```
    ///
    /// Without the query, which may hold secrets. A path of more than 2,048 bytes is cut and ends
    /// with `\u{2026}` (the ellipsis); so is a header of more than 1,024, and what exceeds 16 KiB
    /// of headers together. A header that is marked sensitive shows as `(sensitive)`.
    #[must_use]
    pub fn event(&self) -> Event<'_> {
        let Settings { event_type, event_category, .. } = &*self.settings;
        let is_below_400 = self.status().is_some_and(|status| status.as_u16() < 400);
        let is_success = is_below_400 && self.ending == Ending::Complete;
        let outcome = if is_success { Outcome::Success } else { Outcome::Failure };
        let mut event = Event::new(event_type, *event_category, outcome)
            .with_correlation_id(self.correlation_id.as_str())
            .with_data(self);
        event.actor_ip = self.peer();
        event.duration_ms = i32::try_from(self.started.elapsed().as_millis()).ok();
        if self.ending != Ending::Complete {
            event.error_code = Some(self.ending.as_str());
            event.error_message = Some(self.ending.message());
        }
        event
    }

    fn status(&self) -> Option<StatusCode> {
        self.response.as_ref().map(|response| response.status)
    }

    fn peer(&self) -> Option<IpAddr> {
        let peer = self.settings.peer.as_ref()?;
        peer(&self.request).map(|address| address.to_canonical())
    }
}

/// The event's data, as [`Exchange::event`] describes it.
impl Serialize for Exchange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Settings { event_type, request_headers, response_headers, .. } = &*self.settings;
        let response_headers = self
            .response
            .as_ref()
            .map(|response| Headers { chosen: response_headers, given: &response.headers });
        let data = Data {
            event_type,
            method: &cut(self.request.method.as_str().into(), METHOD_BYTES_MAX),
            path: &cut(self.request.uri.path().into(), PATH_BYTES_MAX),
            status: self.status().map(|status| status.as_u16()),
            ending: self.ending.as_str(),
            latency_us: self.latency.map(|latency| latency.as_micros() as u64),
            response_bytes: self.response.is_some().then_some(self.response_bytes),
            request_headers: Headers { chosen: request_headers, given: &self.request.headers },
            response_headers,
        };
        data.serialize(serializer)
    }
}

#[derive(Serialize)]
struct Data<'a> {
    event_type: &'a str,
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    ending: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Headers::is_empty")]
    request_headers: Headers<'a>,
    #[serde(skip_serializing_if = "is_none_or_empty")]
    response_headers: Option<Headers<'a>>,
}

fn is_none_or_empty(headers: &Option<Headers<'_>>) -> bool {
    headers.as_ref().is_none_or(Headers::is_empty)
}

/// Those of the given headers that were chosen.
struct Headers<'a> {
    chosen: &'a [HeaderName],
    given: &'a HeaderMap,
}

impl Headers<'_> {
    fn is_empty(&self) -> bool {
        !self.chosen.iter().any(|name| self.given.contains_key(name))
    }

    /// The header's values, joined as RFC 9110 section 5.2 joins them.
    fn text(&self, name: &HeaderName) -> Option<Cow<'_, str>> {
        let mut values = self.given.get_all(name).iter().map(|value| {
            if value.is_sensitive() {
                return Cow::Borrowed("(sensitive)");
            }
            String::from_utf8_lossy(value.as_bytes())
        });
        let first = values.next()?;
        Some(values.fold(first, |joined, value| joined + ", " + value))
    }
}

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut room = HEADERS_BYTES_MAX;
        let texts = self.chosen.iter().filter_map(|name| Some((name, self.text(name)?)));
        serializer.collect_map(texts.map(|(name, text)| {
            let text = cut(text, HEADER_BYTES_MAX.min(room));
            room = room.saturating_sub(text.len());
            (name.as_str(), text)
        }))
    }
}

/// The text, or its first bytes and the mark that `Field::fit` makes, too.
fn cut(text: Cow<'_, str>, bytes_max: usize) -> Cow<'_, str> {
    if text.len() <= bytes_max {
        return text;
    }
    let end = (0..=bytes_max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    Cow::Owned([&text[..end], "\u{2026}"].concat())
}

const METHOD_BYTES_MAX: usize = 64;
const PATH_BYTES_MAX: usize = 2_048;
const HEADER_BYTES_MAX: usize = 1_024;
const HEADERS_BYTES_MAX: usize = 16 * 1_024;
