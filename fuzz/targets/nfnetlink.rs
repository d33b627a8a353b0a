//! See `src/nfnetlink.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ferrule_fuzz::nfnetlink::check(data));
