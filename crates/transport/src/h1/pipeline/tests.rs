//! Order, certainty, and the end of a connection.

use super::*;
use crate::{
    Certainty::{Ambiguous, NotProcessed},
    Garbled, Part, TooLarge,
};

const HEAD: &[u8] = b"POST / HTTP/1.1\r\n\r\n";
const BODY: &[u8] = b"[{},{}]";
const REQUEST_BYTES: usize = HEAD.len() + BODY.len();
const TIMEOUT: Duration = Duration::from_secs(30);
const CREATED: &[u8] = b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok";
const CLOSING: &[u8] = b"HTTP/1.1 201 Created\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";

/// A pipeline with so many requests, numbered from 1, of which so many bytes are written.
fn pipeline(requests: u64, written: usize) -> Pipeline {
    let mut pipeline = Pipeline::new(Limits::default(), TIMEOUT);
    let now = Instant::now();
    for id in 1..=requests {
        pipeline.push(now, id, Bytes::from_static(HEAD), vec![Bytes::from_static(BODY)]);
    }
    pipeline.wrote(now, written);
    pipeline.flushed();
    pipeline
}

/// The status, or how sure and why it failed.
type End = Result<u16, (Certainty, Cause)>;

/// The final events.
fn ends(pipeline: &mut Pipeline) -> Vec<(u64, End)> {
    let mut ends = Vec::new();
    while let Some(Event { request_id, what }) = pipeline.poll_event() {
        match what {
            What::FirstByte(_) => {}
            What::Answered(answer) => ends.push((request_id, Ok(answer.status))),
            What::Failed(Failure { certainty, cause }) => {
                ends.push((request_id, Err((certainty, cause))));
            }
        }
    }
    ends
}

fn unwritten(pipeline: &Pipeline) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); 16];
    let count = pipeline.write_slices(&mut slices);
    slices[..count].iter().flat_map(|slice| slice.to_vec()).collect()
}

#[test]
fn bytes_are_offered_where_they_lie_until_they_are_written() {
    let mut pipeline = Pipeline::new(Limits::default(), TIMEOUT);
    let head = Bytes::from_static(HEAD);
    let body = Bytes::from(vec![b'x'; 1_000]);
    let now = Instant::now();
    pipeline.push(now, 1, head.clone(), vec![Bytes::new(), body.clone(), Bytes::new()]);
    pipeline.push(now, 2, head.clone(), vec![]);

    let mut slices = [IoSlice::new(&[]); 8];
    assert_eq!(pipeline.write_slices(&mut slices), 3);
    assert_eq!(slices[0].as_ptr(), head.as_ptr());
    assert_eq!((slices[1].as_ptr(), slices[1].len()), (body.as_ptr(), 1_000));
    assert_eq!(pipeline.write_slices(&mut [IoSlice::new(&[]); 2]), 2);

    pipeline.wrote(now, HEAD.len() + 10);
    let mut slices = [IoSlice::new(&[]); 8];
    assert_eq!(pipeline.write_slices(&mut slices), 2);
    assert_eq!((slices[0].as_ptr(), slices[0].len()), (body[10..].as_ptr(), 990));
    pipeline.wrote(now, 990 + HEAD.len());
    assert_eq!(pipeline.write_slices(&mut [IoSlice::new(&[]); 8]), 0);
    assert!(body.is_unique(), "memory of written bytes is let go");
}

#[test]
fn a_request_is_begun_once_at_its_first_byte() {
    let mut pipeline = pipeline(2, 0);
    assert_eq!(pipeline.poll_event(), None);
    let later = Instant::now() + TIMEOUT;
    for now in [later, later + TIMEOUT] {
        pipeline.wrote(now, REQUEST_BYTES - 1);
    }
    let begun = |id, at| Some(Event { request_id: id, what: What::FirstByte(at) });
    assert_eq!(pipeline.poll_event(), begun(1, later));
    assert_eq!(pipeline.poll_event(), begun(2, later + TIMEOUT));
    assert_eq!(pipeline.poll_event(), None);
}

#[test]
fn answers_go_to_requests_in_order() {
    let mut pipeline = pipeline(3, 3 * REQUEST_BYTES);
    let other = b"HTTP/1.1 400 Bad\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    pipeline.read(&[CREATED, other, CREATED].concat());
    assert_eq!(ends(&mut pipeline), [(1, Ok(201)), (2, Ok(400)), (3, Ok(201))]);
    assert_eq!(pipeline.outstanding(), 0);
    assert!(pipeline.is_open() && !pipeline.must_close());
}

#[test]
fn certainty_follows_what_was_written() {
    let truncated = &CREATED[..CREATED.len() - 1];
    let closing_truncated = &CLOSING[..CLOSING.len() - 1];
    let two_and_a_part = 2 * REQUEST_BYTES + 1;
    // Bytes written of three requests, bytes read before the end, certainty of each failure.
    let cases: [(usize, &[u8], &[Certainty]); 10] = [
        (0, b"", &[NotProcessed; 3]),
        (1, b"", &[NotProcessed; 3]),
        (REQUEST_BYTES - 1, b"", &[NotProcessed; 3]),
        (REQUEST_BYTES, b"", &[Ambiguous, NotProcessed, NotProcessed]),
        (two_and_a_part, b"", &[Ambiguous, Ambiguous, NotProcessed]),
        (3 * REQUEST_BYTES, b"", &[Ambiguous; 3]),
        (3 * REQUEST_BYTES, truncated, &[Ambiguous; 3]),
        (3 * REQUEST_BYTES, closing_truncated, &[Ambiguous, NotProcessed, NotProcessed]),
        (two_and_a_part, CREATED, &[Ambiguous, NotProcessed]),
        (3 * REQUEST_BYTES, CLOSING, &[NotProcessed; 2]),
    ];
    for (written, read, certainties) in cases {
        let mut pipeline = pipeline(3, written);
        pipeline.read(read);
        pipeline.fail(Cause::RequestTimeout { timeout_ms: 1 });
        let ends = ends(&mut pipeline);
        assert_eq!(ends.len(), 3);
        let failures = ends.into_iter().filter_map(|(_, end)| end.err());
        let failures: Vec<Certainty> = failures.map(|(certainty, _)| certainty).collect();
        assert_eq!(failures, certainties, "{written} written, read {}", read.escape_ascii());
        assert!(pipeline.must_close() && !pipeline.is_open());
    }
}

#[test]
fn whatever_ends_the_connection_is_the_cause() {
    let cases: [(&[u8], bool, Cause); 5] = [
        (b"", true, Cause::ClosedByServer),
        (b"HTTP/1.1 100 Continue\r\n\r\n", true, Cause::ClosedByServer),
        (b"HTTP/1.1 2", true, Cause::Truncated),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n", true, Cause::Truncated),
        (b"220 smtp ready\r\n", false, Cause::Garbled(Garbled::StatusLine)),
    ];
    for (read, eof, cause) in cases {
        let mut pipeline = pipeline(2, 2 * REQUEST_BYTES);
        pipeline.read(read);
        if eof {
            pipeline.eof();
        }
        let failed = || Err((Ambiguous, cause.clone()));
        assert_eq!(ends(&mut pipeline), [(1, failed()), (2, failed())]);
    }
}

#[test]
fn nothing_is_processed_after_connection_close() {
    let mut pipeline = pipeline(3, 2 * REQUEST_BYTES);
    let (head, body) = CLOSING.split_at(CLOSING.len() - 2);
    pipeline.read(head);
    assert!(!pipeline.is_open() && !pipeline.must_close());
    assert_eq!(unwritten(&pipeline), b"", "no request is begun that won't be answered");
    pipeline.read(body);
    let ended = || Err((NotProcessed, Cause::EndedEarlier));
    assert_eq!(ends(&mut pipeline), [(1, Ok(201)), (2, ended()), (3, ended())]);
    assert!(pipeline.must_close());
}

#[test]
fn after_an_answer_until_the_end_the_written_ones_are_in_doubt() {
    let mut pipeline = pipeline(3, 2 * REQUEST_BYTES);
    pipeline.read(b"HTTP/1.1 200 OK\r\n\r\nsome");
    assert!(!pipeline.is_open());
    assert_eq!(unwritten(&pipeline), b"");
    pipeline.eof();
    let ended = |certainty| Err((certainty, Cause::EndedEarlier));
    let expected = [(1, Ok(200)), (2, ended(Ambiguous)), (3, ended(NotProcessed))];
    assert_eq!(ends(&mut pipeline), expected);
}

#[test]
fn an_early_answer_is_delivered_and_ends_the_connection() {
    let mut pipeline = pipeline(2, REQUEST_BYTES - 1);
    pipeline.read(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n");
    let ended = Err((NotProcessed, Cause::EndedEarlier));
    assert_eq!(ends(&mut pipeline), [(1, Ok(413)), (2, ended)]);
    assert!(pipeline.must_close());
    assert_eq!(unwritten(&pipeline), b"");
}

#[test]
fn an_answer_that_becomes_complete_after_its_request_keeps_the_connection() {
    let mut pipeline = pipeline(1, REQUEST_BYTES - 1);
    let (head, body) = CREATED.split_at(CREATED.len() - 2);
    pipeline.read(head);
    pipeline.wrote(Instant::now(), 1);
    pipeline.read(body);
    assert_eq!(ends(&mut pipeline), [(1, Ok(201))]);
    assert!(pipeline.is_open());
}

#[test]
fn while_the_last_answer_is_under_way_its_own_request_goes_on() {
    let mut pipeline = pipeline(2, REQUEST_BYTES - 3);
    pipeline.read(&CLOSING[..CLOSING.len() - 2]);
    assert_eq!(unwritten(&pipeline), &BODY[BODY.len() - 3..]);
}

/// Whether the answers were early, in order.
fn earliness(pipeline: &mut Pipeline) -> Vec<bool> {
    let events = std::iter::from_fn(|| pipeline.poll_event());
    let answers = events.filter_map(|event| match event.what {
        What::Answered(answer) => Some(answer.is_early),
        _ => None,
    });
    answers.collect()
}

#[test]
fn an_answer_is_early_if_it_begins_before_its_request_has_left() {
    let now = Instant::now();
    let mut unwritten = pipeline(1, REQUEST_BYTES - 1);
    unwritten.read(CREATED);
    assert_eq!(earliness(&mut unwritten), [true]);

    // The rest is written between the first byte of the answer and the last.
    let mut caught_up = pipeline(1, REQUEST_BYTES - 1);
    caught_up.read(&CREATED[..1]);
    caught_up.wrote(now, 1);
    caught_up.flushed();
    caught_up.read(&CREATED[1..]);
    assert_eq!(earliness(&mut caught_up), [true]);
    assert!(caught_up.is_open());

    // All of it was taken, but lies in a buffer of this process.
    let mut buffered = pipeline(2, REQUEST_BYTES);
    buffered.wrote(now, REQUEST_BYTES);
    buffered.read(&CREATED.repeat(2));
    assert_eq!(earliness(&mut buffered), [false, true]);
    assert!(buffered.is_open());

    // Going on is allowed before the end of a request; what comes after it is in time.
    let mut continued = pipeline(1, REQUEST_BYTES - 1);
    continued.read(b"HTTP/1.1 100 Continue\r\n\r\n");
    continued.wrote(now, 1);
    continued.flushed();
    continued.read(CREATED);
    assert_eq!(earliness(&mut continued), [false]);

    // The answer to the first came in time, and in the same read one to the unfinished second.
    let mut second = pipeline(2, 2 * REQUEST_BYTES - 1);
    second.read(&CREATED.repeat(2));
    assert_eq!(earliness(&mut second), [false, true]);
    assert!(second.must_close());
}

#[test]
fn bytes_before_the_first_byte_of_a_request_are_no_answer_to_it() {
    let unsolicited = || Err((NotProcessed, Cause::Unsolicited));
    // Behind the answer to the request before, in one read and in two.
    for (first, second) in [([CREATED, CREATED].concat(), vec![]), (CREATED.into(), CREATED.into())]
    {
        let mut pipeline = pipeline(2, REQUEST_BYTES);
        pipeline.read(&first);
        pipeline.read(&second);
        assert_eq!(ends(&mut pipeline), [(1, Ok(201)), (2, unsolicited())]);
        assert!(pipeline.must_close());
    }
    // One byte is enough, and an empty line is no exception.
    for surplus in [&b"H"[..], b"\r\n", b"x"] {
        let mut pipeline = pipeline(2, REQUEST_BYTES);
        pipeline.read(&[CREATED, surplus].concat());
        assert_eq!(ends(&mut pipeline), [(1, Ok(201)), (2, unsolicited())]);
    }
    // On a fresh connection, before anything was written.
    for surplus in [CREATED, b"H"] {
        let mut pipeline = pipeline(1, 0);
        pipeline.read(surplus);
        assert_eq!(ends(&mut pipeline), [(1, unsolicited())]);
        assert_eq!(unwritten(&pipeline), b"");
    }
}

#[test]
fn a_server_that_speaks_first_speaks_another_protocol() {
    let cases = [(&b"SSH-2.0-x\r\n"[..], Garbled::Ssh), (b"220 smtp\r\n", Garbled::StatusLine)];
    for (greeting, garbled) in cases {
        for (written, certainty) in
            [(0, NotProcessed), (1, NotProcessed), (REQUEST_BYTES, Ambiguous)]
        {
            let mut pipeline = pipeline(1, written);
            pipeline.read(greeting);
            let expected = Err((certainty, Cause::Garbled(garbled)));
            assert_eq!(ends(&mut pipeline), [(1, expected)], "{written} written");
        }
    }
}

#[test]
fn an_answer_above_a_limit_is_told_whatever_ends_the_connection() {
    let head = |fields: &str| {
        let length = Limits::default().body_bytes_max + 1;
        format!("HTTP/1.1 201 Created\r\n{fields}content-length: {length}\r\n\r\n")
    };
    type Ending<'a> = &'a dyn Fn(&mut Pipeline);
    let endings: [(Ending<'_>, Cause); 3] = [
        (&Pipeline::eof, Cause::Truncated),
        (&|pipeline| pipeline.handle_timeout(Instant::now() + TIMEOUT), Cause::GivenUpEarlier),
        (&|pipeline| pipeline.fail(Cause::TaskEnded), Cause::TaskEnded),
    ];
    for (end, cause) in endings {
        let mut pipeline = pipeline(3, 2 * REQUEST_BYTES);
        pipeline.read(head("").as_bytes());
        pipeline.read(b"some of it");
        end(&mut pipeline);
        let failed = |certainty| Err((certainty, cause.clone()));
        let expected = [(1, Ok(201)), (2, failed(Ambiguous)), (3, failed(NotProcessed))];
        assert_eq!(ends(&mut pipeline), expected);
        assert!(pipeline.must_close());
    }
    // The server had said that it processes nothing more.
    let mut pipeline = pipeline(2, 2 * REQUEST_BYTES);
    pipeline.read(head("connection: close\r\n").as_bytes());
    pipeline.eof();
    let ended = Err((NotProcessed, Cause::Truncated));
    assert_eq!(ends(&mut pipeline), [(1, Ok(201)), (2, ended)]);
}

#[test]
fn an_answer_above_a_limit_leaves_the_connection_to_the_next() {
    let length = Limits::default().body_bytes_max + 1;
    let mut pipeline = pipeline(2, 2 * REQUEST_BYTES);
    pipeline.read(format!("HTTP/1.1 400 Bad\r\ncontent-length: {length}\r\n\r\n").as_bytes());
    pipeline.read(&vec![b'x'; length]);
    pipeline.read(CREATED);
    let events: Vec<_> = std::iter::from_fn(|| pipeline.poll_event()).collect();
    let [.., Event { what: What::Answered(large), .. }, Event { what: What::Answered(next), .. }] =
        &events[..]
    else {
        panic!("{events:?}");
    };
    let limit = TooLarge { part: Part::BodyBytes, limit: length - 1 };
    assert_eq!((large.status, large.too_large, &large.body[..]), (400, Some(limit), &b""[..]));
    assert_eq!((next.status, next.too_large, &next.body[..]), (201, None, &b"ok"[..]));
    assert!(pipeline.is_open());
}

#[test]
fn a_finishing_connection_ends_with_its_last_answer() {
    let mut idle = pipeline(0, 0);
    idle.finish();
    assert!(idle.must_close());

    let mut busy = pipeline(2, REQUEST_BYTES);
    busy.finish();
    assert!(!busy.is_open() && !busy.must_close());
    assert_eq!(unwritten(&busy).len(), REQUEST_BYTES, "what was pushed is still sent");
    busy.wrote(Instant::now(), REQUEST_BYTES);
    busy.flushed();
    busy.push(Instant::now(), 9, Bytes::from_static(HEAD), vec![]);
    busy.read(CREATED);
    assert!(!busy.must_close());
    busy.read(CREATED);
    assert!(busy.must_close());
    let not_open = Err((NotProcessed, Cause::NotOpen));
    assert_eq!(ends(&mut busy), [(9, not_open), (1, Ok(201)), (2, Ok(201))]);
}

#[test]
fn a_response_nobody_asked_for_breaks_the_connection() {
    let late_idle = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n";
    let mut idle = pipeline(0, 0);
    idle.read(late_idle);
    assert!(idle.must_close());

    let mut unbegun = pipeline(1, 0);
    unbegun.read(late_idle);
    assert_eq!(ends(&mut unbegun), [(1, Err((NotProcessed, Cause::Unsolicited)))]);

    let mut answered = pipeline(1, REQUEST_BYTES);
    answered.read(&[CREATED, b"\r\n"].concat());
    assert_eq!(ends(&mut answered), [(1, Ok(201))]);
    assert!(answered.must_close());
}

#[test]
fn a_request_pushed_onto_an_ending_connection_fails_at_once() {
    let not_open = || Err((NotProcessed, Cause::NotOpen));
    let mut closed = pipeline(0, 0);
    closed.eof();
    let mut ending = pipeline(1, REQUEST_BYTES);
    ending.read(&CLOSING[..CLOSING.len() - 1]);
    for pipeline in [&mut closed, &mut ending] {
        pipeline.push(Instant::now(), 9, Bytes::from_static(HEAD), vec![]);
        assert_eq!(ends(pipeline), [(9, not_open())]);
    }
    ending.read(b"k");
    assert_eq!(ends(&mut ending), [(1, Ok(201))]);
}

#[test]
fn the_oldest_request_governs_the_deadline() {
    let start = Instant::now();
    let second = Duration::from_secs(1);
    let mut pipeline = Pipeline::new(Limits::default(), TIMEOUT);
    assert_eq!(pipeline.deadline(), None);
    pipeline.push(start, 1, Bytes::from_static(HEAD), vec![]);
    pipeline.push(start, 2, Bytes::from_static(HEAD), vec![]);
    assert_eq!(pipeline.deadline(), Some(start + TIMEOUT), "from the push, while unwritten");
    pipeline.wrote(start + second, HEAD.len());
    pipeline.wrote(start + 2 * second, HEAD.len());
    assert_eq!(pipeline.deadline(), Some(start + second + TIMEOUT), "from the first byte");
    pipeline.read(CREATED);
    assert_eq!(pipeline.deadline(), Some(start + 2 * second + TIMEOUT));

    let before = start + 2 * second + TIMEOUT - Duration::from_nanos(1);
    pipeline.handle_timeout(before);
    assert!(pipeline.is_open());
    pipeline.handle_timeout(start + 2 * second + TIMEOUT);
    let late = Err((Ambiguous, Cause::RequestTimeout { timeout_ms: 30_000 }));
    assert_eq!(ends(&mut pipeline), [(1, Ok(201)), (2, late)]);
    assert_eq!(pipeline.deadline(), None);
}

#[test]
fn a_timeout_without_end_is_no_deadline() {
    let mut pipeline = Pipeline::new(Limits::default(), Duration::MAX);
    pipeline.push(Instant::now(), 1, Bytes::from_static(HEAD), vec![]);
    assert_eq!(pipeline.deadline(), None);
}
