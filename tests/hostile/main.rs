//! The bars of `scripts/bars` in short: the engine in front of hostile servers, some seconds each.
//!
//! A process of its own, because each test keeps several engines and fleets busy for a while.

mod answers;
mod fleets;
mod refused_types;
