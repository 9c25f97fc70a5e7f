//! Servers that refuse some types of events, or some events of each.

use std::time::Duration;

use super::{
    Answer, Bar, Batch, Fleet, Key, Length, Load, Measured, RARE, SIX, Trial, is_bad, kind_of,
};

/// Two of six types are refused, or a rare one: the others are as punctual as ever.
#[must_use]
pub fn refused(is_rare: bool, thinking: Duration, length: Length) -> Bar {
    let fleet = refusing(thinking, move |_, key| is_of_refused_type(key, is_rare));
    let rare_one_in = is_rare.then_some(100);
    let mut trial = Trial::of(&fleet, length);
    trial.load.rare_one_in = rare_one_in;
    let measured = trial.run(&fleet);

    let which = if is_rare { "one type in a hundred events" } else { "two types of six" };
    let mut bar = Bar::new(format!("{which} refused, answers in {thinking:?}"));
    measured.check_truth(&mut bar);
    let is_other = |key| !is_of_refused_type(key, is_rare);
    measured.check_lateness(&mut bar, OTHERS_WITHIN, Duration::ZERO, is_other);
    bar.equal("stored twice", measured.books.stored_twice(), 0);
    bar.at_most("close took", measured.close_took, CLOSE_WITHIN);
    let types = if is_rare { 1 } else { 2 };
    bar.at_most("dead letters", measured.accounts.dead_lettered, types * DEAD_LETTERS_MAX);
    let dropped = measured.accounts.dropped;
    bar.equal("dropped, but by the close", dropped.total() - dropped.closed, 0);
    bar
}

/// Flat out, with two types refused and without: how many of the other four are stored.
#[must_use]
pub fn flat_out(duration: Duration, pairs: usize) -> Bar {
    let thinking = Duration::from_millis(5);
    let mut ratios = Vec::new();
    let mut bar = Bar::new("two types of six refused, flat out, paired");
    let run = |is_refusing: bool, kinds: &'static [usize]| {
        let fleet = refusing(thinking, move |_, key| is_refusing && is_of_refused_type(key, false));
        let trial = Trial::new(&fleet, Load { kinds, ..Load::flat_out(duration) });
        let measured = trial.run(&fleet);
        let others = |measured: &Measured| {
            let entries = measured.books_at_end_of_load.entries.iter().enumerate();
            let stored = entries.filter(|(_, entry)| entry.rows > 0);
            stored.filter(|(key, _)| !is_of_refused_type(*key, false)).count()
        };
        others(&measured) as f64 / duration.as_secs_f64()
    };
    for _ in 0..pairs {
        let (with, without) = (run(true, &SIX), run(false, &SIX));
        let alone = run(false, &FOUR);
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
        batch.at < all_for || is_of_refused_type(key, false)
    });
    let measured = Trial::of(&fleet, length).run(&fleet);

    let mut bar = Bar::new(format!("everything refused for {all_for:?}, then two types of six"));
    measured.check_truth(&mut bar);
    let first = measured.books.first_stored_at.unwrap_or_default();
    bar.note("first acceptance", first);
    let is_other = |key| !is_of_refused_type(key, false);
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
        batch.at < two_for && is_of_refused_type(key, false)
    });
    let mut trial = Trial::of(&fleet, length);
    trial.config.buffer_bytes = Some(256 << 20);
    let measured = trial.run(&fleet);
    let mut bar = Bar::new(format!("two types of six refused for {two_for:?}, then taken"));
    check_relented(&mut bar, &measured, 2 * DEAD_LETTERS_MAX);
    let is_other = |key| !is_of_refused_type(key, false);
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

fn is_of_refused_type(key: Key, is_rare: bool) -> bool {
    match is_rare {
        true => kind_of(key) == RARE,
        false => REFUSED.contains(&kind_of(key)),
    }
}

/// Places of the types that are refused.
const REFUSED: [usize; 2] = [1, 4];
const FOUR: [usize; 4] = [0, 2, 3, 5];
const OTHERS_WITHIN: Duration = Duration::from_secs(4);
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// Of a type, or in all where nothing is stored.
const DEAD_LETTERS_MAX: u64 = 20;
const FLAT_OUT_RATIO_MIN: f64 = 0.8;
