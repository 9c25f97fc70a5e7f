//! Bounds of the machine.

/// Bounds of the machine, from `Config`.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) batch_events_max: usize,
    pub(crate) batch_bytes_max: u64,
    pub(crate) flush_interval_ms: u64,
    /// Failed tries after which a batch is dropped. None: never.
    pub(crate) retries_max: Option<u32>,
    /// How long after its acceptance an event is dropped. None: never.
    pub(crate) give_up_after_ms: Option<u64>,
    pub(crate) retry_delay_min_ms: u64,
    pub(crate) retry_delay_max_ms: u64,
    /// Time for an answer, after which the transport gives a request up.
    pub(crate) request_timeout_ms: u64,
    pub(crate) connections_max: usize,
    /// Bytes of events on the way, on all connections.
    pub(crate) in_flight_bytes_max: u64,
    /// Requests on the way on one connection, once the server has shown that it keeps our ids.
    pub(crate) pipeline_depth_max: usize,
}

impl Limits {
    /// Before the next try of a batch.
    pub(super) fn retry_pause_ms(&self, tries: u32, random: &mut fastrand::Rng) -> u64 {
        self.jitter_ms(tries, self.retry_delay_max_ms, random)
    }

    /// Before the next probe of an endpoint that takes nothing. Shorter: it is one request for all
    /// that is held, and by what it finds out late, all of that is late.
    pub(super) fn probe_pause_ms(&self, tries: u32, random: &mut fastrand::Rng) -> u64 {
        self.jitter_ms(tries, self.retry_delay_max_ms.min(PROBE_PAUSE_MAX_MS), random)
    }

    /// Full jitter: evenly from nothing to the exponential bound. Brooker, "Exponential backoff
    /// and jitter", AWS Architecture Blog, 2015.
    fn jitter_ms(&self, tries: u32, max_ms: u64, random: &mut fastrand::Rng) -> u64 {
        let doublings = tries.saturating_sub(1).min(20);
        let bound_ms = (self.retry_delay_min_ms << doublings).min(max_ms);
        random.u64(1..=bound_ms.max(1))
    }
}

const PROBE_PAUSE_MAX_MS: u64 = 5_000;
