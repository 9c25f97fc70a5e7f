//! The tower layer: one event for each request, whatever becomes of it.

use std::convert::Infallible;
use std::future::{Ready, pending, ready};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Empty, Full};
use ledgerline::testing::{MemoryStorage, StoredEvent};
use ledgerline::tower::{AuditLayer, CorrelationId, Ending};
use ledgerline::{Category, Outcome, Store};
use ledgerline_testkit::{Log, WAIT, config};
use serde_json::{Value, json};
use tower_layer::Layer as _;
use tower_service::Service;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A store, and the memory that it delivers to.
struct Trail {
    storage: MemoryStorage,
    store: Store,
}

impl Trail {
    fn new() -> Self {
        let storage = MemoryStorage::new();
        let store = storage.start_with(config("http://127.0.0.1:9")).expect("it is valid");
        Self { storage, store }
    }

    fn layer(&self) -> AuditLayer {
        AuditLayer::new(self.store.clone(), "gateway.request.served", Category::Gateway)
    }

    /// The events so far.
    fn events(&self) -> Vec<StoredEvent> {
        self.store.flush(WAIT).expect("the memory takes everything");
        self.storage.events()
    }

    /// The only event, and its data.
    #[track_caller]
    fn one(&self) -> (StoredEvent, Value) {
        let events = self.events();
        let [event] = &*events else { panic!("{} events", events.len()) };
        (event.clone(), serde_json::from_str(&event.event_data).expect("it is JSON"))
    }

    /// The only event is of an exchange that failed like this.
    #[track_caller]
    fn assert_failed(&self, ending: &str, status: Option<u16>) {
        let (event, data) = self.one();
        assert_eq!(event.event_outcome, Outcome::Failure);
        assert_eq!(event.error_code.as_deref(), Some(ending));
        assert_eq!((&data["ending"], &data["status"]), (&json!(ending), &json!(status)));
    }
}

/// A service of one function.
struct Serve<F>(F);

impl<F, Fut, B, E> Service<Request<()>> for Serve<F>
where
    F: FnMut(Request<()>) -> Fut,
    Fut: Future<Output = Result<Response<B>, E>>,
{
    type Response = Response<B>;
    type Error = E;
    type Future = Fut;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Fut {
        (self.0)(request)
    }
}

/// A service that has this response at once, and once.
struct Respond<B>(Option<Response<B>>);

impl<B> Service<Request<()>> for Respond<B> {
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Ready<Result<Response<B>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<()>) -> Self::Future {
        ready(Ok(self.0.take().expect("it is called once")))
    }
}

fn respond<B>(response: Response<B>) -> Respond<B> {
    Respond(Some(response))
}

fn get(path: &str) -> Request<()> {
    Request::get(path).body(()).expect("the path is valid")
}

/// The result of a future that needs no runtime and no second try.
#[track_caller]
fn now<F: Future>(future: F) -> F::Output {
    match Box::pin(future).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it is not ready"),
    }
}

/// A body of these frames. It says that it ends there, unless it is `open`: then nothing follows.
struct Frames {
    frames: Vec<Result<&'static str, &'static str>>,
    open: bool,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        if self.frames.is_empty() {
            return if self.open { Poll::Pending } else { Poll::Ready(None) };
        }
        let frame = self.frames.remove(0);
        Poll::Ready(Some(frame.map(|text| Frame::data(Bytes::from(text)))))
    }
}

/// The response's body after that many frames of it.
#[track_caller]
fn after_frames<B: Body + Unpin>(response: Response<B>, frames: usize) -> B {
    let mut body = response.into_body();
    for _ in 0..frames {
        assert!(now(body.frame()).is_some(), "there is a frame");
    }
    body
}

#[test]
fn a_request_is_one_event_with_its_fields() {
    let trail = Trail::new();
    let layer = trail
        .layer()
        .request_id_header(X_REQUEST_ID)
        .request_headers([header::USER_AGENT, header::ACCEPT, header::AUTHORIZATION])
        .response_headers([header::CONTENT_TYPE]);
    let mut handed_in = None;
    let mut service = layer.layer(Serve(|request: Request<()>| {
        handed_in = request.extensions().get::<CorrelationId>().map(ToString::to_string);
        let response = Response::builder().status(202).header(header::CONTENT_TYPE, "text/plain");
        ready(response.body(Full::new(Bytes::from("taken"))))
    }));
    let mut request = get("/signals/Oom?token=secret");
    *request.method_mut() = Method::POST;
    let headers = request.headers_mut();
    headers.insert(X_REQUEST_ID, HeaderValue::from_static("try-1"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("curl/8"));
    headers.append(header::ACCEPT, HeaderValue::from_static("a/b"));
    headers.append(header::ACCEPT, HeaderValue::from_static("c/d"));
    let mut secret = HeaderValue::from_static("Bearer hunter2");
    secret.set_sensitive(true);
    headers.insert(header::AUTHORIZATION, secret);

    let response = now(service.call(request)).unwrap();
    assert_eq!(response.headers()[X_REQUEST_ID], "try-1");
    assert_eq!(now(response.into_body().collect()).unwrap().to_bytes(), "taken");

    let (event, mut data) = trail.one();
    assert_eq!(event.event_type, "gateway.request.served");
    assert_eq!((&*event.event_category, &*event.event_action), ("gateway", "served"));
    assert_eq!((event.event_outcome, &*event.correlation_id), (Outcome::Success, "try-1"));
    assert_eq!((event.error_code, event.error_message), (None, None));
    assert!(event.duration_ms.is_some_and(|ms| ms < 20_000));
    assert!(data["latency_us"].take().as_u64().is_some_and(|us| us < 20_000_000));
    let wanted = json!({
        "event_type": "gateway.request.served", "method": "POST", "path": "/signals/Oom",
        "status": 202, "ending": "complete", "latency_us": null, "response_bytes": 5,
        "request_headers": {
            "user-agent": "curl/8", "accept": "a/b, c/d", "authorization": "(sensitive)",
        },
        "response_headers": {"content-type": "text/plain"},
    });
    assert_eq!(data, wanted);
    assert_eq!(handed_in.as_deref(), Some("try-1"), "the handler knows it");
}

#[test]
fn a_status_of_400_and_above_is_a_failure() {
    for (status, outcome) in [(399, Outcome::Success), (400, Outcome::Failure)] {
        let trail = Trail::new();
        let response = Response::builder().status(status).body(Empty::<Bytes>::new()).unwrap();
        let _ = now(trail.layer().layer(respond(response)).call(get("/")));
        let (event, data) = trail.one();
        assert_eq!((event.event_outcome, event.error_code), (outcome, None));
        assert_eq!((&data["status"], &data["ending"]), (&json!(status), &json!("complete")));
    }
}

#[test]
fn a_request_dropped_before_its_response_is_cancelled() {
    let trail = Trail::new();
    let mut service =
        trail.layer().layer(Serve(|_| pending::<Result<Response<Empty<Bytes>>, Infallible>>()));
    let mut future = service.call(get("/stuck"));
    let polled = Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
    assert_eq!(trail.store.accounts().accepted, 0);
    drop(future);
    trail.assert_failed("cancelled", None);
    // Also if it was never polled.
    drop(service.call(get("/stuck")));
    assert_eq!(trail.events().len(), 2);
}

#[test]
fn a_response_dropped_midway_is_truncated() {
    let trail = Trail::new();
    let body = Frames { frames: vec![Ok("12345"), Ok("678")], open: false };
    let response = now(trail.layer().layer(respond(Response::new(body))).call(get("/"))).unwrap();
    drop(after_frames(response, 1));
    trail.assert_failed("truncated", Some(200));
    assert_eq!(trail.one().1["response_bytes"], 5);
}

#[test]
fn a_response_that_its_server_has_is_complete() {
    let open = || Frames { frames: vec![Ok("12345"), Ok("678")], open: true };
    let with_length = |length: &str| {
        Response::builder().header(header::CONTENT_LENGTH, length).body(open()).unwrap()
    };
    let with_status = |status| Response::builder().status(status).body(open()).unwrap();
    let head = Request::head("/").body(()).unwrap();
    // A server drops these bodies when it has what it wants of them.
    let cases = [
        (get("/"), with_length("8"), 2, "complete"),
        (get("/"), with_length("9"), 2, "truncated"),
        (get("/"), with_status(StatusCode::NO_CONTENT), 0, "complete"),
        (get("/"), with_status(StatusCode::NOT_MODIFIED), 0, "complete"),
        (get("/"), with_status(StatusCode::SWITCHING_PROTOCOLS), 0, "complete"),
        (get("/"), with_status(StatusCode::OK), 0, "truncated"),
        (head, with_length("8"), 0, "complete"),
    ];
    for (number, (request, response, frames, ending)) in cases.into_iter().enumerate() {
        let trail = Trail::new();
        let response = now(trail.layer().layer(respond(response)).call(request)).unwrap();
        drop(after_frames(response, frames));
        assert_eq!(trail.one().1["ending"], ending, "case {number}");
    }
}

#[test]
fn an_error_of_the_service_or_the_body_is_told() {
    let trail = Trail::new();
    let mut service = trail.layer().layer(Serve(|_| ready(Err::<Response<Empty<Bytes>>, _>(7))));
    assert_eq!(now(service.call(get("/"))).map(drop), Err(7));
    trail.assert_failed("service_error", None);

    let trail = Trail::new();
    let body = Frames { frames: vec![Ok("12345"), Err("gone")], open: false };
    let response = now(trail.layer().layer(respond(Response::new(body))).call(get("/"))).unwrap();
    drop(after_frames(response, 2));
    trail.assert_failed("body_error", Some(200));
}

struct Panics;

impl Body for Panics {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("a defect of the body")
    }
}

#[test]
fn a_panic_is_told_wherever_it_happens() {
    type Response = http::Response<Empty<Bytes>>;
    let trail = Trail::new();
    let in_call = |_| -> Ready<Result<Response, Infallible>> { panic!("a defect of the service") };
    let mut service = trail.layer().layer(Serve(in_call));
    assert!(catch_unwind(AssertUnwindSafe(|| service.call(get("/")))).is_err());
    trail.assert_failed("panicked", None);

    let trail = Trail::new();
    let in_future = |_| {
        std::future::poll_fn(|_| -> Poll<Result<Response, Infallible>> {
            panic!("a defect of the handler")
        })
    };
    let mut service = trail.layer().layer(Serve(in_future));
    // As a layer further out catches it: the future is dropped when the panic is over.
    let mut future = Box::pin(service.call(get("/")));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut cx))).is_err());
    drop(future);
    trail.assert_failed("panicked", None);

    let trail = Trail::new();
    let response = http::Response::new(Panics);
    let response = now(trail.layer().layer(respond(response)).call(get("/"))).unwrap();
    let poll = AssertUnwindSafe(|| now(response.into_body().frame()).is_some());
    assert!(catch_unwind(poll).is_err());
    trail.assert_failed("panicked", Some(200));
}

#[test]
fn nothing_that_a_client_sends_keeps_a_request_out() {
    let trail = Trail::new();
    let names: Vec<_> = (0..40).map(|n| HeaderName::try_from(format!("x-{n}")).unwrap()).collect();
    let layer = trail.layer().traceparent().request_id_header(X_REQUEST_ID);
    let layer = layer.request_headers(names.clone());
    let mut service =
        layer.layer(Serve(|_| ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())))));
    let mut request = get(&format!("/{}", "%C3%A9".repeat(1_000)));
    *request.method_mut() = Method::from_bytes("M".repeat(1_000).as_bytes()).unwrap();
    let headers = request.headers_mut();
    headers.insert("x-0", HeaderValue::from_bytes(&[b'"', 0xff, b'\t']).unwrap());
    for name in &names[1..] {
        headers.insert(name, HeaderValue::from_bytes("\u{e9}".repeat(4_000).as_bytes()).unwrap());
    }
    headers.insert("traceparent", HeaderValue::from_bytes(&[0xff; 55]).unwrap());
    headers.insert(X_REQUEST_ID, HeaderValue::from_str(&"x".repeat(300)).unwrap());
    let response = now(service.call(request)).unwrap();

    let (event, data) = trail.one();
    assert_eq!(event.correlation_id.len(), 32, "an id that can't be kept is replaced");
    assert_eq!(response.headers()[X_REQUEST_ID], event.correlation_id);
    let text = |at: &Value| at.as_str().unwrap().to_owned();
    assert_eq!(text(&data["method"]), "M".repeat(64) + "\u{2026}");
    let path = text(&data["path"]);
    assert!(path.ends_with('\u{2026}') && path.len() == 2_051, "{path}");
    assert_eq!(text(&data["request_headers"]["x-0"]), "\"\u{fffd}\t");
    assert_eq!(text(&data["request_headers"]["x-1"]), "\u{e9}".repeat(512) + "\u{2026}");
    assert_eq!(text(&data["request_headers"]["x-39"]), "\u{2026}", "together they are bounded");
}

#[test]
fn a_refused_event_does_not_keep_the_response_back() {
    let trail = Trail::new();
    trail.store.close(WAIT).unwrap();
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    let mut service = trail
        .layer()
        .layer(Serve(|_| ready(Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("ok")))))));
    tracing::subscriber::with_default(lines.finish(), || {
        for _ in 0..3 {
            let response = now(service.call(get("/"))).unwrap();
            assert_eq!(now(response.into_body().collect()).unwrap().to_bytes(), "ok");
        }
    });
    assert_eq!(trail.store.accounts().refused.closed, 3);
    let text = log.text();
    for words in ["audit events of requests refused", "the store is closed", "refused_events=1"] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
}

#[test]
fn the_correlation_id_is_that_of_the_trace() {
    let valid = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let other = format!("00-{TRACE}-00f067aa0ba902b8-01");
    let cases: [(&[&str], Option<&str>); 4] = [
        (&[&valid], Some(TRACE)),
        (&["00-short"], Some("try-1")),
        (&[&valid, &other], Some("try-1")), // more than one is as good as none
        (&[], Some("try-1")),
    ];
    for (given, wanted) in cases {
        let trail = Trail::new();
        let layer = trail.layer().traceparent().request_id_header(X_REQUEST_ID);
        let mut request = get("/");
        request.headers_mut().insert(X_REQUEST_ID, HeaderValue::from_static("try-1"));
        for value in given {
            request.headers_mut().append("traceparent", HeaderValue::from_str(value).unwrap());
        }
        let response = Response::new(Empty::<Bytes>::new());
        let _ = now(layer.layer(respond(response)).call(request));
        assert_eq!(Some(&*trail.one().0.correlation_id), wanted, "{given:?}");
    }
}

#[test]
fn a_closure_makes_the_event_or_none() {
    let trail = Trail::new();
    let layer = trail.layer().map(|exchange, record| {
        let path = exchange.request().uri.path();
        if path == "/healthz" {
            return;
        }
        assert_ne!(path, "/defect", "a defect of the closure");
        assert_eq!(exchange.ending(), Ending::Complete);
        let user = exchange.response().and_then(|head| head.extensions.get::<&str>());
        let data = json!({"status": exchange.response().map(|head| head.status.as_u16())});
        let mut event = exchange.event().with_data(&data).with_action("read");
        event.actor_id = user.copied();
        record(&event);
    });
    let mut service = layer.layer(Serve(|_| {
        let mut response = Response::new(Empty::<Bytes>::new());
        response.extensions_mut().insert("ada");
        ready(Ok::<_, Infallible>(response))
    }));
    for path in ["/healthz", "/defect", "/x"] {
        assert_eq!(now(service.call(get(path))).unwrap().status(), 200);
    }
    let (event, data) = trail.one();
    assert_eq!((&*event.event_action, event.actor_id.as_deref()), ("read", Some("ada")));
    assert_eq!(data, json!({"status": 200}));
}

#[test]
fn a_closure_that_panics_while_a_panic_unwinds_ends_nothing() {
    let trail = Trail::new();
    let layer = trail.layer().map(|_, _| panic!("a defect of the closure"));
    let mut service =
        layer.layer(Serve(|_| -> Ready<Result<Response<Empty<Bytes>>, Infallible>> {
            panic!("a defect of the service")
        }));
    let panic = catch_unwind(AssertUnwindSafe(|| service.call(get("/")))).err().unwrap();
    assert_eq!(panic.downcast_ref(), Some(&"a defect of the service"));
}
