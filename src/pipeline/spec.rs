//! The pipeline file as types: what may stand in it, with defaults, and what a checked pipeline is made of.
//!
//! The doc comments of the types that derive `JsonSchema` become the descriptions in `schemas/pipeline.schema.json`, which
//! editors show: they are written for the author of a pipeline.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::expect::Expectation;
use super::night_spec::{DifferenceParams, NotifySpec};
use super::phantom::PhantomParams;
use super::report_spec::ReportParams;
use crate::engine::Slot;
use crate::engine::learner::TrainParams;
use crate::formats::privacy::Policy;
use crate::formats::shards::Precision;
use crate::stages::StageSpec;

pub use super::infer_spec::{InferParams, ModelSource};
pub use super::study_spec::{ALL, CohortParams, SplitParams};

/// A Torcula pipeline: declared steps over a catalog of brain DWI cases.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Torcula pipeline")]
pub struct PipelineFile {
    /// Version of the file format: 1.
    #[schemars(range(min = 1, max = 1))]
    pub torcula: u32,
    /// Name of the pipeline, as runs are listed under.
    pub name: String,
    /// Seed of everything random: splits, augmentation, training.
    #[serde(default)]
    pub seed: u64,
    /// Folder or URI of the catalog (Delta tables). Relative paths start at the current folder.
    pub catalog: String,
    /// Folder for the files that stages write. Default: `derivatives/torcula` beside the catalog.
    #[serde(default)]
    pub artifacts: Option<String>,
    /// Time limit of one case in one step, in seconds; a case that takes longer becomes a failure.
    #[serde(default = "default_timeout_s")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub timeout_s: f64,
    /// How many cases may fail before the run counts as over its limit.
    #[serde(default)]
    pub on_failure: FailureLimit,
    /// What `torcula clean` keeps of artifacts that nothing uses any more. Default: 30 days, and one version.
    #[serde(default)]
    pub retention: Option<Retention>,
    /// Whom a run tells how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notify: Option<NotifySpec>,
    /// Variables with their defaults, used as `${name}` in any string and replaced by `--set name=value`. One without a
    /// value must be set.
    #[serde(default)]
    pub vars: BTreeMap<String, Value>,
    /// The steps by name. A step is afterwards a relation in SQL.
    pub steps: BTreeMap<String, StepSpec>,
    /// Checks of single stages on a synthetic head; `torcula test` runs them.
    #[serde(default)]
    pub tests: Vec<TestSpec>,
}

fn default_timeout_s() -> f64 {
    1800.0
}

/// The catalog's tables; in the SQL of a step they can be read beside the steps.
pub const TABLES: [&str; 9] =
    ["cases", "quality", "splits", "artifacts", "runs", "failures", "models", "scores", "curation"];

/// How long artifacts of earlier parameters or bytes are kept. Those that present ones or a model were made from always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Days after they were made.
    pub keep_days: u32,
    /// Newest versions of the artifacts of a case in a step, whatever their age.
    pub keep_versions: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep_days: 30, keep_versions: 1 }
    }
}

/// How many cases may fail. The limits that are given all hold; with none given, a quarter of the cases may fail.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FailureLimit {
    /// Most cases of the run that may fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cases: Option<u64>,
    /// Largest share of the run's cases that may fail, 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_share: Option<f64>,
    /// Largest share of any one centre's cases that may fail, 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_share_per_centre: Option<f64>,
}

/// What a limit that is not set, because no limit at all is, allows: a quarter of the cases.
const DEFAULT_MAX_SHARE: f64 = 0.25;

impl FailureLimit {
    /// The limit with the default filled in where none is given.
    #[must_use]
    pub fn or_default(self) -> Self {
        if self == Self::default() {
            Self { max_share: Some(DEFAULT_MAX_SHARE), ..self }
        } else {
            self
        }
    }

    /// Why the failures are over the limit, or none. `per_centre` maps a centre to its (cases, failures).
    pub fn exceeded(&self, per_centre: &BTreeMap<String, (u64, u64)>) -> Option<String> {
        let share = |cases: u64, failed: u64| failed as f64 / cases.max(1) as f64;
        let (cases, failed) = per_centre.values().fold((0, 0), |(c, f), v| (c + v.0, f + v.1));
        if let Some(max) = self.max_cases.filter(|max| failed > *max) {
            return Some(format!(
                "{failed} cases failed, at most {max} may (on_failure.max_cases)"
            ));
        }
        let over = |max: &f64| share(cases, failed) > *max;
        if let Some(max) = self.max_share.filter(over) {
            let found = format!("{failed} of {cases} cases failed");
            return Some(format!("{found}, a share of at most {max} may (on_failure.max_share)"));
        }
        let max = self.max_share_per_centre?;
        let (centre, (cases, failed)) = per_centre.iter().find(|(_, v)| share(v.0, v.1) > max)?;
        let found = format!("{failed} of {cases} cases of the centre `{centre}` failed");
        Some(format!("{found}, a share of at most {max} may (on_failure.max_share_per_centre)"))
    }
}

/// A step: where its cases come from, and the one thing done with them (`ingest`, `cohort`, `stages`, `split`, `train`,
/// `infer`, `score`, `difference` or `report`).
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StepSpec {
    /// The cases: a query (`SELECT …` or `WITH …`) over the catalog's tables and other steps, the name of a step, or one
    /// part of a step (`{ split: test }`).
    pub from: Option<FromSpec>,
    /// Whether the step belongs to the pipeline; meant for a variable (`${with_report}`).
    pub when: Option<bool>,
    /// Repeats the step for every combination of these parameters' values: `{ n: [50, 100], seed: [1, 2] }`. Inside of the
    /// step `${n}` is the value, and the name of another matrix of these parameters means its step of the same values. The
    /// steps are called `name_n50_seed1`; `name` is the relation of all of them, with a column a parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matrix: Option<BTreeMap<String, MatrixParameter>>,
    /// The relation that the step is one part of, with a column a parameter: `{ unet: { n: 50 } }`. A `matrix` sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part_of: Option<BTreeMap<String, BTreeMap<String, MatrixValue>>>,
    /// Seed of the step. Default: the pipeline's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Reads a registry into the table `cases`.
    pub ingest: Option<IngestParams>,
    /// Selects cases, with exclusions in order, each with its reason. The relations `NAME_flow` (how many each rule
    /// excluded) and `NAME_excluded` (which cases, why) stand beside it.
    pub cohort: Option<CohortParams>,
    /// Stages that each case goes through, in memory, one after the other.
    pub stages: Option<Vec<StageItem>>,
    /// What `stages` end in: `files` (default) or `shards` for training.
    pub to: Option<OutputSpec>,
    /// Volumes that `stages` write as files. Default: those that its stages made or changed, without the bias field.
    pub keep: Option<Vec<Slot>>,
    /// Draws a partition of the subjects.
    pub split: Option<SplitParams>,
    /// Trains a network on shards.
    pub train: Option<TrainStep>,
    /// Predicts infarcts with a trained network.
    pub infer: Option<InferParams>,
    /// Compares predictions with the truth.
    pub score: Option<ScoreParams>,
    /// Tells how a scored step differs from an earlier night, as HTML and JSON.
    pub difference: Option<DifferenceParams>,
    /// Writes a self-contained HTML report.
    pub report: Option<ReportParams>,
}

/// The keys of a step that do something; it has exactly one of them.
pub const ACTIONS: [&str; 9] =
    ["ingest", "cohort", "stages", "split", "train", "infer", "score", "difference", "report"];

/// The values of a matrix's parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum MatrixParameter {
    /// The values.
    List(Vec<MatrixValue>),
    /// Each value with variables of its own: `{ small: { draws: 40 }, all: { draws: 2 } }` gives `${set.draws}`.
    Named(BTreeMap<String, BTreeMap<String, Value>>),
}

/// A value of a matrix's parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum MatrixValue {
    /// A number.
    Number(f64),
    /// A word.
    Text(String),
}

/// Where a step's cases come from: SQL or a step's name, or one part of a step.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum FromSpec {
    /// A query, or the name of a step.
    Text(String),
    /// One part of a step: `{ split: test }`.
    Part(BTreeMap<String, String>),
}

/// A stage: its name, or its name with parameters (`{ n4: { shrink: 4 } }`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StageItem(pub Value);

impl JsonSchema for StageItem {
    fn schema_name() -> Cow<'static, str> {
        "StageItem".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let stage = generator.subschema_for::<StageSpec>();
        json_schema!({
            "description": "A stage: its name, or its name with parameters.",
            "anyOf": [{ "type": "string", "enum": StageSpec::names() }, stage],
        })
    }
}

/// What the stages of a step end in.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OutputSpec {
    /// By name, with default parameters.
    Name(OutputName),
    /// Shards with parameters.
    Shards {
        /// How shards are written.
        shards: ShardParams,
    },
}

/// Kinds of output.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutputName {
    /// One image file a volume and case.
    Files,
    /// Arrow files of training samples.
    Shards,
}

/// How shards are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ShardParams {
    /// Samples in a file.
    #[schemars(range(min = 1, max = 65536))]
    pub samples_per_shard: u32,
    /// Number type of the intensities.
    pub dtype: Precision,
}

impl Default for ShardParams {
    fn default() -> Self {
        Self { samples_per_shard: 64, dtype: Precision::Float16 }
    }
}

/// Reads a registry into the table `cases`: a BIDS folder or a table of files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IngestParams {
    /// Folder in BIDS layout (`rawdata` and `derivatives`, or subjects directly).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bids: Option<PathBuf>,
    /// CSV, TSV or Parquet file with one row a case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<PathBuf>,
    /// Folder that the files of a manifest must lie in, links followed. Default: the manifest's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// Which column of the participants table or manifest holds what: `{ centre: site, age_y: Age }`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
    /// Name of the registry in the column `source`. Default: the step's name.
    pub source: String,
    /// Whether a case without an infarct mask is a failure.
    pub require_truth: bool,
    /// Takes cases from a manifest without their images: enough for cohorts, splits and tables. No file but the manifest is
    /// opened, and a step that needs images says that there are none.
    pub metadata_only: bool,
    /// What of its identifying parts is let into the catalog. Without it everything is taken as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privacy: Option<Policy>,
    /// Whether to read and hash files again whose size and time of change are those of the last run.
    pub rehash: bool,
}

/// Trains a network on one part of the shards and keeps the weights that are best on another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrainStep {
    /// Part of the split that is trained on.
    #[serde(default = "default_train_part")]
    pub train_part: String,
    /// Part of the split that chooses the best weights.
    #[serde(default = "default_val_part")]
    pub val_part: String,
    /// Where the weights come from instead of chance: the name of another step with `train`, or the identifier of a model in the
    /// catalog. The network is that of the parent (`model`, `levels`, `filters`), the default `learning_rate` a tenth of the
    /// parent step's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fine_tune: Option<String>,
    /// Trainings that differ in their seed alone (the pipeline's, the next one, ..), to tell chance from progress: mean and
    /// standard deviation of their validation DSC are reported. An inference takes the first.
    #[serde(default = "default_seeds")]
    #[schemars(range(min = 1, max = 1000))]
    pub seeds: u64,
    /// How the network is built and trained.
    #[serde(flatten)]
    pub params: TrainParams,
}

impl TrainStep {
    /// The step that this one goes on from; none where it starts anew, or from a model of the catalog.
    pub fn parent_step(&self) -> Option<&str> {
        // The identifier of a model has a hyphen, the name of a step has none.
        self.fine_tune.as_deref().filter(|name| !name.contains('-'))
    }
}

fn default_train_part() -> String {
    "train".to_owned()
}

fn default_seeds() -> u64 {
    1
}

fn default_val_part() -> String {
    "val".to_owned()
}

/// Compares predictions with the truth.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScoreParams {
    /// Columns by whose values the scores are summarised.
    pub strata: Vec<String>,
}

/// A check of one stage on a synthetic head.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestSpec {
    /// What the test shows.
    pub name: String,
    /// The stage.
    pub stage: String,
    /// Its parameters.
    #[serde(default)]
    pub set: Value,
    /// The synthetic head.
    #[serde(default)]
    pub phantom: PhantomParams,
    /// What must hold afterwards: `[{ max_at_most: 255 }, unchanged_outside_brain]`.
    pub expect: Vec<Expectation>,
}
