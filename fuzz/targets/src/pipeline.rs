//! Any order of pushes, writes and bytes from a server: no panic, exactly one final event for each
//! request, no answer in time to a request that was not wholly written, and no content above a
//! limit.

use std::collections::HashMap;
use std::io::IoSlice;
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use ledgerline_transport::{
    Cause, What,
    h1::{Limits, Pipeline},
};

#[derive(Debug, Arbitrary)]
enum Step<'a> {
    Push { body: &'a [u8] },
    Write { most: u16 },
    Read { bytes: &'a [u8] },
    Answer { status: u8, body: &'a [u8] },
    End,
    Finish,
    Late,
}

/// Runs one input.
///
/// # Panics
/// If a promise is broken.
pub fn run(data: &[u8]) {
    let Ok(steps) = Vec::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let now = Instant::now();
    // Small ones, so that a short input is above them.
    let mut limits = Limits::default();
    limits.head_bytes_max = 64;
    limits.headers_max = 2;
    limits.body_bytes_max = BODY_BYTES_MAX;
    limits.skipped_bytes_max = 256;
    let mut pipeline = Pipeline::new(limits, TIMEOUT);
    let mut unwritten: Vec<usize> = Vec::new();
    let mut finals: HashMap<u64, u32> = HashMap::new();
    let mut pushed = 0;
    for step in steps {
        match step {
            Step::Push { body } => {
                let head = Bytes::from_static(b"POST / HTTP/1.1\r\n\r\n");
                unwritten.push(head.len() + body.len());
                pipeline.push(now, pushed, head, vec![Bytes::copy_from_slice(body)]);
                pushed += 1;
            }
            Step::Write { most } => {
                let mut slices = [IoSlice::new(&[]); 8];
                let count = pipeline.write_slices(&mut slices);
                let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
                let mut written = offered.min(most.into());
                pipeline.wrote(now, written);
                pipeline.flushed();
                for (id, left) in (0..).zip(&mut unwritten) {
                    if finals.contains_key(&id) {
                        continue;
                    }
                    let part = written.min(*left);
                    *left -= part;
                    written -= part;
                }
            }
            Step::Read { bytes } => pipeline.read(bytes),
            Step::Answer { status, body } => {
                let status = 200 + u16::from(status);
                let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", body.len());
                pipeline.read(head.as_bytes());
                pipeline.read(body);
            }
            Step::End => pipeline.eof(),
            Step::Finish => pipeline.finish(),
            Step::Late => pipeline.handle_timeout(now + TIMEOUT),
        }
        check_events(&mut pipeline, &mut finals, &unwritten);
    }
    pipeline.fail(Cause::TaskEnded);
    check_events(&mut pipeline, &mut finals, &unwritten);
    assert_eq!(finals.len() as u64, pushed, "each request has its end");
    assert!(finals.values().all(|count| *count == 1), "and only one");
}

fn check_events(pipeline: &mut Pipeline, finals: &mut HashMap<u64, u32>, unwritten: &[usize]) {
    while let Some(event) = pipeline.poll_event() {
        if let What::Answered(answer) = &event.what {
            let is_whole = unwritten[event.request_id as usize] == 0;
            assert!(answer.is_early || is_whole, "in time for what was not written");
            let is_within = answer.body.len() <= BODY_BYTES_MAX;
            assert!(is_within && (answer.too_large.is_none() || answer.body.is_empty()));
        }
        if !matches!(event.what, What::FirstByte(_)) {
            *finals.entry(event.request_id).or_default() += 1;
        }
    }
}

const BODY_BYTES_MAX: usize = 32;
const TIMEOUT: Duration = Duration::from_secs(1);
