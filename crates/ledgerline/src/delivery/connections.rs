//! Servers that differ by connection, and what the machine makes of their answers.

use std::cell::Cell;
use std::rc::Rc;

use super::simulation::{Reaction, Simulation, Socket, limits};
use super::*;

/// A server that knows by which connection it is asked.
fn server(
    limits: Limits,
    mut react: impl FnMut(u64, (usize, u64)) -> Reaction + 'static,
) -> Simulation {
    let socket = Rc::new(Cell::new((0, 0)));
    let seen: Socket = Rc::clone(&socket);
    let behaviour = move |now_ms, _, _: &[u32]| react(now_ms, seen.get());
    let mut simulation = Simulation::new(limits, Box::new(behaviour));
    simulation.socket = socket;
    simulation
}

#[test]
fn a_connection_whose_answers_are_bad_is_left_once_a_second_at_most() {
    for status in [503, 500, 429, 404, 401] {
        // One of three servers behind one address, and each connection meets the next one.
        let react = move |_, (_, number): (usize, u64)| {
            let is_bad = number % 3 == 1;
            if is_bad { Reaction::Refuse(status, 5, None) } else { Reaction::Store(5) }
        };
        let limits = Limits { connections_max: 1, ..limits() };
        let mut simulation = server(limits, react);
        simulation.run(5_000, 1).run(5_000, 0);
        assert_eq!(simulation.stored.len(), simulation.pushed as usize, "{status}: within 5 s");
        assert!(!simulation.renewals.is_empty(), "{status}");
        let times: Vec<_> = simulation.renewals.iter().map(|it| it.0).collect();
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 1_000), "{times:?}");
        simulation.assert_delivered(0);
    }
}

#[test]
fn a_connection_that_turns_bad_is_left_too() {
    let react = |now_ms, (_, number): (usize, u64)| match (now_ms, number) {
        (2_000.., 1) => Reaction::Refuse(503, 5, None),
        _ => Reaction::Store(5),
    };
    let mut simulation = server(limits(), react);
    simulation.run(2_000, 1).run(5_000, 1).run(1_000, 0);
    simulation.assert_delivered(0);
}

#[test]
fn connections_that_cannot_be_made_beside_one_that_answers_are_no_outage() {
    let react = |_, (connection, _): (usize, u64)| match connection {
        0 => Reaction::Store(20),
        _ => Reaction::Unreachable,
    };
    let mut simulation = server(limits(), react);
    for _ in 0..1_000 {
        simulation.run(10, 10);
        assert_eq!(simulation.delivery.unavailable(), None);
    }
    simulation.drain().assert_delivered(0);
}

#[test]
fn ids_of_others_after_ours_cost_the_connection_and_are_counted_when_sent_again() {
    let mut answers = 0;
    let react = move |_, (_, number): (usize, u64)| {
        answers += 1;
        if number == 1 && answers == 20 {
            return Reaction::List(Ids::Others, 5);
        }
        Reaction::Store(5)
    };
    let mut simulation = server(Limits { connections_max: 1, ..limits() }, react);
    for _ in 0..500 {
        simulation.run(10, 1);
        assert_eq!(simulation.delivery.unavailable(), None, "nobody has failed");
    }
    simulation.drain();
    let [(_, renewal)] = simulation.renewals[..] else { panic!("{:?}", simulation.renewals) };
    assert!(renewal.is_at_once);
    let stored = simulation.stored.len();
    simulation.stored.sort_unstable();
    simulation.stored.dedup();
    let twice = (stored - simulation.stored.len()) as u64;
    assert!(twice > 0);
    assert_eq!(simulation.delivery.counts().possibly_duplicated, twice);
    assert_eq!(simulation.stored.len(), simulation.pushed as usize);
}

#[test]
fn an_answer_that_contradicts_the_batch_keeps_it_as_possibly_stored() {
    for (status, body) in [(201, r#"{"event_ids":[]}"#), (202, r#"{"count":3}"#), (200, "{}")] {
        let react = move |now_ms, _| match now_ms {
            0..2_000 => Reaction::Say(status, body, 5),
            _ => Reaction::Store(5),
        };
        let mut simulation = server(limits(), react);
        simulation.run(1_000, 1);
        assert!(simulation.settled.is_empty(), "{status}");
        let batches = simulation.delivery.batches.values();
        let tried = batches.filter(|batch| batch.past.attempts > 0).collect::<Vec<_>>();
        assert!(!tried.is_empty());
        assert!(tried.iter().all(|batch| batch.past.doubt.is_ambiguous), "{status} {body}");
        simulation.drain().assert_delivered(0);
    }
}
