//! One run: an engine, a fleet, a load; and what came of it.
//!
//! While it runs, a thread compares what the engine calls delivered with what the ledger holds.
//! Invariant: the engine is asked first, so that a difference is never one of time.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ledgerline::{Accounts, Cause, CloseError, Closed, Config, FlushError, Flushed, Report, Store};
use tracing_subscriber::filter::LevelFilter;

use super::bar::Bar;
use super::fleet::Fleet;
use super::ledger::Books;
use super::load::{Key, Load, Recorded};

/// How much a scenario records, and how often it is sent.
#[derive(Debug, Clone, Copy)]
pub struct Length {
    /// Events per second.
    pub rate: u64,
    /// How long.
    pub duration: Duration,
    /// The engine's flush interval.
    pub flush_interval: Duration,
    /// How long the close may take.
    pub close_deadline: Duration,
}

impl Length {
    /// 1,000 events/s for so many seconds, and the engine's defaults.
    #[must_use]
    pub fn full(seconds: u64) -> Self {
        let (flush_interval, close_deadline) = (Duration::from_secs(1), Duration::from_secs(60));
        Self { rate: RATE, duration: Duration::from_secs(seconds), flush_interval, close_deadline }
    }

    /// The same for tests, with ten times as many requests.
    #[must_use]
    pub fn short(seconds: u64) -> Self {
        let (flush_interval, close_deadline) = (Duration::from_millis(100), crate::WAIT);
        Self { flush_interval, close_deadline, ..Self::full(seconds) }
    }

    /// This with another rate.
    #[must_use]
    pub fn at(self, rate: u64) -> Self {
        Self { rate, ..self }
    }

    /// Its load.
    #[must_use]
    pub fn load(&self) -> Load {
        Load::paced(self.rate, self.duration)
    }
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The engine's configuration; [`new`](Self::new) gives it the defaults.
    pub config: Config,
    /// What is recorded.
    pub load: Load,
    /// How long a flush between the last event and the close may take. None: there is none.
    pub flush_deadline: Option<Duration>,
    /// How long the close may take.
    pub close_deadline: Duration,
}

/// What came of it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Measured {
    /// The load, as it was recorded.
    pub recorded: Recorded,
    /// The fleet's books after the close.
    pub books: Books,
    /// The same when the last event had been recorded.
    pub books_at_end_of_load: Books,
    /// What the flush said, and how long it took.
    pub flushed: Option<(Result<Flushed, FlushError>, Duration)>,
    /// What the close said.
    pub closed: Result<Closed, CloseError>,
    /// How long it took.
    pub close_took: Duration,
    /// When it ended, since the fleet's start.
    pub ended_at: Duration,
    /// The engine's accounts after the close.
    pub accounts: Accounts,
    /// Its last report.
    pub report: Option<Report>,
    /// By how many events it said that more were delivered than were stored, at most.
    pub delivered_beyond_ledger: u64,
}

/// How late events were stored, from their record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lateness {
    /// Events that were looked at.
    pub events: u64,
    /// Of these, those that were never stored.
    pub unstored: u64,
    /// Of these, those that were stored later than the limit.
    pub late: u64,
    /// The longest time.
    pub max: Duration,
}

impl Trial {
    /// A run of this load with the engine's defaults.
    #[must_use]
    pub fn new(fleet: &Fleet, load: Load) -> Self {
        let config = Config::new(fleet.url());
        Self { config, load, flush_deadline: None, close_deadline: crate::WAIT }
    }

    /// A run of that length, with whatever else the engine has as defaults.
    #[must_use]
    pub fn of(fleet: &Fleet, length: Length) -> Self {
        let mut trial = Self::new(fleet, length.load());
        trial.config.flush_interval = length.flush_interval;
        trial.close_deadline = length.close_deadline;
        trial
    }

    /// Runs it.
    ///
    /// # Panics
    /// If the configuration is invalid, or a client sends what none should.
    #[must_use]
    pub fn run(self, fleet: &Fleet) -> Measured {
        let Self { config, load, flush_deadline, close_deadline } = self;
        listen();
        let store = Store::start(config).expect("a valid configuration");
        let ledger = fleet.ledger();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let watch = scope.spawn(|| watch(&store, fleet, &is_over));
            let recorded = Recorded::of(&load, &store, ledger);
            let books_at_end_of_load = ledger.books();
            let flushed = flush_deadline.map(|deadline| {
                let flush_began_at = Instant::now();
                (store.flush(deadline), flush_began_at.elapsed())
            });
            let close_began_at = Instant::now();
            let closed = store.close(close_deadline);
            let close_took = close_began_at.elapsed();
            is_over.store(true, Ordering::Relaxed);
            let delivered_beyond_ledger = watch.join().expect("it only compares");
            let (books, ended_at, accounts) = (ledger.books(), ledger.now(), store.accounts());
            assert!(books.faults.is_empty(), "{:?}", books.faults);
            let report = store.report(REPORT_DEADLINE);
            Measured {
                recorded,
                books,
                books_at_end_of_load,
                flushed,
                closed,
                close_took,
                ended_at,
                accounts,
                report,
                delivered_beyond_ledger,
            }
        })
    }
}

/// Takes the process's log, unless somebody has it: lost events would go to stderr.
fn listen() {
    let quiet = tracing_subscriber::fmt().with_max_level(LevelFilter::WARN);
    quiet.with_writer(io::sink).try_init().ok();
}

/// By how many events at most there were more delivered than stored.
fn watch(store: &Store, fleet: &Fleet, is_over: &AtomicBool) -> u64 {
    let mut beyond = 0;
    loop {
        let is_last = is_over.load(Ordering::Relaxed);
        let delivered = store.accounts().delivered;
        beyond = beyond.max(delivered.saturating_sub(fleet.ledger().stored()));
        if is_last {
            return beyond;
        }
        thread::sleep(WATCH_INTERVAL);
    }
}

impl Measured {
    /// How late the events that pass were stored: a moment before `not_before` counts as that.
    #[must_use]
    pub fn lateness(
        &self,
        limit: Duration,
        not_before: Duration,
        is_wanted: impl Fn(Key) -> bool,
    ) -> Lateness {
        let mut lateness = Lateness::default();
        for &(key, at) in self.recorded.events.iter().filter(|(key, _)| is_wanted(*key)) {
            lateness.events += 1;
            match self.books.entry(key).stored_at {
                None => lateness.unstored += 1,
                Some(stored_at) => {
                    let took = stored_at.saturating_sub(at.max(not_before));
                    lateness.max = lateness.max.max(took);
                    lateness.late += u64::from(took > limit);
                }
            }
        }
        lateness
    }

    /// How many events that pass were stored.
    #[must_use]
    pub fn stored(&self, is_wanted: impl Fn(Key) -> bool) -> u64 {
        self.count(|books, key| is_wanted(key) && books.entry(key).rows > 0)
    }

    /// How many events that pass were recorded and not stored.
    #[must_use]
    pub fn unstored(&self, is_wanted: impl Fn(Key) -> bool) -> u64 {
        self.count(|books, key| is_wanted(key) && books.entry(key).rows == 0)
    }

    fn count(&self, is_counted: impl Fn(&Books, Key) -> bool) -> u64 {
        let events = self.recorded.events.iter();
        events.filter(|(key, _)| is_counted(&self.books, *key)).count() as u64
    }

    /// Time blocked by that cause.
    #[must_use]
    pub fn blocked_ms(&self, cause: Cause) -> u64 {
        self.report.as_ref().map_or(0, |report| report.blocked_ms.of(cause))
    }

    /// What holds in every run: balanced accounts, and no event delivered that isn't stored.
    pub fn check_truth(&self, bar: &mut Bar) {
        let events = self.recorded.events.len() as u64;
        bar.equal("accepted", self.accounts.accepted, events);
        bar.equal("accounts are balanced", self.accounts.is_balanced(), true);
        bar.equal("delivered, not in the ledger", self.delivered_beyond_ledger, 0);
        let unstored = self.unstored(|_| true);
        let Accounts { dead_lettered, pending, dropped, .. } = self.accounts;
        let confessed = dead_lettered + pending + dropped.total();
        bar.at_most("not in the ledger, confessed or not", unstored, confessed);
        let stored_twice = self.books.stored_twice();
        let known = self.accounts.possibly_duplicated;
        bar.at_least("possibly_duplicated, for events stored twice", known, stored_twice);
        bar.note("requests", self.books.requests);
        bar.note("answers by status", &self.books.answers);
        bar.note("connections", self.books.connections);
        bar.note("blocked_ms", self.report.as_ref().map(|report| report.blocked_ms));
    }

    /// That all of it was delivered, and the close said so.
    pub fn check_all_delivered(&self, bar: &mut Bar) {
        bar.equal("close", self.closed.as_ref().err().map(ToString::to_string), None);
        let (delivered, accepted) = (self.accounts.delivered, self.accounts.accepted);
        bar.equal("delivered", delivered, accepted);
        bar.equal("recorded and not stored", self.unstored(|_| true), 0);
    }

    /// That events which pass were stored within the limit of their record.
    pub fn check_lateness(
        &self,
        bar: &mut Bar,
        limit: Duration,
        not_before: Duration,
        is_wanted: impl Fn(Key) -> bool,
    ) {
        let lateness = self.lateness(limit, not_before, is_wanted);
        bar.equal("never stored", lateness.unstored, 0);
        bar.equal("stored too late", lateness.late, 0);
        bar.at_most("longest time from record to storage", lateness.max, limit);
    }
}

const RATE: u64 = 1_000;
const REPORT_DEADLINE: Duration = Duration::from_secs(2);
const WATCH_INTERVAL: Duration = Duration::from_millis(20);
