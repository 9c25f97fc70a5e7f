//! Answers and failures, and what they mean.

use ledgerline_transport::{Cause, Part, TooLarge};

use super::*;

const JSON: &str = "application/json; charset=utf-8";
const PROBLEM: &str = "application/problem+json";
const TOO_LARGE: TooLarge = TooLarge { part: Part::BodyBytes, limit: 1 };
const HELD: Verdict = Verdict::Misrouted { is_ambiguous: false };
const CONTRADICTION: Verdict = Verdict::Misrouted { is_ambiguous: true };

fn answer(status: u16, content_type: &str, body: &str) -> Answer {
    Answer {
        content_type: Some(content_type.into()),
        body: bytes::Bytes::copy_from_slice(body.as_bytes()),
        ..Answer::new(status)
    }
}

fn refused(index: Option<u32>) -> Verdict {
    Verdict::Refused { index, why: Why::Invalid }
}

#[test]
fn only_a_json_201_or_202_settles() {
    assert_eq!(judge(&answer(201, JSON, ""), 3), Verdict::Stored);
    assert_eq!(judge(&answer(202, JSON, ""), 3), Verdict::Queued);
    for status in [301, 404, 403, 405, 415, 421] {
        assert_eq!(judge(&answer(status, JSON, ""), 3), HELD, "{status}");
    }
    for status in [200, 203, 204, 206, 207, 299] {
        assert_eq!(judge(&answer(status, JSON, ""), 3), CONTRADICTION, "{status}");
    }
    assert_eq!(judge(&answer(201, "text/html", ""), 3), CONTRADICTION);
}

#[test]
fn a_success_before_the_request_was_written_is_none() {
    for status in [201, 202, 200, 204] {
        let early = Answer { is_early: true, ..answer(status, JSON, "") };
        assert_eq!(judge(&early, 3), CONTRADICTION, "{status}");
    }
    let early = |status| Answer { is_early: true, ..answer(status, JSON, "") };
    assert_eq!(judge(&early(413), 3), Verdict::TooBig { limit: None });
    assert_eq!(judge(&early(503), 3), Verdict::Overloaded { after_ms: None });
    assert_eq!(judge(&early(500), 3), Verdict::ServerError);
}

#[test]
fn a_success_that_contradicts_its_batch_is_none() {
    for (status, body, verdict) in [
        (201, r#"{"event_ids":[]}"#, CONTRADICTION),
        (201, r#"{"event_ids":["a"]}"#, CONTRADICTION),
        (201, r#"{"event_ids":["a","b"]}"#, Verdict::Stored),
        (201, r#"{"event_ids":["a","b"]"#, CONTRADICTION),
        (201, r#"{"event_ids":["a","b","c"]}"#, CONTRADICTION),
        (201, r#"{"message":"stored"}"#, Verdict::Stored),
        (201, r#"{"message":"sto"#, CONTRADICTION),
        (202, r#"{"status":"accepted","count":2}"#, Verdict::Queued),
        (202, r#"{"status":"accepted","count":1}"#, CONTRADICTION),
        (202, r#"{"status":"accepted"}"#, Verdict::Queued),
        (202, r#"{"event_ids":["a"]}"#, CONTRADICTION),
    ] {
        assert_eq!(judge(&answer(status, JSON, body), 2), verdict, "{status} {body}");
    }
}

#[test]
fn a_success_too_large_to_be_read_may_have_stored() {
    let large = |status| Answer { too_large: Some(TOO_LARGE), ..answer(status, JSON, "") };
    assert_eq!(judge(&large(201), 2), Verdict::Unreadable);
    assert_eq!(judge(&large(200), 2), Verdict::Unreadable);
    assert_eq!(judge(&large(503), 2), Verdict::Overloaded { after_ms: None });
}

#[test]
fn a_server_error_is_ambiguous_and_an_overload_is_not() {
    for status in [500, 502, 504, 599, 999] {
        assert_eq!(judge(&answer(status, "text/plain", ""), 1), Verdict::ServerError, "{status}");
    }
    for status in [503, 429, 408] {
        let verdict = Verdict::Overloaded { after_ms: None };
        assert_eq!(judge(&answer(status, "text/plain", ""), 1), verdict, "{status}");
    }
    assert!(Verdict::ServerError.is_ambiguous());
}

#[test]
fn who_may_not_is_unauthorized() {
    for (status, kind, verdict) in [
        (401, "text/html", Verdict::Unauthorized),
        (401, PROBLEM, Verdict::Unauthorized),
        (403, PROBLEM, Verdict::Unauthorized),
        (403, "text/html", HELD),
    ] {
        assert_eq!(judge(&answer(status, kind, ""), 1), verdict, "{status} {kind}");
    }
}

#[test]
fn retry_after_is_heeded_in_both_forms_and_capped() {
    for (text, date, after_ms) in [
        ("7", None, Some(7_000)),
        ("99999", None, Some(300_000)),
        ("99999999999999999999999999", None, Some(300_000)),
        ("soon", None, None),
        ("", None, None),
        ("-1", None, None),
        ("Sat, 21 Nov 2026 06:40:42 GMT", Some("Sat, 21 Nov 2026 06:40:12 GMT"), Some(30_000)),
        ("Sat, 21 Nov 2026 06:40:42 GMT", Some("Sat, 21 Nov 2026 06:41:12 GMT"), Some(0)),
        ("Sat, 21 Nov 2026 06:40:42 GMT", None, None),
    ] {
        let mut answer = answer(503, "text/plain", "");
        answer.retry_after = Some(text.into());
        answer.date = date.map(Into::into);
        assert_eq!(judge(&answer, 1), Verdict::Overloaded { after_ms }, "{text}");
    }
}

#[test]
fn a_size_problem_splits_and_names_its_limit() {
    let kind = r#""type":"https://kubernaut.ai/problems/batch-size-exceeded""#;
    for (rest, limit) in [
        ("", None),
        (r#","limit":500"#, Some(500)),
        (r#","limit":0"#, None),
        (r#","limit":"x""#, None),
        (r#","detail":"batch size 1000 exceeds maximum of 500 events""#, Some(500)),
        (r#","detail":"at most 500 events, not 1000""#, Some(500)),
        (r#","detail":"batch size 600 exceeds maximum allowed batch size of 500""#, Some(500)),
    ] {
        let body = format!("{{{kind}{rest}}}");
        assert_eq!(judge(&answer(400, PROBLEM, &body), 3), Verdict::TooBig { limit }, "{rest}");
    }
    assert_eq!(judge(&answer(413, "text/plain", ""), 3), Verdict::TooBig { limit: None });
}

#[test]
fn a_problem_refuses_the_event_that_it_names() {
    for (status, body, index) in [
        (400, r#"{"detail":"no"}"#, None),
        (422, r#"{"detail":"event 3: bad","index":4}"#, Some(4)),
        (400, r#"{"detail":"event 3: bad"}"#, Some(3)),
        (400, r#"{"detail":"invalid event at index 17: x"}"#, Some(17)),
        (400, r#"{"detail":"events[8].event_data"}"#, Some(8)),
        (400, r#"{"detail":"event 019a3c5e-0000-7000-8000-000000000000: no"}"#, None),
        (400, r#"{"detail":"event 2024-05-01T00:00:00Z is bad"}"#, None),
        (400, r#"{"index":99999999999}"#, None),
        (400, "no JSON, event 5: bad", Some(5)),
    ] {
        assert_eq!(judge(&answer(status, PROBLEM, body), 9), refused(index), "{body}");
    }
    assert_eq!(judge(&answer(400, "text/html", ""), 9), HELD);
    assert_eq!(judge(&answer(409, PROBLEM, "{}"), 9), HELD);
    let conflict = r#"{"type":"problems/event-id-conflict","index":2}"#;
    let why = Why::IdConflict;
    assert_eq!(judge(&answer(409, PROBLEM, conflict), 9), Verdict::Refused { index: Some(2), why });
}

#[test]
fn an_old_event_is_one_that_the_server_calls_old() {
    for (body, why) in [
        (r#"{"detail":"x","reason":"too_old","index":1}"#, Why::TooOld),
        (r#"{"detail":"event_timestamp too far in the past","reason":"too_new"}"#, Why::Invalid),
        (r#"{"detail":"event at index 1: timestamp is too far in the past"}"#, Why::TooOld),
        (r#"{"detail":"event at index 1: timestamp is in the future"}"#, Why::Invalid),
        (r#"{"detail":"event at index 1: timestamp is too old (within 7 days)"}"#, Why::TooOld),
        (r#"{"detail":"event at index 1 failed validation"}"#, Why::Invalid),
    ] {
        let Verdict::Refused { why: judged, .. } = judge(&answer(400, PROBLEM, body), 2) else {
            panic!("{body}")
        };
        assert_eq!(judged, why, "{body}");
    }
}

#[test]
fn the_reason_is_the_servers_own_words_made_safe_for_a_log() {
    let body = r#"{"detail":"bad\nthing","reason":"too_long","field":"event_type","index":3}"#;
    let said = reason(&answer(400, PROBLEM, body));
    assert_eq!((&*said.detail, said.field.as_deref()), (r"bad\nthing", Some("event_type")));
    assert_eq!(said.rule.as_deref(), Some("too_long"));
    assert_eq!(
        said.to_string(),
        r"status 400: bad\nthing, field event_type, event 3 of the request"
    );
    assert_eq!((said.status, said.index), (400, Some(3)));
    let long = format!("{{\"detail\":\"{}\"}}", "x".repeat(10_000));
    assert_eq!(reason(&answer(400, PROBLEM, &long)).detail.len(), 300);
    assert_eq!(reason(&answer(400, "text/plain", body)).to_string(), "status 400");
    let named = reason(&answer(400, PROBLEM, r#"{"detail":"event at index 7: no"}"#));
    assert_eq!(named.index, Some(7), "today's words");
}

#[test]
fn a_failure_says_what_the_operator_must_do() {
    let ambiguous = |cause| Failure { certainty: Certainty::Ambiguous, cause };
    let unprocessed = |cause| Failure { certainty: Certainty::NotProcessed, cause };
    let timeout = Cause::RequestTimeout { timeout_ms: 1 };
    let late = Cause::ConnectTimeout { to: "a".into(), timeout_ms: 1 };
    let garbled = Cause::Garbled(ledgerline_transport::Garbled::StatusLine);
    for (failure, verdict) in [
        (ambiguous(timeout), Verdict::NoAnswer { is_timeout: true }),
        (ambiguous(Cause::ClosedByServer), Verdict::NoAnswer { is_timeout: false }),
        (unprocessed(Cause::ClosedByServer), Verdict::NotProcessed),
        (unprocessed(Cause::EndedEarlier), Verdict::Skipped),
        (unprocessed(late), Verdict::NotConnected),
        (ambiguous(garbled.clone()), CONTRADICTION),
        (unprocessed(garbled), HELD),
    ] {
        assert_eq!(judge_failure(&failure), verdict, "{failure}");
    }
}
