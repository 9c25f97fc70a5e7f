//! Every field: its bounds, its defaults, and odd contents that come back byte for byte.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use ledgerline::{
    Category, Envelope, Event, Field, FieldError, Json, Outcome, Problem, Refused, Store, Timestamp,
};
use ledgerline_testkit::{Served, WAIT, config, event, serve};

/// A field of free text, the most characters it takes, whether it must not be empty, and how to
/// set it.
type TextField = (Field, usize, bool, for<'a> fn(&mut Event<'a>, &'a str));

const TEXT_FIELDS: [TextField; 13] = [
    (Field::Version, 10, true, |event, text| event.version = Some(text)),
    (Field::EventType, 100, true, |event, text| event.event_type = text),
    (Field::EventAction, 50, true, |event, text| event.event_action = text),
    (Field::CorrelationId, 255, true, |event, text| event.correlation_id = text),
    (Field::ActorType, 50, false, |event, text| event.actor_type = Some(text)),
    (Field::ActorId, 255, false, |event, text| event.actor_id = Some(text)),
    (Field::ResourceType, 100, false, |event, text| event.resource_type = Some(text)),
    (Field::ResourceId, 255, false, |event, text| event.resource_id = Some(text)),
    (Field::Namespace, 253, false, |event, text| event.namespace = Some(text)),
    (Field::ClusterId, 255, false, |event, text| event.cluster_id = Some(text)),
    (Field::Severity, 20, false, |event, text| event.severity = Some(text)),
    (Field::ErrorCode, 50, false, |event, text| event.error_code = Some(text)),
    (Field::ErrorMessage, 65_536, false, |event, text| event.error_message = Some(text)),
];

/// A store that delivers to a server of ours.
struct Pair {
    store: Store,
    server: Served,
}

impl Pair {
    fn start() -> Self {
        let server = serve();
        let store = Store::start(config(&server.url())).expect("the configuration is valid");
        Self { store, server }
    }

    #[track_caller]
    fn record(&self, event: &Event<'_>) {
        if let Err(refused) = self.store.record(event) {
            panic!("{refused}");
        }
    }

    #[track_caller]
    fn flush(&self) {
        if let Err(error) = self.store.flush(WAIT) {
            panic!("{error}");
        }
    }
}

/// A store whose events go nowhere, for those that are refused.
fn refusing() -> Store {
    Store::start(config("http://127.0.0.1:9")).expect("a server that isn't there is no error")
}

#[track_caller]
fn assert_refused(store: &Store, event: &Event<'_>, field: Field, problem: Problem) {
    let refused = store.record(event).expect_err("it can't be stored");
    assert_eq!(refused, Refused::Invalid(FieldError { field, problem }));
    assert!(refused.to_string().contains(field.name()), "{refused}");
}

#[test]
fn a_text_as_long_as_its_field_allows_comes_back() {
    let pair = Pair::start();
    // Characters are counted, not bytes; the last is outside of the basic plane.
    for (kind, character) in ["x", "\u{e9}", "\u{1f512}"].into_iter().enumerate() {
        for (field, chars_max, _, set) in TEXT_FIELDS {
            let (text, own) = (character.repeat(chars_max), format!("rr-{kind}-{field}"));
            let mut event = event(&own);
            set(&mut event, &text);
            pair.record(&event);
            let correlation_id = event.correlation_id;
            pair.flush();
            let row = pair.server.one(correlation_id);
            assert!(row.text(field.name()) == text, "{field} of {chars_max} {character:?}");
        }
    }
}

#[test]
fn a_text_longer_than_its_field_is_refused_by_name_and_length() {
    let store = refusing();
    for character in ["x", "\u{e9}", "\u{1f512}"] {
        for (field, max, _, set) in TEXT_FIELDS {
            let (text, mut event) = (character.repeat(max + 1), event("rr-1"));
            set(&mut event, &text);
            let problem = Problem::TooLong { given_chars: max + 1, max };
            assert_refused(&store, &event, field, problem);
        }
    }
    let accounts = store.accounts();
    assert_eq!((accounts.accepted, accounts.refused.invalid), (0, 3 * 13));
}

#[test]
fn an_empty_text_is_refused_where_one_is_required() {
    let store = refusing();
    let pair = Pair::start();
    for (field, _, is_required, set) in TEXT_FIELDS {
        let own = format!("rr-{field}");
        let mut event = event(&own);
        set(&mut event, "");
        if is_required {
            assert_refused(&store, &event, field, Problem::Empty);
        } else {
            pair.record(&event);
        }
    }
    pair.flush();
    assert_eq!(pair.server.count(&[]), 9, "and is stored where it isn't");
}

#[test]
fn the_character_that_no_database_holds_is_refused_in_every_text() {
    let store = refusing();
    for (field, _, _, set) in TEXT_FIELDS {
        let mut event = event("rr-1");
        set(&mut event, "a\0b");
        assert_refused(&store, &event, field, Problem::Nul);
    }
    let mut event = event("rr-1");
    let data = Json(r#"{"a":"\u0000"}"#);
    event.event_data = &data;
    assert_refused(&store, &event, Field::EventData, Problem::NulEscape);
}

#[test]
fn numbers_hold_to_their_ranges() {
    let (store, pair) = (refusing(), Pair::start());
    for given in [i32::MIN, -1] {
        let mut event = event("rr-1");
        event.duration_ms = Some(given);
        let problem = Problem::OutOfRange { given: given.into(), min: 0, max: i32::MAX.into() };
        assert_refused(&store, &event, Field::DurationMs, problem);
    }
    for given in [0, 2_556, u16::MAX] {
        let mut event = event("rr-1");
        event.retention_days = Some(given);
        let problem = Problem::OutOfRange { given: given.into(), min: 1, max: 2_555 };
        assert_refused(&store, &event, Field::RetentionDays, problem);
    }
    for (duration_ms, retention_days) in [(0, 1), (1, 2_555), (i32::MAX, 90)] {
        let own = format!("rr-{duration_ms}");
        let mut event = event(&own);
        event.duration_ms = Some(duration_ms);
        event.retention_days = Some(retention_days);
        pair.record(&event);
        pair.flush();
        let row = pair.server.one(&own);
        assert_eq!(row.raw("duration_ms"), Some(&*duration_ms.to_string()));
        assert_eq!(row.raw("retention_days"), Some(&*retention_days.to_string()));
    }
}

#[test]
fn odd_texts_come_back_byte_for_byte() {
    let controls: String = ('\u{1}'..='\u{1f}').collect();
    let edges = "\u{7f}\u{80}\u{7ff}\u{800}\u{d7ff}\u{e000}\u{fffd}\u{ffff}\u{10000}\u{10ffff}";
    let long: String = "\u{1f50f}\u{e9}x\"\\\n".chars().cycle().take(60_000).collect();
    let odd = [
        "\"",
        "\\",
        "\\\"",
        "\\u0041",
        "\\u0000",
        "a\"b\\c/d",
        "{\"a\":[1]}",
        "],[",
        ",",
        "'",
        "\r\n\t",
        "%00%zz+&=#?",
        "\u{2028}\u{2029}",
        "\u{1f512}\u{1f469}\u{200d}\u{1f4bb}",
        "e\u{301} \u{e9}",
        "\u{5d0}\u{202e}abc",
        "\u{feff}bom",
        " leading and trailing ",
        "null",
        "'; DROP TABLE audit_events; --",
        &controls,
        edges,
        &long,
    ];
    let pair = Pair::start();
    for (number, odd) in odd.into_iter().enumerate() {
        // Each field takes what it has room for.
        let texts = TEXT_FIELDS.map(|(field, max, ..)| {
            let unique = if field == Field::CorrelationId { number.to_string() } else { "".into() };
            (unique + odd).chars().take(max).collect::<String>()
        });
        let mut event = event("replaced");
        for ((_, _, _, set), text) in TEXT_FIELDS.iter().zip(&texts) {
            set(&mut event, text);
        }
        pair.record(&event);
        pair.flush();
        let row = pair.server.one(&texts[3]);
        for ((field, ..), text) in TEXT_FIELDS.iter().zip(&texts) {
            assert!(row.text(field.name()) == *text, "{field}: {text:?} in {row:?}");
        }
    }
}

#[test]
fn odd_event_data_comes_back_byte_for_byte() {
    let pair = Pair::start();
    let texts = [
        "{}",
        r#"{"b":1,"a":2,"b":3}"#,
        r#"{"n":[0,-0,0.10,1.50,1e3,1E-3,-1.0e+2,12345678901234567890,0.1234567890123456789]}"#,
        r#"{"t":"\u0041\u00e9\/\"\\\b\f\n\r\t\ud83d\ude00\u2028"}"#,
        "{ \"spaced\" :\t[ 1 ,\n2 ] }",
        "{\"raw\":\"\u{2028}\u{1f512}\u{e9}\u{7f}\"}",
        r#"{"":"","a":{"b":{"c":{"d":{"e":{"f":{"g":{"h":{"i":{}}}}}}}}}}"#,
        r#"{"t":true,"f":false,"n":null,"e":[[],{}]}"#,
    ];
    for (number, text) in texts.into_iter().enumerate() {
        let own = format!("rr-{number}");
        let (data, mut event) = (Json(text), event(&own));
        event.event_data = &data;
        pair.record(&event);
        pair.flush();
        assert_eq!(pair.server.one(&own).raw("event_data"), Some(text));
    }
}

#[test]
fn what_an_event_leaves_out_gets_its_default() {
    let pair = Pair::start();
    pair.record(&event("rr-bare"));
    pair.flush();
    let row = pair.server.one("rr-bare");
    for (field, default) in [
        ("version", "1.0"),
        ("actor_type", "service"),
        ("actor_id", "gateway-service"),
        ("resource_type", "gateway"),
        ("resource_id", "rr-bare"),
        ("severity", "info"),
    ] {
        assert_eq!(row.text(field), default, "{field}");
    }
    assert_eq!(row.raw("retention_days"), Some("2555"));
    assert_eq!(row.raw("is_sensitive"), Some("false"));
    assert_eq!(row.raw("parent_event_id"), Some("null"));
    for field in ["namespace", "cluster_id", "error_code", "error_message", "actor_ip"] {
        assert_eq!(row.raw(field), None, "{field}");
    }
    assert_eq!(row.text("event_timestamp").len(), 27, "the moment of recording");
}

#[test]
fn every_field_that_is_set_comes_back() {
    let pair = Pair::start();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64;
    let an_hour_ago = Timestamp::from_micros(now - 3_600_000_000).unwrap();
    let addresses = ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"];
    for (number, address) in addresses.into_iter().enumerate() {
        let address: IpAddr = address.parse().unwrap();
        let own = format!("rr-{number}");
        let mut event = event(&own);
        event.event_timestamp = Some(an_hour_ago);
        event.actor_ip = Some(address);
        event.parent_event_date = Some(Timestamp::from_micros(1_700_000_000_000_000).unwrap());
        event.is_sensitive = Some(true);
        pair.record(&event);
        pair.flush();
        let row = pair.server.one(&own);
        let mut time = Vec::new();
        an_hour_ago.append_to(&mut time);
        assert_eq!(row.text("event_timestamp").as_bytes(), time);
        assert_eq!(row.text("actor_ip"), address.to_string());
        assert_eq!(row.text("parent_event_date"), "2023-11-14");
        assert_eq!(row.raw("is_sensitive"), Some("true"));
    }
}

#[test]
fn every_category_and_outcome_is_stored_and_found() {
    let pair = Pair::start();
    for category in Category::ALL {
        for outcome in Outcome::ALL {
            let mut event = event("rr-all");
            event.event_category = category;
            event.event_outcome = outcome;
            pair.record(&event);
        }
    }
    pair.flush();
    for category in Category::ALL {
        assert_eq!(pair.server.count(&[("event_category", category.as_str())]), 3);
    }
    for outcome in Outcome::ALL {
        assert_eq!(pair.server.count(&[("event_outcome", outcome.as_str())]), 14);
    }
}

#[test]
fn an_envelope_and_a_value_are_stored_as_they_serialise() {
    let pair = Pair::start();
    let value = serde_json::json!({"signal": {"name": "\u{1f512}\"", "count": 3}});
    let source = Json(r#"{"raw" : [1.50]}"#);
    let data = Envelope::new(&value)
        .with_service("gateway")
        .with_operation("signal \"received\"")
        .with_status("ok")
        .with_source_payload(&source);
    pair.record(&event("rr-envelope").with_data(&data));
    pair.record(&event("rr-value").with_data(&value));
    pair.flush();
    let signal = "{\"signal\":{\"count\":3,\"name\":\"\u{1f512}\\\"\"}}";
    assert_eq!(pair.server.one("rr-value").raw("event_data"), Some(signal));
    let whole = format!(
        "{{\"version\":\"1.0\",\"service\":\"gateway\",\"operation\":\"signal \\\"received\\\"\",\
         \"status\":\"ok\",\"payload\":{signal},\"source_payload\":{{\"raw\" : [1.50]}}}}"
    );
    assert_eq!(pair.server.one("rr-envelope").raw("event_data"), Some(&*whole));
}
