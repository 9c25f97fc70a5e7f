//! Hands libFuzzer's inputs to the target `canary`, which must fail.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ledgerline_fuzz_targets::canary::run(data));
