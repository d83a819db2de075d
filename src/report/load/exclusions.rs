//! Who left before the images were prepared, by who took them out and why.

use serde::Deserialize;

use super::query::{Source, identifier, literal};
use crate::catalog::curation::{EXCLUDED, REMOVED};
use crate::error::Result;
use crate::report::data::{Exclusion, Reason};

#[derive(Deserialize)]
struct Excluded {
    place: String,
    reason: String,
    cases: u64,
}

/// Whom a curator or a cohort on the way to the prepared images took out, by who did and why. A case is told once, by the
/// first; one that the step holds by another way, or that failed, is not told here.
pub async fn excluded(
    source: &Source<'_>,
    held: &str,
    failed: &str,
    queries: &mut Vec<String>,
) -> Result<Vec<Exclusion>> {
    let mut told = Vec::new();
    if source.columns("cases").await.iter().any(|(name, _)| name == EXCLUDED) {
        for (position, (place, which)) in
            [("Excluded by a curator", "<>"), ("Removed from the registry", "=")].iter().enumerate()
        {
            told.push(format!(
                "SELECT case_id, {EXCLUDED} AS reason, '{place}' AS place, {position} AS position FROM cases WHERE {EXCLUDED} {which} '{REMOVED}'"
            ));
        }
    }
    for (n, cohort) in source.job.cohorts.iter().enumerate() {
        let view = format!("{cohort}_excluded");
        if source.has_view(&view).await {
            told.push(format!(
                "SELECT case_id, reason, {} AS place, {} AS position FROM {}",
                literal(&format!("Excluded from {cohort}")),
                n + 2,
                identifier(&view)
            ));
        }
    }
    if told.is_empty() {
        return Ok(Vec::new());
    }
    let but_failed = match failed {
        "" => String::new(),
        sql => format!(
            "\nLEFT ANTI JOIN (SELECT DISTINCT case_id FROM (\n{sql}\n)) f ON f.case_id = t.case_id"
        ),
    };
    let sql = format!(
        "SELECT t.place, t.reason, count(*) AS cases FROM (\n  \
         SELECT *, row_number() OVER (PARTITION BY case_id ORDER BY position) AS nth FROM (\n    {}\n  )\n) t\n\
         LEFT ANTI JOIN ({held}) h ON h.case_id = t.case_id{but_failed}\n\
         WHERE t.nth = 1\nGROUP BY t.place, t.position, t.reason ORDER BY t.position, cases DESC, t.reason",
        told.join("\n    UNION ALL ")
    );
    let mut exclusions: Vec<Exclusion> = Vec::new();
    for Excluded { place, reason, cases } in source.rows(&sql).await? {
        match exclusions.last_mut().filter(|last| last.place == place) {
            Some(last) => {
                last.cases += cases;
                last.reasons.push(Reason { reason, cases });
            }
            None => {
                exclusions.push(Exclusion {
                    place,
                    cases,
                    reasons: vec![Reason { reason, cases }],
                });
            }
        }
    }
    if !exclusions.is_empty() {
        queries.push(sql);
    }
    Ok(exclusions)
}

/// Puts those that were `excluded`, and those that the step's query did not ask for, before those that failed.
pub fn with_rest(
    failed: Vec<Exclusion>,
    before: u64,
    here: u64,
    step: &str,
    excluded: Vec<Exclusion>,
) -> Vec<Exclusion> {
    let total = |of: &[Exclusion]| of.iter().map(|e| e.cases).sum::<u64>();
    let rest = before.saturating_sub(total(&failed) + here + total(&excluded));
    let mut exclusions = excluded;
    if rest > 0 {
        let reason =
            Reason { reason: "not asked for by the step’s query".to_owned(), cases: rest };
        exclusions.push(Exclusion { place: step.to_owned(), cases: rest, reasons: vec![reason] });
    }
    exclusions.extend(failed);
    exclusions
}
