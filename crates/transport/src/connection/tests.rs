//! Against a scripted server on a real socket.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    sync::mpsc::unbounded_channel,
};

use super::*;
use crate::Answer;

const CREATED: &[u8] = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok";
const CLOSING: &[u8] = b"HTTP/1.1 201 Created\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";

/// A listener, and a connection that will connect to it.
struct Pair {
    listener: TcpListener,
    target: Target,
    connection: Connection,
    events: UnboundedReceiver<ConnectionEvent>,
}

impl Pair {
    async fn new(config: ConnectionConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let endpoint = endpoint("127.0.0.1", port);
        let target = endpoint.post("/batch").unwrap();
        let (sender, events) = unbounded_channel();
        let connection = Connection::spawn(SLOT, endpoint, config, sender);
        Self { listener, target, connection, events }
    }

    fn send(&self, request_id: u64) {
        self.connection.send(request_id, &self.target, "", vec![Bytes::from_static(b"[{}]")]);
    }

    async fn accept(&self) -> Peer {
        Peer { stream: self.listener.accept().await.unwrap().0, read: Vec::new() }
    }

    /// The next event but the first bytes.
    async fn end_event(&mut self) -> ConnectionEvent {
        loop {
            let event = self.events.recv().await.expect("the connection lives");
            assert_eq!(event.slot, SLOT);
            if !matches!(event.what, What::FirstByte(_)) {
                return event;
            }
        }
    }

    /// As [`Self::end_event`], without the place of an answer on its connection.
    async fn end(&mut self) -> (u64, What) {
        let mut event = self.end_event().await;
        if let What::Answered(answer) = &mut event.what {
            answer.number_on_connection = 0;
        }
        (event.request_id, event.what)
    }
}

/// The server's side of a connection.
struct Peer {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Peer {
    /// Reads a request, checks its head, and gives its body.
    async fn request(&mut self) -> Vec<u8> {
        loop {
            if let Some((request, rest)) = split_request(&self.read) {
                self.read = rest;
                return request;
            }
            assert_ne!(self.stream.read_buf(&mut self.read).await.unwrap(), 0, "no whole request");
        }
    }

    async fn answer(&mut self, answer: &[u8]) {
        self.stream.write_all(answer).await.unwrap();
    }

    /// Waits until the client has closed the connection; a reset counts.
    async fn closed(mut self) {
        match self.stream.read_to_end(&mut self.read).await {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }
}

fn split_request(read: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let text = str::from_utf8(read).expect("requests in tests are ASCII");
    let (head, rest) = text.split_once("\r\n\r\n")?;
    assert!(head.starts_with("POST /prefix/batch HTTP/1.1\r\nhost: "), "{head}");
    let (_, length) = head.split_once("content-length: ").expect("a length is given");
    let length = length.parse().unwrap();
    let (body, rest) = rest.split_at_checked(length)?;
    Some((body.into(), rest.into()))
}

fn endpoint(host: &str, port: u16) -> Arc<Endpoint> {
    Arc::new(Endpoint::parse(&format!("http://{host}:{port}/prefix")).unwrap())
}

fn config() -> ConnectionConfig {
    // No timeout where none is under test.
    let never = Duration::from_secs(3_600);
    ConnectionConfig { connect_timeout: never, request_timeout: never, ..Default::default() }
}

fn answered(status: u16, body: &'static [u8]) -> What {
    let body = Bytes::from_static(body);
    What::Answered(Answer { body, ..Answer::new(status) })
}

fn answered_early(status: u16, body: &'static [u8]) -> What {
    let body = Bytes::from_static(body);
    What::Answered(Answer { body, is_early: true, ..Answer::new(status) })
}

fn failed(certainty: Certainty, cause: Cause) -> What {
    What::Failed(Failure { certainty, cause })
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let mut pair = Pair::new(config()).await;
    pair.send(0);
    let mut peer = pair.accept().await;
    for id in 0..10 {
        assert_eq!(peer.request().await, b"[{}]");
        peer.answer(CREATED).await;
        assert_eq!(pair.end().await, (id, answered(201, b"ok")));
        pair.send(id + 1);
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let mut pair = Pair::new(config()).await;
    (0..4).for_each(|id| pair.send(id));
    let mut peer = pair.accept().await;
    for _ in 0..4 {
        peer.request().await;
    }
    peer.answer(&CREATED.repeat(4)).await;
    for id in 0..4 {
        assert_eq!(pair.end().await, (id, answered(201, b"ok")));
    }
}

#[tokio::test]
async fn the_first_byte_is_reported_before_the_answer() {
    let mut pair = Pair::new(config()).await;
    let before = now();
    pair.send(7);
    let mut peer = pair.accept().await;
    peer.request().await;
    let event = pair.events.recv().await.unwrap();
    let What::FirstByte(at) = event.what else { panic!("{event:?} comes first") };
    assert!(event.request_id == 7 && before <= at && at <= now());
}

#[tokio::test]
async fn a_large_body_arrives_as_it_was_sent() {
    let mut pair = Pair::new(config()).await;
    let pieces: Vec<Bytes> = (b'a'..=b'z').map(|letter| vec![letter; 100_000].into()).collect();
    pair.connection.send(1, &pair.target, "", pieces.clone());
    let mut peer = pair.accept().await;
    assert!(peer.request().await == pieces.concat(), "the body differs");
    peer.answer(CREATED).await;
    assert_eq!(pair.end().await, (1, answered(201, b"ok")));
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_replaced() {
    let mut pair = Pair::new(config()).await;
    for id in 0..3 {
        pair.send(id);
        let mut peer = pair.accept().await;
        peer.request().await;
        peer.answer(CREATED).await;
        assert_eq!(pair.end().await, (id, answered(201, b"ok")));
        peer.stream.shutdown().await.unwrap();
        // The client closes its side when it has noticed.
        peer.closed().await;
    }
}

#[tokio::test]
async fn a_server_that_hangs_meets_the_request_timeout() {
    let request_timeout = Duration::from_millis(50);
    let mut pair = Pair::new(ConnectionConfig { request_timeout, ..config() }).await;
    for round in 0..2 {
        (0..2).for_each(|id| pair.send(10 * round + id));
        let mut peer = pair.accept().await;
        peer.request().await;
        peer.answer(b"HTTP/1.1 201 Created\r\n").await;
        let causes = [Cause::RequestTimeout { timeout_ms: 50 }, Cause::GivenUpEarlier];
        for (id, cause) in (10 * round..).zip(causes) {
            assert_eq!(pair.end().await, (id, failed(Certainty::Ambiguous, cause)));
        }
        peer.closed().await;
    }
}

#[tokio::test]
async fn a_request_after_others_has_its_own_time() {
    let request_timeout = Duration::from_secs(1);
    let mut pair = Pair::new(ConnectionConfig { request_timeout, ..config() }).await;
    let start = Instant::now();
    pair.send(0);
    let mut peer = pair.accept().await;
    // Until the timer that the connection began with has passed.
    let mut id = 0;
    while start.elapsed() < 2 * request_timeout {
        peer.request().await;
        peer.answer(CREATED).await;
        assert_eq!(pair.end().await, (id, answered(201, b"ok")));
        id += 1;
        pair.send(id);
    }
    let last = Instant::now();
    peer.request().await;
    let cause = Cause::RequestTimeout { timeout_ms: 1_000 };
    assert_eq!(pair.end().await, (id, failed(Certainty::Ambiguous, cause)));
    assert!(last.elapsed() >= request_timeout - Duration::from_millis(10), "{:?}", last.elapsed());
}

#[tokio::test]
async fn a_refused_connection_fails_all_that_waits() {
    // Bound but not listening: nobody else can take the port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let mut pair = Pair::new(config()).await;
    let endpoint = endpoint("127.0.0.1", address.port());
    pair.target = endpoint.post("/batch").unwrap();
    let (sender, events) = unbounded_channel();
    pair.events = events;
    pair.connection = Connection::spawn(SLOT, endpoint, config(), sender);
    (0..3).for_each(|id| pair.send(id));
    let mut failures = vec![pair.events.recv().await.unwrap()];
    failures.extend(std::iter::from_fn(|| pair.events.try_recv().ok()));
    assert_eq!(failures.len(), 3, "one attempt is for all that wait");
    for (id, ConnectionEvent { request_id, what, .. }) in (0..).zip(failures) {
        assert_eq!(request_id, id);
        let What::Failed(Failure { certainty: Certainty::NotProcessed, cause }) = what else {
            panic!("{what:?} without a server");
        };
        let Cause::Connect { address: tried, fault } = cause else { panic!("{cause}") };
        assert_eq!((tried, fault.kind()), (address, io::ErrorKind::ConnectionRefused));
    }
    // A server that comes back is found.
    pair.listener = socket.listen(1).unwrap();
    pair.send(3);
    let mut peer = pair.accept().await;
    peer.request().await;
    peer.answer(CREATED).await;
    assert_eq!(pair.end().await, (3, answered(201, b"ok")));
}

/// An address where attempts to connect hang, since the kernel drops them while a listener's queue
/// is full.
async fn silent_address() -> (SocketAddr, impl Sized) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(50), TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
        assert!(queued.len() < 16, "the queue never fills");
    }
    (address, (listener, queued))
}

#[tokio::test]
async fn a_server_that_does_not_accept_meets_the_connect_timeout() {
    let (address, _guard) = silent_address().await;
    let endpoint = endpoint("127.0.0.1", address.port());
    let target = endpoint.post("/batch").unwrap();
    let (sender, mut events) = unbounded_channel();
    let connect_timeout = Duration::from_millis(50);
    let config = ConnectionConfig { connect_timeout, ..config() };
    let connection = Connection::spawn(SLOT, endpoint, config, sender);
    connection.send(1, &target, "", vec![]);
    let event = events.recv().await.unwrap();
    let What::Failed(Failure { certainty, cause }) = event.what else { panic!("{event:?}") };
    assert_eq!(certainty, Certainty::NotProcessed);
    let Cause::ConnectTimeout { to, timeout_ms } = cause else { panic!("{cause}") };
    assert_eq!(*to, address.to_string());
    assert!(timeout_ms <= 50, "{timeout_ms} ms");
}

#[tokio::test]
async fn a_connection_dropped_while_it_connects_falls_silent() {
    let (address, _guard) = silent_address().await;
    let endpoint = endpoint("127.0.0.1", address.port());
    let target = endpoint.post("/batch").unwrap();
    let (sender, mut events) = unbounded_channel();
    let connection = Connection::spawn(SLOT, endpoint, config(), sender);
    connection.send(1, &target, "", vec![]);
    // The task starts to connect.
    tokio::task::yield_now().await;
    drop(connection);
    assert_eq!(events.recv().await, None);
}

#[tokio::test]
async fn every_address_of_a_name_is_tried() {
    // The name may stand for ::1 first, where nobody listens.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = endpoint("localhost", listener.local_addr().unwrap().port());
    let target = endpoint.post("/batch").unwrap();
    let (sender, _events) = unbounded_channel();
    let connection = Connection::spawn(SLOT, endpoint, config(), sender);
    connection.send(1, &target, "", vec![]);
    let stream = listener.accept().await.unwrap().0;
    assert_eq!(Peer { stream, read: Vec::new() }.request().await, b"");
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_named() {
    let endpoint = endpoint("name.invalid", 80);
    let target = endpoint.post("/batch").unwrap();
    let (sender, mut events) = unbounded_channel();
    let connection = Connection::spawn(SLOT, endpoint, config(), sender);
    connection.send(1, &target, "", vec![]);
    let event = events.recv().await.unwrap();
    let What::Failed(Failure { certainty, cause }) = event.what else { panic!("{event:?}") };
    assert_eq!(certainty, Certainty::NotProcessed);
    assert!(matches!(&cause, Cause::Resolve { host, .. } if **host == *"name.invalid"), "{cause}");
}

#[tokio::test]
async fn after_connection_close_the_followers_are_certainly_unprocessed() {
    let mut pair = Pair::new(config()).await;
    (0..3).for_each(|id| pair.send(id));
    let mut peer = pair.accept().await;
    for _ in 0..3 {
        peer.request().await;
    }
    peer.answer(CLOSING).await;
    assert_eq!(pair.end().await, (0, answered(201, b"ok")));
    for id in 1..3 {
        let expected = failed(Certainty::NotProcessed, Cause::EndedEarlier);
        assert_eq!(pair.end().await, (id, expected));
    }
    peer.closed().await;

    pair.send(3);
    let mut peer = pair.accept().await;
    peer.request().await;
    peer.answer(CREATED).await;
    assert_eq!(pair.end().await, (3, answered(201, b"ok")));
}

#[tokio::test]
async fn requests_sent_while_a_connection_ends_go_to_the_next() {
    let mut pair = Pair::new(config()).await;
    (0..2).for_each(|id| pair.send(id));
    let mut peer = pair.accept().await;
    for _ in 0..2 {
        peer.request().await;
    }
    // In one segment: with the first answer, the client has read that the second is the last.
    let (most, rest) = CLOSING.split_at(CLOSING.len() - 1);
    peer.answer(&[CREATED, most].concat()).await;
    assert_eq!(pair.end().await, (0, answered(201, b"ok")));
    pair.send(2);
    peer.answer(rest).await;
    assert_eq!(pair.end().await, (1, answered(201, b"ok")));
    let mut next = pair.accept().await;
    next.request().await;
    next.answer(CREATED).await;
    assert_eq!(pair.end().await, (2, answered(201, b"ok")));
}

#[tokio::test]
async fn a_close_instead_of_an_answer_leaves_doubt() {
    let mut pair = Pair::new(config()).await;
    (0..2).for_each(|id| pair.send(id));
    let mut peer = pair.accept().await;
    for _ in 0..2 {
        peer.request().await;
    }
    drop(peer);
    for id in 0..2 {
        let expected = failed(Certainty::Ambiguous, Cause::ClosedByServer);
        assert_eq!(pair.end().await, (id, expected));
    }
}

#[tokio::test]
async fn a_reset_leaves_doubt_and_says_so() {
    let mut pair = Pair::new(config()).await;
    pair.send(0);
    let mut peer = pair.accept().await;
    peer.request().await;
    SockRef::from(&peer.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    let (_, what) = pair.end().await;
    let What::Failed(Failure { certainty: Certainty::Ambiguous, cause: Cause::Broken(fault) }) =
        what
    else {
        panic!("{what:?} after a reset");
    };
    assert_eq!(fault.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_dropped_connection_closes_its_socket_and_falls_silent() {
    let Pair { listener, target, connection, mut events } = Pair::new(config()).await;
    connection.send(1, &target, "", vec![Bytes::from_static(b"[{}]")]);
    let mut peer = Peer { stream: listener.accept().await.unwrap().0, read: Vec::new() };
    peer.request().await;
    assert!(matches!(events.recv().await.unwrap().what, What::FirstByte(_)));
    drop(connection);
    peer.closed().await;
    assert_eq!(events.recv().await, None);
}

#[test]
fn without_its_runtime_a_connection_fails_what_is_sent() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut pair = runtime.block_on(Pair::new(config()));
    drop(runtime);
    pair.send(1);
    let event = pair.events.try_recv().unwrap();
    assert_eq!(event.what, failed(Certainty::NotProcessed, Cause::TaskEnded));
}

const SLOT: usize = 3;

mod hostile;
mod renew;
