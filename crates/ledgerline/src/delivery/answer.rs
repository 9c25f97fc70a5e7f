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
    /// Try again, not before the time that the server asked for.
    Retry { is_ambiguous: bool, after_ms: Option<u64> },
    /// The answer of something that isn't our DataStorage, or that refuses what we are: keep the
    /// batch, try again slowly, say so loudly.
    Hold,
}

pub(crate) fn judge(answer: &Answer) -> Verdict {
    let is_json = has_type(answer, "application/json");
    let is_problem = has_type(answer, "application/problem+json");
    let after_ms = retry_after_ms(answer);
    match answer.status {
        201 if is_json => Verdict::Stored,
        202 if is_json => Verdict::Queued,
        413 => Verdict::TooBig,
        400 if is_problem && memchr::memmem::find(&answer.body, TOO_MANY).is_some() => {
            Verdict::TooBig
        }
        408 | 429 | 503 => Verdict::Retry { is_ambiguous: false, after_ms },
        500.. => Verdict::Retry { is_ambiguous: true, after_ms },
        _ => Verdict::Hold,
    }
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

/// The header's form in seconds, RFC 9110 section 10.2.3, capped.
fn retry_after_ms(answer: &Answer) -> Option<u64> {
    let text = answer.retry_after.as_deref()?;
    let seconds: u64 = text.trim().parse().ok()?;
    Some(seconds.min(RETRY_AFTER_MAX_S) * 1_000)
}

const TOO_MANY: &[u8] = b"batch-size-exceeded";
const EVENT_IDS: &[u8] = b"\"event_ids\"";
const RETRY_AFTER_MAX_S: u64 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, content_type: &str, body: &str) -> Answer {
        Answer {
            status,
            content_type: Some(content_type.into()),
            retry_after: None,
            body: bytes::Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn only_a_json_201_or_202_settles() {
        let json = "application/json; charset=utf-8";
        assert_eq!(judge(&answer(201, json, "")), Verdict::Stored);
        assert_eq!(judge(&answer(202, json, "")), Verdict::Queued);
        for status in [200, 204, 206, 301, 401, 403, 404, 405, 415, 421] {
            assert_eq!(judge(&answer(status, json, "")), Verdict::Hold, "{status}");
        }
        assert_eq!(judge(&answer(201, "text/html", "")), Verdict::Hold);
    }

    #[test]
    fn a_server_error_is_ambiguous_and_an_overload_is_not() {
        for (status, is_ambiguous) in [(500, true), (502, true), (503, false), (429, false)] {
            let verdict = Verdict::Retry { is_ambiguous, after_ms: None };
            assert_eq!(judge(&answer(status, "text/plain", "")), verdict, "{status}");
        }
    }

    #[test]
    fn retry_after_is_heeded_and_capped() {
        for (text, after_ms) in [("7", Some(7_000)), ("99999", Some(300_000)), ("soon", None)] {
            let mut answer = answer(503, "text/plain", "");
            answer.retry_after = Some(text.into());
            assert_eq!(judge(&answer), Verdict::Retry { is_ambiguous: false, after_ms });
        }
    }

    #[test]
    fn a_size_problem_splits_and_another_problem_holds() {
        let problem = "application/problem+json";
        let body = r#"{"type":"https://kubernaut.ai/problems/batch-size-exceeded"}"#;
        assert_eq!(judge(&answer(400, problem, body)), Verdict::TooBig);
        assert_eq!(judge(&answer(400, problem, "{}")), Verdict::Hold);
        assert_eq!(judge(&answer(413, "text/plain", "")), Verdict::TooBig);
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
