//! Mean scores in groups of cases, a part of the table a variable, with tests of the groups' difference.

use super::frame::{Division, Frame, NOT_KNOWN, aggregates, columns};
use super::published;
use super::table::{Cell, Row, Table};
use super::{Draft, decimals, measure_label};
use crate::error::{Error, Result};
use crate::pipeline::report_spec::{GroupsSpec, StratumSpec, query};
use crate::report::load::query::{Source, identifier};
use crate::study::statistics::{Group, Outcome, Test, anova, describe, kruskal_wallis};

pub(super) async fn draft(
    source: &Source<'_>,
    spec: &GroupsSpec,
    strata: &[StratumSpec],
) -> Result<Draft> {
    let from = query(&spec.from);
    let measures: Vec<&str> = spec.measures.iter().map(String::as_str).collect();
    let known = columns(source, &from, &measures).await?;
    let strata = spec.strata.as_deref().unwrap_or(strata);
    if strata.is_empty() {
        return Err(Error::configuration("there are no strata to group by")
            .hint("name some: `strata: [vendor]`, here or for the whole report"));
    }
    let mut draft = Draft::default();
    let given: Vec<bool> =
        measures.iter().map(|m| spec.published.iter().any(|e| e.contains_key(*m))).collect();
    let mut head = vec!["Group".to_owned(), "Cases".to_owned()];
    for (measure, given) in measures.iter().zip(&given) {
        head.push(measure_label(measure));
        head.extend(given.then(|| format!("{}, published", measure_label(measure))));
    }
    let mut table = Table::new(
        "Mean ± SD over cases, and the standard error (SE). Tests compare the groups that have cases; cases of unknown group are left out of them.",
        head,
    );
    let builder = Builder { spec, measures: &measures, given: &given };
    for (i, stratum) in strata.iter().enumerate() {
        let division = match Division::find(stratum, &known) {
            Ok(division) => division,
            Err(error) => {
                draft.note(format!("Not computed: {}.", error.reason()));
                continue;
            }
        };
        let select: Vec<String> = std::iter::once(division.select(&[]))
            .chain(measures.iter().map(|m| format!("s.{}", identifier(m))))
            .collect();
        let values = format!("SELECT {}\nFROM ({from}) s", select.join(", "));
        let numbers: Vec<&str> = measures.iter().copied().chain(["level"]).collect();
        let frame = Frame::load(source, &values, &numbers, &["group"]).await?;
        if i == 0 {
            let all: Vec<usize> = (0..frame.rows).collect();
            table.rows.push(Row::Cells(builder.row("All cases", &frame, &all, None)));
        }
        draft.query(
            division.variable.label.as_str(),
            format!(
                "SELECT \"group\", {}\nFROM (\n{values}\n)\nGROUP BY \"group\" ORDER BY \"group\"",
                aggregates(&spec.measures)
            ),
        );
        builder.part(&division, &frame, &mut table);
    }
    draft.table("", table);
    Ok(draft)
}

struct Builder<'a> {
    spec: &'a GroupsSpec,
    measures: &'a [&'a str],
    given: &'a [bool],
}

impl Builder<'_> {
    /// One row: the cases of a group, and their scores with what was published.
    fn row(&self, name: &str, frame: &Frame, rows: &[usize], column: Option<&str>) -> Vec<Cell> {
        let mut cells = vec![Cell::Text(name.to_owned()), Cell::Count(rows.len() as u64)];
        for (measure, given) in self.measures.iter().zip(self.given) {
            let found = describe(&frame.values(measure, rows));
            cells.push(Cell::mean(&found, decimals(measure)));
            if *given {
                let keys: Vec<(&str, &str)> = column.map(|c| (c, name)).into_iter().collect();
                let value = published::find(&self.spec.published, &keys, self.measures, measure);
                cells.push(Cell::published(value.as_ref(), measure));
            }
        }
        cells
    }

    /// The groups of one variable, and the tests between them.
    fn part(&self, division: &Division, frame: &Frame, table: &mut Table) {
        table.rows.push(Row::Heading(division.variable.label.clone()));
        let groups = division.groups(frame);
        for (name, rows) in &groups {
            let cells = self.row(name, frame, rows, Some(division.column.as_str()));
            table.rows.push(Row::Cells(cells));
        }
        let compared: Vec<&(String, Vec<usize>)> =
            groups.iter().filter(|(name, rows)| name != NOT_KNOWN && !rows.is_empty()).collect();
        for (name, test) in [
            ("Difference, ANOVA", anova as fn(&[Group]) -> Outcome<Test>),
            ("Difference, Kruskal–Wallis", kruskal_wallis),
        ] {
            let mut cells = vec![Cell::Text(name.to_owned()), Cell::Blank];
            for (measure, given) in self.measures.iter().zip(self.given) {
                let values: Vec<Vec<Option<f64>>> =
                    compared.iter().map(|(_, rows)| frame.values(measure, rows)).collect();
                let named: Vec<Group> = compared
                    .iter()
                    .zip(&values)
                    .map(|((name, _), values)| Group::new(name, values))
                    .collect();
                cells.push(p_cell(&test(&named)));
                cells.extend(given.then_some(Cell::Blank));
            }
            table.rows.push(Row::Cells(cells));
        }
    }
}

/// The p value of a test with its statistic, or why there is none.
pub(super) fn p_cell(outcome: &Outcome<Test>) -> Cell {
    match &outcome.result {
        Ok(test) => Cell::P(test.p, told(test)),
        Err(reason) => Cell::none(reason),
    }
}

/// `F(2, 297) = 4.56`, and what makes it doubtful.
pub(super) fn told(test: &Test) -> String {
    let freedom: Vec<String> =
        test.freedom.iter().map(|f| format!("{f:.1}").trim_end_matches(".0").to_owned()).collect();
    let freedom =
        if freedom.is_empty() { String::new() } else { format!("({})", freedom.join(", ")) };
    let statistic = match test.statistic {
        Some(statistic) => format!("{}{freedom} = {statistic:.2}", test.symbol),
        None => test.name.to_owned(),
    };
    std::iter::once(statistic).chain(test.notes.iter().cloned()).collect::<Vec<_>>().join("; ")
}
