//! The catalog: a folder of nine Delta Lake tables that says which cases there are, what was made of them, by which
//! run, and what went wrong. pandas, Polars, Spark or `DuckDB` read the same folder.
//!
//! - `schema`: the tables, columns, units and row structs, from one definition.
//! - [`Catalog`]: creating, opening, appending, upserting, compacting. A commit is atomic and synced to the disk;
//!   appends read nothing of the table but the tail of its log, so their cost and memory do not grow with it.
//! - [`Catalog::session`] and [`sql`]: any SQL over the tables, now or at an earlier version.
//! - [`curation`]: corrections by people, applied wherever `cases` is read.
//! - [`lineage`]: from an artifact or a model back to the bytes of the input files.
//! - [`lock`]: one writing run a catalog.
//!
//! Rules: `cases` and `runs` are the only tables whose rows change ([`Catalog::upsert_cases`],
//! [`Catalog::upsert_run`]), and only under the lock. The others grow by appends, from any number of processes.
//! Compaction and upserts keep the files of earlier versions, so every version stays readable.

pub mod curation;
mod delete;
mod durable;
mod errors;
pub mod format;
pub mod lineage;
pub mod lock;
mod rows;
mod schema;
mod session;
mod store;
mod time;
mod torn;
mod travel;
mod udf;
mod upkeep;
mod upsert;
mod write;

pub use format::Format;
pub use lineage::{LineageTree, trace};
pub use rows::{json_rows, rows, slices};
pub use schema::{
    ArtifactRow, CaseRow, Column, CurationRow, EditAction, FailureRow, Kind, Lineage, ModelRow,
    QualityRow, Role, RunRow, RunStatus, ScoreRow, SplitRow, Table, TableRow, Verdict, schema_file,
    schema_json,
};
pub use session::{SessionAt, plan, sql};
pub use store::Catalog;
pub use time::Timestamp;
pub use travel::{AT, rewrite as with_versions};
pub use udf::fingerprint;

#[cfg(test)]
mod tests;
