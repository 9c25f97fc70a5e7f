//! When events are refused one by one, is it the events, or the server?
//!
//! Dead letters are the exception: one bad event in many. When too many are refused alone, it is
//! the server that has changed its mind, after an upgrade say, and to go on would throw a trail
//! away, event by event. Then the fuse blows: nothing more is dead-lettered until the server has
//! stored something again.

use std::collections::VecDeque;

#[derive(Debug, Default)]
pub(crate) struct Fuse {
    /// The last events, as stretches of stored ones or of refused ones.
    stretches: VecDeque<Stretch>,
    events: u32,
    refused: u32,
    in_a_row: u32,
    is_blown: bool,
}

#[derive(Debug)]
struct Stretch {
    is_refused: bool,
    events: u32,
}

impl Fuse {
    /// The server has stored so many events.
    pub(crate) fn stored(&mut self, events: u32) {
        // What was refused among the last events still counts: should another be, it blows again.
        self.is_blown = false;
        self.in_a_row = 0;
        self.note(false, events);
    }

    /// The server has refused an event that was sent alone. False: too many; keep it.
    pub(crate) fn refuse(&mut self) -> bool {
        if self.is_blown {
            return false;
        }
        self.in_a_row += 1;
        self.note(true, 1);
        let is_share_exceeded =
            self.refused >= REFUSED_LEAST && self.refused * REFUSED_SHARE > self.events;
        self.is_blown = self.in_a_row >= IN_A_ROW_MAX || is_share_exceeded;
        !self.is_blown
    }

    pub(crate) fn is_blown(&self) -> bool {
        self.is_blown
    }

    /// Refused ones of the last events.
    pub(crate) fn refused(&self) -> u32 {
        self.refused
    }

    fn note(&mut self, is_refused: bool, events: u32) {
        match self.stretches.back_mut() {
            Some(last) if last.is_refused == is_refused => last.events += events,
            _ => self.stretches.push_back(Stretch { is_refused, events }),
        }
        self.events += events;
        self.refused += if is_refused { events } else { 0 };
        while self.events > WINDOW_EVENTS
            && let Some(first) = self.stretches.front_mut()
        {
            let gone = first.events.min(self.events - WINDOW_EVENTS);
            first.events -= gone;
            self.events -= gone;
            self.refused -= if first.is_refused { gone } else { 0 };
            if first.events == 0 {
                self.stretches.pop_front();
            }
        }
    }
}

const WINDOW_EVENTS: u32 = 1_000;
/// More than one in a hundred, and not on the strength of a few.
const REFUSED_SHARE: u32 = 100;
const REFUSED_LEAST: u32 = 20;
const IN_A_ROW_MAX: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_event_in_each_of_many_batches_blows_nothing() {
        let mut fuse = Fuse::default();
        for _ in 0..1_000 {
            fuse.stored(499);
            assert!(fuse.refuse());
        }
    }

    #[test]
    fn twenty_in_a_row_blow_it_and_a_stored_event_mends_it() {
        let mut fuse = Fuse::default();
        fuse.stored(100_000);
        assert_eq!((0..100).filter(|_| fuse.refuse()).count(), 19);
        assert!(fuse.is_blown());
        fuse.stored(1);
        assert!(!fuse.is_blown() && !fuse.refuse(), "still too many of the last thousand");
        fuse.stored(1_000);
        assert!(fuse.refuse());
    }

    #[test]
    fn more_than_one_in_a_hundred_of_the_last_thousand_blow_it() {
        let mut fuse = Fuse::default();
        let mut refused = 0;
        while fuse.refuse() {
            refused += 1;
            fuse.stored(30);
        }
        assert_eq!(refused, 19);
        let mut fuse = Fuse::default();
        assert!((0..10_000).all(|_| {
            fuse.stored(99);
            fuse.refuse()
        }));
    }
}
