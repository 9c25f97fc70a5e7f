//! Handing a record to a lane, while a driver takes and settles.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ledgerline_core::{Anonymous, Bell, Driver, Lanes, Outcome};

struct Silent;

impl Bell for Silent {
    fn ring(&self) {}
}

/// Takes and settles everything until told to stop.
fn drive(mut driver: Driver, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let mut spans: Vec<(u32, u32, u32)> = Vec::new();
        driver.take_sealed(&mut |record| match spans.last_mut() {
            Some((block, first, count))
                if *block == record.block && *first + *count == record.index =>
            {
                *count += 1;
            }
            _ => spans.push((record.block, record.index, 1)),
        });
        for (block, first, count) in spans {
            driver.settle(block, first, count, Outcome::Delivered);
        }
        thread::yield_now();
    }
}

fn lanes(criterion: &mut Criterion) {
    let record = vec![b'x'; 704];
    let mut group = criterion.benchmark_group("lanes");
    group.throughput(Throughput::Elements(1));
    group.bench_function("record 704 bytes, one producer", |bencher| {
        let (lanes, driver) =
            Lanes::new(Box::new(Anonymous::new(128).expect("memory")), 4, Box::new(Silent));
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = thread::spawn(move || drive(driver, &seen));
        bencher.iter(|| {
            // A full buffer is the driver's turn, not the producer's cost.
            while lanes.record(0, black_box(&record), 0).is_err() {
                thread::yield_now();
            }
        });
        stop.store(true, Ordering::Relaxed);
        thread.join().expect("the driver ends when it is told to");
    });
    group.finish();
}

criterion_group!(benches, lanes);
criterion_main!(benches);
