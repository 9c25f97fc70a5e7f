//! Both sides of the wire against each other: what is encoded is parsed back, and each limit holds
//! for the encoder and the parser alike.

use std::net::IpAddr;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::json::tests::any_value;
use crate::{Event, Field, Identity, Json, Problem, encode};

const SEQ: u64 = 1 << 60;

fn minimal() -> Map<String, Value> {
    let Value::Object(map) = json!({
        "version": "1.0", "event_type": "a.b.c", "event_timestamp": "2026-11-21T06:40:12.318402Z",
        "event_category": "gateway", "event_action": "received", "event_outcome": "success",
        "correlation_id": "rr-1", "event_data": {},
    }) else {
        unreachable!()
    };
    map
}

fn with(field: Field, value: impl Into<Value>) -> String {
    let mut map = minimal();
    map.insert(field.name().to_owned(), value.into());
    Value::Object(map).to_string()
}

/// The minimal event with more text in front of its fields.
fn prefixed(fields: &str) -> String {
    let text = Value::Object(minimal()).to_string();
    format!("{{{fields},{}", &text[1..])
}

fn parsed_problem(text: &str) -> Option<(Field, Problem)> {
    match parse_event(text.as_bytes(), &mut Scratch::default()) {
        Ok(_) => None,
        Err(ParseError::Field { index: 0, error }) => Some((error.field, error.problem)),
        Err(other) => panic!("{text}: {other}"),
    }
}

fn encoded_problem(event: &Event<'_>, producer: &str) -> Option<(Field, Problem)> {
    let identity =
        Identity { event_id: Uuid::nil(), producer, producer_seq: 1, now: Timestamp::EPOCH };
    let error = encode(event, &identity, &mut Vec::new()).err()?;
    Some((error.field, error.problem))
}

/// Puts a text into a field of an event; gives back the producer, which isn't part of it.
fn set_text<'a>(event: &mut Event<'a>, field: Field, text: &'a str) -> &'a str {
    match field {
        Field::Producer => return text,
        Field::Version => event.version = Some(text),
        Field::EventType => event.event_type = text,
        Field::EventAction => event.event_action = text,
        Field::CorrelationId => event.correlation_id = text,
        Field::ActorType => event.actor_type = Some(text),
        Field::ActorId => event.actor_id = Some(text),
        Field::ResourceType => event.resource_type = Some(text),
        Field::ResourceId => event.resource_id = Some(text),
        Field::Namespace => event.namespace = Some(text),
        Field::ClusterId => event.cluster_id = Some(text),
        Field::Severity => event.severity = Some(text),
        Field::ErrorCode => event.error_code = Some(text),
        Field::ErrorMessage => event.error_message = Some(text),
        other => panic!("{other} isn't a text"),
    }
    "producer"
}

fn text_of<'a>(event: &ParsedEvent<'a>, field: Field) -> Option<&'a str> {
    match field {
        Field::Producer => event.producer,
        Field::Version => Some(event.version),
        Field::EventType => Some(event.event_type),
        Field::EventAction => Some(event.event_action),
        Field::CorrelationId => Some(event.correlation_id),
        Field::ActorType => event.actor_type,
        Field::ActorId => event.actor_id,
        Field::ResourceType => event.resource_type,
        Field::ResourceId => event.resource_id,
        Field::Namespace => event.namespace,
        Field::ClusterId => event.cluster_id,
        Field::Severity => event.severity,
        Field::ErrorCode => event.error_code,
        Field::ErrorMessage => event.error_message,
        other => panic!("{other} isn't a text"),
    }
}

fn texts() -> impl Iterator<Item = Field> {
    Field::ALL.iter().copied().filter(|field| field.chars_max().is_some())
}

/// A small event with this data.
fn small<'a>(data: &'a Json<&str>) -> Event<'a> {
    let event = Event::new("a", Category::Gateway, Outcome::Success);
    event.with_correlation_id("c").with_data(data)
}

/// What stands in an event beside its texts and its data.
#[derive(Debug, Clone)]
struct Others {
    category: Category<'static>,
    outcome: Outcome,
    timestamps: [Option<Timestamp>; 2],
    address: Option<IpAddr>,
    duration_ms: Option<i32>,
    parent: Option<u128>,
    retention_days: Option<u16>,
    is_sensitive: Option<bool>,
}

fn any_others() -> impl Strategy<Value = Others> {
    let timestamp = || {
        let micros = -62_135_596_800_000_000_i64..=253_402_300_799_999_999;
        prop::option::of(micros.prop_map(|micros| Timestamp::from_micros(micros).unwrap()))
    };
    (
        prop::sample::select(&Category::ALL[..]),
        prop::sample::select(&Outcome::ALL[..]),
        (timestamp(), timestamp()),
        prop::option::of(any::<IpAddr>()),
        prop::option::of(0..=i32::MAX),
        any::<Option<u128>>(),
        prop::option::of(1..=2555_u16),
        any::<Option<bool>>(),
    )
        .prop_map(|(category, outcome, timestamps, address, duration_ms, parent, days, is)| {
            Others {
                category,
                outcome,
                timestamps: timestamps.into(),
                address,
                duration_ms,
                parent,
                retention_days: days,
                is_sensitive: is,
            }
        })
}

/// One text for each field of text, within its limits; none for some of the optional ones.
fn any_texts() -> impl Strategy<Value = Vec<Option<String>>> {
    texts().map(any_text).collect::<Vec<_>>()
}

fn any_text(field: Field) -> BoxedStrategy<Option<String>> {
    let max = field.chars_max().unwrap().min(300);
    let is_required = REQUIRED_TEXTS.contains(&field);
    let character = prop_oneof![
        any::<char>(),
        prop::sample::select(&['"', '\\', '\n', '\u{1}', '\u{10ffff}', '\u{2028}', '\u{7f}'][..]),
        prop::char::range(' ', '~'),
    ]
    .prop_filter("can't be stored", |character| *character != '\0');
    let text = prop::collection::vec(character, usize::from(is_required)..=max)
        .prop_map(|chars| chars.into_iter().collect::<String>());
    if is_required { text.prop_map(Some).boxed() } else { prop::option::of(text).boxed() }
}

const REQUIRED_TEXTS: [Field; 5] =
    [Field::Producer, Field::Version, Field::EventType, Field::EventAction, Field::CorrelationId];

fn any_data() -> impl Strategy<Value = String> {
    let object = prop::collection::btree_map(any::<String>(), any_value(), 0..5);
    (object, any::<bool>()).prop_map(|(object, is_pretty)| {
        let text = if is_pretty {
            serde_json::to_string_pretty(&object)
        } else {
            serde_json::to_string(&object)
        };
        text.unwrap().replace("\\u0000", "\\u0001")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]

    #[test]
    fn what_is_encoded_is_parsed_back(
        samples in prop::collection::vec(
            (any_texts(), any_others(), any_data(), any::<u128>()),
            1..5,
        ),
    ) {
        let mut records = Vec::new();
        for (texts_given, others, data, id) in &samples {
            let data = Json(data);
            let mut event = Event::new("", others.category, others.outcome).with_data(&data);
            let mut producer = "";
            for (field, text) in texts().zip(texts_given) {
                if let Some(text) = text {
                    let given = set_text(&mut event, field, text);
                    if field == Field::Producer { producer = given }
                }
            }
            event.event_timestamp = others.timestamps[0];
            event.parent_event_date = others.timestamps[1];
            event.actor_ip = others.address;
            event.duration_ms = others.duration_ms;
            event.parent_event_id = others.parent.map(Uuid::from_u128);
            event.retention_days = others.retention_days;
            event.is_sensitive = others.is_sensitive;
            let event_id = Uuid::from_u128(*id);
            let now = Timestamp::EPOCH;
            let identity = Identity { event_id, producer, producer_seq: SEQ, now };
            encode(&event, &identity, &mut records).unwrap();
        }
        let body = [b"[", &records[1..], b"]"].concat();
        prop_assert!(serde_json::from_slice::<Value>(&body).is_ok());

        let mut scratch = Scratch::default();
        let events = parse_batch(&body, samples.len(), &mut scratch).unwrap();
        prop_assert_eq!(events.len(), samples.len());
        for (event, (texts_given, others, data, id)) in events.iter().zip(&samples) {
            for (field, text) in texts().zip(texts_given) {
                prop_assert_eq!(text_of(event, field), text.as_deref());
            }
            prop_assert_eq!(event.event_id, Some(Uuid::from_u128(*id)));
            prop_assert_eq!(event.producer_seq, Some(SEQ));
            prop_assert_eq!(event.event_category, others.category);
            prop_assert_eq!(event.event_outcome, others.outcome);
            let timestamp = others.timestamps[0].unwrap_or(Timestamp::EPOCH);
            prop_assert_eq!(event.event_timestamp, timestamp);
            prop_assert_eq!(event.parent_event_date, others.timestamps[1]);
            prop_assert_eq!(event.actor_ip, others.address);
            prop_assert_eq!(event.duration_ms, others.duration_ms);
            prop_assert_eq!(event.parent_event_id, others.parent.map(Uuid::from_u128));
            prop_assert_eq!(event.retention_days, others.retention_days.unwrap_or(2555));
            prop_assert_eq!(event.is_sensitive, others.is_sensitive.unwrap_or(false));
            prop_assert_eq!(event.event_data, data);
        }
    }

    #[test]
    fn a_damaged_body_is_refused_or_parsed(
        data in any_data(),
        at in any::<prop::sample::Index>(),
        odd in any::<u8>(),
    ) {
        let mut body = format!("[{}]", prefixed(&format!("\"x\":{data}"))).into_bytes();
        let at = at.index(body.len());
        body[at] = odd;
        let is_json = std::str::from_utf8(&body)
            .is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok());
        let mut scratch = Scratch::default();
        let parsed = parse_batch(&body, 9, &mut scratch);
        prop_assert!(is_json || matches!(parsed, Err(ParseError::NotJson(_))), "{parsed:?}");
        prop_assert!(!is_json || !matches!(parsed, Err(ParseError::NotJson(_))), "{parsed:?}");
    }

    #[test]
    fn any_bytes_at_all_are_refused(bytes in any::<Vec<u8>>()) {
        prop_assert!(parse_batch(&bytes, 9, &mut Scratch::default()).is_err());
        prop_assert!(parse_event(&bytes, &mut Scratch::default()).is_err());
    }
}

#[test]
fn the_length_of_every_text_is_held_on_both_sides() {
    let data = Json("{}");
    let minimal = small(&data);
    for field in texts() {
        let max = field.chars_max().unwrap();
        for character in ["x", "\u{e9}", "\u{10ffff}"] {
            let mut event = minimal;
            let fits = character.repeat(max);
            let producer = set_text(&mut event, field, &fits);
            assert_eq!(encoded_problem(&event, producer), None, "{field}");
            assert_eq!(parsed_problem(&with(field, fits)), None, "{field}");

            let mut event = minimal;
            let over = character.repeat(max + 1);
            let producer = set_text(&mut event, field, &over);
            let refused = Some((field, Problem::TooLong { given_chars: max + 1, max }));
            assert_eq!(encoded_problem(&event, producer), refused);
            assert_eq!(parsed_problem(&with(field, over)), refused);
        }
    }
}

#[test]
fn an_empty_text_is_refused_on_both_sides_where_one_is_required() {
    let data = Json("{}");
    for field in texts() {
        let mut event = small(&data);
        let producer = set_text(&mut event, field, "");
        let refused = REQUIRED_TEXTS.contains(&field).then_some((field, Problem::Empty));
        assert_eq!(encoded_problem(&event, producer), refused);
        assert_eq!(parsed_problem(&with(field, "")), refused);
    }
}

#[test]
fn a_nul_in_any_text_is_refused_on_both_sides() {
    let data = Json("{}");
    for field in texts() {
        let mut event = small(&data);
        let producer = set_text(&mut event, field, "a\0b");
        let refused = Some((field, Problem::Nul));
        assert_eq!(encoded_problem(&event, producer), refused);
        assert_eq!(parsed_problem(&with(field, "a\0b")), refused);
    }
}

#[test]
fn numbers_are_held_to_their_ranges_on_both_sides() {
    let data = Json("{}");
    let minimal = small(&data);
    let max = i64::from(i32::MAX);
    for (given, is_fine) in [(0, true), (max, true), (-1, false), (max + 1, false)] {
        let problem = Problem::OutOfRange { given, min: 0, max };
        let refused = (!is_fine).then_some((Field::DurationMs, problem));
        assert_eq!(parsed_problem(&with(Field::DurationMs, given)), refused);
        if let Ok(duration_ms) = i32::try_from(given) {
            let event = Event { duration_ms: Some(duration_ms), ..minimal };
            assert_eq!(encoded_problem(&event, "p"), refused);
        }
    }
    for (given, is_fine) in [(1, true), (2555, true), (0, false), (2556, false), (65_535, false)] {
        let problem = Problem::OutOfRange { given: i64::from(given), min: 1, max: 2555 };
        let refused = (!is_fine).then_some((Field::RetentionDays, problem));
        assert_eq!(parsed_problem(&with(Field::RetentionDays, given)), refused);
        let event = Event { retention_days: Some(given), ..minimal };
        assert_eq!(encoded_problem(&event, "p"), refused);
    }
    let ids = [("0", true), ("18446744073709551615", true), ("-1", false), ("1e3", false)];
    for (given, is_fine) in ids {
        let problem = parsed_problem(&prefixed(&format!("\"producer_seq\":{given}")));
        assert_eq!(problem.is_none(), is_fine, "{given} {problem:?}");
    }
}

#[test]
fn a_number_that_is_no_integer_is_refused_by_name_however_large_it_is() {
    for field in [Field::DurationMs, Field::RetentionDays, Field::ProducerSeq] {
        for given in
            ["5.0", "5e0", "18446744073709551616", "-9223372036854775809", "1e300", "1e400"]
        {
            let problem = parsed_problem(&prefixed(&format!("\"{field}\":{given}")));
            assert_eq!(
                problem.as_ref().map(|(field, _)| *field),
                Some(field),
                "{given} {problem:?}"
            );
        }
    }
    assert_eq!(parsed_problem(&prefixed("\"duration_ms\":-0")), None);
}

#[test]
fn event_data_is_held_to_its_limits_where_it_stands() {
    let over = format!("{{\"a\":\"{}\"}}", "x".repeat(262_144 - 7));
    for (data, problem) in [
        (over.as_str(), Problem::TooLarge { bytes: 262_145, max: 262_144 }),
        (&format!("{}0{}", "{\"a\":".repeat(11), "}".repeat(11)), Problem::TooDeep { max: 10 }),
        (r#"{"a":"\u0000"}"#, Problem::NulEscape),
        (r#"{"a":"\ud800"}"#, Problem::LoneSurrogate),
        (r#"{"a":1e400}"#, Problem::NumberOutOfRange { offset: 5 }),
        ("[]", Problem::WrongType { expected: "an object", found: "an array" }),
        ("\"{}\"", Problem::WrongType { expected: "an object", found: "a string" }),
        ("null", Problem::Missing),
    ] {
        let good = Value::Object(minimal()).to_string();
        let bad = good.replace("\"event_data\":{}", &format!("\"event_data\":{data}"));
        let mut scratch = Scratch::default();
        let body = format!("[{good},{bad},{good}]");
        let error = parse_batch(body.as_bytes(), 3, &mut scratch).unwrap_err();
        assert_eq!(error, ParseError::Field { index: 1, error: Field::EventData.error(problem) });
    }
    let fits = &over.replacen('x', "", 1);
    let body = prefixed("\"x\":0").replace("\"event_data\":{}", &format!("\"event_data\":{fits}"));
    let mut scratch = Scratch::default();
    assert_eq!(parse_event(body.as_bytes(), &mut scratch).unwrap().event_data, fits);
}

#[test]
fn what_cannot_be_stored_passes_where_nobody_stores_it() {
    let odd = "123456789012345678901234567890";
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let unknown = format!("\"x\":[{odd},1e400,\"\\ud800\",\"\\u0000\",{deep}]");
    let text = prefixed(&format!("{unknown},\"severity\":\"low\",{unknown}"));
    let body = text.replace("\"event_data\":{}", &format!("\"event_data\" : {{\"n\": {odd}}} "));
    let mut scratch = Scratch::default();
    let event = parse_event(body.as_bytes(), &mut scratch).unwrap();
    assert_eq!(event.event_data, format!("{{\"n\": {odd}}}"));
}

#[test]
fn a_field_given_twice_is_refused_however_it_is_spelled() {
    for field in Field::ALL {
        let mut escaped = String::from("\\u00");
        escaped += &format!("{:02x}{}", field.name().as_bytes()[0], &field.name()[1..]);
        for spelling in [field.name(), &escaped] {
            let twice = prefixed(&format!("\"{spelling}\":null,\"{field}\":null"));
            assert_eq!(parsed_problem(&twice), Some((*field, Problem::Duplicate)), "{spelling}");
        }
    }
}

#[test]
fn a_name_spelled_with_escapes_is_the_same_name() {
    let text = Value::Object(minimal()).to_string();
    let body =
        text.replace("event_data", "\\u0065vent\\u005fdata").replace("version", "v\\u0065rsion");
    let mut scratch = Scratch::default();
    let event = parse_event(body.as_bytes(), &mut scratch).unwrap();
    assert_eq!((event.event_data, event.version), ("{}", "1.0"));
}

#[test]
fn a_required_field_must_be_there_and_an_optional_one_may_be_null() {
    for field in Field::ALL {
        let is_required = minimal().contains_key(field.name());
        let refused = is_required.then_some((*field, Problem::Missing));
        assert_eq!(parsed_problem(&with(*field, Value::Null)), refused);
        let mut map = minimal();
        map.remove(field.name());
        assert_eq!(parsed_problem(&Value::Object(map).to_string()), refused);
    }
}

#[test]
fn a_value_of_another_type_is_refused() {
    for field in Field::ALL {
        for value in [json!(true), json!(1), json!(1.5), json!([]), json!([[1]]), json!({"a": {}})]
        {
            let is_right = match field {
                Field::IsSensitive => value.is_boolean(),
                Field::DurationMs | Field::RetentionDays | Field::ProducerSeq => value.is_i64(),
                Field::EventData => value.is_object(),
                _ => false,
            };
            match parsed_problem(&with(*field, value.clone())) {
                None => assert!(is_right, "{field} {value}"),
                Some((named, Problem::WrongType { .. })) => assert!(named == *field && !is_right),
                other => panic!("{field} {value} {other:?}"),
            }
        }
    }
}

#[test]
fn values_outside_their_set_or_form_are_refused_with_what_was_given() {
    use Problem::{NotATimestamp, NotAUuid, NotAnAddress};
    let given = || "x".to_owned();
    let simple = "0190abcdef0170008000000000000000";
    for (field, value, problem) in [
        (Field::ActorIp, "x", NotAnAddress { given: given() }),
        (Field::ActorIp, "10.0.0.0/8", NotAnAddress { given: "10.0.0.0/8".to_owned() }),
        (Field::ActorIp, "", NotAnAddress { given: String::new() }),
        (Field::EventTimestamp, "x", NotATimestamp { given: given() }),
        (Field::ParentEventDate, "2026-11-21", NotATimestamp { given: "2026-11-21".to_owned() }),
        (Field::EventId, "x", NotAUuid { given: given() }),
        (Field::ParentEventId, simple, NotAUuid { given: simple.to_owned() }),
    ] {
        assert_eq!(parsed_problem(&with(field, value)), Some((field, problem)));
    }
    let long = "\u{e9}".repeat(1000);
    let Some((Field::EventCategory, problem)) = parsed_problem(&with(Field::EventCategory, long))
    else {
        panic!("accepted")
    };
    assert!(problem.to_string().len() < 400, "{problem}");
    assert!(matches!(problem, Problem::NotACategory { .. }), "{problem}");
    let problem = parsed_problem(&with(Field::EventOutcome, "Success"));
    let given = "Success".to_owned();
    let allowed = &["success", "failure", "pending"];
    assert_eq!(problem, Some((Field::EventOutcome, Problem::NotInSet { given, allowed })));
}

#[test]
fn half_a_surrogate_pair_is_refused_where_it_would_be_stored() {
    let problem = parsed_problem(&prefixed("\"severity\":\"\\ud800\""));
    assert_eq!(problem, Some((Field::Severity, Problem::LoneSurrogate)));
    assert_eq!(parsed_problem(&prefixed("\"other\":\"\\ud800\",\"\\ud800\":1")), None);
}

#[test]
fn the_shape_of_the_body_is_what_the_endpoint_wants() {
    let event = Value::Object(minimal()).to_string();
    let batch = |body: &str| parse_batch(body.as_bytes(), 2, &mut Scratch::default()).map(|_| ());
    let single = |body: &str| parse_event(body.as_bytes(), &mut Scratch::default()).map(|_| ());
    let wrong = |expected, found| Err(ParseError::WrongShape { expected, found });
    assert_eq!(batch(&event), wrong("an array", "an object"));
    assert_eq!(batch("null"), wrong("an array", "null"));
    assert_eq!(single(&format!("[{event}]")), wrong("an object", "an array"));
    assert_eq!(single("\"x\""), wrong("an object", "a string"));
    assert_eq!(batch(" [ ] "), Err(ParseError::Empty));
    assert_eq!(batch(&format!(" [ {event} , {event} ] ")), Ok(()));
    let three = format!("[{event},{{}},1]");
    assert_eq!(batch(&three), Err(ParseError::TooMany { given: 3, max: 2 }));
    for (element, found) in [("1", "a number"), ("[[]]", "an array"), ("\"x\"", "a string")] {
        let refused = Err(ParseError::NotAnObject { index: 1, found });
        assert_eq!(batch(&format!("[{event},{element}]")), refused);
    }
    assert_eq!(single(&format!(" {event} ")), Ok(()));
    for body in ["", " ", "[", "[{}", "[{},]", "[{}]]", "{}{}", "[{\"a\":1,}]", "\u{feff}[]"] {
        assert!(matches!(batch(body), Err(ParseError::NotJson(_))), "{body:?}");
        assert!(matches!(single(body), Err(ParseError::NotJson(_))), "{body:?}");
    }
    let deep = format!("[{}]", prefixed(&format!("\"x\":{}", "[".repeat(1_000_000))));
    let refused = "the body is not valid JSON: nests deeper than 128 levels";
    assert_eq!(batch(&deep).unwrap_err().to_string(), refused);
    assert!(matches!(
        parse_batch(b"[\"\xff\"]", 2, &mut Scratch::default()),
        Err(ParseError::NotJson(_))
    ));
}

#[test]
fn memory_does_not_grow_with_what_is_refused_for_its_number() {
    let mut scratch = Scratch::default();
    let body = format!("[{}{{}}]", "1,".repeat(1_000_000));
    let refused = parse_batch(body.as_bytes(), 500, &mut scratch).unwrap_err();
    assert_eq!(refused, ParseError::TooMany { given: 1_000_001, max: 500 });
    let body = format!("[{{{}\"version\":1}}]", "\"version\":1,".repeat(1_000_000));
    let refused = parse_batch(body.as_bytes(), 500, &mut scratch).unwrap_err();
    assert_eq!(refused.to_string(), "event 0: version is a number, expected a string");
    let good = Value::Object(minimal()).to_string();
    let twice = good.replace("{\"", &format!("{{{}\"", "\"version\":null,".repeat(1_000_000)));
    let refused = parse_event(twice.as_bytes(), &mut scratch).unwrap_err();
    assert_eq!(refused.to_string(), "event 0: version is given twice");
    assert!(scratch.bytes.capacity() < 10_000 && scratch.nodes.capacity() < 10_000, "{scratch:?}");
}

#[test]
fn the_first_thing_wrong_in_the_order_of_the_array_is_named() {
    let good = Value::Object(minimal()).to_string();
    let bad_data = good.replace("\"event_data\":{}", "\"event_data\":{\"a\":\"\\u0000\"}");
    let body = format!("[{good},{},{bad_data}]", with(Field::Version, ""));
    let error = parse_batch(body.as_bytes(), 3, &mut Scratch::default()).unwrap_err();
    assert_eq!(error.to_string(), "event 1: version is empty");
}

#[test]
fn a_body_cut_anywhere_is_refused() {
    let text = prefixed(r#""x":[1.5e3,null,"\ud83d\ude00"],"event_id":null,"severity":"\u00e9""#);
    let body = format!("[{text},{text}]");
    let mut scratch = Scratch::default();
    assert_eq!(parse_batch(body.as_bytes(), 2, &mut scratch).unwrap().len(), 2);
    for end in 0..body.len() {
        let error = parse_batch(&body.as_bytes()[..end], 2, &mut scratch).unwrap_err();
        assert!(matches!(error, ParseError::NotJson(_)), "{end} {error}");
    }
}

#[test]
fn scratch_can_be_used_again_after_success_and_after_failure() {
    let mut scratch = Scratch::default();
    let long = format!("[{}]", vec![with(Field::Severity, "high\n"); 50].join(","));
    assert_eq!(parse_batch(long.as_bytes(), 50, &mut scratch).unwrap().len(), 50);
    assert!(parse_batch(b"[{}]", 50, &mut scratch).is_err());
    let event = with(Field::Severity, "low");
    let parsed = parse_event(event.as_bytes(), &mut scratch).unwrap();
    assert_eq!(parsed.severity, Some("low"));
}
