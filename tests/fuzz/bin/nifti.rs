//! See `targets::nifti`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::nifti(data));
