//! A process that ends without `close` loses nothing in silence, and always ends.
//!
//! The processes are this binary, started again to run the one test [`child`]: nobody listens to
//! tracing in them.

use std::env;
use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use ledgerline::{CloseError, Config, FlushError, LossHook, Store};
use ledgerline_testkit::{Gate, Reply, Scripted, WAIT, config, event};

const MODE: &str = "LEDGERLINE_LEAVING_MODE";
const URL: &str = "LEDGERLINE_LEAVING_URL";
const EVENTS: usize = 10;
const SHORT: Duration = Duration::from_millis(200);
const FOREVER: Duration = Duration::from_secs(3_600);

/// What the other tests start: records some events, and leaves. Without being told how, it does
/// nothing.
#[test]
fn child() {
    let Ok(mode) = env::var(MODE) else { return };
    let mut config = Config::new(env::var(URL).expect("given with the mode"));
    config.drop_timeout = match mode.as_str() {
        "default" => config.drop_timeout,
        "zero" => Duration::ZERO,
        "short" | "guarded" => SHORT,
        _ => FOREVER,
    };
    let store = Store::start(config).expect("a valid configuration");
    let _guard = (mode == "guarded").then(|| store.close_on_drop(SHORT));
    for _ in 0..EVENTS {
        store.record(&event("rr-left")).expect("there is room");
    }
    assert_ne!(mode, "panicking", "a panic that drops the store");
}

fn start(mode: &str, url: &str, stderr: impl Into<Stdio>) -> Child {
    let mut command = Command::new(env::current_exe().expect("this binary"));
    command.args(["--exact", "child", "--nocapture"]).env(MODE, mode).env(URL, url);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
    command.spawn().expect("it runs already")
}

/// How it ended.
#[track_caller]
fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + WAIT;
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return status;
        }
        if Instant::now() >= deadline {
            child.kill().expect("it is our child");
            panic!("it never ends");
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// What it left on stderr, and whether it ended well.
fn run(mode: &str, url: &str) -> (String, bool) {
    let mut child = start(mode, url, Stdio::piped());
    let status = wait(&mut child);
    let mut text = String::new();
    child.stderr.expect("piped").read_to_string(&mut text).expect("text");
    (text, status.success())
}

#[track_caller]
fn assert_each_is_told(stderr: &str) {
    let lines = stderr.lines().filter_map(|line| line.split_once("[AUDIT] "));
    let lost: Vec<serde_json::Value> =
        lines.map(|(_, json)| serde_json::from_str(json).expect("JSON")).collect();
    assert_eq!(lost.len(), EVENTS, "{stderr}");
    assert!(lost.iter().all(|line| line["error"] == "dropped at close"), "{stderr}");
    assert!(lost.iter().all(|line| line["correlationId"] == "rr-left"), "{stderr}");
    assert!(stderr.contains("audit store closed"), "{stderr}");
}

#[test]
fn main_returns_and_everything_is_stored() {
    let server = Scripted::storing();
    let (stderr, is_well) = run("default", &server.url());
    assert!(is_well && !stderr.contains("[AUDIT]"), "{stderr}");
    let requests = server.requests();
    let stored = requests.iter().map(|request| request.events.len()).sum::<usize>();
    assert_eq!(stored, EVENTS);
}

#[test]
fn what_is_left_is_told_event_by_event() {
    let server = Scripted::start(|_| Reply::Hang);
    for mode in ["short", "guarded", "zero"] {
        let (stderr, is_well) = run(mode, &server.url());
        assert!(is_well, "{mode}: {stderr}");
        assert_each_is_told(&stderr);
    }
}

#[test]
fn a_stderr_that_nobody_reads_holds_no_process_back() {
    let server = Scripted::start(|_| Reply::Hang);
    let (reader, writer) = io::pipe().expect("a pipe");
    let mut filler = writer.try_clone().expect("another end");
    let (full, is_full) = mpsc::channel();
    let fill = thread::spawn(move || {
        filler.write_all(&[b' '; 65_536]).expect("a pipe's capacity");
        full.send(()).expect("waited for");
        filler.write_all(&[b' '; 65_536]).expect_err("nobody reads");
    });
    is_full.recv_timeout(WAIT).expect("a pipe takes that much");
    let mut child = start("short", &server.url(), writer);
    assert!(wait(&mut child).success());
    drop(reader);
    fill.join().unwrap();
}

#[test]
fn a_panic_is_not_held_up_and_says_what_it_leaves() {
    let server = Scripted::start(|_| Reply::Hang);
    let (stderr, is_well) = run("panicking", &server.url());
    assert!(!is_well && stderr.contains("dropped in a panic"), "{stderr}");
    assert!(stderr.contains(&format!("{EVENTS} events")), "{stderr}");
}

#[test]
fn a_drop_waits_for_no_longer_than_it_may() {
    let server = Scripted::start(|_| Reply::Hang);
    let mut config = config(&server.url());
    config.drop_timeout = SHORT;
    let store = Store::start(config).unwrap();
    store.record(&event("rr-1")).unwrap();
    let begun = Instant::now();
    drop(store);
    assert!(begun.elapsed() >= SHORT && begun.elapsed() < WAIT, "{:?}", begun.elapsed());
}

#[test]
fn a_store_that_is_closed_is_dropped_at_once() {
    let server = Scripted::storing();
    let mut config = config(&server.url());
    config.drop_timeout = FOREVER;
    let store = Store::start(config).unwrap();
    store.record(&event("rr-1")).unwrap();
    store.close(WAIT).unwrap();
    drop(store);
}

/// A store that loses its event once the gate is open, and where its hook finds its handle.
fn losing(
    gate: &Gate,
    server: &mut Option<Scripted>,
    hook: impl Fn(&Store) + Send + Sync + 'static,
) -> Arc<Mutex<Option<Store>>> {
    let held = gate.clone();
    let server = server.insert(Scripted::start(move |_| Reply::status(503).after(&held)));
    let handle = Arc::new(Mutex::new(None));
    let mut config = config(&server.url());
    config.retries_max = Some(0);
    config.drop_timeout = FOREVER;
    let mine = Arc::clone(&handle);
    config.on_loss = Some(LossHook::new(move |_| {
        let store = mine.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(store) = store {
            hook(&store);
        }
    }));
    let store = Store::start(config).expect("a valid configuration");
    store.record(&event("rr-1")).expect("there is room");
    *handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(store);
    handle
}

#[test]
fn a_hook_that_drops_the_last_handle_waits_for_nothing() {
    let (gate, mut server) = (Gate::new(), None);
    let (left, has_left) = mpsc::channel();
    let handle = losing(&gate, &mut server, move |_| left.send(()).expect("waited for"));
    gate.open();
    has_left.recv_timeout(WAIT).expect("the hook is called");
    // It has dropped the handle when the lock is free; the engine's thread goes on, and ends.
    assert!(handle.lock().unwrap().is_none());
    let begun = Instant::now();
    while Arc::strong_count(&handle) > 1 {
        assert!(begun.elapsed() < WAIT, "the engine doesn't end");
        thread::yield_now();
    }
}

#[test]
fn a_hook_that_asks_its_own_engine_is_answered_at_once() {
    let (gate, mut server) = (Gate::new(), None);
    let (asked, answers) = mpsc::channel();
    let handle = losing(&gate, &mut server, move |store| {
        let flushed = store.flush(FOREVER);
        let recorded = store.record_wait(&event("rr-2"), FOREVER).is_ok();
        let closed = store.close(FOREVER);
        asked.send((flushed, recorded, closed, store.clone())).expect("waited for");
    });
    gate.open();
    let (flushed, recorded, closed, store) = answers.recv_timeout(WAIT).expect("it is called");
    assert_eq!(flushed, Err(FlushError::Unresponsive { deadline: FOREVER }));
    assert_eq!(closed, Err(CloseError::Unresponsive { deadline: FOREVER }));
    assert!(recorded, "a hook may record");
    drop(handle);
    store.close(WAIT).expect_err("all is lost");
    let accounts = store.accounts();
    assert!(accounts.is_balanced() && accounts.dropped.gave_up == 2, "{accounts:?}");
}
