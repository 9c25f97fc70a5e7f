//! Who an event is: its id, made at `record`, and its producer.

use ledgerline_codec::{Timestamp, Uuid};

/// A UUIDv7 (RFC 9562 section 5.7) from a clock that was read already: milliseconds, then the rest
/// of the microsecond clock as 12 bits of fraction (method 3 of section 6.2), then 62 random bits.
/// Ids of one thread sort by the time they were made, to the microsecond.
pub(crate) fn event_id(now: Timestamp, random: u64) -> Uuid {
    let micros = now.micros().max(0) as u64;
    let (millis, fraction) = (micros / 1_000, micros % 1_000 * 4_096 / 1_000);
    let high = millis << 16 | VERSION_7 | fraction;
    Uuid::from_u64_pair(high, VARIANT | random & RANDOM_BITS)
}

/// For each lane, what its events carry as `producer`.
pub(crate) fn producers(name: Option<&str>, lanes: usize) -> Box<[Box<str>]> {
    let name = name.map_or_else(
        || {
            let random = crate::thread::random(fastrand::u64(..)).u64(..);
            event_id(crate::clock::wall_clock(), random).hyphenated().to_string()
        },
        str::to_owned,
    );
    (0..lanes).map(|lane| format!("{name}/{lane}").into()).collect()
}

const VERSION_7: u64 = 0x7000;
const VARIANT: u64 = 0b10 << 62;
const RANDOM_BITS: u64 = (1 << 62) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_v7_uuid_of_its_time() {
        let now = Timestamp::from_micros(1_795_243_212_318_402).unwrap();
        let id = event_id(now, u64::MAX);
        assert_eq!(id.get_version_num(), 7);
        assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
        assert_eq!(id.as_u128() >> 80, 1_795_243_212_318);
        let later = Timestamp::from_micros(now.micros() + 1).unwrap();
        assert!(event_id(later, 0) > id, "ordered within the millisecond");
    }
}
