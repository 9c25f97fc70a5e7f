//! Answers that contradict themselves, name the wrong event, or come too late.

use std::time::Duration;

use ledgerline::Cause;

use super::{
    Answer, Backend, Balance, Bar, Content, End, Fleet, Key, Length, Load, Storing, Trial,
};

/// A success that is none, or may be none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strange {
    /// 201 with no ids in its list.
    EmptyIds,
    /// 201 with the ids of half of the events.
    HalfOfIds,
    /// 201 whose content is cut off.
    Cut,
    /// 201 that isn't JSON.
    Text,
    /// 202 that names another count.
    OtherCount,
    /// 201 without having read the request, and a reset.
    Hasty,
    /// Any other success.
    Status(u16),
}

impl Strange {
    fn answer(self, storing: Storing, events: usize) -> Answer {
        let stored = Answer { storing, ..Answer::stored() };
        match self {
            Self::EmptyIds => stored.with_content(Content::Text(r#"{"event_ids":[]}"#.to_owned())),
            Self::HalfOfIds => stored.with_content(Content::HalfOfIds),
            Self::Cut => Answer { end: End::Cut(20), ..stored },
            Self::OtherCount => {
                let content = format!(r#"{{"message":"queued","count":{}}}"#, events + 1);
                Answer { status: 202, ..stored }.with_content(Content::Text(content))
            }
            Self::Text | Self::Hasty => Answer { storing, ..Answer::status(201) },
            Self::Status(status) => Answer { storing, ..Answer::status(status) },
        }
    }
}

/// A server that answers so for a while, having stored the events or not, and is well then:
/// everything is stored, what may be stored twice is counted, and meanwhile nothing is called
/// delivered that isn't stored.
#[must_use]
pub fn strange_success(
    strange: Strange,
    is_stored: bool,
    strange_for: Duration,
    length: Length,
) -> Bar {
    let storing = if is_stored { Storing::NewIds } else { Storing::Nothing };
    let backend = Backend::new(move |batch| match batch.at < strange_for {
        true => strange.answer(storing, batch.items.len()),
        false => Answer::stored(),
    });
    let hasty_for = if strange == Strange::Hasty { strange_for } else { Duration::ZERO };
    let backend = backend.hasty_until(hasty_for);
    let fleet = Fleet::start(Balance::PerConnection, vec![backend]);
    let measured = Trial::of(&fleet, length).run(&fleet);

    let is_stored = if is_stored { "stored" } else { "not stored" };
    let mut bar = Bar::new(format!("{strange:?} for {strange_for:?}, {is_stored}"));
    measured.check_truth(&mut bar);
    measured.check_all_delivered(&mut bar);
    bar.note("close took", measured.close_took);
    bar
}

/// A server that answers so for ever: nothing is delivered, and what it stored is known to be
/// possibly stored.
#[must_use]
pub fn strange_for_ever(strange: Strange, is_stored: bool, length: Length) -> Bar {
    let storing = if is_stored { Storing::OwnIds } else { Storing::Nothing };
    let backend = Backend::new(move |batch| strange.answer(storing, batch.items.len()));
    let hasty_for = if strange == Strange::Hasty { Duration::MAX } else { Duration::ZERO };
    let fleet = Fleet::start(Balance::PerConnection, vec![backend.hasty_until(hasty_for)]);
    let mut trial = Trial::of(&fleet, length);
    trial.close_deadline = Duration::from_secs(1);
    let measured = trial.run(&fleet);

    let is_stored = if is_stored { "stored" } else { "not stored" };
    let mut bar = Bar::new(format!("{strange:?} for ever, {is_stored}"));
    measured.check_truth(&mut bar);
    bar.equal("delivered", measured.accounts.delivered, 0);
    let possibly_stored = measured.accounts.possibly_stored;
    bar.at_least("possibly stored, for those stored", possibly_stored, measured.books.stored);
    bar
}

/// An outage that the server confesses is blocked time, and no lateness.
#[must_use]
pub fn outage(outage: Duration, length: Length) -> Bar {
    let begins_at = Duration::from_secs(1);
    let fleet =
        Fleet::of_one(move |batch| match batch.at < begins_at || batch.at > begins_at + outage {
            true => Answer::stored().after(THINKING),
            false => Answer::problem(503, "unavailable"),
        });
    let measured = Trial::of(&fleet, length).run(&fleet);

    let mut bar = Bar::new(format!("503 for {outage:?}"));
    measured.check_truth(&mut bar);
    measured.check_all_delivered(&mut bar);
    let outage_ms = outage.as_millis() as u64;
    let blocked_ms = measured.blocked_ms(Cause::Overloaded);
    // It begins when the next batch falls due, and ends with a probe.
    bar.at_least("blocked, overloaded", blocked_ms, outage_ms.saturating_sub(1_500));
    bar.at_most("blocked, overloaded", blocked_ms, outage_ms + 6_000);
    let lateness_ms = measured.report.as_ref().map_or(u64::MAX, |it| it.flush_lateness_ms.max);
    bar.at_most("flush_lateness_ms", lateness_ms, LATENESS_MS_MAX);
    bar
}

/// The place that a refusal names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Index {
    /// The bad event's.
    Right,
    /// The next one's.
    OffByOne,
    /// The first one's.
    AlwaysZero,
    /// None.
    Missing,
    /// None, but a number in the text that looks like one.
    InText,
}

/// One bad event among 500, and a refusal that names this place: it is found in few requests.
#[must_use]
pub fn one_bad(index: Index) -> Bar {
    const BAD: Key = 41 * super::KINDS + 3;
    let fleet = Fleet::of_one(move |batch| {
        let place = batch.items.iter().position(|item| item.key == BAD);
        let Some(place) = place else { return Answer::stored().after(THINKING) };
        let answer = match index {
            Index::Right => Answer::problem_at(400, place),
            Index::OffByOne => Answer::problem_at(400, place + 1),
            Index::AlwaysZero => Answer::problem_at(400, 0),
            Index::Missing => Answer::problem(400, "validation-error"),
            Index::InText => {
                let text = r#"{"type":"x/validation-error","detail":"limit 3 at line 7"}"#;
                Answer::problem(400, "").with_content(Content::Text(text.to_owned()))
            }
        };
        answer.after(THINKING)
    });
    let measured = Trial::new(&fleet, Load::burst(500)).run(&fleet);

    let mut bar = Bar::new(format!("one bad event of 500, index: {index:?}"));
    measured.check_truth(&mut bar);
    bar.equal("dead letters", measured.accounts.dead_lettered, 1);
    bar.equal("stored", measured.books.stored, 499);
    bar.equal("stored twice", measured.books.stored_twice(), 0);
    let requests_max = if index == Index::Right { 4 } else { REQUESTS_MAX };
    bar.at_most("requests", measured.books.requests, requests_max);
    bar.at_most("all settled", measured.ended_at, Duration::from_secs(4));
    bar
}

/// What something on the way does to a request with a certain event in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poison {
    /// 403 with HTML, as a web application firewall answers.
    Forbidden,
    /// 500.
    ServerError,
    /// A reset.
    Reset,
}

/// Three events that nothing passes on: their neighbours are delivered, they are named at the end.
#[must_use]
pub fn poison(poison: Poison, length: Length) -> Bar {
    const POISON: [Key; 3] = [33 * super::KINDS, 34 * super::KINDS + 2, 60 * super::KINDS + 5];
    let fleet = Fleet::of_one(move |batch| {
        match (batch.items.iter().any(|item| POISON.contains(&item.key)), poison) {
            (false, _) => Answer::stored().after(THINKING),
            (true, Poison::Forbidden) => {
                Answer { content_type: "text/html".to_owned(), ..Answer::status(403) }
                    .with_content(Content::Text("<h1>Forbidden</h1>".to_owned()))
            }
            (true, Poison::ServerError) => Answer::problem(500, "internal-error"),
            (true, Poison::Reset) => Answer::reset(),
        }
    });
    let mut trial = Trial::of(&fleet, length);
    trial.close_deadline = Duration::from_secs(20);
    let measured = trial.run(&fleet);

    let mut bar = Bar::new(format!("three events of {poison:?}"));
    measured.check_truth(&mut bar);
    let is_good = |key: Key| !POISON.contains(&key);
    bar.equal("neighbours that were never stored", measured.unstored(is_good), 0);
    bar.equal("neighbours stored twice", measured.books.stored_twice(), 0);
    let lost = measured.accounts.dropped.total() + measured.accounts.dead_lettered;
    bar.equal("dropped or dead letters", lost, POISON.len() as u64);
    bar.equal("the close says so", measured.closed.is_err(), true);
    let lateness = measured.lateness(NEIGHBOURS_WITHIN, Duration::ZERO, is_good);
    bar.at_most("longest time from record to storage", lateness.max, NEIGHBOURS_WITHIN);
    bar.note("close took", measured.close_took);
    bar
}

/// A server that stores so many events per second from then on, while more are recorded: answers
/// take longer, but no request is given up while the server works on it.
#[must_use]
pub fn slower(stored_per_second: u32, since: Duration, length: Length) -> Bar {
    let rate = f64::from(stored_per_second);
    let capacity = move |at: Duration| if at < since { FAST } else { rate };
    let name = format!("{stored_per_second}/s stored after {since:?} of {}/s", length.rate);
    overtaxed(name, capacity, since, length)
}

/// A server that stores 3,000 events per second at first, and half as many after each `half_life`,
/// down to so many.
#[must_use]
pub fn fading(half_life: Duration, stored_per_second_min: u32, length: Length) -> Bar {
    let least = f64::from(stored_per_second_min);
    let capacity = move |at: Duration| {
        let halvings = at.as_secs_f64() / half_life.as_secs_f64();
        (3_000.0 * 0.5_f64.powf(halvings)).max(least)
    };
    let name = format!("fading to {stored_per_second_min}/s, half of it every {half_life:?}");
    overtaxed(name, capacity, Duration::ZERO, length)
}

fn overtaxed(
    name: String,
    capacity: impl Fn(Duration) -> f64 + Clone + Send + 'static,
    since: Duration,
    length: Length,
) -> Bar {
    let mut busy_until = Duration::ZERO;
    let per_second = capacity.clone();
    let fleet = Fleet::of_one(move |batch| {
        busy_until = busy_until.max(batch.at);
        // In small steps, because what it can do changes while it works.
        for _ in batch.items {
            busy_until += Duration::from_secs_f64(1.0 / per_second(busy_until));
        }
        Answer::stored().after(busy_until - batch.at)
    });
    let mut trial = Trial::of(&fleet, length);
    trial.close_deadline = Duration::from_secs(1);
    let measured = trial.run(&fleet);

    let mut bar = Bar::new(name);
    measured.check_truth(&mut bar);
    let books = &measured.books_at_end_of_load;
    bar.equal("sent twice", books.sent_twice(), 0);
    bar.equal("requests given up", books.requests_cut, 0);
    bar.equal("possibly duplicated", measured.accounts.possibly_duplicated, 0);
    let longest_ms = measured.report.as_ref().map_or(0, |report| report.write_ms.max);
    bar.note("longest answered request, ms", longest_ms);
    let seconds = since.as_secs()..length.duration.as_secs();
    let possible: f64 = seconds.map(|second| capacity(Duration::from_secs(second))).sum();
    let stored_at = books.entries.iter().filter_map(|entry| entry.stored_at);
    let stored = stored_at.filter(|stored_at| *stored_at >= since).count() as f64;
    bar.at_least("percent of what it could store", (stored / possible * 100.0) as u64, 70);
    bar
}

/// Events per second that no load reaches.
const FAST: f64 = 1e6;
const THINKING: Duration = Duration::from_millis(5);
const LATENESS_MS_MAX: u64 = 1_000;
/// Twice the halvings of 500 events, its types, and a few for chance.
const REQUESTS_MAX: u64 = 28;
const NEIGHBOURS_WITHIN: Duration = Duration::from_secs(20);
