//! A train step: hands the samples of its shards to the learner and puts the model into the catalog.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::prelude::SessionContext;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::catalog::{self, ModelRow, Table};
use crate::engine::feed::SampleRef;
use crate::engine::learner::{EpochReport, TrainEvent, TrainJob, TrainedModel};
use crate::engine::{Lineage, Record};
use crate::error::{Error, Result};
use crate::formats::tensorboard::EventFile;
use crate::pipeline::{Pipeline, Step, TrainStep};

use super::{Runner, StepReport, memo, plan, relations};

/// To be raised when the same samples and parameters give another model.
const VERSION: u32 = 2;

async fn samples(ctx: &SessionContext, step: &Step) -> Result<String> {
    let input = relations::input(ctx, step).await?;
    for column in ["sample_uri", "part"] {
        if input.schema().field_with_unqualified_name(column).is_err() {
            let hint = if column == "part" {
                "draw the shards from a split"
            } else {
                "train from a step with `to: shards`"
            };
            let found = format!("steps.{}.from: its rows have no `{column}`", step.name);
            return Err(Error::configuration(found).hint(hint));
        }
    }
    let name = format!("__train_{}", step.name);
    relations::replace(ctx, &name, input)?;
    Ok(format!(
        "SELECT case_id, fingerprint, part, sample_uri FROM {} ORDER BY case_id",
        relations::quoted(&name)
    ))
}

/// Identifies the training: parameters, seed, grid, every sample with its part, and the model that it starts from.
pub async fn fingerprint(
    ctx: &SessionContext,
    pipeline: &Pipeline,
    step: &Step,
    action: &TrainStep,
    seed: u64,
) -> Result<String> {
    let made = Box::pin(new_fingerprint(ctx, pipeline, step, action, seed));
    match seed == step.seed {
        true => memo::once(ctx, memo::trained(&step.name), made).await,
        false => made.await,
    }
}

async fn new_fingerprint(
    ctx: &SessionContext,
    pipeline: &Pipeline,
    step: &Step,
    action: &TrainStep,
    seed: u64,
) -> Result<String> {
    let salt = json!({
        "parameters": action.params.identity(), "train_part": action.train_part,
        "val_part": action.val_part, "seed": seed, "version": VERSION, "step": step.name,
        "resample": plan::training_grid(pipeline, &step.name)?,
        "parent": parent_fingerprint(ctx, pipeline, action).await?,
    });
    let all = samples(ctx, step).await?;
    // Where a sample lies does not matter, only what it is.
    let query = format!("SELECT case_id, fingerprint, part FROM ({all}) ORDER BY case_id");
    plan::hash_rows(ctx, &query, &salt.to_string()).await
}

/// What identifies the model that a training starts from: the fingerprint of its step, or its identifier.
async fn parent_fingerprint(
    ctx: &SessionContext,
    pipeline: &Pipeline,
    action: &TrainStep,
) -> Result<Option<String>> {
    let Some(name) = action.parent_step() else { return Ok(action.fine_tune.clone()) };
    let (step, parent) = plan::train_step(pipeline, name)?;
    Ok(Some(fingerprint(ctx, pipeline, step, parent, step.seed).await?))
}

/// The model that a training starts from.
async fn parent(
    ctx: &SessionContext,
    pipeline: &Pipeline,
    action: &TrainStep,
) -> Result<Option<ModelRow>> {
    let Some(name) = &action.fine_tune else { return Ok(None) };
    let found = match action.parent_step() {
        Some(step) => plan::of_train_step(ctx, pipeline, step).await?,
        None => plan::newest_model(ctx, "model_id", name).await?,
    };
    found.map(Some).ok_or_else(|| {
        Error::configuration(format!("fine_tune: the catalog has no model of `{name}`"))
            .hint("`torcula sql \"SELECT model_id, name FROM models\"` lists models")
    })
}

#[derive(Debug, Deserialize)]
struct SampleRow {
    case_id: String,
    part: String,
    sample_uri: String,
}

impl SampleRow {
    fn reference(&self) -> Result<SampleRef> {
        let (uri, row) = self
            .sample_uri
            .rsplit_once('#')
            .and_then(|(uri, row)| Some((uri, row.parse().ok()?)))
            .ok_or_else(|| Error::bug(format!("{}: no sample", self.sample_uri)))?;
        Ok(SampleRef { shard: PathBuf::from(uri), row, case_id: self.case_id.clone() })
    }
}

/// The artifacts that the samples are rows of.
async fn shards(ctx: &SessionContext, step: &Step) -> Result<Vec<String>> {
    let query = format!(
        "SELECT DISTINCT artifact_id AS id FROM artifacts WHERE role = 'shard' AND uri IN \
         (SELECT split_part(sample_uri, '#', 1) FROM {}) ORDER BY artifact_id",
        relations::quoted(&format!("__train_{}", step.name))
    );
    let rows: Vec<Value> = catalog::rows(&catalog::sql(ctx, &query).await?)?;
    Ok(rows.iter().filter_map(|r| r["id"].as_str().map(str::to_owned)).collect())
}

/// Runs a train step: one training a seed, none where the catalog has it already. It is number `place` of those that run
/// side by side.
pub(super) async fn run(
    runner: &Runner<'_>,
    step: &Step,
    action: &TrainStep,
    place: usize,
) -> Result<StepReport> {
    let ctx = runner.session(Some(&step.name)).await?;
    let mut report = StepReport::new(&step.name, action.seeds);
    let mut dices = Vec::new();
    for seed in (0..action.seeds).map(|n| step.seed.wrapping_add(n)) {
        let print = fingerprint(&ctx, runner.pipeline, step, action, seed).await?;
        if let Some(model) = plan::trained(&ctx, &step.name, &print).await? {
            report.unchanged += 1;
            report.note = Some(format!("model {} is trained already", model.model_id));
            dices.push(model.best_val_dice);
            continue;
        }
        let trained = train(runner, &ctx, step, action, (seed, &print, place)).await?;
        report.done += 1;
        report.note = Some(format!(
            "best validation DSC {:.3} in epoch {} of {}",
            trained.best_val_dice,
            trained.best_epoch,
            trained.curve.len()
        ));
        report.waits = trained.curve.last().map(EpochReport::waits);
        dices.push(trained.best_val_dice);
    }
    if dices.len() > 1 {
        let (mean, sd) = mean_and_sd(&dices);
        let counted = dices.len();
        report.note = Some(format!("validation DSC {mean:.3} ± {sd:.3} over {counted} seeds"));
    }
    Ok(report)
}

/// Mean and sample standard deviation.
fn mean_and_sd(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, (squares / (n - 1.0).max(1.0)).sqrt())
}

/// One training: its samples to the learner, its model into the catalog.
async fn train(
    runner: &Runner<'_>,
    ctx: &SessionContext,
    step: &Step,
    action: &TrainStep,
    (seed, print, place): (u64, &str, usize),
) -> Result<TrainedModel> {
    let parent = parent(ctx, runner.pipeline, action).await?;
    let model_id = format!("{}-{}", step.name, &print[..10]);
    let mut job = job(runner, ctx, step, action, (seed, print, &model_id, parent.as_ref())).await?;
    job.place = place;
    let shards = shards(ctx, step).await?;
    let (train_cases, val_cases) = (job.train.len(), job.val.len());
    let Some(learner) = runner.learner.clone() else {
        return Err(Error::bug("a train step without a learner"));
    };
    let (observer, stop) = (Arc::clone(&runner.observer), runner.stop.clone());
    observer.begin(&step.name, u64::from(action.params.epochs as u32), 0);
    let name = step.name.clone();
    let span = tracing::Span::current();
    let trained = tokio::task::spawn_blocking(move || {
        let _in = span.enter();
        let events = Events::new(&job.folder);
        let tell = |event: &TrainEvent| {
            if let Some(problem) = events.tell(event) {
                observer.note(&problem);
            }
            observer.training(&name, event);
        };
        learner.train(job, &tell, &|| stop.is_set())
    })
    .await
    .map_err(|e| Error::bug(format!("the training thread ended: {e}")))?;
    runner.observer.end(&step.name);
    let trained = trained?;
    let row = json!({
        "model_id": model_id,
        "name": step.name,
        "architecture": action.params.model,
        "uri": trained.path.to_string_lossy(),
        "blake3": trained.blake3,
        "bytes": trained.bytes,
        "parameters": serde_json::to_string(&action.params).unwrap_or_default(),
        "epochs": trained.curve.len(),
        "best_epoch": trained.best_epoch,
        "best_val_dice": trained.best_val_dice,
        "train_cases": train_cases,
        "val_cases": val_cases,
        "parent": parent.map(|p| p.model_id),
        "parents": shards,
        "curve": serde_json::to_string(&trained.curve).unwrap_or_default(),
    });
    let mut record = Record { table: Table::Models, row };
    let lineage = Lineage { seed, ..runner.lineage.clone() };
    lineage.complete(&mut record, &step.name, "", print);
    runner.catalog.append_json(Table::Models, &[record.row]).await?;
    Ok(trained)
}

/// What the learner is asked to do.
async fn job(
    runner: &Runner<'_>,
    ctx: &SessionContext,
    step: &Step,
    action: &TrainStep,
    (seed, print, model_id, parent): (u64, &str, &str, Option<&ModelRow>),
) -> Result<TrainJob> {
    let query = samples(ctx, step).await?;
    let rows: Vec<SampleRow> = catalog::rows(&catalog::sql(ctx, &query).await?)?;
    let part = |name: &str| -> Result<Vec<SampleRef>> {
        let rows: Vec<_> = rows.iter().filter(|r| r.part == name).collect();
        if rows.is_empty() {
            return Err(Error::configuration(format!(
                "steps.{}: the part `{name}` has no samples",
                step.name
            ))
            .hint("look at `torcula failures`, or change the shares of the split"));
        }
        rows.into_iter().map(SampleRow::reference).collect()
    };
    let grid = plan::training_grid(runner.pipeline, &step.name)?;
    let mut metadata = BTreeMap::from([
        ("torcula.model_id".to_owned(), model_id.to_owned()),
        ("torcula.fingerprint".to_owned(), print.to_owned()),
        ("torcula.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("torcula.seed".to_owned(), seed.to_string()),
        ("torcula.resample".to_owned(), serde_json::to_string(&grid).unwrap_or_default()),
    ]);
    let (shards, _) = plan::shards_step(runner.pipeline, &step.name)?;
    if let Some(stages) = runner.pipeline.stages_of(shards) {
        let text = serde_json::to_string(&stages).map_err(|e| Error::bug(e.to_string()))?;
        metadata.insert("torcula.stages".to_owned(), text);
    }
    metadata.extend(parent.map(|p| ("torcula.parent".to_owned(), p.model_id.clone())));
    Ok(TrainJob {
        params: action.params.clone(),
        train: part(&action.train_part)?,
        val: part(&action.val_part)?,
        spacing_mm: grid.spacing_mm.unwrap_or([1.0; 3]),
        seed,
        parent: parent.map(|p| PathBuf::from(&p.uri)),
        folder: runner.pipeline.artifacts.join("models").join(model_id),
        metadata,
        fingerprint: print.to_owned(),
        place: 0,
    })
}

/// The training as TensorBoard shows it, in a file beside the model.
struct Events {
    folder: PathBuf,
    file: Mutex<Option<EventFile>>,
}

impl Events {
    fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), file: Mutex::new(None) }
    }

    /// Writes an epoch; why it could not be written, which is no reason to stop.
    fn tell(&self, event: &TrainEvent) -> Option<String> {
        let TrainEvent::Epoch(epoch) = event else { return None };
        let scalars = [
            ("loss/train", epoch.train_loss),
            ("dice/validation", epoch.val_dice),
            ("learning_rate", epoch.learning_rate),
            ("feed/samples_per_s", epoch.samples_per_s),
            ("feed/network_waited_share", epoch.feed_wait_share),
            ("feed/feed_waited_share", epoch.network_wait_share),
        ];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let write = |file: &mut Option<EventFile>| {
            let open = match file.take() {
                Some(open) => open,
                None => EventFile::create(&self.folder)?,
            };
            file.insert(open).scalars(epoch.epoch as i64, &scalars)
        };
        write(&mut file).err().map(|e| format!("the epoch is not in TensorBoard's file: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // statistics.mean([0.8, 0.9, 0.85]), statistics.stdev([0.8, 0.9, 0.85])
    #[test]
    fn the_spread_is_that_of_a_sample() {
        let (mean, sd) = mean_and_sd(&[0.8, 0.9, 0.85]);
        assert!((mean - 0.85).abs() < 1e-12 && (sd - 0.05).abs() < 1e-12, "{mean} {sd}");
        assert!(mean_and_sd(&[0.7]).1.abs() < 1e-12);
    }
}
