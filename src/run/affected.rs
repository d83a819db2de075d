//! What edits of the registry make a pipeline's next run do again.

use std::collections::{BTreeSet, HashSet};

use datafusion::prelude::{SessionContext, col, lit};
use serde::Deserialize;
use serde_json::json;

use crate::catalog::curation::EXCLUDED;
use crate::catalog::{self, Catalog, CurationRow};
use crate::error::Result;
use crate::pipeline::{Action, Output, Pipeline, Step};

use super::memo::Memo;
use super::relations;
use super::session::Growing;
use super::{plan, split, train};

/// What edits, made or not, make a pipeline's next run do again: each step that is affected, and how. Steps of one matrix
/// that are affected alike are one line.
///
/// # Errors
/// A step cannot be planned.
pub async fn affected(
    catalog: &Catalog,
    pipeline: &Pipeline,
    edits: &[CurationRow],
) -> Result<Vec<(String, String)>> {
    let mut before = Growing::new(catalog.session_if(&[]).await?, pipeline, Memo::of_a_reader());
    let mut after = Growing::new(catalog.session_if(edits).await?, pipeline, Memo::of_a_reader());
    let ids: BTreeSet<&str> = edits.iter().map(|edit| edit.case_id.as_str()).collect();
    let mut affected = Affected::default();
    // A variable is asked for by the column that holds it.
    let column =
        |edit: &'_ CurationRow| edit.column_name.split('.').next().unwrap_or_default().to_owned();
    let columns: BTreeSet<String> = edits.iter().map(column).collect();
    // Steps that hand on other rows, or values made of what is edited: what reads them is looked at, and what names an edited
    // column itself. And steps whose output is not known before they ran, so that those after them cannot be compared.
    let (mut touched, mut open): (HashSet<&str>, HashSet<&str>) = Default::default();
    for step in &pipeline.steps {
        if let Action::Ingest(_) = step.action {
            if columns.contains(EXCLUDED) {
                touched.insert(&step.name);
            }
            continue;
        }
        if step.action.tells() {
            if !affected.lines.is_empty() {
                affected.add(step, "written again, as in every run".to_owned());
            }
            continue;
        }
        if let Some(first) = step.upstream.iter().find(|name| open.contains(name.as_str())) {
            open.insert(&step.name);
            let first = pipeline.step(first).map_or(first.as_str(), family);
            affected.add(step, format!("follows {first}"));
            continue;
        }
        let query = relations::source(step).to_lowercase();
        let named = |text: &str| columns.iter().any(|column| text.contains(column.as_str()));
        let named_here = named(&query) || named(&settings(step));
        if !named_here && !step.upstream.iter().any(|name| touched.contains(name.as_str())) {
            continue;
        }
        let needed = pipeline.closure(&[&step.name]);
        before.add(&needed).await?;
        after.add(&needed).await?;
        let found = change(&before.ctx, &after.ctx, pipeline, step).await?;
        // A step that does the same may hand on a column that its query makes of an edited one.
        if found.is_some() || named(&query) && reads(&before.ctx, step, &ids).await? {
            touched.insert(&step.name);
        }
        let Some((what, opens)) = found else { continue };
        if opens {
            open.insert(&step.name);
        }
        affected.add(step, what);
    }
    Ok(affected.lines.into_iter().map(|(name, _, what)| (name, what)).collect())
}

/// What a cohort or split is told besides its query, as text.
fn settings(step: &Step) -> String {
    match &step.action {
        Action::Cohort(params) => json!(params).to_string(),
        Action::Split(params) => json!(params).to_string(),
        _ => String::new(),
    }
}

/// Whether any of the cases is among those that a step asks for.
async fn reads(ctx: &SessionContext, step: &Step, ids: &BTreeSet<&str>) -> Result<bool> {
    let ids = ids.iter().map(|id| lit(*id)).collect();
    let found = relations::asked(ctx, step).await?.filter(col("case_id").in_list(ids, false));
    let count = found.and_then(|found| found.limit(0, Some(1))).map_err(relations::planning)?;
    Ok(count.count().await.map_err(relations::planning)? > 0)
}

/// The matrix that a step belongs to, or the step.
fn family(step: &Step) -> &str {
    step.part_of.as_ref().map_or(&step.name, |part_of| &part_of.name)
}

/// Affected steps: what a line calls them, how many they are, and how they are affected.
#[derive(Default)]
struct Affected {
    lines: Vec<(String, usize, String)>,
}

impl Affected {
    fn add(&mut self, step: &Step, what: String) {
        let family = family(step);
        let together = self.lines.iter_mut().find(|(name, _, told)| {
            *told == what && step.part_of.is_some() && name.split(" (").next() == Some(family)
        });
        match together {
            Some((name, n, _)) => {
                *n += 1;
                *name = format!("{family} ({n} steps)");
            }
            None if step.part_of.is_some() => {
                self.lines.push((format!("{family} (1 step)"), 1, what));
            }
            None => self.lines.push((step.name.clone(), 1, what)),
        }
    }
}

/// How a step is affected, and whether those after it can only follow.
async fn change(
    before: &SessionContext,
    after: &SessionContext,
    pipeline: &Pipeline,
    step: &Step,
) -> Result<Option<(String, bool)>> {
    Ok(match &step.action {
        Action::Cohort(_) => {
            let (old, new) = (cases(before, step).await?, cases(after, step).await?);
            let (out, come) = (old.difference(&new).count(), new.difference(&old).count());
            (out + come > 0).then(|| (cohort_told(new.len(), out, come), false))
        }
        Action::Split(params) => {
            let old = split::fingerprint(before, step, params).await?;
            if old == split::fingerprint(after, step, params).await? {
                return Ok(None);
            }
            Some(match split::drawing(after, step, params).await {
                Ok(_) => ("drawn again from its changed cases".to_owned(), true),
                Err(error) => (format!("cannot be drawn: {}", error.reason()), true),
            })
        }
        Action::Train(params) => {
            let old = train::fingerprint(before, pipeline, step, params, step.seed).await?;
            let new = train::fingerprint(after, pipeline, step, params, step.seed).await?;
            (old != new).then(|| ("trained again on its changed cases".to_owned(), true))
        }
        Action::Stages(_) | Action::Infer(_) | Action::Score(_) => {
            let (Some(old), Some(new)) =
                (members(before, pipeline, step).await?, members(after, pipeline, step).await?)
            else {
                return Ok(None);
            };
            let (gone, come) = (old.difference(&new).count(), new.difference(&old).count());
            let shards =
                matches!(&step.action, Action::Stages(a) if matches!(a.output, Output::Shards(_)));
            (gone + come > 0).then(|| (counted(gone, come, shards), shards))
        }
        _ => None,
    })
}

fn cases_told(n: usize) -> String {
    if n == 1 { "1 case".to_owned() } else { format!("{n} cases") }
}

fn counted(gone: usize, come: usize, shards: bool) -> String {
    let mut parts = Vec::new();
    if gone > 0 {
        parts.push(format!("{} no more asked for", cases_told(gone)));
    }
    if come > 0 {
        parts.push(format!("{} to do, unless done earlier", cases_told(come)));
    }
    if shards {
        parts.push("its shards are written again".to_owned());
    }
    parts.join(", ")
}

/// The cases of a cohort.
async fn cases(ctx: &SessionContext, step: &Step) -> Result<HashSet<String>> {
    #[derive(Deserialize)]
    struct Row {
        case_id: String,
    }
    let query = format!("SELECT case_id FROM {}", relations::quoted(&step.name));
    let rows: Vec<Row> = catalog::rows(&catalog::sql(ctx, &query).await?)?;
    Ok(rows.into_iter().map(|row| row.case_id).collect())
}

fn cohort_told(all: usize, out: usize, come: usize) -> String {
    let changes = [(out, "out"), (come, "more")];
    let changes = changes.iter().filter(|(n, _)| *n > 0);
    let changes: Vec<String> =
        changes.map(|(n, how)| format!("{} {how}", cases_told(*n))).collect();
    format!("{}: {} are left", changes.join(", "), all)
}

/// The cases of a step with the fingerprints that they have in it; none where its model is not trained.
async fn members(
    ctx: &SessionContext,
    pipeline: &Pipeline,
    step: &Step,
) -> Result<Option<HashSet<(String, String)>>> {
    #[derive(Deserialize)]
    struct Row {
        case_id: String,
        fingerprint: String,
    }
    let Some(plan) = plan::of_step(ctx, pipeline, step, None).await? else { return Ok(None) };
    let frame = relations::fingerprinted(ctx, step, &plan.salt).await?;
    let frame = frame.select_columns(&["case_id", "fingerprint"]).map_err(relations::planning)?;
    let rows: Vec<Row> = catalog::rows(&frame.collect().await.map_err(relations::planning)?)?;
    Ok(Some(rows.into_iter().map(|r| (r.case_id, r.fingerprint)).collect()))
}
