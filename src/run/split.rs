//! A split step: reads who is to be divided and who was before, lets [`crate::study::split`] draw, and writes the parts
//! with the query, the parameters, the seed and the catalog's version.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::prelude::SessionContext;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::catalog::{self, Catalog, Table};
use crate::engine::Record;
use crate::error::{Error, Result};
use crate::pipeline::{Action, Division, Pipeline, SplitParams, Step};
use crate::study::split::{self, Drawn, History, Member, Placed, Report, strata};

use super::memo::Memo;
use super::{Runner, StepReport, plan, relations, session};

/// To be raised when the same members and parameters are divided otherwise.
const VERSION: u32 = 2;

/// Identifies the split: its parameters, the seed, and who is divided.
pub async fn fingerprint(
    ctx: &SessionContext,
    step: &Step,
    action: &SplitParams,
) -> Result<String> {
    let salt = json!({
        "parameters": action, "seed": step.seed, "step": step.name, "version": VERSION,
    });
    let query = members_query(ctx, step, action).await?;
    plan::hash_rows(ctx, &query, &salt.to_string()).await
}

/// The columns that a split looks at: what holds patients together, what divides them, and the strata.
fn columns(action: &SplitParams) -> Vec<(&'static str, &str)> {
    let value = action.leave_out.iter().map(|c| ("leave_out", c.as_str()));
    let strata = action.stratify.iter().map(|c| ("stratify", c.as_str()));
    std::iter::once(("by", action.by.as_str())).chain(value).chain(strata).collect()
}

/// The query that gives case, patient, dividing value and strata, in order.
async fn members_query(ctx: &SessionContext, step: &Step, action: &SplitParams) -> Result<String> {
    let name = format!("__split_{}", step.name);
    let input = relations::input(ctx, step).await?;
    let known: BTreeSet<String> =
        input.schema().fields().iter().map(|f| f.name().clone()).collect();
    for (key, column) in columns(action) {
        if !known.contains(column) {
            return Err(Error::configuration(format!(
                "steps.{}.split.{key}: the input has no column `{column}`",
                step.name
            ))
            .hint(format!("it has: {}", known.into_iter().collect::<Vec<_>>().join(", "))));
        }
    }
    relations::replace(ctx, &name, input)?;
    let text = |column: &str| format!("CAST({} AS VARCHAR)", relations::quoted(column));
    let value = action.leave_out.as_deref().map_or("CAST(NULL AS VARCHAR)".to_owned(), text);
    let strata: String = (0..action.stratify.len())
        .map(|n| format!(", {} AS __stratum{n}", relations::quoted(&action.stratify[n])))
        .collect();
    Ok(format!(
        "SELECT case_id, coalesce({}, case_id) AS __by, {value} AS __value{strata} FROM {} ORDER BY case_id",
        text(&action.by),
        relations::quoted(&name)
    ))
}

/// Who is to be divided.
async fn members(ctx: &SessionContext, step: &Step, action: &SplitParams) -> Result<Vec<Member>> {
    #[derive(Deserialize)]
    struct Row {
        case_id: String,
        __by: String,
        __value: Option<String>,
        #[serde(flatten)]
        strata: BTreeMap<String, Value>,
    }
    let query = members_query(ctx, step, action).await?;
    let rows: Vec<Row> = catalog::rows(&catalog::sql(ctx, &query).await?)?;
    if let Some(pair) = rows.windows(2).find(|pair| pair[0].case_id == pair[1].case_id) {
        let found = format!("its input gives the case {} more than once", pair[0].case_id);
        return Err(Error::configuration(found).hint("check the joins of its query"));
    }
    let column = |n: usize| -> Vec<Value> {
        let key = format!("__stratum{n}");
        rows.iter().map(|row| row.strata.get(&key).cloned().unwrap_or_default()).collect()
    };
    let values: Vec<(&str, Vec<Value>)> =
        action.stratify.iter().enumerate().map(|(n, name)| (name.as_str(), column(n))).collect();
    let strata = strata::strata(&values, rows.len())?;
    let member = |(row, stratum): (Row, String)| Member {
        case_id: row.case_id,
        group: row.__by,
        stratum,
        value: row.__value,
    };
    Ok(rows.into_iter().zip(strata).map(member).collect())
}

/// The parts that cases were given before by a split of this name, these parameters and this seed.
async fn history(ctx: &SessionContext, step: &Step, parameters: &str) -> Result<History> {
    #[derive(Deserialize)]
    struct Row {
        case_id: String,
        part: String,
    }
    let query = format!(
        "SELECT DISTINCT case_id, part FROM splits WHERE split = '{}' AND seed = {} AND parameters = '{}'",
        step.name,
        step.seed.cast_signed(),
        parameters.replace('\'', "''")
    );
    let rows: Vec<Row> = catalog::rows(&catalog::sql(ctx, &query).await?)?;
    let mut history = History::new();
    for row in rows {
        history.entry(row.case_id).or_default().insert(row.part);
    }
    Ok(history)
}

/// The parts as they would be drawn from the cases of a session.
pub(super) async fn drawing(
    ctx: &SessionContext,
    step: &Step,
    action: &SplitParams,
) -> Result<Drawn> {
    draw(ctx, step, action, &members(ctx, step, action).await?).await
}

async fn draw(
    ctx: &SessionContext,
    step: &Step,
    action: &SplitParams,
    members: &[Member],
) -> Result<Drawn> {
    let history = history(ctx, step, &json!(action).to_string()).await?;
    split::draw(action, step.seed, &step.name, members, &history)
}

/// Runs a split step: nothing to do where exactly this split is in the catalog.
pub(super) async fn run(
    runner: &Runner<'_>,
    step: &Step,
    action: &SplitParams,
) -> Result<StepReport> {
    let ctx = runner.session(Some(&step.name)).await?;
    let named = |error: Error| error.context(format!("steps.{}.split", step.name));
    let print = fingerprint(&ctx, step, action).await?;
    let members = members(&ctx, step, action).await.map_err(named)?;
    let mut report = StepReport::new(&step.name, members.len() as u64);
    let known = format!(
        "SELECT count(DISTINCT case_id) FROM splits WHERE split = '{}' AND fingerprint = '{print}'",
        step.name
    );
    report.unchanged = relations::count(&ctx, &known).await?;
    if report.unchanged > 0 {
        return Ok(report);
    }
    let drawn = draw(&ctx, step, action, &members).await.map_err(named)?;
    let parameters = json!(action).to_string();
    let groups: BTreeMap<&str, &str> =
        members.iter().map(|m| (m.case_id.as_str(), m.group.as_str())).collect();
    let query = relations::source(step);
    let mut records = Vec::with_capacity(drawn.rows.len());
    for (case_id, part) in &drawn.rows {
        *report.parts.entry(part.clone()).or_default() += 1;
        let row = json!({
            "split": step.name, "case_id": case_id, "subject_id": groups.get(case_id.as_str()),
            "part": part, "query": query, "parameters": parameters,
        });
        let mut record = Record { table: Table::Splits, row };
        runner.lineage.complete(&mut record, &step.name, case_id, &print);
        records.push(record.row);
    }
    runner.catalog.append_json(Table::Splits, &records).await?;
    report.done = drawn.rows.iter().map(|(case, _)| case).collect::<BTreeSet<_>>().len() as u64;
    report.note = note(action, &report, &drawn);
    Ok(report)
}

/// Sizes, in the order of the sizes where subsamples contain each other, and what a reader should know.
fn note(action: &SplitParams, report: &StepReport, drawn: &Drawn) -> Option<String> {
    let mut parts: Vec<(&String, &u64)> = report.parts.iter().collect();
    let nested = matches!(action.division(), Some(Division::Nested(_)));
    if nested {
        parts.sort_by_key(|(_, n)| **n);
    }
    let sizes: Vec<String> = parts.iter().map(|(part, n)| format!("{part} {n}")).collect();
    let mut notes = vec![sizes.join(if nested { " ⊂ " } else { ", " })];
    if drawn.kept > 0 {
        notes.push(format!("{} patients kept their part, {} are new", drawn.kept, drawn.placed));
    }
    notes.extend(drawn.notes.iter().cloned());
    Some(notes.join("; "))
}

/// A split as people ask for it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SplitView {
    /// The step.
    pub split: String,
    /// The query of the cohort that was divided.
    pub query: String,
    /// Its parameters.
    pub parameters: Value,
    /// The seed.
    pub seed: i64,
    /// The version of the table `cases` when it was drawn.
    pub catalog_version: i64,
    /// When it was drawn.
    pub drawn_at: String,
    /// The columns that it is stratified by.
    pub stratified: Vec<String>,
    /// Cases that were divided; none where subsamples hold a case several times.
    pub cases: Option<usize>,
    /// Parts, proofs, and the balance of the columns asked for.
    pub report: Report,
}

/// Splits of a pipeline, with the balance of `columns`: of those that they are stratified by where that is empty, of none
/// where it is not given.
///
/// # Errors
/// A configuration error where a split is not drawn, or lacks a column.
pub async fn views(
    catalog: &Catalog,
    pipeline: &Pipeline,
    steps: &[&Step],
    columns: Option<&[String]>,
) -> Result<Vec<SplitView>> {
    let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    let ctx = session::of_steps(catalog, pipeline, &pipeline.closure(&names), &Memo::of_a_reader())
        .await?;
    let mut views = Vec::new();
    for step in steps {
        let Action::Split(action) = &step.action else { continue };
        let columns = match columns {
            None => &[][..],
            Some([]) => &action.stratify,
            Some(columns) => columns,
        };
        views.push(view(&ctx, step, action, columns).await?);
    }
    Ok(views)
}

async fn view(
    ctx: &SessionContext,
    step: &Step,
    action: &SplitParams,
    columns: &[String],
) -> Result<SplitView> {
    #[derive(Deserialize)]
    struct Drawing {
        query: String,
        parameters: String,
        seed: i64,
        catalog_version: i64,
        created_at: String,
    }
    let print = fingerprint(ctx, step, action).await?;
    let query = format!(
        "SELECT query, parameters, seed, catalog_version, created_at FROM splits \
         WHERE split = '{}' AND fingerprint = '{print}' ORDER BY created_at LIMIT 1",
        step.name
    );
    let drawn: Vec<Drawing> = catalog::rows(&catalog::sql(ctx, &query).await?)?;
    let Some(drawn) = drawn.into_iter().next() else {
        let found = format!("the split `{}` of these cases and parameters is not drawn", step.name);
        let hint = format!("torcula run FILE --to {}", step.name);
        return Err(Error::configuration(found).hint(hint));
    };
    let rows = placed(ctx, step, action, columns).await?;
    let nested = match action.division() {
        Some(Division::Nested(sizes)) => Some(by_size(sizes.keys(), &rows)),
        _ => None,
    };
    Ok(SplitView {
        split: step.name.clone(),
        query: drawn.query,
        parameters: serde_json::from_str(&drawn.parameters).unwrap_or_default(),
        seed: drawn.seed,
        catalog_version: drawn.catalog_version,
        drawn_at: drawn.created_at,
        stratified: action.stratify.clone(),
        cases: nested.is_none().then_some(rows.len()),
        report: split::check(&rows, nested.as_deref(), columns),
    })
}

/// Names of subsamples, smallest first.
fn by_size<'n>(names: impl Iterator<Item = &'n String>, rows: &[Placed]) -> Vec<String> {
    let size = |name: &String| rows.iter().filter(|row| row.part == *name).count();
    let mut names: Vec<String> = names.cloned().collect();
    names.sort_by_cached_key(size);
    names
}

/// The cases in their parts.
async fn placed(
    ctx: &SessionContext,
    step: &Step,
    action: &SplitParams,
    columns: &[String],
) -> Result<Vec<Placed>> {
    #[derive(Deserialize)]
    struct Row {
        case_id: String,
        __by: String,
        part: String,
        __image: Option<String>,
        #[serde(flatten)]
        values: BTreeMap<String, Value>,
    }
    let image = relations::has(ctx, &step.name, "image_blake3").await?
        && relations::has(ctx, &step.name, "image_volume").await?;
    let image = match image {
        // `concat` would take a missing hash for an empty text.
        true => "image_blake3 || '#' || CAST(image_volume AS VARCHAR)",
        false => "NULL",
    };
    let values: String = columns
        .iter()
        .enumerate()
        .map(|(n, column)| format!(", {} AS __value{n}", relations::quoted(column)))
        .collect();
    let query = format!(
        "SELECT case_id, coalesce(CAST({} AS VARCHAR), case_id) AS __by, part, \
         CAST({image} AS VARCHAR) AS __image{values} FROM {} ORDER BY case_id, part",
        relations::quoted(&action.by),
        relations::quoted(&step.name)
    );
    let rows: Vec<Row> = catalog::rows(&catalog::sql(ctx, &query).await?)?;
    let one = |mut row: Row| Placed {
        values: (0..columns.len())
            .map(|n| row.values.remove(&format!("__value{n}")).unwrap_or_default())
            .collect(),
        case_id: row.case_id,
        group: row.__by,
        part: row.part,
        image: row.__image,
    };
    Ok(rows.into_iter().map(one).collect())
}
