//! Wrong command lines.

use std::io::Write as _;

use crate::binary::{command, run, text};

/// Asserts that it ends with status 2, before it does anything, and says this on stderr.
fn assert_usage(arguments: &[&str], messages: &[&str]) {
    let output = run(arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
    for message in messages {
        assert!(stderr.contains(message), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_bad_value_is_named_with_its_flag() {
    let null_sink = ["load", "--null-sink"];
    for (arguments, messages) in [
        (&["demo", "--events", "0"][..], &["--events"][..]),
        (&["demo", "--producers", "many"], &["--producers", "many"]),
        (&["demo", "--storage", "postgres://db/x"], &["--storage", "SQLite only"]),
        (&["demo", "--storage", "events.db"], &["--storage", "sqlite:PATH"]),
        (&["demo", "--journal", "x"], &["--journal", "no journal"]),
        (&["demo", "--color"], &["--color"]),
        (&["demo", "--plot", "/nowhere/x.svg"], &["--plot /nowhere/x.svg"]),
        (&["serve", "--listen", "localhost"], &["--listen"]),
        (&["load"], &["--url", "--null-sink"]),
        (&["load", "--url", "ftp://x", "--events", "1"], &["--url", "ftp://x"]),
        (&["load", "--url", ""], &["--url"]),
        (&["load", "--url", "http://x", "--null-sink"], &["--null-sink", "--url"]),
        (&[&null_sink[..], &["--durability", "process"]].concat(), &["--durability"]),
        (&[&null_sink[..], &["--flush-interval", "0ms"]].concat(), &["--flush-interval"]),
        (&[&null_sink[..], &["--flush-interval", "1 day"]].concat(), &["--flush-interval"]),
        (&[&null_sink[..], &["--buffer-bytes", "1"]].concat(), &["--buffer-bytes", "is 1"]),
        (&[&null_sink[..], &["--connections", "65"]].concat(), &["--connections", "65"]),
        (&[&null_sink[..], &["--batch-events-max", "0"]].concat(), &["--batch-events-max"]),
        (&[], &["Usage"]),
    ] {
        assert_usage(arguments, messages);
    }
}

#[test]
fn a_flag_overrides_its_twin_in_the_environment() {
    let twin = |arguments: &[&str]| {
        let output = command(arguments).env("LEDGERLINE_PRODUCERS", "none").output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let (status, stderr) = twin(&["demo", "--events", "1"]);
    assert_eq!(status, Some(2));
    assert!(stderr.contains("--producers"), "{stderr}");
    let (status, stderr) = twin(&["demo", "--events", "1", "--producers", "1"]);
    assert_eq!(status, Some(0), "{stderr}");
}

#[test]
fn a_line_of_the_input_that_is_no_object_is_named() {
    let mut input = tempfile::NamedTempFile::new().unwrap();
    input.write_all(b"{}\n{\"a\":1}\n[]\n").unwrap();
    let path = input.path().to_str().unwrap();
    assert_usage(&["demo", "--input", path], &["--input", path, "line 3"]);
}

#[test]
fn an_input_that_can_not_be_read_is_named() {
    assert_usage(&["demo", "--input", "/nowhere/x"], &["--input /nowhere/x"]);
}
