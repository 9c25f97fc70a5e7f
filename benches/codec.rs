//! Encoding one event, and parsing a batch of them; serde_json as the rival.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ledgerline_benches::{DATA, event};
use ledgerline_codec::parse::{Scratch, parse_batch};
use ledgerline_codec::{
    DataError, Event, EventData, Identity, Json, Timestamp, Uuid, encode, encode_portable,
};

const EVENTS: usize = 500;

/// Text known beforehand, which isn't checked again.
struct Vouched(&'static str);

impl EventData for Vouched {
    fn append_to(&self, out: &mut Vec<u8>) -> Result<(), DataError> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(())
    }

    fn append_checked(&self, _: u32, out: &mut Vec<u8>) -> Result<(), DataError> {
        self.append_to(out)
    }
}

fn identity() -> Identity<'static> {
    Identity {
        event_id: Uuid::from_u128(0x0190_1234_5678_7000_8000_0000_0000_0001),
        producer: "01901234-5678-7000-8000-000000000001/0",
        producer_seq: 123_456,
        now: Timestamp::from_micros(1_795_243_212_318_402).expect("a year before 9999"),
    }
}

fn record_of(event: &Event<'_>) -> Vec<u8> {
    let mut record = Vec::with_capacity(4_096);
    encode(event, &identity(), &mut record).expect("a valid event");
    record
}

fn encoding(criterion: &mut Criterion) {
    let (vouched, checked) = (Vouched(DATA), Json(DATA));
    let (vouched, checked) = (event(&vouched), event(&checked));
    let identity = identity();
    let mut out = record_of(&checked);
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Bytes(out.len() as u64));
    group.bench_function("encode one event, data vouched for", |bencher| {
        bencher.iter(|| {
            out.clear();
            encode(black_box(&vouched), &identity, &mut out).expect("a valid event");
        });
    });
    group.bench_function("encode one event, data vouched for, portable", |bencher| {
        bencher.iter(|| {
            out.clear();
            encode_portable(black_box(&vouched), &identity, &mut out).expect("a valid event");
        });
    });
    group.bench_function("encode one event, data checked", |bencher| {
        bencher.iter(|| {
            out.clear();
            encode(black_box(&checked), &identity, &mut out).expect("a valid event");
        });
    });
    group.finish();
}

fn parsing(criterion: &mut Criterion) {
    let mut body = record_of(&event(&Json(DATA))).repeat(EVENTS);
    body[0] = b'[';
    body.push(b']');
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("parse a batch of 500", |bencher| {
        let mut scratch = Scratch::default();
        bencher.iter(|| {
            let events = parse_batch(black_box(&body), EVENTS, &mut scratch);
            assert_eq!(events.expect("a valid batch").len(), EVENTS);
        });
    });
    group.bench_function("parse a batch of 500, serde_json::Value", |bencher| {
        bencher.iter(|| {
            let value: serde_json::Value =
                serde_json::from_slice(black_box(&body)).expect("a valid batch");
            assert_eq!(value.as_array().map(Vec::len), Some(EVENTS));
        });
    });
    group.finish();
}

criterion_group!(benches, encoding, parsing);
criterion_main!(benches);
