//! The examples do what they say, against a DataStorage of ours and over real sockets.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use ledgerline::{Config, Store};
use ledgerline_examples::{DataStorage, audited, router};
use serde_json::Value;
use tokio::runtime::Runtime;

#[expect(dead_code, reason = "an example's main is for its reader")]
mod threads;

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

/// The only event of that correlation id.
#[track_caller]
fn one(storage: &DataStorage, correlation_id: &str) -> Value {
    let page = query(storage, &format!("correlation_id={correlation_id}"));
    let rows = page["data"].as_array().expect("a page has rows");
    assert_eq!(rows.len(), 1, "events of {correlation_id}: {page}");
    rows[0].clone()
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
        let row = one(&storage, id);
        assert_eq!(row["event_type"], "gateway.request.served");
        assert_eq!(row["event_category"], "gateway");
        assert_eq!(row["event_outcome"], outcome);
        assert_eq!(row["actor_ip"], "127.0.0.1");
        assert!(row["duration_ms"].as_u64().is_some_and(|ms| ms < 20_000), "{row}");
        let data = serde_json::json!({"method": method, "path": path, "status": status});
        assert_eq!(row["event_data"], data);
    }
    assert_eq!(store.close(DEADLINE).unwrap().report.accounts.delivered, 2);
}

#[test]
fn the_gateway_answers_though_the_event_is_refused() {
    let store = Store::start(Config::new("http://127.0.0.1:9")).unwrap();
    store.close(DEADLINE).unwrap();
    let (_runtime, address) = serve(router(store.clone()));
    let (head, _) = ask(address, "GET /", "");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert_eq!(store.accounts().refused.closed, 1);
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
    let (_runtime, address) = serve(audited(Router::new().route("/stuck", stuck), store.clone()));
    let client = send(address, "GET /stuck", "X-Request-ID: left-1\r\n");
    entry.recv_timeout(DEADLINE).unwrap();
    drop(client);

    let started = Instant::now();
    while store.accounts().accepted == 0 {
        assert!(started.elapsed() < DEADLINE, "the request was never recorded");
        std::thread::yield_now();
    }
    store.close(DEADLINE).unwrap();
    let row = one(&storage, "left-1");
    assert_eq!(row["event_outcome"], "failure");
    assert_eq!(row["event_data"], serde_json::json!({"method": "GET", "path": "/stuck"}));
    assert_eq!(row["error_message"], "ended without an answer");
}

#[test]
fn a_request_whose_handler_panics_is_recorded() {
    let storage = DataStorage::start().unwrap();
    let store = Store::start(Config::new(storage.url())).unwrap();
    let panics = get(|| async { assert_eq!(1, 2, "a defect of the handler") });
    let (_runtime, address) = serve(audited(Router::new().route("/", panics), store.clone()));
    let mut answer = String::new();
    let mut client = send(address, "GET /", "X-Request-ID: panic-1\r\n");
    // The connection ends without an answer, in order or by a reset.
    client.read_to_string(&mut answer).ok();
    assert_eq!(answer, "");
    store.close(DEADLINE).unwrap();
    assert_eq!(one(&storage, "panic-1")["error_message"], "ended without an answer");
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
