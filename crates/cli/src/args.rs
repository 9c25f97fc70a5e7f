//! The command line: flags, their environment twins, and the texts behind them.
//!
//! Invariant: every flag has a twin `LEDGERLINE_<FLAG>`, which the flag overrides; a value that
//! can't be used ends the process with status 2 and a message that names its flag. Limit: what
//! needs the file system is checked by the commands, before they start anything.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, NonEmptyStringValueParser};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

/// Records audit events without waiting, and can always say where each one is.
#[derive(Debug, Parser)]
#[command(name = "ledgerline", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Form of the log lines on stderr
    #[arg(long, env = "LEDGERLINE_LOG_FORMAT", global = true, value_name = "FORMAT")]
    #[arg(default_value = "text", display_order = 100)]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Store events in a DataStorage of our own, ask them back, and show what was found
    #[command(after_help = AFTER_HELP)]
    Demo(DemoArgs),
    /// Run a DataStorage service
    #[command(after_help = AFTER_HELP)]
    Serve(ServeArgs),
    /// Put load on a DataStorage, and measure
    #[command(after_help = AFTER_HELP)]
    Load(LoadArgs),
    /// Check the configuration that an engine takes from the environment, and show it
    #[command(after_help = AFTER_HELP)]
    Validate(ValidateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Events to record
    #[arg(long, env = "LEDGERLINE_EVENTS", value_name = "N", default_value = "200000")]
    pub(crate) events: NonZeroU64,
    #[command(flatten)]
    pub(crate) recording: RecordingArgs,
    /// Where to store the events: sqlite:PATH [default: a temporary directory]
    #[arg(long, env = "LEDGERLINE_STORAGE", value_parser = sqlite_path)]
    pub(crate) storage: Option<SqlitePath>,
    /// Keep the database in this directory, as events.db
    #[arg(long, env = "LEDGERLINE_KEEP", value_name = "DIR", conflicts_with = "storage")]
    pub(crate) keep: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where to store the events: sqlite:PATH
    #[arg(long, env = "LEDGERLINE_STORAGE", value_parser = sqlite_path)]
    #[arg(default_value = "sqlite:ledgerline.db")]
    pub(crate) storage: SqlitePath,
    /// Address of the API and /readyz; port 0 takes a free one
    #[arg(long, env = "LEDGERLINE_LISTEN", value_name = "ADDRESS")]
    #[arg(default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Address of /healthz and /readyz
    #[arg(long, env = "LEDGERLINE_HEALTH_LISTEN", value_name = "ADDRESS")]
    #[arg(default_value = "127.0.0.1:8081")]
    pub(crate) health_listen: SocketAddr,
    /// Address of /metrics
    #[arg(long, env = "LEDGERLINE_METRICS_LISTEN", value_name = "ADDRESS")]
    #[arg(default_value = "127.0.0.1:9090")]
    pub(crate) metrics_listen: SocketAddr,
    /// How long requests under way may take when the service is told to stop
    #[arg(long, env = "LEDGERLINE_SHUTDOWN_TIMEOUT", value_name = "TIME", default_value = "25s")]
    #[arg(value_parser = duration)]
    pub(crate) shutdown_timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// A server of our own that stores nothing and answers after THINK_MS
    #[arg(long, env = "LEDGERLINE_NULL_SINK", value_name = "THINK_MS", conflicts_with = "url")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "0")]
    pub(crate) null_sink: Option<u32>,
    /// A load with a name; flags count more: gateway
    #[arg(long, env = "LEDGERLINE_SCENARIO", value_name = "NAME", hide_possible_values = true)]
    pub(crate) scenario: Option<Scenario>,
    /// Events per second in all [default: as many as can be]
    #[arg(long, env = "LEDGERLINE_RATE", value_name = "EVENTS_PER_S")]
    pub(crate) rate: Option<NonZeroU64>,
    /// How long to record [default: 10s, unless --events is given]
    #[arg(long, env = "LEDGERLINE_DURATION", value_name = "TIME", value_parser = duration)]
    pub(crate) duration: Option<Duration>,
    /// How many events to have accepted
    #[arg(long, env = "LEDGERLINE_EVENTS", value_name = "N")]
    pub(crate) events: Option<NonZeroU64>,
    /// An event that finds no room may wait, or be skipped: skip
    #[arg(long, env = "LEDGERLINE_ON_FULL", value_name = "WHAT", default_value = "wait")]
    #[arg(hide_possible_values = true)]
    pub(crate) on_full: OnFull,
    #[command(flatten)]
    pub(crate) recording: RecordingArgs,
    /// Connections at most [default: 16]
    #[arg(long, env = "LEDGERLINE_CONNECTIONS", value_name = "N")]
    pub(crate) connections: Option<usize>,
    /// What accepted events survive: memory, nothing
    #[arg(long, env = "LEDGERLINE_DURABILITY", value_name = "KIND", default_value = "memory")]
    #[arg(value_parser = durability)]
    pub(crate) durability: Durability,
}

#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    /// Connections at most
    #[arg(long, value_name = "N", visible_alias = "connections")]
    pub(crate) connections_max: Option<usize>,
    /// Print one object of JSON instead of lines
    #[arg(long, env = "LEDGERLINE_JSON", value_parser = BoolishValueParser::new())]
    pub(crate) json: bool,
}

/// The engine's settings. The flags without a variable here have the engine's own as their twin,
/// which the engine reads: it has its own forms of values, and takes an empty one as not set.
#[derive(Debug, Args)]
pub(crate) struct EngineArgs {
    /// The engine's settings in TOML; the environment and flags count more
    #[arg(long, env = "LEDGERLINE_CONFIG", value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,
    /// The DataStorage: http://host:port
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) url: Option<String>,
    /// Bytes of events to hold at most, also as 64MiB
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub(crate) buffer_bytes: Option<u64>,
    /// How long an event waits for company
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) flush_interval: Option<Duration>,
    /// Events in one request at most
    #[arg(long, value_name = "N")]
    pub(crate) batch_events_max: Option<usize>,
}

/// What `demo` and `load` have in common.
#[derive(Debug, Args)]
pub(crate) struct RecordingArgs {
    /// Threads that record [default: 4]
    #[arg(long, env = "LEDGERLINE_PRODUCERS", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1_024))]
    pub(crate) producers: Option<u16>,
    /// Take each line of this file as the event_data of an event
    #[arg(long, env = "LEDGERLINE_INPUT", value_name = "FILE.ndjson")]
    pub(crate) input: Option<PathBuf>,
    /// Directory for a journal: not in this version
    #[arg(long, env = "LEDGERLINE_JOURNAL", value_name = "DIR", value_parser = no_journal)]
    #[arg(hide = true)]
    pub(crate) journal: Option<Infallible>,
    /// How long to wait at the end for deliveries
    #[arg(long, env = "LEDGERLINE_SHUTDOWN_TIMEOUT", value_name = "TIME", default_value = "60s")]
    #[arg(value_parser = duration)]
    pub(crate) shutdown_timeout: Duration,
    /// Draw how long calls of record took
    #[arg(long, env = "LEDGERLINE_PLOT", value_name = "FILE.svg")]
    pub(crate) plot: Option<PathBuf>,
    /// End stdout with a report as one line of JSON
    #[arg(long, env = "LEDGERLINE_JSON", value_parser = BoolishValueParser::new())]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// A load that is known by a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// 3,000 events per second on 16 threads, and half-way 25,000 at once.
    Gateway,
}

/// What becomes of an event that finds no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnFull {
    Wait,
    Skip,
}

/// What accepted events survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Nothing: they live in the process's memory.
    Memory,
}

/// The file behind `sqlite:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SqlitePath(pub(crate) PathBuf);

/// The command line is wrong, as only a command could find out.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Usage {}

/// The process's command line; ends the process with a message if it can't be used.
pub(crate) fn parse() -> Cli {
    let matches = command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// The twins are named once, below the help, instead of behind each flag.
fn command() -> clap::Command {
    let hide = |arg: clap::Arg| arg.hide_env(true);
    Cli::command().mut_args(hide).mut_subcommands(|command| command.mut_args(hide))
}

fn sqlite_path(text: &str) -> Result<SqlitePath, String> {
    if text.starts_with("postgres:") || text.starts_with("postgresql:") {
        return Err("this version stores in SQLite only, expected sqlite:PATH".to_owned());
    }
    match text.strip_prefix("sqlite:") {
        Some(path) if !path.is_empty() => Ok(SqlitePath(path.into())),
        _ => Err("expected sqlite:PATH".to_owned()),
    }
}

fn no_journal(_: &str) -> Result<Infallible, String> {
    Err("this version has no journal, it keeps events in memory".to_owned())
}

fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "memory" => Ok(Durability::Memory),
        "process" => Err("this version has no journal, expected memory".to_owned()),
        _ if text.starts_with("power=") => {
            Err("this version has no journal, expected memory".to_owned())
        }
        _ => Err("expected memory".to_owned()),
    }
}

/// A whole or decimal number with its unit: `500us`, `100ms`, `1.5s`, `2m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number and a unit of us, ms, s, m or h, as in 100ms".to_owned();
    let (number, unit) = split_unit(text);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err(wrong()),
    };
    let number = number.parse::<f64>().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())
}

/// A whole number of bytes, or of KiB, MiB or GiB.
fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || "expected a number of bytes, or one with KiB, MiB or GiB".to_owned();
    let (number, unit) = split_unit(text);
    let factor = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let number = number.parse::<u64>().map_err(|_| wrong())?;
    number.checked_mul(factor).ok_or_else(wrong)
}

fn split_unit(text: &str) -> (&str, &str) {
    let unit = text.find(|letter: char| letter != '.' && !letter.is_ascii_digit());
    text.split_at(unit.unwrap_or(text.len()))
}

const AFTER_HELP: &str = "\
Every flag has a twin in the environment: --log-format is LEDGERLINE_LOG_FORMAT.
LEDGERLINE_LOG filters the log, as in info or ledgerline=debug [default: warn].";

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn every_flag_has_its_twin() {
        command().debug_assert();
        let command = command();
        let commands = command.get_subcommands().chain([&command]);
        for arg in commands.flat_map(clap::Command::get_arguments) {
            let name = arg.get_long().expect("no argument goes without a name");
            let setting = name.replace('-', "_");
            let twin = format!("LEDGERLINE_{}", setting.to_uppercase());
            let given = arg.get_env().map(|twin| twin.to_str().unwrap());
            let is_read_by_engine = ledgerline::Config::SETTINGS.contains(&&*setting);
            let expected = (!is_read_by_engine).then_some(&*twin);
            assert_eq!(given, expected, "{name}");
        }
    }

    #[test]
    fn each_help_fits_a_screen() {
        for command_name in ["", "demo ", "serve ", "load ", "validate "] {
            let line = format!("ledgerline {command_name}--help");
            let error = command().try_get_matches_from(line.split(' ')).unwrap_err();
            let help = error.to_string();
            assert_eq!(error.exit_code(), 0);
            assert!(help.lines().count() <= 30, "{help}");
        }
    }

    #[test]
    fn a_null_sink_thinks_for_no_time_unless_told() {
        let think_ms = |line| match parsed(line).unwrap().command {
            Command::Load(args) => args.null_sink,
            _ => None,
        };
        assert_eq!(think_ms("ledgerline load --null-sink --producers 2"), Some(0));
        assert_eq!(think_ms("ledgerline load --null-sink=15"), Some(15));
    }

    #[test]
    fn what_this_version_lacks_is_said() {
        for (line, message) in [
            ("ledgerline demo --storage postgres://x", "SQLite only"),
            ("ledgerline demo --journal /tmp/x", "no journal"),
            ("ledgerline load --null-sink --durability power=100ms", "no journal"),
            ("ledgerline load --null-sink --url http://x", "cannot be used with"),
        ] {
            let error = parsed(line).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(message), "{error}");
        }
    }

    #[test]
    fn times_and_sizes_need_a_known_unit() {
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes("4096"), Ok(4_096));
        for wrong in ["", "10", "s", "-1s", "1.2.3s", "1e3s", "10 s", "99999999999999999999h"] {
            duration(wrong).unwrap_err();
        }
        for wrong in ["", "MiB", "1MB", "-1", "1.5MiB", "99999999999GiB"] {
            bytes(wrong).unwrap_err();
        }
    }
}
