//! Steps as relations: which rows a step reads, which of them are done, and what it gives to the steps after it.
//!
//! A step's relation is its input joined with what the step wrote for exactly these fingerprints. So a relation never shows
//! the output of other parameters or older bytes, and "what is left to do" is an anti-join.

use arrow::array::{Array, AsArray};
use datafusion::common::{JoinType, ScalarValue, TableReference};
use datafusion::dataframe::DataFrame;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{col, lit};
use datafusion::prelude::{Expr, SessionContext};
use serde::Deserialize;
use serde_json::json;

use crate::catalog::curation::EXCLUDED;
use crate::catalog::{self};
use crate::engine::{Slot, Stage as _};
use crate::error::{Error, Result};
use crate::pipeline::{Action, Output, Pipeline, Source, Step};
use crate::stages::score::Score;

use super::memo;
use super::plan::{self, StagePlan};

/// Names that no user column has.
const CASE: &str = "__case";
const PRINT: &str = "__print";

/// The columns of `scores` that the relation of a score step carries.
const SCORES: &str = "dice, sensitivity, precision, volume_truth_ml, volume_predicted_ml, \
    absolute_volume_difference_ml, lesion_f1, lesion_count_truth, lesion_count_predicted, \
    lesion_count_difference, hd95_mm, assd_mm";

/// Puts a relation into the session, in place of one of that name.
pub fn replace(ctx: &SessionContext, name: &str, frame: DataFrame) -> Result<()> {
    let name = TableReference::bare(name);
    drop(ctx.deregister_table(name.clone()));
    ctx.register_table(name, frame.into_view()).map_err(planning)?;
    Ok(())
}

/// The rows that a step reads: as its `from` says, without the cases that a curator excluded or whose files are gone.
pub async fn input(ctx: &SessionContext, step: &Step) -> Result<DataFrame> {
    let all = asked(ctx, step).await?;
    let ids: Vec<Expr> = excluded(ctx).await?.into_iter().map(lit).collect();
    // A list, not a join: steps stand upon each other, and the plan of the last one has the filter of each.
    if ids.is_empty() {
        Ok(all)
    } else {
        all.filter(col("case_id").in_list(ids, true)).map_err(planning)
    }
}

/// The rows that a step's `from` asks for, with a column that says why the case is kept out; null where it is not.
pub async fn with_curated(ctx: &SessionContext, step: &Step, column: &str) -> Result<DataFrame> {
    let all = without(asked(ctx, step).await?, &[column])?;
    let none = lit(ScalarValue::Utf8(None));
    if excluded(ctx).await?.is_empty() {
        return all.with_column(column, none).map_err(planning);
    }
    let query = format!(
        "SELECT case_id AS {CASE}, {EXCLUDED} AS {column} FROM cases WHERE {EXCLUDED} IS NOT NULL"
    );
    let found = ctx.sql(&query).await.map_err(planning)?;
    joined(all, found, JoinType::Right, &["case_id"], &[CASE])
}

/// The cases that are kept out: people exclude few, and few are removed. A session of its own asks anew: an ingest may have brought more cases.
async fn excluded(ctx: &SessionContext) -> Result<Vec<String>> {
    let made = async {
        #[derive(Deserialize)]
        struct Row {
            case_id: String,
        }
        let query =
            format!("SELECT case_id FROM cases WHERE {EXCLUDED} IS NOT NULL ORDER BY case_id");
        let rows: Vec<Row> = catalog::rows(&catalog::sql(ctx, &query).await?)?;
        Ok(json!(rows.into_iter().map(|row| row.case_id).collect::<Vec<_>>()).to_string())
    };
    let text = memo::once(ctx, format!("{EXCLUDED} {}", ctx.session_id()), made).await?;
    serde_json::from_str(&text).map_err(|e| Error::bug(e.to_string()))
}

/// The rows that a step's `from` asks for, those of excluded cases among them.
pub async fn asked(ctx: &SessionContext, step: &Step) -> Result<DataFrame> {
    let query = match &step.from {
        Source::None => return Err(Error::bug(format!("the step {} reads nothing", step.name))),
        // As it stands: its line breaks end its comments.
        Source::Sql { query, .. } => query.clone(),
        Source::Step { .. } => source(step),
    };
    let frame = catalog::plan(ctx, &query)
        .await
        .map_err(|error| error.context(format!("steps.{}.from", step.name)))?;
    for column in ["case_id", "fingerprint"] {
        if frame.schema().field_with_unqualified_name(column).is_err() {
            return Err(Error::configuration(format!(
                "steps.{}.from: the query gives no column `{column}`",
                step.name
            ))
            .hint("select it too, for example SELECT * FROM cases WHERE …"));
        }
    }
    Ok(frame)
}

/// The step's input with the fingerprint that each case has in the step; the one it came with is `input_fingerprint`.
pub async fn fingerprinted(ctx: &SessionContext, step: &Step, salt: &str) -> Result<DataFrame> {
    let frame = input(ctx, step).await?;
    let frame = without(frame, &["input_fingerprint"])?;
    let frame = frame.with_column("input_fingerprint", col("fingerprint")).map_err(planning)?;
    let hash = FunctionRegistry::udf(ctx, "torcula_fingerprint").map_err(planning)?;
    let print = hash.call(vec![col("input_fingerprint"), lit(salt)]);
    frame.with_column("fingerprint", print).map_err(planning)
}

/// What is left to do of a step of stages: neither done nor known to fail, largest volumes first.
pub async fn todo(ctx: &SessionContext, step: &Step, plan: &StagePlan) -> Result<DataFrame> {
    let all = fingerprinted(ctx, step, &plan.salt).await?;
    if let Output::Shards(shards) = &plan.output {
        return shards_todo(ctx, step, all, shards.samples_per_shard as usize).await;
    }
    let left = anti_join(all, outputs(ctx, step, plan).await?)?;
    let left = anti_join(left, known_failures(ctx, &step.name).await?)?;
    let has = |name: &str| left.schema().field_with_unqualified_name(name).is_ok();
    let mut order = Vec::new();
    if ["shape_x", "shape_y", "shape_z"].into_iter().all(has) {
        order.push((col("shape_x") * col("shape_y") * col("shape_z")).sort(false, false));
    }
    order.push(col("case_id").sort(true, true));
    left.sort(order).map_err(planning)
}

/// Cases whose shard is not written, shard by shard. Cases are ranked by their keys alone: the wide rows are joined last and
/// held once.
async fn shards_todo(
    ctx: &SessionContext,
    step: &Step,
    all: DataFrame,
    size: usize,
) -> Result<DataFrame> {
    replace(ctx, "__salted", all)?;
    let query = format!(
        "WITH ranked AS (SELECT case_id AS {CASE}, fingerprint AS {PRINT}, \
             (CAST(row_number() OVER (ORDER BY case_id) AS BIGINT) - 1) / {size} AS shard_index FROM __salted), \
         shard AS (SELECT shard_index AS __shard, count(*) AS shard_size, \
             torcula_fingerprint(string_agg({PRINT}, ',' ORDER BY {CASE}), 'shard') AS shard_fingerprint \
             FROM ranked GROUP BY shard_index), \
         open AS (SELECT * FROM shard JOIN ranked ON shard_index = __shard WHERE shard_fingerprint NOT IN \
             (SELECT fingerprint FROM artifacts WHERE step = '{}' AND role = 'shard')) \
         SELECT * FROM open JOIN __salted ON case_id = {CASE} AND fingerprint = {PRINT} \
         ORDER BY shard_index, case_id",
        step.name
    );
    ctx.sql(&query).await.map_err(planning)
}

/// Cases of a step that failed for good: the same bytes would fail again.
async fn known_failures(ctx: &SessionContext, step: &str) -> Result<DataFrame> {
    let query = format!(
        "SELECT DISTINCT case_id AS {CASE}, fingerprint AS {PRINT} FROM failures \
         WHERE step = '{step}' AND NOT transient"
    );
    ctx.sql(&query).await.map_err(planning)
}

/// How many of the step's cases are known to fail.
pub async fn count_known_failures(
    ctx: &SessionContext,
    step: &Step,
    plan: &StagePlan,
) -> Result<u64> {
    let all = fingerprinted(ctx, step, &plan.salt).await?;
    let known = known_failures(ctx, &step.name).await?;
    let both = all
        .join(known, JoinType::LeftSemi, &["case_id", "fingerprint"], &[CASE, PRINT], None)
        .map_err(planning)?;
    Ok(both.count().await.map_err(planning)? as u64)
}

/// What the step wrote: a row a case and fingerprint.
async fn outputs(ctx: &SessionContext, step: &Step, plan: &StagePlan) -> Result<DataFrame> {
    let name = &step.name;
    let query = match (&plan.output, plan.marker) {
        (Output::Shards(_), _) => format!(
            "SELECT case_id AS {CASE}, fingerprint AS {PRINT}, \
             max(concat(uri, '#', lpad(CAST(row_index AS VARCHAR), 9, '0'))) AS sample_uri, \
             max(artifact_id) AS source_artifact \
             FROM artifacts WHERE step = '{name}' AND role = 'sample' GROUP BY case_id, fingerprint"
        ),
        (Output::Files, catalog::Table::Artifacts) => {
            let uris: Vec<String> = plan
                .keep
                .iter()
                .map(|s| {
                    format!(
                        ", max(CASE WHEN role = '{}' THEN uri END) AS {}",
                        s.name(),
                        s.uri_column()
                    )
                })
                .collect();
            format!(
                "SELECT case_id AS {CASE}, fingerprint AS {PRINT}{}, \
                 max(CASE WHEN role = 'sidecar' THEN artifact_id END) AS source_artifact \
                 FROM artifacts WHERE step = '{name}' \
                 GROUP BY case_id, fingerprint HAVING max(CASE WHEN role = 'sidecar' THEN 1 END) = 1",
                uris.concat()
            )
        }
        (Output::Files, table) => {
            let columns = if table == Score.table().unwrap_or(catalog::Table::Scores) {
                format!(", {SCORES}")
            } else {
                ", verdict".to_owned()
            };
            format!(
                "SELECT case_id AS {CASE}, fingerprint AS {PRINT}{columns} FROM {} WHERE step = '{name}'",
                table.name()
            )
        }
    };
    ctx.sql(&query).await.map_err(planning)
}

/// The relation that a step is to the steps after it and to `torcula sql`; none for a report.
pub(super) async fn relation(
    ctx: &SessionContext,
    pipeline: &Pipeline,
    step: &Step,
) -> Result<Option<DataFrame>> {
    let query = match &step.action {
        Action::Difference(_) | Action::Report(_) => return Ok(None),
        Action::Ingest(ingest) => {
            format!("SELECT * FROM cases WHERE source = '{}'", ingest.source.replace('\'', "''"))
        }
        Action::Train(_) => format!(
            "SELECT * FROM models WHERE name = '{}' ORDER BY created_at DESC LIMIT 1",
            step.name
        ),
        Action::Cohort(cohort) => {
            return super::cohort::relation(ctx, step, cohort).await.map(Some);
        }
        Action::Split(split) => {
            let made = super::split::fingerprint(ctx, step, split);
            let print = memo::once(ctx, format!("split {}", step.name), made).await?;
            let rows = ctx
                .sql(&format!(
                    "SELECT DISTINCT case_id AS {CASE}, part FROM splits \
                     WHERE split = '{}' AND fingerprint = '{print}'",
                    step.name
                ))
                .await
                .map_err(planning)?;
            let input = without(input(ctx, step).await?, &["part"])?;
            return joined(input, rows, JoinType::Inner, &["case_id"], &[CASE]).map(Some);
        }
        Action::Stages(_) | Action::Infer(_) | Action::Score(_) => {
            let Some(plan) = plan::of_step(ctx, pipeline, step, None).await? else {
                return Ok(Some(input(ctx, step).await?.filter(lit(false)).map_err(planning)?));
            };
            return with_outputs(ctx, step, &plan).await.map(Some);
        }
    };
    Ok(Some(ctx.sql(&query).await.map_err(planning)?))
}

async fn with_outputs(ctx: &SessionContext, step: &Step, plan: &StagePlan) -> Result<DataFrame> {
    let rows = outputs(ctx, step, plan).await?;
    let replaced: Vec<&str> = rows
        .schema()
        .fields()
        .iter()
        .map(|f| f.name().as_str())
        .filter(|n| *n != CASE && *n != PRINT)
        .collect();
    let all = fingerprinted(ctx, step, &plan.salt).await?;
    let mut all = without(all, &replaced)?;
    if plan.keep.contains(&Slot::Image) && plan.marker == catalog::Table::Artifacts {
        all = all.with_column("image_volume", lit(0_i64)).map_err(planning)?;
    }
    if let Some(model) = &plan.model_id {
        all = all.with_column("model_id", lit(model.as_str())).map_err(planning)?;
    }
    joined(all, rows, JoinType::Inner, &["case_id", "fingerprint"], &[CASE, PRINT])
}

/// The rows of `all` that have one among `found` (each row of `all`, in a right join), with its columns. A join holds its
/// first side in memory as long as its plan lives, so that is the narrow one.
fn joined(
    all: DataFrame,
    found: DataFrame,
    kind: JoinType,
    on: &[&str],
    with: &[&str],
) -> Result<DataFrame> {
    let names = |frame: &DataFrame| {
        let fields = frame.schema().fields().clone();
        fields.iter().map(|f| f.name().clone()).collect::<Vec<_>>()
    };
    let order = [names(&all), names(&found)].concat();
    let order: Vec<&str> = order.iter().map(String::as_str).collect();
    let frame = found.join(all, kind, with, on, None).map_err(planning)?;
    without(frame.select_columns(&order).map_err(planning)?, &[CASE, PRINT])
}

/// The rows of `all` that are not among `done`. The keys of `done` are what the join holds in memory; the wide rows stream by.
fn anti_join(all: DataFrame, done: DataFrame) -> Result<DataFrame> {
    done.select_columns(&[CASE, PRINT])
        .and_then(|keys| {
            keys.join(all, JoinType::RightAnti, &[CASE, PRINT], &["case_id", "fingerprint"], None)
        })
        .map_err(planning)
}

/// The frame without those of the columns that it has.
pub(super) fn without(frame: DataFrame, columns: &[&str]) -> Result<DataFrame> {
    let kept: Vec<Expr> = frame
        .schema()
        .columns()
        .into_iter()
        .filter(|c| !columns.contains(&c.name.as_str()))
        // The alias drops the table's qualifier, so that a relation's columns have plain names.
        .map(|c| {
            let name = c.name.clone();
            Expr::Column(c).alias(name)
        })
        .collect();
    frame.select(kept).map_err(planning)
}

/// The one text of a query that gives one row and one column; none where it is null or there is no row.
pub async fn one_text(ctx: &SessionContext, query: &str) -> Result<Option<String>> {
    let batches = catalog::sql(ctx, query).await?;
    let Some(batch) = batches.iter().find(|b| b.num_rows() > 0) else { return Ok(None) };
    let text = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8)
        .map_err(|e| Error::bug(e.to_string()))?;
    Ok((!text.is_null(0)).then(|| text.as_string::<i32>().value(0).to_owned()))
}

/// The one number of a query that counts.
pub async fn count(ctx: &SessionContext, query: &str) -> Result<u64> {
    Ok(one_text(ctx, query).await?.and_then(|n| n.parse().ok()).unwrap_or(0))
}

/// Whether a relation of the session has a column.
pub async fn has(ctx: &SessionContext, relation: &str, column: &str) -> Result<bool> {
    let frame = ctx.table(TableReference::bare(relation)).await.map_err(planning)?;
    Ok(frame.schema().field_with_unqualified_name(column).is_ok())
}

/// Where the cases of a step come from, as SQL on one line; empty for an ingest.
pub fn source(step: &Step) -> String {
    match &step.from {
        Source::None => String::new(),
        Source::Sql { query, .. } => query.split_whitespace().collect::<Vec<_>>().join(" "),
        Source::Step { name, part: None } => format!("SELECT * FROM {}", quoted(name)),
        Source::Step { name, part: Some(part) } => {
            format!("SELECT * FROM {} WHERE part = '{}'", quoted(name), part.replace('\'', "''"))
        }
    }
}

/// A name as SQL takes it, whatever its letters.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// An error of DataFusion about a plan that Torcula made.
pub fn planning(error: datafusion::error::DataFusionError) -> Error {
    Error::bug(format!("query: {}", error.strip_backtrace()))
}
