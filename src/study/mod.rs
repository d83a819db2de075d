//! Studies: synthetic registries to try everything on.

pub mod synth;
