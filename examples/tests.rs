//! The examples do what they say, against a DataStorage of ours and over real sockets.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use http_body::Frame;
use ledgerline::{Config, Store};
use ledgerline_examples::{DataStorage, audit, router};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

#[expect(dead_code, reason = "an example's main is for its reader")]
mod requests;
#[expect(dead_code, reason = "an example's main is for its reader")]
mod threads;

const SERVED: &str = "gateway.request.served";
const DEADLINE: Duration = Duration::from_secs(20);

/// Serves on a free port until the runtime is dropped.
fn serve(router: Router) -> (Runtime, SocketAddr) {
    let runtime = Runtime::new().expect("a runtime starts");
    let listener =
        runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let app = router.into_make_service_with_connect_info::<SocketAddr>();
    runtime.spawn(axum::serve(listener, app).into_future());
    (runtime, address)
}

fn send(address: SocketAddr, request_line: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("the deadline is not zero");
    let request =
        format!("{request_line} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("the server reads");
    stream
}

/// The whole answer: head and body.
fn ask(address: SocketAddr, request_line: &str, headers: &str) -> (String, String) {
    let mut answer = String::new();
    send(address, request_line, headers).read_to_string(&mut answer).expect("it answers in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    (head.to_ascii_lowercase(), body.to_owned())
}

fn query(storage: &DataStorage, filters: &str) -> Value {
    let url = storage.url();
    let address = url.trim_start_matches("http://").parse().expect("the URL is an address");
    let (head, body) = ask(address, &format!("GET /api/v1/audit/events?{filters}"), "");
    assert!(head.starts_with("http/1.1 200"), "{head}: {body}");
    serde_json::from_str(&body).expect("the answer is JSON")
}

/// The only event of that type and correlation id.
#[track_caller]
fn one(storage: &DataStorage, event_type: &str, correlation_id: &str) -> Value {
    let filters = format!("event_type={event_type}&correlation_id={correlation_id}");
    let page = query(storage, &filters);
    let rows = page["data"].as_array().expect("a page has rows");
    assert_eq!(rows.len(), 1, "events of {correlation_id}: {page}");
    rows[0].clone()
}

/// Waits until the store has accepted so many events.
#[track_caller]
fn wait_for_events(store: &Store, events: u64) {
    let started = Instant::now();
    while store.accounts().accepted < events {
        assert!(started.elapsed() < DEADLINE, "never recorded: {:?}", store.accounts());
        std::thread::yield_now();
    }
}

fn request_id(head: &str) -> &str {
    head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).expect("it has an id")
}

#[test]
fn the_gateway_records_each_request_with_its_fields() {
    let storage = DataStorage::start().unwrap();
    let store = Store::start(Config::new(storage.url())).unwrap();
    let (_runtime, address) = serve(router(store.clone()));

    let (head, body) = ask(address, "POST /signals/Oom?token=x", "X-Request-ID: try-1\r\n");
    assert!(head.starts_with("http/1.1 202"), "{head}");
    assert_eq!((request_id(&head), &*body), ("try-1", "Oom received\n"));
    // An id that can't be kept is replaced, and a request that no route takes is recorded too.
    let unkept = format!("X-Request-ID: {}\r\n", "x".repeat(300));
    let (head, _) = ask(address, "GET /nowhere", &unkept);
    assert!(head.starts_with("http/1.1 404"), "{head}");
    let made = request_id(&head);
    store.flush(DEADLINE).unwrap();

    for (id, method, path, status, outcome) in [
        ("try-1", "POST", "/signals/Oom", 202, "success"),
        (made, "GET", "/nowhere", 404, "failure"),
    ] {
        let row = one(&storage, SERVED, id);
        assert_eq!(row["event_category"], "gateway");
        assert_eq!(row["event_outcome"], outcome);
        assert_eq!(row["actor_ip"], "127.0.0.1");
        assert!(row["duration_ms"].as_u64().is_some_and(|ms| ms < 20_000), "{row}");
        let data = &row["event_data"];
        assert_eq!((&data["method"], &data["path"]), (&json!(method), &json!(path)));
        assert_eq!((&data["status"], &data["ending"]), (&json!(status), &json!("complete")));
    }
    let row = one(&storage, "gateway.signal.received", "try-1");
    assert_eq!(row["event_data"]["signal_name"], "Oom");
    assert_eq!(store.close(DEADLINE).unwrap().report.accounts.delivered, 3);
}

/// A server drops some bodies without asking for their end.
#[test]
fn an_answer_without_a_body_is_complete() {
    let storage = DataStorage::start().unwrap();
    let store = Store::start(Config::new(storage.url())).unwrap();
    let (_runtime, address) = serve(router(store.clone()));
    ask(address, "HEAD /", "X-Request-ID: head-1\r\n");
    wait_for_events(&store, 1);
    store.close(DEADLINE).unwrap();
    assert_eq!(one(&storage, SERVED, "head-1")["event_data"]["ending"], "complete");
}

#[test]
fn the_gateway_answers_though_the_event_is_refused() {
    let store = Store::start(Config::new("http://127.0.0.1:9")).unwrap();
    store.close(DEADLINE).unwrap();
    let (_runtime, address) = serve(router(store.clone()));
    let (head, _) = ask(address, "GET /", "");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert_eq!(store.accounts().refused.closed, 1);
    // But not as if it had done what it can't record.
    let (head, _) = ask(address, "POST /signals/Oom", "");
    assert!(head.starts_with("http/1.1 500"), "{head}");
}

#[test]
fn a_request_whose_client_leaves_is_recorded() {
    let storage = DataStorage::start().unwrap();
    let store = Store::start(Config::new(storage.url())).unwrap();
    let (entered, entry) = mpsc::channel();
    let stuck = get(move || async move {
        entered.send(()).unwrap();
        std::future::pending::<()>().await;
    });
    let (_runtime, address) =
        serve(Router::new().route("/stuck", stuck).layer(audit(store.clone())));
    let client = send(address, "GET /stuck", "X-Request-ID: left-1\r\n");
    entry.recv_timeout(DEADLINE).unwrap();
    drop(client);

    wait_for_events(&store, 1);
    store.close(DEADLINE).unwrap();
    let row = one(&storage, SERVED, "left-1");
    assert_eq!(
        (&row["event_outcome"], &row["error_code"]),
        (&json!("failure"), &json!("cancelled"))
    );
    assert_eq!(row["event_data"]["status"], Value::Null);
}

/// A body without an end.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 4_096])))))
    }
}

#[test]
fn an_answer_that_its_client_leaves_is_truncated() {
    let storage = DataStorage::start().unwrap();
    let store = Store::start(Config::new(storage.url())).unwrap();
    let endless = get(|| async { Body::new(Endless) });
    let app = Router::new().route("/endless", endless).layer(audit(store.clone()));
    let (_runtime, address) = serve(app);
    let mut client = send(address, "GET /endless", "X-Request-ID: left-2\r\n");
    client.read_exact(&mut [0; 1_000]).unwrap();
    drop(client);
    wait_for_events(&store, 1);
    store.close(DEADLINE).unwrap();
    let row = one(&storage, SERVED, "left-2");
    assert_eq!(
        (&row["error_code"], &row["event_data"]["status"]),
        (&json!("truncated"), &json!(200))
    );
    assert!(row["event_data"]["response_bytes"].as_u64() >= Some(1_000), "{row}");
}

#[test]
fn a_request_whose_handler_panics_is_recorded() {
    let storage = DataStorage::start().unwrap();
    let store = Store::start(Config::new(storage.url())).unwrap();
    let panics = get(|| async { assert_eq!(1, 2, "a defect of the handler") });
    let (_runtime, address) = serve(Router::new().route("/", panics).layer(audit(store.clone())));
    let mut answer = String::new();
    let mut client = send(address, "GET /", "X-Request-ID: panic-1\r\n");
    // The connection ends without an answer, in order or by a reset.
    client.read_to_string(&mut answer).ok();
    assert_eq!(answer, "");
    wait_for_events(&store, 1); // The connection may end before the exchange is dropped.
    store.close(DEADLINE).unwrap();
    assert_eq!(one(&storage, SERVED, "panic-1")["error_code"], "panicked");
}

#[test]
fn the_threads_deliver_all_that_they_record() {
    let storage = DataStorage::start().unwrap();
    let accounts = threads::run(Config::new(storage.url())).unwrap();
    let events = u64::from(threads::THREADS * threads::EVENTS_PER_THREAD);
    assert_eq!((accounts.accepted, accounts.delivered), (events, events));
    assert_eq!((accounts.pending, accounts.refused.total()), (0, 0));
    assert!(accounts.is_balanced());
    assert_eq!(query(&storage, "limit=1")["pagination"]["total"], events);
    let page = query(&storage, "correlation_id=workflow-3&limit=1");
    assert_eq!(page["pagination"]["total"], threads::EVENTS_PER_THREAD);
    let data = &page["data"][0]["event_data"];
    assert_eq!(data["service"], "workflow-runner");
    assert_eq!(
        (&data["payload"]["worker"], &data["payload"]["action"]),
        (&3.into(), &"restart-pod".into())
    );
}

#[test]
fn the_readme_service_records_its_requests() {
    let storage = DataStorage::start().unwrap();
    let store = Store::start(Config::new(storage.url())).unwrap();
    let (_runtime, address) = serve(requests::app(store.clone()));
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let header = format!("traceparent: 00-{trace_id}-00f067aa0ba902b7-01\r\n");
    let (_, body) = ask(address, "POST /signals/Oom", &header);
    assert_eq!(body, "Oom received\n");
    store.close(DEADLINE).unwrap();
    let row = one(&storage, SERVED, trace_id);
    assert_eq!((&row["actor_ip"], &row["event_outcome"]), (&json!("127.0.0.1"), &json!("success")));
    assert_eq!(row["event_data"]["path"], "/signals/Oom");
}

#[test]
fn the_readme_shows_its_service() {
    let source = include_str!("requests.rs").replace("pub(crate) ", "");
    let (_, code) = source.split_once("\n\n").unwrap();
    assert!(include_str!("../README.md").contains(code), "README.md differs from requests.rs");
    let lines = code.lines().filter(|line| !line.is_empty()).count();
    assert!(lines <= 25, "{lines} lines");
}
