//! Progress on stderr: a bar on a terminal, a line every few seconds elsewhere.
//!
//! Invariant: says nothing on stdout. Limit: rates are means since the beginning.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::report::grouped;

/// One stage of work that counts events.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    total: Option<u64>,
    began_at: Instant,
    next_line_at: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins a stage; without a total there is only a count.
    pub(crate) fn new(what: &'static str, total: Option<u64>) -> Self {
        let began_at = Instant::now();
        let bar = io::stderr().is_terminal().then(|| {
            let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
            let template = if total.is_some() { BAR } else { COUNT };
            let style = ProgressStyle::with_template(template).expect("a constant template");
            bar.with_style(style.with_key("rate", write_rate)).with_message(what)
        });
        Self { what, total, began_at, next_line_at: began_at + FIRST_LINE_AFTER, bar }
    }

    /// Shows how far it is, if it is time to.
    pub(crate) fn show(&mut self, events: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(events);
            return;
        }
        let now = Instant::now();
        if now < self.next_line_at {
            return;
        }
        self.next_line_at = now + LINE_INTERVAL;
        let rate = events as f64 / (now - self.began_at).as_secs_f64();
        let of = self.total.map(|total| format!(" of {}", grouped(total))).unwrap_or_default();
        eprintln!("{}: {}{of}, {} events/s", self.what, grouped(events), grouped(rate as u64));
    }
}

/// The bar makes room for what comes next.
impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn write_rate(state: &ProgressState, text: &mut dyn fmt::Write) {
    // Fails only where the text itself can't be shown.
    write!(text, "{}/s", grouped(state.per_sec() as u64)).ok();
}

const BAR: &str = "{msg:10} {wide_bar} {human_pos}/{human_len} {rate}";
const COUNT: &str = "{msg:10} {spinner} {human_pos} {rate}";
/// Early, so that one sees that it works.
const FIRST_LINE_AFTER: Duration = Duration::from_secs(1);
const LINE_INTERVAL: Duration = Duration::from_secs(3);
