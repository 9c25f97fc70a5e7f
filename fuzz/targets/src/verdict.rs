//! Any status, headers and body as the answer to a batch: it counts as stored only if it is a JSON
//! 201 or 202, in time, that doesn't contradict the batch; any other 2xx may have stored it.

use arbitrary::{Arbitrary, Unstructured};
use ledgerline::fuzzing::verdict;
use serde_json::Value;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    status: u16,
    content_type: Option<&'a str>,
    /// Instead, one of those that matter.
    known_type: u8,
    is_early: bool,
    retry_after: Option<&'a str>,
    events: u8,
    /// So many ids, as servers list them, and the body behind them.
    ids: Option<u8>,
    body: &'a [u8],
}

/// Runs one input.
///
/// # Panics
/// If a promise is broken.
pub fn run(data: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let status = 200 + input.status % 800;
    let status = if input.status % 3 == 0 { 200 + status % 10 } else { status };
    let content_type = match input.known_type % 4 {
        0 => input.content_type,
        1 => Some("application/problem+json"),
        _ => Some("application/json; charset=utf-8"),
    };
    let (events, body) = (usize::from(input.events) + 1, body(&input));
    let judged =
        verdict(status, content_type, input.retry_after, &body, input.is_early, None, events);
    let is_2xx = (200..300).contains(&status);
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let may_be_stored = matches!(status, 201 | 202)
        && essence.eq_ignore_ascii_case("application/json")
        && !input.is_early
        && agrees(status, &body, events);
    assert_eq!(judged.is_success, may_be_stored, "{status} {content_type:?} {body:?}");
    assert_eq!(judged.is_ambiguous, (is_2xx && !may_be_stored) || status >= 500 && status != 503);
}

fn body(input: &Input<'_>) -> Vec<u8> {
    let Some(ids) = input.ids else { return input.body.to_vec() };
    let ids = vec!["\"019a3c5e-0000-7000-8000-000000000000\""; ids.into()].join(",");
    [format!("{{\"event_ids\":[{ids}]").as_bytes(), input.body].concat()
}

/// What is empty agrees; what is not must be an object that names no other number of events.
fn agrees(status: u16, body: &[u8], events: usize) -> bool {
    if body.trim_ascii().is_empty() {
        return true;
    }
    let Ok(Value::Object(object)) = serde_json::from_slice(body) else { return false };
    match (object.get("event_ids"), object.get("count")) {
        (Some(Value::Array(ids)), _) => ids.len() == events,
        (None | Some(Value::Null), Some(Value::Number(count))) => {
            status != 202 || count.as_u64() == Some(events as u64)
        }
        (None | Some(Value::Null), None | Some(Value::Null)) => true,
        _ => false,
    }
}
