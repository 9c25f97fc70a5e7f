//! The answer to a query: a page of events as JSON.
//!
//! Invariant: `event_data` goes out byte for byte as it came in. Limit: [`PAGE_BYTES_MAX`]; a page
//! by cursor ends early at it and says that there is more, one by offset is refused, because a
//! client that adds `limit` to its offset would pass over what was cut off.

use std::io::Write as _;

use ledgerline_codec::Timestamp;
use serde::Serialize;

use crate::problem::{Kind, Problem};
use crate::query_parameters;
use crate::storage::{PageEnd, Row, RowSink, Selection, Start, Taken};

/// The answer so far.
#[derive(Debug)]
pub(crate) struct JsonPage {
    body: Vec<u8>,
    rows: usize,
    was_cut: bool,
}

#[derive(Serialize)]
struct Pagination {
    limit: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    has_more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl JsonPage {
    pub(crate) fn new() -> Self {
        Self { body: b"{\"data\":[".to_vec(), rows: 0, was_cut: false }
    }

    /// Closes the page.
    pub(crate) fn finish(
        mut self,
        selection: &Selection,
        end: PageEnd,
    ) -> Result<Vec<u8>, Problem> {
        let offset = match selection.start {
            Start::Offset(_) if self.was_cut => {
                let detail = format!(
                    "the page has more than {PAGE_BYTES_MAX} bytes, \
                     use a limit of {} or page by cursor",
                    self.rows
                );
                return Err(Problem::new(Kind::Validation, detail).field("limit"));
            }
            Start::Offset(offset) => Some(offset),
            Start::Front | Start::After(_) => None,
        };
        let last = end.last.filter(|_| end.has_more);
        let pagination = Pagination {
            limit: selection.limit,
            offset,
            total: end.total,
            has_more: end.has_more,
            next_cursor: last.map(query_parameters::cursor),
        };
        self.body.extend_from_slice(b"],\"pagination\":");
        serde_json::to_writer(&mut self.body, &pagination).expect("plain values serialise");
        self.body.push(b'}');
        Ok(self.body)
    }
}

impl RowSink for JsonPage {
    fn take(&mut self, row: &Row<'_>) -> Taken {
        let bytes_before = self.body.len();
        if self.rows > 0 {
            self.body.push(b',');
        }
        append_row(row, &mut self.body);
        // A row alone always fits: it is far smaller than a page.
        if self.body.len() > PAGE_BYTES_MAX && self.rows > 0 {
            self.body.truncate(bytes_before);
            self.was_cut = true;
            return Taken::No;
        }
        self.rows += 1;
        Taken::Yes
    }
}

/// One event, its fields in the order in which today's service writes them.
fn append_row(row: &Row<'_>, out: &mut Vec<u8>) {
    let mut time = Vec::with_capacity(27);
    row.event_timestamp.append_to(&mut time);
    let time = String::from_utf8_lossy(&time);
    out.push(b'{');
    append_raw("event_id", format_args!("\"{}\"", row.event_id), out);
    append_raw("event_timestamp", format_args!("\"{time}\""), out);
    append_raw("event_date", format_args!("\"{}\"", date(&time)), out);
    append_text("event_type", row.event_type, out);
    append_text("version", row.version, out);
    append_text("event_category", row.event_category, out);
    append_text("event_action", row.event_action, out);
    append_text("event_outcome", row.event_outcome, out);
    append_text("correlation_id", row.correlation_id, out);
    match row.parent_event_id {
        Some(id) => append_raw("parent_event_id", format_args!("\"{id}\""), out),
        None => append_raw("parent_event_id", format_args!("null"), out),
    }
    append_parent_date(row.parent_event_day, out);
    append_text("resource_type", row.resource_type, out);
    append_text("resource_id", row.resource_id, out);
    append_if_any("namespace", row.namespace, out);
    append_if_any("cluster_id", row.cluster_id, out);
    append_text("severity", row.severity, out);
    if let Some(duration_ms) = row.duration_ms {
        append_raw("duration_ms", format_args!("{duration_ms}"), out);
    }
    append_if_any("error_code", row.error_code, out);
    append_if_any("error_message", row.error_message, out);
    append_text("actor_id", row.actor_id, out);
    append_text("actor_type", row.actor_type, out);
    append_if_any("actor_ip", row.actor_ip, out);
    append_raw("retention_days", format_args!("{}", row.retention_days), out);
    append_raw("is_sensitive", format_args!("{}", row.is_sensitive), out);
    // Nothing places holds yet, so no event is held.
    append_raw("legal_hold", format_args!("false"), out);
    append_raw("legal_hold_placed_at", format_args!("null"), out);
    append_if_any("producer", row.producer, out);
    if let Some(producer_seq) = row.producer_seq {
        append_raw("producer_seq", format_args!("{producer_seq}"), out);
    }
    append_raw("event_data", format_args!("{}", row.event_data), out);
    out.push(b'}');
}

fn append_parent_date(day: Option<i64>, out: &mut Vec<u8>) {
    let midnight = day.and_then(|day| Timestamp::from_micros(day.checked_mul(MICROS_PER_DAY)?));
    let Some(midnight) = midnight else {
        return append_raw("parent_event_date", format_args!("null"), out);
    };
    let mut time = Vec::with_capacity(27);
    midnight.append_to(&mut time);
    let time = String::from_utf8_lossy(&time);
    append_raw("parent_event_date", format_args!("\"{}\"", date(&time)), out);
}

/// The date of an RFC 3339 time.
fn date(time: &str) -> &str {
    time.split_once('T').map_or(time, |(date, _)| date)
}

/// Appends a member whose value is JSON already.
fn append_raw(name: &str, json: std::fmt::Arguments<'_>, out: &mut Vec<u8>) {
    append_name(name, out);
    out.write_fmt(json).expect("writing to a Vec doesn't fail");
}

fn append_text(name: &str, text: &str, out: &mut Vec<u8>) {
    append_name(name, out);
    serde_json::to_writer(out, text).expect("a text serialises, and writing to a Vec doesn't fail");
}

fn append_if_any(name: &str, text: Option<&str>, out: &mut Vec<u8>) {
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        append_text(name, text, out);
    }
}

fn append_name(name: &str, out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// A thousand events of the usual 1 KiB fit many times; a thousand of the longest don't.
const PAGE_BYTES_MAX: usize = 32 << 20;

const MICROS_PER_DAY: i64 = 86_400_000_000;
