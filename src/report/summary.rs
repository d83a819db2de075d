//! The end of a run in a few lines for the terminal.

use std::fmt::Write as _;

use super::data::{Group, ReportData, Scores, Spread, Stratum};
use super::tables::{count, counted};

/// The summary: the score with its spread, a line a group, failures by stage, and where the report is.
///
/// The second line reads `DSC 0.812 ± 0.10 (n = 20)` where predictions were scored.
pub fn text(data: &ReportData) -> String {
    let mut text = format!("{}\n", data.title);
    match &data.scores {
        Some(scores) => score_lines(scores, &mut text),
        None => text.push_str("no predictions were scored\n"),
    }
    for note in &data.notes {
        let _ = writeln!(text, "note: {note}");
    }
    failure_lines(data, &mut text);
    if !data.html.as_os_str().is_empty() {
        let _ = writeln!(text, "\nreport: {}", data.html.display());
    }
    text
}

fn score_lines(scores: &Scores, text: &mut String) {
    let dice = &scores.overall.dice;
    let _ = match (dice.mean, dice.sd) {
        (Some(mean), Some(sd)) => writeln!(text, "DSC {mean:.3} ± {sd:.2} (n = {})", dice.n),
        (Some(mean), None) => {
            writeln!(text, "DSC {mean:.3} (n = {}; SD not computed: n = 1)", dice.n)
        }
        _ => writeln!(text, "DSC not computed: n = {}", dice.n),
    };
    if scores.overall.n == 0 {
        return;
    }
    let mut rows =
        vec![["group", "n", "DSC", "median", "sensitivity", "precision"].map(str::to_owned)];
    rows.push(cells(&scores.overall, ""));
    for stratum in &scores.strata {
        rows.extend(stratum_rows(stratum));
    }
    text.push('\n');
    align(&rows, text);
}

fn stratum_rows(stratum: &Stratum) -> Vec<[String; 6]> {
    let blank = || [const { String::new() }; 6];
    let mut heading = blank();
    heading[0].clone_from(&stratum.label);
    match &stratum.groups {
        Ok(groups) => [heading].into_iter().chain(groups.iter().map(|g| cells(g, "  "))).collect(),
        Err(reason) => {
            heading[0] = format!("{}: not computed, {reason}", stratum.label);
            vec![heading]
        }
    }
}

fn cells(group: &Group, indent: &str) -> [String; 6] {
    let number = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.2}"));
    let mean = |of: &Spread| number(of.mean);
    let dice = match (group.dice.mean, group.dice.sd) {
        (Some(mean), Some(sd)) => format!("{mean:.2} ± {sd:.2}"),
        (Some(mean), None) => format!("{mean:.2}       "),
        _ => "–          ".to_owned(),
    };
    [
        format!("{indent}{}", group.label),
        count(group.n),
        dice,
        number(group.dice.median),
        mean(&group.sensitivity),
        mean(&group.precision),
    ]
}

/// Columns side by side: the first to the left, the others to the right. A row with only a first cell may be wide.
fn align(rows: &[[String; 6]], text: &mut String) {
    let width = |c: usize| {
        let full = rows.iter().filter(|row| c > 0 || !row[1].is_empty());
        full.map(|row| row[c].chars().count()).max().unwrap_or(0)
    };
    let widths = [0, 1, 2, 3, 4, 5].map(width);
    for row in rows {
        let mut line = format!("{:<w$}", row[0], w = widths[0]);
        for (cell, width) in row.iter().zip(widths).skip(1) {
            let _ = write!(line, "  {cell:>width$}");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

fn failure_lines(data: &ReportData, text: &mut String) {
    let failures = &data.failures;
    let found = data.flow.before.first().map_or(0, |station| station.cases);
    let _ = if failures.total == 0 {
        writeln!(text, "\nfailures: none in {}", counted(found, "case", "cases"))
    } else {
        writeln!(
            text,
            "\nfailures: {} of {}",
            count(failures.cases),
            counted(found, "case", "cases")
        )
    };
    let places: Vec<String> =
        failures.by_stage.iter().map(|s| format!("  {} › {}", s.step, s.stage)).collect();
    let width = places.iter().map(|p| p.chars().count()).max().unwrap_or(0);
    for (place, stage) in places.iter().zip(&failures.by_stage) {
        let _ = writeln!(text, "{place:<width$}  {:>6}", count(stage.failures));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::data::{Failures, StageCount, Station};

    fn group(label: &str, n: u64, dice: f64) -> Group {
        let of = |mean| Spread::new(n, Some(mean), Some(0.104), Some(mean + 0.01));
        Group {
            label: label.to_owned(),
            n,
            dice: of(dice),
            sensitivity: of(0.8),
            precision: of(0.83),
            ..Group::default()
        }
    }

    fn example() -> ReportData {
        let volume = Stratum {
            variable: "volume_ml".to_owned(),
            label: "lesion volume".to_owned(),
            groups: Ok(vec![
                group("< 1.7 mL", 12, 0.7),
                group("1.7–14 mL", 1, 0.9),
                group("> 14 mL", 0, 0.9),
            ]),
            sql: String::new(),
        };
        let scores =
            Scores { overall: group("all", 20, 0.812), strata: vec![volume], ..Scores::default() };
        let mut data = ReportData {
            title: "infarct-demo".to_owned(),
            html: "/tmp/report.html".into(),
            scores: Some(scores),
            ..ReportData::default()
        };
        data.flow.before.push(Station {
            label: "Found".to_owned(),
            cases: 120,
            ..Station::default()
        });
        data.failures = Failures {
            total: 3,
            cases: 3,
            by_stage: vec![StageCount {
                step: "prepared".to_owned(),
                stage: "qc".to_owned(),
                failures: 3,
            }],
            ..Failures::default()
        };
        data
    }

    #[test]
    fn the_summary_reads_as_a_table() {
        let expected = "\
infarct-demo
DSC 0.812 ± 0.10 (n = 20)

group         n          DSC  median  sensitivity  precision
all          20  0.81 ± 0.10    0.82         0.80       0.83
lesion volume
  < 1.7 mL   12  0.70 ± 0.10    0.71         0.80       0.83
  1.7–14 mL   1  0.90           0.91         0.80       0.83
  > 14 mL     0  –                 –            –          –

failures: 3 of 120 cases
  prepared › qc       3

report: /tmp/report.html
";
        assert_eq!(text(&example()), expected);
    }

    #[test]
    fn one_case_and_none_are_told_without_nan() {
        let mut data = example();
        data.scores = Some(Scores { overall: group("all", 1, 0.5), ..Scores::default() });
        assert!(text(&data).contains("DSC 0.500 (n = 1; SD not computed: n = 1)"));
        data.scores = Some(Scores::default());
        assert!(text(&data).contains("DSC not computed: n = 0"));
        let empty = text(&ReportData::default());
        assert!(
            empty.contains("no predictions were scored")
                && empty.contains("failures: none in 0 cases")
        );
        assert!(!text(&data).contains("NaN"));
    }
}
