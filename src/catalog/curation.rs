//! Corrections by people, beside what was ingested and never in it: the table `curation` has a row an edit, and whoever reads
//! `cases` sees the rows with the edits applied. So ingesting again overwrites no correction, and taking one back restores
//! what was ingested.
//!
//! A variable of the registry that has no column of its own is edited as `variables.NAME`.
//!
//! Readers of `cases` find one column more than the table has: `excluded`, why the case is kept out of every step: a curator's
//! reason, or that its files are gone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::TableProvider;
use datafusion::common::{Column, JoinType};
use datafusion::datasource::{MemTable, ViewTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr::FieldMetadata;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, lit, when};
use datafusion::prelude::SessionContext;
use deltalake_core::DeltaTableError;
use serde_json::{Map, Value, json};

use super::schema::{CurationRow, EditAction, Kind, Table};
use super::store::Catalog;
use super::{Timestamp, errors};
use crate::error::{Error, Result};

/// The column that says why a case is kept out of every step.
pub const EXCLUDED: &str = "excluded";
/// The column of variables without a column of their own, a JSON object.
const VARIABLES: &str = "variables";
/// What it says of a case whose files are gone.
pub const REMOVED: &str = "its files are gone";
/// The column that says since when.
const REMOVED_AT: &str = "removed_at";
/// Names that no user column has.
const CASE: &str = "__edited_case";
const SET: &str = "__set_";
const TO: &str = "__to_";

/// Columns of `cases` that a person may correct: what the registry says. What was read from the image files is mended in
/// the files.
pub const EDITABLE: [&str; 19] = [
    "subject_id",
    "session_id",
    "centre",
    "b_value_s_per_mm2",
    "vendor",
    "model",
    "field_strength_t",
    "repetition_time_ms",
    "echo_time_ms",
    "slice_thickness_mm",
    "slice_gap_mm",
    "age_y",
    "sex",
    "nihss",
    "stroke_subtype",
    "onset_h",
    "location",
    "chronic_infarct",
    "wmh_volume_ml",
];

/// The name in `variables` that an edit of `variables.NAME` is about.
pub fn variable(column: &str) -> Option<&str> {
    column.strip_prefix(VARIABLES)?.strip_prefix('.')
}

/// What a case has in a column, or as a variable, as readers see it. `case` has the columns that [`seen`] names.
pub fn value_of(case: &Map<String, Value>, column: &str) -> Value {
    let Some(name) = variable(column) else { return case.get(column).cloned().unwrap_or_default() };
    let text = case.get(VARIABLES).and_then(Value::as_str).unwrap_or_default();
    let mut object: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
    object.remove(name).unwrap_or_default()
}

/// The columns of `cases` that hold what can be edited.
pub fn seen() -> impl Iterator<Item = &'static str> {
    ["case_id", EXCLUDED, VARIABLES].into_iter().chain(EDITABLE)
}

/// The edits that stand, by case and column; those of variables are one object, to be laid over what was ingested.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Edits(BTreeMap<String, BTreeMap<String, Value>>);

impl Edits {
    /// What stands after these edits, in any order: of each case and column the newest that was not taken back.
    pub fn of(rows: &[CurationRow]) -> Self {
        let undone: Vec<&str> = rows.iter().filter_map(|r| r.undoes.as_deref()).collect();
        let mut standing: Vec<&CurationRow> = rows
            .iter()
            .filter(|r| r.action != EditAction::Undo && !undone.contains(&r.edit_id.as_str()))
            .collect();
        standing.sort_by(|a, b| a.edit_id.cmp(&b.edit_id));
        let mut edits = Self::default();
        for row in standing {
            let value = serde_json::from_str(&row.new_value).unwrap_or(Value::Null);
            let case = edits.0.entry(row.case_id.clone()).or_default();
            let Some(name) = variable(&row.column_name) else {
                case.insert(row.column_name.clone(), value);
                continue;
            };
            let patch = case.entry(VARIABLES.to_owned()).or_insert_with(|| json!({}));
            if let Some(patch) = patch.as_object_mut() {
                patch.insert(name.to_owned(), value);
            }
        }
        edits
    }

    /// Whether nothing is edited.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The columns that any case has another value in.
    fn columns(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.0.values().flat_map(BTreeMap::keys).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// One row an edited case: for each column whether it is set, and to what.
    fn batch(&self, columns: &[&str]) -> Result<RecordBatch> {
        let mut fields = vec![Field::new(CASE, DataType::Utf8, false)];
        for name in columns {
            fields.push(Field::new(format!("{SET}{name}"), DataType::Boolean, false));
            fields.push(Field::new(format!("{TO}{name}"), kind_of(name).arrow(), true));
        }
        let objects: Vec<Value> = self
            .0
            .iter()
            .map(|(case, values)| {
                let mut row = Map::from_iter([(CASE.to_owned(), Value::from(case.as_str()))]);
                for name in columns {
                    let value = values.get(*name);
                    row.insert(format!("{SET}{name}"), Value::from(value.is_some()));
                    let to = match value {
                        Some(patch @ Value::Object(_)) => Value::from(patch.to_string()),
                        Some(value) => value.clone(),
                        None => Value::Null,
                    };
                    row.insert(format!("{TO}{name}"), to);
                }
                Value::Object(row)
            })
            .collect();
        let bug = |error: arrow::error::ArrowError| Error::bug(format!("curation: {error}"));
        let mut decoder = arrow::json::ReaderBuilder::new(Arc::new(Schema::new(fields)))
            .with_batch_size(objects.len())
            .build_decoder()
            .map_err(bug)?;
        decoder.serialize(&objects).map_err(bug)?;
        decoder.flush().map_err(bug)?.ok_or_else(|| Error::bug("curation: no rows"))
    }
}

/// The type of a column that can be edited.
fn kind_of(name: &str) -> Kind {
    Table::Cases.column(name).map_or(Kind::Text, |column| column.kind)
}

/// The table `cases` with edits and missing files applied: the column `excluded`.
pub(super) fn applied(
    raw: Arc<dyn TableProvider>,
    edits: &Edits,
) -> Result<Arc<dyn TableProvider>> {
    let failed = |error: DataFusionError| errors::query(&error);
    let schema = raw.schema();
    let scan = LogicalPlanBuilder::scan("cases", provider_as_source(raw), None).map_err(failed)?;
    let columns = edits.columns();
    let plan = if columns.is_empty() {
        scan
    } else {
        let batch = edits.batch(&columns)?;
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).map_err(failed)?;
        let edited = LogicalPlanBuilder::scan("edits", provider_as_source(Arc::new(table)), None)
            .and_then(LogicalPlanBuilder::build)
            .map_err(failed)?;
        let on = (vec![Column::from_name("case_id")], vec![Column::from_name(CASE)]);
        scan.join(edited, JoinType::Left, on, None).map_err(failed)?
    };
    let edited = |name: &str, stored: Expr| {
        if !columns.contains(&name) {
            return Ok(stored);
        }
        let of = |prefix: &str| Expr::Column(Column::from_name(format!("{prefix}{name}")));
        let to = match name {
            VARIABLES => super::udf::patched().call(vec![stored.clone(), of(TO)]),
            _ => of(TO),
        };
        when(of(SET).is_true(), to).otherwise(stored)
    };
    let mut select = Vec::with_capacity(schema.fields().len() + 1);
    for field in schema.fields() {
        let stored = Expr::Column(Column::new(Some("cases"), field.name()));
        let metadata: HashMap<String, String> = field.metadata().clone();
        let value = edited(field.name(), stored).map_err(failed)?;
        select.push(value.alias_with_metadata(field.name(), Some(FieldMetadata::from(metadata))));
    }
    let none = lit(datafusion::scalar::ScalarValue::Utf8(None));
    let meaning = HashMap::from([(
        "meaning".to_owned(),
        "Why the case is kept out of every step: a curator's reason, or that its files are gone; none where it is not."
            .to_owned(),
    )]);
    // A version from before files could be missed lacks the column.
    let gone = match schema.field_with_name(REMOVED_AT) {
        Ok(_) => {
            let at = Expr::Column(Column::new(Some("cases"), REMOVED_AT));
            when(at.is_not_null(), lit(REMOVED)).otherwise(none.clone()).map_err(failed)?
        }
        Err(_) => none,
    };
    let excluded = edited(EXCLUDED, gone.clone()).map_err(failed)?;
    let excluded =
        when(excluded.clone().is_not_null(), excluded).otherwise(gone).map_err(failed)?;
    select.push(excluded.alias_with_metadata(EXCLUDED, Some(FieldMetadata::from(meaning))));
    let plan = plan.project(select).and_then(LogicalPlanBuilder::build).map_err(failed)?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

impl Catalog {
    /// All edits up to a version of the table `curation`, in their order.
    pub(super) async fn edits_at(&self, version: i64) -> Result<Vec<CurationRow>> {
        if version == 0 {
            return Ok(Vec::new());
        }
        let failed = |error: DataFusionError| errors::query(&error);
        let session = SessionContext::new();
        let provider = self
            .table(Table::Curation)?
            .table_provider()
            .with_table_version(version as u64)
            .await
            .map_err(failed)?;
        let frame = session.read_table(provider).map_err(failed)?;
        let batches = frame.collect().await.map_err(failed)?;
        let mut found: Vec<CurationRow> = super::rows(&batches)?;
        found.sort_by(|a, b| a.edit_id.cmp(&b.edit_id));
        Ok(found)
    }

    /// Every edit so far, in order.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn edits(&self) -> Result<Vec<CurationRow>> {
        self.edits_at(self.version(Table::Curation)?).await
    }

    /// Adds edits in one commit, and makes a new version of `cases`, so that a split or model that names the version of the
    /// catalog says which edits it saw. Hold the lock.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub async fn append_edits(&self, edits: &[CurationRow]) -> Result<()> {
        let Some(last) = edits.last() else { return Ok(()) };
        self.append(edits).await?;
        let table = Table::Cases;
        let failed = |error: DeltaTableError| errors::delta("update", table, &error);
        let opened = self.loaded(table).await?;
        let properties = HashMap::from([("torcula.curation".to_owned(), last.edit_id.clone())]);
        opened
            .set_tbl_properties()
            .with_properties(properties)
            .with_raise_if_not_exists(false)
            .await
            .map_err(failed)?;
        // The tail that appends had kept does not know the new version.
        *self.inner.tails[table as usize].lock().await = None;
        Ok(())
    }
}

/// A row of `curation` with a new identifier.
pub fn edit(action: EditAction, case_id: &str, column: &str) -> CurationRow {
    CurationRow {
        edit_id: uuid::Uuid::now_v7().to_string(),
        action,
        case_id: case_id.to_owned(),
        column_name: column.to_owned(),
        edited_at: Timestamp::now(),
        ..CurationRow::default()
    }
}

/// A value as people write it, for a column of `cases` or a variable; nothing, or `null`, clears it. A variable is text.
///
/// # Errors
/// Says what the column holds where the text is none of it, and refuses columns that are not the registry's.
pub fn parse(column: &str, text: &str) -> Result<Value> {
    if column == EXCLUDED {
        return Err(Error::configuration("`excluded` is not set as a value").hint(
            "use `torcula curate exclude CASE --reason …`, and `curate undo` to take it back",
        ));
    }
    let text = text.trim();
    let cleared = text.is_empty() || text.eq_ignore_ascii_case("null");
    match variable(column) {
        Some("") => {
            return Err(Error::configuration(format!("'{column}' names no variable"))
                .hint("write variables.NAME, as in variables.ward=3"));
        }
        Some(_) => return Ok(if cleared { Value::Null } else { Value::from(text) }),
        None => {}
    }
    let known = Table::Cases.column(column).filter(|c| EDITABLE.contains(&c.name));
    let Some(known) = known else {
        let reason = if Table::Cases.column(column).is_some() {
            format!("the column '{column}' is read from the files and cannot be set")
        } else {
            format!("the table 'cases' has no column '{column}'")
        };
        let near = errors::did_you_mean(column, "columns that can be set", &EDITABLE);
        let hint = format!("{near}; a variable of the registry is set as variables.NAME");
        return Err(Error::configuration(reason).hint(hint));
    };
    if cleared {
        if known.nullable {
            return Ok(Value::Null);
        }
        return Err(Error::configuration(format!("the column '{column}' must have a value")));
    }
    let wrong = |expected: &str| {
        Error::configuration(format!("{column} = `{text}`: expected {expected}"))
            .hint(known.meaning.to_owned())
    };
    match known.kind {
        Kind::Boolean => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => Ok(Value::from(true)),
            "false" | "no" | "0" => Ok(Value::from(false)),
            _ => Err(wrong("true or false")),
        },
        Kind::Real => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Value::from(value)),
            _ => Err(wrong("a number")),
        },
        Kind::Integer => text.parse::<i64>().map(Value::from).map_err(|_| wrong("a whole number")),
        _ => Ok(Value::from(text)),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use serde_json::json;

    use super::*;
    use crate::catalog::{CaseRow, SessionAt, json_rows, sql};

    fn set(case: &str, column: &str, value: Value) -> CurationRow {
        CurationRow { new_value: value.to_string(), ..edit(EditAction::Set, case, column) }
    }

    async fn catalog() -> (tempfile::TempDir, Catalog) {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::create_or_open(folder.path()).await.unwrap();
        let case = |id: &str| CaseRow {
            case_id: id.to_owned(),
            source: "internal".to_owned(),
            vendor: Some("GE".to_owned()),
            age_y: Some(70.0),
            ..CaseRow::default()
        };
        catalog.upsert_cases(&[case("sub-1"), case("sub-2")]).await.unwrap();
        (folder, catalog)
    }

    async fn ask(catalog: &Catalog, query: &str) -> Vec<Value> {
        let session = catalog.session(SessionAt::Latest).await.unwrap();
        json_rows(&sql(&session, query).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_variable_without_a_column_is_edited_in_its_object() {
        let (_folder, catalog) = catalog().await;
        let ingested = CaseRow {
            case_id: "sub-3".to_owned(),
            source: "internal".to_owned(),
            variables: r#"{"ward":"3","mrs_90d":"2","scanner":"B"}"#.to_owned(),
            ..CaseRow::default()
        };
        catalog.upsert_cases(&[ingested]).await.unwrap();
        let edits = [
            set("sub-3", "variables.ward", json!("4")),
            set("sub-3", "variables.scanner", Value::Null),
            set("sub-3", "variables.visit", json!("first")),
            set("sub-1", "vendor", json!("Philips")),
        ];
        catalog.append_edits(&edits).await.unwrap();
        let query = "SELECT case_id, vendor, variables, variable(variables, 'ward') AS ward FROM cases ORDER BY case_id";
        let found = ask(&catalog, query).await;
        assert_eq!(found[2]["variables"], json!(r#"{"ward":"4","mrs_90d":"2","visit":"first"}"#));
        assert_eq!((&found[2]["ward"], &found[0]["vendor"]), (&json!("4"), &json!("Philips")));
        assert_eq!(found[0]["variables"], found[1]["variables"], "others keep theirs");
        let undo = CurationRow {
            undoes: Some(edits[0].edit_id.clone()),
            ..edit(EditAction::Undo, "sub-3", "variables.ward")
        };
        catalog.append_edits(&[undo]).await.unwrap();
        assert_eq!(ask(&catalog, query).await[2]["ward"], json!("3"));
        assert_eq!(parse("variables.ward", " 5 ").unwrap(), json!("5"));
        assert_eq!(parse("variables.ward", "null").unwrap(), Value::Null);
        assert!(parse("variables.", "5").unwrap_err().to_string().contains("names no variable"));
    }

    const ALL: &str = "SELECT case_id, vendor, age_y, excluded FROM cases ORDER BY case_id";

    #[tokio::test]
    async fn readers_see_the_edits_and_the_table_keeps_what_was_ingested() {
        let (_folder, catalog) = catalog().await;
        let before = catalog.cases_version().unwrap();
        let none = json!({"case_id": "sub-1", "vendor": "GE", "age_y": 70.0, "excluded": null});
        assert_eq!(ask(&catalog, ALL).await[0], none);
        let excluded = CurationRow {
            new_value: json!("moved").to_string(),
            ..edit(EditAction::Exclude, "sub-2", EXCLUDED)
        };
        let edits = [
            set("sub-1", "vendor", json!("Siemens")),
            set("sub-1", "age_y", Value::Null),
            excluded,
        ];
        catalog.append_edits(&edits).await.unwrap();
        let expected = [
            json!({"case_id": "sub-1", "vendor": "Siemens", "age_y": null, "excluded": null}),
            json!({"case_id": "sub-2", "vendor": "GE", "age_y": 70.0, "excluded": "moved"}),
        ];
        assert_eq!(ask(&catalog, ALL).await, expected);
        // The same files again write nothing, and other bytes keep the correction.
        let mut case: Vec<CaseRow> = crate::catalog::rows(
            &sql(
                &catalog.session(SessionAt::Version(before)).await.unwrap(),
                "SELECT * FROM cases",
            )
            .await
            .unwrap(),
        )
        .unwrap();
        case.sort_by(|a, b| a.case_id.cmp(&b.case_id));
        assert_eq!(catalog.upsert_cases(&case).await.unwrap(), 0);
        case[0].vendor = Some("Philips".to_owned());
        assert_eq!(catalog.upsert_cases(&case).await.unwrap(), 1);
        assert_eq!(ask(&catalog, ALL).await, expected);
        // Taken back, what was ingested last is there again.
        let undo = CurationRow {
            undoes: Some(edits[0].edit_id.clone()),
            ..edit(EditAction::Undo, "sub-1", "vendor")
        };
        catalog.append_edits(&[undo]).await.unwrap();
        assert_eq!(ask(&catalog, ALL).await[0]["vendor"], "Philips");
        assert_eq!(ask(&catalog, ALL).await[0]["age_y"], Value::Null);
        // Earlier versions see earlier edits.
        let travelled =
            format!("SELECT vendor FROM cases VERSION AS OF {before} WHERE case_id = 'sub-1'");
        assert_eq!(ask(&catalog, &travelled).await, [json!({"vendor": "GE"})]);
        let after = before + 1;
        let travelled =
            format!("SELECT vendor FROM cases VERSION AS OF {after} WHERE case_id = 'sub-1'");
        assert_eq!(ask(&catalog, &travelled).await, [json!({"vendor": "Siemens"})]);
    }

    #[tokio::test]
    async fn types_units_and_the_order_of_columns_stay() {
        let (_folder, catalog) = catalog().await;
        catalog.append_edits(&[set("sub-1", "age_y", json!(71.5))]).await.unwrap();
        let session = catalog.session(SessionAt::Latest).await.unwrap();
        let frame = crate::catalog::plan(&session, "SELECT * FROM cases").await.unwrap();
        let schema = frame.schema().as_arrow().clone();
        let stored = Table::Cases.arrow_schema();
        assert_eq!(schema.fields().len(), stored.fields().len() + 1);
        for (found, stored) in schema.fields().iter().zip(stored.fields()) {
            assert_eq!((found.name(), found.data_type()), (stored.name(), stored.data_type()));
            assert_eq!(found.metadata().get("unit"), stored.metadata().get("unit"), "{found}");
        }
    }

    #[test]
    fn the_newest_edit_that_was_not_taken_back_stands() {
        let first = set("a", "vendor", json!("A"));
        let second = set("a", "vendor", json!("B"));
        let undo = CurationRow {
            undoes: Some(second.edit_id.clone()),
            ..edit(EditAction::Undo, "a", "vendor")
        };
        let value = |rows: &[CurationRow]| Edits::of(rows).0["a"]["vendor"].clone();
        assert_eq!(value(&[second.clone(), first.clone()]), json!("B"));
        assert_eq!(value(&[first.clone(), second, undo]), json!("A"));
        let undo_all = CurationRow {
            undoes: Some(first.edit_id.clone()),
            ..edit(EditAction::Undo, "a", "vendor")
        };
        assert!(Edits::of(&[first, undo_all]).is_empty());
    }

    #[test]
    fn values_are_read_by_the_type_of_their_column() {
        assert_eq!(parse("vendor", " GE ").unwrap(), json!("GE"));
        assert_eq!(parse("age_y", "71.5").unwrap(), json!(71.5));
        assert_eq!(parse("chronic_infarct", "yes").unwrap(), json!(true));
        assert_eq!(parse("age_y", "").unwrap(), Value::Null);
        for (column, text, said) in [
            ("age_y", "old", "expected a number"),
            ("age_y", "inf", "expected a number"),
            ("chronic_infarct", "maybe", "true or false"),
            ("subject_id", "", "must have a value"),
            ("image_uri", "x", "read from the files"),
            ("vendr", "GE", "no column 'vendr'"),
            ("excluded", "x", "is not set as a value"),
        ] {
            let error = parse(column, text).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
        assert!(parse("vendr", "GE").unwrap_err().to_string().contains("did you mean 'vendor'"));
        assert!(EDITABLE.iter().all(|name| Table::Cases.column(name).is_some()));
    }
}
