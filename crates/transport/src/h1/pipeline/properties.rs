//! What holds for any bytes, however they are cut, mutated and interleaved with writing.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

const HEAD: &[u8] = b"POST / HTTP/1.1\r\n\r\n";
const TIMEOUT: Duration = Duration::from_secs(30);

fn limits() -> Limits {
    Limits {
        head_bytes_max: 128,
        headers_max: 4,
        body_bytes_max: 64,
        interim_max: 2,
        skipped_bytes_max: 100,
    }
}

/// Well-formed responses of every framing, and a few that are not.
const RESPONSES: [&[u8]; 12] = [
    b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\n[{}]",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
      3;a=b\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nDigest: y\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 503 Busy\r\nretry-after: 7\r\ncontent-length: 1\r\n\r\n!",
    b"HTTP/1.1 400 Bad\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno",
    b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.0 200 OK\r\n\r\nto the end",
    b"HTTP/1.1 200 OK\r\n\r\nto the end",
    b"HTTP/1.1 200 OK\r\ncontent-length: 65\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
];

fn response() -> impl Strategy<Value = &'static [u8]> {
    (0..RESPONSES.len()).prop_map(|index| RESPONSES[index])
}

/// A few responses in a row, with bytes changed, inserted or removed.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![any::<u8>(), prop::sample::select(b"\r\n\t ,;:019afHT\x00".to_vec()),];
    let mutation = (any::<Index>(), 0..3_u8, byte);
    (vec(response(), 1..5), vec(mutation, 0..3)).prop_map(|(responses, mutations)| {
        let mut stream = responses.concat();
        for (index, kind, byte) in mutations {
            let at = index.index(stream.len());
            match kind {
                0 => stream[at] = byte,
                1 => stream.insert(at, byte),
                _ => drop(stream.remove(at)),
            }
        }
        stream
    })
}

fn pipeline(requests: u64, limits: Limits) -> Pipeline {
    let mut pipeline = Pipeline::new(limits, TIMEOUT);
    for id in 0..requests {
        pipeline.push(Instant::now(), id, Bytes::from_static(HEAD), vec![]);
    }
    pipeline
}

fn events(pipeline: &mut Pipeline) -> Vec<Event> {
    std::iter::from_fn(|| pipeline.poll_event()).collect()
}

/// Reads the pieces, then the end, with all requests written before.
fn outcome<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
    outcome_within(limits(), pieces)
}

fn outcome_within<'a>(limits: Limits, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
    let bound = 2 * limits.head_bytes_max + limits.body_bytes_max;
    let mut pipeline = pipeline(6, limits);
    pipeline.wrote(Instant::now(), 6 * HEAD.len());
    pipeline.flushed();
    while pipeline.events.pop_front().is_some() {}
    for piece in pieces {
        pipeline.read(piece);
        assert!(pipeline.held_bytes() <= bound);
    }
    pipeline.eof();
    let events = events(&mut pipeline);
    let ids: Vec<u64> = events.iter().map(|event| event.request_id).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4, 5], "each request ends once, in order");
    events
}

/// Complete answers among the events.
fn answers(events: &[Event]) -> Vec<&Event> {
    events.iter().filter(|event| matches!(event.what, What::Answered(_))).collect()
}

#[test]
fn a_stream_cut_off_anywhere_answers_what_was_complete_and_doubts_the_rest() {
    // The first six leave the connection open.
    let stream = RESPONSES[..6].concat();
    let mut ends = Vec::new();
    for response in &RESPONSES[..6] {
        ends.push(ends.last().unwrap_or(&0) + response.len());
    }
    let whole = outcome([&stream[..]]);
    assert_eq!(answers(&whole).len(), 6);
    for length in 0..stream.len() {
        let events = outcome([&stream[..length]]);
        let complete = ends.iter().filter(|end| **end <= length).count();
        assert_eq!(events[..complete], whole[..complete], "cut off after {length}");
        for event in &events[complete..] {
            let What::Failed(failure) = &event.what else {
                panic!("an answer that was cut off after {length}");
            };
            assert_eq!(failure.certainty, Certainty::Ambiguous);
            assert!(matches!(failure.cause, Cause::Truncated | Cause::ClosedByServer));
        }
    }
}

#[test]
fn garbage_at_any_byte_leaves_the_answers_before_it() {
    let stream = RESPONSES[..6].concat();
    let whole = outcome([&stream[..]]);
    for at in 0..stream.len() {
        for garbage in [b'\0', b'\r', b'\n', b'9', b'x', 0xff] {
            let mut stream = stream.clone();
            stream[at] = garbage;
            let events = outcome([&stream[..]]);
            let untouched = answers(&outcome([&stream[..at]])).len();
            assert_eq!(events[..untouched], whole[..untouched], "{garbage} at {at}");
        }
    }
}

/// What can happen to a connection.
#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Write(Index),
    Flush,
    Read(Vec<u8>),
    Finish,
    Eof,
    Wait(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..20_usize).prop_map(Step::Push),
        4 => any::<Index>().prop_map(Step::Write),
        2 => Just(Step::Flush),
        1 => Just(Step::Finish),
        4 => response().prop_map(|response| Step::Read(response.to_vec())),
        2 => stream().prop_map(Step::Read),
        2 => (response(), any::<Index>())
            .prop_map(|(response, cut)| Step::Read(response[..cut.index(response.len())].to_vec())),
        1 => vec(any::<u8>(), 0..50).prop_map(Step::Read),
        1 => Just(Step::Eof),
        1 => (0..20_u64).prop_map(|seconds| Step::Wait(Duration::from_secs(seconds))),
    ]
}

/// What is known about a request from outside.
#[derive(Debug, Default)]
struct Known {
    unwritten: usize,
    begun: bool,
    ended: bool,
}

/// Drains events into what is known, and checks each against it.
fn check(pipeline: &mut Pipeline, known: &mut BTreeMap<u64, Known>) {
    for event in events(pipeline) {
        let request = known.get_mut(&event.request_id).expect("only pushed requests have events");
        assert!(!request.ended, "{event:?} after the final event");
        match event.what {
            What::FirstByte(_) => assert!(!std::mem::replace(&mut request.begun, true)),
            What::Answered(answer) => {
                assert!(request.begun, "answered before it was begun");
                assert!(answer.is_early || request.unwritten == 0, "in time for what was not sent");
                request.ended = true;
            }
            What::Failed(failure) => {
                let doubtful = failure.certainty == Certainty::Ambiguous;
                assert!(!doubtful || request.unwritten == 0, "no doubt about what was not written");
                request.ended = true;
            }
        }
    }
    // Final events come in the order of the requests.
    let first_open = known.values().position(|request| !request.ended).unwrap_or(known.len());
    let refused = |request: &&Known| request.ended && !request.begun;
    assert!(known.values().skip(first_open).all(|request| !request.ended || refused(&request)));
}

proptest! {
    #[test]
    fn the_outcome_does_not_depend_on_how_the_bytes_are_cut(
        stream in stream(),
        cuts in vec(any::<Index>(), 0..6),
    ) {
        let whole = outcome([&stream[..]]);
        prop_assert_eq!(&whole, &outcome(stream.chunks(1)));
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.sort_unstable();
        let mut rest = &stream[..];
        let mut pieces = Vec::new();
        for cut in cuts.into_iter().rev() {
            let (before, piece) = rest.split_at(cut);
            pieces.insert(0, piece);
            rest = before;
        }
        pieces.insert(0, rest);
        prop_assert_eq!(&whole, &outcome(pieces));
    }

    /// Only the content is gone of what is above a limit.
    #[test]
    fn a_response_above_a_limit_is_framed_as_one_within(stream in stream(), cut in 1..40_usize) {
        let within = Limits { head_bytes_max: 1_000, headers_max: 9, body_bytes_max: 1_000,
            interim_max: 2, skipped_bytes_max: 1_000 };
        let above = Limits { head_bytes_max: 40, headers_max: 1, body_bytes_max: 1, ..within };
        let within = outcome_within(within, [&stream[..]]);
        let above = outcome_within(above, stream.chunks(cut));
        for (within, above) in within.iter().zip(&above) {
            match (&within.what, &above.what) {
                (What::Answered(within), What::Answered(above)) => {
                    let is_cut = above.too_large.is_some();
                    let body = if is_cut { Bytes::new() } else { within.body.clone() };
                    let expected = Answer { body, too_large: above.too_large, ..within.clone() };
                    prop_assert_eq!(&expected, above);
                }
                // The status is all that is told of it, so that its end needs not be seen.
                (What::Failed(_), What::Answered(above)) => {
                    prop_assert!(above.too_large.is_some());
                }
                (What::Failed(_), What::Failed(_)) => {}
                // A changed byte made a line too long for its name to count.
                (What::Answered(_), What::Failed(failure)) => {
                    let is_hidden = matches!(failure.cause, Cause::TooLarge(_));
                    prop_assert!(is_hidden || failure.cause == Cause::EndedEarlier, "{}", failure);
                }
                (What::FirstByte(_), _) | (_, What::FirstByte(_)) => unreachable!("all were begun"),
            }
        }
    }

    #[test]
    fn every_request_ends_exactly_once_whatever_happens(steps in vec(step(), 0..40)) {
        let mut now = Instant::now();
        let mut pipeline = pipeline(0, limits());
        let mut known = BTreeMap::new();
        for step in steps {
            match step {
                Step::Push(body_bytes) => {
                    let id = known.len() as u64;
                    let unwritten = HEAD.len() + body_bytes;
                    known.insert(id, Known { unwritten, ..Known::default() });
                    let body = Bytes::from(vec![b'x'; body_bytes]);
                    pipeline.push(now, id, Bytes::from_static(HEAD), vec![body]);
                }
                Step::Write(index) => {
                    let mut slices = [IoSlice::new(&[]); 4];
                    let count = pipeline.write_slices(&mut slices);
                    let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
                    let mut written = index.index(offered + 1);
                    pipeline.wrote(now, written);
                    for request in known.values_mut().filter(|request| !request.ended) {
                        let part = written.min(request.unwritten);
                        request.unwritten -= part;
                        written -= part;
                    }
                }
                Step::Flush => pipeline.flushed(),
                Step::Finish => pipeline.finish(),
                Step::Read(bytes) => pipeline.read(&bytes),
                Step::Eof => pipeline.eof(),
                Step::Wait(duration) => {
                    now += duration;
                    pipeline.handle_timeout(now);
                }
            }
            let bound = 2 * limits().head_bytes_max + limits().body_bytes_max;
            prop_assert!(pipeline.held_bytes() <= bound);
            check(&mut pipeline, &mut known);
            let open = known.values().filter(|request| !request.ended).count();
            prop_assert_eq!(pipeline.outstanding(), open);
            prop_assert!(!pipeline.must_close() || open == 0);
        }
        pipeline.eof();
        check(&mut pipeline, &mut known);
        prop_assert!(known.values().all(|request| request.ended));
    }
}
