//! Failures, and the flow of cases around them.
//!
//! A failure counts while it stands: it is the newest of its case in its step, and the step does not hold the case. A
//! case that fails in several steps is lost once, at the first.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Deserialize;

use super::exclusions::{excluded, with_rest};
use super::query::{Source, identifier, literal};
use crate::error::Result;
use crate::report::data::{Exclusion, FailedCase, Failures, Flow, Part, StageCount, Station};
use crate::report::reasons::Reasons;

/// Most failures that are listed on the page.
const LISTED: usize = 200;
/// Most reasons of one stage in the flow.
const REASONS: usize = 8;
/// The stage whose failures have no row in the table cases.
const INGEST: &str = "ingest";

/// The flow of cases and the failures.
pub async fn load(source: &Source<'_>) -> Result<(Flow, Failures)> {
    let mut failures = Failures::default();
    let mut lost = Lost::default();
    if source.has("failures").await {
        failures.sql = failures_sql(source).await;
        let parts = part_of_case(source).await?;
        let mut cases = HashSet::new();
        source
            .each(&failures.sql, |row: FailedCase| {
                failures.total += 1;
                match failures
                    .by_stage
                    .iter_mut()
                    .find(|s| s.step == row.step && s.stage == row.stage)
                {
                    Some(stage) => stage.failures += 1,
                    None => failures.by_stage.push(StageCount {
                        step: row.step.clone(),
                        stage: row.stage.clone(),
                        failures: 1,
                    }),
                }
                if cases.insert(row.case_id.clone()) {
                    lost.add(source, &row, parts.get(&row.case_id));
                }
                if failures.rows.len() < LISTED {
                    failures.rows.push(row);
                }
            })
            .await?;
        failures.cases = cases.len() as u64;
    }
    let flow = flow(source, &lost, &failures.sql).await?;
    Ok((flow, failures))
}

/// The failures that stand, in the order of the pipeline.
pub async fn failures_sql(source: &Source<'_>) -> String {
    let job = source.job;
    let mut held = Vec::new();
    for step in &job.steps {
        if let Some(cases) = source.cases_of(step).await {
            held.push(format!("SELECT {} AS step, case_id FROM ({cases})", literal(step)));
        }
    }
    // Without steps or tables to ask, every failure stands.
    let held = if held.is_empty() {
        "SELECT step, case_id FROM failures WHERE false".to_owned()
    } else {
        held.join("\n  UNION ALL ")
    };
    let order: String = job
        .steps
        .iter()
        .enumerate()
        .map(|(i, s)| format!(" WHEN {} THEN {i}", literal(s)))
        .collect();
    let order =
        if order.is_empty() { "l.step".to_owned() } else { format!("CASE l.step{order} END") };
    format!(
        "WITH latest AS (\n  SELECT *, row_number() OVER (PARTITION BY step, case_id ORDER BY created_at DESC, run_id DESC) AS age\n  \
         FROM failures WHERE true{pipeline}\n), held AS (\n  SELECT DISTINCT step, case_id FROM (\n  {held})\n)\n\
         SELECT l.step, l.stage, l.case_id, l.fault, l.reason, l.hint, l.transient\n\
         FROM latest l LEFT JOIN held h ON h.step = l.step AND h.case_id = l.case_id\n\
         WHERE l.age = 1 AND h.case_id IS NULL\nORDER BY {order}, l.stage, l.case_id",
        pipeline = source.of_the_pipeline(),
    )
}

/// Lost cases by step and stage, and by where in the flow they are told.
#[derive(Default)]
struct Lost {
    /// In the order of the pipeline: place, then what was lost there.
    at: Vec<(Where, String, Reasons, u64)>,
}

/// Between which stations a case was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    Ingest,
    Preparation,
    Split,
    Training,
    Scoring,
}

impl Lost {
    fn add(&mut self, source: &Source<'_>, row: &FailedCase, part: Option<&String>) {
        let place = place(source, row);
        let label = match part.filter(|_| place == Where::Training) {
            Some(part) => format!("{part}, {} › {}", row.step, row.stage),
            None => format!("{} › {}", row.step, row.stage),
        };
        let found = self.at.iter().position(|(w, l, ..)| *w == place && *l == label);
        let index = found.unwrap_or_else(|| {
            self.at.push((place, label, Reasons::default(), 0));
            self.at.len() - 1
        });
        let (_, _, reasons, cases) = &mut self.at[index];
        reasons.add(&row.case_id, &row.reason);
        *cases += 1;
    }

    fn at(&self, place: Where) -> Vec<Exclusion> {
        let here = self.at.iter().filter(|(w, ..)| *w == place);
        here.map(|(_, label, reasons, cases)| Exclusion {
            place: label.clone(),
            cases: *cases,
            reasons: reasons.list(REASONS),
        })
        .collect()
    }
}

fn place(source: &Source<'_>, row: &FailedCase) -> Where {
    let job = source.job;
    let position = |step: &Option<String>| {
        let step = step.as_deref()?;
        job.steps.iter().position(|s| s == step)
    };
    let here = job.steps.iter().position(|s| *s == row.step);
    let is = |step: &Option<String>| step.as_deref() == Some(row.step.as_str());
    if row.stage == INGEST {
        Where::Ingest
    } else if is(&job.scores_step) || is(&job.predicted_step) {
        Where::Scoring
    } else if is(&job.prepared_step)
        || here <= position(&job.prepared_step) && job.prepared_step.is_some()
    {
        Where::Preparation
    } else if job.split_step.is_none() {
        Where::Scoring
    } else if here <= position(&job.split_step) {
        Where::Split
    } else {
        Where::Training
    }
}

#[derive(Deserialize)]
struct CaseAndPart {
    case_id: String,
    part: String,
}

/// The part, or parts, of every case of the split: from its view, or the newest draw.
async fn drawn_sql(source: &Source<'_>, split: &str) -> String {
    if source.view_has(split, "part").await {
        return format!("SELECT DISTINCT case_id, part FROM {}", identifier(split));
    }
    format!(
        "SELECT case_id, part FROM (\n  SELECT case_id, part, rank() OVER (PARTITION BY case_id ORDER BY run_id DESC) AS age\n  \
         FROM splits WHERE split = {})\nWHERE age = 1",
        literal(split)
    )
}

async fn part_of_case(source: &Source<'_>) -> Result<HashMap<String, String>> {
    let Some(split) = source.job.split_step.as_deref() else { return Ok(HashMap::new()) };
    if !source.has("splits").await {
        return Ok(HashMap::new());
    }
    let failed = "SELECT case_id FROM failures";
    let sql =
        format!("SELECT * FROM ({}) WHERE case_id IN ({failed})", drawn_sql(source, split).await);
    let rows: Vec<CaseAndPart> = source.rows(&sql).await?;
    Ok(rows.into_iter().map(|row| (row.case_id, row.part)).collect())
}

#[derive(Deserialize)]
struct Counted {
    #[serde(default)]
    label: String,
    cases: u64,
    #[serde(default)]
    scored: u64,
}

/// `failed` is the query for the failures that stand, or empty.
async fn flow(source: &Source<'_>, lost: &Lost, failed: &str) -> Result<Flow> {
    let job = source.job;
    let mut queries = Vec::new();
    let mut before = stations_of_ingest(source, lost, &mut queries).await?;
    let mut left = before.last().map_or(0, |s| s.cases);
    if let Some(step) = &job.prepared_step
        && let Some(held) = source.cases_of(step).await
    {
        let sql = format!("SELECT count(DISTINCT case_id) AS cases FROM ({held})");
        let cases = one(source, &sql).await?;
        let excluded = excluded(source, &held, failed, &mut queries).await?;
        let exclusions = with_rest(lost.at(Where::Preparation), left, cases, step, excluded);
        before.push(Station {
            label: "Prepared".to_owned(),
            cases,
            detail: vec![format!("step {step}")],
            exclusions,
        });
        queries.push(sql);
        left = cases;
    }
    let parts = match &job.split_step {
        Some(split) if source.has("splits").await => {
            let sql = parts_sql(source, split).await;
            let parts = parts(source, &sql).await?;
            queries.push(sql);
            parts
        }
        _ => Vec::new(),
    };
    if let Some(split) = job.split_step.as_ref().filter(|_| !parts.is_empty()) {
        let drawn = parts.iter().map(|p| p.cases).sum();
        let exclusions = with_rest(lost.at(Where::Split), left, drawn, split, Vec::new());
        if !exclusions.is_empty() {
            before.push(Station {
                label: "Split".to_owned(),
                cases: drawn,
                detail: vec![format!("step {split}")],
                exclusions,
            });
        }
        left = parts.iter().filter(|p| p.scored > 0).map(|p| p.cases).sum();
    }
    let mut after = Vec::new();
    if let Some(step) = &job.scores_step
        && source.has("scores").await
    {
        let sql = format!(
            "SELECT count(DISTINCT case_id) AS cases FROM ({}\n)",
            super::scores::scored_sql(source).await
        );
        let cases = one(source, &sql).await?;
        let exclusions = with_rest(lost.at(Where::Scoring), left, cases, step, Vec::new());
        after.push(Station {
            label: "Scored".to_owned(),
            cases,
            detail: vec![format!("step {step}")],
            exclusions,
        });
        queries.push(sql);
    }
    Ok(Flow {
        before,
        parts,
        lost_in_training: lost.at(Where::Training),
        after,
        sql: queries.join(";\n\n"),
    })
}

/// `Found` and `Ingested`.
async fn stations_of_ingest(
    source: &Source<'_>,
    lost: &Lost,
    queries: &mut Vec<String>,
) -> Result<Vec<Station>> {
    if !source.has("cases").await {
        return Ok(Vec::new());
    }
    let sql =
        "SELECT source AS label, count(*) AS cases FROM cases GROUP BY source ORDER BY source"
            .to_owned();
    let sources: Vec<Counted> = source.rows(&sql).await?;
    queries.push(sql);
    let cases: u64 = sources.iter().map(|s| s.cases).sum();
    let exclusions = lost.at(Where::Ingest);
    let refused: u64 = exclusions.iter().map(|e| e.cases).sum();
    let detail =
        sources.iter().map(|s| format!("{} {}", s.label, crate::report::tables::count(s.cases)));
    Ok(vec![
        Station { label: "Found".to_owned(), cases: cases + refused, ..Station::default() },
        Station { label: "Ingested".to_owned(), cases, detail: detail.collect(), exclusions },
    ])
}

async fn parts_sql(source: &Source<'_>, split: &str) -> String {
    let drawn = drawn_sql(source, split).await;
    if source.job.scores_step.is_none() || !source.has("scores").await {
        return format!(
            "SELECT part AS label, count(*) AS cases FROM (\n{drawn}\n) GROUP BY part ORDER BY part"
        );
    }
    let scored = super::scores::scored_sql(source).await;
    format!(
        "SELECT d.part AS label, count(*) AS cases, count(s.case_id) AS scored\nFROM (\n{drawn}\n) d LEFT JOIN (\n{scored}\n) s ON s.case_id = d.case_id\n\
         GROUP BY d.part ORDER BY d.part"
    )
}

/// The parts: train, val and test first, in this order.
async fn parts(source: &Source<'_>, sql: &str) -> Result<Vec<Part>> {
    let rows: Vec<Counted> = source.rows(sql).await?;
    let order: BTreeMap<&str, usize> = ["train", "val", "validation", "test"]
        .into_iter()
        .enumerate()
        .map(|(i, name)| (name, i))
        .collect();
    let mut parts: Vec<Part> = rows
        .into_iter()
        .map(|r| Part { part: r.label, cases: r.cases, scored: r.scored })
        .collect();
    parts.sort_by_key(|p| order.get(p.part.as_str()).copied().unwrap_or(usize::MAX));
    Ok(parts)
}

async fn one(source: &Source<'_>, sql: &str) -> Result<u64> {
    let rows: Vec<Counted> = source.rows(sql).await?;
    Ok(rows.first().map_or(0, |row| row.cases))
}
