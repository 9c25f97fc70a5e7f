//! A gate: closed until somebody opens it, then open for good.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Holds back what waits at it until it is opened. Clones are the same gate.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everything through that waits now or comes later.
    pub fn open(&self) {
        let (is_open, changed) = &*self.0;
        *is_open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }

    /// Waits until the gate is open; without a deadline, because a script opens its gates when it
    /// is dropped.
    pub(crate) fn pass(&self) {
        let (is_open, changed) = &*self.0;
        let guard = is_open.lock().unwrap_or_else(PoisonError::into_inner);
        drop(changed.wait_while(guard, |is_open| !*is_open));
    }
}
