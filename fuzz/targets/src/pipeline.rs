//! Any order of pushes, writes and bytes from a server: no panic, and exactly one final event for
//! each request.

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
}

/// Runs one input.
///
/// # Panics
/// If a promise is broken.
pub fn run(data: &[u8]) {
    let Ok(steps) = Vec::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let now = Instant::now();
    let mut pipeline = Pipeline::new(Limits::default(), Duration::from_secs(1));
    let mut finals: HashMap<u64, u32> = HashMap::new();
    let mut pushed = 0;
    for step in steps {
        match step {
            Step::Push { body } => {
                let head = Bytes::from_static(b"POST / HTTP/1.1\r\n\r\n");
                pipeline.push(now, pushed, head, vec![Bytes::copy_from_slice(body)]);
                pushed += 1;
            }
            Step::Write { most } => {
                let mut slices = [IoSlice::new(&[]); 8];
                let count = pipeline.write_slices(&mut slices);
                let offered: usize = slices[..count].iter().map(|slice| slice.len()).sum();
                pipeline.wrote(now, offered.min(most.into()));
                pipeline.flushed();
            }
            Step::Read { bytes } => pipeline.read(bytes),
            Step::Answer { status, body } => {
                let status = 200 + u16::from(status);
                let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", body.len());
                pipeline.read(head.as_bytes());
                pipeline.read(body);
            }
            Step::End => pipeline.eof(),
        }
        count_finals(&mut pipeline, &mut finals);
    }
    pipeline.fail(Cause::TaskEnded);
    count_finals(&mut pipeline, &mut finals);
    assert_eq!(finals.len() as u64, pushed, "each request has its end");
    assert!(finals.values().all(|count| *count == 1), "and only one");
}

fn count_finals(pipeline: &mut Pipeline, finals: &mut HashMap<u64, u32>) {
    while let Some(event) = pipeline.poll_event() {
        if !matches!(event.what, What::FirstByte(_)) {
            *finals.entry(event.request_id).or_default() += 1;
        }
    }
}
