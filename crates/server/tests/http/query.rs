//! What a query finds, in which order, and in which form.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::client::{get, post};
use crate::fixture::{BATCH, Fixture, ONE, event, event_with, id, ids, now_micros, time_text};

/// Twelve events, a second apart, with changing fields.
fn varied(now: i64) -> Vec<Value> {
    (0..12_u64)
        .map(|number| {
            let micros = now - i64::try_from(number).unwrap() * 1_000_000;
            event_with(
                number,
                json!({
                    "event_timestamp": time_text(micros),
                    "event_type": (["a.b", "c.d"][number as usize % 2]),
                    "event_category": (["gateway", "workflow", "security"][number as usize % 3]),
                    "event_outcome": (["success", "failure"][number as usize / 6]),
                    "severity": (["info", "high"][number as usize % 2]),
                    "correlation_id": format!("c{}", number % 4),
                }),
            )
        })
        .collect()
}

#[test]
fn filters_combine_and_the_newest_comes_first() {
    let fixture = Fixture::new();
    let now = now_micros();
    fixture.store(&varied(now));
    let cases: [(&str, &[u64]); 12] = [
        ("", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        ("event_type=c.d", &[1, 3, 5, 7, 9, 11]),
        ("event_category=security", &[2, 5, 8, 11]),
        ("event_outcome=failure", &[6, 7, 8, 9, 10, 11]),
        ("severity=high&event_outcome=success", &[1, 3, 5]),
        ("correlation_id=c1", &[1, 5, 9]),
        ("correlation_id=c1&event_category=security", &[5]),
        ("correlation_id=c1&event_type=a.b", &[]),
        ("correlation_id=nobody", &[]),
        ("event_type=a.b&event_category=gateway&event_outcome=success", &[0]),
        ("detail_key=number&detail_value=4", &[4]),
        (
            "detail_key=event_type&detail_value=gateway.signal.received&event_outcome=failure",
            &[6, 7, 8, 9, 10, 11],
        ),
    ];
    for (parameters, expected) in cases {
        let page = fixture.query(parameters);
        let expected: Vec<_> = expected.iter().map(|&number| id(number)).collect();
        assert_eq!(ids(&page), expected, "{parameters}");
        assert_eq!(page["pagination"]["total"], expected.len(), "{parameters}");
    }

    // Both bounds are included.
    let (since, until) = (time_text(now - 4_000_000), time_text(now - 2_000_000));
    let page = fixture.query(&format!("since={since}&until={until}"));
    assert_eq!(ids(&page), [2, 3, 4].map(id));
    let page = fixture.query(&format!("since={since}&event_category=gateway"));
    assert_eq!(ids(&page), [0, 3].map(id));
    assert_eq!(ids(&fixture.query("since=1h&until=0s&event_type=c.d&limit=2")), [1, 3].map(id));
    assert_eq!(ids(&fixture.query("until=1d")), [""; 0]);
}

#[test]
fn a_detail_is_compared_as_text_whatever_its_type() {
    let fixture = Fixture::new();
    let data = json!({
        "text": "5", "number": 5, "decimal": 1.5, "yes": true, "nothing": null, "list": [1, 2],
        "quoted": "say \"hi\"", "123": "digits", "empty": "",
    });
    fixture.store(&[event_with(0, json!({"event_data": data}))]);
    let found = [
        "text&detail_value=5",
        "number&detail_value=5",
        "decimal&detail_value=1.5",
        "yes&detail_value=true",
        "list&detail_value=%5B1,2%5D",
        "quoted&detail_value=say+%22hi%22",
        "123&detail_value=digits",
        "empty&detail_value=",
    ];
    for parameters in found {
        let page = fixture.query(&format!("detail_key={parameters}"));
        assert_eq!(ids(&page), [id(0)], "{parameters}");
    }
    let absent = [
        "yes&detail_value=1",
        "nothing&detail_value=null",
        "nothing&detail_value=",
        "other&detail_value=5",
        "text&detail_value=6",
    ];
    for parameters in absent {
        let page = fixture.query(&format!("detail_key={parameters}"));
        assert_eq!(ids(&page), [""; 0], "{parameters}");
    }
}

#[test]
fn pages_by_offset_say_the_total_and_whether_there_is_more() {
    let fixture = Fixture::new();
    fixture.store(&varied(now_micros()));
    let page = fixture.query("limit=5&offset=5");
    assert_eq!(ids(&page), [5, 6, 7, 8, 9].map(id));
    let pagination = &page["pagination"];
    assert_eq!(pagination["limit"], 5);
    assert_eq!(pagination["offset"], 5);
    assert_eq!(pagination["total"], 12);
    assert_eq!(pagination["has_more"], true);
    let page = fixture.query("limit=5&offset=10");
    assert_eq!(ids(&page), [10, 11].map(id));
    assert_eq!(page["pagination"]["has_more"], false);
    assert_eq!(page["pagination"].get("next_cursor"), None);
    let page = fixture.query("limit=5&offset=12");
    assert_eq!(page["data"], json!([]));
    // A full last page has nothing behind it.
    assert_eq!(fixture.query("limit=12")["pagination"]["has_more"], false);
    assert_eq!(fixture.query("limit=5&count=false")["pagination"].get("total"), None);
}

#[test]
fn pages_by_cursor_visit_each_row_once_while_others_are_inserted() {
    let fixture = Fixture::new();
    let now = now_micros() - 60_000_000;
    // Three share each microsecond, so that ids decide too.
    let time = |number: u64| time_text(now - i64::try_from(number / 3).unwrap());
    let events: Vec<_> = (0..200)
        .map(|number| event_with(number, json!({"event_timestamp": time(number)})))
        .collect();
    fixture.store(&events);
    for filter in ["", "event_type=gateway.signal.received&", "correlation_id=rr-1&"] {
        let mut visited = Vec::new();
        let mut cursor = String::new();
        let mut inserted = 1_000 * (1 + filter.len() as u64);
        loop {
            let page = fixture.query(&format!("{filter}limit=7&cursor={cursor}"));
            visited.extend(ids(&page));
            assert_eq!(page["pagination"].get("total"), None);
            if page["pagination"]["has_more"] == false {
                break;
            }
            cursor = page["pagination"]["next_cursor"].as_str().unwrap().to_owned();
            // Newer than everything, so each lies before where the reader is.
            fixture.store(&[event(inserted)]);
            inserted += 1;
        }
        let old: Vec<_> = visited
            .iter()
            .filter(|id| events.iter().any(|event| event["event_id"] == **id))
            .collect();
        assert_eq!(old.len(), 200, "{filter}");
        assert_eq!(visited.iter().collect::<HashSet<_>>().len(), visited.len(), "{filter}");
    }
    // The order is by time, then by id, both descending.
    let page = fixture.query(&format!("limit=4&until={}", time(0)));
    assert_eq!(ids(&page), [2, 1, 0, 5].map(id));
}

#[test]
fn a_cursor_from_a_page_by_offset_goes_on_behind_it() {
    let fixture = Fixture::new();
    fixture.store(&varied(now_micros()));
    let page = fixture.query("limit=4&offset=2");
    let cursor = page["pagination"]["next_cursor"].as_str().unwrap();
    let page = fixture.query(&format!("limit=3&count=true&cursor={cursor}"));
    assert_eq!(ids(&page), [6, 7, 8].map(id));
    assert_eq!(page["pagination"]["total"], 12);
    assert_eq!(page["pagination"].get("offset"), None);
}

#[test]
fn event_data_comes_back_byte_for_byte() {
    let fixture = Fixture::new();
    let data = "{ \"b\" : 1.50,\n\t\"a\":\"caf\\u00e9 \u{e9} \\/ \\ud83d\\ude00\", \"big\":\
                123456789012345678901234567890, \"a\": [ ] }";
    let text = event_with(0, json!({"event_data": "HERE"})).to_string();
    let text = text.replace("\"HERE\"", data);
    let answer = post(fixture.server.addr(), BATCH, format!("[{text}]").as_bytes());
    assert_eq!(answer.status, 201, "{}", answer.text());
    let page = get(fixture.server.addr(), ONE);
    assert!(page.text().contains(&format!("\"event_data\":{data}}}")), "{}", page.text());
}

#[test]
fn a_row_has_the_contract_s_fields_and_leaves_out_what_is_empty() {
    let fixture = Fixture::new();
    let full = json!({
        "producer": "pod-1/0", "producer_seq": u64::MAX, "actor_type": "user", "actor_id": "u\"1",
        "actor_ip": "2001:DB8::0:1", "resource_type": "Pod", "resource_id": "r\n1",
        "namespace": "ns", "cluster_id": "c", "severity": "high", "duration_ms": 17,
        "error_code": "E1", "error_message": "caf\u{e9}", "retention_days": 30,
        "is_sensitive": true, "parent_event_date": "2026-01-31T23:30:00-01:00",
    });
    let given = event_with(0, full.clone());
    fixture.store(std::slice::from_ref(&given));
    let row = &fixture.query("")["data"][0];
    for (name, value) in full.as_object().unwrap() {
        let expected = match &**name {
            "actor_ip" => json!("2001:db8::1"),
            "parent_event_date" => json!("2026-02-01"),
            _ => value.clone(),
        };
        assert_eq!(row[name], expected, "{name}");
    }
    assert_eq!(row["event_timestamp"], given["event_timestamp"]);
    assert_eq!(row["event_date"], given["event_timestamp"].as_str().unwrap()[..10]);

    let fixture = Fixture::new();
    fixture.store(&[event(0)]);
    let page = fixture.query("");
    let row = page["data"][0].as_object().unwrap();
    for name in ["parent_event_id", "parent_event_date", "legal_hold_placed_at"] {
        assert_eq!(row[name], Value::Null, "{name}");
    }
    for name in [
        "namespace",
        "cluster_id",
        "duration_ms",
        "error_code",
        "error_message",
        "actor_ip",
        "producer",
        "producer_seq",
    ] {
        assert_eq!(row.get(name), None, "{name}");
    }
}

#[test]
fn the_view_has_the_contract_s_names_and_forms() {
    let fixture = Fixture::new();
    let parent = event(0);
    fixture.store(&[parent.clone(), event_with(1, json!({"parent_event_id": id(0)}))]);
    let read = |sql: &str| -> Vec<String> {
        let database = fixture.database();
        let mut statement = database.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    let time = parent["event_timestamp"].as_str().unwrap();
    let child = format!("FROM audit_events WHERE event_id = '{}'", id(1));
    assert_eq!(read("SELECT event_id FROM audit_events ORDER BY 1"), [id(0), id(1)]);
    let first = "FROM audit_events WHERE parent_event_id IS NULL";
    assert_eq!(read(&format!("SELECT event_timestamp {first}")), [time]);
    assert_eq!(read(&format!("SELECT event_date {first}")), [&time[..10]]);
    assert_eq!(read(&format!("SELECT parent_event_id {child}")), [id(0)]);
    assert_eq!(read(&format!("SELECT parent_event_date {child}")), [&time[..10]]);
    assert_eq!(read(&format!("SELECT correlation_id {child}")), ["rr-1"]);
    assert_eq!(
        read("SELECT event_data ->> 'event_type' FROM audit_events LIMIT 1"),
        ["gateway.signal.received"]
    );
}

#[test]
fn a_bad_parameter_is_refused_by_its_name_and_value() {
    let fixture = Fixture::new();
    let cases = [
        "limit=0",
        "limit=1001",
        "offset=-1",
        "since=yesterday",
        "event_outcome=maybe",
        "cursor=nonsense",
        "detail_key=alone",
    ];
    for parameters in cases {
        let answer = get(fixture.server.addr(), &format!("{ONE}?{parameters}"));
        let detail = answer.problem(400, "validation-error");
        let (name, value) = parameters.split_once('=').unwrap();
        assert!(detail.contains(name) && detail.contains(value), "{detail}");
        assert_eq!(answer.json()["field"], name);
    }
    fixture.query("colour=red");
}

#[test]
fn a_page_too_big_for_memory_is_refused_by_offset_and_cut_by_cursor() {
    const EVENTS: u64 = 136;
    let fixture = Fixture::new();
    let filler = "x".repeat(255_000);
    for first in (0..EVENTS).step_by(17) {
        let events: Vec<_> = (first..first + 17)
            .map(|number| event_with(number, json!({"event_data": {"filler": filler}})))
            .collect();
        fixture.store(&events);
    }
    let answer = get(fixture.server.addr(), &format!("{ONE}?limit=1000"));
    answer.problem(400, "validation-error");
    let page = fixture.query("limit=1000&cursor=");
    let first = ids(&page);
    assert!(first.len() < EVENTS as usize);
    let cursor = page["pagination"]["next_cursor"].as_str().unwrap();
    let second = ids(&fixture.query(&format!("limit=1000&cursor={cursor}")));
    let all: HashSet<_> = first.iter().chain(&second).collect();
    assert_eq!(all.len(), EVENTS as usize);
    assert_eq!(first.len() + second.len(), EVENTS as usize);
}
