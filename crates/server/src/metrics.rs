//! What an operator can watch: counters, gauges and histograms in the OpenMetrics text format.
//!
//! Invariant: labels come from fixed sets, so the number of series is bounded.

use hyper::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Every metric of one server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    conflicts: Counter,
    /// Requests to store events that were refused.
    pub(crate) refusals: Family<Refusal, Counter>,
    /// What the storage counts.
    pub(crate) writes: WriteMetrics,
}

/// The metrics that the writer keeps. Clones count into the same numbers.
#[derive(Debug, Clone)]
pub(crate) struct WriteMetrics {
    pub(crate) events_stored: Counter,
    pub(crate) events_repeated: Counter,
    pub(crate) waiting: Gauge,
    pub(crate) commit_seconds: Histogram,
    pub(crate) commit_events: Histogram,
    pub(crate) groups_split: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: &'static str,
    status: u16,
}

/// Why a request to store events was refused: all words are ours, none is the sender's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
    /// Empty where the refusal is of no field.
    pub(crate) field: &'static str,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let requests = Family::default();
        let conflicts = Counter::default();
        let refusals = Family::default();
        let writes = WriteMetrics {
            events_stored: Counter::default(),
            events_repeated: Counter::default(),
            waiting: Gauge::default(),
            // 0.25 ms to 8 s: a sync takes 0.1 ms to some seconds, by disk.
            commit_seconds: Histogram::new(exponential_buckets(0.000_25, 2.0, 16)),
            commit_events: Histogram::new([1., 10., 50., 100., 250., 500., 1e3, 2e3, 4e3, 5e3]),
            groups_split: Counter::default(),
        };
        let mut registry = Registry::with_prefix("datastorage");
        registry.register("http_requests", "Answers, by route and status", requests.clone());
        registry.register(
            "refusals",
            "Requests to store events that were refused, by the rule broken and the field",
            refusals.clone(),
        );
        registry.register("events_stored", "Events stored", writes.events_stored.clone());
        registry.register(
            "events_repeated",
            "Events that were stored already, with the same content",
            writes.events_repeated.clone(),
        );
        registry.register(
            "event_conflicts",
            "Requests refused because an id was taken by other content",
            conflicts.clone(),
        );
        registry.register(
            "write_queue_requests",
            "Requests that wait to be written, or are being written",
            writes.waiting.clone(),
        );
        registry.register_with_unit(
            "commit_duration",
            "From a group's first statement to its commit, synced",
            Unit::Seconds,
            writes.commit_seconds.clone(),
        );
        registry.register(
            "commit_events",
            "Events stored by a commit",
            writes.commit_events.clone(),
        );
        registry.register(
            "groups_split",
            "Groups rolled back by a failure and written again request by request",
            writes.groups_split.clone(),
        );
        Self { registry, requests, conflicts, refusals, writes }
    }

    pub(crate) fn answered(&self, route: &'static str, status: u16) {
        self.requests.get_or_create(&Request { route, status }).inc();
        // A conflict of ids is all that a 409 can mean.
        if status == StatusCode::CONFLICT.as_u16() {
            self.conflicts.inc();
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String doesn't fail");
        text
    }
}

/// The media type of [`Metrics::text`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
