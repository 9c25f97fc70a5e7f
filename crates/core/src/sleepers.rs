//! Who sleeps until the driver has done something.
//!
//! A sleeper says that it is there, looks once more at what it waits for, and only then sleeps. The
//! driver does something, and then looks whether anybody is there. One of the two sees the other:
//! this is the store-buffering pattern, hence a sequentially consistent fence on either side.
//! Nobody pays for it but those who sleep, and the driver once a turn.

use crate::sync::{AtomicUsize, Ordering, fence};

/// Counts those who sleep, or are about to.
#[derive(Debug, Default)]
pub struct Sleepers(AtomicUsize);

impl Sleepers {
    /// Says that the caller is about to sleep, until the guard is dropped. What it waits for must
    /// be looked at after this.
    pub fn enter(&self) -> Sleeper<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        // SeqCst: pairs with the fence in `is_any`; the look comes after this.
        fence(Ordering::SeqCst);
        Sleeper(self)
    }

    /// Whether anybody may be asleep who hasn't seen what the caller did before.
    #[must_use]
    pub fn is_any(&self) -> bool {
        // SeqCst: pairs with the fence in `enter`; what the caller did came before this.
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// Somebody who sleeps, until it is dropped.
#[must_use = "who isn't counted is not woken"]
#[derive(Debug)]
pub struct Sleeper<'a>(&'a Sleepers);

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
