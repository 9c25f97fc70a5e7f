//! What operators get to know of refused events: a count of each refusal, and lines in the log.
//!
//! Invariant: nothing of an event goes into the log but an id that was in conflict; the rest is
//! words and numbers of ours. Limit: one line in [`LINE_INTERVAL`] for refusals of the same status,
//! reason and field; the next line of that kind, or the one at the interval's end, says how many
//! were left out.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::time::Instant;

use crate::metrics::Refusal;
use crate::problem::Problem;

/// Counts and logs the refusals of a server.
#[derive(Debug)]
pub(crate) struct Refusals {
    counts: Family<Refusal, Counter>,
    /// What was logged lately. Bounded, as a refusal's words come from fixed sets.
    recent: Mutex<HashMap<Refusal, Recent>>,
}

#[derive(Debug)]
struct Recent {
    logged_at: Instant,
    /// Refusals since then.
    unlogged: u64,
}

impl Refusals {
    pub(crate) fn new(counts: Family<Refusal, Counter>) -> Self {
        Self { counts, recent: Mutex::default() }
    }

    /// Takes note of a refusal.
    pub(crate) fn refused(&self, problem: &Problem, peer: Option<SocketAddr>) {
        let refusal = Refusal {
            status: problem.status().as_u16(),
            reason: problem.reason(),
            field: problem.field.unwrap_or(""),
        };
        self.counts.get_or_create(&refusal).inc();
        let Some(unlogged) = self.admit(refusal, Instant::now()) else { return };
        tracing::warn!(
            status = refusal.status,
            reason = refusal.reason,
            field = problem.field,
            index = problem.index,
            limit = problem.limit,
            event_id = problem.event_id.map(tracing::field::display),
            peer = peer.map(tracing::field::display),
            unlogged,
            "events refused"
        );
    }

    /// Logs the number of the refusals that got no line, where the interval is over.
    pub(crate) fn summarize(&self, now: Instant) {
        let mut left_out = Vec::new();
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|refusal, recent| {
            let is_over = now.duration_since(recent.logged_at) >= LINE_INTERVAL;
            if is_over && recent.unlogged > 0 {
                left_out.push((*refusal, recent.unlogged));
                *recent = Recent { logged_at: now, unlogged: 0 };
                return true;
            }
            !is_over
        });
        drop(recent);
        log_left_out(left_out);
    }

    /// The refusals of the kind that have had no line, if this one may have its own.
    fn admit(&self, refusal: Refusal, now: Instant) -> Option<u64> {
        let mut all = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(recent) = all.get_mut(&refusal) else {
            all.insert(refusal, Recent { logged_at: now, unlogged: 0 });
            return Some(0);
        };
        if now.duration_since(recent.logged_at) < LINE_INTERVAL {
            recent.unlogged += 1;
            return None;
        }
        let unlogged = recent.unlogged;
        *recent = Recent { logged_at: now, unlogged: 0 };
        Some(unlogged)
    }
}

impl Drop for Refusals {
    fn drop(&mut self) {
        let recent = self.recent.get_mut().unwrap_or_else(PoisonError::into_inner);
        let unlogged = recent.drain().map(|(refusal, recent)| (refusal, recent.unlogged));
        log_left_out(unlogged.filter(|(_, unlogged)| *unlogged > 0).collect());
    }
}

fn log_left_out(left_out: Vec<(Refusal, u64)>) {
    for (Refusal { status, reason, field }, unlogged) in left_out {
        let field = (!field.is_empty()).then_some(field);
        tracing::warn!(status, reason, field, unlogged, "more events refused");
    }
}

/// How often refusals of one kind are logged.
pub(crate) const LINE_INTERVAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const TOO_LONG: Refusal = Refusal { status: 400, reason: "too_long", field: "severity" };

    #[test]
    fn a_kind_has_one_line_per_interval_and_the_next_line_counts_the_others() {
        let refusals = Refusals::new(Family::default());
        let start = Instant::now();
        assert_eq!(refusals.admit(TOO_LONG, start), Some(0));
        for _ in 0..3 {
            assert_eq!(refusals.admit(TOO_LONG, start + LINE_INTERVAL / 2), None);
        }
        let other = Refusal { field: "version", ..TOO_LONG };
        assert_eq!(refusals.admit(other, start), Some(0), "another kind has its own");
        assert_eq!(refusals.admit(TOO_LONG, start + LINE_INTERVAL), Some(3));
        assert_eq!(refusals.admit(TOO_LONG, start + LINE_INTERVAL * 2), Some(0));
    }

    #[test]
    fn what_had_no_line_is_summed_up_once_and_what_had_one_is_forgotten() {
        let refusals = Refusals::new(Family::default());
        let start = Instant::now();
        refusals.admit(TOO_LONG, start);
        refusals.admit(TOO_LONG, start);
        refusals.summarize(start + LINE_INTERVAL / 2);
        assert_eq!(refusals.recent.lock().unwrap()[&TOO_LONG].unlogged, 1, "not yet");
        refusals.summarize(start + LINE_INTERVAL);
        assert_eq!(refusals.recent.lock().unwrap()[&TOO_LONG].unlogged, 0);
        refusals.summarize(start + LINE_INTERVAL * 2);
        assert!(refusals.recent.lock().unwrap().is_empty());
    }
}
