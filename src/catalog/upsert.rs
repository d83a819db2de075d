//! Replacing rows of `cases` and `runs` by their key. What is there already is compared first, so that the same rows
//! again make no commit and no new version of the table.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::common::{Column, TableReference};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, JoinType};
use datafusion::prelude::SessionContext;
use deltalake_core::DeltaTableError;
use serde_json::Value;

use super::Timestamp;
use super::errors;
use super::rows::{encode, json_rows};
use super::schema::{CaseRow, RunRow, Table, TableRow};
use super::session::{INGESTED, SessionAt};
use super::store::Catalog;
use super::write::backoff;
use crate::error::{Error, Result};

/// Rows replaced in one commit.
const CHUNK: usize = 10_000;
/// How often an upsert is tried again after another writer changed the table.
const ATTEMPTS: u32 = 16;
/// What differs between two ingests of the same files.
const OF_THE_RUN: [&str; 2] = ["run_id", "ingested_at"];

impl Catalog {
    /// Adds cases, or replaces those with the same `case_id`. Rows that differ from the stored ones in nothing but
    /// `run_id` and `ingested_at` are left alone; when all are, nothing is committed. Returns how many were written,
    /// in one commit for every 10,000 rows.
    ///
    /// # Errors
    /// Two rows have the same `case_id`, or the folder cannot be written. Hold the lock: two processes that upsert at
    /// once may both add the same case.
    pub async fn upsert_cases(&self, rows: &[CaseRow]) -> Result<usize> {
        let mut written = 0;
        for rows in rows.chunks(CHUNK) {
            written += self.upsert(rows, "case_id", &OF_THE_RUN).await?;
        }
        Ok(written)
    }

    /// Adds a run, or replaces the one with the same `run_id`.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub async fn upsert_run(&self, row: &RunRow) -> Result<()> {
        self.upsert(std::slice::from_ref(row), "run_id", &[]).await.map(drop)
    }

    /// Marks cases as missed by the ingest of a run: their files are gone. Identifiers that are not there do nothing.
    ///
    /// # Errors
    /// As for [`Catalog::upsert_cases`].
    pub async fn mark_removed(&self, ids: &[String], run_id: &str, at: Timestamp) -> Result<()> {
        let table = Table::Cases;
        for ids in ids.chunks(CHUNK) {
            let keys = ids.iter().map(String::as_str).collect();
            let mut rows: Vec<_> =
                self.stored(table, "case_id", &keys).await?.into_iter().collect();
            rows.sort_by(|(a, _), (b, _)| a.cmp(b));
            for (_, row) in &mut rows {
                row["removed_at"] = Value::from(at.to_string());
                row["run_id"] = Value::from(run_id);
            }
            self.upsert_values(table, rows, "case_id", &OF_THE_RUN).await?;
        }
        Ok(())
    }

    async fn upsert<R: TableRow>(&self, rows: &[R], key: &str, ignored: &[&str]) -> Result<usize> {
        let incoming = keyed(json_rows(&encode(R::TABLE, rows)?)?, key)?;
        self.upsert_values(R::TABLE, incoming, key, ignored).await
    }

    async fn upsert_values(
        &self,
        table: Table,
        incoming: Vec<(String, Value)>,
        key: &str,
        ignored: &[&str],
    ) -> Result<usize> {
        let _alone = self.inner.upserting.lock().await;
        let keys: HashSet<&str> = incoming.iter().map(|(id, _)| id.as_str()).collect();
        if keys.len() < incoming.len() {
            let reason = format!("two rows for the table '{table}' have the same {key}");
            return Err(Error::bug(reason));
        }
        for attempt in 0..ATTEMPTS {
            let stored = self.stored(table, key, &keys).await?;
            let changed = |(id, row): &&(String, Value)| match stored.get(id) {
                Some(old) => differs(old, row, ignored),
                None => true,
            };
            let changed: Vec<_> = incoming.iter().filter(changed).collect();
            if changed.is_empty() {
                return Ok(0);
            }
            let values: Vec<_> = changed.iter().map(|(_, row)| row).collect();
            let batches = encode(table, &values)?;
            if changed.iter().all(|(id, _)| !stored.contains_key(id)) {
                self.append_batches(table, batches).await?;
                return Ok(changed.len());
            }
            let opened = self.loaded(table).await?;
            match merge(opened, table, key, batches).await {
                Ok(()) => return Ok(changed.len()),
                Err(
                    DeltaTableError::Transaction { .. } | DeltaTableError::VersionAlreadyExists(_),
                ) => tokio::time::sleep(backoff(attempt)).await,
                Err(error) => return Err(errors::delta("update", table, &error)),
            }
        }
        let reason = format!("other writers changed the table '{table}' {ATTEMPTS} times in turn");
        Err(Error::io(reason).hint("run again; nothing was changed"))
    }

    /// The stored rows that have one of the keys.
    async fn stored(
        &self,
        table: Table,
        key: &str,
        keys: &HashSet<&str>,
    ) -> Result<HashMap<String, Value>> {
        let failed = |error: DataFusionError| errors::query(&error);
        let session = self.session(SessionAt::Latest).await?;
        let keys: ArrayRef = Arc::new(StringArray::from_iter_values(keys));
        let wanted = RecordBatch::try_from_iter([(key, keys)])
            .map_err(|error| Error::bug(error.to_string()))?;
        let wanted = session.read_batch(wanted).map_err(failed)?;
        // What people corrected is not what was ingested.
        let name = if table == Table::Cases { INGESTED } else { table.name() };
        let stored = session
            .table(TableReference::bare(name))
            .await
            .and_then(|stored| stored.join(wanted, JoinType::LeftSemi, &[key], &[key], None))
            .map_err(failed)?
            .collect()
            .await
            .map_err(failed)?;
        Ok(keyed(json_rows(&stored)?, key)?.into_iter().collect())
    }
}

/// Replaces and adds rows in one commit.
async fn merge(
    opened: deltalake_core::DeltaTable,
    table: Table,
    key: &str,
    batches: Vec<RecordBatch>,
) -> Result<(), DeltaTableError> {
    let source = SessionContext::new().read_batches(batches)?;
    let of = |alias: &str, name: &str| Expr::Column(Column::new(Some(alias), name));
    let columns = table.columns();
    opened
        .merge(source, of("stored", key).eq(of("incoming", key)))
        .with_target_alias("stored")
        .with_source_alias("incoming")
        .when_matched_update(|update| {
            columns.iter().fold(update, |update, column| {
                update.update(column.name, of("incoming", column.name))
            })
        })?
        .when_not_matched_insert(|insert| {
            columns
                .iter()
                .fold(insert, |insert, column| insert.set(column.name, of("incoming", column.name)))
        })?
        .await
        .map(drop)
}

fn differs(old: &Value, new: &Value, ignored: &[&str]) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return true };
    new.iter()
        .any(|(name, value)| !ignored.contains(&name.as_str()) && old.get(name) != Some(value))
}

fn keyed(rows: Vec<Value>, key: &str) -> Result<Vec<(String, Value)>> {
    rows.into_iter()
        .map(|row| match row.get(key).and_then(Value::as_str) {
            Some(id) => Ok((id.to_owned(), row)),
            None => Err(Error::bug(format!("a row has no {key}"))),
        })
        .collect()
}
