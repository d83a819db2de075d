//! What a report shows, as plain values: filled by [`load`](super::load), drawn by [`html`](super::html) and told by
//! [`summary`](super::summary). Nothing here touches a file or a table.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::exhibits::Section;

/// Everything on the page.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReportData {
    /// The heading.
    pub title: String,
    /// Where the page is written; not printed on it.
    pub html: PathBuf,
    /// What a reader must know before the figures, such as a model tested on its own training case.
    pub notes: Vec<String>,
    /// Numbers at the top, before those that every run has.
    #[serde(default)]
    pub tiles: Vec<Tile>,
    /// Where the figures come from.
    pub lineage: LineageFacts,
    /// What the pipeline declares to show.
    #[serde(default)]
    pub study: Vec<Section>,
    /// Whether the parts below are shown.
    #[serde(default)]
    pub shows_run: bool,
    /// From the cases found to the cases scored.
    pub flow: Flow,
    /// Every quarantined case.
    pub failures: Failures,
    /// Quality control.
    pub quality: Quality,
    /// The trained model, where one was trained.
    pub training: Option<Training>,
    /// The scores, where predictions were scored.
    pub scores: Option<Scores>,
}

/// A number at the top of the page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tile {
    /// What it counts.
    pub name: String,
    /// The number.
    pub value: String,
    /// Smaller print under it.
    pub detail: String,
}

/// The run behind a report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineageFacts {
    /// The run.
    pub run_id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// blake3 of the resolved pipeline.
    pub pipeline_hash: String,
    /// The seed.
    pub seed: i64,
    /// The version of Torcula.
    pub software_version: String,
    /// The version of the table cases that the run read.
    pub catalog_version: Option<i64>,
    /// The command line.
    pub command: Option<String>,
    /// When the run started, RFC 3339 in UTC.
    pub started_at: Option<String>,
}

/// How many cases reached each station, and why the others did not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// The stations before the cases are split, first to last.
    pub before: Vec<Station>,
    /// The parts of the split; empty where nothing was split.
    pub parts: Vec<Part>,
    /// Cases of the parts that were lost on the way to training.
    pub lost_in_training: Vec<Exclusion>,
    /// The stations after the split, first to last.
    pub after: Vec<Station>,
    /// The SQL behind the counts.
    pub sql: String,
}

/// A number of cases, and those lost on the way to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Station {
    /// What the cases are here, such as `Prepared`.
    pub label: String,
    /// Number of cases.
    pub cases: u64,
    /// Smaller print under the number, such as the step or the sources.
    pub detail: Vec<String>,
    /// Cases lost since the station before.
    pub exclusions: Vec<Exclusion>,
}

/// Cases that one stage quarantined, or that a step did not ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exclusion {
    /// Where they were lost, such as `prepared › qc`.
    pub place: String,
    /// Number of cases.
    pub cases: u64,
    /// The reasons, most frequent first. Their cases add up to `cases`.
    pub reasons: Vec<Reason>,
}

/// One reason and how many cases share it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The reason; `…` stands where the cases differ.
    pub reason: String,
    /// Number of cases.
    pub cases: u64,
}

/// A part of a split.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// `train`, `val`, `test` or another name from the pipeline.
    pub part: String,
    /// Number of cases.
    pub cases: u64,
    /// How many of them were scored.
    pub scored: u64,
}

/// The quarantined cases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// Number of failures.
    pub total: u64,
    /// Number of cases with a failure.
    pub cases: u64,
    /// The first failures by step, stage and case.
    pub rows: Vec<FailedCase>,
    /// Number of failures of each stage, in the order of the pipeline.
    pub by_stage: Vec<StageCount>,
    /// The SQL that lists all of them.
    pub sql: String,
}

/// One quarantined case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedCase {
    /// The case.
    pub case_id: String,
    /// The step of the pipeline.
    pub step: String,
    /// The stage that failed.
    pub stage: String,
    /// Whose fault it was.
    pub fault: String,
    /// What was found and what was expected.
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Whether the next run tries the case again.
    #[serde(default)]
    pub transient: bool,
}

/// Failures of one stage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageCount {
    /// The step of the pipeline.
    pub step: String,
    /// The stage.
    pub stage: String,
    /// Number of failures.
    pub failures: u64,
}

/// Quality control in figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Cases that were measured.
    pub cases: u64,
    /// Cases of each verdict (`pass`, `warn`, `fail`).
    pub verdicts: Vec<Reason>,
    /// The metrics by centre.
    pub metrics: Vec<CentreMetric>,
    /// The oddest cases, oddest first.
    pub outliers: Vec<Outlier>,
    /// Odd cases that are not among `outliers`.
    pub more_outliers: u64,
    /// The SQL behind the metrics.
    pub sql: String,
}

/// One quality metric in every centre.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CentreMetric {
    /// What is measured, with its unit.
    pub label: String,
    /// The values of each centre, sorted; all finite.
    pub centres: Vec<(String, Vec<f64>)>,
}

/// A case that quality control did not pass, or whose metrics lie far from those of its centre.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outlier {
    /// The case.
    pub case_id: String,
    /// Its hospital.
    pub centre: Option<String>,
    /// `warn`, `fail`, or `unusual` where only the comparison with its centre stands out.
    pub verdict: String,
    /// Why it is shown.
    pub reasons: Vec<String>,
    /// A slice of the image, or why there is none.
    pub picture: PictureResult,
}

/// A picture, or why it could not be made.
pub type PictureResult = Result<Picture, String>;

/// A PNG image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// The PNG file's bytes in base64.
    pub png_base64: String,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// What it shows, for those who do not see it.
    pub alt: String,
}

/// A trained model and how it was trained.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// The model's identifier.
    pub model_id: String,
    /// The step that trained it.
    pub name: String,
    /// The architecture of the network.
    pub architecture: String,
    /// The epoch whose weights were kept.
    pub best_epoch: i64,
    /// Mean Dice similarity coefficient on the validation cases at that epoch.
    pub best_val_dice: Option<f64>,
    /// Cases trained on.
    pub train_cases: i64,
    /// Cases validated on.
    pub val_cases: i64,
    /// The model whose weights it started from.
    pub parent: Option<String>,
    /// One point an epoch.
    pub curve: Vec<CurvePoint>,
    /// The SQL behind the curve.
    pub sql: String,
}

/// One epoch of a training curve.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// The epoch.
    pub epoch: i64,
    /// Mean loss over the training batches.
    #[serde(default)]
    pub train_loss: Option<f64>,
    /// Mean Dice similarity coefficient on the validation cases.
    #[serde(default)]
    pub val_dice: Option<f64>,
    /// Time of the epoch.
    #[serde(default)]
    pub seconds: Option<f64>,
}

/// The scores of one step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The step.
    pub step: String,
    /// All cases together.
    pub overall: Group,
    /// The cases by each stratum.
    pub strata: Vec<Stratum>,
    /// One row a case, by case id.
    pub cases: Vec<ScoredCase>,
    /// How empty masks were counted.
    pub empty_policy: Option<String>,
    /// Best, median and worst case.
    pub examples: Vec<Example>,
    /// The SQL behind `overall`.
    pub sql: String,
    /// The SQL behind `cases`.
    pub cases_sql: String,
}

/// A division of the scored cases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stratum {
    /// The variable, as the pipeline names it.
    pub variable: String,
    /// What it is, with its unit.
    pub label: String,
    /// Its groups, or why there are none.
    pub groups: Result<Vec<Group>, String>,
    /// The SQL behind the groups.
    pub sql: String,
}

/// Scores of a group of cases.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// What the cases have in common.
    pub label: String,
    /// Number of cases.
    pub n: u64,
    /// Dice similarity coefficient.
    pub dice: Spread,
    /// Voxel-wise sensitivity.
    pub sensitivity: Spread,
    /// Voxel-wise precision.
    pub precision: Spread,
    /// F1 score over lesions.
    pub lesion_f1: Spread,
    /// 95th percentile of the Hausdorff distance in mm.
    pub hd95_mm: Spread,
    /// Absolute difference of predicted and true volume in mL.
    pub absolute_volume_difference_ml: Spread,
}

/// The distribution of one score over the cases where it is defined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Number of cases where the score is defined.
    pub n: u64,
    /// Mean; none without cases.
    pub mean: Option<f64>,
    /// Sample standard deviation; none below two cases.
    pub sd: Option<f64>,
    /// Median; none without cases.
    pub median: Option<f64>,
}

impl Spread {
    /// A spread from an aggregate; numbers that are not finite or not defined at this `n` become none.
    pub fn new(n: u64, mean: Option<f64>, sd: Option<f64>, median: Option<f64>) -> Self {
        let defined =
            |value: Option<f64>, least: u64| value.filter(|v| v.is_finite() && n >= least);
        Self { n, mean: defined(mean, 1), sd: defined(sd, 2), median: defined(median, 1) }
    }

    /// Standard error of the mean, SD / √n; none below two cases.
    pub fn standard_error(&self) -> Option<f64> {
        self.sd.map(|sd| sd / (self.n as f64).sqrt())
    }
}

/// One scored case.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ScoredCase {
    /// The case.
    pub case_id: String,
    /// Dice similarity coefficient.
    #[serde(default)]
    pub dice: Option<f64>,
    /// Volume of the reference mask.
    pub volume_truth_ml: f64,
    /// Volume of the predicted mask.
    pub volume_predicted_ml: f64,
}

/// A case shown slice by slice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// `Best`, `Median` or `Worst`.
    pub rank: String,
    /// The case.
    pub case_id: String,
    /// Dice similarity coefficient.
    pub dice: f64,
    /// Volume of the reference mask.
    pub volume_truth_ml: f64,
    /// Volume of the predicted mask.
    pub volume_predicted_ml: f64,
    /// The slices from foot to head, or why there are none.
    pub slices: Result<Vec<Picture>, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_defined_for_so_few_cases_is_none() {
        let one = Spread::new(1, Some(0.7), Some(f64::NAN), Some(0.7));
        assert_eq!(one, Spread { n: 1, mean: Some(0.7), sd: None, median: Some(0.7) });
        assert_eq!(one.standard_error(), None);
        assert_eq!(Spread::new(0, Some(0.0), Some(0.0), None), Spread::default());
        assert_eq!(Spread::new(4, Some(0.5), Some(0.2), Some(0.5)).standard_error(), Some(0.1));
    }
}
