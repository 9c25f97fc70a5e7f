//! The events that are generated satisfy DataStorage's contract.
//!
//! Its event types with the fields that each requires are kept in `tests/data/event-types.ndjson`.
//! Against the whole contract events are checked where `CONTRACT_FILE` names it, as OpenAPI 3.0 in
//! YAML. Limit: the checker knows the keywords that the contract uses for these events, and fails
//! at one that it doesn't know.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use ledgerline_codec::{Identity, Timestamp, Uuid, encode};
use serde_json::Value;

use super::{Payloads, Stories};

/// Required fields of `event_data` by event type.
type Required = BTreeMap<String, BTreeSet<String>>;

fn kept() -> Required {
    let lines = include_str!("../../../../tests/data/event-types.ndjson").lines();
    let entry = |line| {
        let value: Value = serde_json::from_str(line).unwrap();
        (text(&value["event_type"]), texts(&value["required"]))
    };
    lines.map(entry).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

fn texts(value: &Value) -> BTreeSet<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

/// Each event that a story can have, as it is sent.
fn events() -> Vec<Value> {
    let payloads = Payloads::generated();
    let count = 2 * payloads.texts.len() as u64;
    let mut stories = Stories::new(payloads, "0", 1, 4);
    let identity = Identity {
        event_id: Uuid::from_u128(7),
        producer: "load/0",
        producer_seq: 1,
        now: Timestamp::EPOCH,
    };
    let encoded = |number| {
        let mut out = Vec::new();
        encode(&stories.event(number), &identity, &mut out).unwrap();
        serde_json::from_slice(&out[1..]).unwrap() // behind the comma that separates records
    };
    (0..count).map(encoded).collect()
}

/// The contract, if it is named.
fn contract() -> Option<Value> {
    let Some(path) = std::env::var_os("CONTRACT_FILE") else {
        eprintln!("skipped: CONTRACT_FILE, which names DataStorage's OpenAPI file, is not set");
        return None;
    };
    let yaml = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    Some(serde_saphyr::from_str(&yaml).unwrap())
}

fn mapping(contract: &Value) -> &serde_json::Map<String, Value> {
    let data = &contract["components"]["schemas"]["AuditEventRequest"]["properties"]["event_data"];
    data["discriminator"]["mapping"].as_object().unwrap()
}

#[test]
fn events_have_the_fields_that_their_type_requires() {
    let kept = kept();
    for event in events() {
        let event_type = text(&event["event_type"]);
        let required = kept.get(&event_type).unwrap_or_else(|| panic!("no type {event_type}"));
        let missing: Vec<_> =
            required.iter().filter(|name| event["event_data"].get(name).is_none()).collect();
        assert!(missing.is_empty(), "{event_type} lacks {missing:?}");
    }
}

#[test]
fn events_satisfy_the_published_contract() {
    let Some(contract) = contract() else { return };
    for event in events() {
        let errors = Checker { contract: &contract }.errors(
            &serde_json::json!({"$ref": "#/components/schemas/AuditEventRequest"}),
            &event,
            "event",
        );
        assert!(errors.is_empty(), "{errors:#?}\n{event:#}");
    }
}

#[test]
fn the_event_types_kept_here_are_those_of_the_contract() {
    let Some(contract) = contract() else { return };
    let published = mapping(&contract).iter().map(|(event_type, reference)| {
        let schema = Checker { contract: &contract }.resolve(reference);
        (event_type.clone(), texts(&schema["required"]))
    });
    assert_eq!(published.collect::<Required>(), kept());
}

#[test]
fn what_breaks_a_schema_is_found() {
    let contract = serde_json::json!({"components": {"schemas": {
        "A": {"type": "object", "required": ["a", "c"], "properties": {
            "a": {"type": "string", "enum": ["x"], "maxLength": 1},
            "b": {"type": "object", "additionalProperties": {"type": "integer"}},
            "c": {"oneOf": [], "discriminator": {"propertyName": "kind", "mapping": {
                "d": "#/components/schemas/D"}}},
            "e": {"type": "array", "items": {"type": "boolean"}},
            "f": {"type": "string", "nullable": true},
        }},
        "D": {"type": "object", "required": ["kind"]},
    }}});
    let errors = |value: Value| {
        let schema = serde_json::json!({"$ref": "#/components/schemas/A"});
        Checker { contract: &contract }.errors(&schema, &value, "a").len()
    };
    let good = serde_json::json!({"a": "x", "b": {"n": 1}, "c": {"kind": "d"}, "e": [true],
        "f": null, "more": 0});
    assert_eq!(errors(good.clone()), 0);
    for (name, bad, expected) in [
        ("a", serde_json::json!("y"), 1),
        ("a", serde_json::json!("xx"), 2),
        ("a", Value::Null, 2), // neither the type nor the word
        ("b", serde_json::json!({"n": "1"}), 1),
        ("c", serde_json::json!({"kind": "unknown"}), 1),
        ("c", serde_json::json!({}), 1),
        ("e", serde_json::json!([true, 1]), 1),
    ] {
        let mut value = good.clone();
        value[name] = bad;
        assert_eq!(errors(value.clone()), expected, "{value}");
    }
    assert_eq!(errors(serde_json::json!({})), 2);
}

/// Checks values against schemas of one contract.
#[derive(Clone, Copy)]
struct Checker<'a> {
    contract: &'a Value,
}

impl<'a> Checker<'a> {
    fn resolve(self, reference: &Value) -> &'a Value {
        let path = text(reference);
        let found = path.strip_prefix('#').and_then(|path| self.contract.pointer(path));
        found.unwrap_or_else(|| panic!("no {path}"))
    }

    /// What is wrong with the value at that path; nothing, if it satisfies the schema.
    fn errors(self, schema: &Value, value: &Value, path: &str) -> Vec<String> {
        if value.is_null() && schema["nullable"] == true {
            return Vec::new();
        }
        let mut errors = Vec::new();
        for (keyword, rule) in schema.as_object().unwrap() {
            let chars = || value.as_str().map_or(0, |text| text.chars().count() as u64);
            let holds = match keyword.as_str() {
                "$ref" => {
                    errors.extend(self.errors(self.resolve(rule), value, path));
                    true
                }
                "type" => has_type(value, rule),
                "enum" => rule.as_array().unwrap().contains(value),
                "minLength" => chars() >= rule.as_u64().unwrap(),
                "maxLength" => chars() <= rule.as_u64().unwrap(),
                "format" => has_format(value, rule),
                "required" | "properties" | "additionalProperties" | "items" | "discriminator" => {
                    errors.extend(self.parts(keyword, schema, value, path));
                    true
                }
                // Which one is what the discriminator says.
                "oneOf" => schema.get("discriminator").is_some(),
                "description" | "example" | "nullable" | "default" => true,
                _ => panic!("{path}: unknown keyword {keyword}"),
            };
            if !holds {
                errors.push(format!("{path}: {value} breaks {keyword} {rule}"));
            }
        }
        errors
    }

    /// The keywords about an object's members, or an array's.
    fn parts(self, keyword: &str, schema: &Value, value: &Value, path: &str) -> Vec<String> {
        let rule = &schema[keyword];
        let members = || value.as_object().into_iter().flatten();
        let below = |name: &str| format!("{path}.{name}");
        match keyword {
            "required" => {
                let missing = texts(rule).into_iter().filter(|name| value.get(name).is_none());
                missing.map(|name| format!("{path} lacks {name}")).collect()
            }
            "properties" => {
                let known =
                    members().filter_map(|(name, value)| Some((name, rule.get(name)?, value)));
                known
                    .flat_map(|(name, rule, value)| self.errors(rule, value, &below(name)))
                    .collect()
            }
            "additionalProperties" if rule.is_object() => {
                let more = members().filter(|(name, _)| schema["properties"].get(name).is_none());
                more.flat_map(|(name, value)| self.errors(rule, value, &below(name))).collect()
            }
            "items" => {
                let items = value.as_array().into_iter().flatten();
                items.flat_map(|value| self.errors(rule, value, &below("items"))).collect()
            }
            "discriminator" => {
                let kind = &value[rule["propertyName"].as_str().unwrap()];
                match kind.as_str().and_then(|kind| rule["mapping"].get(kind)) {
                    Some(reference) => self.errors(self.resolve(reference), value, path),
                    None => vec![format!("{path} has no known {}", rule["propertyName"])],
                }
            }
            _ => Vec::new(),
        }
    }
}

fn has_type(value: &Value, rule: &Value) -> bool {
    match rule.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        other => panic!("unknown type {other}"),
    }
}

fn has_format(value: &Value, rule: &Value) -> bool {
    match rule.as_str().unwrap() {
        "date-time" => value.as_str().is_some_and(|text| text.parse::<Timestamp>().is_ok()),
        "uuid" => value.as_str().is_some_and(|text| text.parse::<Uuid>().is_ok()),
        "float" | "int32" | "int64" => true, // any number that its type lets through
        other => panic!("unknown format {other}"),
    }
}
