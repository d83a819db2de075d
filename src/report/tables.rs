//! Tables of the report, and how numbers are written in them.

use maud::{Markup, html};

use super::data::{Failures, Group, Scores, Spread, Stratum};

/// A whole number with thousands apart: `12,013`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `n` and the noun, in the plural unless `n` is 1.
pub fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// `0.700 ± 0.230` and `SE 0.012`, or what of it is defined; says why the rest is not, and the number of cases
/// where the score is defined if it is not that of the group.
pub fn spread(spread: &Spread, decimals: usize, group: u64) -> Markup {
    html! {
        @match (spread.mean, spread.sd, spread.standard_error()) {
            (Some(mean), Some(sd), Some(se)) => {
                (format!("{mean:.decimals$}")) span.sd { (format!(" ± {sd:.decimals$}")) }
                small { (format!("SE {se:.decimals$}")) @if spread.n != group { ", n = " (count(spread.n)) } }
            }
            (Some(mean), ..) => {
                (format!("{mean:.decimals$}")) small { "SD not computed: n = " (spread.n) }
            }
            _ => span.faint { "not computed: n = " (spread.n) },
        }
    }
}

const SCORE_HEADS: [(&str, &str); 6] = [
    ("DSC", "Dice similarity coefficient"),
    ("Sensitivity", "Share of the truth's voxels that are predicted"),
    ("Precision", "Share of the predicted voxels that are true"),
    ("Lesion F1", "F1 score over lesions"),
    ("HD95 (mm)", "95th percentile of the Hausdorff distance"),
    ("|ΔV| (mL)", "Absolute difference of predicted and true volume"),
];

fn cells(group: &Group) -> Markup {
    let scores = [
        (&group.dice, 3),
        (&group.sensitivity, 3),
        (&group.precision, 3),
        (&group.lesion_f1, 3),
        (&group.hd95_mm, 1),
        (&group.absolute_volume_difference_ml, 2),
    ];
    html! {
        th scope="row" { (group.label) }
        td { (count(group.n)) }
        @for (of, decimals) in scores {
            td { (spread(of, decimals, group.n)) }
        }
    }
}

/// One table of all strata: a row a group under a heading a stratum, the row of all cases first.
pub fn scores(scores: &Scores) -> Markup {
    html! {
        div.scroll role="region" aria-label="Scores by stratum" tabindex="0" {
            table.scores {
                caption { "Mean ± SD over cases, and the standard error (SE) of the mean. An n under a score is the number of cases where it is defined, if not all." }
                thead { tr {
                    th scope="col" { "Group" }
                    th scope="col" { "n" }
                    @for (name, meaning) in SCORE_HEADS { th scope="col" title=(meaning) { (name) } }
                } }
                tbody { tr.overall { (cells(&scores.overall)) } }
                @for stratum in &scores.strata { (stratum_rows(stratum)) }
            }
        }
    }
}

fn stratum_rows(stratum: &Stratum) -> Markup {
    html! {
        tbody {
            tr.heading { th colspan="8" scope="colgroup" { (stratum.label) } }
            @match &stratum.groups {
                Ok(groups) if groups.is_empty() => tr { td.faint colspan="8" { "no cases" } },
                Ok(groups) => @for group in groups { tr { (cells(group)) } },
                Err(reason) => tr { td.faint colspan="8" { "not computed: " (reason) } },
            }
        }
    }
}

/// The failures that are listed, and where the others are.
pub fn failures(failures: &Failures) -> Markup {
    let more = failures.total.saturating_sub(failures.rows.len() as u64);
    html! {
        div.scroll role="region" aria-label="Failures" tabindex="0" {
            table.failures {
                caption { (counted(failures.total, "failure", "failures")) " in " (counted(failures.cases, "case", "cases"))
                    @if more > 0 { ", the first " (count(failures.rows.len() as u64)) " of them below" } }
                thead { tr {
                    @for head in ["Case", "Step › stage", "Reason", "What to do"] { th scope="col" { (head) } }
                } }
                tbody { @for row in &failures.rows { tr {
                    th scope="row" { (row.case_id) }
                    td { (row.step) " › " (row.stage) }
                    td { (row.reason) small { (row.fault) @if row.transient { ", tried again by the next run" } } }
                    td { @match &row.hint { Some(hint) => (hint), None => span.faint { "–" } } }
                } } }
            }
        }
        @if more > 0 {
            p { "And " (count(more)) " more: the query below lists all of them." }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::data::FailedCase;

    #[test]
    fn thousands_are_apart() {
        let written = [0, 7, 999, 1000, 12013, 1_234_567].map(count);
        assert_eq!(written, ["0", "7", "999", "1,000", "12,013", "1,234,567"]);
    }

    #[test]
    fn what_cannot_be_computed_is_said() {
        let text = |of, group| spread(&of, 3, group).into_string();
        let four = Spread::new(4, Some(0.7), Some(0.2), None);
        assert_eq!(text(four, 4), "0.700<span class=\"sd\"> ± 0.200</span><small>SE 0.100</small>");
        assert!(text(four, 5).contains("SE 0.100, n = 4"));
        let one = Spread::new(1, Some(0.7), None, None);
        assert_eq!(text(one, 1), "0.700<small>SD not computed: n = 1</small>");
        assert!(text(Spread::default(), 0).contains("not computed: n = 0"));
    }

    #[test]
    fn a_group_without_cases_and_a_stratum_without_a_column_have_rows() {
        let strata = vec![
            Stratum {
                variable: "a".to_owned(),
                label: "A".to_owned(),
                groups: Ok(vec![Group { label: "< 3 h".to_owned(), ..Group::default() }]),
                sql: String::new(),
            },
            Stratum {
                variable: "b".to_owned(),
                label: "B".to_owned(),
                groups: Err("no column b".to_owned()),
                sql: String::new(),
            },
        ];
        let html = scores(&Scores { strata, ..Scores::default() }).into_string();
        assert!(html.contains("&lt; 3 h") && html.contains("not computed: no column b"));
    }

    #[test]
    fn reasons_are_escaped_and_the_rest_is_counted() {
        let row = FailedCase { reason: "<script>".to_owned(), ..FailedCase::default() };
        let html = failures(&Failures {
            total: 1200,
            cases: 1199,
            rows: vec![row],
            ..Failures::default()
        });
        let html = html.into_string();
        assert!(html.contains("&lt;script&gt;") && html.contains("1,200 failures in 1,199 cases"));
        assert!(html.contains("And 1,199 more"));
    }
}
