//! Hands libFuzzer's inputs to the target `encode`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ledgerline_fuzz_targets::encode::run(data));
