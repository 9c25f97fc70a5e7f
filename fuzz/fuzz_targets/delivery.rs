//! Hands libFuzzer's inputs to the target `delivery`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ledgerline_fuzz_targets::delivery::run(data));
