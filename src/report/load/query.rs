//! Queries of the report: rows into structs, and the pieces of SQL that several sections share.

use datafusion::common::TableReference;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use futures::StreamExt;
use serde::de::DeserializeOwned;

use crate::catalog::Table;
use crate::error::{Error, Result};
use crate::report::ReportJob;

/// The catalog, and what is asked of it.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    ctx: &'a SessionContext,
    /// What to report on.
    pub job: &'a ReportJob,
}

impl<'a> Source<'a> {
    /// The tables and views of a session.
    pub fn new(ctx: &'a SessionContext, job: &'a ReportJob) -> Self {
        Self { ctx, job }
    }

    /// Whether the session knows a table or view.
    pub async fn has(&self, name: &str) -> bool {
        self.ctx.table_provider(TableReference::bare(name)).await.is_ok()
    }

    /// Whether a step is a view of its own, and not hidden by a table of the catalog with the same name.
    pub async fn has_view(&self, step: &str) -> bool {
        !Table::ALL.iter().any(|table| table.name() == step) && self.has(step).await
    }

    /// The columns of a table and their Arrow types; none where the session does not know it.
    pub async fn columns(&self, table: &str) -> Vec<(String, arrow::datatypes::DataType)> {
        let provider = self.ctx.table_provider(TableReference::bare(table)).await;
        let fields = provider.map(|p| p.schema().fields().clone()).unwrap_or_default();
        fields.iter().map(|f| (f.name().clone(), f.data_type().clone())).collect()
    }

    /// The rows of a query that an author wrote, in columns.
    ///
    /// # Errors
    /// A configuration fault where a table or column that it names is not there.
    pub async fn answer(&self, sql: &str) -> Result<Vec<arrow::array::RecordBatch>> {
        crate::catalog::sql(self.ctx, sql).await
    }

    /// The columns that such a query gives, without running it.
    ///
    /// # Errors
    /// As for [`Source::answer`].
    pub async fn columns_of(&self, sql: &str) -> Result<Vec<(String, arrow::datatypes::DataType)>> {
        let frame = crate::catalog::plan(self.ctx, sql).await?;
        let fields = frame.schema().fields().iter();
        Ok(fields.map(|f| (f.name().clone(), f.data_type().clone())).collect())
    }

    /// Hands every row of a query to `take`, in order, without holding them all.
    pub async fn each<T: DeserializeOwned>(
        &self,
        sql: &str,
        mut take: impl FnMut(T),
    ) -> Result<()> {
        let frame = self.ctx.sql(sql).await.map_err(|e| failed(&e, sql))?;
        let mut batches = frame.execute_stream().await.map_err(|e| failed(&e, sql))?;
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|e| failed(&e, sql))?;
            for row in crate::catalog::rows::<T>(&[batch])? {
                take(row);
            }
        }
        Ok(())
    }

    /// All rows of a query.
    pub async fn rows<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>> {
        let mut rows = Vec::new();
        self.each(sql, |row| rows.push(row)).await?;
        Ok(rows)
    }

    /// `AND step IN (…)` for the steps of the pipeline; nothing where they are not given.
    pub fn of_the_pipeline(&self) -> String {
        if self.job.steps.is_empty() {
            String::new()
        } else {
            format!("\n  AND step IN ({})", literals(&self.job.steps))
        }
    }

    /// Whether a step is a view with this column.
    pub async fn view_has(&self, step: &str, column: &str) -> bool {
        self.has_view(step).await && self.columns(step).await.iter().any(|(name, _)| name == column)
    }

    /// A query for the ids of the cases that a step holds: from its view, or from what it wrote; none where the session
    /// knows neither.
    pub async fn cases_of(&self, step: &str) -> Option<String> {
        if self.has_view(step).await {
            let is_relation = self.view_has(step, "case_id").await;
            return is_relation.then(|| format!("SELECT case_id FROM {}", identifier(step)));
        }
        let mut written = Vec::new();
        for table in ["artifacts", "scores"] {
            if self.has(table).await {
                let of = literal(step);
                written.push(format!(
                    "SELECT case_id FROM {table} WHERE step = {of} AND case_id IS NOT NULL"
                ));
            }
        }
        (!written.is_empty()).then(|| written.join(" UNION "))
    }
}

fn failed(error: &DataFusionError, sql: &str) -> Error {
    let reason = format!("a query of the report failed: {error}\n{sql}");
    match error.find_root() {
        DataFusionError::IoError(_)
        | DataFusionError::ObjectStore(_)
        | DataFusionError::External(_) => {
            Error::io(reason).hint("check that the catalog can be read, then run the report again")
        }
        DataFusionError::ResourcesExhausted(_) => {
            Error::resource(reason).hint("give the run more memory with --memory")
        }
        _ => Error::bug(reason),
    }
}

/// A text in SQL.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Texts in SQL, with commas between them.
pub fn literals<S: AsRef<str>>(texts: &[S]) -> String {
    texts.iter().map(|text| literal(text.as_ref())).collect::<Vec<_>>().join(", ")
}

/// A name in SQL.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_cannot_end_a_text_or_a_name() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(literals(&["a", "b'"]), "'a', 'b'''");
    }
}
