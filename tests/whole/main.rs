//! The whole engine against scripted servers and ours, one module for each promise, in one process:
//! every binary costs a link. What takes the log, the environment or the machine for itself has a
//! file of its own beside this directory.

mod batching;
mod bounds;
mod causes;
mod concurrency;
mod delivery;
mod double;
mod encrypted;
mod expiry;
mod faults;
mod fields;
mod hosts;
mod isolation;
mod kubernetes;
mod monitoring;
mod network;
mod overflow;
mod readiness;
mod receipts;
mod recording;
mod redelivery;
mod requests;
mod schedules;
mod security;
mod tidy;
mod traces;
mod waiting;
