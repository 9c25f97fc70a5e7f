//! What a run has shown: one object of JSON for scripts, some lines for people.
//!
//! Invariant: the object's names and their meaning stay; it changes by additions only. Limit: the
//! lines are for eyes and may change.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use ledgerline::{Accounts, Percentiles};
use serde::Serialize;
use serde_json::Value;

use crate::calibration::Machine;
use crate::distribution::Distribution;
use crate::drive::Run;

/// The report of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    schema: &'static str,
    accounts: AccountsReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<Stored>,
    seconds: f64,
    events_per_second: f64,
    record_ns: PercentilesReport,
    /// Of these calls, those that were refused.
    refused_ns: PercentilesReport,
    /// Of these calls, those of a burst.
    #[serde(skip_serializing_if = "Option::is_none")]
    burst_ns: Option<PercentilesReport>,
    delivery_ms: PercentilesReport,
    flush_lateness_ms: PercentilesReport,
    blocked_ms: BTreeMap<&'static str, u64>,
    batches: BatchesReport,
    cpu_us_per_event: f64,
    allocations_per_record: f64,
    machine: Machine,
    config: Value,
    /// For people only.
    #[serde(skip)]
    record_distribution: Distribution,
}

/// What the query API gave back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Stored {
    pub(crate) rows: u64,
    pub(crate) distinct_event_ids: u64,
    /// Accepted events without a row.
    pub(crate) missing: u64,
    /// Rows of events that have another row.
    pub(crate) duplicates: u64,
}

#[derive(Debug, Serialize)]
struct AccountsReport {
    accepted: u64,
    recovered: u64,
    delivered: u64,
    queued_by_server: u64,
    dead_lettered: u64,
    dropped: DroppedReport,
    pending: u64,
    refused: RefusedReport,
    possibly_duplicated: u64,
    possibly_stored: u64,
    redelivered: u64,
}

#[derive(Debug, Serialize)]
struct DroppedReport {
    evicted: u64,
    gave_up: u64,
    closed: u64,
    expired: u64,
}

#[derive(Debug, Serialize)]
struct RefusedReport {
    full: u64,
    closed: u64,
    invalid: u64,
    too_large: u64,
    forked: u64,
    failed: u64,
}

#[derive(Debug, Serialize)]
struct PercentilesReport {
    p50: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

#[derive(Debug, Serialize)]
struct BatchesReport {
    sent: u64,
    retried: u64,
    split: u64,
    events_mean: f64,
}

impl Report {
    /// Puts together what a run has shown. `config` echoes the settings that it ran with.
    pub(crate) fn new(run: &Run, stored: Option<Stored>, machine: Machine, config: Value) -> Self {
        let engine = &run.report;
        let accounts = &engine.accounts;
        let accepted = accounts.accepted.max(1) as f64;
        let cpu = run.tally.cpu + engine.engine_cpu;
        let blocked = engine.blocked_ms.by_cause();
        let seconds = run.elapsed.as_secs_f64();
        Self {
            schema: "ledgerline.report/1",
            accounts: accounts.into(),
            stored,
            seconds: rounded(seconds),
            events_per_second: rounded(accounts.delivered as f64 / seconds.max(1e-9)),
            record_ns: (&run.tally.record_ns).into(),
            refused_ns: (&run.tally.refused_ns).into(),
            burst_ns: (!run.tally.burst_ns.is_empty()).then(|| (&run.tally.burst_ns).into()),
            delivery_ms: engine.delivery_ms.into(),
            flush_lateness_ms: engine.flush_lateness_ms.into(),
            blocked_ms: blocked.map(|(cause, ms)| (cause.name(), ms)).collect(),
            batches: BatchesReport {
                sent: engine.batches.sent,
                retried: engine.batches.retried,
                split: engine.batches.split,
                events_mean: rounded(engine.batches.events_mean),
            },
            cpu_us_per_event: rounded(cpu.as_secs_f64() * 1e6 / accepted),
            allocations_per_record: run.tally.allocations as f64 / accepted,
            machine,
            config,
            record_distribution: (&run.tally.record_ns).into(),
        }
    }

    /// Prints the report on stdout: for people, and then either one more line for scripts, with
    /// `json`, or how the calls' times are distributed.
    pub(crate) fn print(&self, json: bool) -> anyhow::Result<()> {
        println!("{self}");
        if json {
            println!("{}", serde_json::to_string(self)?);
        } else if self.record_distribution.calls > 0 {
            println!("\n{}", self.record_distribution);
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let accounts = &self.accounts;
        let dropped = &accounts.dropped;
        let dropped = dropped.evicted + dropped.gave_up + dropped.closed + dropped.expired;
        writeln!(
            f,
            "accepted   {} events, {:.2} s, {} events/s",
            grouped(accounts.accepted),
            self.seconds,
            grouped(self.events_per_second as u64)
        )?;
        writeln!(
            f,
            "delivered  {}, dropped {}, dead-lettered {}, pending {}",
            grouped(accounts.delivered),
            grouped(dropped),
            grouped(accounts.dead_lettered),
            grouped(accounts.pending)
        )?;
        let refused = grouped(accounts.refused.full);
        writeln!(f, "refused    {refused} times for want of room")?;
        if let Some(stored) = &self.stored {
            writeln!(
                f,
                "stored     {} rows, {} distinct event ids, {} missing, {} duplicates",
                grouped(stored.rows),
                grouped(stored.distinct_event_ids),
                grouped(stored.missing),
                grouped(stored.duplicates)
            )?;
        }
        writeln!(f, "record     {} ns", self.record_ns)?;
        if let Some(burst_ns) = &self.burst_ns {
            writeln!(f, "  in burst {burst_ns} ns")?;
        }
        writeln!(f, "delivery   {} ms", self.delivery_ms)?;
        writeln!(f, "lateness   {} ms", self.flush_lateness_ms)?;
        writeln!(
            f,
            "requests   {} of {:.0} events, {} retried, {} split",
            grouped(self.batches.sent),
            self.batches.events_mean,
            grouped(self.batches.retried),
            grouped(self.batches.split)
        )?;
        writeln!(
            f,
            "costs      {:.3} us of processor time and {:.3} allocations an event",
            self.cpu_us_per_event, self.allocations_per_record
        )?;
        let Machine { cores, handoff_ns, fdatasync_us, longest_gap_us } = self.machine;
        let gap_ms = longest_gap_us as f64 / 1e3;
        writeln!(
            f,
            "machine    {cores} cores, handoff {handoff_ns} ns, fdatasync {fdatasync_us} us,"
        )?;
        write!(f, "           threads kept from the processor for {gap_ms:.1} ms at most")
    }
}

impl From<&Accounts> for AccountsReport {
    fn from(accounts: &Accounts) -> Self {
        let (dropped, refused) = (accounts.dropped, accounts.refused);
        Self {
            accepted: accounts.accepted,
            recovered: accounts.recovered,
            delivered: accounts.delivered,
            queued_by_server: accounts.queued_by_server,
            dead_lettered: accounts.dead_lettered,
            dropped: DroppedReport {
                evicted: dropped.evicted,
                gave_up: dropped.gave_up,
                closed: dropped.closed,
                expired: dropped.expired,
            },
            pending: accounts.pending,
            refused: RefusedReport {
                full: refused.full,
                closed: refused.closed,
                invalid: refused.invalid,
                too_large: refused.too_large,
                forked: refused.forked,
                failed: refused.failed,
            },
            possibly_duplicated: accounts.possibly_duplicated,
            possibly_stored: accounts.possibly_stored,
            redelivered: accounts.redelivered,
        }
    }
}

impl From<Percentiles> for PercentilesReport {
    fn from(percentiles: Percentiles) -> Self {
        let Percentiles { p50, p99, p999, max, .. } = percentiles;
        Self { p50, p99, p999, max }
    }
}

impl From<&Histogram<u64>> for PercentilesReport {
    fn from(histogram: &Histogram<u64>) -> Self {
        Self {
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

impl fmt::Display for PercentilesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p99, p999, max } = self;
        let [p50, p99, p999, max] = [p50, p99, p999, max].map(|&value| grouped(value));
        write!(f, "p50 {p50}, p99 {p99}, p99.9 {p999}, max {max}")
    }
}

/// A duration for the echo of settings.
pub(crate) fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

/// A number with its digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// To six decimal places: more is noise.
fn rounded(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
