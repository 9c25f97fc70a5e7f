//! A readiness gate opens when DataStorage is there, and says what it waits for.

use std::thread;
use std::time::{Duration, Instant};

use ledgerline::{ReadyError, Store};
use ledgerline_testkit::{ReservedPort, WAIT, config, serve};

#[test]
fn a_server_that_is_there_is_ready() {
    let server = serve();
    let store = Store::start(config(&server.url())).unwrap();
    store.ready(WAIT).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.ready_async(WAIT)).unwrap();
    store.close(WAIT).unwrap();
    assert_eq!(store.ready(WAIT), Err(ReadyError::Closed));
}

#[test]
fn a_server_that_is_not_there_is_named_at_the_deadline_and_found_when_it_comes() {
    let port = ReservedPort::take();
    let store = Store::start(config(&port.url())).unwrap();
    let began = Instant::now();
    let error = store.ready(Duration::from_millis(100)).unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(1));
    let ReadyError::Deadline { last: Some(last), .. } = error else { panic!("{error}") };
    assert!(last.contains("could not connect"), "{last}");
    let waiting = thread::spawn(move || {
        let result = store.ready(WAIT);
        drop(store);
        result
    });
    let listener = port.bind();
    let came = Instant::now();
    // One connection, one answer.
    let (mut stream, _) = listener.accept().unwrap();
    let mut request = [0; 1_024];
    let length = std::io::Read::read(&mut stream, &mut request).unwrap();
    assert!(request[..length].starts_with(b"GET /readyz HTTP/1.1\r\n"));
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    std::io::Write::write_all(&mut stream, answer).unwrap();
    assert_eq!(waiting.join().unwrap(), Ok(()));
    let after = came.elapsed();
    assert!(after < Duration::from_secs(2), "it is asked several times a second: {after:?}");
}
