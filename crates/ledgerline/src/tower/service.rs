//! The service and its future: they follow a request until its response has a head.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::{Method, Request, Response, StatusCode, header};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::body::AuditBody;
use super::exchange::{Ending, Exchange};
use super::{CorrelationId, Settings};

/// A service whose requests are recorded. See [`AuditLayer`](super::AuditLayer).
#[derive(Clone, Debug)]
pub struct Audit<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S> Audit<S> {
    pub(super) fn new(inner: S, settings: Arc<Settings>) -> Self {
        Self { inner, settings }
    }
}

impl<S, RequestBody, ResponseBody> Service<Request<RequestBody>> for Audit<S>
where
    S: Service<Request<RequestBody>, Response = Response<ResponseBody>>,
    ResponseBody: Body,
{
    type Response = Response<AuditBody<ResponseBody>>;
    type Error = S::Error;
    type Future = AuditFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> Self::Future {
        let correlation_id = self.settings.correlation_id(request.headers());
        request.extensions_mut().insert::<CorrelationId>(correlation_id.clone());
        let (head, body) = request.into_parts();
        let mut open = Open::new(Exchange {
            settings: Arc::clone(&self.settings),
            request: head.clone(),
            response: None,
            correlation_id,
            started: Instant::now(),
            latency: None,
            response_bytes: 0,
            ending: Ending::Cancelled,
        });
        let future = open.watch(|| self.inner.call(Request::from_parts(head, body)));
        AuditFuture { future, open: Some(open) }
    }
}

pin_project! {
    /// The future of [`Audit`]. Dropped before it is ready, it records a cancelled request.
    #[derive(Debug)]
    pub struct AuditFuture<F> {
        #[pin]
        future: F,
        // None once the future is ready.
        open: Option<Open>,
    }
}

impl<F, B, E> Future for AuditFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<AuditBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let open = this.open.as_mut().expect("a future is not polled after it was ready");
        let result = ready!(open.watch(|| this.future.as_mut().poll(cx)));
        let mut open = this.open.take().expect("it was there");
        Poll::Ready(match result {
            Ok(response) => {
                let (mut head, body) = response.into_parts();
                open.answer(&mut head);
                Ok(Response::from_parts(head, AuditBody::new(body, open)))
            }
            Err(error) => {
                open.end(Ending::ServiceError);
                Err(error)
            }
        })
    }
}

/// An exchange that has not ended. Recorded when it is dropped, because that happens in any case:
/// a server drops the future of a request whose client has gone, and a panic unwinds it.
#[derive(Debug)]
pub(super) struct Open {
    exchange: Exchange,
    /// While the service or the body runs. Still set when this is dropped: they panicked.
    is_watching: bool,
}

impl Open {
    fn new(exchange: Exchange) -> Self {
        Self { exchange, is_watching: false }
    }

    /// Runs a part of the service.
    pub(super) fn watch<T>(&mut self, run: impl FnOnce() -> T) -> T {
        self.is_watching = true;
        let result = run();
        self.is_watching = false;
        result
    }

    /// The service has a response; its body has still to come.
    fn answer(&mut self, head: &mut http::response::Parts) {
        let exchange = &mut self.exchange;
        exchange.latency = Some(exchange.started.elapsed());
        exchange.ending = Ending::Truncated;
        if let Some(name) = &exchange.settings.request_id_header
            && let Ok(id) = exchange.correlation_id.as_str().try_into()
        {
            head.headers.entry(name).or_insert(id);
        }
        exchange.response = Some(head.clone());
    }

    /// How many bytes of the body a server takes. `None`: until the body ends.
    pub(super) fn bytes_expected(&self) -> Option<u64> {
        let response = self.exchange.response.as_ref()?;
        let status = response.status;
        let has_no_body = status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || self.exchange.request.method == Method::HEAD
            || self.exchange.request.method == Method::CONNECT && status.is_success();
        if has_no_body {
            return Some(0);
        }
        response.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// This many more bytes of the body were handed to the server; returns how many they are now.
    pub(super) fn add_bytes(&mut self, bytes: u64) -> u64 {
        self.exchange.response_bytes += bytes;
        self.exchange.response_bytes
    }

    pub(super) fn end(mut self, ending: Ending) {
        self.exchange.ending = ending;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.is_watching {
            self.exchange.ending = Ending::Panicked;
        }
        self.exchange.settings.record(&self.exchange);
    }
}
