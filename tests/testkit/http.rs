//! An HTTP client of its own, so that it shares no fault with the engine's.
//!
//! Limit: GET and POST, and answers with a `content-length`, which is what our DataStorage sends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One kept connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("the server listens");
        stream.set_nodelay(true).expect("a fresh socket takes options");
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("the timeout is not zero");
        Self { stream: BufReader::new(stream) }
    }

    /// The status and the body of the answer.
    pub(crate) fn get(&mut self, target: &str) -> (u16, String) {
        self.exchange(format!("GET {target} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes())
    }

    /// The status and the body of the answer to a body of JSON, or of anything that is none.
    pub(crate) fn post(&mut self, target: &str, body: &[u8]) -> (u16, String) {
        let length = body.len();
        let head = format!(
            "POST {target} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n"
        );
        self.exchange(&[head.as_bytes(), body].concat())
    }

    fn exchange(&mut self, request: &[u8]) -> (u16, String) {
        self.stream.get_mut().write_all(request).expect("the server reads");
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let bytes = self.stream.read_line(&mut head).expect("the server answers in time");
            assert!(bytes > 0, "the server closed after {head:?}");
        }
        let length = header(&head, "content-length").and_then(|length| length.parse().ok());
        let mut body = vec![0; length.expect("the server says how long its answer is")];
        self.stream.read_exact(&mut body).expect("the body is as long as the head says");
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        let body = String::from_utf8(body).expect("JSON is UTF-8");
        (status.expect("the answer begins with a status line"), body)
    }
}

/// A query string of these parameters, everything but letters and digits encoded.
pub(crate) fn query_string(parameters: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in parameters {
        text.push(if text.is_empty() { '?' } else { '&' });
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() {
                text.push(byte.into());
            } else {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    text
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (given, value) = line.split_once(':')?;
        given.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
