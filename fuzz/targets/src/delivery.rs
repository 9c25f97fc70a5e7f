//! Commands and answers to the delivery machine in any order: the accounts are exact, nothing is
//! settled twice or lost, and nothing is said to be stored that isn't.

/// Runs one input.
///
/// # Panics
/// If a promise is broken.
pub fn run(data: &[u8]) {
    ledgerline::fuzzing::delivery(data);
}
