//! Leaving a socket on purpose, and which socket an answer came over.

use super::*;

#[tokio::test]
async fn each_answer_says_on_which_connection_and_where() {
    let mut pair = Pair::new(config()).await;
    for connection in 1..=2 {
        let mut peer = None;
        for (number, answer) in (0..).zip([CREATED, CREATED, CLOSING]) {
            pair.send(number);
            let peer = match &mut peer {
                Some(peer) => peer,
                None => peer.insert(pair.accept().await),
            };
            peer.request().await;
            peer.answer(answer).await;
            let event = pair.end_event().await;
            let What::Answered(answer) = event.what else { panic!("{:?}", event.what) };
            assert_eq!((event.connection, answer.number_on_connection), (connection, number));
            assert!(!answer.is_early && answer.too_large.is_none());
        }
    }
}

#[tokio::test]
async fn a_renewed_connection_answers_what_it_has_and_takes_no_more() {
    let mut pair = Pair::new(config()).await;
    pair.send(0);
    pair.send(1);
    let mut old = pair.accept().await;
    old.request().await;
    old.request().await;
    old.answer(CREATED).await;
    assert_eq!(pair.end().await, (0, answered(201, b"ok")));
    pair.connection.renew(1);
    pair.send(2);
    old.answer(CREATED).await;
    assert_eq!(pair.end().await, (1, answered(201, b"ok")));
    old.closed().await;

    let mut fresh = pair.accept().await;
    fresh.request().await;
    // A socket that is left already is not left once more.
    pair.connection.renew(1);
    fresh.answer(CREATED).await;
    let event = pair.end_event().await;
    let What::Answered(answer) = &event.what else { panic!("{event:?}") };
    assert_eq!((event.request_id, event.connection, answer.number_on_connection), (2, 2, 0));
    pair.send(3);
    fresh.request().await;
    fresh.answer(CREATED).await;
    assert_eq!(pair.end_event().await.connection, 2);
}

#[tokio::test]
async fn an_idle_connection_is_renewed_at_once_and_connects_when_asked() {
    let mut pair = Pair::new(config()).await;
    pair.send(0);
    let mut old = pair.accept().await;
    old.request().await;
    old.answer(CREATED).await;
    assert_eq!(pair.end().await, (0, answered(201, b"ok")));
    pair.connection.renew(1);
    old.closed().await;
    let early = timeout(Duration::from_millis(20), pair.listener.accept()).await;
    assert!(early.is_err(), "it connects without a request");
    pair.send(1);
    let mut fresh = pair.accept().await;
    fresh.request().await;
    fresh.answer(CREATED).await;
    assert_eq!(pair.end_event().await.connection, 2);
}

#[test]
fn addresses_are_tried_from_behind_the_one_that_was_left() {
    let [a, b, c, other] = [1, 2, 3, 4].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    for (left, order) in [
        (None, [a, b, c]),
        (Some(other), [a, b, c]),
        (Some(a), [b, c, a]),
        (Some(b), [c, a, b]),
        (Some(c), [a, b, c]),
    ] {
        let mut addresses = [a, b, c];
        begin_behind(&mut addresses, left);
        assert_eq!(addresses, order, "{left:?} was left");
    }
    begin_behind(&mut [], Some(a));
    begin_behind(&mut [a], Some(a));
}

#[tokio::test]
async fn a_request_sent_after_a_renewal_waits_for_a_server_that_hangs() {
    let request_timeout = Duration::from_secs(1);
    let mut pair = Pair::new(ConnectionConfig { request_timeout, ..config() }).await;
    pair.send(0);
    let mut old = pair.accept().await;
    old.request().await;
    pair.connection.renew(1);
    pair.send(1);
    let late = failed(Certainty::Ambiguous, Cause::RequestTimeout { timeout_ms: 1_000 });
    assert_eq!(pair.end().await, (0, late));
    assert_eq!(old.read, b"", "no request follows a renewal");
    old.closed().await;
    let mut fresh = pair.accept().await;
    fresh.request().await;
    fresh.answer(CREATED).await;
    assert_eq!(pair.end().await, (1, answered(201, b"ok")));
}

#[tokio::test]
async fn renewing_without_a_socket_connects_nowhere() {
    let mut pair = Pair::new(config()).await;
    (0..3).for_each(|connection| pair.connection.renew(connection));
    pair.send(0);
    let mut peer = pair.accept().await;
    peer.request().await;
    peer.answer(CLOSING).await;
    assert_eq!(pair.end_event().await.connection, 1);
    peer.closed().await;
    // Its socket is gone; only its address comes last from now on.
    pair.connection.renew(1);
    pair.send(1);
    let mut peer = pair.accept().await;
    peer.request().await;
    peer.answer(CREATED).await;
    assert_eq!(pair.end_event().await.connection, 2);
    pair.send(2);
    peer.request().await;
    peer.answer(CREATED).await;
    assert_eq!(pair.end_event().await.connection, 2);
}

#[tokio::test]
async fn a_failure_without_a_connection_names_none() {
    let mut pair = Pair::new(config()).await;
    let Pair { listener, .. } = &pair;
    let address = listener.local_addr().unwrap();
    pair.listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    pair.send(0);
    let event = pair.end_event().await;
    let What::Failed(failure) = &event.what else { panic!("{event:?} without {address}") };
    assert!(failure.cause.is_without_connection() && !failure.cause.is_unreadable());
    assert_eq!((event.connection, failure.certainty), (0, Certainty::NotProcessed));
}
