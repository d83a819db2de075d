//! Taking cases out of `cases`: those that ingest had to quarantine after an earlier run had read them.

use datafusion::prelude::{col, in_list, lit};
use deltalake_core::DeltaTableError;

use super::errors;
use super::schema::Table;
use super::store::Catalog;
use super::write::backoff;
use crate::error::{Error, Result};

/// How often a deletion is tried again after another writer changed the table.
const ATTEMPTS: u32 = 16;

impl Catalog {
    /// Deletes these cases in one commit; earlier versions of the table keep them. Ids that are not there do nothing.
    ///
    /// # Errors
    /// The folder cannot be written. Hold the lock, as for [`Catalog::upsert_cases`].
    pub async fn delete_cases(&self, ids: &[String]) -> Result<()> {
        let table = Table::Cases;
        for attempt in 0..ATTEMPTS {
            let opened = self.loaded(table).await?;
            let wanted = ids.iter().map(|id| lit(id.as_str())).collect();
            let predicate = in_list(col("case_id"), wanted, false);
            match opened.delete().with_predicate(predicate).await {
                Ok((deleted, _)) => {
                    let version = deleted.version().unwrap_or_default();
                    return self
                        .sync_commit(table, i64::try_from(version).unwrap_or(i64::MAX))
                        .await;
                }
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
