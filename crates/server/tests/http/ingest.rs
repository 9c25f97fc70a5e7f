//! What is stored, what is refused, and what repeats.

use std::io::BufReader;

use serde_json::{Value, json};

use crate::client::{exchange, get, post, post_bytes, read_answer, send};
use crate::fixture::{BATCH, Fixture, ONE, event, event_with, id, now_micros, time_text};

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn one_event_is_answered_with_its_id_and_time() {
    let fixture = Fixture::new();
    let given = event(7);
    let answer = post(fixture.server.addr(), ONE, given.to_string().as_bytes());
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body = answer.json();
    assert_eq!(body["event_id"], id(7));
    assert_eq!(body["event_timestamp"], given["event_timestamp"]);
    assert!(body["message"].is_string());
    assert_eq!(fixture.rows(), 1);
}

#[test]
fn a_batch_is_answered_with_its_ids_in_order_and_makes_those_that_are_absent() {
    let fixture = Fixture::new();
    let anonymous = event_with(0, json!({"event_id": null}));
    let answer = fixture.batch(&[event(3), anonymous.clone(), event(1), anonymous]);
    assert_eq!(answer.status, 201);
    let ids = answer.json()["event_ids"].clone();
    assert_eq!((&ids[0], &ids[2]), (&json!(id(3)), &json!(id(1))));
    assert_ne!(ids[1], ids[3]);
    assert_eq!(fixture.rows(), 4);
}

#[test]
fn a_batch_at_the_limit_is_stored_and_one_event_more_is_refused() {
    let fixture = Fixture::with(|config| config.batch_events_max = 20);
    let events: Vec<_> = (0..21).map(event).collect();
    let detail = fixture.batch(&events).problem(400, "batch-size-exceeded");
    assert!(detail.contains("21") && detail.contains("20"), "{detail}");
    assert_eq!(fixture.rows(), 0);
    fixture.store(&events[..20]);
    assert_eq!(fixture.rows(), 20);
}

#[test]
fn one_bad_event_refuses_its_whole_batch_and_is_named() {
    let fixture = Fixture::new();
    let bad = event_with(2, json!({"severity": "x".repeat(21)}));
    let answer = fixture.batch(&[event(0), event(1), bad]);
    let detail = answer.problem(400, "validation-error");
    assert!(detail.contains("event 2") && detail.contains("severity"), "{detail}");
    assert_eq!(answer.json()["index"], 2);
    assert_eq!(answer.json()["field"], "severity");
    assert_eq!(fixture.rows(), 0);
}

/// A field with a value that breaks its rule, and the members that the refusal must have.
fn broken_rules() -> Vec<(&'static str, Value, &'static str, Option<i64>)> {
    let long = |chars| json!("x".repeat(chars));
    let deep = (0..10).fold(json!({}), |inner, _| json!({ "a": inner }));
    vec![
        ("version", json!(null), "missing", None),
        ("version", json!(""), "empty", None),
        ("version", long(11), "too_long", Some(10)),
        ("error_message", long(65_537), "too_long", Some(65_536)),
        ("severity", json!("a\0b"), "nul", None),
        ("duration_ms", json!(-1), "out_of_range", Some(0)),
        ("retention_days", json!(2_556), "out_of_range", Some(2_555)),
        ("namespace", json!(7), "wrong_type", None),
        ("event_outcome", json!("Success"), "not_in_set", None),
        ("actor_ip", json!("a host"), "not_an_address", None),
        ("event_timestamp", json!("yesterday"), "not_a_timestamp", None),
        ("parent_event_id", json!("x"), "not_a_uuid", None),
        ("parent_event_id", json!(id(99)), "unknown_parent", None),
        ("event_data", json!({"a": "x".repeat(262_144)}), "too_large", Some(262_144)),
        ("event_data", deep, "too_deep", Some(10)),
        ("event_data", json!({"a": "\0"}), "nul", None),
    ]
}

#[test]
fn every_refusal_of_an_event_has_its_index_field_reason_and_limit() {
    let fixture = Fixture::new();
    for (field, value, reason, limit) in broken_rules() {
        let bad = event_with(2, json!({ field: value }));
        let answer = fixture.batch(&[event(0), event(1), bad]);
        let detail = answer.problem(400, "validation-error");
        assert!(detail.starts_with(&format!("event 2: {field} ")), "{detail}");
        let problem = answer.json();
        let given = (&problem["index"], &problem["field"], &problem["reason"]);
        assert_eq!(given, (&json!(2), &json!(field), &json!(reason)), "{detail}");
        assert_eq!(problem.get("limit").and_then(Value::as_i64), limit, "{detail}");
    }
    assert_eq!(fixture.rows(), 0);
}

#[test]
fn a_refusal_of_a_whole_body_has_its_reason_and_limit() {
    let fixture = Fixture::with(|config| config.batch_events_max = 2);
    let one = event(0);
    for (body, reason, limit) in [
        (format!("[{one}"), "not_json", None),
        ("{}".to_owned(), "wrong_shape", None),
        ("[]".to_owned(), "empty_batch", None),
        (format!("[{one},{one},{one}]"), "too_many", Some(2)),
        (" ".repeat((5 << 20) + 1), "too_large", Some(5 << 20)),
    ] {
        let problem = post(fixture.server.addr(), BATCH, body.as_bytes()).json();
        assert_eq!(problem["reason"], reason, "{problem}");
        assert_eq!(problem.get("limit").and_then(Value::as_i64), limit, "{problem}");
        assert_eq!(problem.get("index"), None, "{problem}");
    }
    let problem = post(fixture.server.addr(), BATCH, format!("[{one},7]").as_bytes()).json();
    assert_eq!((&problem["index"], &problem["reason"]), (&json!(1), &json!("not_an_object")));
}

#[test]
fn refusals_are_counted_by_the_rule_that_was_broken() {
    let fixture = Fixture::new();
    for number in 0..3 {
        fixture.batch(&[event_with(number, json!({"severity": "x".repeat(21)}))]);
    }
    fixture.store(&[event(0)]);
    let labels = "{status=\"400\",reason=\"too_long\",field=\"severity\"}";
    assert_eq!(fixture.metric(&format!("datastorage_refusals_total{labels}")), 3.);
}

#[test]
fn a_duplicate_field_is_refused_and_named() {
    let fixture = Fixture::new();
    let text = event(0).to_string();
    let twice = format!("{},\"event_action\":\"again\"}}", text.strip_suffix('}').unwrap());
    let answer = post(fixture.server.addr(), BATCH, format!("[{text},{twice}]").as_bytes());
    let detail = answer.problem(400, "validation-error");
    assert!(detail.contains("event 1") && detail.contains("event_action"), "{detail}");
}

#[test]
fn a_body_of_the_wrong_shape_is_refused() {
    let fixture = Fixture::new();
    let addr = fixture.server.addr();
    let object = event(0).to_string();
    for body in [&*object, "\"x\"", "7", "null"] {
        post(addr, BATCH, body.as_bytes()).problem(400, "invalid_request");
    }
    post(addr, ONE, format!("[{object}]").as_bytes()).problem(400, "invalid_request");
    post(addr, BATCH, b"[]").problem(400, "validation-error");
    post(addr, BATCH, b"[{]").problem(400, "validation-error");
    post(addr, BATCH, b"").problem(400, "validation-error");
    let detail = post(addr, BATCH, b"[7]").problem(400, "validation-error");
    assert!(detail.contains("event 0"), "{detail}");
}

#[test]
fn only_json_is_taken() {
    let fixture = Fixture::new();
    let addr = fixture.server.addr();
    let body = format!("[{}]", event(0));
    for headers in ["", "Content-Type: text/plain\r\n", "Content-Type: application/jsonl\r\n"] {
        let answer = exchange(addr, &post_bytes(BATCH, headers, body.as_bytes()));
        let detail = answer.problem(400, "validation-error");
        assert!(detail.contains("Content-Type"), "{detail}");
    }
    let headers = "Content-Type: Application/JSON; charset=utf-8\r\n";
    assert_eq!(exchange(addr, &post_bytes(BATCH, headers, body.as_bytes())).status, 201);
}

#[test]
fn a_compressed_body_is_no_fault_of_its_events() {
    let fixture = Fixture::new();
    let body = format!("[{}]", event(0));
    for (encoding, status) in [("gzip", 415), ("br, gzip", 415), ("identity", 201)] {
        let headers = format!("{JSON}Content-Encoding: {encoding}\r\n");
        let answer = exchange(fixture.server.addr(), &post_bytes(BATCH, &headers, body.as_bytes()));
        assert_eq!(answer.status, status, "{encoding}");
    }
}

#[test]
fn a_body_over_the_limit_is_refused_whether_or_not_it_says_its_length() {
    let fixture = Fixture::with(|config| config.body_bytes_max = 1 << 20);
    let addr = fixture.server.addr();
    let mut body = format!("[{}]", event(0)).into_bytes();
    body.resize(1 << 20, b' ');
    assert_eq!(post(addr, BATCH, &body).status, 201);
    body.push(b' ');

    let detail = post(addr, BATCH, &body).problem(413, "request-too-large");
    assert!(detail.contains("1048576"), "{detail}");

    let mut chunked =
        format!("POST {BATCH} HTTP/1.1\r\nHost: test\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n")
            .into_bytes();
    chunked.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
    chunked.extend_from_slice(&body);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    exchange(addr, &chunked).problem(413, "request-too-large");

    // The length alone is enough: nothing of the body is sent here.
    let head = format!(
        "POST {BATCH} HTTP/1.1\r\nHost: test\r\n{JSON}Expect: 100-continue\r\n\
         Content-Length: 1048577\r\n\r\n"
    );
    exchange(addr, head.as_bytes()).problem(413, "request-too-large");
}

#[test]
fn a_chunked_body_within_the_limit_is_stored() {
    let fixture = Fixture::new();
    let body = format!("[{}]", event(0));
    let (first, second) = body.split_at(100);
    let request = format!(
        "POST {BATCH} HTTP/1.1\r\nHost: test\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
        first.len(),
        second.len()
    );
    assert_eq!(exchange(fixture.server.addr(), request.as_bytes()).status, 201);
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let fixture =
        Fixture::with(|config| config.body_timeout = std::time::Duration::from_millis(20));
    let head = format!("POST {BATCH} HTTP/1.1\r\nHost: test\r\n{JSON}Content-Length: 100\r\n\r\n[");
    let answer = exchange(fixture.server.addr(), head.as_bytes());
    answer.problem(408, "request-timeout");
}

#[test]
fn bodies_beyond_the_memory_for_them_are_refused_for_now() {
    let fixture = Fixture::with(|config| {
        config.body_bytes_max = 1 << 20;
        config.bytes_in_flight_max = 1 << 20;
    });
    let addr = fixture.server.addr();
    let length = 1 << 20;
    let head =
        format!("POST {BATCH} HTTP/1.1\r\nHost: test\r\n{JSON}Content-Length: {length}\r\n\r\n");
    // The server asks for the body only once it has room for all of it.
    let expecting = head.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    let stream = send(addr, expecting.as_bytes());
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 100 Continue\r\n");

    let answer = fixture.batch(&[event(0)]);
    answer.problem(503, "unavailable");
    assert_eq!(answer.header("retry-after"), Some("1"));
    drop(reader);
    // When the first client has gone its bytes are free again.
    while fixture.batch(&[event(0)]).status != 201 {}
}

#[test]
fn unknown_paths_and_methods_are_refused() {
    let fixture = Fixture::new();
    let addr = fixture.server.addr();
    for path in ["/", "/api/v1/audit/event", "/api/v1/audit/events/", "/health"] {
        let detail = get(addr, path).problem(404, "not-found");
        assert!(detail.contains(path), "{detail}");
    }
    let answer = get(addr, BATCH);
    answer.problem(405, "method-not-allowed");
    assert_eq!(answer.header("allow"), Some("POST"));
    let request = format!("DELETE {ONE} HTTP/1.1\r\nHost: test\r\n\r\n");
    let answer = exchange(addr, request.as_bytes());
    answer.problem(405, "method-not-allowed");
    assert_eq!(answer.header("allow"), Some("GET, POST"));
}

#[test]
fn a_time_too_far_from_the_server_s_clock_is_refused_and_named() {
    const MINUTE: i64 = 60_000_000;
    const DAY: i64 = 1_440 * MINUTE;
    let fixture = Fixture::new();
    // A minute's margin, as the clock goes on between here and there.
    for micros in [59 * MINUTE, -7 * DAY + MINUTE] {
        let time = time_text(now_micros() + micros);
        fixture.store(&[event_with(0, json!({"event_timestamp": time, "event_id": null}))]);
    }
    for (micros, reason) in [(61 * MINUTE, "too_new"), (-7 * DAY - MINUTE, "too_old")] {
        let time = time_text(now_micros() + micros);
        let answer = fixture.batch(&[event(1), event_with(2, json!({"event_timestamp": time}))]);
        let detail = answer.problem(400, "validation-error");
        assert!(detail.contains("event 1: event_timestamp") && detail.contains(&time), "{detail}");
        assert_eq!(answer.json()["field"], "event_timestamp");
        assert_eq!(answer.json()["reason"], reason);
        assert_eq!(answer.json()["index"], 1);
        assert_eq!(detail.contains("past"), reason == "too_old", "{detail}");
    }
    assert_eq!(fixture.rows(), 2);
}

#[test]
fn an_equal_repeat_is_the_same_success_and_no_second_row() {
    let fixture = Fixture::new();
    let first = fixture.batch(&[event(0), event(1)]).json();
    assert_eq!(fixture.rows(), 2);
    // The fixture stamps events with the present, so the same event must be kept to repeat it.
    let kept = [event(2), event(3), event(4)];
    fixture.store(&kept[..2]);
    let again = fixture.batch(&kept);
    assert_eq!(again.status, 201);
    assert_eq!(again.json()["event_ids"], json!([id(2), id(3), id(4)]));
    assert_eq!(again.json()["message"], first["message"]);
    assert_eq!(fixture.rows(), 5);
    assert_eq!(fixture.metric("datastorage_events_repeated_total"), 2.);
    assert_eq!(fixture.metric("datastorage_events_stored_total"), 5.);
}

#[test]
fn a_repeat_inside_one_request_is_stored_once() {
    let fixture = Fixture::new();
    let event = event(0);
    let answer = fixture.batch(&[event.clone(), event.clone(), event]);
    assert_eq!(answer.json()["event_ids"], json!([id(0), id(0), id(0)]));
    assert_eq!(fixture.rows(), 1);
}

#[test]
fn another_event_under_a_stored_id_refuses_its_whole_request() {
    let fixture = Fixture::new();
    let stored = event(0);
    fixture.store(std::slice::from_ref(&stored));
    let mut other = stored.clone();
    other["event_data"] = json!({"other": true});
    let answer = fixture.batch(&[event(1), other]);
    let detail = answer.problem(409, "event-id-conflict");
    assert!(detail.contains("event 1") && detail.contains(&id(0)), "{detail}");
    assert_eq!(answer.json()["index"], 1);
    assert_eq!(answer.json()["event_id"], id(0));
    assert_eq!(
        (&answer.json()["field"], &answer.json()["reason"]),
        (&json!("event_id"), &json!("conflict"))
    );
    assert_eq!(fixture.rows(), 1);
    assert_eq!(fixture.query("")["data"][0]["event_data"], stored["event_data"]);
    assert_eq!(fixture.metric("datastorage_event_conflicts_total"), 1.);
}

#[test]
fn two_events_under_one_id_in_one_request_are_refused() {
    let fixture = Fixture::new();
    let answer = fixture.batch(&[event(5), event_with(5, json!({"event_action": "other"}))]);
    let detail = answer.problem(409, "event-id-conflict");
    assert!(detail.contains("event 1") && detail.contains(&id(5)), "{detail}");
    assert_eq!(fixture.rows(), 0);
}

#[test]
fn a_parent_must_be_stored_or_come_before_its_child() {
    let fixture = Fixture::new();
    let child = |number, parent| event_with(number, json!({"parent_event_id": id(parent)}));

    let answer = fixture.batch(&[event(0), child(1, 9)]);
    let detail = answer.problem(400, "validation-error");
    assert!(detail.contains("event 1: parent_event_id") && detail.contains(&id(9)), "{detail}");
    let answer = fixture.batch(&[child(1, 0), event(0)]);
    assert!(answer.problem(400, "validation-error").contains("event 0"));
    assert_eq!(fixture.rows(), 0);

    let yesterday = time_text(now_micros() - 86_400_000_000);
    let parent = event_with(0, json!({"event_timestamp": yesterday, "correlation_id": "p"}));
    fixture.store(&[parent, child(1, 0)]);
    fixture.store(&[child(2, 0)]);
    for row in fixture.query("correlation_id=rr-1")["data"].as_array().unwrap() {
        assert_eq!(row["parent_event_id"], id(0));
        assert_eq!(row["parent_event_date"], yesterday[..10]);
    }
}

#[test]
fn any_well_formed_category_is_stored_and_found() {
    let fixture = Fixture::new();
    let longest = format!("c{}", "9".repeat(49));
    for (number, category) in (0..).zip(["billing", "a", "team-a.billing_2", &longest, "gateway"]) {
        fixture.store(&[event_with(number, json!({"event_category": category}))]);
        let page = fixture.query(&format!("event_category={category}"));
        assert_eq!(page["pagination"]["total"], 1, "{category}");
        let row = &page["data"][0];
        assert_eq!(row["event_category"], category);
        assert_eq!(row["actor_id"], format!("{category}-service"));
        assert_eq!(row["resource_type"], category);
    }
    let too_long = format!("c{}", "9".repeat(50));
    for category in ["", "Billing", "9lives", "-a", "a b", "a/b", "\u{e9}t\u{e9}", &too_long] {
        let answer = fixture.batch(&[event(8), event_with(9, json!({"event_category": category}))]);
        answer.problem(400, "validation-error");
        let problem = answer.json();
        let given = (&problem["index"], &problem["field"], &problem["reason"]);
        let expected = (&json!(1), &json!("event_category"), &json!("not_a_category"));
        assert_eq!(given, expected, "{category}");
    }
    assert_eq!(fixture.rows(), 5);
}

#[test]
fn absent_fields_get_the_contract_s_defaults() {
    let fixture = Fixture::new();
    fixture.store(&[event_with(0, json!({"event_category": "analysis"}))]);
    let row = &fixture.query("")["data"][0];
    assert_eq!(row["actor_type"], "service");
    assert_eq!(row["actor_id"], "analysis-service");
    assert_eq!(row["resource_type"], "analysis");
    assert_eq!(row["resource_id"], "rr-1");
    assert_eq!(row["severity"], "info");
    assert_eq!(row["retention_days"], 2555);
    assert_eq!(row["is_sensitive"], false);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let fixture = Fixture::new();
    let requests: Vec<u8> = (0..20)
        .flat_map(|number| post_bytes(BATCH, JSON, format!("[{}]", event(number)).as_bytes()))
        .collect();
    let mut stream = BufReader::new(send(fixture.server.addr(), &requests));
    for number in 0..20 {
        let answer = read_answer(&mut stream).unwrap();
        assert_eq!(answer.json()["event_ids"], json!([id(number)]));
    }
    assert_eq!(fixture.rows(), 20);
}

#[test]
fn what_follows_a_request_does_not_take_its_answer_along() {
    let fixture = Fixture::new();
    let body = format!("[{}]", event(0));
    let good = post_bytes(BATCH, JSON, body.as_bytes());
    let no_answer_fits = [
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(),
        b"POST /api HTTP/1.1\r\nHost : test\r\n\r\n".to_vec(),
        post_bytes(BATCH, "Content-Length: -1\r\n", b"[]"),
        format!("POST {BATCH} HTTP/1.1\r\n{JSON}Transfer-Encoding: chunked\r\n\r\nzz\r\n").into(),
    ];
    for garbage in no_answer_fits {
        let request = [good.clone(), garbage].concat();
        let mut stream = BufReader::new(send(fixture.server.addr(), &request));
        assert_eq!(read_answer(&mut stream).expect("the first answer").status, 201);
        assert_eq!(read_answer(&mut stream).expect("the second answer").status, 400);
        assert!(read_answer(&mut stream).is_none(), "the connection ends");
    }
    // A length too short leaves a rest that is no request.
    let short = format!("POST {BATCH} HTTP/1.1\r\nHost: test\r\n{JSON}Content-Length: 0\r\n\r\n[]");
    exchange(fixture.server.addr(), short.as_bytes()).problem(400, "validation-error");
}
