//! The flow chart of a cohort: cases before, exclusions with their reasons in order, cases after, and the parts of its split.

use serde::Deserialize;

use super::frame::columns;
use super::table::{Cell, Table};
use super::{Draft, Plot};
use crate::error::{Error, Result};
use crate::pipeline::report_spec::{FlowSpec, query};
use crate::report::data::{Exclusion, Flow, Part, Reason, Station};
use crate::report::load::query::Source;

#[derive(Deserialize)]
struct Rule {
    reason: Option<String>,
    excluded: u64,
    remaining: u64,
}

#[derive(Deserialize)]
struct Counted {
    part: Option<String>,
    cases: u64,
}

pub(super) async fn draft(source: &Source<'_>, spec: &FlowSpec) -> Result<Draft> {
    let from = query(&spec.from);
    let known = columns(source, &from, &["reason", "excluded", "remaining"]).await?;
    let order = if known.iter().any(|(name, _)| name == "rule_index") {
        "ORDER BY rule_index, remaining DESC"
    } else {
        "ORDER BY remaining DESC, reason"
    };
    let sql = format!("SELECT reason, excluded, remaining FROM ({from}) {order}");
    let rules: Vec<Rule> = source.rows(&sql).await?;
    let mut draft = Draft::default();
    draft.query(spec.end.as_str(), sql);
    let (Some(first), Some(last)) = (rules.first(), rules.last()) else {
        return Err(Error::configuration("the flow has no rows: it should have one an exclusion"));
    };
    let before = first.excluded + first.remaining;
    let mut table = Table::new(
        "Cases excluded by each rule, in order; a case is excluded once, by the first rule that holds.",
        ["Reason", "Excluded", "Remaining"].map(str::to_owned).to_vec(),
    );
    table.push(vec![Cell::Text(spec.start.clone()), Cell::Blank, Cell::Count(before)]);
    let mut reasons = Vec::new();
    for rule in &rules {
        // A row that excludes no one for no reason is the start.
        let Some(reason) = rule.reason.clone().filter(|r| !r.is_empty()) else { continue };
        table.push(vec![
            Cell::Text(reason.clone()),
            Cell::Count(rule.excluded),
            Cell::Count(rule.remaining),
        ]);
        reasons.push(Reason { reason, cases: rule.excluded });
    }
    let excluded = reasons.iter().map(|r| r.cases).sum();
    let lost = Exclusion { place: "Excluded".to_owned(), cases: excluded, reasons };
    let station =
        |label: &str, cases| Station { label: label.to_owned(), cases, ..Station::default() };
    let end = Station {
        exclusions: if lost.reasons.is_empty() { Vec::new() } else { vec![lost] },
        ..station(&spec.end, last.remaining)
    };
    let mut flow = Flow { before: vec![station(&spec.start, before), end], ..Flow::default() };
    if let Some(parts) = &spec.parts {
        let parts = query(parts);
        columns(source, &parts, &["part"]).await?;
        let sql = format!(
            "SELECT part, count(*) AS cases FROM ({parts}) GROUP BY part ORDER BY count(*) DESC, part"
        );
        for row in source.rows::<Counted>(&sql).await? {
            let part = row.part.unwrap_or_else(|| "in no part".to_owned());
            table.push(vec![Cell::Text(part.clone()), Cell::Blank, Cell::Count(row.cases)]);
            flow.parts.push(Part { part, cases: row.cases, scored: 0 });
        }
        draft.query("Parts", sql);
    }
    draft.figure("", "Cases before and after each exclusion, and why.", Plot::Flow(flow));
    draft.table("", table);
    Ok(draft)
}
