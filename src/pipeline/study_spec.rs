//! What a study declares in a pipeline file: cohorts, splits, and where a step of a matrix belongs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A cohort: the cases of `from`, less those that a rule excludes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CohortParams {
    /// Exclusions in their order. A case is excluded once, by the first rule that holds.
    pub exclude: Vec<Exclusion>,
}

/// A rule of a cohort.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exclusion {
    /// Why such a case is excluded, as the flow chart says it.
    pub reason: String,
    /// An SQL condition on the columns of `from`. Where it is unknown (NULL) the case stays, and is counted as unknown.
    pub when: String,
}

/// Divides patients into parts, nested subsamples or folds. Exactly one of `parts`, `nested`, `folds` and `leave_out`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitParams {
    /// Column that must not be divided between parts.
    #[serde(default = "default_by")]
    pub by: String,
    /// Parts and their sizes: shares that sum to 1 (`{ train: 0.8, val: 0.2 }`), counts of patients
    /// (`{ development: 8661, test: 2159 }`), or `rest` for what the others leave.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<String, PartSize>,
    /// Subsamples of which each contains the smaller ones, as shares or counts of patients: `{ n100: 100, all: 1.0 }`.
    /// Shares are rounded to whole patients, half to even. Steps read one of them: `from: { subsample: n100 }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nested: BTreeMap<String, PartSize>,
    /// Number of folds of equal size: the parts `fold_1`, `fold_2`, …. A step after it holds one out:
    /// `{ from: folds, split: { leave_out: part, hold_out: fold_2 } }`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 1000))]
    pub folds: Option<u32>,
    /// Column each of whose values is a part, for leave-one-centre-out: `leave_out: centre`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leave_out: Option<String>,
    /// The value of `leave_out` that is the part `test`; the others together are the part `train`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_out: Option<String>,
    /// Columns whose values every part gets its share of. A column of many different numbers counts by its quartiles.
    #[serde(default)]
    pub stratify: Vec<String>,
    /// Number of the draw. Patients who were drawn once keep their part when others are added; raise it to draw all of
    /// them again.
    #[serde(default = "default_draw")]
    pub draw: u32,
    /// Puts every case into one part, `all`, that stands for each of the parts: training and test then see the same cases.
    /// It proves that grids, orientation and scores agree; its scores say nothing about new cases.
    #[serde(default)]
    pub overfit: bool,
}

/// The one part of a split that overfits.
pub const ALL: &str = "all";
/// The part that is held out of a split by a column.
pub const TEST: &str = "test";
/// What a split by a column has beside the part that is held out.
pub const TRAIN: &str = "train";

fn default_by() -> String {
    "subject_id".to_owned()
}

fn default_draw() -> u32 {
    1
}

/// The size of a part: a share up to 1, a count of patients, or `rest`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PartSize {
    /// A share (up to 1) or a count (from 1, whole).
    Number(f64),
    /// What the other parts leave.
    Rest(Rest),
}

/// The word `rest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rest {
    /// What the other parts leave.
    Rest,
}

/// How a split divides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Division<'a> {
    /// Into parts of these sizes.
    Parts(&'a BTreeMap<String, PartSize>),
    /// Into subsamples of which each contains the smaller ones.
    Nested(&'a BTreeMap<String, PartSize>),
    /// Into so many folds.
    Folds(u32),
    /// By the values of a column.
    By(&'a str),
}

impl SplitParams {
    /// How it divides; none unless exactly one way is given.
    pub fn division(&self) -> Option<Division<'_>> {
        let ways = [
            (!self.parts.is_empty()).then_some(Division::Parts(&self.parts)),
            (!self.nested.is_empty()).then_some(Division::Nested(&self.nested)),
            self.folds.map(Division::Folds),
            self.leave_out.as_deref().map(Division::By),
        ];
        let mut ways = ways.into_iter().flatten();
        ways.next().filter(|_| ways.next().is_none())
    }

    /// Names of the parts, where they are known before anything runs.
    pub fn part_names(&self) -> Option<Vec<String>> {
        if self.overfit {
            return Some(vec![ALL.to_owned()]);
        }
        match self.division()? {
            Division::Parts(sizes) | Division::Nested(sizes) => {
                Some(sizes.keys().cloned().collect())
            }
            Division::Folds(n) => Some((1..=n).map(fold).collect()),
            Division::By(_) => {
                self.hold_out.as_ref().map(|_| vec![TRAIN.to_owned(), TEST.to_owned()])
            }
        }
    }

    /// In a few words, for people: `test 2159, development rest`.
    pub fn describe(&self) -> String {
        let sizes = |sizes: &BTreeMap<String, PartSize>| {
            let mut all: Vec<_> = sizes.iter().collect();
            all.sort_by(|a, b| a.1.order().total_cmp(&b.1.order()));
            all.iter().map(|(name, size)| format!("{name} {size}")).collect::<Vec<_>>().join(", ")
        };
        let text = match self.division() {
            Some(Division::Parts(parts)) => sizes(parts),
            Some(Division::Nested(nested)) => format!("nested {}", sizes(nested)),
            Some(Division::Folds(n)) => format!("{n} folds"),
            Some(Division::By(column)) => format!("each {column}"),
            None => String::new(),
        };
        match &self.hold_out {
            Some(held) => format!("{text}, {held} held out"),
            None => text,
        }
    }
}

/// The name of a fold, counted from 1.
pub fn fold(number: u32) -> String {
    format!("fold_{number}")
}

impl PartSize {
    /// Where to put it when sizes are listed: the rest comes last.
    fn order(self) -> f64 {
        match self {
            Self::Number(n) => n,
            Self::Rest(_) => f64::INFINITY,
        }
    }

    /// The number; none for the rest.
    pub fn number(self) -> Option<f64> {
        match self {
            Self::Number(n) => Some(n),
            Self::Rest(_) => None,
        }
    }
}

impl std::fmt::Display for PartSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::Rest(_) => f.write_str("rest"),
        }
    }
}

/// Whether sizes are counts of patients rather than shares: as soon as one of them is above 1.
pub fn are_counts(sizes: &BTreeMap<String, PartSize>) -> bool {
    sizes.values().filter_map(|s| s.number()).any(|n| n > 1.0)
}

/// The relation that a step is one part of: the matrix, and the values of its parameters that the step stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Membership {
    /// The relation.
    pub name: String,
    /// Parameters and values, in the order of the file.
    pub values: Vec<(String, Value)>,
}
