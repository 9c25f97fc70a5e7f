//! What a scenario has measured, and whether that is enough.

use std::fmt;
use std::thread;

/// One scenario's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bar {
    /// Which scenario, in which form.
    pub name: String,
    /// What was looked at.
    pub checks: Vec<Check>,
}

/// One figure of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What it says.
    pub what: &'static str,
    /// What was measured.
    pub figure: String,
    /// What it had to be; empty if anything would do.
    pub wanted: String,
    /// Whether it was that.
    pub is_met: bool,
}

impl Bar {
    /// A bar without checks.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), checks: Vec::new() }
    }

    /// A figure that has to be this.
    pub fn equal<T: PartialEq + fmt::Debug>(&mut self, what: &'static str, figure: T, wanted: T) {
        let (is_met, wanted) = (figure == wanted, format!("{wanted:?}"));
        self.check(what, format!("{figure:?}"), wanted, is_met);
    }

    /// A figure that may be this at most.
    pub fn at_most<T: PartialOrd + fmt::Debug>(&mut self, what: &'static str, figure: T, limit: T) {
        let (is_met, wanted) = (figure <= limit, format!("at most {limit:?}"));
        self.check(what, format!("{figure:?}"), wanted, is_met);
    }

    /// A figure that must be this at least.
    pub fn at_least<T: PartialOrd + fmt::Debug>(
        &mut self,
        what: &'static str,
        figure: T,
        limit: T,
    ) {
        let (is_met, wanted) = (figure >= limit, format!("at least {limit:?}"));
        self.check(what, format!("{figure:?}"), wanted, is_met);
    }

    /// A figure to read.
    pub fn note(&mut self, what: &'static str, figure: impl fmt::Debug) {
        self.check(what, format!("{figure:?}"), String::new(), true);
    }

    /// Whether all is as it has to be.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.checks.iter().all(|check| check.is_met)
    }

    /// Asserts that all is as it has to be.
    ///
    /// # Panics
    /// If it isn't, with all the figures.
    #[track_caller]
    pub fn assert_met(&self) {
        assert!(self.is_met(), "\n{self}");
    }

    fn check(&mut self, what: &'static str, figure: String, wanted: String, is_met: bool) {
        self.checks.push(Check { what, figure, wanted, is_met });
    }
}

/// Runs these side by side, and asserts that all of them are met.
///
/// # Panics
/// If one isn't, with all of its figures.
#[track_caller]
pub fn assert_all_met(runs: Vec<Box<dyn Fn() -> Bar + Send>>) {
    let missed: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = runs.into_iter().map(|run| scope.spawn(run)).collect();
        let bars = threads.into_iter().map(|thread| thread.join().expect("a scenario ends well"));
        bars.filter(|bar| !bar.is_met()).map(|bar| bar.to_string()).collect()
    });
    assert!(missed.is_empty(), "\n{}", missed.join("\n"));
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", if self.is_met() { "PASS" } else { "FAIL" }, self.name)?;
        for Check { what, figure, wanted, is_met } in &self.checks {
            let mark = if *is_met { ' ' } else { '!' };
            write!(f, "   {mark} {what}: {figure}")?;
            match wanted.is_empty() {
                true => writeln!(f)?,
                false => writeln!(f, " ({wanted})")?,
            }
        }
        Ok(())
    }
}
