//! What the machine counts.

/// How many records are where, of those that the machine holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Whereabouts {
    pub(crate) in_flight: u64,
    pub(crate) retrying: u64,
    pub(crate) unsent: u64,
    pub(crate) set_apart: u64,
}

/// Tries of batches that came to nothing, by what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct FailedTries {
    /// No connection could be made.
    pub no_connection: u64,
    /// Certainly not processed: not wholly written, or answered with 408, 429 or 503.
    pub not_processed: u64,
    /// Nobody knows whether it was processed: no answer, or a 5xx.
    pub ambiguous: u64,
    /// The token was not accepted.
    pub unauthorized: u64,
    /// Held: the answer was another service's, or the server refuses everything.
    pub held: u64,
}

impl FailedTries {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.no_connection + self.not_processed + self.ambiguous + self.unauthorized + self.held
    }
}

/// Counts of the machine's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) batches_sent: u64,
    /// Of these, batches that had been sent before.
    pub(crate) batches_retried: u64,
    pub(crate) failed: FailedTries,
    pub(crate) batches_split: u64,
    /// Divided in search of an event that the server refuses.
    pub(crate) batches_isolated: u64,
    pub(crate) events_sent: u64,
    pub(crate) possibly_duplicated: u64,
}
