//! The delivery machine against a model of what it was told: any commands and answers, in any
//! order, in virtual time.
//!
//! Invariant, after every step: what was pushed and isn't settled is in the machine, once;
//! what is settled was settled once, as delivered only by an answer that says so; and what may be
//! stored is said to be so. At the end, with a server that stores all, nothing stays behind. Limit:
//! records are numbers, eight to a block.

use std::collections::{HashMap, HashSet};
use std::slice;

use ledgerline_core::{Outcome, Record};

use crate::delivery::{BatchId, Contents, Delivery, Ended, Ids, Limits};
use crate::sink::http::verdict::{Verdict, Why};

pub(super) fn run(data: &[u8]) {
    let mut input = Input(data.iter());
    let limits = limits(&mut input);
    let types = 1 + u32::from(input.byte() % 4);
    let mut model = Model {
        delivery: Delivery::new(limits, 0, fastrand::Rng::with_seed(u64::from(input.byte()))),
        contents: Numbered { types },
        now_ms: 0,
        records: Vec::new(),
        in_flight: HashMap::new(),
        apart: HashSet::new(),
        pending: 0,
    };
    while !input.is_empty() {
        model.step(&mut input);
    }
    model.drain();
}

struct Input<'a>(slice::Iter<'a, u8>);

impl Input<'_> {
    fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// The next one; zero behind the last.
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or_default()
    }

    fn is(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// Short times mostly, and some that last.
    fn time_ms(&mut self) -> u64 {
        u64::from(self.byte()) << (4 * (self.byte() % 4))
    }
}

fn limits(input: &mut Input<'_>) -> Limits {
    Limits {
        batch_events_max: 1 + usize::from(input.byte() % 40),
        batch_bytes_max: 100 * (1 + u64::from(input.byte())),
        flush_interval_ms: 100,
        retries_max: input.is().then(|| u32::from(input.byte() % 4)),
        give_up_after_ms: input.is().then(|| 1_000 + input.time_ms()),
        retry_delay_min_ms: 100,
        retry_delay_max_ms: 30_000,
        request_timeout_ms: 10_000,
        connections_max: 1 + usize::from(input.byte() % 4),
        in_flight_bytes_max: 1_000_000,
        pipeline_depth_max: 1 + usize::from(input.byte() % 3),
    }
}

/// What is to be known of a record from its number.
struct Numbered {
    types: u32,
}

impl Contents for Numbered {
    fn event_type<T>(&self, record: &Record, read: impl FnOnce(&str) -> T) -> T {
        read(["a.a", "b.b", "c.c", "d.d"][(record.index % self.types) as usize])
    }

    fn timestamp_us(&self, record: &Record) -> i64 {
        // Each fifth is older than servers take.
        if record.index.is_multiple_of(5) { 0 } else { NOW_US }
    }

    fn now_us(&self) -> i64 {
        NOW_US
    }
}

/// What the model knows of a record.
struct Known {
    record: Record,
    settled: Option<Outcome>,
    /// An answer left open whether it is stored.
    is_ambiguous: bool,
}

struct Model {
    delivery: Delivery,
    contents: Numbered,
    now_ms: u64,
    /// By their index.
    records: Vec<Known>,
    /// By their batch.
    in_flight: HashMap<BatchId, Vec<Record>>,
    apart: HashSet<u32>,
    pending: u64,
}

impl Model {
    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0 | 1 => self.push(1 + u32::from(input.byte() % 32)),
            2 | 3 => self.now_ms += input.time_ms(),
            4 => self.delivery.flush(),
            5 => self.delivery.expire(self.now_ms),
            6 => {
                let full = 0..self.records.len() as u32 / BLOCK_RECORDS;
                self.delivery.evict(&full.collect::<Vec<_>>(), usize::from(input.byte() % 3));
            }
            7 => self.delivery.retry_now(self.now_ms),
            8 => self.delivery.retry_apart(),
            9 => {
                let blocks = self.blocks_apart();
                self.delivery.dead_letter_apart(&blocks, usize::from(input.byte() % 3));
            }
            10 if input.byte() == 0 => self.restart(),
            10 | 11 => {
                if let Some(batch) = self.any_in_flight(input) {
                    self.delivery.first_byte(batch, input.is(), self.now_ms);
                }
            }
            _ => {
                if let Some(batch) = self.any_in_flight(input) {
                    let ended = ended(batch, input);
                    return self.end(ended);
                }
            }
        }
        self.look(None);
    }

    fn push(&mut self, count: u32) {
        for _ in 0..count {
            let index = self.records.len() as u32;
            let block = index / BLOCK_RECORDS;
            let record = Record { block, index, bytes: 100, accepted_ms: self.now_ms };
            self.delivery.push(record);
            self.records.push(Known { record, settled: None, is_ambiguous: false });
            self.pending += 1;
        }
    }

    /// As the engine does after a panic of its own.
    fn restart(&mut self) {
        self.delivery.restart(self.now_ms);
        self.in_flight.clear();
        self.apart.clear();
        for known in self.records.iter_mut().filter(|known| known.settled.is_none()) {
            known.is_ambiguous = false; // What was is the engine's to remember.
            self.delivery.push(known.record);
        }
    }

    /// Blocks that only records hold that are set apart.
    fn blocks_apart(&self) -> Vec<u32> {
        let pending = |block: u32| {
            let records = self.records.iter().filter(move |known| known.record.block == block);
            records.filter(|known| known.settled.is_none()).map(|known| known.record.index)
        };
        let full = 0..self.records.len() as u32 / BLOCK_RECORDS;
        full.filter(|block| pending(*block).all(|index| self.apart.contains(&index))).collect()
    }

    fn any_in_flight(&self, input: &mut Input<'_>) -> Option<BatchId> {
        let mut batches: Vec<_> = self.in_flight.keys().copied().collect();
        batches.sort_unstable();
        let place = usize::from(input.byte()).checked_rem(batches.len())?;
        Some(batches[place])
    }

    fn end(&mut self, ended: Ended) {
        let records = self.in_flight.remove(&ended.batch).expect("it is in flight");
        if ended.verdict.is_ambiguous() {
            for record in &records {
                self.records[record.index as usize].is_ambiguous = true;
            }
        }
        let verdict = ended.verdict;
        self.delivery.ended(ended, self.now_ms, &self.contents);
        self.look(Some((verdict, &records)));
    }

    /// Lets the machine go on, and compares.
    fn look(&mut self, ended: Option<(Verdict, &[Record])>) {
        self.settle(ended);
        // What was on a connection that is left at once has no answer.
        let delivery = &self.delivery;
        self.in_flight
            .retain(|id, _| delivery.batch(*id).is_some_and(|batch| batch.flight().is_some()));
        self.delivery.advance(self.now_ms);
        while let Some(send) = self.delivery.next_send(self.now_ms, &self.contents) {
            let batch = self.delivery.batch(send.batch).expect("it was sent a moment ago");
            assert!(!batch.records.is_empty(), "a request without events");
            for record in &batch.records {
                let known = &self.records[record.index as usize];
                assert_eq!(known.settled, None, "{record:?} is sent after its end");
                let is_elsewhere = self.in_flight.values().flatten().any(|other| other == record);
                assert!(!is_elsewhere, "{record:?} is in flight twice");
            }
            let is_new = self.in_flight.insert(send.batch, batch.records.clone()).is_none();
            assert!(is_new, "{send:?} is in flight already");
        }
        self.settle(None);
        let places = self.delivery.whereabouts();
        let found = places.unsent + places.in_flight + places.retrying + places.set_apart;
        assert_eq!(found, self.pending, "{places:?}");
        let in_flight: usize = self.in_flight.values().map(Vec::len).sum();
        // What is set apart and being tried counts as set apart.
        assert!(places.in_flight <= in_flight as u64, "{places:?}");
    }

    fn settle(&mut self, ended: Option<(Verdict, &[Record])>) {
        self.delivery.take_renewals();
        self.delivery.take_notices();
        for (span, is_apart) in self.delivery.take_apart_changes() {
            for index in span.first..span.first + span.count {
                if is_apart {
                    self.apart.insert(index);
                } else {
                    self.apart.remove(&index);
                }
            }
        }
        for settlement in self.delivery.take_settlements() {
            let (span, outcome) = (settlement.span, settlement.outcome);
            for index in span.first..span.first + span.count {
                let known = &mut self.records[index as usize];
                assert_eq!(known.record.block, span.block);
                assert_eq!(known.settled, None, "{index} is settled twice: {outcome:?}");
                known.settled = Some(outcome);
                self.pending -= 1;
                self.apart.remove(&index);
                let is_in_flight = self.in_flight.values().flatten().any(|it| it.index == index);
                assert!(!is_in_flight, "{index} is settled in flight: {outcome:?}");
                if outcome.is_delivered() {
                    let (verdict, records) = ended.expect("an answer delivers");
                    assert!(verdict.is_success() && records.iter().any(|it| it.index == index));
                } else if known.is_ambiguous {
                    assert!(settlement.doubt.is_ambiguous, "{index} may be stored: {outcome:?}");
                }
            }
        }
    }

    /// From now on everything is stored.
    fn drain(&mut self) {
        self.look(None);
        let mut steps = 0;
        while self.pending > 0 {
            let mut batches: Vec<_> = self.in_flight.keys().copied().collect();
            batches.sort_unstable();
            for batch in
                batches.into_iter().filter(|it| self.in_flight.contains_key(it)).collect::<Vec<_>>()
            {
                if self.in_flight.contains_key(&batch) {
                    self.end(Ended {
                        batch,
                        verdict: Verdict::Stored,
                        status: 201,
                        ids: Ids::Ours,
                        reason: None,
                    });
                }
            }
            if self.in_flight.is_empty() && self.pending > 0 {
                let next_ms = self.delivery.next_ms();
                let next_ms = next_ms.expect("what is pending has a time, or is in flight");
                self.now_ms = next_ms.max(self.now_ms + 1);
                self.look(None);
            }
            steps += 1;
            assert!(steps < STEPS_MAX, "{} never leave: {:?}", self.pending, self.delivery);
        }
    }
}

/// Any end of a request that the verdict can give.
fn ended(batch: BatchId, input: &mut Input<'_>) -> Ended {
    let number = |input: &mut Input<'_>| input.is().then(|| u32::from(input.byte()));
    let (status, verdict) = match input.byte() % 16 {
        0..=3 => (201, Verdict::Stored),
        4 => (202, Verdict::Queued),
        5 => (400, Verdict::TooBig { limit: number(input).filter(|limit| *limit > 0) }),
        6 | 7 => (400, Verdict::Refused { index: number(input), why: Why::Invalid }),
        8 if input.is() => (400, Verdict::Refused { index: number(input), why: Why::TooOld }),
        8 => (409, Verdict::Refused { index: number(input), why: Why::IdConflict }),
        9 => (503, Verdict::Overloaded { after_ms: input.is().then(|| input.time_ms()) }),
        10 => (500, Verdict::ServerError),
        11 => (401, Verdict::Unauthorized),
        12 if input.is() => (200, Verdict::Misrouted { is_ambiguous: true }),
        12 => (404, Verdict::Misrouted { is_ambiguous: false }),
        13 if input.is() => (201, Verdict::Unreadable),
        13 => (0, Verdict::NotConnected),
        14 if input.is() => (0, Verdict::Skipped),
        14 => (0, Verdict::NotProcessed),
        _ => (0, Verdict::NoAnswer { is_timeout: input.is() }),
    };
    let ids = match input.byte() % 4 {
        _ if status == 0 => Ids::Unchecked,
        0 => Ids::Unchecked,
        1 => Ids::Ours,
        2 => Ids::Absent,
        _ => Ids::Others,
    };
    Ended { batch, verdict, status, ids, reason: None }
}

const BLOCK_RECORDS: u32 = 8;
const NOW_US: i64 = 1_800_000_000_000_000;
/// More than it takes to store them one by one, each after its pause.
const STEPS_MAX: u32 = 100_000;
