//! Asks a run's events back through DataStorage's query API, over HTTP.
//!
//! Invariant: every page is followed to the last, and only rows of the run's own producer count,
//! whatever else the storage holds. Limit: 32 bytes of memory for each row.

use std::borrow::Cow;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use ledgerline::{Timestamp, Uuid};
use serde::Deserialize;

use crate::report::Stored;

/// Which rows to count.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// Events from then on.
    pub(crate) since: Timestamp,
    /// The run's name; `/` and the lane follow in the events.
    pub(crate) producer: &'a str,
    /// How many there should be.
    pub(crate) accepted: u64,
}

/// Reads all pages; `look` is told how many rows there were.
pub(crate) fn read_back(
    address: SocketAddr,
    wanted: &Wanted<'_>,
    mut look: impl FnMut(u64),
) -> anyhow::Result<Stored> {
    let mut client = Client::connect(address)?;
    let mut since = Vec::new();
    wanted.since.append_to(&mut since);
    let since = String::from_utf8(since)?;
    let mut rows = Rows::default();
    let mut cursor = String::new();
    loop {
        let body = client
            .request(&format!("/api/v1/audit/events?limit=1000&since={since}&cursor={cursor}"))?;
        let page: Page<'_> = serde_json::from_slice(body).context("the answer is no page")?;
        for row in &page.data {
            rows.count(row, wanted.producer)?;
        }
        look(rows.ids.len() as u64);
        match page.pagination.next_cursor {
            Some(next) => cursor = next,
            None => return Ok(rows.sum(wanted.accepted)),
        }
    }
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    data: Vec<Row<'a>>,
    pagination: Pagination,
}

#[derive(Deserialize)]
struct Row<'a> {
    event_id: &'a str,
    #[serde(borrow, default)]
    producer: Cow<'a, str>,
    #[serde(default)]
    producer_seq: u64,
}

#[derive(Deserialize)]
struct Pagination {
    next_cursor: Option<String>,
}

/// The rows of one run. An event is known by two names, made independently: its id, and its
/// place in what its producer emitted.
#[derive(Debug, Default)]
struct Rows {
    ids: Vec<u128>,
    places: Vec<(u16, u64)>,
}

impl Rows {
    fn count(&mut self, row: &Row<'_>, producer: &str) -> anyhow::Result<()> {
        let lane = row.producer.strip_prefix(producer).and_then(|rest| rest.strip_prefix('/'));
        let Some(lane) = lane else { return Ok(()) };
        let id = Uuid::parse_str(row.event_id).context("a row has no usable event_id")?;
        self.ids.push(id.as_u128());
        let lane = lane.parse().context("a row has no usable producer")?;
        self.places.push((lane, row.producer_seq));
        Ok(())
    }

    fn sum(mut self, accepted: u64) -> Stored {
        let rows = self.ids.len() as u64;
        self.ids.sort_unstable();
        self.ids.dedup();
        self.places.sort_unstable();
        self.places.dedup();
        let distinct_event_ids = self.ids.len() as u64;
        let distinct = distinct_event_ids.min(self.places.len() as u64);
        Stored {
            rows,
            distinct_event_ids,
            missing: accepted.saturating_sub(distinct),
            duplicates: rows - distinct,
        }
    }
}

/// A connection that asks and waits.
struct Client {
    stream: BufReader<TcpStream>,
    host: SocketAddr,
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Client {
    fn connect(host: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&host, TIMEOUT)
            .with_context(|| format!("can't connect to {host}"))?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        let stream = BufReader::with_capacity(READ_BYTES, stream);
        Ok(Self { stream, host, head: Vec::new(), body: Vec::new() })
    }

    /// The body of a 200.
    fn request(&mut self, target: &str) -> anyhow::Result<&[u8]> {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.read_head()?;
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        response.parse(&self.head).context("the answer is not HTTP")?;
        let status = response.code;
        let length = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("content-length"))
            .and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok());
        let length: usize = length.context("the answer has no Content-Length")?;
        ensure!(length <= BODY_BYTES_MAX, "the answer's {length} bytes are over {BODY_BYTES_MAX}");
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body)?;
        if status != Some(200) {
            let body = String::from_utf8_lossy(&self.body);
            bail!("the query was answered with {}: {body}", status.unwrap_or_default());
        }
        Ok(&self.body)
    }

    fn read_head(&mut self) -> anyhow::Result<()> {
        self.head.clear();
        while !self.head.ends_with(b"\r\n\r\n") {
            let read = self.stream.read_until(b'\n', &mut self.head)?;
            ensure!(read > 0, "the server closed the connection");
            ensure!(self.head.len() <= HEAD_BYTES_MAX, "the answer's head has no end");
        }
        Ok(())
    }
}

const TIMEOUT: Duration = Duration::from_secs(30);
const READ_BYTES: usize = 256 << 10;
const HEAD_BYTES_MAX: usize = 16 << 10;
const BODY_BYTES_MAX: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn row(event_id: &'static str, producer: &'static str, producer_seq: u64) -> Row<'static> {
        Row { event_id, producer: producer.into(), producer_seq }
    }

    #[test]
    fn rows_of_others_do_not_count_and_both_names_find_duplicates() {
        const A: &str = "0190abcd-ef01-7000-8000-0123456789aa";
        const B: &str = "0190abcd-ef01-7000-8000-0123456789ab";
        let count = |given: &[Row<'_>]| {
            let mut rows = Rows::default();
            for row in given {
                rows.count(row, "demo-1").unwrap();
            }
            rows.sum(2)
        };
        let stored = |rows, distinct_event_ids, missing, duplicates| Stored {
            rows,
            distinct_event_ids,
            missing,
            duplicates,
        };
        let (first, second) = (|| row(A, "demo-1/0", 1), || row(B, "demo-1/0", 2));
        assert_eq!(count(&[first(), second(), row(A, "demo-10/0", 1)]), stored(2, 2, 0, 0));
        assert_eq!(count(&[first(), first()]), stored(2, 1, 1, 1));
        assert_eq!(count(&[first(), row(B, "demo-1/0", 1)]), stored(2, 2, 1, 1));
    }
}
