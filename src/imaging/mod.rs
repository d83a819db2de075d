//! Pure kernels on volumes: no files, no catalog, no threads but where the result cannot depend on them.

pub mod augment;
pub mod components;
pub mod distance;
mod elementary;
pub mod gaussian;
pub mod histogram;
pub mod metrics;
pub mod morphology;
pub mod n4;
pub mod normalize;
pub mod otsu;
pub mod phantom;
pub mod quality;
pub mod random;
pub mod resample;
