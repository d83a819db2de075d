//! Studies: synthetic registries to try everything on, and the statistics of their tables.

pub mod statistics;
pub mod synth;
