//! The folder of Delta tables: creating and opening it, and the versions that its logs hold.
//!
//! Every version stays readable: expired logs and replaced files are kept (`delta.enableExpiredLogCleanup`,
//! `delta.deletedFileRetentionDuration`), because splits and models name the version they were made from.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use deltalake_core::kernel::StructType;
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake_core::protocol::SaveMode;
use deltalake_core::{
    BlindDeltaTable, DeltaTable, DeltaTableBuilder, DeltaTableError, TableProperty,
};
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use super::schema::Table;
use super::{Timestamp, durable, errors};
use crate::error::{Error, Result};
use crate::formats::files::make_folder;

/// Commits between two checkpoints of a log. Opening a table decodes all commits since the last one at once, in some
/// 1.5 MB each.
pub(super) const CHECKPOINT_EVERY: i64 = 10;

/// The file of a log that names its last checkpoint.
pub(super) const LAST_CHECKPOINT: &str = "_last_checkpoint";

/// A catalog in a folder. Clones share one handle, which writes one commit a table at a time.
#[derive(Debug, Clone)]
pub struct Catalog {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    folder: PathBuf,
    /// The tail of each table's log, as the last append left it.
    pub(super) tails: [Mutex<Option<BlindDeltaTable>>; Table::ALL.len()],
    /// Held while rows of `cases` or `runs` are replaced.
    pub(super) upserting: Mutex<()>,
    /// What was set aside when it was opened.
    repairs: Vec<String>,
}

impl Catalog {
    /// Opens the catalog in `folder`, or makes one there. A catalog that was left half made is completed, and what a
    /// power loss tore is set aside ([`Catalog::repairs`]). Hold the lock.
    ///
    /// # Errors
    /// The folder cannot be written, or a table there has other columns than this version of Torcula writes.
    pub async fn create_or_open(folder: &Path) -> Result<Self> {
        make_folder(folder).map_err(|error| errors::file("make", folder, &error))?;
        let catalog = Self::at(folder, Vec::new())?;
        let mut repairs = Vec::new();
        // `cases` last: a moment that it knows is then one that every table knows.
        for table in Table::ALL.into_iter().rev() {
            if catalog.has(table) {
                repairs.extend(catalog.set_torn_aside(table)?);
            }
            if !catalog.has(table) {
                catalog.create(table).await?;
            }
        }
        let catalog = Self::at(folder, repairs)?;
        catalog.complete(Table::Cases).await?;
        Ok(catalog)
    }

    /// Opens the catalog in `folder`. Reads none of its rows.
    ///
    /// # Errors
    /// The folder is not a catalog, or the newest commit of a table, or a checkpoint, is torn.
    pub async fn open(folder: &Path) -> Result<Self> {
        let advice = "name the folder of a catalog, or make one: `torcula run PIPELINE.yaml` makes the folder that \
                      the pipeline's `catalog:` names";
        if !folder.is_dir() {
            let reason = format!("there is no catalog at {}: no such folder", folder.display());
            return Err(Error::configuration(reason).hint(advice));
        }
        let catalog = Self::at(folder, Vec::new())?;
        for table in Table::ALL {
            if table == Table::Curation && !catalog.has(table) && catalog.has(Table::Cases) {
                // A catalog from before people could edit it.
                catalog.create(table).await?;
            }
            if !catalog.has(table) {
                let reason =
                    format!("{} is not a catalog: it has no table '{table}'", folder.display());
                return Err(Error::configuration(reason).hint(advice));
            }
            if let Some(torn) = catalog.torn(table)? {
                return Err(torn.error());
            }
        }
        Ok(catalog)
    }

    /// The folder, as an absolute path.
    pub fn folder(&self) -> &Path {
        &self.inner.folder
    }

    /// What a power loss had torn and [`Catalog::create_or_open`] set aside, for people.
    pub fn repairs(&self) -> &[String] {
        &self.inner.repairs
    }

    /// The newest version of every table.
    ///
    /// # Errors
    /// A log cannot be read.
    pub fn versions(&self) -> Result<BTreeMap<Table, i64>> {
        Table::ALL.into_iter().map(|table| Ok((table, self.version(table)?))).collect()
    }

    /// The newest version of the table `cases`: what lineage calls the catalog version.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn cases_version(&self) -> Result<i64> {
        self.version(Table::Cases)
    }

    /// The newest version of a table: from the last checkpoint on, the last commit before the first gap.
    pub(super) fn version(&self, table: Table) -> Result<i64> {
        let mut version = self.checkpointed(table);
        while self.commit(table, version + 1).exists() {
            version += 1;
        }
        let first = self.commit(table, version);
        fs::metadata(&first).map_err(|error| errors::file("read", &first, &error))?;
        Ok(version)
    }

    /// The version of the last checkpoint, 0 where there is none.
    pub(super) fn checkpointed(&self, table: Table) -> i64 {
        fs::read(self.log(table).join(LAST_CHECKPOINT))
            .ok()
            .and_then(|text| serde_json::from_slice::<Value>(&text).ok()?.get("version")?.as_i64())
            .filter(|version| self.commit(table, *version).exists())
            .unwrap_or(0)
    }

    /// When a version was committed, by the clock of the machine that did.
    pub(super) fn committed_at(&self, table: Table, version: i64) -> Result<Timestamp> {
        let path = self.commit(table, version);
        let failed = |error: std::io::Error| errors::file("read", &path, &error);
        let file = fs::File::open(&path).map_err(failed)?;
        for line in BufReader::new(&file).lines() {
            let action: Value = serde_json::from_str(&line.map_err(failed)?).unwrap_or_default();
            if let Some(ms) = action.pointer("/commitInfo/timestamp").and_then(Value::as_i64) {
                return Ok(Timestamp(ms.saturating_mul(1000)));
            }
        }
        let modified = file.metadata().and_then(|metadata| metadata.modified()).map_err(failed)?;
        let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(Timestamp(since.as_micros() as i64))
    }

    /// The newest version of a table that was committed no later than `moment`; its first where all are later.
    pub(super) fn version_at(&self, table: Table, moment: Timestamp) -> Result<i64> {
        let (mut low, mut high) = (0, self.version(table)?);
        while low < high {
            let middle = low + (high - low + 1) / 2;
            if self.committed_at(table, middle)? <= moment {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        Ok(low)
    }

    /// The folder of a table.
    pub(super) fn table_folder(&self, table: Table) -> PathBuf {
        self.inner.folder.join(table.name())
    }

    /// The folder of a table's log.
    pub(super) fn log(&self, table: Table) -> PathBuf {
        self.table_folder(table).join("_delta_log")
    }

    /// The file of one commit.
    pub(super) fn commit(&self, table: Table, version: i64) -> PathBuf {
        self.log(table).join(format!("{version:020}.json"))
    }

    /// The table, not yet loaded.
    pub(super) fn table(&self, table: Table) -> Result<DeltaTable> {
        DeltaTableBuilder::from_url(self.url(table)?)
            .and_then(DeltaTableBuilder::build)
            .map_err(|error| errors::delta("open", table, &error))
    }

    /// The table, with its newest list of files.
    pub(super) async fn loaded(&self, table: Table) -> Result<DeltaTable> {
        let mut loaded = self.table(table)?;
        loaded.load().await.map_err(|error| errors::delta("open", table, &error))?;
        Ok(loaded)
    }

    pub(super) fn url(&self, table: Table) -> Result<Url> {
        let folder = self.table_folder(table);
        Url::from_directory_path(&folder).map_err(|()| {
            Error::configuration(format!("{} cannot be written as a URL", folder.display()))
        })
    }

    fn at(folder: &Path, repairs: Vec<String>) -> Result<Self> {
        durable::register();
        let folder =
            fs::canonicalize(folder).map_err(|error| errors::file("open", folder, &error))?;
        let tails = std::array::from_fn(|_| Mutex::new(None));
        Ok(Self { inner: Arc::new(Inner { folder, tails, upserting: Mutex::new(()), repairs }) })
    }

    fn has(&self, table: Table) -> bool {
        self.commit(table, 0).is_file()
    }

    async fn create(&self, table: Table) -> Result<()> {
        let failed = |error: DeltaTableError| errors::delta("make", table, &error);
        let folder = self.table_folder(table);
        make_folder(&folder).map_err(|error| errors::file("make", &folder, &error))?;
        let columns: StructType = table
            .arrow_schema()
            .as_ref()
            .try_into_kernel()
            .map_err(|error: arrow::error::ArrowError| Error::bug(error.to_string()))?;
        let made = DeltaTable::try_from_url(self.url(table)?)
            .await
            .map_err(failed)?
            .create()
            .with_table_name(table.name())
            .with_comment(table.meaning())
            .with_columns(columns.fields().cloned())
            .with_save_mode(SaveMode::Ignore)
            .with_configuration_property(
                TableProperty::CheckpointInterval,
                Some(CHECKPOINT_EVERY.to_string()),
            )
            .with_configuration_property(
                TableProperty::DataSkippingStatsColumns,
                Some(table.keys().join(",")),
            )
            .with_configuration_property(TableProperty::EnableExpiredLogCleanup, Some("false"))
            .with_configuration_property(
                TableProperty::DeletedFileRetentionDuration,
                Some("interval 36500 days"),
            )
            .await;
        match made {
            // Another process made it meanwhile.
            Err(_) if self.has(table) => Ok(()),
            Err(error) => Err(failed(error)),
            Ok(_) => Ok(()),
        }
    }

    /// Adds the columns that a table from an earlier version of Torcula lacks; its rows are null there.
    async fn complete(&self, table: Table) -> Result<()> {
        let failed = |error: DeltaTableError| errors::delta("update", table, &error);
        let opened = self.loaded(table).await?;
        let there = opened.snapshot().map_err(failed)?.schema();
        let wanted: StructType = table
            .arrow_schema()
            .as_ref()
            .try_into_kernel()
            .map_err(|error: arrow::error::ArrowError| Error::bug(error.to_string()))?;
        let lacking: Vec<_> =
            wanted.fields().filter(|field| there.field(field.name()).is_none()).cloned().collect();
        if !lacking.is_empty() {
            opened.add_columns().with_fields(lacking).await.map_err(failed)?;
        }
        Ok(())
    }
}
