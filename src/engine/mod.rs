//! The engine: runs stages over cases, in parallel, within a memory budget, and loses nothing.
//!
//! A [`Stage`] is one verb on one case. Consecutive stages are [`Fused`]: a volume is decoded once, goes from stage to
//! stage in memory and is dropped after its last user. [`CaseExec`] is the one DataFusion operator: catalog rows in
//! (URIs, never voxels), outcome rows out. The [`journal`] commits outcomes in batches. Everything that every
//! stage needs (admission, time limits, panics, metrics, randomness, lineage) is done here, so that no stage can forget it.

mod budget;
mod case;
mod exec;
pub mod feed;
mod fused;
pub mod journal;
pub mod learner;
pub mod memory;
mod metrics;
mod outcome;
pub mod parameters;
mod shard_sink;
mod sink;
mod stage;
mod stop;
mod work;
mod workers;

pub use budget::{Budget, Permit};
pub use case::{Case, CaseInput, Slot, on_grid};
pub use exec::CaseExec;
pub use fused::Fused;
pub use metrics::{Metrics, Observer, Silent, StageTime};
pub use outcome::{Outcome, Status};
pub use shard_sink::ShardSink;
pub use sink::{FileSink, RecordSink, Sink};
pub use stage::{Context, Record, Stage};
pub use stop::{CaseStop, Stop};
pub use work::{Lineage, Work};
pub use workers::Workers;
