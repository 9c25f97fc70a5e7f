//! `ledgerline validate`.

use serde_json::{Value, json};

use crate::binary::{command, report_of, text};

const URL: (&str, &str) = ("LEDGERLINE_URL", "http://127.0.0.1:1");

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> std::process::Output {
    let variables = variables.iter().copied();
    command(&["validate"]).args(arguments).envs(variables).output().unwrap()
}

fn object(arguments: &[&str], variables: &[(&str, &str)]) -> Value {
    report_of(&run(&[arguments, &["--json"]].concat(), variables), 0)
}

#[test]
fn the_environment_is_read_as_an_engine_reads_it() {
    let variables = [
        URL,
        ("LEDGERLINE_BUFFER_BYTES", "16 MiB"),
        ("LEDGERLINE_FLUSH_INTERVAL", "8 s"),
        ("LEDGERLINE_BATCH_EVENTS_MAX", ""),
        ("LEDGERLINE_CONNECTIONS_MAX", "3"),
        // The twin of load's flag, which an engine doesn't know.
        ("LEDGERLINE_CONNECTIONS", "5"),
        ("LEDGERLINE_LANES", "2"),
    ];
    let object = object(&[], &variables);
    assert_eq!(object["schema"], "ledgerline.config/1");
    let config = &object["config"];
    assert_eq!(config["url"], URL.1);
    assert_eq!(config["producer"], Value::Null);
    assert_eq!(config["buffer_bytes"], 16 << 20);
    assert_eq!(config["flush_interval_ms"], 8_000);
    assert_eq!(config["batch_events_max"], 1_000);
    assert_eq!(config["connections_max"], 3);
    assert_eq!(config["lanes"], 2);
    let memory = &object["memory"];
    assert_eq!(memory["block_count"], 32);
    let part = |name: &str| memory[name].as_u64().unwrap();
    let parts =
        ["blocks_bytes", "gather_bytes", "connections_bytes", "histograms_bytes", "lost_bytes"];
    assert_eq!(part("total_bytes"), parts.map(part).iter().sum::<u64>());
}

#[test]
fn flags_override_the_environment_with_or_without_a_url_in_it() {
    let flags = ["--url", "http://127.0.0.1:2", "--buffer-bytes", "8MiB", "--flush-interval"];
    let flags = [&flags[..], &["20ms", "--batch-events-max", "7", "--connections", "2"]].concat();
    let others = [
        ("LEDGERLINE_BUFFER_BYTES", "16MiB"),
        ("LEDGERLINE_FLUSH_INTERVAL", "8s"),
        ("LEDGERLINE_CONNECTIONS_MAX", "3"),
        ("LEDGERLINE_LANES", "2"),
    ];
    for url in [&[][..], &[("LEDGERLINE_URL", "")], &[URL]] {
        let object = object(&flags, &[url, &others].concat());
        let config = &object["config"];
        let given = ["url", "buffer_bytes", "flush_interval_ms", "batch_events_max"];
        let given = given.map(|name| config[name].clone());
        assert_eq!(json!(given), json!(["http://127.0.0.1:2", 8 << 20, 20, 7]));
        assert_eq!(config["connections_max"], 2);
        assert_eq!(config["lanes"], 2, "from the environment");
    }
}

#[test]
fn people_see_each_field_and_the_sum_of_memory() {
    let output = run(&[], &[URL, ("LEDGERLINE_PRODUCER", "gateway-0")]);
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{stdout}");
    let lines: Vec<Vec<_>> = stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    for line in [
        &["url", URL.1][..],
        &["producer", "gateway-0"],
        &["buffer_bytes", "not", "set"],
        &["flush_interval_ms", "1,000"],
    ] {
        assert!(lines.iter().any(|given| given == line), "{line:?}: {stdout}");
    }
    let mib = |name| {
        let line = lines.iter().find(|line| line.contains(&name)).unwrap();
        line.last().unwrap().parse::<f64>().unwrap()
    };
    let sum: f64 = ["blocks", "gather", "connections", "histograms", "lost"].map(mib).iter().sum();
    assert!((sum - mib("total")).abs() < 0.05 && mib("blocks") > 64.0, "{stdout}");
}

#[test]
fn what_is_invalid_is_named_and_is_status_2() {
    for (arguments, variables, message) in [
        (&[][..], &[][..], "LEDGERLINE_URL is not set"),
        (&[], &[URL, ("LEDGERLINE_LANES", "many")], "LEDGERLINE_LANES is \"many\""),
        (&[], &[URL, ("LEDGERLINE_LANES", "65")], "lanes is 65"),
        (&["--json"], &[URL, ("LEDGERLINE_CONNECTIONS_MAX", "0")], "connections_max is 0"),
        (&["--flush-interval", "0s"], &[URL], "flush_interval is 0ns"),
        (&["--flush-interval", "1 day"], &[URL], "--flush-interval"),
        (&["--url", ""], &[], "--url"),
        (&["--url", "ftp://x"], &[], "an endpoint begins with http://"),
    ] {
        let output = run(arguments, variables);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}: {stderr}");
        assert!(stderr.contains(message), "{message}: {stderr}");
        assert_eq!(text(&output.stdout), "", "{message}");
    }
}

#[test]
fn a_password_in_the_url_is_not_repeated() {
    for url in ["http://user:hush@x", "https://user:hush@x"] {
        let output = run(&[], &[("LEDGERLINE_URL", url)]);
        assert_eq!(output.status.code(), Some(2));
        assert!(!text(&output.stderr).contains("hush"), "{output:?}");
    }
}

fn file(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("engine.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

#[test]
fn a_file_counts_less_than_the_environment_and_that_less_than_flags() {
    let (_directory, path) = file(
        "url = 'http://127.0.0.1:3'\nlanes = 3\nflush_interval = '7ms'\nretries_max = 'none'\n",
    );
    let variables = [("LEDGERLINE_FLUSH_INTERVAL", "8ms"), ("LEDGERLINE_LANES", "")];
    let seen = object(&["--config", &path, "--connections-max", "5"], &variables);
    let config = &seen["config"];
    let given = ["url", "lanes", "flush_interval_ms", "connections_max", "retries_max"];
    let given = given.map(|name| config[name].clone());
    assert_eq!(json!(given), json!(["http://127.0.0.1:3", 3, 8, 5, null]));
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_what_is_wrong() {
    for (text, message) in [
        ("url = ", "engine.toml: TOML parse error"),
        ("url = \"http://x\"\nlane = 3", "engine.toml: lane is no setting, expected one of url, "),
        ("url = \"http://x\"\nlanes = [3]", "engine.toml: lanes is array"),
        (
            "url = \"http://x\"\nlanes = \"many\"",
            "engine.toml: lanes is \"many\", expected a number",
        ),
        ("lanes = 3", "LEDGERLINE_URL is not set, nor is url in a --config"),
    ] {
        let (_directory, path) = file(text);
        let output = run(&["--config", &path], &[]);
        let stderr = text_of(&output);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(message), "{message}: {stderr}");
    }
    let output = run(&["--config", "/nowhere/engine.toml"], &[URL]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text_of(&output).contains("/nowhere/engine.toml: No such file"), "{output:?}");
}

fn text_of(output: &std::process::Output) -> String {
    text(&output.stderr)
}
