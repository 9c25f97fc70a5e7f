//! Servers that behave in some way, in virtual time, and what the machine makes of them.
//!
//! One millisecond a step: records are pushed, what is sent reaches the server, and its answers
//! come back when it gives them. The oracle is the server's own list of what it stored.

use std::cell::Cell;
use std::collections::{BTreeSet, HashSet};
use std::rc::Rc;

use bytes::Bytes;
use ledgerline_transport::Answer;

use super::*;
use crate::sink::http::verdict::{Verdict, judge, reason};

/// How a server behaves: at `now_ms`, with so many requests on the way to it, this one included.
pub(super) type Behaviour = Box<dyn FnMut(u64, usize, &[u32]) -> Reaction>;

/// What a server does about a request.
pub(super) enum Reaction {
    /// Stores it, and answers after so long.
    Store(u64),
    /// Answers with this status after so long, as a problem if a place is given.
    Refuse(u16, u64, Option<u32>),
    /// Asks to be left alone, with seconds.
    Later(u16, u64),
    /// Stores it, and the answer is lost after so long.
    StoreAndVanish(u64),
    /// Never answers; the client gives up after so long.
    Silent(u64),
    /// No connection can be made.
    Unreachable,
    /// Refuses it with this problem document after so long.
    Problem(String, u64),
    /// Stores it, and lists these ids after so long.
    List(Ids, u64),
    /// Answers with this status and body, as JSON, after so long.
    Say(u16, &'static str, u64),
}

/// Which connection a request came by: its slot, and how often that was connected.
pub(super) type Socket = Rc<Cell<(usize, u64)>>;

pub(super) struct Simulation {
    pub(super) delivery: Delivery,
    pub(super) now_ms: u64,
    server: Behaviour,
    /// Answers on the way.
    coming: Vec<Coming>,
    /// The one by which the server is asked.
    pub(super) socket: Socket,
    /// Of each connection, how often it was made, and whether it is to be made anew.
    connections: HashMap<usize, (u64, bool)>,
    pub(super) renewals: Vec<(u64, Renewal)>,
    pub(super) notices: Vec<Notice>,
    pub(super) pushed: u32,
    pub(super) stored: Vec<u32>,
    pub(super) settled: HashMap<Outcome, Vec<u32>>,
    pub(super) in_flight_max: usize,
    pub(super) requests: u64,
    /// The type of each event, and when it happened.
    pub(super) contents: Numbered,
    /// What is set apart, as far as it was told.
    pub(super) apart: HashSet<u32>,
}

/// The end of a request on its way.
struct Coming {
    at_ms: u64,
    batch: BatchId,
    connection: usize,
    /// What is stored by it.
    stored: Vec<u32>,
    end: End,
}

enum End {
    Answer(Answer, Ids),
    Failure(Verdict),
}

/// What is to be known of events from their numbers.
pub(super) struct Numbered {
    pub(super) event_type: fn(u32) -> u32,
    pub(super) timestamp_us: fn(u32) -> i64,
}

impl Contents for Numbered {
    fn event_type<T>(&self, record: &Record, read: impl FnOnce(&str) -> T) -> T {
        read(&format!("type-{}", (self.event_type)(record.index)))
    }

    fn timestamp_us(&self, record: &Record) -> i64 {
        (self.timestamp_us)(record.index)
    }

    fn now_us(&self) -> i64 {
        NOW_US
    }
}

impl Simulation {
    pub(super) fn new(limits: Limits, server: Behaviour) -> Self {
        let delivery = Delivery::new(limits, 0, fastrand::Rng::with_seed(11));
        Self {
            delivery,
            now_ms: 0,
            server,
            coming: Vec::new(),
            socket: Socket::default(),
            connections: HashMap::new(),
            renewals: Vec::new(),
            notices: Vec::new(),
            pushed: 0,
            stored: Vec::new(),
            settled: HashMap::new(),
            in_flight_max: 0,
            requests: 0,
            contents: Numbered { event_type: |_| 0, timestamp_us: |_| NOW_US },
            apart: HashSet::new(),
        }
    }

    /// Lets so much time pass, with so many new events a millisecond.
    pub(super) fn run(&mut self, for_ms: u64, events_per_ms: u32) -> &mut Self {
        let end_ms = self.now_ms + for_ms;
        self.in_flight_max = 0;
        while self.now_ms < end_ms {
            let next_ms = if events_per_ms > 0 { Some(0) } else { self.next_ms() };
            self.now_ms = next_ms.unwrap_or(end_ms).clamp(self.now_ms + 1, end_ms);
            for _ in 0..events_per_ms {
                let (index, accepted_ms) = (self.pushed, self.now_ms);
                let block = index / BLOCK_RECORDS;
                self.delivery.push(Record { block, index, bytes: 700, accepted_ms });
                self.pushed += 1;
            }
            self.step();
        }
        self
    }

    /// Makes room for as many blocks, the oldest first, as far as they are full.
    pub(super) fn evict(&mut self, blocks: usize) {
        let full: Vec<_> = (0..self.pushed / BLOCK_RECORDS).collect();
        self.delivery.evict(&full, blocks);
        self.step();
    }

    /// Lets time pass until nothing is left, from one moment at which something happens to the
    /// next.
    pub(super) fn drain(&mut self) -> &mut Self {
        let end_ms = self.now_ms + 1_000_000;
        self.step();
        while self.delivery.whereabouts() != Whereabouts::default() && self.now_ms < end_ms {
            self.now_ms = self.next_ms().expect("something is left").max(self.now_ms + 1);
            self.step();
        }
        self
    }

    /// When something happens next.
    fn next_ms(&self) -> Option<u64> {
        let coming_ms = self.coming.iter().map(|it| it.at_ms).min();
        self.delivery.next_ms().into_iter().chain(coming_ms).min()
    }

    fn step(&mut self) {
        self.delivery.advance(self.now_ms);
        self.delivery.expire(self.now_ms);
        let (due, coming): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.coming).into_iter().partition(|it| it.at_ms <= self.now_ms);
        self.coming = coming;
        let mut due = due.into_iter();
        while let Some(Coming { batch, stored, end, .. }) = due.next() {
            self.stored.extend(stored);
            let events = self.delivery.batch(batch).map_or(0, |it| it.records.len());
            let ended = match end {
                End::Answer(answer, ids) => {
                    let verdict = judge(&answer, events);
                    let reason = Some(Arc::new(reason(&answer)));
                    Ended { batch, verdict, status: answer.status, ids, reason }
                }
                End::Failure(verdict) => {
                    Ended { batch, verdict, status: 0, ids: Ids::Unchecked, reason: None }
                }
            };
            self.delivery.ended(ended, self.now_ms, &self.contents);
            let left = self.renew();
            due = due.filter(|it| !left.contains(&it.connection)).collect::<Vec<_>>().into_iter();
        }
        let mut sent = 0;
        while let Some(send) = self.delivery.next_send(self.now_ms, &self.contents) {
            self.renew();
            self.requests += 1;
            sent += 1;
            assert!(sent < 100_000, "it sends without an end");
            self.send(send);
        }
        self.renew();
        self.settle();
        self.assert_apart();
    }

    /// Leaves connections; those that are left at once, with what was on the way on them, which may
    /// be stored.
    fn renew(&mut self) -> Vec<usize> {
        let mut left = Vec::new();
        for renewal in self.delivery.take_renewals() {
            self.renewals.push((self.now_ms, renewal));
            self.connections.entry(renewal.connection).or_default().1 = true;
            if renewal.is_at_once {
                left.push(renewal.connection);
                self.coming.retain(|it| it.connection != renewal.connection);
            }
        }
        left
    }

    fn settle(&mut self) {
        self.notices.extend(self.delivery.take_notices());
        for (span, is_apart) in self.delivery.take_apart_changes() {
            for event in span.first..span.first + span.count {
                if is_apart {
                    self.apart.insert(event);
                } else {
                    self.apart.remove(&event);
                }
            }
        }
        for settlement in self.delivery.take_settlements() {
            let span = settlement.span;
            let events = self.settled.entry(settlement.outcome).or_default();
            events.extend(span.first..span.first + span.count);
            for event in span.first..span.first + span.count {
                self.apart.remove(&event);
            }
        }
    }

    /// What was said to be set apart is what the machine has set apart.
    fn assert_apart(&self) {
        let (must, may) = self.delivery.apart_records();
        if self.apart.is_empty() && must.is_empty() {
            return;
        }
        let apart: BTreeSet<u32> = self.apart.iter().copied().collect();
        assert!(apart.is_superset(&must), "{:?} was not told of", must.difference(&apart));
        let other: Vec<_> = apart.difference(&must).filter(|it| !may.contains(it)).collect();
        assert!(other.is_empty(), "{other:?} is no longer set apart, at {}", self.now_ms);
    }

    fn send(&mut self, Send { batch, connection }: Send) {
        let batch_of = self.delivery.batch(batch).expect("it was just sent");
        let events: Vec<_> = batch_of.records.iter().map(|record| record.index).collect();
        let in_flight = self.coming.len() + 1;
        let bytes = self.delivery.in_flight_bytes();
        assert!(in_flight == 1 || bytes <= self.delivery.limits.in_flight_bytes_max, "{bytes}");
        self.in_flight_max = self.in_flight_max.max(in_flight);
        let is_busy = self.coming.iter().any(|it| it.connection == connection);
        let (number, is_left) = self.connections.entry(connection).or_insert((0, true));
        let is_fresh = *is_left && !is_busy;
        if is_fresh {
            (*number, *is_left) = (*number + 1, false);
        }
        self.socket.set((connection, *number));
        let reaction = (self.server)(self.now_ms, in_flight, &events);
        let is_reached = !matches!(reaction, Reaction::Unreachable);
        let lost = |is_timeout| End::Failure(Verdict::NoAnswer { is_timeout });
        let said = |answer| End::Answer(answer, Ids::Ours);
        let (after_ms, stored, end) = match reaction {
            Reaction::Store(after_ms) => (after_ms, events, said(answer(201, None, None))),
            Reaction::List(ids, after_ms) => {
                (after_ms, events, End::Answer(answer(201, None, None), ids))
            }
            Reaction::Refuse(status, after_ms, index) => {
                (after_ms, Vec::new(), said(answer(status, index, None)))
            }
            Reaction::Later(status, seconds) => {
                (1, Vec::new(), said(answer(status, None, Some(seconds))))
            }
            Reaction::Say(status, body, after_ms) => {
                let answer = Answer { body: Bytes::from(body), ..answer(status, None, None) };
                (after_ms, Vec::new(), said(answer))
            }
            Reaction::Problem(body, after_ms) => {
                let answer = Answer { body: Bytes::from(body), ..answer(400, None, None) };
                (after_ms, Vec::new(), said(answer))
            }
            Reaction::StoreAndVanish(after_ms) => (after_ms, events, lost(false)),
            Reaction::Silent(after_ms) => (after_ms, Vec::new(), lost(true)),
            Reaction::Unreachable => (1, Vec::new(), End::Failure(Verdict::NotConnected)),
        };
        if is_reached {
            self.delivery.first_byte(batch, is_fresh, self.now_ms);
        }
        let at_ms = self.now_ms + after_ms;
        self.coming.push(Coming { at_ms, batch, connection, stored, end });
    }

    pub(super) fn dead(&self) -> usize {
        self.settled.get(&Outcome::DeadLettered).map_or(0, Vec::len)
    }

    /// Every event is stored once, but for so many dead letters.
    pub(super) fn assert_delivered(&mut self, dead: usize) {
        self.stored.sort_unstable();
        let count = self.stored.len();
        self.stored.dedup();
        assert_eq!(self.stored.len(), count, "stored twice");
        assert_eq!((self.dead(), count + dead), (dead, self.pushed as usize));
        assert_eq!(self.delivery.whereabouts(), Whereabouts::default());
    }
}

fn answer(status: u16, index: Option<u32>, retry_after: Option<u64>) -> Answer {
    let is_problem = matches!(status, 400 | 422);
    let content_type = if is_problem { "application/problem+json" } else { "application/json" };
    Answer {
        content_type: Some(content_type.to_owned()),
        retry_after: retry_after.map(|seconds| seconds.to_string()),
        body: Bytes::from(index.map_or(String::new(), |index| format!("{{\"index\":{index}}}"))),
        ..Answer::new(status)
    }
}

pub(super) fn limits() -> Limits {
    Limits {
        batch_events_max: 500,
        batch_bytes_max: 4 << 20,
        flush_interval_ms: 100,
        retries_max: None,
        give_up_after_ms: None,
        retry_delay_min_ms: 100,
        retry_delay_max_ms: 30_000,
        request_timeout_ms: 20_000,
        connections_max: 16,
        pipeline_depth_max: 1,
        in_flight_bytes_max: 32 << 20,
    }
}

/// As if every so many records were a block of their own.
const BLOCK_RECORDS: u32 = 300;

/// The wall clock stands still.
pub(super) const NOW_US: i64 = 1_800_000_000_000_000;

pub(super) fn place_of(event: u32, events: &[u32]) -> Option<u32> {
    events.iter().position(|it| *it == event).map(|place| place as u32)
}
