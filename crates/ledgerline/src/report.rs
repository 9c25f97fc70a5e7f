//! What the engine tells about its work.

use std::time::Duration;

use hdrhistogram::Histogram;
use ledgerline_core::Accounts;

use crate::delivery::{BlockedMs, Cause, Counts, Delivery, FailedTries, SetApart};
use crate::loss::DeadLetters;

/// Everything accepted before the flush was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Flushed {
    /// The accounts at that moment; `pending` counts events that came after the flush began.
    pub accounts: Accounts,
}

/// Everything accepted was settled, none of it by the deadline.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Closed {
    /// The engine's last report.
    pub report: Report,
}

/// Accounts, counts and percentiles since the engine's start.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// Where every event is.
    pub accounts: Accounts,
    /// The requests.
    pub batches: Batches,
    /// From `record` to the server's answer, over delivered events.
    pub delivery_ms: Percentiles,
    /// From the moment at which an event fell due to the first byte of its first request, less the
    /// time during which no connection could take it, which `blocked_ms` counts.
    pub flush_lateness_ms: Percentiles,
    /// From a request's first byte to its answer, over requests that were answered.
    pub write_ms: Percentiles,
    /// The same as counts: how many requests took at most so many milliseconds.
    pub write_ms_buckets: [(u64, u64); WRITE_BUCKETS],
    /// How many requests were answered.
    pub write_count: u64,
    /// All of their times together, in milliseconds.
    pub write_ms_sum: u64,
    /// What is set apart, by event type.
    pub set_apart: Vec<SetApart>,
    /// Events that DataStorage has refused for good, by class.
    pub dead_letters: DeadLetters,
    /// Time by the cause for which events were not sent when they were due.
    pub blocked_ms: BlockedMs,
    /// How things stand.
    pub present: Present,
    /// Processor time of the engine's thread.
    pub engine_cpu: Duration,
    /// Times that the engine began anew after a defect of its own; more than three end it.
    pub restarts: u32,
}

/// How things stood when the report was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Present {
    /// Why DataStorage takes nothing. None: it does, as far as is known.
    pub unavailable: Option<Cause>,
    /// DataStorage answers 202: it only queues events.
    pub is_queueing: bool,
    /// Requests on the way.
    pub requests_in_flight: usize,
    /// How many may be on the way, as the engine has found out.
    pub requests_max: usize,
    /// Bytes of the events on the way.
    pub in_flight_bytes: u64,
    /// Connections with an open socket.
    pub connections: usize,
    /// For how long the oldest unsettled event has been held, in milliseconds.
    pub oldest_pending_ms: u64,
    /// Blocks of the buffer.
    pub blocks: usize,
    /// Blocks that no lane holds and no event lies in.
    pub blocks_free: usize,
    /// Blocks that could be used again, but for a record that its thread has not finished to
    /// write, or for bytes that a connection has not let go of.
    pub blocks_pinned: usize,
    /// For how long the oldest such record has been unfinished, in milliseconds: its thread was
    /// kept from the processor for as long.
    pub pinned_ms: u64,
}

/// Counts of requests.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Batches {
    /// Requests put on a connection, retries included.
    pub sent: u64,
    /// Of these, those that carried a batch again.
    pub retried: u64,
    /// Those that came to nothing, by what it was.
    pub failed: FailedTries,
    /// Batches halved because the server found them too big.
    pub split: u64,
    /// Batches divided in search of an event that the server refuses.
    pub isolated: u64,
    /// Mean number of events in a request.
    pub events_mean: f64,
}

/// Percentiles over events, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Percentiles {
    /// Half of the events are not above this.
    pub p50: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1,000.
    pub p999: u64,
    /// All of them.
    pub max: u64,
}

impl Report {
    pub(crate) fn new(
        accounts: Accounts,
        delivery: &Delivery,
        blocked_ms: BlockedMs,
        present: Present,
        cpu: Duration,
        restarts: u32,
    ) -> Self {
        let lateness = delivery.lateness();
        let write_ms = &lateness.write_ms;
        let up_to = |ms: u64| (ms, write_ms.count_between(0, ms));
        Self {
            accounts,
            batches: Batches::new(delivery.counts()),
            delivery_ms: Percentiles::new(&lateness.delivery_ms),
            flush_lateness_ms: Percentiles::new(&lateness.late_ms),
            write_ms: Percentiles::new(write_ms),
            write_ms_buckets: WRITE_BUCKETS_MS.map(up_to),
            write_count: write_ms.len(),
            write_ms_sum: write_ms
                .iter_recorded()
                .map(|it| it.value_iterated_to() * it.count_at_value())
                .sum(),
            set_apart: delivery.set_apart(),
            dead_letters: DeadLetters::default(),
            blocked_ms,
            present,
            engine_cpu: cpu,
            restarts,
        }
    }
}

impl Batches {
    fn new(counts: Counts) -> Self {
        let events_mean = counts.events_sent as f64 / counts.batches_sent.max(1) as f64;
        Self {
            sent: counts.batches_sent,
            retried: counts.batches_retried,
            failed: counts.failed,
            split: counts.batches_split,
            isolated: counts.batches_isolated,
            events_mean,
        }
    }
}

impl Percentiles {
    fn new(histogram: &Histogram<u64>) -> Self {
        Self {
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

const WRITE_BUCKETS: usize = 12;
const WRITE_BUCKETS_MS: [u64; WRITE_BUCKETS] =
    [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 10_000];
