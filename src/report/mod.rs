//! The report of a run: one HTML page that stands alone, and its short form for the terminal.
//!
//! [`load`] asks the catalog by SQL and reads the few images that are shown; [`ReportData`] holds the answers;
//! [`exhibits`] are the figures and tables that a study declares; [`html`] and [`summary`] only draw what is in it. Under
//! each figure stands the SQL that made it, which `torcula sql` answers too.

pub mod charts;
pub mod data;
pub mod difference;
#[cfg(test)]
mod example;
pub mod exhibits;
pub mod html;
mod load;
pub mod montage;
mod reasons;
pub mod stats;
pub mod summary;
pub mod tables;

use std::path::PathBuf;

use datafusion::prelude::SessionContext;

use crate::error::{Error, Result};
use crate::formats::files;
use crate::pipeline::ReportParams;
pub use data::{LineageFacts, ReportData};
pub use load::load;

/// What to report on. A step that the pipeline does not have is none; its part of the page then says so.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReportJob {
    /// The heading.
    pub title: String,
    /// Where the page is written.
    pub html: PathBuf,
    /// What the pipeline declares to show.
    pub params: ReportParams,
    /// What a reader must know before the figures, such as a model tested on its own training case.
    pub notes: Vec<String>,
    /// The names of all steps in the order of the pipeline; failures of other steps are another pipeline's. Empty:
    /// failures of every step.
    pub steps: Vec<String>,
    /// The cohorts through which cases come to `prepared_step`, in the order of the pipeline.
    pub cohorts: Vec<String>,
    /// The step whose images are shown and whose cases were split.
    pub prepared_step: Option<String>,
    /// The step that split the cases.
    pub split_step: Option<String>,
    /// The step that trained the model.
    pub model_step: Option<String>,
    /// The step that predicted.
    pub predicted_step: Option<String>,
    /// The step that scored.
    pub scores_step: Option<String>,
    /// The variables by which scores are divided: columns of the table cases, or `volume_ml`.
    pub strata: Vec<String>,
    /// Whether only the terminal's summary is wanted: no image is opened, and what it does not show is not asked for.
    pub text_only: bool,
    /// The run; `command` and `started_at` are looked up in the table runs where they are none.
    pub lineage: LineageFacts,
}

/// What a run says about its report.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReportSummary {
    /// The page.
    pub html: PathBuf,
    /// Cases found.
    pub cases: u64,
    /// Cases quarantined.
    pub failed: u64,
    /// Cases scored.
    pub scored: u64,
    /// Mean Dice similarity coefficient.
    pub mean_dice: Option<f64>,
    /// Its standard deviation; none below two cases.
    pub sd_dice: Option<f64>,
    /// The summary for the terminal.
    pub text: String,
}

impl ReportSummary {
    fn of(data: &ReportData) -> Self {
        let overall = data.scores.as_ref().map(|scores| &scores.overall);
        Self {
            html: data.html.clone(),
            cases: data.flow.before.first().map_or(0, |station| station.cases),
            failed: data.failures.cases,
            scored: overall.map_or(0, |group| group.n),
            mean_dice: overall.and_then(|group| group.dice.mean),
            sd_dice: overall.and_then(|group| group.dice.sd),
            text: summary::text(data),
        }
    }
}

/// Makes the page of a run from the tables and steps that `ctx` knows by name, and puts it at `job.html`, with the files of
/// the study's figures and tables beside it.
///
/// # Errors
/// Where a query fails or the page cannot be written. An image that cannot be read is not an error: the page says why.
pub async fn write(ctx: &SessionContext, job: &ReportJob) -> Result<ReportSummary> {
    let data = load(ctx, job).await?;
    let summary = ReportSummary::of(&data);
    blocking(move || {
        let written = exhibits::files::write(&data.html, &data.study)?;
        let page = html::page(&data, &written);
        files::publish(&data.html, |out| Ok(out.write_all(page.as_bytes())?))
    })
    .await??;
    Ok(summary)
}

/// Runs work on files or pixels where it holds up no asynchronous worker.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::bug(format!("the report: {e}")))
}
