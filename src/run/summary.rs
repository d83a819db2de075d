//! How a run ended, in numbers and as an exit code.

use std::collections::BTreeMap;

use datafusion::prelude::SessionContext;

use crate::catalog::RunStatus;
use crate::engine::{Lineage, Stop};
use crate::error::Error;
use crate::pipeline::{Action, Output, Pipeline, ReportParams, StagesAction};
use crate::report::{self, LineageFacts, ReportJob};

use super::StepReport;

/// Why a run ended.
#[derive(Debug, Clone)]
pub enum Ending {
    /// Every step ran.
    Done,
    /// A step cannot run.
    Failed(Error),
    /// Someone asked it to stop.
    Stopped,
    /// More cases are quarantined than `on_failure` allows; the text says how many.
    OverLimit(String),
    /// Every step ran, and a difference raised an alarm; the text says which.
    Alarm(String),
}

impl Ending {
    /// Of a run that was told to stop, by someone or by a full disk.
    pub fn stopped(stop: &Stop) -> Self {
        stop.reason().cloned().map_or(Self::Stopped, Self::Failed)
    }

    /// The word in the `runs` table.
    pub fn status(&self) -> RunStatus {
        match self {
            Self::Done | Self::Alarm(_) => RunStatus::Done,
            Self::Failed(_) => RunStatus::Failed,
            Self::Stopped => RunStatus::Stopped,
            Self::OverLimit(_) => RunStatus::OverLimit,
        }
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed(error) if error.fault() == crate::error::Fault::Configuration => 2,
            Self::Failed(_) | Self::Stopped => 1,
            Self::OverLimit(_) => 3,
            Self::Alarm(_) => 4,
        }
    }
}

/// A finished run.
#[derive(Debug, Clone)]
pub struct RunSummary {
    /// The run.
    pub run_id: String,
    /// What became of each step that ran.
    pub steps: Vec<StepReport>,
    /// Why it ended.
    pub ending: Ending,
    /// Scores by stratum, as text for the terminal.
    pub scores: Option<String>,
}

/// Whether a step quarantined more cases than the pipeline allows, and by how much. Cases that an earlier run quarantined or did
/// count too.
pub fn over_limit(pipeline: &Pipeline, report: &StepReport) -> Option<String> {
    let mut centres: BTreeMap<String, (u64, u64)> = report
        .centres
        .iter()
        .map(|(centre, (done, failed))| (centre.clone(), (done + failed, *failed)))
        .collect();
    let earlier = report.unchanged + report.known_failed;
    if earlier > 0 {
        centres.insert("earlier runs".to_owned(), (earlier, report.known_failed));
    }
    let reason = pipeline.on_failure.exceeded(&centres)?;
    Some(format!("step {}: {reason}", report.step))
}

/// The alarms that are to change the exit code, as a text; none where there are none.
pub fn alarms(pipeline: &Pipeline, steps: &[StepReport]) -> Option<String> {
    let loud = |report: &&StepReport| match pipeline.step(&report.step).map(|s| &s.action) {
        Some(Action::Difference(params)) => params.alarms.exit_code,
        _ => false,
    };
    let found = steps.iter().filter(loud).filter_map(|report| report.difference.as_ref());
    let alarms: Vec<&str> = found.flat_map(|d| &d.alarms).map(String::as_str).collect();
    (!alarms.is_empty()).then(|| alarms.join("; "))
}

/// A run in a line: how it ended, and what it found or did.
pub fn line(pipeline: &str, steps: &[StepReport], ending: &Ending) -> String {
    let sum = |of: fn(&StepReport) -> u64| steps.iter().map(of).sum::<u64>();
    let seconds: f64 = steps.iter().map(|step| step.elapsed.as_secs_f64()).sum();
    let how = match ending {
        Ending::Done | Ending::Alarm(_) => format!("done in {seconds:.1} s"),
        Ending::Stopped => "stopped".to_owned(),
        Ending::Failed(error) => format!("FAILED: {}", error.reason()),
        Ending::OverLimit(reason) => format!("OVER ITS LIMIT: {reason}"),
    };
    let told: Vec<&str> =
        steps.iter().filter_map(|step| Some(step.difference.as_ref()?.line.as_str())).collect();
    let what = match told.as_slice() {
        [] => format!(
            "{} done, {} unchanged, {} quarantined",
            sum(|s| s.done),
            sum(|s| s.unchanged),
            sum(|s| s.failed + s.known_failed)
        ),
        told => told.join("; "),
    };
    format!("{pipeline}: {how}: {what}")
}

/// What the report is about: the last steps of each kind.
pub fn report_job(pipeline: &Pipeline, params: &ReportParams, lineage: &Lineage) -> ReportJob {
    let last = |wanted: &dyn Fn(&Action) -> bool| {
        pipeline.steps.iter().rev().find(|s| wanted(&s.action)).map(|s| s.name.clone())
    };
    let strata = pipeline.steps.iter().rev().find_map(|s| match &s.action {
        Action::Score(score) => Some(score.strata.clone()),
        _ => None,
    });
    let overfit =
        pipeline.steps.iter().any(|s| matches!(&s.action, Action::Split(split) if split.overfit));
    let same = "Trained and tested on the same cases (overfit): the scores prove that grids, orientation and \
        scoring agree, and say nothing about new cases.";
    let prepared =
        last(&|a| matches!(a, Action::Stages(StagesAction { output: Output::Files, .. })));
    let way = prepared.as_deref().map(|step| pipeline.closure(&[step])).unwrap_or_default();
    ReportJob {
        title: if params.title.is_empty() { &pipeline.name } else { &params.title }.clone(),
        html: params.html.clone(),
        params: params.clone(),
        notes: overfit.then(|| same.to_owned()).into_iter().collect(),
        steps: pipeline
            .steps
            .iter()
            .filter(|s| !s.action.tells() && !matches!(s.action, Action::Train(_)))
            .map(|s| s.name.clone())
            .collect(),
        cohorts: way
            .iter()
            .filter(|s| matches!(s.action, Action::Cohort(_)))
            .map(|s| s.name.clone())
            .collect(),
        prepared_step: prepared,
        split_step: last(&|a| matches!(a, Action::Split(_))),
        model_step: last(&|a| matches!(a, Action::Train(_))),
        predicted_step: last(&|a| matches!(a, Action::Infer(_))),
        scores_step: last(&|a| matches!(a, Action::Score(_))),
        strata: strata.unwrap_or_default(),
        text_only: false,
        lineage: LineageFacts {
            run_id: lineage.run_id.clone(),
            pipeline: pipeline.name.clone(),
            pipeline_hash: pipeline.hash.clone(),
            seed: pipeline.seed.cast_signed(),
            software_version: lineage.software_version.clone(),
            catalog_version: Some(lineage.catalog_version),
            ..LineageFacts::default()
        },
    }
}

/// The scores of the run as text; none where the pipeline has no score step.
pub async fn scores(
    ctx: &SessionContext,
    pipeline: &Pipeline,
    lineage: &Lineage,
) -> Option<String> {
    pipeline.steps.iter().find(|s| matches!(s.action, Action::Score(_)))?;
    let html = pipeline.steps.iter().rev().find_map(|s| match &s.action {
        Action::Report(report) => Some(report.html.clone()),
        _ => None,
    });
    // The terminal shows the scores alone; the study's sections are the page's.
    let params = ReportParams { html: html.unwrap_or_default(), ..ReportParams::default() };
    let job = ReportJob { text_only: true, ..report_job(pipeline, &params, lineage) };
    let data = report::load(ctx, &job).await.ok()?;
    Some(report::summary::text(&data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_as_documented() {
        assert_eq!(Ending::Done.exit_code(), 0);
        assert_eq!(Ending::Stopped.exit_code(), 1);
        assert_eq!(Ending::Failed(Error::io("disk")).exit_code(), 1);
        assert_eq!(Ending::Failed(Error::configuration("key")).exit_code(), 2);
        assert_eq!(Ending::OverLimit(String::new()).exit_code(), 3);
        assert_eq!(Ending::Alarm(String::new()).exit_code(), 4);
    }
}
