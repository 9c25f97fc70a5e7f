//! The event ids that the body of a success lists.
//!
//! Invariant: a body is said to list as many ids as it does, or to be unreadable; a list of
//! another form is no list of ids. Limit: a body as large as the connection lets through.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// What the body of a success tells of its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listed {
    /// Neither ids nor a count; it may be empty.
    Nothing,
    /// So many ids.
    Ids { count: usize },
    /// A count alone.
    Count(u64),
    /// It is no JSON object, or one of its members has another form than the contract's.
    Unreadable,
}

/// What the body of a success to a batch of `events` lists.
///
/// A list of UUIDs without white space, as both servers write it, is recognised by its separators;
/// everything else is parsed.
pub(crate) fn listed(body: &[u8], events: usize) -> Listed {
    let body = body.trim_ascii();
    if body.is_empty() {
        return Listed::Nothing;
    }
    if let Some(rest) = behind_compact(body, events) {
        // What follows the list is short.
        let rest = rest.trim_ascii_start();
        let mut object = Vec::with_capacity(rest.len() + 1);
        object.push(b'{');
        object.extend_from_slice(rest.strip_prefix(b",").unwrap_or(rest));
        return match serde_json::from_slice::<Body>(&object) {
            Ok(Body { event_ids: None, .. }) => Listed::Ids { count: events },
            _ => Listed::Unreadable,
        };
    }
    match serde_json::from_slice(body) {
        Ok(Body { event_ids: Some(ids), .. }) => Listed::Ids { count: ids.len() },
        Ok(Body { count: Some(count), .. }) => Listed::Count(count),
        Ok(Body { .. }) => Listed::Nothing,
        Err(_) => Listed::Unreadable,
    }
}

#[derive(Deserialize)]
struct Body {
    event_ids: Option<Vec<IgnoredAny>>,
    count: Option<u64>,
}

/// If the body begins with a compact list of so many UUIDs: what follows it.
fn behind_compact(body: &[u8], events: usize) -> Option<&[u8]> {
    let ids = body.strip_prefix(COMPACT_START)?;
    let length = (events * ENTRY_LEN).checked_sub(1)?; // no comma behind the last
    let (list, rest) = ids.split_at_checked(length)?;
    let rest = rest.strip_prefix(b"]")?;
    let is_entry = |entry: &[u8]| {
        (entry[0], entry[ENTRY_LEN - 2]) == (b'"', b'"')
            && entry.get(ENTRY_LEN - 1).is_none_or(|byte| *byte == b',')
    };
    // Each has its two quotation marks in place, and there are no others: none is two.
    let is_list = memchr::memchr_iter(b'"', list).count() == 2 * events
        && list.chunks(ENTRY_LEN).all(is_entry);
    is_list.then_some(rest)
}

/// Whether the body lists exactly these ids, in this order: then a resend is harmless.
pub(crate) fn lists<'a>(body: &[u8], ids: impl IntoIterator<Item = &'a [u8]>) -> bool {
    let Some(start) = memchr::memmem::find(body, EVENT_IDS) else { return false };
    let mut rest = skip(&body[start + EVENT_IDS.len()..], b":").and_then(|rest| skip(rest, b"["));
    for (place, id) in ids.into_iter().enumerate() {
        if place > 0 {
            rest = rest.and_then(|rest| skip(rest, b","));
        }
        rest = rest
            .and_then(|rest| skip(rest, b"\""))
            .and_then(|rest| rest.strip_prefix(id))
            .and_then(|rest| rest.strip_prefix(b"\""));
    }
    rest.and_then(|rest| skip(rest, b"]")).is_some()
}

/// Whether the body names the id anywhere.
pub(crate) fn names(body: &[u8], id: &[u8]) -> bool {
    !id.is_empty() && memchr::memmem::find(body, id).is_some()
}

/// Skips white space and then `token`.
fn skip<'a>(text: &'a [u8], token: &[u8]) -> Option<&'a [u8]> {
    text.trim_ascii_start().strip_prefix(token)
}

const EVENT_IDS: &[u8] = b"\"event_ids\"";
const COMPACT_START: &[u8] = b"{\"event_ids\":[";
/// A UUID, its quotation marks and a comma.
const ENTRY_LEN: usize = 36 + 2 + 1;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "019a3c5e-0000-7000-8000-000000000000";

    fn compact(ids: usize, rest: &str) -> String {
        let ids = vec![format!("\"{ID}\""); ids];
        format!("{{\"event_ids\":[{}]{rest}", ids.join(","))
    }

    #[test]
    fn ids_are_counted_in_any_form() {
        for ids in [1, 2, 500] {
            for rest in ["}", ",\"message\":\"ok\"}", ",\"count\":7}", " }\n"] {
                let body = compact(ids, rest);
                let expected = Listed::Ids { count: ids };
                assert_eq!(listed(body.as_bytes(), ids), expected, "{rest}");
                assert_eq!(listed(body.as_bytes(), ids + 1), expected, "{rest}");
                assert_eq!(listed(body.as_bytes(), 0), expected, "{rest}");
                let spaced = body.replace(',', " ,\n");
                assert_eq!(listed(spaced.as_bytes(), ids), expected, "{rest}");
            }
        }
        for (body, expected) in [
            ("", Listed::Nothing),
            ("  ", Listed::Nothing),
            ("{}", Listed::Nothing),
            ("{\"message\":\"ok\"}", Listed::Nothing),
            ("{\"event_ids\":null}", Listed::Nothing),
            ("{\"event_ids\":[]}", Listed::Ids { count: 0 }),
            ("{\"count\":3,\"status\":\"accepted\"}", Listed::Count(3)),
            ("[]", Listed::Unreadable),
            ("ok", Listed::Unreadable),
            ("{\"event_ids\":7}", Listed::Unreadable),
            ("{\"event_ids\":[],\"event_ids\":[1]}", Listed::Unreadable),
            ("{\"count\":\"many\"}", Listed::Unreadable),
        ] {
            assert_eq!(listed(body.as_bytes(), 1), expected, "{body}");
        }
    }

    #[test]
    fn two_short_ids_are_not_one_long_one() {
        let short = [&"a".repeat(17), "\",\"", &"b".repeat(16)].concat();
        assert_eq!(short.len(), ID.len());
        let body = compact(1, "}").replace(ID, &short);
        assert_eq!(listed(body.as_bytes(), 1), Listed::Ids { count: 2 });
    }

    #[test]
    fn a_cut_or_crooked_list_is_unreadable() {
        let whole = compact(3, ",\"message\":\"ok\"}");
        for length in 1..whole.len() {
            let body = &whole.as_bytes()[..length];
            assert_eq!(listed(body, 3), Listed::Unreadable, "{length}");
        }
        let twice = compact(2, ",\"event_ids\":[]}");
        assert_eq!(listed(twice.as_bytes(), 2), Listed::Unreadable);
        let garbage = compact(2, "garbage}");
        assert_eq!(listed(garbage.as_bytes(), 2), Listed::Unreadable);
    }

    #[test]
    fn ids_count_as_kept_only_if_all_are_there_in_order() {
        let ids: [&[u8]; 2] = [b"one", b"two"];
        for (body, is_kept) in [
            (r#"{"event_ids":["one","two"],"message":"x"}"#, true),
            ("{ \"event_ids\" : [ \"one\" ,\n\"two\" ] }", true),
            (r#"{"event_ids":["two","one"]}"#, false),
            (r#"{"event_ids":["one"]}"#, false),
            (r#"{"event_ids":["one","two","three"]}"#, false),
            (r#"{"message":"ok"}"#, false),
        ] {
            assert_eq!(lists(body.as_bytes(), ids), is_kept, "{body}");
        }
    }
}
