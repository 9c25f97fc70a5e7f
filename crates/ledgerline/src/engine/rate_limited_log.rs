//! Log lines about trouble that lasts: soon at first, then seldom, and none is passed over in
//! silence.

use std::fmt::Display;

/// Lines about one subject. Each kind of trouble, told apart by its key, has a pause of its own
/// that doubles from a second to five minutes while that kind goes on; all kinds together make at
/// most one line a second. Keeps the last [`KINDS_MAX`] kinds.
#[derive(Debug)]
pub(super) struct RateLimitedLog<K> {
    subject: &'static str,
    next_ms: u64,
    kinds: Vec<Kind<K>>,
    /// What happened since the last line without getting one.
    suppressed: u64,
}

#[derive(Debug)]
struct Kind<K> {
    key: K,
    last_ms: u64,
    next_ms: u64,
    pause_ms: u64,
}

impl<K: PartialEq> RateLimitedLog<K> {
    pub(super) fn new(subject: &'static str) -> Self {
        Self { subject, next_ms: 0, kinds: Vec::new(), suppressed: 0 }
    }

    pub(super) fn warn(&mut self, now_ms: u64, key: K, why: &dyn Display) {
        if let Some(others_since_last_line) = self.admit(now_ms, key) {
            tracing::warn!(%why, others_since_last_line, "{}", self.subject);
        }
    }

    /// Whether there is a line for this one, and how many had none since the last.
    fn admit(&mut self, now_ms: u64, key: K) -> Option<u64> {
        let next_ms = self.next_ms;
        let kind = self.kind(now_ms, key);
        if now_ms.saturating_sub(kind.last_ms) >= QUIET_MS {
            kind.pause_ms = PAUSE_MIN_MS;
        }
        kind.last_ms = now_ms;
        if now_ms < next_ms.max(kind.next_ms) {
            self.suppressed += 1;
            return None;
        }
        kind.next_ms = now_ms + kind.pause_ms;
        kind.pause_ms = (2 * kind.pause_ms).min(PAUSE_MAX_MS);
        self.next_ms = now_ms + PAUSE_MIN_MS;
        Some(std::mem::take(&mut self.suppressed))
    }

    fn kind(&mut self, now_ms: u64, key: K) -> &mut Kind<K> {
        let known = self.kinds.iter().position(|kind| kind.key == key);
        let place = known.unwrap_or_else(|| {
            if self.kinds.len() == KINDS_MAX {
                let oldest = (0..KINDS_MAX).min_by_key(|place| self.kinds[*place].last_ms);
                self.kinds.swap_remove(oldest.unwrap_or_default());
            }
            let kind = Kind { key, last_ms: now_ms, next_ms: now_ms, pause_ms: PAUSE_MIN_MS };
            self.kinds.push(kind);
            self.kinds.len() - 1
        });
        &mut self.kinds[place]
    }
}

/// When to tell that a state has changed: at once, but while it changes back and forth, less and
/// less often, down to once a minute. The last change is always told.
#[derive(Debug)]
pub(super) struct ChangeLog {
    next_ms: u64,
    pause_ms: u64,
    last_ms: u64,
    /// Changes that are not told yet.
    untold: u64,
}

impl Default for ChangeLog {
    fn default() -> Self {
        Self { next_ms: 0, pause_ms: PAUSE_MIN_MS, last_ms: 0, untold: 0 }
    }
}

impl ChangeLog {
    pub(super) fn changed(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.last_ms) >= QUIET_MS {
            self.pause_ms = PAUSE_MIN_MS;
        }
        self.last_ms = now_ms;
        self.untold += 1;
    }

    /// How many changes to tell now, if any. To be asked at least once a second.
    pub(super) fn take(&mut self, now_ms: u64) -> Option<u64> {
        if self.untold == 0 || now_ms < self.next_ms {
            return None;
        }
        self.next_ms = now_ms + self.pause_ms;
        self.pause_ms = (2 * self.pause_ms).min(CHANGE_PAUSE_MAX_MS);
        Some(std::mem::take(&mut self.untold))
    }
}

const KINDS_MAX: usize = 16;
const PAUSE_MIN_MS: u64 = 1_000;
const PAUSE_MAX_MS: u64 = 300_000;
const CHANGE_PAUSE_MAX_MS: u64 = 60_000;
/// What has been quiet for so long is new trouble when it comes again.
const QUIET_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_said_less_and_less() {
        let mut log = RateLimitedLog::new("");
        let mut lines = 0;
        let mut told = 0;
        for now_ms in (0..3_600_000).step_by(3_000) {
            if let Some(others) = log.admit(now_ms, 503) {
                lines += 1;
                told += 1 + others;
            }
        }
        assert!((18..24).contains(&lines), "{lines} lines in an hour");
        assert!(told > 1_000, "the others are counted");
        assert_eq!(log.admit(3_600_000, 401), Some(1_199 - told + 1), "another kind is said");
    }

    #[test]
    fn trouble_after_a_quiet_minute_is_new() {
        let mut log = RateLimitedLog::new("");
        let said = |log: &mut RateLimitedLog<u16>, now_ms| log.admit(now_ms, 503).is_some();
        let times = [0, 500, 1_000, 2_000, 3_000, 4_000, 70_000, 71_000];
        let lines = times.map(|now_ms| said(&mut log, now_ms));
        assert_eq!(lines, [true, false, true, false, true, false, true, true]);
    }

    #[test]
    fn kinds_are_bounded() {
        let mut log = RateLimitedLog::new("");
        for kind in 0..100_u64 {
            assert_eq!(log.admit(kind * 1_000, kind), Some(0));
        }
        assert_eq!(log.kinds.len(), KINDS_MAX);
    }

    #[test]
    fn a_state_that_flaps_is_told_seldom_and_its_last_change_always() {
        let mut log = ChangeLog::default();
        let (mut lines, mut changes) = (0, 0);
        for now_ms in (0..23_000).step_by(100) {
            if now_ms % 500 == 0 {
                log.changed(now_ms);
            }
            if let Some(told) = log.take(now_ms) {
                lines += 1;
                changes += told;
            }
        }
        assert_eq!(lines, 5);
        assert_eq!(changes + log.take(100_000).unwrap(), 46);
        assert_eq!(log.take(200_000), None);
        log.changed(200_000);
        assert_eq!(log.take(200_000), Some(1));
    }
}
