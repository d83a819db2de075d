//! What a report shows, as it stands in a pipeline file: sections of figures and tables, each over a relation.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::exhibit_spec::{
    AgreementSpec, BaselineSpec, BoxesSpec, CohortSpec, ComparisonSpec, CurveSpec, CutSpec,
    FlowSpec, GridSpec, GroupsSpec, Published, RegressionSpec, Show, ShownSpec, StratumSpec,
    TableSpec, VariableSpec, WorstSpec,
};

/// Writes a self-contained HTML report, and its tables and figures as files in a folder beside it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReportParams {
    /// The file to write.
    pub html: PathBuf,
    /// Title of the report. Default: the pipeline's name.
    #[serde(default)]
    pub title: String,
    /// The study's own sections, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sections: Vec<SectionSpec>,
    /// Variables that `curve` and `groups` divide cases by where they name none themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strata: Vec<StratumSpec>,
    /// Whether flow, failures, image quality, training, scores and examples of the run are shown too. Default: only
    /// where there are no `sections`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<bool>,
}

impl ReportParams {
    /// Whether the sections that every run has are on the page.
    pub fn shows_run(&self) -> bool {
        self.run.unwrap_or(self.sections.is_empty())
    }
}

/// A section of a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SectionSpec {
    /// Its heading.
    pub title: String,
    /// A paragraph under the heading.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Its figures and tables.
    pub show: Vec<ExhibitSpec>,
}

/// A figure or table, or both, over a relation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExhibitSpec {
    /// A flow chart of cases: who was excluded and why.
    Flow(FlowSpec),
    /// Cohorts side by side, with tests between them (a study's Table 1).
    Baseline(BaselineSpec),
    /// Mean scores against the number of training cases, in all and by strata.
    Curve(CurveSpec),
    /// Mean scores in groups of cases, with tests between the groups.
    Groups(GroupsSpec),
    /// Two measurements of one quantity: scatter with regression, and Bland–Altman.
    Agreement(AgreementSpec),
    /// The distribution of variables in groups, as boxes.
    Boxes(BoxesSpec),
    /// Mean scores over two variables, as a table and as curves.
    Grid(GridSpec),
    /// Models compared on the same cases: paired t and Wilcoxon, with Holm's correction.
    Comparison(ComparisonSpec),
    /// Scores as a straight line of a variable: slope, interval, p and r².
    Regression(RegressionSpec),
    /// The cases with the worst scores, slice by slice.
    Worst(WorstSpec),
    /// The rows of any query.
    Table(TableSpec),
}

impl ExhibitSpec {
    /// The relations that it reads, each with its key.
    pub fn sources(&self) -> Vec<(String, &str)> {
        fn from(text: &str) -> Vec<(String, &str)> {
            vec![("from".to_owned(), text)]
        }
        match self {
            Self::Flow(s) => {
                let parts = s.parts.iter().map(|p| ("parts".to_owned(), p.as_str()));
                [("from".to_owned(), s.from.as_str())].into_iter().chain(parts).collect()
            }
            Self::Baseline(s) => {
                let cohorts = s.cohorts.iter().enumerate();
                cohorts.map(|(i, c)| (format!("cohorts.{i}.from"), c.from.as_str())).collect()
            }
            Self::Curve(s) => from(&s.from),
            Self::Groups(s) => from(&s.from),
            Self::Agreement(s) => from(&s.from),
            Self::Boxes(s) => from(&s.from),
            Self::Grid(s) => from(&s.from),
            Self::Comparison(s) => from(&s.from),
            Self::Regression(s) => from(&s.from),
            Self::Worst(s) => from(&s.from),
            Self::Table(s) => from(&s.from),
        }
    }

    /// The key in the file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Flow(_) => "flow",
            Self::Baseline(_) => "baseline",
            Self::Curve(_) => "curve",
            Self::Groups(_) => "groups",
            Self::Agreement(_) => "agreement",
            Self::Boxes(_) => "boxes",
            Self::Grid(_) => "grid",
            Self::Comparison(_) => "comparison",
            Self::Regression(_) => "regression",
            Self::Worst(_) => "worst",
            Self::Table(_) => "table",
        }
    }
}

/// The query behind a `from`: itself, or all of the relation that it names.
pub fn query(from: &str) -> String {
    let from = from.trim();
    if super::check::sql::looks_like_sql(from) {
        from.trim_end_matches(';').to_owned()
    } else {
        format!("SELECT * FROM \"{}\"", from.replace('"', "\"\""))
    }
}
