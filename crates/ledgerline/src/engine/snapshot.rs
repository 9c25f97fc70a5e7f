//! How things stand with the engine: what it notes of that, and how it tells.

use std::sync::PoisonError;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::Engine;
use super::queueing::Queueing;
use super::rate_limited_log::ChangeLog;
use super::size_limit::SizeLimit;
use crate::delivery::{Blocked, Cause};
use crate::report::{Present, Report};

/// What has lasted for a while.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// Why DataStorage takes nothing, and since when.
    unavailable: Option<(Cause, u64)>,
    /// The end of the last time that it took nothing, and how long that lasted.
    outage_ms: u64,
    changes: ChangeLog,
    /// No room in the buffer.
    full: Blocked,
    /// Sealed blocks with a record that isn't committed, and since when.
    holes: Vec<(u32, u64)>,
    pub(super) queueing: Queueing,
    pub(super) size_limit: SizeLimit,
}

impl Snapshot {
    /// For how long the oldest hole has kept its block from being used again.
    fn pinned_ms(&self, now_ms: u64) -> u64 {
        let since_ms = self.holes.iter().map(|(_, since_ms)| *since_ms).min();
        since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms))
    }
}

impl Engine {
    /// Notes how things stand at this moment.
    pub(super) fn note_snapshot(&mut self, now_ms: u64) {
        let Self { driver, snapshot, .. } = self;
        if driver.is_starving() {
            snapshot.full.begin(now_ms, Cause::PoolFull);
        } else {
            snapshot.full.end(now_ms);
        }
        let with_hole = driver.blocks_with_hole();
        snapshot.holes.retain(|(block, _)| with_hole.contains(block));
        for block in with_hole {
            if !snapshot.holes.iter().any(|(known, _)| known == block) {
                snapshot.holes.push((*block, now_ms));
            }
        }
        snapshot.queueing.tell(now_ms);
        self.notices.tell(now_ms);
        snapshot.size_limit.tell(self.delivery.events_max_now(), now_ms);
        self.watch_storage(now_ms);
    }

    /// Says when DataStorage becomes unavailable, and when it is back.
    fn watch_storage(&mut self, now_ms: u64) {
        let unavailable = self.delivery.unavailable();
        let known = self.snapshot.unavailable;
        if unavailable != known.map(|(cause, _)| cause) {
            let since_ms = known.map_or(now_ms, |(_, since_ms)| since_ms);
            self.snapshot.unavailable = unavailable.map(|cause| (cause, since_ms));
            self.snapshot.changes.changed(now_ms);
            if unavailable.is_none() {
                self.snapshot.outage_ms = now_ms - since_ms;
                self.hurry_redelivery(now_ms);
            }
            self.publish();
        }
        if let Some(changes) = self.snapshot.changes.take(now_ms) {
            self.log_storage(changes);
        }
    }

    /// Says how things stand with DataStorage, after so many changes that were not said one by one.
    fn log_storage(&self, changes: u64) {
        let pending = self.driver.accounts().pending;
        let Some((cause, _)) = self.snapshot.unavailable else {
            // At the level of the line that it ends: who sees that sees this.
            tracing::warn!(
                after_ms = self.snapshot.outage_ms,
                pending,
                changes,
                datastorage_available = true,
                "audit storage available again"
            );
            return;
        };
        let datastorage_available = false;
        tracing::warn!(
            %cause, pending, changes, datastorage_available, "audit storage unavailable"
        );
        if cause == Cause::Rejecting {
            self.failsafe.list_dead_letters(self.delivery.refused_lately());
        }
    }

    /// Leaves a report where other threads find it without asking.
    pub(super) fn publish(&self) {
        let report = self.report();
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
    }

    pub(super) fn report(&self) -> Report {
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        let cpu = Duration::new(cpu.tv_sec as u64, cpu.tv_nsec as u32);
        let accounts = self.driver.accounts();
        let now_ms = self.clock.now_ms();
        let (requests_in_flight, requests_max) = self.delivery.concurrency();
        let oldest_ms = self.driver.oldest_pending_ms();
        let present = Present {
            unavailable: self.delivery.unavailable(),
            is_queueing: self.snapshot.queueing.is_on(),
            requests_in_flight,
            requests_max,
            in_flight_bytes: self.delivery.in_flight_bytes(),
            connections: self.wires.iter().filter(|wire| wire.is_open()).count(),
            oldest_pending_ms: oldest_ms.map_or(0, |oldest_ms| now_ms.saturating_sub(oldest_ms)),
            blocks: self.driver.blocks(),
            blocks_free: self.driver.blocks_free(),
            blocks_pinned: self.driver.blocks_with_hole().len() + self.driver.blocks_lent_out(),
            pinned_ms: self.snapshot.pinned_ms(now_ms),
        };
        let blocked = self.delivery.blocked_ms(now_ms).plus(&self.snapshot.full.total(now_ms));
        let blocked_ms = blocked.plus(self.heart.lost());
        let mut report =
            Report::new(accounts, &self.delivery, blocked_ms, present, cpu, self.restarts);
        report.dead_letters = self.failsafe.dead_letters();
        report
    }
}
