//! Appends. The Parquet file is written and synced, then the commit; a process that dies between leaves a file that no
//! commit names, which readers never see and [`Catalog::compact`] sweeps.
//!
//! An append reads nothing of the table: it adds files after whatever the newest version is. So it needs only the tail
//! of the log, cannot conflict with other appends, upserts or compactions, and when another writer takes the
//! version it wanted it takes the next one.
//!
//! Power loss: every file is synced before it has its name (`durable`), the data before the commit that names it.

use std::fs;
use std::time::Duration;

use arrow::array::RecordBatch;
use deltalake_core::kernel::Add;
use deltalake_core::writer::{DeltaWriter, RecordBatchWriter};
use deltalake_core::{BlindDeltaTable, DeltaTableError};
use serde_json::Value;

use super::errors;
use super::rows::encode;
use super::schema::{Table, TableRow};
use super::store::{CHECKPOINT_EVERY, Catalog};
use crate::error::{Error, Result};

/// How often a commit is tried again after another writer took its version.
const ATTEMPTS: u32 = 64;

impl Catalog {
    /// Appends rows to their table, in one commit that is on the disk when this returns. No rows, no commit.
    ///
    /// # Errors
    /// The rows do not fit the table, or the folder cannot be written; then nothing was appended.
    ///
    /// # Cancel safety
    /// Dropped before it returns, the rows are appended all or not at all.
    pub async fn append<R: TableRow>(&self, rows: &[R]) -> Result<()> {
        self.append_batches(R::TABLE, encode(R::TABLE, rows)?).await
    }

    /// Appends rows given as JSON objects with one key a column; a key may be left out where its column is nullable.
    /// Moments are RFC 3339 text or microseconds.
    ///
    /// # Errors
    /// As for [`Catalog::append`]; an unknown or missing key is named with the row's index.
    pub async fn append_json(&self, table: Table, rows: &[Value]) -> Result<()> {
        for (index, row) in rows.iter().enumerate() {
            check_keys(table, row).map_err(|error| error.context(format!("row {index}")))?;
        }
        self.append_batches(table, encode(table, rows)?).await
    }

    pub(super) async fn append_batches(
        &self,
        table: Table,
        batches: Vec<RecordBatch>,
    ) -> Result<()> {
        if batches.is_empty() {
            return Ok(());
        }
        let mut slot = self.inner.tails[table as usize].lock().await;
        let mut tail = match slot.take() {
            Some(tail) => tail,
            None => self.tail(table).await?,
        };
        let files = self.write_files(&tail, table, batches).await?;
        let version = self.commit_files(&mut tail, table, files).await?;
        *slot = Some(tail);
        if (version + 1) % CHECKPOINT_EVERY == 0 {
            // The rows are committed; should this fail, the next tenth commit tries again.
            let _ = self.checkpoint(table).await;
        }
        Ok(())
    }

    async fn tail(&self, table: Table) -> Result<BlindDeltaTable> {
        let failed = |error: DeltaTableError| errors::delta("open", table, &error);
        let tail = BlindDeltaTable::try_new(self.url(table)?).await.map_err(failed)?;
        let stored = tail.arrow_schema().map_err(failed)?;
        let found: Vec<_> = stored.fields().iter().map(|field| field.name().as_str()).collect();
        let expected: Vec<_> = table.columns().iter().map(|column| column.name).collect();
        if found != expected {
            return Err(Error::configuration(format!(
                "the table '{table}' in {} has the columns {}, this version of Torcula writes {}",
                self.folder().display(),
                found.join(", "),
                expected.join(", "),
            ))
            .hint("use the version of Torcula that made the catalog, or a new catalog folder"));
        }
        Ok(tail)
    }

    async fn write_files(
        &self,
        tail: &BlindDeltaTable,
        table: Table,
        batches: Vec<RecordBatch>,
    ) -> Result<Vec<Add>> {
        let failed = |error: DeltaTableError| errors::delta("append to", table, &error);
        let mut writer = RecordBatchWriter::for_blind_appends(tail).map_err(failed)?;
        for batch in batches {
            writer.write(batch).await.map_err(failed)?;
        }
        writer.flush().await.map_err(failed)
    }

    async fn commit_files(
        &self,
        tail: &mut BlindDeltaTable,
        table: Table,
        files: Vec<Add>,
    ) -> Result<i64> {
        for attempt in 0..ATTEMPTS {
            match tail.commit(files.clone()).await {
                Ok(version) => return Ok(version as i64),
                Err(DeltaTableError::VersionAlreadyExists(version)) => {
                    // A write whose answer was an error may have happened all the same, and was tried again.
                    if self.names(table, version as i64, &files) {
                        return Ok(version as i64);
                    }
                    tokio::time::sleep(backoff(attempt)).await;
                    *tail = self.tail(table).await?;
                }
                Err(error) => return Err(errors::delta("append to", table, &error)),
            }
        }
        Err(Error::io(format!(
            "other writers took {ATTEMPTS} versions of the table '{table}' in turn"
        ))
        .hint("run again; nothing was appended"))
    }

    /// Whether a commit is the one that adds these files.
    fn names(&self, table: Table, version: i64, files: &[Add]) -> bool {
        let text = fs::read_to_string(self.commit(table, version)).unwrap_or_default();
        files.first().is_some_and(|file| added_files(&text).any(|path| path == file.path))
    }
}

/// How long to wait before trying a commit again.
pub(super) fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(u64::from(attempt.min(20)) * 2)
}

fn check_keys(table: Table, row: &Value) -> Result<()> {
    let object = row.as_object().ok_or_else(|| {
        Error::bug(format!("a row of the table '{table}' must be a JSON object, found {row}"))
    })?;
    if let Some(unknown) = object.keys().find(|key| table.column(key).is_none()) {
        let names: Vec<_> = table.columns().iter().map(|column| column.name).collect();
        return Err(Error::bug(format!("the table '{table}' has no column '{unknown}'"))
            .hint(errors::did_you_mean(unknown, "columns", &names)));
    }
    let missing = table
        .columns()
        .iter()
        .find(|column| !column.nullable && object.get(column.name).is_none_or(Value::is_null));
    match missing {
        None => Ok(()),
        Some(column) => {
            Err(Error::bug(format!("the table '{table}' needs the column '{}'", column.name)))
        }
    }
}

/// The data files that the text of a commit adds.
pub(super) fn added_files(commit: &str) -> impl Iterator<Item = String> + '_ {
    commit.lines().filter_map(|line| {
        let action: Value = serde_json::from_str(line).ok()?;
        action.pointer("/add/path")?.as_str().map(str::to_owned)
    })
}
