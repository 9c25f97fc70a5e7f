//! Callers that sleep until the driver has done something: made room, or settled what they wait
//! for.
//!
//! A caller is counted, tries once more, and only then sleeps; the driver does something, and then
//! looks whether anybody is counted. See [`Sleepers`] for why one of the two sees the other.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ledgerline_core::Sleepers;
use tokio::sync::Notify;

use crate::waiting;

#[derive(Debug, Default)]
pub(crate) struct Signal {
    sleepers: Sleepers,
    /// How often it was given, so that a sleeper knows whether it was while it fell asleep.
    given: Mutex<u64>,
    changed: Condvar,
    notify: Notify,
}

impl Signal {
    /// Blocks until `attempt` gives something, at most until `deadline`. On an engine's own thread
    /// it tries once.
    pub(crate) fn wait<T>(
        &self,
        deadline: Instant,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let _sleeper = self.sleepers.enter();
        loop {
            let given = *self.given.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(result) = attempt() {
                return Some(result);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO || !waiting::may_wait() {
                return None;
            }
            let guard = self.given.lock().unwrap_or_else(PoisonError::into_inner);
            drop(self.changed.wait_timeout_while(guard, left, |now| *now == given));
        }
    }

    /// Waits until `attempt` gives something. Cancel safe: dropping it between two attempts leaves
    /// nothing behind.
    pub(crate) async fn wait_async<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> T {
        let _sleeper = self.sleepers.enter();
        loop {
            let mut notified = std::pin::pin!(self.notify.notified());
            notified.as_mut().enable();
            if let Some(result) = attempt() {
                return result;
            }
            notified.await;
        }
    }

    /// The driver has done something, or never will again: everybody tries again.
    pub(crate) fn give(&self) {
        if !self.sleepers.is_any() {
            return;
        }
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
        self.notify.notify_waiters();
    }
}
