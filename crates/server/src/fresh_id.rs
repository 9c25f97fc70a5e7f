//! Ids for events whose sender gave none: UUIDv7 (RFC 9562 section 5.7).
//!
//! Invariant: two calls in one process differ, because each takes its own number. Limit: the
//! random bits come from a keyed hash, good against collisions; they are no secret.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use ledgerline_codec::Timestamp;
use uuid::{Builder, Uuid};

/// Makes ids. The operating system's randomness enters once, as the keys of the hash.
#[derive(Debug, Default)]
pub(crate) struct FreshIds {
    keys: [RandomState; 2],
    next: AtomicU64,
}

impl FreshIds {
    /// An id that sorts by `now`'s millisecond; a time before 1970 counts as 1970.
    pub(crate) fn next(&self, now: Timestamp) -> Uuid {
        // Relaxed: only that no two calls get the same number matters.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.keys[0].hash_one(number).to_le_bytes());
        random[8..].copy_from_slice(&self.keys[1].hash_one(number).to_le_bytes()[..2]);
        let millis = u64::try_from(now.micros() / 1_000).unwrap_or(0);
        Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_distinct_version_7_and_carry_the_time() {
        let ids = FreshIds::default();
        let now = Timestamp::from_micros(1_795_243_212_318_402).unwrap();
        let made: HashSet<Uuid> = (0..10_000).map(|_| ids.next(now)).collect();
        assert_eq!(made.len(), 10_000);
        for id in made {
            assert_eq!(id.get_version_num(), 7);
            assert_eq!(id.as_u128() >> 80, 1_795_243_212_318);
        }
    }
}
