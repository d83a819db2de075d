//! See `targets::gzip`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| torcula::targets::gzip(data));
