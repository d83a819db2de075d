//! A difference step: finds the earlier nights, and hands them with tonight to the report.

use serde::Deserialize;

use crate::catalog::{self, SessionAt, Timestamp};
use crate::error::{Error, Result};
use crate::pipeline::{self, Action, DifferenceParams, NightAt, Pipeline, Source, Step};
use crate::report::LineageFacts;
use crate::report::difference::{self, DifferenceJob, Earlier, NightFacts};

use super::{Runner, StepReport};

/// Runs a difference step.
pub(super) async fn run(
    runner: &Runner<'_>,
    step: &Step,
    params: &DifferenceParams,
) -> Result<StepReport> {
    let Source::Step { name: scored, .. } = &step.from else {
        return Err(Error::bug(format!("the step {} reads no step", step.name)));
    };
    let job = job(runner, step, scored, params);
    let against = earlier(runner, Some(scored), params.against.night()).await?;
    let baseline = earlier(runner, None, params.baseline.night()).await?;
    let ctx = runner.session(Some(&step.name)).await?;
    let summary = difference::write(&ctx, against, baseline, &job).await?;
    let mut report = StepReport::new(&step.name, 1);
    report.done = 1;
    report.note = Some(format!("{}; report: {}", summary.line, summary.html.display()));
    report.difference = Some(summary);
    Ok(report)
}

fn job(runner: &Runner<'_>, step: &Step, scored: &str, params: &DifferenceParams) -> DifferenceJob {
    let pipeline = runner.pipeline;
    let needed = pipeline.closure(&[scored]);
    let mut sources: Vec<String> = needed
        .iter()
        .filter_map(|step| match &step.action {
            Action::Ingest(ingest) => Some(ingest.source.clone()),
            _ => None,
        })
        .collect();
    sources.dedup();
    let is_of_cases = |step: &&&Step| !matches!(step.action, Action::Train(_));
    DifferenceJob {
        step: scored.to_owned(),
        steps: needed.iter().filter(is_of_cases).map(|step| step.name.clone()).collect(),
        sources,
        params: params.clone(),
        lineage: LineageFacts {
            run_id: runner.lineage.run_id.clone(),
            pipeline: pipeline.name.clone(),
            pipeline_hash: pipeline.hash.clone(),
            seed: step.seed.cast_signed(),
            software_version: runner.lineage.software_version.clone(),
            catalog_version: Some(runner.lineage.catalog_version),
            ..LineageFacts::default()
        },
    }
}

#[derive(Debug, Deserialize)]
struct Run {
    run_id: String,
    resolved: String,
    started_at: Timestamp,
    ended_at: Option<Timestamp>,
}

/// The catalog as it was on an earlier night, or why there is none. The steps are those of the pipeline as it was run then:
/// its parameters and models are not today's. Without a step that is wanted, only the tables are read.
async fn earlier(
    runner: &Runner<'_>,
    scored: Option<&str>,
    night: Option<NightAt>,
) -> Result<Result<Earlier, String>> {
    let night = night.ok_or_else(|| Error::bug("a night that was not checked"))?;
    let moment = match night {
        NightAt::Version(version) => match runner.catalog.moment_of(version) {
            Ok(moment) => Some(moment),
            Err(error) => return Ok(Err(error.reason().to_owned())),
        },
        NightAt::Moment(moment) => Some(moment),
        NightAt::Last | NightAt::First => None,
    };
    let mut runs = done(runner).await?;
    runs.retain(|run| moment.is_none_or(|moment| run.started_at <= moment));
    let run = match night {
        NightAt::First => runs.into_iter().next(),
        _ => runs.pop(),
    };
    let Some(run) = run else {
        return Ok(Err(match moment {
            None => "this is the first run of the pipeline that is done".to_owned(),
            Some(moment) => format!("no run of this pipeline that is done began before {moment}"),
        }));
    };
    let ended = run.ended_at.unwrap_or(run.started_at);
    let (at, moment) = match (night, moment) {
        (NightAt::Version(version), Some(moment)) => (SessionAt::Version(version), moment),
        (_, Some(moment)) => (SessionAt::Timestamp(moment), moment),
        _ => (SessionAt::Timestamp(ended), ended),
    };
    Ok(open(runner, scored, &run, at, moment).await.map_err(|error| {
        format!("run {} cannot be read as it was: {}", run.run_id, error.reason())
    }))
}

async fn open(
    runner: &Runner<'_>,
    scored: Option<&str>,
    run: &Run,
    at: SessionAt,
    moment: Timestamp,
) -> Result<Earlier> {
    let ctx = match scored {
        None => runner.catalog.session(at).await?,
        Some(scored) => {
            let pipeline: Pipeline =
                pipeline::load_text("the earlier run's pipeline", &run.resolved, &[])
                    .map_err(|found| Error::configuration(format!("its pipeline: {found}")))?;
            let steps = pipeline.closure(&[scored]);
            if !steps.iter().any(|step| step.name == scored) {
                return Err(Error::configuration(format!("it had no step `{scored}`")));
            }
            super::session::of_the_past(&runner.catalog, at, &pipeline, &steps).await?
        }
    };
    let catalog_version = runner.catalog.version_of(at)?;
    let moment = moment.to_string();
    let facts = NightFacts { run_id: run.run_id.clone(), moment, catalog_version };
    Ok(Earlier { ctx, facts })
}

/// Earlier runs of this pipeline that were done, first to last.
async fn done(runner: &Runner<'_>) -> Result<Vec<Run>> {
    let ctx = runner.catalog.session(SessionAt::Latest).await?;
    let text = |text: &str| text.replace('\'', "''");
    let query = format!(
        "SELECT run_id, resolved, started_at, ended_at FROM runs WHERE pipeline = '{}' AND run_id <> '{}' AND status = 'done' \
         ORDER BY started_at, run_id",
        text(&runner.pipeline.name),
        text(&runner.lineage.run_id)
    );
    catalog::rows(&catalog::sql(&ctx, &query).await?)
}
