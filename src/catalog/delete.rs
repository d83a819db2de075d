//! Taking rows out by their key: cases that ingest had to quarantine after an earlier run had read them, and artifacts and
//! models whose files are gone or no longer wanted.

use datafusion::prelude::{col, in_list, lit};
use deltalake_core::DeltaTableError;

use super::errors;
use super::schema::Table;
use super::store::Catalog;
use super::write::backoff;
use crate::error::{Error, Result};

/// How often a deletion is tried again after another writer changed the table.
const ATTEMPTS: u32 = 16;
/// Keys in one commit.
const CHUNK: usize = 1000;

impl Catalog {
    /// Deletes the rows whose first key (`case_id` of cases, `artifact_id` of artifacts, `model_id` of models) is one of
    /// these, in a commit for every 1,000; earlier versions of the table keep them. Keys that are not there do nothing.
    ///
    /// # Errors
    /// The folder cannot be written. Hold the lock, as for [`Catalog::upsert_cases`].
    pub async fn delete_rows(&self, table: Table, keys: &[String]) -> Result<()> {
        for keys in keys.chunks(CHUNK) {
            self.delete_chunk(table, keys).await?;
        }
        // The tail that appends had kept does not know the new versions.
        *self.inner.tails[table as usize].lock().await = None;
        Ok(())
    }

    async fn delete_chunk(&self, table: Table, keys: &[String]) -> Result<()> {
        for attempt in 0..ATTEMPTS {
            let opened = self.loaded(table).await?;
            let wanted = keys.iter().map(|key| lit(key.as_str())).collect();
            let predicate = in_list(col(table.keys()[0]), wanted, false);
            match opened.delete().with_predicate(predicate).await {
                Ok(_) => return Ok(()),
                Err(
                    DeltaTableError::Transaction { .. } | DeltaTableError::VersionAlreadyExists(_),
                ) => tokio::time::sleep(backoff(attempt)).await,
                Err(error) => return Err(errors::delta("delete from", table, &error)),
            }
        }
        let reason = format!("other writers changed the table '{table}' {ATTEMPTS} times in turn");
        Err(Error::io(reason).hint("run again; nothing was changed"))
    }
}
