//! Servers that refuse events or types of events, and what is on the way to them.

use std::cell::RefCell;
use std::rc::Rc;

use super::lateness::Cause;
use super::simulation::{NOW_US, Reaction, Simulation, limits, place_of};
use super::*;

/// What a server was asked: when, with which events.
type Asked = Rc<RefCell<Vec<(u64, Vec<u32>)>>>;

fn six_types(event: u32) -> u32 {
    event % 6
}

/// A server of events of six types, which notes what it is asked.
fn server(mut react: impl FnMut(u64, &[u32]) -> Reaction + 'static) -> (Simulation, Asked) {
    let asked = Asked::default();
    let noted = Rc::clone(&asked);
    let behaviour = move |now_ms, _, events: &[u32]| {
        noted.borrow_mut().push((now_ms, events.to_vec()));
        react(now_ms, events)
    };
    let mut simulation = Simulation::new(limits(), Box::new(behaviour));
    simulation.contents.event_type = six_types;
    (simulation, asked)
}

fn refuse() -> Reaction {
    Reaction::Refuse(400, 5, None)
}

#[test]
fn a_named_event_goes_alone_and_its_type_is_not_suspected() {
    let (mut simulation, asked) = server(|_, events| match place_of(250, events) {
        Some(place) => Reaction::Refuse(400, 5, Some(place)),
        None => Reaction::Store(5),
    });
    simulation.run(1, 500).run(50, 0);
    assert!(simulation.delivery.suspects.is_empty());
    simulation.assert_delivered(1);
    let sizes: Vec<_> = asked.borrow().iter().map(|(_, events)| events.len()).collect();
    assert_eq!(sizes, [500, 1, 499]);
}

#[test]
fn refused_types_are_set_apart_and_the_others_stored_in_time() {
    let (mut simulation, asked) = server(|now_ms, events| {
        let is_refused = now_ms < 60_000 && events.iter().any(|event| event % 6 < 2);
        if is_refused { refuse() } else { Reaction::Store(5) }
    });
    simulation.run(10_000, 1).run(4_000, 0);
    let others = simulation.stored.iter().filter(|event| **event % 6 > 1).count();
    assert_eq!(others as u32, (0..simulation.pushed).filter(|event| event % 6 > 1).count() as u32);
    let dead = simulation.dead();
    assert!(dead <= 2 * 20, "{dead}");
    let pending = simulation.pushed as usize - others - dead;
    assert_eq!(simulation.apart.len(), pending, "all that is left is set apart");
    assert_eq!(simulation.delivery.unavailable(), None);
    // Each type is tried at pauses that grow to ten seconds.
    simulation.run(40_000, 0);
    for of_type in 0..2 {
        let times = asked.borrow();
        let tries =
            times.iter().filter(|(at_ms, events)| *at_ms > 14_000 && events[0] % 6 == of_type);
        let tries: Vec<_> = tries.map(|(at_ms, _)| *at_ms).collect();
        assert!((3..12).contains(&tries.len()), "{tries:?}");
        let last = tries.windows(2).last().map(|pair| pair[1] - pair[0]);
        assert!(last.is_some_and(|pause| (10_000..10_100).contains(&pause)), "{tries:?}");
    }
    let apart = |it: &&Notice| matches!(it, Notice::SetApart { .. });
    assert_eq!(simulation.notices.iter().filter(apart).count(), 2);
    simulation.drain().assert_delivered(dead);
    let taken = |it: &&Notice| matches!(it, Notice::Taken { .. });
    assert_eq!(simulation.notices.iter().filter(taken).count(), 2);
    assert!(simulation.delivery.suspects.is_empty());
}

#[test]
fn a_server_that_refuses_every_type_is_probed_by_turns_and_sets_nothing_apart() {
    let (mut simulation, asked) = server(|now_ms, events| match now_ms {
        0..15_000 => refuse(),
        // Then two types, for a while.
        15_000..20_000 if events.iter().any(|event| event % 6 < 2) => refuse(),
        _ => Reaction::Store(5),
    });
    simulation.run(14_900, 1);
    assert_eq!(simulation.delivery.unavailable(), Some(Cause::Rejecting));
    assert!(simulation.apart.is_empty() && simulation.notices.is_empty());
    let dead = simulation.dead();
    assert!(dead <= 20, "{dead}");
    let late: Vec<_> =
        asked.borrow().iter().filter(|it| it.0 > 8_000).map(|it| (it.0, it.1[0] % 6)).collect();
    for pair in late.windows(2) {
        let [(at_ms, of_type), (next_ms, next_type)] = [pair[0], pair[1]];
        assert!(next_ms - at_ms <= 1_010, "{late:?}");
        assert_ne!(of_type, next_type, "{late:?}");
    }
    simulation.run(5_000, 0);
    assert_eq!(simulation.delivery.unavailable(), None, "it stores something");
    let others = (0..simulation.pushed).filter(|event| event % 6 > 1).count();
    let stored = simulation.stored.iter().filter(|event| **event % 6 > 1).count();
    assert!(others - stored <= 20, "{} are late", others - stored);
    simulation.drain();
    assert!(simulation.dead() <= dead + 2 * 20, "{}", simulation.dead());
}

#[test]
fn a_few_bad_events_of_each_type_are_dead_letters_and_no_type_is_set_apart() {
    for is_named in [true, false] {
        let (mut simulation, _) =
            server(move |_, events| match events.iter().find(|event| *event % 101 == 7) {
                Some(bad) => Reaction::Refuse(400, 5, place_of(*bad, events).filter(|_| is_named)),
                None => Reaction::Store(5),
            });
        simulation.run(20_000, 1).drain();
        let bad = (0..simulation.pushed).filter(|event| event % 101 == 7).count();
        simulation.assert_delivered(bad);
        assert!(simulation.notices.is_empty(), "{:?}", simulation.notices);
    }
}

#[test]
fn more_types_than_the_table_has_are_kept_as_others() {
    let (mut simulation, _) = server(|now_ms, events| {
        let is_refused = now_ms < 60_000 && events.iter().any(|event| event % 80 > 9);
        if is_refused { refuse() } else { Reaction::Store(5) }
    });
    simulation.contents.event_type = |event| event % 80;
    simulation.run(10_000, 1).run(10_000, 0);
    assert!(!simulation.stored.is_empty(), "those of types that are taken");
    assert!(simulation.delivery.set_apart().len() <= 64);
    simulation.run(41_000, 0);
    let dead = simulation.dead();
    assert!(dead <= 70 * 20, "{dead}");
    simulation.drain().assert_delivered(dead);
}

#[test]
fn suspected_types_have_a_quarter_of_the_window_while_others_wait() {
    let (mut simulation, _) =
        server(|_, events| match events.iter().any(|event| event % 6 < 4 && event % 101 == 7) {
            true => Reaction::Refuse(400, 100, None),
            false => Reaction::Store(100),
        });
    let (mut most, mut widest) = (0, 0);
    for _ in 0..2_000 {
        simulation.run(1, 120);
        let batches = simulation.delivery.batches.values();
        let theirs = batches
            .filter(|batch| batch.flight().is_some())
            .filter(|batch| matches!(batch.role, Role::Suspect(_)));
        let count = theirs.count();
        if simulation.now_ms > 1_000 {
            most = most.max(count);
        }
        widest = widest.max(simulation.delivery.window.limit());
    }
    assert!((1..=(widest / 4).max(1)).contains(&most), "{most} of {widest}");
}

#[test]
fn wrong_names_mislead_once_a_type_and_not_at_each_try() {
    for types in [1, 6] {
        let (mut simulation, asked) = server(|_, events| match events.contains(&250) {
            true if events.len() > 1 => Reaction::Refuse(422, 5, Some(0)),
            true => Reaction::Refuse(422, 5, None),
            false => Reaction::Store(5),
        });
        simulation.contents.event_type = if types == 1 { |_| 0 } else { six_types };
        simulation.run(1, 500).drain().assert_delivered(1);
        let requests = asked.borrow().len();
        assert!(requests <= 26, "{requests} requests for one event of {types} types");
    }
}

#[test]
fn what_holds_a_named_event_does_not_hold_its_neighbours() {
    let (mut simulation, _) = server(|now_ms, events| match place_of(3, events) {
        Some(_) if events.len() == 1 && now_ms < 60_000 => Reaction::Refuse(500, 5, None),
        Some(place) if now_ms < 60_000 => Reaction::Refuse(400, 5, Some(place)),
        _ => Reaction::Store(5),
    });
    simulation.run(1, 10);
    simulation.run(1_000, 0);
    assert_eq!(simulation.stored.len(), 9);
    simulation.drain().assert_delivered(0);
}

/// Of a firewall on the way, or of a server that fails over one event.
#[test]
fn an_event_that_does_not_get_through_is_held_alone() {
    for status in [403, 404, 500, 502] {
        let (mut simulation, asked) = server(move |now_ms, events| {
            let is_hit = now_ms < 300_000 && events.contains(&1_000);
            if is_hit { Reaction::Refuse(status, 5, None) } else { Reaction::Store(5) }
        });
        simulation.run(10_000, 1).run(1_000, 0);
        assert_eq!(simulation.stored.len(), simulation.pushed as usize - 1, "{status}");
        assert_eq!(simulation.apart.iter().copied().collect::<Vec<_>>(), [1_000], "{status}");
        assert!(matches!(simulation.notices[..], [Notice::Parked { .. }]), "{status}");
        // Nothing else is sent for a long time: it says nothing of the server.
        for _ in 0..200 {
            simulation.run(1_000, 0);
            assert_eq!(simulation.delivery.unavailable(), None, "{status}");
        }
        let asked = asked.borrow().clone();
        let alone: Vec<_> = asked.iter().filter(|it| it.1 == [1_000]).map(|it| it.0).collect();
        let pauses: Vec<_> = alone.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.iter().all(|pause| (1_000..=60_100).contains(pause)), "{pauses:?}");
        assert!(pauses.iter().any(|pause| *pause >= 32_000), "{pauses:?}");
        simulation.drain().assert_delivered(0);
    }
}

#[test]
fn a_batch_that_meets_an_overloaded_server_is_not_divided() {
    for status in [401, 408, 429, 503] {
        let (mut simulation, asked) = server(move |now_ms, events| {
            let is_hit = now_ms < 30_000 && events.contains(&1_000);
            if is_hit { Reaction::Refuse(status, 5, None) } else { Reaction::Store(5) }
        });
        simulation.run(30_000, 1);
        let asked = asked.borrow();
        let mut with: Vec<_> = asked.iter().filter(|it| it.1.contains(&1_000)).collect();
        let first = with.remove(0);
        assert!(with.len() >= 3, "{status}");
        assert!(with.iter().all(|it| it.1.len() == first.1.len()), "{status}");
        assert!(simulation.apart.is_empty());
    }
}

fn old_below_400(event: u32) -> i64 {
    let days = if event < 400 { 8 } else { 0 };
    NOW_US - days * 24 * 3_600 * 1_000_000 - i64::from(event)
}

fn too_old(place: u32) -> Reaction {
    Reaction::Problem(format!(r#"{{"reason":"too_old","index":{place}}}"#), 5)
}

#[test]
fn events_too_old_leave_together_and_the_fresh_ones_pass() {
    let (mut simulation, asked) =
        server(|_, events| match events.iter().position(|event| *event < 400) {
            Some(place) => too_old(place as u32),
            None => Reaction::Store(5),
        });
    simulation.contents.timestamp_us = old_below_400;
    simulation.run(1, 1_000).run(500, 0);
    simulation.assert_delivered(400);
    let requests = asked.borrow().len();
    assert!(requests <= 8, "{requests}");
    assert!(simulation.delivery.suspects.is_empty());
    assert_eq!(simulation.delivery.refused_lately(), 0);
}

#[test]
fn an_event_that_is_old_by_one_clock_only_is_refused_as_any_other() {
    let (mut simulation, _) = server(|_, events| match place_of(7, events) {
        Some(place) => too_old(place),
        None => Reaction::Store(5),
    });
    simulation.run(1, 500).run(500, 0);
    simulation.assert_delivered(1);
    assert_eq!(simulation.settled[&Outcome::DeadLettered], [7]);
}

/// Also where those are of several types, which were sorted apart before.
#[test]
fn the_named_event_and_what_is_older_are_too_old_and_nothing_else() {
    let (mut simulation, _) = server(|_, events| {
        match events.iter().position(|event| (200..400).contains(event)) {
            // It takes a batch of so many types badly at first.
            _ if events.len() > 300 => refuse(),
            Some(place) => too_old(place as u32),
            None => Reaction::Store(5),
        }
    });
    simulation.contents.timestamp_us = old_below_400;
    simulation.run(1, 400).drain();
    let mut dead = simulation.settled.remove(&Outcome::DeadLettered).unwrap_or_default();
    dead.sort_unstable();
    assert!(dead.iter().all(|event| (200..400).contains(event)), "{dead:?}");
}

#[test]
fn events_too_old_end_at_a_server_that_was_suspected() {
    let (mut simulation, asked) = server(|now_ms, events| match now_ms {
        0..5_000 => refuse(),
        5_000..20_000 => match events.iter().position(|event| *event < 400) {
            Some(place) => too_old(place as u32),
            None => refuse(),
        },
        _ => Reaction::Store(5),
    });
    simulation.contents.timestamp_us = old_below_400;
    simulation.run(1, 2_000).run(5_000, 0);
    assert_eq!(simulation.delivery.unavailable(), Some(Cause::Rejecting));
    let before = asked.borrow().len();
    simulation.run(15_000, 0);
    let requests = asked.borrow().len() - before;
    assert!(requests < 200, "{requests} requests in 15 s");
    let dead = simulation.dead();
    simulation.drain().assert_delivered(dead);
}

#[test]
fn a_limit_that_the_server_names_is_asked_about_once_an_hour() {
    let refused = Rc::new(RefCell::new(0));
    let counted = Rc::clone(&refused);
    let react = move |_, _, events: &[u32]| {
        if events.len() <= 500 {
            return Reaction::Store(2);
        }
        *counted.borrow_mut() += 1;
        Reaction::Problem(r#"{"type":"batch-size-exceeded","limit":500}"#.to_owned(), 2)
    };
    let limits = Limits { batch_events_max: 1_000, ..limits() };
    let mut simulation = Simulation::new(limits, Box::new(react));
    for _ in 0..140 {
        simulation.run(1, 2_000).run(60_000, 0);
    }
    assert!((2..=6).contains(&*refused.borrow()), "{} in 140 minutes", refused.borrow());
    assert_eq!(simulation.delivery.counts().failed.total(), 0, "it is no failure");
    simulation.assert_delivered(0);
}

#[test]
fn slow_answers_make_batches_smaller_before_they_time_out() {
    let react = |_, _, events: &[u32]| Reaction::Store(events.len() as u64 * 25);
    let mut simulation = Simulation::new(limits(), Box::new(react));
    simulation.run(1, 2_000).run(60_000, 0);
    let bytes_max = simulation.delivery.learned.bytes_max();
    assert!(bytes_max <= 500 * 700 / 2 + 1, "{bytes_max}");
    simulation.drain().assert_delivered(0);
    assert_eq!(simulation.delivery.counts().failed.total(), 0);
}

#[test]
fn what_the_types_have_come_to_is_known_after_a_restart() {
    let mut suspects = Suspects::default();
    for _ in 0..19 {
        assert_eq!(suspects.refused_single("a.b.c", true), suspects::Single::DeadLetter);
        suspects.stored(0, None);
    }
    suspects.enter("a.b.c", 10);
    suspects.restart();
    assert!(suspects.is_empty());
    assert_eq!(suspects.refused_single("a.b.c", true), suspects::Single::Keep);
}

#[test]
fn a_type_with_few_bad_events_is_no_later_than_others_at_full_load() {
    let (mut simulation, _) = server(|now_ms, events| {
        let is_bad = |event: &u32| event % 1_000 == 600 && now_ms < 2_000;
        match events.iter().any(is_bad) {
            true => Reaction::Refuse(400, 100, None),
            false => Reaction::Store(100),
        }
    });
    simulation.run(8_000, 60);
    assert!(simulation.delivery.has_ordinary(), "it is still at its limit");
    assert!(simulation.delivery.suspects.is_empty(), "the type was stored for seconds");
    let dead = simulation.dead();
    simulation.drain().assert_delivered(dead);
}

/// A burst, and then nothing else that could be stored: a full buffer looks the same.
#[test]
fn the_server_is_not_suspected_when_only_refused_types_are_left() {
    for refused in [2, 5] {
        let (mut simulation, _) = server(move |_, events| {
            let is_refused = events.iter().any(|event| event % 6 < refused);
            if is_refused { refuse() } else { Reaction::Store(5) }
        });
        simulation.run(1, 1_200).run(60_000, 0);
        assert_eq!(simulation.delivery.unavailable(), None, "{refused} types");
        assert_eq!(simulation.stored.len() as u32, 200 * (6 - refused));
        let left = 200 * refused as usize - simulation.dead();
        assert_eq!(simulation.apart.len(), left, "{refused} types");
        assert!(simulation.dead() <= 20 * refused as usize, "{}", simulation.dead());
    }
}
