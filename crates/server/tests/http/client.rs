//! An HTTP client of its own, so that it shares no fault with the server's library.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{error} in {}", String::from_utf8_lossy(&self.body));
        })
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (given, value) = line.split_once(':')?;
            given.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// Asserts that this is the problem of that kind, and returns its detail.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, slug: &str) -> String {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let problem = self.json();
        assert_eq!(problem["type"], format!("https://kubernaut.ai/problems/{slug}"));
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string());
        problem["detail"].as_str().unwrap().to_owned()
    }
}

/// Sends bytes on a connection of their own.
pub(crate) fn send(addr: SocketAddr, request: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(request).unwrap();
    stream
}

/// Reads the next answer; `None` if the connection ends before one begins.
pub(crate) fn read_answer(stream: &mut BufReader<TcpStream>) -> Option<Answer> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let status = head[9..12].parse().unwrap();
    let mut answer = Answer { status, head, body: Vec::new() };
    answer.body.resize(answer.header("content-length").unwrap().parse().unwrap(), 0);
    stream.read_exact(&mut answer.body).unwrap();
    Some(answer)
}

/// One request and its answer.
pub(crate) fn exchange(addr: SocketAddr, request: &[u8]) -> Answer {
    read_answer(&mut BufReader::new(send(addr, request))).expect("an answer")
}

pub(crate) fn get(addr: SocketAddr, target: &str) -> Answer {
    exchange(addr, format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes())
}

pub(crate) fn post(addr: SocketAddr, target: &str, body: &[u8]) -> Answer {
    exchange(addr, &post_bytes(target, "Content-Type: application/json\r\n", body))
}

/// The bytes of a POST with these headers, each ended by CRLF, beside its length.
pub(crate) fn post_bytes(target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut request = format!(
        "POST {target} HTTP/1.1\r\nHost: test\r\n{headers}Content-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}
