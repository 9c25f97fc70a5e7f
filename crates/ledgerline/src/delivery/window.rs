//! How many requests may be on the way at a time.
//!
//! Additive increase, multiplicative decrease (Chiu and Jain, 1989) on the latency of each attempt,
//! as TCP Vegas does it (Brakmo and Peterson, 1995): as long as answers come as quickly as they
//! ever did, one more may be on the way per round; when they take twice as long, requests queue at
//! the server, and more of them would only queue longer. A start, and a new start after an outage,
//! begins with one and doubles per round.

#[derive(Debug)]
pub(crate) struct Window {
    max: f64,
    limit: f64,
    is_slow_start: bool,
    /// Smoothed latency of answers.
    smooth_ms: Option<f64>,
    /// The least smoothed latency of the present period and of the one before.
    least_ms: [f64; 2],
    period_end_ms: u64,
    /// Answers until the next decrease may follow: those of requests sent before the last one.
    grace: u32,
    last_sent_ms: u64,
}

impl Window {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max: max as f64,
            limit: 1.0,
            is_slow_start: true,
            smooth_ms: None,
            least_ms: [f64::INFINITY; 2],
            period_end_ms: 0,
            grace: 0,
            last_sent_ms: 0,
        }
    }

    /// As wide as it gets.
    #[cfg(test)]
    pub(crate) fn open(max: usize) -> Self {
        Self { limit: max as f64, is_slow_start: false, ..Self::new(max) }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// How long to wait for an answer before another request may be sent in its stead.
    pub(crate) fn patience_ms(&self) -> u64 {
        let usual_ms = self.smooth_ms.unwrap_or_default() as u64;
        PATIENCE_MIN_MS.max(PATIENCE * usual_ms)
    }

    /// A request is put on the way; an engine that was idle begins with one again.
    pub(crate) fn sent(&mut self, now_ms: u64) {
        if now_ms > self.last_sent_ms + IDLE_MS {
            self.restart();
        }
        self.last_sent_ms = now_ms;
    }

    /// An answer that the server had to work for came after `latency_ms`, while `in_flight`
    /// requests were on the way, this one included.
    pub(crate) fn answered(&mut self, latency_ms: u64, in_flight: usize, now_ms: u64) {
        let latency_ms = latency_ms as f64;
        if in_flight == 1 {
            // Alone, it waited for no other: this is what the server takes at present.
            self.least_ms = [latency_ms; 2];
            self.smooth_ms = Some(latency_ms);
        }
        let smooth_ms = self.smooth_ms.map_or(latency_ms, |old| old + (latency_ms - old) * SHARE);
        self.smooth_ms = Some(smooth_ms);
        if now_ms >= self.period_end_ms {
            self.least_ms = [smooth_ms, self.least_ms[0]];
            self.period_end_ms = now_ms + PERIOD_MS;
        }
        self.least_ms[0] = self.least_ms[0].min(smooth_ms);
        let least_ms = self.least_ms[0].min(self.least_ms[1]);
        self.grace = self.grace.saturating_sub(1);
        let tolerated_ms = 2.0 * least_ms + SLACK_MS;
        if smooth_ms > tolerated_ms {
            self.decrease((tolerated_ms / smooth_ms).clamp(0.5, 0.9));
        } else if in_flight >= self.limit() {
            // Only a limit that was felt is raised.
            let step = if self.is_slow_start { 1.0 } else { 1.0 / self.limit };
            self.limit = (self.limit + step).min(self.max);
        }
    }

    /// The server was overloaded, or silent.
    pub(crate) fn failed(&mut self) {
        self.decrease(0.5);
    }

    /// From one, doubling per round.
    pub(crate) fn restart(&mut self) {
        self.limit = 1.0;
        self.is_slow_start = true;
        self.grace = 0;
    }

    fn decrease(&mut self, factor: f64) {
        if self.grace > 0 {
            return;
        }
        self.is_slow_start = false;
        self.grace = self.limit as u32;
        self.limit = (self.limit * factor).max(1.0);
    }
}

/// How much of the smoothed latency each answer makes up.
const SHARE: f64 = 0.2;
/// Below this a difference is the noise of a busy machine, or of a server that commits in groups:
/// for that one, waiting for each other is what makes requests cheap.
const SLACK_MS: f64 = 60.0;
/// The least latency of the last half a minute counts: a server may become slower for good.
const PERIOD_MS: u64 = 15_000;
const IDLE_MS: u64 = 10_000;
const PATIENCE_MIN_MS: u64 = 100;
const PATIENCE: u64 = 3;
