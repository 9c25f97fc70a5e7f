//! The bars at their full length: `scripts/bars` runs this in release mode.
//!
//! Arguments name groups of bars; none, or `all`, runs all of them.
//! `--jobs N` runs N at a time, but for those that need the machine for themselves; `--log FILE`
//! keeps the engines' log. Prints each bar's figures as it ends; the exit status is 1 if one is not
//! met, 2 if an argument fits none.

use std::fs::File;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ledgerline_testkit::bars::answers::{Index, Poison, Strange};
use ledgerline_testkit::bars::fleets::{Bad, Old};
use ledgerline_testkit::bars::types::{Refusing, TooOld};
use ledgerline_testkit::bars::{Balance, Bar, Length, answers, fleets, order, types};

/// One bar that can be run.
struct Entry {
    group: &'static str,
    /// Whether nothing else may run beside it.
    is_alone: bool,
    run: Box<dyn Fn() -> Bar + Send + Sync>,
}

fn entry(group: &'static str, run: impl Fn() -> Bar + Send + Sync + 'static) -> Entry {
    Entry { group, is_alone: false, run: Box::new(run) }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let jobs = option(&mut arguments, "--jobs").map_or(1, |count| count.parse().unwrap_or(1));
    if let Some(path) = option(&mut arguments, "--log") {
        let file = File::create(path).expect("the log's file can be written");
        tracing_subscriber::fmt().with_ansi(false).with_writer(Mutex::new(file)).init();
    }
    let is_wanted = |entry: &Entry| {
        arguments.is_empty() || arguments.iter().any(|it| it == "all" || it == entry.group)
    };
    let (alone, together): (Vec<_>, Vec<_>) =
        all().into_iter().filter(is_wanted).partition(|entry| entry.is_alone);
    if alone.len() + together.len() == 0 {
        let mut groups: Vec<&str> = all().iter().map(|entry| entry.group).collect();
        groups.sort_unstable();
        groups.dedup();
        eprintln!("no such bars: {arguments:?}; there are {}", groups.join(", "));
        return ExitCode::from(2);
    }
    let mut bars = run(&together, jobs);
    bars.extend(run(&alone, 1));
    let missed: Vec<&Bar> = bars.iter().filter(|bar| !bar.is_met()).collect();
    println!("{} of {} bars met", bars.len() - missed.len(), bars.len());
    for bar in &missed {
        println!("missed: {}", bar.name);
    }
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Takes an option with its value out of the arguments.
fn option(arguments: &mut Vec<String>, name: &str) -> Option<String> {
    let place = arguments.iter().position(|argument| argument == name)?;
    arguments.drain(place..arguments.len().min(place + 2)).nth(1)
}

fn run(entries: &[Entry], jobs: usize) -> Vec<Bar> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while let Some(entry) = entries.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let began_at = Instant::now();
                    let bar = (entry.run)();
                    println!("[{}, {:.1} s] {bar}", entry.group, began_at.elapsed().as_secs_f64());
                    done.lock().expect("no one panics with it").push(bar);
                }
            });
        }
    });
    done.into_inner().expect("no one panics with it")
}

fn all() -> Vec<Entry> {
    let mut entries = Vec::new();
    for balance in [Balance::PerConnection, Balance::PerRequest] {
        for old in [Old::OtherIds, Old::NoIds] {
            let run = move || fleets::mixed(balance, old, Length::full(60));
            entries.push(entry("mixed-fleet", run));
        }
    }
    for balance in [Balance::PerConnection, Balance::ByChance(4)] {
        for since in [Duration::ZERO, seconds(10)] {
            for bad in bads() {
                let run = move || fleets::bad_backend(balance, bad, since, Length::full(30));
                entries.push(entry("bad-backend", run));
            }
        }
    }
    let stories = entry("timestamps", || order::stories(60_000, Length::full(60)));
    entries.push(Entry { is_alone: true, ..stories });
    let one = entry("timestamps", || order::one_story(60_000, Length::full(60)));
    entries.push(Entry { is_alone: true, ..one });
    all_types(&mut entries);
    all_answers(&mut entries);
    entries
}

/// What a bad backend may do: what the bars name, and what is like it.
fn bads() -> impl Iterator<Item = Bad> {
    let named = [503, 500, 429, 404, 401].map(Bad::Status);
    let others = [Bad::Resets, Bad::Hangs, Bad::Refuses, Bad::Status(200), Bad::Status(302)];
    named.into_iter().chain(others)
}

fn all_types(entries: &mut Vec<Entry>) {
    for ms in [5, 100] {
        let thinking = Duration::from_millis(ms);
        for refusing in [
            Refusing::TwoOfSix,
            Refusing::TwoOfSixNamed,
            Refusing::FiveOfSix,
            Refusing::ByTurns,
            Refusing::OneInAHundred,
        ] {
            let run = move || types::refused(refusing, thinking, Length::full(10));
            entries.push(entry("refused-types", run));
        }
        let one_in = if ms == 5 { 100 } else { 1_000 };
        let run = move || types::some_bad(one_in, thinking, Length::full(10));
        entries.push(entry("bad-events", run));
    }
    for balance in [Balance::PerConnection, Balance::PerRequest] {
        let run = move || types::half_upgraded(balance, Length::full(10));
        entries.push(entry("half-upgraded", run));
    }
    for words in [TooOld::Reason, TooOld::Words] {
        entries.push(entry("too-old", move || types::too_old(words, Length::full(10))));
    }
    entries.push(entry("refused-all", || types::all_then_two(seconds(5), Length::full(15))));
    entries.push(entry("refused-all", || types::all_for_a_while(seconds(15), Length::full(20))));
    let run = || types::two_for_a_while(seconds(60), Length::full(75));
    entries.push(entry("refused-minute", run));
    let flat_out = entry("flat-out", || types::flat_out(seconds(10), 3));
    entries.push(Entry { is_alone: true, ..flat_out });
}

fn all_answers(entries: &mut Vec<Entry>) {
    for is_stored in [false, true] {
        for strange in [
            Strange::EmptyIds,
            Strange::HalfOfIds,
            Strange::Cut,
            Strange::Text,
            Strange::OtherCount,
            Strange::Status(200),
            Strange::Status(204),
            Strange::Status(207),
        ] {
            let run = move || {
                answers::strange_success(strange, is_stored, seconds(4), Length::full(5).at(200))
            };
            entries.push(entry("strange-success", run));
            let run =
                move || answers::strange_for_ever(strange, is_stored, Length::full(2).at(200));
            entries.push(entry("strange-success", run));
        }
    }
    let run =
        || answers::strange_success(Strange::Hasty, false, seconds(4), Length::full(5).at(200));
    entries.push(entry("hasty", run));
    entries.push(entry("hasty", || {
        answers::strange_for_ever(Strange::Hasty, false, Length::full(2).at(200))
    }));
    entries.push(entry("outage", || answers::outage(seconds(4), Length::full(10))));
    for index in [Index::Right, Index::OffByOne, Index::AlwaysZero, Index::Missing, Index::InText] {
        entries.push(entry("wrong-index", move || answers::one_bad(index)));
    }
    for poison in [Poison::Forbidden, Poison::ServerError, Poison::Reset] {
        entries.push(entry("poison", move || answers::poison(poison, Length::full(20))));
    }
    let slower = |since| answers::slower(660, since, Length::full(30).at(3_000));
    entries.push(entry("slow-server", move || slower(Duration::ZERO)));
    entries.push(entry("slow-server", move || slower(seconds(5))));
    let run = || answers::fading(seconds(8), 66, Length::full(60).at(3_000));
    entries.push(entry("slow-server", run));
}
