//! Scores: all cases, by stratum, case by case, and the best, the median and the worst.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::pictures::{self, CaseFiles, ImageAt};
use super::query::{Source, identifier, literal, literals};
use super::strata::{Groups, Variable};
use crate::error::Result;
use crate::report::data::{Example, Group, ScoredCase, Scores, Spread, Stratum};

/// Most groups of one stratum on the page.
const MOST_GROUPS: usize = 40;
/// The scores that are averaged.
const MEASURES: [&str; 6] =
    ["dice", "sensitivity", "precision", "lesion_f1", "hd95_mm", "absolute_volume_difference_ml"];
/// What a group without a value is called.
const NOT_KNOWN: &str = "not known";

/// The newest score of every case that the step still holds.
pub async fn scored_sql(source: &Source<'_>) -> String {
    let job = source.job;
    let step = job.scores_step.as_deref().unwrap_or_default();
    let mut held = String::new();
    // The same fingerprint: the score of these very bytes and parameters. Its prediction has another one.
    for (view, column) in [(&job.scores_step, "fingerprint"), (&job.predicted_step, "case_id")] {
        if let Some(view) = view
            && held.is_empty()
            && source.view_has(view, column).await
        {
            held = format!(" AND {column} IN (SELECT {column} FROM {})", identifier(view));
        }
    }
    format!(
        "SELECT * FROM (\n  SELECT *, row_number() OVER (PARTITION BY case_id ORDER BY created_at DESC, run_id DESC) AS age\n  \
         FROM scores WHERE step = {}{held}\n) WHERE age = 1",
        literal(step)
    )
}

/// The section on scores; none where the pipeline scored nothing.
pub async fn load(source: &Source<'_>) -> Result<Option<Scores>> {
    let Some(step) = source.job.scores_step.clone() else { return Ok(None) };
    if !source.has("scores").await || !source.has("cases").await {
        return Ok(None);
    }
    let scored = scored_sql(source).await;
    let sql = format!("SELECT {}\nFROM (\n{scored}\n) s", aggregates());
    let row = source.rows::<Map<String, Value>>(&sql).await?.pop().unwrap_or_default();
    let overall = group("all cases".to_owned(), &row);
    let policy_sql =
        format!("SELECT DISTINCT empty_policy FROM (\n{scored}\n) ORDER BY empty_policy");
    let policies: Vec<Policy> = source.rows(&policy_sql).await?;
    let cases_sql = format!(
        "SELECT case_id, dice, volume_truth_ml, volume_predicted_ml\nFROM (\n{scored}\n)\nORDER BY case_id"
    );
    let cases: Vec<ScoredCase> = source.rows(&cases_sql).await?;
    let mut strata = Vec::new();
    // A column of a registry, or one that a query of the pipeline gave to what it scored.
    let mut of_cases = vec![("cases".to_owned(), source.columns("cases").await)];
    if source.view_has(&step, "case_id").await {
        of_cases.push((identifier(&step), source.columns(&step).await));
    }
    for name in &source.job.strata {
        let found = of_cases
            .iter()
            .find_map(|(relation, columns)| Some((relation, Variable::find(name, columns).ok()?)));
        let missing = || format!("neither the table cases nor the step {step} has a column {name}");
        strata.push(match found.ok_or_else(missing) {
            Ok((relation, variable)) => {
                stratum(source, name, (relation, &variable), &scored).await?
            }
            Err(reason) => Stratum {
                variable: name.clone(),
                label: name.clone(),
                groups: Err(reason),
                sql: String::new(),
            },
        });
    }
    let examples = match source.job.text_only {
        true => Vec::new(),
        false => examples(source, &cases).await?,
    };
    let policies: Vec<String> =
        policies.into_iter().map(|p| p.empty_policy).filter(|p| !p.is_empty()).collect();
    let empty_policy = (!policies.is_empty()).then(|| policies.join("; "));
    Ok(Some(Scores { step, overall, strata, cases, empty_policy, examples, sql, cases_sql }))
}

#[derive(Deserialize)]
struct Policy {
    #[serde(default)]
    empty_policy: String,
}

/// `count(*)`, and four aggregates of every score.
fn aggregates() -> String {
    let mut sql = "count(*) AS n".to_owned();
    for m in MEASURES {
        let _ = write!(
            sql,
            ",\n  count(s.{m}) AS {m}_n, avg(s.{m}) AS {m}_mean, stddev(s.{m}) AS {m}_sd, median(s.{m}) AS {m}_median"
        );
    }
    sql
}

fn group(label: String, row: &Map<String, Value>) -> Group {
    let spread = |measure: &str| {
        let number = |what: &str| row.get(&format!("{measure}_{what}")).and_then(Value::as_f64);
        Spread::new(
            number("n").unwrap_or(0.0) as u64,
            number("mean"),
            number("sd"),
            number("median"),
        )
    };
    let [dice, sensitivity, precision, lesion_f1, hd95_mm, absolute_volume_difference_ml] =
        MEASURES.map(spread);
    let n = row.get("n").and_then(Value::as_u64).unwrap_or(0);
    Group {
        label,
        n,
        dice,
        sensitivity,
        precision,
        lesion_f1,
        hd95_mm,
        absolute_volume_difference_ml,
    }
}

async fn stratum(
    source: &Source<'_>,
    name: &str,
    (relation, variable): (&str, &Variable),
    scored: &str,
) -> Result<Stratum> {
    let sql = format!(
        "SELECT \"group\", min(low) AS low, max(low) AS high, {}\nFROM (\n  SELECT s.*, {} AS \"group\", {} AS low\n  FROM (\n{scored}\n) s\n  \
         LEFT JOIN {relation} c ON c.case_id = s.case_id\n) s\nGROUP BY \"group\" ORDER BY \"group\"",
        aggregates(),
        variable.group_sql(&[]),
        if matches!(variable.groups, Groups::Quantiles(_)) {
            variable.value.as_str()
        } else {
            "CAST(NULL AS DOUBLE)"
        },
    );
    let rows: Vec<Map<String, Value>> = source.rows(&sql).await?;
    let key =
        |row: &Map<String, Value>| row.get("group").and_then(Value::as_str).map(str::to_owned);
    let mut found: Vec<(String, Group)> = Vec::new();
    let mut unknown = None;
    for row in &rows {
        match key(row) {
            Some(key) => found.push((key.clone(), group(named(variable, &key, row), row))),
            None => unknown = Some(group(NOT_KNOWN.to_owned(), row)),
        }
    }
    if !variable.is_made_by_cases() {
        for key in variable.known() {
            if found.iter().all(|(k, _)| *k != key) {
                found.push((key.clone(), Group { label: key, ..Group::default() }));
            }
        }
    }
    found.sort_by(|(a, _), (b, _)| variable.rank(a).cmp(&variable.rank(b)).then_with(|| a.cmp(b)));
    let mut groups: Vec<Group> = found.into_iter().map(|(_, group)| group).collect();
    let more = groups.len().saturating_sub(MOST_GROUPS);
    groups.truncate(MOST_GROUPS);
    groups.extend(unknown);
    let mut label = variable.label.clone();
    if more > 0 {
        let _ = write!(label, " (the first {MOST_GROUPS} of {} groups)", MOST_GROUPS + more);
    }
    Ok(Stratum { variable: name.to_owned(), label, groups: Ok(groups), sql })
}

fn named(variable: &Variable, key: &str, row: &Map<String, Value>) -> String {
    let number = |name: &str| row.get(name).and_then(Value::as_f64);
    match (&variable.groups, number("low"), number("high")) {
        (Groups::Quantiles(_), Some(low), Some(high)) => Variable::quantile_label(key, low, high),
        _ => key.replace('_', " "),
    }
}

/// Ranks and indices of the cases to show, best first; each case once.
fn chosen(cases: &[ScoredCase]) -> Vec<(&'static str, usize)> {
    let mut order: Vec<(f64, usize)> = cases
        .iter()
        .enumerate()
        .filter_map(|(i, c)| Some((c.dice.filter(|d| d.is_finite())?, i)))
        .collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    match order.len() {
        0 => Vec::new(),
        1 => vec![("The only case", order[0].1)],
        2 => vec![("Best", order[0].1), ("Worst", order[1].1)],
        n => vec![("Best", order[0].1), ("Median", order[n / 2].1), ("Worst", order[n - 1].1)],
    }
}

#[derive(Deserialize)]
struct Files {
    case_id: String,
    image_uri: String,
    image_volume: i64,
    truth_uri: Option<String>,
}

#[derive(Deserialize)]
struct Artifact {
    case_id: String,
    role: String,
    uri: String,
}

async fn examples(source: &Source<'_>, cases: &[ScoredCase]) -> Result<Vec<Example>> {
    let chosen = chosen(cases);
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<&str> = chosen.iter().map(|(_, i)| cases[*i].case_id.as_str()).collect();
    let ids = literals(&ids);
    let sql = format!(
        "SELECT case_id, image_uri, image_volume, truth_uri FROM cases WHERE case_id IN ({ids})"
    );
    let files: Vec<Files> = source.rows(&sql).await?;
    let artifacts = artifacts(source, &ids).await?;
    let mut examples = Vec::with_capacity(chosen.len());
    for (rank, index) in chosen {
        let case = &cases[index];
        let slices = match case_files(&case.case_id, &files, &artifacts) {
            Ok(files) => pictures::slices(files).await,
            Err(reason) => Err(reason),
        };
        examples.push(Example {
            rank: rank.to_owned(),
            case_id: case.case_id.clone(),
            dice: case.dice.unwrap_or_default(),
            volume_truth_ml: case.volume_truth_ml,
            volume_predicted_ml: case.volume_predicted_ml,
            slices,
        });
    }
    Ok(examples)
}

/// The prediction and the prepared image of every case.
async fn artifacts(source: &Source<'_>, ids: &str) -> Result<Vec<Artifact>> {
    let job = source.job;
    let wanted = [
        ("prediction", "prediction_uri", &job.predicted_step),
        ("image", "image_uri", &job.prepared_step),
    ];
    let mut found: Vec<Artifact> = Vec::new();
    for (role, column, step) in wanted {
        let Some(step) = step else { continue };
        let sql = if source.view_has(step, column).await {
            format!(
                "SELECT DISTINCT case_id, '{role}' AS role, {column} AS uri FROM {} WHERE case_id IN ({ids}) AND {column} IS NOT NULL",
                identifier(step)
            )
        } else if source.has("artifacts").await {
            format!(
                "SELECT case_id, role, uri FROM (\n  SELECT *, row_number() OVER (PARTITION BY case_id ORDER BY created_at DESC, run_id DESC) AS age\n  \
                 FROM artifacts WHERE case_id IN ({ids}) AND role = '{role}' AND step = {}\n) WHERE age = 1",
                literal(step)
            )
        } else {
            continue;
        };
        found.extend(source.rows::<Artifact>(&sql).await?);
    }
    Ok(found)
}

fn case_files(case_id: &str, files: &[Files], artifacts: &[Artifact]) -> Result<CaseFiles, String> {
    let file =
        files.iter().find(|f| f.case_id == case_id).ok_or("the case is not in the table cases")?;
    let artifact = |role: &str| artifacts.iter().find(|a| a.case_id == case_id && a.role == role);
    Ok(CaseFiles {
        prepared: artifact("image").map(|a| ImageAt { uri: a.uri.clone(), volume: 0 }),
        image: ImageAt { uri: file.image_uri.clone(), volume: file.image_volume },
        truth: file.truth_uri.clone().ok_or("the case has no reference mask")?,
        prediction: artifact("prediction").ok_or("no prediction was kept")?.uri.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(id: &str, dice: Option<f64>) -> ScoredCase {
        ScoredCase { case_id: id.to_owned(), dice, volume_truth_ml: 1.0, volume_predicted_ml: 1.0 }
    }

    #[test]
    fn best_median_and_worst_are_different_cases() {
        let scores = [Some(0.2), Some(0.9), None, Some(0.5), Some(0.9)];
        let cases: Vec<ScoredCase> = scores.iter().map(|d| case("sub", *d)).collect();
        assert_eq!(chosen(&cases), [("Best", 1), ("Median", 3), ("Worst", 0)]);
        assert_eq!(chosen(&cases[..2]), [("Best", 1), ("Worst", 0)]);
        assert_eq!(chosen(&cases[..1]), [("The only case", 0)]);
        assert!(chosen(&cases[2..3]).is_empty());
    }

    #[test]
    fn a_lone_case_has_no_spread() {
        let row = serde_json::json!({"n": 1, "dice_n": 1, "dice_mean": 0.7, "dice_sd": null});
        let group = group("g".to_owned(), row.as_object().unwrap_or(&Map::new()));
        assert_eq!((group.n, group.dice.mean, group.dice.sd), (1, Some(0.7), None));
        assert_eq!(group.hd95_mm, Spread::default());
    }
}
