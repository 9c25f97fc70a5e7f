//! What the examples share: a small web service that records what it does ([`router`]), and a
//! DataStorage to send the events to ([`configuration`]).
//!
//! The examples themselves are `gateway.rs`, `requests.rs` and `threads.rs`:
//! `cargo run -p ledgerline-examples --example gateway`.

mod data_storage;
mod gateway;

pub use data_storage::{DataStorage, configuration};
pub use gateway::{audit, router};
