//! How the calls of `record` spread over time: buckets that double, drawn as lines of text.
//!
//! Invariant: every call is in one bucket, and the shares are of all calls. The bounds are bounds
//! of the histogram's own cells as well, so that no cell is split. Limit: below 100 ns, and within
//! a bucket, nothing is told apart.

use std::fmt;

use hdrhistogram::Histogram;

use crate::report::grouped;

/// Buckets from the first to the last that has calls; none if there were no calls.
#[derive(Debug)]
pub(crate) struct Distribution {
    pub(crate) buckets: Vec<Bucket>,
    /// In all buckets.
    pub(crate) calls: u64,
}

/// Calls that took at least `from_ns` and less than `below_ns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bucket {
    pub(crate) from_ns: u64,
    pub(crate) below_ns: u64,
    pub(crate) calls: u64,
}

impl Distribution {
    /// The share of all calls that a bucket has, in percent.
    pub(crate) fn percent(&self, bucket: Bucket) -> f64 {
        bucket.calls as f64 * 100.0 / self.calls.max(1) as f64
    }

    /// The calls of the bucket that has most.
    fn calls_max(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.calls).max().unwrap_or(0)
    }
}

impl From<&Histogram<u64>> for Distribution {
    fn from(histogram: &Histogram<u64>) -> Self {
        let mut buckets: Vec<Bucket> = Vec::new();
        // Cells come in ascending order; a value is the last of its cell.
        for cell in histogram.iter_recorded() {
            let (value, calls) = (cell.value_iterated_to(), cell.count_at_value());
            while buckets.last().is_none_or(|last| last.below_ns <= value) {
                let from_ns = match buckets.last() {
                    Some(last) => last.below_ns,
                    None => floor(value),
                };
                let below_ns = (2 * from_ns).max(FIRST_BELOW_NS);
                buckets.push(Bucket { from_ns, below_ns, calls: 0 });
            }
            if let Some(last) = buckets.last_mut() {
                last.calls += calls;
            }
        }
        Self { buckets, calls: histogram.len() }
    }
}

/// One line for each bucket: its bounds, its share, and a bar.
impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bounds: Vec<_> = self.buckets.iter().map(|&bucket| bounds(bucket)).collect();
        let width = bounds.iter().map(String::len).max().unwrap_or(0);
        write!(f, "time in record, in ns, and the share of the calls that took it")?;
        for (&bucket, bounds) in self.buckets.iter().zip(&bounds) {
            let share = share(self.percent(bucket));
            write!(f, "\n{bounds:>width$} {share:>8}")?;
            // The longest bar is the fullest bucket's; one with too little for a mark has none.
            let marks = u128::from(bucket.calls) * BAR_COLUMNS / u128::from(self.calls_max());
            if marks > 0 {
                write!(f, " {:#<1$}", "", marks as usize)?;
            }
        }
        Ok(())
    }
}

/// The lower bound of the bucket that a value is in.
fn floor(value_ns: u64) -> u64 {
    match (value_ns / FIRST_BELOW_NS).checked_ilog2() {
        Some(doublings) => FIRST_BELOW_NS << doublings,
        None => 0,
    }
}

fn bounds(bucket: Bucket) -> String {
    let below = grouped(bucket.below_ns);
    match bucket.from_ns {
        0 => format!("<{below}"),
        from_ns => format!("{}-{below}", grouped(from_ns)),
    }
}

/// A share of nothing is told from one that is too small for the decimals.
fn share(percent: f64) -> String {
    if percent > 0.0 && percent < 0.001 { "<0.001%".to_owned() } else { format!("{percent:.3}%") }
}

/// The first bucket's end: about what a call takes at the very least.
const FIRST_BELOW_NS: u64 = 100;
const BAR_COLUMNS: u128 = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn distribution(values: &[(u64, u64)]) -> Distribution {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        for &(value, calls) in values {
            histogram.saturating_record_n(value, calls);
        }
        (&histogram).into()
    }

    #[test]
    fn every_call_is_in_the_bucket_of_its_time() {
        // On both sides of every bound that a time can meet.
        for doublings in 0..29 {
            let bound = 100 << doublings;
            let distribution = distribution(&[(bound - 1, 2), (bound, 3)]);
            let [below, above] = distribution.buckets[..] else { panic!("{distribution:?}") };
            assert_eq!((below.below_ns, below.calls), (bound, 2));
            assert_eq!((above.from_ns, above.below_ns, above.calls), (bound, 2 * bound, 3));
        }
    }

    #[test]
    fn buckets_are_drawn_with_their_shares_from_the_first_to_the_last() {
        let drawn = distribution(&[(150, 50_000), (250, 25_000), (900, 24_999), (20, 1)]);
        let bar = |columns| "#".repeat(columns);
        let expected = [
            "time in record, in ns, and the share of the calls that took it".to_owned(),
            "     <100   0.001%".to_owned(),
            format!("  100-200  50.000% {}", bar(40)),
            format!("  200-400  25.000% {}", bar(20)),
            "  400-800   0.000%".to_owned(),
            format!("800-1,600  24.999% {}", bar(19)),
        ];
        assert_eq!(drawn.to_string(), expected.join("\n"));
    }

    #[test]
    fn the_widest_line_fits_a_terminal() {
        let drawn = distribution(&[(0, 1), (u64::MAX, 1_000_000)]).to_string();
        assert!(drawn.contains(" <0.001%"), "{drawn}");
        for line in drawn.lines() {
            assert!(line.is_ascii() && line.len() <= 80, "{line}");
        }
        assert_eq!(drawn.lines().last().unwrap().matches('#').count(), 40);
    }

    #[test]
    fn no_calls_have_no_buckets() {
        assert_eq!(distribution(&[]).buckets, []);
    }
}
