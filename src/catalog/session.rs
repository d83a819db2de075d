//! SQL over the catalog. A session sees one version of each table, fixed when it is made; a table is opened when a
//! query first names it, so that a session costs little. Views and tables registered in it stand beside the tables.
//!
//! `SELECT … FROM cases VERSION AS OF 3` and `… TIMESTAMP AS OF '2026-01-31T12:00:00Z'` read another version of one
//! table within a query. Queries read only.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::available_parallelism;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::TableReference;
use datafusion::error::{DataFusionError, Result as QueryResult};
use datafusion::execution::context::SQLOptions;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use tokio::sync::Mutex;

use super::curation::{self, Edits};
use super::schema::Table;
use super::store::Catalog;
use super::{CurationRow, Timestamp, errors, travel, udf};
use crate::error::{Error, Result};

const CATALOG: &str = "torcula";
const SCHEMA: &str = "catalog";

/// The table `cases` as it was ingested, without the edits of people.
pub(super) const INGESTED: &str = "cases@ingested";

/// Rows that a batch of a query holds. Rows are short and steps take them one by one, so small batches start work soon.
const BATCH_ROWS: usize = 1024;

/// Which versions a session reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SessionAt {
    /// The newest version of each table.
    #[default]
    Latest,
    /// This version of `cases`, and of every other table the newest at the moment when that version was committed.
    Version(i64),
    /// Of every table the newest version at this moment.
    Timestamp(Timestamp),
}

impl Catalog {
    /// A session with every table under its name, the functions `torcula_fingerprint(text, salt)` and
    /// `variable(variables, name)`, and as many partitions as the machine has cores. Text columns are `Utf8`, lists `List`, moments microseconds UTC.
    ///
    /// # Errors
    /// There is no such version, or a log cannot be read.
    pub async fn session(&self, at: SessionAt) -> Result<SessionContext> {
        self.session_with(at, available_parallelism().map_or(1, Into::into)).await
    }

    /// As [`Catalog::session`], with this many partitions. Results do not depend on their number, but the order of rows
    /// without an `ORDER BY` does.
    ///
    /// # Errors
    /// As for [`Catalog::session`].
    #[expect(clippy::unused_async, reason = "reading a remote log will wait")]
    pub async fn session_with(&self, at: SessionAt, partitions: usize) -> Result<SessionContext> {
        self.session_with_edits(at, partitions, &[])
    }

    /// As [`Catalog::session`], with edits applied that are not made yet: what would be, if they were.
    ///
    /// # Errors
    /// As for [`Catalog::session`].
    #[expect(clippy::unused_async, reason = "reading a remote log will wait")]
    pub async fn session_if(&self, edits: &[CurationRow]) -> Result<SessionContext> {
        let partitions = available_parallelism().map_or(1, Into::into);
        self.session_with_edits(SessionAt::Latest, partitions, edits)
    }

    fn session_with_edits(
        &self,
        at: SessionAt,
        partitions: usize,
        edits: &[CurationRow],
    ) -> Result<SessionContext> {
        let versions = self.versions_at(at)?;
        let config = config(partitions);
        let context = SessionContext::new_with_config(config.clone());
        let tables = Tables {
            catalog: self.clone(),
            versions,
            supposed: edits.to_vec(),
            state: Arc::new(SessionStateBuilder::new().with_config(config).build()),
            opened: Mutex::default(),
            registered: RwLock::default(),
        };
        let provider = MemoryCatalogProvider::new();
        provider
            .register_schema(SCHEMA, Arc::new(tables))
            .map_err(|error| Error::bug(error.to_string()))?;
        context.register_catalog(CATALOG, Arc::new(provider));
        context.register_udf(udf::torcula_fingerprint());
        context.register_udf(udf::variable());
        Ok(context)
    }

    /// When a version of the table `cases` was committed.
    ///
    /// # Errors
    /// There is no such version.
    pub fn moment_of(&self, version: i64) -> Result<Timestamp> {
        self.check_version(Table::Cases, version)?;
        self.committed_at(Table::Cases, version)
    }

    /// The version of the table `cases` that a session reads.
    ///
    /// # Errors
    /// As for [`Catalog::session`].
    pub fn version_of(&self, at: SessionAt) -> Result<i64> {
        Ok(self.versions_at(at)?.get(&Table::Cases).copied().unwrap_or_default())
    }

    fn versions_at(&self, at: SessionAt) -> Result<BTreeMap<Table, i64>> {
        let moment = match at {
            SessionAt::Latest => return self.versions(),
            SessionAt::Version(version) => {
                self.check_version(Table::Cases, version)?;
                self.committed_at(Table::Cases, version)?
            }
            SessionAt::Timestamp(moment) => moment,
        };
        let mut versions = BTreeMap::new();
        for table in Table::ALL {
            versions.insert(table, self.version_at(table, moment)?);
        }
        if let SessionAt::Version(version) = at {
            versions.insert(Table::Cases, version);
        }
        Ok(versions)
    }

    fn check_version(&self, table: Table, version: i64) -> Result<()> {
        let newest = self.version(table)?;
        if (0..=newest).contains(&version) {
            return Ok(());
        }
        let reason = format!("the table '{table}' has no version {version}");
        Err(Error::configuration(reason).hint(format!("it has the versions 0 to {newest}")))
    }
}

fn config(partitions: usize) -> SessionConfig {
    SessionConfig::new()
        .with_target_partitions(partitions.max(1))
        .with_batch_size(BATCH_ROWS)
        .with_information_schema(true)
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .set_bool("datafusion.execution.parquet.schema_force_view_types", false)
        .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false)
}

/// A table, its version, and whether it is read as it was ingested.
type Opened = (Table, i64, bool);

/// The tables of one session.
struct Tables {
    catalog: Catalog,
    versions: BTreeMap<Table, i64>,
    /// Edits that are applied although they are not made.
    supposed: Vec<CurationRow>,
    /// Tells the table scans which string types to use.
    state: Arc<SessionState>,
    opened: Mutex<HashMap<Opened, Arc<dyn TableProvider>>>,
    registered: RwLock<HashMap<String, Arc<dyn TableProvider>>>,
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables").field("versions", &self.versions).finish_non_exhaustive()
    }
}

impl Tables {
    fn registered(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        let registered = self.registered.read().unwrap_or_else(PoisonError::into_inner);
        registered.get(name).map(Arc::clone)
    }

    /// The table and version that a name, as [`travel::rewrite`] writes it, stands for.
    fn named(&self, name: &str) -> Result<Option<(Table, i64)>> {
        let (name, at) = match name.split_once(travel::AT) {
            Some((name, at)) => (name, Some(at)),
            None => (name, None),
        };
        let Ok(table) = name.parse::<Table>() else { return Ok(None) };
        let version = match at {
            None => self.versions.get(&table).copied().unwrap_or_default(),
            Some(at) => match at.parse::<i64>() {
                Ok(version) => {
                    self.catalog.check_version(table, version)?;
                    version
                }
                Err(_) => self.catalog.version_at(table, at.parse()?)?,
            },
        };
        Ok(Some((table, version)))
    }
}

impl Tables {
    /// The edits that a version of `cases` is read with: those of the session, or those of the moment of another version.
    async fn edits(&self, version: i64) -> Result<Edits> {
        let curation = if self.versions.get(&Table::Cases) == Some(&version) {
            self.versions.get(&Table::Curation).copied().unwrap_or_default()
        } else {
            let moment = self.catalog.committed_at(Table::Cases, version)?;
            self.catalog.version_at(Table::Curation, moment)?
        };
        let mut rows = self.catalog.edits_at(curation).await?;
        rows.extend(self.supposed.iter().cloned());
        Ok(Edits::of(&rows))
    }
}

#[async_trait]
impl SchemaProvider for Tables {
    fn table_names(&self) -> Vec<String> {
        let registered = self.registered.read().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<_> = registered.keys().cloned().collect();
        names.extend(Table::ALL.map(|table| table.name().to_owned()));
        names.sort_unstable();
        names.dedup();
        names
    }

    async fn table(&self, name: &str) -> QueryResult<Option<Arc<dyn TableProvider>>> {
        if let Some(table) = self.registered(name) {
            return Ok(Some(table));
        }
        let external = |error: Error| DataFusionError::External(Box::new(error));
        let raw = name == INGESTED;
        let name = if raw { Table::Cases.name() } else { name };
        let Some((table, version)) = self.named(name).map_err(external)? else { return Ok(None) };
        let mut opened = self.opened.lock().await;
        if let Some(provider) = opened.get(&(table, version, raw)) {
            return Ok(Some(Arc::clone(provider)));
        }
        let provider = self
            .catalog
            .table(table)
            .map_err(external)?
            .table_provider()
            .with_table_version(version as u64)
            .with_session(Arc::clone(&self.state))
            .await?;
        let provider = if table == Table::Cases && !raw {
            let edits = self.edits(version).await.map_err(external)?;
            curation::applied(provider, &edits).map_err(external)?
        } else {
            provider
        };
        opened.insert((table, version, raw), Arc::clone(&provider));
        Ok(Some(provider))
    }

    fn register_table(
        &self,
        name: String,
        table: Arc<dyn TableProvider>,
    ) -> QueryResult<Option<Arc<dyn TableProvider>>> {
        if name.parse::<Table>().is_ok() {
            let reason = format!("'{name}' is a table of the catalog");
            let error = Error::configuration(reason).hint("choose another name");
            return Err(DataFusionError::External(Box::new(error)));
        }
        let mut registered = self.registered.write().unwrap_or_else(PoisonError::into_inner);
        Ok(registered.insert(name, table))
    }

    fn deregister_table(&self, name: &str) -> QueryResult<Option<Arc<dyn TableProvider>>> {
        let mut registered = self.registered.write().unwrap_or_else(PoisonError::into_inner);
        Ok(registered.remove(name))
    }

    fn table_exist(&self, name: &str) -> bool {
        let name = name.split_once(travel::AT).map_or(name, |(name, _)| name);
        name.parse::<Table>().is_ok() || self.registered(name).is_some()
    }
}

/// Plans a query that reads: `SELECT`, `EXPLAIN`, `DESCRIBE`, `SHOW`. Nothing is executed yet.
///
/// # Errors
/// A configuration fault that names the unknown table or column and the nearest that exists, says where the text is not
/// SQL, or refuses a statement that writes.
pub async fn plan(context: &SessionContext, query: &str) -> Result<DataFrame> {
    let query = travel::rewrite(query)?;
    let options =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    context
        .sql_with_options(&query, options)
        .await
        .map_err(|error| refused(&error).unwrap_or_else(|| unanswerable(context, &query, &error)))
}

/// Runs a query that reads and gathers its rows. There is always at least one batch, which holds the schema.
///
/// # Errors
/// As for [`plan`], and when a file of the catalog cannot be read.
pub async fn sql(context: &SessionContext, query: &str) -> Result<Vec<RecordBatch>> {
    let frame = plan(context, query).await?;
    let schema = Arc::clone(frame.schema().inner());
    let mut batches = frame.collect().await.map_err(|error| errors::query(&error))?;
    if batches.is_empty() {
        batches.push(RecordBatch::new_empty(schema));
    }
    Ok(batches)
}

/// The error of a statement that writes.
fn refused(error: &DataFusionError) -> Option<Error> {
    let DataFusionError::Plan(reason) = error else { return None };
    let writes = ["DDL not supported", "DML not supported", "Statement not supported"];
    writes.iter().any(|start| reason.starts_with(start)).then(|| {
        Error::configuration(reason.clone())
            .hint("queries only read; the tables are written by `torcula run`")
    })
}

/// The error of a query that cannot be planned: an unknown table first, because much else follows from it.
fn unanswerable(context: &SessionContext, query: &str, error: &DataFusionError) -> Error {
    let state = context.state();
    let references = state
        .sql_to_statement(query, &state.config_options().sql_parser.dialect)
        .and_then(|statement| state.resolve_table_references(&statement))
        .unwrap_or_default();
    let unknown = references.iter().find(|reference| {
        reference.schema().is_none_or(|schema| schema == SCHEMA)
            && !context.table_exist((*reference).clone()).unwrap_or(false)
    });
    match unknown {
        Some(reference) => unknown_table(context, reference),
        None => errors::query(error),
    }
}

fn unknown_table(context: &SessionContext, reference: &TableReference) -> Error {
    let names = context
        .catalog(CATALOG)
        .and_then(|catalog| catalog.schema(SCHEMA))
        .map(|schema| schema.table_names())
        .unwrap_or_default();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    Error::configuration(format!("there is no table '{}'", reference.table()))
        .hint(errors::did_you_mean(reference.table(), "tables", &names))
}
