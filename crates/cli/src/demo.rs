//! `ledgerline demo`: the whole way of an event, in one process and over a real socket.
//!
//! Invariant: what it says is stored was read back through the query API after the engine had
//! closed; it ends with 0 only if every accepted event is there, once. Limit: engine, service and
//! reader share the machine, so that its rate is no service's capacity.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use ledgerline::{Config, Timestamp};
use ledgerline_server::{Server, Storage};
use serde_json::json;
use tempfile::TempDir;

use crate::Exit;
use crate::args::DemoArgs;
use crate::calibration::Machine;
use crate::drive::Run;
use crate::events::Payloads;
use crate::plot::PlotFile;
use crate::producers::{PRODUCERS_DEFAULT, Plan, run_name};
use crate::progress::Progress;
use crate::query::{self, Wanted};
use crate::report::{Report, Stored, millis};
use crate::settings;

/// Runs the command.
pub(crate) fn run(args: &DemoArgs) -> anyhow::Result<Exit> {
    let payloads = Payloads::load(args.recording.input.as_deref())?;
    let plot = args.recording.plot.as_deref().map(PlotFile::open).transpose()?;
    let place = Place::of(args)?;
    let producers = args.recording.producers.unwrap_or(PRODUCERS_DEFAULT);
    let machine = Machine::measure(place.directory(), producers.into())
        .context("the disk can't be measured")?;
    let server = start_server(&place.path)?;
    let address = server.addr();
    eprintln!("DataStorage at http://{address}, storing in {}", place.path.display());

    let name = run_name();
    let plan = Plan {
        producers: producers.into(),
        events: Some(args.events.get()),
        duration: None,
        rate: None,
        burst: None,
        skips_refused: false,
        payloads,
        run: name.clone(),
    };
    let mut config = settings::engine_at(format!("http://{address}"))?;
    let producer = format!("demo-{name}");
    config.producer = Some(producer.clone());
    let settings = settings(args, producers, &config, &place);
    let since = some_time_ago();
    let run = Run::drive(config, &plan, args.recording.shutdown_timeout)?;

    let accepted = run.report.accounts.accepted;
    let wanted = Wanted { since, producer: &producer, accepted };
    let mut progress = Progress::new("asking back", Some(accepted));
    let stored = query::read_back(address, &wanted, |rows| progress.show(rows))
        .context("the events can't be asked back")?;
    drop(progress);
    server.shutdown(SERVER_SHUTDOWN_TIMEOUT).context("DataStorage didn't stop in order")?;

    let report = Report::new(&run, Some(stored), machine, settings);
    report.print(args.recording.json)?;
    PlotFile::finish(plot, &run.tally.record_ns, exit(&run, stored))
}

/// 0 only if what the engine says and what is stored agree.
fn exit(run: &Run, stored: Stored) -> Exit {
    let is_all_there = stored.missing == 0
        && stored.duplicates == 0
        && stored.rows == run.report.accounts.accepted
        && stored.distinct_event_ids == stored.rows;
    match run.exit() {
        Exit::Delivered if !is_all_there => Exit::Undelivered,
        exit => exit,
    }
}

fn start_server(path: &Path) -> anyhow::Result<Server> {
    let mut config = ledgerline_server::Config::new(Storage::Sqlite { path: path.to_owned() });
    config.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Server::start(config).context("DataStorage doesn't start")
}

/// Where the events are stored.
struct Place {
    path: PathBuf,
    /// Deleted with everything in it when the demo is over.
    _temporary: Option<TempDir>,
}

impl Place {
    fn of(args: &DemoArgs) -> anyhow::Result<Self> {
        if let Some(storage) = &args.storage {
            return Ok(Self { path: storage.0.clone(), _temporary: None });
        }
        if let Some(directory) = &args.keep {
            fs::create_dir_all(directory)
                .with_context(|| format!("--keep {}", directory.display()))?;
            return Ok(Self { path: directory.join(FILE_NAME), _temporary: None });
        }
        let directory = tempfile::Builder::new().prefix("ledgerline-demo-").tempdir()?;
        Ok(Self { path: directory.path().join(FILE_NAME), _temporary: Some(directory) })
    }

    fn directory(&self) -> &Path {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.unwrap_or_else(|| Path::new("."))
    }
}

fn settings(args: &DemoArgs, producers: u16, config: &Config, place: &Place) -> serde_json::Value {
    json!({
        "command": "demo",
        "version": env!("CARGO_PKG_VERSION"),
        "events": args.events,
        "producers": producers,
        "input": args.recording.input,
        "storage": format!("sqlite:{}", place.path.display()),
        "durability": "memory",
        "memory_bytes": config.memory().ok().map(|memory| memory.total_bytes()),
        "flush_interval_ms": millis(config.flush_interval),
        "batch_events_max": config.batch_events_max,
        "connections": config.connections_max,
        "shutdown_timeout_ms": millis(args.recording.shutdown_timeout),
    })
}

/// From when on to ask: early enough for a clock that was set back a little during the run.
fn some_time_ago() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let then = now.saturating_sub(CLOCK_SLACK);
    i64::try_from(then.as_micros())
        .ok()
        .and_then(Timestamp::from_micros)
        .unwrap_or(Timestamp::EPOCH)
}

const FILE_NAME: &str = "events.db";
const CLOCK_SLACK: Duration = Duration::from_secs(60);
const SERVER_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(25);
