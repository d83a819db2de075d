//! The difference as a page: tiles, alarms as notes on top, then sections of tables and pictures.

use super::compare::{Difference, Division, Listed};
use super::night::{MEASURES, excluded_sql, failed_sql, scores_sql};
use super::shift::{Distance, Drift, Shift, Values};
use super::{DifferenceJob, Shown, Side};
use crate::report::data::{Example, ReportData, Tile};
use crate::report::exhibits::table::{Cell, Row, Table, number};
use crate::report::exhibits::{Exhibit, Part, Query, Section};
use crate::report::load::strata::label;
use crate::report::tables::{count, counted};

/// Most cases of a list on the page; the JSON has all.
const LISTED: usize = 200;

/// Whether anything happened.
pub fn is_news(found: &Difference) -> bool {
    let counts = &found.counts;
    let happened = counts.new + counts.changed + counts.removed + counts.failed + counts.rescored;
    happened > 0 || !found.alarms.is_empty() || found.against.is_none()
}

/// The difference in a line, for a chat or the subject of a mail.
pub fn line(found: &Difference) -> String {
    let counts = &found.counts;
    let mut parts = Vec::new();
    if found.against.is_none() {
        parts.push(format!("{} scored, nothing to compare with", counts.scored));
    } else {
        for (n, what) in [
            (counts.new, "new"),
            (counts.changed, "changed"),
            (counts.removed, "removed"),
            (counts.failed, "newly failed"),
            (counts.rescored, "scored again"),
            (counts.moved, "with another DSC"),
        ] {
            if n > 0 {
                parts.push(format!("{n} {what}"));
            }
        }
        if parts.is_empty() {
            parts.push(format!("nothing changed, {} scored", counts.scored));
        }
    }
    let mut line = parts.join(", ");
    if let Some(shift) = dice(found)
        && let (Some(now), Some(by)) = (shift.now, shift.shift)
    {
        line += &format!("; DSC {now:.3}");
        if shift.changed > 0 {
            line += &format!(" ({}{})", if by < 0.0 { "" } else { "+" }, number(by, 3));
        }
    }
    match found.alarms.as_slice() {
        [] => line,
        [one] => format!("{line}; ALARM: {}", one.text),
        [first, rest @ ..] => format!("{line}; ALARM: {} (and {} more)", first.text, rest.len()),
    }
}

/// The shift of the DSC of all cases.
fn dice(found: &Difference) -> Option<&Shift> {
    found.shifts.first()?.groups.first()?.measures.first()
}

/// The page's data.
pub(super) fn report(job: &DifferenceJob, found: &Difference, shown: Vec<Shown>) -> ReportData {
    let mut notes: Vec<String> = found
        .alarms
        .iter()
        .map(|alarm| format!("Alarm ({}): {}.", alarm.kind, alarm.text))
        .collect();
    notes.extend(found.notes.iter().cloned());
    let mut study = vec![cases(job, found)];
    if found.against.is_some() {
        study.push(scores(job, found));
        study.push(moved(job, found, shown));
    }
    if !found.drift.is_empty() {
        study.push(drift(job, found));
    }
    ReportData {
        title: job.params.title.clone(),
        html: job.params.html.clone(),
        notes,
        tiles: tiles(found),
        lineage: job.lineage.clone(),
        study,
        ..ReportData::default()
    }
}

fn tiles(found: &Difference) -> Vec<Tile> {
    let counts = &found.counts;
    let tile = |name: &str, n: usize, detail: String| Tile {
        name: name.to_owned(),
        value: count(n as u64),
        detail,
    };
    let mut tiles = vec![tile("Scored", counts.scored, String::new())];
    if found.against.is_some() {
        tiles[0].detail = format!("{} on the earlier night", count(counts.scored_before as u64));
        for (name, n) in [
            ("New", counts.new),
            ("Changed", counts.changed),
            ("Removed", counts.removed),
            ("Newly failed", counts.failed),
            ("DSC moved", counts.moved),
        ] {
            tiles.push(tile(name, n, String::new()));
        }
        if let Some((shift, by)) = dice(found).and_then(|shift| Some((shift, shift.shift?))) {
            let sign = if by > 0.0 { "+" } else { "" };
            let detail = match shift.interval {
                Some([low, high]) => format!("95 % CI {} to {}", number(low, 3), number(high, 3)),
                None => shift.not_computed.clone().unwrap_or_default(),
            };
            let value = format!("{sign}{}", number(by, 3));
            tiles.push(Tile { name: "Shift of the mean DSC".to_owned(), value, detail });
        }
    }
    tiles.push(tile("Alarms", found.alarms.len(), String::new()));
    tiles
}

fn exhibit(id: &str, title: &str, table: Table) -> Exhibit {
    Exhibit {
        id: id.to_owned(),
        title: title.to_owned(),
        parts: Ok(vec![Part::Table { id: format!("{id}-table"), table }]),
        notes: Vec::new(),
        queries: Vec::new(),
    }
}

fn query(label: &str, sql: String) -> Query {
    Query { label: label.to_owned(), sql }
}

fn head(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn cases(job: &DifferenceJob, found: &Difference) -> Section {
    let text = match (&found.against, &found.models) {
        (None, _) => "The next run is compared with this one.".to_owned(),
        (Some(night), [before, now]) => {
            let models = match before == now {
                true => format!("Predicted by {} on both.", words(now)),
                false => format!("Predicted by {}, then by {}.", words(now), words(before)),
            };
            format!(
                "Compared with run {} as it was at {} (version {} of the table cases). {models}",
                night.run_id, night.moment, night.catalog_version
            )
        }
    };
    let mut exhibits = Vec::new();
    for (id, title, listed, heading) in [
        ("new", "New cases", &found.new, "Since"),
        ("changed", "Changed cases", &found.changed, "What changed"),
        ("removed", "Removed cases", &found.removed, "Why"),
        ("failed", "Newly failed cases", &found.failed, "Why"),
    ] {
        if !listed.is_empty() {
            exhibits.push(list(id, title, listed, heading));
        }
        let queries = exhibits.last_mut().filter(|_| !listed.is_empty()).map(|e| &mut e.queries);
        if let Some(queries) = queries {
            match id {
                "removed" => queries.push(query("Cases that are kept out", excluded_sql(job))),
                "failed" => queries.push(query("Failures of this run", failed_sql(&found.run_id))),
                _ => {}
            }
        }
    }
    let text = match exhibits.is_empty() && found.against.is_some() {
        true => format!("{text} No case is new, changed, removed or newly failed."),
        false => text,
    };
    Section { id: "cases".to_owned(), title: "Cases".to_owned(), text, exhibits }
}

fn words(models: &[String]) -> String {
    match models {
        [] => "no known model".to_owned(),
        models => models.join(", "),
    }
}

fn list(id: &str, title: &str, listed: &[Listed], heading: &str) -> Exhibit {
    let more = listed.len().saturating_sub(LISTED);
    let caption = match more {
        0 => counted(listed.len() as u64, "case", "cases"),
        more => format!(
            "The first {LISTED} of {} cases; the JSON has the other {}.",
            count(listed.len() as u64),
            count(more as u64)
        ),
    };
    let mut table = Table::new(caption, head(&["Case", "Centre", heading]));
    for case in listed.iter().take(LISTED) {
        let centre = case.centre.clone().map_or(Cell::Blank, Cell::Text);
        table.push(vec![Cell::Text(case.case_id.clone()), centre, Cell::Text(case.what.clone())]);
    }
    exhibit(id, title, table)
}

fn scores(job: &DifferenceJob, found: &Difference) -> Section {
    let mut columns = head(&["", "Pairs", "Earlier DSC", "DSC tonight"]);
    columns.extend(MEASURES.map(|(_, label, _)| format!("Shift of {label}")));
    let caption = "Means over the cases that are scored on both nights. Shift: mean of the differences, tonight less the earlier night, \
                   with its bootstrap interval.";
    let mut table = Table::new(caption, columns);
    for division in &found.shifts {
        rows(&mut table, division);
    }
    let mut shifts = exhibit("shifts", "All cases and groups", table);
    shifts.queries.push(query("Scores tonight", scores_sql(&job.step)));
    for division in &found.shifts {
        if let Some(reason) = &division.not_computed {
            shifts.notes.push(format!("By {}: not computed: {reason}.", division.label));
        }
    }
    let text = format!(
        "{} of {} cases were scored again.",
        count(found.counts.rescored as u64),
        count(found.counts.scored as u64)
    );
    let title = "Shifts of the scores".to_owned();
    Section { id: "scores".to_owned(), title, text, exhibits: vec![shifts] }
}

fn rows(table: &mut Table, division: &Division) {
    if !division.variable.is_empty() && !division.groups.is_empty() {
        table.rows.push(Row::Heading(division.label.clone()));
    }
    for group in &division.groups {
        let Some(dice) = group.measures.first() else { continue };
        let real = |value: Option<f64>| value.map_or(Cell::Blank, |v| Cell::Number(v, 3));
        let mut cells = vec![
            Cell::Text(group.group.clone()),
            Cell::Count(dice.n as u64),
            real(dice.before),
            real(dice.now),
        ];
        let with_decimals = group.measures.iter().zip(MEASURES);
        cells.extend(with_decimals.map(|(shift, (_, _, decimals))| cell(shift, decimals)));
        table.push(cells);
    }
}

fn cell(shift: &Shift, decimals: usize) -> Cell {
    match (shift.shift, shift.interval) {
        // All that it needs to say is that nothing moved.
        (Some(_), Some(_)) if shift.changed == 0 => Cell::Number(0.0, 0),
        (Some(value), Some([low, high])) => Cell::Interval { value, low, high, decimals },
        _ => Cell::NotComputed(shift.not_computed.clone().unwrap_or_default()),
    }
}

fn moved(job: &DifferenceJob, found: &Difference, shown: Vec<Shown>) -> Section {
    let limit = job.params.dsc_moved;
    let text = match found.moved.len() {
        0 => format!("The DSC of no case moved by more than {limit}."),
        n => format!(
            "The DSC of {} moved by more than {limit}, those that moved most first.",
            counted(n as u64, "case", "cases")
        ),
    };
    let mut exhibits = Vec::new();
    if !found.moved.is_empty() {
        let names = ["Case", "Centre", "Earlier", "Tonight", "Shift", "What is different"];
        let mut table = Table::new("DSC", head(&names));
        for case in found.moved.iter().take(LISTED) {
            table.push(vec![
                Cell::Text(case.case_id.clone()),
                case.centre.clone().map_or(Cell::Blank, Cell::Text),
                Cell::Number(case.before, 3),
                Cell::Number(case.now, 3),
                Cell::Number(case.now - case.before, 3),
                Cell::Text(case.why.join(", ")),
            ]);
        }
        exhibits.push(exhibit("moved-cases", "Moved cases", table));
    }
    if !shown.is_empty() {
        let parts = shown.into_iter().flat_map(|case| {
            let Shown { case_id, before, now } = case;
            [("Earlier", before), ("Tonight", now)]
                .map(|(rank, side)| picture(rank, &case_id, side))
        });
        exhibits.push(Exhibit {
            id: "montages".to_owned(),
            title: "Before and after".to_owned(),
            parts: Ok(parts.collect()),
            notes: Vec::new(),
            queries: Vec::new(),
        });
    }
    let title = "Cases whose DSC moved".to_owned();
    Section { id: "moved".to_owned(), title, text, exhibits }
}

fn picture(rank: &str, case_id: &str, side: Side) -> Part {
    Part::Case {
        example: Example {
            rank: rank.to_owned(),
            case_id: case_id.to_owned(),
            dice: side.dice,
            volume_truth_ml: side.volume_truth_ml,
            volume_predicted_ml: side.volume_predicted_ml,
            slices: side.slices,
        },
        lineage: case_id.to_owned(),
    }
}

fn drift(job: &DifferenceJob, found: &Difference) -> Section {
    let names = ["", "Baseline", "Tonight", "SMD", "New or changed", "SMD of these"];
    let mut table = Table::new(
        "Mean ± SD. SMD: standardised mean difference from the baseline night, with its 95 % interval.",
        head(&names),
    );
    for Drift { variable, baseline, now, arrivals, smd_now, smd_arrivals } in &found.drift {
        table.push(vec![
            Cell::Text(label(variable).to_owned()),
            values(baseline),
            values(now),
            distance(smd_now),
            values(arrivals),
            distance(smd_arrivals),
        ]);
    }
    let text = match &found.baseline {
        Some(night) => format!(
            "Input data against those of run {} as it was at {}. An alarm is raised beyond {}.",
            night.run_id, night.moment, job.params.alarms.drift
        ),
        None => String::new(),
    };
    let exhibits = vec![exhibit("drift-of-input", "Input data", table)];
    Section { id: "drift".to_owned(), title: "Drift of the input".to_owned(), text, exhibits }
}

fn values(of: &Values) -> Cell {
    match (of.mean, of.sd) {
        (Some(mean), Some(sd)) => {
            let digits = if mean.abs() < 10.0 { 2 } else { 1 };
            let (mean, sd) = (number(mean, digits), number(sd, digits));
            Cell::Text(format!("{mean} ± {sd} (n = {})", of.n))
        }
        (Some(mean), None) => Cell::Text(format!("{} (n = {})", number(mean, 2), of.n)),
        _ => Cell::Text("n = 0".to_owned()),
    }
}

fn distance(of: &Distance) -> Cell {
    match (of.value, of.interval) {
        (Some(value), Some([low, high])) => Cell::Interval { value, low, high, decimals: 2 },
        (Some(value), None) => Cell::Number(value, 2),
        _ => Cell::NotComputed(of.not_computed.clone().unwrap_or_default()),
    }
}
