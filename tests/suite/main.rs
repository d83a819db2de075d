//! Tests of the whole program, in one binary: what the invariants promise, seen from outside.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test may panic"
)]

mod bad_input;
mod commands;
mod curation;
mod deploy;
mod hostile;
mod interop;
mod invariants;
mod layers;
mod memory;
mod nightly;
mod pipelines;
mod privacy;
mod report;
mod resume;
mod study;
mod support;
mod upkeep;
mod watching;
