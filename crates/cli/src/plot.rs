//! A drawing of how long calls of `record` took, as SVG: a histogram, and the percentiles below.
//!
//! Invariant: what is drawn are the run's own counts; no text in it comes from outside. Limit: one
//! size, made for a page; shares are written on the bars only where there is room for them.

use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use hdrhistogram::Histogram;

use crate::Exit;
use crate::args::Usage;
use crate::distribution::Distribution;
use crate::report::grouped;

/// A file that is to have the drawing once there is something to draw.
#[derive(Debug)]
pub(crate) struct PlotFile(PathBuf);

impl PlotFile {
    /// Finds out whether the file can be written, before anything is done that it would lose.
    pub(crate) fn open(path: &Path) -> Result<Self, Usage> {
        match File::options().create(true).append(true).open(path) {
            Ok(_) => Ok(Self(path.to_owned())),
            Err(error) => Err(Usage(format!("--plot {}: {error}", path.display()))),
        }
    }

    /// Draws at the end of a run, if it has a plot, and gives back how the command ends. That the
    /// drawing failed doesn't hide that an event was lost.
    pub(crate) fn finish(
        plot: Option<Self>,
        record_ns: &Histogram<u64>,
        exit: Exit,
    ) -> anyhow::Result<Exit> {
        let Some(Self(path)) = plot else { return Ok(exit) };
        let result = fs::write(&path, Plot(record_ns).to_string());
        match result.with_context(|| format!("--plot {}", path.display())) {
            Err(error) if exit != Exit::Delivered => eprintln!("error: {error:#}"),
            result => result?,
        }
        Ok(exit)
    }
}

/// The drawing.
struct Plot<'a>(&'a Histogram<u64>);

impl fmt::Display for Plot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">"
        )?;
        writeln!(f, "<title>{TITLE}</title>")?;
        writeln!(f, "<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>")?;
        writeln!(f, "<text x=\"{LEFT}\" y=\"28\" font-size=\"18\">{TITLE}</text>")?;
        let at = |quantile| time(self.0.value_at_quantile(quantile));
        let summary = match self.0.len() {
            0 => "no calls".to_owned(),
            calls => format!(
                "{} calls: p50 {}, p99 {}, p99.9 {}, max {}",
                grouped(calls),
                at(0.5),
                at(0.99),
                at(0.999),
                time(self.0.max())
            ),
        };
        writeln!(f, "<text x=\"{LEFT}\" y=\"50\">{summary}</text>")?;
        if !self.0.is_empty() {
            draw_histogram(f, &self.0.into())?;
            draw_percentiles(f, self.0)?;
        }
        writeln!(f, "</svg>")
    }
}

/// A rectangle that is drawn into, `y` downwards.
#[derive(Clone, Copy)]
struct Panel {
    top: f64,
    bottom: f64,
}

impl Panel {
    /// Where a height between 0 (bottom) and 1 (top) is.
    fn y(self, height: f64) -> f64 {
        self.bottom - height * (self.bottom - self.top)
    }

    /// A horizontal line with its label on the left.
    fn draw_level(self, f: &mut fmt::Formatter<'_>, height: f64, label: &str) -> fmt::Result {
        let (y, label_x, label_y) = (self.y(height), LEFT - 8.0, self.y(height) + 4.0);
        writeln!(
            f,
            "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{label_x}\" y=\"{label_y:.1}\" text-anchor=\"end\">{label}</text>"
        )
    }

    /// A mark on the lower edge with its label below.
    fn draw_mark(self, f: &mut fmt::Formatter<'_>, x: f64, label: &str) -> fmt::Result {
        let (y, end_y, label_y) = (self.bottom, self.bottom + 5.0, self.bottom + 19.0);
        writeln!(
            f,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y}\" y2=\"{end_y}\" stroke=\"black\"/>\n\
             <text x=\"{x:.1}\" y=\"{label_y}\" text-anchor=\"middle\">{label}</text>"
        )
    }

    /// The lower edge, and what the axes show.
    fn draw_axes(self, f: &mut fmt::Formatter<'_>, across: &str, up: &str) -> fmt::Result {
        let (y, across_x, across_y) = (self.bottom, (LEFT + RIGHT) / 2.0, self.bottom + 40.0);
        let up_y = (self.top + self.bottom) / 2.0;
        writeln!(
            f,
            "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y}\" y2=\"{y}\" stroke=\"black\"/>\n\
             <text x=\"{across_x}\" y=\"{across_y}\" text-anchor=\"middle\">{across}</text>\n\
             <text x=\"18\" y=\"{up_y}\" text-anchor=\"middle\" \
             transform=\"rotate(-90 18 {up_y})\">{up}</text>"
        )
    }
}

fn draw_histogram(f: &mut fmt::Formatter<'_>, distribution: &Distribution) -> fmt::Result {
    let panel = Panel { top: 90.0, bottom: 310.0 };
    let buckets = &distribution.buckets;
    let highest = buckets.iter().map(|&it| distribution.percent(it)).fold(0.0, f64::max);
    let step = if highest > 50.0 {
        20
    } else if highest > 20.0 {
        10
    } else {
        5
    };
    let levels = (highest / f64::from(step)).ceil() as u32;
    for level in 0..=levels {
        let label = format!("{}%", level * step);
        panel.draw_level(f, f64::from(level) / f64::from(levels), &label)?;
    }
    let width = (RIGHT - LEFT) / buckets.len() as f64;
    for (place, &bucket) in buckets.iter().enumerate() {
        let percent = distribution.percent(bucket);
        let (x, y) = (LEFT + place as f64 * width, panel.y(percent / f64::from(levels * step)));
        if bucket.calls > 0 {
            writeln!(
                f,
                "<rect class=\"bar\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
                 fill=\"#4477aa\"/>",
                x + 1.0,
                width - 2.0,
                panel.bottom - y
            )?;
        }
        // Smaller shares could be read as zero.
        if width >= SHARE_WIDTH && percent >= 0.05 {
            let (x, y) = (x + width / 2.0, y - 4.0);
            writeln!(
                f,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{percent:.1}%</text>"
            )?;
        }
    }
    let bounds = buckets.iter().map(|it| it.from_ns).chain(buckets.last().map(|it| it.below_ns));
    let every = (BOUND_WIDTH / width).ceil() as usize;
    for (place, bound) in bounds.enumerate().step_by(every) {
        panel.draw_mark(f, LEFT + place as f64 * width, &time(bound))?;
    }
    panel.draw_axes(f, "time of a call, log scale", "share of calls")
}

/// Latency over percentile: each step to the right is ten times as rare.
fn draw_percentiles(f: &mut fmt::Formatter<'_>, record_ns: &Histogram<u64>) -> fmt::Result {
    let panel = Panel { top: 400.0, bottom: 620.0 };
    let log = |value: u64| (value.max(1) as f64).log10();
    let lowest = log(record_ns.min()).floor();
    let highest = log(record_ns.max()).ceil().max(lowest + 1.0);
    for exponent in lowest as u32..=highest as u32 {
        let height = (f64::from(exponent) - lowest) / (highest - lowest);
        panel.draw_level(f, height, &time(10_u64.pow(exponent)))?;
    }
    // One call in so many is the rarest that can be seen.
    let rarest = log(record_ns.len());
    let decades = rarest.ceil().max(1.0);
    let x = |rarity: f64| LEFT + rarity / decades * (RIGHT - LEFT);
    // The labels grow with the decades: from the eighth on there is room for every other one.
    let every = if decades > 7.0 { 2 } else { 1 };
    for decade in (0..=decades as usize).step_by(every) {
        let label = match decade {
            0 => "0%".to_owned(),
            1 => "90%".to_owned(),
            2 => "99%".to_owned(),
            nines => format!("99.{}%", "9".repeat(nines - 2)),
        };
        panel.draw_mark(f, x(decade as f64), &label)?;
    }
    let mut points = String::new();
    for point in 0..=POINTS {
        let rarity = rarest * f64::from(point) / f64::from(POINTS);
        let value = match point {
            // What rounding would make of it isn't left to chance.
            POINTS => record_ns.max(),
            _ => record_ns.value_at_quantile(1.0 - 10_f64.powf(-rarity)),
        };
        let height = (log(value) - lowest) / (highest - lowest);
        write!(points, "{:.1},{:.1} ", x(rarity), panel.y(height))?;
    }
    let points = points.trim_end();
    writeln!(
        f,
        "<polyline points=\"{points}\" fill=\"none\" stroke=\"#aa3377\" stroke-width=\"2\"/>"
    )?;
    panel.draw_axes(f, "percentile, log scale", "time of a call")
}

/// A time with its unit and at most three digits that matter.
fn time(nanos: u64) -> String {
    let (scale, unit) = match nanos {
        0 => return "0".to_owned(),
        1..1_000 => return format!("{nanos} ns"),
        1_000..1_000_000 => (1e3, "us"),
        1_000_000..1_000_000_000 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    let number = nanos as f64 / scale;
    let decimals = if number < 9.995 {
        2
    } else if number < 99.95 {
        1
    } else {
        0
    };
    let text = format!("{number:.decimals$}");
    let text = if decimals > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {unit}")
}

const TITLE: &str = "Ledgerline: time in record";
const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 680.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 750.0;
/// Room for a share as "100.0%", and for a bound as "819 us" and some space.
const SHARE_WIDTH: f64 = 44.0;
const BOUND_WIDTH: f64 = 52.0;
const POINTS: u32 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(values: &[(u64, u64)]) -> String {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        for &(value, calls) in values {
            histogram.saturating_record_n(value, calls);
        }
        Plot(&histogram).to_string()
    }

    /// Every element is closed in its order, every attribute is quoted, nothing is left unescaped.
    fn assert_is_well_formed(xml: &str) {
        let mut open: Vec<&str> = Vec::new();
        let mut elements = xml.trim().split('<');
        assert_eq!(elements.next(), Some(""));
        for (number, element) in elements.enumerate() {
            assert!(number == 0 || !open.is_empty(), "<{element} is behind the root");
            let (tag, text) = element.split_once('>').expect(element);
            assert!(!tag.contains('&') && !text.contains(['&', '>']), "{element}");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
                continue;
            }
            let is_empty = tag.ends_with('/');
            let tag = tag.trim_end_matches('/');
            let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase()), "{element}");
            let mut parts: Vec<_> = attributes.split('"').collect();
            assert_eq!(parts.pop(), Some(""), "{element}");
            for attribute in parts.chunks(2) {
                assert!(attribute.len() == 2 && attribute[0].ends_with('='), "{element}");
            }
            if !is_empty {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn each_bucket_with_calls_has_a_bar() {
        let drawn = drawn(&[(150, 50_000), (250, 25_000), (900, 24_999), (20, 1)]);
        assert_is_well_formed(&drawn);
        // None between 400 and 800 ns.
        assert_eq!(drawn.matches("class=\"bar\"").count(), 4, "{drawn}");
        assert_eq!(drawn.matches("<polyline").count(), 1);
        for text in ["100,000 calls: p50 150 ns", "50.0%", "1.6 us", "99.999%", "share of calls"] {
            assert!(drawn.contains(text), "{text}: {drawn}");
        }
    }

    #[test]
    fn whatever_the_times_are_the_drawing_stays_on_its_page() {
        for values in [
            &[][..],
            &[(1, 1)],
            &[(1_000, 1)],
            &[(99, 1), (u64::MAX, 1)],
            &[(1, 5_000_000), (60_000_000_000, 1)],
        ] {
            let drawn = drawn(values);
            assert_is_well_formed(&drawn);
            assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
            assert_eq!(drawn.matches("class=\"bar\"").count(), values.len());
            let points = drawn.split("points=\"").nth(1).and_then(|rest| rest.split('"').next());
            for point in points.unwrap_or_default().split_whitespace() {
                let (x, y) = point.split_once(',').unwrap();
                assert!((LEFT..=RIGHT).contains(&x.parse().unwrap()), "{point}");
                assert!((400.0..=620.0).contains(&y.parse().unwrap()), "{point}");
            }
        }
    }

    #[test]
    fn times_have_three_digits_that_matter() {
        for (nanos, text) in [
            (0, "0"),
            (800, "800 ns"),
            (1_000, "1 us"),
            (12_800, "12.8 us"),
            (819_200, "819 us"),
            (1_638_400, "1.64 ms"),
            (10_000_000_000, "10 s"),
        ] {
            assert_eq!(time(nanos), text);
        }
    }
}
