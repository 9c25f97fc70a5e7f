//! Asking, and waiting, for what becomes of one event.

use std::fmt;
use std::time::Duration;

use ledgerline_core::{Outcome, Receipt, Standing};

use super::{Inner, Store, moment};
use crate::engine::Command;
use crate::error::WaitError;

/// Something that an event can be waited for to be.
///
/// Each stands for itself: they are no ladder. An event may be sent before it is on any disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// The store has it: true for every receipt.
    Accepted,
    /// It is on stable storage. This engine has no journal, so that it is DataStorage's: the same
    /// as [`Stored`](Self::Stored).
    Synced,
    /// It is in a request that was put on a connection.
    Sent,
    /// DataStorage has acknowledged it: stored, or queued (status 202).
    Stored,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::Synced => "synced",
            Self::Sent => "sent",
            Self::Stored => "stored",
        })
    }
}

impl Store {
    /// What has become of an event so far. Costs a few loads, whatever the answer; after its block
    /// is gone, and if not everything was delivered, a search of some thousand spans.
    ///
    /// True at the moment of the call. Where it can't be known it is [`Standing::Forgotten`], never
    /// a guess.
    ///
    /// ```
    /// # #[cfg(feature = "testing")] {
    /// use ledgerline::{Category, Event, Outcome, Standing, testing::MemoryStorage};
    ///
    /// let store = MemoryStorage::new().start();
    /// let event =
    ///     Event::new("a.b.c", Category::Gateway, Outcome::Success).with_correlation_id("rr-1");
    /// let receipt = store.record(&event).expect("there is room");
    /// assert_ne!(store.standing(receipt), Standing::Forgotten);
    /// # }
    /// ```
    #[must_use]
    pub fn standing(&self, receipt: Receipt) -> Standing {
        // In a forked child there is no block to look into.
        if self.inner.is_forked() {
            Standing::Forgotten
        } else {
            self.inner.lanes.standing(receipt)
        }
    }

    /// Blocks until the event has reached the stage, at most for `deadline`; zero only looks.
    /// Hurries nothing: an event that isn't due yet is sent when it falls due.
    ///
    /// # Errors
    /// [`WaitError`]: the deadline came first, or it is known, or can't be known, that the event
    /// doesn't reach the stage.
    pub fn wait(
        &self,
        receipt: Receipt,
        stage: Stage,
        deadline: Duration,
    ) -> Result<Standing, WaitError> {
        if self.inner.is_forked() {
            return Err(WaitError::Forked);
        }
        let look = || self.inner.look(receipt, stage);
        look()
            .or_else(|| self.inner.settled.wait(moment(deadline), look))
            .unwrap_or(Err(WaitError::Deadline { stage, deadline }))
    }

    /// [`wait`](Self::wait) as a future, for any executor, without a deadline: put your runtime's
    /// timeout around it. Cancel safe: dropping it changes nothing.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), but never [`WaitError::Deadline`].
    pub async fn wait_async(&self, receipt: Receipt, stage: Stage) -> Result<Standing, WaitError> {
        if self.inner.is_forked() {
            return Err(WaitError::Forked);
        }
        let look = || self.inner.look(receipt, stage);
        match look() {
            Some(result) => result,
            None => self.inner.settled.wait_async(look).await,
        }
    }

    /// Has the event sent at once, with whatever else lies in the lanes, and blocks until
    /// DataStorage has acknowledged it, at most for `deadline`. Doesn't wait for events that were
    /// recorded before it: that is [`flush`](Self::flush).
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn flush_through(
        &self,
        receipt: Receipt,
        deadline: Duration,
    ) -> Result<Standing, WaitError> {
        self.inner.hurry(receipt);
        self.wait(receipt, Stage::Stored, deadline)
    }

    /// [`flush_through`](Self::flush_through) as a future, as [`wait_async`](Self::wait_async) is.
    ///
    /// # Errors
    /// As [`wait_async`](Self::wait_async).
    pub async fn flush_through_async(&self, receipt: Receipt) -> Result<Standing, WaitError> {
        self.inner.hurry(receipt);
        self.wait_async(receipt, Stage::Stored).await
    }
}

impl Inner {
    /// Whether it is known that the record has reached the stage, or won't.
    fn look(&self, receipt: Receipt, stage: Stage) -> Option<Result<Standing, WaitError>> {
        if self.is_forked() {
            return Some(Err(WaitError::Forked)); // A future may be polled in a child.
        }
        // Before the look: what the engine settled at its end is then seen below.
        let has_ended = self.ended.get().is_some();
        let standing = self.lanes.standing(receipt);
        match (standing, stage) {
            (Standing::Forgotten, _) => Some(Err(WaitError::Forgotten)),
            (_, Stage::Accepted) | (Standing::Sent, Stage::Sent) => Some(Ok(standing)),
            (Standing::SetApart, Stage::Sent) => Some(Ok(standing)), // Or others like it were.
            (Standing::SetApart, _) => Some(Err(WaitError::SetApart)),
            (Standing::Settled { outcome, .. }, _) if outcome.is_delivered() => Some(Ok(standing)),
            // It was answered, so it was sent.
            (Standing::Settled { outcome: Outcome::DeadLettered, .. }, Stage::Sent) => {
                Some(Ok(standing))
            }
            (Standing::Settled { outcome, is_possibly_stored }, _) => {
                Some(Err(WaitError::Undelivered { outcome, is_possibly_stored }))
            }
            (Standing::Recorded | Standing::Sent, _) => has_ended.then_some(Err(WaitError::Failed)),
        }
    }

    /// Asks for what lies in the lanes to be sent, unless the record is on its way or settled. If
    /// the engine is too busy to be asked, the record goes when it falls due.
    fn hurry(&self, receipt: Receipt) {
        if !self.is_forked() && self.lanes.standing(receipt) == Standing::Recorded {
            let _ = self.send(Command::Hurry);
        }
    }
}
