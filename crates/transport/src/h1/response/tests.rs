//! Every framing rule, with the bytes arriving all at once and one by one.

use super::*;
use crate::Garbled;

fn limits() -> Limits {
    Limits {
        head_bytes_max: 256,
        headers_max: 8,
        body_bytes_max: 64,
        interim_max: 2,
        skipped_bytes_max: 1_000,
    }
}

/// Reads everything in pieces of `step` bytes, then the end: answers, and what stopped it.
fn read_in_steps(raw: &[u8], step: usize) -> (Vec<Answer>, Option<Cause>) {
    let mut reader = ResponseReader::new(limits());
    let mut answers = Vec::new();
    for mut piece in raw.chunks(step) {
        while !piece.is_empty() {
            match reader.read(&mut piece, true) {
                Ok(answer) => answers.extend(answer),
                Err(cause) => return (answers, Some(cause)),
            }
        }
    }
    answers.extend(reader.read_end());
    (answers, reader.is_midway().then_some(Cause::Truncated))
}

fn read(raw: &[u8]) -> (Vec<Answer>, Option<Cause>) {
    let at_once = read_in_steps(raw, raw.len().max(1));
    let one_by_one = read_in_steps(raw, 1);
    assert_eq!(at_once, one_by_one, "{}", raw.escape_ascii());
    at_once
}

fn bodies(raw: &[u8]) -> Vec<(u16, String)> {
    let (answers, cause) = read(raw);
    assert_eq!(cause, None, "{}", raw.escape_ascii());
    let text = |answer: Answer| String::from_utf8(answer.body.into()).unwrap();
    answers.into_iter().map(|answer| (answer.status, text(answer))).collect()
}

/// The limit that the only answer is above; nothing is kept of its content.
fn above(raw: &[u8]) -> TooLarge {
    let (answers, cause) = read(raw);
    assert_eq!((answers.len(), cause), (1, None), "{}", raw.escape_ascii());
    assert!(answers[0].body.is_empty());
    answers[0].too_large.expect("it is above a limit")
}

fn refusal(raw: &[u8]) -> Cause {
    let (answers, cause) = read(raw);
    assert_eq!(answers, [], "{}", raw.escape_ascii());
    cause.unwrap_or_else(|| panic!("accepted: {}", raw.escape_ascii()))
}

#[test]
fn content_ends_where_rfc_9112_section_6_3_says() {
    let cases: [(&[u8], u16, &str); 17] = [
        (b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok", 201, "ok"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, ""),
        (b"HTTP/1.1 200\r\ncontent-length:\t2 \r\n\r\nok", 200, "ok"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2, 02\r\ncontent-length: 2\r\n\r\nok", 200, "ok"),
        (b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok", 200, "ok"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, "ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        (b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n", 204, ""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\n\r\n", 304, ""),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, "until the end"),
        (b"HTTP/1.1 200 OK\r\n\r\n", 200, ""),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, "ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: , Chunked\r\n\r\n0\r\n\r\n", 200, ""),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
              000A;a=b;c=\"d\"\r\n0123456789\r\n1 \t;x\r\nA\r\n\
              0;last\r\nDigest: x\r\nEnd: y\r\n\r\n",
            200,
            "0123456789A",
        ),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
              0000000000000002\r\n\r\n\r\n0\r\n\r\n",
            200,
            "\r\n",
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n\
              HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok",
            201,
            "ok",
        ),
        (b"HTTP/1.1 999 Odd\r\ncontent-length: 2\r\n\r\nok", 999, "ok"),
    ];
    for (raw, status, body) in cases {
        assert_eq!(bodies(raw), [(status, body.to_owned())], "{}", raw.escape_ascii());
    }
}

#[test]
fn what_breaks_the_rules_is_refused_by_name() {
    use Garbled::*;
    let cases: [(&[u8], Garbled); 36] = [
        (b"\r\nHTTP/1.1 200 OK\r\n\r\n", StatusLine),
        (b"SSH-2.0-OpenSSH\r\n", Ssh),
        (b"HTTP/2.0 200 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.2 200 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1  200 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 20x OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 2000 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 099 Odd\r\n\r\n", Status(99)),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", Upgrade),
        (b"HTTP/1.1 200 OK\r\nname : value\r\n\r\n", Header),
        (b"HTTP/1.1 200 OK\r\nname\r\n\r\n", Header),
        (b"HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n", Header),
        (b"HTTP/1.1 200 OK\r\na: b\x00\r\n\r\n", Header),
        (b"HTTP/1.1 200 OK\r\na: b\rc\r\n\r\n", Header),
        (b"HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\n", ContentLength),
        (b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok", ContentLength),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok", ContentLength),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0x2\r\n\r\nok", ContentLength),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2,\r\n\r\nok", ContentLength),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2, 3\r\n\r\nok", ContentLength),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok", ContentLength),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n", TwoLengths),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ncontent-length: x\r\n\r\n", TwoLengths),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding:\r\n\r\n", TransferEncoding),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\n", TransferEncoding),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", TransferEncoding),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n", TransferEncoding),
        (b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", TransferEncoding),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\n", ChunkSize),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n+1\r\n", ChunkSize),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0x1\r\n", ChunkSize),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1 1\r\n", ChunkSize),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\nA", ChunkSize),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n00000000000000001\r\n", ChunkSize),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nAB", ChunkEnd),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nno field\r\n\r\n", Trailer),
    ];
    for (raw, garbled) in cases {
        assert_eq!(refusal(raw), Cause::Garbled(garbled), "{}", raw.escape_ascii());
    }
}

#[test]
fn each_limit_is_met_and_not_crossed() {
    let head = |bytes: usize| {
        let line = "HTTP/1.1 204 No Content\r\nx: ";
        format!("{line}{}\r\n\r\n", "x".repeat(bytes - line.len() - 4))
    };
    let headers = |count: usize| format!("HTTP/1.1 204 X\r\n{}\r\n", "a: b\r\n".repeat(count));
    let length =
        |bytes| format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n{}", "x".repeat(bytes));
    let endless = |bytes| format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(bytes));
    let interim = |count| {
        let last = "HTTP/1.1 204 X\r\n\r\n";
        format!("{}{last}", "HTTP/1.1 100 Continue\r\n\r\n".repeat(count))
    };
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunks = |count| format!("{CHUNKED}{}0\r\n\r\n", "1\r\nx\r\n".repeat(count));
    let extension = |bytes: usize| {
        let (first, last) = (bytes / 2, bytes - bytes / 2 - 2);
        let (first, last) = ("x".repeat(first), "x".repeat(last));
        format!("{CHUNKED}1;{first}\r\nx\r\n0;{last}\r\n\r\n")
    };
    let trailer = |bytes: usize| format!("{CHUNKED}0\r\na: {}\r\n\r\n", "x".repeat(bytes - 7));
    let trailers = |count: usize| format!("{CHUNKED}0\r\n{}\r\n", "a: b\r\n".repeat(count));
    /// A response with so much of a part.
    type Sizing<'a> = &'a dyn Fn(usize) -> String;
    let cases: [(Part, usize, Sizing<'_>); 9] = [
        (Part::HeadBytes, limits().head_bytes_max, &head),
        (Part::Headers, limits().headers_max, &headers),
        (Part::BodyBytes, limits().body_bytes_max, &length),
        (Part::BodyBytes, limits().body_bytes_max, &endless),
        (Part::BodyBytes, limits().body_bytes_max, &chunks),
        (Part::ExtensionBytes, limits().head_bytes_max, &extension),
        (Part::TrailerBytes, limits().head_bytes_max, &trailer),
        (Part::Headers, limits().headers_max, &trailers),
        (Part::InterimResponses, limits().interim_max, &interim),
    ];
    for (part, limit, response) in cases {
        assert_eq!(bodies(response(limit).as_bytes()).len(), 1, "{part}: {limit}");
        let raw = response(limit + 1);
        let too_large = TooLarge { part, limit };
        if part == Part::InterimResponses {
            assert_eq!(refusal(raw.as_bytes()), Cause::TooLarge(too_large), "{part}: {limit} + 1");
        } else {
            assert_eq!(above(raw.as_bytes()), too_large, "{part}: {limit} and one");
        }
    }
    let huge = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n";
    assert_eq!(above(huge), TooLarge { part: Part::BodyBytes, limit: 64 });
    let huge = format!("{CHUNKED}ffffffffffffffff\r\n");
    assert_eq!(above(huge.as_bytes()), TooLarge { part: Part::BodyBytes, limit: 64 });
}

#[test]
fn a_response_above_a_limit_is_read_to_its_end() {
    const CHUNKED: &str = "HTTP/1.1 201 X\r\ntransfer-encoding: chunked\r\n\r\n";
    let long = "x".repeat(300);
    let cases = [
        (Part::BodyBytes, format!("HTTP/1.1 201 X\r\ncontent-length: 300\r\n\r\n{long}")),
        (Part::BodyBytes, format!("{CHUNKED}12c\r\n{long}\r\n1\r\nx\r\n0\r\na: b\r\n\r\n")),
        (Part::ExtensionBytes, format!("{CHUNKED}1;{long}\r\nx\r\n0\r\n\r\n")),
        (Part::TrailerBytes, format!("{CHUNKED}1\r\nx\r\n0\r\na: {long}\r\nb: c\r\n\r\n")),
        (Part::Headers, format!("{CHUNKED}1\r\nx\r\n0\r\n{}\r\n", "a: b\r\n".repeat(20))),
        (Part::HeadBytes, format!("HTTP/1.1 201 X\r\na: {long}\r\ncontent-length: 1\r\n\r\nx")),
        (Part::HeadBytes, format!("HTTP/1.1 201 X\ncontent-length: 0\nb: c\na: {long}\n\n")),
        (
            Part::HeadBytes,
            format!(
                "HTTP/1.1 201 X\r\n{}transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
                "name: a value of some length\r\n".repeat(9)
            ),
        ),
        (
            Part::Headers,
            format!("HTTP/1.1 201 X\r\n{}content-length: 1\r\n\r\nx", "a: b\r\n".repeat(20)),
        ),
    ];
    for (part, raw) in cases {
        // The connection goes on behind it.
        let raw = format!("{raw}HTTP/1.1 202 Y\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\nok");
        let (answers, cause) = read(raw.as_bytes());
        assert_eq!(cause, None, "{raw}");
        let [large, next] = &answers[..] else { panic!("{answers:?} of {raw}") };
        let limit = large.too_large.expect("it is above a limit");
        assert_eq!((large.status, &large.body[..], limit.part), (201, &b""[..], part), "{raw}");
        assert_eq!((next.status, &next.body[..], next.too_large), (202, &b"ok"[..], None));
        assert_eq!((large.number_on_connection, next.number_on_connection), (0, 1));
    }
}

#[test]
fn the_fields_of_a_head_above_a_limit_are_handed_on() {
    let raw = format!(
        "HTTP/1.1 503 Busy\r\nretry-after: 9\r\nlong: {}\r\n{}content-type: a/b\r\n\
         content-length: 2\r\nconnection: close\r\n\r\nno",
        "x".repeat(600),
        "a: b\r\n".repeat(4),
    );
    let (answers, _) = read(raw.as_bytes());
    assert_eq!((answers[0].status, answers[0].retry_after.as_deref()), (503, Some("9")));
    assert_eq!(answers[0].content_type.as_deref(), Some("a/b"));
}

#[test]
fn what_a_limit_hides_the_end_of_is_refused() {
    let long = "x".repeat(300);
    for raw in [
        format!("HTTP/1.1 201 {long}\r\ncontent-length: 0\r\n\r\n"),
        format!("HTTP/1.1 201 X\r\ntransfer-encoding: chunked,{long}\r\n\r\n"),
        format!("HTTP/1.1 201 X\r\nConnection: {long}\r\ncontent-length: 0\r\n\r\n"),
        format!("HTTP/1.1 201 X\r\n{}", "a: b\r\n".repeat(300)),
        format!("HTTP/1.1 201 X\r\na: {}", long.repeat(4)),
    ] {
        let cause = refusal(raw.as_bytes());
        assert!(matches!(cause, Cause::TooLarge(_)) && cause.is_unreadable(), "{cause}: {raw}");
    }
    for (raw, garbled) in [
        (format!("HTTP/1.1 201 X\r\na: {long}\r\nno field\r\n\r\n"), Garbled::Header),
        (format!("HTTP/1.1 201 X\r\na: {long}\0\r\n\r\n"), Garbled::Header),
        (format!("HTTP/1.1 201 X\r\na : {long}\r\n\r\n"), Garbled::Header),
        (format!("HTTP/1.1 101 X\r\na: {long}\r\n\r\n"), Garbled::Upgrade),
        (
            format!("HTTP/1.1 201 X\r\na: {long}\r\ncontent-length: x\r\n\r\n"),
            Garbled::ContentLength,
        ),
    ] {
        assert_eq!(refusal(raw.as_bytes()), Cause::Garbled(garbled), "{raw}");
    }
}

#[test]
fn a_response_far_above_a_limit_is_answered_and_ends_the_connection() {
    let endless = "x".repeat(1_001);
    for raw in [
        "HTTP/1.1 201 X\r\ncontent-length: 1001\r\n\r\n".to_owned(),
        "HTTP/1.1 201 X\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n".to_owned(),
        format!("HTTP/1.1 201 X\r\n\r\n{endless}"),
        format!("HTTP/1.1 201 X\r\ntransfer-encoding: chunked\r\n\r\n1;{endless}{endless}"),
        format!("HTTP/1.1 201 X\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: {endless}{endless}"),
    ] {
        for step in [1, 7, raw.len()] {
            let mut reader = ResponseReader::new(limits());
            let answer = raw
                .as_bytes()
                .chunks(step)
                .find_map(|mut piece| reader.read(&mut piece, true).expect("it can be framed"));
            let answer = answer.unwrap_or_else(|| panic!("no answer: {raw}"));
            assert!(answer.status == 201 && answer.too_large.is_some(), "{raw}");
            assert_eq!(reader.ending(), Ending::Undeclared, "{raw}");
        }
    }
}

#[test]
fn a_server_of_another_protocol_is_named() {
    for (raw, garbled) in [
        (&b"SSH-2.0-OpenSSH_9.6\r\n"[..], Garbled::Ssh),
        (b"\x15\x03\x01\x00\x02\x02\x16", Garbled::Tls),
        (b"\x16\x03\x03\x00\x7a", Garbled::Tls),
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", Garbled::Http2),
        (b"\x00\x00\x12\x04\x01\x00\x00\x00\x00", Garbled::StatusLine),
        (b"SIP/2.0 200 OK\r\n", Garbled::StatusLine),
        (b"220 mail.example ESMTP\r\n", Garbled::StatusLine),
        (b"\x15\x02", Garbled::StatusLine),
        (b"\r\n", Garbled::StatusLine),
    ] {
        assert_eq!(refusal(raw), Cause::Garbled(garbled), "{}", raw.escape_ascii());
        assert!(Cause::Garbled(garbled).is_unreadable());
    }
}

#[test]
fn interim_responses_are_counted_for_each_answer() {
    let answer = "HTTP/1.1 100 Continue\r\n\r\n".repeat(2) + "HTTP/1.1 204 X\r\n\r\n";
    assert_eq!(bodies(answer.repeat(3).as_bytes()).len(), 3);
}

#[test]
fn memory_grows_by_doubling_up_to_the_limit() {
    let mut bytes = Vec::new();
    for (length, capacity) in [(10, 10), (1, 20), (10, 40), (20, 64), (23, 64)] {
        append(&mut bytes, &vec![b'x'; length], 64);
        assert_eq!(bytes.capacity(), capacity, "{} bytes", bytes.len());
    }
}

#[test]
fn the_fields_that_matter_are_handed_on() {
    let raw = b"HTTP/1.1 503 Busy\r\nContent-Type: application/problem+json\r\ncontent-type: x\r\n\
                RETRY-AFTER:  Fri, 31 Dec 1999 23:59:59 GMT \r\ncontent-length: 0\r\n\r\n";
    let (answers, _) = read(raw);
    assert_eq!(answers[0].content_type.as_deref(), Some("application/problem+json"));
    assert_eq!(answers[0].retry_after.as_deref(), Some("Fri, 31 Dec 1999 23:59:59 GMT"));
    let (answers, _) = read(
        b"HTTP/1.1 200 OK\r\ncontent-type: \xe9\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n",
    );
    assert_eq!(answers[0].content_type, None);
    assert_eq!(answers[0].retry_after.as_deref(), Some("1"));
}

#[test]
fn the_end_of_the_connection_is_foreseen() {
    let cases: [(&[u8], Ending); 9] = [
        (b"HTTP/1.1 204 X\r\n\r\n", Ending::No),
        (b"HTTP/1.1 204 X\r\nconnection: keep-alive\r\n\r\n", Ending::No),
        (b"HTTP/1.1 204 X\r\nconnection: x, Close\r\n\r\n", Ending::Declared),
        (
            b"HTTP/1.1 204 X\r\nconnection: keep-alive\r\nconnection: close\r\n\r\n",
            Ending::Declared,
        ),
        (b"HTTP/1.1 200 OK\r\n\r\n", Ending::Undeclared),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", Ending::Declared),
        (b"HTTP/1.0 204 X\r\n\r\n", Ending::Declared),
        (b"HTTP/1.0 204 X\r\nconnection: Keep-Alive\r\n\r\n", Ending::No),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n\r\n", Ending::Undeclared),
    ];
    for (raw, ending) in cases {
        let mut reader = ResponseReader::new(limits());
        reader.read(&mut &raw[..], true).unwrap();
        assert_eq!(reader.ending(), ending, "{}", raw.escape_ascii());
    }
}
