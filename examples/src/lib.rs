//! What the examples share: a small web service that records its requests ([`router`]), and a
//! DataStorage to send the records to ([`configuration`]).
//!
//! The examples themselves are `gateway.rs` and `threads.rs`:
//! `cargo run -p ledgerline-examples --example gateway`.

mod audited;
mod data_storage;

pub use audited::{audited, router};
pub use data_storage::{DataStorage, configuration};
