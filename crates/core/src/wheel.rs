//! The coarse timer wheel: pure, `now` in, expired tokens out.
//!
//! A hierarchical wheel after Varghese and Lauck, "Hashed and hierarchical timing wheels" (SOSP
//! 1987): four levels of 64 slots. A level's slot is as long as the whole level below. Setting and
//! cancelling take constant time; a timer cascades at most three times before it expires. One
//! tick is one millisecond; a deadline further away than the top level reaches (4.6 hours) waits
//! there and is placed again. A timer never expires early, and late only if `advance` is called
//! late.

/// Names a timer until it expires or is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerId {
    slot: u32,
    /// Tells this use of the slot from earlier ones.
    generation: u32,
}

/// Timers that carry a token of type `T`. Holds as many as are set; memory is reused, not freed.
#[derive(Debug)]
pub struct Wheel<T> {
    now_ms: u64,
    /// Per level and slot, the head of a doubly linked list of timers.
    heads: [[u32; SLOTS]; LEVELS],
    timers: Vec<Timer<T>>,
    /// Head of the list of unused timers.
    unused: u32,
    len: usize,
}

#[derive(Debug)]
struct Timer<T> {
    /// None while unused.
    token: Option<T>,
    deadline_ms: u64,
    generation: u32,
    level: u8,
    slot: u8,
    next: u32,
    previous: u32,
}

impl<T> Wheel<T> {
    /// An empty wheel that stands at `now_ms`.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        let heads = [[NONE; SLOTS]; LEVELS];
        Self { now_ms, heads, timers: Vec::new(), unused: NONE, len: 0 }
    }

    /// Sets a timer. A deadline that has passed expires at the next [`advance`](Self::advance).
    ///
    /// # Panics
    /// With more than 2^32 - 1 timers set at a time.
    pub fn set(&mut self, deadline_ms: u64, token: T) -> TimerId {
        let id = self.allocate(deadline_ms, token);
        self.place(id);
        self.len += 1;
        TimerId { slot: id, generation: self.timers[id as usize].generation }
    }

    /// Ends a timer before it expires, and returns its token; None if it has expired already.
    pub fn cancel(&mut self, timer: TimerId) -> Option<T> {
        let found = self.timers.get(timer.slot as usize)?;
        if found.generation != timer.generation || found.token.is_none() {
            return None;
        }
        self.unlink(timer.slot);
        self.release(timer.slot)
    }

    /// Moves the wheel to `now_ms` and hands every expired token to `expired`, in the order of
    /// their milliseconds. A clock that stepped back moves nothing.
    pub fn advance(&mut self, now_ms: u64, expired: &mut impl FnMut(T)) {
        // What was set late sits in the slot of the present millisecond.
        self.expire_slot(expired);
        while self.now_ms < now_ms {
            // No occupied slot lies between now and there, on any level.
            self.now_ms = self.next_ms().map_or(now_ms, |next_ms| next_ms.min(now_ms));
            self.cascade();
            self.expire_slot(expired);
        }
    }

    /// A moment at which to call [`advance`](Self::advance) next, or None without timers. Never
    /// later than the earliest deadline; earlier when that one has still to cascade.
    #[must_use]
    pub fn next_ms(&self) -> Option<u64> {
        (0..LEVELS).filter_map(|level| self.next_of_level(level)).min()
    }

    /// Timers set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn next_of_level(&self, level: usize) -> Option<u64> {
        let shift = LEVEL_BITS * level as u32;
        let position = self.now_ms >> shift;
        let first = if level == 0 { 0 } else { 1 };
        (first..first + SLOTS as u64)
            .find(|ahead| self.heads[level][slot_of(position + ahead)] != NONE)
            .map(|ahead| (position + ahead) << shift)
    }

    fn cascade(&mut self) {
        for level in 1..LEVELS {
            let shift = LEVEL_BITS * level as u32;
            if self.now_ms & ((1 << shift) - 1) != 0 {
                return;
            }
            let slot = slot_of(self.now_ms >> shift);
            let mut id = std::mem::replace(&mut self.heads[level][slot], NONE);
            while id != NONE {
                let next = self.timers[id as usize].next;
                self.place(id);
                id = next;
            }
        }
    }

    fn expire_slot(&mut self, expired: &mut impl FnMut(T)) {
        let slot = slot_of(self.now_ms);
        loop {
            let id = self.heads[0][slot];
            if id == NONE {
                return;
            }
            self.unlink(id);
            expired(self.release(id).expect("linked timers carry a token"));
        }
    }

    /// Links a timer where its deadline, seen from now, belongs.
    fn place(&mut self, id: u32) {
        let reach = 1 << (LEVEL_BITS * LEVELS as u32);
        let deadline_ms = self.timers[id as usize].deadline_ms.max(self.now_ms);
        let ahead = (deadline_ms - self.now_ms).min(reach - 1);
        let level = (0..LEVELS as u32)
            .find(|level| ahead < 1 << (LEVEL_BITS * (level + 1)))
            .expect("the top level reaches as far as `ahead` was cut to");
        let slot = slot_of((self.now_ms + ahead) >> (LEVEL_BITS * level));
        let head = std::mem::replace(&mut self.heads[level as usize][slot], id);
        let timer = &mut self.timers[id as usize];
        (timer.level, timer.slot) = (level as u8, slot as u8);
        (timer.previous, timer.next) = (NONE, head);
        if head != NONE {
            self.timers[head as usize].previous = id;
        }
    }

    fn unlink(&mut self, id: u32) {
        let Timer { next, previous, level, slot, .. } = self.timers[id as usize];
        if previous == NONE {
            self.heads[level as usize][slot as usize] = next;
        } else {
            self.timers[previous as usize].next = next;
        }
        if next != NONE {
            self.timers[next as usize].previous = previous;
        }
    }

    fn allocate(&mut self, deadline_ms: u64, token: T) -> u32 {
        let timer = Timer {
            token: Some(token),
            deadline_ms,
            generation: 0,
            level: 0,
            slot: 0,
            next: NONE,
            previous: NONE,
        };
        if self.unused == NONE {
            assert!(self.timers.len() < NONE as usize, "more than 2^32 - 1 timers");
            self.timers.push(timer);
            return (self.timers.len() - 1) as u32;
        }
        let id = self.unused;
        let old = &mut self.timers[id as usize];
        self.unused = old.next;
        let generation = old.generation.wrapping_add(1);
        *old = Timer { generation, ..timer };
        id
    }

    fn release(&mut self, id: u32) -> Option<T> {
        self.len -= 1;
        let timer = &mut self.timers[id as usize];
        timer.next = std::mem::replace(&mut self.unused, id);
        timer.token.take()
    }
}

fn slot_of(position: u64) -> usize {
    position as usize % SLOTS
}

const LEVELS: usize = 4;
const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
const NONE: u32 = u32::MAX;

#[cfg(all(test, not(ledgerline_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Set(u64),
        Cancel(usize),
        Advance(u64),
        AdvanceToNext,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let far = prop_oneof![0u64..200, 0u64..10_000, 0u64..40_000_000];
        let step = prop_oneof![
            3 => far.prop_map(Step::Set),
            1 => (0usize..64).prop_map(Step::Cancel),
            2 => (0u64..6_000).prop_map(Step::Advance),
            2 => Just(Step::AdvanceToNext),
        ];
        proptest::collection::vec(step, 0..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_timer_expires_once_at_its_time_unless_cancelled(
            start in 0u64..1 << 40, steps in steps(),
        ) {
            let mut wheel = Wheel::new(start);
            let mut now = start;
            let mut set: Vec<(TimerId, u64, usize)> = Vec::new();
            let mut serial = 0;
            for step in steps {
                let to = match step {
                    Step::Set(ahead) => {
                        set.push((wheel.set(now + ahead, serial), now + ahead, serial));
                        serial += 1;
                        continue;
                    }
                    Step::Cancel(k) => {
                        if !set.is_empty() {
                            let (id, _, token) = set.swap_remove(k % set.len());
                            prop_assert_eq!(wheel.cancel(id), Some(token));
                            prop_assert_eq!(wheel.cancel(id), None);
                        }
                        continue;
                    }
                    Step::Advance(by) => now + by,
                    Step::AdvanceToNext => {
                        let next = wheel.next_ms();
                        let earliest = set.iter().map(|timer| timer.1).min();
                        let is_in_time = next <= earliest || earliest.is_none();
                        prop_assert!(is_in_time, "{next:?} {earliest:?}");
                        prop_assert_eq!(next.is_none(), earliest.is_none());
                        next.unwrap_or(now).max(now)
                    }
                };
                let mut expired = Vec::new();
                wheel.advance(to, &mut |token| expired.push(token));
                now = to;
                let mut due: Vec<_> =
                    set.iter().filter(|timer| timer.1 <= now).map(|timer| timer.2).collect();
                set.retain(|timer| timer.1 > now);
                expired.sort_unstable();
                due.sort_unstable();
                prop_assert_eq!(expired, due);
                prop_assert_eq!(wheel.len(), set.len());
            }
        }
    }

    #[test]
    fn a_clock_that_steps_back_expires_nothing_early() {
        let mut wheel = Wheel::new(1_000);
        wheel.set(1_010, ());
        wheel.advance(500, &mut |()| panic!("expired early"));
        assert_eq!(wheel.next_ms(), Some(1_010));
    }

    #[test]
    fn a_deadline_beyond_the_top_level_is_kept() {
        let mut wheel = Wheel::new(7);
        let deadline_ms = 7 + 3 * (1 << 24);
        wheel.set(deadline_ms, ());
        let mut count = 0;
        wheel.advance(deadline_ms - 1, &mut |()| count += 1);
        assert_eq!(count, 0);
        wheel.advance(deadline_ms, &mut |()| count += 1);
        assert_eq!(count, 1);
    }
}
