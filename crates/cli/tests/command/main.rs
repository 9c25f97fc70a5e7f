//! The real binary, as users and scripts meet it.

#![expect(clippy::unwrap_used, reason = "a test's way to fail")]

mod binary;
mod demo;
mod load;
mod serve;
mod usage;
mod validate;
