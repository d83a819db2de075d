//! See `targets::parquet`.
#![no_main]

use std::sync::Once;

/// libFuzzer stops at every panic. The Parquet decoder panics over some files; that is caught, and what is not ends the program
/// all the same.
static CAUGHT: Once = Once::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    CAUGHT.call_once(|| std::panic::set_hook(Box::new(|_| ())));
    targets::parquet(data);
});
