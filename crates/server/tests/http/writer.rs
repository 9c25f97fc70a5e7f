//! Group commit: what waits together is committed together, and judged apart.

use std::io::BufReader;
use std::sync::mpsc;

use serde_json::{Value, json};

use crate::client::{post_bytes, read_answer, send};
use crate::fixture::{BATCH, Fixture, event, event_with, id};

const QUEUED: &str = "datastorage_write_queue_requests";

fn request(events: &[Value]) -> Vec<u8> {
    let body = serde_json::to_string(events).unwrap();
    post_bytes(BATCH, "Content-Type: application/json\r\n", body.as_bytes())
}

#[test]
fn requests_that_wait_together_are_committed_together_and_only_the_guilty_is_refused() {
    let fixture = Fixture::new();
    let stored = event(0);
    fixture.store(std::slice::from_ref(&stored));
    let mut other = stored.clone();
    other["event_action"] = json!("other");
    let shared = event(2);
    let mut shared_other = shared.clone();
    shared_other["event_action"] = json!("other");
    let orphan = event_with(6, json!({"parent_event_id": id(99)}));
    let child = event_with(7, json!({"parent_event_id": id(2)}));

    let held = fixture.hold_writer();
    // The first is taken by the writer, which then waits for the lock; the others queue up.
    let cases = [
        (vec![event(1), shared.clone()], 201),
        (vec![event(3), other], 409),
        (vec![shared, event(4)], 201),
        (vec![shared_other, event(5)], 409),
        (vec![orphan], 400),
        (vec![child], 201),
        (vec![stored], 201),
    ];
    let streams: Vec<_> = (0..)
        .zip(&cases)
        .map(|(before, (events, _))| {
            let stream = send(fixture.server.addr(), &request(events));
            fixture.wait_for_metric(QUEUED, f64::from(before + 1));
            stream
        })
        .collect();
    let commits = fixture.metric("datastorage_commit_events_count");
    held.execute_batch("COMMIT").unwrap();
    for (stream, (_, status)) in streams.into_iter().zip(&cases) {
        let answer = read_answer(&mut BufReader::new(stream)).unwrap();
        assert_eq!(answer.status, *status, "{}", answer.text());
    }
    assert_eq!(fixture.metric("datastorage_commit_events_count"), commits + 1.);
    assert_eq!(fixture.metric("datastorage_groups_split_total"), 0.);
    let page = fixture.query("");
    let mut ids = crate::fixture::ids(&page);
    ids.sort();
    assert_eq!(ids, [0, 1, 2, 4, 7].map(id));
}

#[test]
fn a_full_queue_refuses_for_now() {
    let fixture = Fixture::with(|config| config.write_queue_len = 1);
    let held = fixture.hold_writer();
    // One in the writer's hands and one in the queue: of three at least one finds it full.
    let (answers, answered) = mpsc::channel();
    for number in 0..3 {
        let stream = send(fixture.server.addr(), &request(&[event(number)]));
        let answers = answers.clone();
        std::thread::spawn(move || answers.send(read_answer(&mut BufReader::new(stream))));
    }
    let refused = answered.recv().unwrap().unwrap();
    let detail = refused.problem(503, "unavailable");
    assert!(detail.contains('1'), "{detail}");
    assert_eq!(refused.header("retry-after"), Some("1"));
    held.execute_batch("COMMIT").unwrap();
    let statuses = [(); 2].map(|()| answered.recv().unwrap().unwrap().status);
    assert!(statuses.contains(&201), "{statuses:?}");
    assert_eq!(fixture.rows(), statuses.iter().filter(|&&status| status == 201).count() as u64);
}

#[test]
fn events_of_one_correlation_are_numbered_without_gaps_in_the_order_of_their_arrival() {
    let fixture = Fixture::new();
    let events: Vec<_> = (0..30)
        .map(|number| event_with(number, json!({"correlation_id": format!("c{}", number % 3)})))
        .collect();
    fixture.store(&events[..10]);
    // Repeats take no number.
    fixture.store(&events[5..20]);
    fixture.store(&events[20..]);
    let database = fixture.database();
    let mut statement = database
        .prepare("SELECT correlation_id, seq, event_id FROM audit_events ORDER BY 1, 2")
        .unwrap();
    let rows: Vec<(String, u64, String)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs(), row.get(2)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let expected: Vec<_> = (0..3)
        .flat_map(|head| (0..10).map(move |seq| (format!("c{head}"), seq, id(seq * 3 + head))))
        .collect();
    assert_eq!(rows, expected);
}

#[test]
fn concurrent_writers_lose_nothing() {
    const WRITERS: u64 = 8;
    const REQUESTS: u64 = 20;
    let fixture = Fixture::new();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let fixture = &fixture;
            scope.spawn(move || {
                for request in 0..REQUESTS {
                    let first = (writer * REQUESTS + request) * 2;
                    fixture.store(&[event(first), event(first + 1)]);
                }
            });
        }
    });
    assert_eq!(fixture.rows(), WRITERS * REQUESTS * 2);
}
