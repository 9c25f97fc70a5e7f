//! `ledgerline validate`: the engine's configuration as a file and the environment have it, checked
//! and shown.
//!
//! Invariant: it reads the variables as an engine does that is started from them, with the
//! engine's own code, so that it finds what that would find. Each variable must have its form,
//! also one that a flag overrides. Limit: nothing is started, and no server is asked.

use std::time::Duration;

use ledgerline::{Config, Header, Memory, Overflow, Oversize};
use serde_json::{Map, Value, json};

use crate::Exit;
use crate::args::{Usage, ValidateArgs};
use crate::report::{grouped, millis};
use crate::settings;

/// Runs the command.
pub(crate) fn run(args: &ValidateArgs) -> anyhow::Result<Exit> {
    let mut config = settings::engine(&args.engine, None)?;
    config.connections_max = args.connections_max.unwrap_or(config.connections_max);
    let memory = config.memory().map_err(|error| Usage(error.to_string()))?;
    let fields = fields(&config);
    if args.json {
        println!("{}", object(fields, &memory));
    } else {
        print!("{}", lines(&fields, &memory));
    }
    Ok(Exit::Delivered)
}

/// Every field with its value, in their order; null is what is not set.
fn fields(config: &Config) -> Vec<(&'static str, Value)> {
    let time = |time: Duration| json!(millis(time));
    vec![
        ("url", json!(config.url)),
        ("producer", json!(config.producer)),
        ("buffer_events", json!(config.buffer_events)),
        ("buffer_bytes", json!(config.buffer_bytes)),
        (
            "overflow",
            json!(match config.overflow {
                Overflow::Reject => "reject",
                Overflow::EvictOldest => "evict_oldest",
                _ => "unknown",
            }),
        ),
        (
            "oversize",
            json!(match config.oversize {
                Oversize::Refuse => "refuse",
                Oversize::Truncate => "truncate",
                _ => "unknown",
            }),
        ),
        ("event_age_max_ms", json!(config.event_age_max.map(millis))),
        ("batch_events_max", json!(config.batch_events_max)),
        ("batch_bytes_max", json!(config.batch_bytes_max)),
        ("flush_interval_ms", time(config.flush_interval)),
        ("retries_max", json!(config.retries_max)),
        ("give_up_after_ms", json!(config.give_up_after.map(millis))),
        ("retry_delay_min_ms", time(config.retry_delay_min)),
        ("retry_delay_max_ms", time(config.retry_delay_max)),
        ("connections_max", json!(config.connections_max)),
        ("pipeline_depth_max", json!(config.pipeline_depth_max)),
        ("in_flight_bytes_max", json!(config.in_flight_bytes_max)),
        ("set_apart_bytes_max", json!(config.set_apart_bytes_max)),
        ("connect_timeout_ms", time(config.connect_timeout)),
        ("request_timeout_ms", time(config.request_timeout)),
        ("ca_file", json!(config.ca_file)),
        ("client_certificate_file", json!(config.client_certificate_file)),
        ("client_key_file", json!(config.client_key_file)),
        ("token_file", json!(config.token_file)),
        ("headers", json!(config.headers.iter().map(Header::name).collect::<Vec<_>>())),
        ("lost_events_max", json!(config.lost_events_max)),
        ("lost_bytes_max", json!(config.lost_bytes_max)),
        ("on_loss", Value::Null),  // a function: not from here
        ("trace_id", Value::Null), // as that
        ("drop_timeout_ms", time(config.drop_timeout)),
        ("lanes", json!(config.lanes)),
    ]
}

/// For scripts.
fn object(fields: Vec<(&'static str, Value)>, memory: &Memory) -> Value {
    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
    json!({
        "schema": "ledgerline.config/1",
        "config": fields.collect::<Map<_, _>>(),
        "memory": {
            "block_count": memory.block_count,
            "blocks_bytes": memory.blocks_bytes,
            "gather_bytes": memory.gather_bytes,
            "connections_bytes": memory.connections_bytes,
            "histograms_bytes": memory.histograms_bytes,
            "lost_bytes": memory.lost_bytes,
            "total_bytes": memory.total_bytes(),
        },
    })
}

/// For people.
fn lines(fields: &[(&'static str, Value)], memory: &Memory) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        let value = match value {
            Value::Null => "not set".to_owned(),
            Value::String(value) => value.clone(),
            value => value.as_u64().map_or_else(|| value.to_string(), grouped),
        };
        text += &format!("{name:<23} {value}\n");
    }
    text += "\nmemory at most, in MiB\n";
    let blocks = format!("{} blocks", grouped(memory.block_count));
    for (name, bytes) in [
        (&*blocks, memory.blocks_bytes),
        ("gather", memory.gather_bytes),
        ("connections", memory.connections_bytes),
        ("histograms", memory.histograms_bytes),
        ("lost events", memory.lost_bytes),
        ("total", memory.total_bytes()),
    ] {
        text += &format!("{name:<19} {:>10.2}\n", bytes as f64 / f64::from(1 << 20));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_is_left_out() {
        let config = Config::new("http://localhost:8080");
        let debug = format!("{config:#?}");
        let fields = fields(&config);
        let shown = fields.iter().map(|(name, _)| name.strip_suffix("_ms").unwrap_or(name));
        let names = debug.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(": "));
        assert!(shown.eq(names.map(|(name, _)| name)), "{debug}");
    }
}
