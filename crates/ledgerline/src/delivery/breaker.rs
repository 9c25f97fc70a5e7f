//! The endpoint takes nothing at present: it can't be reached, answers as another service would,
//! refuses every event, or is overloaded.
//!
//! Then one batch at a time finds out whether that is over, at pauses with full jitter, and the
//! others wait where they are: cutting them and trying each would make as many tries as batches,
//! and batches as small as the records trickle in. Nygard, "Release It!" (2007), "Circuit breaker";
//! the first probe is jittered too, so that a fleet doesn't come back in step.

use super::{BatchId, lateness::Cause};

#[derive(Debug, Default)]
pub(crate) struct Breaker {
    open: Option<Open>,
    /// Failures of any kind since the last success.
    in_a_row: u32,
}

#[derive(Debug)]
struct Open {
    cause: Cause,
    tries: u32,
    opened_ms: u64,
    /// When to try next.
    probe_ms: u64,
    /// The batch that is finding out.
    probe: Option<BatchId>,
}

impl Breaker {
    /// Notes a failure; true if there have been so many in a row that the endpoint itself is to
    /// blame.
    pub(crate) fn fail(&mut self) -> bool {
        self.in_a_row += 1;
        self.open.is_some() || self.in_a_row >= FAILURES_MAX
    }

    /// Opens, or stays open after a failed probe: for `pause_min_ms` at least, and what `jitter_ms`
    /// gives after so many tries.
    pub(crate) fn open(
        &mut self,
        now_ms: u64,
        cause: Cause,
        pause_min_ms: u64,
        jitter_ms: impl FnOnce(u32) -> u64,
    ) {
        let Some(open) = &mut self.open else {
            let probe_ms = now_ms + pause_min_ms + jitter_ms(1);
            self.open = Some(Open { cause, tries: 1, opened_ms: now_ms, probe_ms, probe: None });
            return;
        };
        if open.probe_ms > now_ms {
            // Of several that failed together only the first counts, but a pause that was asked for
            // is kept.
            open.probe_ms = open.probe_ms.max(now_ms + pause_min_ms);
        } else {
            open.tries = if open.cause == cause { open.tries + 1 } else { 1 };
            open.probe_ms = now_ms + pause_min_ms + jitter_ms(open.tries);
        }
        open.cause = cause;
    }

    /// The server has taken a batch that was sent at `begun_ms`. Says whether the breaker was open,
    /// and is no longer: what was on the way before it opened says nothing of the time since.
    pub(crate) fn close(&mut self, begun_ms: u64) -> bool {
        if self.open.as_ref().is_some_and(|open| begun_ms < open.opened_ms) {
            return false;
        }
        self.in_a_row = 0;
        self.open.take().is_some()
    }

    /// A connection is up: enough, if that was all that was missing.
    pub(crate) fn connected(&mut self) -> bool {
        let was_unreachable = self.cause() == Some(Cause::NoConnection);
        was_unreachable && self.close(u64::MAX)
    }

    /// A batch was put on a connection.
    pub(crate) fn sent(&mut self, batch: BatchId) {
        if let Some(open) = &mut self.open {
            open.probe = Some(batch);
        }
    }

    /// A batch came back; what that says of the endpoint follows.
    pub(crate) fn returned(&mut self, batch: BatchId) {
        if let Some(open) = &mut self.open {
            open.probe = open.probe.filter(|probe| *probe != batch);
        }
    }

    /// Failures since the last success.
    pub(crate) fn in_a_row(&self) -> u32 {
        self.in_a_row
    }

    /// Why nothing may be sent at this moment.
    pub(crate) fn blocks(&self, now_ms: u64) -> Option<Cause> {
        let open = self.open.as_ref()?;
        (now_ms < open.probe_ms || open.probe.is_some()).then_some(open.cause)
    }

    /// Why it is open.
    pub(crate) fn cause(&self) -> Option<Cause> {
        self.open.as_ref().map(|open| open.cause)
    }

    /// The next probe is due at this moment at the latest.
    pub(crate) fn probe_at(&mut self, at_ms: u64) {
        if let Some(open) = &mut self.open {
            open.probe_ms = open.probe_ms.min(at_ms);
        }
    }

    /// When the next probe is due, unless one is under way.
    pub(crate) fn probe_ms(&self) -> Option<u64> {
        self.open.as_ref().filter(|open| open.probe.is_none()).map(|open| open.probe_ms)
    }
}

/// Fewer may be one bad backend of several behind a balancer.
const FAILURES_MAX: u32 = 5;
