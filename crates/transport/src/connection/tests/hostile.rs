//! Servers that answer too early, too late, too much, in pieces, or in no HTTP at all.

use std::{
    io::{Read as _, Write as _},
    net,
    thread::{self, JoinHandle},
};

use super::*;
use crate::{Garbled, Part, TooLarge};

/// A connection to a server that does with each of its sockets as told, on a thread of its own.
struct Hostile {
    target: Target,
    connection: Connection,
    events: UnboundedReceiver<ConnectionEvent>,
    server: JoinHandle<()>,
}

impl Hostile {
    fn new(
        config: ConnectionConfig,
        sockets: usize,
        mut serve: impl FnMut(usize, net::TcpStream) + Send + 'static,
    ) -> Self {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = endpoint("127.0.0.1", listener.local_addr().unwrap().port());
        let target = endpoint.post("/batch").unwrap();
        let (sender, events) = unbounded_channel();
        let connection = Connection::spawn(SLOT, endpoint, config, sender);
        let server = thread::spawn(move || {
            (0..sockets).for_each(|number| serve(number, listener.accept().unwrap().0));
        });
        Self { target, connection, events, server }
    }

    fn send(&self, request_id: u64, body: Vec<Bytes>) {
        self.connection.send(request_id, &self.target, "", body);
    }

    /// What became of the next request to end.
    async fn end(&mut self) -> What {
        loop {
            let event = self.events.recv().await.expect("the connection lives");
            if !matches!(event.what, What::FirstByte(_)) {
                return event.what;
            }
        }
    }

    async fn join(self) {
        drop(self.connection);
        // The runtime has to go on, for it to drop the task and its socket.
        tokio::task::spawn_blocking(|| self.server.join().unwrap()).await.unwrap();
    }
}

/// More than the sockets' buffers hold.
fn large() -> Vec<Bytes> {
    vec![Bytes::from(vec![b'x'; 1_024 * 1_024]); 64]
}

fn small() -> Vec<Bytes> {
    vec![Bytes::from_static(b"[{}]")]
}

/// Reads a request whose content is `[{}]`, and nothing behind it.
fn read_small(mut stream: &net::TcpStream) {
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !read.ends_with(b"[{}]") {
        stream.read_exact(&mut byte).unwrap();
        read.push(byte[0]);
    }
}

/// Resets the connection instead of closing it.
fn reset(stream: &net::TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Waits until the client has closed the connection.
fn until_closed(mut stream: net::TcpStream) {
    while stream.read(&mut [0; 4_096]).is_ok_and(|count| count > 0) {}
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_whose_server_does_not_read() {
    let mut pair = Pair::new(config()).await;
    // More than the sockets' buffers hold.
    let piece = Bytes::from(vec![b'x'; 1_024 * 1_024]);
    pair.connection.send(1, &pair.target, "", vec![piece; 64]);
    pair.send(2);
    let mut peer = pair.accept().await;
    peer.stream.peek(&mut [0]).await.unwrap();
    peer.answer(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno").await;
    assert_eq!(pair.end().await, (1, answered_early(413, b"no")));
    assert_eq!(pair.end().await, (2, failed(Certainty::NotProcessed, Cause::EndedEarlier)));

    pair.send(3);
    let mut peer = pair.accept().await;
    peer.request().await;
    peer.answer(CREATED).await;
    assert_eq!(pair.end().await, (3, answered(201, b"ok")));
}

#[tokio::test]
async fn an_early_answer_survives_the_reset_that_follows_it() {
    // The server runs on a thread of its own, so that the reset may meet the client as it writes.
    let mut hostile = Hostile::new(config(), 50, |_, mut stream| {
        stream.peek(&mut [0]).unwrap();
        stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno").unwrap();
        // With bytes unread, closing resets the connection.
    });
    for id in 0..50 {
        hostile.send(id, large());
        assert_eq!(hostile.end().await, answered_early(413, b"no"));
    }
    hostile.join().await;
}

#[tokio::test]
async fn a_success_for_an_unfinished_request_is_early() {
    // The server reads the head only, claims success, and resets the connection.
    let mut hostile = Hostile::new(config(), 20, |_, mut stream| {
        stream.read_exact(&mut [0; 64]).unwrap();
        stream.write_all(CREATED).unwrap();
        reset(&stream);
    });
    for id in 0..20 {
        hostile.send(id, large());
        assert_eq!(hostile.end().await, answered_early(201, b"ok"));
    }
    hostile.join().await;
}

#[tokio::test]
async fn a_reset_at_any_byte_of_an_answer_leaves_doubt() {
    let mut hostile = Hostile::new(config(), CREATED.len(), |length, mut stream| {
        read_small(&stream);
        stream.write_all(&CREATED[..length]).unwrap();
        reset(&stream);
    });
    for length in 0..CREATED.len() {
        hostile.send(length as u64, small());
        let What::Failed(failure) = hostile.end().await else { panic!("{length} bytes answered") };
        assert_eq!(failure.certainty, Certainty::Ambiguous, "after {length} bytes");
        assert!(matches!(failure.cause, Cause::Broken(_)), "{failure} after {length} bytes");
    }
    hostile.join().await;
}

#[tokio::test]
async fn an_answer_that_is_half_closed_at_any_byte_leaves_doubt() {
    let mut hostile = Hostile::new(config(), CREATED.len(), |length, mut stream| {
        read_small(&stream);
        stream.write_all(&CREATED[..length]).unwrap();
        stream.shutdown(net::Shutdown::Write).unwrap();
        until_closed(stream);
    });
    for length in 0..CREATED.len() {
        hostile.send(length as u64, small());
        let cause = if length == 0 { Cause::ClosedByServer } else { Cause::Truncated };
        assert_eq!(hostile.end().await, failed(Certainty::Ambiguous, cause), "{length} bytes");
    }
    hostile.join().await;
}

#[tokio::test]
async fn an_answer_that_comes_byte_by_byte_is_read() {
    let mut hostile = Hostile::new(config(), 1, |_, mut stream| {
        stream.set_nodelay(true).unwrap();
        for _ in 0..3 {
            read_small(&stream);
            CREATED.chunks(1).for_each(|byte| stream.write_all(byte).unwrap());
        }
        until_closed(stream);
    });
    for id in 0..3 {
        hostile.send(id, small());
        let What::Answered(answer) = hostile.end().await else { panic!("no answer to {id}") };
        assert_eq!((answer.status, answer.number_on_connection), (201, id));
        assert!(!answer.is_early);
    }
    hostile.join().await;
}

#[tokio::test]
async fn a_surplus_answer_that_is_here_answers_no_later_request() {
    // It comes while nothing looks: the runtime has not heard of it when the request is sent.
    for _ in 0..50 {
        let mut pair = Pair::new(config()).await;
        pair.send(0);
        let mut peer = pair.accept().await;
        peer.request().await;
        peer.answer(CREATED).await;
        assert_eq!(pair.end().await, (0, answered(201, b"ok")));
        SockRef::from(&peer.stream).send(CREATED).unwrap();
        pair.send(1);
        let unsolicited = failed(Certainty::NotProcessed, Cause::Unsolicited);
        assert_eq!(pair.end().await, (1, unsolicited));
        peer.closed().await;
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_unnoticed_fails_nothing_in_doubt() {
    for _ in 0..50 {
        let mut pair = Pair::new(config()).await;
        pair.send(0);
        let mut peer = pair.accept().await;
        peer.request().await;
        peer.answer(CREATED).await;
        assert_eq!(pair.end().await, (0, answered(201, b"ok")));
        drop(peer);
        pair.send(1);
        let closed = failed(Certainty::NotProcessed, Cause::ClosedByServer);
        assert_eq!(pair.end().await, (1, closed));
    }
}

#[tokio::test]
async fn two_answers_to_one_request_end_the_connection() {
    let mut hostile = Hostile::new(config(), 2, |_, mut stream| {
        read_small(&stream);
        stream.write_all(&CREATED.repeat(2)).unwrap();
        until_closed(stream);
    });
    for id in 0..2 {
        hostile.send(id, small());
        let What::Answered(answer) = hostile.end().await else { panic!("no answer to {id}") };
        assert_eq!(answer.number_on_connection, 0, "the surplus answer is no other request's");
    }
    hostile.join().await;
}

#[tokio::test]
async fn interim_responses_without_end_end_the_connection() {
    let mut hostile = Hostile::new(config(), 1, |_, mut stream| {
        read_small(&stream);
        while stream.write_all(&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100)).is_ok() {}
    });
    hostile.send(0, small());
    let limit = TooLarge { part: Part::InterimResponses, limit: 16 };
    assert_eq!(hostile.end().await, failed(Certainty::Ambiguous, Cause::TooLarge(limit)));
    hostile.join().await;
}

#[tokio::test]
async fn answers_above_a_limit_are_skipped_and_told() {
    let limits = Limits { body_bytes_max: 100, head_bytes_max: 500, ..Limits::default() };
    let long = "x".repeat(100_000);
    let answers = [
        format!("HTTP/1.1 201 X\r\ncontent-length: 100000\r\n\r\n{long}"),
        format!("HTTP/1.1 201 X\r\ntransfer-encoding: chunked\r\n\r\n186a0\r\n{long}\r\n0\r\n\r\n"),
        format!("HTTP/1.1 201 X\r\ncookie: {long}\r\ncontent-length: 2\r\n\r\nok"),
    ];
    let count = answers.len() as u64;
    let mut hostile =
        Hostile::new(ConnectionConfig { limits, ..config() }, 1, move |_, mut stream| {
            for answer in &answers {
                read_small(&stream);
                answer.as_bytes().chunks(777).for_each(|part| stream.write_all(part).unwrap());
            }
            read_small(&stream);
            stream.write_all(CREATED).unwrap();
            until_closed(stream);
        });
    for id in 0..count {
        hostile.send(id, small());
        let What::Answered(answer) = hostile.end().await else { panic!("no answer to {id}") };
        assert!(answer.too_large.is_some() && answer.body.is_empty(), "{answer:?}");
        assert_eq!((answer.status, answer.number_on_connection), (201, id));
    }
    hostile.send(count, small());
    let What::Answered(answer) = hostile.end().await else { panic!("the connection was given up") };
    assert_eq!((&answer.body[..], answer.number_on_connection), (&b"ok"[..], count));
    hostile.join().await;
}

#[tokio::test]
async fn an_answer_above_a_limit_that_never_ends_is_told_at_the_timeout() {
    let request_timeout = Duration::from_secs(1);
    let limits = Limits { body_bytes_max: 100, ..Limits::default() };
    let config = ConnectionConfig { request_timeout, limits, ..config() };
    let mut hostile = Hostile::new(config, 1, |_, mut stream| {
        read_small(&stream);
        stream.write_all(b"HTTP/1.1 201 X\r\ncontent-length: 101\r\n\r\nsome").unwrap();
        until_closed(stream);
    });
    hostile.send(0, small());
    let What::Answered(answer) = hostile.end().await else { panic!("its status is known") };
    assert_eq!((answer.status, answer.too_large.map(|limit| limit.limit)), (201, Some(100)));
    hostile.join().await;
}

#[tokio::test]
async fn an_answer_of_no_sensible_length_is_told_at_once() {
    let mut hostile = Hostile::new(config(), 1, |_, mut stream| {
        read_small(&stream);
        stream.write_all(b"HTTP/1.1 502 X\r\ncontent-length: 9999999999999999\r\n\r\n").unwrap();
        until_closed(stream);
    });
    hostile.send(0, small());
    let What::Answered(answer) = hostile.end().await else { panic!("its status is known") };
    assert!(answer.status == 502 && answer.too_large.is_some());
    hostile.join().await;
}

#[tokio::test]
async fn a_server_of_another_protocol_is_named() {
    let cases = [
        (&b"SSH-2.0-OpenSSH_9.6\r\n"[..], Garbled::Ssh),
        (b"\x15\x03\x03\x00\x02\x02\x0a", Garbled::Tls),
        (b"220 mail ESMTP\r\n", Garbled::StatusLine),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n", Garbled::Upgrade),
    ];
    // Some speak first, others when they have been spoken to.
    for speaks_first in [true, false] {
        let mut hostile = Hostile::new(config(), cases.len(), move |number, mut stream| {
            let (greeting, garbled) = cases[number];
            if !speaks_first || garbled == Garbled::Upgrade {
                read_small(&stream);
            }
            stream.write_all(greeting).unwrap();
            until_closed(stream);
        });
        for (id, (_, garbled)) in (0..).zip(cases) {
            hostile.send(id, small());
            let What::Failed(failure) = hostile.end().await else { panic!("{garbled} answered") };
            assert_eq!(failure.cause, Cause::Garbled(garbled));
            assert!(failure.cause.is_unreadable() && !failure.cause.is_without_connection());
            let is_doubtful = failure.certainty == Certainty::Ambiguous;
            assert!(speaks_first || is_doubtful, "a request that was read is in doubt");
        }
        hostile.join().await;
    }
}

#[tokio::test]
async fn a_server_that_says_close_and_goes_on_is_not_listened_to() {
    let mut hostile = Hostile::new(config(), 2, |number, mut stream| {
        read_small(&stream);
        let answer = if number == 0 { [CLOSING, CREATED].concat() } else { CREATED.into() };
        stream.write_all(&answer).unwrap();
        until_closed(stream);
    });
    for id in 0..2 {
        hostile.send(id, small());
        let What::Answered(answer) = hostile.end().await else { panic!("no answer to {id}") };
        assert_eq!((answer.status, answer.number_on_connection), (201, 0), "a surplus answer");
    }
    hostile.join().await;
}
