//! The distribution of variables in groups, such as noise and SNR by centre.

use super::frame::{Frame, NOT_KNOWN, aggregates, columns};
use super::groups::p_cell;
use super::table::{Cell, Row, Table};
use super::{Draft, Plot, measure_label};
use crate::error::Result;
use crate::pipeline::report_spec::{BoxesSpec, query};
use crate::report::load::query::{Source, identifier};
use crate::report::load::strata::label;
use crate::study::statistics::{Group, describe, kruskal_wallis};

pub(super) async fn draft(source: &Source<'_>, spec: &BoxesSpec) -> Result<Draft> {
    let from = query(&spec.from);
    let values: Vec<&str> = spec.values.iter().map(String::as_str).collect();
    let wanted: Vec<&str> = values.iter().copied().chain([spec.by.as_str()]).collect();
    columns(source, &from, &wanted).await?;
    let select: Vec<String> = values.iter().map(|v| identifier(v)).collect();
    let sql = format!(
        "SELECT {} AS \"group\", {}\nFROM ({from})",
        identifier(&spec.by),
        select.join(", ")
    );
    let frame = Frame::load(source, &sql, &values, &["group"]).await?;
    let mut draft = Draft::default();
    draft.query(
        "By group",
        format!(
            "SELECT \"group\", {}\nFROM (\n{sql}\n)\nGROUP BY \"group\" ORDER BY \"group\"",
            aggregates(&spec.values)
        ),
    );
    let groups: Vec<(String, Vec<usize>)> = frame
        .by_word("group")
        .into_iter()
        .map(|(name, rows)| (name.unwrap_or(NOT_KNOWN).to_owned(), rows))
        .collect();
    let by = label(&spec.by);
    let head = [by.to_owned(), "Cases".to_owned()]
        .into_iter()
        .chain(values.iter().map(|v| measure_label(v)));
    let mut table = Table::new(
        "Median (first to third quartile, by linear interpolation). The test compares the groups that are known.",
        head.collect(),
    );
    for (name, rows) in &groups {
        let mut cells = vec![Cell::Text(name.clone()), Cell::Count(rows.len() as u64)];
        cells.extend(values.iter().map(|v| Cell::median(&describe(&frame.values(v, rows)), 2)));
        table.push(cells);
    }
    let mut tests = vec![Cell::Text("Difference, Kruskal–Wallis".to_owned()), Cell::Blank];
    for value in &values {
        let known: Vec<(&str, Vec<Option<f64>>)> = groups
            .iter()
            .filter(|(name, _)| name != NOT_KNOWN)
            .map(|(name, rows)| (name.as_str(), frame.values(value, rows)))
            .collect();
        let named: Vec<Group> = known.iter().map(|(name, v)| Group::new(name, v)).collect();
        tests.push(p_cell(&kruskal_wallis(&named)));
        let shown = groups.iter().map(|(name, rows)| {
            let finite = frame.values(value, rows).into_iter().flatten().filter(|v| v.is_finite());
            (name.clone(), finite.collect())
        });
        let caption = format!(
            "{} by {}. Box: quartiles and median; whiskers: last values within 1.5 interquartile ranges; dots: cases.",
            measure_label(value),
            by.to_lowercase()
        );
        let plot = Plot::Boxes { label: measure_label(value), groups: shown.collect() };
        draft.figure(value, caption, plot);
    }
    table.rows.push(Row::Cells(tests));
    draft.table("", table);
    Ok(draft)
}
