//! The `ledgerline` command.
fn main() {}
