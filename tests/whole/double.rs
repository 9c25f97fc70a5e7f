//! The double for users' tests answers as our server does: the same bodies go to both.

mod bodies;

use std::collections::BTreeMap;

use ledgerline::testing::{MemoryStorage, StoredEvent};
use ledgerline::{Config, Field};
use ledgerline_testkit::{
    Row, Served, WAIT, assert_all_delivered, event, now_micros, raw_event, serve, time_text,
};
use serde_json::{Value, json};

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

/// With the defaults of both, an engine's batches have twice the events that the server takes.
#[test]
fn an_engine_with_its_defaults_delivers_to_the_double() {
    const EVENTS: u64 = 3_000;
    let storage = MemoryStorage::new();
    let mut config = Config::new("http://memory.invalid");
    config.buffer_bytes = Some(16 << 20);
    config.lanes = 2;
    let store = storage.start_with(config).unwrap();
    for _ in 0..EVENTS {
        store.record(&event("rr-1")).unwrap();
    }
    assert_all_delivered(&store.close(WAIT).unwrap().report.accounts, EVENTS);
    assert_eq!(storage.events().len() as u64, EVENTS);
}
