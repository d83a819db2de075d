//! A night as the catalog holds it: the cases of the pipeline's registries, those that a step scored, those that failed, and
//! the numbers that are watched for drift.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use crate::catalog::curation::EXCLUDED;
use crate::error::Result;
use crate::report::data::FailedCase;
use crate::report::exhibits::frame::{Division, Frame};
use crate::report::load::flow::failures_sql;
use crate::report::load::query::{Source, identifier, literal, literals};

use super::DifferenceJob;
use super::compare::Groups;
use crate::pipeline::report_spec::StratumSpec;

/// The scores that are compared, with the decimals they are written with.
pub const MEASURES: [(&str, &str, usize); 5] = [
    ("dice", "DSC", 3),
    ("sensitivity", "Sensitivity", 3),
    ("precision", "Precision", 3),
    ("volume_predicted_ml", "Predicted volume (mL)", 2),
    ("absolute_volume_difference_ml", "|ΔV| (mL)", 2),
];

/// One night.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Night {
    /// Every case of the registries.
    pub cases: BTreeMap<String, Case>,
    /// Those that are scored.
    pub scored: BTreeMap<String, Scored>,
    /// Those that failed and are not done since.
    pub failed: BTreeMap<String, FailedCase>,
    /// The watched numbers of every case that takes part, one a variable.
    pub watched: BTreeMap<String, Vec<Option<f64>>>,
    /// Watched variables that the catalog does not have.
    pub unknown: Vec<String>,
}

/// The bytes of a case, as hashes, and whether it takes part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Case {
    /// Hospital.
    pub centre: Option<String>,
    /// The image.
    pub image: Option<String>,
    /// The reference mask.
    pub truth: Option<String>,
    /// All other files, and the variables.
    pub others: String,
    /// Why it is kept out.
    pub excluded: Option<String>,
}

/// A scored case.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scored {
    /// One value for each of [`MEASURES`].
    pub values: [Option<f64>; MEASURES.len()],
    /// Volume of the reference mask.
    pub volume_truth_ml: Option<f64>,
    /// Fingerprint of the score.
    pub fingerprint: String,
    /// The model that predicted.
    pub model_id: Option<String>,
    /// The image that was shown to the model, the mask and the prediction.
    pub files: [Option<String>; 3],
    /// Volume of the image's file.
    pub image_volume: i64,
}

impl Night {
    /// Reads a night. The session knows the scored step by its name.
    ///
    /// # Errors
    /// A query fails.
    pub async fn load(source: &Source<'_>, job: &DifferenceJob) -> Result<Self> {
        let mut night = Self { cases: cases(source, job).await?, ..Self::default() };
        night.scored = scored(source, &job.step).await?;
        if job.sources.is_empty() {
            // A pipeline that ingests nothing is told of the cases that it scores.
            let scored = &night.scored;
            night.cases.retain(|id, _| scored.contains_key(id));
        }
        night.failed = failed(source).await?;
        night.watch(source, job).await?;
        Ok(night)
    }

    /// Reads what drift is told of: the cases and the watched numbers. The session needs no step.
    ///
    /// # Errors
    /// A query fails.
    pub async fn input(source: &Source<'_>, job: &DifferenceJob) -> Result<Self> {
        let mut night = Self { cases: cases(source, job).await?, ..Self::default() };
        night.watch(source, job).await?;
        Ok(night)
    }

    async fn watch(&mut self, source: &Source<'_>, job: &DifferenceJob) -> Result<()> {
        let of = |columns: Vec<(String, arrow::datatypes::DataType)>| -> BTreeSet<String> {
            columns
                .into_iter()
                .filter(|(_, kind)| kind.is_numeric())
                .map(|(name, _)| name)
                .collect()
        };
        let (cases, quality) =
            (of(source.columns("cases").await), of(source.columns("quality").await));
        let mut select = Vec::new();
        for name in &job.params.drift {
            let column = identifier(name);
            let value = match (cases.contains(name), quality.contains(name)) {
                (true, _) => format!("c.{column}"),
                (_, true) => format!("q.{column}"),
                _ => {
                    self.unknown.push(name.clone());
                    "NULL".to_owned()
                }
            };
            select.push(format!("CAST({value} AS DOUBLE) AS {column}"));
        }
        if select.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "SELECT c.case_id AS __case, {} FROM cases c LEFT JOIN (SELECT * FROM (SELECT *, row_number() OVER \
             (PARTITION BY case_id ORDER BY created_at DESC, run_id DESC) AS age FROM quality WHERE true{}) WHERE age = 1) q \
             ON q.case_id = c.case_id WHERE c.{EXCLUDED} IS NULL{}",
            select.join(", "),
            source.of_the_pipeline(),
            of_sources("c.", job)
        );
        let names: Vec<&str> = job.params.drift.iter().map(String::as_str).collect();
        let frame = Frame::load(source, &sql, &names, &["__case"]).await?;
        for row in 0..frame.rows {
            let Some(id) = frame.word("__case", row).filter(|id| self.cases.contains_key(*id))
            else {
                continue;
            };
            let values = names.iter().map(|name| frame.numbers(name)[row]).collect();
            self.watched.insert(id.to_owned(), values);
        }
        Ok(())
    }

    /// The cases that take part.
    pub fn present(&self) -> impl Iterator<Item = (&String, &Case)> {
        self.cases.iter().filter(|(_, case)| case.excluded.is_none())
    }

    /// The models that predicted.
    pub fn models(&self) -> Vec<String> {
        let ids: BTreeSet<&str> =
            self.scored.values().filter_map(|scored| scored.model_id.as_deref()).collect();
        ids.into_iter().map(str::to_owned).collect()
    }
}

/// The groups of the scored cases by each variable, in one query: of each group its name and its cases; or why there are none.
///
/// # Errors
/// The query fails.
pub async fn groups(source: &Source<'_>, step: &str, specs: &[StratumSpec]) -> Result<Vec<Groups>> {
    let columns = source.columns(step).await;
    let found: Vec<_> = specs.iter().map(|spec| Division::find(spec, &columns)).collect();
    let name = |what: &str, i: usize| format!("__{what}_{i}");
    let mut select = vec!["s.case_id AS __case".to_owned()];
    let (mut words, mut numbers) = (vec!["__case".to_owned()], Vec::new());
    for (i, division) in found.iter().enumerate() {
        let Ok(division) = division else { continue };
        let (group, level) = (name("group", i), name("level", i));
        select.push(division.select_as(&[], &group, &level));
        words.push(group);
        numbers.push(level);
    }
    let sql = format!("SELECT {} FROM {} s", select.join(", "), identifier(step));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    let frame = Frame::load(source, &sql, &numbers, &words).await?;
    let case = |row: &usize| frame.word("__case", *row).unwrap_or_default().to_owned();
    let of = |(i, (spec, division)): (usize, (&StratumSpec, Result<Division>))| {
        let variable = match spec {
            StratumSpec::Name(name) => name.clone(),
            StratumSpec::Cut(cut) => cut.column.clone(),
        };
        let groups = division.map_err(|error| error.reason().to_owned()).map(|division| {
            let named = frame.named(&name("group", i), &name("level", i));
            let groups = division.groups(&named).into_iter();
            let groups = groups.map(|(name, rows)| (name, rows.iter().map(case).collect()));
            (division.variable.label.clone(), groups.collect())
        });
        (variable, groups)
    };
    Ok(specs.iter().zip(found).enumerate().map(of).collect())
}

fn of_sources(prefix: &str, job: &DifferenceJob) -> String {
    match job.sources.as_slice() {
        [] => String::new(),
        sources => format!(" AND {prefix}source IN ({})", literals(sources)),
    }
}

async fn cases(source: &Source<'_>, job: &DifferenceJob) -> Result<BTreeMap<String, Case>> {
    let words = ["case_id", "centre", "image_blake3", "truth_blake3", "files", EXCLUDED];
    let sql = format!("SELECT {} FROM cases WHERE true{}", words.join(", "), of_sources("", job));
    let frame = Frame::load(source, &sql, &[], &words).await?;
    let mut cases = BTreeMap::new();
    for row in 0..frame.rows {
        let word = |name: &str| frame.word(name, row).map(str::to_owned);
        let (image, truth) = (word("image_blake3"), word("truth_blake3"));
        let files = frame.word("files", row).unwrap_or_default();
        let others = others(files, [image.as_deref(), truth.as_deref()]);
        let case = Case { centre: word("centre"), image, truth, others, excluded: word(EXCLUDED) };
        cases.insert(word("case_id").unwrap_or_default(), case);
    }
    Ok(cases)
}

/// Hash of what is neither image nor mask. A file that only moved is the same.
fn others(files: &str, own: [Option<&str>; 2]) -> String {
    let files: Vec<Value> = serde_json::from_str(files).unwrap_or_default();
    let hashes = files.iter().filter_map(|file| file["blake3"].as_str());
    let hashes: Vec<&str> = hashes.filter(|hash| !own.contains(&Some(*hash))).collect();
    crate::catalog::fingerprint(hashes)
}

async fn failed(source: &Source<'_>) -> Result<BTreeMap<String, FailedCase>> {
    #[derive(Deserialize)]
    struct Any {
        n: i64,
    }
    // Which failures stand is known by asking every step: not worth it where nothing failed.
    let any = format!("SELECT count(*) AS n FROM failures WHERE true{}", source.of_the_pipeline());
    let any: Vec<Any> = source.rows(&any).await?;
    let mut failed = BTreeMap::new();
    if any.iter().any(|row| row.n > 0) {
        source
            .each(&failures_sql(source).await, |row: FailedCase| {
                failed.entry(row.case_id.clone()).or_insert(row);
            })
            .await?;
    }
    Ok(failed)
}

async fn scored(source: &Source<'_>, step: &str) -> Result<BTreeMap<String, Scored>> {
    let there = source.columns(step).await;
    let column = |name: &&str| match there.iter().any(|(known, _)| known == name) {
        true => identifier(name),
        false => format!("NULL AS {}", identifier(name)),
    };
    let words = ["case_id", "fingerprint", "model_id", "image_uri", "truth_uri", "prediction_uri"];
    let numbers: Vec<&str> = MEASURES
        .iter()
        .map(|(name, ..)| *name)
        .chain(["volume_truth_ml", "image_volume"])
        .collect();
    let select: Vec<String> = words.iter().chain(&numbers).map(column).collect();
    let sql = format!("SELECT {} FROM {}", select.join(", "), identifier(step));
    let frame = Frame::load(source, &sql, &numbers, &words).await?;
    let mut scored = BTreeMap::new();
    for row in 0..frame.rows {
        let word = |name: &str| frame.word(name, row).map(str::to_owned);
        let number = |name: &str| frame.numbers(name)[row];
        let case = Scored {
            values: MEASURES.map(|(name, ..)| number(name)),
            volume_truth_ml: number("volume_truth_ml"),
            fingerprint: word("fingerprint").unwrap_or_default(),
            model_id: word("model_id"),
            files: ["image_uri", "truth_uri", "prediction_uri"].map(word),
            image_volume: number("image_volume").unwrap_or(0.0) as i64,
        };
        scored.insert(word("case_id").unwrap_or_default(), case);
    }
    Ok(scored)
}

/// The SQL that lists the scores of a step now.
pub fn scores_sql(step: &str) -> String {
    let names = MEASURES.map(|(name, ..)| name).join(", ");
    format!("SELECT case_id, {names} FROM {} ORDER BY case_id", identifier(step))
}

/// The SQL that lists the cases of the registries that are kept out, and why.
pub fn excluded_sql(job: &DifferenceJob) -> String {
    format!(
        "SELECT case_id, {EXCLUDED}, removed_at FROM cases WHERE {EXCLUDED} IS NOT NULL{} ORDER BY case_id",
        of_sources("", job)
    )
}

/// The SQL that lists what failed in a run.
pub fn failed_sql(run_id: &str) -> String {
    format!(
        "SELECT case_id, step, stage, reason, hint FROM failures WHERE run_id = {} ORDER BY case_id",
        literal(run_id)
    )
}
