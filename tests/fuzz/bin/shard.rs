//! See `targets::shard`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::shard(data));
