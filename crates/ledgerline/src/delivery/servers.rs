//! Servers of one kind for a while, each with what the machine makes of it.

use super::lateness::Cause;
use super::simulation::{Behaviour, Reaction, Simulation, limits, place_of};
use super::tests::OneType;
use super::*;
use crate::sink::http::verdict::Verdict;

/// One bad event in each thousand, named or not.
fn picky(is_named: bool) -> Behaviour {
    Box::new(move |_, _, events| match events.iter().find(|event| *event % 1_000 == 777) {
        Some(bad) => Reaction::Refuse(400, 2, place_of(*bad, events).filter(|_| is_named)),
        None => Reaction::Store(2),
    })
}

#[test]
fn a_bad_event_is_dead_lettered_alone_whether_it_is_named_or_not() {
    for (is_named, requests_max) in [(true, 3 * 50), (false, 22 * 50)] {
        let mut simulation = Simulation::new(limits(), picky(is_named));
        simulation.run(5_000, 10).drain().assert_delivered(50);
        assert!(simulation.requests < requests_max + 200, "{}", simulation.requests);
        assert!(simulation.settled[&Outcome::DeadLettered].iter().all(|it| it % 1_000 == 777));
    }
}

#[test]
fn a_server_that_names_the_wrong_event_misleads_once() {
    let server = |_, _, events: &[u32]| match events.contains(&250) {
        true if events.len() > 1 => Reaction::Refuse(422, 2, Some(0)),
        true => Reaction::Refuse(422, 2, None),
        false => Reaction::Store(2),
    };
    let mut simulation = Simulation::new(limits(), Box::new(server));
    simulation.run(50, 10).drain().assert_delivered(1);
    assert_eq!(simulation.settled[&Outcome::DeadLettered], [250]);
}

#[test]
fn a_server_that_refuses_everything_gets_everything_once_it_relents() {
    let server = |now_ms, _, _: &[u32]| match now_ms {
        0..60_000 => Reaction::Refuse(400, 2, Some(0)),
        _ => Reaction::Store(2),
    };
    let mut simulation = Simulation::new(limits(), Box::new(server));
    simulation.run(30_000, 1).run(29_000, 0);
    let dead = simulation.dead();
    assert!(dead < 20, "the fuse has blown: {dead}");
    assert!(simulation.stored.is_empty());
    assert_eq!(simulation.delivery.unavailable(), Some(Cause::Rejecting));
    assert!(simulation.requests < 200, "it is asked slowly: {}", simulation.requests);
    simulation.drain().assert_delivered(dead);
}

#[test]
fn a_misrouted_store_holds_everything_and_asks_slowly() {
    for status in [404, 403, 405, 301, 200, 421] {
        let server = move |now_ms, _, _: &[u32]| match now_ms {
            0..60_000 => Reaction::Refuse(status, 2, None),
            _ => Reaction::Store(2),
        };
        let mut simulation = Simulation::new(limits(), Box::new(server));
        simulation.run(59_000, 1);
        assert_eq!(simulation.delivery.unavailable(), Some(Cause::Misrouted), "{status}");
        assert!(simulation.requests < 80, "{status}: {}", simulation.requests);
        simulation.drain().assert_delivered(0);
    }
}

/// So do a network that is too narrow for a whole batch, and a server that takes long for each
/// event.
#[test]
fn batches_that_take_too_long_become_smaller_until_they_get_through() {
    let server = |_, _, events: &[u32]| match events.len() {
        0..=70 => Reaction::Store(9_000),
        _ => Reaction::Silent(10_000),
    };
    let mut simulation = Simulation::new(limits(), Box::new(server));
    simulation.run(2_000, 1).drain().assert_delivered(0);
    let requests = simulation.requests;
    assert!(requests < 100, "{requests}");
    // It has learnt.
    simulation.run(500, 1).drain().assert_delivered(0);
    assert!(simulation.requests - requests < 20, "{} more", simulation.requests - requests);
}

#[test]
fn parts_that_are_small_for_another_reason_teach_nothing_about_slowness() {
    let mut silent = 2;
    let server = move |_, _, events: &[u32]| {
        if silent > 0 {
            silent -= 1;
            return Reaction::Silent(1_000);
        }
        match events.contains(&100) {
            true => Reaction::Refuse(422, 2, None),
            false => Reaction::Store(2),
        }
    };
    let mut simulation = Simulation::new(limits(), Box::new(server));
    simulation.run(20, 10).drain().assert_delivered(1);
    let bytes_max = simulation.delivery.learned.bytes_max();
    assert!(bytes_max >= 200 * 700 / 2, "{bytes_max}: the half that was stored whole");
}

#[test]
fn a_server_that_was_silent_for_an_hour_does_not_get_crumbs() {
    let server = |now_ms, _, _: &[u32]| match now_ms {
        0..3_600_000 => Reaction::Silent(10_000),
        _ => Reaction::Store(5),
    };
    let mut simulation = Simulation::new(limits(), Box::new(server));
    simulation.run(60_000, 1).run(3_550_000, 0);
    let requests = simulation.requests;
    simulation.drain().assert_delivered(0);
    let crumbs = simulation.requests - requests;
    assert!(crumbs < 1_000, "{crumbs} requests for 60,000 events");
}

#[test]
fn after_an_outage_the_load_doubles_per_round() {
    let server = |now_ms, _, _: &[u32]| match now_ms {
        0..20_000 => Reaction::Unreachable,
        _ => Reaction::Store(50),
    };
    let mut simulation = Simulation::new(limits(), Box::new(server));
    simulation.run(20_000, 20);
    while simulation.stored.is_empty() {
        simulation.run(1, 20);
        assert!(simulation.in_flight_max <= 1 || !simulation.stored.is_empty());
    }
    // A round is 50 ms: the answers to each are in the first step of the next.
    simulation.run(49, 20);
    for most in [4, 8, 16] {
        simulation.run(50, 20);
        let used = simulation.in_flight_max;
        assert!(used <= most && used > most / 4, "{used} of {most}");
    }
    simulation.drain().assert_delivered(0);
}

#[test]
fn a_server_that_fails_for_an_hour_is_asked_slowly() {
    for status in [500, 503] {
        let server = move |now_ms, _, _: &[u32]| match now_ms {
            0..3_600_000 => Reaction::Refuse(status, 2, None),
            _ => Reaction::Store(2),
        };
        let mut simulation = Simulation::new(limits(), Box::new(server));
        simulation.run(60_000, 1).run(3_540_000, 0);
        let requests = simulation.requests;
        assert!(requests < 3_000, "{requests} in an hour");
        simulation.drain().assert_delivered(0);
    }
}

/// Each process of a fleet notices the outage at the same moment.
#[test]
fn a_fleet_does_not_come_back_in_step() {
    let mut first_probes_ms = Vec::new();
    for seed in 0..100 {
        let random = fastrand::Rng::with_seed(seed);
        let mut delivery = Delivery::new(limits(), 0, random);
        delivery.push(Record { block: 0, index: 0, bytes: 700, accepted_ms: 0 });
        delivery.flush();
        let send = delivery.next_send(1, &OneType).expect("the first try");
        let verdict = Verdict::NotConnected;
        let ended =
            Ended { batch: send.batch, verdict, status: 0, ids: Ids::Unchecked, reason: None };
        delivery.ended(ended, 1, &OneType);
        first_probes_ms.push(delivery.next_ms().expect("a probe is due"));
    }
    first_probes_ms.sort_unstable();
    assert!(first_probes_ms[90] - first_probes_ms[10] > 50, "over the least pause, 100 ms");
    first_probes_ms.dedup();
    assert!(first_probes_ms.len() > 40, "{first_probes_ms:?}");
}

#[test]
fn concurrency_follows_the_server() {
    let steady = |think_ms| move |_, _, _: &[u32]| Reaction::Store(think_ms);
    // One worker: each request waits for those before it.
    let mut busy_until_ms = 0;
    let queueing = move |now_ms: u64, _, _: &[u32]| {
        busy_until_ms = busy_until_ms.max(now_ms) + 50;
        Reaction::Store(busy_until_ms - now_ms)
    };
    // Quick up to four at a time, then it falls off a cliff.
    let cliff = |_, in_flight, _: &[u32]| Reaction::Store(if in_flight > 4 { 2_000 } else { 50 });
    let strict = |_, in_flight, _: &[u32]| match in_flight {
        0..=3 => Reaction::Store(50),
        _ => Reaction::Later(429, 0),
    };
    let failing = |now_ms: u64, _, _: &[u32]| match now_ms % 7 {
        0 => Reaction::Refuse(503, 20, None),
        _ => Reaction::Store(20),
    };
    let silent = |now_ms: u64, _, _: &[u32]| match now_ms {
        3_000..6_000 => Reaction::Silent(1_000),
        _ => Reaction::Store(20),
    };
    let flapping = |now_ms: u64, _, _: &[u32]| match now_ms / 1_000 % 2 {
        0 => Reaction::Store(20),
        _ => Reaction::Unreachable,
    };
    let slowing = |now_ms: u64, _, _: &[u32]| Reaction::Store(20 + now_ms / 80);
    let erring = |now_ms: u64, _, _: &[u32]| match now_ms {
        3_000..5_000 => Reaction::Refuse(500, 5, None),
        _ => Reaction::Store(20),
    };
    let polite = |now_ms: u64, _, _: &[u32]| match now_ms {
        3_000..4_000 => Reaction::Later(503, 2),
        _ => Reaction::Store(20),
    };
    let quick = steady(1);
    // Name, server, events per millisecond, and how many at a time it should get, at least and
    // most.
    let cases: Vec<(&str, Behaviour, u32, usize, usize)> = vec![
        ("quick", Box::new(quick), 20, 1, 3),
        ("steady", Box::new(steady(100)), 20, 4, 16),
        ("far away", Box::new(steady(400)), 20, 16, 16),
        ("slower than the load", Box::new(steady(1_000)), 5, 5, 16),
        ("queueing", Box::new(queueing), 30, 1, 6),
        ("off a cliff", Box::new(cliff), 60, 2, 10),
        ("429 above three", Box::new(strict), 60, 1, 6),
        ("503 now and then", Box::new(failing), 20, 1, 8),
        ("silent for a while", Box::new(silent), 10, 1, 16),
        ("flapping", Box::new(flapping), 10, 1, 16),
        ("slowing down", Box::new(slowing), 20, 4, 16),
        ("failing for a while", Box::new(erring), 10, 1, 16),
        ("asking for a pause", Box::new(polite), 10, 1, 16),
    ];
    for (name, server, events_per_ms, least, most) in cases {
        let mut simulation = Simulation::new(limits(), server);
        simulation.run(8_000, events_per_ms).run(4_000, events_per_ms);
        let used = simulation.in_flight_max;
        assert!((least..=most).contains(&used), "{name}: {used} at a time");
        assert!(used <= 16, "{name}");
        let backlog = simulation.pushed as usize - simulation.stored.len();
        simulation.drain();
        assert!(simulation.delivery.whereabouts() == Whereabouts::default(), "{name}: {backlog}");
        let mut stored = simulation.stored.clone();
        stored.sort_unstable();
        stored.dedup();
        assert_eq!(stored.len(), simulation.pushed as usize, "{name}");
        // Back to one when idle: what comes after a pause goes alone.
        simulation.run(12_000, 0).run(3, 300);
        assert!(
            simulation.in_flight_max <= 1,
            "{name}: {} after a pause",
            simulation.in_flight_max
        );
    }
}

#[test]
fn many_bad_events_at_once_keep_no_good_one_back() {
    // A burst of forty bad ones from one caller, in an engine that was idle, and then good ones.
    for is_named in [true, false] {
        let server = move |_, _, events: &[u32]| {
            let bad = events.iter().position(|event| (50..90).contains(event));
            match bad {
                Some(place) => Reaction::Refuse(400, 2, Some(place as u32).filter(|_| is_named)),
                None => Reaction::Store(2),
            }
        };
        let mut simulation = Simulation::new(limits(), Box::new(server));
        simulation.run(100, 1).run(60_000, 0).run(60_000, 1);
        let good = simulation.stored.len();
        let late = simulation.pushed as usize - 40 - good;
        assert!(late < 15_000, "{late} good ones are held back");
        simulation.drain().assert_delivered(40);
        let dead = &simulation.settled[&Outcome::DeadLettered];
        assert!(dead.iter().all(|event| (50..90).contains(event)));
    }
}

#[test]
fn a_pause_that_the_server_asked_for_is_kept_whatever_was_on_the_way() {
    // Requests sent before it come back as stored after it.
    let server = |now_ms, _, _: &[u32]| match now_ms {
        0..1_000 => Reaction::Store(100),
        1_000..1_010 => Reaction::Later(429, 10),
        1_010..11_000 => panic!("asked at {now_ms}, during the pause"),
        _ => Reaction::Store(2),
    };
    let mut simulation = Simulation::new(limits(), Box::new(server));
    simulation.run(12_000, 20).drain().assert_delivered(0);
}
