//! Studies: cohorts and splits, synthetic registries to try everything on, and the statistics of their tables.

pub mod cohort;
pub mod split;
pub mod statistics;
pub mod synth;
