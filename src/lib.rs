//! Torcula runs declared pipelines over a columnar catalog of brain diffusion-weighted MRI cases.
//!
//! The map, from the top down; a module uses only what stands below it:
//!
//! | module | what it is |
//! |---|---|
//! | [`cli`] | the command line: thin commands |
//! | [`run`] | runs a pipeline step by step, each doing only what is left |
//! | [`report`] | tables, figures, HTML; what changed since an earlier night |
//! | [`study`] | synthetic registries, statistics |
//! | [`pipeline`] | the pipeline file: parse, resolve, check, plan |
//! | [`stages`] | one verb on a case per file, and their registry |
//! | [`watch`] | logs, traces, metrics, and how runs stand |
//! | [`engine`] | the `Stage` trait, the one DataFusion operator, budget, journal, training feed |
//! | [`catalog`] | nine Delta Lake tables, SQL, curation, lineage |
//! | [`formats`] | NIfTI, BIDS, manifests, shards: the only module that opens image files; limits of input, privacy |
//! | [`imaging`] | pure kernels on volumes |
//! | [`volume`], [`units`], [`error`] | what everything is made of |
//!
//! The member crate `torcula-training` (`src/training`) implements [`engine::learner`] with libtorch.

pub mod catalog;
pub mod cli;
pub mod engine;
pub mod error;
pub mod formats;
pub mod imaging;
pub mod pipeline;
pub mod report;
pub mod run;
pub mod stages;
pub mod study;
pub mod units;
pub mod volume;
pub mod watch;
