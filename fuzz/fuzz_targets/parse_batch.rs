//! Hands libFuzzer's inputs to the target `parse_batch`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ledgerline_fuzz_targets::parse_batch::run(data));
