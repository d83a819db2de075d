//! Housekeeping: many small files become few large ones, the log gets a checkpoint, and files that no commit names
//! are removed. Nothing that any version needs is touched.

use std::collections::HashSet;
use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use deltalake_core::checkpoints::create_checkpoint;
use deltalake_core::delta_datafusion::create_session;
use deltalake_core::parquet::file::properties::WriterProperties;
use deltalake_core::{DeltaTable, DeltaTableError};

use super::errors;
use super::schema::Table;
use super::store::{CHECKPOINT_EVERY, Catalog};
use super::write::added_files;
use crate::error::Result;

/// Files are put together up to this size.
const TARGET_BYTES: NonZeroU64 = NonZeroU64::new(32 << 20).unwrap();
/// Files below this size are worth putting together,
const SMALL_BYTES: i64 = 8 << 20;
/// once there are this many.
const MANY: usize = 16;
/// A row group is held in memory while it is written.
const ROW_GROUP_ROWS: usize = 1 << 16;
const BATCH_ROWS: usize = 1024;
/// What no commit names may belong to a writer at work; after this long it does not.
const ORPHANED_AFTER: Duration = Duration::from_hours(24);

impl Catalog {
    /// Puts the small files of every table together where they have become many, writes checkpoints, and removes files
    /// that no commit names and that are older than a day. Appends may go on meanwhile. Call it at the end of a run.
    ///
    /// # Errors
    /// A table cannot be read or written; it is as it was.
    pub async fn compact(&self) -> Result<()> {
        for table in Table::ALL {
            self.put_files_together(table, MANY).await?;
            if self.version(table)? - self.checkpointed(table) >= CHECKPOINT_EVERY {
                self.checkpoint(table).await?;
            }
            self.sweep(table, ORPHANED_AFTER)?;
        }
        Ok(())
    }

    /// Puts the small files of a table together, if there are at least this many.
    pub(super) async fn put_files_together(&self, table: Table, fewest: usize) -> Result<()> {
        let failed = |error: DeltaTableError| errors::delta("compact", table, &error);
        let loaded = self.loaded(table).await?;
        let files = loaded.snapshot().map_err(failed)?.log_data();
        let small = files.iter().filter(|file| file.size() < SMALL_BYTES).count();
        if small < fewest {
            return Ok(());
        }
        put_together(loaded).await.map_err(failed)
    }

    /// Writes a checkpoint of the newest version, so that opening need not read the log from its start.
    pub(super) async fn checkpoint(&self, table: Table) -> Result<()> {
        let loaded = self.loaded(table).await?;
        create_checkpoint(&loaded, None)
            .await
            .map_err(|error| errors::delta("write a checkpoint of", table, &error))
    }

    /// Removes Parquet files and staging files that no commit names and that are older than `age`; returns how many.
    pub(super) fn sweep(&self, table: Table, age: Duration) -> Result<usize> {
        let orphans = self.orphans(table, age)?;
        Ok(orphans.into_iter().filter(|path| fs::remove_file(path).is_ok()).count())
    }

    /// Files of the tables that no version needs, and that are older than `age`; true for checkpoints that a later one
    /// stands for.
    ///
    /// # Errors
    /// A folder or a log cannot be read.
    pub fn unneeded_files(&self, age: Duration) -> Result<Vec<(PathBuf, bool)>> {
        let mut found = Vec::new();
        for table in Table::ALL {
            found.extend(self.orphans(table, age)?.into_iter().map(|path| (path, false)));
            let log = self.log(table);
            let mut torn = old_files(&log, age)?;
            torn.retain(|name| name.ends_with(".torn"));
            found.extend(torn.iter().map(|name| (log.join(name), false)));
            let last = self.checkpointed(table);
            let earlier = (0..last).map(|version| self.checkpoint_file(table, version));
            found.extend(earlier.filter(|path| path.exists()).map(|path| (path, true)));
        }
        Ok(found)
    }

    /// Parquet files and staging files that no commit names and that are older than `age`.
    fn orphans(&self, table: Table, age: Duration) -> Result<Vec<PathBuf>> {
        let (folder, log) = (self.table_folder(table), self.log(table));
        let mut candidates = old_files(&folder, age)?;
        candidates.retain(|name| name.contains(".parquet"));
        if !candidates.is_empty() {
            let named = self.named_files(table)?;
            candidates.retain(|name| !named.contains(name));
        }
        let mut staged = old_files(&log, age)?;
        staged.retain(|name| name.contains('#') || name.ends_with(".tmp"));
        let candidates = candidates.iter().map(|name| folder.join(name));
        Ok(candidates.chain(staged.iter().map(|name| log.join(name))).collect())
    }

    /// Every data file that any commit of a table ever added.
    fn named_files(&self, table: Table) -> Result<HashSet<String>> {
        let mut named = HashSet::new();
        for version in 0..=self.version(table)? {
            let path = self.commit(table, version);
            let text =
                fs::read_to_string(&path).map_err(|error| errors::file("read", &path, &error))?;
            named.extend(added_files(&text));
        }
        Ok(named)
    }
}

async fn put_together(table: DeltaTable) -> Result<(), DeltaTableError> {
    let properties =
        WriterProperties::builder().set_max_row_group_row_count(Some(ROW_GROUP_ROWS)).build();
    // One file after the other, in small batches: this shares the memory of a run.
    let mut session = create_session().state();
    let config = session.config_mut();
    *config = config.clone().with_target_partitions(1).with_batch_size(BATCH_ROWS);
    table
        .optimize()
        .with_target_size(TARGET_BYTES)
        .with_writer_properties(properties)
        .with_session_state(Arc::new(session))
        .with_max_concurrent_tasks(1)
        .await
        .map(drop)
}

/// The names of a folder's files that were last written longer than `age` ago.
fn old_files(folder: &Path, age: Duration) -> Result<Vec<String>> {
    let failed = |error: std::io::Error| errors::file("list", folder, &error);
    let now = SystemTime::now();
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(metadata) = entry.metadata() else { continue };
        let modified = metadata.modified().unwrap_or(now);
        let old = now.duration_since(modified).is_ok_and(|since| since >= age);
        if let (true, true, Ok(name)) = (metadata.is_file(), old, entry.file_name().into_string()) {
            names.push(name);
        }
    }
    Ok(names)
}
