//! What became of a case, as a row that leaves the operator.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::stage::Record;
use crate::catalog::Table;
use crate::error::{Error, Result};

/// How the work on a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Every stage ran.
    Done,
    /// It is quarantined: a row in `failures` says why.
    Failed,
    /// The run was stopped before it ended; the next run takes it up again.
    Stopped,
}

/// One ended case and the rows that it adds to the catalog.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The case.
    pub case_id: String,
    /// Its hospital, for limits a centre.
    pub centre: Option<String>,
    /// Its fingerprint in this step.
    pub fingerprint: String,
    /// How it ended.
    pub status: Status,
    /// Why it failed.
    pub reason: Option<String>,
    /// Rows for the catalog, a failure row included.
    pub records: Vec<Record>,
}

/// Columns of the operator's output: all text, so that any engine can carry them.
pub(super) static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        text("case_id", false),
        text("centre", true),
        text("fingerprint", false),
        text("status", false),
        text("reason", true),
        text("records", false),
    ]))
});

/// Outcomes as a batch of [`SCHEMA`].
pub(super) fn to_batch(outcomes: &[Outcome]) -> Result<RecordBatch> {
    let required = |f: &dyn Fn(&Outcome) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(outcomes.iter().map(f)))
    };
    let optional = |f: &dyn Fn(&Outcome) -> Option<String>| -> ArrayRef {
        Arc::new(outcomes.iter().map(f).collect::<StringArray>())
    };
    let columns = vec![
        required(&|o| o.case_id.clone()),
        optional(&|o| o.centre.clone()),
        required(&|o| o.fingerprint.clone()),
        required(&|o| status_name(o.status).to_owned()),
        optional(&|o| o.reason.clone()),
        required(&|o| {
            let rows: Vec<_> = o.records.iter().map(|r| (r.table.name(), &r.row)).collect();
            serde_json::to_string(&rows).unwrap_or_default()
        }),
    ];
    RecordBatch::try_new(Arc::clone(&SCHEMA), columns).map_err(|e| Error::bug(e.to_string()))
}

/// The outcomes in a batch of [`SCHEMA`].
pub(super) fn from_batch(batch: &RecordBatch) -> Result<Vec<Outcome>> {
    let text = |name: &str| {
        let column = batch.column_by_name(name).map(|c| c.as_any().downcast_ref::<StringArray>());
        column.flatten().ok_or_else(|| Error::bug(format!("an outcome batch lacks {name}")))
    };
    let (case_id, centre, fingerprint) = (text("case_id")?, text("centre")?, text("fingerprint")?);
    let (status, reason, records) = (text("status")?, text("reason")?, text("records")?);
    let option = |a: &StringArray, i: usize| {
        use arrow::array::Array;
        (!a.is_null(i)).then(|| a.value(i).to_owned())
    };
    (0..batch.num_rows())
        .map(|i| {
            let rows: Vec<(String, Value)> = serde_json::from_str(records.value(i))
                .map_err(|e| Error::bug(format!("an outcome's records are no JSON: {e}")))?;
            let records = rows.into_iter().map(|(name, row)| {
                let table = Table::ALL.into_iter().find(|t| t.name() == name);
                let table = table.ok_or_else(|| Error::bug(format!("no table {name}")))?;
                Ok(Record { table, row })
            });
            Ok(Outcome {
                case_id: case_id.value(i).to_owned(),
                centre: option(centre, i),
                fingerprint: fingerprint.value(i).to_owned(),
                status: match status.value(i) {
                    "done" => Status::Done,
                    "failed" => Status::Failed,
                    _ => Status::Stopped,
                },
                reason: option(reason, i),
                records: records.collect::<Result<_>>()?,
            })
        })
        .collect()
}

fn status_name(status: Status) -> &'static str {
    match status {
        Status::Done => "done",
        Status::Failed => "failed",
        Status::Stopped => "stopped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_survive_the_batch() -> Result<()> {
        let outcome = Outcome {
            case_id: "sub-1".to_owned(),
            centre: None,
            fingerprint: "f".to_owned(),
            status: Status::Failed,
            reason: Some("broken".to_owned()),
            records: vec![Record { table: Table::Failures, row: serde_json::json!({"a": 1}) }],
        };
        assert_eq!(from_batch(&to_batch(std::slice::from_ref(&outcome))?)?, [outcome]);
        Ok(())
    }
}
