//! The machine in virtual time.

use super::{window::Window, *};
use crate::sink::http::verdict::Verdict;

const INTERVAL_MS: u64 = 100;

fn limits() -> Limits {
    Limits {
        batch_events_max: 10,
        batch_bytes_max: 1_001,
        flush_interval_ms: INTERVAL_MS,
        retries_max: None,
        give_up_after_ms: None,
        retry_delay_min_ms: 100,
        retry_delay_max_ms: 30_000,
        request_timeout_ms: 10_000,
        connections_max: 2,
        pipeline_depth_max: 2,
        in_flight_bytes_max: 32 << 20,
    }
}

/// A machine that has found out that the server takes as much as it may be sent.
fn machine(limits: Limits) -> Delivery {
    let mut delivery = Delivery::new(limits, 0, fastrand::Rng::with_seed(7));
    delivery.window = Window::open(64);
    delivery
}

/// `count` records of one block, accepted at `accepted_ms`, each of `bytes`.
fn push(delivery: &mut Delivery, first: u32, count: u32, accepted_ms: u64, bytes: u32) {
    for index in first..first + count {
        delivery.push(Record { block: 0, index, bytes, accepted_ms });
    }
}

fn sends(delivery: &mut Delivery, now_ms: u64) -> Vec<Send> {
    delivery.advance(now_ms);
    std::iter::from_fn(|| delivery.next_send(now_ms, &OneType)).collect()
}

fn events(delivery: &Delivery, send: &Send) -> u32 {
    delivery.batch(send.batch).unwrap().events()
}

/// Events of the first batch that is sent now.
fn first_events(delivery: &mut Delivery, now_ms: u64) -> u32 {
    let first = sends(delivery, now_ms)[0];
    events(delivery, &first)
}

/// Records of one type, as old as can be told from their place.
pub(super) struct OneType;

impl Contents for OneType {
    fn event_type<T>(&self, _: &Record, read: impl FnOnce(&str) -> T) -> T {
        read("a.b.c")
    }

    fn timestamp_us(&self, _: &Record) -> i64 {
        0
    }

    fn now_us(&self) -> i64 {
        0
    }
}

/// The request has ended like this.
fn end(delivery: &mut Delivery, batch: BatchId, verdict: Verdict, now_ms: u64) {
    end_with(delivery, batch, verdict, Ids::Unchecked, now_ms);
}

fn end_with(delivery: &mut Delivery, batch: BatchId, verdict: Verdict, ids: Ids, now_ms: u64) {
    let status = match verdict {
        Verdict::Stored => 201,
        Verdict::TooBig { .. } => 413,
        Verdict::Misrouted { .. } => 404,
        Verdict::ServerError => 500,
        _ => 0,
    };
    let ended = Ended { batch, verdict, status, ids, reason: None };
    delivery.ended(ended, now_ms, &OneType);
}

const TOO_BIG: Verdict = Verdict::TooBig { limit: None };
const NO_ANSWER: Verdict = Verdict::NoAnswer { is_timeout: false };

/// Lets time pass until the machine sends again, and says when that was.
fn next_send_ms(delivery: &mut Delivery) -> (u64, Send) {
    loop {
        let now_ms = delivery.next_ms().expect("a batch waits for its retry");
        if let [send] = sends(delivery, now_ms)[..] {
            return (now_ms, send);
        }
    }
}

#[test]
fn a_batch_is_cut_by_count_and_the_rest_waits_until_due() {
    let mut delivery = machine(limits());
    push(&mut delivery, 0, 25, 5, 10);
    let cut = sends(&mut delivery, 6);
    assert_eq!(cut.iter().map(|send| events(&delivery, send)).collect::<Vec<_>>(), [10, 10]);
    end(&mut delivery, cut[0].batch, Verdict::Stored, 7);
    end(&mut delivery, cut[1].batch, Verdict::Stored, 7);
    assert!(sends(&mut delivery, 104).is_empty());
    assert_eq!(delivery.next_ms(), Some(105));
    let rest = sends(&mut delivery, 105);
    assert_eq!(rest.iter().map(|send| events(&delivery, send)).collect::<Vec<_>>(), [5]);
}

#[test]
fn a_batch_is_cut_by_the_bytes_of_its_body() {
    let mut delivery = machine(limits());
    // Ten records are 1,000 bytes, and a body of 1,001 with its brackets and without one comma.
    push(&mut delivery, 0, 10, 0, 100);
    assert_eq!(first_events(&mut delivery, 1), 10);
    push(&mut delivery, 10, 10, 0, 101);
    assert_eq!(first_events(&mut delivery, 1), 9);
}

#[test]
fn a_record_longer_than_a_batch_goes_alone() {
    let mut delivery = machine(limits());
    push(&mut delivery, 0, 2, 0, 5_000);
    let cut = sends(&mut delivery, 1);
    assert_eq!(cut.iter().map(|send| events(&delivery, send)).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn a_flush_sends_at_once_what_is_not_due() {
    let mut delivery = machine(limits());
    push(&mut delivery, 0, 3, 0, 10);
    assert!(sends(&mut delivery, 1).is_empty());
    delivery.flush();
    assert_eq!(sends(&mut delivery, 1).len(), 1);
}

#[test]
fn the_oldest_record_of_any_lane_decides_when_all_are_due() {
    let mut delivery = machine(limits());
    push(&mut delivery, 0, 1, 90, 10);
    push(&mut delivery, 1, 1, 20, 10);
    assert_eq!(delivery.next_ms(), Some(120));
    assert_eq!(sends(&mut delivery, 120).len(), 1);
    assert_eq!(delivery.next_ms(), None);
}

#[test]
fn every_record_is_settled_once_by_an_answer_that_stores() {
    let mut delivery = machine(limits());
    push(&mut delivery, 0, 10, 0, 10);
    let send = sends(&mut delivery, 1)[0];
    end(&mut delivery, send.batch, Verdict::Stored, 2);
    let span = Span { block: 0, first: 0, count: 10 };
    let stored =
        Settlement { span, outcome: Outcome::Delivered, doubt: Doubt::default(), reason: None };
    assert_eq!(delivery.take_settlements(), [stored]);
    // A late or a second answer finds nothing to settle.
    end(&mut delivery, send.batch, Verdict::Stored, 3);
    end(&mut delivery, send.batch, NO_ANSWER, 3);
    assert!(delivery.take_settlements().is_empty());
}

#[test]
fn a_failed_batch_keeps_its_records_and_its_own_timer() {
    let mut delivery = machine(limits());
    push(&mut delivery, 0, 20, 0, 10);
    let cut = sends(&mut delivery, 1);
    for send in &cut {
        delivery.first_byte(send.batch, false, 1);
        end(&mut delivery, send.batch, Verdict::NotProcessed, 2);
    }
    let (first_ms, first) = next_send_ms(&mut delivery);
    let (second_ms, second) = next_send_ms(&mut delivery);
    assert_ne!(first.batch, second.batch);
    assert!(first_ms <= 102 && second_ms <= 102, "full jitter below 100 ms");
    assert_eq!(events(&delivery, &first), 10);
    assert_eq!(delivery.counts().possibly_duplicated, 0, "none of them was processed");
    assert!(delivery.take_settlements().is_empty());
}

#[test]
fn pauses_grow_with_full_jitter_up_to_their_bound() {
    let (limits, mut random) = (limits(), fastrand::Rng::with_seed(7));
    for (tries, bound_ms) in [(1, 100), (2, 200), (5, 1_600), (200, 30_000)] {
        let pauses = (0..1_000).map(|_| limits.retry_pause_ms(tries, &mut random));
        let (least, most) = pauses.fold((u64::MAX, 0), |it, ms| (it.0.min(ms), it.1.max(ms)));
        assert!(least < bound_ms / 10 && most > bound_ms * 9 / 10, "{least} to {most}");
        assert!(most <= bound_ms, "{most} of {bound_ms}");
    }
}

#[test]
fn an_endpoint_that_takes_nothing_is_asked_again_after_five_seconds_at_most() {
    let mut delivery = machine(limits());
    push(&mut delivery, 0, 10, 0, 10);
    let mut send = sends(&mut delivery, 1)[0];
    let (mut now_ms, mut longest_ms) = (1, 0);
    for attempt in 1..200 {
        end(&mut delivery, send.batch, Verdict::NotConnected, now_ms);
        let (next_ms, next) = next_send_ms(&mut delivery);
        let bound_ms = (100u64 << (attempt - 1).min(20)).min(5_000);
        assert!((1..=bound_ms).contains(&(next_ms - now_ms)), "attempt {attempt}");
        longest_ms = longest_ms.max(next_ms - now_ms);
        (now_ms, send) = (next_ms, next);
    }
    assert!(longest_ms > 4_000, "{longest_ms}");
}

#[test]
fn a_resend_after_an_unknown_outcome_is_counted_unless_ids_are_kept() {
    for (ids, duplicated) in [(Ids::Others, 10), (Ids::Absent, 10), (Ids::Ours, 0)] {
        let mut delivery = machine(limits());
        push(&mut delivery, 0, 10, 0, 10);
        let proof = sends(&mut delivery, 1)[0];
        end_with(&mut delivery, proof.batch, Verdict::Stored, ids, 2);
        push(&mut delivery, 10, 10, 0, 10);
        let send = sends(&mut delivery, 3)[0];
        end(&mut delivery, send.batch, NO_ANSWER, 4);
        let (now_ms, again) = next_send_ms(&mut delivery);
        end(&mut delivery, again.batch, NO_ANSWER, now_ms);
        next_send_ms(&mut delivery);
        assert_eq!(delivery.counts().possibly_duplicated, duplicated);
    }
}

#[test]
fn one_request_a_connection_until_the_server_keeps_our_ids() {
    let mut delivery = machine(limits());
    push(&mut delivery, 0, 60, 0, 10);
    let first = sends(&mut delivery, 1);
    assert_eq!(first.iter().map(|send| send.connection).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(delivery.id_check(first[0].batch), IdCheck::All);
    end_with(&mut delivery, first[0].batch, Verdict::Stored, Ids::Ours, 2);
    let more = sends(&mut delivery, 2);
    assert_eq!(more.iter().map(|send| send.connection).collect::<Vec<_>>(), [0, 0], "and not of 1");
    assert_eq!(delivery.id_check(more[0].batch), IdCheck::First, "checked a moment ago");
}

#[test]
fn nothing_is_put_behind_a_request_that_hangs() {
    let mut delivery = machine(limits());
    push(&mut delivery, 0, 10, 0, 10);
    let proof = sends(&mut delivery, 1)[0];
    end_with(&mut delivery, proof.batch, Verdict::Stored, Ids::Ours, 2);
    push(&mut delivery, 10, 10, 0, 10);
    let hanging = sends(&mut delivery, 3)[0];
    push(&mut delivery, 20, 30, 0, 10);
    let others = sends(&mut delivery, 1_000);
    assert!(others.iter().all(|send| send.connection != hanging.connection), "{others:?}");
    assert_eq!(others.len(), 1);
}

#[test]
fn a_batch_too_big_is_halved_until_it_fits() {
    let mut delivery = machine(limits());
    push(&mut delivery, 0, 10, 0, 10);
    let mut waiting = sends(&mut delivery, 1);
    let mut settled = Vec::new();
    while let Some(send) = waiting.pop() {
        let too_big = events(&delivery, &send) > 3;
        end(&mut delivery, send.batch, if too_big { TOO_BIG } else { Verdict::Stored }, 2);
        settled.extend(delivery.take_settlements());
        waiting.extend(sends(&mut delivery, 2));
    }
    let mut records: Vec<_> = settled
        .iter()
        .flat_map(|settlement| {
            assert_eq!(settlement.outcome, Outcome::Delivered);
            settlement.span.first..settlement.span.first + settlement.span.count
        })
        .collect();
    records.sort_unstable();
    assert_eq!(records, (0..10).collect::<Vec<_>>());
    push(&mut delivery, 10, 10, 2, 10);
    assert!(first_events(&mut delivery, 3) <= 3, "it has learned");
}

#[test]
fn a_misdirected_batch_is_held_however_often_it_is_answered() {
    let mut delivery = machine(limits());
    push(&mut delivery, 0, 10, 0, 10);
    let mut send = sends(&mut delivery, 1)[0];
    let mut now_ms = 1;
    for _ in 0..50 {
        end(&mut delivery, send.batch, Verdict::Misrouted { is_ambiguous: false }, now_ms);
        let (next_ms, next) = next_send_ms(&mut delivery);
        assert!((1_000..=91_000).contains(&(next_ms - now_ms)));
        (now_ms, send) = (next_ms, next);
    }
    assert!(delivery.take_settlements().is_empty());
}

#[test]
fn a_batch_is_given_up_only_after_the_configured_retries() {
    let mut delivery = machine(Limits { retries_max: Some(2), ..limits() });
    push(&mut delivery, 0, 10, 0, 10);
    let mut send = sends(&mut delivery, 1)[0];
    let mut now_ms = 1;
    for _ in 0..2 {
        end(&mut delivery, send.batch, NO_ANSWER, now_ms);
        assert!(delivery.take_settlements().is_empty());
        (now_ms, send) = next_send_ms(&mut delivery);
    }
    end(&mut delivery, send.batch, Verdict::NotConnected, now_ms);
    assert_eq!(delivery.take_settlements()[0].outcome, Outcome::GaveUp);
}

#[test]
fn the_time_without_a_free_connection_is_blocked_and_not_late() {
    let mut delivery = machine(Limits { connections_max: 1, ..limits() });
    push(&mut delivery, 0, 10, 0, 10);
    let slow = sends(&mut delivery, 1)[0];
    delivery.first_byte(slow.batch, false, 1);
    push(&mut delivery, 10, 5, 10, 10);
    assert!(sends(&mut delivery, 110).is_empty(), "due, and the only connection is busy");
    end(&mut delivery, slow.batch, Verdict::Stored, 400);
    let send = sends(&mut delivery, 400)[0];
    delivery.first_byte(send.batch, false, 403);
    assert_eq!(
        delivery.lateness().late_ms.max(),
        3,
        "only what passed after a connection was free"
    );
    assert_eq!(delivery.blocked_ms(500).of(Cause::ServerSlow), 290);
    assert_eq!(delivery.blocked_ms(500).of(Cause::NoConnection), 0);
}

#[test]
fn whereabouts_name_every_record() {
    let mut delivery = machine(limits());
    push(&mut delivery, 0, 23, 0, 10);
    let cut = sends(&mut delivery, 1);
    end(&mut delivery, cut[0].batch, NO_ANSWER, 2);
    let whereabouts = delivery.whereabouts();
    let expected = Whereabouts { in_flight: 10, retrying: 10, unsent: 3, set_apart: 0 };
    assert_eq!(whereabouts, expected);
    delivery.first_byte(cut[1].batch, false, 3);
    delivery.abandon(Outcome::Closed);
    let settled = delivery.take_settlements();
    let doubtful = settled.iter().filter(|it| it.doubt.is_ambiguous);
    assert_eq!(doubtful.map(|it| it.span.count).sum::<u32>(), 20, "the server may have seen it");
    assert_eq!(delivery.whereabouts().unsent, 3, "what was never sent stays");
}

#[test]
fn eviction_takes_the_oldest_blocks_that_are_not_on_their_way_whole_and_nothing_else() {
    let mut delivery = machine(Limits { connections_max: 1, ..limits() });
    // Ten records to a batch: blocks 0 and 1 share one, then 1 and 2, 3 and 4.
    for (block, first, count) in [(0, 0, 5), (1, 0, 10), (2, 0, 5), (3, 0, 5), (4, 0, 8)] {
        for index in first..first + count {
            let accepted_ms = u64::from(block);
            delivery.push(Record { block, index, bytes: 10, accepted_ms });
        }
    }
    delivery.flush();
    let first = sends(&mut delivery, 10)[0];
    delivery.first_byte(first.batch, false, 10);
    end(&mut delivery, first.batch, NO_ANSWER, 11);
    let second = sends(&mut delivery, 12)[0];
    delivery.evict(&[0, 1, 2, 3, 4], 2);
    let evicted: Vec<_> = delivery.take_settlements();
    assert!(evicted.iter().all(|settled| settled.outcome == Outcome::Evicted));
    let mut spans: Vec<_> = evicted
        .iter()
        .map(|it| (it.span.block, it.span.first, it.span.count, it.doubt.is_ambiguous))
        .collect();
    spans.sort_unstable();
    // Blocks 1 and 2 are on their way; of block 0's batch, block 1's records stay.
    assert_eq!(spans, [(0, 0, 5, true), (3, 0, 5, false)]);
    let whereabouts = delivery.whereabouts();
    assert_eq!(whereabouts, Whereabouts { in_flight: 10, retrying: 5, unsent: 8, set_apart: 0 });
    end(&mut delivery, second.batch, Verdict::Stored, 20);
    let mut left = 0;
    for now_ms in 20..2_000 {
        for send in sends(&mut delivery, now_ms) {
            left += delivery.batch(send.batch).expect("sent").events();
            end(&mut delivery, send.batch, Verdict::Stored, now_ms);
        }
    }
    assert_eq!(left, 13, "what was kept is delivered");
    assert_eq!(delivery.whereabouts(), Whereabouts::default());
}

#[test]
fn an_outage_is_probed_by_one_batch_at_a_time_and_the_others_grow() {
    let mut delivery = machine(limits());
    let (mut tries, mut next_index) = (0, 0);
    for now_ms in 0..20_000 {
        push(&mut delivery, next_index, 1, now_ms, 10);
        next_index += 1;
        for send in sends(&mut delivery, now_ms) {
            tries += 1;
            end(&mut delivery, send.batch, Verdict::NotConnected, now_ms);
        }
    }
    assert!((5..40).contains(&tries), "{tries} tries in 20 s");
    assert!(delivery.batches.len() <= 2, "records wait uncut: {}", delivery.batches.len());
    let blocked = delivery.blocked_ms(20_000);
    let of = |cause| blocked.of(cause);
    assert!(of(Cause::NoConnection) > 19_000 && of(Cause::ServerSlow) == 0, "{blocked:?}");
    // Back again: everything goes out at once, and none of the wait counts as late.
    let mut now_ms = 20_000;
    while delivery.whereabouts() != Whereabouts::default() {
        now_ms += 1;
        for send in sends(&mut delivery, now_ms) {
            delivery.first_byte(send.batch, false, now_ms);
            end_with(&mut delivery, send.batch, Verdict::Stored, Ids::Ours, now_ms);
        }
        delivery.flush();
    }
    assert_eq!(delivery.take_settlements().iter().map(|one| one.span.count).sum::<u32>(), 20_000);
    assert!(delivery.lateness().late_ms.max() <= 1, "{}", delivery.lateness().late_ms.max());
}

#[test]
fn idle_connections_do_not_hide_that_the_server_has_gone() {
    let mut delivery = machine(limits());
    push(&mut delivery, 0, 20, 0, 10);
    for send in sends(&mut delivery, 1) {
        delivery.first_byte(send.batch, false, 1);
        end_with(&mut delivery, send.batch, Verdict::Stored, Ids::Ours, 2);
    }
    let mut tries = 0;
    for now_ms in 10_000..30_000 {
        push(&mut delivery, 20 + now_ms as u32, 1, now_ms, 10);
        for send in sends(&mut delivery, now_ms) {
            tries += 1;
            end(&mut delivery, send.batch, Verdict::NotConnected, now_ms);
        }
    }
    assert!((5..40).contains(&tries), "{tries} tries in 20 s");
}

#[test]
fn a_request_that_no_server_looked_at_is_no_try() {
    let mut delivery = machine(Limits { retries_max: Some(0), ..limits() });
    push(&mut delivery, 0, 10, 0, 10);
    let send = sends(&mut delivery, 1)[0];
    delivery.first_byte(send.batch, false, 1);
    end(&mut delivery, send.batch, Verdict::Skipped, 2);
    assert_eq!(sends(&mut delivery, 2).len(), 1, "sent again at once");
    assert!(delivery.take_settlements().is_empty());
}

#[test]
fn nothing_follows_on_a_connection_whose_answers_come_late() {
    let mut delivery = machine(Limits { connections_max: 1, ..limits() });
    push(&mut delivery, 0, 10, 0, 10);
    let proof = sends(&mut delivery, 1)[0];
    end_with(&mut delivery, proof.batch, Verdict::Stored, Ids::Ours, 300);
    push(&mut delivery, 10, 30, 300, 10);
    assert_eq!(sends(&mut delivery, 301).len(), 1);
}

#[test]
fn one_event_that_is_too_big_does_not_make_the_other_batches_small() {
    let mut delivery = machine(limits());
    push(&mut delivery, 0, 10, 0, 10);
    let mut waiting = sends(&mut delivery, 1);
    while let Some(send) = waiting.pop() {
        let records = &delivery.batch(send.batch).unwrap().records;
        let has_culprit = records.iter().any(|record| record.index == 7);
        end(&mut delivery, send.batch, if has_culprit { TOO_BIG } else { Verdict::Stored }, 2);
        waiting.extend(sends(&mut delivery, 2));
    }
    let settled = delivery.take_settlements();
    let dead: Vec<_> = settled.iter().filter(|one| one.outcome == Outcome::DeadLettered).collect();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].span, Span { block: 0, first: 7, count: 1 });
    push(&mut delivery, 10, 10, 2, 10);
    assert!(first_events(&mut delivery, 103) >= 5, "what was stored may be sent again");
}

#[test]
fn larger_batches_are_tried_after_a_minute_and_again_a_minute_after_a_refusal() {
    let mut delivery = machine(Limits { batch_events_max: 2_000, ..limits() });
    delivery.limits.batch_bytes_max = 1_000_000;
    let mut now_ms = 1;
    let mut next_index = 0;
    for (at_ms, expected) in [(1, 500), (59_000, 500), (60_001, 2_000), (60_100, 1_000)] {
        now_ms = at_ms.max(now_ms);
        push(&mut delivery, next_index, 2_000, now_ms, 10);
        next_index += 2_000;
        let mut waiting = sends(&mut delivery, now_ms);
        assert_eq!(events(&delivery, &waiting[0]), expected, "at {at_ms} ms");
        while let Some(send) = waiting.pop() {
            let too_big = events(&delivery, &send) > 1_500;
            end(&mut delivery, send.batch, if too_big { TOO_BIG } else { Verdict::Stored }, now_ms);
            waiting.extend(sends(&mut delivery, now_ms));
        }
    }
}
