//! What a study shows: the sections that a pipeline declares, each with figures and tables over relations.
//!
//! [`load`] asks the relations and computes; what comes out are plain values ([`Section`]), drawn by [`page`] and written to
//! files by [`files`]. Every exhibit carries the SQL that gives its numbers. The values of an exhibit are held in memory while
//! it is made (eight bytes a case and column), because rank tests need all of them.

mod agreement;
mod baseline;
mod boxes;
mod comparison;
mod curve;
pub mod files;
mod flow;
pub(super) mod frame;
mod grid;
mod groups;
pub mod page;
mod published;
mod query;
mod regression;
pub mod table;
#[cfg(test)]
mod tests;
mod worst;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::charts::agreement::BlandAltman;
use super::charts::lines::Lines;
use super::charts::scatter::Scatter;
use super::data::{Example, Flow};
use super::load::query::Source;
use super::load::strata::label;
use crate::error::{Error, Fault, Result};
use crate::pipeline::ReportParams;
use crate::pipeline::report_spec::{ExhibitSpec, StratumSpec};
use table::Table;

/// A section of the study.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// Identifier on the page.
    pub id: String,
    /// Heading.
    pub title: String,
    /// A paragraph under it.
    pub text: String,
    /// Figures and tables.
    pub exhibits: Vec<Exhibit>,
}

/// A figure or table, or several that belong together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exhibit {
    /// Identifier on the page, and the beginning of its files' names.
    pub id: String,
    /// Heading.
    pub title: String,
    /// What is shown, or why nothing is.
    pub parts: Result<Vec<Part>, String>,
    /// What a reader must know.
    pub notes: Vec<String>,
    /// The SQL that gives the numbers.
    pub queries: Vec<Query>,
}

/// A query behind an exhibit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// What it gives.
    pub label: String,
    /// The query.
    pub sql: String,
}

/// A part of an exhibit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Part {
    /// A figure.
    Figure {
        /// Identifier on the page and name of its files.
        id: String,
        /// What it shows.
        caption: String,
        /// The values.
        plot: Plot,
    },
    /// A table.
    Table {
        /// Identifier on the page and name of its files.
        id: String,
        /// The values.
        table: Table,
    },
    /// A case, slice by slice, with what `torcula lineage` is asked to trace it.
    Case {
        /// The case.
        example: Example,
        /// An artifact or case.
        lineage: String,
    },
}

/// The values of a figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Plot {
    /// Means with standard errors along an axis.
    Lines(Lines),
    /// Points with a line through them.
    Scatter(Scatter),
    /// Differences against means.
    BlandAltman(BlandAltman),
    /// Values by group.
    Boxes {
        /// What is measured.
        label: String,
        /// Sorted values of each group.
        groups: Vec<(String, Vec<f64>)>,
    },
    /// A flow of cases.
    Flow(Flow),
}

/// What an exhibit is made of, before it has its place on the page.
#[derive(Debug, Default)]
struct Draft {
    parts: Vec<DraftPart>,
    notes: Vec<String>,
    queries: Vec<Query>,
}

#[derive(Debug)]
enum DraftPart {
    Figure { name: String, caption: String, plot: Plot },
    Table { name: String, table: Table },
    Case { example: Example, lineage: String },
}

impl Draft {
    fn figure(&mut self, name: &str, caption: impl Into<String>, plot: Plot) {
        self.parts.push(DraftPart::Figure { name: name.to_owned(), caption: caption.into(), plot });
    }

    fn table(&mut self, name: &str, table: Table) {
        self.parts.push(DraftPart::Table { name: name.to_owned(), table });
    }

    fn query(&mut self, label: impl Into<String>, sql: impl Into<String>) {
        self.queries.push(Query { label: label.into(), sql: sql.into() });
    }

    fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }
}

/// Everything that the file declares.
///
/// A relation or column that is not there is told in place of the exhibit.
///
/// # Errors
/// Where the catalog cannot be read.
pub async fn load(source: &Source<'_>, params: &ReportParams) -> Result<Vec<Section>> {
    let mut names = Names::default();
    let mut sections = Vec::new();
    for section in &params.sections {
        let mut exhibits = Vec::new();
        for spec in &section.show {
            exhibits.push(exhibit(source, params, spec, &mut names).await?);
        }
        sections.push(Section {
            id: names.give(&format!("section {}", section.title)),
            title: section.title.clone(),
            text: section.text.clone(),
            exhibits,
        });
    }
    Ok(sections)
}

async fn exhibit(
    source: &Source<'_>,
    params: &ReportParams,
    spec: &ExhibitSpec,
    names: &mut Names,
) -> Result<Exhibit> {
    let title = title(spec);
    let id = names.give(&title);
    let (parts, notes, queries) = match draft(source, &params.strata, spec).await {
        Ok(draft) => {
            let placed = draft.parts.into_iter().map(|part| match part {
                DraftPart::Figure { name, caption, plot } => {
                    let name = if name.is_empty() { "figure" } else { &name };
                    Part::Figure { id: names.give(&format!("{id} {name}")), caption, plot }
                }
                DraftPart::Table { name, table } => {
                    Part::Table { id: names.give(&format!("{id} {name} table")), table }
                }
                DraftPart::Case { example, lineage } => Part::Case { example, lineage },
            });
            (Ok(placed.collect()), draft.notes, draft.queries)
        }
        Err(error) if error.fault() == Fault::Configuration => (Err(told(&error)), vec![], vec![]),
        Err(error) => return Err(error.context(format!("the exhibit `{title}`"))),
    };
    Ok(Exhibit { id, title, parts, notes, queries })
}

fn told(error: &Error) -> String {
    match error.advice() {
        Some(advice) => format!("{} ({advice})", error.reason()),
        None => error.reason().to_owned(),
    }
}

async fn draft(source: &Source<'_>, strata: &[StratumSpec], spec: &ExhibitSpec) -> Result<Draft> {
    match spec {
        ExhibitSpec::Flow(s) => flow::draft(source, s).await,
        ExhibitSpec::Baseline(s) => baseline::draft(source, s).await,
        ExhibitSpec::Curve(s) => curve::draft(source, s, strata).await,
        ExhibitSpec::Groups(s) => groups::draft(source, s, strata).await,
        ExhibitSpec::Agreement(s) => agreement::draft(source, s).await,
        ExhibitSpec::Boxes(s) => boxes::draft(source, s).await,
        ExhibitSpec::Grid(s) => grid::draft(source, s).await,
        ExhibitSpec::Comparison(s) => comparison::draft(source, s).await,
        ExhibitSpec::Regression(s) => regression::draft(source, s).await,
        ExhibitSpec::Worst(s) => worst::draft(source, s).await,
        ExhibitSpec::Table(s) => query::draft(source, s).await,
    }
}

/// The heading of an exhibit: the file's, or what it usually is.
fn title(spec: &ExhibitSpec) -> String {
    let (given, usual) = match spec {
        ExhibitSpec::Flow(s) => (&s.title, "Flow of cases".to_owned()),
        ExhibitSpec::Baseline(s) => (&s.title, "Baseline characteristics".to_owned()),
        ExhibitSpec::Curve(s) => {
            (&s.title, format!("Scores by {}", in_a_sentence(s.x_label.as_deref().unwrap_or(&s.x))))
        }
        ExhibitSpec::Groups(s) => (&s.title, "Scores in groups of cases".to_owned()),
        ExhibitSpec::Agreement(s) => {
            (&s.title, format!("Agreement of {} with {}", s.measured, s.reference))
        }
        ExhibitSpec::Boxes(s) => (&s.title, format!("Values by {}", label(&s.by).to_lowercase())),
        ExhibitSpec::Grid(s) => {
            (&s.title, format!("{} by {} and {}", measure_label(&s.measure), s.rows, s.columns))
        }
        ExhibitSpec::Comparison(s) => (&s.title, format!("Comparison by {}", s.by)),
        ExhibitSpec::Regression(s) => (&s.title, format!("Regression on {}", s.x)),
        ExhibitSpec::Worst(s) => {
            (&s.title, format!("Worst cases by {}", measure_label(&s.measure)))
        }
        ExhibitSpec::Table(s) => (&s.title, "Table".to_owned()),
    };
    given.clone().unwrap_or(usual)
}

/// What a score is called, for readers.
fn measure_label(name: &str) -> String {
    match name {
        "dice" => "DSC",
        "sensitivity" => "Sensitivity",
        "precision" => "Precision",
        "lesion_f1" => "Lesion F1",
        "hd95_mm" => "HD95 (mm)",
        "assd_mm" => "ASSD (mm)",
        "absolute_volume_difference_ml" => "|ΔV| (mL)",
        "volume_truth_ml" => "Reference volume (mL)",
        "volume_predicted_ml" => "Predicted volume (mL)",
        "snr" => "SNR",
        "noise_sigma" => "Noise SD",
        other => label(other),
    }
    .to_owned()
}

/// Whether a score lies between 0 and 1.
fn is_share(measure: &str) -> bool {
    matches!(measure, "dice" | "sensitivity" | "precision" | "lesion_f1")
}

/// Decimals that a score is written with.
fn decimals(measure: &str) -> usize {
    if is_share(measure) { 3 } else { 2 }
}

/// Identifiers that are words with dashes, each given once.
#[derive(Debug, Default)]
struct Names(BTreeMap<String, u32>);

impl Names {
    fn give(&mut self, text: &str) -> String {
        let mut name = String::new();
        for c in text.chars().flat_map(char::to_lowercase) {
            if c.is_ascii_alphanumeric() {
                name.push(c);
            } else if !name.ends_with('-') && !name.is_empty() {
                name.push('-');
            }
        }
        let name = match name.trim_end_matches('-') {
            "" => "exhibit",
            name => &name[..name.len().min(80)],
        };
        let times = self.0.entry(name.to_owned()).or_default();
        *times += 1;
        if *times == 1 { name.to_owned() } else { format!("{name}-{times}") }
    }
}

/// A label as it stands in mid-sentence: `Training cases` loses its capital, `DSC` does not.
fn in_a_sentence(label: &str) -> String {
    let mut letters = label.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain(label.chars().skip(1)).collect()
        }
        _ => label.to_owned(),
    }
}
