//! Garbage: what crashes left, and what nothing needs any more.
//!
//! | kind | what it is |
//! |---|---|
//! | temporary | a file that was being written by a process that is gone |
//! | table file | a data file, a staged commit or a torn one that no version of a table names |
//! | checkpoint | a checkpoint of a table's log that a later one stands for; every version stays readable without it |
//! | unnamed | an artifact that was published by a run that ended before its row was committed |
//! | superseded | an artifact of other parameters or older bytes than those of the last runs, past its retention |
//!
//! Only what has a name as Torcula gives it, in the catalog's folder or the artifacts folder of a pipeline that ran, is ever
//! looked at. What a row names that stays is never touched, nor what a model or a present artifact was made from.

mod superseded;
mod unnamed;

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::Value;

use crate::catalog::{self, Catalog, SessionAt, Table};
use crate::error::Result;
use crate::formats::files;
use crate::pipeline::{Pipeline, Retention};

/// What to keep.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How long superseded artifacts stay, and how many of a case.
    pub retention: Retention,
    /// What was written within this time may belong to a program at work.
    pub grace: Duration,
}

/// Kinds of garbage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Left by a process that is gone.
    Temporary,
    /// No version of a table names it.
    TableFile,
    /// A later checkpoint stands for it.
    Checkpoint,
    /// No row names it.
    Unnamed,
    /// Past its retention.
    Superseded,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Temporary => "temporary",
            Self::TableFile => "table file",
            Self::Checkpoint => "checkpoint",
            Self::Unnamed => "unnamed",
            Self::Superseded => "superseded",
        })
    }
}

/// A file that nothing needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Why.
    pub kind: Kind,
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Garbage {
    /// Files, by kind and name.
    pub items: Vec<Item>,
    /// What people should know.
    pub notes: Vec<String>,
    /// Rows of superseded artifacts.
    rows: Vec<String>,
}

/// What a row of `artifacts` says of its file.
#[derive(Debug, Clone, Deserialize)]
struct Artifact {
    artifact_id: String,
    step: String,
    case_id: Option<String>,
    role: String,
    uri: String,
    fingerprint: String,
    created_at: catalog::Timestamp,
    parents: Vec<String>,
}

/// Looks for garbage. Removes nothing.
///
/// # Errors
/// The catalog or a folder cannot be read. Hold the lock: what a run is writing looks like what a crash left.
pub async fn find(catalog: &Catalog, rules: &Rules) -> Result<Garbage> {
    let mut garbage = Garbage::default();
    for (path, checkpoint) in catalog.unneeded_files(rules.grace)? {
        let kind = if checkpoint { Kind::Checkpoint } else { Kind::TableFile };
        garbage.add(kind, path);
    }
    let ctx = catalog.session(SessionAt::Latest).await?;
    let query = "SELECT artifact_id, step, case_id, role, uri, fingerprint, created_at, parents FROM artifacts";
    let artifacts: Vec<Artifact> = catalog::rows(&catalog::sql(&ctx, query).await?)?;
    let pipelines = pipelines(&ctx).await?;
    let roots: BTreeSet<PathBuf> =
        pipelines.iter().filter_map(|p| p.artifacts()?.canonicalize().ok()).collect();
    superseded::find(catalog, rules, &artifacts, &pipelines, &roots, &mut garbage).await?;
    let mut known = unnamed::Known::new(&artifacts, &pipelines);
    known.cases(&ctx).await?;
    for root in &roots {
        unnamed::find(root, rules.grace, &known, &mut garbage)?;
    }
    garbage.items.sort_by(|a, b| (a.kind, &a.path).cmp(&(b.kind, &b.path)));
    garbage.items.dedup();
    Ok(garbage)
}

/// Removes what was found: rows first, so that no row names a file that is gone. Returns how many files and bytes.
///
/// # Errors
/// The catalog cannot be written, or a file cannot be removed; the next time goes on from there.
pub async fn remove(catalog: &Catalog, garbage: &Garbage) -> Result<(usize, u64)> {
    catalog.delete_rows(Table::Artifacts, &garbage.rows).await?;
    let mut bytes = 0;
    for item in &garbage.items {
        match fs::remove_file(&item.path) {
            Ok(()) => bytes += item.bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(files::io_error(&item.path, "cannot be removed", &e)),
        }
        if matches!(item.kind, Kind::Superseded | Kind::Unnamed)
            && let Some(folder) = item.path.parent()
        {
            // Goes where it was the last; a folder that holds something stays.
            let _ = fs::remove_dir(folder);
        }
    }
    Ok((garbage.items.len(), bytes))
}

impl Garbage {
    fn add(&mut self, kind: Kind, path: PathBuf) {
        let bytes = fs::metadata(&path).map_or(0, |found| found.len());
        self.items.push(Item { kind, path, bytes });
    }
}

/// A pipeline that ran.
struct Ran {
    /// As it was resolved.
    resolved: Value,
    text: String,
}

impl Ran {
    fn artifacts(&self) -> Option<&Path> {
        self.resolved["artifacts"].as_str().map(Path::new)
    }

    fn steps(&self) -> impl Iterator<Item = &str> {
        self.resolved["steps"]
            .as_object()
            .into_iter()
            .flat_map(|steps| steps.keys().map(String::as_str))
    }

    /// The pipeline, where this version of Torcula still reads it.
    fn pipeline(&self) -> Option<Pipeline> {
        crate::pipeline::load_text("a pipeline that ran", &self.text, &[]).ok()
    }
}

/// The pipelines whose artifacts are the present ones: of each name the last that ran, and the last that ran to its end.
/// Those of earlier runs say where artifacts may lie.
async fn pipelines(ctx: &datafusion::prelude::SessionContext) -> Result<Vec<Ran>> {
    #[derive(Deserialize)]
    struct Row {
        resolved: String,
    }
    let query = "SELECT resolved FROM (SELECT resolved, \
         row_number() OVER (PARTITION BY pipeline ORDER BY started_at DESC) AS last, \
         row_number() OVER (PARTITION BY pipeline, status ORDER BY started_at DESC) AS of_status, status FROM runs) \
         WHERE last = 1 OR (of_status = 1 AND status = 'done')";
    let rows: Vec<Row> = catalog::rows(&catalog::sql(ctx, query).await?)?;
    let texts: HashSet<String> = rows.into_iter().map(|row| row.resolved).collect();
    Ok(texts
        .into_iter()
        .filter_map(|text| Some(Ran { resolved: serde_json::from_str(&text).ok()?, text }))
        .collect())
}

/// Whether a file was last written longer ago than that. A clock that went back says no.
fn older(path: &Path, than: Duration) -> bool {
    let modified = fs::metadata(path).and_then(|found| found.modified());
    modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age >= than))
}
