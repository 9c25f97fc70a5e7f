//! Encoding one event, and parsing a batch of them; serde_json as the rival.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ledgerline_benches::{DATA, event};
use ledgerline_codec::parse::{Scratch, parse_batch};
use ledgerline_codec::{Identity, Json, Timestamp, Uuid, encode};

const EVENTS: usize = 500;

fn identity() -> Identity<'static> {
    Identity {
        event_id: Uuid::from_u128(0x0190_1234_5678_7000_8000_0000_0000_0001),
        producer: "01901234-5678-7000-8000-000000000001/0",
        producer_seq: 123_456,
        now: Timestamp::from_micros(1_795_243_212_318_402).expect("a year before 9999"),
    }
}

fn codec(criterion: &mut Criterion) {
    let data = Json(DATA);
    let (event, identity) = (event(&data), identity());
    let mut record = Vec::with_capacity(4_096);
    encode(&event, &identity, &mut record).expect("a valid event");

    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Bytes(record.len() as u64));
    group.bench_function("encode one event, checked", |bencher| {
        let mut out = Vec::with_capacity(4_096);
        bencher.iter(|| {
            out.clear();
            encode(black_box(&event), &identity, &mut out).expect("a valid event");
        });
    });

    let mut body = record.repeat(EVENTS);
    body[0] = b'[';
    body.push(b']');
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

criterion_group!(benches, codec);
criterion_main!(benches);
