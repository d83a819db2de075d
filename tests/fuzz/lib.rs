//! Torcula's parsers, from the files of `src/`, for the fuzzers.
#![expect(dead_code, reason = "only what a target reaches is used here")]

extern crate self as torcula;

#[path = "../../src/error.rs"]
pub mod error;
#[path = "../../src/formats/mod.rs"]
pub mod formats;
#[path = "../../src/volume.rs"]
pub mod volume;

pub mod engine {
    //! Hints for misspelt words, left out.
    pub mod parameters {
        /// No word is near.
        pub fn nearest<'a>(_: &str, _: &[&'a str]) -> Option<&'a str> {
            None
        }
        /// No hint.
        pub fn suggest(_: &str, _: &[&str]) -> String {
            String::new()
        }
    }
}

pub mod pipeline;
pub mod targets;
