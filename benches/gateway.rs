//! Time in `record` under the load of a gateway: 16 threads that together record 3,000 events per
//! second, and bursts of 25,000 at once. DataStorage is away meanwhile, so that only the caller's
//! side is measured.
//!
//! Prints percentiles beside criterion's means: one slow call is what a gateway's users see.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use hdrhistogram::Histogram;
use ledgerline::testing::{Fault, MemoryStorage};
use ledgerline::{Config, Json, Store};
use ledgerline_benches::{DATA, event};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const THREADS: u32 = 16;
const RATE_PER_S: u32 = 3_000;
const SECONDS: u32 = 2;
const BURST_EVENTS: u32 = 25_000;

/// Runs `record_all` on each thread, from one moment on: the time from there until the last one has
/// recorded, and how long each call took.
fn on_all_threads(
    record_all: impl Fn(u32, &Store, &mut Histogram<u64>) + Sync,
) -> (Duration, Histogram<u64>) {
    let storage = MemoryStorage::new();
    storage.fail(Fault::Unreachable);
    let config = Config::new("http://memory.invalid");
    let store = storage.start_with(config).expect("a valid configuration");
    let start = Barrier::new(THREADS as usize + 1);
    let mut total = histogram();
    let elapsed = thread::scope(|scope| {
        let work = |thread| {
            let (store, start, record_all) = (store.clone(), &start, &record_all);
            scope.spawn(move || {
                let mut nanos = histogram();
                start.wait();
                record_all(thread, &store, &mut nanos);
                nanos
            })
        };
        let threads: Vec<_> = (0..THREADS).map(work).collect();
        start.wait();
        let began = Instant::now();
        let parts: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        let elapsed = began.elapsed();
        for part in parts {
            total.add(part.expect("no event is refused")).expect("same bounds");
        }
        elapsed
    });
    storage.recover();
    store.close(Duration::from_secs(60)).expect("everything is delivered");
    (elapsed, total)
}

fn record(store: &Store, nanos: &mut Histogram<u64>) {
    let data = Json(DATA);
    let event = event(&data);
    let before = Instant::now();
    store.record(&event).expect("the buffer holds it all");
    nanos.saturating_record(before.elapsed().as_nanos() as u64);
}

/// On an absolute schedule, so that a late call doesn't make the next ones fewer.
fn steady() {
    let (_, nanos) = on_all_threads(|thread, store, nanos| {
        let start = Instant::now();
        for number in (thread..RATE_PER_S * SECONDS).step_by(THREADS as usize) {
            let due = start + Duration::from_secs(1) / RATE_PER_S * number;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            record(store, nanos);
        }
    });
    print("steady", &nanos);
}

fn burst() -> (Duration, Histogram<u64>) {
    on_all_threads(|thread, store, nanos| {
        for _ in (thread..BURST_EVENTS).step_by(THREADS as usize) {
            record(store, nanos);
        }
    })
}

fn gateway(criterion: &mut Criterion) {
    steady();
    let mut nanos = histogram();
    let mut group = criterion.benchmark_group("gateway");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.throughput(Throughput::Elements(BURST_EVENTS.into()));
    group.bench_function("burst of 25,000 events from 16 threads", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..iterations {
                let (time, part) = burst();
                elapsed += time;
                nanos.add(part).expect("same bounds");
            }
            elapsed
        });
    });
    group.finish();
    print("burst", &nanos);
}

fn print(name: &str, nanos: &Histogram<u64>) {
    println!(
        "{name}: {} calls, p50 {} ns, p99 {} ns, p99.9 {} ns, max {} ns",
        nanos.len(),
        nanos.value_at_quantile(0.5),
        nanos.value_at_quantile(0.99),
        nanos.value_at_quantile(0.999),
        nanos.max(),
    );
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("constant bounds")
}

criterion_group!(benches, gateway);
criterion_main!(benches);
