//! Events that were accepted and will not be delivered: what is told of them, and to whom.

use std::fmt;
use std::sync::Arc;

use ledgerline_codec::Timestamp;
use ledgerline_core::Outcome;

/// An event that was dropped or dead-lettered, as [`Store::lost_events`](crate::Store::lost_events)
/// shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostEvent {
    /// What became of it.
    pub outcome: Outcome,
    /// When it was given up.
    pub lost_at: Timestamp,
    /// Its id, as it was, or would have been, sent.
    pub event_id: String,
    /// The event as it was, or would have been, sent: one JSON object.
    pub json: String,
}

/// What a [`LossHook`] is told: events lost since it was last called.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loss {
    /// How many.
    pub events: u64,
    /// What became of the last of them.
    pub outcome: Outcome,
}

/// A caller's function for lost events, for a report to whoever has to know.
///
/// Called on the engine's thread, at most once a second: it must not block. If it panics, the
/// engine goes on.
///
/// ```
/// use ledgerline::{Config, LossHook};
///
/// let mut config = Config::new("http://127.0.0.1:8080");
/// let hook = LossHook::new(|loss| eprintln!("{} events {}", loss.events, loss.outcome));
/// config.on_loss = Some(hook);
/// ```
#[derive(Clone)]
pub struct LossHook(Arc<dyn Fn(&Loss) + Send + Sync>);

impl LossHook {
    /// A hook that calls this function.
    pub fn new(hook: impl Fn(&Loss) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }

    /// A hook that sends a message at warning level to the Sentry client of the thread's or the
    /// process's hub. Feature `sentry`; the application sets the client up.
    #[cfg(feature = "sentry")]
    #[must_use]
    pub fn sentry() -> Self {
        Self::new(|loss| {
            let message =
                format!("{} audit events lost, the last one {}", loss.events, loss.outcome);
            sentry_core::capture_message(&message, sentry_core::Level::Warning);
        })
    }

    pub(crate) fn call(&self, loss: &Loss) {
        (self.0)(loss);
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
