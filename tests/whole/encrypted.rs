//! What is told of a request over TLS: early is an answer exactly if bytes of its request are still
//! in this process, and a server that speaks no TLS is named.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use ledgerline_testkit::Authority;
use ledgerline_transport::{Answer, Connection, ConnectionConfig, Endpoint, Tls, TlsFiles, What};
use tokio::sync::mpsc::unbounded_channel;

const CREATED: &[u8] = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok";

/// Sends requests of these sizes at once to a server behind TLS; gives its answers.
fn answers(sizes: &[usize], serve: fn(TcpStream) -> TcpStream) -> Vec<Answer> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let authority = Authority::new();
    let front = authority.front(listener.local_addr().expect("it is bound"), false);
    let server = thread::spawn(move || serve(listener.accept().expect("a client").0));
    let ends = ends(&front.url(), &authority, sizes);
    let answers = ends.into_iter().map(|end| match end {
        What::Answered(answer) => answer,
        other => panic!("{other:?}"),
    });
    let answers = answers.collect();
    // The server's socket stays open until the client's is not.
    drop(server.join().expect("the server does not panic"));
    answers
}

/// What becomes of requests of these sizes.
fn ends(url: &str, authority: &Authority, sizes: &[usize]) -> Vec<What> {
    let files = TlsFiles { ca: Some(authority.ca_file()), identity: None };
    let mut config = ConnectionConfig::default();
    config.tls = Some(Arc::new(Tls::new(files).expect("valid files")));
    let endpoint = Arc::new(Endpoint::parse(url).expect("a valid URL"));
    let target = endpoint.post("/batch").expect("a valid path");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (sender, mut events) = unbounded_channel();
        let connection = Connection::spawn(0, endpoint, config, sender);
        for (id, size) in (0..).zip(sizes) {
            connection.send(id, &target, "", vec![Bytes::from(vec![b'x'; *size])]);
        }
        let mut ends = Vec::new();
        while ends.len() < sizes.len() {
            match events.recv().await.expect("the connection lives").what {
                What::FirstByte(_) => {}
                end => ends.push(end),
            }
        }
        ends
    })
}

/// Reads each request to its end, and then answers it.
fn serve_whole_requests(stream: TcpStream) -> TcpStream {
    let mut reader = BufReader::new(&stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return stream;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim_end().parse().expect("a number");
            }
        }
        reader.read_exact(&mut vec![0; length]).expect("the whole content");
        (&stream).write_all(CREATED).expect("a client that reads");
    }
}

#[test]
fn no_answer_to_a_whole_request_is_early_over_tls() {
    for sizes in [[2, 2, 2, 2], [70_000, 2, 300_000, 65_536], [8 << 20, 2, 1 << 20, 8 << 20]] {
        let answers = answers(&sizes, serve_whole_requests);
        assert!(answers.iter().all(|answer| !answer.is_early), "{sizes:?}: {answers:?}");
    }
}

#[test]
fn an_answer_to_an_unfinished_request_is_early_over_tls() {
    let answers = answers(&[64 << 20], |mut stream| {
        stream.read_exact(&mut [0; 64]).unwrap();
        stream.write_all(CREATED).unwrap();
        stream
    });
    assert!(answers[0].is_early && answers[0].status == 201, "{answers:?}");
}

#[test]
fn a_plain_server_behind_https_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let server = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.read_exact(&mut [0]).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").unwrap();
        stream
    });
    let ends = ends(&url, &Authority::new(), &[2]);
    let [What::Failed(failure)] = &ends[..] else { panic!("{ends:?}") };
    assert!(failure.cause.is_without_connection(), "{failure}");
    let text = failure.to_string();
    assert!(text.contains("should begin with http://") && text.contains("not processed"), "{text}");
    drop(server.join().unwrap());
}
