//! Bodies that no engine would send: hostile, damaged, at the limits; and times of every form.

use ledgerline_testkit::{now_micros, raw_event, time_text};
use serde_json::json;

use super::{Both, text};

const MINUTE_US: i64 = 60_000_000;
const DAY_US: i64 = 1_440 * MINUTE_US;

/// The event's text with a field's value replaced by these bytes, whatever they are.
fn with_raw(field: &str, value: &str) -> String {
    let text = raw_event(7, json!({ field: "\u{1}" })).to_string();
    text.replace("\"\\u0001\"", value)
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
        format!("{date}T00:00:00.{}+01:00", "1234567890".repeat(10)),
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
