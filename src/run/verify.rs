//! Whether the files that the catalog names are there, with the bytes that were written, and what to do where they are not.

use std::fmt;
use std::io::ErrorKind;

use futures::StreamExt;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::catalog::{self, Catalog, SessionAt, Table};
use crate::error::{Error, Result};
use crate::formats::files;

use super::relations;

/// Addresses in one query.
const CHUNK: usize = 500;

/// Why a file is not what its row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// There is no such file.
    Missing,
    /// It has fewer bytes.
    Half,
    /// It has other bytes.
    Changed,
    /// It cannot be read.
    Unreadable,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Missing => "missing",
            Self::Half => "half",
            Self::Changed => "changed",
            Self::Unreadable => "unreadable",
        })
    }
}

/// What a damaged file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A file that a stage wrote.
    Artifact,
    /// The checkpoint of a model.
    Model,
    /// A part of one of the catalog's tables, which cannot be made again.
    Table,
}

/// A file that is not what its row says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damaged {
    /// What is wrong.
    pub damage: Damage,
    /// The file.
    pub uri: String,
    /// What it is.
    pub kind: Kind,
    /// The step that wrote it and the case, or the table.
    pub of: String,
    /// What was found where.
    pub found: String,
}

/// What was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Files that were looked at.
    pub files: u64,
    /// Bytes that were hashed.
    pub bytes: u64,
    /// Those that are not what they should be.
    pub damaged: Vec<Damaged>,
}

#[derive(Debug, Deserialize)]
struct Named {
    kind: String,
    uri: String,
    bytes: u64,
    blake3: String,
    of: String,
}

/// Hashes every file that the newest version of the catalog names, on `jobs` threads, and looks at the tables' own files.
///
/// Memory does not grow with the files: rows are read in batches, a file in blocks.
///
/// # Errors
/// The catalog cannot be read. A damaged artifact is no error.
pub async fn verify(catalog: &Catalog, jobs: usize) -> Result<Verified> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(jobs)
        .build()
        .map_err(|e| Error::resource(format!("no threads to hash with: {e}")))?;
    let ctx = catalog.session(SessionAt::Latest).await?;
    let query = "SELECT 'artifacts' AS kind, uri, bytes, blake3, concat(min(step), \
         CASE WHEN min(role) IN ('shard', 'sample') THEN '' ELSE concat(' ', min(case_id)) END) AS of \
         FROM artifacts WHERE uri <> '' GROUP BY uri, bytes, blake3 \
         UNION ALL SELECT 'models', uri, bytes, blake3, name FROM models";
    let mut stream =
        catalog::plan(&ctx, query).await?.execute_stream().await.map_err(relations::planning)?;
    let mut verified = Verified::default();
    while let Some(batch) = stream.next().await {
        let batch = batch.map_err(relations::planning)?;
        let rows: Vec<Named> = catalog::rows(&[batch])?;
        verified.files += rows.len() as u64;
        let looked: Vec<(u64, Option<Damaged>)> = tokio::task::block_in_place(|| {
            pool.install(|| rows.into_par_iter().map(look).collect())
        });
        for (bytes, damaged) in looked {
            verified.bytes += bytes;
            verified.damaged.extend(damaged);
        }
    }
    for (table, path) in catalog.damaged_files().await? {
        verified.damaged.push(Damaged {
            damage: if path.exists() { Damage::Half } else { Damage::Missing },
            uri: path.display().to_string(),
            kind: Kind::Table,
            of: format!("table {table}"),
            found: "not the whole Parquet file that the table's log names".to_owned(),
        });
    }
    verified.damaged.sort_by(|a, b| a.uri.cmp(&b.uri));
    Ok(verified)
}

/// Bytes that were hashed, and what is wrong with a file.
fn look(named: Named) -> (u64, Option<Damaged>) {
    let (bytes, wrong) = match state(&named) {
        Ok(bytes) => (bytes, None),
        Err((damage, found)) => {
            let kind = if named.kind == "models" { Kind::Model } else { Kind::Artifact };
            (0, Some(Damaged { damage, uri: named.uri, kind, of: named.of, found }))
        }
    };
    (bytes, wrong)
}

fn state(named: &Named) -> std::result::Result<u64, (Damage, String)> {
    let unreadable = |e: Error| (Damage::Unreadable, e.reason().to_owned());
    let path = files::resolve(&named.uri).map_err(unreadable)?;
    let found = match std::fs::metadata(&path) {
        Ok(found) => found.len(),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err((Damage::Missing, "there is no such file".to_owned()));
        }
        Err(e) => return Err((Damage::Unreadable, e.to_string())),
    };
    if found != named.bytes {
        let damage = if found < named.bytes { Damage::Half } else { Damage::Changed };
        return Err((damage, format!("{found} bytes where {} were written", named.bytes)));
    }
    let hash = files::hash_file(&path).map_err(unreadable)?.blake3;
    if hash == named.blake3 {
        return Ok(found);
    }
    Err((Damage::Changed, format!("blake3 {hash:.12}… where {:.12}… was written", named.blake3)))
}

/// Takes the rows of damaged artifacts and models out of the catalog, so that the next run makes exactly these again; returns
/// how many rows. Of a case, all files of the step go together, of a shard all its samples. Earlier versions of the tables
/// keep the rows. Files of the tables themselves cannot be made again.
///
/// # Errors
/// The catalog cannot be written. Hold the lock.
pub async fn repair(catalog: &Catalog, damaged: &[Damaged]) -> Result<usize> {
    #[derive(Deserialize)]
    struct Id {
        id: String,
    }
    let ctx = catalog.session(SessionAt::Latest).await?;
    let mut rows = 0;
    for (kind, table) in [(Kind::Artifact, Table::Artifacts), (Kind::Model, Table::Models)] {
        let uris: Vec<String> = damaged
            .iter()
            .filter(|d| d.kind == kind)
            .map(|d| format!("'{}'", d.uri.replace('\'', "''")))
            .collect();
        let mut ids = Vec::new();
        for uris in uris.chunks(CHUNK) {
            let uris = uris.join(", ");
            let query = match table {
                Table::Models => format!("SELECT model_id AS id FROM models WHERE uri IN ({uris})"),
                _ => format!(
                    "SELECT artifact_id AS id FROM artifacts WHERE uri IN ({uris}) UNION \
                     SELECT a.artifact_id FROM artifacts a JOIN (SELECT DISTINCT step, case_id, fingerprint FROM artifacts \
                     WHERE uri IN ({uris}) AND role NOT IN ('shard', 'sample')) d \
                     ON a.step = d.step AND a.case_id = d.case_id AND a.fingerprint = d.fingerprint"
                ),
            };
            let found: Vec<Id> = catalog::rows(&catalog::sql(&ctx, &query).await?)?;
            ids.extend(found.into_iter().map(|row| row.id));
        }
        rows += ids.len();
        catalog.delete_rows(table, &ids).await?;
    }
    Ok(rows)
}
