//! Events of one story keep their order in a store that sorts them by time.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use super::{Answer, Bar, Fleet, KINDS, Length, Load, Trial};

/// Stories of six events, flat out: no two of a story have one timestamp.
#[must_use]
pub fn stories(events: u64, length: Length) -> Bar {
    let fleet = Fleet::of_one(|_| Answer::stored());
    let mut trial = Trial::of(&fleet, length);
    trial.load = Load::burst(events);
    let measured = trial.run(&fleet);

    let mut bar = Bar::new(format!("{events} events of stories of six, flat out"));
    measured.check_truth(&mut bar);
    measured.check_all_delivered(&mut bar);
    let mut last = HashMap::new();
    let (mut ties, mut backwards) = (0, 0);
    for (key, _) in &measured.recorded.events {
        let Some(timestamp_us) = measured.books.entry(*key).timestamp_us else { continue };
        if let Some(before_us) = last.insert(key / KINDS, timestamp_us) {
            ties += u64::from(timestamp_us == before_us);
            backwards += u64::from(timestamp_us < before_us);
        }
    }
    bar.equal("events with the timestamp of the one before", ties, 0);
    bar.equal("events with an earlier one", backwards, 0);
    bar
}

/// One story, flat out from one thread: never far ahead of the clock, never backwards.
#[must_use]
pub fn one_story(events: u64, length: Length) -> Bar {
    let fleet = Fleet::of_one(|_| Answer::stored());
    let mut trial = Trial::of(&fleet, length);
    trial.load = Load { is_one_story: true, ..Load::burst(events) };
    let measured = trial.run(&fleet);

    let mut bar = Bar::new(format!("{events} events of one story, flat out"));
    measured.check_truth(&mut bar);
    measured.check_all_delivered(&mut bar);
    let begun_at = fleet.ledger().begun_at();
    let mut last_us = 0;
    let (mut ahead_us, mut backwards, mut ties) = (i64::MIN, 0, 0);
    // An event's record has ended when the next one's begins.
    for pair in measured.recorded.events.windows(2) {
        let [(key, _), (_, ended_at)] = pair else { continue };
        let Some(timestamp_us) = measured.books.entry(*key).timestamp_us else { continue };
        let clock = (begun_at + *ended_at).duration_since(UNIX_EPOCH).unwrap_or_default();
        ahead_us = ahead_us.max(timestamp_us - clock.as_micros() as i64);
        backwards += u64::from(timestamp_us < last_us);
        ties += u64::from(timestamp_us == last_us);
        last_us = timestamp_us;
    }
    bar.at_most("us ahead of the clock", ahead_us, AHEAD_MAX.as_micros() as i64);
    bar.equal("events with an earlier timestamp than the one before", backwards, 0);
    bar.note("events with the same one", ties);
    bar
}

/// And what the clock of the harness may differ by from the engine's.
const AHEAD_MAX: Duration = Duration::from_micros(1_100);
