//! See `src/prev_result.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferrule_fuzz::prev_result::check(data));
