//! Several servers behind one address: what one does wrong costs the events of the others nothing.

use std::time::Duration;

use ledgerline_testkit::bars::fleets::{Bad, Old, bad_backend, mixed};
use ledgerline_testkit::bars::{Balance, Bar, Length, assert_all_met};

type Runs = Vec<Box<dyn Fn() -> Bar + Send>>;

fn of_old_and_new(balance: Balance) {
    // So many requests that one of them is less than a hundredth.
    let length = Length { flush_interval: Duration::from_millis(20), ..Length::short(4) };
    let runs = [Old::OtherIds, Old::NoIds].map(|old| -> Box<dyn Fn() -> Bar + Send> {
        Box::new(move || mixed(balance, old, length))
    });
    assert_all_met(runs.into());
}

#[test]
fn old_and_new_servers_per_connection() {
    of_old_and_new(Balance::PerConnection);
}

#[test]
fn old_and_new_servers_per_request() {
    of_old_and_new(Balance::PerRequest);
}

fn one_of_three_is(bads: &[Bad], balance: Balance) {
    let mut runs: Runs = Vec::new();
    for &bad in bads {
        for since in [Duration::ZERO, Duration::from_secs(1)] {
            let length = Length::short(3).at(500);
            runs.push(Box::new(move || bad_backend(balance, bad, since, length)));
        }
    }
    assert_all_met(runs);
}

#[test]
fn one_of_three_answers_badly() {
    one_of_three_is(&[503, 500, 429, 404, 401].map(Bad::Status), Balance::PerConnection);
}

#[test]
fn one_of_three_answers_badly_by_chance() {
    one_of_three_is(&[503, 500, 429, 404, 401].map(Bad::Status), Balance::ByChance(4));
}

#[test]
fn one_of_three_resets() {
    one_of_three_is(&[Bad::Resets], Balance::PerConnection);
    one_of_three_is(&[Bad::Resets], Balance::ByChance(4));
}
