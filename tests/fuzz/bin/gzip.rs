//! See `targets::gzip`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::gzip(data));
