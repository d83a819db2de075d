//! Mean scores over two variables, such as the numbers of cases of pretraining and of adaptation.

use super::frame::{Frame, aggregates, columns, natural};
use super::published;
use super::table::{Cell, Table};
use super::{Draft, Plot, decimals, is_share, measure_label};
use crate::error::Result;
use crate::pipeline::report_spec::{GridSpec, query};
use crate::report::charts::lines::{Lines, Point, Series};
use crate::report::load::query::{Source, identifier};
use crate::study::statistics::describe;

/// What a row or column without a value is called: the model before adaptation.
const NONE: &str = "none";

/// A mean of cases at a place of the grid.
type Place<'a> = (&'a str, &'a str, Vec<usize>);

pub(super) async fn draft(source: &Source<'_>, spec: &GridSpec) -> Result<Draft> {
    let from = query(&spec.from);
    let (rows, columns_of) = (spec.rows.as_str(), spec.columns.as_str());
    columns(source, &from, &[rows, columns_of, &spec.measure]).await?;
    let values = format!(
        "SELECT {} AS \"row\", {} AS \"column\", {}\nFROM ({from})",
        identifier(rows),
        identifier(columns_of),
        identifier(&spec.measure)
    );
    let frame = Frame::load(source, &values, &[&spec.measure], &["row", "column"]).await?;
    let mut draft = Draft::default();
    draft.query(
        "Means",
        format!(
            "SELECT \"row\", \"column\", {}\nFROM (\n{values}\n)\nGROUP BY \"row\", \"column\" ORDER BY \"row\", \"column\"",
            aggregates(std::slice::from_ref(&spec.measure))
        ),
    );
    let mut places: Vec<Place> = Vec::new();
    for (row, members) in frame.by_word("row") {
        for (column, others) in frame.by_word("column") {
            let both: Vec<usize> =
                members.iter().copied().filter(|r| others.binary_search(r).is_ok()).collect();
            places.push((row.unwrap_or(NONE), column.unwrap_or(NONE), both));
        }
    }
    let grid = Grid { spec, frame: &frame, places };
    let measure = measure_label(&spec.measure);
    let caption = format!(
        "Mean {measure} by {}, a line for each {}; bars are one standard error.",
        grid.columns_label(),
        grid.rows_label()
    );
    draft.figure("", caption, Plot::Lines(grid.plot()));
    draft.table("", grid.table());
    Ok(draft)
}

struct Grid<'a> {
    spec: &'a GridSpec,
    frame: &'a Frame,
    places: Vec<Place<'a>>,
}

impl Grid<'_> {
    fn rows_label(&self) -> &str {
        self.spec.rows_label.as_deref().unwrap_or(&self.spec.rows)
    }

    fn columns_label(&self) -> &str {
        self.spec.columns_label.as_deref().unwrap_or(&self.spec.columns)
    }

    /// The names along one side, in order: what has no value first.
    fn names(&self, of: fn(&Place) -> String) -> Vec<String> {
        let mut names: Vec<String> = self.places.iter().map(of).collect();
        names.sort_by(|a, b| (b == NONE).cmp(&(a == NONE)).then_with(|| natural(a, b)));
        names.dedup();
        names
    }

    fn rows(&self) -> Vec<String> {
        self.names(|p| p.0.to_owned())
    }

    fn columns(&self) -> Vec<String> {
        self.names(|p| p.1.to_owned())
    }

    fn cases(&self, row: &str, column: &str) -> &[usize] {
        let place = self.places.iter().find(|(r, c, _)| *r == row && *c == column);
        place.map_or(&[], |(_, _, rows)| rows)
    }

    fn published(&self, row: &str, column: &str) -> Option<serde_json::Value> {
        let spec = self.spec;
        let keys = [(spec.rows.as_str(), row), (spec.columns.as_str(), column)];
        published::find(&spec.published, &keys, &[&spec.measure], &spec.measure)
    }

    fn plot(&self) -> Lines {
        let (rows, columns) = (self.rows(), self.columns());
        let mut series = Vec::new();
        for (colour, row) in rows.iter().enumerate() {
            let found = columns.iter().enumerate().filter_map(|(i, column)| {
                let values = self.frame.values(&self.spec.measure, self.cases(row, column));
                let found = describe(&values);
                Some(Point { x: i as f64, y: found.mean.ok()?, se: found.se.ok() })
            });
            let published = columns.iter().enumerate().filter_map(|(i, column)| {
                let y = self.published(row, column)?.as_f64()?;
                Some(Point { x: i as f64, y, se: None })
            });
            let label = format!("{} {row}", self.rows_label());
            series.push(Series {
                label: label.clone(),
                points: found.collect(),
                published: false,
                colour,
            });
            series.push(Series {
                label: format!("{label}, published"),
                points: published.collect(),
                published: true,
                colour,
            });
        }
        series.retain(|s| !s.points.is_empty());
        series.sort_by_key(|s| s.published);
        Lines {
            y_label: measure_label(&self.spec.measure),
            x_label: self.columns_label().to_owned(),
            ticks: columns.iter().enumerate().map(|(i, c)| (i as f64, c.clone())).collect(),
            series,
            share: is_share(&self.spec.measure),
        }
    }

    fn table(&self) -> Table {
        let (rows, columns) = (self.rows(), self.columns());
        let given: Vec<bool> = columns
            .iter()
            .map(|column| rows.iter().any(|row| self.published(row, column).is_some()))
            .collect();
        let mut head = vec![format!("{} \\ {}", self.rows_label(), self.columns_label())];
        for (column, given) in columns.iter().zip(&given) {
            head.push(column.clone());
            head.extend(given.then(|| format!("{column}, published")));
        }
        let caption = format!(
            "{}: mean ± SD over cases, and the standard error (SE).",
            measure_label(&self.spec.measure)
        );
        let mut table = Table::new(caption, head);
        for row in &rows {
            let mut cells = vec![Cell::Text(row.clone())];
            for (column, given) in columns.iter().zip(&given) {
                let found =
                    describe(&self.frame.values(&self.spec.measure, self.cases(row, column)));
                cells.push(Cell::mean(&found, decimals(&self.spec.measure)));
                if *given {
                    let value = self.published(row, column);
                    cells.push(Cell::published(value.as_ref(), &self.spec.measure));
                }
            }
            table.push(cells);
        }
        table
    }
}
