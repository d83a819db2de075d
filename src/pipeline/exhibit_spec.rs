//! What each figure and table of a report is made of, as it stands in a pipeline file.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Published values: each entry says which row it stands beside and what was found there, `{ n: 217, dice: 0.58 }`.
pub type Published = Vec<BTreeMap<String, Value>>;

/// A variable that divides cases: the name of a column with its usual groups, or a column and how it is cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum StratumSpec {
    /// A column (`vendor`), or `volume_ml` for the volume of the reference mask.
    Name(String),
    /// A column and its groups.
    Cut(CutSpec),
}

/// A column and its groups.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CutSpec {
    /// The column.
    pub column: String,
    /// What it is called. Default: the usual name of the column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Values between groups, increasing: `[3, 24]` makes three.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cuts: Vec<f64>,
    /// The unit of the cuts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// Number of groups of equal size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 40))]
    pub quantiles: Option<u32>,
}

/// A flow chart of cases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FlowSpec {
    /// The relation with `reason`, `excluded` and `remaining`, a row an exclusion: a cohort step's `NAME_flow`, or a query.
    pub from: String,
    /// What the cases are called before any is excluded.
    #[serde(default = "default_start")]
    pub start: String,
    /// What they are called when all exclusions are done.
    #[serde(default = "default_end")]
    pub end: String,
    /// A relation with a column `part`, whose parts stand under the last box.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<String>,
    /// Heading of the figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

fn default_start() -> String {
    "Cases found".to_owned()
}

fn default_end() -> String {
    "Included".to_owned()
}

/// Cohorts side by side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BaselineSpec {
    /// The cohorts, in the order of the columns.
    #[schemars(length(min = 1))]
    pub cohorts: Vec<CohortSpec>,
    /// The variables, in the order of the rows.
    #[schemars(length(min = 1))]
    pub rows: Vec<VariableSpec>,
    /// Heading of the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Published values: `{ cohort: Training, age_y: "67.9 ± 12.9" }`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Published,
}

/// A named cohort.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CohortSpec {
    /// Heading of its column.
    pub name: String,
    /// A step, a table or a query, with a row a case.
    pub from: String,
}

/// A variable of a baseline table: a column, or a column and how it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum VariableSpec {
    /// A column: numbers as mean ± SD with an ANOVA, words as shares with chi-square or Fisher's exact test.
    Name(String),
    /// A column and how it is shown.
    Shown(ShownSpec),
}

/// A column and how it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShownSpec {
    /// The column.
    pub column: String,
    /// What it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Mean ± SD with an ANOVA, median (quartiles) with Kruskal–Wallis, or shares with chi-square or Fisher's exact test.
    /// Default: shares for words, means for numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show: Option<Show>,
}

/// How a variable is described, and which test goes with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Show {
    /// Mean ± SD; one-way ANOVA.
    Mean,
    /// Median (first to third quartile); Kruskal–Wallis.
    Median,
    /// Number and share of each value; chi-square, or Fisher's exact test where expected counts are small.
    Share,
}

/// Mean scores against a number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CurveSpec {
    /// A step, a table or a query, with a row a case and model.
    pub from: String,
    /// The column along the axis, such as the number of training cases.
    pub x: String,
    /// The scores.
    #[serde(default = "default_measures")]
    pub measures: Vec<String>,
    /// A column whose values are curves of their own, such as the cohort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Variables that divide the cases, a figure each; `[]` for none. Default: the report's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strata: Option<Vec<StratumSpec>>,
    /// What the axis is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x_label: Option<String>,
    /// Whether the axis is logarithmic.
    #[serde(default = "yes")]
    pub log: bool,
    /// Heading of the figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Published means, drawn too: `{ n: 217, dice: 0.58 }`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Published,
}

fn default_measures() -> Vec<String> {
    ["dice", "sensitivity", "precision"].map(str::to_owned).to_vec()
}

fn default_measure() -> String {
    "dice".to_owned()
}

fn yes() -> bool {
    true
}

/// Mean scores in groups of cases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupsSpec {
    /// A step, a table or a query, with a row a case.
    pub from: String,
    /// Variables that divide the cases, a part of the table each. Default: the report's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strata: Option<Vec<StratumSpec>>,
    /// The scores.
    #[serde(default = "default_measures")]
    pub measures: Vec<String>,
    /// Heading of the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Published means: `{ vendor: Siemens, dice: 0.7 }`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Published,
}

/// Two measurements of one quantity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgreementSpec {
    /// A step, a table or a query, with a row a case.
    pub from: String,
    /// The reference.
    #[serde(default = "default_reference")]
    pub reference: String,
    /// What is compared with it.
    #[serde(default = "default_measured")]
    pub measured: String,
    /// A column whose values are compared each for itself, such as the cohort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Unit of both.
    #[serde(default = "default_unit")]
    pub unit: String,
    /// Heading of the figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Published values of `r_squared`, `slope`, `bias`: `{ r_squared: 0.96 }`, with the column of `by` where there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Published,
}

fn default_reference() -> String {
    "volume_truth_ml".to_owned()
}

fn default_measured() -> String {
    "volume_predicted_ml".to_owned()
}

fn default_unit() -> String {
    "mL".to_owned()
}

/// The distribution of variables in groups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BoxesSpec {
    /// A step, a table or a query, with a row a case.
    pub from: String,
    /// The variables, a figure each.
    #[schemars(length(min = 1))]
    pub values: Vec<String>,
    /// The column that divides the cases.
    pub by: String,
    /// Heading of the figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// Mean scores over two variables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GridSpec {
    /// A step, a table or a query, with a row a case and model.
    pub from: String,
    /// The column of the rows, such as the number of cases of the pretraining.
    pub rows: String,
    /// The column of the columns, such as the number of cases of the adaptation.
    pub columns: String,
    /// The score.
    #[serde(default = "default_measure")]
    pub measure: String,
    /// What the rows are called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_label: Option<String>,
    /// What the columns are called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns_label: Option<String>,
    /// Heading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Published means: `{ n: 217, adapted: 50, dice: 0.67 }`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Published,
}

/// Models compared on the same cases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComparisonSpec {
    /// A step, a table or a query, with a row a case and model.
    pub from: String,
    /// The column that tells the models apart.
    pub by: String,
    /// The column that tells which rows are of the same case.
    #[serde(default = "default_pair")]
    pub pair: String,
    /// The scores.
    #[serde(default = "default_measures")]
    pub measures: Vec<String>,
    /// The model that the others are compared with. Default: each with each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
    /// Heading of the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

fn default_pair() -> String {
    "case_id".to_owned()
}

/// Scores as a straight line of a variable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegressionSpec {
    /// A step, a table or a query, with a row a case.
    pub from: String,
    /// The variable.
    pub x: String,
    /// The scores.
    #[serde(default = "default_measures")]
    pub measures: Vec<String>,
    /// Whether the line is one of log₁₀ of the variable.
    #[serde(default)]
    pub log: bool,
    /// Heading of the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// The cases with the worst scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorstSpec {
    /// A relation of scored cases: with `case_id`, `image_uri`, `truth_uri` and `prediction_uri` for pictures.
    pub from: String,
    /// The score.
    #[serde(default = "default_measure")]
    pub measure: String,
    /// How many cases.
    #[serde(default = "default_cases")]
    #[schemars(range(min = 1, max = 50))]
    pub cases: u32,
    /// Heading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

fn default_cases() -> u32 {
    5
}

/// The rows of any query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableSpec {
    /// A step, a table or a query; the first 200 rows are shown.
    pub from: String,
    /// Heading of the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}
