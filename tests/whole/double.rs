//! The double for users' tests answers as our server does: the same bodies go to both.

use std::collections::BTreeMap;

use ledgerline::Field;
use ledgerline::testing::{MemoryStorage, StoredEvent};
use ledgerline_testkit::{Row, Served, now_micros, raw_event, serve, time_text};
use serde_json::{Value, json};

const MINUTE_US: i64 = 60_000_000;
const DAY_US: i64 = 1_440 * MINUTE_US;

/// Our server and the double, which have been sent the same.
struct Both {
    server: Served,
    double: MemoryStorage,
}

/// What a refusal is expected to name: status, reason, field, index.
type Refusal<'a> = (u64, &'a str, Option<&'a str>, Option<u64>);

impl Both {
    fn start() -> Self {
        Self { server: serve(), double: MemoryStorage::new() }
    }

    /// Sends a body to both, and gives the answer if it is the same.
    #[track_caller]
    fn post(&self, body: &[u8]) -> (u16, Value) {
        let shown = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        let json = |(status, body): (u16, String)| {
            let value = serde_json::from_str::<Value>(&body);
            let mut value = value.unwrap_or_else(|error| panic!("{error} in {body}"));
            // Each makes its own ids for events without one.
            let ids = value.get_mut("event_ids").and_then(Value::as_array_mut);
            let made = |id: &&mut Value| !id.as_str().is_some_and(|id| id.starts_with("0199"));
            ids.into_iter().flatten().filter(made).for_each(|id| *id = "made".into());
            (status, value)
        };
        let answer = json(self.server.post_batch(body));
        assert_eq!(json(self.double.post_batch(body)), answer, "{shown}");
        answer
    }

    #[track_caller]
    fn accepts(&self, body: &[u8]) {
        let (status, answer) = self.post(body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(300)]);
        assert_eq!(status, 201, "{answer} for {shown}");
    }

    #[track_caller]
    fn accepts_events(&self, events: &[Value]) {
        self.accepts(text(events).as_bytes());
    }

    #[track_caller]
    fn refuses(&self, body: &[u8], (expected, reason, field, index): Refusal<'_>) {
        let (status, problem) = self.post(body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(300)]);
        assert_eq!(u64::from(status), expected, "{problem} for {shown}");
        assert_eq!(problem["status"], expected);
        assert_eq!(problem["reason"], reason, "{problem} for {shown}");
        assert_eq!(problem.get("field").and_then(Value::as_str), field, "{problem} for {shown}");
        assert_eq!(problem.get("index").and_then(Value::as_u64), index, "{problem} for {shown}");
    }

    #[track_caller]
    fn refuses_events(&self, events: &[Value], refusal: Refusal<'_>) {
        self.refuses(text(events).as_bytes(), refusal);
    }

    /// Asserts that both have stored the same events, field by field.
    #[track_caller]
    fn have_stored(&self, count: usize) {
        let rows = self.server.query(&[]);
        assert_eq!((rows.len(), self.double.events().len()), (count, count));
        let rows: BTreeMap<_, _> = rows.iter().map(|row| (row.text("event_id"), row)).collect();
        for event in self.double.events() {
            let row = rows[&event.event_id.to_string()];
            for field in Field::ALL {
                assert_eq!(shown_by_server(row, *field), shown(&event, *field), "{field} {row:?}");
            }
        }
    }
}

fn text(events: &[Value]) -> String {
    serde_json::to_string(events).expect("values are JSON")
}

/// A field of a row; a null is as good as nothing. Data is compared as text.
fn shown_by_server(row: &Row, field: Field) -> Option<Value> {
    let raw = row.raw(field.name())?;
    if field == Field::EventData {
        return Some(raw.into());
    }
    serde_json::from_str(raw).ok().filter(|value: &Value| !value.is_null())
}

/// A field of a stored event as the server would show it.
fn shown(event: &StoredEvent, field: Field) -> Option<Value> {
    let or = |text: &Option<String>, default: &str| Some(json!(text.as_deref().unwrap_or(default)));
    let category = &*event.event_category;
    // The server leaves out what is empty.
    let optional =
        |text: &Option<String>| text.clone().filter(|text| !text.is_empty()).map(Value::from);
    match field {
        Field::EventId => Some(event.event_id.to_string().into()),
        Field::Producer => event.producer.clone().map(Value::from),
        Field::ProducerSeq => event.producer_seq.map(Value::from),
        Field::Version => Some(event.version.clone().into()),
        Field::EventType => Some(event.event_type.clone().into()),
        Field::EventTimestamp => Some(event.event_timestamp.to_string().into()),
        Field::EventCategory => Some(category.into()),
        Field::EventAction => Some(event.event_action.clone().into()),
        Field::EventOutcome => Some(event.event_outcome.as_str().into()),
        Field::CorrelationId => Some(event.correlation_id.clone().into()),
        Field::ActorType => or(&event.actor_type, "service"),
        Field::ActorId => or(&event.actor_id, &format!("{category}-service")),
        Field::ActorIp => event.actor_ip.map(|ip| ip.to_string().into()),
        Field::ResourceType => or(&event.resource_type, category),
        Field::ResourceId => or(&event.resource_id, &event.correlation_id),
        Field::Namespace => optional(&event.namespace),
        Field::ClusterId => optional(&event.cluster_id),
        Field::Severity => or(&event.severity, "info"),
        Field::DurationMs => event.duration_ms.map(Value::from),
        Field::ParentEventId => event.parent_event_id.map(|id| id.to_string().into()),
        Field::ParentEventDate => {
            event.parent_event_date.map(|date| date.to_string()[..10].to_owned().into())
        }
        Field::ErrorCode => optional(&event.error_code),
        Field::ErrorMessage => optional(&event.error_message),
        Field::RetentionDays => Some(event.retention_days.into()),
        Field::IsSensitive => Some(event.is_sensitive.into()),
        Field::EventData => Some(event.event_data.clone().into()),
        other => panic!("a field that this test doesn't know: {other}"),
    }
}

/// The event's text with a field's value replaced by these bytes, whatever they are.
fn with_raw(field: &str, value: &str) -> String {
    let text = raw_event(7, json!({ field: "\u{1}" })).to_string();
    text.replace("\"\\u0001\"", value)
}

#[test]
fn the_double_stores_what_the_server_stores() {
    let both = Both::start();
    let parent = raw_event(1, json!({}));
    let whole = json!({
        "producer": "pod-1/0", "producer_seq": u64::MAX, "actor_type": "user", "actor_id": "u1",
        "actor_ip": "2001:DB8::0001", "resource_type": "Pod", "resource_id": "p1",
        "namespace": "ns", "cluster_id": "c1", "severity": "high", "duration_ms": i32::MAX,
        "parent_event_id": parent["event_id"], "parent_event_date": time_text(now_micros()),
        "error_code": "E1", "error_message": "broke", "retention_days": 30, "is_sensitive": true,
    });
    let empty = json!({
        "actor_type": "", "actor_id": "", "resource_type": "", "resource_id": "",
        "namespace": "", "cluster_id": "", "severity": "", "error_code": "", "error_message": "",
    });
    let dated = json!({"parent_event_date": "2023-11-14T23:59:59.999999+00:01"});
    both.accepts_events(&[
        parent,
        raw_event(2, whole),
        raw_event(3, empty),
        raw_event(4, dated),
        raw_event(5, json!({"unknown": [1], "event_outcome": "pending", "duration_ms": 0})),
        raw_event(6, json!({"event_category": "team-a.billing_2"})),
    ]);
    both.have_stored(6);
}

#[test]
fn the_double_refuses_what_breaks_a_field_s_rule() {
    let both = Both::start();
    let long = |chars: usize| json!("\u{1f512}".repeat(chars));
    let deep = (0..10).fold(json!({}), |inner, _| json!({ "a": inner }));
    for (field, value, reason) in [
        ("version", json!(null), "missing"),
        ("version", json!(""), "empty"),
        ("version", long(11), "too_long"),
        ("event_type", long(101), "too_long"),
        ("correlation_id", long(256), "too_long"),
        ("severity", json!("a\0b"), "nul"),
        ("duration_ms", json!(-1), "out_of_range"),
        ("duration_ms", json!(2_147_483_648_u64), "out_of_range"),
        ("duration_ms", json!(1.5), "wrong_type"),
        ("retention_days", json!(0), "out_of_range"),
        ("producer_seq", json!(-1), "wrong_type"),
        ("namespace", json!(["ns"]), "wrong_type"),
        ("event_data", json!([]), "wrong_type"),
        ("is_sensitive", json!("true"), "wrong_type"),
        ("event_outcome", json!("SUCCESS"), "not_in_set"),
        ("event_category", json!("Billing"), "not_a_category"),
        ("event_category", json!(format!("c{}", "9".repeat(50))), "not_a_category"),
        ("actor_ip", json!("10.0.0.0/8"), "not_an_address"),
        ("actor_ip", json!("fe80::1%eth0"), "not_an_address"),
        ("event_id", json!("{01990000-0000-7000-8000-000000000001}"), "not_a_uuid"),
        ("parent_event_id", json!("01990000-0000-7000-8000-00000000ffff"), "unknown_parent"),
        ("event_data", json!({"a": "x".repeat(262_144)}), "too_large"),
        ("event_data", deep, "too_deep"),
        ("event_data", json!({"a\0": 1}), "nul"),
    ] {
        let bad = raw_event(9, json!({ field: value }));
        both.refuses_events(
            &[raw_event(1, json!({})), raw_event(2, json!({})), bad],
            (400, reason, Some(field), Some(2)),
        );
    }
    both.have_stored(0);
}

#[test]
fn the_double_knows_ids_as_the_server_does() {
    let both = Both::start();
    let conflict = |index| (409, "conflict", Some("event_id"), Some(index));
    let first = raw_event(1, json!({"parent_event_date": "2026-01-02T03:04:05Z"}));
    both.accepts_events(&[first.clone(), first.clone()]);
    both.accepts_events(&[raw_event(2, json!({})), first.clone()]);
    // What the server would store as the same row is a repeat.
    let same = json!({
        "actor_type": "service", "actor_id": "gateway-service", "resource_type": "gateway",
        "resource_id": "rr-1", "severity": "info", "is_sensitive": false, "retention_days": 1,
        "parent_event_date": "2026-01-03T00:00:00.5+01:00", "unknown": true,
    });
    let changed = |fields: &Value| {
        let mut event = first.clone();
        event.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        event
    };
    both.accepts_events(&[changed(&same)]);
    for other in [
        json!({"severity": ""}),
        json!({"duration_ms": 0}),
        json!({"event_data": {"number": 1.0}}),
        json!({"parent_event_date": "2026-01-01T03:04:05Z"}),
        json!({"producer_seq": 1}),
        json!({"actor_ip": "::"}),
    ] {
        let third = raw_event(3, json!({}));
        both.refuses_events(&[third.clone(), changed(&other)], conflict(1));
        both.refuses_events(
            &[changed(&other), first.clone()],
            conflict(if other["x"].is_null() { 1 } else { 0 }),
        );
        both.refuses_events(&[third, changed(&other), first.clone()], conflict(2));
    }
    // Without ids nothing repeats.
    let anonymous = raw_event(0, json!({"event_id": null}));
    for (status, ids) in [
        both.server.post_batch(text(&[anonymous.clone(), anonymous.clone()]).as_bytes()),
        both.double.post_batch(text(&[anonymous.clone(), anonymous]).as_bytes()),
    ] {
        let ids: Value = serde_json::from_str(&ids).unwrap();
        assert_eq!(status, 201);
        assert_ne!(ids["event_ids"][0], ids["event_ids"][1]);
    }
    assert_eq!((both.server.count(&[]), both.double.events().len()), (4, 4));
}

#[test]
fn the_double_knows_parents_as_the_server_does() {
    let both = Both::start();
    let id = |number| raw_event(number, json!({}))["event_id"].clone();
    let child = |number, parent| raw_event(number, json!({"parent_event_id": id(parent)}));
    let unknown = |index| (400, "unknown_parent", Some("parent_event_id"), Some(index));
    both.refuses_events(&[child(2, 1), raw_event(1, json!({}))], unknown(0));
    both.refuses_events(&[child(2, 2)], unknown(0));
    both.accepts_events(&[raw_event(1, json!({})), child(2, 1), child(3, 2)]);
    both.accepts_events(&[child(4, 3)]);
    let third = child(5, 4);
    both.accepts_events(std::slice::from_ref(&third));
    both.refuses_events(&[third, child(6, 9), child(7, 8)], unknown(1));
    // The time comes first, though it stands behind.
    let old = raw_event(8, json!({"event_timestamp": "2020-01-01T00:00:00Z"}));
    let refused = (400, "too_old", Some("event_timestamp"), Some(1));
    both.refuses_events(&[child(6, 9), old.clone()], refused);
    // And what the parser refuses before that.
    let refused = (400, "missing", Some("version"), Some(1));
    both.refuses_events(&[old, raw_event(6, json!({"version": null}))], refused);
}

#[test]
fn the_double_reads_times_as_the_server_does() {
    let both = Both::start();
    let now = now_micros();
    let date = &time_text(now - DAY_US)[..10];
    let mut number = 0;
    let mut with = |time: &str| {
        number += 1;
        [raw_event(number, json!({ "event_timestamp": time }))]
    };
    for time in [
        format!("{date}T00:00:00Z"),
        format!("{date}t00:00:00z"),
        format!("{date}T00:00:00.1Z"),
        format!("{date}T00:00:00.123456789Z"),
        format!("{date}T00:00:00.999999999Z"),
        format!("{date}T23:59:60Z"),
        format!("{date}T23:59:60.5Z"),
        format!("{date}T12:00:00+23:59"),
        format!("{date}T12:00:00-11:59"),
        format!("{date}T00:00:00-00:00"),
        time_text(now + 59 * MINUTE_US),
        time_text(now - 7 * DAY_US + MINUTE_US),
    ] {
        both.accepts_events(&with(&time));
    }
    let stored = both.double.events().len();
    for time in [
        date.to_owned(),
        format!("{date}T00:00:00"),
        format!("{date} 00:00:00Z"),
        format!("{date}T24:00:00Z"),
        format!("{date}T00:60:00Z"),
        format!("{date}T00:00:61Z"),
        format!("{date}T00:00:00.Z"),
        format!("{date}T00:00:00.1234567890Z"),
        format!("{date}T00:00:00,5Z"),
        format!("{date}T00:00:00+24:00"),
        format!("{date}T00:00:00+0100"),
        format!("{date}T00:00:00+01"),
        format!("{date}T00:00:00Z "),
        format!(" {date}T00:00:00Z"),
        format!("+{date}T00:00:00Z"),
        "2026-02-29T00:00:00Z".to_owned(),
        "2026-13-01T00:00:00Z".to_owned(),
        "2026-00-01T00:00:00Z".to_owned(),
        "2026-1-1T00:00:00Z".to_owned(),
        "0000-01-01T00:00:00Z".to_owned(),
        "9999-12-31T23:59:59-00:01".to_owned(),
        "10000-01-01T00:00:00Z".to_owned(),
        "\u{662}\u{660}26-01-01T00:00:00Z".to_owned(),
        now.to_string(),
        String::new(),
    ] {
        let refused = (400, "not_a_timestamp", Some("event_timestamp"), Some(0));
        both.refuses_events(&with(&time), refused);
    }
    for (time, reason) in [
        (time_text(now + 61 * MINUTE_US), "too_new"),
        (time_text(now - 7 * DAY_US - MINUTE_US), "too_old"),
        ("0001-01-01T00:00:00Z".to_owned(), "too_old"),
        ("9999-12-31T23:59:60.999999Z".to_owned(), "too_new"),
    ] {
        let refused = (400, reason, Some("event_timestamp"), Some(0));
        both.refuses_events(&with(&time), refused);
    }
    both.have_stored(stored);
}

#[test]
fn the_double_reads_hostile_bodies_as_the_server_does() {
    let both = Both::start();
    let good = raw_event(1, json!({})).to_string();
    let nested = |open: &str, close: &str, levels| open.repeat(levels) + &close.repeat(levels);
    let unknown = |value: &str| format!("[{}]", with_raw("unknown", value));
    let data = |value: &str| format!("[{}]", with_raw("event_data", value));

    // No JSON, or not what the endpoint takes.
    for body in [
        "",
        " ",
        "[",
        "]",
        "[{]",
        "[,]",
        "{",
        "nul",
        "[}",
        "\"",
        "[\"\\x\"]",
        "[\"\t\"]",
        "[01]",
        "[1.]",
        "[.5]",
        "[+1]",
        "[1e]",
        "[-]",
        "[NaN]",
        "[Infinity]",
        "['a']",
        "[/**/]",
        "[1] 2",
        "\u{feff}[]",
        "[\"\\ud83d\\u\"]",
        "[true false]",
        "[{\"a\" 1}]",
        "[{a:1}]",
        "[{1:1}]",
        "\0[]",
        "[]\0",
        "[\u{a0}]",
    ] {
        both.refuses(body.as_bytes(), (400, "not_json", None, None));
    }
    for body in [&good, "{}", "null", "true", "1e999", "\"[]\"", "-0"] {
        both.refuses(body.as_bytes(), (400, "wrong_shape", None, None));
    }
    both.refuses(b" [ \r\n\t ] ", (400, "empty_batch", None, None));
    for (element, index) in [("null", 1), ("[]", 1), ("1e999", 1), ("\"{}\"", 1)] {
        let body = format!("[{good},{element}]");
        both.refuses(body.as_bytes(), (400, "not_an_object", None, Some(index)));
    }
    both.refuses(b"[{}]", (400, "missing", Some("version"), Some(0)));

    // Bytes that are no UTF-8, wherever they stand: overlong, a surrogate, cut, beyond Unicode.
    for bytes in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xe2\x82", b"\xf4\x90\x80\x80"] {
        for (before, after) in unknown("\"|\"").split_once('|').into_iter().chain([("[", "]")]) {
            let body = [before.as_bytes(), bytes, after.as_bytes()].concat();
            both.refuses(&body, (400, "not_json", None, None));
        }
    }

    // Depth: 128 levels in what is ignored, 10 in what is stored.
    both.accepts(unknown(&nested("[", "]", 128)).as_bytes());
    both.refuses(unknown(&nested("[", "]", 129)).as_bytes(), (400, "not_json", None, None));
    both.refuses(nested("[", "]", 1_000_000).as_bytes(), (400, "not_json", None, None));
    both.refuses(nested("{\"a\":", "}", 500_000).as_bytes(), (400, "not_json", None, None));
    let refused = |reason| (400, reason, Some("event_data"), Some(0));
    both.refuses(data(&nested("{\"a\":", "}", 11)).as_bytes(), (400, "not_json", None, None));
    both.refuses(
        data(&format!("{}1{}", "{\"a\":".repeat(11), "}".repeat(11))).as_bytes(),
        refused("too_deep"),
    );
    both.refuses(
        data(&format!("{{\"a\":{}}}", nested("[", "]", 10))).as_bytes(),
        refused("too_deep"),
    );

    // Numbers.
    for number in ["1e400", "-1e400", &"9".repeat(400), "1e-20000", "1e99999999999999999999"] {
        both.refuses(
            data(&format!("{{\"a\":{number}}}")).as_bytes(),
            refused("number_out_of_range"),
        );
    }
    let digits = "9".repeat(100_000);
    for (number, reason) in [
        ("1e999", "number_out_of_range"),
        (&digits, "number_out_of_range"),
        ("-1e-99999", "number_out_of_range"),
        ("0.1e+5", "wrong_type"),
        ("18446744073709551616", "wrong_type"),
        ("18446744073709551615", "out_of_range"),
    ] {
        let refused = (400, reason, Some("duration_ms"), Some(0));
        both.refuses(format!("[{}]", with_raw("duration_ms", number)).as_bytes(), refused);
        let ignored = format!("[{{\"unknown\":{number}}}]");
        both.refuses(ignored.as_bytes(), (400, "missing", Some("version"), Some(0)));
    }

    // Characters that can't be stored, as such and as escapes, in names too.
    for (text, reason) in [
        ("\"\\u0000\"", "nul"),
        ("\"\\ud800\"", "lone_surrogate"),
        ("\"\\udc00\\ud800\"", "lone_surrogate"),
        ("\"\\ud800\\u0041\"", "lone_surrogate"),
    ] {
        both.refuses(data(&format!("{{\"a\":{text}}}")).as_bytes(), refused(reason));
        both.refuses(data(&format!("{{{text}:1}}")).as_bytes(), refused(reason));
        let refused = (400, reason, Some("severity"), Some(0));
        both.refuses(format!("[{}]", with_raw("severity", text)).as_bytes(), refused);
    }

    // Names given twice: refused where we know them, stored where they are the caller's.
    let twice = good.replace("\"version\":", "\"\\u0076ersion\":\"2\",\"version\":");
    both.refuses(format!("[{twice}]").as_bytes(), (400, "duplicate", Some("version"), Some(0)));
    let event = with_raw("event_data", "{\"a\":1,\"a\":2,\"\":{\"\":null}}");
    let event = event
        .replace("{\"correlation_id", "{\"x\":1,\"x\":[1e999,\"\\ud800\\u0000\"],\"correlation_id");
    both.accepts(format!("[{}]", event.replace("0000000007", "0000000008")).as_bytes());
    let spaced = good.replace("\":", "\" \r\n: \t").replace(",\"", " ,\n\"");
    both.accepts(format!(" [ {spaced} ] ").as_bytes());
    both.have_stored(3);
}

#[test]
fn the_double_has_the_server_s_limits_of_a_request() {
    let both = Both::start();
    let events: Vec<_> = (0..10_000).map(|number| raw_event(number, json!({}))).collect();
    both.refuses_events(&events, (400, "too_many", None, None));
    both.refuses_events(&events[..501], (400, "too_many", None, None));
    // Their number is checked before they are.
    both.refuses(text(&vec![json!(1); 501]).as_bytes(), (400, "too_many", None, None));
    both.accepts_events(&events[..500]);
    let mut body = text(&events[500..501]).into_bytes();
    body.resize(5 << 20, b' ');
    both.accepts(&body);
    body.push(b' ');
    both.refuses(&body, (413, "too_large", None, None));
    both.refuses(&vec![b'['; 6 << 20], (413, "too_large", None, None));
    both.have_stored(501);
}

/// A piece of a body, wherever it is put.
const PIECES: [&[u8]; 24] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud83d",
    b"\\ude00",
    b"0",
    b"-1",
    b"1e999",
    b"null",
    b"true",
    b" ",
    b"\0",
    b"\xff",
    b"\xc3\xa9",
    b"\xf0\x9f\x94\x92",
    b"\"event_id\":null,",
    b"\"version\":\"2\",",
    b"2020-01-01T00:00:00Z",
];

#[test]
fn the_double_and_the_server_agree_on_damaged_bodies() {
    let both = Both::start();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let whole = json!({
        "producer": "pod-1/0", "producer_seq": 7, "actor_ip": "10.0.0.1", "severity": "high",
        "duration_ms": 12, "retention_days": 30, "is_sensitive": true,
        "parent_event_date": "2026-01-02T03:04:05.678Z",
    });
    let events = [raw_event(0, json!({})), raw_event(1, whole), raw_event(2, json!({"x": [1]}))];
    let body = text(&events).into_bytes();
    for _ in 0..2_000 {
        let mut damaged = body.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..damaged.len());
            let end = (at + random.usize(..3)).min(damaged.len());
            let piece = PIECES[random.usize(..PIECES.len())];
            damaged.splice(at..end, if random.bool() { piece } else { b"" }.iter().copied());
        }
        both.post(&damaged);
    }
    assert_eq!(both.server.count(&[]), both.double.events().len() as u64);
}
