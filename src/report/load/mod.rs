//! Fills [`ReportData`] by SQL over the catalog. One file a section of the page; [`query`] is what they share.

mod exclusions;
pub(super) mod flow;
pub(super) mod pictures;
mod quality;
pub(super) mod query;
mod scores;
pub(super) mod strata;
mod training;

use datafusion::prelude::SessionContext;
use serde::Deserialize;

use super::data::{LineageFacts, Quality, ReportData};
use super::{ReportJob, exhibits};
use crate::error::Result;
use query::{Source, literal};

/// Asks the catalog for everything on the page.
///
/// `ctx` knows the tables of the catalog by name, and the steps of the pipeline as views. A table or view that it
/// does not know leaves its part of the page empty.
///
/// # Errors
/// Where a query fails.
pub async fn load(ctx: &SessionContext, job: &ReportJob) -> Result<ReportData> {
    let source = Source::new(ctx, job);
    let (flow, failures) = flow::load(&source).await?;
    Ok(ReportData {
        title: job.title.clone(),
        html: job.html.clone(),
        notes: job.notes.clone(),
        tiles: Vec::new(),
        lineage: lineage(&source).await?,
        study: exhibits::load(&source, &job.params).await?,
        shows_run: job.params.shows_run(),
        flow,
        failures,
        quality: match job.text_only {
            true => Quality::default(),
            false => quality::load(&source).await?,
        },
        training: training::load(&source).await?,
        scores: scores::load(&source).await?,
    })
}

#[derive(Deserialize)]
struct Run {
    command: Option<String>,
    started_at: Option<String>,
}

async fn lineage(source: &Source<'_>) -> Result<LineageFacts> {
    let mut facts = source.job.lineage.clone();
    if source.has("runs").await {
        let sql = format!(
            "SELECT command, started_at FROM runs WHERE run_id = {}",
            literal(&facts.run_id)
        );
        if let Some(run) = source.rows::<Run>(&sql).await?.pop() {
            facts.command = facts.command.or(run.command);
            facts.started_at = facts.started_at.or(run.started_at);
        }
    }
    Ok(facts)
}

#[cfg(test)]
mod tests;
