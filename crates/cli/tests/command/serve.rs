//! `ledgerline serve`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Stdio};

use crate::binary::{command, report, terminate};

/// A running service, and the addresses that it printed.
pub(crate) struct Service {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    pub(crate) api: String,
    health: String,
    metrics: String,
}

impl Service {
    pub(crate) fn start(directory: &std::path::Path) -> Self {
        let storage = format!("sqlite:{}", directory.join("events.db").display());
        let mut command = command(&["serve", "--storage", &storage]);
        // By flag and by environment alike.
        command.args(["--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0"]);
        command.env("LEDGERLINE_METRICS_LISTEN", "127.0.0.1:0");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut address = |name: &str| {
            let mut line = String::new();
            stdout.read_line(&mut line).unwrap();
            let address = line.trim_end().strip_prefix(&format!("{name} http://"));
            address.unwrap_or_else(|| panic!("{line:?}")).to_owned()
        };
        let (api, health, metrics) = (address("api"), address("health"), address("metrics"));
        Self { child, _stdout: stdout, api, health, metrics }
    }

    fn stop(mut self) {
        terminate(&self.child);
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Fails if it was stopped in order.
        self.child.kill().ok();
    }
}

fn status(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn it_says_where_it_listens_and_ends_in_order_when_told_to() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path());
    assert_eq!(status(&service.api, "/readyz"), "200");
    assert_eq!(status(&service.health, "/healthz"), "200");
    assert_eq!(status(&service.health, "/readyz"), "200");
    assert_eq!(status(&service.metrics, "/metrics"), "200");
    service.stop();
}

#[test]
fn load_is_stored_and_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::start(directory.path());
    let url = format!("http://{}", service.api);
    let report = report(&["load", "--url", &url, "--events", "1000", "--json"], 0);
    assert_eq!(report["accounts"]["delivered"], 1_000);
    service.stop();
    let service = Service::start(directory.path());
    assert!(total(&service.api).contains("\"total\":1000"));
    service.stop();
}

fn total(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let target = "/api/v1/audit/events?limit=1";
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
