//! The server can't be reached: no connection is up, and none can be made.
//!
//! Then one batch at a time finds out whether that is over, at pauses with full jitter, and the
//! others wait where they are: cutting them and trying each would make as many tries as batches,
//! and batches as small as the records trickle in.

#[derive(Debug, Default)]
pub(crate) struct Outage {
    now: Option<Probing>,
}

#[derive(Debug)]
struct Probing {
    tries: u32,
    /// When to try next.
    at_ms: u64,
}

impl Outage {
    /// No connection could be made. `pause_ms` gives the pause after so many tries.
    pub(crate) fn fail(&mut self, now_ms: u64, pause_ms: impl FnOnce(u32) -> u64) {
        let tries = self.now.as_ref().map_or(0, |probing| probing.tries) + 1;
        // Of several that failed together only the first counts.
        if self.now.as_ref().is_none_or(|probing| probing.at_ms <= now_ms) {
            self.now = Some(Probing { tries, at_ms: now_ms + pause_ms(tries) });
        }
    }

    /// A connection is up. Says whether there was an outage.
    pub(crate) fn end(&mut self) -> bool {
        self.now.take().is_some()
    }

    /// When the next try is due, during an outage.
    pub(crate) fn probe_ms(&self) -> Option<u64> {
        self.now.as_ref().map(|probing| probing.at_ms)
    }
}
