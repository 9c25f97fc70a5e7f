//! What an answer of the server means for the batch that it answers.

use ledgerline_transport::Answer;

/// What to do with an answered batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is stored.
    Stored,
    /// The server queued it: its promise, not ours.
    Queued,
    /// More events or bytes than the server takes at once.
    TooBig,
    /// The server won't have one of its events, the one at this place if it said so.
    Refused { index: Option<u32> },
    /// Try again.
    Retry { is_ambiguous: bool },
    /// It doesn't accept our token, which may have been replaced a moment ago.
    Unauthorized,
    /// The server asks to be left alone for so long.
    Later { after_ms: u64 },
    /// The answer of something that isn't our DataStorage, or that refuses what we are: keep the
    /// batch, try again slowly, say so loudly.
    Hold,
}

pub(crate) fn judge(answer: &Answer) -> Verdict {
    let is_json = has_type(answer, "application/json");
    let is_problem = has_type(answer, "application/problem+json");
    let says = |slug: &[u8]| is_problem && memchr::memmem::find(&answer.body, slug).is_some();
    match answer.status {
        201 if is_json => Verdict::Stored,
        202 if is_json => Verdict::Queued,
        401 => Verdict::Unauthorized,
        413 => Verdict::TooBig,
        400 if says(TOO_MANY) => Verdict::TooBig,
        400 | 422 if is_problem => Verdict::Refused { index: named_index(&answer.body) },
        409 if says(ID_CONFLICT) => Verdict::Refused { index: named_index(&answer.body) },
        408 | 429 | 503 => match retry_after_ms(answer) {
            Some(after_ms) => Verdict::Later { after_ms },
            None => Verdict::Retry { is_ambiguous: false },
        },
        500.. => Verdict::Retry { is_ambiguous: true },
        _ => Verdict::Hold,
    }
}

/// The place of the bad event, from 0, as a problem names it: as a member of its own, or in the
/// words of its detail, as in `event 3: ...` or `events[3]`.
fn named_index(body: &[u8]) -> Option<u32> {
    [&b"\"index\":"[..], b"index ", b"event ", b"events[", b"event["]
        .into_iter()
        .filter_map(|words| {
            let found = memchr::memmem::find(body, words)?;
            let rest = body[found + words.len()..].trim_ascii_start();
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            // A date or an id begins with digits too.
            let is_number = |next: &u8| !next.is_ascii_alphanumeric() && *next != b'-';
            rest.get(digits).is_none_or(is_number).then_some(())?;
            std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
        })
        .next()
}

/// Whether the body of a 201 lists exactly these ids, in this order: then a resend is harmless.
pub(crate) fn keeps_our_ids<'a>(body: &[u8], ids: impl IntoIterator<Item = &'a [u8]>) -> bool {
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

/// Skips white space and then `token`.
fn skip<'a>(text: &'a [u8], token: &[u8]) -> Option<&'a [u8]> {
    text.trim_ascii_start().strip_prefix(token)
}

fn has_type(answer: &Answer, wanted: &str) -> bool {
    let given = answer.content_type.as_deref().unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(wanted)
}

/// RFC 9110 section 10.2.3: seconds, or a date. A date is read by the server's own clock, which the
/// answer tells; ours may be another. Capped.
fn retry_after_ms(answer: &Answer) -> Option<u64> {
    let text = answer.retry_after.as_deref()?.trim();
    let seconds = text.parse().ok().or_else(|| {
        let until = httpdate::parse_http_date(text).ok()?;
        let now = httpdate::parse_http_date(answer.date.as_deref()?.trim()).ok()?;
        Some(until.duration_since(now).unwrap_or_default().as_secs())
    });
    Some(seconds?.min(RETRY_AFTER_MAX_S) * 1_000)
}

const TOO_MANY: &[u8] = b"batch-size-exceeded";
const ID_CONFLICT: &[u8] = b"event-id-conflict";
const EVENT_IDS: &[u8] = b"\"event_ids\"";
const RETRY_AFTER_MAX_S: u64 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, content_type: &str, body: &str) -> Answer {
        Answer {
            content_type: Some(content_type.into()),
            body: bytes::Bytes::copy_from_slice(body.as_bytes()),
            ..Answer::new(status)
        }
    }

    #[test]
    fn only_a_json_201_or_202_settles() {
        let json = "application/json; charset=utf-8";
        assert_eq!(judge(&answer(201, json, "")), Verdict::Stored);
        assert_eq!(judge(&answer(202, json, "")), Verdict::Queued);
        for status in [200, 204, 206, 301, 403, 404, 405, 415, 421] {
            assert_eq!(judge(&answer(status, json, "")), Verdict::Hold, "{status}");
        }
        assert_eq!(judge(&answer(201, "text/html", "")), Verdict::Hold);
    }

    #[test]
    fn a_server_error_is_ambiguous_and_an_overload_is_not() {
        for (status, is_ambiguous) in
            [(500, true), (502, true), (599, true), (503, false), (429, false), (408, false)]
        {
            let verdict = Verdict::Retry { is_ambiguous };
            assert_eq!(judge(&answer(status, "text/plain", "")), verdict, "{status}");
        }
    }

    #[test]
    fn retry_after_is_heeded_in_both_forms_and_capped() {
        let later = |after_ms| Verdict::Later { after_ms };
        let none = Verdict::Retry { is_ambiguous: false };
        for (text, date, verdict) in [
            ("7", None, later(7_000)),
            ("99999", None, later(300_000)),
            ("soon", None, none),
            ("Sat, 21 Nov 2026 06:40:42 GMT", Some("Sat, 21 Nov 2026 06:40:12 GMT"), later(30_000)),
            ("Sat, 21 Nov 2026 06:40:42 GMT", Some("Sat, 21 Nov 2026 06:41:12 GMT"), later(0)),
            ("Sat, 21 Nov 2026 06:40:42 GMT", None, none),
        ] {
            let mut answer = answer(503, "text/plain", "");
            answer.retry_after = Some(text.into());
            answer.date = date.map(Into::into);
            assert_eq!(judge(&answer), verdict, "{text}");
        }
    }

    #[test]
    fn a_size_problem_splits_and_another_problem_refuses() {
        let problem = "application/problem+json";
        let body = r#"{"type":"https://kubernaut.ai/problems/batch-size-exceeded"}"#;
        assert_eq!(judge(&answer(400, problem, body)), Verdict::TooBig);
        assert_eq!(judge(&answer(413, "text/plain", "")), Verdict::TooBig);
        for (status, body, index) in [
            (400, r#"{"detail":"no"}"#, None),
            (422, r#"{"detail":"event 3: too old","index":4}"#, Some(4)),
            (400, r#"{"detail":"event 3: too old"}"#, Some(3)),
            (400, r#"{"detail":"invalid event at index 17: x"}"#, Some(17)),
            (400, r#"{"detail":"events[8].event_data"}"#, Some(8)),
            (400, r#"{"detail":"event 019a3c5e-0000-7000-8000-000000000000: no"}"#, None),
            (400, r#"{"detail":"event 2024-05-01T00:00:00Z is too old"}"#, None),
            (400, r#"{"index":99999999999}"#, None),
            (409, r#"{"type":"problems/event-id-conflict","index":2}"#, Some(2)),
        ] {
            assert_eq!(judge(&answer(status, problem, body)), Verdict::Refused { index }, "{body}");
        }
        assert_eq!(judge(&answer(400, "text/html", "")), Verdict::Hold);
        assert_eq!(judge(&answer(409, problem, "{}")), Verdict::Hold);
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
            assert_eq!(keeps_our_ids(body.as_bytes(), ids), is_kept, "{body}");
        }
    }
}
