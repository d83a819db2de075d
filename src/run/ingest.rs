//! An ingest step: finds the files of a registry, and reads the headers and hashes of those that are new or changed.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use datafusion::physical_plan::ExecutionPlan as _;
use datafusion::prelude::SessionContext;
use serde::Deserialize;
use serde_json::json;

use crate::catalog::{self, Table, fingerprint};
use crate::engine::{CaseInput, Fused, RecordSink, Slot, journal};
use crate::error::{Error, Result};
use crate::formats::bids::{self, CaseFiles, Finding, Scan};
use crate::formats::manifest::{self, ColumnMap};
use crate::formats::privacy::{Applied, Privacy, is_sealed};
use crate::pipeline::{IngestParams, Output, Step};
use crate::stages::ingest::{FileStat, Found, Ingest, has_column};

use super::plan::StagePlan;
use super::{Runner, StepReport, relations, stage_step};

mod removed;

/// Cases handed to the engine at a time, so that the rows of a large registry are not in memory at once.
const ROWS: usize = 512;

/// Runs an ingest step.
pub(super) async fn run(
    runner: &Runner<'_>,
    step: &Step,
    params: &IngestParams,
) -> Result<StepReport> {
    let ctx = runner.session(Some(&step.name)).await?;
    let privacy = params.privacy.as_ref().map(Privacy::open).transpose()?;
    let scan = scan(params, privacy.clone(), runner).await?;
    let (excluded, notes): (Vec<Finding>, Vec<Finding>) =
        scan.findings.into_iter().partition(|f| f.excluded);
    let mut remarks: HashMap<String, Vec<String>> = HashMap::new();
    for note in notes {
        remarks.entry(note.case_id).or_default().push(note.reason);
    }
    let known = known(&ctx, &params.source).await?;
    refuse_other_key(&known, privacy.as_ref(), &params.source)?;
    let (removed, excluded) = removed::split(&known, &scan.cases, excluded);
    let total = (scan.cases.len() + excluded.len()) as u64;
    let failed = failed_before(&ctx, &step.name).await?;
    let mut report = StepReport::new(&step.name, total);
    let mut todo = Vec::new();
    let mut gone = Vec::new();
    for case in scan.cases {
        let files = FileStat::of_case(&case, privacy.as_ref());
        let print =
            fingerprint([json!(files).to_string(), json!(params.require_truth).to_string()]);
        if failed.contains(&(case.case_id.clone(), print.clone())) {
            report.known_failed += 1;
            if known.contains_key(&case.case_id) {
                // The run that quarantined it ended before its row was taken out.
                gone.push(case.case_id);
            }
        } else if unchanged(known.get(&case.case_id), &files, params.rehash) {
            report.unchanged += 1;
        } else {
            let remarks = remarks.remove(&case.case_id).unwrap_or_default();
            todo.push((Found { case, remarks }, print));
        }
    }
    runner.catalog.delete_rows(Table::Cases, &gone).await?;
    runner.observer.begin(&step.name, todo.len() as u64, report.unchanged);
    let mut counts = journal::Counts::default();
    while !todo.is_empty() && !runner.stop.is_set() {
        let rest = todo.split_off(todo.len().min(ROWS));
        let part = std::mem::replace(&mut todo, rest);
        let stage = Ingest {
            source: params.source.clone(),
            require_truth: params.require_truth,
            privacy: privacy.clone(),
        };
        counts.absorb(read(runner, &ctx, step, stage, part).await?);
    }
    report.count(counts);
    if !removed.missed.is_empty() && !runner.stop.is_set() {
        let (run_id, now) = (&runner.lineage.run_id, catalog::Timestamp::now());
        runner.catalog.mark_removed(&removed.missed, run_id, now).await?;
    }
    report.note = removed.told();
    let findings = quarantine(runner, &step.name, excluded, &failed).await?;
    report.failed += findings.0;
    report.known_failed += findings.1;
    let doubles = doubles(runner, step, params).await?;
    report.failed += doubles;
    report.done -= doubles.min(report.done);
    forget_failed(runner, step, params).await?;
    runner.observer.end(&step.name);
    Ok(report)
}

/// The cases and findings of a registry, as its privacy policy lets them through.
async fn scan(
    params: &IngestParams,
    privacy: Option<Privacy>,
    runner: &Runner<'_>,
) -> Result<Scan> {
    let params = params.clone();
    let scan = tokio::task::spawn_blocking(move || -> Result<(Scan, Applied)> {
        let source = params.bids.as_ref().or(params.manifest.as_ref()).cloned().unwrap_or_default();
        let Some(privacy) = privacy else { return Ok((files(&params)?, Applied::default())) };
        let clean = |error| privacy.scrubber_of_source(&source).clean_error(error);
        let scan = quietly(|| files(&params))?.map_err(clean)?;
        let own = |name: &str| has_column(name);
        Ok(privacy.apply(scan, &source, own))
    });
    let (scan, applied) = scan.await.map_err(|e| Error::bug(format!("the scan ended: {e}")))??;
    for (what, fields) in
        [("dropped", applied.dropped), ("hashed", applied.hashed), ("shifted", applied.shifted)]
    {
        if !fields.is_empty() {
            let names: Vec<String> = fields.into_iter().collect();
            runner.observer.note(&format!("  privacy: {what} {}", names.join(", ")));
        }
    }
    Ok(scan)
}

/// Does the work on a thread whose panics the program does not print: their messages may quote what was read.
fn quietly<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("torcula-case-scan".to_owned());
        let thread = thread.spawn_scoped(scope, work)?;
        thread.join().map_err(|_| Error::bug("the scan of the registry ended by a panic"))
    })
}

/// The cases and findings of a registry as they are.
pub(super) fn files(params: &IngestParams) -> Result<Scan> {
    match (&params.bids, &params.manifest) {
        (Some(root), None) => {
            bids::scan(root, &bids::ScanOptions { participants: params.columns.clone() })
        }
        (None, Some(file)) => {
            manifest::scan(file, &columns(params)?, params.metadata_only, params.root.as_deref())
        }
        _ => Err(Error::configuration("ingest needs either `bids` or `manifest`")),
    }
}

/// Refuses to mix cases that were read under different keys, or under none: one patient would have two names, and the
/// names that a policy is to hide would stay in the catalog and its history.
fn refuse_other_key(
    known: &HashMap<String, Known>,
    privacy: Option<&Privacy>,
    source: &str,
) -> Result<()> {
    let now = privacy.map(Privacy::key_id);
    let before = known.values().map(|known| FileStat::key_id(&known.stats()).map(str::to_owned));
    let others = before.filter(|before| *before != now).collect::<Vec<_>>();
    let Some(other) = others.first() else { return Ok(()) };
    let how = match (other, &now) {
        (None, _) => "without a privacy policy, and one is declared",
        (_, None) => "under a privacy policy, and none is declared",
        _ => "under another privacy key than",
    };
    Err(Error::configuration(format!(
        "{} cases of `{source}` in the catalog were read {how} now",
        others.len()
    ))
    .hint("give the ingest the key it had, or begin a new catalog: this one and its history keep what they hold"))
}

/// The columns of a manifest: those that name files and identifiers, and the variables.
fn columns(params: &IngestParams) -> Result<ColumnMap> {
    let known = serde_json::to_value(ColumnMap::default()).unwrap_or_default();
    let mut map = json!({"variables": {}});
    for (name, column) in &params.columns {
        if known.get(name).is_some() && name != "variables" {
            map[name] = json!(column);
        } else {
            map["variables"][name] = json!(column);
        }
    }
    serde_json::from_value(map).map_err(|e| Error::configuration(format!("ingest.columns: {e}")))
}

/// A case as the catalog knows it.
struct Known {
    subject_id: String,
    /// Its files as they were when it was read, as JSON.
    files: String,
    /// Whether they were missed since.
    removed: bool,
}

impl Known {
    fn stats(&self) -> Vec<FileStat> {
        serde_json::from_str(&self.files).unwrap_or_default()
    }
}

/// Every known case of the source.
async fn known(ctx: &SessionContext, source: &str) -> Result<HashMap<String, Known>> {
    let query = format!(
        "SELECT case_id, subject_id, files, removed_at IS NOT NULL FROM cases WHERE source = '{}'",
        source.replace('\'', "''")
    );
    let mut known = HashMap::new();
    for batch in catalog::sql(ctx, &query).await? {
        let text = |at: usize| batch.column(at).as_string::<i32>();
        let (ids, subjects, files) = (text(0), text(1), text(2));
        let removed = batch.column(3).as_boolean();
        known.extend((0..batch.num_rows()).map(|row| {
            let case = Known {
                subject_id: subjects.value(row).to_owned(),
                files: files.value(row).to_owned(),
                removed: removed.value(row),
            };
            (ids.value(row).to_owned(), case)
        }));
    }
    Ok(known)
}

/// Cases of the step that failed for good, with the state of their files.
async fn failed_before(ctx: &SessionContext, step: &str) -> Result<HashSet<(String, String)>> {
    #[derive(Deserialize)]
    struct Row {
        case_id: String,
        fingerprint: String,
    }
    let query = format!(
        "SELECT case_id, fingerprint FROM failures WHERE step = '{step}' AND NOT transient"
    );
    let rows: Vec<Row> = catalog::rows(&catalog::sql(ctx, &query).await?)?;
    Ok(rows.into_iter().map(|r| (r.case_id, r.fingerprint)).collect())
}

/// Whether the files are those of last time: by size and time of change; where only the time moved, by their bytes. What was
/// missed and is there again is read again.
fn unchanged(known: Option<&Known>, now: &[FileStat], rehash: bool) -> bool {
    let Some(known) = known.filter(|known| !known.removed) else { return false };
    let known = known.stats();
    known.len() == now.len()
        && known.iter().zip(now).all(|(old, new)| {
            old.uri == new.uri
                && old.bytes == new.bytes
                && ((!rehash && old.modified_us == new.modified_us)
                    || new.hash().is_ok_and(|h| h == old.blake3))
        })
}

/// Reads headers and hashes on the engine.
async fn read(
    runner: &Runner<'_>,
    ctx: &SessionContext,
    step: &Step,
    stage: Ingest,
    todo: Vec<(Found, String)>,
) -> Result<journal::Counts> {
    let fused = Fused::new(vec![Arc::new(stage)], Arc::new(RecordSink));
    let plan = StagePlan {
        salt: fused.salt(step.seed),
        fused,
        marker: Table::Cases,
        keep: Vec::<Slot>::new(),
        output: Output::Files,
        model_id: None,
        held_bytes: 0,
    };
    let batch = batch(&todo)?;
    drop(todo);
    let rows = ctx.read_batch(batch).map_err(relations::planning)?;
    let (exec, _) = stage_step::operator(runner, &step.name, plan, rows).await?;
    let outcomes = exec.execute(0, ctx.task_ctx()).map_err(relations::planning)?;
    journal::drain(outcomes, &runner.catalog, Table::Cases, journal::Committed::new()).await
}

fn batch(cases: &[(Found, String)]) -> Result<RecordBatch> {
    let column = |f: &dyn Fn(&(Found, String)) -> Option<String>| -> ArrayRef {
        Arc::new(cases.iter().map(f).collect::<StringArray>())
    };
    let centre = |c: &CaseFiles| {
        let variables = c.variables.to_map();
        ["centre", "center", "site", "hospital"]
            .iter()
            .find_map(|k| variables.get(*k).and_then(|v| v.as_str()).map(str::to_owned))
    };
    RecordBatch::try_from_iter_with_nullable([
        ("case_id", column(&|c| Some(c.0.case.case_id.clone())), false),
        ("centre", column(&|c| centre(&c.0.case)), true),
        ("fingerprint", column(&|c| Some(c.1.clone())), false),
        ("source_files", column(&|c| serde_json::to_string(&c.0).ok()), true),
    ])
    .map_err(|e| Error::bug(e.to_string()))
}

/// What the scan found wrong becomes failures, once. Returns how many are new and how many were known.
async fn quarantine(
    runner: &Runner<'_>,
    step: &str,
    findings: Vec<Finding>,
    failed: &HashSet<(String, String)>,
) -> Result<(u64, u64)> {
    let (mut rows, mut known) = (Vec::new(), 0);
    for finding in findings {
        let print = fingerprint([&finding.case_id, &finding.reason]);
        if failed.contains(&(finding.case_id.clone(), print.clone())) {
            known += 1;
            continue;
        }
        let input =
            CaseInput { case_id: finding.case_id, fingerprint: print, ..CaseInput::default() };
        let mut error = Error::data(finding.reason);
        if let Some(hint) = finding.hint {
            error = error.hint(hint);
        }
        runner.observer.note(&format!("  quarantined {}: scan: {}", input.case_id, error.reason()));
        rows.push(runner.lineage.failure(step, "ingest", &input, &error).row);
    }
    if !rows.is_empty() {
        runner.catalog.append_json(Table::Failures, &rows).await?;
    }
    Ok((rows.len() as u64, known))
}

/// Quarantines cases whose image has the same bytes as another's: the first by name stays.
async fn doubles(runner: &Runner<'_>, step: &Step, params: &IngestParams) -> Result<u64> {
    #[derive(Deserialize)]
    struct Row {
        case_id: String,
        first: String,
        files: String,
        image_uri: String,
    }
    let ctx = runner.session(Some(&step.name)).await?;
    let source = params.source.replace('\'', "''");
    // Few columns are sorted; the wide ones are joined to the few rows that are left.
    let query = format!(
        "SELECT c.case_id, d.first, c.files, c.image_uri FROM cases c JOIN (SELECT * FROM (SELECT case_id, \
         first_value(case_id) OVER (PARTITION BY image_blake3, image_volume ORDER BY case_id) AS first \
         FROM cases WHERE source = '{source}' AND image_blake3 IS NOT NULL AND removed_at IS NULL) WHERE case_id <> first) d ON c.case_id = d.case_id \
         ORDER BY c.case_id"
    );
    let rows: Vec<Row> = catalog::rows(&catalog::sql(&ctx, &query).await?)?;
    let mut records = Vec::new();
    let mut gone = Vec::new();
    for row in rows {
        let name = if is_sealed(&row.image_uri) {
            "its image".into()
        } else {
            Path::new(&row.image_uri).file_name().unwrap_or_default().to_string_lossy()
        };
        let error = Error::data(format!("{name}: the same image bytes as {}", row.first))
            .hint("remove one of the two, or replace the wrong file");
        // The state of the files, as for any other failure of this step: the case is left alone until they change.
        let mut files: Vec<FileStat> = serde_json::from_str(&row.files).unwrap_or_default();
        for file in &mut files {
            file.blake3.clear();
        }
        let print =
            fingerprint([json!(files).to_string(), json!(params.require_truth).to_string()]);
        let input =
            CaseInput { case_id: row.case_id.clone(), fingerprint: print, ..CaseInput::default() };
        runner.observer.note(&format!("  quarantined {}: ingest: {}", row.case_id, error.reason()));
        records.push(runner.lineage.failure(&step.name, "ingest", &input, &error).row);
        gone.push(row.case_id);
    }
    if !gone.is_empty() {
        runner.catalog.append_json(Table::Failures, &records).await?;
        runner.catalog.delete_rows(Table::Cases, &gone).await?;
    }
    Ok(gone.len() as u64)
}

/// Takes cases out of `cases` that this run quarantined although an earlier one had read them: their files are no longer what
/// their row says.
async fn forget_failed(runner: &Runner<'_>, step: &Step, params: &IngestParams) -> Result<()> {
    #[derive(Deserialize)]
    struct Row {
        case_id: String,
    }
    let ctx = runner.session(Some(&step.name)).await?;
    let query = format!(
        "SELECT DISTINCT c.case_id FROM cases c JOIN failures f ON c.case_id = f.case_id \
         WHERE c.source = '{}' AND f.step = '{}' AND f.run_id = '{}' AND c.run_id <> f.run_id",
        params.source.replace('\'', "''"),
        step.name,
        runner.lineage.run_id
    );
    let rows: Vec<Row> = catalog::rows(&catalog::sql(&ctx, &query).await?)?;
    let gone: Vec<String> = rows.into_iter().map(|r| r.case_id).collect();
    runner.catalog.delete_rows(Table::Cases, &gone).await
}
