//! Hands libFuzzer's inputs to the target `verdict`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ledgerline_fuzz_targets::verdict::run(data));
