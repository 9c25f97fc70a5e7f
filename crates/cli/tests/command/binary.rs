//! Running the binary, and reading what it says.

use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// The binary with these arguments, and without whatever the environment would add.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ledgerline"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LEDGERLINE_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// The report of a run that ended with this status.
pub(crate) fn report(arguments: &[&str], status: i32) -> Value {
    let output = run(arguments);
    report_of(&output, status)
}

/// The last line of stdout, which must be an object.
pub(crate) fn report_of(output: &Output, status: i32) -> Value {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{stdout}\n{stderr}");
    let last = stdout.lines().last().unwrap_or_default();
    let report: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{stdout}"));
    assert!(report.is_object(), "{report}");
    report
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Sends SIGTERM to it.
pub(crate) fn terminate(child: &Child) {
    signal(child, "-TERM");
}

/// Sends it a signal, by the flag that kill(1) has for it.
pub(crate) fn signal(child: &Child, flag: &str) {
    let status = Command::new("kill").args([flag, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}
