//! Time in `record` under the load of a gateway: threads that each record at a steady pace into an
//! engine whose server is away, so that only the caller's side is measured.
//!
//! Prints percentiles instead of means: one slow request is what a gateway's users see.

use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use ledgerline::{Config, Json, Store};
use ledgerline_benches::{DATA, event};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const THREADS: u32 = 4;
const SECONDS: u32 = 2;

fn main() {
    for rate_per_thread in [250, 1_000, 10_000] {
        let mut total = histogram();
        let mut config = Config::new("http://127.0.0.1:9");
        config.buffer_bytes = Some(256 << 20);
        let store = Store::start(config).expect("a valid configuration");
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let store = store.clone();
                thread::spawn(move || paced(&store, rate_per_thread))
            })
            .collect();
        for thread in threads {
            total.add(thread.join().expect("no event is refused")).expect("same bounds");
        }
        // Nothing can be delivered: what is left behind is no surprise here.
        let _ = store.close(Duration::ZERO);
        println!(
            "{THREADS} threads x {rate_per_thread}/s: {} calls, p50 {} ns, p99 {} ns, p99.9 {} ns",
            total.len(),
            total.value_at_quantile(0.5),
            total.value_at_quantile(0.99),
            total.value_at_quantile(0.999),
        );
    }
}

/// Records on an absolute schedule, so that a late call doesn't make the next ones fewer.
fn paced(store: &Store, rate: u32) -> Histogram<u64> {
    let data = Json(DATA);
    let event = event(&data);
    let mut nanos = histogram();
    let start = Instant::now();
    for number in 0..rate * SECONDS {
        let due = start + Duration::from_secs(1) / rate * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let before = Instant::now();
        store.record(&event).expect("the buffer holds it all");
        nanos.saturating_record(before.elapsed().as_nanos() as u64);
    }
    nanos
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 1_000_000_000, 3).expect("constant bounds")
}
