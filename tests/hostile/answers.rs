//! Answers that contradict themselves are not believed, and what they leave open is counted.

use std::time::Duration;

use ledgerline_testkit::bars::answers::{
    Index, Poison, Strange, one_bad, outage, poison, slower, strange_for_ever, strange_success,
};
use ledgerline_testkit::bars::{Bar, Length, assert_all_met};

type Runs = Vec<Box<dyn Fn() -> Bar + Send>>;

/// These answers, for a second and for ever, with everything stored and with nothing.
fn not_believed(strange: &[Strange], is_stored: &[bool]) {
    let mut runs: Runs = Vec::new();
    for &strange in strange {
        for &is_stored in is_stored {
            let (second, length) = (Duration::from_secs(1), Length::short(2).at(200));
            runs.push(Box::new(move || strange_success(strange, is_stored, second, length)));
            runs.push(Box::new(move || strange_for_ever(strange, is_stored, length)));
        }
    }
    assert_all_met(runs);
}

#[test]
fn a_count_that_contradicts() {
    let strange = [Strange::EmptyIds, Strange::HalfOfIds, Strange::OtherCount];
    not_believed(&strange, &[false, true]);
}

#[test]
fn a_content_that_is_cut_off() {
    not_believed(&[Strange::Cut], &[false, true]);
}

#[test]
fn a_success_of_another_kind() {
    let others = [200, 204, 207].map(Strange::Status);
    not_believed(&[&others[..], &[Strange::Text]].concat(), &[false, true]);
}

#[test]
fn a_success_before_the_request_was_read() {
    not_believed(&[Strange::Hasty], &[false]);
}

#[test]
fn an_outage_is_blocked_time_and_no_lateness() {
    outage(Duration::from_secs(2), Length::short(4)).assert_met();
}

#[test]
fn a_wrong_index_costs_few_requests() {
    let indices = [Index::Right, Index::OffByOne, Index::AlwaysZero, Index::Missing, Index::InText];
    let run = |index| -> Box<dyn Fn() -> Bar + Send> { Box::new(move || one_bad(index)) };
    assert_all_met(indices.into_iter().map(run).collect());
}

#[test]
fn events_that_nothing_passes_on_are_held_alone() {
    let run =
        |kind| -> Box<dyn Fn() -> Bar + Send> { Box::new(move || poison(kind, Length::short(4))) };
    let kinds = [Poison::Forbidden, Poison::ServerError, Poison::Reset];
    assert_all_met(kinds.into_iter().map(run).collect());
}

#[test]
fn a_slow_server_is_given_less_to_do() {
    slower(660, Duration::from_secs(1), Length::short(6).at(2_000)).assert_met();
}
