//! Copies of the last lost events, bounded in number and in bytes.

use std::collections::VecDeque;

use ledgerline_core::Outcome;

use crate::delivery::Doubt;
use crate::loss::LostEvent;

#[derive(Debug, Default)]
pub(crate) struct LostRing {
    entries: VecDeque<Entry>,
    bytes: usize,
    next_number: u64,
}

#[derive(Debug)]
struct Entry {
    /// Its own, in the order of the entries.
    number: u64,
    /// Whose turn it is to be sent: the least first.
    turn: u64,
    event: LostEvent,
    /// To be sent once more: what was dropped is; what DataStorage has refused only when that is
    /// asked for.
    is_due: bool,
    doubt: Doubt,
}

/// Some of the lost events, to be sent together.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// Their numbers, in order.
    pub(super) numbers: Vec<u64>,
    /// A JSON array.
    pub(super) body: String,
    /// The first one's id.
    pub(super) first_id: String,
}

impl LostRing {
    pub(crate) fn events(&self) -> Vec<LostEvent> {
        self.entries.iter().map(|entry| entry.event.clone()).collect()
    }

    /// Keeps a copy, at the expense of the oldest ones.
    pub(super) fn push(&mut self, event: LostEvent, doubt: Doubt, max: (usize, usize)) {
        let (events_max, bytes_max) = max;
        self.bytes += event.json.len();
        let is_due = event.outcome != Outcome::DeadLettered;
        let number = self.number();
        self.entries.push_back(Entry { number, turn: number, event, is_due, doubt });
        while self.entries.len() > events_max || self.bytes > bytes_max {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.bytes -= oldest.event.json.len();
        }
    }

    /// Asks for all that DataStorage has refused to be sent once more; how many there are.
    pub(crate) fn resend_dead_letters(&mut self) -> usize {
        let refused = self.entries.iter_mut().filter(|entry| !entry.is_due);
        refused.map(|entry| entry.is_due = true).count()
    }

    pub(super) fn is_any_due(&self) -> bool {
        self.entries.iter().any(|entry| entry.is_due)
    }

    /// Those whose turn it is, of those that are due: at least one, if there is one.
    pub(super) fn due(&self, events_max: usize, bytes_max: usize) -> Again {
        let mut due: Vec<_> = self.entries.iter().filter(|entry| entry.is_due).collect();
        due.sort_unstable_by_key(|entry| entry.turn);
        due.truncate(events_max);
        let mut bytes = 1;
        let fits = due.iter().take_while(|entry| {
            bytes += entry.event.json.len() + 1;
            bytes <= bytes_max
        });
        let fitting = fits.count().max(1);
        due.truncate(fitting);
        let texts: Vec<_> = due.iter().map(|entry| entry.event.json.as_str()).collect();
        let first_id = due.first().map(|entry| entry.event.event_id.clone()).unwrap_or_default();
        let mut numbers: Vec<_> = due.iter().map(|entry| entry.number).collect();
        numbers.sort_unstable();
        let mut body =
            String::with_capacity(2 + texts.iter().map(|it| it.len() + 1).sum::<usize>());
        for (place, text) in texts.into_iter().enumerate() {
            body.push(if place == 0 { '[' } else { ',' });
            body.push_str(text);
        }
        body.push(']');
        Again { numbers, body, first_id }
    }

    /// They are stored after all.
    pub(super) fn remove(&mut self, numbers: &[u64]) {
        let Self { entries, bytes, .. } = self;
        entries.retain(|entry| {
            let is_stored = numbers.binary_search(&entry.number).is_ok();
            *bytes -= if is_stored { entry.event.json.len() } else { 0 };
            !is_stored
        });
    }

    /// It is refused again: it stays, and isn't sent once more.
    pub(super) fn refuse(&mut self, number: u64) {
        self.change(&[number], |entry| entry.is_due = false);
    }

    /// It comes to nothing: the others behind it come first.
    pub(super) fn postpone(&mut self, number: u64) {
        let turn = self.number();
        self.change(&[number], |entry| entry.turn = turn);
    }

    /// They are sent to a server that doesn't know them by their ids: how many of them it may have,
    /// and were not counted as such.
    pub(super) fn count_doubtful(&mut self, numbers: &[u64]) -> u64 {
        let mut doubtful = 0;
        self.change(numbers, |entry| {
            let Doubt { is_ambiguous, is_counted, .. } = &mut entry.doubt;
            doubtful += u64::from(*is_ambiguous && !*is_counted);
            *is_counted |= *is_ambiguous;
        });
        doubtful
    }

    /// They may have been stored.
    pub(super) fn doubt(&mut self, numbers: &[u64]) {
        self.change(numbers, |entry| entry.doubt.is_ambiguous = true);
    }

    /// The ids of the last `count` dead letters.
    pub(super) fn dead_letters(&self, count: usize) -> Vec<String> {
        let dead = self.entries.iter().rev();
        let dead = dead.filter(|entry| entry.event.outcome == Outcome::DeadLettered);
        dead.take(count).map(|entry| entry.event.event_id.clone()).collect()
    }

    /// The next one, for an entry or a turn.
    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn change(&mut self, numbers: &[u64], change: impl FnMut(&mut Entry)) {
        let is_meant = |entry: &&mut Entry| numbers.binary_search(&entry.number).is_ok();
        self.entries.iter_mut().filter(is_meant).for_each(change);
    }
}

#[cfg(test)]
mod tests {
    use ledgerline_codec::Timestamp;

    use super::*;

    fn event(outcome: Outcome, json: &str) -> LostEvent {
        let (event_id, json) = (String::new(), json.to_owned());
        LostEvent { outcome, reason: None, lost_at: Timestamp::EPOCH, event_id, json }
    }

    fn ring() -> LostRing {
        let mut ring = LostRing::default();
        for (outcome, json) in [
            (Outcome::Evicted, "{1}"),
            (Outcome::DeadLettered, "{2}"),
            (Outcome::GaveUp, "{3}"),
            (Outcome::Expired, "{4}"),
        ] {
            ring.push(event(outcome, json), Doubt::default(), (10, 100));
        }
        ring
    }

    #[test]
    fn dead_letters_are_sent_again_only_on_command() {
        let mut ring = ring();
        assert_eq!(ring.due(10, 100).body, "[{1},{3},{4}]");
        assert_eq!(ring.resend_dead_letters(), 1);
        let again = ring.due(10, 100);
        assert_eq!(again.body, "[{1},{2},{3},{4}]");
        ring.refuse(again.numbers[1]);
        ring.remove(&again.numbers[2..]);
        assert_eq!(ring.due(10, 100).body, "[{1}]");
        assert_eq!((ring.events().len(), ring.bytes), (2, 6), "what is refused stays to be read");
    }

    #[test]
    fn doubt_is_counted_once_and_what_is_postponed_comes_last() {
        let mut ring = ring();
        let numbers = ring.due(10, 100).numbers;
        assert_eq!(ring.count_doubtful(&numbers), 0);
        ring.doubt(&numbers[..2]);
        assert_eq!(ring.count_doubtful(&numbers), 2);
        assert_eq!(ring.count_doubtful(&numbers), 0);
        ring.postpone(numbers[0]);
        let again = ring.due(10, 100);
        assert_eq!(again.body, "[{3},{4},{1}]");
        ring.remove(&again.numbers);
        assert_eq!((ring.events().len(), ring.bytes), (1, 3));
    }

    #[test]
    fn a_request_keeps_to_its_limits_and_the_ring_to_its_own() {
        let mut ring = ring();
        assert_eq!(ring.due(2, 100).body, "[{1},{3}]");
        assert_eq!(ring.due(10, 8).body, "[{1}]");
        assert_eq!(ring.due(10, 1).body, "[{1}]", "at least one");
        ring.push(event(Outcome::Evicted, "{55555}"), Doubt::default(), (10, 10));
        assert_eq!(ring.events().len(), 2);
        ring.push(event(Outcome::Evicted, "{6}"), Doubt::default(), (1, 100));
        assert_eq!(ring.due(10, 100).body, "[{6}]");
    }
}
