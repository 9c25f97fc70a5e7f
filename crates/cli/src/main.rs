//! The `ledgerline` command: `demo`, `serve`, `load` and `validate`.
//!
//! Results go to stdout, talk goes to stderr. Exit status: 0 every accepted event was delivered,
//! 3 something accepted was not, 2 the command line or the configuration is wrong, 1 anything else
//! failed.

mod allocations;
mod args;
mod calibration;
mod demo;
mod distribution;
mod drive;
mod events;
mod load;
mod null_sink;
mod plot;
mod producers;
mod progress;
mod query;
mod report;
mod runtime;
mod serve;
mod settings;
mod signals;
mod validate;

use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use crate::args::{Command, LogFormat, Usage};
use crate::drive::Undelivered;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Exit {
    /// Every accepted event was delivered.
    Delivered = 0,
    /// The command could not do its work.
    Failed = 1,
    /// The command line is wrong, or the configuration.
    Usage = 2,
    /// An event was accepted and not delivered.
    Undelivered = 3,
}

fn main() -> ExitCode {
    let cli = args::parse();
    start_log(cli.log_format);
    let result = match cli.command {
        Command::Demo(args) => demo::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Validate(args) => validate::run(&args),
    };
    let exit = result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        if error.is::<Usage>() {
            Exit::Usage
        } else if error.is::<Undelivered>() {
            Exit::Undelivered
        } else {
            Exit::Failed
        }
    });
    ExitCode::from(exit as u8)
}

/// Logs to stderr what `LEDGERLINE_LOG` lets through; a filter that can't be read is the default.
fn start_log(format: LogFormat) {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::WARN.into())
        .with_env_var("LEDGERLINE_LOG")
        .from_env_lossy();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
