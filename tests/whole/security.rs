//! Who we talk to is known, what we show is current, and no secret is told.

use std::time::Duration;

use ledgerline::{Config, FlushError, Header, StartError, Store};
use ledgerline_testkit::{Authority, Reply, Scripted, WAIT, assert_all_delivered, config, event};

fn deliver(config: Config) {
    let store = Store::start(config).expect("a valid configuration");
    for _ in 0..2_000 {
        store.record_wait(&event("rr-1"), WAIT).expect("there is room in time");
    }
    assert_all_delivered(&store.close(WAIT).expect("all is delivered").report.accounts, 2_000);
}

#[test]
fn a_server_whose_authority_is_trusted_gets_everything_encrypted() {
    let (server, authority) = (Scripted::storing(), Authority::new());
    let front = authority.front(server.addr(), false);
    let mut config = config(&front.url());
    config.ca_file = Some(authority.ca_file());
    deliver(config);
    assert_eq!(server.stored_count(), 2_000);
    assert_eq!(server.repeats(), 0);
}

#[test]
fn a_server_that_is_not_trusted_gets_nothing_and_nothing_is_lost() {
    let (server, authority) = (Scripted::storing(), Authority::new());
    let front = Authority::new().front(server.addr(), false);
    let mut config = config(&front.url());
    config.ca_file = Some(authority.ca_file());
    let store = Store::start(config).unwrap();
    store.record(&event("rr-1")).unwrap();
    let flushed = store.flush(Duration::from_millis(300));
    assert!(matches!(flushed, Err(FlushError::Deadline(_))), "{flushed:?}");
    assert_eq!((store.accounts().pending, server.requests().len()), (1, 0));
}

#[test]
fn a_server_that_never_greets_is_given_up_within_the_time_to_connect() {
    // Takes connections into its backlog, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(&format!("https://{}", silent.local_addr().unwrap()));
    config.connect_timeout = Duration::from_millis(50);
    let store = Store::start(config).unwrap();
    store.record(&event("rr-1")).unwrap();
    let deadline = std::time::Instant::now() + WAIT;
    while store.report(WAIT).expect("it answers").batches.failed.no_connection < 2 {
        assert!(std::time::Instant::now() < deadline, "{:?}", store.report(WAIT));
    }
    assert_eq!(store.accounts().pending, 1);
}

#[test]
fn a_client_certificate_is_shown_where_it_is_asked_for() {
    let (server, authority) = (Scripted::storing(), Authority::new());
    let front = authority.front(server.addr(), true);
    let mut config = config(&front.url());
    config.ca_file = Some(authority.ca_file());
    let store = Store::start(config.clone()).unwrap();
    store.record(&event("rr-anonymous")).unwrap();
    store.flush(Duration::from_millis(300)).unwrap_err();
    let (certificate, key) = authority.client();
    config.client_certificate_file = Some(certificate);
    config.client_key_file = Some(key);
    deliver(config);
    assert!(!server.has_stored("rr-anonymous"));
}

#[test]
fn a_client_certificate_that_is_replaced_is_shown_by_the_next_connection() {
    let (server, authority, stranger) = (Scripted::storing(), Authority::new(), Authority::new());
    let front = authority.front(server.addr(), true);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let install = |(certificate, key)| {
        std::fs::copy(certificate, path("tls.crt")).unwrap();
        std::fs::copy(key, path("tls.key")).unwrap();
    };
    install(stranger.client());
    let mut config = config(&front.url());
    config.ca_file = Some(authority.ca_file());
    config.client_certificate_file = Some(path("tls.crt"));
    config.client_key_file = Some(path("tls.key"));
    let store = Store::start(config).unwrap();
    store.record(&event("rr-1")).unwrap();
    store.flush(Duration::from_millis(200)).unwrap_err();
    install(authority.client());
    store.flush(WAIT).expect("the new certificate is accepted");
    assert_eq!(server.stored_count(), 1);
}

#[test]
fn an_authority_that_is_replaced_is_trusted_by_the_next_connection() {
    let (server, authority) = (Scripted::storing(), Authority::new());
    let front = authority.front(server.addr(), false);
    // As Kubernetes does it: a link to a directory that is swapped.
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for (name, ca_file) in [("old", Authority::new().ca_file()), ("new", authority.ca_file())] {
        std::fs::create_dir(path(name)).unwrap();
        // The first authority's files are gone by now; any other one's will do.
        let text = std::fs::read(ca_file).or_else(|_| std::fs::read(Authority::new().ca_file()));
        std::fs::write(path(name).join("ca.pem"), text.unwrap()).unwrap();
    }
    std::os::unix::fs::symlink("old", path("data")).unwrap();
    let mut config = config(&front.url());
    config.ca_file = Some(path("data").join("ca.pem"));
    let store = Store::start(config).unwrap();
    store.record(&event("rr-1")).unwrap();
    store.flush(Duration::from_millis(200)).unwrap_err();
    std::os::unix::fs::symlink("new", path("data.new")).unwrap();
    std::fs::rename(path("data.new"), path("data")).unwrap();
    store.flush(WAIT).expect("the new authority is trusted");
}

#[test]
fn a_token_is_sent_and_read_again_after_a_401() {
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, "first-token\n").unwrap();
    let path = token_file.clone();
    let server = Scripted::start(move |request| match request.header("authorization") {
        Some("Bearer second-token") => Reply::Store,
        found => {
            assert_eq!(found, Some("Bearer first-token"), "trimmed");
            std::fs::write(&path, "second-token\n").expect("there is room for a file");
            Reply::status(401)
        }
    });
    let mut config = config(&server.url());
    config.token_file = Some(token_file);
    config.headers = vec![Header::new("x-tenant", "payments").unwrap()];
    let shown = format!("{config:?}");
    assert!(shown.contains("x-tenant") && !shown.contains("payments"), "{shown}");
    let store = Store::start(config).unwrap();
    store.record(&event("rr-1")).unwrap();
    store.flush(WAIT).expect("the new token is accepted");
    assert_eq!(server.requests()[0].header("x-tenant"), Some("payments"));
    assert!(!format!("{store:?}").contains("token"));
}

#[test]
fn files_that_cannot_be_used_start_nothing_and_are_named() {
    let (server, authority) = (Scripted::storing(), Authority::new());
    let front = authority.front(server.addr(), false);
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let start = |change: &dyn Fn(&mut Config)| {
        let mut config = config(&front.url());
        config.ca_file = Some(authority.ca_file());
        change(&mut config);
        Store::start(config).expect_err("the file can't be used")
    };
    let error = start(&|config| config.ca_file = Some("/nowhere/ca.pem".into()));
    assert!(matches!(&error, StartError::Tls(cause) if cause.to_string().contains("/nowhere")));
    let error = start(&|config| config.ca_file = Some(empty.clone()));
    assert!(matches!(&error, StartError::Tls(cause) if cause.to_string().contains("empty.pem")));
    let error = start(&|config| config.token_file = Some(empty.clone()));
    assert!(error.to_string().contains("empty.pem"), "{error}");
    let error = start(&|config| config.client_key_file = Some(empty.clone()));
    assert!(matches!(error, StartError::Config(_)));
}
