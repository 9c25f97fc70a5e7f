//! One run of an engine: start it, record, close it, and put together what was measured.
//!
//! Invariant: whatever happens while recording, the engine is closed, and its accounts say what
//! became of every event. Limit: one run in a process, because it catches the process's signals.

use std::error::Error;
use std::fmt;
use std::time::{Duration, Instant};

use ledgerline::{Accounts, Config, ConfigError, StartError, Store};

use crate::Exit;
use crate::args::Usage;
use crate::producers::{Plan, Tally};
use crate::progress::Progress;
use crate::signals::Interrupt;

/// What a run has shown.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) tally: Tally,
    pub(crate) report: ledgerline::Report,
    /// From the first call of `record` to the last settlement.
    pub(crate) elapsed: Duration,
    /// Whether the engine said at its close that all was well.
    pub(crate) was_closed_well: bool,
}

impl Run {
    /// Records as planned, waits at most for `shutdown_timeout` until all is delivered.
    pub(crate) fn drive(
        config: Config,
        plan: &Plan,
        shutdown_timeout: Duration,
    ) -> anyhow::Result<Self> {
        let store = Store::start(config).map_err(usage)?;
        let interrupt = {
            let store = store.clone();
            // A close at once: the one that waits ends with it, and says what was dropped.
            Interrupt::watch(move || drop(store.close(Duration::ZERO)))?
        };
        tracing::info!(producers = plan.producers, events = plan.events, "recording");
        let mut progress = Progress::new("delivering", plan.events);
        let recorded =
            plan.run(&store, interrupt.flag(), || progress.show(store.accounts().delivered));
        let closed = store.close(shutdown_timeout);
        let settled_at = Instant::now();
        drop(progress);
        if let Err(error) = &closed {
            eprintln!("error: {error}");
        }
        let accounts = store.accounts();
        let tally = match recorded {
            Err(error) if !is_delivered(&accounts) => {
                return Err(error.context(Undelivered(accounts)));
            }
            recorded => recorded?,
        };
        let was_closed_well = closed.is_ok();
        let report = closed.map(|closed| closed.report).ok();
        let report = report.or_else(|| store.report(REPORT_TIMEOUT));
        let report = report.ok_or(Undelivered(accounts))?;
        let elapsed = tally.began_at.map_or(Duration::ZERO, |began_at| settled_at - began_at);
        Ok(Self { tally, report, elapsed, was_closed_well })
    }

    /// How a command ends that only had to deliver.
    pub(crate) fn exit(&self) -> Exit {
        match (is_delivered(&self.report.accounts), self.was_closed_well) {
            (true, true) => Exit::Delivered,
            (true, false) => Exit::Failed,
            (false, _) => Exit::Undelivered,
        }
    }
}

/// A run has no report, and something accepted was not delivered, for all that is known.
#[derive(Debug)]
pub(crate) struct Undelivered(Accounts);

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Accounts { accepted, delivered, .. } = self.0;
        write!(f, "of {accepted} accepted events {delivered} are known to be delivered")
    }
}

impl Error for Undelivered {}

fn is_delivered(accounts: &Accounts) -> bool {
    accounts.is_balanced() && accounts.delivered == accounts.accepted
}

/// What is wrong with a flag is said with the flag's name.
fn usage(error: StartError) -> anyhow::Error {
    let StartError::Config(error) = error else { return error.into() };
    let flag = match &error {
        ConfigError::Url { .. } => "--url: ",
        ConfigError::OutOfRange { field, .. } | ConfigError::DurationOutOfRange { field, .. } => {
            match *field {
                "buffer_bytes" => "--buffer-bytes: ",
                "flush_interval" => "--flush-interval: ",
                "batch_events_max" => "--batch-events-max: ",
                "connections_max" => "--connections: ",
                _ => "", // only the environment or a file can have set it
            }
        }
        _ => "",
    };
    Usage(format!("{flag}{error}")).into()
}

const REPORT_TIMEOUT: Duration = Duration::from_secs(1);
