//! Types of events that the server refuses cost other types nothing, and few of their own are lost.

use std::time::Duration;

use ledgerline_testkit::bars::types::{
    Refusing, TooOld, all_for_a_while, all_then_two, half_upgraded, refused, some_bad, too_old,
    two_for_a_while,
};
use ledgerline_testkit::bars::{Balance, Bar, Length, assert_all_met};

type Runs = Vec<Box<dyn Fn() -> Bar + Send>>;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn are_refused(refusing: Refusing) {
    let run = move |thinking| refused(refusing, thinking, Length::short(3));
    let runs: Runs = vec![Box::new(move || run(5 * MS)), Box::new(move || run(100 * MS))];
    assert_all_met(runs);
}

#[test]
fn two_of_six() {
    are_refused(Refusing::TwoOfSix);
}

#[test]
fn two_of_six_with_their_places() {
    are_refused(Refusing::TwoOfSixNamed);
}

#[test]
fn one_in_a_hundred_events() {
    are_refused(Refusing::OneInAHundred);
}

#[test]
fn two_of_six_by_one_of_two_servers() {
    let runs: Runs = vec![
        Box::new(|| half_upgraded(Balance::PerConnection, Length::short(3))),
        Box::new(|| half_upgraded(Balance::PerRequest, Length::short(3))),
    ];
    assert_all_met(runs);
}

#[test]
fn events_that_are_too_old() {
    let runs: Runs = vec![
        Box::new(|| too_old(TooOld::Reason, Length::short(3))),
        Box::new(|| too_old(TooOld::Words, Length::short(3))),
    ];
    assert_all_met(runs);
}

#[test]
fn some_bad_events_of_each() {
    let runs: Runs = vec![
        Box::new(|| some_bad(100, 5 * MS, Length::short(3))),
        Box::new(|| some_bad(1_000, 100 * MS, Length::short(3))),
    ];
    assert_all_met(runs);
}

#[test]
fn all_and_then_two() {
    all_then_two(SECOND, Length::short(4)).assert_met();
}

#[test]
fn all_for_two_seconds() {
    all_for_a_while(2 * SECOND, Length::short(3)).assert_met();
}

#[test]
fn two_for_two_seconds() {
    two_for_a_while(2 * SECOND, Length::short(3)).assert_met();
}
