//! The caller's code that is told of lost events.

use std::fmt;
use std::sync::Arc;

use super::Loss;

/// A caller's function for lost events: to report them, or to keep them elsewhere.
///
/// Called on the engine's thread for each batch that is lost, while the events still lie in the
/// buffer: [`Loss::json`] lends them, so that somebody can write them down. What is lost at the
/// deadline of a close comes in pieces of at most 20,000 events. Nothing is sent while the hook
/// runs, so its time counts as blocked by `driver_busy`; events are accepted meanwhile.
///
/// - If it panics, the engine goes on, and says so in the log.
/// - If it blocks, nothing is lost, but nothing is delivered either until it returns, and
///   [`Store::close`](crate::Store::close) can't end in time.
/// - It may record events. Methods that wait don't wait on this thread: they say at once that they
///   have no answer.
/// - If it owns a [`Store`](crate::Store), that store is never dropped: close it.
///
/// ```
/// use std::io::Write;
/// use std::sync::Mutex;
///
/// use ledgerline::{Config, LossHook};
///
/// let mut config = Config::new("http://127.0.0.1:8080");
/// let spill = Mutex::new(Vec::new()); // a file, say
/// config.on_loss = Some(LossHook::new(move |loss| {
///     let mut spill = spill.lock().unwrap();
///     for event in loss.json() {
///         let _ = writeln!(spill, "{event}");
///     }
/// }));
/// ```
#[derive(Clone)]
pub struct LossHook(Arc<dyn Hook>);

/// What a hook does.
trait Hook: Send + Sync {
    fn lost(&self, loss: &Loss<'_>);

    /// About a second has passed, or the engine ends.
    fn tick(&self, _is_last: bool) {}
}

impl<F: Fn(&Loss<'_>) + Send + Sync> Hook for F {
    fn lost(&self, loss: &Loss<'_>) {
        self(loss);
    }
}

impl LossHook {
    /// A hook that calls this function.
    pub fn new(hook: impl Fn(&Loss<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }

    /// A hook that sends a message at warning level to the Sentry client of the thread's or the
    /// process's hub, at most one a second; the next one counts what had none. Feature `sentry`;
    /// the application sets the client up.
    #[cfg(feature = "sentry")]
    #[must_use]
    pub fn sentry() -> Self {
        Self(Arc::new(sentry::Sentry::default()))
    }

    pub(crate) fn lost(&self, loss: &Loss<'_>) {
        self.0.lost(loss);
    }

    pub(crate) fn tick(&self, is_last: bool) {
        self.0.tick(is_last);
    }
}

impl fmt::Debug for LossHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LossHook")
    }
}

/// The same function.
impl PartialEq for LossHook {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(feature = "sentry")]
mod sentry {
    //! A message a second at most, however much is lost.

    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::time::{Duration, Instant};

    use super::{Hook, Loss};

    #[derive(Default)]
    pub(super) struct Sentry(Mutex<Untold>);

    #[derive(Default)]
    struct Untold {
        events: u64,
        /// What became of the last of them, and why.
        last: String,
        next: Option<Instant>,
    }

    impl Sentry {
        fn untold(&self) -> MutexGuard<'_, Untold> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl Untold {
        /// What to say now, if anything.
        fn message(&mut self, is_last: bool) -> Option<String> {
            let now = Instant::now();
            let is_due = is_last || self.next.is_none_or(|next| now >= next);
            if self.events == 0 || !is_due {
                return None;
            }
            self.next = Some(now + INTERVAL);
            let events = std::mem::take(&mut self.events);
            Some(format!("{events} audit events lost, the last one {}", self.last))
        }
    }

    impl Hook for Sentry {
        fn lost(&self, loss: &Loss<'_>) {
            let mut untold = self.untold();
            untold.events += loss.events;
            untold.last = match loss.reason {
                Some(reason) => format!("{} ({reason})", loss.outcome),
                None => loss.outcome.to_string(),
            };
            let message = untold.message(false);
            drop(untold);
            capture(message);
        }

        fn tick(&self, is_last: bool) {
            let message = self.untold().message(is_last);
            capture(message);
        }
    }

    fn capture(message: Option<String>) {
        if let Some(message) = message {
            sentry_core::capture_message(&message, sentry_core::Level::Warning);
        }
    }

    const INTERVAL: Duration = Duration::from_secs(1);
}
