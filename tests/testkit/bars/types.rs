//! Servers that refuse some types of events, or some events of each.

use std::time::Duration;

use super::{
    Answer, Backend, Balance, Bar, Batch, Content, Fleet, KINDS, Key, Length, Load, Measured, RARE,
    SIX, Trial, is_bad, kind_of,
};

/// Which types a server refuses, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusing {
    /// Two of six, without a place.
    TwoOfSix,
    /// Two of six, with the place of the first such event.
    TwoOfSixNamed,
    /// Five of six, without a place.
    FiveOfSix,
    /// Two of six for a second and a half, then two others, and so on, without a place.
    ByTurns,
    /// One type, of which one in a hundred events is, without a place.
    OneInAHundred,
}

/// Some types are refused: the others are as punctual as ever, flush and close wait for nothing.
#[must_use]
pub fn refused(refusing: Refusing, thinking: Duration, length: Length) -> Bar {
    let is_refused = move |key: Key, at: Duration| match refusing {
        Refusing::TwoOfSix | Refusing::TwoOfSixNamed => is_of_refused_type(key),
        Refusing::FiveOfSix => kind_of(key) != 0,
        Refusing::ByTurns => kind_of(key) / 2 == at.as_millis() as usize / 1_500 % 3,
        Refusing::OneInAHundred => kind_of(key) == RARE,
    };
    let fleet = Fleet::of_one(move |batch| {
        let place = batch.items.iter().position(|item| is_refused(item.key, batch.at));
        let answer = match (place, refusing) {
            (None, _) => Answer::stored(),
            (Some(place), Refusing::TwoOfSixNamed) => Answer::problem_at(400, place),
            (Some(_), _) => Answer::problem(400, "validation-error"),
        };
        answer.after(thinking)
    });
    let mut trial = Trial::of(&fleet, length);
    trial.load.rare_one_in = (refusing == Refusing::OneInAHundred).then_some(100);
    trial.flush_deadline = Some(length.close_deadline);
    let measured = trial.run(&fleet);

    let mut bar = Bar::new(format!("refused: {refusing:?}, answers in {thinking:?}"));
    measured.check_truth(&mut bar);
    bar.equal("stored twice", measured.books.stored_twice(), 0);
    let types = match refusing {
        Refusing::TwoOfSix | Refusing::TwoOfSixNamed => 2,
        Refusing::FiveOfSix => 5,
        Refusing::ByTurns => 2 * 7, // each time anew
        Refusing::OneInAHundred => 1,
    };
    if refusing == Refusing::FiveOfSix {
        // When no other event comes, nothing is stored: then the server is suspected, and all wait.
        let dead = measured.accounts.dead_lettered;
        bar.at_most("dead letters", dead, types * DEAD_LETTERS_MAX);
    } else {
        check_ends(&mut bar, &measured, types * DEAD_LETTERS_MAX);
    }
    if refusing != Refusing::ByTurns {
        let is_other = |key| !is_refused(key, Duration::ZERO);
        measured.check_lateness(&mut bar, OTHERS_WITHIN, Duration::ZERO, is_other);
    }
    bar
}

/// Flush and close end soon though some events are refused, and few of these are dead letters.
fn check_ends(bar: &mut Bar, measured: &Measured, dead_max: u64) {
    if let Some((flushed, took)) = &measured.flushed {
        bar.equal("the flush says that not all is delivered", flushed.is_err(), true);
        bar.at_most("flush took", *took, CLOSE_WITHIN);
    }
    bar.at_most("close took", measured.close_took, CLOSE_WITHIN);
    bar.at_most("dead letters", measured.accounts.dead_lettered, dead_max);
    let dropped = measured.accounts.dropped;
    bar.equal("dropped, but by the close", dropped.total() - dropped.closed, 0);
}

/// One of two servers behind an address refuses two types that the other takes, as in the middle
/// of an upgrade.
#[must_use]
pub fn half_upgraded(balance: Balance, length: Length) -> Bar {
    let thinking = Duration::from_millis(5);
    let old = Backend::new(move |batch| {
        let is_refused = batch.items.iter().any(|item| is_of_refused_type(item.key));
        let answer = match is_refused {
            true => Answer::problem(400, "validation-error"),
            false => Answer::stored(),
        };
        answer.after(thinking)
    });
    let new = Backend::always(Answer::stored().after(thinking));
    let fleet = Fleet::start(balance, vec![old, new]);
    let measured = Trial::of(&fleet, length).run(&fleet);

    let mut bar = Bar::new(format!("one of two servers refuses two types, {balance:?}"));
    measured.check_truth(&mut bar);
    let is_other = |key| !is_of_refused_type(key);
    measured.check_lateness(&mut bar, OTHERS_WITHIN, Duration::ZERO, is_other);
    bar.equal("stored twice", measured.books.stored_twice(), 0);
    check_ends(&mut bar, &measured, 2 * DEAD_LETTERS_MAX);
    bar.equal("dropped", measured.accounts.dropped.total(), 0);
    bar
}

/// The words of a refusal for age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooOld {
    /// A `reason` and an `index`.
    Reason,
    /// Words only.
    Words,
}

/// Some 400 events that are too old for the server, then fresh ones: the old ones are dead letters
/// soon, and the fresh ones aren't held up.
#[must_use]
pub fn too_old(words: TooOld, length: Length) -> Bar {
    const OLD_STORIES: usize = 67;
    let is_old = |key: Key| key / KINDS < OLD_STORIES;
    let fleet = Fleet::of_one(move |batch| {
        let place = batch.items.iter().position(|item| is_old(item.key));
        let Some(place) = place else { return Answer::stored().after(Duration::from_millis(5)) };
        let kind = "https://kubernaut.ai/problems/validation-error";
        let said = match words {
            TooOld::Reason => format!(r#""reason":"too_old","index":{place}"#),
            TooOld::Words => {
                format!(r#""detail":"event at index {place}: timestamp is too far in the past""#)
            }
        };
        let content = format!(r#"{{"type":"{kind}","title":"no","status":400,{said}}}"#);
        let answer = Answer::problem(400, "").with_content(Content::Text(content));
        answer.after(Duration::from_millis(5))
    });
    let mut trial = Trial::of(&fleet, length);
    trial.load.old_stories = OLD_STORIES;
    let measured = trial.run(&fleet);

    let mut bar = Bar::new(format!("400 events too old for the server, {words:?}"));
    measured.check_truth(&mut bar);
    measured.check_lateness(&mut bar, OTHERS_WITHIN, Duration::ZERO, |key| !is_old(key));
    bar.equal("dead letters", measured.accounts.dead_lettered, measured.unstored(is_old));
    bar.equal("dropped", measured.accounts.dropped.total(), 0);
    bar.equal("stored twice", measured.books.stored_twice(), 0);
    bar.at_most("close took", measured.close_took, CLOSE_WITHIN);
    bar
}

/// Flat out, with two types refused and without: how many of the other four are stored.
#[must_use]
pub fn flat_out(duration: Duration, pairs: usize) -> Bar {
    let thinking = Duration::from_millis(5);
    let mut ratios = Vec::new();
    let mut bar = Bar::new("two types of six refused, flat out, paired");
    let run = |is_refusing: bool, kinds: &'static [usize], bar: &mut Bar| {
        let fleet = refusing(thinking, move |_, key| is_refusing && is_of_refused_type(key));
        let trial = Trial::new(&fleet, Load { kinds, ..Load::flat_out(duration) });
        let measured = trial.run(&fleet);
        let others = |measured: &Measured| {
            let entries = measured.books_at_end_of_load.entries.iter().enumerate();
            let stored = entries.filter(|(_, entry)| entry.rows > 0);
            stored.filter(|(key, _)| !is_of_refused_type(*key)).count()
        };
        let full = measured.recorded.full;
        bar.note(
            "requests, dead letters, refusals for room",
            [measured.books_at_end_of_load.requests, measured.accounts.dead_lettered, full],
        );
        bar.note("blocked_ms", measured.report.as_ref().map(|report| report.blocked_ms));
        bar.note("engine's processor time", measured.report.as_ref().map(|it| it.engine_cpu));
        others(&measured) as f64 / duration.as_secs_f64()
    };
    for _ in 0..pairs {
        let (with, without) = (run(true, &SIX, &mut bar), run(false, &SIX, &mut bar));
        let alone = run(false, &FOUR, &mut bar);
        bar.note(
            "others per second: refused types, all taken, others alone",
            [with as u64, without as u64, alone as u64],
        );
        ratios.push(with / without);
    }
    ratios.sort_by(f64::total_cmp);
    bar.at_least("median ratio to all taken", ratios[pairs / 2], FLAT_OUT_RATIO_MIN);
    bar
}

/// Bad events of every type: each becomes a dead letter, and no type is set apart.
#[must_use]
pub fn some_bad(one_in: u64, thinking: Duration, length: Length) -> Bar {
    let fleet = refusing(thinking, move |_, key| is_bad(key, one_in));
    let measured = Trial::of(&fleet, length).run(&fleet);

    let mut bar = Bar::new(format!("one bad event in {one_in}, answers in {thinking:?}"));
    measured.check_truth(&mut bar);
    let is_good = |key| !is_bad(key, one_in);
    measured.check_lateness(&mut bar, OTHERS_WITHIN, Duration::ZERO, is_good);
    let bad = measured.unstored(|key| is_bad(key, one_in));
    bar.equal("dead letters", measured.accounts.dead_lettered, bad);
    bar.equal("dropped", measured.accounts.dropped.total(), 0);
    bar.equal("stored twice", measured.books.stored_twice(), 0);
    bar.at_most("close took", measured.close_took, CLOSE_WITHIN);
    bar
}

/// Everything is refused at first, then two types: the others come at once.
#[must_use]
pub fn all_then_two(all_for: Duration, length: Length) -> Bar {
    let fleet = refusing(Duration::from_millis(5), move |batch, key| {
        batch.at < all_for || is_of_refused_type(key)
    });
    let measured = Trial::of(&fleet, length).run(&fleet);

    let mut bar = Bar::new(format!("everything refused for {all_for:?}, then two types of six"));
    measured.check_truth(&mut bar);
    let first = measured.books.first_stored_at.unwrap_or_default();
    bar.note("first acceptance", first);
    let is_other = |key| !is_of_refused_type(key);
    let lateness = measured.lateness(OTHERS_WITHIN, first, is_other);
    bar.equal("stored too late", lateness.late, 0);
    bar.at_most("longest time from record or acceptance", lateness.max, OTHERS_WITHIN);
    bar.at_most("others that were never stored", lateness.unstored, DEAD_LETTERS_MAX);
    let of_two_types = 2 * DEAD_LETTERS_MAX;
    bar.at_most("dead letters", measured.accounts.dead_lettered, DEAD_LETTERS_MAX + of_two_types);
    bar.at_most("close took", measured.close_took, CLOSE_WITHIN);
    bar
}

/// Everything is refused at first, then nothing: few are lost, the rest is stored once.
#[must_use]
pub fn all_for_a_while(all_for: Duration, length: Length) -> Bar {
    let fleet = refusing(Duration::from_millis(5), move |batch, _| batch.at < all_for);
    let measured = Trial::of(&fleet, length).run(&fleet);
    let mut bar = Bar::new(format!("everything refused for {all_for:?}, then taken"));
    check_relented(&mut bar, &measured, DEAD_LETTERS_MAX);
    bar
}

/// Two types are refused at first, then taken: few are lost, the rest is stored once.
#[must_use]
pub fn two_for_a_while(two_for: Duration, length: Length) -> Bar {
    let fleet = refusing(Duration::from_millis(5), move |batch, key| {
        batch.at < two_for && is_of_refused_type(key)
    });
    let mut trial = Trial::of(&fleet, length);
    trial.config.buffer_bytes = Some(256 << 20);
    let measured = trial.run(&fleet);
    let mut bar = Bar::new(format!("two types of six refused for {two_for:?}, then taken"));
    check_relented(&mut bar, &measured, 2 * DEAD_LETTERS_MAX);
    let is_other = |key| !is_of_refused_type(key);
    measured.check_lateness(&mut bar, OTHERS_WITHIN, Duration::ZERO, is_other);
    for kind in [REFUSED[0], REFUSED[1]] {
        let unstored = measured.unstored(|key| kind_of(key) == kind);
        bar.at_most("of a refused type, never stored", unstored, DEAD_LETTERS_MAX);
    }
    bar
}

fn check_relented(bar: &mut Bar, measured: &Measured, dead_max: u64) {
    measured.check_truth(bar);
    bar.at_most("dead letters", measured.accounts.dead_lettered, dead_max);
    bar.at_most("never stored", measured.unstored(|_| true), dead_max);
    bar.equal("dropped", measured.accounts.dropped.total(), 0);
    bar.equal("stored twice", measured.books.stored_twice(), 0);
    bar.note("close took", measured.close_took);
}

/// A server that refuses a request for any bad event in it, without saying which.
fn refusing(
    thinking: Duration,
    is_refused: impl Fn(&Batch<'_>, Key) -> bool + Send + 'static,
) -> Fleet {
    Fleet::of_one(move |batch| {
        let is_bad = batch.items.iter().any(|item| is_refused(batch, item.key));
        let answer = match is_bad {
            true => Answer::problem(400, "validation-error"),
            false => Answer::stored(),
        };
        answer.after(thinking)
    })
}

fn is_of_refused_type(key: Key) -> bool {
    REFUSED.contains(&kind_of(key))
}

/// Places of the types that are refused.
const REFUSED: [usize; 2] = [1, 4];
const FOUR: [usize; 4] = [0, 2, 3, 5];
const OTHERS_WITHIN: Duration = Duration::from_secs(4);
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// Of a type, or in all where nothing is stored.
const DEAD_LETTERS_MAX: u64 = 20;
const FLAT_OUT_RATIO_MIN: f64 = 0.8;
