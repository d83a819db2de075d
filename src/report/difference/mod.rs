//! How a scored step differs from an earlier night, as one HTML page and as JSON.
//!
//! [`night`] reads a night by SQL, the earlier one from a session of the catalog as it was; [`mod@compare`] is pure, as are its
//! `alarms`; [`shift`] has the statistics; `page` draws.

mod alarms;
pub mod compare;
pub mod night;
mod page;
pub mod shift;
#[cfg(test)]
mod tests;

use datafusion::prelude::SessionContext;
use serde::Serialize;

use self::compare::{Difference, compare};
use self::night::Night;
use super::load::pictures::{self, CaseFiles, ImageAt};
use super::load::query::Source;
use super::{LineageFacts, ReportJob, blocking, exhibits, html};
use crate::error::{Error, Result};
use crate::formats::files;
use crate::pipeline::DifferenceParams;
use crate::report::data::Picture;

/// What to compare.
#[derive(Debug, Clone)]
pub struct DifferenceJob {
    /// The scored step.
    pub step: String,
    /// The steps whose failures count.
    pub steps: Vec<String>,
    /// The registries whose cases are told of; empty where the pipeline ingests none.
    pub sources: Vec<String>,
    /// What the pipeline declares.
    pub params: DifferenceParams,
    /// The run that tells.
    pub lineage: LineageFacts,
}

/// Which night an earlier one is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NightFacts {
    /// The run that made it.
    pub run_id: String,
    /// The moment that is looked at, RFC 3339 in UTC.
    pub moment: String,
    /// The version of the table cases.
    pub catalog_version: i64,
}

/// An earlier night: the catalog as it was, with the step as the pipeline of that time made it (a baseline needs no step).
pub struct Earlier {
    /// The session.
    pub ctx: SessionContext,
    /// Which night it is.
    pub facts: NightFacts,
}

/// What a run says about the difference.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct DifferenceSummary {
    /// The difference in a line.
    pub line: String,
    /// What someone should look at.
    pub alarms: Vec<String>,
    /// Numbers of cases.
    pub counts: compare::Counts,
    /// Whether anything is new, changed, removed, failed or scored anew.
    pub is_news: bool,
    /// The page.
    pub html: std::path::PathBuf,
}

/// Compares the step with what it was, and writes page and JSON. An earlier night, or a baseline, that is not there is told with
/// its reason.
///
/// # Errors
/// A query fails, or a file cannot be written.
pub async fn write(
    now: &SessionContext,
    earlier: Result<Earlier, String>,
    baseline: Result<Earlier, String>,
    job: &DifferenceJob,
) -> Result<DifferenceSummary> {
    let report = ReportJob { steps: job.steps.clone(), ..ReportJob::default() };
    let source = Source::new(now, &report);
    let tonight = Night::load(&source, job).await?;
    let groups = night::groups(&source, &job.step, &job.params.strata).await?;
    let (before, why_not) = load(&earlier, job, &report, true).await;
    // Most often both are one night.
    let is_same = matches!((&earlier, &baseline), (Ok(a), Ok(b)) if a.facts == b.facts);
    let (other, why_no_baseline) = match is_same {
        true => (None, None),
        false => load(&baseline, job, &report, false).await,
    };
    let of_drift = if is_same { before.as_ref() } else { other.as_ref() };
    let mut found = compare(job, before.as_ref(), of_drift, &tonight, &groups);
    found.against = before.as_ref().and(earlier.as_ref().ok()).map(|night| night.facts.clone());
    found.baseline = of_drift.and(baseline.as_ref().ok()).map(|night| night.facts.clone());
    found.notes.extend(why_not.map(|why| format!("There is nothing to compare with: {why}.")));
    let why_no_baseline = why_no_baseline.filter(|_| before.is_some());
    found.notes.extend(why_no_baseline.map(|why| format!("Drift is not computed: {why}.")));
    let shown = match &before {
        Some(before) => shown(job, before, &tonight, &found).await,
        None => Vec::new(),
    };
    publish(job, found, shown).await
}

async fn load(
    earlier: &Result<Earlier, String>,
    job: &DifferenceJob,
    report: &ReportJob,
    with_scores: bool,
) -> (Option<Night>, Option<String>) {
    let earlier = match earlier {
        Err(reason) => return (None, Some(reason.clone())),
        Ok(earlier) => earlier,
    };
    let source = Source::new(&earlier.ctx, report);
    let found = match with_scores {
        true => Night::load(&source, job).await,
        false => Night::input(&source, job).await,
    };
    match found {
        Ok(night) => (Some(night), None),
        Err(error) => {
            let run = &earlier.facts.run_id;
            (None, Some(format!("run {run} cannot be read as it was: {}", error.reason())))
        }
    }
}

/// A moved case, slice by slice, then and now.
struct Shown {
    case_id: String,
    before: Side,
    now: Side,
}

/// One night of it.
struct Side {
    dice: f64,
    volume_truth_ml: f64,
    volume_predicted_ml: f64,
    slices: Result<Vec<Picture>, String>,
}

async fn shown(job: &DifferenceJob, before: &Night, now: &Night, found: &Difference) -> Vec<Shown> {
    let mut all = Vec::new();
    for moved in found.moved.iter().take(job.params.pictures) {
        let id = &moved.case_id;
        let truth_is_another = match (before.cases.get(id), now.cases.get(id)) {
            (Some(old), Some(new)) => old.truth != new.truth,
            _ => false,
        };
        let mut then = side(before, id).await;
        if truth_is_another {
            then.slices = Err("the reference mask of that night was replaced".to_owned());
        }
        all.push(Shown { case_id: id.clone(), before: then, now: side(now, id).await });
    }
    all
}

async fn side(night: &Night, id: &str) -> Side {
    let case = night.scored.get(id).cloned().unwrap_or_default();
    let [image, truth, prediction] = case.files;
    let slices = match (image, truth, prediction) {
        (Some(image), Some(truth), Some(prediction)) => {
            let image = ImageAt { uri: image, volume: case.image_volume };
            pictures::slices(CaseFiles { prepared: None, image, truth, prediction }).await
        }
        _ => Err("the step does not keep image, mask and prediction".to_owned()),
    };
    Side {
        dice: case.values[0].unwrap_or_default(),
        volume_truth_ml: case.volume_truth_ml.unwrap_or_default(),
        volume_predicted_ml: case.values[3].unwrap_or_default(),
        slices,
    }
}

async fn publish(
    job: &DifferenceJob,
    found: Difference,
    shown: Vec<Shown>,
) -> Result<DifferenceSummary> {
    let summary = DifferenceSummary {
        line: page::line(&found),
        alarms: found.alarms.iter().map(|alarm| alarm.text.clone()).collect(),
        counts: found.counts,
        is_news: page::is_news(&found),
        html: job.params.html.clone(),
    };
    let job = job.clone();
    blocking(move || {
        let data = page::report(&job, &found, shown);
        let text = serde_json::to_string_pretty(&found).map_err(|e| Error::bug(e.to_string()))?;
        files::publish(&job.params.json(), |out| Ok(out.write_all(text.as_bytes())?))?;
        let page = html::page(&data, &exhibits::files::Written::default());
        files::publish(&job.params.html, |out| Ok(out.write_all(page.as_bytes())?))
    })
    .await??;
    Ok(summary)
}
