//! `ledgerline load`: the demo's load against any DataStorage, or against one that only answers.
//!
//! Invariant: what it reports covers everything it recorded, the time to deliver the last event
//! included. Limit: it doesn't ask the events back.

use std::time::Duration;

use anyhow::Context as _;
use ledgerline::Config;
use serde_json::json;

use crate::Exit;
use crate::args::{Durability, LoadArgs, OnFull, Scenario};
use crate::calibration::Machine;
use crate::drive::Run;
use crate::events::Payloads;
use crate::null_sink::NullSink;
use crate::plot::PlotFile;
use crate::producers::{Burst, PRODUCERS_DEFAULT, Plan, run_name};
use crate::report::{Report, millis};
use crate::settings;

/// Runs the command.
pub(crate) fn run(args: &LoadArgs) -> anyhow::Result<Exit> {
    let payloads = Payloads::load(args.recording.input.as_deref())?;
    let plot = args.recording.plot.as_deref().map(PlotFile::open).transpose()?;
    let Durability::Memory = args.durability;
    let directory = std::env::temp_dir();
    let sink =
        args.null_sink.map(|think_ms| NullSink::start(Duration::from_millis(think_ms.into())));
    let sink = sink.transpose().context("the null sink doesn't start")?;
    let sink_url = sink.as_ref().map(|sink| format!("http://{}", sink.address()));
    let mut config = settings::engine(&args.engine, sink_url)?;
    config.connections_max = args.connections.unwrap_or(config.connections_max);
    let is_endless = args.duration.is_none() && args.events.is_none();
    let duration = args.duration.or_else(|| is_endless.then_some(DURATION_DEFAULT));
    let (producers, rate, burst_events) = match args.scenario {
        Some(Scenario::Gateway) => (16, Some(3_000), 25_000),
        None => (PRODUCERS_DEFAULT, None, 0),
    };
    let producers = args.recording.producers.unwrap_or(producers);
    let plan = Plan {
        producers: producers.into(),
        events: args.events.map(u64::from),
        duration,
        rate: args.rate.map(u64::from).or(rate),
        burst: (burst_events > 0).then(|| Burst {
            events: burst_events,
            after: duration.unwrap_or(DURATION_DEFAULT) / 2,
        }),
        skips_refused: args.on_full == OnFull::Skip,
        payloads,
        run: run_name(),
    };
    let machine =
        Machine::measure(&directory, producers.into()).context("the disk can't be measured")?;
    config.producer.get_or_insert_with(|| format!("load-{}", plan.run));
    let settings = settings(args, &plan, &config);
    let run = Run::drive(config, &plan, args.recording.shutdown_timeout)?;
    Report::new(&run, None, machine, settings).print(args.recording.json)?;
    PlotFile::finish(plot, &run.tally.record_ns, run.exit())
}

fn settings(args: &LoadArgs, plan: &Plan, config: &Config) -> serde_json::Value {
    json!({
        "command": "load",
        "version": env!("CARGO_PKG_VERSION"),
        "url": args.null_sink.is_none().then_some(&config.url),
        "config": args.engine.config,
        "null_sink_think_ms": args.null_sink,
        "scenario": args.scenario.map(|Scenario::Gateway| "gateway"),
        "rate": plan.rate,
        "burst_events": plan.burst.map(|burst| burst.events),
        "duration_ms": plan.duration.map(millis),
        "events": plan.events,
        "skips_refused": plan.skips_refused,
        "producers": plan.producers,
        "input": args.recording.input,
        "durability": "memory",
        "buffer_bytes": config.buffer_bytes,
        "memory_bytes": config.memory().ok().map(|memory| memory.total_bytes()),
        "flush_interval_ms": millis(config.flush_interval),
        "batch_events_max": config.batch_events_max,
        "connections": config.connections_max,
        "shutdown_timeout_ms": millis(args.recording.shutdown_timeout),
    })
}

const DURATION_DEFAULT: Duration = Duration::from_secs(10);
