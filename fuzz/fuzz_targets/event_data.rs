//! Hands libFuzzer's inputs to the target `event_data`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ledgerline_fuzz_targets::event_data::run(data));
