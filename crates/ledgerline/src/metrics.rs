//! A store's accounts and state as Prometheus metrics, read when they are scraped.
//!
//! The names of the library that this one replaces are kept; what they could not say has names of
//! its own. Every metric has the label `service`. Feature `metrics`.
//!
//! | metric | |
//! |---|---|
//! | `audit_events_buffered_total` | accepted events |
//! | `audit_events_written_total` | delivered events |
//! | `audit_events_dropped_total` | events refused for want of room, or dropped later |
//! | `audit_batches_failed_total` | tries of batches that did not store them |
//! | `audit_buffer_size` | events that are held: pending |
//! | `audit_write_duration_seconds` | histogram, from a request's first byte to its answer |
//! | `ledgerline_events_queued_by_server_total` | of the delivered ones, those answered with 202 |
//! | `ledgerline_events_dead_lettered_total` | refused by DataStorage for good |
//! | `ledgerline_dead_letters_total{class}` | the same, by class |
//! | `ledgerline_events_set_apart{event_type}` | kept, but not waited for: their type is refused |
//! | `ledgerline_set_apart_seconds{event_type}` | age of the oldest of them |
//! | `ledgerline_events_lost_total{reason}` | dropped: evicted, gave_up, closed, expired |
//! | `ledgerline_events_refused_total{reason}` | not accepted: full, closed, invalid and so on |
//! | `ledgerline_events_recovered_total` | of the accepted ones, those of an earlier process |
//! | `ledgerline_events_possibly_duplicated_total` | sent again after a try of unknown outcome |
//! | `ledgerline_events_possibly_stored_total` | lost or dead-lettered after such a try |
//! | `ledgerline_events_redelivered_total` | delivered after they had been dropped |
//! | `ledgerline_oldest_pending_seconds` | for how long the oldest pending event has been held |
//! | `ledgerline_flush_lateness_seconds{quantile}` | how late events were offered to a connection |
//! | `ledgerline_blocked_seconds_total{cause}` | while something due could not be sent |
//! | `ledgerline_storage_available` | 1, or 0 while DataStorage takes nothing |
//! | `ledgerline_storage_unavailable{cause}` | 1 for the present cause |
//! | `ledgerline_server_queueing` | 1 while DataStorage answers 202, and only queues events |
//! | `ledgerline_requests_in_flight`, `ledgerline_in_flight_bytes` | on the way |
//! | `ledgerline_connections` | with an open socket |
//! | `ledgerline_requests_max` | how many may be, at present |
//! | `ledgerline_requests_total` | requests, repeats included |
//! | `ledgerline_retries_total` | repeats |
//! | `ledgerline_requests_failed_total{class}` | that came to nothing, by what it was |
//! | `ledgerline_buffer_blocks`, `ledgerline_buffer_blocks_free` | the buffer, in blocks |
//! | `ledgerline_buffer_blocks_pinned` | that wait for a record to be written, or read |
//! | `ledgerline_pinned_seconds` | age of the oldest record that its thread has not written |
//! | `ledgerline_events_truncated_total` | events of which something too long was cut |
//! | `ledgerline_engine_silent_seconds` | for how long the engine's thread is overdue |
//! | `ledgerline_engine_restarts_total` | after panics of the engine |
//!
//! ```
//! use ledgerline::metrics::Metrics;
//! use prometheus_client::registry::Registry;
//!
//! # let store = ledgerline::testing::MemoryStorage::new().start();
//! let mut registry = Registry::default();
//! registry.register_collector(Box::new(Metrics::new(&store, "gateway")));
//! let mut text = String::new();
//! prometheus_client::encoding::text::encode(&mut text, &registry)?;
//! assert!(text.contains("audit_events_buffered_total{service=\"gateway\"} 0"));
//! # Ok::<(), std::fmt::Error>(())
//! ```

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

use crate::delivery::{Cause, SetApart};
use crate::report::Report;
use crate::store::Store;

/// Shows a store to a [`Registry`](prometheus_client::registry::Registry).
///
/// Holds a clone of the store. A scrape reads the accounts as they are, and the rest from the last
/// report, at most a second old; it waits for nothing.
#[derive(Debug)]
pub struct Metrics {
    store: Store,
    service: String,
}

impl Metrics {
    /// Metrics of this store under this `service`.
    #[must_use]
    pub fn new(store: &Store, service: impl Into<String>) -> Self {
        Self { store: store.clone(), service: service.into() }
    }
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page { encoder, service: &self.service };
        let accounts = self.store.accounts();
        let (dropped, refused) = (accounts.dropped, accounts.refused);
        page.counter("audit_events_buffered", "Accepted events", accounts.accepted)?;
        page.counter("audit_events_written", "Delivered events", accounts.delivered)?;
        page.counter(
            "audit_events_dropped",
            "Events refused for want of room, or dropped later",
            refused.full + dropped.total(),
        )?;
        page.gauge("audit_buffer_size", "Events that are held", accounts.pending as f64)?;
        for (name, help, value) in [
            ("queued_by_server", "Delivered events answered with 202", accounts.queued_by_server),
            ("dead_lettered", "Events refused by DataStorage for good", accounts.dead_lettered),
            ("recovered", "Accepted events of an earlier process", accounts.recovered),
            ("possibly_duplicated", "Events sent again after doubt", accounts.possibly_duplicated),
            ("possibly_stored", "Events lost after doubt", accounts.possibly_stored),
            ("redelivered", "Events delivered after they were dropped", accounts.redelivered),
        ] {
            page.counter(&format!("ledgerline_events_{name}"), help, value)?;
        }
        page.labelled(
            MetricType::Counter,
            "ledgerline_events_lost",
            "Accepted events that were dropped",
            "reason",
            &[
                ("evicted", dropped.evicted as f64),
                ("gave_up", dropped.gave_up as f64),
                ("closed", dropped.closed as f64),
                ("expired", dropped.expired as f64),
            ],
        )?;
        page.labelled(
            MetricType::Counter,
            "ledgerline_events_refused",
            "Events that were not accepted",
            "reason",
            &[
                ("full", refused.full as f64),
                ("closed", refused.closed as f64),
                ("invalid", refused.invalid as f64),
                ("too_large", refused.too_large as f64),
                ("forked", refused.forked as f64),
                ("failed", refused.failed as f64),
            ],
        )?;
        page.counter(
            "ledgerline_events_truncated",
            "Events of which something too long was cut",
            self.store.truncated_events(),
        )?;
        let silence = self.store.silence().as_secs_f64();
        page.gauge(
            "ledgerline_engine_silent_seconds",
            "How overdue the engine's thread is",
            silence,
        )?;
        match self.store.latest_report() {
            Some(report) => page.report(&report),
            None => Ok(()),
        }
    }
}

struct Page<'a, 's> {
    encoder: DescriptorEncoder<'a>,
    service: &'s str,
}

impl Page<'_, '_> {
    fn report(&mut self, report: &Report) -> fmt::Result {
        let (batches, present) = (report.batches, report.present);
        let failed = batches.failed.total() + batches.split + batches.isolated;
        write_duration(self, report)?;
        self.counter("audit_batches_failed", "Tries that did not store their batch", failed)?;
        self.counter("ledgerline_requests", "Requests, repeats included", batches.sent)?;
        self.counter("ledgerline_retries", "Repeated requests", batches.retried)?;
        let tries = batches.failed;
        self.labelled(
            MetricType::Counter,
            "ledgerline_requests_failed",
            "Failed requests, by class",
            "class",
            &[
                ("no_connection", tries.no_connection as f64),
                ("not_processed", tries.not_processed as f64),
                ("ambiguous", tries.ambiguous as f64),
                ("unauthorized", tries.unauthorized as f64),
                ("held", tries.held as f64),
            ],
        )?;
        let dead = report.dead_letters.by_class().map(|(class, events)| (class, events as f64));
        self.labelled(
            MetricType::Counter,
            "ledgerline_dead_letters",
            "Events refused by DataStorage for good, by class",
            "class",
            &dead,
        )?;
        self.set_apart(&report.set_apart)?;
        let restarts = report.restarts.into();
        self.counter("ledgerline_engine_restarts", "Restarts after panics", restarts)?;
        let seconds = |ms: u64| ms as f64 / 1e3;
        let late = report.flush_lateness_ms;
        self.labelled(
            MetricType::Gauge,
            "ledgerline_flush_lateness_seconds",
            "How late events were offered to a connection",
            "quantile",
            &[
                ("0.5", seconds(late.p50)),
                ("0.99", seconds(late.p99)),
                ("0.999", seconds(late.p999)),
                ("1", seconds(late.max)),
            ],
        )?;
        let blocked = report.blocked_ms.by_cause();
        let blocked: Vec<_> = blocked.map(|(cause, ms)| (cause.name(), seconds(ms))).collect();
        self.labelled(
            MetricType::Counter,
            "ledgerline_blocked_seconds",
            "Time during which events were not sent although they were due",
            "cause",
            &blocked,
        )?;
        let is = |cause| f64::from(u8::from(present.unavailable == Some(cause)));
        self.labelled(
            MetricType::Gauge,
            "ledgerline_storage_unavailable",
            "Why DataStorage takes nothing",
            "cause",
            &[
                (Cause::NoConnection.name(), is(Cause::NoConnection)),
                (Cause::Misrouted.name(), is(Cause::Misrouted)),
                (Cause::Unauthorized.name(), is(Cause::Unauthorized)),
                (Cause::Rejecting.name(), is(Cause::Rejecting)),
                (Cause::Overloaded.name(), is(Cause::Overloaded)),
            ],
        )?;
        let available = f64::from(u8::from(present.unavailable.is_none()));
        for (name, help, value) in [
            ("storage_available", "Whether DataStorage takes events", available),
            (
                "server_queueing",
                "Whether DataStorage only queues events",
                f64::from(u8::from(present.is_queueing)),
            ),
            (
                "oldest_pending_seconds",
                "Age of the oldest pending event",
                seconds(present.oldest_pending_ms),
            ),
            ("requests_in_flight", "Requests on the way", present.requests_in_flight as f64),
            ("in_flight_bytes", "Bytes of events on the way", present.in_flight_bytes as f64),
            ("connections", "Connections with an open socket", present.connections as f64),
            ("requests_max", "Requests that may be on the way", present.requests_max as f64),
            ("buffer_blocks", "Blocks of the buffer", present.blocks as f64),
            ("buffer_blocks_free", "Free blocks of the buffer", present.blocks_free as f64),
            ("buffer_blocks_pinned", "Blocks that wait to be let go", present.blocks_pinned as f64),
            ("pinned_seconds", "Age of the oldest unfinished record", seconds(present.pinned_ms)),
        ] {
            self.gauge(&format!("ledgerline_{name}"), help, value)?;
        }
        Ok(())
    }

    fn set_apart(&mut self, apart: &[SetApart]) -> fmt::Result {
        let events = |it: &SetApart| it.events as f64;
        let age = |it: &SetApart| it.oldest_ms as f64 / 1e3;
        let by_type = |value: &dyn Fn(&SetApart) -> f64| -> Vec<_> {
            apart.iter().map(|it| (&*it.event_type, value(it))).collect()
        };
        let (name, help) = ("ledgerline_events_set_apart", "Events kept, but not waited for");
        self.labelled(MetricType::Gauge, name, help, "event_type", &by_type(&events))?;
        let (name, help) = ("ledgerline_set_apart_seconds", "Age of the oldest event set apart");
        self.labelled(MetricType::Gauge, name, help, "event_type", &by_type(&age))
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let labels = [("service", self.service)];
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_family(&labels)?.encode_counter::<NoLabels, _, u64>(&value, None)
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let labels = [("service", self.service)];
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_family(&labels)?.encode_gauge(&value)
    }

    /// A metric of this kind for each value of a label.
    fn labelled(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        label: &str,
        values: &[(&str, f64)],
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, kind)?;
        for (of, value) in values {
            let labels = [("service", self.service), (label, of)];
            let mut metric = metric.encode_family(&labels)?;
            match kind {
                MetricType::Counter => metric.encode_counter::<NoLabels, _, u64>(value, None)?,
                _ => metric.encode_gauge(value)?,
            }
        }
        Ok(())
    }
}

fn write_duration(page: &mut Page<'_, '_>, report: &Report) -> fmt::Result {
    let labels = [("service", page.service)];
    let mut metric = page.encoder.encode_descriptor(
        "audit_write_duration_seconds",
        "From a request's first byte to its answer",
        None,
        MetricType::Histogram,
    )?;
    // The report's counts are of all requests up to a bound, the encoder's of those in between.
    let mut below = 0;
    let mut buckets = Vec::with_capacity(report.write_ms_buckets.len() + 1);
    for (ms, count) in report.write_ms_buckets {
        buckets.push((ms as f64 / 1e3, count - below));
        below = count;
    }
    let count = report.write_count;
    buckets.push((f64::INFINITY, count - below));
    let sum = report.write_ms_sum as f64 / 1e3;
    metric.encode_family(&labels)?.encode_histogram::<NoLabels>(sum, count, &buckets, None)
}

/// Exemplars would have labels; there are none.
type NoLabels = [(&'static str, &'static str); 0];
