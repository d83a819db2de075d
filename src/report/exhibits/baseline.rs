//! Cohorts side by side: a study's Table 1, with a test a variable.

use arrow::datatypes::DataType;

use super::frame::{Frame, columns, natural};
use super::groups::told;
use super::table::{Cell, Table};
use super::{Draft, measure_label};
use crate::error::{Error, Result};
use crate::pipeline::report_spec::{BaselineSpec, Show, VariableSpec, query};
use crate::report::load::query::{Source, identifier};
use crate::study::statistics::{
    Categories, Continuity, Group, Outcome, Table as Contingency, Test, anova, chi_square,
    describe, fisher, kruskal_wallis,
};

/// A row of the table: a column and how it is shown.
struct Variable {
    column: String,
    label: String,
    show: Show,
}

pub(super) async fn draft(source: &Source<'_>, spec: &BaselineSpec) -> Result<Draft> {
    let variables = variables(source, spec).await?;
    let numeric = |v: &&Variable| v.show != Show::Share;
    let names = |shares: bool| -> Vec<&str> {
        let of = variables.iter().filter(|v| numeric(v) != shares);
        of.map(|v| v.column.as_str()).collect()
    };
    let (numbers, words) = (names(false), names(true));
    let mut frames = Vec::new();
    let mut draft = Draft::default();
    for cohort in &spec.cohorts {
        let from = query(&cohort.from);
        let wanted: Vec<&str> = variables.iter().map(|v| v.column.as_str()).collect();
        let named = |e: Error| e.context(format!("cohort {}", cohort.name));
        columns(source, &from, &wanted).await.map_err(named)?;
        let select: Vec<String> = wanted.iter().map(|name| identifier(name)).collect();
        let values = format!("SELECT {} FROM ({from})", select.join(", "));
        frames.push(Frame::load(source, &values, &numbers, &words).await.map_err(named)?);
        for (label, sql) in queries(&from, &variables) {
            draft.query(format!("{}: {label}", cohort.name), sql);
        }
    }
    let table = table(spec, &variables, &frames);
    draft.table("", table);
    draft.note("Missing values are left out of shares, means and tests, and counted in the table.");
    Ok(draft)
}

async fn variables(source: &Source<'_>, spec: &BaselineSpec) -> Result<Vec<Variable>> {
    let Some(first) = spec.cohorts.first() else {
        return Err(Error::configuration("there are no cohorts to compare"));
    };
    let known = columns(source, &query(&first.from), &[]).await?;
    let variable = |spec: &VariableSpec| {
        let (column, label, show) = match spec {
            VariableSpec::Name(name) => (name, None, None),
            VariableSpec::Shown(shown) => (&shown.column, shown.label.clone(), shown.show),
        };
        let kind = known.iter().find(|(name, _)| name == column).map(|(_, kind)| kind);
        let usual = match kind {
            Some(kind) if kind.is_numeric() && *kind != DataType::Boolean => Show::Mean,
            _ => Show::Share,
        };
        let label = label.unwrap_or_else(|| variable_label(column));
        Variable { column: column.clone(), label, show: show.unwrap_or(usual) }
    };
    Ok(spec.rows.iter().map(variable).collect())
}

/// What a variable is called, with its unit.
fn variable_label(column: &str) -> String {
    match column {
        "age_y" => "Age (years)".to_owned(),
        "nihss" => "NIHSS".to_owned(),
        "onset_h" => "Onset to imaging (h)".to_owned(),
        "wmh_volume_ml" => "White-matter hyperintensities (mL)".to_owned(),
        "truth_volume_ml" | "volume_truth_ml" => "Infarct volume (mL)".to_owned(),
        other => measure_label(other),
    }
}

/// What anyone can ask again of one cohort: a query for all numbers, and one for each variable of words.
fn queries(from: &str, variables: &[Variable]) -> Vec<(String, String)> {
    let numbers: Vec<String> = variables
        .iter()
        .filter(|v| v.show != Show::Share)
        .map(|v| {
            let (column, name) =
                (identifier(&v.column), |what: &str| identifier(&format!("{}_{what}", v.column)));
            format!(
                "count({column}) AS {}, avg({column}) AS {}, stddev({column}) AS {}, median({column}) AS {}",
                name("n"),
                name("mean"),
                name("sd"),
                name("median")
            )
        })
        .collect();
    let all = std::iter::once("count(*) AS n".to_owned()).chain(numbers);
    let mut queries = vec![(
        "numbers".to_owned(),
        format!("SELECT {}\nFROM ({from})", all.collect::<Vec<_>>().join(",\n  ")),
    )];
    for v in variables.iter().filter(|v| v.show == Show::Share) {
        let column = identifier(&v.column);
        queries.push((
            v.label.clone(),
            format!(
                "SELECT {column}, count(*) AS cases\nFROM ({from})\nGROUP BY {column} ORDER BY {column}"
            ),
        ));
    }
    queries
}

fn table(spec: &BaselineSpec, variables: &[Variable], frames: &[Frame]) -> Table {
    let given: Vec<bool> = spec
        .cohorts
        .iter()
        .map(|c| spec.published.iter().any(|e| e.get("cohort").is_some_and(|v| v == &c.name)))
        .collect();
    let mut head = vec!["Variable".to_owned()];
    for (cohort, given) in spec.cohorts.iter().zip(&given) {
        head.push(cohort.name.clone());
        head.extend(given.then(|| format!("{}, published", cohort.name)));
    }
    head.push("p".to_owned());
    let mut table = Table::new(
        "Mean ± SD, median (first to third quartile, by linear interpolation) or number (share).",
        head,
    );
    let builder = Builder { spec, given: &given, frames };
    let counts = frames.iter().map(|f| Cell::Count(f.rows as u64)).collect();
    table.push(builder.row("Cases", "cases", counts, Cell::Blank));
    for variable in variables {
        match variable.show {
            Show::Share => builder.shares(variable, &mut table),
            _ => builder.numbers(variable, &mut table),
        }
    }
    table
}

struct Builder<'a> {
    spec: &'a BaselineSpec,
    given: &'a [bool],
    frames: &'a [Frame],
}

impl Builder<'_> {
    /// A row with what was published beside each cohort.
    fn row(&self, name: &str, key: &str, cells: Vec<Cell>, p: Cell) -> Vec<Cell> {
        let mut row = vec![Cell::Text(name.to_owned())];
        for ((cell, given), cohort) in cells.into_iter().zip(self.given).zip(&self.spec.cohorts) {
            row.push(cell);
            if *given {
                let entry = self.spec.published.iter().find(|e| {
                    e.get("cohort").is_some_and(|v| v == &cohort.name) && e.contains_key(key)
                });
                let value = entry.and_then(|e| e.get(key));
                row.push(Cell::published(value, key));
            }
        }
        row.push(p);
        row
    }

    fn numbers(&self, variable: &Variable, table: &mut Table) {
        let values: Vec<Vec<Option<f64>>> = self
            .frames
            .iter()
            .map(|f| f.values(&variable.column, &(0..f.rows).collect::<Vec<_>>()))
            .collect();
        let groups: Vec<Group> = self
            .spec
            .cohorts
            .iter()
            .zip(&values)
            .map(|(cohort, values)| Group::new(&cohort.name, values))
            .collect();
        let mean = variable.show == Show::Mean;
        let test = if mean { anova(&groups) } else { kruskal_wallis(&groups) };
        // Small infarcts are tenths of a millilitre.
        let decimals = if variable.column.ends_with("_ml") { 2 } else { 1 };
        let cells = values.iter().map(|values| {
            let found = describe(values);
            if mean { Cell::mean(&found, decimals) } else { Cell::median(&found, decimals) }
        });
        let label = if mean {
            format!("{}, mean ± SD", variable.label)
        } else {
            format!("{}, median (quartiles)", variable.label)
        };
        let row = self.row(&label, &variable.column, cells.collect(), self.p(&test));
        table.push(row);
    }

    fn shares(&self, variable: &Variable, table: &mut Table) {
        let values: Vec<Vec<Option<&str>>> = self
            .frames
            .iter()
            .map(|f| (0..f.rows).map(|row| f.word(&variable.column, row)).collect())
            .collect();
        let groups: Vec<Categories> = self
            .spec
            .cohorts
            .iter()
            .zip(&values)
            .map(|(cohort, values)| Categories::new(&cohort.name, values))
            .collect();
        let counts = Contingency::of_groups(&groups);
        let blank = vec![Cell::Blank; self.frames.len()];
        let heading = format!("{}, n (%)", variable.label);
        table.push(self.row(&heading, &variable.column, blank, self.p(&independent(&counts))));
        let mut order: Vec<usize> = (0..counts.columns.len()).collect();
        order.sort_by(|a, b| natural(&counts.columns[*a], &counts.columns[*b]));
        for c in order {
            let cells = counts
                .counts
                .iter()
                .zip(&counts.rows)
                .map(|(row, sample)| Cell::Share { cases: row[c], of: sample.n as u64 });
            let name = &counts.columns[c];
            let key = format!("{}: {name}", variable.column);
            let shown = format!("\u{2003}{}", name.replace('_', " "));
            table.push(self.row(&shown, &key, cells.collect(), Cell::Blank));
        }
        if counts.rows.iter().any(|sample| sample.missing > 0) {
            let cells = counts.rows.iter().map(|s| Cell::Count(s.missing as u64)).collect();
            table.push(self.row("\u{2003}missing", "", cells, Cell::Blank));
        }
    }

    /// p, and the test that gave it; with one cohort there is nothing to compare.
    fn p(&self, outcome: &Outcome<Test>) -> Cell {
        match &outcome.result {
            _ if self.frames.len() < 2 => Cell::Blank,
            Ok(test) => {
                let told = told(test);
                let told = if told.starts_with(test.name) {
                    told
                } else {
                    format!("{}, {told}", test.name)
                };
                Cell::P(test.p, told)
            }
            Err(reason) => Cell::none(reason),
        }
    }
}

/// Chi-square, or Fisher's exact test where expected counts are small and the table can be counted out.
fn independent(counts: &Contingency) -> Outcome<Test> {
    let found = chi_square(counts, Continuity::None);
    let small = |test: &Test| test.notes.iter().any(|n| n.starts_with("expected counts below"));
    match &found.result {
        Ok(test) if small(test) => {
            let exact = fisher(counts);
            if exact.result.is_ok() { exact } else { found }
        }
        _ => found,
    }
}
