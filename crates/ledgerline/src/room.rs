//! Callers that wait for room in the buffer.
//!
//! A caller says that it waits, tries once more, and only then sleeps; the driver frees a block,
//! and then looks whether anybody waits. One of the two sees the other: this is the store-buffering
//! pattern, hence a sequentially consistent fence on either side. Nobody pays for it but those who
//! wait, and the driver once a turn.

use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

#[derive(Debug, Default)]
pub(crate) struct Room {
    waiters: AtomicUsize,
    /// How often room was made, so that a sleeper knows whether it was while it fell asleep.
    made: Mutex<u64>,
    changed: Condvar,
    notify: Notify,
}

impl Room {
    /// Blocks until `attempt` gives something, at most until `deadline`.
    pub(crate) fn wait<T>(
        &self,
        deadline: Instant,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let _waiter = Waiter::new(self);
        loop {
            let made = *self.made.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(result) = attempt() {
                return Some(result);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return None;
            }
            let guard = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            drop(self.changed.wait_timeout_while(guard, left, |now| *now == made));
        }
    }

    /// Waits until `attempt` gives something. Cancel safe: dropping it between two attempts leaves
    /// nothing behind.
    pub(crate) async fn wait_async<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> T {
        let _waiter = Waiter::new(self);
        loop {
            let mut notified = std::pin::pin!(self.notify.notified());
            notified.as_mut().enable();
            if let Some(result) = attempt() {
                return result;
            }
            notified.await;
        }
    }

    /// The driver has made room, or there will never be any: everybody tries again.
    pub(crate) fn wake(&self) {
        // SeqCst: pairs with the fence in `Waiter::new`; the room was made before this.
        fence(Ordering::SeqCst);
        if self.waiters.load(Ordering::Relaxed) == 0 {
            return;
        }
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
        self.notify.notify_waiters();
    }
}

struct Waiter<'a>(&'a Room);

impl<'a> Waiter<'a> {
    fn new(room: &'a Room) -> Self {
        room.waiters.fetch_add(1, Ordering::Relaxed);
        // SeqCst: pairs with the fence in `wake`; the attempt comes after this.
        fence(Ordering::SeqCst);
        Self(room)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiters.fetch_sub(1, Ordering::Relaxed);
    }
}
